//! The memcached side of the in-memory slice: `codec` cuts and understands bytes, `rewrite` makes
//! what goes upstream, `merge` puts parts together, `typed` runs requests over any store, `local`
//! answers what needs no store.
//!
//! Invariant: every request that goes upstream has exactly one terminal reply. `noreply` and `q`
//! never leave this process, because memcached still answers some quiet requests with errors, and
//! one reply too many would shift every later one to the wrong client.

pub mod backend;
pub mod codec;
pub mod frontend;
pub mod local;
pub mod merge;
pub mod rewrite;
pub mod typed;
pub mod wire;
pub mod wire_error;
