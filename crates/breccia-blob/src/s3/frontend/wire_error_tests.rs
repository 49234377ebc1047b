//! The rows of refusals, as tables.
//!
//! Not their texts, but for what a message must name. Invariant: an unknown outcome is
//! a 503 in every row.

use super::*;
use crate::checksum::Algorithm;
use crate::condition::ConditionalCall;
use crate::meta::ETag;

fn store() -> String {
    "blobs/pg-1".to_owned()
}

#[track_caller]
fn check(refusal: impl Into<Refusal>, status: u16, code: &str, says: &str) {
    let refusal = refusal.into();
    let row = of(&refusal);
    let found = (row.status.as_u16(), row.code);
    assert_eq!(found, (status, code), "{refusal:?}");
    let message = refusal.to_string();
    assert!(message.contains(says), "{message}");
}

#[test]
fn errors_of_requests_have_their_rows() {
    check(BlobError::NotFound, 404, "NoSuchKey", "");
    check(BlobError::NoSuchUpload, 404, "NoSuchUpload", "");
    let etag = ETag::from_text("x");
    let modified_ms = 0;
    check(
        BlobError::NotModified { etag, modified_ms },
        304,
        "NotModified",
        "",
    );
    check(BlobError::PreconditionFailed, 412, "PreconditionFailed", "");
    check(BlobError::Range { size: 9 }, 416, "InvalidRange", "9 bytes");
    check(
        BlobError::KeyTooLong { length: 2000 },
        400,
        "KeyTooLongError",
        "2000",
    );
    let reason = "it has a NUL".to_owned();
    let refused = BlobError::KeyRefused {
        store: store(),
        reason,
    };
    check(refused, 400, "InvalidArgument", "'blobs/pg-1'");
    check(
        BlobError::InvalidPart { number: 3 },
        400,
        "InvalidPart",
        "3",
    );
    check(BlobError::PartOrder, 400, "InvalidPartOrder", "");
    let small = BlobError::PartTooSmall { number: 1, size: 2 };
    check(small, 400, "EntityTooSmall", "5 MiB");
    let large = BlobError::TooLarge {
        store: store(),
        limit: 7,
    };
    check(large, 400, "EntityTooLarge", "7");
}

#[test]
fn errors_of_members_have_their_rows_and_name_the_member() {
    let call = ConditionalCall::PutIfAbsent;
    let stores = store();
    check(
        BlobError::ConditionUnsupported { call, stores },
        501,
        "NotImplemented",
        "blobs/pg-1",
    );
    let unprobed = BlobError::ConditionUnprobed {
        call,
        store: store(),
    };
    check(unprobed, 503, "ServiceUnavailable", "try again");
    let down = BlobError::Down {
        store: store(),
        reason: "connection refused".to_owned(),
        effect: Effect::NotApplied,
    };
    check(down.clone(), 503, "ServiceUnavailable", "not applied");
    let down = down.with_effect(Effect::Unknown);
    check(down, 503, "ServiceUnavailable", "outcome unknown");
    let timeout = BlobError::Timeout {
        store: store(),
        effect: Effect::Unknown,
    };
    check(timeout, 503, "ServiceUnavailable", "blobs/pg-1");
    let limit = "in flight".to_owned();
    let overloaded = BlobError::Overloaded {
        store: store(),
        limit,
    };
    check(overloaded, 503, "SlowDown", "in flight");
    let full = BlobError::Full {
        store: store(),
        reason: "no space".to_owned(),
    };
    check(full, 507, "InsufficientStorage", "blobs/pg-1");
    let damaged = BlobError::Damaged {
        store: store(),
        problem: "block 3".to_owned(),
    };
    check(damaged, 500, "InternalError", "blobs/pg-1");
}

#[test]
fn an_answer_of_a_server_behind_is_a_503_whenever_its_outcome_is_unknown() {
    let check = |status: u16, effect: Effect, expected: Wire| {
        let error = BlobError::Server {
            store: store(),
            status,
            code: "X".to_owned(),
            message: String::new(),
            effect,
        };
        assert_eq!(of_blob(&error), expected, "{status} {effect:?}");
    };
    check(403, Effect::NotApplied, INTERNAL);
    check(403, Effect::Unknown, UNAVAILABLE);
    check(500, Effect::NotApplied, UNAVAILABLE);
    check(429, Effect::NotApplied, UNAVAILABLE);
}

#[test]
fn troubles_inside_have_their_rows() {
    let conflict = BlobError::Conflict { store: store() };
    check(conflict, 409, "ConditionalRequestConflict", "try again");
    let name = "k".to_owned();
    let order = BlobError::OutOfOrder {
        store: store(),
        name,
    };
    check(order, 500, "InternalError", "blobs/pg-1");
    let reason = "its marker is gone".to_owned();
    let unused = BlobError::NotUsed {
        store: store(),
        reason,
    };
    check(unused, 503, "ServiceUnavailable", "marker");
    let unsupported = BlobError::Unsupported {
        store: store(),
        operation: "copy".to_owned(),
        reason: "it cannot".to_owned(),
    };
    check(unsupported, 501, "NotImplemented", "blobs/pg-1");
    let protocol = BlobError::Protocol {
        store: store(),
        problem: "no head".to_owned(),
        effect: Effect::NotApplied,
    };
    check(protocol.clone(), 500, "InternalError", "not applied");
    let protocol = protocol.with_effect(Effect::Unknown);
    check(protocol, 503, "ServiceUnavailable", "outcome unknown");
    let system = BlobError::System {
        store: store(),
        what: "write a file".to_owned(),
        reason: "input/output error".to_owned(),
        effect: Effect::Unknown,
    };
    check(system, 503, "ServiceUnavailable", "outcome unknown");
}

#[test]
fn refusals_of_the_frontend_have_their_rows() {
    let reason = "why";
    check(Refusal::AccessDenied { reason }, 403, "AccessDenied", "why");
    let what = || "PutBucketAcl".to_owned();
    check(
        Refusal::not_implemented(what()),
        501,
        "NotImplemented",
        "PutBucketAcl",
    );
    check(Refusal::MethodNotAllowed, 405, "MethodNotAllowed", "");
    check(Refusal::argument("a"), 400, "InvalidArgument", "a");
    check(Refusal::request("a"), 400, "InvalidRequest", "a");
    let reason = "why".to_owned();
    check(Refusal::Target { reason }, 400, "InvalidURI", "why");
    let bucket = "mail".to_owned();
    check(
        Refusal::NoSuchBucket { bucket },
        404,
        "NoSuchBucket",
        "mail",
    );
    check(Refusal::BucketName, 400, "InvalidBucketName", "");
    check(Refusal::BucketIsThere, 409, "BucketAlreadyOwnedByYou", "");
    check(Refusal::BucketOfOthers, 409, "BucketAlreadyExists", "");
    check(Refusal::BucketNotEmpty, 409, "BucketNotEmpty", "");
    let region = "eu".to_owned();
    check(
        Refusal::Location { region },
        400,
        "InvalidLocationConstraint",
        "eu",
    );
    check(Refusal::LengthMissing, 411, "MissingContentLength", "");
    let (size, limit) = (2, 1);
    check(
        Refusal::EntityTooLarge { size, limit },
        400,
        "EntityTooLarge",
        "1",
    );
    let document = Refusal::DocumentTooLarge { limit };
    check(document, 400, "MaxMessageLengthExceeded", "1");
    let element = "Key";
    check(XmlError::Missing { element }, 400, "MalformedXML", "Key");
    check(XmlError::KeyNotUtf8, 400, "InvalidRequest", "encoding-type");
    let header = "Content-MD5";
    check(Refusal::Digest { header }, 400, "InvalidDigest", header);
    let problem = "twice";
    check(Refusal::Tag { problem }, 400, "InvalidTag", problem);
    let metadata = Refusal::MetadataTooLarge { size: 3, limit: 2 };
    check(metadata, 400, "MetadataTooLarge", "3 bytes");
    check(
        Refusal::NoSuchPart { number: 7 },
        416,
        "InvalidPartNumber",
        "7",
    );
    let limit = "buffer-memory";
    check(Refusal::SlowDown { limit }, 503, "SlowDown", "not applied");
    let problem = "odd".to_owned();
    check(Refusal::Internal { problem }, 500, "InternalError", "odd");
}

#[test]
fn faults_of_bodies_have_their_rows() {
    let check = |fault: BodyFault, status: u16, code: &str| {
        let row = of_blob(&BlobError::Body { fault });
        assert_eq!((row.status.as_u16(), row.code), (status, code));
    };
    let (expected, got) = (2, 1);
    check(BodyFault::TooShort { expected, got }, 400, "IncompleteBody");
    check(BodyFault::TooLong { expected }, 400, "InvalidRequest");
    check(BodyFault::Md5, 400, "BadDigest");
    check(BodyFault::Sha256, 400, "XAmzContentSHA256Mismatch");
    let algorithm = Algorithm::Crc32;
    check(BodyFault::Checksum { algorithm }, 400, "BadDigest");
    check(BodyFault::ChunkSignature, 403, "SignatureDoesNotMatch");
    check(BodyFault::TooSlow, 400, "RequestTimeout");
    check(BodyFault::Gone, 400, "IncompleteBody");
}

#[test]
fn signatures_have_their_rows() {
    let check = |error: SignatureError, status: u16, code: &str| {
        let row = of_signature(&error);
        assert_eq!((row.status.as_u16(), row.code), (status, code), "{error}");
    };
    check(SignatureError::Mismatch, 403, "SignatureDoesNotMatch");
    let access_key = "AK".to_owned();
    check(
        SignatureError::UnknownAccessKey { access_key },
        403,
        "InvalidAccessKeyId",
    );
    let (expired_ms, now_ms) = (1, 2);
    check(
        SignatureError::Expired { expired_ms, now_ms },
        403,
        "AccessDenied",
    );
    let request_ms = 1;
    check(
        SignatureError::Skewed { request_ms, now_ms },
        403,
        "RequestTimeTooSkewed",
    );
    let name = "x-amz-acl".to_owned();
    check(SignatureError::UnsignedHeader { name }, 403, "AccessDenied");
    check(SignatureError::Version2, 400, "InvalidRequest");
    check(SignatureError::Algorithm, 501, "NotImplemented");
    let streaming = true;
    check(SignatureError::Payload { streaming }, 501, "NotImplemented");
}
