//! Signature version 4, as S3 speaks it: made for members, checked for clients.
//!
//! ```text
//! request ─▶ canonical ─▶ string to sign ─▶ HMAC by the scope's key ─▶ signature
//!  header or query ─▶ authorization ─▶ verify ─▶ Verified (who, payload, seed of the chunks)
//! ```
//!
//! No clock, no secret store: the time and a look-up of keys are arguments. Invariant: a request is
//! verified only when its host and every `x-amz-*` header that arrived are covered by the signature.

mod authorization;
mod canonical;
mod key;
mod payload;
mod sign;
mod verify;

use hyper::HeaderMap;
use thiserror::Error;

pub use authorization::{Authorization, Form};
pub use canonical::{canonical_request, string_to_sign};
pub use key::{Scope, Signature, SigningKey};
pub use payload::Payload;
pub use sign::{SignError, Signer};
pub use verify::{KeyLookup, Regions, Verified, verify};

use super::uri::UriError;

/// The one algorithm.
pub const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// How far a client's clock may be off, either way.
pub const MOST_SKEW_MS: u64 = 15 * 60 * 1000;
/// The longest life of a presigned URL: seven days.
pub const MOST_EXPIRES_S: u64 = 604_800;
/// A signature covers at most so many headers.
pub const MOST_SIGNED_HEADERS: usize = 100;

/// The parts of a request that a signature covers, as they arrived.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// `GET` …
    pub method: &'a str,
    /// The path of the request line, still encoded.
    pub path: &'a str,
    /// What stands behind the `?`, still encoded; else empty.
    pub query: &'a str,
    /// The headers, `host` among them.
    pub headers: &'a HeaderMap,
}

/// Why a request is not believed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// `Authorization` cannot be read: `AuthorizationHeaderMalformed`.
    #[error("the authorization header is malformed: {what}")]
    HeaderMalformed {
        /// What of it.
        what: &'static str,
    },
    /// The `X-Amz-…` parameters cannot be read: `AuthorizationQueryParametersError`.
    #[error("the authorization parameters of the query are wrong: {what}")]
    QueryMalformed {
        /// What of them.
        what: &'static str,
    },
    /// Signature version 2, by header or query: `InvalidRequest`.
    #[error("signature version 2 is not supported; use {ALGORITHM}")]
    Version2,
    /// Another algorithm (such as SigV4a): `NotImplemented`.
    #[error("the signature algorithm is not supported; use {ALGORITHM}")]
    Algorithm,
    /// Signed by header and by query at once: `InvalidArgument`.
    #[error("only one of the authorization header and query may be used")]
    TwoForms,
    /// The scope is for a region, service or terminator that is not ours:
    /// `AuthorizationHeaderMalformed` or, in a query, `AuthorizationQueryParametersError`.
    #[error("the credential scope is wrong: {what}")]
    Scope {
        /// What of it.
        what: &'static str,
        /// Whether it stood in the query.
        presigned: bool,
    },
    /// No date, or one that cannot be read: `AccessDenied`.
    #[error("the request has no valid x-amz-date or Date")]
    Date,
    /// `RequestTimeTooSkewed`
    #[error("the request's time is too far from the server's")]
    Skewed {
        /// The request's time.
        request_ms: u64,
        /// Ours.
        now_ms: u64,
    },
    /// A presigned URL from the future: `AccessDenied`.
    #[error("the request is not valid yet")]
    NotYetValid,
    /// A presigned URL past its time: `AccessDenied` ("Request has expired").
    #[error("the request has expired")]
    Expired {
        /// When it did.
        expired_ms: u64,
        /// Our time.
        now_ms: u64,
    },
    /// `host` is not signed: `AccessDenied`.
    #[error("the host header is not signed")]
    HostNotSigned,
    /// An `x-amz-*` header that arrived is not signed: `AccessDenied`.
    #[error("header {name} is present and not signed")]
    UnsignedHeader {
        /// Which.
        name: String,
    },
    /// A signed header did not arrive: `SignatureDoesNotMatch`.
    #[error("header {name} is signed and not present")]
    SignedHeaderAbsent {
        /// Which.
        name: String,
    },
    /// No `x-amz-content-sha256`: `InvalidRequest`.
    #[error("header x-amz-content-sha256 is missing")]
    PayloadMissing,
    /// An `x-amz-content-sha256` that is neither a hash nor a kind that is spoken here:
    /// `NotImplemented` for a `STREAMING-…` kind, else `InvalidArgument`.
    #[error("this value of x-amz-content-sha256 is not supported")]
    Payload {
        /// Whether it names a kind of streaming.
        streaming: bool,
    },
    /// `InvalidAccessKeyId`
    #[error("access key {access_key} is not known")]
    UnknownAccessKey {
        /// Which.
        access_key: String,
    },
    /// `SignatureDoesNotMatch`
    #[error("the signature does not match")]
    Mismatch,
    /// The target cannot be decoded: `InvalidURI`.
    #[error("the request target is wrong: {source}")]
    Uri {
        /// What of it.
        #[from]
        source: UriError,
    },
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
