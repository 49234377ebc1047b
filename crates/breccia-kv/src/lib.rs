//! Breccia's in-memory slice: stores, composites and the Redis and memcached wires.
//!
//! Two interfaces, on purpose. [`store::KvStore`] is for mixed members and for Rust programs:
//! dyn-compatible, its methods return boxed futures. *Forwarding* (`resp::frontend`,
//! `memcached::frontend`) is synchronous and worker-local: bytes pass as they are.
//!
//! Invariant: nothing here reads the clock or opens a socket except through `breccia_net`.

pub mod edit;
pub mod endpoint;
pub mod entry;
pub mod error;
pub mod front;
pub mod glob;
pub mod identity;
pub mod io;
mod join;
pub mod memcached;
pub mod memory;
pub mod pipeline;
pub mod resp;
pub mod scan_cursor;
pub mod sharded;
pub mod store;
pub mod topology;
mod turn;
pub mod upstream;
