//! Slots: the fixed hash buckets between keys and shards, and the table that deals them out.
//!
//! Not here: hashing a key, or what else a layout holds.
//!
//! Invariant: a table's length never changes, and every slot lies on exactly one shard.

use std::fmt;

/// A composite starts with at least this many slots.
pub const MIN_SLOTS: u32 = 4096;

/// The most shards one composite can have (a SCAN cursor has 11 bits for the shard).
pub const MAX_SHARDS: u16 = 2048;

/// A fixed hash bucket between key and shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(u32);

/// The number of a shard in its layout, which need not be its place in the config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardIndex(u16);

/// The version of a layout: 1 when made, one more with every change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(u64);

impl Slot {
    /// The slot of this number.
    pub const fn new(number: u32) -> Self {
        Slot(number)
    }

    /// The number.
    #[inline]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl ShardIndex {
    /// The shard of this number.
    pub const fn new(number: u16) -> Self {
        ShardIndex(number)
    }

    /// The number.
    #[inline]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The number as an index into a slice of shards.
    #[inline]
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }
}

impl Epoch {
    /// The epoch of a layout just made.
    pub const FIRST: Epoch = Epoch(1);

    /// The epoch of this number.
    pub const fn new(number: u64) -> Self {
        Epoch(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The epoch after this one.
    #[must_use]
    pub const fn next(self) -> Epoch {
        Epoch(self.0.saturating_add(1))
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ShardIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many slots a composite of `shards` shards starts with: the first multiple of `shards` that
/// is not below [`MIN_SLOTS`]. Because the shards divide it, `(h mod S) mod n` is `h mod n`.
pub fn first_slot_count(shards: u16) -> u32 {
    let shards = u32::from(shards.max(1));
    shards.saturating_mul(MIN_SLOTS.div_ceil(shards))
}

/// Which shard holds each slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlotTable {
    /// Never empty.
    shards: Box<[u16]>,
}

impl SlotTable {
    /// The table of a first layout: slot mod shards.
    pub(crate) fn modulo(shards: u16) -> Self {
        let shards = shards.max(1);
        let length = usize::try_from(first_slot_count(shards)).unwrap_or(usize::MAX);
        SlotTable {
            shards: (0..shards).cycle().take(length).collect(),
        }
    }

    /// A table read from elsewhere; none if it is empty.
    pub(crate) fn new(shards: Vec<u16>) -> Option<Self> {
        (!shards.is_empty()).then(|| SlotTable {
            shards: shards.into_boxed_slice(),
        })
    }

    pub(crate) fn as_slice(&self) -> &[u16] {
        &self.shards
    }

    pub(crate) fn slot_count(&self) -> u32 {
        u32::try_from(self.shards.len()).unwrap_or(u32::MAX)
    }

    /// The slot a hash falls into, and its shard.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a remainder of S, and S fits 32 bits"
    )]
    #[expect(
        clippy::indexing_slicing,
        reason = "the remainder of the length is below the length"
    )]
    pub(crate) fn place(&self, hash: u64) -> (Slot, ShardIndex) {
        let slot = hash % self.shards.len() as u64;
        (Slot(slot as u32), ShardIndex(self.shards[slot as usize]))
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<ShardIndex> {
        let index = usize::try_from(slot.0).ok()?;
        self.shards.get(index).copied().map(ShardIndex)
    }

    /// Gives a slot to a shard; false if there is no such slot.
    pub(crate) fn set(&mut self, slot: Slot, shard: ShardIndex) -> bool {
        let entry = usize::try_from(slot.0)
            .ok()
            .and_then(|index| self.shards.get_mut(index));
        entry.map(|entry| *entry = shard.0).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_count_is_the_first_multiple_of_the_shards_from_4096_on() {
        let check = |shards: u16, slots: u32| assert_eq!(first_slot_count(shards), slots);
        check(1, 4096);
        check(2, 4096);
        check(3, 4098);
        check(5, 4100);
        check(7, 4102);
        check(64, 4096);
        check(1000, 5000);
        check(2048, 4096);
    }

    #[test]
    fn first_table_is_slot_mod_shards() {
        for shards in [1, 2, 3, 5, 64, 2047, MAX_SHARDS] {
            let table = SlotTable::modulo(shards);
            assert_eq!(table.slot_count(), first_slot_count(shards));
            for slot in 0..table.slot_count() {
                let shard = table.get(Slot(slot)).map(ShardIndex::get);
                assert_eq!(shard.map(u32::from), Some(slot % u32::from(shards)));
            }
        }
    }

    #[test]
    fn slots_outside_of_the_table_are_not_set() {
        let mut table = SlotTable::modulo(2);
        assert!(table.set(Slot(4095), ShardIndex(0)));
        assert_eq!(table.get(Slot(4095)), Some(ShardIndex(0)));
        assert!(!table.set(Slot(4096), ShardIndex(0)));
        assert_eq!(table.get(Slot(4096)), None);
    }
}
