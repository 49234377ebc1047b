//! The memcached side of the in-memory slice.
//!
//! Invariant: every request that goes upstream has exactly one terminal reply.

pub mod codec;
