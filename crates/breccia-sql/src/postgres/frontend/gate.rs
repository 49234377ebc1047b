//! Waiting while an administrator has paused a server, or all of them; and the answer where no
//! connection can be had.
//!
//! Not what is paused ([`crate::pause`]). Invariant: what has begun goes on to its
//! end, what has not waits for `queue-timeout` at most, and is answered then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use breccia_net::clock;

use super::batch::Batch;
use super::route::Place;
use super::session::{End, Session};
use crate::error::SqlError;
use crate::placing::Seeker as _;
use crate::postgres::codec::message::{self, Severity};

/// How often a read that the paused primary should answer looks for a replica instead.
const GATE_LOOK: Duration = Duration::from_millis(50);

impl Session {
    /// Waits while all of the composite is paused.
    pub(super) async fn pass_gate(&mut self) -> Result<(), SqlError> {
        if self.attached.is_some() || !self.listener.cluster.gates().is_paused() {
            return Ok(());
        }
        let end = self.gate_end();
        let cluster = Arc::clone(&self.listener.cluster);
        let turn = async {
            Ok(cluster
                .gates()
                .wait_turn(end, || !cluster.gates().is_paused())
                .await)
        };
        let doing = Arc::clone(&self.registered.doing);
        let turn = doing.before(&mut self.client, turn).await?;
        turn.then_some(()).ok_or_else(|| self.paused(usize::MAX))
    }

    /// Takes a connection for `place`, which may become another: once its server is not paused, and
    /// such that what is believed of a replica still holds.
    ///
    /// `hurried`: the batch executes nothing, so it may well be answered without a server. Then this ends
    /// in [`SqlError::Crowded`] rather than in a queue.
    pub(super) async fn hold(
        &mut self,
        place: &mut Place,
        batch: &Batch,
        hurried: bool,
    ) -> Result<(), SqlError> {
        self.hurried = hurried;
        if self.attached.is_some() {
            match self.look_where_held().await {
                Ok(()) => return Ok(()),
                Err(error @ (SqlError::Cancelled | SqlError::Left)) => return Err(error),
                // Nothing is known of where the transaction was.
                Err(_) => *place = self.place(batch).await,
            }
        }
        let end = self.gate_end();
        let mut asked = false;
        loop {
            if self.listener.cluster.gates().holds_back(place.server) {
                *place = self.wait_for_place(batch, *place, end).await?;
            }
            match self.attach(*place).await {
                Ok(true) => {
                    self.watch.placed(*place);
                    return Ok(());
                }
                // There may only be connections that were made since, of which nothing is known: so it is
                // asked what they have. The primary need not be there for that.
                Ok(false) if !asked => {
                    asked = true;
                    self.asked = clock::now();
                    *place = match self.place_somewhere().await {
                        Ok(place) => place,
                        Err(reason) => self.primary(reason),
                    };
                    self.watch.placed(*place);
                }
                Ok(false) => {
                    // What was read there: of that only the primary's position is certain now. The
                    // question is noted, so that who asks again later need not wait for another.
                    let primary = self.look().primary.clone().ok();
                    let question = primary.and_then(|it| self.listener.cluster.question(it));
                    self.freshness.used_primary(question);
                    *place = self.primary("new-connection");
                    self.watch.placed(*place);
                }
                // It was paused meanwhile.
                Err(SqlError::Paused { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Where a batch goes whose server is paused: there in the end, or to another that takes it.
    async fn wait_for_place(
        &mut self,
        batch: &Batch,
        place: Place,
        end: Instant,
    ) -> Result<Place, SqlError> {
        loop {
            let look = end.min(clock::now() + GATE_LOOK);
            match self.wait_for_primary(look).await {
                Ok(()) => return Ok(self.primary(place.reason)),
                Err(error @ (SqlError::Cancelled | SqlError::Left)) => return Err(error),
                Err(error) if clock::now() >= end => return Err(error),
                Err(_) => {}
            }
            // A replica may have come up to what a read needs.
            self.asked = clock::now();
            let again = self.place(batch).await;
            if again.replica {
                return Ok(again);
            }
        }
    }

    /// Waits until the primary, whoever it is then, is not paused.
    pub(super) async fn wait_for_primary(&mut self, end: Instant) -> Result<(), SqlError> {
        let cluster = Arc::clone(&self.listener.cluster);
        let may_go = || {
            let primary = cluster.view().primary.clone();
            !cluster.gates().holds_back(primary.unwrap_or(usize::MAX))
        };
        let turn = async { Ok(cluster.gates().wait_turn(end, may_go).await) };
        let doing = Arc::clone(&self.registered.doing);
        let turn = doing.before(&mut self.client, turn).await?;
        let primary = || self.listener.cluster.view().primary.clone();
        turn.then_some(())
            .ok_or_else(|| self.paused(primary().unwrap_or(usize::MAX)))
    }

    /// The connection that the session keeps runs nothing, and must not for now.
    pub(super) fn is_held_back(&self) -> bool {
        self.attached.as_ref().is_some_and(|attached| {
            attached.running.rests() && self.listener.cluster.gates().holds_back(attached.server)
        })
    }

    /// A batch has come for a connection that is held back: waits, and refuses it if it must.
    pub(super) async fn wait_held_back(&mut self, length: usize, whole: bool) -> Result<(), End> {
        self.asked = clock::now();
        let end = self.gate_end();
        let cluster = Arc::clone(&self.listener.cluster);
        let server = self.attached.as_ref().map_or(usize::MAX, |it| it.server);
        let turn = async {
            Ok(cluster
                .gates()
                .wait_turn(end, || !cluster.gates().holds_back(server))
                .await)
        };
        let doing = Arc::clone(&self.registered.doing);
        doing.asked();
        let error = match doing.before(&mut self.client, turn).await {
            Ok(true) => match doing.sent() {
                Ok(()) => return Ok(()),
                Err(error) => error,
            },
            Ok(false) => self.paused(server),
            Err(error) => error,
        };
        let frames = self.client.take(length);
        self.refuse(&error, whole, &frames)
    }

    /// No connection could be had: nothing was sent.
    pub(super) fn refuse(
        &mut self,
        error: &SqlError,
        whole: bool,
        frames: &[u8],
    ) -> Result<(), End> {
        self.listener.counters.failed.increment();
        self.registered.doing.dropped();
        if let SqlError::Settings { .. } | SqlError::Question { .. } = error {
            // It would be refused for each statement to come.
            return Err(End::Told("08006", error.to_string()));
        }
        let view = self.look();
        let (state, text) = match (&view.primary, error) {
            (Err(why), SqlError::NoPrimary { store, .. }) => {
                ("57P03", format!("{store} has no primary: {why}"))
            }
            _ => (error.sqlstate(), error.to_string()),
        };
        let reason = self.watch.reason();
        self.tell_refused(state, &text, reason, frames);
        if !whole {
            return Err(End::Told(told_by(error), text));
        }
        let out = &mut self.client.out.bytes;
        message::error(
            out,
            Severity::Error,
            state,
            &text,
            "Nothing was sent to a server.",
        );
        // A server would have failed the transaction too.
        if let Some(begun) = &mut self.begun {
            begun.failed = true;
        }
        self.answer_ready();
        Ok(())
    }

    /// What an administrator has paused: this server by itself, or all of the composite.
    pub(super) fn paused(&self, server: usize) -> SqlError {
        let cluster = &self.listener.cluster;
        let server = cluster
            .server(server)
            .filter(|_| !cluster.gates().is_paused());
        let store = server.map_or(cluster.options.name.as_str(), |it| it.name());
        SqlError::Paused {
            store: store.to_owned(),
            after: self.listener.limits.pool.queue_timeout(),
        }
    }

    pub(super) fn gate_end(&self) -> Instant {
        self.asked + self.listener.limits.pool.queue_timeout()
    }
}

/// What ends a session whose batch was refused while the rest of it is still to come.
fn told_by(error: &SqlError) -> &'static str {
    match error {
        SqlError::Cancelled => "57014",
        SqlError::PoolFull { .. } | SqlError::Crowded => "53300",
        _ => "57P03",
    }
}
