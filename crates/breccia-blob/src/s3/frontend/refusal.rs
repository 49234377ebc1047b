//! Why a request is not carried out: the stores' reasons, the signature's, and this frontend's own.
//!
//! Not the wire's words: `wire_error` maps these. Invariant: a message never holds a secret.

use thiserror::Error;

use crate::error::BlobError;
use crate::s3::codec::sigv4::SignatureError;
use crate::s3::codec::uri::UriError;
use crate::s3::codec::xml::XmlError;

/// See the module's page.
#[derive(Debug, Clone, Error)]
pub(super) enum Refusal {
    /// A store's error.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The request is not signed as it should be.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Signed rightly, or not at all, and not allowed.
    #[error("access denied: {reason}")]
    AccessDenied {
        /// Why.
        reason: &'static str,
    },
    /// Something that is not offered.
    #[error("{what} is not implemented")]
    NotImplemented {
        /// What.
        what: String,
    },
    /// A method that the target does not take.
    #[error("the method is not allowed on this resource")]
    MethodNotAllowed,
    /// A header or parameter with a value that cannot be.
    #[error("{what}")]
    Argument {
        /// Which, and what is wrong.
        what: String,
    },
    /// A request that contradicts itself.
    #[error("{what}")]
    Request {
        /// What is wrong.
        what: String,
    },
    /// A target that cannot be read.
    #[error("the request target is wrong: {reason}")]
    Target {
        /// What is wrong.
        reason: String,
    },
    /// There is no such bucket.
    #[error("there is no bucket '{bucket}'")]
    NoSuchBucket {
        /// Its name.
        bucket: String,
    },
    /// A name that no bucket can have.
    #[error("a bucket's name has 3 to 63 lower-case letters, digits, dots and hyphens")]
    BucketName,
    /// A bucket that is there already.
    #[error("the bucket is there already and yours")]
    BucketIsThere,
    /// A bucket that somebody else made.
    #[error("the bucket is there already and somebody else's")]
    BucketOfOthers,
    /// A bucket that holds objects.
    #[error("the bucket holds objects")]
    BucketNotEmpty,
    /// A region that is not ours.
    #[error("this listener's region is '{region}'")]
    Location {
        /// Ours.
        region: String,
    },
    /// A body without a size.
    #[error(
        "the size of the body must be given: Content-Length, or with aws-chunked x-amz-decoded-content-length"
    )]
    LengthMissing,
    /// A body beyond the limit.
    #[error("the body has {size} bytes, the limit is {limit}")]
    EntityTooLarge {
        /// How many it has.
        size: u64,
        /// The most.
        limit: u64,
    },
    /// An XML document beyond the limit.
    #[error("the document is longer than {limit} bytes")]
    DocumentTooLarge {
        /// The most.
        limit: u64,
    },
    /// An XML document that cannot be understood, or a key that cannot stand in one.
    #[error("the XML is not well-formed or not what the operation takes: {0}")]
    Xml(#[from] XmlError),
    /// A digest that is none.
    #[error("{header} is not a digest in base64")]
    Digest {
        /// Which header.
        header: &'static str,
    },
    /// Tags that cannot be.
    #[error("{problem}")]
    Tag {
        /// What is wrong.
        problem: &'static str,
    },
    /// Too much user metadata.
    #[error("the metadata has {size} bytes, the limit is {limit}")]
    MetadataTooLarge {
        /// How many it has.
        size: usize,
        /// The most.
        limit: usize,
    },
    /// A part that the object does not have.
    #[error("the object has no part {number}")]
    NoSuchPart {
        /// Its number.
        number: u16,
    },
    /// A limit of this gateway is reached.
    #[error("{limit} is reached; not applied, try again")]
    SlowDown {
        /// Which.
        limit: &'static str,
    },
    /// A fault of this gateway.
    #[error("{problem}")]
    Internal {
        /// What went wrong.
        problem: String,
    },
}

impl From<UriError> for Refusal {
    fn from(error: UriError) -> Self {
        Self::Target {
            reason: error.to_string(),
        }
    }
}

impl Refusal {
    /// An argument that cannot be.
    pub(super) fn argument(what: impl Into<String>) -> Self {
        Self::Argument { what: what.into() }
    }

    /// A request that contradicts itself.
    pub(super) fn request(what: impl Into<String>) -> Self {
        Self::Request { what: what.into() }
    }

    /// Something that is not offered.
    pub(super) fn not_implemented(what: impl Into<String>) -> Self {
        Self::NotImplemented { what: what.into() }
    }
}
