//! Objects that a listing meets on a shard where their layout does not look for them.
//!
//! Not how they got there. Invariant: however many there are, the log gets a line a minute.

use std::time::Duration;

use breccia_net::clock;
use breccia_net::log_gate::LogGate;
use breccia_net::metrics::{BLOB_MISPLACED, Registry, SharedCounter};

use crate::key::Key;

const LOG_EVERY: Duration = Duration::from_mins(1);

/// Counts and logs them.
#[derive(Debug)]
pub(super) struct Misplaced {
    counter: Option<SharedCounter>,
    gate: LogGate,
}

impl Misplaced {
    pub(super) fn new() -> Self {
        Self {
            counter: None,
            gate: LogGate::new(LOG_EVERY),
        }
    }

    pub(super) fn count_in(&mut self, registry: &Registry, composite: &str) {
        self.counter = Some(registry.shared_counter(&BLOB_MISPLACED, &[composite]));
    }

    pub(super) fn note(&self, composite: &str, key: &Key, lies: &str, belongs: &str) {
        if let Some(counter) = &self.counter {
            counter.increment();
        }
        if let Some(held_back) = self.gate.pass(clock::now()) {
            tracing::warn!(
                composite,
                %key,
                lies,
                belongs,
                held_back,
                "an object lies on another shard than the layout puts it on; it is left out of \
                 listings and is not found by its key"
            );
        }
    }
}
