//! One command's way: to a server, and its answer back.
//!
//! Not where it goes ([`super::route`]) nor what it is ([`super::dispatch`]). Invariant: what may have
//! been carried out is never sent twice; a read is, as long as its client has seen nothing of it.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use breccia_net::clock;
use bytes::BytesMut;

use super::attached::Attached;
use super::elsewhere::{TRIES, Tries, has_ended};
use super::relay::{Fed, Outcome, Relay, Shape};
use super::route::{PREVIOUS, Place, READ_ONLY};
use super::session::{ER_UNKNOWN_ERROR, End, Session};
use crate::bells::Stands;
use crate::error::SqlError;
use crate::flow::{Outgoing, READ_AHEAD, SCRATCH, poll_read};
use crate::mysql::class::{Class, Verdict};
use crate::mysql::codec::{self, command, status};
use crate::mysql::statements::Key;
use crate::mysql::upstream::Upstream;
use crate::outage::check_up;

/// How often a session that waits for an answer looks whether its server is what it was.
pub(super) const HEALTH_LOOK: Duration = Duration::from_millis(100);
/// So much of an answer waits at most before it is sent on.
const BATCH: usize = 32 * 1024;
/// `COM_PING`, where it is answered by a server.
pub(super) const PING: &str = "ping";

/// What is asked of a server.
#[derive(Debug)]
pub(super) enum Ask<'a> {
    /// Packets, as they are.
    Packets(&'a [u8], Shape),
    /// A statement is prepared; the client is to know it by this number.
    Prepare(&'a Key, u32),
    /// A statement runs that the client has prepared.
    Execute(super::execution::Execution<'a>),
    /// A command too long to be kept: what is here of it, and what it is.
    Long(&'a mut super::long::Long),
}

impl Ask<'_> {
    fn shape(&self) -> Shape {
        match self {
            Self::Packets(_, shape) => *shape,
            Self::Prepare(_, number) => Shape::Prepared(*number),
            Self::Execute(_) | Self::Long(_) => Shape::Results,
        }
    }

    /// Whether a schema is entered, whichever the session was in.
    pub(super) fn enters_schema(&self, verdict: &Verdict) -> bool {
        match self {
            Self::Packets(bytes, _) => {
                let kind = bytes.get(codec::HEADER_BYTES).copied();
                kind == Some(command::INIT_DB) || matches!(verdict.class, Class::Use(_))
            }
            _ => false,
        }
    }

    /// Whether it can be sent once more.
    fn is_kept(&self) -> bool {
        !matches!(self, Self::Long(_))
    }
}

/// Why an attempt came to nothing.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Nothing was sent that could have been carried out.
    Before(SqlError),
    /// It was sent, and the connection is no more. `begun`: the client has some of the answer.
    After {
        /// Why.
        error: SqlError,
        /// See above.
        begun: bool,
    },
    /// The session ends.
    End(End),
}

impl From<End> for Trouble {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

/// A command's connection that is no more.
struct Lost {
    error: SqlError,
    /// The client has some of the answer.
    begun: bool,
    /// Where its answer began.
    mark: usize,
}

/// What was heard while an answer was awaited.
enum Heard {
    Server(io::Result<usize>),
    ClientGone,
    Late,
}

impl Session {
    /// Serves one command whose statement is `verdict`; what its answer told, if it came.
    pub(super) async fn serve(
        &mut self,
        mut ask: Ask<'_>,
        verdict: &Verdict,
    ) -> Result<Option<Outcome>, End> {
        if let Err(error) = self.pass_gate().await {
            self.last = None;
            self.refuse(&error);
            return Ok(None);
        }
        // What waited may find another primary than it came for.
        self.check_primary()?;
        if let Some(why) = self.refused_away(verdict) {
            self.answer_error(ER_UNKNOWN_ERROR, *b"HY000", &why);
            return Ok(None);
        }
        self.commit_away(verdict).await;
        let mut place = self.place(verdict).await;
        let mut tries = Tries::default();
        loop {
            let mark = self.client.out.bytes.len();
            let attempted = self.attempt(&mut ask, verdict, &place).await;
            tries.begun += 1;
            // What a READ ONLY transaction there has seen, no other server can go on from.
            let moves = place.replica && !matches!(place.reason, READ_ONLY | PREVIOUS);
            if moves
                && ask.is_kept()
                && let Some(next) = self
                    .elsewhere(&attempted, &place, &mut tries, verdict)
                    .await
            {
                self.client.out.bytes.truncate(mark);
                place = next;
                continue;
            }
            match attempted {
                Ok(outcome) => {
                    self.count(&place, &outcome);
                    return Ok(Some(outcome));
                }
                Err(Trouble::Before(SqlError::Deposed { .. })) if tries.begun < TRIES => {
                    self.client.out.bytes.truncate(mark);
                    place = self.primary(place.reason);
                }
                Err(Trouble::Before(error)) => {
                    self.client.out.bytes.truncate(mark);
                    self.refuse(&error);
                    if let Some((_, _, reason)) = &mut self.refused {
                        *reason = place.reason;
                    }
                    return Ok(None);
                }
                Err(Trouble::After { error, begun }) => {
                    let ask = &mut ask;
                    let lost = Lost { error, begun, mark };
                    return Box::pin(self.after_loss(ask, verdict, &place, lost)).await;
                }
                Err(Trouble::End(end)) => return Err(end),
            }
        }
    }

    /// The connection of a command is no more, and it is not sent again.
    async fn after_loss(
        &mut self,
        ask: &mut Ask<'_>,
        verdict: &Verdict,
        place: &Place,
        lost: Lost,
    ) -> Result<Option<Outcome>, End> {
        let Lost { error, begun, mark } = lost;
        // What is left of it on the way must not be taken for commands.
        if !ask.is_kept() || self.file_rest.is_some() {
            return Err(self.end_long(ask, &error).await);
        }
        if has_ended(&error) && self.is_left_amid(verdict, mark) {
            return Err(End::Gone);
        }
        if !begun && self.ends_nothing(verdict) {
            self.client.out.bytes.truncate(mark);
            self.answer_ok();
            return Ok(None);
        }
        self.lost(&error, (!begun).then_some(mark), place)
    }

    /// Whether a statement ends a transaction where none is open.
    fn ends_nothing(&self, verdict: &Verdict) -> bool {
        // Nor does it matter to whoever asks whether it is there which connection that was.
        let ends = matches!(
            verdict.class,
            Class::Commit | Class::Rollback | Class::Primary(PING)
        );
        ends && !self.in_transaction()
            && self.transaction_since.is_none()
            && self.pinned.is_none()
            && self.autocommits()
    }

    fn count(&mut self, place: &Place, outcome: &Outcome) {
        if matches!(place.reason, "no-position" | "behind") {
            // The next one shall find it.
            self.listener.cluster.note_missed();
        }
        let known = self
            .counted
            .as_ref()
            .filter(|(replica, reason, _)| *replica == place.replica && *reason == place.reason);
        if known.is_none() {
            let counter = self
                .listener
                .cluster
                .routed
                .routed(place.replica, place.reason);
            self.counted = Some((place.replica, place.reason, counter));
        }
        if let Some((_, _, counter)) = &self.counted {
            counter.increment();
        }
        let counters = &self.listener.counters;
        if outcome.error.is_some() {
            counters.failed.increment();
        } else if place.replica {
            counters.reads.increment();
        } else {
            counters.writes.increment();
        }
    }

    /// Sends the command to `place`, and hands on the answer.
    async fn attempt(
        &mut self,
        ask: &mut Ask<'_>,
        verdict: &Verdict,
        place: &Place,
    ) -> Result<Outcome, Trouble> {
        // Also of what comes to nothing there.
        self.last = Some((place.server, place.reason));
        self.is_placed = true;
        let attached = self.attach(place).await?;
        if !self.still_knows(&attached, verdict) {
            self.put_back(attached).await;
            return Err(Trouble::Before(SqlError::Forgotten));
        }
        let was_open = attached.in_transaction();
        let held = (self.begun.clone(), self.next.clone());
        let mut attached = self.prepare_or_put_back(attached, ask, verdict).await?;
        self.registered.runs(&mut attached);
        let exchanged = self.exchange(&mut attached, ask).await;
        attached.spoilt |= self.registered.rests();
        match exchanged {
            Ok(outcome) => {
                let asks = self.may_be_left(verdict, &outcome);
                if asks {
                    Box::pin(self.see_left(&mut attached)).await;
                }
                self.after(attached, verdict, &outcome).await;
                if asks {
                    // A server that is asked tells no rows of the statement before any more.
                    self.forget_latest();
                }
                Ok(outcome)
            }
            Err(trouble) => {
                attached.tainted = true;
                if !place.replica {
                    if verdict.ddl {
                        self.listener.cluster.ddl_doubted();
                    }
                    // It may have been carried out, and be seen on no replica yet.
                    self.freshness.used_primary(None);
                    attached.sets_insert_id |= verdict.may_set_last_insert_id;
                    self.forget_insert_id(&attached);
                }
                if place.replica && !was_open {
                    // It goes on elsewhere, from its beginning.
                    (self.begun, self.next) = held;
                }
                Err(trouble)
            }
        }
    }

    /// Brings a connection to where the command may be sent, or puts it back.
    pub(super) async fn prepare_or_put_back(
        &mut self,
        mut attached: Box<Attached>,
        ask: &Ask<'_>,
        verdict: &Verdict,
    ) -> Result<Box<Attached>, Trouble> {
        let was_open = attached.in_transaction();
        let held = (self.begun.clone(), self.next.clone());
        let Err(error) = self.prepare(&mut attached, ask, verdict).await else {
            return Ok(attached);
        };
        // A connection that was brought half-way is at nobody's settings.
        let answered = matches!(error, SqlError::Question { .. });
        let keeps = was_open || self.pinned.is_some() || attached.open > 0;
        // One that was begun here for this statement is begun again with the next.
        attached.tainted |= !answered || (attached.in_transaction() && !was_open);
        if !was_open {
            (self.begun, self.next) = held;
        }
        if attached.tainted && !keeps {
            self.give_back(attached).await;
        } else {
            self.put_back(attached).await;
        }
        if keeps && !answered {
            return Err(Trouble::After {
                error,
                begun: false,
            });
        }
        Err(Trouble::Before(error))
    }

    /// Sends the command and hands on its answer.
    async fn exchange(
        &mut self,
        attached: &mut Attached,
        ask: &mut Ask<'_>,
    ) -> Result<Outcome, Trouble> {
        let server = attached.server;
        let mut edit = self.edit(attached.replica);
        edit.read_only = attached.replica && attached.tells_transaction();
        // The rows' own end tells the flags of all else.
        let mut flags = match ask {
            Ask::Prepare(..) => self.own_status(),
            _ => self.transaction_status(),
        };
        if attached.tells_transaction() {
            flags |= status::IN_TRANS;
        }
        let Some(upstream) = attached.lease.upstream() else {
            return Err(End::Gone.into());
        };
        let mut sequence = 1;
        let mut out = Outgoing::over(std::mem::take(&mut upstream.spare));
        match ask {
            Ask::Packets(bytes, _) => out.bytes.extend_from_slice(bytes),
            Ask::Prepare(key, _) => write_command(&mut out.bytes, command::STMT_PREPARE, &key.sql),
            Ask::Execute(execution) => execution.write(upstream, &mut out.bytes),
            Ask::Long(long) => sequence = self.send_long(upstream, long, server).await?,
        }
        let mut relay = Relay::new(
            ask.shape(),
            self.capabilities,
            upstream.capabilities,
            sequence,
            flags,
            edit,
        );
        self.hand_on(upstream, &mut out, &mut relay, server).await?;
        if let (Ask::Prepare(key, _), Some((number, ..))) = (&*ask, relay.outcome.prepared)
            && let Some(closed) = upstream.prepared.add((*key).clone(), number)
        {
            write_command(&mut out.bytes, command::STMT_CLOSE, &closed.to_le_bytes());
            self.send_upstream(upstream, &mut out, server).await?;
        }
        if out.is_out() {
            out.rest();
            upstream.spare = out.bytes;
        } else {
            // Answered before it was asked to the end: what is left would be taken for the next command.
            attached.tainted = true;
        }
        Ok(relay.outcome)
    }

    /// Sends what is in `out` and hands on the answer to its end.
    async fn hand_on(
        &mut self,
        upstream: &mut Upstream,
        out: &mut Outgoing,
        relay: &mut Relay,
        server: usize,
    ) -> Result<(), Trouble> {
        let mut begun = false;
        loop {
            let fed = relay.feed(&mut upstream.received, &mut self.client.out.bytes);
            match fed {
                Ok(Fed::Done) => return Ok(()),
                Ok(Fed::Infile) => {
                    self.flush().await?;
                    relay.flushed();
                    begun = true;
                    let last = self.send_file(upstream, server, relay).await?;
                    relay.file_sent(last);
                    continue;
                }
                Ok(Fed::More) => {}
                Err(source) => {
                    let error = SqlError::malformed(self.server_name(server), &source);
                    return Err(Trouble::After { error, begun });
                }
            }
            if self.client.out.waiting() >= BATCH {
                begun = true;
                self.flush().await?;
                relay.flushed();
            }
            match self.listen(upstream, out).await {
                Heard::Server(Ok(1..)) => {}
                Heard::Server(read) => {
                    let source = read.err().unwrap_or(io::ErrorKind::UnexpectedEof.into());
                    let error = SqlError::Lost {
                        server: self.server_name(server),
                        source,
                    };
                    return Err(Trouble::After { error, begun });
                }
                Heard::ClientGone => {
                    self.registered.stop();
                    return Err(End::Gone.into());
                }
                Heard::Late => {
                    // Whoever reads rows as they come should not wait for a batch of them.
                    if self.client.out.waiting() > 0 {
                        begun = true;
                        self.flush().await?;
                        relay.flushed();
                    }
                    self.check_server(server)
                        .map_err(|error| Trouble::After { error, begun })?;
                }
            }
        }
    }

    /// Waits for the server, and notices when the client leaves.
    async fn listen(&mut self, upstream: &mut Upstream, out: &mut Outgoing) -> Heard {
        poll_fn(|context| {
            if !out.is_out()
                && let Poll::Ready(Err(error)) = out.poll_send(&mut upstream.stream, context)
            {
                return Poll::Ready(Heard::Server(Err(error)));
            }
            let client = &mut self.client;
            let into = &mut upstream.received;
            if let Poll::Ready(read) = poll_read(
                &mut upstream.stream,
                &client.scratch,
                into,
                SCRATCH,
                context,
            ) {
                return Poll::Ready(Heard::Server(read));
            }
            if client.inbound.len() < READ_AHEAD {
                let (stream, into) = (&mut client.stream, &mut client.inbound);
                match poll_read(stream, &client.scratch, into, SCRATCH, context) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Heard::ClientGone),
                    Poll::Ready(Ok(_)) => context.waker().wake_by_ref(),
                    Poll::Pending => {}
                }
            }
            self.timer_late(context)
        })
        .await
    }

    /// The timer that goes off now and then while an answer is awaited.
    fn timer_late(&mut self, context: &mut Context<'_>) -> Poll<Heard> {
        match self.timer.stands() {
            Stands::Soon => Poll::Pending,
            Stands::Over => {
                self.timer.clear();
                Poll::Ready(Heard::Late)
            }
            Stands::Unset | Stands::Far => {
                let due = clock::now() + HEALTH_LOOK;
                self.timer.poll(due, due, context).map(|()| Heard::Late)
            }
        }
    }

    /// Sends all of `out`.
    pub(super) async fn send_upstream(
        &mut self,
        upstream: &mut Upstream,
        out: &mut Outgoing,
        server: usize,
    ) -> Result<(), Trouble> {
        loop {
            let due = clock::now() + HEALTH_LOOK;
            let sending = poll_fn(|context| out.poll_send(&mut upstream.stream, context));
            match tokio::time::timeout_at(due.into(), sending).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(source)) => {
                    let server = self.server_name(server);
                    let error = SqlError::Lost { server, source };
                    return Err(Trouble::After {
                        error,
                        begun: false,
                    });
                }
                Err(_) => self.check_server(server).map_err(|error| Trouble::After {
                    error,
                    begun: false,
                })?,
            }
        }
    }

    /// An error once a server is known to be down.
    pub(super) fn check_server(&self, number: usize) -> Result<(), SqlError> {
        let server = self.listener.cluster.server(number);
        server.map_or(Ok(()), |it| check_up(&it.options.health, it.name()))
    }

    pub(super) fn server_name(&self, number: usize) -> String {
        let server = self.listener.cluster.server(number);
        server.map_or("?", |server| server.name()).to_owned()
    }
}

/// Writes a command of one packet, or of several if it is that long.
pub(super) fn write_command(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    let mut payload = Vec::with_capacity(1 + body.len());
    payload.push(kind);
    payload.extend_from_slice(body);
    codec::write_packet(out, &mut 0, &payload);
}

/// Makes packets of a command.
pub(super) fn command_bytes(kind: u8, body: &[u8]) -> BytesMut {
    let mut out = Vec::new();
    write_command(&mut out, kind, body);
    BytesMut::from(out.as_slice())
}
