//! What one listener counts on one worker.
//!
//! Counters are made when first needed, so an operation that nobody uses costs no series. Invariant:
//! nothing here locks anything on the way of a request whose counter is there.

use std::cell::OnceCell;
use std::time::Instant;

use breccia_core::error::Effect;
use breccia_net::clock;
use breccia_net::metrics::{self, Counter, Histogram, Registry};
use hyper::StatusCode;

use super::operation::Operation;
use super::refusal::Refusal;

const OUTCOMES: [&str; 4] = ["ok", "error", "refused", "unknown"];

/// The limit on requests in flight on a listener.
pub(super) const MAX_IN_FLIGHT: &str = "max-in-flight";
/// The memory of bodies in flight.
pub(super) const BUFFER_MEMORY: &str = "buffer-memory";
const LIMITS: [&str; 2] = [MAX_IN_FLIGHT, BUFFER_MEMORY];

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was carried out.
    Answered,
    /// An error that the client is told, such as no such key.
    Error,
    /// A store is down or busy, or a limit is reached; not applied.
    Refused,
    /// Nobody knows what became of it.
    Unknown,
}

impl Outcome {
    /// How a refused request ended.
    pub(super) fn of(refusal: &Refusal, status: StatusCode) -> Self {
        match refusal {
            Refusal::Blob(error) if error.effect() == Effect::Unknown => Self::Unknown,
            _ if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED => Self::Refused,
            _ if status == StatusCode::NOT_MODIFIED => Self::Answered,
            _ => Self::Error,
        }
    }
}

/// See the module's page.
pub(super) struct Metrics {
    listener: String,
    registry: Registry,
    /// One row an operation, and one for what is none.
    rows: Vec<[OnceCell<Counter>; OUTCOMES.len()]>,
    seconds: Histogram,
    /// A row a limit.
    limits: [OnceCell<Counter>; LIMITS.len()],
}

impl Metrics {
    pub(super) fn new(listener: &str, registry: &Registry) -> Self {
        Self {
            listener: listener.to_owned(),
            registry: registry.clone(),
            rows: (0..=Operation::ALL.len())
                .map(|_| Default::default())
                .collect(),
            seconds: registry.histogram(&metrics::REQUEST_SECONDS, &[listener]),
            limits: Default::default(),
        }
    }

    /// Counts a request that has been answered.
    pub(super) fn count(&self, operation: Option<Operation>, outcome: Outcome, arrived: Instant) {
        let passed = clock::now().saturating_duration_since(arrived);
        self.seconds.observe(passed);
        let row = operation.map_or(Operation::ALL.len(), |operation| operation as usize);
        let counter = self.rows.get(row).and_then(|row| row.get(outcome as usize));
        let Some(counter) = counter else {
            return;
        };
        let made = || {
            let name = operation.map_or("unknown", Operation::name);
            let outcome = OUTCOMES.get(outcome as usize).copied().unwrap_or_default();
            self.registry
                .counter(&metrics::REQUESTS, &[&self.listener, name, outcome])
        };
        counter.get_or_init(made).increment();
    }

    /// Counts a limit that was met.
    pub(super) fn limit_hit(&self, limit: &'static str) {
        let row = LIMITS.iter().position(|known| *known == limit);
        let Some(counter) = row.and_then(|row| self.limits.get(row)) else {
            return;
        };
        let made = || {
            self.registry
                .counter(&metrics::LIMIT_HITS, &[&self.listener, limit])
        };
        counter.get_or_init(made).increment();
    }
}
