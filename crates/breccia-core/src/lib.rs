//! Breccia's pure decisions: hashing, slots, layouts, health and error kinds.
//!
//! Not here: sockets, files, clocks, randomness, logging, async. Time and topology are arguments.
//!
//! Invariant: every function of this crate is a function of its arguments alone, so the same
//! layout places a key on the same shard on every gateway, machine and release.

pub mod address;
pub mod error;
pub mod hash;
pub mod health;
pub mod layout;
pub mod placement_key;
pub mod slots;

pub use address::Address;
pub use error::{CoreError, Effect, ErrorKind, Origin};
pub use hash::{HashKind, HashTag};
pub use layout::{CompositeKind, Layout, LayoutDifference, LayoutSpec, Placement, Role};
pub use placement_key::PlacementKey;
pub use slots::{Epoch, ShardIndex, Slot};
