//! The only clock and the only source of randomness of Breccia.
//!
//! Not a timer: sleeping and timeouts are tokio's. Invariant: no other crate reads the time or makes
//! a seed by itself, so a test that pauses tokio's clock pauses everything.

use std::hash::{BuildHasher, Hasher};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The monotonic time. It stands still under tokio's paused test clock.
#[must_use]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Milliseconds since the Unix epoch by the wall clock; 0 if the clock stands before 1970.
#[must_use]
pub fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}

/// A number that differs from call to call and from process to process. Not for secrets.
#[must_use]
pub fn seed() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_clock_is_after_this_code_was_written() {
        assert!(unix_ms() > 1_700_000_000_000);
    }

    #[test]
    fn seeds_differ() {
        assert_ne!(seed(), seed());
    }

    #[tokio::test(start_paused = true)]
    async fn now_stands_still_under_a_paused_clock() {
        let before = now();
        tokio::time::advance(std::time::Duration::from_mins(1)).await;
        assert_eq!(now() - before, std::time::Duration::from_mins(1));
    }
}
