//! A session that keeps its connection to a server which is the primary no more.
//!
//! Not who the primary is. Invariant: once a session can know that another server, or none, takes
//! writes, nothing more of the old one is sent there, and no answer of it is handed on.

use super::session::{End, Session};

impl Session {
    /// Ends the session if its connection is to a primary that was left. Costs one load while nothing
    /// changes.
    pub(super) fn check_primary(&mut self) -> Result<(), End> {
        let version = self.listener.cluster.version();
        match &self.attached {
            Some(attached) if !attached.replica && attached.version != version => self.compare(),
            _ => Ok(()),
        }
    }

    /// The view in which a server was seen to be the primary; none, and it is looked at soon, if what
    /// was decided was decided in an earlier one.
    pub(super) fn version_of(&self, server: usize) -> u64 {
        if self.view.primary == Ok(server) {
            self.view_version
        } else {
            u64::MAX
        }
    }

    fn compare(&mut self) -> Result<(), End> {
        let view = self.look();
        let Some(attached) = &mut self.attached else {
            return Ok(());
        };
        attached.version = self.view_version;
        if view.primary == Ok(attached.server) {
            return Ok(());
        }
        self.listener.counters.failed.increment();
        let name = attached.lease.pool().endpoint().name.clone();
        Err(if attached.unknown && !attached.is_settled() {
            let why = format!(
                "{name} is not the primary any more, and had not answered: whether the statement was \
                 carried out is not known"
            );
            End::Told("08007", why)
        } else {
            let why = format!("{name} is not the primary any more; nothing was committed");
            End::Told("57P01", why)
        })
    }
}
