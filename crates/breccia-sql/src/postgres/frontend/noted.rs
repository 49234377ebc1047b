//! What a frame does to its session and to the connection, noted before it is sent there.
//!
//! Not what comes of it (`hear.rs`). Invariant: whatever may change a connection in a way that its
//! pool cannot undo pins the session before the server gets it.

use std::collections::BTreeSet;
use std::sync::Arc;

use breccia_net::clock;

use super::attached::Attached;
use super::batch::{Batch, called};
use super::expected::Owed;
use super::names::Under;
use super::session::{End, Session};
use super::told::is_read_by;
use crate::class::{Class, LAST_VALUE, START, Signs, Verdict, lexer};
use crate::postgres::codec::{self, Head, message};
use crate::postgres::settings::Settings;
use crate::postgres::statement::Statement;

/// Why a session is pinned by what not even DISCARD ALL ends: a library that was loaded, a connection of
/// dblink; and nobody knows what a block did.
const LASTING: [&str; 7] = [
    "load", "dblink", "slot", "origin", "do", "routine", "unparsed",
];

impl Session {
    /// Whether a batch begins by asking for the session's last value of a sequence where nobody knows
    /// whose value that is. The session keeps its connection from then on: whoever asks once asks
    /// again.
    pub(super) fn asks_last_value(&mut self, batch: &Batch) -> bool {
        let free = self.attached.is_none()
            && self.begun.is_none()
            && self.pinned.is_none()
            && !self.listener.limits.session_mode;
        let asks = |verdict: &Arc<Verdict>| verdict.class == Class::Primary(LAST_VALUE);
        if !free || !batch.verdicts.iter().next().is_some_and(asks) {
            return false;
        }
        self.pinned = Some(LAST_VALUE);
        self.listener.cluster.routed.pinned(LAST_VALUE);
        true
    }

    /// Keeps in mind what a statement does to its session before it is sent.
    pub(super) fn note_sent(&mut self, verdict: &Verdict, alone: bool) {
        let in_transaction = self.attached.as_ref().is_some_and(Attached::in_transaction);
        let pin = match &verdict.class {
            Class::Pin(reason) => Some(*reason),
            Class::Set { .. } | Class::Reset { .. } if in_transaction || !alone => Some("set"),
            // Others were set in words that would be read otherwise from now on.
            Class::Set { name, .. } | Class::Reset { name: Some(name) }
                if is_read_by(name) && !self.settings.are_plain() =>
            {
                Some("set")
            }
            _ => None,
        };
        // Who has asked for the primary keeps the connection for that alone, and may take it back.
        if let Some(reason) = pin
            && self.pinned.is_none_or(|pinned| pinned == "target")
        {
            self.pinned = Some(reason);
            self.listener.cluster.routed.pinned(reason);
        }
        if let Some(attached) = &mut self.attached {
            attached.ddl |= verdict.ddl;
            attached.note_values(&verdict.class, self.registered.key);
            attached.lasting |= pin.is_some_and(|reason| LASTING.contains(&reason));
            // Nobody else gets what a call may have left there.
            attached.tainted |= verdict.class == Class::Primary(START);
            if self.pinned.is_some() {
                note_reset(&mut attached.resets, &verdict.class, &self.startup);
            }
            attached.seen |= !matches!(
                verdict.class,
                Class::Set { .. }
                    | Class::Reset { .. }
                    | Class::Deallocate { .. }
                    | Class::Begin { .. }
                    | Class::Commit
                    | Class::Rollback
                    | Class::Empty
            );
            // What is sent behind a ROLLBACK runs after it.
            let inside = in_transaction && !attached.ending;
            attached.unknown |= match verdict.class {
                Class::Empty | Class::Read | Class::Begin { .. } | Class::Rollback => false,
                Class::Commit | Class::Primary("chain" | "two-phase") => true,
                // Several statements, or what cannot be read, may hold a COMMIT.
                _ => !inside || !verdict.single,
            };
            attached.ending |= matches!(verdict.class, Class::Commit | Class::Rollback);
            if verdict.class == Class::Primary("two-phase") {
                // What is prepared takes effect when somebody says COMMIT PREPARED.
                attached.ddl |= self.database.note_two_phase(attached.ddl, inside);
            }
        }
        if verdict.ddl {
            self.database.note_change();
        }
    }

    /// What a frame's text is and mentions, if it holds one.
    pub(super) fn see_frame(&self, head: Head, frame: &[u8]) -> Option<(Arc<Verdict>, Signs)> {
        text_of(head, frame).map(|sql| self.see(sql))
    }

    /// Notes what a frame inside a transaction or of a pinned session does. `seen`: see
    /// [`Session::see_frame`].
    pub(super) fn look_at(
        &mut self,
        head: Head,
        frame: &[u8],
        seen: Option<Arc<Verdict>>,
    ) -> Result<Option<Arc<Verdict>>, End> {
        let body = codec::body(frame);
        let sql = match head.tag {
            b'Q' => Some(codec::query(body)?),
            b'P' => Some(codec::parse(body)?.sql),
            b'B' => self.names.text(codec::bind(body)?.statement),
            b'E' | b'F' => {
                if let Some(attached) = &mut self.attached {
                    attached.seen = true;
                    attached.unknown |= attached.ends_bound;
                }
                let reason = self.stays();
                self.watch.passed(None, reason);
                if head.tag == b'F' {
                    self.note_sent(&called(body)?, false);
                }
                return Ok(None);
            }
            _ => return Ok(None),
        };
        let reason = self.stays();
        self.watch.passed(sql, reason);
        let verdict = match head.tag {
            b'B' => self.judge_named(codec::bind(body)?.statement),
            _ => seen,
        };
        let Some(verdict) = verdict else {
            return Ok(None);
        };
        if head.tag == b'B' {
            self.note_bound(frame);
        }
        self.note_sent(&verdict, false);
        if self.transaction_since.is_none() {
            self.transaction_since = Some(clock::now());
        }
        Ok(Some(verdict))
    }

    /// Notes a portal whose Execute, perhaps in a later batch, ends the transaction.
    pub(super) fn note_bound(&mut self, frame: &[u8]) {
        let Ok(bind) = codec::bind(codec::body(frame)) else {
            return;
        };
        let verdict = self.judge_named(bind.statement);
        let ends =
            |class: &Class| matches!(class, Class::Commit | Class::Primary("chain" | "two-phase"));
        if let Some(attached) = &mut self.attached {
            attached.ends_bound |= verdict.is_some_and(|it| ends(&it.class));
        }
    }

    /// The statement that a frame's SQL lets go of, if it is one the client has prepared.
    pub(super) fn freed(&self, head: Head, frame: &[u8]) -> Option<(String, Arc<Statement>)> {
        const WORD: &[u8] = b"DEALLOCATE";
        let body = codec::body(frame);
        let sql = match head.tag {
            b'Q' => codec::query(body).ok()?,
            b'P' => codec::parse(body).ok().filter(|it| it.name.is_empty())?.sql,
            _ => return None,
        };
        let word = sql.trim_ascii_start().get(..WORD.len())?;
        if !word.eq_ignore_ascii_case(WORD) {
            return None;
        }
        match &self.judge(sql).class {
            Class::Deallocate { name: Some(name) } => {
                Some((name.clone(), self.names.get(name.as_bytes())?))
            }
            _ => None,
        }
    }

    /// Whether what the connection prepares for a frame is of no use to other sessions: nobody knows
    /// under which settings the server reads it, or it stands for this moment. `loosens`: see [`Signs`].
    pub(super) fn is_unshared(&mut self, head: Head, frame: &[u8], loosens: bool) -> bool {
        if !matches!(head.tag, b'Q' | b'P' | b'B' | b'D') {
            return false;
        }
        if let Some(attached) = &mut self.attached {
            attached.loose |= loosens;
            if attached.loose {
                return true;
            }
        }
        if self.pinned.is_some_and(|reason| reason != "target") {
            return true;
        }
        let parse = match head.tag {
            b'P' => codec::parse(codec::body(frame)).ok(),
            _ => None,
        };
        let named = parse.filter(|parse| !parse.name.is_empty());
        named.is_some_and(|parse| self.is_of_this_moment(parse.sql))
    }

    /// Whether a text, prepared later, would be another statement.
    pub(super) fn is_of_this_moment(&self, sql: &[u8]) -> bool {
        self.judge(sql).uses_now && holds_moment(sql, self.legible)
    }

    /// Whether a frame sends or binds what lets go of all prepared statements.
    pub(super) fn empties(&self, head: Head, frame: &[u8]) -> bool {
        let verdict = self.judge_frame(head, frame).filter(|_| head.tag != b'P');
        verdict.is_some_and(|verdict| lets_go_of_all(&verdict))
    }

    /// What the session's verdicts hold under now.
    pub(super) fn under(&self) -> Under {
        Under {
            version: self.database.classifier.version(),
            legible: self.legible,
        }
    }

    /// Whether a frame sends or binds what asks for the session's last value of a sequence.
    pub(super) fn asks_value(&self, head: Head, frame: &[u8]) -> bool {
        let verdict = self.judge_frame(head, frame);
        verdict.is_some_and(|verdict| verdict.class == Class::Primary(LAST_VALUE))
    }

    /// What a frame sends, prepares or binds.
    fn judge_frame(&self, head: Head, frame: &[u8]) -> Option<Arc<Verdict>> {
        if head.tag == b'B' {
            let bind = codec::bind(codec::body(frame)).ok()?;
            return self.judge_named(bind.statement);
        }
        text_of(head, frame).map(|sql| self.judge(sql))
    }

    /// What a prepared statement is, by the client's name for it.
    pub(super) fn judge_named(&self, name: &[u8]) -> Option<Arc<Verdict>> {
        let judge = |sql: &[u8]| self.judge(sql);
        self.names.verdict(name, self.under(), judge)
    }
}

/// The text that a frame sends or prepares.
pub(super) fn text_of(head: Head, frame: &[u8]) -> Option<&[u8]> {
    let body = codec::body(frame);
    match head.tag {
        b'Q' => codec::query(body).ok(),
        b'P' => codec::parse(body).ok().map(|parse| parse.sql),
        _ => None,
    }
}

/// Notes what a statement brings back to the server's value, although the session began with another.
fn note_reset(resets: &mut BTreeSet<String>, class: &Class, startup: &Settings) {
    match class {
        Class::Reset { name: None } => resets.extend(startup.names().map(str::to_owned)),
        Class::Reset { name: Some(name) } | Class::Set { name, value: None } => {
            resets.insert(name.to_ascii_lowercase());
        }
        Class::Set { name, .. } => {
            resets.remove(&name.to_ascii_lowercase());
        }
        // The server takes it back by itself.
        Class::Rollback => resets.clear(),
        _ => {}
    }
}

/// Sent instead of what would show statements that other sessions have prepared; why stands in the
/// server's answer.
pub(super) const NO_LOOK: &str =
    "TABLE \"breccia: pg_prepared_statements shows what others prepared\"";

/// The same of what would tell the last value that another session has made.
pub(super) const NO_VALUE: &str =
    "TABLE \"breccia: lastval/currval of another session; use RETURNING\"";

impl Attached {
    /// Notes whose values of sequences the connection remembers: who ran something there last that may
    /// have made one. `session`: who sends a statement of this class.
    fn note_values(&mut self, class: &Class, session: (u32, u32)) {
        let Some(upstream) = self.lease.upstream() else {
            return;
        };
        match class {
            Class::Primary(LAST_VALUE) => {
                self.foreign_value |= upstream.values_of != Some(session);
            }
            // Nobody knows what it is: it may have made a value.
            Class::Primary("catalogue") if upstream.values_of != Some(session) => {
                upstream.values_of = None;
            }
            Class::Primary("catalogue") | Class::Read | Class::Empty => {}
            Class::Primary(_) | Class::Pin(_) => upstream.values_of = Some(session),
            _ => {}
        }
    }

    /// Has a frame fail on the server by sending a text that says why instead of it.
    pub(super) fn refuse(&mut self, tag: u8, why: &str) {
        let out = &mut self.out.bytes;
        self.unnamed_here = false;
        if tag == b'Q' {
            message::query(out, why);
            self.expected.push(Owed::Query { shown: true });
        } else {
            message::parse(out, b"", why.as_bytes(), &[0, 0]);
            self.expected.push(Owed::Parse {
                shown: true,
                statement: None,
                change: None,
            });
        }
    }
}

/// Whether a text holds a literal that stands for the moment at which it is prepared.
fn holds_moment(sql: &[u8], conforming: bool) -> bool {
    let Ok((tokens, _)) = lexer::tokens(sql, conforming) else {
        return true;
    };
    tokens.iter().any(|token| {
        let text = matches!(token.kind, lexer::Kind::Text(_));
        text && sql
            .get(token.start..token.end)
            .is_some_and(lexer::names_moment)
    })
}

/// Whether a statement lets go of all that the connection has prepared.
pub(super) fn lets_go_of_all(verdict: &Verdict) -> bool {
    matches!(
        verdict.class,
        Class::DiscardAll | Class::Deallocate { name: None }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_after_it_was_reset_is_not_brought_back() {
        let pairs = [("a", "1"), ("B", "2")];
        let owned = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let startup = Settings::of_startup(&owned).expect("settings");
        let mut resets = BTreeSet::new();
        let name = |name: &str| Some(name.to_owned());
        note_reset(&mut resets, &Class::Reset { name: None }, &startup);
        let set = |value| Class::Set {
            name: "A".to_owned(),
            value,
        };
        note_reset(&mut resets, &set(name("7")), &startup);
        assert_eq!(resets.iter().collect::<Vec<_>>(), ["b"]);
        note_reset(&mut resets, &set(None), &startup);
        assert_eq!(resets.iter().collect::<Vec<_>>(), ["a", "b"]);
        note_reset(&mut resets, &Class::Rollback, &startup);
        assert!(resets.is_empty());
    }

    #[test]
    fn a_literal_of_the_moment_is_no_function() {
        let check = |sql: &str, expected: bool| {
            assert_eq!(holds_moment(sql.as_bytes(), true), expected, "{sql}");
        };
        check("SELECT now(), 'then'", false);
        check("SELECT 'now'::timestamptz", true);
        check("SELECT date E'Today 00:00'", true);
        check("SELECT 'today", true);
    }
}
