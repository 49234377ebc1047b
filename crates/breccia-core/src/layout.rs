//! A layout: the immutable value that holds everything that decides where a key lies.
//!
//! Not here: keeping layouts on disk or spreading them (see `breccia-net`), or any store.
//!
//! Invariant: two layouts with one digest place every key on the shard of the same name.

mod difference;
mod document;
mod marker;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use xxhash_rust::xxh3::xxh3_64;

pub use difference::LayoutDifference;
pub use marker::{Marker, MarkerFault, Verdict};

use crate::error::CoreError;
use crate::hash::{HashKind, HashTag, splitmix64};
use crate::placement_key::PlacementKey;
use crate::slots::{Epoch, MAX_SHARDS, ShardIndex, Slot, SlotTable};

/// The format of layout documents and digests.
pub const FORMAT: u64 = 1;

/// The longest name of a composite or a shard, in bytes.
pub const MAX_NAME_BYTES: usize = 128;

/// Whether a name can stand in a layout document and in a file name.
pub fn is_store_name(name: &str) -> bool {
    let starts = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let follows = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    name.len() <= MAX_NAME_BYTES
        && name.as_bytes().first().is_some_and(starts)
        && name.bytes().all(follows)
}

/// What kind of store a composite is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CompositeKind {
    /// Keys with values in memory: Redis, memcached and the like.
    InMemory,
    /// Objects.
    Blob,
}

/// Where a composite stands among the composites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// No other composite lists it: seed 0, the plain rule.
    Outer,
    /// Another composite lists it: its keys were already chosen by a hash, so it mixes again.
    Inner,
}

impl CompositeKind {
    /// The name, as in a layout document.
    pub fn name(self) -> &'static str {
        match self {
            CompositeKind::InMemory => "in-memory",
            CompositeKind::Blob => "blob",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [CompositeKind::InMemory, CompositeKind::Blob]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

impl Role {
    /// The name, as in a layout document.
    pub fn name(self) -> &'static str {
        match self {
            Role::Outer => "outer",
            Role::Inner => "inner",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Role::Outer, Role::Inner]
            .into_iter()
            .find(|role| role.name() == name)
    }
}

/// What a config asks a layout to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutSpec {
    /// The name of the composite.
    pub composite: String,
    /// Its kind.
    pub kind: CompositeKind,
    /// The hash function.
    pub hash: HashKind,
    /// The hash tag, if keys are hashed by a part of them.
    pub hash_tag: Option<HashTag>,
    /// Which bytes of a key are hashed, before a hash tag is looked for.
    pub placement_key: PlacementKey,
    /// Whether another composite lists this one.
    pub role: Role,
    /// The shards by store name. Their order counts when the layout is made, and never again.
    pub shards: Vec<String>,
}

/// Where a key lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// The hash of the key (of its tagged part), before an inner composite mixes it.
    pub hash: u64,
    /// The slot.
    pub slot: Slot,
    /// The shard.
    pub shard: ShardIndex,
}

/// Everything that decides where a composite's keys lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    composite: String,
    kind: CompositeKind,
    role: Role,
    hash: HashKind,
    hash_tag: Option<HashTag>,
    placement_key: PlacementKey,
    seed: u64,
    epoch: Epoch,
    shards: Vec<String>,
    table: SlotTable,
    digest: u64,
}

impl Layout {
    /// The layout a composite starts with: slot mod shards, in the order of the config.
    pub fn first(spec: &LayoutSpec) -> Result<Layout, CoreError> {
        let count = u16::try_from(spec.shards.len()).unwrap_or(u16::MAX);
        let seed = match spec.role {
            Role::Outer => 0,
            Role::Inner => xxh3_64(spec.composite.as_bytes()),
        };
        Layout {
            composite: spec.composite.clone(),
            kind: spec.kind,
            role: spec.role,
            hash: spec.hash,
            hash_tag: spec.hash_tag,
            placement_key: spec.placement_key.clone(),
            seed,
            epoch: Epoch::FIRST,
            shards: spec.shards.clone(),
            table: SlotTable::modulo(count.min(MAX_SHARDS)),
            digest: 0,
        }
        .checked()
    }

    /// Where a key lies.
    #[inline]
    pub fn place(&self, key: &[u8]) -> Placement {
        let key = self.placement_key.hashed_bytes(key);
        let part = match &self.hash_tag {
            None => &key,
            Some(tag) => tag.hashed_part(&key),
        };
        let hash = self.hash.hash(part);
        let mixed = match self.role {
            Role::Outer => hash,
            Role::Inner => splitmix64(hash ^ self.seed),
        };
        let (slot, shard) = self.table.place(mixed);
        Placement { hash, slot, shard }
    }

    /// The identity of this layout: 16 hex digits over everything that decides placement.
    pub fn digest(&self) -> String {
        format!("{:016x}", self.digest)
    }

    /// The name of the composite.
    pub fn composite(&self) -> &str {
        &self.composite
    }

    /// The kind of the composite.
    pub fn kind(&self) -> CompositeKind {
        self.kind
    }

    /// Whether the composite was made as an inner one.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The hash function.
    pub fn hash(&self) -> HashKind {
        self.hash
    }

    /// The hash tag, if there is one.
    pub fn hash_tag(&self) -> Option<HashTag> {
        self.hash_tag
    }

    /// Which bytes of a key are hashed.
    pub fn placement_key(&self) -> &PlacementKey {
        &self.placement_key
    }

    /// What an inner composite mixes into each hash; 0 for an outer one.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The version of this layout.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The names of the shards by [`ShardIndex`].
    pub fn shards(&self) -> &[String] {
        &self.shards
    }

    /// The name of one shard, if it exists.
    pub fn shard_name(&self, shard: ShardIndex) -> Option<&str> {
        self.shards.get(shard.as_usize()).map(String::as_str)
    }

    /// The number of the shard of this name.
    pub fn shard_index(&self, name: &str) -> Option<ShardIndex> {
        let index = self.shards.iter().position(|shard| shard == name)?;
        u16::try_from(index).ok().map(ShardIndex::new)
    }

    /// How many slots there are; fixed for the composite's life.
    pub fn slot_count(&self) -> u32 {
        self.table.slot_count()
    }

    /// The shard that holds a slot, if the slot exists.
    pub fn shard_of(&self, slot: Slot) -> Option<ShardIndex> {
        self.table.get(slot)
    }

    /// How many slots a shard holds.
    pub fn slots_held(&self, shard: ShardIndex) -> usize {
        self.table
            .as_slice()
            .iter()
            .filter(|held| **held == shard.get())
            .count()
    }

    /// What a config asks for that this layout is not; empty if they agree. The order of the
    /// shards does not count.
    pub fn differences(&self, wanted: &LayoutSpec) -> Vec<LayoutDifference> {
        difference::between(self, wanted)
    }

    /// The next layout, with some slots on other shards. Nothing else moves.
    pub fn reassign(&self, moves: &[(Slot, ShardIndex)]) -> Result<Layout, CoreError> {
        let mut next = self.next_epoch();
        for &(slot, shard) in moves {
            let known = self.shards.len() > shard.as_usize();
            if !known || !next.table.set(slot, shard) {
                let last_shard = self.shards.len().saturating_sub(1);
                return Err(CoreError::MoveOutside {
                    composite: self.composite.clone(),
                    slot: slot.get(),
                    shard: shard.get(),
                    last_slot: self.slot_count().saturating_sub(1),
                    last_shard: u16::try_from(last_shard).unwrap_or(u16::MAX),
                });
            }
        }
        next.checked()
    }

    /// The next layout, under another name. The seed stays, so no key moves.
    pub fn renamed(&self, composite: &str) -> Result<Layout, CoreError> {
        let mut next = self.next_epoch();
        composite.clone_into(&mut next.composite);
        next.checked()
    }

    /// The next layout, with one shard known under another name. No key moves.
    pub fn shard_renamed(&self, old: &str, new: &str) -> Result<Layout, CoreError> {
        let mut next = self.next_epoch();
        let Some(name) = next.shards.iter_mut().find(|shard| *shard == old) else {
            return Err(CoreError::UnknownShard {
                composite: self.composite.clone(),
                shard: old.to_owned(),
                known: self.shards.join(", "),
            });
        };
        new.clone_into(name);
        next.checked()
    }

    /// What the config asks for, made anew as the successor of this layout. Keys move: only for a
    /// composite whose keys were checked to lie there, or that holds none.
    pub fn replaced(&self, wanted: &LayoutSpec) -> Result<Layout, CoreError> {
        let mut next = Layout::first(wanted)?;
        next.epoch = self.epoch.next();
        next.checked()
    }

    /// The document an administrator can read and a gateway can load.
    pub fn to_document(&self) -> String {
        document::write(self)
    }

    /// Reads a document and checks it against the digest it carries.
    pub fn from_document(text: &str) -> Result<Layout, CoreError> {
        document::read(text)
    }

    fn next_epoch(&self) -> Layout {
        let mut next = self.clone();
        next.epoch = self.epoch.next();
        next
    }

    /// Checks the names and computes the digest: every layout passes here.
    fn checked(mut self) -> Result<Layout, CoreError> {
        if !is_store_name(&self.composite) {
            return Err(CoreError::BadName {
                name: self.composite,
            });
        }
        if self.shards.is_empty() {
            return Err(CoreError::NoShards {
                composite: self.composite,
            });
        }
        if self.shards.len() > usize::from(MAX_SHARDS) {
            let count = self.shards.len();
            return Err(CoreError::TooManyShards {
                composite: self.composite,
                count,
            });
        }
        if !PlacementKey::is_prefix(self.placement_key.prefix()) {
            return Err(CoreError::BadPlacementKey {
                text: self.placement_key.to_string(),
            });
        }
        let mut seen = BTreeSet::new();
        for shard in &self.shards {
            if !is_store_name(shard) {
                return Err(CoreError::BadName {
                    name: shard.clone(),
                });
            }
            if !seen.insert(shard) {
                let shard = shard.clone();
                return Err(CoreError::DuplicateShard {
                    composite: self.composite,
                    shard,
                });
            }
        }
        self.digest = xxh3_64(&self.canonical());
        Ok(self)
    }

    /// Everything that decides placement, each part after its length. Frozen with [`FORMAT`].
    fn canonical(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut put = |part: &[u8]| {
            out.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            out.extend_from_slice(part);
        };
        put(b"breccia-layout");
        put(&FORMAT.to_le_bytes());
        put(self.composite.as_bytes());
        put(self.kind.name().as_bytes());
        put(self.role.name().as_bytes());
        put(self.hash.name().as_bytes());
        put(self
            .hash_tag
            .map(|tag| tag.to_string())
            .unwrap_or_default()
            .as_bytes());
        put(self.placement_key.to_string().as_bytes());
        put(&self.seed.to_le_bytes());
        put(&u64::from(self.slot_count()).to_le_bytes());
        put(&self.epoch.get().to_le_bytes());
        for shard in &self.shards {
            put(shard.as_bytes());
        }
        let table: Vec<u8> = self
            .table
            .as_slice()
            .iter()
            .flat_map(|shard| shard.to_le_bytes())
            .collect();
        put(&table);
        out
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (digest {:016x}, epoch {})",
            self.composite, self.digest, self.epoch
        )
    }
}

impl FromStr for Layout {
    type Err = CoreError;

    fn from_str(text: &str) -> Result<Self, CoreError> {
        Layout::from_document(text)
    }
}

#[cfg(test)]
mod tests;
