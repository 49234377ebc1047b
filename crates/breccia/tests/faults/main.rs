//! Breccia while things break: servers killed and frozen, connections reset, clients that are hostile.
//!
//! One program, apart from `../gateway`, because its tests load the machine and measure time.
//! Invariant: a test that measures time runs alone in here (see [`driver::alone`]).

#![expect(
    clippy::indexing_slicing,
    reason = "a test that indexes badly fails, as it should"
)]

mod busy;
#[path = "../gateway/common.rs"]
mod common;
mod counters;
mod drain;
mod driver;
mod hostile;
mod huge;
mod huge_faults;
mod huge_readers;
mod kill;
mod large;
mod partial;
mod quiet;
mod reload;
mod resets;
mod stall;
mod stall_leases;
mod transactions;
