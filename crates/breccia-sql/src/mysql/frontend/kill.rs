//! Which client runs what, by the numbers that clients know themselves by.
//!
//! A client is told a number of Breccia's own when it connects, since its statements run on many
//! connections. Invariant: KILL of such a number ends that client's statement and no one else's: a
//! connection that a KILL was sent to is closed instead of lent again. Only who is logged in as the same
//! user can.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::attached::Attached;
use super::relay::Shape;
use super::serve::{Ask, command_bytes};
use super::session::{End, Session};
use crate::mysql::class::Verdict;
use crate::mysql::codec::command;
use crate::mysql::pool::Pool;

/// Numbers of clients begin here, far above those that servers give.
const FIRST: u32 = 0x4000_0000;

/// What a client runs: where, and on which connection there.
#[derive(Debug, Clone)]
struct Running {
    pool: Arc<Pool>,
    connection: u32,
}

/// One client.
#[derive(Debug, Default)]
struct Entry {
    state: Mutex<State>,
    /// KILL CONNECTION: the session ends as soon as it looks.
    ended: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    user: String,
    running: Option<Running>,
    /// A KILL was sent to what runs.
    hit: bool,
    /// A KILL came while the session waits for a connection.
    refused: bool,
    /// Wakes the session where it waits and nothing runs.
    waker: Option<Waker>,
}

impl Entry {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks what runs as killed; it is to be told to its server.
    fn hit(&self) -> Option<Running> {
        let mut state = self.lock();
        state.hit |= state.running.is_some();
        state.refused = state.running.is_none();
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        state.running.clone()
    }
}

/// The clients of one listener.
#[derive(Debug, Default)]
pub struct Clients {
    last: AtomicU32,
    known: Mutex<HashMap<u32, Arc<Entry>>>,
}

/// A client's own entry; gone with it.
#[derive(Debug)]
pub(super) struct Registered {
    clients: Arc<Clients>,
    pub(super) number: u32,
    entry: Arc<Entry>,
}

impl Clients {
    /// A client has come.
    pub(super) fn register(self: &Arc<Self>) -> Registered {
        let entry = Arc::new(Entry::default());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let number = loop {
            let number = FIRST | (self.last.fetch_add(1, Ordering::Relaxed) & (FIRST - 1));
            if !known.contains_key(&number) {
                break number;
            }
        };
        known.insert(number, Arc::clone(&entry));
        Registered {
            clients: Arc::clone(self),
            number,
            entry,
        }
    }

    fn find(&self, number: u32) -> Option<Arc<Entry>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&number).map(Arc::clone)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut known = self
            .clients
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        known.remove(&self.number);
    }
}

impl Registered {
    /// The client has logged in as `user`.
    pub(super) fn named(&self, user: &str) {
        user.clone_into(&mut self.entry.lock().user);
    }

    /// A statement begins on a connection.
    pub(super) fn runs(&self, attached: &mut Attached) {
        let upstream = attached.lease.upstream();
        let connection = upstream.map(|upstream| upstream.connection_id);
        let running = connection.map(|connection| Running {
            pool: Arc::clone(attached.pool()),
            connection,
        });
        let mut state = self.entry.lock();
        (state.running, state.hit) = (running, false);
    }

    /// It has ended; whether a KILL was sent to its connection, which may still arrive there.
    #[must_use]
    pub(super) fn rests(&self) -> bool {
        let mut state = self.entry.lock();
        state.running = None;
        std::mem::take(&mut state.hit)
    }

    /// Whether somebody has ended the session.
    pub(super) fn is_ended(&self) -> bool {
        self.entry.ended.load(Ordering::Acquire)
    }

    /// Before a wait in which nothing runs: a KILL CONNECTION from now on wakes the task.
    pub(super) fn note(&self, context: &Context<'_>) {
        let mut state = self.entry.lock();
        match &mut state.waker {
            Some(known) => known.clone_from(context.waker()),
            None => state.waker = Some(context.waker().clone()),
        }
    }

    /// Waits for `work`, which comes before a statement is sent, as long as nobody ends the session or
    /// its statement. `None`: somebody has.
    pub(super) async fn unless_killed<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.entry.lock().refused = false;
        let mut work = pin!(work);
        poll_fn(|context| {
            self.note(context);
            if self.is_ended() || self.entry.lock().refused {
                return Poll::Ready(None);
            }
            work.as_mut().poll(context).map(Some)
        })
        .await
    }

    /// The client is gone: what it runs is of use to nobody.
    pub(super) fn stop(&self) {
        let running = self.entry.lock().running.take();
        if let Some(running) = running {
            tokio::task::spawn_local(stop(running));
        }
    }
}

/// Has a server end what one of its connections runs.
async fn stop(running: Running) {
    let (endpoint, login) = (running.pool.endpoint(), running.pool.login());
    if let Err(error) = endpoint.kill_query(login, running.connection).await {
        tracing::debug!(%error, "a statement could not be ended");
    }
}

impl Session {
    /// A number that is one of Breccia's own, and no server's.
    pub(super) fn client_number(id: u64) -> Option<u32> {
        u32::try_from(id).ok().filter(|number| *number >= FIRST)
    }

    /// KILL [QUERY | CONNECTION] of a client's number, or of a connection's of the primary.
    pub(super) async fn kill(
        &mut self,
        query: bool,
        id: u64,
        sql: Option<&[u8]>,
    ) -> Result<(), End> {
        let Some(number) = Self::client_number(id) else {
            let packets = match sql {
                Some(sql) => command_bytes(command::QUERY, sql),
                None => command_bytes(command::QUERY, format!("KILL {id}").as_bytes()),
            };
            let verdict = Verdict::of_primary("kill");
            self.serve(Ask::Packets(&packets, Shape::Results), &verdict)
                .await?;
            return Ok(());
        };
        let found = self.listener.clients.find(number);
        let Some(entry) = found.filter(|it| it.lock().user == self.identity.user) else {
            self.answer_error(1094, *b"HY000", &format!("Unknown thread id: {id}"));
            return Ok(());
        };
        if !query {
            entry.ended.store(true, Ordering::Release);
        }
        if let Some(running) = entry.hit() {
            stop(running).await;
        }
        if number == self.registered.number {
            let (code, why) = if query {
                (1317, "Query execution was interrupted")
            } else {
                (1927, "Connection was killed")
            };
            self.answer_error(code, *b"70100", why);
        } else {
            self.forget_latest();
            self.answer_ok();
        }
        Ok(())
    }
}
