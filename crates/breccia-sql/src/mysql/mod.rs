//! MySQL's and MariaDB's wire, protocol 10, on both sides.
//!
//! ```text
//! client ─▶ frontend::login ─▶ frontend::session ─ class ─▶ route ─▶ pool ─▶ upstream ─▶ server
//!                                     ▲                       │ asks                      │
//!                                     └──── frontend::relay ◀─┼───────────────────────────┘
//!                                                          cluster ◀─ monitor (roles, positions)
//! ```
//!
//! Invariant: bytes of an answer are handed on as they came, except where a client of other
//! capabilities reads them differently, and except those of questions the client did not ask.

pub mod auth;
pub mod class;
pub mod cluster;
pub mod codec;
pub mod frontend;
pub mod gtid;
pub mod monitor;
pub mod pool;
pub mod settings;
pub mod statements;
pub mod told;
pub mod upstream;

#[cfg(test)]
mod tests_reasons;
