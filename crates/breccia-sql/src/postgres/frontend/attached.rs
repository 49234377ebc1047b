//! A connection upstream while a session holds it, and one turn of the relay between the two.
//!
//! Not what is asked there. Invariant: both directions move at once, so neither end can wait for
//! the other with both their buffers full.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use super::client::{Client, HIGH_WATER, Outgoing, READ_AHEAD, SCRATCH, poll_read};
use super::expected::Expected;
use crate::postgres::cluster::pause::Running;
use crate::postgres::codec::message::Status;
use crate::postgres::pool::Lease;

/// A connection a session holds.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) lease: Lease,
    pub(super) server: usize,
    pub(super) replica: bool,
    /// The view in which its server was last seen to be what it is used as.
    pub(super) version: u64,
    pub(super) out: Outgoing,
    pub(super) expected: Expected,
    /// The connection's unnamed statement is the session's.
    pub(super) unnamed_here: bool,
    /// Something of it is not as its pool believes: it is closed, not lent again.
    pub(super) tainted: bool,
    /// The client gets nothing yet: the statement may still run elsewhere.
    pub(super) held: bool,
    /// A COMMIT was sent, or a write outside a transaction: if the connection is lost, nobody
    /// knows whether it was carried out.
    pub(super) unknown: bool,
    /// Something was sent that makes the catalogue another.
    pub(super) ddl: bool,
    /// The server has said that the connection ends, and the client has heard it.
    pub(super) farewell: bool,
    /// Something was sent that may show or change what the database holds.
    pub(super) seen: bool,
    /// What was reset by a session that keeps the connection; none: all.
    pub(super) resets: Vec<Option<String>>,
    /// A BEGIN that the client was answered before goes first.
    pub(super) opening: bool,
    /// A piece of a long frame of the client still follows.
    pub(super) passing: usize,
    pub(super) running: Running,
}

impl Attached {
    /// Whether nothing is owed and no transaction is open.
    pub(super) fn is_idle(&self) -> bool {
        self.is_settled() && self.expected.status == Some(Status::Idle)
    }

    /// Whether nothing is owed, be it in a transaction.
    pub(super) fn is_settled(&self) -> bool {
        self.expected.is_empty()
            && !self.expected.unsynced
            && self.passing == 0
            && self.expected.status.is_some()
    }

    /// Whether a transaction is open.
    pub(super) fn in_transaction(&self) -> bool {
        match self.expected.status {
            None => self.opening,
            Some(status) => status != Status::Idle,
        }
    }
}

/// What happened first.
#[derive(Debug)]
pub(super) enum Event {
    /// The server sent something.
    Server,
    /// The client sent something.
    Client,
    /// The client is gone.
    ClientGone,
    /// The connection upstream is lost.
    ServerLost(io::Error),
    /// The time is up.
    Late,
    /// Bytes were taken that others waited behind.
    Sent,
}

/// Waits for one event, moving bytes both ways.
pub(super) async fn turn(
    client: &mut Client,
    attached: Option<&mut Attached>,
    end: Option<Instant>,
) -> Event {
    let mut attached = attached;
    let moving = poll_fn(|context| poll_turn(client, attached.as_deref_mut(), context));
    match end {
        None => moving.await,
        Some(end) => tokio::time::timeout_at(end.into(), moving)
            .await
            .unwrap_or(Event::Late),
    }
}

fn poll_turn(
    client: &mut Client,
    attached: Option<&mut Attached>,
    context: &mut Context<'_>,
) -> Poll<Event> {
    let mut held = false;
    let mut skipped = false;
    if let Some(attached) = attached {
        held = attached.held;
        if let Some(upstream) = attached.lease.upstream() {
            if attached.out.waiting() > 0 {
                match attached.out.poll_send(&mut upstream.stream, context) {
                    Poll::Ready(Err(error)) => return Poll::Ready(Event::ServerLost(error)),
                    // There is room for what the client has sent meanwhile.
                    Poll::Ready(Ok(())) if !client.inbound.is_empty() => {
                        return Poll::Ready(Event::Sent);
                    }
                    _ => {}
                }
            }
            skipped = client.out.waiting() >= HIGH_WATER;
            if !skipped {
                let (stream, into) = (&mut upstream.stream, &mut upstream.received);
                match poll_read(stream, &client.scratch, into, SCRATCH, context) {
                    Poll::Ready(Ok(0)) => {
                        let end = io::ErrorKind::UnexpectedEof.into();
                        return Poll::Ready(Event::ServerLost(end));
                    }
                    Poll::Ready(Ok(_)) => return Poll::Ready(Event::Server),
                    Poll::Ready(Err(error)) => return Poll::Ready(Event::ServerLost(error)),
                    Poll::Pending => {}
                }
            }
        }
    }
    if client.out.waiting() > 0 && !held {
        match client.out.poll_send(&mut client.stream, context) {
            Poll::Ready(Err(_)) => return Poll::Ready(Event::ClientGone),
            Poll::Ready(Ok(())) if skipped => return Poll::Ready(Event::Sent),
            _ => {}
        }
    }
    if client.inbound.len() < client.wanted.max(READ_AHEAD) {
        let (stream, into) = (&mut client.stream, &mut client.inbound);
        match poll_read(stream, &client.scratch, into, SCRATCH, context) {
            Poll::Ready(Ok(1..)) => return Poll::Ready(Event::Client),
            Poll::Ready(_) => return Poll::Ready(Event::ClientGone),
            Poll::Pending => {}
        }
    }
    Poll::Pending
}
