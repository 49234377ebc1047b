//! Answers: their heads, and bodies that come from memory or from a store.
//!
//! Not the connection. Invariant: an answer that cannot be finished breaks the connection; it never
//! looks whole.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use crate::body::ByteSource;
use crate::error::BlobError;
use crate::s3::codec::range::unsatisfied_content_range;
use crate::s3::codec::time;
use crate::s3::codec::xml::ErrorDocument;

use super::budget::Share;
use super::headers::Out;
use super::refusal::Refusal;
use super::service::InFlight;
use super::wire_error;

/// The header that names a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-request-id");

/// What a request is answered.
#[derive(Debug)]
pub(super) struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Content,
}

enum Content {
    Empty,
    Whole(Bytes),
    Stream(Stream),
    /// The answer of a HEAD: as long as the body that is not sent.
    Head(u64),
}

impl std::fmt::Debug for Content {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Empty => "Empty",
            Self::Whole(_) => "Whole",
            Self::Stream(_) => "Stream",
            Self::Head(_) => "Head",
        })
    }
}

impl Answer {
    /// An answer without a body.
    pub(super) fn empty(status: StatusCode) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            body: Content::Empty,
        }
    }

    /// An XML document.
    pub(super) fn xml(status: StatusCode, document: String) -> Self {
        let mut answer = Self::empty(status);
        let kind = HeaderValue::from_static("application/xml");
        answer.headers.insert(CONTENT_TYPE, kind);
        answer.body = Content::Whole(document.into());
        answer
    }

    /// The bytes of an object.
    pub(super) fn stream(
        status: StatusCode,
        source: Box<dyn ByteSource>,
        size: u64,
        share: Share,
    ) -> Self {
        let mut answer = Self::empty(status);
        answer.body = Content::Stream(Stream {
            reading: Reading::Idle(source),
            left: size,
            _share: share,
        });
        answer
    }

    /// The answer of a HEAD.
    pub(super) fn head(status: StatusCode, size: u64) -> Self {
        let mut answer = Self::empty(status);
        answer.body = Content::Head(size);
        answer
    }

    /// Adds headers, in place of those of the same name.
    pub(super) fn with(mut self, out: Out) -> Self {
        if self.headers.is_empty() {
            self.headers = out.into_map();
            return self;
        }
        for (name, value) in out.into_map() {
            if let Some(name) = name {
                self.headers.insert(name, value);
            }
        }
        self
    }

    /// A refusal, as S3 tells it.
    pub(super) fn refusal(refusal: &Refusal, path: &str, id: &str, is_head: bool) -> Self {
        let row = wire_error::of(refusal);
        let mut out = Out::default();
        match refusal {
            Refusal::Blob(BlobError::Range { size }) => {
                out.set("content-range", &unsatisfied_content_range(*size));
            }
            Refusal::Blob(BlobError::NotModified { etag, modified_ms }) => {
                out.set("etag", &etag.quoted());
                out.set("last-modified", &time::http_date(*modified_ms));
            }
            _ => {}
        }
        let bodiless = is_head || row.status == StatusCode::NOT_MODIFIED;
        if bodiless {
            return Self::empty(row.status).with(out);
        }
        let document = ErrorDocument {
            code: row.code.to_owned(),
            message: refusal.to_string(),
            resource: path.to_owned(),
            request_id: id.to_owned(),
            extra: Vec::new(),
        };
        Self::xml(row.status, document.write()).with(out)
    }

    /// The response that hyper sends.
    pub(super) fn into_response(
        self,
        id: &str,
        in_flight: Option<InFlight>,
    ) -> Response<AnswerBody> {
        let mut response = Response::new(AnswerBody {
            content: Content::Empty,
            _in_flight: in_flight,
        });
        *response.status_mut() = self.status;
        let mut headers = self.headers;
        let length = match &self.body {
            Content::Head(size) => Some(*size),
            Content::Stream(stream) => Some(stream.left),
            Content::Whole(_) | Content::Empty => None,
        };
        if let Some(length) = length {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        if let Ok(id) = HeaderValue::from_str(id) {
            headers.insert(REQUEST_ID, id);
        }
        *response.headers_mut() = headers;
        response.body_mut().content = self.body;
        response
    }

    /// Its status.
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }
}

/// The body of an answer; the request counts as in flight until it is dropped.
#[derive(Debug)]
pub(super) struct AnswerBody {
    content: Content,
    _in_flight: Option<InFlight>,
}

type Next = (Box<dyn ByteSource>, Option<Result<Bytes, BlobError>>);

enum Reading {
    Idle(Box<dyn ByteSource>),
    Waiting(Pin<Box<dyn Future<Output = Next> + Send>>),
    Done,
}

struct Stream {
    reading: Reading,
    left: u64,
    _share: Share,
}

impl Stream {
    fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BlobError>>> {
        loop {
            match std::mem::replace(&mut self.reading, Reading::Done) {
                Reading::Done => return Poll::Ready(None),
                Reading::Idle(_) if self.left == 0 => return Poll::Ready(None),
                Reading::Idle(mut source) => {
                    self.reading = Reading::Waiting(Box::pin(async move {
                        let next = source.next().await;
                        (source, next)
                    }));
                }
                Reading::Waiting(mut future) => match future.as_mut().poll(context) {
                    Poll::Pending => {
                        self.reading = Reading::Waiting(future);
                        return Poll::Pending;
                    }
                    Poll::Ready((source, next)) => {
                        return Poll::Ready(Some(self.take_in(source, next)));
                    }
                },
            }
        }
    }

    /// More or fewer bytes than announced are an error of the store, and break the connection.
    fn take_in(
        &mut self,
        source: Box<dyn ByteSource>,
        next: Option<Result<Bytes, BlobError>>,
    ) -> Result<Bytes, BlobError> {
        let damaged = |problem: &str| BlobError::Damaged {
            store: "the store".to_owned(),
            problem: problem.to_owned(),
        };
        let chunk = next.unwrap_or_else(|| Err(damaged("its bytes ended early")))?;
        let length = chunk.len() as u64;
        let left = self.left.checked_sub(length);
        self.left = left.ok_or_else(|| damaged("it has more bytes than it says"))?;
        self.reading = Reading::Idle(source);
        Ok(chunk)
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = BlobError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BlobError>>> {
        match &mut self.content {
            Content::Empty | Content::Head(_) => Poll::Ready(None),
            Content::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                self.content = Content::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Content::Stream(stream) => stream.poll_chunk(context).map(|next| {
                if let Some(Err(error)) = &next {
                    tracing::debug!(%error, "an answer is cut off");
                }
                next.map(|chunk| chunk.map(Frame::data))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty | Content::Head(_) => true,
            Content::Whole(bytes) => bytes.is_empty(),
            Content::Stream(stream) => stream.left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty | Content::Head(_) => SizeHint::with_exact(0),
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Stream(stream) => SizeHint::with_exact(stream.left),
        }
    }
}
