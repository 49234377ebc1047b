//! Members that are found by asking others: the primary of a Sentinel, and the servers of a Cluster.
//!
//! One program for all of it. Invariant: every server and gateway is the test's own.

#![expect(clippy::indexing_slicing, reason = "a test may panic")]

mod cluster;
#[path = "../gateway/common.rs"]
mod common;
mod load;
mod refusals;
mod sentinel;
