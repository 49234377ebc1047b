//! Which replica a read goes to, whichever protocol the servers speak.
//!
//! Not what a read is. Invariant: a replica is chosen only if it has replayed all that the session may
//! have seen, or all that anybody was told, as the cluster's consistency asks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use breccia_net::clock;

use crate::consistency::Consistency;
use crate::freshness::{Freshness, Home, LEAST_LOOK, Need, Position, Question, SETTLED_FOR};
use crate::members::{Member, Members, Others};
use crate::sampler::{self, Replayed, Sample, Ticket};

/// The pause between two looks at replicas that are not there yet.
const LOOK_PAUSE: Duration = Duration::from_micros(500);
/// The shortest time that a read waits for a replica where no primary could serve it.
const ALONE_WAIT: Duration = Duration::from_millis(100);

/// Where a statement goes, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place<P> {
    pub(crate) server: usize,
    pub(crate) replica: bool,
    pub(crate) reason: &'static str,
    /// What is believed of a replica, and must still be so.
    pub(crate) proof: Option<Proof<P>>,
}

/// What is believed of a replica: see [`Replayed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Proof<P> {
    /// A connection older than this shows that it is still so.
    pub(crate) asked: Instant,
    /// What the replica must have replayed; none if only the same run of it will do.
    pub(crate) floor: Option<P>,
    /// What it has replayed.
    pub(crate) has: P,
    /// Which run of it.
    pub(crate) run: u64,
}

impl<P> Proof<P> {
    /// Whether a connection made at `born`, to this run of the server, shows that it is still so.
    pub(crate) fn is_shown_by(&self, born: Instant, run: u64) -> bool {
        born < self.asked && run == self.run
    }
}

/// A view of a cluster.
pub(crate) trait Sight {
    /// How far a server has come.
    type Position: Position;

    /// The reign of one primary.
    fn epoch(&self) -> u64;

    /// Where the primary stood when it was first seen in this epoch.
    fn first(&self) -> &Self::Position;

    /// The primary, if there is one.
    fn primary(&self) -> Option<usize>;

    /// The servers that are none.
    fn others(&self) -> Others<'_>;
}

/// A cluster whose replicas may be chosen.
pub(crate) trait Replicas {
    /// How far a server has come.
    type Position: Position;
    /// What is known of all servers at one moment.
    type View: Sight<Position = Self::Position>;
    /// A server.
    type Server: Member<Position = Self::Position>;

    /// All of them.
    fn members(&self) -> Members<'_, Self::Server>;

    /// How fresh a read must be, and how long it may wait for a replica.
    fn promise(&self) -> (Consistency, Duration);

    /// The server of a number.
    fn server_of(&self, number: usize) -> Option<&Self::Server>;
}

type Of<S> = <<S as Seeker>::Cluster as Replicas>::Position;
type ViewOf<S> = <<S as Seeker>::Cluster as Replicas>::View;

/// A session that looks for a replica.
pub(crate) trait Seeker {
    /// Where it looks.
    type Cluster: Replicas;

    /// See above.
    fn cluster(&self) -> &Arc<Self::Cluster>;

    /// The view in force.
    fn look(&mut self) -> Arc<ViewOf<Self>>;

    /// What it has seen and written.
    fn freshness(&mut self) -> &mut Freshness<Of<Self>>;

    /// The question whose answer tells how far it has seen on the primary, if one is known.
    fn question(&mut self) -> Option<Question>;

    /// What the verdicts of its statements rest on: a replica must have replayed it.
    fn least(&self) -> Of<Self>;

    /// Whether a replica that has replayed `has` has come to [`Self::least`].
    fn shows_least(&self, has: &Of<Self>) -> bool;

    /// When the statement arrived.
    fn asked(&self) -> Instant;

    /// When the replica that serves its reads was chosen.
    fn settled(&mut self) -> &mut Instant;

    /// How long a statement may wait where no server can take it.
    fn queue_timeout(&self) -> Duration;

    /// The replica that served this session last, if it may serve a read without being asked.
    fn place_at_home(&mut self) -> Option<Place<Of<Self>>> {
        let view = self.look();
        if self.cluster().promise().0 != Consistency::Session {
            return None;
        }
        let need = self.freshness().need(view.epoch(), view.first());
        let Need::Floor {
            home: Some(home), ..
        } = need
        else {
            return None;
        };
        let members = self.cluster().members();
        if !members.may_serve(view.others(), home.server) {
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

    /// What the replica that served last has replayed, if that is enough. It has come to where the
    /// session stands; what the verdict rests on may be newer.
    fn home_has(&self, home: &Home<Of<Self>>) -> Option<Of<Self>> {
        if self.shows_least(&home.has) {
            return Some(home.has.clone());
        }
        let known = self.cluster().server_of(home.server)?.replayed()?;
        let fits = known.run == home.run && self.shows_least(&known.position);
        fits.then_some(known.position)
    }

    /// Whether the replica that serves this session was chosen not long ago.
    fn is_settled(&mut self) -> bool {
        let since = *self.settled();
        self.asked().saturating_duration_since(since) < SETTLED_FOR
    }

    /// The place for a read after a session was long at `home`: there, or on another replica.
    async fn look_elsewhere(&mut self, home: Place<Of<Self>>) -> Place<Of<Self>> {
        *self.settled() = self.asked();
        self.place_elsewhere(home.server).await.unwrap_or(home)
    }

    /// Another replica than the session's home, if one is chosen that has come as far.
    async fn place_elsewhere(&mut self, from: usize) -> Option<Place<Of<Self>>> {
        let view = self.look();
        let cluster = Arc::clone(self.cluster());
        let other = cluster.members().choose(view.others(), |_| true);
        let other = other.filter(|it| *it != from)?;
        let need = self.freshness().need(view.epoch(), view.first());
        let Need::Floor { floor, home } = need else {
            return None;
        };
        let home = home.filter(|home| home.server == from)?;
        let end = clock::now() + cluster.promise().1.max(LEAST_LOOK);
        let samplers = (
            cluster.server_of(from)?.sampler(),
            cluster.server_of(other)?.sampler(),
        );
        let least = || self.least();
        let moved = sampler::leave(&home, samplers, floor, least, end).await?;
        let proof = Proof {
            asked: moved.there.at?,
            floor: Some(moved.floor),
            has: moved.there.position,
            run: moved.there.run,
        };
        self.freshness().left_home(&moved.seen);
        Some(found(other, Some(proof)))
    }

    /// A replica for a read, and where there is no primary, once there is one for as long as the queue
    /// allows; `Err`: why it must be the primary.
    async fn place_somewhere(&mut self) -> Result<Place<Of<Self>>, &'static str> {
        let mut from = self.asked();
        let end = from + self.queue_timeout();
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

    /// The server a read goes to that arrived at `from`, where that is not its home; `Err`: why it must
    /// be the primary.
    async fn place_read(&mut self, from: Instant) -> Result<Place<Of<Self>>, &'static str> {
        let view = self.look();
        if view.others().replicas.is_empty() {
            return Err("no-replica");
        }
        let end = from + self.patience(&view);
        let (mut floor, home) = self.floor(&view, end).await?;
        // What the verdict rests on must be so on the replica too.
        floor.raise(&self.least());
        if let Some(home) = home {
            floor.raise(&self.leave_home(&home, &view, end).await?);
        }
        *self.settled() = self.asked();
        self.wait_for(&view, &floor, end).await
    }

    /// How long a read waits for a replica. Without a primary there is nobody else, and who waits looks
    /// again after each such time.
    fn patience(&self, view: &ViewOf<Self>) -> Duration {
        let wait = self.cluster().promise().1;
        if self.has_primary(view) {
            wait
        } else {
            wait.max(ALONE_WAIT)
        }
    }

    /// Whether there is a primary that may answer.
    fn has_primary(&self, view: &ViewOf<Self>) -> bool {
        let server = view.primary().and_then(|it| self.cluster().server_of(it));
        server.is_some_and(|server| server.health().is_up())
    }

    /// What a read may not be older than, and the replica that served last.
    async fn floor(
        &mut self,
        view: &ViewOf<Self>,
        end: Instant,
    ) -> Result<(Of<Self>, Option<Home<Of<Self>>>), &'static str> {
        Ok(match self.cluster().promise().0 {
            Consistency::Eventual => (Of::<Self>::default(), None),
            Consistency::Store => (self.stamp_now(view, end).await.ok_or("no-position")?, None),
            Consistency::Session => {
                let need = self.freshness().need(view.epoch(), view.first());
                match need {
                    Need::Primary => return Err("foreign-token"),
                    Need::Stamp => {
                        let mut stamp = match self.stamp(view, end).await {
                            Some(stamp) => stamp,
                            None => self.stamp_of_home(view, end).await.ok_or("no-position")?,
                        };
                        // A token may have told of more.
                        stamp.raise(self.freshness().floor());
                        (stamp, None)
                    }
                    Need::Floor { floor, home } => {
                        self.freshness().follow(view.epoch(), view.first());
                        (floor, home)
                    }
                }
            }
        })
    }

    /// What was read on a replica must not be unread elsewhere: how far was it at most?
    async fn leave_home(
        &mut self,
        home: &Home<Of<Self>>,
        view: &ViewOf<Self>,
        end: Instant,
    ) -> Result<Of<Self>, &'static str> {
        let cluster = Arc::clone(self.cluster());
        let server = cluster.server_of(home.server).ok_or("no-position")?;
        let sample = server.sampler().from_now(end).await;
        let sample = sample.ok_or("replica-lost")?;
        if sample.ran_since(home.last, home.run) {
            self.freshness().left_home(&sample.seen);
            return Ok(sample.seen);
        }
        // It was started again since, or is another one of that name: the primary knows it all.
        self.freshness().used_primary(None);
        self.stamp(view, end).await.ok_or("no-position")
    }

    /// A position of the primary behind all that this session has seen there; its floor is there then.
    async fn stamp(&mut self, view: &ViewOf<Self>, end: Instant) -> Option<Of<Self>> {
        let primary = view.primary()?;
        let known = self.question();
        let ticket = match known.filter(|known| known.server == primary) {
            Some(known) => Ticket(known.number),
            None => self.cluster().server_of(primary)?.sampler().ticket(),
        };
        self.stamp_of(view, ticket, end).await
    }

    /// A position of the primary that is asked for from now on.
    async fn stamp_now(&mut self, view: &ViewOf<Self>, end: Instant) -> Option<Of<Self>> {
        let primary = view.primary()?;
        let ticket = self.cluster().server_of(primary)?.sampler().ticket();
        self.stamp_of(view, ticket, end).await
    }

    /// The position of the primary that a ticket is for.
    async fn stamp_of(
        &mut self,
        view: &ViewOf<Self>,
        ticket: Ticket,
        end: Instant,
    ) -> Option<Of<Self>> {
        let primary = view.primary()?;
        let cluster = Arc::clone(self.cluster());
        let sampler = cluster.server_of(primary)?.sampler();
        let sample = sampler.wait(ticket, end).await?;
        if sample.replica || self.look().epoch() != view.epoch() {
            return None;
        }
        self.freshness().stamped(view.epoch(), &sample.position);
        Some(sample.position)
    }

    /// Without a primary: how far a session has seen that read last on a replica, before there was
    /// another primary.
    async fn stamp_of_home(&mut self, view: &ViewOf<Self>, end: Instant) -> Option<Of<Self>> {
        let home = self.freshness().home_before(view.epoch())?.clone();
        let cluster = Arc::clone(self.cluster());
        let sampler = cluster.server_of(home.server)?.sampler();
        let sample = sampler.from_now(end).await?;
        if !sample.ran_since(home.last, home.run) {
            return None;
        }
        let mut floor = view.first().clone();
        floor.raise(&sample.seen);
        self.freshness().stamped(view.epoch(), &floor);
        Some(floor)
    }

    /// A replica that has replayed `floor`, now or by `end`.
    async fn wait_for(
        &self,
        view: &ViewOf<Self>,
        floor: &Of<Self>,
        end: Instant,
    ) -> Result<Place<Of<Self>>, &'static str> {
        let cluster = self.cluster();
        let replayed = |server: usize| {
            let known = cluster.server_of(server).and_then(Member::replayed);
            known.filter(|known| known.position.covers(floor))
        };
        let proof = |known: Replayed<Of<Self>>| Proof {
            asked: known.asked,
            floor: Some(floor.clone()),
            has: known.position,
            run: known.run,
        };
        let members = cluster.members();
        if let Some(server) = members.choose(view.others(), |server| replayed(server).is_some())
            && let Some(known) = replayed(server)
        {
            return Ok(found(server, Some(proof(known))));
        }
        let candidate = members
            .choose(view.others(), |_| true)
            .ok_or("no-replica")?;
        let sample = reached(&**cluster, candidate, floor, end).await;
        let known = sample.ok_or("behind")?.replayed();
        Ok(found(candidate, known.map(proof)))
    }

    /// Whether what is believed of a replica holds on a connection made at `born`, to this run of it.
    async fn still_holds(
        &mut self,
        server: usize,
        proof: &Proof<Of<Self>>,
        (born, run): (Instant, u64),
    ) -> bool {
        if proof.is_shown_by(born, run) {
            return true;
        }
        match &proof.floor {
            // The server may have started again since it was asked, or it was another one. Once more.
            Some(floor) => {
                let end = clock::now() + self.cluster().promise().1;
                let reached = reached(&**self.cluster(), server, floor, end).await;
                reached.is_some_and(|sample| sample.run == run)
            }
            None => run == proof.run && self.ran_on(server, proof).await,
        }
    }

    /// Whether that run of a replica was there when it was asked, and has not ended since: what it has
    /// shown it goes on showing, over a connection made meanwhile, too.
    async fn ran_on(&mut self, server: usize, proof: &Proof<Of<Self>>) -> bool {
        let view = self.look();
        let end = clock::now() + self.patience(&view);
        let Some(server) = self.cluster().server_of(server) else {
            return false;
        };
        let sample = server.sampler().from_now(end).await;
        sample.is_some_and(|it| it.replica && it.ran_since(proof.asked, proof.run))
    }
}

/// What a replica says once it has replayed `floor`, if it does by `end`; asked from now on.
pub(crate) async fn reached<C: Replicas>(
    cluster: &C,
    server: usize,
    floor: &C::Position,
    end: Instant,
) -> Option<Sample<C::Position>> {
    let sampler = cluster.server_of(server)?.sampler();
    loop {
        let sample = sampler.from_now(end).await?;
        if sample.replica && sample.position.covers(floor) {
            return Some(sample);
        }
        if clock::now() + LOOK_PAUSE >= end {
            return None;
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

fn found<P>(server: usize, proof: Option<Proof<P>>) -> Place<P> {
    Place {
        server,
        replica: true,
        reason: "read",
        proof,
    }
}
