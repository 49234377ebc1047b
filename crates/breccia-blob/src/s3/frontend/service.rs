//! Connections of clients: HTTP/1.1 in, requests handed on, answers out.
//!
//! Not what an operation does. Invariant: a connection costs a bounded amount of memory, and ends soon
//! after the drain begins.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use breccia_net::clock;
use breccia_net::drain::{Drain, Phase};
use breccia_net::metrics::Registry;
use breccia_net::stream::{Stream, close_gently};
use breccia_net::worker::{Accepted, Service};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::{Method, Response};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::auth::DerivedKeys;
use super::budget::Budget;
use super::dispatch;
use super::handler::Handler;
use super::metrics::{MAX_IN_FLIGHT, Metrics, Outcome};
use super::namespace::Namespace;
use super::operation::Operation;
use super::progress::Progress;
use super::refusal::Refusal;
use super::request::new_id;
use super::respond::{Answer, AnswerBody};
use super::settings::SharedSettings;

/// The most bytes a connection buffers each way; a request's head must fit.
const CONNECTION_BUFFER_BYTES: usize = 128 * 1024;
/// How long a client may take to read the last answer after we are done with its connection.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// What a client is told for whom the listener has no connection left.
pub const TOO_MANY_CLIENTS: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
content-type: application/xml\r\ncontent-length: 116\r\nconnection: close\r\n\r\n\
<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
<Error><Code>SlowDown</Code><Message>max-clients is reached</Message></Error>";

/// An S3 listener, shared by all workers.
#[derive(Debug)]
pub struct S3Frontend {
    /// The listener's name.
    pub name: String,
    /// Its buckets.
    pub namespace: Namespace,
    /// Who may use it, and within which limits.
    pub settings: Arc<SharedSettings>,
    /// The memory of bodies in flight, shared with other listeners.
    pub budget: Budget,
    in_flight: AtomicUsize,
    pub(super) derived: DerivedKeys,
}

impl S3Frontend {
    /// A listener with these buckets.
    #[must_use]
    pub fn new(
        name: String,
        namespace: Namespace,
        settings: Arc<SharedSettings>,
        budget: Budget,
    ) -> Arc<Self> {
        Arc::new(Self {
            name,
            namespace,
            settings,
            budget,
            in_flight: AtomicUsize::new(0),
            derived: DerivedKeys::default(),
        })
    }

    /// What serves the listener's connections on one worker.
    #[must_use]
    pub fn service(self: &Arc<Self>, drain: Drain, registry: &Registry) -> Rc<S3Service> {
        Rc::new(S3Service {
            metrics: Metrics::new(&self.name, registry),
            frontend: Arc::clone(self),
            drain,
        })
    }

    /// Takes a place among the requests in flight, if there is one.
    fn enter(self: &Arc<Self>, most: usize) -> Option<InFlight> {
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let place = InFlight(Arc::clone(self));
        (before < most).then_some(place)
    }
}

/// A place among the requests in flight; free again when dropped.
#[derive(Debug)]
pub(super) struct InFlight(Arc<S3Frontend>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves the connections of one listener on one worker.
pub struct S3Service {
    frontend: Arc<S3Frontend>,
    metrics: Metrics,
    drain: Drain,
}

impl fmt::Debug for S3Service {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("S3Service")
            .field("frontend", &self.frontend)
            .finish_non_exhaustive()
    }
}

impl Service for S3Service {
    fn serve(self: Rc<Self>, connection: Accepted) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move { self.run(connection.stream).await })
    }
}

impl S3Service {
    async fn run(self: Rc<Self>, stream: Stream) {
        let limits = self.frontend.settings.get().limits.clone();
        let stream = Progress::new(stream, limits.write_timeout, limits.min_body_rate);
        let service = Rc::clone(&self);
        let handler = Handler::new(move |request| {
            let service = Rc::clone(&service);
            async move { Ok::<_, Infallible>(service.answer(request).await) }
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.idle_timeout)
            .max_buf_size(CONNECTION_BUFFER_BYTES)
            .serve_connection(TokioIo::new(stream), handler);
        let ended = {
            let mut draining = pin!(self.drain.draining());
            let mut closing = pin!(self.drain.closing());
            std::future::poll_fn(|context| {
                if closing.as_mut().poll(context).is_ready() {
                    return std::task::Poll::Ready(false);
                }
                if self.drain.phase() >= Phase::Draining
                    || draining.as_mut().poll(context).is_ready()
                {
                    Pin::new(&mut connection).graceful_shutdown();
                }
                let polled = connection.poll_without_shutdown(context);
                polled.map(|ended| ended.is_ok())
            })
            .await
        };
        if ended {
            // A refusal may have gone out before its request was read to the end: a socket closed
            // over unread bytes would destroy it on its way.
            let mut stream = connection.into_parts().io.into_inner().into_inner();
            stream.sent(limits.write_timeout, &self.drain).await;
            close_gently(&mut stream, CLOSE_LIMIT).await;
        }
    }

    async fn answer(self: Rc<Self>, request: hyper::Request<Incoming>) -> Response<AnswerBody> {
        let arrived = clock::now();
        let id = new_id();
        let settings = self.frontend.settings.get();
        let is_head = *request.method() == Method::HEAD;
        let path = request.uri().path().to_owned();
        let Some(place) = self.frontend.enter(settings.limits.max_in_flight) else {
            self.metrics.limit_hit(MAX_IN_FLIGHT);
            let refusal = Refusal::SlowDown {
                limit: MAX_IN_FLIGHT,
            };
            self.metrics.count(None, Outcome::Refused, arrived);
            return Answer::refusal(&refusal, &path, &id, is_head).into_response(&id, None);
        };
        let (parts, body) = request.into_parts();
        let mut operation: Option<Operation> = None;
        let done = dispatch::handle(&self.frontend, settings, parts, body, &mut operation);
        let (answer, outcome) = match done.await {
            Ok(answer) => (answer, Outcome::Answered),
            Err(refusal) => {
                let answer = Answer::refusal(&refusal, &path, &id, is_head);
                if let Refusal::SlowDown { limit } = refusal {
                    self.metrics.limit_hit(limit);
                }
                let outcome = Outcome::of(&refusal, answer.status());
                tracing::debug!(listener = self.frontend.name, id, %refusal, "refused");
                (answer, outcome)
            }
        };
        self.metrics.count(operation, outcome, arrived);
        answer.into_response(&id, Some(place))
    }
}
