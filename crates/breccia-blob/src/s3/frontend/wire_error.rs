//! What each refusal is on the wire: an HTTP status and S3's code for it.
//!
//! Not the message: that is the refusal's own text. Invariant: every refusal has its row, and an
//! outcome that is unknown is never told as a plain failure.

use breccia_core::error::Effect;
use hyper::StatusCode;

use crate::error::{BlobError, BodyFault};
use crate::s3::codec::sigv4::SignatureError;
use crate::s3::codec::xml::XmlError;

use super::refusal::Refusal;

/// A status and S3's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wire {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
}

const fn wire(status: StatusCode, code: &'static str) -> Wire {
    Wire { status, code }
}

const UNAVAILABLE: Wire = wire(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable");
const SLOW_DOWN: Wire = wire(StatusCode::SERVICE_UNAVAILABLE, "SlowDown");
const INTERNAL: Wire = wire(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
const NOT_IMPLEMENTED: Wire = wire(StatusCode::NOT_IMPLEMENTED, "NotImplemented");
const ACCESS_DENIED: Wire = wire(StatusCode::FORBIDDEN, "AccessDenied");
const MISMATCH: Wire = wire(StatusCode::FORBIDDEN, "SignatureDoesNotMatch");
const ARGUMENT: Wire = bad("InvalidArgument");
const REQUEST: Wire = bad("InvalidRequest");

const fn bad(code: &'static str) -> Wire {
    wire(StatusCode::BAD_REQUEST, code)
}

/// The row of a refusal.
pub(super) fn of(refusal: &Refusal) -> Wire {
    match refusal {
        Refusal::Blob(error) => of_blob(error),
        Refusal::Signature(error) => of_signature(error),
        Refusal::AccessDenied { .. } => ACCESS_DENIED,
        Refusal::NotImplemented { .. } => NOT_IMPLEMENTED,
        Refusal::MethodNotAllowed => wire(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        Refusal::Argument { .. } => ARGUMENT,
        // Nothing is wrong with the latter's XML: it must ask for `encoding-type=url`.
        Refusal::Request { .. } | Refusal::Xml(XmlError::KeyNotUtf8) => REQUEST,
        Refusal::Target { .. } => bad("InvalidURI"),
        Refusal::NoSuchBucket { .. } => wire(StatusCode::NOT_FOUND, "NoSuchBucket"),
        Refusal::BucketName => bad("InvalidBucketName"),
        Refusal::BucketIsThere => wire(StatusCode::CONFLICT, "BucketAlreadyOwnedByYou"),
        Refusal::BucketOfOthers => wire(StatusCode::CONFLICT, "BucketAlreadyExists"),
        Refusal::BucketNotEmpty => wire(StatusCode::CONFLICT, "BucketNotEmpty"),
        Refusal::Location { .. } => bad("InvalidLocationConstraint"),
        Refusal::LengthMissing => wire(StatusCode::LENGTH_REQUIRED, "MissingContentLength"),
        Refusal::EntityTooLarge { .. } => bad("EntityTooLarge"),
        Refusal::DocumentTooLarge { .. } => bad("MaxMessageLengthExceeded"),
        Refusal::Xml(_) => bad("MalformedXML"),
        Refusal::Digest { .. } => bad("InvalidDigest"),
        Refusal::Tag { .. } => bad("InvalidTag"),
        Refusal::MetadataTooLarge { .. } => bad("MetadataTooLarge"),
        Refusal::NoSuchPart { .. } => wire(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidPartNumber"),
        Refusal::SlowDown { .. } => SLOW_DOWN,
        Refusal::Internal { .. } => INTERNAL,
    }
}

/// The row of a store's error.
pub(super) fn of_blob(error: &BlobError) -> Wire {
    match error {
        BlobError::NotFound => wire(StatusCode::NOT_FOUND, "NoSuchKey"),
        BlobError::NoSuchUpload => wire(StatusCode::NOT_FOUND, "NoSuchUpload"),
        BlobError::NotModified { .. } => wire(StatusCode::NOT_MODIFIED, "NotModified"),
        BlobError::PreconditionFailed => {
            wire(StatusCode::PRECONDITION_FAILED, "PreconditionFailed")
        }
        BlobError::Range { .. } => wire(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange"),
        BlobError::Body { fault } => of_body(fault),
        BlobError::KeyEmpty | BlobError::KeyRefused { .. } => ARGUMENT,
        BlobError::KeyTooLong { .. } => bad("KeyTooLongError"),
        BlobError::InvalidPart { .. } => bad("InvalidPart"),
        BlobError::PartOrder => bad("InvalidPartOrder"),
        BlobError::PartTooSmall { .. } => bad("EntityTooSmall"),
        BlobError::TooLarge { .. } => bad("EntityTooLarge"),
        BlobError::Unsupported { .. } | BlobError::ConditionUnsupported { .. } => NOT_IMPLEMENTED,
        BlobError::ConditionUnprobed { .. }
        | BlobError::Down { .. }
        | BlobError::Timeout { .. }
        | BlobError::NotUsed { .. } => UNAVAILABLE,
        BlobError::Overloaded { .. } => SLOW_DOWN,
        BlobError::Full { .. } => wire(StatusCode::INSUFFICIENT_STORAGE, "InsufficientStorage"),
        BlobError::Conflict { .. } => wire(StatusCode::CONFLICT, "ConditionalRequestConflict"),
        BlobError::Server { status, effect, .. } => {
            let passing = *status >= 500 || *status == 429 || *status == 0;
            if passing || *effect == Effect::Unknown {
                UNAVAILABLE
            } else {
                INTERNAL
            }
        }
        BlobError::Protocol { effect, .. } | BlobError::System { effect, .. } => match effect {
            Effect::Unknown => UNAVAILABLE,
            Effect::NotApplied => INTERNAL,
        },
        BlobError::Damaged { .. }
        | BlobError::OutOfOrder { .. }
        | BlobError::Layout { .. }
        | BlobError::Members { .. }
        | BlobError::Options { .. } => INTERNAL,
    }
}

fn of_body(fault: &BodyFault) -> Wire {
    match fault {
        BodyFault::TooShort { .. } | BodyFault::Gone => bad("IncompleteBody"),
        BodyFault::TooLong { .. } | BodyFault::Framing { .. } => REQUEST,
        BodyFault::Md5 | BodyFault::Checksum { .. } => bad("BadDigest"),
        BodyFault::Sha256 => bad("XAmzContentSHA256Mismatch"),
        BodyFault::ChunkSignature => MISMATCH,
        BodyFault::TooSlow => bad("RequestTimeout"),
    }
}

fn of_signature(error: &SignatureError) -> Wire {
    match error {
        SignatureError::HeaderMalformed { .. }
        | SignatureError::Scope {
            presigned: false, ..
        } => bad("AuthorizationHeaderMalformed"),
        SignatureError::QueryMalformed { .. }
        | SignatureError::Scope {
            presigned: true, ..
        } => bad("AuthorizationQueryParametersError"),
        SignatureError::Version2 | SignatureError::PayloadMissing => REQUEST,
        SignatureError::Algorithm | SignatureError::Payload { streaming: true } => NOT_IMPLEMENTED,
        SignatureError::TwoForms | SignatureError::Payload { streaming: false } => ARGUMENT,
        SignatureError::Date
        | SignatureError::NotYetValid
        | SignatureError::Expired { .. }
        | SignatureError::HostNotSigned
        | SignatureError::UnsignedHeader { .. } => ACCESS_DENIED,
        SignatureError::Skewed { .. } => wire(StatusCode::FORBIDDEN, "RequestTimeTooSkewed"),
        SignatureError::SignedHeaderAbsent { .. } | SignatureError::Mismatch => MISMATCH,
        SignatureError::UnknownAccessKey { .. } => {
            wire(StatusCode::FORBIDDEN, "InvalidAccessKeyId")
        }
        SignatureError::Uri { .. } => bad("InvalidURI"),
    }
}

#[cfg(test)]
#[path = "wire_error_tests.rs"]
mod tests;
