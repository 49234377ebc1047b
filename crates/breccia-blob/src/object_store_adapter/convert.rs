//! Words of `object_store` turned into ours, and back.
//!
//! No requests. Invariant: what cannot be said in the other's words is an error, not left out; only
//! `Expires` and redirects, which `object_store` has no word for, are not shown to its users.

use std::collections::VecDeque;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, Error, Extensions, GetOptions, GetRange, ObjectMeta, PutPayload,
    PutResult, Result, TagSet, UpdateVersion,
};

use crate::body::{Body, ByteSource, NextChunk};
use crate::condition::{ETagSet, ReadConditions, WriteCondition};
use crate::error::BlobError;
use crate::key::Key;
use crate::listing::ListedObject;
use crate::meta::{self, ETag, Headers, Tags};
use crate::store::Span;

/// The name in errors.
const STORE: &str = "Breccia";

/// What a request asked of its target, which decides what a condition that is not met is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Anything,
    Create,
    Update,
}

pub(super) fn failed(error: BlobError, location: &Path, asked: Asked) -> Error {
    let path = location.to_string();
    match (error, asked) {
        (source @ BlobError::PreconditionFailed, Asked::Create) => Error::AlreadyExists {
            path,
            source: source.into(),
        },
        (source @ BlobError::PreconditionFailed, _)
        | (source @ BlobError::NotFound, Asked::Update) => Error::Precondition {
            path,
            source: source.into(),
        },
        (source @ BlobError::NotFound, _) => Error::NotFound {
            path,
            source: source.into(),
        },
        (source @ BlobError::NotModified { .. }, _) => Error::NotModified {
            path,
            source: source.into(),
        },
        (BlobError::ConditionUnsupported { call, stores }, _) => Error::NotImplemented {
            operation: call.name().to_owned(),
            implementer: stores,
        },
        (source @ BlobError::Unsupported { .. }, _) => Error::NotSupported {
            source: source.into(),
        },
        (source, _) => Error::Generic {
            store: STORE,
            source: source.into(),
        },
    }
}

pub(super) fn generic(problem: impl Into<String>) -> Error {
    Error::Generic {
        store: STORE,
        source: problem.into().into(),
    }
}

fn not_supported(what: &str) -> Error {
    Error::NotSupported {
        source: format!("{what} cannot be kept by a blob store of Breccia").into(),
    }
}

pub(super) fn key_of(location: &Path) -> Result<Key> {
    let bytes = location.as_ref().as_bytes();
    let key = Key::new(Bytes::copy_from_slice(bytes));
    key.map_err(|error| failed(error, location, Asked::Anything))
}

/// The path of a key, if it has one: none has an empty part, `.` or `..`, or is no UTF-8.
pub(super) fn path_of(key: &[u8]) -> Result<Path> {
    let text = std::str::from_utf8(key).ok();
    let path = text.and_then(|text| Path::parse(text).ok());
    let path = path.filter(|path| path.as_ref().as_bytes() == key);
    path.ok_or_else(|| {
        let key = key.escape_ascii();
        generic(format!("the key {key} is no path of object_store"))
    })
}

/// What all keys under a path begin with.
pub(super) fn folder(prefix: Option<&Path>) -> Bytes {
    match prefix.map(Path::as_ref) {
        None | Some("") => Bytes::new(),
        Some(prefix) => format!("{prefix}/").into(),
    }
}

pub(super) fn listed(object: &ListedObject) -> Result<ObjectMeta> {
    Ok(ObjectMeta {
        location: path_of(object.key.as_bytes())?,
        last_modified: (UNIX_EPOCH + Duration::from_millis(object.modified_ms)).into(),
        size: object.size,
        e_tag: Some(object.etag.quoted()),
        version: None,
    })
}

pub(super) fn object_meta(location: Path, meta: &meta::ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        location,
        last_modified: (UNIX_EPOCH + Duration::from_millis(meta.modified_ms)).into(),
        size: meta.size,
        e_tag: Some(meta.etag.quoted()),
        version: None,
    }
}

pub(super) fn put_result(etag: &ETag) -> PutResult {
    PutResult {
        e_tag: Some(etag.quoted()),
        version: None,
        extensions: Extensions::default(),
    }
}

/// `*`, or tags with commas between; quotes may be there or not.
fn etags(text: &str) -> ETagSet {
    if text.trim() == "*" {
        return ETagSet::Any;
    }
    let tag = |tag: &str| {
        let tag = tag.trim().trim_start_matches("W/");
        ETag::from_text(tag.trim_matches('"'))
    };
    ETagSet::OneOf(text.split(',').map(tag).collect())
}

pub(super) fn update(location: &Path, version: &UpdateVersion) -> Result<WriteCondition> {
    if version.version.is_some() {
        return Err(not_supported("a version"));
    }
    let etag = version.e_tag.as_deref();
    let etag = etag.ok_or_else(|| generic(format!("an update of {location} needs an ETag")))?;
    Ok(WriteCondition::IfMatch(etags(etag)))
}

pub(super) fn conditions(options: &GetOptions) -> Result<ReadConditions> {
    if options.version.is_some() {
        return Err(not_supported("a version"));
    }
    let seconds = |timestamp: i64| u64::try_from(timestamp).unwrap_or(0);
    let modified = options.if_modified_since.map(|time| time.timestamp());
    let unmodified = options.if_unmodified_since.map(|time| time.timestamp());
    Ok(ReadConditions {
        if_match: options.if_match.as_deref().map(etags),
        if_none_match: options.if_none_match.as_deref().map(etags),
        if_modified_since: modified.map(seconds),
        if_unmodified_since: unmodified.map(seconds),
    })
}

pub(super) fn span(range: &GetRange) -> Result<Span> {
    match range {
        GetRange::Bounded(range) if range.start < range.end => {
            Ok(Span::Between(range.start, range.end.saturating_sub(1)))
        }
        GetRange::Bounded(range) => Err(generic(format!(
            "the range {}..{} holds no byte",
            range.start, range.end
        ))),
        GetRange::Offset(first) => Ok(Span::From(*first)),
        GetRange::Suffix(count) => Ok(Span::Last(*count)),
    }
}

pub(super) fn headers(attributes: &Attributes) -> Result<Headers> {
    let mut headers = Headers::default();
    for (attribute, value) in attributes {
        let value = value.as_ref().to_owned();
        match attribute {
            Attribute::ContentDisposition => headers.content_disposition = Some(value),
            Attribute::ContentEncoding => headers.content_encoding = Some(value),
            Attribute::ContentLanguage => headers.content_language = Some(value),
            Attribute::ContentType => headers.content_type = Some(value),
            Attribute::CacheControl => headers.cache_control = Some(value),
            Attribute::Metadata(name) => {
                headers.user.insert(name.to_ascii_lowercase(), value);
            }
            // A storage class, and whatever is added to the list.
            _ => return Err(not_supported(&format!("the attribute {attribute:?}"))),
        }
    }
    Ok(headers)
}

pub(super) fn attributes(headers: &Headers) -> Attributes {
    let mut attributes = Attributes::new();
    let mut add = |attribute, value: &Option<String>| {
        if let Some(value) = value {
            attributes.insert(attribute, value.clone().into());
        }
    };
    add(Attribute::ContentDisposition, &headers.content_disposition);
    add(Attribute::ContentEncoding, &headers.content_encoding);
    add(Attribute::ContentLanguage, &headers.content_language);
    add(Attribute::ContentType, &headers.content_type);
    add(Attribute::CacheControl, &headers.cache_control);
    for (name, value) in &headers.user {
        let name = Attribute::Metadata(name.clone().into());
        attributes.insert(name, value.clone().into());
    }
    attributes
}

/// Tags come as a URL's query.
pub(super) fn tags(tags: &TagSet) -> Tags {
    let pairs = tags.encoded().split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        })
        .collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = behind
                    .get(..2)
                    .and_then(|two| std::str::from_utf8(two).ok());
                match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
                    Some(byte) => {
                        bytes.push(byte);
                        rest = behind.get(2..).unwrap_or_default();
                    }
                    None => bytes.push(b'%'),
                }
            }
            other => bytes.push(*other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Chunks that are at hand.
pub(super) struct Chunks(VecDeque<Bytes>);

impl ByteSource for Chunks {
    fn next(&mut self) -> NextChunk<'_> {
        let chunk = self.0.pop_front();
        Box::pin(async move { chunk.map(Ok) })
    }
}

pub(super) fn body(payload: PutPayload) -> Body {
    body_of(payload.into_iter())
}

pub(super) fn body_of(chunks: impl Iterator<Item = Bytes>) -> Body {
    let chunks: VecDeque<Bytes> = chunks.filter(|chunk| !chunk.is_empty()).collect();
    let sizes = chunks.iter().map(|chunk| chunk.len() as u64);
    let size = sizes.fold(0, u64::saturating_add);
    Body::new(Box::new(Chunks(chunks)), size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_come_back_as_they_were_pushed() {
        let mut set = TagSet::default();
        set.push("a b", "c=d&e%+ü");
        set.push("x", "");
        let found = tags(&set);
        let expected = [("a b", "c=d&e%+ü"), ("x", "")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(found, Tags::from(expected));
        assert_eq!(decoded("%zz%4"), "%zz%4");
    }

    #[test]
    fn keys_that_are_no_paths_are_refused() {
        let check = |key: &[u8], good: bool| assert_eq!(path_of(key).is_ok(), good, "{key:?}");
        check(b"a/b", true);
        check(b"a/%Q", true);
        check(b"a//b", false);
        check(b"/a", false);
        check(b"a/", false);
        check(b"a/../b", false);
        check(b"\xff", false);
    }

    #[test]
    fn etags_are_read_with_and_without_quotes() {
        let one = |tag: &str| ETagSet::OneOf(vec![ETag::from_text(tag)]);
        assert_eq!(etags("*"), ETagSet::Any);
        assert_eq!(etags("\"a\""), one("a"));
        assert_eq!(etags("a"), one("a"));
        let two = vec![ETag::from_text("a"), ETag::from_text("b-2")];
        assert_eq!(etags("\"a\", \"b-2\""), ETagSet::OneOf(two));
    }
}
