//! The Redis frontend: what a client's bytes become.
//!
//! ```text
//! Connection ─ bytes ─▶ RespDialogue::consume ─ RequestParser ─▶ Routes: which way?
//!    │  session: answered here            ┌─▶ one key: shared Upstream of its leaf
//!    │  portable: a future over KvStore   ├─▶ several keys: parts, joined by a Merge
//!    ▼                                    ├─▶ MULTI, WATCH, blocking, large: a Lease
//! Client's ReplyRing ◀─ Ticket ◀──────────┴─▶ no key: all leaves, or any
//! ```
//!
//! Invariant: a request is dispatched once, in the client's order; its place in the ring is
//! reserved before its bytes are queued.

mod clients;
mod dialogue;
mod fleet;
mod forward;
mod large;
mod leaf;
mod line;
mod marked;
mod merge;
mod metrics;
mod multikey;
mod own;
mod portable;
mod pubsub;
mod redirect;
mod redirection;
mod redirects;
#[cfg(test)]
mod reference;
mod route;
mod scan;
mod scripts;
mod service;
mod session;
mod settings;
mod streams;
mod ticket;
mod touch;
mod transaction;
mod trunk;
mod wire_error;

pub use leaf::RespLeaf;
pub use service::{RespService, RespWorker};
pub use trunk::Trunks;

pub use settings::{
    ClientRoster, ForwardStore, ListenerSettings, ModuleCommand, MultiKey, RespBackend,
    RespListener, Roster, SharedSettings, SlowLog, SubscriptionLoss, User,
};
