//! What the Redis and the memcached frontends share: a client's replies, its connection, and the
//! limits on both. No protocol: that is the [`connection::Dialogue`].
//!
//! ```text
//! socket ─▶ Connection ─▶ Dialogue::consume ─▶ Upstream::enqueue ─▶ server
//!                              │ answers made here         │
//! socket ◀─ Connection ◀─ ReplyRing (Client) ◀─────────────┘ Recipient::deliver
//! ```

pub(crate) mod browser;
pub mod client;
pub mod connection;
pub(crate) mod failure;
pub mod handle;
pub(crate) mod kept;
pub mod limits;
pub(crate) mod metrics;
pub mod registry;
pub mod ring;
pub mod settings;
pub mod slow;
pub(crate) mod work;
