//! Sending a request and awaiting its answer.
//!
//! Not repeating it: `retry` does, for those that may be. Invariant: nothing is sent twice here,
//! save a request of which a kept connection had not begun to write a byte.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use breccia_core::error::Effect;
use breccia_net::tls::{TlsClient, TlsClientOptions};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::header::{CONTENT_LENGTH, HOST, HeaderValue};
use hyper::{Method, Request, Response};
use tokio::sync::Semaphore;

use super::endpoint::Endpoint;
use super::payload::{Fed, Payload, PieceBody, feed};
use super::pool::{Lease, Permits, Pool};
use super::request::{Lane, PayloadKind, RequestHead, Signer};
use super::response::HttpResponse;
use crate::error::BlobError;

/// How a server is talked to.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// The store's name, for errors.
    pub store: String,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// TLS, where the endpoint says `https`.
    pub tls: TlsClientOptions,
    /// How long the server may keep silent: before it answers, while it sends, and while it takes
    /// nothing more of what is sent. Also the longest wait for a connection to be free.
    pub timeout: Duration,
    /// The most connections at a time, of each [`Lane`].
    pub max_connections: usize,
    /// How often a request that may be repeated is repeated.
    pub max_retries: u32,
}

impl HttpOptions {
    /// The usual: 30 s, 64 connections, 3 retries.
    #[must_use]
    pub fn new(store: impl Into<String>, endpoint: Endpoint) -> Self {
        Self {
            store: store.into(),
            endpoint,
            tls: TlsClientOptions::default(),
            timeout: Duration::from_secs(30),
            max_connections: 64,
            max_retries: 3,
        }
    }
}

/// An HTTP/1.1 client of one server. Cheap to clone; clones share the connections.
#[derive(Debug, Clone)]
pub struct HttpClient {
    pool: Arc<Pool>,
    endpoint: Arc<Endpoint>,
    pub(super) max_retries: u32,
}

/// An answer, or why there is none.
type Answer = Result<Response<Incoming>, TrySendError<Request<PieceBody>>>;

impl HttpClient {
    /// A client; connects when it is first used.
    ///
    /// # Errors
    /// [`BlobError::Options`]: the files of `tls` cannot be used, or no connection is allowed.
    pub fn new(options: HttpOptions) -> Result<Self, BlobError> {
        let refuse = |problem: String| BlobError::Options {
            store: options.store.clone(),
            problem,
        };
        let maximum = options.max_connections.min(Semaphore::MAX_PERMITS);
        if maximum == 0 {
            return Err(refuse("max-connections must be at least 1".to_owned()));
        }
        let tls = if options.endpoint.https {
            let tls = TlsClient::new(&options.tls, &options.endpoint.host);
            Some(tls.map_err(|error| refuse(error.to_string()))?)
        } else {
            None
        };
        let pool = Pool {
            address: options.endpoint.address(),
            store: options.store,
            tls,
            timeout: options.timeout,
            maximum,
            permits: Permits::new(maximum),
            idle: Mutex::new(Vec::new()),
        };
        Ok(Self {
            pool: Arc::new(pool),
            endpoint: Arc::new(options.endpoint),
            max_retries: options.max_retries,
        })
    }

    /// Where the server listens.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The store's name.
    #[must_use]
    pub fn store(&self) -> &str {
        &self.pool.store
    }

    /// Sends one request, once. Any status is an answer, also an early one while the body was still
    /// on its way. After a success a streamed body has its digests.
    ///
    /// # Errors
    /// The body's own error if it is not what was announced (the server then never had a whole
    /// request); [`BlobError::Down`], [`BlobError::Timeout`], [`BlobError::Overloaded`].
    pub async fn send(
        &self,
        mut head: RequestHead,
        payload: Payload<'_>,
        signer: &dyn Signer,
    ) -> Result<HttpResponse, BlobError> {
        let payload = payload.settle().await?;
        self.complete(&mut head, &payload)?;
        let kind = match &payload {
            Payload::Bytes(bytes) => PayloadKind::Bytes(bytes),
            Payload::Streamed(_) => PayloadKind::Streamed,
        };
        signer.sign(&mut head, kind).await?;
        let (reads, lane) = (head.reads(), head.lane());
        match payload {
            Payload::Bytes(bytes) => {
                let request = self.request(head, PieceBody::whole(bytes))?;
                let feeding = std::future::ready(Fed::All);
                self.exchange(request, feeding, reads, lane).await
            }
            Payload::Streamed(body) => {
                let (pieces, sender) = PieceBody::fed(body.size());
                let request = self.request(head, pieces)?;
                let feeding = feed(body, sender, self.pool.timeout);
                self.exchange(request, feeding, reads, lane).await
            }
        }
    }

    /// Adds the headers that are the client's own.
    fn complete(&self, head: &mut RequestHead, payload: &Payload<'_>) -> Result<(), BlobError> {
        let host = self.endpoint.host_header();
        head.set("host", &host).map_err(|_| self.malformed())?;
        debug_assert!(head.headers.contains_key(HOST));
        let size = payload.size();
        if size > 0 || head.method == Method::PUT || head.method == Method::POST {
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
        }
        Ok(())
    }

    fn request<B>(&self, head: RequestHead, body: B) -> Result<Request<B>, BlobError> {
        head.into_request(body).map_err(|_| self.malformed())
    }

    async fn exchange(
        &self,
        mut request: Request<PieceBody>,
        feeding: impl Future<Output = Fed>,
        reads: bool,
        lane: Lane,
    ) -> Result<HttpResponse, BlobError> {
        let mut feeding = std::pin::pin!(feeding);
        let mut fed = false;
        let mut closed = false;
        loop {
            let mut lease = self.pool.lease(lane).await?;
            let mut answer = std::pin::pin!(lease.sender().try_send_request(request));
            let mut early = None;
            while !fed && !closed && early.is_none() {
                tokio::select! {
                    // The feeder first: whole bodies are fed before anybody can have answered.
                    biased;
                    outcome = &mut feeding => match outcome {
                        Fed::All => fed = true,
                        // What the connection answers says why.
                        Fed::Closed => closed = true,
                        Fed::Stalled => return Err(self.silent(Effect::NotApplied)),
                        Fed::Failed(error) => return Err(error),
                    },
                    answered = &mut answer => early = Some(answered),
                }
            }
            let effect = if fed && !reads {
                Effect::Unknown
            } else {
                Effect::NotApplied
            };
            let answered = match early {
                Some(answered) => answered,
                None => tokio::time::timeout(self.pool.timeout, answer)
                    .await
                    .map_err(|_| self.silent(effect))?,
            };
            match self.judge(answered, lease, fed, effect)? {
                Judged::Answer(response) => return Ok(*response),
                Judged::Unsent(unsent) => request = *unsent,
            }
        }
    }

    fn judge(
        &self,
        answered: Answer,
        lease: Lease,
        fed: bool,
        effect: Effect,
    ) -> Result<Judged, BlobError> {
        match answered {
            Ok(response) if !fed && response.status().is_success() => Err(BlobError::Protocol {
                store: self.pool.store.clone(),
                problem: "success before it had the whole request".to_owned(),
                effect: Effect::Unknown,
            }),
            Ok(response) => {
                let answer = HttpResponse::new(response, lease, fed, self.pool.timeout, effect);
                Ok(Judged::Answer(Box::new(answer)))
            }
            Err(mut error) => match error.take_message() {
                Some(unsent) if !lease.fresh => Ok(Judged::Unsent(Box::new(unsent))),
                Some(_) => Err(self.lost(error.error(), Effect::NotApplied)),
                None => Err(self.lost(error.error(), effect)),
            },
        }
    }

    fn silent(&self, effect: Effect) -> BlobError {
        BlobError::Timeout {
            store: self.pool.store.clone(),
            effect,
        }
    }

    fn lost(&self, error: &hyper::Error, effect: Effect) -> BlobError {
        lost(&self.pool.store, error, effect)
    }

    fn malformed(&self) -> BlobError {
        BlobError::Protocol {
            store: self.pool.store.clone(),
            problem: "a request that HTTP does not allow was about to be sent".to_owned(),
            effect: Effect::NotApplied,
        }
    }
}

enum Judged {
    Answer(Box<HttpResponse>),
    Unsent(Box<Request<PieceBody>>),
}

/// A connection that broke, or a server that does not speak HTTP.
pub(super) fn lost(store: &str, error: &hyper::Error, effect: Effect) -> BlobError {
    let mut reason = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        reason = format!("{reason}: {cause}");
        source = cause.source();
    }
    let store = store.to_owned();
    if error.is_parse() {
        return BlobError::Protocol {
            store,
            problem: reason,
            effect,
        };
    }
    BlobError::Down {
        store,
        reason,
        effect,
    }
}
