//! Headers that describe an object: read from requests, written to answers; and headers that ask for
//! what is not offered.
//!
//! Invariant: a header that would change what is stored, and that is not understood, refuses the
//! request.

use hyper::header::{
    ACCEPT_RANGES, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, LAST_MODIFIED,
};

use crate::meta::{Headers, MAX_TAGS, MAX_USER_METADATA_BYTES, ObjectMeta, Tags};
use crate::s3::codec::time;
use crate::s3::codec::uri::Query;

use super::digests;
use super::operation::Operation;
use super::refusal::Refusal;
use super::request::Request;

const USER_PREFIX: &str = "x-amz-meta-";
/// The longest key and value of a tag, in characters, as S3 has it.
const MAX_TAG_KEY: usize = 128;
const MAX_TAG_VALUE: usize = 256;

/// Headers that ask for what is not offered, whatever their value.
const NOT_OFFERED: &[&str] = &[
    "x-amz-bypass-governance-retention",
    "x-amz-copy-source-server-side-encryption-customer-algorithm",
    "x-amz-expected-bucket-owner",
    "x-amz-grant-full-control",
    "x-amz-grant-read",
    "x-amz-grant-read-acp",
    "x-amz-grant-write",
    "x-amz-grant-write-acp",
    "x-amz-if-match-last-modified-time",
    "x-amz-if-match-size",
    "x-amz-mfa",
    "x-amz-object-lock-legal-hold",
    "x-amz-object-lock-mode",
    "x-amz-object-lock-retain-until-date",
    "x-amz-rename-source",
    "x-amz-source-expected-bucket-owner",
    "x-amz-write-offset-bytes",
];

/// Refuses a request whose headers ask for what is not offered.
pub(super) fn refuse_unoffered(request: &Request, operation: Operation) -> Result<(), Refusal> {
    for name in request.headers().keys().map(HeaderName::as_str) {
        if NOT_OFFERED.contains(&name) || name.starts_with("x-amz-server-side-encryption") {
            return Err(Refusal::not_implemented(format!("the header {name}")));
        }
    }
    let only = |name: &'static str, allowed: &[&str]| match request.header(name)? {
        Some(value) if !allowed.iter().any(|good| good.eq_ignore_ascii_case(value)) => Err(
            Refusal::not_implemented(format!("{name}: {}", value.escape_debug())),
        ),
        _ => Ok(()),
    };
    // Whoever may write owns what is there: these two change nothing.
    only("x-amz-acl", &["private", "bucket-owner-full-control"])?;
    only("x-amz-storage-class", &["STANDARD"])?;
    only("x-amz-bucket-object-lock-enabled", &["false"])?;
    only("x-amz-object-ownership", &["BucketOwnerEnforced"])?;
    if operation == Operation::CopyObject {
        only("x-amz-checksum-algorithm", &[])?;
    }
    Ok(())
}

/// The headers that will be kept with an object.
pub(super) fn of_request(request: &Request) -> Result<Headers, Refusal> {
    let text = |name| Ok::<_, Refusal>(request.header(name)?.map(str::to_owned));
    let mut headers = Headers {
        content_type: text("content-type")?,
        cache_control: text("cache-control")?,
        content_disposition: text("content-disposition")?,
        content_encoding: content_encoding(request)?,
        content_language: text("content-language")?,
        expires: text("expires")?,
        website_redirect: text("x-amz-website-redirect-location")?,
        ..Headers::default()
    };
    let mut size = 0_usize;
    for name in request.headers().keys() {
        let Some(short) = name.as_str().strip_prefix(USER_PREFIX) else {
            continue;
        };
        let value = user_value(request.headers(), name)?;
        size = size.saturating_add(short.len()).saturating_add(value.len());
        headers.user.insert(short.to_owned(), value);
    }
    if size > MAX_USER_METADATA_BYTES {
        let limit = MAX_USER_METADATA_BYTES;
        return Err(Refusal::MetadataTooLarge { size, limit });
    }
    Ok(headers)
}

/// Values of one name are joined by commas, as S3 does.
fn user_value(headers: &HeaderMap, name: &HeaderName) -> Result<String, Refusal> {
    let mut joined = String::new();
    for (index, value) in headers.get_all(name).iter().enumerate() {
        let text = std::str::from_utf8(value.as_bytes());
        let text = text.map_err(|_| Refusal::argument(format!("{name} is not UTF-8")))?;
        if index > 0 {
            joined.push(',');
        }
        joined.push_str(text.trim());
    }
    Ok(joined)
}

/// `Content-Encoding` without `aws-chunked`, which is the request's own and not the object's.
fn content_encoding(request: &Request) -> Result<Option<String>, Refusal> {
    let mut kept: Vec<&str> = Vec::new();
    for value in request.headers().get_all("content-encoding") {
        let text = value.to_str();
        let text = text.map_err(|_| Refusal::argument("Content-Encoding is not ASCII"))?;
        let each = text.split(',').map(str::trim);
        kept.extend(each.filter(|one| !one.is_empty() && !one.eq_ignore_ascii_case("aws-chunked")));
    }
    Ok((!kept.is_empty()).then(|| kept.join(",")))
}

/// The tags of `x-amz-tagging`, written as a query.
pub(super) fn tags_of_request(request: &Request) -> Result<Option<Tags>, Refusal> {
    let Some(text) = request.header("x-amz-tagging")? else {
        return Ok(None);
    };
    let wrong = |_| Refusal::Tag {
        problem: "x-amz-tagging is not an encoded query",
    };
    let query = Query::parse(text).map_err(wrong)?;
    let mut pairs = Vec::new();
    for (name, value) in query.pairs() {
        let value = String::from_utf8(value.clone()).map_err(|_| Refusal::Tag {
            problem: "a tag is not UTF-8",
        })?;
        pairs.push((name.clone(), value));
    }
    tags(pairs).map(Some)
}

/// Tags that S3's rules allow.
pub(super) fn tags(pairs: Vec<(String, String)>) -> Result<Tags, Refusal> {
    let wrong = |problem| Err(Refusal::Tag { problem });
    let mut tags = Tags::new();
    for (key, value) in pairs {
        if key.is_empty() || key.chars().count() > MAX_TAG_KEY {
            return wrong("a tag's key has 1 to 128 characters");
        }
        if value.chars().count() > MAX_TAG_VALUE {
            return wrong("a tag's value has at most 256 characters");
        }
        if key.starts_with("aws:") {
            return wrong("tags that begin with aws: are the system's");
        }
        if tags.insert(key, value).is_some() {
            return wrong("a tag's key comes twice");
        }
    }
    if tags.len() > MAX_TAGS {
        return wrong("an object has at most 10 tags");
    }
    Ok(tags)
}

/// Headers of an answer.
#[derive(Debug, Default)]
pub(super) struct Out(HeaderMap);

/// What most answers have: those of an object, their length and the request's id.
const USUAL_HEADERS: usize = 8;

impl Out {
    fn of_an_object() -> Self {
        Self(HeaderMap::with_capacity(USUAL_HEADERS))
    }

    /// [`Self::set`] where the value's bytes may be taken over.
    fn set_owned(&mut self, name: HeaderName, value: String) {
        if let Ok(value) = HeaderValue::try_from(value) {
            self.0.insert(name, value);
        }
    }

    /// Sets a header; a value that cannot be one is left out: it came from elsewhere than HTTP.
    pub(super) fn set(&mut self, name: &'static str, value: &str) {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            self.0.insert(HeaderName::from_static(name), value);
        }
    }

    /// Sets a header if there is a value.
    pub(super) fn set_some(&mut self, name: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    /// Takes a header out again.
    pub(super) fn remove(&mut self, name: &'static str) {
        self.0.remove(name);
    }

    /// Answers whether it can be a header.
    fn set_user(&mut self, short: &str, value: &str) -> bool {
        let name = HeaderName::from_bytes(format!("{USER_PREFIX}{short}").as_bytes());
        let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes())) else {
            return false;
        };
        self.0.insert(name, value);
        true
    }

    /// The headers.
    pub(super) fn into_map(self) -> HeaderMap {
        self.0
    }
}

/// The type of an object that was written without one.
const DEFAULT_TYPE: &str = "binary/octet-stream";

/// The headers of an answer that are the same for every request to an object.
pub(super) fn of_object(meta: &ObjectMeta) -> Out {
    let mut out = Out::of_an_object();
    out.0
        .insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    out.set_owned(ETAG, meta.etag.quoted());
    out.set_owned(LAST_MODIFIED, time::http_date(meta.modified_ms));
    let headers = &meta.headers;
    out.0
        .insert(CONTENT_TYPE, HeaderValue::from_static(DEFAULT_TYPE));
    out.set_some("content-type", headers.content_type.as_deref());
    out.set_some("cache-control", headers.cache_control.as_deref());
    out.set_some(
        "content-disposition",
        headers.content_disposition.as_deref(),
    );
    out.set_some("content-encoding", headers.content_encoding.as_deref());
    out.set_some("content-language", headers.content_language.as_deref());
    out.set_some("expires", headers.expires.as_deref());
    let redirect = headers.website_redirect.as_deref();
    out.set_some("x-amz-website-redirect-location", redirect);
    let missing = headers
        .user
        .iter()
        .filter(|(name, value)| !out.set_user(name, value));
    let missing = missing.count();
    if missing > 0 {
        out.set("x-amz-missing-meta", &missing.to_string());
    }
    if !meta.tags.is_empty() {
        out.set("x-amz-tagging-count", &meta.tags.len().to_string());
    }
    out
}

/// The headers that carry a checksum.
pub(super) fn set_checksum(out: &mut Out, checksum: Option<&crate::checksum::Checksum>) {
    if let Some(checksum) = checksum {
        out.set(checksum.algorithm.header(), &digests::to_text(checksum));
        let kind = digests::kind_name(checksum.kind.into());
        out.set("x-amz-checksum-type", kind);
    }
}

/// Headers that a signed request may have replaced in the answer.
const OVERRIDES: &[(&str, &str)] = &[
    ("response-cache-control", "cache-control"),
    ("response-content-disposition", "content-disposition"),
    ("response-content-encoding", "content-encoding"),
    ("response-content-language", "content-language"),
    ("response-content-type", "content-type"),
    ("response-expires", "expires"),
];

/// Replaces the headers that the request's parameters name; only signed requests may.
pub(super) fn override_headers(
    out: &mut Out,
    request: &Request,
    signed: bool,
) -> Result<(), Refusal> {
    for (parameter, header) in OVERRIDES {
        let Some(value) = request.parameter(parameter)? else {
            continue;
        };
        if !signed {
            return Err(Refusal::request(
                "response-* parameters are for signed requests only",
            ));
        }
        if HeaderValue::from_bytes(value.as_bytes()).is_err() {
            return Err(Refusal::argument(format!("{parameter} is no header value")));
        }
        out.set(header, value);
    }
    Ok(())
}
