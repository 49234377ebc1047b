//! What may be said in a READ ONLY transaction that a replica serves, and what is left of it there.
//!
//! A connection to a replica is read-only, but a transaction can say that it is not. Invariant: in such
//! a transaction nothing reaches the replica that could begin another one there, or that is not a
//! statement of this session's alone.

use std::sync::Arc;

use super::attached::Attached;
use super::ending::COMMIT;
use super::prepared::Held;
use super::session::Session;
use crate::error::SqlError;
use crate::mysql::class::{Class, Verdict};

/// What goes to the primary elsewhere, and is harmless in a READ ONLY transaction: the server refuses it
/// there, or it only reads.
const HARMLESS: [&str; 28] = [
    "catalogue",
    "chain",
    "charset",
    "cursor",
    "cursor-on-replica",
    "engine",
    "function",
    "into",
    "kill",
    "lock-tables",
    "locks",
    "long-data",
    "no-catalogue",
    "optimizer-hint",
    "ping",
    "procedure",
    "release",
    "savepoint",
    "sequence",
    "set",
    "show",
    "status",
    "too-long",
    "unknown-table",
    "unproven",
    "variable",
    "view",
    "write",
];

impl Session {
    fn is_in_transaction_away(&self) -> bool {
        self.away.as_deref().is_some_and(Attached::in_transaction)
    }

    /// Why a statement cannot be carried out in the READ ONLY transaction that a replica serves, if it
    /// cannot.
    pub(super) fn refused_away(&self, verdict: &Verdict) -> Option<String> {
        let Class::Primary(reason) = verdict.class else {
            return None;
        };
        let harmless = verdict.single && HARMLESS.contains(&reason);
        let goes = harmless || verdict.only_reads || self.commits(verdict);
        (self.is_in_transaction_away() && !goes).then(|| {
            format!(
                "breccia: this cannot be run ({reason}) in a READ ONLY transaction, which runs on a \
                 replica; end that before"
            )
        })
    }

    /// Whether a statement is refused there, or would bind the session to that connection, whatever of it
    /// was sent ahead.
    pub(super) fn binds_away(&self, verdict: &Verdict) -> bool {
        matches!(verdict.class, Class::Pin(_)) || self.refused_away(verdict).is_some()
    }

    /// Ends the READ ONLY transaction on a replica as a server does by itself, before a statement that
    /// commits whatever is open.
    pub(super) async fn commit_away(&mut self, verdict: &Verdict) {
        if !self.commits(verdict) || !self.is_in_transaction_away() {
            return;
        }
        if let Some(mut away) = self.away.take() {
            let pool = Arc::clone(away.pool());
            if let Some(upstream) = away.lease.upstream() {
                away.tainted |= pool.endpoint().run(upstream, COMMIT).await.is_err();
            }
            (away.status, away.special) = (0, false);
            if away.open > 0 {
                // Cursors outlive it.
                self.away = Some(away);
            } else {
                self.give_back(away).await;
            }
        }
        (self.begun, self.transaction_since) = (None, None);
    }

    /// A cursor that outlived its transaction on a replica is closed when its statement runs anew: that
    /// finds its own place.
    pub(super) async fn leave_old_cursor(&mut self, number: u32) {
        let held = self.held_by(number).and_then(|(_, held)| held);
        let outlived = !self.away.as_deref().is_some_and(Attached::in_transaction);
        if held.is_some_and(|it| it.replica && !it.data) && outlived {
            self.drop_held(number).await;
        }
    }

    /// Data that was sent ahead to a replica, in a transaction that has ended there, is of use only to a
    /// read, and only if that replica shows what the session has seen since.
    pub(super) fn check_fresh(&mut self, number: u32, held: Option<Held>) -> Result<(), SqlError> {
        let Some(held) = held.filter(|it| it.replica && it.data) else {
            return Ok(());
        };
        let away = self.away.as_deref();
        if away.is_some_and(Attached::in_transaction) {
            return Ok(());
        }
        let fresh = away.is_some_and(|it| self.freshness.is_met_by(&it.has));
        let classifier = &self.listener.cluster.schemas.classifier;
        let statement = self.statements.get_mut(number);
        let reads = statement.is_some_and(|it| it.judge(classifier).class == Class::Read);
        if fresh && reads {
            return Ok(());
        }
        Err(SqlError::Down {
            server: self.server_name(held.server),
            why: "the data for this statement was sent ahead to it in a transaction that has ended; send \
                  it again"
                .to_owned(),
        })
    }

    /// Whether a statement commits what is open before it runs.
    fn commits(&self, verdict: &Verdict) -> bool {
        let does = match verdict.class {
            // What is so already changes nothing.
            Class::SetAutocommit(true) => !self.autocommits(),
            _ => verdict.commits,
        };
        does && verdict.single
    }
}
