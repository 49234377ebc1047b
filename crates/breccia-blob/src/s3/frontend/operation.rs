//! Which of S3's operations a request is.
//!
//! From the method, the target and the query alone; headers are judged elsewhere. Invariant: a request
//! for something that is not offered is told so by its name, and never taken for another operation.

use hyper::Method;

use crate::s3::codec::uri::Query;

/// What is not offered to `POST` on a bucket.
pub(super) const FORM_UPLOAD: &str = "PostObject (uploads by HTML forms)";

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// The service as a whole.
    Service,
    /// A bucket.
    Bucket,
    /// An object.
    Object,
}

macro_rules! operations {
    ($($name:ident $writes:literal;)*) => {
        /// The operations that are offered, by S3's names.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Operation {
            $($name,)*
        }

        impl Operation {
            /// Every operation.
            pub(super) const ALL: &[Self] = &[$(Self::$name,)*];

            /// S3's name for it.
            pub(super) fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// Whether it changes anything.
            pub(super) fn writes(self) -> bool {
                match self {
                    $(Self::$name => $writes,)*
                }
            }
        }
    };
}

operations! {
    ListBuckets false;
    CreateBucket true;
    DeleteBucket true;
    HeadBucket false;
    GetBucketLocation false;
    GetBucketVersioning false;
    ListObjects false;
    ListObjectsV2 false;
    ListMultipartUploads false;
    DeleteObjects true;
    PutObject true;
    CopyObject true;
    GetObject false;
    HeadObject false;
    DeleteObject true;
    GetObjectTagging false;
    PutObjectTagging true;
    DeleteObjectTagging true;
    GetObjectAttributes false;
    CreateMultipartUpload true;
    UploadPart true;
    UploadPartCopy true;
    CompleteMultipartUpload true;
    AbortMultipartUpload true;
    ListParts false;
}

/// Why a request is none of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unrouted {
    /// An operation of S3 that is not offered, or something that nobody knows.
    NotImplemented(String),
    /// A method that the target does not take.
    MethodNotAllowed,
    /// A parameter's value that cannot be.
    Argument(&'static str),
}

/// Parts of buckets and objects that S3 knows and that are not offered, with S3's name for them.
const NOT_OFFERED: &[(&str, &str)] = &[
    ("abac", "Abac"),
    ("accelerate", "AccelerateConfiguration"),
    ("acl", "Acl"),
    ("analytics", "AnalyticsConfiguration"),
    ("cors", "Cors"),
    ("encryption", "Encryption"),
    ("intelligent-tiering", "IntelligentTieringConfiguration"),
    ("inventory", "InventoryConfiguration"),
    ("legal-hold", "LegalHold"),
    ("lifecycle", "LifecycleConfiguration"),
    ("logging", "Logging"),
    ("metadataConfiguration", "MetadataConfiguration"),
    ("metadataTable", "MetadataTableConfiguration"),
    ("metrics", "MetricsConfiguration"),
    ("notification", "NotificationConfiguration"),
    ("object-lock", "ObjectLockConfiguration"),
    ("ownershipControls", "OwnershipControls"),
    ("policy", "Policy"),
    ("policyStatus", "PolicyStatus"),
    ("publicAccessBlock", "PublicAccessBlock"),
    ("renameObject", "Rename"),
    ("replication", "Replication"),
    ("requestPayment", "RequestPayment"),
    ("restore", "Restore"),
    ("retention", "Retention"),
    ("select", "SelectContent"),
    ("session", "Session"),
    ("torrent", "Torrent"),
    ("versionId", "Version"),
    ("versions", "Versions"),
    ("website", "Website"),
];

/// Parameters that operations take: they may come without a value.
const PARAMETERS: &[&str] = &[
    "attributes",
    "bucket-region",
    "continuation-token",
    "delete",
    "delimiter",
    "encoding-type",
    "fetch-owner",
    "key-marker",
    "list-type",
    "location",
    "marker",
    "max-buckets",
    "max-keys",
    "max-parts",
    "max-uploads",
    "part-number-marker",
    "partNumber",
    "prefix",
    "start-after",
    "tagging",
    "upload-id-marker",
    "uploadId",
    "uploads",
    "versioning",
    "x-id",
];

/// The operation of a request; `copies` if it names a copy source.
pub(super) fn route(
    method: &Method,
    scope: Scope,
    query: &Query,
    copies: bool,
) -> Result<Operation, Unrouted> {
    refuse_unoffered(method, scope, query)?;
    match scope {
        Scope::Service => route_service(method),
        Scope::Bucket => route_bucket(method, query),
        Scope::Object => route_object(method, query, copies),
    }
}

/// A parameter without a value that nobody knows is a part of S3 that we do not know: taking the
/// request for one without it might delete a bucket instead of its settings.
fn refuse_unoffered(method: &Method, scope: Scope, query: &Query) -> Result<(), Unrouted> {
    let verb = match *method {
        Method::GET | Method::HEAD => "Get",
        Method::PUT => "Put",
        Method::DELETE => "Delete",
        _ => "Post",
    };
    let subject = if scope == Scope::Object {
        "Object"
    } else {
        "Bucket"
    };
    for (name, value) in query.pairs() {
        if let Some((_, what)) = NOT_OFFERED.iter().find(|(known, _)| known == name) {
            return Err(Unrouted::NotImplemented(format!("{verb}{subject}{what}")));
        }
        let lower = name.to_ascii_lowercase();
        let known = PARAMETERS.contains(&name.as_str())
            || lower.starts_with("x-amz-")
            || lower.starts_with("response-");
        if value.is_empty() && !known {
            let shown: String = name.chars().take(64).collect();
            return Err(Unrouted::NotImplemented(format!("{method} ?{shown}")));
        }
    }
    Ok(())
}

fn route_service(method: &Method) -> Result<Operation, Unrouted> {
    match *method {
        Method::GET => Ok(Operation::ListBuckets),
        Method::POST => not_implemented("POST on the service"),
        _ => Err(Unrouted::MethodNotAllowed),
    }
}

fn route_bucket(method: &Method, query: &Query) -> Result<Operation, Unrouted> {
    match *method {
        Method::GET if query.has("location") => Ok(Operation::GetBucketLocation),
        Method::GET if query.has("versioning") => Ok(Operation::GetBucketVersioning),
        Method::GET if query.has("uploads") => Ok(Operation::ListMultipartUploads),
        Method::GET if query.has("tagging") => not_implemented("GetBucketTagging"),
        Method::GET => match query.get("list-type") {
            None | Some(b"1") => Ok(Operation::ListObjects),
            Some(b"2") => Ok(Operation::ListObjectsV2),
            Some(_) => Err(Unrouted::Argument("list-type")),
        },
        Method::HEAD => Ok(Operation::HeadBucket),
        Method::PUT if query.has("versioning") => not_implemented("PutBucketVersioning"),
        Method::PUT if query.has("tagging") => not_implemented("PutBucketTagging"),
        Method::PUT => plain(query, Operation::CreateBucket),
        Method::DELETE if query.has("tagging") => not_implemented("DeleteBucketTagging"),
        Method::DELETE => plain(query, Operation::DeleteBucket),
        Method::POST if query.has("delete") => Ok(Operation::DeleteObjects),
        Method::POST => not_implemented(FORM_UPLOAD),
        _ => Err(Unrouted::MethodNotAllowed),
    }
}

fn route_object(method: &Method, query: &Query, copies: bool) -> Result<Operation, Unrouted> {
    let in_upload = query.has("uploadId");
    match *method {
        Method::GET if query.has("tagging") => Ok(Operation::GetObjectTagging),
        Method::GET if query.has("attributes") => Ok(Operation::GetObjectAttributes),
        Method::GET if in_upload => Ok(Operation::ListParts),
        Method::GET => Ok(Operation::GetObject),
        Method::HEAD => Ok(Operation::HeadObject),
        Method::PUT if query.has("tagging") => Ok(Operation::PutObjectTagging),
        Method::PUT if in_upload != query.has("partNumber") => Err(Unrouted::Argument(
            "partNumber and uploadId: one is there without the other",
        )),
        Method::PUT if in_upload && copies => Ok(Operation::UploadPartCopy),
        Method::PUT if in_upload => Ok(Operation::UploadPart),
        Method::PUT if copies => plain(query, Operation::CopyObject),
        Method::PUT => plain(query, Operation::PutObject),
        Method::DELETE if query.has("tagging") => Ok(Operation::DeleteObjectTagging),
        Method::DELETE if in_upload => Ok(Operation::AbortMultipartUpload),
        Method::DELETE => plain(query, Operation::DeleteObject),
        Method::POST if query.has("uploads") => Ok(Operation::CreateMultipartUpload),
        Method::POST if in_upload => Ok(Operation::CompleteMultipartUpload),
        Method::POST => not_implemented("POST on an object"),
        _ => Err(Unrouted::MethodNotAllowed),
    }
}

/// An operation that takes no part of what it is about: `PUT /b?uploads` makes no bucket.
fn plain(query: &Query, operation: Operation) -> Result<Operation, Unrouted> {
    const PARTS: &[&str] = &[
        "attributes",
        "delete",
        "location",
        "tagging",
        "uploads",
        "versioning",
    ];
    match PARTS.iter().find(|part| query.has(part)) {
        Some(_) => Err(Unrouted::MethodNotAllowed),
        None => Ok(operation),
    }
}

fn not_implemented(what: &str) -> Result<Operation, Unrouted> {
    Err(Unrouted::NotImplemented(what.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed(method: &str, path: &str, copies: bool) -> Result<Operation, Unrouted> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let scope = match path {
            "/" => Scope::Service,
            "/b" => Scope::Bucket,
            _ => Scope::Object,
        };
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let query = Query::parse(query).expect("a query");
        route(&method, scope, &query, copies)
    }

    #[test]
    fn every_operation_is_found() {
        let check = |method: &str, path: &str, copies, expected| {
            assert_eq!(
                routed(method, path, copies),
                Ok(expected),
                "{method} {path}"
            );
        };
        check("GET", "/", false, Operation::ListBuckets);
        check("GET", "/?x-id=ListBuckets", false, Operation::ListBuckets);
        check("PUT", "/b", false, Operation::CreateBucket);
        check("DELETE", "/b", false, Operation::DeleteBucket);
        check("HEAD", "/b", false, Operation::HeadBucket);
        check("GET", "/b?location", false, Operation::GetBucketLocation);
        check(
            "GET",
            "/b?versioning=",
            false,
            Operation::GetBucketVersioning,
        );
        check("GET", "/b?prefix=&marker", false, Operation::ListObjects);
        check("GET", "/b?list-type=2", false, Operation::ListObjectsV2);
        check("GET", "/b?uploads", false, Operation::ListMultipartUploads);
        check("POST", "/b?delete", false, Operation::DeleteObjects);
        check("PUT", "/b/k", false, Operation::PutObject);
        check("PUT", "/b/k?x-id=PutObject", false, Operation::PutObject);
        check("PUT", "/b/k", true, Operation::CopyObject);
        check("GET", "/b/k?partNumber=1", false, Operation::GetObject);
        check("GET", "/b/k?response-expires=", false, Operation::GetObject);
        check("HEAD", "/b/k", false, Operation::HeadObject);
        check("DELETE", "/b/k", false, Operation::DeleteObject);
        check("GET", "/b/k?tagging", false, Operation::GetObjectTagging);
        check("PUT", "/b/k?tagging", false, Operation::PutObjectTagging);
        check(
            "DELETE",
            "/b/k?tagging",
            false,
            Operation::DeleteObjectTagging,
        );
        check(
            "GET",
            "/b/k?attributes",
            false,
            Operation::GetObjectAttributes,
        );
        check(
            "POST",
            "/b/k?uploads",
            false,
            Operation::CreateMultipartUpload,
        );
        let part = "/b/k?partNumber=1&uploadId=u";
        check("PUT", part, false, Operation::UploadPart);
        check("PUT", part, true, Operation::UploadPartCopy);
        let upload = "/b/k?uploadId=u";
        check("POST", upload, false, Operation::CompleteMultipartUpload);
        check("DELETE", upload, false, Operation::AbortMultipartUpload);
        check("GET", upload, false, Operation::ListParts);
    }

    #[test]
    fn what_is_not_offered_is_named_and_never_taken_for_something_else() {
        let check = |method: &str, path: &str, expected: &str| {
            let found = routed(method, path, false);
            let expected = Unrouted::NotImplemented(expected.to_owned());
            assert_eq!(found, Err(expected), "{method} {path}");
        };
        check("GET", "/b?acl", "GetBucketAcl");
        check("PUT", "/b/k?acl", "PutObjectAcl");
        check("DELETE", "/b?policy", "DeleteBucketPolicy");
        check(
            "DELETE",
            "/b?lifecycle",
            "DeleteBucketLifecycleConfiguration",
        );
        check("GET", "/b?versions", "GetBucketVersions");
        check("DELETE", "/b/k?versionId=1", "DeleteObjectVersion");
        check("PUT", "/b?versioning", "PutBucketVersioning");
        check("DELETE", "/b?tagging", "DeleteBucketTagging");
        check("DELETE", "/b?brandNew", "DELETE ?brandNew");
        check("POST", "/b", "PostObject (uploads by HTML forms)");
        check(
            "POST",
            "/b/k?select&select-type=2",
            "PostObjectSelectContent",
        );
        for (method, path) in [
            ("PUT", "/b?uploads"),
            ("DELETE", "/b?location"),
            ("DELETE", "/b/k?uploads"),
            ("PUT", "/"),
            ("PATCH", "/b/k"),
        ] {
            let found = routed(method, path, false);
            assert_eq!(found, Err(Unrouted::MethodNotAllowed), "{method} {path}");
        }
        assert!(matches!(
            routed("GET", "/b?list-type=3", false),
            Err(Unrouted::Argument(_))
        ));
        assert!(matches!(
            routed("PUT", "/b/k?uploadId=u", false),
            Err(Unrouted::Argument(_))
        ));
    }

    #[test]
    fn names_are_those_of_s3_and_only_reads_are_reads() {
        for operation in Operation::ALL {
            let name = operation.name();
            let reads = ["Get", "Head", "List"]
                .iter()
                .any(|verb| name.starts_with(verb));
            assert_eq!(operation.writes(), !reads, "{name}");
        }
    }
}
