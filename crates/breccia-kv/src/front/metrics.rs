//! What one listener counts on one worker. Counters are made when first needed, so a command that
//! nobody uses costs no series.
//!
//! Invariant: nothing here reads the clock or locks anything on the way of a request.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use breccia_core::error::Effect;
use breccia_net::clock;
use breccia_net::metrics::{self, Counter, Gauge, Histogram, Registry};

use super::client::Client;
use super::slow::SlowLog;
use crate::pipeline::{Cause, Failure};
use crate::topology::LeafIndex;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A reply that is no error.
    Answered,
    /// An error, from the shard or from here.
    Error,
    /// The shard is down or busy; not applied.
    Refused,
    /// A wait was over; not applied.
    Expired,
    /// Sent, and nobody knows what became of it.
    Unknown,
}

const OUTCOMES: [&str; 5] = ["ok", "error", "refused", "expired", "unknown"];

impl Outcome {
    pub(crate) fn of(failure: &Failure) -> Self {
        match (failure.effect, &failure.cause) {
            (Effect::Unknown, _) => Self::Unknown,
            (Effect::NotApplied, Cause::Deadline) => Self::Expired,
            (Effect::NotApplied, _) => Self::Refused,
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}

type Counters = [OnceCell<Counter>; OUTCOMES.len()];

/// See the module's page.
pub(crate) struct FrontMetrics {
    /// The name of the command in each row.
    name_of: fn(usize) -> Option<&'static str>,
    listener: String,
    registry: Registry,
    commands: Vec<Counters>,
    /// Path and store name of each leaf, with its counters.
    leaves: Vec<(String, String, Counters)>,
    /// Servers of clusters that were met since: the path of each, and the leaf it counts as.
    further: RefCell<Vec<(String, LeafIndex)>>,
    seconds: Histogram,
    /// Where slow requests are kept, if they are.
    slow: OnceCell<Arc<SlowLog>>,
    /// When the present second of slow requests began, and how many it had.
    slow_second: Cell<Option<(Instant, u32)>>,
}

/// Slow requests that one worker keeps in a second: behind a shard that is far away all are slow.
const SLOW_PER_SECOND: u32 = 16;

/// What one worker counts about its connections to one store.
#[derive(Debug)]
pub struct StoreMetrics {
    connections: Gauge,
    seconds: Histogram,
}

impl StoreMetrics {
    /// The store's counters; make one per worker and store.
    #[must_use]
    pub fn new(registry: &Registry, store: &str) -> Rc<Self> {
        Rc::new(Self {
            connections: registry.gauge(&metrics::STORE_CONNECTIONS, &[store, "open"]),
            seconds: registry.histogram(&metrics::STORE_SECONDS, &[store]),
        })
    }

    pub(crate) fn connected(&self) {
        self.connections.increment();
    }

    pub(crate) fn disconnected(&self) {
        self.connections.decrement();
    }

    pub(crate) fn answered_after(&self, time: Duration) {
        self.seconds.observe(time);
    }
}

/// The row that counts what is no command of the table.
pub(crate) const UNKNOWN_ROW: u16 = u16::MAX;

impl FrontMetrics {
    /// `name_of` names the commands of the `rows` that are counted; `leaves` are paths and store
    /// names, in the order of the topology.
    pub(crate) fn new(
        rows: usize,
        name_of: fn(usize) -> Option<&'static str>,
        listener: String,
        registry: Registry,
        leaves: Vec<(String, String)>,
    ) -> Self {
        Self {
            seconds: registry.histogram(&metrics::REQUEST_SECONDS, &[&listener]),
            name_of,
            listener,
            registry,
            further: RefCell::default(),
            slow: OnceCell::new(),
            slow_second: Cell::new(None),
            // One row more, for unknown commands.
            commands: (0..=rows).map(|_| Counters::default()).collect(),
            leaves: leaves
                .into_iter()
                .map(|(path, store)| (path, store, Counters::default()))
                .collect(),
        }
    }

    /// The path of a leaf of the topology.
    pub(crate) fn leaf_name(&self, leaf: LeafIndex) -> &str {
        let found = self.leaves.get(leaf.get());
        found.map_or("a shard", |(path, ..)| path)
    }

    /// The same, also of a server that was met later.
    pub(crate) fn place_name(&self, leaf: LeafIndex) -> Cow<'_, str> {
        let Some(later) = leaf.get().checked_sub(self.leaves.len()) else {
            return Cow::Borrowed(self.leaf_name(leaf));
        };
        let further = self.further.borrow();
        let found = further.get(later);
        found.map_or("a shard".into(), |(path, _)| Cow::Owned(path.clone()))
    }

    /// One more server, which counts as the leaf that it belongs to. Its place is the next one.
    pub(crate) fn add_leaf(&self, path: String, counts_as: LeafIndex) {
        self.further.borrow_mut().push((path, counts_as));
    }

    /// What a server that was met later counts as.
    fn counted_leaf(&self, leaf: LeafIndex) -> LeafIndex {
        let later = leaf.get().checked_sub(self.leaves.len());
        let further = self.further.borrow();
        let found = later.and_then(|place| further.get(place));
        found.map_or(leaf, |(_, counts_as)| *counts_as)
    }

    pub(crate) fn count(&self, row: u16, outcome: Outcome) {
        let row = usize::from(row).min(self.commands.len().saturating_sub(1));
        let Some(counter) = self
            .commands
            .get(row)
            .and_then(|row| row.get(outcome.index()))
        else {
            return;
        };
        counter
            .get_or_init(|| {
                let name = (self.name_of)(row).unwrap_or("unknown");
                let outcome = OUTCOMES.get(outcome.index()).copied().unwrap_or_default();
                self.registry
                    .counter(&metrics::REQUESTS, &[&self.listener, name, outcome])
            })
            .increment();
    }

    pub(crate) fn count_leaf(&self, leaf: LeafIndex, outcome: Outcome) {
        let found = self.leaves.get(leaf.get());
        let Some((_, store, counters)) =
            found.or_else(|| self.leaves.get(self.counted_leaf(leaf).get()))
        else {
            return;
        };
        let Some(counter) = counters.get(outcome.index()) else {
            return;
        };
        counter
            .get_or_init(|| {
                let outcome = OUTCOMES.get(outcome.index()).copied().unwrap_or_default();
                self.registry
                    .counter(&metrics::STORE_REQUESTS, &[store, outcome])
            })
            .increment();
    }

    pub(crate) fn observe(&self, begun: Instant) {
        self.seconds
            .observe(clock::now().saturating_duration_since(begun));
    }

    /// Keeps slow requests from now on.
    pub(crate) fn keep_slow(&self, log: Arc<SlowLog>) {
        let _first = self.slow.set(log);
    }

    /// Keeps a slow request.
    pub(crate) fn slow(
        &self,
        (row, leaf): (u16, LeafIndex),
        client: &Client,
        (took, now): (Duration, Instant),
    ) {
        let Some(log) = self.slow.get() else {
            return;
        };
        let present = self.slow_second.get();
        let present = present
            .filter(|(began, _)| now.saturating_duration_since(*began) < Duration::from_secs(1));
        let (began, count) = present.unwrap_or((now, 0));
        self.slow_second.set(Some((began, count.saturating_add(1))));
        if count < SLOW_PER_SECOND {
            let name = (self.name_of)(row.into()).unwrap_or("unknown");
            let whose = (client.id, client.peer.as_str());
            log.add(took, name, &self.place_name(leaf), whose);
        }
    }

    /// Counts a limit that was met.
    pub(crate) fn limit_hit(&self, limit: &str) {
        self.registry
            .counter(&metrics::LIMIT_HITS, &[&self.listener, limit])
            .increment();
    }

    /// Counts a multi-key command whose keys share a shard but not a slot.
    pub(crate) fn same_shard_only(&self) {
        self.registry
            .counter(&metrics::MULTIKEY_SAME_SHARD, &[])
            .increment();
    }
}
