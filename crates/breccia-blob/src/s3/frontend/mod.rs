//! The S3 frontend: requests of S3 clients become calls on a [`BlobStore`](crate::BlobStore).
//!
//! The life of a request:
//!
//! ```text
//! connection ─▶ service    HTTP/1.1 by hyper; a place among the requests in flight, or SlowDown
//!                  │
//!               request    bucket, key (decoded once), query, headers
//!                  │
//!               auth       whose signature is it?                       else 403, nothing was read
//!                  │
//!               operation  which of S3's operations?                    else 501 by name
//!                  │
//!               auth       may they: bucket, read-only                  else 403
//!                  │
//!               headers    nothing that is asked for is missing here    else 501 by name
//!                  │
//!               namespace  where is the bucket?                         else 404
//!                  │
//!               body       a share of the buffer memory; only now is the body asked for
//!                  │            hyper ─▶ aws-chunked ─▶ Body (size, digests) ─▶ store
//!                  ▼
//!   objects  copy  uploads  parts  listing  deletes  tagging  buckets
//!                  │
//!               namespace  is the bucket still there?  (writes, where clients make buckets)
//!                  │
//! connection ◀─ respond    head, then memory or the store's bytes; refusals by wire_error
//!    progress: who takes nothing of an answer is cut; pace: who sends a body too slowly, too
//! ```
//!
//! Not here: where an object lies, and how it is kept. Invariant: nothing is carried out for a request
//! before its signature, its user's rights and its headers have been found good, and nothing becomes
//! visible before its body has.

mod auth;
mod body;
mod buckets;
pub mod budget;
mod copy;
mod deletes;
mod digests;
mod dispatch;
mod documents;
mod handler;
mod headers;
mod listing;
mod metrics;
mod namespace;
mod objects;
mod operation;
mod pace;
mod parts;
mod progress;
mod refusal;
mod request;
mod respond;
mod service;
pub mod settings;
mod tagging;
mod uploads;
mod wire_error;

#[cfg(test)]
mod tests;

pub use budget::Budget;
pub use namespace::Namespace;
pub use service::{S3Frontend, S3Service, TOO_MANY_CLIENTS};
pub use settings::{Limits, S3User, Settings, SharedSettings};
