//! The admin listener: health, metrics, status and steering over HTTP/1.
//!
//! Not for clients of the stores. Invariant: no answer holds a secret, and a caller costs a bounded
//! amount of memory and time.

mod steer;
mod token;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use breccia_config::AdminPlan;
use breccia_net::NetError;
use breccia_net::listener::{Bind, Listener};
use breccia_net::stream::Stream;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;

use crate::gateway::Gateway;
use crate::reload;

/// Callers served at once; more wait.
const MAX_CALLERS: usize = 64;
/// The most bytes of a request's head.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// How long a caller may take to send a request's head, also between two requests.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// How long a connection may last in all.
const CALL_LIMIT: Duration = Duration::from_mins(1);

/// The bound admin listener.
#[derive(Debug)]
pub(crate) struct Listening {
    listener: Listener,
}

impl Listening {
    /// Binds it.
    pub(crate) fn open(plan: &AdminPlan) -> Result<Self, NetError> {
        Ok(Self {
            listener: Listener::open(&Bind::Tcp(plan.bind))?,
        })
    }

    /// Where it listens.
    pub(crate) fn bind(&self) -> &Bind {
        self.listener.bind()
    }

    /// Serves callers for ever.
    pub(crate) async fn serve(self, gateway: Arc<Gateway>) {
        let callers = Arc::new(Semaphore::new(MAX_CALLERS));
        loop {
            let Ok(permit) = Arc::clone(&callers).acquire_owned().await else {
                return;
            };
            let (stream, _) = self.listener.next().await;
            let gateway = Arc::clone(&gateway);
            tokio::spawn(async move {
                // Whatever goes wrong concerns this caller alone.
                let _ = tokio::time::timeout(CALL_LIMIT, serve_one(stream, gateway)).await;
                drop(permit);
            });
        }
    }
}

async fn serve_one(stream: Stream, gateway: Arc<Gateway>) -> Result<(), hyper::Error> {
    let service = service_fn(move |request: Request<Incoming>| {
        let gateway = Arc::clone(&gateway);
        async move { Ok::<_, Infallible>(answer(&gateway, &request).await) }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

type Answer = Response<Full<Bytes>>;

/// Answers from the head alone: a body is never read.
async fn answer(gateway: &Arc<Gateway>, request: &Request<Incoming>) -> Answer {
    let (method, path) = (request.method(), request.uri().path());
    let steered = steer::read(path);
    let allowed = match path {
        "/healthz" | "/readyz" | "/metrics" | "/status" => Method::GET,
        "/reload" => Method::POST,
        _ if steered.is_some() => Method::POST,
        _ => {
            let known = "GET /healthz /readyz /metrics /status, POST /reload \
                         /stores/NAME/{drain,resume,pause,primary}\n";
            return text(
                StatusCode::NOT_FOUND,
                format!("there is no {path}; there are: {known}"),
            );
        }
    };
    let is_head = *method == Method::HEAD && allowed == Method::GET;
    if *method != allowed && !is_head {
        return text(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("use {allowed} {path}\n"),
        );
    }
    let is_open = matches!(path, "/healthz" | "/readyz" | "/metrics");
    if !is_open && !is_allowed(gateway, request) {
        return unauthorized();
    }
    if let Some((name, action)) = steered {
        let (gateway, name) = (Arc::clone(gateway), name.to_owned());
        // Whoever asked may leave meanwhile: it is done all the same.
        let steering = tokio::spawn(async move { steer::steer(&gateway, &name, action).await });
        return match steering.await {
            Ok((status, body)) => json(status, &body),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        };
    }
    match path {
        "/healthz" => text(StatusCode::OK, "alive\n".to_owned()),
        "/readyz" => match gateway.readiness() {
            Ok(body) => text(StatusCode::OK, body),
            Err(body) => text(StatusCode::SERVICE_UNAVAILABLE, body),
        },
        "/metrics" => {
            let kind = "text/plain; version=0.0.4; charset=utf-8";
            response(StatusCode::OK, kind, gateway.metrics.render())
        }
        "/status" => json(StatusCode::OK, &gateway.status()),
        _ => match reload::reload(gateway) {
            Ok(done) => json(StatusCode::OK, &done.to_json()),
            Err(faults) => json(
                StatusCode::BAD_REQUEST,
                &serde_json::json!({ "faults": faults }),
            ),
        },
    }
}

/// Where a token is configured it must be shown; the config has seen to it that off loopback there
/// is one, or that the operator wants none.
fn is_allowed(gateway: &Gateway, request: &Request<Incoming>) -> bool {
    let plan = gateway.plan();
    let token = plan.admin.as_ref().and_then(|admin| admin.token.as_ref());
    token.is_none_or(|token| {
        let shown = request
            .headers()
            .get(AUTHORIZATION)
            .map(HeaderValue::as_bytes);
        token::is_shown(token.expose().as_bytes(), shown)
    })
}

fn unauthorized() -> Answer {
    let line = "this page needs the header `Authorization: Bearer TOKEN` with admin.token\n";
    let mut answer = text(StatusCode::UNAUTHORIZED, line.to_owned());
    answer
        .headers_mut()
        .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    answer
}

fn json(status: StatusCode, value: &serde_json::Value) -> Answer {
    response(status, "application/json", format!("{value:#}\n"))
}

fn text(status: StatusCode, body: String) -> Answer {
    response(status, "text/plain; charset=utf-8", body)
}

fn response(status: StatusCode, kind: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
