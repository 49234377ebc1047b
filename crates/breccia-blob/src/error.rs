//! What can go wrong in the blob slice.
//!
//! Not the wire's words: each frontend maps these in its `wire_error.rs`. Invariant: `effect()` is
//! `NotApplied` only if the request was not carried out and never will be.

use std::sync::Arc;

use breccia_core::error::{Effect, ErrorKind, Origin};
use breccia_net::layout_store::LayoutStoreError;
use thiserror::Error;

use crate::checksum::Algorithm;
use crate::condition::ConditionalCall;
use crate::key::MAX_KEY_BYTES;
use crate::meta::ETag;

/// What is wrong with a body that a client sends.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BodyFault {
    /// Fewer bytes than announced.
    #[error("the body ended after {got} of {expected} bytes")]
    TooShort {
        /// Announced.
        expected: u64,
        /// Received.
        got: u64,
    },
    /// More bytes than announced.
    #[error("the body has more than the {expected} bytes announced")]
    TooLong {
        /// Announced.
        expected: u64,
    },
    /// Another MD5 than `Content-MD5`.
    #[error("the body's MD5 is not the one in Content-MD5")]
    Md5,
    /// Another SHA-256 than `x-amz-content-sha256`.
    #[error("the body's SHA-256 is not the one in x-amz-content-sha256")]
    Sha256,
    /// Another checksum than the one given with it.
    #[error("the body's {algorithm} is not the one that was given")]
    Checksum {
        /// The algorithm.
        algorithm: Algorithm,
    },
    /// A chunk or trailer whose signature is wrong.
    #[error("a chunk of the body is wrongly signed")]
    ChunkSignature,
    /// Chunks that are not framed as they should be.
    #[error("the body's chunks are malformed: {problem}")]
    Framing {
        /// What is wrong.
        problem: String,
    },
    /// A sender below `min-body-rate`.
    #[error("the body came slower than min-body-rate")]
    TooSlow,
    /// The client went away.
    #[error("the client went away before the end of the body")]
    Gone,
}

/// A failed request to a blob store.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum BlobError {
    /// There is no such object.
    #[error("there is no such object")]
    NotFound,
    /// There is no such upload, or it has ended.
    #[error("there is no such upload: it was completed, aborted, has expired, or never was")]
    NoSuchUpload,
    /// A read that its conditions make needless.
    #[error("not modified")]
    NotModified {
        /// The object's tag.
        etag: ETag,
        /// When it was written.
        modified_ms: u64,
    },
    /// A condition that is not met.
    #[error("a condition of the request is not met")]
    PreconditionFailed,
    /// A range that lies behind the object's end.
    #[error("the range lies behind the object's {size} bytes")]
    Range {
        /// The object's size.
        size: u64,
    },
    /// A body that is not what was announced. Nothing became visible.
    #[error("{fault}; nothing was stored")]
    Body {
        /// What is wrong with it.
        fault: BodyFault,
    },
    /// A key of no bytes.
    #[error("the key is empty")]
    KeyEmpty,
    /// A key of too many bytes.
    #[error("the key has {length} bytes as it would be stored, the limit is {MAX_KEY_BYTES}")]
    KeyTooLong {
        /// How many it has.
        length: usize,
    },
    /// A key that a member cannot hold as it is.
    #[error("'{store}' cannot hold this key: {reason}; a member with keys = \"encoded\" can")]
    KeyRefused {
        /// The store.
        store: String,
        /// Why.
        reason: String,
    },
    /// A part that was never uploaded, or has another tag or checksum than the client says.
    #[error("part {number} was not uploaded with this ETag and checksum")]
    InvalidPart {
        /// Its number.
        number: u16,
    },
    /// Parts that are not named in ascending order.
    #[error("the parts are not in ascending order")]
    PartOrder,
    /// A part that is too small and not the last.
    #[error("part {number} has {size} bytes; all but the last need at least 5 MiB")]
    PartTooSmall {
        /// Its number.
        number: u16,
        /// Its size.
        size: u64,
    },
    /// An object or part that is too large for its member.
    #[error("'{store}' holds objects up to {limit} bytes")]
    TooLarge {
        /// The store.
        store: String,
        /// The most it holds.
        limit: u64,
    },
    /// The store cannot do this exactly.
    #[error("'{operation}' cannot be done by '{store}': {reason}")]
    Unsupported {
        /// The store.
        store: String,
        /// What was asked.
        operation: String,
        /// Why not.
        reason: String,
    },
    /// A conditional call that members ignore or refuse.
    #[error("{} is not supported by {stores}", call.name())]
    ConditionUnsupported {
        /// The call.
        call: ConditionalCall,
        /// The shards that lack it.
        stores: String,
    },
    /// A conditional call to a member that has not been probed yet.
    #[error("'{store}' has not yet been probed for {}; try again", call.name())]
    ConditionUnprobed {
        /// The call.
        call: ConditionalCall,
        /// The shard.
        store: String,
    },
    /// The store cannot be reached.
    #[error("{store} is unreachable ({reason}); keys of other shards work; {}", words(*effect))]
    Down {
        /// The store.
        store: String,
        /// Why.
        reason: String,
        /// Whether the request may have been carried out.
        effect: Effect,
    },
    /// No answer in time.
    #[error("{store} did not answer within its timeout; {}", words(*effect))]
    Timeout {
        /// The store.
        store: String,
        /// Whether the request may have been carried out.
        effect: Effect,
    },
    /// A shard that must not be used: its marker is not right, or could not be read yet.
    #[error("{store} is not used: {reason}")]
    NotUsed {
        /// The store.
        store: String,
        /// Why, and what mends it.
        reason: String,
    },
    /// A named limit is reached.
    #[error("{store}: {limit} is reached; not applied")]
    Overloaded {
        /// The store.
        store: String,
        /// The limit.
        limit: String,
    },
    /// No room is left on the store.
    #[error("{store} has no room left ({reason}); not applied")]
    Full {
        /// The store.
        store: String,
        /// In the machine's or server's words.
        reason: String,
    },
    /// Bytes on a store that are not what was written.
    #[error("{store} holds a damaged object: {problem}")]
    Damaged {
        /// The store.
        store: String,
        /// What was found.
        problem: String,
    },
    /// Somebody else wrote at the same time and the store asks to try again.
    #[error("{store} had a conflict with another request; not applied, try again")]
    Conflict {
        /// The store.
        store: String,
    },
    /// A listing that a member gave out of order.
    #[error("the listing of '{store}' is out of order at {name}")]
    OutOfOrder {
        /// The store.
        store: String,
        /// Where.
        name: String,
    },
    /// An error answer of the server behind.
    #[error("{store} answers {status} {code}: {message}; {}", words(*effect))]
    Server {
        /// The store.
        store: String,
        /// The HTTP status, or 0 where there is none.
        status: u16,
        /// The server's own code.
        code: String,
        /// The server's own words.
        message: String,
        /// Whether the request may have been carried out.
        effect: Effect,
    },
    /// Bytes that the server's protocol does not allow.
    #[error("{store} answers what its protocol does not allow: {problem}; {}", words(*effect))]
    Protocol {
        /// The store.
        store: String,
        /// What was wrong.
        problem: String,
        /// Whether the request may have been carried out.
        effect: Effect,
    },
    /// The machine refused: a file, a thread.
    #[error("{store}: {what}: {reason}; {}", words(*effect))]
    System {
        /// The store.
        store: String,
        /// What was tried.
        what: String,
        /// In the machine's words.
        reason: String,
        /// Whether the request may have been carried out.
        effect: Effect,
    },
    /// A composite whose layout does not fit.
    #[error("{source}")]
    Layout {
        /// What differs, and what mends it.
        #[source]
        source: Arc<LayoutStoreError>,
    },
    /// A composite that was given the wrong members.
    #[error("'{composite}' {problem}")]
    Members {
        /// The composite.
        composite: String,
        /// What is wrong with them.
        problem: String,
    },
    /// Options that a store cannot be opened with.
    #[error("'{store}': {problem}")]
    Options {
        /// The store.
        store: String,
        /// What is wrong, and what mends it.
        problem: String,
    },
}

fn words(effect: Effect) -> &'static str {
    match effect {
        Effect::NotApplied => "not applied",
        Effect::Unknown => "outcome unknown",
    }
}

impl BlobError {
    /// What kind of trouble it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound
            | Self::NoSuchUpload
            | Self::NotModified { .. }
            | Self::Range { .. }
            | Self::Body { .. }
            | Self::KeyEmpty
            | Self::KeyTooLong { .. }
            | Self::KeyRefused { .. }
            | Self::InvalidPart { .. }
            | Self::PartOrder
            | Self::PartTooSmall { .. }
            | Self::TooLarge { .. } => ErrorKind::Invalid,
            Self::PreconditionFailed | Self::Conflict { .. } => ErrorKind::Conflict,
            Self::Unsupported { .. } | Self::ConditionUnsupported { .. } => ErrorKind::Unsupported,
            Self::ConditionUnprobed { .. } | Self::Down { .. } | Self::NotUsed { .. } => {
                ErrorKind::Unreachable
            }
            Self::Timeout { .. } => ErrorKind::Timeout,
            Self::Overloaded { .. } | Self::Full { .. } => ErrorKind::Overloaded,
            Self::OutOfOrder { .. } | Self::Protocol { .. } => ErrorKind::Protocol,
            Self::Server { .. } => ErrorKind::Server,
            Self::Damaged { .. } | Self::System { .. } => ErrorKind::System,
            Self::Layout { .. } | Self::Members { .. } | Self::Options { .. } => ErrorKind::Refused,
        }
    }

    /// Whose trouble it is.
    #[must_use]
    pub fn origin(&self) -> Origin {
        match self.kind() {
            ErrorKind::Refused
            | ErrorKind::Invalid
            | ErrorKind::Unauthorized
            | ErrorKind::CrossShard
            | ErrorKind::Unsupported
            | ErrorKind::Conflict => Origin::Downstream,
            ErrorKind::Unreachable
            | ErrorKind::Timeout
            | ErrorKind::Overloaded
            | ErrorKind::Protocol
            | ErrorKind::Server => Origin::Upstream,
            ErrorKind::Closing | ErrorKind::System => Origin::Internal,
        }
    }

    /// Whether the request may have been carried out.
    #[must_use]
    pub fn effect(&self) -> Effect {
        match self {
            Self::Down { effect, .. }
            | Self::Timeout { effect, .. }
            | Self::Server { effect, .. }
            | Self::Protocol { effect, .. }
            | Self::System { effect, .. } => *effect,
            _ => Effect::NotApplied,
        }
    }

    /// The same error of a write that had begun to be carried out: its outcome is unknown.
    #[must_use]
    pub fn with_effect(mut self, now: Effect) -> Self {
        match &mut self {
            Self::Down { effect, .. }
            | Self::Timeout { effect, .. }
            | Self::Server { effect, .. }
            | Self::Protocol { effect, .. }
            | Self::System { effect, .. } => *effect = now,
            _ => {}
        }
        self
    }

    /// The same error as a composite's, whose name comes before that of its shard.
    #[must_use]
    pub fn within(mut self, composite: &str) -> Self {
        match &mut self {
            Self::KeyRefused { store, .. }
            | Self::TooLarge { store, .. }
            | Self::Unsupported { store, .. }
            | Self::ConditionUnprobed { store, .. }
            | Self::Down { store, .. }
            | Self::Timeout { store, .. }
            | Self::NotUsed { store, .. }
            | Self::Overloaded { store, .. }
            | Self::Full { store, .. }
            | Self::Damaged { store, .. }
            | Self::Conflict { store }
            | Self::OutOfOrder { store, .. }
            | Self::Server { store, .. }
            | Self::Protocol { store, .. }
            | Self::System { store, .. } => *store = format!("{composite}/{store}"),
            Self::ConditionUnsupported { stores, .. } => {
                let named = stores
                    .split(", ")
                    .map(|store| format!("{composite}/{store}"));
                *stores = named.collect::<Vec<_>>().join(", ");
            }
            // Of the request, or they name the composite already.
            Self::NotFound
            | Self::NoSuchUpload
            | Self::NotModified { .. }
            | Self::PreconditionFailed
            | Self::Range { .. }
            | Self::Body { .. }
            | Self::KeyEmpty
            | Self::KeyTooLong { .. }
            | Self::InvalidPart { .. }
            | Self::PartOrder
            | Self::PartTooSmall { .. }
            | Self::Layout { .. }
            | Self::Members { .. }
            | Self::Options { .. } => {}
        }
        self
    }
}
