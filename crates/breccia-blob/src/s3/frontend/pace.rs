//! Whether a client keeps up with `min-body-rate`, by the time that we wait for it.
//!
//! Not a limit on how fast anybody may be, and no clock: callers say how long they waited. Invariant:
//! the time that a store takes is never held against a client.

use std::time::Duration;

/// How much waiting is looked at together; also the grace at the beginning.
pub(super) const WINDOW: Duration = Duration::from_secs(10);

/// The bytes and the waiting of the window that is open.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes a second; 0: any.
    least: u64,
    bytes: u64,
    waited: Duration,
}

impl Pace {
    /// A client that has done nothing yet.
    pub(super) fn new(least: u64) -> Self {
        Self {
            least,
            bytes: 0,
            waited: Duration::ZERO,
        }
    }

    /// How much longer the client may be waited for before the window is full.
    pub(super) fn patience(&self) -> Option<Duration> {
        (self.least > 0).then(|| WINDOW.saturating_sub(self.waited))
    }

    /// Takes in what came after some waiting; answers whether the client is fast enough.
    pub(super) fn keeps(&mut self, waited: Duration, bytes: u64) -> bool {
        self.waited = self.waited.saturating_add(waited);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.least == 0 || self.waited < WINDOW {
            return true;
        }
        let needed = self.least.saturating_mul(self.waited.as_secs());
        let fast_enough = self.bytes >= needed;
        self.bytes = 0;
        self.waited = Duration::ZERO;
        fast_enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_waiting_counts_and_windows_begin_anew() {
        let second = Duration::from_secs(1);
        let mut pace = Pace::new(100);
        for _ in 0..9 {
            assert!(pace.keeps(second, 1), "the window is still open");
        }
        assert_eq!(pace.patience(), Some(second));
        assert!(!pace.keeps(second, 1));
        assert!(pace.keeps(WINDOW, 1000));
        assert!(pace.keeps(Duration::ZERO, 0));
        assert!(!pace.keeps(WINDOW, 999));
        let mut any = Pace::new(0);
        assert!(any.keeps(WINDOW, 0));
        assert_eq!(any.patience(), None);
    }
}
