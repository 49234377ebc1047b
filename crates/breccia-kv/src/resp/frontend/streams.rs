//! The places of requests that are streamed to one server, and who keeps one for too long.
//!
//! Not the bytes; see [`super::large`]. Invariant: a sender is ended for its pace only while another
//! waits for a place, and never for that of the server.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use breccia_net::clock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::leaf::RespUpstream;
use crate::front::client::{Client, Ending};

/// Requests that may be streamed to one server at once by one worker.
pub(crate) const MAX_STREAMS: usize = 16;
/// While others wait for a place, who sends fewer bytes a second loses it, the slowest first.
const HURRIED_RATE: u64 = 256 * 1024;
/// The pace of a sender is measured over windows of this length.
const PACE_WINDOW: Duration = Duration::from_secs(3);
/// How often the slowest sender is looked for while somebody waits.
const LOOK: Duration = Duration::from_millis(500);
/// A server that has less room than this for more of a request is the one that is waited for.
const FREE_ROOM: usize = 128 * 1024;

/// The places of streamed requests to one server.
#[derive(Clone)]
pub(crate) struct Streams {
    places: Arc<Semaphore>,
    senders: Rc<RefCell<Vec<Weak<Sender>>>>,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(MAX_STREAMS)),
            senders: Rc::default(),
        }
    }
}

/// A place among [`MAX_STREAMS`], given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place(#[expect(dead_code, reason = "held, not looked at")] OwnedSemaphorePermit);

/// Whoever sends a request that is streamed.
pub(crate) struct Sender {
    client: Rc<Client>,
    upstream: Rc<RespUpstream>,
    pace: Pace,
}

impl Streams {
    /// A place, if one is free.
    pub(crate) fn try_take(&self) -> Option<Place> {
        Arc::clone(&self.places).try_acquire_owned().ok().map(Place)
    }

    /// Waits for a place; `None`: for too long.
    pub(crate) async fn wait(self, patience: Duration) -> Option<Place> {
        let hurrying = async {
            loop {
                self.end_slowest(clock::now());
                tokio::time::sleep(LOOK).await;
            }
        };
        let found = tokio::select! {
            found = Arc::clone(&self.places).acquire_owned() => found.ok(),
            () = tokio::time::sleep(patience) => None,
            () = hurrying => None,
        };
        found.map(Place)
    }

    /// Watches who has a place.
    pub(crate) fn watch(&self, client: &Rc<Client>, upstream: &Rc<RespUpstream>) -> Rc<Sender> {
        let sender = Rc::new(Sender {
            client: Rc::clone(client),
            upstream: Rc::clone(upstream),
            pace: Pace::new(clock::now()),
        });
        let mut senders = self.senders.borrow_mut();
        senders.retain(|known| known.strong_count() > 0);
        senders.push(Rc::downgrade(&sender));
        sender
    }

    fn end_slowest(&self, now: Instant) {
        let senders = self.senders.borrow();
        let slowest = senders
            .iter()
            .filter_map(Weak::upgrade)
            .filter(|sender| sender.client.ending().is_none() && sender.is_waited_for())
            .filter_map(|sender| Some((sender.pace.rate(now)?, sender)))
            .min_by_key(|(rate, _)| *rate);
        if let Some((rate, sender)) = slowest
            && rate < HURRIED_RATE
        {
            sender.client.end(Ending::Now("min-body-rate"));
        }
    }
}

impl Sender {
    /// Bytes of its request were passed on.
    pub(crate) fn sent(&self, bytes: usize, now: Instant) {
        self.pace.count(bytes, now, self.is_waited_for());
    }

    /// Whether the server would take more.
    fn is_waited_for(&self) -> bool {
        self.upstream.takes().is_some_and(|room| room >= FREE_ROOM)
    }
}

/// How fast somebody sends.
struct Pace {
    /// When the present window began, and the bytes since.
    window: Cell<(Instant, u64)>,
    /// Bytes a second in the window before, if the sender alone is to blame.
    last: Cell<Option<u64>>,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self {
            window: Cell::new((now, 0)),
            last: Cell::new(None),
        }
    }

    fn count(&self, bytes: usize, now: Instant, own: bool) {
        if let Some(rate) = self.whole(now) {
            self.last.set(own.then_some(rate));
            self.window.set((now, 0));
        }
        let (since, before) = self.window.get();
        self.window.set((since, before + bytes as u64));
    }

    /// Bytes a second in the latest whole window; `None`: there was none yet.
    fn rate(&self, now: Instant) -> Option<u64> {
        self.whole(now).or(self.last.get())
    }

    fn whole(&self, now: Instant) -> Option<u64> {
        let (since, bytes) = self.window.get();
        let took = now.saturating_duration_since(since);
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        (took >= PACE_WINDOW).then(|| bytes.saturating_mul(1000) / millis.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_known_after_a_window_and_is_that_of_the_latest() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let pace = Pace::new(start);
        pace.count(3_000_000, at(10), true);
        assert_eq!(pace.rate(at(2_999)), None);
        assert_eq!(pace.rate(at(3_000)), Some(1_000_000));
        pace.count(30, at(3_000), true);
        assert_eq!(pace.rate(at(4_000)), Some(1_000_000), "the last one");
        assert_eq!(pace.rate(at(6_000)), Some(10));
        pace.count(1, at(6_000), false);
        assert_eq!(pace.rate(at(7_000)), None, "the server took nothing more");
        assert_eq!(pace.rate(at(16_000)), Some(0), "nothing comes");
    }
}
