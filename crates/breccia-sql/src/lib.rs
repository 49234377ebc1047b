//! The SQL slice: one server to the client, a primary and its replicas behind.
//!
//! Not a store: a client has a session, and what it may do depends on what it did. Invariant: a
//! statement reaches a replica only on a positive proof that it reads, and only one that has
//! replayed all that its session may have seen.

mod bells;
mod cache;
pub mod choice;
pub mod class;
pub mod consistency;
mod ends;
pub mod error;
mod flow;
pub mod freshness;
mod guesses;
pub mod heard;
mod members;
pub mod mysql;
mod outage;
pub mod pause;
mod placing;
pub mod pool;
mod pools;
pub mod postgres;
pub mod routed;
pub mod sampler;
mod watching;

pub use error::SqlError;
