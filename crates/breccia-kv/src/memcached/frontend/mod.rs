//! The memcached frontend: what a client's bytes become.
//!
//! ```text
//! Connection ─ bytes ─▶ MemcachedDialogue::consume ─ Decoder ─▶ which way?
//!    │  login, version, stats, mn …: answered here
//!    │  typed: a future over KvStore       ┌─▶ one key: shared Upstream of its leaf (neighbours join)
//!    ▼                                     ├─▶ get of many: parts, joined by a MultiGet
//! Client's ReplyRing ◀─ Ticket ◀───────────┼─▶ large, or large replies: the leaf's bulk Upstream
//!                                          └─▶ flush_all: all leaves
//! ```
//!
//! Invariant: a request is dispatched once, in the client's order; its place in the ring is
//! reserved before its bytes are queued, and `noreply` and `q` take effect only there.

mod commands;
mod dialogue;
mod forward;
mod gather;
mod leaf;
mod login;
mod neighbours;
mod service;
mod settings;
mod ticket;

pub use leaf::MemcachedLeaf;
pub use service::{MemcachedService, MemcachedWorker};
pub use settings::{MemcachedBackend, MemcachedListener};
