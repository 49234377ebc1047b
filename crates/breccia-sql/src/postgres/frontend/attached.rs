//! A connection upstream while a session holds it, and one turn of the relay between the two.
//!
//! Not what is asked there. Invariant: both directions move at once, so neither end can wait for
//! the other with both their buffers full.

use std::collections::BTreeSet;
use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use super::client::{Client, HIGH_WATER, Outgoing, READ_AHEAD, SCRATCH, poll_read};
use super::expected::Expected;
use crate::pause::Running;
use crate::postgres::codec::message::Status;
use crate::postgres::pool::Lease;
use crate::postgres::token::{Home, Lsn};

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
    /// The client gets nothing yet, as long as that is little: the statement may still run elsewhere. See also [`Self::is_spared`].
    pub(super) held: bool,
    /// A COMMIT was sent, or a write outside a transaction: if the connection is lost, nobody
    /// knows whether it was carried out.
    pub(super) unknown: bool,
    /// A COMMIT or ROLLBACK was sent and is not answered.
    pub(super) ending: bool,
    /// Something was sent that makes the catalogue another.
    pub(super) ddl: bool,
    /// The last statement was answered with an error.
    pub(super) failed: bool,
    /// The server has said that the connection ends, and the client has heard it.
    pub(super) farewell: bool,
    /// Something was sent that may show or change what the database holds.
    pub(super) seen: bool,
    /// It owes more than it may, and was asked for it.
    pub(super) full: bool,
    /// Something was asked for that may be another session's: see [`super::noted`].
    pub(super) foreign_value: bool,
    /// Something was sent whose effect outlasts DISCARD ALL.
    pub(super) lasting: bool,
    /// Settings were changed for the transaction that is open.
    pub(super) loose: bool,
    /// A statement that others share was prepared under settings that are not known.
    pub(super) spoilt: bool,
    /// What a session that keeps the connection has reset, of what it began with.
    pub(super) resets: BTreeSet<String>,
    /// A BEGIN that the client was answered before goes first.
    pub(super) opening: bool,
    /// A piece of a long frame of the client still follows.
    pub(super) passing: usize,
    pub(super) running: Running,
    /// What a replica is known to have replayed.
    pub(super) has: Lsn,
    /// A portal was bound to a statement that ends the transaction.
    pub(super) ends_bound: bool,
    /// A replica would have served, had its position been known in time.
    pub(super) missed: bool,
}

impl Attached {
    /// The replica as the one that served last, now.
    pub(super) fn home(&mut self, now: Instant) -> Home {
        let upstream = self.lease.upstream();
        Home {
            server: self.server,
            run: upstream.map_or(0, |upstream| upstream.instance.run),
            last: now,
            has: self.has,
        }
    }

    /// What the connection has prepared is not what it should be. It is lent to nobody else, and who
    /// keeps it has all prepared anew.
    pub(super) fn distrust(&mut self) {
        self.tainted = true;
        if let Some(upstream) = self.lease.upstream() {
            upstream.prepared.distrust();
        }
    }

    /// All that was sent is answered.
    pub(super) fn all_answered(&mut self) {
        (self.held, self.unknown) = (false, false);
        (self.ending, self.foreign_value) = (false, false);
    }

    /// Whether its answer may still be a replica's last word to nobody: whatever comes of it there, the
    /// statement can run elsewhere. On the primary it can only once another server is that.
    pub(super) fn is_spared(&self) -> bool {
        self.held && self.replica
    }

    /// Whether nothing is owed and no transaction is open.
    pub(super) fn is_idle(&self) -> bool {
        self.is_settled() && self.expected.status == Some(Status::Idle)
    }

    /// Whether nothing is owed, be it in a transaction. Of a copy that failed, bytes may be on their
    /// way to a server that has answered all.
    pub(super) fn is_settled(&self) -> bool {
        self.expected.is_empty()
            && self.out.is_out()
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

/// Moves bytes both ways; `Ready` with what happened first.
pub(super) fn poll_turn(
    client: &mut Client,
    attached: Option<&mut Attached>,
    context: &mut Context<'_>,
) -> Poll<Event> {
    let mut held = false;
    let full = client.out.waiting() >= HIGH_WATER;
    if let Some(attached) = attached {
        held = attached.held;
        if let Some(upstream) = attached.lease.upstream() {
            if !attached.out.is_out() {
                match attached.out.poll_send(&mut upstream.stream, context) {
                    Poll::Ready(Err(error)) => return Poll::Ready(Event::ServerLost(error)),
                    // There is room for what the client has sent meanwhile; or this was the last.
                    Poll::Ready(Ok(()))
                        if !client.inbound.is_empty() || attached.expected.is_empty() =>
                    {
                        return Poll::Ready(Event::Sent);
                    }
                    _ => {}
                }
            }
            // The client takes nothing while its statement is held: of that, little is kept.
            if held || !full {
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
    if !client.out.is_out() && !held {
        match client.out.poll_send(&mut client.stream, context) {
            Poll::Ready(Err(_)) => return Poll::Ready(Event::ClientGone),
            Poll::Ready(Ok(())) if full || !client.inbound.is_empty() => {
                return Poll::Ready(Event::Sent);
            }
            _ => {}
        }
    }
    if held && client.unwatched {
        return Poll::Pending;
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::poll_fn;
    use std::path::{Path, PathBuf};
    use std::rc::Rc;
    use std::time::Duration;

    use breccia_net::clock;
    use breccia_net::stream::{Socket, Stream};
    use breccia_net::tls::{TlsClient, TlsClientOptions, TlsServer, TlsServerOptions};
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixStream;

    use super::*;

    /// Waits for one event.
    async fn turn(
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

    fn pki(file: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../breccia-net/tests/pki")
            .join(file)
    }

    /// Both ends of a connection under TLS; the first is the server's.
    async fn pair() -> (Stream, Stream) {
        let server = TlsServer::new(&TlsServerOptions {
            cert: pki("server.pem"),
            key: pki("server.key"),
            client_ca: None,
        });
        let options = TlsClientOptions {
            ca: Some(pki("authority.pem")),
            ..TlsClientOptions::default()
        };
        let client = TlsClient::new(&options, "localhost").expect("good files");
        let server = server.expect("good files");
        let (here, there) = UnixStream::pair().expect("a pair");
        let (here, there) = tokio::join!(
            server.handshake(Socket::Unix(here)),
            client.handshake(Socket::Unix(there))
        );
        (
            Stream::TlsServer(Box::new(here.expect("a handshake"))),
            Stream::TlsClient(Box::new(there.expect("a handshake"))),
        )
    }

    #[tokio::test]
    async fn what_tls_has_taken_and_the_socket_has_not_is_sent_too() {
        let (here, mut there) = pair().await;
        let scratch = Rc::new(RefCell::new(vec![0; SCRATCH]));
        let mut client = Client::new(here, scratch);
        let soon = || Some(clock::now() + Duration::from_millis(50));
        let mut given = 0;
        // Until the socket takes no more of a piece that TLS has taken whole.
        while client.out.is_out() {
            client.out.bytes.resize(10_000, b'x');
            given += 10_000;
            let event = turn(&mut client, None, soon()).await;
            assert!(matches!(event, Event::Late), "{event:?}");
        }
        let mut bytes = vec![0; given];
        tokio::select! {
            read = there.read_exact(&mut bytes) => drop(read.expect("all of them")),
            event = turn(&mut client, None, Some(clock::now() + Duration::from_secs(5))) => {
                panic!("{event:?} before all were there");
            }
        }
    }
}
