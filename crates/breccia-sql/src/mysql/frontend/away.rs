//! What may be said in a READ ONLY transaction that a replica serves.
//!
//! A connection to a replica is read-only, but a transaction can say that it is not. Invariant: in such
//! a transaction nothing reaches the replica that could begin another one there, or that is not a
//! statement of this session's alone.

use super::attached::Attached;
use super::session::Session;
use crate::mysql::class::{Class, Verdict};

/// What goes to the primary elsewhere, and is harmless in a READ ONLY transaction: the server refuses it
/// there, or it only reads.
const HARMLESS: [&str; 27] = [
    "catalogue",
    "chain",
    "charset",
    "cursor",
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
        self.away.as_ref().is_some_and(Attached::in_transaction)
    }

    /// Why a statement cannot be carried out in the READ ONLY transaction that a replica serves, if it
    /// cannot.
    pub(super) fn refused_away(&self, verdict: &Verdict) -> Option<String> {
        let reason = match verdict.class {
            Class::Primary(reason) => reason,
            _ => return None,
        };
        let harmless = verdict.single && HARMLESS.contains(&reason);
        let goes = harmless || verdict.only_reads || commits(verdict);
        (self.is_in_transaction_away() && !goes).then(|| {
            format!(
                "breccia: this cannot be run ({reason}) in a READ ONLY transaction, which runs on a \
                 replica; end that before"
            )
        })
    }

    /// Ends the READ ONLY transaction on a replica as a server does by itself, before a statement that
    /// commits whatever is open.
    pub(super) async fn commit_away(&mut self, verdict: &Verdict) {
        if !commits(verdict) || !self.is_in_transaction_away() {
            return;
        }
        if let Some(mut away) = self.away.take() {
            let pool = std::sync::Arc::clone(away.pool());
            if let Some(upstream) = away.lease.upstream() {
                away.tainted |= pool.endpoint().run(upstream, "COMMIT").await.is_err();
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
}

/// Whether a statement commits what is open before it runs.
fn commits(verdict: &Verdict) -> bool {
    matches!(
        verdict.class,
        Class::Begin { .. } | Class::Ddl | Class::SetAutocommit(true) | Class::Primary("admin")
    ) && verdict.single
}
