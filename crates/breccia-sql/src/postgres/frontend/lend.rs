//! Taking a connection for a session, and giving it back.
//!
//! Not waiting for one's turn (`gate.rs`). Invariant: what a session sends to a connection runs under
//! the session's settings, or not at all.

use std::collections::BTreeSet;
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Instant;

use breccia_net::clock;

use super::attached::Attached;
use super::deposed::{deposed, is_left};
use super::expected::{Expected, Owed};
use super::looks::goes_down;
use super::route::Place;
use super::session::{Session, is_of_the_connection};
use crate::error::SqlError;
use crate::pause::Running;
use crate::placing::Seeker as _;
use crate::postgres::codec::message;
use crate::postgres::pool::{Lease, Pool};
use crate::postgres::token::Lsn;
use crate::postgres::upstream::Upstream;

/// How a transaction begins on a replica, whatever the client's words are: only such as are READ
/// COMMITTED come there.
const BEGIN_AWAY: &str = "BEGIN ISOLATION LEVEL READ COMMITTED, READ ONLY";

impl Session {
    /// Takes a connection and brings it to the session's settings. `false`: the connection does not
    /// show that its server still runs as it did when it was asked how far it is.
    pub(super) async fn attach(&mut self, place: Place) -> Result<bool, SqlError> {
        match self.attach_once(place).await {
            // What its last session has left there may end it.
            Err(error) if is_of_the_connection(&error) => self.attach_once(place).await,
            attached => attached,
        }
    }

    async fn attach_once(&mut self, place: Place) -> Result<bool, SqlError> {
        let (server, replica) = (place.server, place.replica);
        let pool = self.pool(server, replica)?;
        let mut lease = self.lend(&pool, place).await?;
        if self.is_deposed(place) {
            lease.give_back();
            return Err(deposed(&self.listener.cluster, server));
        }
        let running = Running::on(self.listener.cluster.gates(), server);
        if self.listener.cluster.gates().holds_back(server) {
            lease.give_back();
            return Err(self.paused(server));
        }
        let shown = lease.upstream().map(|it| (it.born, it.instance.run));
        if !self.still_fits(place, shown).await {
            lease.give_back();
            return Ok(false);
        }
        if let Some(upstream) = lease.upstream() {
            self.join(upstream);
            self.bring(server, &pool, upstream).await?;
            self.look_again(server, pool.endpoint(), upstream).await?;
        }
        self.enter(place, pool, lease, running);
        Ok(true)
    }

    /// The same where nothing has to be waited for: a connection lies idle that is at the session's
    /// settings, but perhaps for a name, and what is believed of its server holds. Most statements go
    /// this way.
    pub(super) fn attach_at_once(&mut self, place: Place) -> bool {
        if self.attached.is_some() || self.retell || !self.binds.is_empty() {
            return false;
        }
        let Ok(pool) = self.pool(place.server, place.replica) else {
            return false;
        };
        let Some(mut lease) = pool.lend_at_once() else {
            return false;
        };
        let running = Running::on(self.listener.cluster.gates(), place.server);
        let ready = lease.upstream().is_some_and(|upstream| {
            self.join(upstream);
            let (here, there) = (&self.settings, &upstream.applied);
            (Arc::ptr_eq(here, there) || here.differ_in_name(there))
                && place
                    .proof
                    .is_none_or(|proof| proof.is_shown_by(upstream.born, upstream.instance.run))
        });
        if !ready || self.listener.cluster.gates().holds_back(place.server) {
            lease.give_back();
            return false;
        }
        self.enter(place, pool, lease, running);
        true
    }

    /// Holds a connection from now on. Its settings differ from the session's in no more than a name that
    /// is shown.
    fn enter(&mut self, place: Place, pool: Arc<Pool>, mut lease: Lease, running: Running) {
        let (server, replica) = (place.server, place.replica);
        let (mut out, mut expected) = std::mem::take(&mut self.spare);
        expected.on_replica = replica;
        if let Some(upstream) = lease.upstream() {
            self.registered.doing.begin(pool, &upstream.key);
            if !Arc::ptr_eq(&upstream.applied, &self.settings) {
                // Only a name that is shown is left: what follows need not wait for it.
                for sql in self.settings.since(&upstream.applied) {
                    message::query(&mut out.bytes, &sql);
                    expected.push(Owed::Query { shown: false });
                }
                upstream.applied = Arc::clone(&self.settings);
            }
            if self.binds.is_empty() {
                self.renew(upstream, &mut out.bytes, &mut expected);
            }
            if let Some(begun) = &self.begun {
                // No replica takes a READ WRITE, and there is nothing else in it that matters there.
                let sql = if replica { BEGIN_AWAY } else { &begun.sql };
                message::query(&mut out.bytes, sql);
                expected.push(Owed::Query { shown: false });
            }
        }
        self.attached = Some(Attached {
            lease,
            server,
            replica,
            version: self.version_of(server),
            out,
            expected,
            unnamed_here: false,
            tainted: false,
            held: false,
            unknown: false,
            ending: false,
            ddl: false,
            failed: false,
            farewell: false,
            opening: self.begun.is_some(),
            seen: false,
            full: false,
            foreign_value: false,
            lasting: false,
            loose: false,
            spoilt: false,
            resets: BTreeSet::new(),
            ends_bound: false,
            passing: 0,
            running,
            has: place.proof.map_or(Lsn(0), |proof| proof.has),
            missed: matches!(place.reason, "no-position" | "behind"),
        });
    }

    /// What was prepared before the database changed may answer with columns of before: it is let go.
    fn renew(&self, upstream: &mut Upstream, out: &mut Vec<u8>, expected: &mut Expected) {
        let changes = self.database.changes.load(Ordering::Acquire);
        if upstream.prepared_at == changes {
            return;
        }
        upstream.prepared_at = changes;
        if !upstream.prepared.is_empty() {
            message::query(out, "DEALLOCATE ALL");
            expected.push(Owed::Query { shown: false });
            upstream.prepared.clear();
        }
    }

    /// Takes a connection of a pool. While there is none, the client may cancel its statement, or leave;
    /// and the primary that it waits for may be succeeded by another, or the replica go down.
    async fn lend(&mut self, pool: &Arc<Pool>, place: Place) -> Result<Lease, SqlError> {
        let mut lending = pin!(pool.lend_by(self.gate_end()));
        let at_once = poll_fn(|context| Poll::Ready(lending.as_mut().poll(context)));
        if let Poll::Ready(lease) = at_once.await {
            return lease;
        }
        if self.hurried && pool.is_crowded() {
            return Err(SqlError::Crowded);
        }
        let cluster = Arc::clone(&self.listener.cluster);
        let of_use = async {
            tokio::select! {
                biased;
                lease = lending => lease,
                left = Box::pin(is_left(Arc::clone(&cluster), place.server)), if !place.replica => Err(left),
                down = Box::pin(goes_down(&cluster, place.server, pool.endpoint())), if place.replica => {
                    Err(down)
                }
            }
        };
        let doing = Arc::clone(&self.registered.doing);
        doing.before(&mut self.client, of_use).await
    }

    /// Shares the settings of a connection that is at the same: they are compared once, and not for each
    /// statement. Of two copies the one at the lower address stays, so that soon there is one for all.
    fn join(&mut self, upstream: &mut Upstream) {
        let (here, there) = (&mut self.settings, &mut upstream.applied);
        if Arc::ptr_eq(here, there) || **here != **there {
            return;
        }
        if Arc::as_ptr(here) < Arc::as_ptr(there) {
            *there = Arc::clone(here);
        } else {
            *here = Arc::clone(there);
        }
    }

    /// Brings a connection to the session's settings, unless it is there. Nothing of the session is
    /// sent before that is done: it would be read, and run, under another's.
    async fn bring(
        &mut self,
        server: usize,
        pool: &Pool,
        upstream: &mut Upstream,
    ) -> Result<(), SqlError> {
        let same = Arc::ptr_eq(&upstream.applied, &self.settings);
        if !self.retell && (same || self.settings.differ_in_name(&upstream.applied)) {
            return Ok(());
        }
        let endpoint = pool.endpoint();
        let questions = self.settings.since(&upstream.applied);
        let brought = tokio::select! {
            brought = endpoint.bring(upstream, &questions) => brought,
            () = tokio::time::sleep(endpoint.timeout) => Err(SqlError::Timeout {
                server: endpoint.name.clone(),
                after: endpoint.timeout,
            }),
            down = goes_down(&self.listener.cluster, server, endpoint) => Err(down),
        };
        brought?;
        upstream.applied = Arc::clone(&self.settings);
        let out = &mut self.client.out.bytes;
        self.told.renew(&upstream.parameters, out);
        self.retell = false;
        Ok(())
    }

    /// Whether what is believed of a place holds on a connection: when it was made, to which run.
    async fn still_fits(&mut self, place: Place, shown: Option<(Instant, u64)>) -> bool {
        let (Some(proof), Some(shown)) = (place.proof, shown) else {
            return place.proof.is_none();
        };
        self.still_holds(place.server, &proof, shown).await
    }

    /// Gives the connection back, or closes it if it is not as it was.
    pub(super) fn detach(&mut self) {
        self.detach_at(clock::now());
    }

    /// The same, for one who knows the time.
    pub(super) fn detach_at(&mut self, now: Instant) {
        let hit = self.registered.doing.end();
        let Some(mut attached) = self.attached.take() else {
            return;
        };
        // A transaction that only moves goes on.
        self.transaction_since = self.transaction_since.filter(|_| self.begun.is_some());
        if !hit && !attached.tainted && attached.is_idle() {
            let (mut out, mut expected) = (attached.out, attached.expected);
            out.rest();
            expected.reset();
            self.spare = (out, expected);
            if attached.spoilt
                && let Some(upstream) = attached.lease.upstream()
            {
                // All are prepared anew, as after a change of the database.
                upstream.prepared_at = u64::MAX;
            }
            attached.lease.give_back_at(now);
        }
    }
}
