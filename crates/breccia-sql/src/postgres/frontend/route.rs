//! Which server a read goes to.
//!
//! Not which replica is fresh enough ([`crate::placing`]). Invariant: the replica that serves a
//! transaction goes on only while it has all that its session has seen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::session::Session;
use crate::freshness::Question;
use crate::placing::{self, Seeker, reached};
use crate::postgres::cluster::election::View;
use crate::postgres::cluster::{Cluster, Consistency};
use crate::postgres::token::{Freshness, Lsn};

/// Where a statement goes, and why.
pub(super) type Place = placing::Place<Lsn>;

impl Seeker for Session {
    type Cluster = Cluster;

    fn cluster(&self) -> &Arc<Cluster> {
        &self.listener.cluster
    }

    fn look(&mut self) -> Arc<View> {
        Self::look(self)
    }

    fn freshness(&mut self) -> &mut Freshness {
        &mut self.freshness
    }

    fn question(&mut self) -> Option<Question> {
        // A transaction that is open there may have seen what came after the last question.
        let sees = self.attached.as_ref().is_some_and(|it| it.seen);
        self.freshness.question().filter(|_| !sees)
    }

    fn least(&self) -> Lsn {
        self.database.floor()
    }

    fn shows_least(&self, has: &Lsn) -> bool {
        *has >= self.database.floor()
    }

    fn asked(&self) -> Instant {
        self.asked
    }

    fn settled(&mut self) -> &mut Instant {
        &mut self.settled
    }

    fn queue_timeout(&self) -> Duration {
        self.listener.limits.pool.queue_timeout()
    }
}

impl Session {
    /// The view in force.
    pub(super) fn look(&mut self) -> Arc<View> {
        let version = self.listener.cluster.version();
        if version != self.view_version {
            self.view = self.listener.cluster.view();
            self.view_version = version;
        }
        Arc::clone(&self.view)
    }

    /// Why the replica that serves a transaction may not serve its next read; `None`: it may.
    pub(super) async fn outgrows(&mut self) -> Option<&'static str> {
        let attached = self.attached.as_mut()?;
        let (server, has) = (attached.server, attached.has);
        let run = attached.lease.upstream().map(|it| it.instance.run);
        let view = self.look();
        if view.primary.is_ok() && !view.replicas.contains(&server) {
            // It lags too far, or is set aside.
            return Some("behind");
        }
        let end = self.asked + self.listener.cluster.options.replica_wait;
        let floor = match self.listener.cluster.options.consistency {
            Consistency::Eventual => Lsn(0),
            Consistency::Session if self.freshness.is_met_by(&has) => Lsn(0),
            Consistency::Session => return Some("behind"),
            Consistency::Store => match self.stamp_now(&view, end).await {
                Some(floor) => floor,
                None => return Some("no-position"),
            },
        };
        let floor = floor.max(self.database.floor());
        if has >= floor {
            return None;
        }
        match reached(&*self.listener.cluster, server, &floor, end).await {
            Some(sample) if Some(sample.run) == run => {
                if let Some(attached) = &mut self.attached {
                    attached.has = sample.position;
                }
                None
            }
            _ => Some("behind"),
        }
    }
}
