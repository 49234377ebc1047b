//! What becomes of a read whose replica does not answer it, and of a statement whose connection is lost.
//!
//! Not the attempt ([`super::serve`]). Invariant: what was sent is sent once more at most, only if it is a
//! read, and only if its server is gone: a read may end the connection that runs it, and so may an
//! administrator who wants it ended.

use std::io;

use super::attached::Attached;
use super::relay::Outcome;
use super::route::Place;
use super::serve::Trouble;
use super::session::{End, Session};
use crate::error::SqlError;
use crate::mysql::class::Verdict;
use crate::placing::Seeker as _;

/// How often a statement may be tried that was sent to nobody.
pub(super) const TRIES: usize = 4;

/// How often one statement was tried.
#[derive(Debug, Default)]
pub(super) struct Tries {
    /// Attempts, sent or not.
    pub(super) begun: usize,
    /// A server that had it is gone, so it runs once more.
    again: bool,
}

impl Session {
    /// Where a read goes that came to nothing on a replica; `None`: nowhere.
    pub(super) async fn elsewhere(
        &mut self,
        attempted: &Result<Outcome, Trouble>,
        place: &Place,
        tries: &mut Tries,
        verdict: &Verdict,
    ) -> Option<Place> {
        if tries.begun >= TRIES {
            return None;
        }
        match attempted {
            // A replica's word for it that something is wrong is not the last one.
            Ok(outcome) if self.is_refused_there(outcome) => {
                let killed = is_killed(outcome) && self.goes_on(place).await;
                (!killed).then(|| self.primary("failed-on-replica"))
            }
            Err(Trouble::Before(SqlError::Forgotten)) => None,
            Err(Trouble::Before(_)) => {
                let view = self.look();
                Some(if tries.begun == 1 || !self.has_primary(&view) {
                    self.place_anew(verdict).await
                } else {
                    self.primary("replica-lost")
                })
            }
            Err(Trouble::After {
                error,
                begun: false,
            }) if !tries.again => {
                if has_ended(error) && self.goes_on(place).await {
                    return None;
                }
                tries.again = true;
                let view = self.look();
                Some(if self.has_primary(&view) {
                    self.primary("replica-lost")
                } else {
                    self.place_anew(verdict).await
                })
            }
            _ => None,
        }
    }

    /// Whether a replica has answered with an error alone, which the primary need not.
    fn is_refused_there(&self, outcome: &Outcome) -> bool {
        // ER_QUERY_INTERRUPTED, and two servers' words for a statement that took too long.
        const LAST_WORDS: [u16; 3] = [1317, 1969, 3024];
        let code = outcome.error.as_ref().map(|(code, ..)| *code);
        outcome.parts == 0
            && code.is_some_and(|code| !LAST_WORDS.contains(&code))
            && self.away.as_deref().is_none_or(Attached::is_free)
    }

    /// Whether the server of a place is there, though it has ended a connection.
    async fn goes_on(&mut self, place: &Place) -> bool {
        match self.pool(place.server, place.replica) {
            Ok(pool) => pool.is_listening().await,
            Err(_) => false,
        }
    }

    /// The connection is lost with a statement on it. `mark`: where its answer began; none: the client
    /// has some of it.
    pub(super) fn lost(
        &mut self,
        error: &SqlError,
        mark: Option<usize>,
        place: &Place,
    ) -> Result<Option<Outcome>, End> {
        let open = self.transaction_since.take().is_some()
            || self.begun.is_some()
            || self.pinned.is_some()
            || !self.autocommits();
        let Some(mark) = mark else {
            // Half an answer cannot be mended.
            self.listener.counters.failed.increment();
            tracing::warn!(listener = self.listener.name, %error, "an answer was cut off");
            return Err(End::Gone);
        };
        self.client.out.bytes.truncate(mark);
        let known = if place.replica && has_ended(error) {
            "it was a read, which may have ended the connection, and is not run again"
        } else if place.replica {
            "it ran on a replica, and has changed nothing"
        } else {
            "whether the statement was carried out is unknown"
        };
        let why = format!("breccia: {error}; {known}");
        // ER_NET_READ_ERROR: of the class that says the connection is no more.
        if open {
            return Err(End::Told(1158, b"08S01", why));
        }
        self.tell_lost(&why, place.reason);
        self.answer_error(1158, *b"08S01", &why);
        Ok(None)
    }
}

/// Whether a server says that it ends the connection: it stops, or somebody wants that.
fn is_killed(outcome: &Outcome) -> bool {
    // ER_CONNECTION_KILLED.
    outcome
        .error
        .as_ref()
        .is_some_and(|(code, ..)| *code == 1927)
}

/// Whether a connection came to its end, and not only to silence. With bytes of the statement unread,
/// that is a reset.
pub(super) fn has_ended(error: &SqlError) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error, SqlError::Lost { source, .. }
        if matches!(source.kind(), UnexpectedEof | ConnectionReset | BrokenPipe))
}
