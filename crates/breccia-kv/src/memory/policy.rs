//! Which entries to give up when memory is short: a library's cache that holds only hashes and
//! weights, beside the map that holds the entries.
//!
//! Not a store. Invariant: what the policy gives up is reported, so map and policy hold the same
//! hashes after each call.

use quick_cache::unsync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};

/// The weight of an entry is the memory it takes.
#[derive(Clone, Debug)]
struct ByCost;

impl Weighter<u64, u64> for ByCost {
    fn weight(&self, _hash: &u64, cost: &u64) -> u64 {
        *cost
    }
}

/// Collects what is given up.
#[derive(Clone, Debug)]
struct Collect;

impl Lifecycle<u64, u64> for Collect {
    type RequestState = Vec<u64>;

    fn on_evict(&self, evicted: &mut Vec<u64>, hash: u64, _cost: u64) {
        evicted.push(hash);
    }
}

/// Entries are assumed to take about this much when the memory of recently evicted ones is sized.
const TYPICAL_COST: u64 = 1024;

/// The eviction policy of one lock shard.
#[derive(Debug)]
pub(super) struct Policy {
    cache: Cache<u64, u64, ByCost, DefaultHashBuilder, Collect>,
    limit: u64,
}

impl Policy {
    /// A policy that keeps the sum of all costs within `budget`.
    pub(super) fn new(budget: u64) -> Self {
        let items = usize::try_from(budget / TYPICAL_COST)
            .unwrap_or(usize::MAX)
            .clamp(16, 1 << 20);
        let options = OptionsBuilder::new()
            .estimated_items_capacity(items)
            .weight_capacity(budget)
            .build()
            .expect("both required options are set");
        let hasher = DefaultHashBuilder::default();
        Self {
            cache: Cache::with_options(options, ByCost, hasher, Collect),
            limit: budget / 2,
        }
    }

    /// The largest cost one entry may have.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Marks an entry as used.
    pub(super) fn used(&self, hash: u64) {
        let _ = self.cache.get(&hash);
    }

    /// Takes in or re-weighs an entry, and returns the hashes that must go for it.
    pub(super) fn put(&mut self, hash: u64, cost: u64) -> Vec<u64> {
        let mut evicted = Vec::new();
        self.cache.insert_with_lifecycle(hash, cost, &mut evicted);
        // The library also reports an entry it merely replaced.
        evicted.retain(|hash| !self.cache.contains_key(hash));
        evicted
    }

    /// Forgets an entry.
    pub(super) fn remove(&mut self, hash: u64) {
        self.cache.remove(&hash);
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.cache.clear();
    }
}
