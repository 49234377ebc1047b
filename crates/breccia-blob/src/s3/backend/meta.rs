//! What is known of an object, to headers and from headers.
//!
//! Invariant: user metadata and headers are passed as the bytes they came as. Values that are not
//! ASCII go as UTF-8; servers that keep bytes give them back, and Amazon's may encode them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use breccia_net::clock;
use hyper::header::HeaderMap;

use super::S3Store;
use crate::checksum::{Algorithm, Checksum, ChecksumKind};
use crate::error::BlobError;
use crate::http::RequestHead;
use crate::meta::{ETag, Headers, NativeVersion, ObjectMeta, Tags};
use crate::s3::codec::time::{parse_http_date, parse_iso8601};
use crate::s3::codec::uri::{Slash, encode, encode_into};

const USER_PREFIX: &str = "x-amz-meta-";

/// A header as text.
pub(super) fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    std::str::from_utf8(headers.get(name)?.as_bytes()).ok()
}

/// A tag of the member without its quotes.
pub(super) fn bare(text: &str) -> &str {
    let text = text.trim();
    let text = text.strip_prefix("W/").unwrap_or(text);
    text.trim_matches('"')
}

/// The tag that clients see for one of the member's, where nothing is known of encryption.
pub(super) fn etag_of(native: &str) -> ETag {
    let (digits, parts) = match native.split_once('-') {
        Some((digits, parts)) => (digits, Some(parts)),
        None => (native, None),
    };
    let is_md5 = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let counted = |parts: &str| parts.parse::<u32>().is_ok_and(|count| count > 0);
    if is_md5 && parts.is_none_or(counted) {
        ETag::from_text(native.to_ascii_lowercase())
    } else {
        ETag::unknown(native.as_bytes())
    }
}

/// Whether the member encrypts so that its tag is no MD5, whatever it looks like.
pub(super) fn tag_is_opaque(headers: &HeaderMap) -> bool {
    let by_service = header(headers, "x-amz-server-side-encryption");
    by_service.is_some_and(|kind| kind.starts_with("aws:kms"))
        || headers.contains_key("x-amz-server-side-encryption-customer-algorithm")
}

/// The tag of an answer as the member writes it, and as clients see it.
pub(super) fn etag_in(headers: &HeaderMap) -> Option<(String, ETag)> {
    let native = bare(header(headers, "etag")?).to_owned();
    if native.is_empty() {
        return None;
    }
    let seen = if tag_is_opaque(headers) {
        ETag::unknown(native.as_bytes())
    } else {
        etag_of(&native)
    };
    Some((native, seen))
}

/// When an object was written, by an answer that may not say it.
pub(super) fn written_ms(headers: &HeaderMap) -> u64 {
    ["last-modified", "date"]
        .iter()
        .find_map(|name| parse_http_date(header(headers, name)?))
        .unwrap_or_else(clock::unix_ms)
}

/// Time in the member's XML.
pub(super) fn time_of(text: Option<&str>) -> u64 {
    let text = text.unwrap_or_default();
    parse_iso8601(text)
        .or_else(|| parse_http_date(text))
        .unwrap_or(0)
}

/// The checksum of an answer, or of an element's text by name.
pub(super) fn checksum_by<'t>(text_of: impl Fn(&str) -> Option<&'t str>) -> Option<Checksum> {
    Algorithm::ALL.iter().find_map(|algorithm| {
        let text = text_of(algorithm.header())?;
        let (text, kind) = match text.split_once('-') {
            None => (text, ChecksumKind::FullObject),
            Some((text, parts)) => {
                let parts = parts.parse().ok()?;
                (text, ChecksumKind::Composite { parts })
            }
        };
        let value = STANDARD.decode(text).ok()?;
        (value.len() == algorithm.length()).then_some(Checksum {
            algorithm: *algorithm,
            value,
            kind,
        })
    })
}

/// The checksum in an answer's headers.
pub(super) fn checksum_in(headers: &HeaderMap) -> Option<Checksum> {
    checksum_by(|name| header(headers, name))
}

/// A checksum's value as headers have it.
pub(super) fn checksum_text(checksum: &Checksum) -> String {
    let value = STANDARD.encode(&checksum.value);
    match checksum.kind {
        ChecksumKind::FullObject => value,
        ChecksumKind::Composite { parts } => format!("{value}-{parts}"),
    }
}

/// An object's headers in an answer.
pub(super) fn headers_in(headers: &HeaderMap) -> Headers {
    let text = |name: &str| header(headers, name).map(str::to_owned);
    let user = headers.keys().filter_map(|name| {
        let short = name.as_str().strip_prefix(USER_PREFIX)?;
        let values: Vec<_> = headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        Some((short.to_owned(), values.join(",")))
    });
    Headers {
        content_type: text("content-type"),
        cache_control: text("cache-control"),
        content_disposition: text("content-disposition"),
        content_encoding: text("content-encoding"),
        content_language: text("content-language"),
        expires: text("expires"),
        website_redirect: text("x-amz-website-redirect-location"),
        user: user.collect(),
    }
}

impl S3Store {
    /// Writes an object's headers into a request.
    pub(super) fn set_headers(
        &self,
        head: &mut RequestHead,
        headers: &Headers,
    ) -> Result<(), BlobError> {
        let fixed = [
            ("content-type", &headers.content_type),
            ("cache-control", &headers.cache_control),
            ("content-disposition", &headers.content_disposition),
            ("content-encoding", &headers.content_encoding),
            ("content-language", &headers.content_language),
            ("expires", &headers.expires),
            ("x-amz-website-redirect-location", &headers.website_redirect),
        ];
        for (name, value) in fixed {
            if let Some(value) = value {
                self.set(head, name, value)?;
            }
        }
        for (name, value) in &headers.user {
            self.set(head, &format!("{USER_PREFIX}{name}"), value)?;
        }
        Ok(())
    }

    /// Writes an object's tags into a request.
    pub(super) fn set_tagging(&self, head: &mut RequestHead, tags: &Tags) -> Result<(), BlobError> {
        if tags.is_empty() {
            return Ok(());
        }
        let mut text = String::new();
        for (key, value) in tags {
            if !text.is_empty() {
                text.push('&');
            }
            text.push_str(&encode(key.as_bytes(), Slash::Escape));
            text.push('=');
            encode_into(&mut text, value.as_bytes(), Slash::Escape);
        }
        self.set(head, "x-amz-tagging", &text)
    }

    /// What an answer to HEAD or GET says of an object of this size; without its tags.
    pub(super) fn meta_in(&self, headers: &HeaderMap, size: u64) -> Result<ObjectMeta, BlobError> {
        let (native, etag) =
            etag_in(headers).ok_or_else(|| self.nonsense("an object without an ETag", false))?;
        let modified_ms = header(headers, "last-modified")
            .and_then(parse_http_date)
            .ok_or_else(|| self.nonsense("an object without Last-Modified", false))?;
        Ok(ObjectMeta {
            size,
            modified_ms,
            etag,
            checksum: checksum_in(headers),
            headers: headers_in(headers),
            tags: Tags::new(),
            parts: Vec::new(),
            native: NativeVersion(native),
        })
    }
}

/// How many tags an answer says an object has.
pub(super) fn tag_count(headers: &HeaderMap) -> Option<usize> {
    header(headers, "x-amz-tagging-count")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tags_of_the_shape_of_an_md5_are_shown_as_they_are() {
        let digits = "D41D8CD98F00B204E9800998ECF8427E";
        let lower = digits.to_lowercase();
        let check = |native: &str, known: bool| {
            let seen = etag_of(native);
            assert_eq!(!seen.as_str().ends_with("-0"), known, "{native}");
        };
        assert_eq!(etag_of(digits).as_str(), lower);
        check(&format!("{lower}-12"), true);
        check(&format!("{lower}-0"), false);
        check(&format!("{lower}-"), false);
        check("0x8DAF", false);
        check("", false);
        assert_eq!(bare("W/\"a\""), "a");
    }

    #[test]
    fn checksums_are_read_and_written_alike() {
        let mut headers = HeaderMap::new();
        let text = "4waSgw==-3";
        headers.insert("x-amz-checksum-crc32c", text.parse().expect("a value"));
        let found = checksum_in(&headers).expect("a checksum");
        assert_eq!(found.kind, ChecksumKind::Composite { parts: 3 });
        assert_eq!(checksum_text(&found), text);
        headers.insert("x-amz-checksum-crc32c", "AAA=".parse().expect("a value"));
        assert_eq!(checksum_in(&headers), None);
    }
}
