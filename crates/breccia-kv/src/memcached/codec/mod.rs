//! The memcached text and meta protocols as bytes: requests and replies are cut out of buffers and
//! understood in place. No socket, no clock, no store.
//!
//! ```text
//! client bytes ─▶ Decoder::decode ─▶ Request<'_>  (borrowed; key, flags, data block)
//!                        │ Incomplete: read more     │ Wrong: this answer, drop so many bytes
//!                        ▼
//! server bytes ─▶ ReplyScanner::scan(Shape) ─▶ one terminal reply, framed
//! ```
//!
//! Invariant: the answer depends on the bytes alone, never on how they were cut into reads, and
//! "incomplete" is a different answer from "wrong". Both follow memcached 1.6.18, to the byte.

mod base64;
mod decode;
mod line;
mod meta;
pub(crate) mod number;
mod parse;
mod reply;
mod request;

#[cfg(test)]
mod tests;

pub use decode::{Decoded, Decoder, Wrong};
pub use meta::{MetaFlags, MetaKey, MetaVerb};
pub use reply::{MetaReply, ReplyScanner, ScannedReply, Shape, ValueBlock, Values, is_error};
pub use request::{ArithmeticVerb, Command, Keys, MetaCommand, Request, RetrievalVerb, StoreVerb};

pub(crate) use base64::encode as encode_base64;
pub(super) use meta::INVALID_FLAG;

/// The longest key memcached takes, in bytes as written on the line.
pub const MAX_KEY_BYTES: usize = 250;

/// The longest command line that is not a retrieval. memcached closes on longer ones, too.
pub const MAX_LINE_BYTES: usize = 2048;
