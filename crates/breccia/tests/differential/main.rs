//! The same commands direct to one Redis and through Breccia: equal answers.
//!
//! Not about speed, faults or placement. Invariant: what Redis would answer to everybody comes
//! through byte for byte; what may differ is named in `compare.rs`, or in a script with its reason.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that meets what it does not expect has failed"
)]

#[path = "../gateway/common.rs"]
mod common;
mod compare;
mod keyspace;
mod matrix;
mod page;
mod pipelines;
mod portable;
mod scripts;
mod stalwart;
mod table;
mod twins;
mod unblock;
mod words;
