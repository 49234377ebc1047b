//! Stores in tables: `postgresql`, `mysql` and `sqlite`, one implementation over three drivers.
//!
//! Not the SQL composite (`sql-read-replica` is another slice). A put's life:
//!
//! ```text
//! body ─▶ put ── at most one chunk ──────────────────────────────▶ one transaction: chunk, row
//!          └─ more: pending(g) ─▶ chunks(g, 0) ─▶ chunks(g, 1) … ─▶ clean end: one transaction:
//!                   a short statement each; no session is held       pending(g) is there and goes,
//!                   while the client is waited for                   condition, row → g,
//!                                                                    old generation → garbage
//! get  ─▶ row ─▶ chunks(g, n) one by one, CRC32C checked, no transaction; g outlives the row by
//!                `garbage_grace`, so a reader of an overwritten object reads it to its end
//! maintain ─▶ pending without a sign of life → garbage; garbage older than the grace → deleted
//! ```
//!
//! Invariant: a generation's chunks are never changed, and an object's row names only generations
//! whose chunks were all stored before it.

mod complete;
mod driver;
mod fault;
mod get;
mod list;
mod look;
mod mysql;
mod objects;
mod options;
mod pool;
mod postgresql;
mod put;
mod record;
mod reserved;
mod schema;
mod sqlite;
mod statements;
mod store;
mod sweep;
#[cfg(test)]
mod tests;
mod transaction;
mod uploads;

pub(crate) use look::look;
pub use options::{Server, ServerOptions, SqlOptions, SqlTlsMode, SqlTlsOptions, SqliteOptions};
pub use store::SqlStore;

/// The size of an object's chunks, in bytes: far below the 16 MiB that a MySQL packet may have.
pub const CHUNK: usize = 256 * 1024;
