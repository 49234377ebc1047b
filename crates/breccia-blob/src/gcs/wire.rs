//! Requests to the service: their targets, how they are sent, and how answers are taken.
//!
//! Not what they are about. Invariant: only requests whose repetition changes nothing are repeated,
//! save those refused for a token that has ended, which were not carried out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::GcsStore;
use super::refusal::Refusal;
use crate::body::Body;
use crate::error::BlobError;
use crate::http::{Collected, HttpResponse, MAX_ANSWER_BYTES, Payload, Repeat, RequestHead};
use crate::meta::Headers;
use crate::packed::record::NOTE_NAME;
use crate::packed::{Guard, Seen, nonsense};
use crate::s3::codec::time::parse_iso8601;
use crate::s3::codec::uri::{Slash, encode, encode_into};

/// The fields of an object that are asked for.
pub(super) const FIELDS: &str = "size,timeCreated,md5Hash,generation,metageneration,metadata,\
    contentType,cacheControl,contentDisposition,contentEncoding,contentLanguage";

/// An object as the service shows it. Numbers come as text.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Resource {
    #[serde(default)]
    pub(super) name: String,
    size: String,
    time_created: String,
    generation: String,
    #[serde(default)]
    metageneration: String,
    md5_hash: Option<String>,
    #[serde(default)]
    metadata: std::collections::BTreeMap<String, String>,
    content_type: Option<String>,
    cache_control: Option<String>,
    content_disposition: Option<String>,
    content_encoding: Option<String>,
    content_language: Option<String>,
}

impl Resource {
    /// What it says; in words if it makes no sense.
    pub(super) fn seen(mut self) -> Result<Seen, String> {
        let number = |text: &str| text.parse::<u64>().ok();
        let md5 = self.md5_hash.and_then(|text| {
            let bytes = STANDARD.decode(text).ok()?;
            bytes.try_into().ok()
        });
        Ok(Seen {
            size: number(&self.size).ok_or("an object without a size")?,
            modified_ms: parse_iso8601(&self.time_created).ok_or("an object without a time")?,
            md5,
            revision: number(&self.metageneration).unwrap_or(0),
            note: self.metadata.remove(NOTE_NAME),
            native: self.generation,
            headers: Headers {
                content_type: self.content_type,
                cache_control: self.cache_control,
                content_disposition: self.content_disposition,
                content_encoding: self.content_encoding,
                content_language: self.content_language,
                expires: None,
                website_redirect: None,
                user: self.metadata,
            },
        })
    }
}

/// An object's resource as it is sent: the record, and headers that other tools see. The record has
/// them exactly; what the service could bend is left out here.
pub(super) fn resource(note: &str, headers: &Headers) -> Map<String, Value> {
    let mut fields = Map::new();
    if !note.is_empty() {
        fields.insert("metadata".to_owned(), json!({ NOTE_NAME: note }));
    }
    let native = [
        ("contentType", &headers.content_type),
        ("cacheControl", &headers.cache_control),
        ("contentDisposition", &headers.content_disposition),
        ("contentEncoding", &headers.content_encoding),
        ("contentLanguage", &headers.content_language),
    ];
    for (name, value) in native {
        let plain = |text: &&String| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if let Some(value) = value.as_ref().filter(plain) {
            fields.insert(name.to_owned(), value.clone().into());
        }
    }
    fields
}

/// A target with parameters behind it.
#[derive(Debug, Clone)]
pub(super) struct Target(String);

impl Target {
    pub(super) fn new(path: String) -> Self {
        Self(path)
    }

    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.0.push(if self.0.contains('?') { '&' } else { '?' });
        self.0.push_str(name);
        self.0.push('=');
        encode_into(&mut self.0, value.as_bytes(), Slash::Escape);
        self
    }

    /// One more segment of the path, before there are parameters.
    pub(super) fn segment(mut self, segment: &str) -> Self {
        self.0.push('/');
        self.0.push_str(segment);
        self
    }

    /// With the condition of a write.
    pub(super) fn under(self, guard: &Guard) -> Self {
        match guard {
            Guard::None => self,
            Guard::IfAbsent => self.with("ifGenerationMatch", "0"),
            Guard::IfVersion(generation) => self.with("ifGenerationMatch", generation),
        }
    }

    pub(super) fn head(self, method: Method) -> RequestHead {
        RequestHead::new(method, self.0)
    }
}

impl GcsStore {
    /// An object.
    pub(super) fn object(&self, name: &str) -> Target {
        Target::new(format!(
            "{}/{}",
            self.objects,
            encode(name.as_bytes(), Slash::Escape)
        ))
    }

    /// A request with JSON.
    pub(super) fn json_head(
        &self,
        target: Target,
        method: Method,
    ) -> Result<RequestHead, BlobError> {
        let mut head = target.head(method);
        self.set(&mut head, "content-type", "application/json; charset=UTF-8")?;
        Ok(head)
    }

    pub(super) fn set(
        &self,
        head: &mut RequestHead,
        name: &str,
        value: &str,
    ) -> Result<(), BlobError> {
        head.set(name, value)
            .map_err(|reason| BlobError::Unsupported {
                store: self.name.clone(),
                operation: "a header of the request".to_owned(),
                reason,
            })
    }

    /// Sends a streamed body, once.
    pub(super) async fn send_body(
        &self,
        head: RequestHead,
        body: &mut Body,
    ) -> Result<Collected, BlobError> {
        let payload = Payload::Streamed(body);
        let answer = self.client.send(head, payload, &self.signer).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            self.signer.forget();
        }
        self.success(answer, true).await
    }

    /// Sends bytes and takes the whole answer, which is a success.
    pub(super) async fn call(
        &self,
        head: RequestHead,
        bytes: Bytes,
        repeat: Repeat,
    ) -> Result<Collected, BlobError> {
        let writes = head.method != Method::GET;
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
        let (client, signer) = (&self.client, &self.signer);
        let first = client.send_bytes(head.clone(), bytes.clone(), repeat, signer);
        let answer = first.await?;
        // A token may end before its time: then a new one is shown.
        if answer.status == StatusCode::UNAUTHORIZED && self.signer.forget() {
            answer.discard().await;
            return client.send_bytes(head, bytes, repeat, signer).await;
        }
        Ok(answer)
    }

    async fn success(&self, answer: HttpResponse, writes: bool) -> Result<Collected, BlobError> {
        let answer = answer.collect(MAX_ANSWER_BYTES).await?;
        // An upload that is not whole answers 308.
        if answer.status.is_success() {
            Ok(answer)
        } else {
            Err(self.refused(&answer, writes))
        }
    }

    pub(super) fn refused(&self, answer: &Collected, writes: bool) -> BlobError {
        Refusal::of(answer).into_error(&self.name, writes, self.signer.who())
    }

    pub(super) fn nonsense(&self, problem: impl Into<String>, writes: bool) -> BlobError {
        nonsense(&self.name, problem, writes)
    }

    /// The object that an answer shows.
    pub(super) fn seen_in(&self, answer: &Collected, writes: bool) -> Result<Seen, BlobError> {
        let resource: Resource = self.read(&answer.bytes, writes)?;
        resource
            .seen()
            .map_err(|problem| self.nonsense(problem, writes))
    }

    pub(super) fn read<T: for<'d> Deserialize<'d>>(
        &self,
        bytes: &[u8],
        writes: bool,
    ) -> Result<T, BlobError> {
        serde_json::from_slice(bytes).map_err(|error| {
            self.nonsense(format!("an answer that is not understood: {error}"), writes)
        })
    }
}
