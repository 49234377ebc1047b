//! A batch's way: to a server and back.
//!
//! Invariant: what was sent is answered by exactly one server; it runs a second time only if it is
//! one read outside a transaction of which the client has seen nothing, and then only once.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use breccia_net::clock;
use bytes::Buf;

use super::attached::{Attached, Event};
use super::batch::{Batch, look};
use super::client::HIGH_WATER;
use super::expected::{News, Owed};
use super::noted::{lets_go_of_all, looks_at_prepared};
use super::route::Place;
use super::session::{End, Session};
use super::tell::only_text;
use super::translate::Way;
use crate::SqlError;
use crate::class::Verdict;
use crate::postgres::codec::message;
use crate::postgres::codec::{self, HEAD_BYTES, Head};
use crate::postgres::settings::Settings;

/// A frame of parameters or copied data longer than this passes in pieces.
const PIECES: usize = 64 * 1024;
/// Nothing more is sent to a server that owes so many answers.
const MAX_OWED: usize = 16_384;
/// Names stand at the beginning of a frame of parameters; longer ones are waited for.
const NAMES_BYTES: usize = 4 * 1024;

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
        if self.answer_deallocate(&batch)
            || self.answer_begun(&batch, &frames)
            || (self.attached.is_none() && self.answer_prepared(&frames, false))
        {
            return Ok(());
        }
        if self.asks_last_value(&batch) {
            return self.refuse(&SqlError::LastValue, whole, &frames);
        }
        if let Err(error) = self.pass_gate().await {
            return self.refuse(&error, whole, &frames);
        }
        self.note_portals(&mut batch, &frames);
        let mut place = self.decide(&batch).await?;
        if batch.executed == 0 && self.is_crowded(place) && self.answer_prepared(&frames, true) {
            return Ok(());
        }
        self.note_binds(&frames);
        for attempt in 0..2 {
            self.watch.placed(place);
            if let Err(error) = self.hold(&mut place, &batch).await {
                self.registered.doing.end();
                let ends = matches!(error, SqlError::Cancelled | SqlError::Left);
                if place.replica && attempt == 0 && !ends {
                    place = self.primary("replica-lost");
                    continue;
                }
                return self.refuse(&error, whole, &frames);
            }
            // Where it goes in the end, and not where it was meant to go.
            self.count(place.replica, place.reason);
            let mark = self.client.out.bytes.len();
            self.make_ready(place, &batch, whole);
            self.send(&batch, &frames)?;
            let turn = self.relay(batch.only.as_ref(), &frames).await;
            let turn = turn.inspect_err(|_| self.keep_for_the_end(&frames))?;
            let Turn::Again { write } = turn else {
                self.client.reuse(frames);
                return Ok(());
            };
            if write && let Some(sql) = only_text(&frames, &self.names) {
                self.database.classifier.mark_write(&sql);
            }
            self.client.out.bytes.truncate(mark);
            self.names.undo();
            self.detach();
            place = self.primary(if write { "refused" } else { "replica-lost" });
        }
        Ok(())
    }

    /// Whether a batch would have to wait for a connection there.
    fn is_crowded(&mut self, place: Place) -> bool {
        let pool = self.pool(place.server, place.replica);
        self.attached.is_none() && pool.is_ok_and(|pool| pool.is_crowded())
    }

    /// Notes what is to be expected of a batch that goes there now.
    fn make_ready(&mut self, place: Place, batch: &Batch, whole: bool) {
        if let Some(attached) = &mut self.attached {
            attached.held = place.replica && batch.executed <= 1 && whole;
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
        self.pass(frames, empties, batch.unseen)
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
            Ok(()) => match self.place_read().await {
                Ok(place) => return place,
                Err(reason) => reason,
            },
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

    /// Translates whole frames for the connection that is held. `empties`: one of their statements
    /// lets go of all that are prepared. `unseen`: what they do is not noted yet.
    fn pass(&mut self, frames: &[u8], empties: bool, unseen: bool) -> Result<(), End> {
        let mut at = 0;
        while let Some(head) = codec::head(frames.get(at..).unwrap_or_default())? {
            let frame = frames.get(at..at + head.length).unwrap_or_default();
            at += head.length;
            let own = unseen && self.is_own_frame(head, frame);
            if unseen {
                match &mut self.attached {
                    Some(attached) if own => Self::spoil(attached, head.tag),
                    _ => self.pass_unseen(head, frame)?,
                }
                continue;
            }
            let empties = empties && self.empties(head, frame);
            self.pass_frame(head, frame, empties)?;
        }
        Ok(())
    }

    /// Notes what a frame does, and translates it.
    fn pass_unseen(&mut self, head: Head, frame: &[u8]) -> Result<(), End> {
        let verdict = self.look_at(head, frame)?;
        let empties = head.tag != b'P' && verdict.is_some_and(|it| lets_go_of_all(&it));
        self.pass_frame(head, frame, empties)
    }

    fn pass_frame(&mut self, head: Head, frame: &[u8], empties: bool) -> Result<(), End> {
        let freed = self.freed(head, frame);
        let alone = self.is_unshared(head, frame);
        let Some(attached) = &mut self.attached else {
            return Ok(());
        };
        if looks_at_prepared(head, frame) {
            attached.refuse_look(head.tag);
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
    fn way(&mut self, empties: bool, alone: bool) -> Option<Way<'_>> {
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

    /// Whether a frame of the client binds what the connection must describe first.
    fn needs_look(&mut self, head: Head) -> Result<bool, End> {
        if head.tag != b'B' || !self.names.any_told() {
            return Ok(false);
        }
        let length = head.length.min(self.client.inbound.len());
        let frame = self.client.inbound.get(..length).unwrap_or_default();
        let name = codec::bind(codec::body(frame))?.statement.to_vec();
        let alone = self.is_unshared(head, &[]);
        let way = self.way(false, alone);
        Ok(way.is_some_and(|mut way| !way.is_looked_at(&name)))
    }

    /// Moves bytes between the client and the connection until that is idle again, or free to be
    /// given back.
    /// `frames`: those of the batch that was sent before this.
    pub(super) async fn relay(
        &mut self,
        only: Option<&Arc<Verdict>>,
        frames: &[u8],
    ) -> Result<Turn, End> {
        let (mut news, mut only) = (Vec::new(), only);
        let mut again = None;
        loop {
            self.check_primary()?;
            if self.retell {
                self.tell_again();
            }
            self.feed()?;
            if self.own_next {
                return Ok(Turn::Done);
            }
            let Some(attached) = &mut self.attached else {
                return Ok(Turn::Done);
            };
            attached.expected.insert(&mut self.client.out.bytes);
            if attached.is_settled() {
                if attached.held
                    && let Some(write) = again
                {
                    return Ok(Turn::Again { write });
                }
                // All that was sent is answered.
                self.names.settle();
                (attached.held, attached.unknown) = (false, false);
                self.note_answered(frames);
                let in_transaction = self.attached.as_ref().is_some_and(Attached::in_transaction);
                if in_transaction && self.may_move() {
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
            self.check_primary()?;
            match event {
                Event::Server => self.digest(&mut news)?,
                Event::Client | Event::Sent | Event::Late => {}
                Event::ClientGone => return Err(End::Gone),
                Event::ServerLost(error) => return self.lost_or_ended(&error).await,
            }
            for item in news.drain(..) {
                // What comes next is of another statement.
                let ends = match item {
                    News::Complete(_) | News::Failed(_) => only.is_some_and(|it| it.single),
                    News::Ready(_) => true,
                    _ => false,
                };
                if let Some(write) = self.hear(item, only)? {
                    again = Some(write);
                }
                only = only.filter(|_| !ends);
            }
            if self.is_in_vain(again) {
                return Ok(Turn::Again { write: false });
            }
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
        let Some(attached) = self.attached.as_ref().filter(|it| it.held) else {
            return false;
        };
        let server = self.listener.cluster.server(attached.server);
        let is_down = server.is_some_and(|server| !server.options.health.is_up());
        is_down || (attached.tainted && again == Some(false))
    }

    /// Takes what a server says unasked.
    pub(super) fn digest_quietly(&mut self) -> Result<(), End> {
        let (mark, movable) = (self.client.out.bytes.len(), self.may_move());
        let mut news = Vec::new();
        self.digest(&mut news)?;
        for item in news {
            if movable && matches!(item, News::Fatal(_)) {
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
        if attached.expected.told && !news.iter().any(refused) {
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
    fn settle(&mut self) {
        let Some(attached) = &mut self.attached else {
            return;
        };
        if attached.replica {
            let answered = self.watch.answered();
            self.freshness.used_replica(attached.home(answered));
            self.listener.counters.reads.increment();
        } else {
            if std::mem::take(&mut attached.seen) {
                let cluster = &self.listener.cluster;
                self.freshness
                    .used_primary(cluster.question(attached.server));
                if std::mem::take(&mut attached.missed) {
                    cluster.note_missed();
                }
            }
            self.listener.counters.writes.increment();
        }
        attached.ending = false;
        if std::mem::take(&mut attached.ddl) {
            self.database.note_change();
        }
        self.transaction_since = None;
        self.begun = None;
        self.names.settle();
        let keeps = self.pinned.is_some() || self.listener.limits.session_mode;
        if !keeps || attached.replica {
            self.detach();
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

    /// Takes from the client what may go to the connection now.
    fn feed(&mut self) -> Result<(), End> {
        loop {
            let movable = self.is_movable();
            let Some(attached) = &mut self.attached else {
                return Ok(());
            };
            // What the server has not taken yet is bounded: the rest waits at the client.
            let full = attached.out.waiting() > HIGH_WATER;
            if attached.passing > 0 {
                let length = attached.passing.min(self.client.inbound.len());
                if length == 0 || full {
                    return Ok(());
                }
                let piece = self.client.inbound.get(..length).unwrap_or_default();
                attached.out.bytes.extend_from_slice(piece);
                self.client.inbound.advance(length);
                attached.passing -= length;
                continue;
            }
            let keeps = self.pinned.is_some() || self.listener.limits.session_mode;
            let open = attached.expected.copy_in
                || attached.expected.unsynced
                || (attached.in_transaction() && !movable)
                || (keeps && !attached.replica);
            let open = open && !attached.expected.is_asking();
            // Which statements there are is known before more of them are named.
            let open = open && (attached.expected.unsynced || !self.names.is_emptying());
            // So are answers that the client has not taken, of which some are made here.
            let full = full || self.client.out.waiting() > HIGH_WATER;
            if !open || attached.held || full {
                self.client.wanted = 0;
                return Ok(());
            }
            if attached.expected.len() >= MAX_OWED {
                // What is answered already must not lie in the server's buffer meanwhile.
                if !std::mem::replace(&mut attached.full, true) {
                    message::empty(&mut attached.out.bytes, b'H');
                }
                self.client.wanted = 0;
                return Ok(());
            }
            attached.full = false;
            if !self.feed_one()? {
                return Ok(());
            }
        }
    }

    /// Refuses a message that is longer than the listener allows. Long parameters and copied data pass
    /// in pieces.
    fn check_length(&self, head: Head) -> Result<(), End> {
        let pieces = matches!(head.tag, b'B' | b'd') && head.length > PIECES;
        if head.length > self.listener.limits.max_request_size + HEAD_BYTES && !pieces {
            let why = format!(
                "a message of {} bytes is longer than max-request-size allows",
                head.length
            );
            return Err(End::Told("54000", why));
        }
        Ok(())
    }

    /// The length of the simple query that comes first, if that is what comes first.
    pub(super) fn long_query(&self) -> Result<usize, End> {
        match codec::head(&self.client.inbound)? {
            Some(head) if head.tag == b'Q' => self.check_length(head).map(|()| head.length),
            _ => Ok(0),
        }
    }

    /// The same of each message of a batch, if it is long enough to have such a one.
    fn check_lengths(&self, frames: &[u8]) -> Result<(), End> {
        if frames.len() <= self.listener.limits.max_request_size {
            return Ok(());
        }
        let mut at = 0;
        while let Some(head) = codec::head(frames.get(at..).unwrap_or_default())? {
            self.check_length(head)?;
            at += head.length;
        }
        Ok(())
    }

    /// Passes one frame of the client on; whether there was one.
    fn feed_one(&mut self) -> Result<bool, End> {
        let Some(head) = codec::head(&self.client.inbound)? else {
            return Ok(false);
        };
        let have = self.client.inbound.len();
        let pieces = matches!(head.tag, b'B' | b'd') && head.length > PIECES;
        let enough = if pieces { NAMES_BYTES } else { head.length };
        self.check_length(head)?;
        if have < enough {
            self.client.wanted = enough;
            return Ok(false);
        }
        self.client.wanted = 0;
        if head.tag == b'X' {
            return Err(End::Gone);
        }
        if let Some(attached) = &mut self.attached
            && attached.running.rests()
            && !attached.running.begins()
        {
            // Paused: it waits where a batch waits for its turn.
            return Ok(false);
        }
        let frame = self.client.inbound.get(..head.length).unwrap_or_default();
        if self.is_own_frame(head, frame) {
            return Ok(self.meet_own(head));
        }
        if self.needs_look(head)? {
            return Ok(false);
        }
        let frame = self.client.take(head.length.min(have));
        self.pass_unseen(head, &frame)?;
        self.client.reuse(frame);
        Ok(true)
    }
}

/// Whether frames only ask for answers; all there are have been sent.
fn is_flush(frames: &[u8]) -> bool {
    let flush = |frame: &[u8]| frame == [b'H', 0, 0, 0, 4];
    !frames.is_empty() && frames.chunks(HEAD_BYTES).all(flush)
}
