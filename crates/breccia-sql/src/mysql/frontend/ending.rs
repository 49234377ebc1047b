//! Servers that close a connection once they have answered: after `COMMIT RELEASE` and its kin, and after
//! a command that was too long for them.
//!
//! Invariant: a session ends where its client, connected directly, would find the connection closed. It
//! does not go on with settings or a transaction that are no more.

use std::sync::Arc;

use super::attached::Attached;
use super::relay::Outcome;
use super::session::Session;
use crate::mysql::class::Verdict;

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
}
