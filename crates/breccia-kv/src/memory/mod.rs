//! The memory of this process as a store: a Redis-like and memcached-like server within.
//!
//! One per process and store, shared by all workers, no thread of its own: expiry is done in small
//! steps inside operations. Nothing is kept on disk. Invariant: its futures are ready at once, and
//! no lock is held across an await.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use breccia_net::clock;
use bytes::Bytes;

mod key;
mod policy;
mod shard;

use crate::entry::{Operation, Outcome};
use crate::error::KvError;
use crate::glob;
use crate::store::{
    Capabilities, KeyedOperation, KvStore, ScanPage, ScanRequest, StoreFuture, StoreKind,
};
use key::{CURSOR_BITS, LookupKey};
use policy::Policy;
use shard::{Budget, Full, Shard, Undo};

/// What happens when a memory store has used its `max-memory`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Eviction {
    /// Writes that need more memory are refused.
    #[default]
    NoEviction,
    /// Entries are given up by the S3-FIFO policy: those used once go first.
    S3Fifo,
}

/// How to make a memory store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryOptions {
    /// The store's name in the configuration.
    pub name: String,
    /// How many bytes its entries may take; no limit by default.
    pub max_memory: Option<u64>,
    /// What happens at the limit.
    pub eviction: Eviction,
}

impl MemoryOptions {
    /// A store without a limit.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            max_memory: None,
            eviction: Eviction::NoEviction,
        }
    }
}

/// What a memory store holds, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// Entries, expired ones that were not yet removed among them.
    pub entries: u64,
    /// The bytes they take, with what the store itself needs for them.
    pub bytes: u64,
    /// Entries given up for lack of memory since the start.
    pub evicted: u64,
    /// Entries whose time had passed, since the start.
    pub expired: u64,
}

/// A store in the memory of this process.
#[derive(Debug)]
pub struct MemoryStore {
    capabilities: Capabilities,
    /// As many as `2^shard_bits`; an entry's is told by the top bits of its hash.
    shards: Vec<Mutex<Shard>>,
    shard_bits: u32,
    salt: RandomState,
    memory: Memory,
}

/// The memory all shards share.
#[derive(Debug)]
struct Memory {
    used: AtomicU64,
    /// The limit where nothing is evicted; a policy keeps to its own.
    limit: u64,
}

impl Budget for Memory {
    fn take(&self, less: u64, more: u64) -> bool {
        if more <= less {
            self.used.fetch_sub(less - more, Ordering::Relaxed);
            return true;
        }
        let before = self.used.fetch_add(more - less, Ordering::Relaxed);
        let fits = before.saturating_add(more - less) <= self.limit;
        if !fits {
            self.used.fetch_sub(more - less, Ordering::Relaxed);
        }
        fits
    }
}

/// Lock shards where memory allows.
const MOST_SHARD_BITS: u32 = 6;
/// A lock shard that evicts has at least this much, so that large values fit into it.
const LEAST_SHARD_BUDGET: u64 = 16 * 1024 * 1024;
/// Due entries that one operation removes on its way.
const EXPIRE_STEP: usize = 4;
/// Due entries removed from each shard where the whole store is looked at.
const EXPIRE_SWEEP: usize = 4096;

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new(options: MemoryOptions) -> Self {
        let MemoryOptions {
            name,
            max_memory,
            eviction,
        } = options;
        let (shard_bits, limit, budget) = match (eviction, max_memory) {
            (Eviction::S3Fifo, Some(max)) => {
                let parts = (max / LEAST_SHARD_BUDGET).max(1);
                let bits = parts.ilog2().min(MOST_SHARD_BITS);
                (bits, u64::MAX, Some(max >> bits))
            }
            (_, limit) => (MOST_SHARD_BITS, limit.unwrap_or(u64::MAX), None),
        };
        let shard = || Mutex::new(Shard::new(budget.map(Policy::new)));
        Self {
            capabilities: Capabilities::leaf(name, StoreKind::Memory),
            shards: (0..1 << shard_bits).map(|_| shard()).collect(),
            shard_bits,
            salt: RandomState::new(),
            memory: Memory {
                used: AtomicU64::new(0),
                limit,
            },
        }
    }

    /// What it holds.
    #[must_use]
    pub fn stats(&self) -> MemoryStats {
        let mut stats = MemoryStats::default();
        for index in 0..self.shards.len() {
            let shard = self.lock(index);
            stats.entries += shard.len() as u64;
            stats.bytes += shard.bytes();
            stats.evicted += shard.evicted();
            stats.expired += shard.expired();
        }
        stats
    }

    fn look_up<'k>(&self, key: &'k [u8]) -> LookupKey<'k> {
        LookupKey {
            hash: self.salt.hash_one(key),
            bytes: key,
        }
    }

    fn shard_of(&self, hash: u64) -> usize {
        let index = hash.checked_shr(u64::BITS - self.shard_bits).unwrap_or(0);
        usize::try_from(index).unwrap_or(0)
    }

    fn lock(&self, index: usize) -> MutexGuard<'_, Shard> {
        let shard = self
            .shards
            .get(index)
            .expect("the top bits of a hash number all shards");
        // A shard is consistent wherever its code could panic.
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply_at(
        &self,
        key: &[u8],
        operations: &[Operation<'_>],
        now_ms: u64,
    ) -> Result<Vec<Outcome>, KvError> {
        let key = self.look_up(key);
        let run = || {
            let mut shard = self.lock(self.shard_of(key.hash));
            shard.expire(now_ms, EXPIRE_STEP, &self.memory);
            shard.apply(key, operations, now_ms, &self.memory, None)
        };
        self.with_second_try(now_ms, run)
    }

    /// Runs `run`; if memory is short, removes what has expired and runs it once more.
    fn with_second_try<T>(
        &self,
        now_ms: u64,
        mut run: impl FnMut() -> Result<T, Full>,
    ) -> Result<T, KvError> {
        let first = run();
        let second = match first {
            Err(Full::Memory) => {
                self.sweep(now_ms);
                run()
            }
            other => other,
        };
        second.map_err(|full| self.refusal(full))
    }

    fn refusal(&self, full: Full) -> KvError {
        let store = self.capabilities.name.clone();
        match full {
            Full::Memory => KvError::OutOfMemory { store },
            Full::Entry { cost, limit } => KvError::ValueTooLarge {
                store,
                kind: StoreKind::Memory,
                length: usize::try_from(cost).unwrap_or(usize::MAX),
                limit: format!("with this max-memory an entry may take {limit} bytes"),
            },
        }
    }

    fn sweep(&self, now_ms: u64) {
        for index in 0..self.shards.len() {
            self.lock(index).expire(now_ms, EXPIRE_SWEEP, &self.memory);
        }
    }

    /// All locks the requests need are held together: many keys change as one.
    fn apply_each_at(
        &self,
        requests: &[KeyedOperation<'_>],
        now_ms: u64,
    ) -> Result<Vec<Outcome>, KvError> {
        let keys: Vec<LookupKey<'_>> = requests
            .iter()
            .map(|request| self.look_up(request.key))
            .collect();
        self.with_second_try(now_ms, || {
            let mut locked: Vec<Option<MutexGuard<'_, Shard>>> = Vec::new();
            locked.resize_with(self.shards.len(), || None);
            let mut needed: Vec<usize> = keys.iter().map(|key| self.shard_of(key.hash)).collect();
            needed.sort_unstable();
            needed.dedup();
            for index in needed {
                let mut shard = self.lock(index);
                shard.expire(now_ms, EXPIRE_STEP, &self.memory);
                if let Some(place) = locked.get_mut(index) {
                    *place = Some(shard);
                }
            }
            let mut outcomes = Vec::with_capacity(requests.len());
            let mut undo = Vec::new();
            for (request, key) in requests.iter().zip(&keys) {
                let Some(Some(shard)) = locked.get_mut(self.shard_of(key.hash)) else {
                    continue;
                };
                let operations = [request.operation];
                match shard.apply(*key, &operations, now_ms, &self.memory, Some(&mut undo)) {
                    Ok(outcome) => outcomes.extend(outcome),
                    Err(full) => {
                        self.take_back(&mut locked, undo);
                        return Err(full);
                    }
                }
            }
            Ok(outcomes)
        })
    }

    fn take_back(&self, locked: &mut [Option<MutexGuard<'_, Shard>>], undo: Vec<Undo>) {
        for change in undo.into_iter().rev() {
            if let Some(Some(shard)) = locked.get_mut(self.shard_of(change.hash())) {
                shard.undo(change, &self.memory);
            }
        }
    }

    fn scan_at(&self, request: ScanRequest<'_>, now_ms: u64) -> ScanPage {
        let wanted = |key: &[u8]| {
            request
                .pattern
                .is_none_or(|pattern| glob::matches(pattern, key))
        };
        let place = |hash: u64| hash >> (u64::BITS - CURSOR_BITS);
        let other_type = request
            .type_name
            .is_some_and(|name| !name.eq_ignore_ascii_case(b"string"));
        let mut hash = request.cursor << (u64::BITS - CURSOR_BITS);
        let mut left = request.count.max(1);
        let mut page = ScanPage::default();
        for index in self.shard_of(hash)..self.shards.len() {
            let same_place = |a, b| place(a) == place(b);
            let part = self
                .lock(index)
                .page(hash, left, now_ms, same_place, wanted);
            page.keys
                .extend(part.keys.into_iter().filter(|_| !other_type));
            if let Some(last) = part.stopped_at {
                // The hash that follows exists, so this is not past the last place.
                page.cursor = place(last) + 1;
                return page;
            }
            left = left.saturating_sub(part.seen);
            let next = index as u64 + 1;
            hash = next.checked_shl(u64::BITS - self.shard_bits).unwrap_or(0);
            if left == 0 && index + 1 < self.shards.len() {
                page.cursor = place(hash);
                return page;
            }
        }
        page
    }

    fn random_key_at(&self, seed: u64, now_ms: u64) -> Option<Bytes> {
        let start = self.shard_of(seed);
        let count = self.shards.len();
        // Once round, and the first shard once more from its beginning.
        (0..=count).find_map(|step| {
            let hash = if step == 0 { seed } else { 0 };
            self.lock((start + step) % count).first_from(hash, now_ms)
        })
    }
}

impl KvStore for MemoryStore {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn apply<'a>(
        &'a self,
        key: &'a [u8],
        operations: &'a [Operation<'a>],
    ) -> StoreFuture<'a, Vec<Outcome>> {
        Box::pin(async move { self.apply_at(key, operations, clock::unix_ms()) })
    }

    fn apply_each<'a>(
        &'a self,
        requests: &'a [KeyedOperation<'a>],
    ) -> StoreFuture<'a, Vec<Outcome>> {
        Box::pin(async move { self.apply_each_at(requests, clock::unix_ms()) })
    }

    fn scan<'a>(&'a self, request: ScanRequest<'a>) -> StoreFuture<'a, ScanPage> {
        Box::pin(async move { Ok(self.scan_at(request, clock::unix_ms())) })
    }

    fn key_count(&self) -> StoreFuture<'_, u64> {
        Box::pin(async move {
            self.sweep(clock::unix_ms());
            Ok(self.stats().entries)
        })
    }

    fn flush(&self) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            for index in 0..self.shards.len() {
                let freed = self.lock(index).clear(&self.memory);
                drop(freed);
            }
            Ok(())
        })
    }

    fn random_key(&self, seed: u64) -> StoreFuture<'_, Option<Bytes>> {
        Box::pin(async move { Ok(self.random_key_at(seed, clock::unix_ms())) })
    }
}

#[cfg(test)]
mod tests;
