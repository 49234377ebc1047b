//! Blob stores while things break: killed gateways, full disks, members that are down, clients that
//! are hostile.
//!
//! Not the conformance suite: that is about what stores answer when all is well. Invariant: a test that
//! measures memory or time runs alone in here (see [`site::alone`]).

#![expect(
    clippy::indexing_slicing,
    reason = "a test that indexes badly fails, as it should"
)]

mod damage;
mod disk_full;
mod drain;
mod durability;
mod layout;
mod memory;
mod overwrite;
mod places;
mod races;
mod security;
mod shards_down;
mod site;
mod wire;
