//! What the log is told of statements that were slow, and of statements that Breccia refused.
//!
//! Not what the client is told. Invariant: no literal, parameter or comment of a client reaches the
//! log, and however many statements are slow, the lines in a second are bounded.

use std::time::Duration;

use breccia_net::clock;
use breccia_net::drain::Phase;

use super::session::{End, Session};
use crate::mysql::class::masked;
use crate::mysql::codec::{HEADER_BYTES, command};

/// The most bytes of a statement that a line holds.
const SHOWN_BYTES: usize = 1024;
/// The most bytes kept of a command that is passed on piece by piece; literals make it longer than what
/// is shown.
pub(super) const KEPT_BYTES: usize = 4 * SHOWN_BYTES;

impl Session {
    /// A command was answered: `bytes`, or its beginning.
    pub(super) fn tell(&mut self, bytes: &[u8]) {
        let took = clock::now().saturating_duration_since(self.asked);
        let refused = self.refused.take();
        if let Some((state, why, reason)) = &refused {
            self.tell_refused((state, why, reason), bytes);
        } else if took >= self.listener.limits.slow_statement {
            self.tell_slow(took, bytes);
        }
    }

    #[cold]
    fn tell_slow(&mut self, took: Duration, bytes: &[u8]) {
        let Some(left_out) = self.listener.counters.slow.pass(clock::now()) else {
            return;
        };
        let statement = self.statement(bytes);
        let last = self.last.filter(|_| self.is_placed);
        let (server, reason) = last.unwrap_or((usize::MAX, "here"));
        let server = self.listener.cluster.server(server);
        tracing::warn!(
            listener = self.listener.name,
            user = self.identity.user,
            database = self.settings.schema().unwrap_or("-"),
            server = server.map_or("-", |server| server.name()),
            ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            reason,
            statement,
            left_out,
            "a slow statement"
        );
    }

    /// A statement is refused here, and not by a server.
    #[cold]
    fn tell_refused(&mut self, (state, why, reason): (&str, &str, &str), bytes: &[u8]) {
        let Some(left_out) = self.listener.counters.refused.pass(clock::now()) else {
            return;
        };
        let statement = self.statement(bytes);
        tracing::warn!(
            listener = self.listener.name,
            user = self.identity.user,
            database = self.settings.schema().unwrap_or("-"),
            state,
            why,
            reason,
            statement,
            left_out,
            "a statement is refused"
        );
    }

    /// The connection of a statement is lost, and its session goes on.
    #[cold]
    pub(super) fn tell_lost(&self, why: &str, reason: &str) {
        let Some(left_out) = self.listener.counters.refused.pass(clock::now()) else {
            return;
        };
        tracing::warn!(
            listener = self.listener.name,
            user = self.identity.user,
            database = self.settings.schema().unwrap_or("-"),
            why,
            reason,
            left_out,
            "a statement is lost"
        );
    }

    /// The server has closed a connection on which something of the session was open, while that rested.
    pub(super) fn tell_dropped(&self) {
        // CR_SERVER_LOST is what its client sees.
        let why = "the server has closed the session's connection while it rested (its wait_timeout, or a \
                   KILL); what was open there is lost";
        let database = self.settings.schema().unwrap_or("-");
        let (listener, user) = (&self.listener.name, &self.identity.user);
        self.listener
            .counters
            .ends
            .tell_why(listener, user, database, 2013, why);
    }

    /// The session ends; if that is not its client's wish, it is told.
    pub(super) fn tell_end(&self, end: &End) {
        let (listener, user) = (&self.listener.name, &self.identity.user);
        let database = self.settings.schema().unwrap_or("-");
        let ends = &self.listener.counters.ends;
        if let Some(limit) = self.over {
            ends.count(limit);
            ends.tell(limit, listener, user, database);
            return;
        }
        // Other classes are of what somebody asked for: KILL, and logins.
        if let End::Told(code, b"08S01", why) = end
            && self.listener.drain.phase() == Phase::Running
        {
            ends.tell_why(listener, user, database, *code, why);
        }
    }

    /// What may be shown of a command.
    fn statement(&mut self, bytes: &[u8]) -> String {
        let payload = bytes.get(HEADER_BYTES..).unwrap_or_default();
        let Some((kind, body)) = payload.split_first() else {
            return "(not read)".to_owned();
        };
        let (sql, mode) = match *kind {
            command::QUERY | command::STMT_PREPARE => {
                (body.get(..KEPT_BYTES).unwrap_or(body).to_vec(), self.mode())
            }
            command::STMT_EXECUTE | command::STMT_FETCH => {
                let number = body.first_chunk().map(|it| u32::from_le_bytes(*it));
                match number.and_then(|it| self.statements.get_mut(it)) {
                    Some(known) => (known.key.sql.to_vec(), known.mode),
                    None => return "(not read)".to_owned(),
                }
            }
            _ => return "(no text)".to_owned(),
        };
        if !mode.legible && !sql.is_ascii() {
            return "(not read: its character set is not one that is read here)".to_owned();
        }
        masked(&sql, mode, SHOWN_BYTES)
    }
}
