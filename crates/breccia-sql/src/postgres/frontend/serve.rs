//! A batch's way: to a server and back.
//!
//! Invariant: what was sent is answered by exactly one server; it runs a second time only if it is
//! one read outside a transaction of which the client has seen nothing, and then only once.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use breccia_net::clock;

use super::attached::{Attached, Event};
use super::batch::{Batch, look};
use super::client::HIGH_WATER;
use super::expected::{News, Owed};
use super::noted::{NO_LOOK, NO_VALUE, lets_go_of_all, text_of};
use super::route::Place;
use super::session::{End, Session};
use super::tell::only_text;
use super::translate::Way;
use crate::SqlError;
use crate::class::{Signs, Verdict};
use crate::placing::Seeker as _;
use crate::postgres::codec::message;
use crate::postgres::codec::{self, HEAD_BYTES, Head};
use crate::postgres::settings::Settings;

/// How a batch's turn at a server ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Done,
    /// It must run elsewhere; whether its text is no read after all.
    Again {
        write: bool,
    },
}

impl Session {
    /// Serves the batch of `length` bytes that the client has sent; `whole`: it ends there.
    pub(super) async fn serve(&mut self, length: usize, whole: bool) -> Result<(), End> {
        self.asked = clock::now();
        self.watch.begin(self.asked);
        let frames = self.client.take(length);
        self.check_lengths(&frames)?;
        let mut batch = if whole {
            look(&frames, &self.names, self.under(), |sql| self.judge(sql))?
        } else {
            Batch::unseen("in-pieces")
        };
        if self.is_own(&batch, &frames, whole) {
            return self.serve_own(frames).await;
        }
        if !whole && self.attached.is_none() && is_flush(&frames) {
            return Ok(());
        }
        let runs_reads = batch.reads.is_ok() && batch.executed > 0;
        if !runs_reads && self.answer_at_once(&batch, &frames) {
            return Ok(());
        }
        if !runs_reads && self.asks_last_value(&batch) {
            return self.refuse(&SqlError::LastValue, whole, &frames);
        }
        self.registered.doing.asked();
        if let Err(error) = self.pass_gate().await {
            return self.refuse(&error, whole, &frames);
        }
        self.note_portals(&mut batch, &frames);
        let mut place = self.decide(&batch).await?;
        self.note_binds(&frames);
        for attempt in 0..2 {
            self.watch.placed(place);
            let held = if self.attach_at_once(place) {
                Ok(())
            } else {
                match self.hold_or_answer(&mut place, &batch, &frames).await {
                    Some(held) => held,
                    None => return Ok(()),
                }
            };
            if let Err(error) = held.and_then(|()| self.registered.doing.sent()) {
                self.give_up_unsent();
                match self.next_unsent(&error, place).filter(|_| attempt == 0) {
                    Some(next) => place = next,
                    None => return self.refuse(&error, whole, &frames),
                }
                continue;
            }
            // Where it goes in the end, and not where it was meant to go.
            self.count(place.replica, place.reason);
            let mark = self.client.out.bytes.len();
            self.make_ready(place, &batch, whole, attempt == 0);
            self.send(&batch, &frames)?;
            let turn = self.relay(batch.only.as_ref(), &frames).await;
            let turn = turn.inspect_err(|_| self.keep_for_the_end(&frames))?;
            let Turn::Again { write } = turn else {
                self.client.reuse(frames);
                return Ok(());
            };
            self.client.out.bytes.truncate(mark);
            place = self.next_sent(write, place, &frames);
        }
        Ok(())
    }

    /// Lets go of what there is of a connection to which nothing was sent.
    fn give_up_unsent(&mut self) {
        self.keep_seen();
        self.detach();
    }

    /// Where a batch goes that could not be sent to `place`; `None`: nowhere.
    fn next_unsent(&mut self, error: &SqlError, place: Place) -> Option<Place> {
        if matches!(error, SqlError::Cancelled | SqlError::Left) {
            return None;
        }
        if place.replica {
            return Some(self.primary("replica-lost"));
        }
        self.is_deposed(place).then(|| self.primary(place.reason))
    }

    /// Where a batch goes that came to nothing at `place`. `write`: it is no read after all.
    fn next_sent(&mut self, write: bool, place: Place, frames: &[u8]) -> Place {
        if write && let Some(sql) = only_text(frames, &self.names) {
            self.database.classifier.mark_write(&sql);
        }
        self.names.undo();
        self.keep_seen();
        self.detach();
        self.registered.doing.asked_again();
        self.primary(match (write, place.replica) {
            (true, _) => "refused",
            (false, true) => "replica-lost",
            (false, false) => "primary-lost",
        })
    }

    /// Answers a batch for which no server is needed; whether it was one.
    fn answer_at_once(&mut self, batch: &Batch, frames: &[u8]) -> bool {
        self.answer_deallocate(batch)
            || self.answer_begun(batch, frames)
            || (self.attached.is_none() && self.answer_prepared(frames, false))
    }

    /// Takes a connection for a batch; `None`: it was answered rather than that it waits for one.
    async fn hold_or_answer(
        &mut self,
        place: &mut Place,
        batch: &Batch,
        frames: &[u8],
    ) -> Option<Result<(), SqlError>> {
        let hurried = batch.executed == 0 && self.attached.is_none();
        match self.hold(place, batch, hurried).await {
            Err(SqlError::Crowded) if self.answer_prepared(frames, true) => {
                self.registered.doing.dropped();
                None
            }
            Err(SqlError::Crowded) => Some(self.hold(place, batch, false).await),
            held => Some(held),
        }
    }

    /// Notes what is to be expected of a batch that goes there now, for the first time or once more.
    fn make_ready(&mut self, place: Place, batch: &Batch, whole: bool, first: bool) {
        let keeps = self.pinned.is_some() || self.listener.limits.session_mode;
        if let Some(attached) = &mut self.attached {
            let moves = place.replica
                || (first && !keeps && batch.only_reads() && !attached.in_transaction());
            attached.held = moves && batch.executed <= 1 && whole;
            self.client.unwatched = attached.held;
            attached.expected.told = false;
            // The rest of a batch that is passed in pieces is still to come.
            attached.expected.unsynced = !whole;
            attached.seen |= batch.executed > batch.verdicts.len();
        }
        if !place.replica {
            // On the primary it is a transaction as any other.
            self.begun = None;
        }
    }

    /// Where a batch goes. A transaction that was on a replica has left it if it must.
    async fn decide(&mut self, batch: &Batch) -> Result<Place, End> {
        let Some(attached) = &self.attached else {
            return Ok(self.place(batch).await);
        };
        let stays = Place {
            server: attached.server,
            replica: true,
            reason: "transaction",
            proof: None,
        };
        match self.leaves(batch).await {
            None => Ok(stays),
            Some(reason) => {
                self.move_away().await?;
                Ok(self.primary(reason))
            }
        }
    }

    /// Notes what a batch does and passes it to the connection that is held.
    pub(super) fn send(&mut self, batch: &Batch, frames: &[u8]) -> Result<(), End> {
        self.names.settle();
        self.transaction_since.get_or_insert(self.asked);
        let alone = batch.executed == 1;
        let mut empties = false;
        for verdict in batch.verdicts.iter() {
            self.note_sent(verdict, alone);
            empties |= lets_go_of_all(verdict);
        }
        self.pass(frames, empties, batch)
    }

    /// Goes on with a connection that is held: what the client sends goes there.
    pub(super) async fn pump(&mut self) -> Result<(), End> {
        self.names.settle();
        match self.relay(None, &[]).await? {
            Turn::Done => Ok(()),
            // Nothing is held back in a transaction.
            Turn::Again { .. } => Err(End::Gone),
        }
    }

    pub(super) async fn place(&mut self, batch: &Batch) -> Place {
        let tells_time = || batch.verdicts.iter().any(|verdict| verdict.uses_now);
        let reason = match batch.reads {
            _ if self.pinned.is_some() => "pinned",
            Ok(()) if self.is_isolated() => "isolation",
            // The transaction began when its BEGIN was answered, and no server knows when.
            Ok(()) if self.begun.is_some() && tells_time() => "transaction-time",
            Ok(()) => {
                if let Some(place) = self.place_at_home() {
                    return if self.is_settled() {
                        place
                    } else {
                        self.look_elsewhere(place).await
                    };
                }
                match self.place_somewhere().await {
                    Ok(place) => return place,
                    Err(reason) => reason,
                }
            }
            Err(reason) => reason,
        };
        self.primary(reason)
    }

    pub(super) fn primary(&mut self, reason: &'static str) -> Place {
        let view = self.look();
        Place {
            // Without a primary the number is nobody's, and attaching says why.
            server: view.primary.clone().unwrap_or(usize::MAX),
            replica: false,
            reason,
            proof: None,
        }
    }

    /// Translates the whole frames of a batch for the connection that is held. `empties`: one of their
    /// statements lets go of all that are prepared.
    fn pass(&mut self, frames: &[u8], empties: bool, batch: &Batch) -> Result<(), End> {
        let (unseen, proven) = (batch.unseen, batch.reads.is_ok());
        let mut at = 0;
        while let Some(head) = codec::head(frames.get(at..).unwrap_or_default())? {
            let frame = frames.get(at..at + head.length).unwrap_or_default();
            at += head.length;
            if unseen {
                let seen = self.see_frame(head, frame);
                let own = self.is_own_frame(head, frame, seen.as_ref().map(|it| &*it.0));
                match &mut self.attached {
                    Some(attached) if own => Self::spoil(attached, head.tag),
                    _ => self.pass_unseen(head, frame, seen)?,
                }
                continue;
            }
            let empties = empties && self.empties(head, frame);
            if !proven && head.tag == b'B' {
                self.note_bound(frame);
            }
            // What only reads has none of the signs.
            let sql = if proven { None } else { text_of(head, frame) };
            self.pass_frame(head, frame, empties, sql.map(Signs::of))?;
        }
        Ok(())
    }

    /// Notes what a frame does, and translates it. `seen`: see [`Session::see_frame`].
    pub(super) fn pass_unseen(
        &mut self,
        head: Head,
        frame: &[u8],
        seen: Option<(Arc<Verdict>, Signs)>,
    ) -> Result<(), End> {
        let (verdict, signs) = seen.unzip();
        let verdict = self.look_at(head, frame, verdict)?;
        let empties = head.tag != b'P' && verdict.is_some_and(|it| lets_go_of_all(&it));
        self.pass_frame(head, frame, empties, signs)
    }

    /// `signs`: those of a text that is not proven to only read.
    pub(super) fn pass_frame(
        &mut self,
        head: Head,
        frame: &[u8],
        empties: bool,
        signs: Option<Signs>,
    ) -> Result<(), End> {
        let freed = signs.and_then(|_| self.freed(head, frame));
        let signs = signs.unwrap_or_default();
        let alone = self.is_unshared(head, frame, signs.loosens);
        let foreign = self.attached.as_ref().is_some_and(|it| it.foreign_value);
        let foreign = foreign && self.asks_value(head, frame);
        let Some(attached) = &mut self.attached else {
            return Ok(());
        };
        if signs.prepared {
            attached.refuse(head.tag, NO_LOOK);
            return Ok(());
        }
        if foreign {
            attached.refuse(head.tag, NO_VALUE);
            return Ok(());
        }
        attached.passing = head.length - frame.len();
        let mut way = self.way(empties, alone).ok_or(End::Gone)?;
        if let Some((name, statement)) = &freed {
            way.deallocate(head.tag, name, statement);
            return Ok(());
        }
        way.frame(head, frame).map_err(End::from)
    }

    /// The way to the connection that is held.
    pub(super) fn way(&mut self, empties: bool, alone: bool) -> Option<Way<'_>> {
        let attached = self.attached.as_mut()?;
        let upstream = attached.lease.upstream()?;
        let changed = upstream.prepared_at != self.database.changes.load(Ordering::Acquire);
        Some(Way {
            out: &mut attached.out.bytes,
            expected: &mut attached.expected,
            upstream,
            names: &mut self.names,
            statements: &self.listener.cluster.statements,
            unnamed_here: &mut attached.unnamed_here,
            empties,
            changed,
            settings: &self.settings,
            alone,
            spoilt: &mut attached.spoilt,
        })
    }

    /// Moves bytes between the client and the connection until that is idle again, or free to be
    /// given back.
    /// `frames`: those of the batch that was sent before this.
    pub(super) async fn relay(
        &mut self,
        only: Option<&Arc<Verdict>>,
        frames: &[u8],
    ) -> Result<Turn, End> {
        let mut news = std::mem::take(&mut self.news);
        let turn = self.relay_news(&mut news, only, frames).await;
        news.clear();
        self.news = news;
        turn
    }

    async fn relay_news(
        &mut self,
        news: &mut Vec<News>,
        only: Option<&Arc<Verdict>>,
        frames: &[u8],
    ) -> Result<Turn, End> {
        let (mut only, mut again) = (only, None);
        loop {
            if self.check_primary()? {
                return Ok(Turn::Again { write: false });
            }
            if self.retell {
                self.tell_again();
            }
            self.heed_skipping();
            self.feed()?;
            if self.own_next {
                return Ok(Turn::Done);
            }
            let Some(attached) = &mut self.attached else {
                return Ok(Turn::Done);
            };
            attached.expected.insert(&mut self.client.out.bytes);
            if attached.is_settled() {
                if attached.is_spared()
                    && let Some(write) = again
                {
                    return Ok(Turn::Again { write });
                }
                // All that was sent is answered.
                self.names.settle();
                attached.all_answered();
                self.note_answered(frames);
                let in_transaction = self.attached.as_ref().is_some_and(Attached::in_transaction);
                if in_transaction && (self.may_move() || self.has_failed_away()) {
                    return Ok(Turn::Done);
                }
                let Some(attached) = &self.attached else {
                    return Ok(Turn::Done);
                };
                if attached.is_idle() {
                    self.settle();
                    if self.attached.is_none() || self.is_held_back() {
                        return Ok(Turn::Done);
                    }
                }
            }
            let event = self.event().await?;
            if self.check_primary()? {
                return Ok(Turn::Again { write: false });
            }
            match event {
                Event::Server => self.digest(news)?,
                Event::Client | Event::Sent | Event::Late => {}
                Event::ClientGone => return Err(End::Gone),
                Event::ServerLost(error) => return self.lost_or_ended(&error).await,
            }
            again = self.hear_all(news, &mut only)?.or(again);
            if self.is_in_vain(again) {
                return Ok(Turn::Again { write: false });
            }
        }
    }

    /// Hears what a piece of an answer has told. `Some`: the statement should run elsewhere.
    fn hear_all(
        &mut self,
        news: &mut Vec<News>,
        only: &mut Option<&Arc<Verdict>>,
    ) -> Result<Option<bool>, End> {
        let mut again = None;
        for item in news.drain(..) {
            // What comes next is of another statement.
            let ends = match item {
                News::Complete(_) | News::Failed(_) => only.is_some_and(|it| it.single),
                News::Ready(_) => true,
                _ => false,
            };
            again = self.hear(item, *only)?.or(again);
            *only = only.filter(|_| !ends);
        }
        Ok(again)
    }

    /// What a failure has skipped ends with the client's Sync alone, so nothing is held back for it.
    fn heed_skipping(&mut self) {
        if let Some(attached) = &mut self.attached
            && attached.expected.is_skipping()
        {
            attached.held = false;
            self.client.unwatched = false;
        }
    }

    /// Why the next statement stays on the connection that is held.
    pub(super) fn stays(&self) -> &'static str {
        match &self.attached {
            Some(attached) if attached.in_transaction() => "transaction",
            _ => self.pinned.unwrap_or("pool-mode"),
        }
    }

    /// Whether an answer that the client has seen nothing of need not be waited for: its server is
    /// down, or its connection of no use any more.
    fn is_in_vain(&self, again: Option<bool>) -> bool {
        let Some(attached) = self.attached.as_ref().filter(|it| it.is_spared()) else {
            return false;
        };
        self.is_server_down() || (attached.tainted && again == Some(false))
    }

    /// Takes what a server says unasked.
    pub(super) fn digest_quietly(&mut self) -> Result<(), End> {
        let (mark, movable) = (self.client.out.bytes.len(), self.may_move());
        let mut news = Vec::new();
        self.digest(&mut news)?;
        for item in news {
            if movable && matches!(item, News::Fatal(..)) {
                // The connection ends, and not the transaction: that goes on elsewhere.
                self.client.out.bytes.truncate(mark);
            }
            self.hear(item, None)?;
        }
        Ok(())
    }

    fn digest(&mut self, news: &mut Vec<News>) -> Result<(), End> {
        let Some(attached) = &mut self.attached else {
            return Ok(());
        };
        let out = &mut self.client.out.bytes;
        // However long its prober waits: it answers.
        attached.lease.pool().health().note_bytes();
        let Some(upstream) = attached.lease.upstream.as_deref_mut() else {
            return Err(End::Gone);
        };
        let received = &mut upstream.received;
        let digested = attached.expected.digest(received, out, news);
        // An answer under settings that were refused is nobody's.
        let refused = |item: &News| matches!(item, News::OwnFailed(_));
        // Notices alone tell nothing of the answer, but there may be many of them.
        let shows = attached.expected.told || self.client.out.waiting() > HIGH_WATER;
        if shows && !news.iter().any(refused) {
            attached.held = false;
        }
        digested.map_err(|error| {
            tracing::warn!(%error, "a server's answer is malformed");
            End::Told(
                "08P01",
                format!("the server's answer is malformed: {error}"),
            )
        })
    }

    /// Whatever was asked is answered and no transaction is open.
    pub(super) fn settle(&mut self) {
        let Some(attached) = &mut self.attached else {
            return;
        };
        if attached.replica {
            let answered = self.watch.answered();
            self.freshness.used_replica(attached.home(answered));
        } else if std::mem::take(&mut attached.seen) {
            let cluster = &self.listener.cluster;
            self.freshness
                .used_primary(cluster.question(attached.server));
            if std::mem::take(&mut attached.missed) {
                cluster.note_missed();
            }
        }
        let counters = &self.listener.counters;
        match (std::mem::take(&mut attached.failed), attached.replica) {
            (true, _) => {}
            (false, true) => counters.reads.increment(),
            (false, false) => counters.writes.increment(),
        }
        (attached.ending, attached.ends_bound) = (false, false);
        if std::mem::take(&mut attached.ddl) {
            self.database.note_change();
        }
        self.transaction_since = None;
        self.begun = None;
        self.names.settle();
        // Whatever pinned the session was sent there, too: nobody else gets that connection.
        attached.tainted |= attached.replica && self.pinned.is_some();
        let keeps = self.pinned.is_some() || self.listener.limits.session_mode;
        if !keeps || attached.replica {
            self.detach_at(self.watch.answered());
            return;
        }
        attached.running.rest();
        attached.loose = false;
        // What RESET brought back is the server's default, and not what the session began with.
        let resets = std::mem::take(&mut attached.resets);
        let mut questions = Vec::new();
        for name in &resets {
            let part = self.startup.only(Some(name));
            questions.extend(part.since(&Settings::default()));
        }
        self.retell |= !questions.is_empty();
        if let Some(upstream) = attached.lease.upstream()
            && !Arc::ptr_eq(&upstream.applied, &self.settings)
        {
            questions.extend(self.settings.since(&upstream.applied));
            upstream.applied = Arc::clone(&self.settings);
        }
        for sql in questions {
            message::query(&mut attached.out.bytes, &sql);
            attached.expected.push(Owed::Query { shown: false });
        }
    }
}

/// Whether frames only ask for answers; all there are have been sent.
pub(super) fn is_flush(frames: &[u8]) -> bool {
    let flush = |frame: &[u8]| frame == [b'H', 0, 0, 0, 4];
    !frames.is_empty() && frames.chunks(HEAD_BYTES).all(flush)
}
