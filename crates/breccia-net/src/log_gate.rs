//! Rate limiting of log lines that traffic can repeat.
//!
//! Not a logger: the caller writes the line. Invariant: at most one line passes per period, and the
//! next one that passes knows how many were held back.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Lets one line through per period.
#[derive(Debug)]
pub struct LogGate {
    every: Duration,
    state: Mutex<GateState>,
}

#[derive(Debug, Default)]
struct GateState {
    last: Option<Instant>,
    held_back: u64,
}

impl LogGate {
    /// A gate that is open for one line every `every`.
    #[must_use]
    pub const fn new(every: Duration) -> Self {
        Self {
            every,
            state: Mutex::new(GateState {
                last: None,
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
        if state
            .last
            .is_some_and(|last| now.saturating_duration_since(last) < self.every)
        {
            state.held_back = state.held_back.saturating_add(1);
            return None;
        }
        state.last = Some(now);
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
}
