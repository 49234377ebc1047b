//! What is known of an object beside its bytes.
//!
//! Not how a member keeps it. Invariant: what Breccia wrote comes back equal, whichever member
//! holds it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::checksum::Checksum;

/// The most user metadata of one object, names and values together, in bytes, as S3 has it.
pub const MAX_USER_METADATA_BYTES: usize = 2048;
/// The most tags of one object.
pub const MAX_TAGS: usize = 10;

/// An entity tag without its quotes.
///
/// What Breccia wrote has the MD5 of the bytes in lower-case hex, or `md5-of-md5s-N` for N parts.
/// An object whose MD5 is unknown has one that ends in `-0`, which no client takes for an MD5.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ETag(String);

impl ETag {
    /// The tag of bytes with this MD5.
    #[must_use]
    pub fn of_md5(md5: [u8; 16]) -> Self {
        Self(hex(&md5))
    }

    /// The tag of an object made of `parts` parts, where `md5` is that of their MD5s in order.
    #[must_use]
    pub fn of_parts(md5: [u8; 16], parts: usize) -> Self {
        Self(format!("{}-{parts}", hex(&md5)))
    }

    /// The tag of an object whose MD5 is unknown: 32 hex digits that change with the object
    /// (made from what its member calls it), and `-0`.
    #[must_use]
    pub fn unknown(native: &[u8]) -> Self {
        let first = xxh(native, 0);
        let second = xxh(native, 1);
        Self(format!("{first:016x}{second:016x}-0"))
    }

    /// A tag as it was given, without quotes.
    #[must_use]
    pub fn from_text(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The tag without quotes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tag in quotes, as HTTP has it.
    #[must_use]
    pub fn quoted(&self) -> String {
        format!("\"{}\"", self.0)
    }

    /// The MD5 in it, if it is just that.
    #[must_use]
    pub fn md5(&self) -> Option<[u8; 16]> {
        let digits = self.0.as_bytes();
        let mut md5 = [0; 16];
        if digits.len() != 32 {
            return None;
        }
        for (byte, pair) in md5.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).ok()?;
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        Some(md5)
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Lower-case hex digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn xxh(bytes: &[u8], salt: u8) -> u64 {
    let mut salted = Vec::with_capacity(bytes.len().saturating_add(1));
    salted.push(salt);
    salted.extend_from_slice(bytes);
    breccia_core::HashKind::Xxh3_64.hash(&salted)
}

/// The tags of an object: at most [`MAX_TAGS`].
pub type Tags = BTreeMap<String, String>;

/// The headers a client gives with an object and gets back.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Headers {
    /// `Content-Type`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// `Cache-Control`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<String>,
    /// `Content-Disposition`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_disposition: Option<String>,
    /// `Content-Encoding`, without `aws-chunked`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// `Content-Language`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_language: Option<String>,
    /// `Expires`, as it was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// `x-amz-website-redirect-location`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub website_redirect: Option<String>,
    /// `x-amz-meta-*`: lower-case names without that prefix.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub user: BTreeMap<String, String>,
}

/// One part of an object that was uploaded in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartSize {
    /// Its number, from 1.
    pub number: u16,
    /// How many bytes it has.
    pub size: u64,
}

/// What a member knows an object's version by, so that a condition can be sent to it. Opaque.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NativeVersion(pub String);

/// What is known of an object beside its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// How many bytes it has.
    pub size: u64,
    /// When it was written, in milliseconds since the Unix epoch.
    pub modified_ms: u64,
    /// The entity tag that clients see.
    pub etag: ETag,
    /// Its checksum, if one was given or computed when it was written.
    pub checksum: Option<Checksum>,
    /// The headers given with it.
    pub headers: Headers,
    /// Its tags.
    pub tags: Tags,
    /// The parts it was made of, in order; empty if it was written whole or they are unknown.
    pub parts: Vec<PartSize>,
    /// The member's own name for this version.
    pub native: NativeVersion,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_of_an_unknown_md5_looks_like_none() {
        let etag = ETag::unknown(b"native");
        assert_eq!(etag, ETag::unknown(b"native"));
        assert_ne!(etag, ETag::unknown(b"other"));
        assert!(etag.as_str().ends_with("-0") && etag.md5().is_none());
        let md5 = crate::checksum::md5(b"x");
        assert_eq!(ETag::of_md5(md5).md5(), Some(md5));
        assert_eq!(ETag::of_parts(md5, 2).md5(), None);
        assert_eq!(ETag::from_text("z".repeat(32)).md5(), None);
    }
}
