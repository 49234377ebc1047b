//! Which server a read goes to.
//!
//! Not what a read is. Invariant: a replica is chosen only if it has replayed all that the session
//! may have seen, or all that anybody was told, as the cluster's consistency asks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use breccia_net::clock;

use super::attached::Attached;
use super::previous::Knower;
use super::session::Session;
use crate::consistency::Consistency;
use crate::freshness::{Home, LEAST_LOOK, Need, Position as _, SETTLED_FOR};
use crate::mysql::class::{Class, Verdict};
use crate::mysql::cluster::{Server, View};
use crate::mysql::gtid::Gtids;
use crate::sampler::{self, Ticket};

/// The pause between two looks for a replica, where no primary could serve a read.
const LOOK_PAUSE: Duration = Duration::from_millis(1);
/// The shortest time that such a read waits for a replica.
const ALONE_WAIT: Duration = Duration::from_millis(100);

/// A statement asks about the one before, and goes where that ran.
pub(super) const PREVIOUS: &str = "previous";
/// A READ ONLY transaction runs on a replica.
pub(super) const READ_ONLY: &str = "read-only";

/// What is asked of a cursor, or of data, that a replica has since a READ ONLY transaction there.
pub(super) const CURSOR_AWAY: Class = Class::Primary("cursor-on-replica");

/// Where a statement goes, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) server: usize,
    pub(super) replica: bool,
    pub(super) reason: &'static str,
    /// What is believed of a replica, and must still be so.
    pub(super) proof: Option<Proof>,
}

/// What is believed of a replica: see [`Server::replayed`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proof {
    /// A connection older than this shows that it is still so.
    pub(super) asked: Instant,
    /// What the replica must have replayed; none if only the same run of it will do.
    pub(super) floor: Option<Gtids>,
    /// What it has replayed.
    pub(super) has: Gtids,
    /// Which run of it.
    pub(super) run: u64,
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

    /// The primary, whichever it is then.
    pub(super) fn primary(&mut self, reason: &'static str) -> Place {
        let view = self.look();
        Place {
            server: view.primary.clone().unwrap_or(usize::MAX),
            replica: false,
            reason,
            proof: None,
        }
    }

    /// Where a statement goes.
    pub(super) async fn place(&mut self, verdict: &Verdict) -> Place {
        // What ends a transaction is for the server that has it.
        let free = self.home.as_deref().is_none_or(Attached::is_free);
        let ends = matches!(verdict.class, Class::Commit | Class::Rollback) && free;
        let follows = if verdict.asked.anything() {
            self.knower(verdict) == Some(Knower::Away)
        } else {
            // One that chains begins the next transaction, which is for the primary.
            ends && self.ends_alone() && self.away.as_ref().is_some_and(|it| it.latest)
        };
        if let Some(away) = self.away.as_ref().filter(|_| follows) {
            return Place {
                server: away.server,
                replica: true,
                reason: PREVIOUS,
                proof: None,
            };
        }
        // A READ ONLY transaction stays where it began, whatever is said in it.
        let there = |away: &&Attached| away.in_transaction() || verdict.class == CURSOR_AWAY;
        if let Some(away) = self.away.as_deref().filter(there) {
            return Place {
                server: away.server,
                replica: true,
                reason: READ_ONLY,
                proof: None,
            };
        }
        if let Some(reason) = self.must_be_primary(verdict) {
            return self.primary(reason);
        }
        if let Some(place) = self.place_at_home() {
            return if self.is_settled() {
                place
            } else {
                self.look_elsewhere(place).await
            };
        }
        self.place_anew(verdict).await
    }

    /// The same for one that came to nothing where the session was last: there may only be connections
    /// that were made since, of which nothing is known. So it is asked what they have.
    pub(super) async fn place_anew(&mut self, verdict: &Verdict) -> Place {
        if let Some(reason) = self.must_be_primary(verdict) {
            return self.primary(reason);
        }
        match self.place_somewhere().await {
            Ok(place) => place,
            Err(reason) => self.primary(reason),
        }
    }

    /// Why a statement must go to the primary, as far as that is known without asking anybody.
    fn must_be_primary(&mut self, verdict: &Verdict) -> Option<&'static str> {
        if let Some(reason) = self.pinned {
            return Some(reason);
        }
        if self.home.as_ref().is_some_and(|home| !home.is_free()) {
            return Some("transaction");
        }
        if self.away.as_ref().is_some_and(|away| !away.is_free()) {
            // Another replica would take the place of the one whose cursor is open.
            return Some("cursor");
        }
        match &verdict.class {
            Class::Read => {}
            Class::Primary(reason) | Class::Pin(reason) => return Some(reason),
            Class::Ddl => return Some("ddl"),
            Class::Begin { .. } | Class::Commit | Class::Rollback => return Some("transaction"),
            Class::Set | Class::SetAutocommit(_) | Class::Use(_) => {
                let shown = verdict.single && verdict.untold.is_empty();
                if !shown || self.primary_answers() {
                    return Some("set");
                }
                // Any server tells what a setting is now: who comes while there is no primary can read.
            }
            _ => return Some("write"),
        }
        if verdict.hint_primary {
            return Some("hint");
        }
        if self.asks_late > 0 {
            return Some(PREVIOUS);
        }
        if self.next.is_some() && self.begun.is_none() {
            return Some("isolation");
        }
        if self.begun.is_none() && !self.autocommits() && !self.is_lazy() {
            return Some("transaction");
        }
        if self
            .begun
            .as_ref()
            .is_some_and(|begun| begun.sql.is_some() && !begun.read_only)
            && !self.is_lazy()
        {
            return Some("transaction");
        }
        if (self.begun.is_some() || !self.autocommits()) && verdict.uses_now {
            return Some("now");
        }
        None
    }

    /// Whether reads at the beginning of a transaction may go to replicas: under READ COMMITTED, where
    /// each statement sees what is committed when it begins.
    pub(super) fn is_lazy(&self) -> bool {
        self.listener.cluster.options.lazy && self.is_read_committed()
    }

    /// Whether the transaction that is open, or the next one, is READ COMMITTED.
    pub(super) fn is_read_committed(&self) -> bool {
        if let Some(next) = &self.next {
            let text = String::from_utf8_lossy(next).to_ascii_uppercase();
            if text.contains("ISOLATION") {
                return text
                    .split_whitespace()
                    .collect::<Vec<_>>()
                    .join(" ")
                    .contains("READ COMMITTED");
            }
        }
        self.settings.is_read_committed(&self.base)
    }

    /// The replica that served this session last, if it may serve a read without being asked.
    fn place_at_home(&mut self) -> Option<Place> {
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
    fn is_settled(&self) -> bool {
        self.asked.saturating_duration_since(self.settled) < SETTLED_FOR
    }

    /// The place for a read after a session was long at `home`: there, or on another replica.
    async fn look_elsewhere(&mut self, home: Place) -> Place {
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
        let end = clock::now() + cluster.options.replica_wait.max(LEAST_LOOK);
        let samplers = (
            &cluster.server(from)?.sampler,
            &cluster.server(other)?.sampler,
        );
        let least = || cluster.catalogue_floor();
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
    async fn place_read(&mut self, from: Instant) -> Result<Place, &'static str> {
        let view = self.look();
        if view.replicas.is_empty() {
            return Err("no-replica");
        }
        let end = from + self.patience(&view);
        let (mut floor, home) = self.floor(&view, end).await?;
        // What the verdict rests on must be so on the replica too.
        floor.raise(&self.listener.cluster.catalogue_floor());
        if let Some(home) = home {
            floor.raise(&self.leave_home(&home, &view, end).await?);
        }
        self.settled = self.asked;
        self.wait_for(&view, &floor, end).await
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

    /// Whether there is a primary that may answer now.
    fn primary_answers(&mut self) -> bool {
        let view = self.look();
        let held = |it: &usize| self.listener.cluster.gates().holds_back(*it);
        self.has_primary(&view) && !view.primary.as_ref().is_ok_and(held)
    }

    /// Whether there is a primary that may answer.
    pub(super) fn has_primary(&self, view: &View) -> bool {
        let primary = view.primary.as_ref().ok();
        let server = primary.and_then(|it| self.listener.cluster.server(*it));
        server.is_some_and(|server| server.options.health.is_up())
    }

    /// A replica for a read, and where there is no primary, once there is one for as long as the queue
    /// allows; `Err`: why it must be the primary.
    async fn place_somewhere(&mut self) -> Result<Place, &'static str> {
        let mut from = self.asked;
        let end = from + self.listener.limits.pool.queue_timeout();
        loop {
            let place = self.place_read(from).await;
            let view = self.look();
            let may_come = matches!(place, Err("behind" | "replica-lost"));
            if !may_come || self.has_primary(&view) || clock::now() >= end {
                return place;
            }
            tokio::time::sleep(LOOK_PAUSE).await;
            // The next look has its own time; what the client waits for is bounded by `end`.
            from = clock::now();
        }
    }

    /// What a read may not be older than, and the replica that served last.
    async fn floor(
        &mut self,
        view: &View,
        end: Instant,
    ) -> Result<(Gtids, Option<Home<Gtids>>), &'static str> {
        Ok(match self.listener.cluster.options.consistency {
            Consistency::Eventual => (Gtids::default(), None),
            Consistency::Store => (self.stamp_now(view, end).await.ok_or("no-position")?, None),
            Consistency::Session => match self.freshness.need(view.epoch, &view.first) {
                Need::Primary => return Err("foreign-token"),
                Need::Stamp => {
                    let mut stamp = match self.stamp(view, end).await {
                        Some(stamp) => stamp,
                        None => self.stamp_of_home(view, end).await.ok_or("no-position")?,
                    };
                    // A token may have told of more.
                    stamp.raise(self.freshness.floor());
                    (stamp, None)
                }
                Need::Floor { floor, home } => {
                    self.freshness.follow(view.epoch, &view.first);
                    (floor, home)
                }
            },
        })
    }

    /// What the replica that served last has applied, if that is enough. It has come to where the
    /// session stands; what the verdict rests on may be newer.
    fn home_has(&self, home: &Home<Gtids>) -> Option<Gtids> {
        let cluster = &self.listener.cluster;
        if cluster.has_catalogue(&home.has) {
            return Some(home.has.clone());
        }
        let known = cluster.server(home.server)?.replayed()?;
        let fits = known.run == home.run && cluster.has_catalogue(&known.position);
        fits.then_some(known.position)
    }

    /// What was read on a replica must not be unread elsewhere: how far was it at most?
    async fn leave_home(
        &mut self,
        home: &Home<Gtids>,
        view: &View,
        end: Instant,
    ) -> Result<Gtids, &'static str> {
        let cluster = Arc::clone(&self.listener.cluster);
        let server = cluster.server(home.server);
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
    pub(super) async fn stamp(&mut self, view: &View, end: Instant) -> Option<Gtids> {
        let primary = *view.primary.as_ref().ok()?;
        let known = self.freshness.question();
        let ticket = match known.filter(|known| known.server == primary) {
            Some(known) => Ticket(known.number),
            None => self.listener.cluster.server(primary)?.sampler.ticket(),
        };
        self.stamp_of(view, ticket, end).await
    }

    /// A position of the primary that is asked for from now on.
    async fn stamp_now(&mut self, view: &View, end: Instant) -> Option<Gtids> {
        let primary = *view.primary.as_ref().ok()?;
        let ticket = self.listener.cluster.server(primary)?.sampler.ticket();
        self.stamp_of(view, ticket, end).await
    }

    async fn stamp_of(&mut self, view: &View, ticket: Ticket, end: Instant) -> Option<Gtids> {
        let primary = *view.primary.as_ref().ok()?;
        let cluster = Arc::clone(&self.listener.cluster);
        let sample = cluster.server(primary)?.sampler.wait(ticket, end).await?;
        if sample.replica || self.look().epoch != view.epoch {
            return None;
        }
        self.freshness.stamped(view.epoch, &sample.position);
        Some(sample.position)
    }

    /// Without a primary: how far a session has seen that read last on a replica, before there was
    /// another primary.
    async fn stamp_of_home(&mut self, view: &View, end: Instant) -> Option<Gtids> {
        let home = self.freshness.home_before(view.epoch)?.clone();
        let cluster = Arc::clone(&self.listener.cluster);
        let sampler = &cluster.server(home.server)?.sampler;
        let sample = sampler.from_now(end).await?;
        if !sample.ran_since(home.last, home.run) {
            return None;
        }
        let mut floor = view.first.clone();
        floor.raise(&sample.seen);
        self.freshness.stamped(view.epoch, &floor);
        Some(floor)
    }

    /// Whether a run of a replica has replayed `floor`, asked from now on.
    pub(super) async fn still_has(&self, server: usize, floor: &Gtids, run: u64) -> bool {
        let end = clock::now() + self.listener.cluster.options.replica_wait;
        let reached = self.listener.cluster.reached(server, floor, end).await;
        reached.is_some_and(|sample| sample.run == run)
    }

    /// Whether that run of a replica was there when it was asked, and has not ended since: what it has
    /// shown it goes on showing, over a connection made meanwhile, too.
    pub(super) async fn ran_on(&self, server: usize, proof: &Proof) -> bool {
        let cluster = &self.listener.cluster;
        let Some(server) = cluster.server(server) else {
            return false;
        };
        let end = clock::now() + self.patience(&self.view);
        let sample = server.sampler.from_now(end).await;
        sample.is_some_and(|it| it.replica && it.ran_since(proof.asked, proof.run))
    }

    /// A replica that has replayed `floor`, now or by `end`.
    async fn wait_for(
        &self,
        view: &View,
        floor: &Gtids,
        end: Instant,
    ) -> Result<Place, &'static str> {
        let cluster = &self.listener.cluster;
        let replayed = |server: usize| {
            let known = cluster.server(server).and_then(Server::replayed);
            known.filter(|known| known.position.covers(floor))
        };
        let proof = |asked, has, run| Proof {
            asked,
            floor: Some(floor.clone()),
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
        let sample = cluster
            .reached(candidate, floor, end)
            .await
            .ok_or("behind")?;
        let (position, run) = (sample.position, sample.run);
        let proof = sample.at.map(|asked| proof(asked, position, run));
        Ok(found(candidate, proof))
    }
}

/// Whether a statement that asks about the one before changes something, too.
pub(super) fn changes(class: &Class) -> bool {
    matches!(
        class,
        Class::Pin(_) | Class::Set | Class::Ddl | Class::Primary("write")
    )
}

fn found(server: usize, proof: Option<Proof>) -> Place {
    Place {
        server,
        replica: true,
        reason: "read",
        proof,
    }
}
