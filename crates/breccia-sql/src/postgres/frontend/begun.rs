//! Transactions whose place is not decided when they begin.
//!
//! `BEGIN READ ONLY`, and with `transactions = "lazy"` every BEGIN, is answered here. Proven reads
//! then go to one replica; the first statement that is none begins the transaction on the primary.
//! Invariant: only READ COMMITTED moves, where each statement sees a state of its own, and only
//! towards the primary. That is older only in one thing: a commit that still waits for a synchronous
//! standby may show on a standby before it shows there.

use std::sync::Arc;

use breccia_net::clock;

use super::attached::Event;
use super::batch::Batch;
use super::expected::Owed;
use super::session::{Begun, End, Session};
use crate::class::{Class, Verdict};
use crate::postgres::codec;
use crate::postgres::codec::message;

/// The setting that would raise every transaction's isolation.
const ISOLATION: &str = "default_transaction_isolation";

impl Session {
    /// Answers a BEGIN whose place is open, and the end of a transaction that no server has seen;
    /// whether it was one.
    pub(super) fn answer_begun(&mut self, batch: &Batch, frames: &[u8]) -> bool {
        let Some(verdict) = batch.only.clone().filter(|_| batch.simple) else {
            return false;
        };
        let tag = match &verdict.class {
            Class::Begin {
                read_only,
                read_committed: true,
            } if self.begun.is_none() && self.may_wait(*read_only, verdict.hint_primary) => {
                let Some(sql) = text_of(frames) else {
                    return false;
                };
                let word = sql.trim_start().get(..5);
                let start = word.is_some_and(|word| word.eq_ignore_ascii_case("start"));
                self.begun = Some(Begun { sql, failed: false });
                self.transaction_since = Some(self.asked);
                if start { "START TRANSACTION" } else { "BEGIN" }
            }
            Class::Commit if self.is_only_begun() => {
                self.begun = None;
                "COMMIT"
            }
            Class::Rollback if self.is_only_begun() => {
                self.begun = None;
                "ROLLBACK"
            }
            _ => return false,
        };
        self.names.unnamed = None;
        message::complete(&mut self.client.out.bytes, tag);
        self.answer_ready();
        true
    }

    fn may_wait(&self, read_only: bool, hint_primary: bool) -> bool {
        let lazy = self.listener.cluster.options.lazy;
        (read_only || lazy)
            && !hint_primary
            && self.legible
            && self.pinned.is_none()
            && !self.listener.limits.session_mode
            && self.settings.get_lower(ISOLATION).is_none()
            && self.read_committed
    }

    /// Whether what runs outside a transaction is above READ COMMITTED: a standby refuses what would
    /// be serializable.
    pub(super) fn is_isolated(&self) -> bool {
        match self.settings.get_lower(ISOLATION) {
            None => !self.read_committed,
            Some(value) => {
                let value = value.to_ascii_lowercase();
                !["read committed", "read uncommitted"]
                    .iter()
                    .any(|low| value.contains(low))
            }
        }
    }

    fn is_only_begun(&self) -> bool {
        self.begun.is_some() && self.attached.is_none()
    }

    /// Notes of a batch in a transaction that may still move what would not survive that.
    pub(super) fn note_portals(&self, batch: &mut Batch, frames: &[u8]) {
        if self.begun.is_some() && leaves_portals(frames) {
            batch.go("cursor");
        }
    }

    /// Why a batch cannot go to the replica that serves the transaction; `None`: it can.
    pub(super) async fn leaves(&mut self, batch: &Batch) -> Option<&'static str> {
        if batch.only.as_ref().is_some_and(ends) {
            return None;
        }
        match self.is_no_read(batch) {
            None => self.outgrows().await,
            reason => reason,
        }
    }

    fn is_no_read(&self, batch: &Batch) -> Option<&'static str> {
        match batch.reads {
            _ if self.pinned.is_some() => Some("pinned"),
            // What it names is there or nowhere.
            Err("unknown-portal") if batch.verdicts.iter().next().is_none() => None,
            Ok(()) if batch.verdicts.iter().any(|verdict| verdict.uses_now) => {
                Some("transaction-time")
            }
            other => other.err(),
        }
    }

    /// What the replica that serves a transaction has shown stays seen, wherever that goes on.
    pub(super) fn keep_seen(&mut self) {
        if self.begun.is_some()
            && let Some(attached) = self.attached.as_mut().filter(|it| it.replica)
        {
            self.freshness.used_replica(attached.home(clock::now()));
        }
    }

    /// Leaves the replica: the transaction goes on elsewhere. What was begun there is undone first, unless
    /// it does not answer.
    pub(super) async fn move_away(&mut self) -> Result<(), End> {
        let Some(attached) = &mut self.attached else {
            return Ok(());
        };
        message::query(&mut attached.out.bytes, "ROLLBACK");
        attached.expected.push(Owed::Query { shown: false });
        let (begun, since) = (self.begun.clone(), self.transaction_since);
        let end = clock::now() + attached.lease.pool().endpoint().timeout;
        while self.attached.as_ref().is_some_and(|it| !it.is_settled()) {
            let lost = match self.event().await? {
                Event::Server => self.digest_quietly().map(|()| false)?,
                Event::ClientGone => return Err(End::Gone),
                Event::ServerLost(_) => true,
                Event::Client | Event::Sent | Event::Late => {
                    self.is_server_down() || clock::now() >= end
                }
            };
            if lost {
                self.keep_seen();
                self.registered.doing.end();
                self.let_go();
                return Ok(());
            }
        }
        self.settle();
        (self.begun, self.transaction_since) = (begun, since);
        Ok(())
    }

    /// Whether the server of the connection that is held is known to be down.
    pub(super) fn is_server_down(&self) -> bool {
        let number = self.attached.as_ref().map(|it| it.server);
        let server = number.and_then(|it| self.listener.cluster.server(it));
        server.is_some_and(|server| !server.options.health.is_up())
    }
}

/// Whether a statement ends the transaction, and does nothing else.
pub(super) fn ends(verdict: &Arc<Verdict>) -> bool {
    matches!(verdict.class, Class::Commit | Class::Rollback)
}

/// Whether a batch may leave portals behind that a later one goes on with: they have a name, or are
/// not executed to their end.
fn leaves_portals(frames: &[u8]) -> bool {
    let (mut at, mut unnamed) = (0, false);
    while let Ok(Some(head)) = codec::head(frames.get(at..).unwrap_or_default()) {
        let body = codec::body(frames.get(at..at + head.length).unwrap_or_default());
        at += head.length;
        let name = codec::text(body);
        match head.tag {
            b'B' => match name {
                Some((b"", _)) => unnamed = true,
                _ => return true,
            },
            b'E' if matches!(name, Some((b"", [0, 0, 0, 0]))) => unnamed = false,
            b'E' => return true,
            b'C' if body == b"P\0" => unnamed = false,
            _ => {}
        }
    }
    unnamed
}

/// The text of a simple query.
fn text_of(frame: &[u8]) -> Option<String> {
    let sql = codec::query(codec::body(frame)).ok()?;
    String::from_utf8(sql.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portals_that_are_left_open_are_seen() {
        let check = |frames: &[(u8, &[u8])], expected: bool| {
            let mut bytes = Vec::new();
            for (tag, body) in frames {
                message::frame(&mut bytes, *tag, |out| out.extend_from_slice(body));
            }
            assert_eq!(leaves_portals(&bytes), expected, "{frames:?}");
        };
        let unnamed: (u8, &[u8]) = (b'B', b"\0s\0\0\0\0\0\0\0");
        let named: (u8, &[u8]) = (b'B', b"p\0s\0\0\0\0\0\0\0");
        let all: (u8, &[u8]) = (b'E', b"\0\0\0\0\0");
        let ten: (u8, &[u8]) = (b'E', b"\0\0\0\0\x0a");
        let close: (u8, &[u8]) = (b'C', b"P\0");
        check(&[(b'Q', b"SELECT 1\0")], false);
        check(&[unnamed, all, (b'S', b"")], false);
        check(&[unnamed, close, (b'S', b"")], false);
        check(&[unnamed, (b'S', b"")], true);
        check(&[unnamed, ten, (b'S', b"")], true);
        check(&[unnamed, all, unnamed, (b'S', b"")], true);
        check(&[named, (b'E', b"p\0\0\0\0\0"), (b'S', b"")], true);
    }
}
