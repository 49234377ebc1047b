//! Which server is the primary, by what sentinels say and servers answer.
//!
//! Pure. Invariant: an address takes the place of another only if its configuration is newer, or if
//! the other one says itself that it is no primary. That it is silent shows nothing: only most
//! sentinels together, and by no older configuration, may name another then. What the server that
//! they name says is asked apart.

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

/// Whether most of so many sentinels say the same as an answer.
pub(super) fn is_agreed(answer: &Answer, answers: &[Answer], sentinels: usize) -> bool {
    let same = answers
        .iter()
        .filter(|other| other.primary == answer.primary && other.epoch == answer.epoch);
    same.count() > sentinels / 2
}

/// Whether an answer should take the place of what is believed, if its server says the same. `now`
/// is what the believed server says of itself. Without an epoch it is not known when that became
/// the primary.
pub(super) fn supplants(
    answer: &Answer,
    believed: Option<(&Address, Option<u64>)>,
    now: &Role,
    agreed: bool,
) -> bool {
    let Some((address, epoch)) = believed else {
        return true;
    };
    if *address == answer.primary {
        return false;
    }
    match epoch {
        _ if *now == Role::Other => true,
        None => agreed,
        Some(epoch) if answer.epoch > epoch => true,
        Some(epoch) => answer.epoch == epoch && agreed && matches!(now, Role::Silent(_)),
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
    fn what_is_older_supplants_only_what_says_that_it_is_no_primary() {
        let silent = Role::Silent("connection refused".into());
        let check =
            |primary, epoch, believed: Option<(u16, u64)>, now: &Role, expected: [bool; 2]| {
                let answer = answer(1, primary, epoch);
                let believed = believed.map(|(port, epoch)| (at(port), epoch));
                let believed = believed
                    .as_ref()
                    .map(|(address, epoch)| (address, Some(*epoch)));
                let found = [false, true].map(|agreed| supplants(&answer, believed, now, agreed));
                assert_eq!(found, expected, "{answer:?} {now:?}");
            };
        check(7, 0, None, &Role::Other, [true, true]);
        check(7, 5, Some((7, 4)), &Role::Primary, [false, false]);
        check(8, 5, Some((7, 4)), &Role::Primary, [true, true]);
        check(8, 4, Some((7, 4)), &Role::Primary, [false, false]);
        check(8, 4, Some((7, 4)), &Role::Untold, [false, false]);
        check(8, 4, Some((7, 4)), &Role::Other, [true, true]);
        check(8, 3, Some((7, 4)), &Role::Other, [true, true]);
        // One that is out of date must not lead back to a former primary while the present one
        // does not answer.
        check(8, 3, Some((7, 4)), &silent, [false, false]);
        check(8, 4, Some((7, 4)), &silent, [false, true]);
    }

    #[test]
    fn what_a_reload_finds_gives_way_to_most_sentinels_only() {
        let found = at(7);
        for (now, agreed, expected) in [
            (Role::Primary, false, false),
            (Role::Silent("connection refused".into()), false, false),
            (Role::Other, false, true),
            (Role::Primary, true, true),
        ] {
            let known = Some((&found, None));
            assert_eq!(
                supplants(&answer(1, 8, 9), known, &now, agreed),
                expected,
                "{now:?}"
            );
            assert!(!supplants(&answer(1, 7, 9), known, &now, agreed));
        }
    }

    #[test]
    fn most_of_the_known_sentinels_agree_or_do_not() {
        let answers = [answer(1, 7, 2), answer(2, 7, 2), answer(3, 8, 2)];
        assert!(is_agreed(&answers[0], &answers, 3));
        assert!(!is_agreed(&answers[0], &answers, 4));
        assert!(!is_agreed(&answers[2], &answers, 3));
    }
}
