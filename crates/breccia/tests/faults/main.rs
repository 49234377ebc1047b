//! Servers that die, freeze and cut, with traffic running.
//!
//! A program of its own, and one test at a time: what is measured here is time. Invariant: counts are
//! held against the servers' own data after the trouble is over.

#[path = "../gateway/common.rs"]
#[allow(
    dead_code,
    reason = "shared with the gateway tests, which use all of it"
)]
mod common;
mod cuts;
mod down;
mod frozen;
mod traffic;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Held by each test while it runs.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}
