//! One part of a memory store, guarded by one lock: its entries in hash order, their expiries, and
//! what may be evicted.
//!
//! Not thread-safe by itself, and reads no clock. Invariant: `bytes` is the sum of the costs of the
//! entries held, and every entry with an expiry has its place in `expiries`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;

use super::key::{Key, LookupKey, StoredKey};
use super::policy::Policy;
use crate::edit::{Change, Edit, apply_all, expired};
use crate::entry::{Entry, Operation, Outcome};

/// What an entry takes besides its key and data: its place in a map that is about 70 % full, and
/// two heap blocks.
const ENTRY_COST: u64 = 208;
/// What its place among the expiries takes.
const EXPIRY_COST: u64 = 32;
/// What its place in the eviction policy takes.
const POLICY_COST: u64 = 96;

/// Why a change cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// All memory is used.
    Memory,
    /// The entry alone is larger than one entry may be.
    Entry {
        /// What it would cost.
        cost: u64,
        /// The limit.
        limit: u64,
    },
}

/// The memory that all shards share; asked before it is used.
pub(super) trait Budget {
    /// Takes `more` bytes after giving back `less`; false if there are not enough.
    fn take(&self, less: u64, more: u64) -> bool;
}

#[derive(Debug, Default)]
pub(super) struct Shard {
    entries: BTreeMap<StoredKey, Entry>,
    /// Expiry and hash. Of two keys with both equal one may be missing; it then ends when touched.
    expiries: BTreeSet<(u64, u64)>,
    policy: Option<Policy>,
    bytes: u64,
    last_cas: u64,
    evicted: u64,
    expired: u64,
}

/// Some keys of a shard.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) keys: Vec<Bytes>,
    /// How many entries were looked at.
    pub(super) seen: usize,
    /// The hash of the last one; `None`: the shard has no more.
    pub(super) stopped_at: Option<u64>,
}

impl Shard {
    pub(super) fn new(policy: Option<Policy>) -> Self {
        Self {
            policy,
            ..Self::default()
        }
    }

    /// Performs the operations on one entry. `undo` gets what was there before a change.
    pub(super) fn apply(
        &mut self,
        key: LookupKey<'_>,
        operations: &[Operation<'_>],
        now_ms: u64,
        budget: &dyn Budget,
        undo: Option<&mut Vec<Undo>>,
    ) -> Result<Vec<Outcome>, Full> {
        let old = self.entries.get(&key as &dyn Key);
        let edit = Edit {
            now_ms,
            new_cas: self.last_cas + 1,
        };
        let (change, outcomes) = apply_all(edit, operations, old);
        if let Some(undo) = undo.filter(|_| change != Change::Keep) {
            undo.push(Undo {
                key: StoredKey::new(key.hash, key.bytes),
                old: old.cloned(),
            });
        }
        match change {
            Change::Keep => {
                if old.is_some_and(|entry| expired(entry, now_ms)) {
                    self.remove(key, budget);
                    self.expired += 1;
                } else if old.is_some()
                    && let Some(policy) = &self.policy
                {
                    policy.used(key.hash);
                }
            }
            Change::Put(entry) => {
                self.last_cas += 1;
                self.put(key, entry, budget)?;
            }
            Change::Remove => {
                self.last_cas += 1;
                self.remove(key, budget);
            }
        }
        Ok(outcomes)
    }

    /// Takes a change back. It always fits: no more memory is used than before the change.
    pub(super) fn undo(&mut self, undo: Undo, budget: &dyn Budget) {
        let Undo { key, old } = undo;
        let lookup = LookupKey {
            hash: key.hash(),
            bytes: key.bytes(),
        };
        self.remove(lookup, budget);
        if let Some(entry) = old {
            let _ = self.put(lookup, entry, budget);
        }
    }

    fn cost(&self, key: &[u8], entry: &Entry) -> u64 {
        let policy = if self.policy.is_some() {
            POLICY_COST
        } else {
            0
        };
        let expiry = if entry.expires_at_ms.is_some() {
            EXPIRY_COST
        } else {
            0
        };
        ENTRY_COST + policy + expiry + (key.len() as u64) + (entry.data.len() as u64)
    }

    fn put(&mut self, key: LookupKey<'_>, entry: Entry, budget: &dyn Budget) -> Result<(), Full> {
        let cost = self.cost(key.bytes, &entry);
        let old = self.entries.get(&key as &dyn Key);
        let (old_cost, old_expiry) = old.map_or((0, None), |old| {
            (self.cost(key.bytes, old), old.expires_at_ms)
        });
        if let Some(policy) = &self.policy {
            let limit = policy.limit();
            if cost > limit {
                return Err(Full::Entry { cost, limit });
            }
        }
        if !budget.take(old_cost, cost) {
            return Err(Full::Memory);
        }
        self.bytes = self.bytes - old_cost + cost;
        if old_expiry != entry.expires_at_ms {
            if let Some(at) = old_expiry {
                self.expiries.remove(&(at, key.hash));
            }
            if let Some(at) = entry.expires_at_ms {
                self.expiries.insert((at, key.hash));
            }
        }
        match self.entries.get_mut(&key as &dyn Key) {
            Some(place) => *place = entry,
            None => {
                self.entries
                    .insert(StoredKey::new(key.hash, key.bytes), entry);
            }
        }
        self.evict_for(key.hash, budget);
        Ok(())
    }

    /// Tells the policy what the entries of this hash cost, and gives up what it gives up.
    fn evict_for(&mut self, hash: u64, budget: &dyn Budget) {
        let cost = self
            .of_hash(hash)
            .map(|(key, entry)| self.cost(key.bytes(), entry))
            .sum();
        let Some(policy) = &mut self.policy else {
            return;
        };
        for hash in policy.put(hash, cost) {
            while let Some(key) = self.key_of(hash, |_| true) {
                self.remove(
                    LookupKey {
                        hash,
                        bytes: key.bytes(),
                    },
                    budget,
                );
                self.evicted += 1;
            }
        }
    }

    fn of_hash(&self, hash: u64) -> impl Iterator<Item = (&StoredKey, &Entry)> {
        self.entries_from(hash)
            .take_while(move |(key, _)| key.hash() == hash)
    }

    fn key_of(&self, hash: u64, wanted: impl Fn(&Entry) -> bool) -> Option<StoredKey> {
        self.of_hash(hash)
            .find(|(_, entry)| wanted(entry))
            .map(|(key, _)| key.clone())
    }

    fn entries_from(&self, hash: u64) -> impl Iterator<Item = (&StoredKey, &Entry)> {
        let start = LookupKey { hash, bytes: &[] };
        self.entries
            .range::<dyn Key, _>((Bound::Included(&start as &dyn Key), Bound::Unbounded))
    }

    fn remove(&mut self, key: LookupKey<'_>, budget: &dyn Budget) {
        let Some((stored, entry)) = self.entries.remove_entry(&key as &dyn Key) else {
            return;
        };
        let cost = self.cost(stored.bytes(), &entry);
        self.bytes -= cost;
        budget.take(cost, 0);
        if let Some(at) = entry.expires_at_ms {
            self.expiries.remove(&(at, key.hash));
        }
        let left: u64 = self
            .of_hash(key.hash)
            .map(|(key, entry)| self.cost(key.bytes(), entry))
            .sum();
        if let Some(policy) = &mut self.policy {
            if left == 0 {
                policy.remove(key.hash);
            } else {
                policy.put(key.hash, left);
            }
        }
    }

    /// Removes up to `limit` entries whose time has passed.
    pub(super) fn expire(&mut self, now_ms: u64, limit: usize, budget: &dyn Budget) {
        for _ in 0..limit {
            let Some((at, hash)) = self.expiries.first().copied() else {
                return;
            };
            if at > now_ms {
                return;
            }
            self.expiries.remove(&(at, hash));
            while let Some(key) = self.key_of(hash, |entry| expired(entry, now_ms)) {
                self.remove(
                    LookupKey {
                        hash,
                        bytes: key.bytes(),
                    },
                    budget,
                );
                self.expired += 1;
            }
        }
    }

    /// Lists entries from `hash` on, looking at about `count`: entries that share the bits a cursor
    /// holds (`same_place`) come together.
    pub(super) fn page(
        &self,
        hash: u64,
        count: usize,
        now_ms: u64,
        same_place: impl Fn(u64, u64) -> bool,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Page {
        let mut page = Page::default();
        let mut last = hash;
        for (key, entry) in self.entries_from(hash) {
            if page.seen >= count && !same_place(key.hash(), last) {
                page.stopped_at = Some(last);
                return page;
            }
            last = key.hash();
            page.seen += 1;
            if !expired(entry, now_ms) && wanted(key.bytes()) {
                page.keys.push(Bytes::copy_from_slice(key.bytes()));
            }
        }
        page
    }

    /// The first entry from `hash` on that is still alive.
    pub(super) fn first_from(&self, hash: u64, now_ms: u64) -> Option<Bytes> {
        self.entries_from(hash)
            .find(|(_, entry)| !expired(entry, now_ms))
            .map(|(key, _)| Bytes::copy_from_slice(key.bytes()))
    }

    /// Removes everything, and hands it over to be freed where no lock is held.
    pub(super) fn clear(&mut self, budget: &dyn Budget) -> impl Sized + use<> {
        budget.take(self.bytes, 0);
        self.bytes = 0;
        self.last_cas += 1;
        if let Some(policy) = &mut self.policy {
            policy.clear();
        }
        (
            std::mem::take(&mut self.entries),
            std::mem::take(&mut self.expiries),
        )
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    pub(super) fn expired(&self) -> u64 {
        self.expired
    }
}

/// How a change is taken back.
#[derive(Debug)]
pub(super) struct Undo {
    key: StoredKey,
    old: Option<Entry>,
}

impl Undo {
    pub(super) fn hash(&self) -> u64 {
        self.key.hash()
    }
}
