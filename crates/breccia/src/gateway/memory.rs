//! Memory stores and the metrics they are seen by.
//!
//! Not their work. Invariant: each is made once in the process.

use std::collections::BTreeMap;
use std::sync::Arc;

use breccia_config::{Plan, StorePlan};
use breccia_kv::memory::MemoryStore;
use breccia_net::metrics::{self, Gauge, Registry, SharedCounter};

use crate::registry;

/// A memory store with its metrics.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) store: Arc<MemoryStore>,
    bytes: Gauge,
    entries: Gauge,
    evicted: SharedCounter,
}

impl Memory {
    /// Brings the metrics up to date.
    pub(super) fn show(&self) {
        let stats = self.store.stats();
        let whole = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.bytes.set(whole(stats.bytes));
        self.entries.set(whole(stats.entries));
        self.evicted.raise_to(stats.evicted);
    }
}

/// The memory stores of a plan by name.
pub(super) fn stores(plan: &Plan, metrics: &Registry) -> BTreeMap<String, Arc<Memory>> {
    let memory = |(name, plan): (&String, &StorePlan)| {
        let store = registry::memory_store(name, plan)?;
        let memory = Memory {
            store: Arc::new(store),
            bytes: metrics.gauge(&metrics::MEMORY_BYTES, &[name]),
            entries: metrics.gauge(&metrics::MEMORY_ENTRIES, &[name]),
            evicted: metrics.shared_counter(&metrics::MEMORY_EVICTED, &[name]),
        };
        Some((name.clone(), Arc::new(memory)))
    };
    plan.stores.iter().filter_map(memory).collect()
}
