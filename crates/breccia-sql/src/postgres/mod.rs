//! PostgreSQL's wire, version 3.0, on both sides.
//!
//! ```text
//! client ─▶ frontend::login ─▶ frontend::session ─ batch ─▶ route ─▶ pool ─▶ upstream ─▶ server
//!                                     ▲                       │ asks                      │
//!                                     └──── frontend::relay ◀─┼───────────────────────────┘
//!                                                          cluster ◀─ monitor (roles, positions)
//! ```
//!
//! Not the proof that a statement reads: that is [`crate::class`]. Invariant: bytes of a reply are
//! handed on as they came, except those of questions the client did not ask.

pub mod cluster;
pub mod codec;
pub mod described;
pub mod frontend;
pub mod monitor;
pub mod pool;
pub mod scram;
pub mod settings;
pub mod statement;
pub mod token;
pub mod upstream;
