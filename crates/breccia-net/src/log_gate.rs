//! Rate limiting of log lines that traffic can repeat.
//!
//! Not a logger: the caller writes the line. Invariant: no more lines pass in a period than the gate
//! allows, and the next one that passes knows how many were held back.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Lets a few lines through per period.
#[derive(Debug)]
pub struct LogGate {
    every: Duration,
    lines: u32,
    state: Mutex<GateState>,
}

#[derive(Debug, Default)]
struct GateState {
    /// When the period began.
    since: Option<Instant>,
    /// The lines that have passed in it.
    passed: u32,
    held_back: u64,
}

impl LogGate {
    /// A gate that is open for one line every `every`.
    #[must_use]
    pub const fn new(every: Duration) -> Self {
        Self::of_several(1, every)
    }

    /// A gate that is open for `lines` in a period of `every`, which begins with its first line: of a
    /// few different things that happen at once, each is told.
    #[must_use]
    pub const fn of_several(lines: u32, every: Duration) -> Self {
        Self {
            every,
            lines,
            state: Mutex::new(GateState {
                since: None,
                passed: 0,
                held_back: 0,
            }),
        }
    }

    /// `Some(lines held back since the last one)` if the caller may log now.
    pub fn pass(&self, now: Instant) -> Option<u64> {
        let mut state = self
            .state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let goes_on = state
            .since
            .is_some_and(|since| now.saturating_duration_since(since) < self.every);
        if !goes_on {
            state.since = Some(now);
            state.passed = 0;
        }
        if state.passed >= self.lines {
            state.held_back = state.held_back.saturating_add(1);
            return None;
        }
        state.passed += 1;
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_passes_per_period_and_counts_the_others() {
        let gate = LogGate::new(Duration::from_secs(1));
        let start = crate::clock::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(gate.pass(at(0)), Some(0));
        assert_eq!(gate.pass(at(1)), None);
        assert_eq!(gate.pass(at(999)), None);
        assert_eq!(gate.pass(at(1000)), Some(2));
        assert_eq!(gate.pass(at(2500)), Some(0));
    }

    #[test]
    fn a_gate_of_several_passes_as_many_at_once_and_no_more_in_its_period() {
        let gate = LogGate::of_several(3, Duration::from_secs(1));
        let start = crate::clock::now();
        let at = |ms| start + Duration::from_millis(ms);
        let passed: Vec<_> = [0, 0, 1, 1, 999, 1000, 1000]
            .map(|ms| gate.pass(at(ms)))
            .into();
        let expected = [Some(0), Some(0), Some(0), None, None, Some(2), Some(0)];
        assert_eq!(passed, expected);
    }
}
