//! The composite and what surrounds it, over stores in memory that can be switched off.
//!
//! Not the kinds of stores themselves. Invariant: every store here obeys the conformance suite.

mod adapter;
mod adoption;
mod buckets;
mod conformance;
mod guarding;
mod listing;
mod members;
mod memory;
mod opening;
mod routing;
mod shared;
