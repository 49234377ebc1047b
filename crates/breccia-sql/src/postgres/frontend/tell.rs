//! What the log is told of statements that were slow, and of statements and logins that Breccia refused.
//!
//! Not what the client is told. Invariant: no literal, parameter or comment of a client reaches the
//! log, and however many statements are slow, the lines in a second are bounded.

use std::time::{Duration, Instant};

use breccia_net::clock;
use breccia_net::log_gate::LogGate;

use super::SqlListener;
use super::login::LoginError;
use super::names::Names;
use super::route::Place;
use super::session::{End, Session};
use crate::class::shown;
use crate::postgres::codec;

/// At most so many lines of a kind and listener in a second.
const LINES_A_SECOND: u32 = 10;
const SECOND: Duration = Duration::from_secs(1);
/// The most bytes of a statement that a line holds.
const SHOWN_BYTES: usize = 1024;
/// The most characters that a line holds of why a login was refused.
const WHY_CHARACTERS: usize = 512;
/// The most bytes kept of a statement that runs; literals make it longer than what is shown.
const KEPT_BYTES: usize = 4 * SHOWN_BYTES;
/// A session that rests keeps no larger buffer.
const RESTING_BYTES: usize = 512;

/// What keeps a listener's lines few.
#[derive(Debug)]
pub(super) struct Gates {
    slow: LogGate,
    refused: LogGate,
    logins: LogGate,
}

impl Default for Gates {
    fn default() -> Self {
        Self {
            slow: LogGate::of_several(LINES_A_SECOND, SECOND),
            refused: LogGate::of_several(LINES_A_SECOND, SECOND),
            logins: LogGate::of_several(LINES_A_SECOND, SECOND),
        }
    }
}

/// What a session runs now, as far as the log may want to know.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// When it was asked; none while nothing is unanswered.
    since: Option<Instant>,
    /// When the last one was answered.
    answered: Option<Instant>,
    /// Where the last one went, by number, and why.
    server: usize,
    reason: &'static str,
    /// That is of the statement under way, and not of one before.
    is_placed: bool,
    /// The beginning of its text, if `kept`: where nobody else holds it.
    text: Vec<u8>,
    kept: bool,
}

impl Watch {
    /// A batch was asked, whose frames are still there when it ends.
    pub(super) fn begin(&mut self, asked: Instant) {
        self.since = Some(asked);
        (self.kept, self.is_placed) = (false, false);
    }

    /// Where it went, and why.
    pub(super) fn placed(&mut self, place: Place) {
        self.server = place.server;
        self.reason = place.reason;
        self.is_placed = true;
    }

    /// Why the statement under way goes where it does; `-` of one that was sent nowhere.
    pub(super) fn reason(&self) -> &'static str {
        if self.is_placed { self.reason } else { "-" }
    }

    /// When the last statement was answered. The time was read then, and is not read again.
    pub(super) fn answered(&self) -> Instant {
        self.answered.unwrap_or_else(clock::now)
    }

    /// Where the last statement went, by the server's number, and why.
    pub(super) fn last(&self) -> Option<(usize, &'static str)> {
        (!self.reason.is_empty()).then_some((self.server, self.reason))
    }

    /// A statement was passed on whose frame is gone by its end. Of several that are under way at
    /// once, the first counts.
    pub(super) fn passed(&mut self, sql: Option<&[u8]>, reason: &'static str) {
        if self.since.is_some() {
            return;
        }
        self.since = Some(clock::now());
        self.reason = reason;
        self.is_placed = true;
        if let Some(sql) = sql {
            self.keep(sql);
        }
    }

    fn keep(&mut self, sql: &[u8]) {
        self.kept = true;
        self.text.clear();
        self.text
            .extend_from_slice(sql.get(..KEPT_BYTES).unwrap_or(sql));
    }

    /// Lets go of memory that only a long statement needed.
    pub(super) fn rest(&mut self) {
        if self.text.capacity() > RESTING_BYTES {
            (self.text, self.kept) = (Vec::new(), false);
        }
    }
}

/// A client was let in to no session.
#[cold]
pub(super) fn tell_login(listener: &SqlListener, peer: &str, error: &LoginError) {
    if !error.is_a_refusal() {
        // Whoever only looks whether the port is open leaves like this, and is no line.
        tracing::debug!(listener = listener.name, peer, why = %error, "a login ended");
        return;
    }
    let Some(left_out) = listener.counters.gates.logins.pass(clock::now()) else {
        return;
    };
    // A stranger has chosen the name in it.
    let why: String = error.to_string().chars().take(WHY_CHARACTERS).collect();
    tracing::warn!(
        listener = listener.name,
        peer,
        why,
        left_out,
        "a login is refused"
    );
}

impl Session {
    /// All that was asked is answered. `frames`: those of the batch, where it was one.
    pub(super) fn note_answered(&mut self, frames: &[u8]) {
        let Some(since) = self.watch.since.take() else {
            return;
        };
        let now = clock::now();
        self.watch.answered = Some(now);
        let took = now.saturating_duration_since(since);
        if took >= self.listener.limits.slow_statement {
            self.tell_slow(now, took, frames);
        }
    }

    #[cold]
    fn tell_slow(&self, now: Instant, took: Duration, frames: &[u8]) {
        let Some(left_out) = self.listener.counters.gates.slow.pass(now) else {
            return;
        };
        tracing::warn!(
            listener = self.listener.name,
            user = self.identity.user,
            database = self.identity.database,
            server = self.server_name(),
            ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            reason = self.watch.reason(),
            statement = self.statement(frames),
            left_out,
            "a slow statement"
        );
    }

    /// A statement is refused here, and not by a server.
    #[cold]
    pub(super) fn tell_refused(&mut self, state: &str, why: &str, reason: &str, frames: &[u8]) {
        self.watch.since = None;
        let Some(left_out) = self.listener.counters.gates.refused.pass(clock::now()) else {
            return;
        };
        tracing::warn!(
            listener = self.listener.name,
            user = self.identity.user,
            database = self.identity.database,
            server = self.server_name(),
            state,
            why,
            reason,
            statement = self.statement(frames),
            left_out,
            "a statement is refused"
        );
    }

    /// The session ends in the middle of what these frames asked.
    pub(super) fn keep_for_the_end(&mut self, frames: &[u8]) {
        if !self.watch.kept
            && let Some(sql) = only_text(frames, &self.names)
        {
            self.watch.keep(&sql);
        }
    }

    /// The session ends; what was asked and has no answer is refused with it.
    pub(super) fn tell_end(&mut self, end: &End) {
        let ends = &self.listener.counters.ends;
        if let Some(limit) = self.over {
            ends.count(limit);
        }
        if let End::Told(state, why) = end
            && self.watch.since.is_some()
        {
            // A server that refuses a setting says its value.
            let why = match *state {
                "08006" => "the session's settings were refused",
                _ => why,
            };
            let reason = self.watch.reason();
            self.tell_refused(state, why, reason, &[]);
        } else if let Some(limit) = self.over {
            let (user, database) = (&self.identity.user, &self.identity.database);
            ends.tell(limit, &self.listener.name, user, database);
        }
    }

    fn server_name(&self) -> &str {
        let attached = self.attached.as_ref();
        let server = attached.and_then(|it| self.listener.cluster.server(it.server));
        server.map_or("-", |server| server.name())
    }

    /// What may be shown of the statement under way.
    fn statement(&self, frames: &[u8]) -> String {
        if !self.legible {
            return "(not read: its strings or encoding are not the usual ones)".to_owned();
        }
        if self.watch.kept {
            return shown(&self.watch.text, SHOWN_BYTES);
        }
        match only_text(frames, &self.names) {
            Some(sql) => shown(&sql, SHOWN_BYTES),
            None => "(not read)".to_owned(),
        }
    }
}

/// The text of the only statement in some frames.
pub(super) fn only_text(frames: &[u8], names: &Names) -> Option<Vec<u8>> {
    let mut at = 0;
    while let Ok(Some(head)) = codec::head(frames.get(at..)?) {
        let body = codec::body(frames.get(at..at + head.length)?);
        match head.tag {
            b'Q' => return Some(codec::query(body).ok()?.to_vec()),
            b'P' => return Some(codec::parse(body).ok()?.sql.to_vec()),
            b'B' => {
                return names
                    .text(codec::bind(body).ok()?.statement)
                    .map(<[u8]>::to_vec);
            }
            _ => at += head.length,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_statements_under_way_at_once_the_first_is_kept() {
        let mut watch = Watch::default();
        watch.passed(Some(b"SELECT 1"), "transaction");
        watch.passed(Some(b"SELECT 2"), "pinned");
        assert_eq!((watch.kept, &*watch.text), (true, &b"SELECT 1"[..]));
        assert_eq!(watch.reason, "transaction");
        watch.begin(clock::now());
        assert!(!watch.kept, "the batch's own frames hold it");
    }

    #[test]
    fn one_that_was_sent_nowhere_has_no_reason_of_one_before() {
        let mut watch = Watch::default();
        watch.begin(clock::now());
        watch.placed(Place {
            server: 0,
            replica: false,
            reason: "write",
            proof: None,
        });
        assert_eq!(watch.reason(), "write");
        watch.begin(clock::now());
        assert_eq!(watch.reason(), "-");
        // SHOW asks about the one before.
        assert_eq!(watch.last(), Some((0, "write")));
    }

    #[test]
    fn what_is_kept_is_bounded_and_let_go_of() {
        let mut watch = Watch::default();
        watch.passed(Some(&[b'x'; 3 * KEPT_BYTES]), "write");
        assert_eq!(watch.text.len(), KEPT_BYTES);
        watch.rest();
        assert_eq!((watch.kept, watch.text.capacity()), (false, 0));
    }
}
