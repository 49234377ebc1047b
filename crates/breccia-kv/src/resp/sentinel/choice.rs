//! Which server is the primary, by what sentinels say and servers answer.
//!
//! Pure. Invariant: an address takes the place of another only if its configuration is newer, or if
//! the other one is known to be no primary any more; what the server itself says is asked apart.

use breccia_core::address::Address;

/// What one sentinel says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// The sentinel.
    pub(super) from: Address,
    /// The primary.
    pub(super) primary: Address,
    /// The epoch of the configuration that says so: the newest counts.
    pub(super) epoch: u64,
}

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Role {
    /// It is a primary.
    Primary,
    /// It is something else.
    Other,
    /// It answers, but not this: the login may not ask, or a script runs.
    Untold,
    /// It does not answer; why.
    Silent(String),
}

impl Role {
    /// Whether a server may be used as a primary if others say that it is one.
    pub(super) fn may_lead(&self) -> bool {
        matches!(self, Self::Primary | Self::Untold)
    }
}

/// The newest of the answers; of several that are as new, what most say.
pub(super) fn newest(answers: &[Answer]) -> Option<&Answer> {
    let votes = |answer: &Answer| {
        let same = answers
            .iter()
            .filter(|other| other.primary == answer.primary && other.epoch == answer.epoch);
        same.count()
    };
    let mut best: Option<&Answer> = None;
    for answer in answers {
        let better =
            best.is_none_or(|best| (answer.epoch, votes(answer)) > (best.epoch, votes(best)));
        if better {
            best = Some(answer);
        }
    }
    best
}

/// Whether an answer should take the place of what is believed, if its server says the same.
pub(super) fn supplants(answer: &Answer, believed: Option<(&Address, u64)>, now: &Role) -> bool {
    match believed {
        None => true,
        Some((address, epoch)) => {
            *address != answer.primary && (answer.epoch > epoch || !now.may_lead())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Address {
        Address::tcp("10.0.0.1", port).unwrap()
    }

    fn answer(from: u16, primary: u16, epoch: u64) -> Answer {
        Answer {
            from: at(from),
            primary: at(primary),
            epoch,
        }
    }

    #[test]
    fn the_newest_configuration_counts_and_then_the_number_of_sentinels() {
        let check = |answers: &[Answer], expected: Option<u16>| {
            let found = newest(answers).map(|answer| answer.primary.clone());
            assert_eq!(found, expected.map(at), "{answers:?}");
        };
        check(&[], None);
        check(
            &[answer(1, 7, 2), answer(2, 8, 3), answer(3, 7, 2)],
            Some(8),
        );
        check(
            &[answer(1, 7, 2), answer(2, 8, 2), answer(3, 8, 2)],
            Some(8),
        );
        check(&[answer(1, 7, 2), answer(2, 8, 2)], Some(7));
    }

    #[test]
    fn what_is_older_supplants_only_what_is_no_primary_any_more() {
        let silent = Role::Silent("connection refused".into());
        let check = |answer: Answer, believed: Option<(u16, u64)>, now: &Role, expected| {
            let believed = believed.map(|(port, epoch)| (at(port), epoch));
            let believed = believed.as_ref().map(|(address, epoch)| (address, *epoch));
            assert_eq!(supplants(&answer, believed, now), expected, "{answer:?}");
        };
        check(answer(1, 7, 0), None, &Role::Other, true);
        check(answer(1, 7, 5), Some((7, 4)), &Role::Primary, false);
        check(answer(1, 8, 5), Some((7, 4)), &Role::Primary, true);
        check(answer(1, 8, 4), Some((7, 4)), &Role::Primary, false);
        check(answer(1, 8, 4), Some((7, 4)), &Role::Untold, false);
        check(answer(1, 8, 4), Some((7, 4)), &Role::Other, true);
        check(answer(1, 8, 3), Some((7, 4)), &silent, true);
    }
}
