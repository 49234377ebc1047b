//! Who may cancel what: keys told to clients, and what their sessions do now.
//!
//! Not the server's own keys: no client ever sees those. Invariant: a cancel reaches a server only
//! while the session it names holds a connection there, and that connection is closed afterwards
//! instead of lent again, so no other session can be hit. One that comes before the statement is sent
//! is kept in mind until it would be: it was heard, as a server hears one that it has read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::Notify;

use super::client::Client;
use crate::error::SqlError;
use crate::postgres::pool::Pool;

/// What a session does now, as one who would cancel it must know.
#[derive(Debug, Default)]
pub(super) struct Doing(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    target: Option<Target>,
    /// A cancel was sent to the target.
    hit: bool,
    /// A statement has come, and nothing of it was sent.
    asked: bool,
    /// A cancel came since the last statement did.
    cancelled: bool,
    /// Told of a cancel while the session waits for a connection.
    waiting: Option<Arc<Notify>>,
}

#[derive(Debug, Clone)]
struct Target {
    pool: Arc<Pool>,
    process: u32,
    secret: Arc<[u8]>,
}

impl Doing {
    /// The session holds a connection now.
    pub(super) fn begin(&self, pool: Arc<Pool>, key: &(u32, Arc<[u8]>)) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.hit = false;
        state.target = Some(Target {
            pool,
            process: key.0,
            secret: Arc::clone(&key.1),
        });
    }

    /// It holds none any more; whether a cancel was sent meanwhile.
    pub(super) fn end(&self) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.target = None;
        state.hit
    }

    /// A statement has come. Whatever it waits for now, until it is sent a cancel is of it.
    pub(super) fn asked(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (state.asked, state.cancelled) = (true, false);
    }

    /// The same statement is to be sent once more. A cancel that it was sent before is still of it.
    pub(super) fn asked_again(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.asked = true;
    }

    /// It is sent now, unless it was cancelled meanwhile. From now on a cancel goes where it is.
    pub(super) fn sent(&self) -> Result<(), SqlError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.asked = false;
        if state.cancelled {
            return Err(SqlError::Cancelled);
        }
        Ok(())
    }

    /// It is not sent at all.
    pub(super) fn dropped(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.asked = false;
    }

    /// Waits for `work`, which comes before the session's statement is sent. Meanwhile the client may
    /// cancel its statement, or leave.
    pub(super) async fn before<T>(
        &self,
        client: &mut Client,
        work: impl Future<Output = Result<T, SqlError>>,
    ) -> Result<T, SqlError> {
        let cancelled = Arc::new(Notify::new());
        // One may have come between two waits, or as the last one ended by itself.
        self.wait(&cancelled)?;
        let done = tokio::select! {
            biased;
            done = work => done,
            () = cancelled.notified() => Err(SqlError::Cancelled),
            () = client.left() => Err(SqlError::Left),
        };
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting = None;
        done
    }

    /// Somebody waits to be told of a cancel. `Err`: one has come for the statement already.
    fn wait(&self, told: &Arc<Notify>) -> Result<(), SqlError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.asked && state.cancelled {
            return Err(SqlError::Cancelled);
        }
        state.waiting = Some(Arc::clone(told));
        Ok(())
    }

    /// A cancel has come; where it must go.
    fn hit(&self) -> Option<Target> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.cancelled = true;
        if let Some(waiting) = &state.waiting {
            waiting.notify_one();
        }
        if state.asked {
            // No server has anything of the statement.
            return None;
        }
        state.hit |= state.target.is_some();
        state.target.clone()
    }

    /// Cancels what the session does now, if anything.
    pub(super) async fn cancel(&self) {
        let Some(target) = self.hit() else {
            return;
        };
        let endpoint = target.pool.endpoint();
        let cancelled = endpoint.cancel(target.process, &target.secret);
        if let Err(error) = cancelled.await {
            tracing::debug!(%error, "a cancel did not reach its server");
        }
    }
}

/// The sessions that can be cancelled, by the keys their clients were told.
#[derive(Debug, Default)]
pub struct Cancels {
    sessions: Mutex<HashMap<(u32, u32), Weak<Doing>>>,
}

/// A session's entry; gone when this is dropped.
#[derive(Debug)]
pub(super) struct Registered {
    cancels: Arc<Cancels>,
    pub(super) key: (u32, u32),
    pub(super) doing: Arc<Doing>,
}

impl Cancels {
    /// A key for a new session; `None` if the machine gives no random bytes.
    pub(super) fn register(self: &Arc<Self>) -> Option<Registered> {
        let mut bytes = [0; 8];
        SystemRandom::new().fill(&mut bytes).ok()?;
        let [a, b, c, d, secret @ ..] = bytes;
        // Clients take the process for a signed number.
        let key = (
            u32::from_be_bytes([a & 0x7f, b, c, d]),
            u32::from_be_bytes(secret),
        );
        let doing = Arc::new(Doing::default());
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.insert(key, Arc::downgrade(&doing));
        Some(Registered {
            cancels: Arc::clone(self),
            key,
            doing,
        })
    }

    /// Cancels what the session with this key does. A wrong key does nothing and says nothing.
    pub(super) async fn cancel(&self, process: u32, secret: &[u8]) {
        let Ok(secret) = secret.try_into().map(u32::from_be_bytes) else {
            return;
        };
        let doing = {
            let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            sessions.get(&(process, secret)).and_then(Weak::upgrade)
        };
        if let Some(doing) = doing {
            doing.cancel().await;
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let sessions = self.cancels.sessions.lock();
        let mut sessions = sessions.unwrap_or_else(PoisonError::into_inner);
        sessions.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_cancelled(done: &Result<(), SqlError>) -> bool {
        matches!(done, Err(SqlError::Cancelled))
    }

    #[test]
    fn a_cancel_that_comes_between_two_waits_is_of_the_statement() {
        let (doing, told) = (Doing::default(), Arc::default());
        doing.asked();
        assert!(!is_cancelled(&doing.wait(&told)));
        assert!(doing.hit().is_none());
        assert!(is_cancelled(&doing.wait(&told)), "a wait begins behind it");
        assert!(is_cancelled(&doing.sent()), "it is not sent");
        doing.asked();
        assert!(!is_cancelled(&doing.wait(&told)), "the next is another");
        assert!(!is_cancelled(&doing.sent()));
    }

    #[test]
    fn a_cancel_while_nothing_is_asked_is_of_nothing() {
        let (doing, told) = (Doing::default(), Arc::default());
        doing.hit();
        assert!(!is_cancelled(&doing.wait(&told)), "a login waits");
        doing.asked();
        assert!(!is_cancelled(&doing.sent()));
        doing.asked();
        doing.dropped();
        doing.hit();
        doing.asked();
        assert!(!is_cancelled(&doing.sent()), "it came before");
    }

    #[test]
    fn what_was_cancelled_where_it_ran_is_not_sent_once_more() {
        let doing = Doing::default();
        doing.asked();
        assert!(!is_cancelled(&doing.sent()));
        doing.hit();
        doing.asked_again();
        assert!(is_cancelled(&doing.sent()));
    }
}
