//! Which client runs what, by the numbers that clients know themselves by.
//!
//! A client is told a number of Breccia's own when it connects, since its statements run on many
//! connections. Invariant: KILL of such a number ends that client's statement and no one else's, and
//! only who may log in as the same user can.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::MysqlListener;
use super::relay::Shape;
use super::serve::{Ask, command_bytes};
use super::session::{End, Session};
use crate::mysql::class::Verdict;
use crate::mysql::codec::command;
use crate::mysql::upstream::{Login, Upstream};

/// Numbers of clients begin here, far above those that servers give.
const FIRST: u32 = 0x4000_0000;

/// What a client runs: where, and on which connection there.
#[derive(Debug, Clone)]
struct Running {
    server: usize,
    connection: u32,
    login: Login,
}

/// One client.
#[derive(Debug, Default)]
struct Entry {
    user: String,
    running: Mutex<Option<Running>>,
    /// KILL CONNECTION: the session ends as soon as it looks.
    ended: std::sync::atomic::AtomicBool,
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
    pub(super) fn named(&mut self, user: &str) {
        let mut known = self
            .clients
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.entry = Arc::new(Entry {
            user: user.to_owned(),
            ..Entry::default()
        });
        known.insert(self.number, Arc::clone(&self.entry));
    }

    /// A statement begins on a connection.
    pub(super) fn runs(&self, server: usize, upstream: Option<&mut Upstream>) {
        let running = upstream.map(|upstream| Running {
            server,
            connection: upstream.connection_id,
            login: upstream.login.clone(),
        });
        *self
            .entry
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = running;
    }

    /// It has ended.
    pub(super) fn rests(&self) {
        *self
            .entry
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether somebody has ended the session.
    pub(super) fn is_ended(&self) -> bool {
        self.entry.ended.load(Ordering::Relaxed)
    }

    /// The client is gone: what it runs is of use to nobody.
    pub(super) fn stop(&self, listener: &Arc<MysqlListener>) {
        let running = self
            .entry
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(running) = running {
            tokio::task::spawn_local(stop(Arc::clone(listener), running));
        }
    }
}

/// Has a server end what one of its connections runs.
async fn stop(listener: Arc<MysqlListener>, running: Running) {
    let Some(server) = listener.cluster.server(running.server) else {
        return;
    };
    let endpoint = &server.options.endpoint;
    if let Err(error) = endpoint
        .kill_query(&running.login, running.connection)
        .await
    {
        tracing::debug!(%error, "a statement could not be ended");
    }
}

impl Session {
    /// KILL [QUERY | CONNECTION] of a client's number, or of a connection's of the primary.
    pub(super) async fn kill(
        &mut self,
        query: bool,
        id: u64,
        sql: Option<&[u8]>,
    ) -> Result<(), End> {
        let number = u32::try_from(id).ok().filter(|number| *number >= FIRST);
        let Some(number) = number else {
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
        let Some(entry) = found.filter(|entry| entry.user == self.identity.user) else {
            self.answer_error(1094, *b"HY000", &format!("Unknown thread id: {id}"));
            return Ok(());
        };
        if !query {
            entry.ended.store(true, Ordering::Relaxed);
        }
        let running = entry
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(running) = running {
            stop(Arc::clone(&self.listener), running).await;
        }
        if number == self.registered.number {
            self.answer_error(1317, *b"70100", "Query execution was interrupted");
        } else {
            self.answer_ok();
        }
        Ok(())
    }
}
