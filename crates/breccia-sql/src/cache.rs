//! Verdicts by masked text: bounded by entries and by bytes, in two generations.
//!
//! Not keyed by hash alone: the masked bytes are compared. Invariant: neither generation exceeds
//! its bounds, and what is used often survives their turn.

use std::collections::HashMap;
use std::sync::Arc;

/// Most entries of one generation.
const MOST_ENTRIES: usize = 8_192;
/// Most bytes of keys of one generation.
const MOST_BYTES: usize = 4 * 1024 * 1024;

#[derive(Debug, Clone)]
struct Entry<V> {
    key: Box<[u8]>,
    verdict: Arc<V>,
    /// A replica refused it: that outlives a new catalogue.
    refused: bool,
}

#[derive(Debug)]
pub(crate) struct Cache<V> {
    young: HashMap<u64, Entry<V>>,
    old: HashMap<u64, Entry<V>>,
    young_bytes: usize,
}

/// What the cache knows of a key.
pub(crate) enum Found<V> {
    Young(Arc<V>),
    /// Known, but about to be forgotten.
    Old(Arc<V>),
    Nothing,
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            young_bytes: 0,
        }
    }
}

impl<V> Cache<V> {
    pub(crate) fn get(&self, hash: u64, key: &[u8]) -> Found<V> {
        let same = |entry: &&Entry<V>| *entry.key == *key;
        if let Some(entry) = self.young.get(&hash).filter(same) {
            return Found::Young(Arc::clone(&entry.verdict));
        }
        match self.old.get(&hash).filter(same) {
            Some(entry) => Found::Old(Arc::clone(&entry.verdict)),
            None => Found::Nothing,
        }
    }

    /// Moves an entry to the young generation.
    pub(crate) fn renew(&mut self, hash: u64) {
        if let Some(entry) = self.old.remove(&hash)
            && !self.young.contains_key(&hash)
        {
            self.put(hash, entry);
        }
    }

    pub(crate) fn insert(&mut self, hash: u64, key: &[u8], verdict: Arc<V>, refused: bool) {
        self.put(
            hash,
            Entry {
                key: key.into(),
                verdict,
                refused,
            },
        );
    }

    fn put(&mut self, hash: u64, entry: Entry<V>) {
        let bytes = entry.key.len();
        if self.young.len() >= MOST_ENTRIES || self.young_bytes + bytes > MOST_BYTES {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += bytes;
        if let Some(replaced) = self.young.insert(hash, entry) {
            self.young_bytes = self.young_bytes.saturating_sub(replaced.key.len());
        }
    }

    /// Forgets all that rests on the catalogue.
    pub(crate) fn forget(&mut self) {
        self.old.retain(|_, entry| entry.refused);
        self.young.retain(|_, entry| entry.refused);
        self.young_bytes = self.young.values().map(|entry| entry.key.len()).sum();
    }

    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}
