//! Which server a read goes to.
//!
//! Not what a read is. Invariant: a replica is chosen only if it has replayed all that the session
//! may have seen, or all that anybody was told, as the cluster's consistency asks.

use std::time::{Duration, Instant};

use breccia_net::clock;

use super::session::Session;
use crate::postgres::cluster::election::View;
use crate::postgres::cluster::{Consistency, Server};
use crate::token::{Lsn, Need};

/// The pause between two looks at a replica that is not there yet.
const LOOK_PAUSE: Duration = Duration::from_micros(500);

/// Where a statement goes, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) server: usize,
    pub(super) replica: bool,
    pub(super) reason: &'static str,
    /// What is believed of a replica, and must still be so.
    pub(super) proof: Option<Proof>,
}

/// What is believed of a replica: see [`Server::replayed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Proof {
    /// A connection older than this shows that it is still so.
    pub(super) asked: Instant,
    /// What the replica must have replayed; none if only the same run of it will do.
    pub(super) floor: Option<Lsn>,
}

impl Session {
    /// The view in force.
    pub(super) fn look(&mut self) -> std::sync::Arc<View> {
        let version = self.listener.cluster.version();
        if version != self.view_version {
            self.view = self.listener.cluster.view();
            self.view_version = version;
        }
        std::sync::Arc::clone(&self.view)
    }

    /// The server a read goes to; `Err`: why it must be the primary.
    pub(super) async fn place_read(&mut self) -> Result<Place, &'static str> {
        let view = self.look();
        if view.replicas.is_empty() {
            return Err("no-replica");
        }
        let end = self.asked + self.listener.cluster.options.replica_wait;
        let (floor, home) = match self.listener.cluster.options.consistency {
            Consistency::Eventual => (Lsn(0), None),
            Consistency::Store => (self.stamp(&view, end).await.ok_or("no-position")?, None),
            Consistency::Session => match self.freshness.need(view.epoch, view.first) {
                Need::Primary => return Err("foreign-token"),
                Need::Stamp => (self.stamp(&view, end).await.ok_or("no-position")?, None),
                Need::Floor { floor, home } => {
                    self.freshness.follow(view.epoch, view.first);
                    (floor, home)
                }
            },
        };
        let cluster = &self.listener.cluster;
        let found = |(server, proof)| Place {
            server,
            replica: true,
            reason: "read",
            proof,
        };
        let at = |floor| {
            move |(server, asked): (usize, Option<Instant>)| {
                let proof = asked.map(|asked| Proof {
                    asked,
                    floor: Some(floor),
                });
                found((server, proof))
            }
        };
        if let Some((home, last)) = home {
            if cluster.choose(&view, |server| server == home).is_some() {
                let proof = Proof {
                    asked: last,
                    floor: None,
                };
                return Ok(found((home, Some(proof))));
            }
            // What was read there must not be unread elsewhere: how far was it?
            let sampler = cluster.server(home).map(|it| &it.sampler);
            let sampler = sampler.ok_or("no-position")?;
            let sample = sampler
                .wait(sampler.ask(), end)
                .await
                .ok_or("replica-lost")?;
            self.freshness.left_home(sample.seen);
            let floor = floor.max(sample.seen);
            return self.wait_for(&view, floor, end).await.map(at(floor));
        }
        self.wait_for(&view, floor, end).await.map(at(floor))
    }

    /// A position of the primary that is asked for from now on; the session's floor is there then.
    pub(super) async fn stamp(&mut self, view: &View, end: Instant) -> Option<Lsn> {
        let primary = *view.primary.as_ref().ok()?;
        let sampler = &self.listener.cluster.server(primary)?.sampler;
        let sample = sampler.wait(sampler.ask(), end).await?;
        if sample.recovery || self.look().epoch != view.epoch {
            return None;
        }
        self.freshness.stamped(view.epoch, sample.position);
        Some(sample.position)
    }

    /// Whether a replica has replayed `floor`, asked from now on.
    pub(super) async fn still_has(&self, server: usize, floor: Lsn) -> bool {
        let end = clock::now() + self.listener.cluster.options.replica_wait;
        let Some(server) = self.listener.cluster.server(server) else {
            return false;
        };
        let sampled = server.sampler.wait(server.sampler.ask(), end).await;
        sampled.is_some_and(|sample| sample.recovery && sample.position >= floor)
    }

    /// A replica that has replayed `floor`, now or by `end`, and when it was asked.
    async fn wait_for(
        &self,
        view: &View,
        floor: Lsn,
        end: Instant,
    ) -> Result<(usize, Option<Instant>), &'static str> {
        let cluster = &self.listener.cluster;
        if floor == Lsn(0) {
            let any = cluster.choose(view, |_| true).ok_or("no-replica")?;
            return Ok((any, None));
        }
        let replayed = |server: usize| cluster.server(server).and_then(Server::replayed);
        let has = |server: usize| replayed(server).is_some_and(|(at, _)| at >= floor);
        if let Some(server) = cluster.choose(view, has)
            && let Some((at, asked)) = replayed(server)
            && at >= floor
        {
            return Ok((server, Some(asked)));
        }
        let candidate = cluster.choose(view, |_| true).ok_or("no-replica")?;
        let sampler = &cluster.server(candidate).ok_or("no-replica")?.sampler;
        loop {
            let Some(sample) = sampler.wait(sampler.ask(), end).await else {
                return Err("behind");
            };
            if sample.recovery && sample.position >= floor {
                return Ok((candidate, sample.at));
            }
            if clock::now() + LOOK_PAUSE >= end {
                return Err("behind");
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }
}
