//! The ends of transactions that Breccia says itself, and servers that close a connection once they have
//! answered: after `COMMIT RELEASE` and its kin, and after a command that was too long for them.
//!
//! Invariant: a session ends where its client, connected directly, would find the connection closed. It
//! does not go on with settings or a transaction that are no more.

use std::sync::Arc;

use super::attached::Attached;
use super::relay::Outcome;
use super::session::Session;
use crate::mysql::class::Verdict;

/// Ends a transaction and does nothing else, whatever the session's `completion_type` is.
pub(super) const COMMIT: &str = "COMMIT AND NO CHAIN NO RELEASE";
/// The same.
pub(super) const ROLLBACK: &str = "ROLLBACK AND NO CHAIN NO RELEASE";

/// `ER_NET_PACKET_TOO_LARGE`: most servers close the connection behind it, some read on.
pub(super) const TOO_LARGE: u16 = 1153;

impl Session {
    /// Whether the server may have closed the connection behind this answer.
    pub(super) fn may_be_left(&self, verdict: &Verdict, outcome: &Outcome) -> bool {
        let too_large = matches!(outcome.error, Some((TOO_LARGE, ..)));
        too_large || self.may_release(verdict)
    }

    fn may_release(&self, verdict: &Verdict) -> bool {
        verdict.may_release || self.completion() == Some("RELEASE")
    }

    /// Asks whether the server has closed the connection; if so, the session ends with this answer.
    pub(super) async fn see_left(&mut self, attached: &mut Attached) {
        let pool = Arc::clone(attached.pool());
        if let Some(upstream) = attached.lease.upstream()
            && pool.endpoint().ping(upstream).await.is_err()
        {
            attached.tainted = true;
            self.is_left = true;
        }
    }

    /// Whether a connection that came to its end amid an answer, of which this much was there before, may
    /// have been ended by what was asked. What came of the answer is the client's.
    pub(super) fn is_left_amid(&self, verdict: &Verdict, before: usize) -> bool {
        self.may_release(verdict) && self.client.out.bytes.len() > before
    }

    /// Asks what is open on a connection of which the last answer did not tell.
    pub(super) async fn see_open(&mut self, attached: &mut Attached) {
        let pool = Arc::clone(attached.pool());
        let Some(upstream) = attached.lease.upstream() else {
            return;
        };
        match pool.endpoint().ping(upstream).await {
            Ok(status) => {
                (attached.status, attached.unsure) = (status, false);
                // A server that is asked tells no rows of the statement before any more.
                attached.latest = false;
                self.see_autocommit(attached);
            }
            Err(_) => attached.tainted = true,
        }
    }
}
