//! Breccia while things break: servers killed and frozen, connections reset, clients that are hostile.
//!
//! One program, apart from `../gateway`, because its tests load the machine and measure time.
//! Invariant: a test that measures time runs alone in here (see [`driver::alone`]).

mod busy;
#[path = "../gateway/common.rs"]
#[expect(
    dead_code,
    reason = "shared with the gateway tests, which use all of it"
)]
mod common;
mod counters;
mod drain;
mod driver;
mod hostile;
mod kill;
mod partial;
mod quiet;
mod resets;
mod stall;
mod stall_leases;
mod transactions;
