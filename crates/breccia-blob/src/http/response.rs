//! The answer to a request: status, headers, and a body that is streamed or collected.
//!
//! Not what the server's protocol means by it. Invariant: a connection is kept only after a whole
//! request was sent and a whole answer was read; else it is closed.

use std::time::Duration;

use breccia_core::error::Effect;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::header::HeaderMap;
use hyper::{Response, StatusCode};

use super::client::lost;
use super::pool::Lease;
use crate::body::{ByteSource, NextChunk};
use crate::error::BlobError;

/// The largest answer of XML or JSON that is read: a page of 1,000 keys of 1,024 bytes, each byte
/// percent-encoded, fits.
pub const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// The most bytes that are read only to keep a connection.
const MAX_DISCARDED_BYTES: usize = 64 * 1024;

/// The answer to a request.
#[derive(Debug)]
pub struct HttpResponse {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    body: AnswerBody,
}

/// The body of an answer.
#[derive(Debug)]
struct AnswerBody {
    body: Incoming,
    lease: Option<Lease>,
    store: String,
    timeout: Duration,
    effect: Effect,
    whole_request: bool,
    ended: bool,
}

impl HttpResponse {
    pub(super) fn new(
        response: Response<Incoming>,
        lease: Lease,
        whole_request: bool,
        timeout: Duration,
        effect: Effect,
    ) -> Self {
        let (head, body) = response.into_parts();
        Self {
            status: head.status,
            headers: head.headers,
            body: AnswerBody {
                body,
                store: lease.store().to_owned(),
                lease: Some(lease),
                timeout,
                effect,
                whole_request,
                ended: false,
            },
        }
    }

    /// A header as text; `None` if it is missing or not UTF-8.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let value = self.headers.get(name)?;
        std::str::from_utf8(value.as_bytes()).ok()
    }

    /// How many bytes the body will have, if the server says.
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        self.body.body.size_hint().exact()
    }

    /// The body, streamed; an end before the announced length is an error. The server may keep
    /// silent for the client's timeout, not longer.
    #[must_use]
    pub fn into_source(self) -> Box<dyn ByteSource> {
        Box::new(self.body)
    }

    /// The whole body, of at most `limit` bytes, and the headers.
    ///
    /// # Errors
    /// [`BlobError::Protocol`] if there are more; [`BlobError::Down`], [`BlobError::Timeout`].
    pub async fn collect(mut self, limit: usize) -> Result<Collected, BlobError> {
        let mut bytes: Vec<u8> = Vec::new();
        while let Some(chunk) = self.body.pull().await {
            let chunk = chunk?;
            if bytes.len().saturating_add(chunk.len()) > limit {
                return Err(BlobError::Protocol {
                    store: self.body.store.clone(),
                    problem: format!("an answer of more than {limit} bytes"),
                    effect: self.body.effect,
                });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Collected {
            status: self.status,
            headers: self.headers,
            bytes: bytes.into(),
        })
    }

    /// Reads the rest away if it is short, to keep the connection.
    pub async fn discard(self) {
        let _ = self.collect(MAX_DISCARDED_BYTES).await;
    }
}

/// An answer that was read whole.
#[derive(Debug)]
pub struct Collected {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub bytes: Bytes,
}

impl Collected {
    /// A header as text; `None` if it is missing or not UTF-8.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let value = self.headers.get(name)?;
        std::str::from_utf8(value.as_bytes()).ok()
    }
}

impl AnswerBody {
    /// The answer was read whole: its connection may serve the next request.
    fn conclude(&mut self) {
        self.ended = true;
        if let Some(lease) = self.lease.take().filter(|_| self.whole_request) {
            lease.give_back();
        }
    }

    async fn pull(&mut self) -> Option<Result<Bytes, BlobError>> {
        while !self.ended {
            match tokio::time::timeout(self.timeout, self.body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        // Whoever knows the length asks for nothing more after the last byte.
                        if self.body.is_end_stream() {
                            self.conclude();
                        }
                        return Some(Ok(data));
                    }
                }
                Ok(Some(Err(error))) => {
                    self.ended = true;
                    self.lease = None;
                    return Some(Err(lost(&self.store, &error, self.effect)));
                }
                Ok(None) => self.conclude(),
                Err(_) => {
                    self.ended = true;
                    self.lease = None;
                    return Some(Err(BlobError::Timeout {
                        store: self.store.clone(),
                        effect: self.effect,
                    }));
                }
            }
        }
        None
    }
}

impl ByteSource for AnswerBody {
    fn next(&mut self) -> NextChunk<'_> {
        Box::pin(self.pull())
    }
}
