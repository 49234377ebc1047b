//! Requests to the member: their targets, how they are sent, and how answers are taken.
//!
//! Not what they are about. Invariant: only requests whose repetition changes nothing are repeated.

use bytes::Bytes;
use hyper::Method;

use super::S3Store;
use super::refusal::Refusal;
use super::xml::Element;
use crate::body::Body;
use crate::error::BlobError;
use crate::http::{Collected, HttpResponse, MAX_ANSWER_BYTES, Payload, Repeat, RequestHead};
use crate::s3::codec::uri::{Slash, encode, encode_into};
use breccia_core::error::Effect;

impl S3Store {
    /// The head of a request for an object name (empty: for the bucket).
    pub(super) fn head_of(
        &self,
        method: Method,
        name: &str,
        query: &[(&str, &str)],
    ) -> RequestHead {
        let mut target = self.root.clone();
        target.push('/');
        encode_into(&mut target, name.as_bytes(), Slash::Keep);
        for (place, (key, value)) in query.iter().enumerate() {
            target.push(if place == 0 { '?' } else { '&' });
            target.push_str(&encode(key.as_bytes(), Slash::Escape));
            if !value.is_empty() {
                target.push('=');
                encode_into(&mut target, value.as_bytes(), Slash::Escape);
            }
        }
        RequestHead::new(method, target)
    }

    /// Sets headers; their values are the client's.
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

    /// Sends a streamed body, once.
    pub(super) async fn send_body(
        &self,
        head: RequestHead,
        body: &mut Body,
    ) -> Result<Collected, BlobError> {
        let answer = self
            .client
            .send(head, Payload::Streamed(body), &self.signer)
            .await?;
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
        let answer = self.open(head, bytes, repeat).await?;
        self.success(answer, writes).await
    }

    /// The same for an answer that may be a refusal the caller knows what to do with.
    pub(super) async fn ask(
        &self,
        head: RequestHead,
        bytes: Bytes,
        repeat: Repeat,
    ) -> Result<Collected, BlobError> {
        self.open(head, bytes, repeat)
            .await?
            .collect(MAX_ANSWER_BYTES)
            .await
    }

    /// Sends bytes and gives the answer, whatever it is, with its body still to be read.
    pub(super) async fn open(
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
            Err(self.refused(Refusal::of(&answer), writes))
        }
    }

    pub(super) fn refused(&self, refusal: Refusal, writes: bool) -> BlobError {
        refusal.into_error(&self.name, writes, &self.signer.access_key())
    }

    /// The document of a success; an error document inside of one is an error.
    pub(super) fn document(&self, answer: &Collected, writes: bool) -> Result<Element, BlobError> {
        let document =
            Element::parse(&answer.bytes).map_err(|problem| self.nonsense(problem, writes))?;
        if document.name == "Error" {
            // The status says 200, so it is judged by its code; an unknown one may be anything.
            let mut refusal = Refusal::read(200, Some(&document));
            refusal.status = match refusal.code.as_str() {
                "PreconditionFailed" => 412,
                "NoSuchUpload" | "NoSuchKey" => 404,
                "ConditionalRequestConflict" => 409,
                "InvalidPart" | "InvalidPartOrder" | "EntityTooSmall" | "InvalidRequest" => 400,
                "AccessDenied" => 403,
                "SlowDown" => 503,
                _ => 500,
            };
            return Err(self.refused(refusal, writes));
        }
        Ok(document)
    }

    /// An answer that makes no sense.
    pub(super) fn nonsense(&self, problem: impl Into<String>, writes: bool) -> BlobError {
        BlobError::Protocol {
            store: self.name.clone(),
            problem: problem.into(),
            effect: if writes {
                Effect::Unknown
            } else {
                Effect::NotApplied
            },
        }
    }
}
