//! Which of several replicas answers a read.
//!
//! Pure; not whether a replica may. Invariant: each of those that fit can be chosen while they rest, as
//! often as its weight says, and of the two that were drawn the busier one for its weight never is.

/// A replica that may be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its number.
    pub server: usize,
    /// Its share of the reads next to the others', at least 1.
    pub weight: u32,
    /// Statements and transactions that run there now.
    pub running: usize,
}

impl Candidate {
    /// Whether this has less to do for its weight.
    fn is_less_busy_than(self, other: Candidate) -> bool {
        let of = |running: usize, weight: u32| running as u64 * u64::from(weight.max(1));
        of(self.running, other.weight) < of(other.running, self.weight)
    }
}

/// Of two that are drawn by their weights, by `random`, the one with less to do, and of two with as
/// much to do the one that was drawn first; `None`: there is none.
///
/// Two choices instead of the least busy of all, so that many gateways, or workers, that see the same
/// do not all go to the same server (Mitzenmacher, "The Power of Two Choices in Randomized Load
/// Balancing", 2001).
#[must_use]
pub fn choose<I>(fitting: I, random: u64) -> Option<usize>
where
    I: Iterator<Item = Candidate> + Clone,
{
    let first = draw(fitting.clone(), random & u64::from(u32::MAX))?;
    let others = fitting.filter(|it| it.server != first.server);
    let chosen = match draw(others, random >> 32) {
        Some(second) if second.is_less_busy_than(first) => second,
        _ => first,
    };
    Some(chosen.server)
}

/// One of them, by weight.
fn draw<I>(mut fitting: I, random: u64) -> Option<Candidate>
where
    I: Iterator<Item = Candidate> + Clone,
{
    let all: u64 = fitting.clone().map(|it| u64::from(it.weight.max(1))).sum();
    let mut at = random.checked_rem(all)?;
    fitting.find(|it| {
        let here = u64::from(it.weight.max(1));
        let found = at < here;
        at = at.saturating_sub(here);
        found
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(server: usize, weight: u32, running: usize) -> Candidate {
        Candidate {
            server,
            weight,
            running,
        }
    }

    fn of(candidates: &[Candidate], first: u64, second: u64) -> Option<usize> {
        choose(candidates.iter().copied(), second << 32 | first)
    }

    #[test]
    fn the_less_busy_of_two_is_chosen_by_weight() {
        let both = [candidate(0, 1, 2), candidate(1, 4, 7)];
        for first in 0..5 {
            assert_eq!(of(&both, first, 0), Some(1), "7 for 4 is less than 2 for 1");
        }
        let both = [candidate(0, 1, 1), candidate(1, 4, 7)];
        for first in 0..5 {
            assert_eq!(of(&both, first, 0), Some(0), "1 for 1 is less than 7 for 4");
        }
    }

    #[test]
    fn those_that_rest_are_chosen_as_often_as_their_weights_say() {
        let both = [candidate(0, 1, 0), candidate(1, 3, 0)];
        let chosen = (0..400).filter(|random| of(&both, *random, 0) == Some(1));
        assert_eq!(chosen.count(), 300);
    }

    #[test]
    fn two_that_differ_are_drawn() {
        let three = [candidate(4, 1, 9), candidate(5, 1, 1), candidate(6, 1, 5)];
        let all = (0..3).flat_map(|first| (0..2).map(move |second| (first, second)));
        for (first, second) in all {
            assert_ne!(of(&three, first, second), Some(4));
        }
    }

    #[test]
    fn of_one_there_is_no_choice_and_of_none_nothing() {
        assert_eq!(choose(std::iter::empty(), 7), None);
        assert_eq!(choose([candidate(2, 1, 3)].into_iter(), u64::MAX), Some(2));
        assert_eq!(choose([candidate(2, 0, 3)].into_iter(), 0), Some(2));
    }
}
