//! Connections to one server: opened, lent, kept for a while, closed.
//!
//! Not requests. Invariant: at most `max_connections` of each lane are lent at any time, and a
//! connection is lent only on the runtime whose task drives it, so it never outlives its driver.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use breccia_core::address::Address;
use breccia_core::error::Effect;
use breccia_net::clock;
use breccia_net::stream::{self, Stream};
use breccia_net::tls::TlsClient;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use super::payload::PieceBody;
use super::request::Lane;
use crate::error::BlobError;

/// How long a connection is kept without a request: below what servers and balancers keep.
const IDLE_LIMIT: Duration = Duration::from_secs(20);
/// How often a connection looks whether it has been idle for too long.
const IDLE_CHECK: Duration = Duration::from_secs(5);
/// How long a kept connection may take to be ready for the next request.
const READY_LIMIT: Duration = Duration::from_secs(1);
/// How long a connect with its handshake may take at most.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// The most bytes hyper reads ahead and writes behind on a connection.
const BUFFER_BYTES: usize = 256 * 1024;
/// The most headers of an answer.
const MAX_HEADERS: usize = 256;

/// The connections to one server.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) store: String,
    pub(super) address: Address,
    pub(super) tls: Option<TlsClient>,
    pub(super) timeout: Duration,
    pub(super) maximum: usize,
    pub(super) permits: Permits,
    pub(super) idle: Mutex<Vec<Connection>>,
}

/// How many more connections may be lent, lane by lane.
#[derive(Debug)]
pub(super) struct Permits {
    copy_sources: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    follow_ups: Arc<Semaphore>,
}

impl Permits {
    pub(super) fn new(maximum: usize) -> Self {
        let lane = || Arc::new(Semaphore::new(maximum));
        Self {
            copy_sources: lane(),
            requests: lane(),
            follow_ups: lane(),
        }
    }

    fn of(&self, lane: Lane) -> Arc<Semaphore> {
        Arc::clone(match lane {
            Lane::CopySources => &self.copy_sources,
            Lane::Requests => &self.requests,
            Lane::FollowUps => &self.follow_ups,
        })
    }
}

/// Whether a connection may still be lent; shared with the task that drives it.
#[derive(Debug, Clone, Copy)]
enum Use {
    Lent,
    Idle(Instant),
    Retired,
}

/// An open connection. Dropping it closes it, whatever goes on there.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<PieceBody>,
    runtime: runtime::Id,
    driver: AbortHandle,
    used: Arc<Mutex<Use>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The exclusive use of a connection. Dropped without [`Lease::give_back`], it is closed.
#[derive(Debug)]
pub(super) struct Lease {
    connection: Connection,
    pool: Arc<Pool>,
    permit: OwnedSemaphorePermit,
    /// Whether it was opened for this very lease.
    pub(super) fresh: bool,
}

impl Lease {
    pub(super) fn sender(&mut self) -> &mut SendRequest<PieceBody> {
        &mut self.connection.sender
    }

    pub(super) fn store(&self) -> &str {
        &self.pool.store
    }

    /// Keeps the connection for the next request: only after a whole exchange.
    pub(super) fn give_back(self) {
        let Self {
            connection,
            pool,
            permit,
            ..
        } = self;
        if !connection.sender.is_closed() {
            *lock(&connection.used) = Use::Idle(clock::now());
            lock(&pool.idle).push(connection);
        }
        drop(permit);
    }
}

impl Pool {
    /// Lends a connection: a kept one, or a new one.
    pub(super) async fn lease(self: &Arc<Self>, lane: Lane) -> Result<Lease, BlobError> {
        let permits = self.permits.of(lane);
        let waiting = tokio::time::timeout(self.timeout, permits.acquire_owned());
        let Ok(Ok(permit)) = waiting.await else {
            return Err(BlobError::Overloaded {
                store: self.store.clone(),
                limit: format!("max-connections ({})", self.maximum),
            });
        };
        let (connection, fresh) = match self.kept().await {
            Some(connection) => (connection, false),
            None => (self.open().await?, true),
        };
        Ok(Lease {
            connection,
            pool: Arc::clone(self),
            permit,
            fresh,
        })
    }

    async fn kept(&self) -> Option<Connection> {
        while let Some(mut connection) = self.take_idle() {
            let ready = tokio::time::timeout(READY_LIMIT, connection.sender.ready()).await;
            if matches!(ready, Ok(Ok(()))) {
                return Some(connection);
            }
        }
        None
    }

    /// The connection of this runtime that was used last; dead ones are forgotten on the way.
    fn take_idle(&self) -> Option<Connection> {
        let here = runtime::Handle::current().id();
        let mut idle = lock(&self.idle);
        idle.retain(|connection| !connection.sender.is_closed());
        let place = idle
            .iter()
            .rposition(|connection| connection.runtime == here && connection.take());
        if let Some(place) = place {
            return Some(idle.remove(place));
        }
        // A new one will be opened: those of other runtimes make room for it.
        let lent = self
            .maximum
            .saturating_sub(self.permits.requests.available_permits());
        let room = self.maximum.saturating_sub(lent);
        let surplus = idle.len().saturating_sub(room);
        idle.drain(..surplus);
        None
    }

    async fn open(&self) -> Result<Connection, BlobError> {
        let limit = self.timeout.min(CONNECT_LIMIT);
        let stream = stream::connect(&self.address, self.tls.as_ref(), limit)
            .await
            .map_err(|error| self.down(&error.to_string()))?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(BUFFER_BYTES)
            .max_headers(MAX_HEADERS)
            .handshake::<_, PieceBody>(TokioIo::new(stream))
            .await
            .map_err(|error| self.down(&error.to_string()))?;
        let used = Arc::new(Mutex::new(Use::Lent));
        let driver = tokio::spawn(drive(connection, Arc::clone(&used))).abort_handle();
        Ok(Connection {
            sender,
            runtime: runtime::Handle::current().id(),
            driver,
            used,
        })
    }

    fn down(&self, reason: &str) -> BlobError {
        BlobError::Down {
            store: self.store.clone(),
            reason: reason.to_owned(),
            effect: Effect::NotApplied,
        }
    }
}

impl Connection {
    /// Takes it out of idleness, unless its driver has given it up.
    fn take(&self) -> bool {
        let mut used = lock(&self.used);
        if matches!(*used, Use::Retired) {
            return false;
        }
        *used = Use::Lent;
        true
    }
}

/// Drives a connection until it ends, or has been idle for too long.
async fn drive(connection: http1::Connection<TokioIo<Stream>, PieceBody>, used: Arc<Mutex<Use>>) {
    let mut connection = std::pin::pin!(connection);
    loop {
        tokio::select! {
            // Its errors reach the request that is under way; without one nobody asks.
            _ = &mut connection => return,
            () = tokio::time::sleep(IDLE_CHECK) => {}
        }
        let mut used = lock(&used);
        if let Use::Idle(since) = *used
            && clock::now().saturating_duration_since(since) >= IDLE_LIMIT
        {
            *used = Use::Retired;
            return;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
