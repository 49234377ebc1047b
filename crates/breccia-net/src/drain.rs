//! The phases in which a gateway stops.
//!
//! Not a counter of connections: `WorkerPool` waits for those. Invariant: phases only advance, and
//! whoever waits for a phase that has passed is answered at once.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

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
    /// Those that drain when this one does.
    children: Mutex<Vec<Weak<Inner>>>,
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
                children: Mutex::default(),
            }),
        }
    }

    /// A part of the gateway, which may stop alone. It is at least as far as the whole.
    #[must_use]
    pub fn child(&self) -> Self {
        let child = Self::new();
        let mut children = self.inner.children();
        children.retain(|known| known.strong_count() > 0);
        children.push(Arc::downgrade(&child.inner));
        drop(children);
        // Whoever advances the whole from here on knows of the child.
        child.inner.advance(self.phase());
        child
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
        self.inner.advance(Phase::Draining);
    }

    /// Ends the drain: everything still open is closed.
    pub fn close(&self) {
        self.inner.advance(Phase::Closing);
    }

    async fn reached(&self, wanted: Phase) {
        let mut receiver = self.inner.sender.subscribe();
        // The sender lives in `self`, so the channel cannot close while this waits.
        let _ = receiver.wait_for(|phase| *phase >= wanted).await;
    }
}

impl Inner {
    fn children(&self) -> MutexGuard<'_, Vec<Weak<Inner>>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn advance(&self, to: Phase) {
        self.sender.send_if_modified(|phase| {
            if *phase >= to {
                return false;
            }
            *phase = to;
            self.phase.store(to as u8, Ordering::Relaxed);
            true
        });
        let children = self.children();
        let children: Vec<Arc<Self>> = children.iter().filter_map(Weak::upgrade).collect();
        for child in children {
            child.advance(to);
        }
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
    async fn a_part_stops_alone_or_with_the_whole() {
        let whole = Drain::new();
        let (part, other) = (whole.child(), whole.child());
        part.begin();
        let phases = |drains: [&Drain; 3]| drains.map(Drain::phase);
        let all = [&whole, &part, &other];
        assert_eq!(
            phases(all),
            [Phase::Running, Phase::Draining, Phase::Running]
        );
        whole.begin();
        assert_eq!(phases(all), [Phase::Draining; 3]);
        assert_eq!(whole.child().phase(), Phase::Draining);
        whole.close();
        assert_eq!(phases(all), [Phase::Closing; 3]);
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
