//! Keys in hash order: the hash first, then the bytes, so a scan's cursor is a place among hashes
//! and two keys of one hash stay two keys.
//!
//! Not the placement hash: this one is salted per process, so nobody can choose keys that collide.
//! Invariant: a stored key and a borrowed one of equal bytes compare equal.

use std::borrow::Borrow;
use std::cmp::Ordering;

/// Bits of a hash that a scan's cursor holds.
pub(super) const CURSOR_BITS: u32 = 44;

/// A key as it is stored.
#[derive(Clone, Debug)]
pub(super) struct StoredKey {
    hash: u64,
    bytes: Box<[u8]>,
}

impl StoredKey {
    pub(super) fn new(hash: u64, bytes: &[u8]) -> Self {
        Self {
            hash,
            bytes: bytes.into(),
        }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A key to look for.
#[derive(Clone, Copy, Debug)]
pub(super) struct LookupKey<'a> {
    pub(super) hash: u64,
    pub(super) bytes: &'a [u8],
}

/// What stored and borrowed keys have in common.
pub(super) trait Key {
    fn parts(&self) -> (u64, &[u8]);
}

impl Key for StoredKey {
    fn parts(&self) -> (u64, &[u8]) {
        (self.hash, &self.bytes)
    }
}

impl Key for LookupKey<'_> {
    fn parts(&self) -> (u64, &[u8]) {
        (self.hash, self.bytes)
    }
}

impl<'a> Borrow<dyn Key + 'a> for StoredKey {
    fn borrow(&self) -> &(dyn Key + 'a) {
        self
    }
}

impl PartialEq for dyn Key + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for dyn Key + '_ {}

impl PartialOrd for dyn Key + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn Key + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}

impl PartialEq for StoredKey {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for StoredKey {}

impl PartialOrd for StoredKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for StoredKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}
