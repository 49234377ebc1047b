//! What a frame does to its session and to the connection, noted before it is sent there.
//!
//! Not what comes of it (`hear.rs`). Invariant: whatever may change a connection in a way that its
//! pool cannot undo pins the session before the server gets it.

use std::sync::Arc;

use breccia_net::clock;

use super::attached::Attached;
use super::batch::called;
use super::session::{End, Session};
use crate::class::{Class, Verdict, lexer};
use crate::postgres::codec::{self, Head};
use crate::postgres::statement::Statement;

impl Session {
    /// Keeps in mind what a statement does to its session before it is sent.
    pub(super) fn note_sent(&mut self, verdict: &Verdict, alone: bool) {
        let in_transaction = self.attached.as_ref().is_some_and(Attached::in_transaction);
        let pin = match &verdict.class {
            Class::Pin(reason) => Some(*reason),
            Class::Set { .. } | Class::Reset { .. } if in_transaction || !alone => Some("set"),
            _ => None,
        };
        if let Some(reason) = pin
            && self.pinned.is_none()
        {
            self.pinned = Some(reason);
            self.listener.cluster.routed.pinned(reason);
        }
        if let Some(attached) = &mut self.attached {
            attached.ddl |= verdict.ddl;
            if let Class::Reset { name } = &verdict.class
                && self.pinned.is_some()
            {
                attached.resets.push(name.clone());
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
            attached.ending |= verdict.class == Class::Rollback;
            if verdict.class == Class::Primary("two-phase") {
                // What is prepared takes effect when somebody says COMMIT PREPARED.
                attached.ddl |= self.database.note_two_phase(attached.ddl, inside);
            }
        }
        if verdict.ddl {
            self.database.note_change();
        }
    }

    /// Notes what a frame inside a transaction or of a pinned session does.
    pub(super) fn look_at(
        &mut self,
        head: Head,
        frame: &[u8],
    ) -> Result<Option<Arc<Verdict>>, End> {
        let body = codec::body(frame);
        let sql = match head.tag {
            b'Q' => codec::query(body)?,
            b'P' => codec::parse(body)?.sql,
            b'B' => match self.names.text(codec::bind(body)?.statement) {
                Some(sql) => sql,
                None => return Ok(None),
            },
            b'E' | b'F' => {
                if let Some(attached) = &mut self.attached {
                    attached.seen = true;
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
        self.watch.passed(Some(sql), reason);
        let verdict = self.judge(sql);
        self.note_sent(&verdict, false);
        if self.transaction_since.is_none() {
            self.transaction_since = Some(clock::now());
        }
        Ok(Some(verdict))
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
    /// under which settings the server reads it, or it stands for this moment.
    pub(super) fn is_unshared(&mut self, head: Head, frame: &[u8]) -> bool {
        if !matches!(head.tag, b'Q' | b'P' | b'B' | b'D') {
            return false;
        }
        let body = codec::body(frame);
        let parse = match head.tag {
            b'P' => codec::parse(body).ok(),
            _ => None,
        };
        let query = || codec::query(body).ok().filter(|_| head.tag == b'Q');
        let sql = parse.as_ref().map(|parse| parse.sql).or_else(query);
        let loosens = sql.is_some_and(loosens);
        if let Some(attached) = &mut self.attached {
            attached.loose |= loosens;
            if attached.loose {
                return true;
            }
        }
        if self.pinned.is_some_and(|reason| reason != "target") {
            return true;
        }
        let named = parse.filter(|parse| !parse.name.is_empty());
        named.is_some_and(|parse| self.is_of_this_moment(parse.sql))
    }

    /// Whether a text, prepared later, would be another statement.
    pub(super) fn is_of_this_moment(&self, sql: &[u8]) -> bool {
        self.judge(sql).uses_now && holds_moment(sql, self.legible)
    }

    /// The text that a frame sends to be run, or binds to be run.
    pub(super) fn sql<'a>(&'a self, head: Head, frame: &'a [u8]) -> Option<&'a [u8]> {
        let body = codec::body(frame);
        match head.tag {
            b'Q' => codec::query(body).ok(),
            b'B' => self.names.text(codec::bind(body).ok()?.statement),
            _ => None,
        }
    }
}

/// Whether a text may change settings until its transaction ends.
fn loosens(sql: &[u8]) -> bool {
    // Both words hold a letter that few texts hold often.
    memchr::memchr2_iter(b'c', b'C', sql).any(|at| {
        let is = |before: usize, word: &[u8]| {
            let start = at.checked_sub(before);
            let part = start.and_then(|start| sql.get(start..start + word.len()));
            part.is_some_and(|part| part.eq_ignore_ascii_case(word))
        };
        is(2, b"local") || is(4, b"set_config")
    })
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
    fn what_lasts_for_a_transaction_is_seen() {
        let check = |sql: &str, expected: bool| {
            assert_eq!(loosens(sql.as_bytes()), expected, "{sql}");
        };
        check("SET LOCAL timezone = 'UTC'", true);
        check("select Set_Config('search_path', 'a', true)", true);
        check("SELECT c, local_c FROM t WHERE cc = 1", true);
        check("SELECT c FROM accounts", false);
        check("c", false);
        check("", false);
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
