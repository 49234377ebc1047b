//! The phases in which a gateway stops.
//!
//! Not a counter of connections: `WorkerPool` waits for those. Invariant: phases only advance, and
//! whoever waits for a phase that has passed is answered at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::watch;

/// How far a gateway is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Requests are taken.
    Running,
    /// No connection is accepted; requests received are answered, then connections are closed.
    Draining,
    /// The drain timeout has passed: whatever is open is closed now.
    Closing,
}

impl Phase {
    fn from_u8(value: u8) -> Self {
        match value {
            0 => Self::Running,
            1 => Self::Draining,
            _ => Self::Closing,
        }
    }
}

/// A shared view of the phase. Clones see the same one.
#[derive(Debug, Clone)]
pub struct Drain {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    phase: AtomicU8,
    sender: watch::Sender<Phase>,
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl Drain {
    /// A gateway that runs.
    #[must_use]
    pub fn new() -> Self {
        let (sender, _) = watch::channel(Phase::Running);
        Self {
            inner: Arc::new(Inner {
                phase: AtomicU8::new(0),
                sender,
            }),
        }
    }

    /// The phase now: one relaxed load, fit for a hot path.
    #[must_use]
    pub fn phase(&self) -> Phase {
        Phase::from_u8(self.inner.phase.load(Ordering::Relaxed))
    }

    /// Returns when the gateway drains (or closes).
    pub async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Returns when the drain timeout has passed.
    pub async fn closing(&self) {
        self.reached(Phase::Closing).await;
    }

    /// Starts to drain.
    pub fn begin(&self) {
        self.advance(Phase::Draining);
    }

    /// Ends the drain: everything still open is closed.
    pub fn close(&self) {
        self.advance(Phase::Closing);
    }

    async fn reached(&self, wanted: Phase) {
        let mut receiver = self.inner.sender.subscribe();
        // The sender lives in `self`, so the channel cannot close while this waits.
        let _ = receiver.wait_for(|phase| *phase >= wanted).await;
    }

    fn advance(&self, to: Phase) {
        self.inner.sender.send_if_modified(|phase| {
            if *phase >= to {
                return false;
            }
            *phase = to;
            self.inner.phase.store(to as u8, Ordering::Relaxed);
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn phases_only_advance() {
        let drain = Drain::new();
        assert_eq!(drain.phase(), Phase::Running);
        drain.close();
        drain.begin();
        assert_eq!(drain.phase(), Phase::Closing);
        drain.draining().await;
        drain.closing().await;
    }

    #[tokio::test]
    async fn clones_hear_of_the_drain() {
        let drain = Drain::new();
        let other = drain.clone();
        let waiting = tokio::spawn(async move { other.draining().await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drain.begin();
        waiting.await.expect("the waiting task ends");
    }
}
