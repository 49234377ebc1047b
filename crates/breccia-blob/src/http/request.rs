//! The head of a request, and the hook that signs it.
//!
//! Not a body. Invariant: a signer sees the head exactly as it will be sent, `Host` and
//! `Content-Length` included, so what is signed is what arrives.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, http};

use crate::error::BlobError;

/// The head of a request.
#[derive(Debug, Clone)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// Path and query as they are sent: percent-encoded, beginning with `/`.
    pub target: String,
    /// The headers. The client adds `Host` and `Content-Length`.
    pub headers: HeaderMap,
    lane: Lane,
}

/// Which of a server's connections a request may take. Who waits for a connection may hold one of
/// an earlier lane only, of this server or of another: so no ring of waiting can close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lane {
    /// Of an object that is copied elsewhere: held while the copy waits to be written.
    CopySources,
    /// Of everything else.
    #[default]
    Requests,
    /// Of a question that is asked while the answer to another one is still being read.
    FollowUps,
}

impl RequestHead {
    /// A head without headers.
    #[must_use]
    pub fn new(method: Method, target: impl Into<String>) -> Self {
        Self {
            method,
            target: target.into(),
            headers: HeaderMap::new(),
            lane: Lane::default(),
        }
    }

    /// The same with a connection of this lane.
    #[must_use]
    pub fn in_lane(mut self, lane: Lane) -> Self {
        self.lane = lane;
        self
    }

    pub(super) fn lane(&self) -> Lane {
        self.lane
    }

    /// Sets a header, whose name is in lower case.
    ///
    /// # Errors
    /// In words, if the value has bytes that no header may have: control characters.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let bad = || {
            format!(
                "the header {} has a name or value that HTTP does not allow",
                name.escape_debug()
            )
        };
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| bad())?;
        self.headers.insert(name, value);
        Ok(())
    }

    /// The same with a header whose name and value are known to be allowed.
    ///
    /// # Errors
    /// As [`RequestHead::set`].
    pub fn with(mut self, name: &str, value: &str) -> Result<Self, String> {
        self.set(name, value)?;
        Ok(self)
    }

    /// Whether the request only reads.
    pub(super) fn reads(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }

    pub(super) fn into_request<B>(self, body: B) -> Result<http::Request<B>, http::Error> {
        // Not parsed as a whole URL: a path may begin with two slashes.
        let uri = http::Uri::builder().path_and_query(self.target).build()?;
        let mut request = http::Request::builder()
            .method(self.method)
            .uri(uri)
            .body(body)?;
        *request.headers_mut() = self.headers;
        Ok(request)
    }
}

/// What a signer may know of a body.
#[derive(Debug, Clone, Copy)]
pub enum PayloadKind<'a> {
    /// All of it; may be empty.
    Bytes(&'a [u8]),
    /// Its bytes are not known yet.
    Streamed,
}

/// The answer of a signer.
pub type SignFuture<'a> = Pin<Box<dyn Future<Output = Result<(), BlobError>> + Send + 'a>>;

/// Adds what proves to the server who asks: headers, or parameters behind the target.
pub trait Signer: Debug + Send + Sync {
    /// Signs. Called once for each attempt, as late as can be.
    fn sign<'a>(&'a self, head: &'a mut RequestHead, payload: PayloadKind<'a>) -> SignFuture<'a>;
}

/// Signs nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unsigned;

impl Signer for Unsigned {
    fn sign<'a>(&'a self, _: &'a mut RequestHead, _: PayloadKind<'a>) -> SignFuture<'a> {
        Box::pin(async { Ok(()) })
    }
}
