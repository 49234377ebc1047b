//! Which server a read goes to.
//!
//! Not what a read is. Invariant: a replica is chosen only if it has replayed all that the session
//! may have seen, or all that anybody was told, as the cluster's consistency asks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use breccia_net::clock;

use super::session::Session;
use crate::freshness::{LEAST_LOOK, SETTLED_FOR};
use crate::postgres::cluster::election::View;
use crate::postgres::cluster::{Consistency, Server};
use crate::postgres::token::{Home, Lsn, Need};
use crate::sampler::{self, Sample, Ticket};

/// The pause between two looks at a replica that is not there yet.
const LOOK_PAUSE: Duration = Duration::from_micros(500);
/// The shortest time that a read waits for a replica where no primary could serve it.
const ALONE_WAIT: Duration = Duration::from_millis(100);

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
    /// What it has replayed.
    pub(super) has: Lsn,
    /// Which run of it.
    pub(super) run: u64,
}

impl Proof {
    /// Whether a connection made at `born`, to this run of the server, shows that it is still so.
    pub(super) fn is_shown_by(&self, born: Instant, run: u64) -> bool {
        born < self.asked && run == self.run
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

    /// The replica that served this session last, if it may serve a read without being asked.
    pub(super) fn place_at_home(&mut self) -> Option<Place> {
        let view = self.look();
        if self.listener.cluster.options.consistency != Consistency::Session {
            return None;
        }
        let Need::Floor {
            home: Some(home), ..
        } = self.freshness.need(view.epoch, &view.first)
        else {
            return None;
        };
        if !self.listener.cluster.may_serve(&view, home.server) {
            return None;
        }
        let proof = Proof {
            asked: home.last,
            floor: None,
            has: self.home_has(&home)?,
            run: home.run,
        };
        Some(found(home.server, Some(proof)))
    }

    /// Whether the replica that serves this session was chosen not long ago.
    pub(super) fn is_settled(&self) -> bool {
        self.asked.saturating_duration_since(self.settled) < SETTLED_FOR
    }

    /// The place for a read after a session was long at `home`: there, or on another replica.
    pub(super) async fn look_elsewhere(&mut self, home: Place) -> Place {
        self.settled = self.asked;
        self.place_elsewhere(home.server).await.unwrap_or(home)
    }

    /// Another replica than the session's home, if one is chosen that has come as far.
    async fn place_elsewhere(&mut self, from: usize) -> Option<Place> {
        let view = self.look();
        let cluster = Arc::clone(&self.listener.cluster);
        let other = cluster.choose(&view, |_| true).filter(|it| *it != from)?;
        let Need::Floor { floor, home } = self.freshness.need(view.epoch, &view.first) else {
            return None;
        };
        let home = home.filter(|home| home.server == from)?;
        let end = self.asked + cluster.options.replica_wait.max(LEAST_LOOK);
        let samplers = (
            &cluster.server(from)?.sampler,
            &cluster.server(other)?.sampler,
        );
        let least = || self.database.floor();
        let moved = sampler::leave(&home, samplers, floor, least, end).await?;
        let proof = Proof {
            asked: moved.there.at?,
            floor: Some(moved.floor),
            has: moved.there.position,
            run: moved.there.run,
        };
        self.freshness.left_home(&moved.seen);
        Some(found(other, Some(proof)))
    }

    /// The server a read goes to, where that is not its home; `Err`: why it must be the primary.
    pub(super) async fn place_read(&mut self) -> Result<Place, &'static str> {
        let view = self.look();
        if view.replicas.is_empty() {
            return Err("no-replica");
        }
        let end = self.asked + self.patience(&view);
        let (floor, home) = self.floor(&view, end).await?;
        // What the verdict rests on must be so on the replica too.
        let mut floor = floor.max(self.database.floor());
        if let Some(home) = home {
            floor = floor.max(self.leave_home(&home, &view, end).await?);
        }
        self.settled = self.asked;
        self.wait_for(&view, floor, end).await
    }

    /// How long a read waits for a replica. Without a primary there is nobody else, and who waits looks
    /// again after each such time.
    fn patience(&self, view: &View) -> Duration {
        let wait = self.listener.cluster.options.replica_wait;
        if self.has_primary(view) {
            wait
        } else {
            wait.max(ALONE_WAIT)
        }
    }

    /// Whether there is a primary that may answer.
    fn has_primary(&self, view: &View) -> bool {
        let primary = view.primary.as_ref().ok();
        let server = primary.and_then(|it| self.listener.cluster.server(*it));
        server.is_some_and(|server| server.options.health.is_up())
    }

    /// A replica for a read, and where there is no primary, once there is one for as long as the queue
    /// allows; `Err`: why it must be the primary.
    pub(super) async fn place_somewhere(&mut self) -> Result<Place, &'static str> {
        let end = self.asked + self.listener.limits.pool.queue_timeout();
        loop {
            let place = self.place_read().await;
            let view = self.look();
            let may_come = matches!(place, Err("behind" | "replica-lost"));
            if !may_come || self.has_primary(&view) || clock::now() >= end {
                return place;
            }
            tokio::time::sleep(LOOK_PAUSE).await;
            // The next look has its own time; what the client waits for is bounded by `end`.
            self.asked = clock::now();
        }
    }

    /// What a read may not be older than, and the replica that served last.
    async fn floor(
        &mut self,
        view: &View,
        end: Instant,
    ) -> Result<(Lsn, Option<Home>), &'static str> {
        Ok(match self.listener.cluster.options.consistency {
            Consistency::Eventual => (Lsn(0), None),
            Consistency::Store => (self.stamp_now(view, end).await.ok_or("no-position")?, None),
            Consistency::Session => match self.freshness.need(view.epoch, &view.first) {
                Need::Primary => return Err("foreign-token"),
                Need::Stamp => {
                    let stamp = match self.stamp(view, end).await {
                        Some(stamp) => stamp,
                        None => self.stamp_of_home(view, end).await.ok_or("no-position")?,
                    };
                    // A token may have told of more.
                    (stamp.max(*self.freshness.floor()), None)
                }
                Need::Floor { floor, home } => {
                    self.freshness.follow(view.epoch, &view.first);
                    (floor, home)
                }
            },
        })
    }

    /// What the replica that served last has replayed, if that is enough. It has come to where the
    /// session stands; the catalogue may be newer.
    fn home_has(&self, home: &Home) -> Option<Lsn> {
        let least = self.database.floor();
        if home.has >= least {
            return Some(home.has);
        }
        let known = self.listener.cluster.server(home.server)?.replayed()?;
        (known.run == home.run && known.position >= least).then_some(known.position)
    }

    /// What was read on a replica must not be unread elsewhere: how far was it at most?
    async fn leave_home(
        &mut self,
        home: &Home,
        view: &View,
        end: Instant,
    ) -> Result<Lsn, &'static str> {
        let server = self.listener.cluster.server(home.server);
        let sampler = server.map(|it| &it.sampler).ok_or("no-position")?;
        let sample = sampler.from_now(end).await;
        let sample = sample.ok_or("replica-lost")?;
        if sample.ran_since(home.last, home.run) {
            self.freshness.left_home(&sample.seen);
            return Ok(sample.seen);
        }
        // It was started again since, or is another one of that name: the primary knows it all.
        self.freshness.used_primary(None);
        self.stamp(view, end).await.ok_or("no-position")
    }

    /// A position of the primary behind all that this session has seen there; its floor is there then.
    pub(super) async fn stamp(&mut self, view: &View, end: Instant) -> Option<Lsn> {
        let primary = *view.primary.as_ref().ok()?;
        // A transaction that is open there may have seen what came after the last question.
        let sees = self.attached.as_ref().is_some_and(|it| it.seen);
        let known = self.freshness.question().filter(|_| !sees);
        let ticket = match known.filter(|known| known.server == primary) {
            Some(known) => Ticket(known.number),
            None => self.listener.cluster.server(primary)?.sampler.ticket(),
        };
        self.stamp_of(view, ticket, end).await
    }

    /// A position of the primary that is asked for from now on.
    async fn stamp_now(&mut self, view: &View, end: Instant) -> Option<Lsn> {
        let primary = *view.primary.as_ref().ok()?;
        let ticket = self.listener.cluster.server(primary)?.sampler.ticket();
        self.stamp_of(view, ticket, end).await
    }

    async fn stamp_of(&mut self, view: &View, ticket: Ticket, end: Instant) -> Option<Lsn> {
        let primary = *view.primary.as_ref().ok()?;
        let sampler = &self.listener.cluster.server(primary)?.sampler;
        let sample = sampler.wait(ticket, end).await?;
        if sample.replica || self.look().epoch != view.epoch {
            return None;
        }
        self.freshness.stamped(view.epoch, &sample.position);
        Some(sample.position)
    }

    /// Without a primary: how far a session has seen that read last on a replica, before there was
    /// another primary.
    async fn stamp_of_home(&mut self, view: &View, end: Instant) -> Option<Lsn> {
        let home = *self.freshness.home_before(view.epoch)?;
        let sampler = &self.listener.cluster.server(home.server)?.sampler;
        let sample = sampler.from_now(end).await?;
        if !sample.ran_since(home.last, home.run) {
            return None;
        }
        let floor = view.first.max(sample.seen);
        self.freshness.stamped(view.epoch, &floor);
        Some(floor)
    }

    /// Whether a run of a replica has replayed `floor`, asked from now on.
    pub(super) async fn still_has(&self, server: usize, floor: Lsn, run: u64) -> bool {
        let end = clock::now() + self.listener.cluster.options.replica_wait;
        let reached = self.reached(server, floor, end).await;
        reached.is_some_and(|sample| sample.run == run)
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
        match self.reached(server, floor, end).await {
            Some(sample) if Some(sample.run) == run => {
                if let Some(attached) = &mut self.attached {
                    attached.has = sample.position;
                }
                None
            }
            _ => Some("behind"),
        }
    }

    /// Whether that run of a replica was there when it was asked, and has not ended since: what it has
    /// shown it goes on showing, over a connection made meanwhile, too.
    pub(super) async fn ran_on(&self, server: usize, proof: Proof) -> bool {
        let cluster = &self.listener.cluster;
        let Some(server) = cluster.server(server) else {
            return false;
        };
        let end = clock::now() + self.patience(&self.view);
        let sample = server.sampler.from_now(end).await;
        sample.is_some_and(|it| it.replica && it.ran_since(proof.asked, proof.run))
    }

    /// What a replica says once it has replayed `floor`, if it does by `end`; asked from now on.
    async fn reached(&self, server: usize, floor: Lsn, end: Instant) -> Option<Sample<Lsn>> {
        let sampler = &self.listener.cluster.server(server)?.sampler;
        loop {
            let sample = sampler.from_now(end).await?;
            if sample.replica && sample.position >= floor {
                return Some(sample);
            }
            if clock::now() + LOOK_PAUSE >= end {
                return None;
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// A replica that has replayed `floor`, now or by `end`.
    async fn wait_for(&self, view: &View, floor: Lsn, end: Instant) -> Result<Place, &'static str> {
        let cluster = &self.listener.cluster;
        let replayed = |server: usize| {
            let known = cluster.server(server).and_then(Server::replayed);
            known.filter(|known| known.position >= floor)
        };
        let proof = |asked, has, run| Proof {
            asked,
            floor: Some(floor),
            has,
            run,
        };
        if let Some(server) = cluster.choose(view, |server| replayed(server).is_some())
            && let Some(known) = replayed(server)
        {
            let proof = proof(known.asked, known.position, known.run);
            return Ok(found(server, Some(proof)));
        }
        let candidate = cluster.choose(view, |_| true).ok_or("no-replica")?;
        let sample = self.reached(candidate, floor, end).await.ok_or("behind")?;
        let proof = sample
            .at
            .map(|asked| proof(asked, sample.position, sample.run));
        Ok(found(candidate, proof))
    }
}

fn found(server: usize, proof: Option<Proof>) -> Place {
    Place {
        server,
        replica: true,
        reason: "read",
        proof,
    }
}
