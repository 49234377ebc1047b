//! A request's head, read once: its target, query and headers.
//!
//! Nothing is believed or judged here. Invariant: the key's bytes are those of the path, decoded once
//! and never normalised.

use breccia_net::clock;
use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Uri};

use crate::condition::{ETagSet, ReadConditions, WriteCondition};
use crate::meta::ETag;
use crate::s3::codec::etag::EtagCondition;
use crate::s3::codec::hex;
use crate::s3::codec::sigv4::RequestHead;
use crate::s3::codec::time;
use crate::s3::codec::uri::{Query, Target};

use super::operation::Scope;
use super::refusal::Refusal;
use super::settings::Settings;

/// The most trailers a body may name.
const MAX_TRAILERS: usize = 16;

/// The parameters that make a presigned URL; `x-amz-content-sha256` is the signature's matter too.
const OF_SIGNATURES: &[&str] = &[
    "x-amz-algorithm",
    "x-amz-content-sha256",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-security-token",
    "x-amz-signature",
    "x-amz-signedheaders",
];

/// See the module's page.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    uri: Uri,
    headers: HeaderMap,
    /// A bit for each length that a header's name has: most headers that are looked for are not
    /// there, and this tells it of most of them without a hash.
    lengths: u64,
    pub(super) query: Query,
    pub(super) bucket: String,
    /// Empty where the request is about a bucket or the service.
    pub(super) key: Vec<u8>,
    pub(super) scope: Scope,
}

impl Request {
    /// Presigning clients put headers of S3's own into the query, where the signature covers them.
    /// They count as if they had been sent as headers. For requests that were found good only.
    pub(super) fn take_over_parameters(&mut self) -> Result<(), Refusal> {
        if !self.query.has("X-Amz-Signature") {
            return Ok(());
        }
        for (name, value) in self.query.pairs() {
            let name = name.to_ascii_lowercase();
            if !name.starts_with("x-amz-") || OF_SIGNATURES.contains(&name.as_str()) {
                continue;
            }
            let wrong = || Refusal::argument("an x-amz- parameter that cannot be a header");
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
            let value = HeaderValue::from_bytes(value).map_err(|_| wrong())?;
            if !self.headers.contains_key(&name) {
                self.lengths |= length_bit(name.as_str());
                self.headers.insert(name, value);
            }
        }
        Ok(())
    }

    /// Reads a head.
    pub(super) fn read(parts: Parts, settings: &Settings) -> Result<Self, Refusal> {
        let query = Query::parse(parts.uri.query().unwrap_or_default())?;
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        let domains: Vec<&str> = settings.domain.as_deref().into_iter().collect();
        let target = Target::of_host(host.unwrap_or_default(), &domains, parts.uri.path())?;
        let key = target.key.unwrap_or_default();
        if std::str::from_utf8(&key).is_err() {
            return Err(Refusal::Target {
                reason: "the key is not UTF-8".to_owned(),
            });
        }
        let scope = match (&target.bucket, key.is_empty()) {
            (None, _) => Scope::Service,
            (Some(_), true) => Scope::Bucket,
            (Some(_), false) => Scope::Object,
        };
        let names = parts.headers.keys().map(HeaderName::as_str);
        let lengths = names.fold(0, |lengths, name| lengths | length_bit(name));
        Ok(Self {
            method: parts.method,
            uri: parts.uri,
            headers: parts.headers,
            lengths,
            query,
            bucket: target.bucket.unwrap_or_default(),
            key,
            scope,
        })
    }

    /// What a signature covers.
    pub(super) fn head(&self) -> RequestHead<'_> {
        RequestHead {
            method: self.method.as_str(),
            path: self.uri.path(),
            query: self.uri.query().unwrap_or_default(),
            headers: &self.headers,
        }
    }

    /// The headers.
    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Whether a header came.
    pub(super) fn has_header(&self, name: &'static str) -> bool {
        self.lengths & length_bit(name) != 0 && self.headers.contains_key(name)
    }

    /// The host that the client named.
    pub(super) fn host(&self) -> &str {
        let host = self.headers.get(HOST).and_then(|host| host.to_str().ok());
        host.unwrap_or_default()
    }

    /// A header as text; one that comes twice is refused: two readers might pick different ones.
    pub(super) fn header(&self, name: &'static str) -> Result<Option<&str>, Refusal> {
        if self.lengths & length_bit(name) == 0 {
            return Ok(None);
        }
        let mut values = self.headers.get_all(name).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            return Err(Refusal::argument(format!("{name} came more than once")));
        }
        let text = std::str::from_utf8(value.as_bytes());
        let text = text.map_err(|_| Refusal::argument(format!("{name} is not UTF-8")))?;
        Ok(Some(text.trim()))
    }

    /// A header whose value is a whole number.
    pub(super) fn number(&self, name: &'static str) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.header(name)? else {
            return Ok(None);
        };
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|_| digits);
        let number = number.ok_or_else(|| Refusal::argument(format!("{name} is not a number")))?;
        Ok(Some(number))
    }

    /// A parameter as text.
    pub(super) fn parameter(&self, name: &str) -> Result<Option<&str>, Refusal> {
        match self.query.get(name) {
            None => Ok(None),
            Some(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Ok(Some(text)),
                Err(_) => Err(Refusal::argument(format!("{name} is not UTF-8"))),
            },
        }
    }

    /// A parameter whose value is a whole number; empty counts as absent.
    pub(super) fn parameter_number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.parameter(name)?.filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number: Option<u64> = text.parse().ok().filter(|_| digits);
        let wrong = || Refusal::argument(format!("{name} is not a number that can be"));
        // S3's own numbers have 31 bits.
        let number = number.filter(|number| i32::try_from(*number).is_ok());
        number.map(Some).ok_or_else(wrong)
    }

    /// The trailers that the body will have, in lower case.
    pub(super) fn trailer_names(&self) -> Result<Vec<String>, Refusal> {
        let mut names = Vec::new();
        for value in self.headers.get_all("x-amz-trailer") {
            let text = value.to_str();
            let text = text.map_err(|_| Refusal::argument("x-amz-trailer is not ASCII"))?;
            let each = text.split(',').map(str::trim);
            for name in each.filter(|name| !name.is_empty()) {
                if names.len() >= MAX_TRAILERS {
                    return Err(Refusal::argument("x-amz-trailer names too many"));
                }
                names.push(name.to_ascii_lowercase());
            }
        }
        Ok(names)
    }

    /// The conditions of a read.
    pub(super) fn read_conditions(&self) -> Result<ReadConditions, Refusal> {
        Ok(ReadConditions {
            if_match: self.etags("if-match", false)?,
            if_none_match: self.etags("if-none-match", true)?,
            if_modified_since: self.date("if-modified-since")?,
            if_unmodified_since: self.date("if-unmodified-since")?,
        })
    }

    /// The conditions on the source of a copy.
    pub(super) fn source_conditions(&self) -> Result<ReadConditions, Refusal> {
        Ok(ReadConditions {
            if_match: self.etags("x-amz-copy-source-if-match", false)?,
            if_none_match: self.etags("x-amz-copy-source-if-none-match", true)?,
            if_modified_since: self.date("x-amz-copy-source-if-modified-since")?,
            if_unmodified_since: self.date("x-amz-copy-source-if-unmodified-since")?,
        })
    }

    /// The condition of a write.
    pub(super) fn write_condition(&self) -> Result<WriteCondition, Refusal> {
        for name in ["if-modified-since", "if-unmodified-since"] {
            if self.has_header(name) {
                return Err(Refusal::not_implemented(format!("{name} on a write")));
            }
        }
        let matched = self.etags("if-match", false)?;
        let none = self.etags("if-none-match", true)?;
        match (matched, none) {
            (None, None) => Ok(WriteCondition::Always),
            (Some(tags), None) => Ok(WriteCondition::IfMatch(tags)),
            (None, Some(ETagSet::Any)) => Ok(WriteCondition::IfAbsent),
            (None, Some(ETagSet::OneOf(_))) => Err(Refusal::not_implemented(
                "If-None-Match on a write with anything but *",
            )),
            (Some(_), Some(_)) => Err(Refusal::not_implemented(
                "If-Match and If-None-Match in one write",
            )),
        }
    }

    /// `weakly`: weak tags match too.
    fn etags(&self, name: &'static str, weakly: bool) -> Result<Option<ETagSet>, Refusal> {
        let Some(text) = self.header(name)? else {
            return Ok(None);
        };
        let read = EtagCondition::parse(text.as_bytes());
        let read = read.map_err(|_| Refusal::argument(format!("{name} holds no ETags")))?;
        Ok(Some(match read {
            EtagCondition::Any => ETagSet::Any,
            EtagCondition::OneOf(etags) => {
                let strong = etags.iter().filter(|etag| weakly || !etag.is_weak());
                ETagSet::OneOf(strong.map(|etag| ETag::from_text(etag.value())).collect())
            }
        }))
    }

    /// A date in seconds; one that cannot be read is ignored, as HTTP wants it.
    fn date(&self, name: &'static str) -> Result<Option<u64>, Refusal> {
        let text = self.header(name)?;
        Ok(text.and_then(time::parse_http_date).map(|ms| ms / 1000))
    }
}

fn length_bit(name: &str) -> u64 {
    1 << (name.len() & 63)
}

/// A new id for a request: 16 hex digits.
pub(super) fn new_id() -> String {
    hex::encode(&clock::seed().to_be_bytes())
}
