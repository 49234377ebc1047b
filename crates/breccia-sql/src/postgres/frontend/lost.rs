//! A connection upstream that is no more.
//!
//! Not whose fault it is, but in one case: a read that ends the process that runs it would end one on
//! each server it is run on. Invariant: a read runs once more only if the server it was on is gone, or
//! has said that the connection ends.

use std::io;

use super::serve::Turn;
use super::session::{End, Session};

impl Session {
    /// The connection is lost, perhaps with answers still owed.
    pub(super) async fn lost_or_ended(&mut self, error: &io::Error) -> Result<Turn, End> {
        // With bytes of the statement unread, its end is a reset.
        let ended = matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe
        );
        let pool = match &self.attached {
            Some(attached) if ended && attached.is_spared() && !attached.tainted => {
                attached.lease.pool()
            }
            _ => return self.lost(error),
        };
        if !pool.is_listening().await {
            return self.lost(error);
        }
        self.listener.counters.failed.increment();
        let why = format!(
            "the connection to {} ended without a word, and its server goes on: the statement may have \
             ended it, and is not run again",
            pool.endpoint().name
        );
        Err(End::Told("08006", why))
    }
}
