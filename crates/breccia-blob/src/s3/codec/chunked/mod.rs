//! The body encoding aws-chunked: chunks with or without signatures, then trailers.
//!
//! ```text
//! size;chunk-signature=…\r\n data \r\n … 0;chunk-signature=…\r\n [name:value\r\n …] \r\n
//! ```
//!
//! Bytes are cut in any way; whoever calls reads the socket. Invariant: `End` comes only after every
//! signature, the length and the trailers were found right, and the same bytes give the same events
//! however they are cut.

mod decode;
mod encode;
mod signatures;

use thiserror::Error;

pub use decode::{Decoder, Event};
pub use encode::Encoder;
pub use signatures::ChunkSigner;

/// A chunk's first line: at most 16 digits of size and one signature.
pub const MOST_HEADER_LINE_BYTES: usize = 256;
/// A trailer's line.
pub const MOST_TRAILER_LINE_BYTES: usize = 1024;
/// Trailers a body can have, their signature not counted.
pub const MOST_TRAILERS: usize = 16;

/// The trailer that signs the others.
pub(super) const TRAILER_SIGNATURE: &str = "x-amz-trailer-signature";

/// What is wrong with a body.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// A line has no end within its limit.
    #[error("a line of the chunked body is longer than {limit} bytes")]
    LineTooLong {
        /// The limit.
        limit: usize,
    },
    /// A chunk does not begin with its size (and signature), or does not end with an empty line.
    #[error("the chunked body is malformed: {what}")]
    Malformed {
        /// What of it.
        what: &'static str,
    },
    /// A chunk's signature does not match: `SignatureDoesNotMatch`.
    #[error("the signature of chunk {chunk} does not match")]
    ChunkSignature {
        /// Which, counted from one.
        chunk: u64,
    },
    /// The trailers' signature does not match, or is missing: `SignatureDoesNotMatch`.
    #[error("the signature of the trailers does not match")]
    TrailerSignature,
    /// The chunks hold more or fewer bytes than `x-amz-decoded-content-length` says.
    #[error("the chunks hold another length than {declared} bytes")]
    Length {
        /// What was declared.
        declared: u64,
    },
    /// A trailer that `x-amz-trailer` does not name, or a second one of the name.
    #[error("trailer {name} was not declared, or came twice")]
    Trailer {
        /// Which.
        name: String,
    },
    /// A declared trailer did not come.
    #[error("trailer {name} is missing")]
    TrailerMissing {
        /// Which.
        name: String,
    },
    /// More than [`MOST_TRAILERS`] are declared.
    #[error("more than {MOST_TRAILERS} trailers are declared")]
    TooManyTrailers,
    /// Bytes after the end.
    #[error("there are bytes after the end of the chunked body")]
    Extra,
    /// The body stopped before its end: `IncompleteBody`.
    #[error("the chunked body stopped before its end")]
    Incomplete,
}

#[cfg(test)]
mod tests;
