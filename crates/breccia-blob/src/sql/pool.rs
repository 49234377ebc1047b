//! A bounded pool of connections, and the sessions it gives out.
//!
//! Not a queue without end: who waits longer than the timeout is told so. Invariant: only a
//! connection whose last statement was answered, outside of a transaction, goes back to the pool.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use breccia_net::clock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::driver::{Answer, Connection, Driver, Value};
use super::fault::Fault;
use super::statements::{Dialect, Query};

/// What a session is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To read.
    Read,
    /// To write: SQLite lets one writer in at a time.
    Write,
}

/// How long a connection may have lain idle to be taken for alive.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// The connections to one database.
#[derive(Debug)]
pub(crate) struct Pool {
    driver: Box<dyn Driver>,
    idle: Arc<Idle>,
    permits: Arc<Semaphore>,
    /// The one permit to write, where the database knows but one writer.
    writer: Option<Arc<Semaphore>>,
    timeout: Duration,
}

#[derive(Default)]
struct Idle(Mutex<Vec<(Instant, Box<dyn Connection>)>>);

impl std::fmt::Debug for Idle {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Idle")
    }
}

impl Idle {
    fn take(&self) -> Option<(Instant, Box<dyn Connection>)> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let (since, connection) = idle.pop()?;
            if !connection.is_closed() {
                return Some((since, connection));
            }
        }
    }

    fn give(&self, connection: Box<dyn Connection>) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push((clock::now(), connection));
    }

    fn clear(&self) {
        let old = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        drop(old);
    }
}

impl Pool {
    /// A pool of at most `max_connections`.
    pub(crate) fn new(driver: Box<dyn Driver>, max_connections: usize, timeout: Duration) -> Self {
        let one_writer = driver.dialect() == Dialect::Sqlite;
        Self {
            driver,
            idle: Arc::default(),
            permits: Arc::new(Semaphore::new(max_connections)),
            writer: one_writer.then(|| Arc::new(Semaphore::new(1))),
            timeout,
        }
    }

    /// How its SQL is written.
    pub(crate) fn dialect(&self) -> Dialect {
        self.driver.dialect()
    }

    /// A connection, for one statement or transaction.
    pub(crate) async fn acquire(&self, purpose: Purpose) -> Result<Session, Fault> {
        let waiting = async {
            let writer = match (&self.writer, purpose) {
                (Some(writer), Purpose::Write) => Some(Arc::clone(writer).acquire_owned().await),
                _ => None,
            };
            let permit = Arc::clone(&self.permits).acquire_owned().await;
            (writer.and_then(Result::ok), permit.ok())
        };
        let permits = tokio::time::timeout(self.timeout, waiting)
            .await
            .map_err(|_| Fault::Overloaded("max-connections".to_owned()))?;
        let (since, connection) = match self.idle.take() {
            Some((since, connection)) => (Some(since), connection),
            None => (None, self.connect().await?),
        };
        Ok(Session {
            connection: Some(connection),
            idle_since: since,
            state: State::Clean,
            idle: Arc::clone(&self.idle),
            timeout: self.timeout,
            _permits: permits,
        })
    }

    async fn connect(&self) -> Result<Box<dyn Connection>, Fault> {
        match tokio::time::timeout(self.timeout, self.driver.connect()).await {
            Ok(connected) => connected,
            Err(_) => Err(Fault::Lost("no connection within the timeout".to_owned())),
        }
    }

    /// Forgets the connections that wait: one of them was found broken.
    pub(crate) fn forget_idle(&self) {
        self.idle.clear();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Answered, no transaction.
    Clean,
    /// Answered, within a transaction.
    Open,
    /// A statement is under way, or went wrong.
    Dirty,
}

/// Exclusive use of a connection.
pub(crate) struct Session {
    connection: Option<Box<dyn Connection>>,
    /// When the connection was given back before; `None`: it is fresh.
    idle_since: Option<Instant>,
    state: State,
    idle: Arc<Idle>,
    timeout: Duration,
    _permits: (Option<OwnedSemaphorePermit>, Option<OwnedSemaphorePermit>),
}

/// Runs one call of the connection under the timeout, the session being dirty meanwhile.
macro_rules! bounded {
    ($session:expr, $after:expr, $connection:ident => $call:expr) => {{
        let before = std::mem::replace(&mut $session.state, State::Dirty);
        let Some($connection) = $session.connection.as_mut() else {
            return Err(Fault::Lost("the connection is gone".to_owned()));
        };
        match tokio::time::timeout($session.timeout, $call).await {
            Err(_) => Err(Fault::Late),
            Ok(Ok(answer)) => {
                $session.state = $after.unwrap_or(before);
                Ok(answer)
            }
            Ok(Err(fault)) => {
                if fault.spares_connection() {
                    $session.state = before;
                }
                Err(fault)
            }
        }
    }};
}

impl Session {
    /// Whether the connection had been used before, and so may have been dead when it was given.
    pub(crate) fn reused(&self) -> bool {
        self.idle_since.is_some()
    }

    /// Whether it has lain idle long enough to be asked for a sign of life before a write that
    /// cannot be tried twice.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.idle_since
            .is_some_and(|since| clock::now().duration_since(since) > TRUSTED_IDLE)
    }

    /// Runs a statement.
    pub(crate) async fn run(&mut self, query: Query, values: Vec<Value>) -> Result<Answer, Fault> {
        bounded!(self, None, connection => connection.run(query, values))
    }

    /// Runs text that defines tables.
    pub(crate) async fn define(&mut self, sql: String) -> Result<(), Fault> {
        bounded!(self, None, connection => connection.define(sql))
    }

    /// Begins a transaction.
    pub(crate) async fn begin(&mut self) -> Result<(), Fault> {
        bounded!(self, Some(State::Open), connection => connection.begin())
    }

    /// Commits it.
    pub(crate) async fn commit(&mut self) -> Result<(), Fault> {
        bounded!(self, Some(State::Clean), connection => connection.commit())
    }

    /// Undoes it, if the connection is still good; else it is closed, which undoes it too.
    pub(crate) async fn rollback(&mut self) {
        if self.state == State::Open {
            let undone: Result<(), Fault> =
                async { bounded!(self, Some(State::Clean), connection => connection.rollback()) }
                    .await;
            if undone.is_err() {
                self.state = State::Dirty;
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.state == State::Clean
            && let Some(connection) = self.connection.take()
            && !connection.is_closed()
        {
            self.idle.give(connection);
        }
    }
}
