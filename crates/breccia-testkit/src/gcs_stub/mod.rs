//! A stub of Google Cloud Storage's JSON API, inside the test process.
//!
//! Written from the public API reference, because no emulator that can be installed keeps generation
//! preconditions. It is not the real service: no versions, access lists, quotas, batches, XML API or
//! gRPC, and a test that passes here says only that Breccia speaks the documented protocol. Invariant: a
//! precondition and the change it guards happen under one lock.

mod account;
mod fields;
mod list;
mod object;
mod request;
mod store;
#[cfg(test)]
mod tests;
mod upload;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io::{BufReader, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};

use crate::http_message::{Head, HttpReply};
use account::Accounts;
use request::{Refusal, Request};
use store::Store;

const MOST_REMEMBERED: usize = 10_000;

#[derive(Debug, Default)]
struct Shared {
    store: Mutex<Store>,
    accounts: Accounts,
    requests: Mutex<VecDeque<String>>,
    failures: Mutex<VecDeque<u16>>,
    open: Mutex<BTreeMap<u64, TcpStream>>,
    token_needed: AtomicBool,
    rewrite_calls: AtomicU64,
    ended: AtomicBool,
    address: String,
}

/// A running stub on 127.0.0.1.
#[derive(Debug)]
pub struct GcsStub {
    port: u16,
    shared: Arc<Shared>,
}

impl GcsStub {
    /// Listens on a free port.
    pub fn start() -> Result<GcsStub> {
        let listener = crate::ports::free_listener().context("the stub's port")?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            address: format!("127.0.0.1:{port}"),
            rewrite_calls: AtomicU64::new(1),
            ..Shared::default()
        });
        let for_thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            for (number, stream) in (0..).zip(listener.incoming().flatten()) {
                if for_thread.ended.load(Ordering::Relaxed) {
                    return;
                }
                if let Ok(copy) = stream.try_clone() {
                    lock(&for_thread.open).insert(number, copy);
                }
                let shared = Arc::clone(&for_thread);
                std::thread::spawn(move || {
                    // A connection that breaks ends its thread, nothing else.
                    let _ended = serve(&shared, &stream);
                    lock(&shared.open).remove(&number);
                });
            }
        });
        Ok(GcsStub { port, shared })
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        self.shared.address.clone()
    }

    /// `http://127.0.0.1:PORT`, in the place of `https://storage.googleapis.com`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.shared.address)
    }

    /// Makes a bucket; it may be there already.
    pub fn create_bucket(&self, name: &str) {
        lock(&self.shared.store).create_bucket(name);
    }

    /// Writes the key file of a new service account, whose `token_uri` is this stub's `/token`, and from now on
    /// refuses requests without a token that was given out there.
    pub fn service_account(&self, file: &Path) -> Result<()> {
        let uri = format!("{}/token", self.endpoint());
        self.shared.accounts.create(file, &uri)?;
        self.shared.token_needed.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Makes every token given out so far worthless: the next request that uses one gets 401.
    pub fn revoke_tokens(&self) {
        self.shared.accounts.revoke();
    }

    /// Answers the coming requests with these statuses, one each, without doing what they ask.
    pub fn fail_next(&self, statuses: &[u16]) {
        lock(&self.shared.failures).extend(statuses);
    }

    /// From now on a rewrite is done only at the `calls`-th call, as with large objects.
    pub fn set_rewrite_calls(&self, calls: u64) {
        self.shared.rewrite_calls.store(calls, Ordering::Relaxed);
    }

    /// `METHOD target` of the requests so far, oldest first, at most the last 10,000.
    pub fn requests(&self) -> Vec<String> {
        lock(&self.shared.requests).iter().cloned().collect()
    }

    /// Forgets [`GcsStub::requests`].
    pub fn forget_requests(&self) {
        lock(&self.shared.requests).clear();
    }
}

impl Drop for GcsStub {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        let _wake = TcpStream::connect(("127.0.0.1", self.port));
        for stream in lock(&self.shared.open).values() {
            let _closed = stream.shutdown(Shutdown::Both);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers one request after the other on a connection.
fn serve(shared: &Shared, stream: &TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(64 * 1024, stream);
    let mut writer = stream;
    while let Some(head) = Head::read(&mut reader)? {
        if head.header("expect").is_some() {
            writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let close = head
            .header("connection")
            .is_some_and(|word| word.eq_ignore_ascii_case("close"));
        let request = Request::new(&head, head.read_body(&mut reader, false)?)?;
        if shared.ended.load(Ordering::Relaxed) {
            break;
        }
        remember(shared, &request);
        let reply = answer(shared, &request).unwrap_or_else(Refusal::reply);
        writer.write_all(&bytes(&reply))?;
        if close {
            break;
        }
    }
    Ok(stream.shutdown(Shutdown::Both)?)
}

fn remember(shared: &Shared, request: &Request) {
    let mut requests = lock(&shared.requests);
    if requests.len() == MOST_REMEMBERED {
        requests.pop_front();
    }
    requests.push_back(format!("{} {}", request.method, request.target));
}

fn bytes(reply: &HttpReply) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} Stub\r\n", reply.status);
    for (name, value) in &reply.headers {
        let _infallible = write!(head, "{name}: {value}\r\n");
    }
    if reply.status != 204 && reply.status != 304 {
        let _infallible = write!(head, "content-length: {}\r\n", reply.body.len());
    }
    head.push_str("\r\n");
    [head.as_bytes(), &reply.body].concat()
}

/// One request to one reply.
fn answer(shared: &Shared, request: &Request) -> Result<HttpReply, Refusal> {
    if let Some(status) = lock(&shared.failures).pop_front() {
        return Err(Refusal::new(status, "backendError", "asked to fail"));
    }
    let parts: Vec<&str> = request.path.iter().map(String::as_str).collect();
    if parts == ["token"] {
        return Ok(shared.accounts.token(request));
    }
    if shared.token_needed.load(Ordering::Relaxed) && !shared.accounts.knows(request) {
        return Err(Refusal::new(401, "authError", "Invalid Credentials"));
    }
    let mut store = lock(&shared.store);
    match (request.method.as_str(), parts.as_slice()) {
        ("GET", ["storage", "v1", "b", bucket]) => store.bucket_resource(bucket),
        ("GET", ["storage", "v1", "b", bucket, "o"]) => list::list(&store, bucket, request),
        ("GET", ["storage", "v1", "b", bucket, "o", name]) => store.get(bucket, name, request),
        ("DELETE", ["storage", "v1", "b", bucket, "o", name]) => {
            store.delete(bucket, name, request)
        }
        ("PATCH", ["storage", "v1", "b", bucket, "o", name]) => store.patch(bucket, name, request),
        ("POST", ["storage", "v1", "b", bucket, "o", name, "compose"]) => {
            store.compose(bucket, name, request)
        }
        (
            "POST",
            [
                "storage",
                "v1",
                "b",
                from,
                "o",
                name,
                "rewriteTo",
                "b",
                to,
                "o",
                new_name,
            ],
        ) => {
            let calls = shared.rewrite_calls.load(Ordering::Relaxed);
            store.rewrite((from, name), (to, new_name), request, calls)
        }
        (method, ["upload", "storage", "v1", "b", bucket, "o"]) => {
            upload::upload(&mut store, method, bucket, request, &shared.address)
        }
        _ => Err(Refusal::new(404, "notFound", "Not Found")),
    }
}
