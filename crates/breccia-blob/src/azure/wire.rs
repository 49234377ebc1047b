//! Requests to the service: their targets, how they are sent, and how answers are taken.
//!
//! Not what they are about. Invariant: only requests whose repetition changes nothing are repeated.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::Method;
use hyper::header::HeaderMap;

use super::AzureStore;
use super::refusal::Refusal;
use crate::body::Body;
use crate::error::BlobError;
use crate::http::{Collected, HttpResponse, MAX_ANSWER_BYTES, Payload, Repeat, RequestHead};
use crate::meta::Headers;
use crate::packed::record::NOTE_NAME;
use crate::packed::{Guard, Seen, nonsense};
use crate::s3::backend::xml::Element;
use crate::s3::codec::range::ContentRange;
use crate::s3::codec::time::parse_http_date;
use crate::s3::codec::uri::{Slash, encode, encode_into};

const META_PREFIX: &str = "x-ms-meta-";

/// A header as text.
pub(super) fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    std::str::from_utf8(headers.get(name)?.as_bytes()).ok()
}

/// A version as conditions name it: the service's listings leave the quotes out.
pub(super) fn quoted(native: &str) -> String {
    format!("\"{}\"", native.trim().trim_matches('"'))
}

/// An MD5 in base64.
pub(super) fn md5_of(text: &str) -> Option<[u8; 16]> {
    STANDARD.decode(text.trim()).ok()?.try_into().ok()
}

impl AzureStore {
    /// The head of a request for a blob (empty: for the container).
    pub(super) fn head_of(
        &self,
        method: Method,
        name: &str,
        query: &[(&str, &str)],
    ) -> RequestHead {
        let mut target = self.root.clone();
        if !name.is_empty() {
            target.push('/');
            encode_into(&mut target, name.as_bytes(), Slash::Keep);
        }
        for (place, (key, value)) in query.iter().enumerate() {
            target.push(if place == 0 { '?' } else { '&' });
            target.push_str(key);
            target.push('=');
            encode_into(&mut target, value.as_bytes(), Slash::Escape);
        }
        RequestHead::new(method, target)
    }

    /// Where the service itself finds a blob that it shall copy.
    pub(super) fn source_url(&self, name: &str) -> String {
        let endpoint = self.client.endpoint();
        let scheme = if endpoint.https { "https" } else { "http" };
        format!(
            "{scheme}://{}{}/{}?{}",
            endpoint.host_header(),
            self.root,
            encode(name.as_bytes(), Slash::Keep),
            self.signer.source_token(&self.container, name)
        )
    }

    /// Sets headers; their values may be the client's.
    pub(super) fn set(
        &self,
        head: &mut RequestHead,
        name: &str,
        value: &str,
    ) -> Result<(), BlobError> {
        head.set(name, value)
            .map_err(|reason| BlobError::Unsupported {
                store: self.name.clone(),
                operation: "a header of the object".to_owned(),
                reason,
            })
    }

    pub(super) fn set_guard(&self, head: &mut RequestHead, guard: &Guard) -> Result<(), BlobError> {
        match guard {
            Guard::None => Ok(()),
            Guard::IfAbsent => self.set(head, "if-none-match", "*"),
            Guard::IfVersion(native) => self.set(head, "if-match", &quoted(native)),
        }
    }

    pub(super) fn set_note(&self, head: &mut RequestHead, note: &str) -> Result<(), BlobError> {
        if note.is_empty() {
            return Ok(());
        }
        self.set(head, &format!("{META_PREFIX}{NOTE_NAME}"), note)
    }

    /// Sets metadata of other tools anew, as it would be lost otherwise.
    pub(super) fn keep_foreign(
        &self,
        head: &mut RequestHead,
        headers: &Headers,
    ) -> Result<(), BlobError> {
        for (name, value) in &headers.user {
            self.set(head, &format!("{META_PREFIX}{name}"), value)?;
        }
        Ok(())
    }

    /// Headers as properties that other tools see. The record has them exactly; what the service
    /// could bend is left out here.
    pub(super) fn set_properties(
        &self,
        head: &mut RequestHead,
        headers: &Headers,
    ) -> Result<(), BlobError> {
        let properties = [
            ("x-ms-blob-content-type", &headers.content_type),
            ("x-ms-blob-cache-control", &headers.cache_control),
            (
                "x-ms-blob-content-disposition",
                &headers.content_disposition,
            ),
            ("x-ms-blob-content-encoding", &headers.content_encoding),
            ("x-ms-blob-content-language", &headers.content_language),
        ];
        for (name, value) in properties {
            let plain = |text: &&String| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
            if let Some(value) = value.as_ref().filter(plain) {
                self.set(head, name, value.trim())?;
            }
        }
        Ok(())
    }

    /// Sends a streamed body, once.
    pub(super) async fn send_body(
        &self,
        head: RequestHead,
        body: &mut Body,
    ) -> Result<Collected, BlobError> {
        let payload = Payload::Streamed(body);
        let answer = self.client.send(head, payload, &self.signer).await?;
        self.success(answer, true).await
    }

    /// Sends bytes and takes the whole answer, which is a success.
    pub(super) async fn call(
        &self,
        head: RequestHead,
        bytes: Bytes,
        repeat: Repeat,
    ) -> Result<Collected, BlobError> {
        let writes = head.method != Method::GET && head.method != Method::HEAD;
        let answer = self.exchange(head, bytes, repeat).await?;
        self.success(answer, writes).await
    }

    /// Sends bytes and gives the answer, whatever it is, with its body still to be read.
    pub(super) async fn exchange(
        &self,
        head: RequestHead,
        bytes: Bytes,
        repeat: Repeat,
    ) -> Result<HttpResponse, BlobError> {
        self.client
            .send_bytes(head, bytes, repeat, &self.signer)
            .await
    }

    async fn success(&self, answer: HttpResponse, writes: bool) -> Result<Collected, BlobError> {
        let answer = answer.collect(MAX_ANSWER_BYTES).await?;
        if answer.status.is_success() {
            Ok(answer)
        } else {
            Err(self.refused(&answer, writes))
        }
    }

    pub(super) fn refused(&self, answer: &Collected, writes: bool) -> BlobError {
        Refusal::of(answer).into_error(&self.name, writes, &self.account)
    }

    pub(super) fn nonsense(&self, problem: impl Into<String>, writes: bool) -> BlobError {
        nonsense(&self.name, problem, writes)
    }

    /// What the headers of an answer say of a blob.
    pub(super) fn seen_in(&self, headers: &HeaderMap) -> Result<Seen, BlobError> {
        let missing = |what: &str| self.nonsense(format!("a blob without {what}"), false);
        let whole = headers
            .get("content-range")
            .and_then(|value| ContentRange::parse(value.as_bytes())?.size);
        let length = || header(headers, "content-length")?.parse().ok();
        let md5 = ["x-ms-blob-content-md5", "content-md5"];
        let md5 = md5.iter().find_map(|name| header(headers, name));
        let mut user = std::collections::BTreeMap::new();
        let mut note = None;
        for (name, value) in headers {
            let Some(short) = name.as_str().strip_prefix(META_PREFIX) else {
                continue;
            };
            let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
            if short.eq_ignore_ascii_case(NOTE_NAME) {
                note = Some(text);
            } else {
                user.insert(short.to_owned(), text);
            }
        }
        let text = |name: &str| header(headers, name).map(str::to_owned);
        Ok(Seen {
            size: whole.or_else(length).ok_or_else(|| missing("a size"))?,
            modified_ms: header(headers, "last-modified")
                .and_then(parse_http_date)
                .ok_or_else(|| missing("Last-Modified"))?,
            // Others may write what they like there; with our record it is the service's own.
            md5: md5.and_then(md5_of).filter(|_| note.is_some()),
            native: quoted(header(headers, "etag").ok_or_else(|| missing("an ETag"))?),
            revision: 0,
            note,
            headers: Headers {
                content_type: text("content-type"),
                cache_control: text("cache-control"),
                content_disposition: text("content-disposition"),
                content_encoding: text("content-encoding"),
                content_language: text("content-language"),
                expires: None,
                website_redirect: None,
                user,
            },
        })
    }

    /// What a listing says of a blob.
    pub(super) fn seen_in_list(&self, blob: &Element) -> Result<(String, Seen), BlobError> {
        let missing = |what: &str| self.nonsense(format!("a listed blob without {what}"), false);
        let name = blob.child("Name").ok_or_else(|| missing("a name"))?;
        let properties = blob
            .child("Properties")
            .ok_or_else(|| missing("properties"))?;
        let size = properties.text_of("Content-Length");
        let note = blob.child("Metadata").and_then(|metadata| {
            let mut found = metadata.children.iter();
            found.find(|child| child.name.eq_ignore_ascii_case(NOTE_NAME))
        });
        let note = note.map(|note| note.text.trim().to_owned());
        let md5 = properties.text_of("Content-MD5").and_then(md5_of);
        let seen = Seen {
            size: size
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| missing("a size"))?,
            modified_ms: properties
                .text_of("Last-Modified")
                .and_then(parse_http_date)
                .ok_or_else(|| missing("Last-Modified"))?,
            md5: md5.filter(|_| note.is_some()),
            native: quoted(
                properties
                    .text_of("Etag")
                    .ok_or_else(|| missing("an ETag"))?,
            ),
            note,
            ..Seen::default()
        };
        Ok((name.text.clone(), seen))
    }
}
