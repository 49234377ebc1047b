//! Both sides of a command that is on its way in pieces: a client that goes silent, and a server that has
//! had enough before it has all of it.
//!
//! Not the pieces ([`super::long`]). Invariant: whoever waits for a client here hears the server, too, so
//! that no connection outlives its server's patience; and a client that is told why its command failed has
//! sent it to the end, as its protocol asks, or has had [`DRAIN`].

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use breccia_net::clock;
use bytes::BytesMut;

use super::limits::killed;
use super::long::Long;
use super::prepared::WRONG_ARGUMENTS;
use super::serve::{Ask, HEALTH_LOOK, Trouble};
use super::session::{End, Session};
use crate::ends::Limit;
use crate::error::SqlError;
use crate::flow::{Outgoing, SCRATCH, poll_read};
use crate::mysql::codec::{self, ErrPacket, HEADER_BYTES};
use crate::mysql::told::code_of;
use crate::mysql::upstream::Upstream;

/// How long the rest of a command is read that nobody wants any more.
const DRAIN: Duration = Duration::from_secs(10);
/// How long a client may be silent amid a command that a server waits for. Servers themselves wait for
/// hours there, and amid a file as long as their `net_read_timeout`.
const SILENCE: Duration = Duration::from_mins(1);
/// How long after a connection failed its server's last words are looked for.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// What was heard.
enum Heard {
    /// Somebody has ended the session.
    Killed,
    Client(io::Result<usize>),
    Server(io::Result<usize>),
    Sent(io::Result<()>),
}

impl Session {
    /// When a client has been silent for too long amid a command: it is as idle there as between two, and no
    /// connection waits longer for it than in a transaction.
    fn silence_end(&self) -> Option<Instant> {
        let limits = &self.listener.limits;
        let limits = [limits.idle_timeout, limits.idle_in_transaction_timeout];
        let limit = limits.into_iter().flatten().min()?;
        Some(clock::now() + limit)
    }

    /// Reads more of a long command, of which no server has anything.
    pub(super) async fn more(&mut self, here: &mut BytesMut) -> Result<(), End> {
        let end = self.silence_end();
        let reading = self.listen_to_client();
        let heard = match end {
            Some(end) => tokio::time::timeout_at(end.into(), reading).await.ok(),
            None => Some(reading.await),
        };
        match heard {
            Some(Heard::Client(Ok(1..))) => {
                here.unsplit(self.client.inbound.split());
                Ok(())
            }
            Some(Heard::Killed) => Err(killed()),
            Some(_) => Err(End::Gone),
            None => {
                self.over = Some(Limit::Idle);
                Err(End::Gone)
            }
        }
    }

    async fn listen_to_client(&mut self) -> Heard {
        poll_fn(|context| {
            if let Poll::Ready(killed) = self.poll_killed(context) {
                return Poll::Ready(killed);
            }
            let client = &mut self.client;
            let (stream, into) = (&mut client.stream, &mut client.inbound);
            poll_read(stream, &client.scratch, into, SCRATCH, context).map(Heard::Client)
        })
        .await
    }

    fn poll_killed(&self, context: &mut Context<'_>) -> Poll<Heard> {
        self.registered.note(context);
        if self.registered.is_ended() {
            return Poll::Ready(Heard::Killed);
        }
        Poll::Pending
    }

    /// The same of one that a server has the beginning of, or of a file that it has asked for.
    pub(super) async fn more_amid(
        &mut self,
        here: &mut BytesMut,
        upstream: &mut Upstream,
        server: usize,
        file: bool,
    ) -> Result<(), Trouble> {
        let end = self.silence_end();
        let own = (!file).then(|| clock::now() + SILENCE);
        let listening = self.listen_amid(upstream);
        let heard = match end.into_iter().chain(own).min() {
            Some(end) => tokio::time::timeout_at(end.into(), listening)
                .await
                .map_err(|_| silent())?,
            None => listening.await,
        };
        match heard {
            Heard::Client(Ok(1..)) => {
                here.unsplit(self.client.inbound.split());
                Ok(())
            }
            Heard::Server(read) => Err(self.interrupted(upstream, server, read).await),
            Heard::Killed => Err(killed().into()),
            Heard::Client(_) | Heard::Sent(_) => Err(End::Gone.into()),
        }
    }

    async fn listen_amid(&mut self, upstream: &mut Upstream) -> Heard {
        poll_fn(|context| {
            if let Poll::Ready(killed) = self.poll_killed(context) {
                return Poll::Ready(killed);
            }
            let client = &mut self.client;
            let (stream, into) = (&mut upstream.stream, &mut upstream.received);
            if let Poll::Ready(read) = poll_read(stream, &client.scratch, into, SCRATCH, context) {
                return Poll::Ready(Heard::Server(read));
            }
            let (stream, into) = (&mut client.stream, &mut client.inbound);
            poll_read(stream, &client.scratch, into, SCRATCH, context).map(Heard::Client)
        })
        .await
    }

    /// Sends a piece of a command.
    pub(super) async fn send_amid(
        &mut self,
        upstream: &mut Upstream,
        out: &mut Outgoing,
        server: usize,
    ) -> Result<(), Trouble> {
        loop {
            let sending = poll_fn(|context| {
                if let Poll::Ready(killed) = self.poll_killed(context) {
                    return Poll::Ready(killed);
                }
                let (stream, into) = (&mut upstream.stream, &mut upstream.received);
                let sent = out.poll_send(stream, context).map(Heard::Sent);
                if let Poll::Ready(Heard::Sent(Ok(()))) = sent {
                    return sent;
                }
                // One that reads no more may have said why.
                match poll_read(stream, &self.client.scratch, into, SCRATCH, context) {
                    Poll::Ready(read) => Poll::Ready(Heard::Server(read)),
                    Poll::Pending => sent,
                }
            });
            let due = clock::now() + HEALTH_LOOK;
            match tokio::time::timeout_at(due.into(), sending).await {
                Ok(Heard::Sent(Ok(()))) => return Ok(()),
                // What it said before it closed may still be read.
                Ok(Heard::Sent(Err(_))) => {
                    return Err(self.interrupted(upstream, server, Ok(1)).await);
                }
                Ok(Heard::Server(read)) => {
                    return Err(self.interrupted(upstream, server, read).await);
                }
                Ok(Heard::Killed) => return Err(killed().into()),
                Ok(Heard::Client(_)) => {}
                Err(_) => self.check_server(server).map_err(|error| Trouble::After {
                    error,
                    begun: false,
                })?,
            }
        }
    }

    /// What a server that ended a command before its end has said of it, if it has.
    async fn interrupted(
        &mut self,
        upstream: &mut Upstream,
        server: usize,
        read: io::Result<usize>,
    ) -> Trouble {
        let name = self.server_name(server);
        let end = clock::now() + LAST_WORDS;
        let mut read = read;
        let error = loop {
            if let Some(error) = said(&upstream.received, &name) {
                break error;
            }
            if let Ok(0) | Err(_) = read {
                let source = read.err().unwrap_or(io::ErrorKind::UnexpectedEof.into());
                break SqlError::Lost {
                    server: name,
                    source,
                };
            }
            let scratch = &self.client.scratch;
            let (stream, into) = (&mut upstream.stream, &mut upstream.received);
            let reading = poll_fn(|context| poll_read(stream, scratch, into, SCRATCH, context));
            let timed = tokio::time::timeout_at(end.into(), reading).await;
            read = timed.unwrap_or(Err(io::ErrorKind::TimedOut.into()));
        };
        Trouble::After {
            error,
            begun: false,
        }
    }

    /// Ends a session whose command was lost on the way: the client is told once it has sent all of it.
    pub(super) async fn end_long(&mut self, ask: &mut Ask<'_>, error: &SqlError) -> End {
        match (ask, self.file_rest.take()) {
            // Of a file that a server has asked for.
            (_, Some(rest)) => {
                let end = clock::now() + DRAIN;
                let _ = tokio::time::timeout_at(end.into(), self.drop_file(rest)).await;
            }
            (Ask::Long(long), None) => self.drain(long).await,
            _ => {}
        }
        told_of(error)
    }

    /// Reads what is left of a long command, for a while: a client that does not come to its end is told all
    /// the same.
    pub(super) async fn drain(&mut self, long: &mut Long) {
        let end = clock::now() + DRAIN;
        let _ = tokio::time::timeout_at(end.into(), self.drop_rest(long)).await;
    }

    async fn drop_file(&mut self, rest: FileRest) -> Result<(), End> {
        let FileRest { mut here, mut left } = rest;
        loop {
            while left > 0 {
                if here.is_empty() {
                    self.more(&mut here).await?;
                }
                let step = left.min(here.len());
                drop(here.split_to(step));
                left -= step;
            }
            while here.len() < HEADER_BYTES {
                self.more(&mut here).await?;
            }
            let Some(header) = codec::header(&here) else {
                return Err(End::Gone);
            };
            self.next_packet = header.sequence.wrapping_add(1);
            drop(here.split_to(HEADER_BYTES));
            left = header.length;
            if left == 0 {
                return Ok(());
            }
        }
    }

    /// A command names a statement that is not there.
    pub(super) fn unknown_statement(&mut self, number: u32, whom: &str) {
        let why = format!("Unknown prepared statement handler ({number}) given to {whom}");
        self.answer_error(1243, *b"HY000", &why);
    }

    /// An execution whose packet ends too early is refused, as by a server.
    pub(super) fn cut_short(&mut self, payload: &[u8]) {
        // The command, the statement's number, flags, and how often.
        let (code, why) = if payload.len() < 10 {
            (1835, "Malformed communication packet")
        } else {
            (
                WRONG_ARGUMENTS,
                "Incorrect arguments to mysqld_stmt_execute",
            )
        };
        self.answer_error(code, *b"HY000", why);
    }

    /// Reads what is left of a long command, and drops it.
    pub(super) async fn drop_rest(&mut self, long: &mut Long) -> Result<(), End> {
        while !long.is_whole() {
            if !long.is_amid() {
                while long.here.len() < HEADER_BYTES {
                    self.more(&mut long.here).await?;
                }
                let number = long.begin_packet();
                self.next_packet = number.wrapping_add(1);
                continue;
            }
            if long.here.is_empty() {
                self.more(&mut long.here).await?;
            }
            drop(long.piece());
        }
        Ok(())
    }
}

/// A client that says no more is told so, and its connection is another's.
fn silent() -> End {
    // ER_NET_READ_INTERRUPTED.
    let why = "breccia: the client was silent amid a command for too long".to_owned();
    End::Told(1159, b"08S01", why)
}

/// What is left of a file that a client sends.
#[derive(Debug, Default)]
pub(super) struct FileRest {
    /// Read already, from where the packet was left.
    pub(super) here: BytesMut,
    /// Bytes of the packet that are still to come.
    pub(super) left: usize,
}

/// The words of a server that has answered before a command's end.
fn said(received: &BytesMut, server: &str) -> Option<SqlError> {
    let header = codec::header(received)?;
    let packet = received.get(HEADER_BYTES..HEADER_BYTES + header.length)?;
    let server = server.to_owned();
    Some(match ErrPacket::parse(packet) {
        Ok(error) => SqlError::Interrupted {
            server,
            errno: error.code,
            sqlstate: String::from_utf8_lossy(&error.sqlstate).into_owned(),
            text: String::from_utf8_lossy(error.message).into_owned(),
        },
        Err(_) => SqlError::malformed(server, &"an answer before the command's end"),
    })
}

/// What a client is told of a command whose connection is lost.
fn told_of(error: &SqlError) -> End {
    let (code, _) = code_of(error);
    match error {
        SqlError::Interrupted { text, .. } => End::Told(code, b"08S01", text.clone()),
        other => {
            let why = format!("breccia: {other}; whether it was carried out is unknown");
            End::Told(1158, b"08S01", why)
        }
    }
}
