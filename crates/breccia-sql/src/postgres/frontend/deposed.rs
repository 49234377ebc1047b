//! A session that keeps its connection to a server which is the primary no more.
//!
//! Not who the primary is. Invariant: once a session can know that another server, or none, takes
//! writes, nothing more of the old one is sent there, and no answer of it is handed on. Nobody waits for
//! the old one, which may be silent, and need not have ended its connections.

use std::sync::Arc;

use super::route::Place;
use super::session::{End, Session};
use crate::bells::Views as _;
use crate::error::SqlError;
use crate::postgres::cluster::Cluster;

impl Session {
    /// Ends the session if its connection is to a primary that was left, unless all it runs there is a
    /// read that may as well run on the new one: whether it is so. Costs one load while nothing changes.
    pub(super) fn check_primary(&mut self) -> Result<bool, End> {
        let version = self.listener.cluster.version();
        match &self.attached {
            Some(attached) if !attached.replica && attached.version != version => self.compare(),
            _ => Ok(false),
        }
    }

    /// Whether a place was the primary's, and another server is that now.
    pub(super) fn is_deposed(&mut self, place: Place) -> bool {
        !place.replica && matches!(self.look().primary, Ok(it) if it != place.server)
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

    fn compare(&mut self) -> Result<bool, End> {
        let view = self.look();
        let Some(attached) = &mut self.attached else {
            return Ok(false);
        };
        attached.version = self.view_version;
        if view.primary == Ok(attached.server) {
            return Ok(false);
        }
        if attached.held {
            // Where two claim to be it, the next try is told so.
            return Ok(true);
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

/// Ends once another server is the primary than the one that is waited for.
pub(super) async fn is_left(cluster: Arc<Cluster>, server: usize) -> SqlError {
    loop {
        let version = cluster.version();
        if matches!(cluster.view().primary, Ok(it) if it != server) {
            return deposed(&cluster, server);
        }
        cluster.left(version).await;
    }
}

/// What a statement is told that was to be sent to one that is the primary no more.
pub(super) fn deposed(cluster: &Cluster, server: usize) -> SqlError {
    let name = cluster.server(server).map(|it| it.name().to_owned());
    SqlError::Deposed {
        server: name.unwrap_or_default(),
    }
}
