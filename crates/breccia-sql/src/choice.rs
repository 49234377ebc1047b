//! Which of several replicas answers a read.
//!
//! Pure; not whether a replica may. Invariant: each of those that fit can be drawn, and of two that
//! were drawn the busier one for its weight never is chosen.

/// Of two drawn at random, by `random`, the one with less to do; `None`: there is none.
#[must_use]
pub fn choose<I>(fitting: I, random: u64, load: impl Fn(usize) -> u64) -> Option<usize>
where
    I: Iterator<Item = usize> + Clone,
{
    let count = fitting.clone().count();
    if count == 0 {
        return None;
    }
    let draw = |random: u64| usize::try_from(random % count as u64).unwrap_or(0);
    let mut again = fitting.clone();
    let first = again.nth(draw(random))?;
    let mut again = fitting;
    let second = again.nth(draw(random >> 32))?;
    Some(if load(second) < load(first) {
        second
    } else {
        first
    })
}

/// What a server has to do for its weight, once one statement more runs there.
#[must_use]
pub fn load(running: usize, weight: u32) -> u64 {
    (running as u64 + 1) * 1000 / u64::from(weight.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_less_loaded_of_two_is_chosen_by_weight() {
        let loads = [load(4, 1), load(4, 4), load(0, 1)];
        let of = |server: usize| loads.get(server).copied().unwrap_or(u64::MAX);
        let both = |first: u64, second: u64| choose([0, 1].into_iter(), second << 32 | first, of);
        assert_eq!(both(0, 1), Some(1));
        assert_eq!(both(1, 0), Some(1));
        assert_eq!(both(0, 0), Some(0));
        assert_eq!(choose(std::iter::empty(), 7, of), None);
        assert_eq!(choose([2].into_iter(), u64::MAX, of), Some(2));
    }
}
