//! The end of a session: what its client is told, and what becomes of its connection upstream.
//!
//! Not why it ends. Invariant: a client hears of it at once, whatever its server does, and hears it though it
//! is still writing; nobody is listened to for ever.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use breccia_net::clock;
use breccia_net::drain::Phase;
use breccia_net::stream::close_gently;

use super::attached::Attached;
use super::cancel::Doing;
use super::client::{Client, SCRATCH, poll_read};
use super::login::fatal;
use super::looks::goes_down;
use super::session::{End, Session};
use crate::ends::Limit;
use crate::postgres::cluster::{Cluster, Database};
use crate::postgres::codec::{self, MAX_FRAME_BYTES};

/// How long a connection that ends may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);
/// How long a client may take to send the rest of a message that was refused.
const REST_TIME: Duration = Duration::from_secs(30);
/// How long it may be silent amid it.
const REST_SILENCE: Duration = Duration::from_secs(5);
/// How long it may be silent behind it: what it has sent without waiting is there by then.
const REST_TAIL: Duration = Duration::from_millis(100);
/// The most bytes of it that are read: as much as a server would take of one message.
const REST_BYTES: usize = MAX_FRAME_BYTES;

impl Session {
    /// Says goodbye. A connection that is not idle is closed with the session.
    pub(super) async fn leave(mut self, end: End) {
        self.tell_end(&end);
        let attached = self.attached.take();
        let (database, cluster) = (
            Arc::clone(&self.database),
            Arc::clone(&self.listener.cluster),
        );
        let doing = Arc::clone(&self.registered.doing);
        let letting_go = async move {
            let Some(attached) = attached else {
                return;
            };
            if !attached.is_settled() {
                // What still runs there is of no use to anybody.
                stop(&doing, &attached, &cluster).await;
            }
            doing.end();
            close(attached, &database);
        };
        // A server that is silent holds up no client, and the other way round. Neither is a hot path.
        tokio::join!(Box::pin(letting_go), Box::pin(self.say_goodbye(end)));
    }

    async fn say_goodbye(&mut self, end: End) {
        if self.client.out.is_out() {
            let limit = self.listener.limits.write_timeout;
            self.client.stream.sent(limit, &self.listener.drain).await;
        }
        let last = clock::now() + GOODBYE;
        match end {
            End::Gone => drop(self.client.send(last).await),
            End::Told(state, text) => fatal(&mut self.client, state, &text, "", last).await,
        }
        if self.over == Some(Limit::Request) {
            let drain = self.listener.drain.clone();
            tokio::select! {
                () = hear_out(&mut self.client) => {}
                () = drain.draining() => {}
            }
        }
        if self.listener.drain.phase() != Phase::Closing {
            close_gently(&mut self.client.stream, GOODBYE).await;
        }
    }

    /// Lets the connection go as it is: it is closed.
    pub(super) fn let_go(&mut self) {
        if let Some(attached) = self.attached.take() {
            close(attached, &self.database);
        }
    }
}

fn close(attached: Attached, database: &Database) {
    let ddl = attached.ddl;
    drop(attached);
    if ddl {
        // Nobody knows whether and when that takes effect.
        database.note_doubt();
    }
}

/// Cancels what still runs on a connection, if its server is there to hear it.
async fn stop(doing: &Doing, attached: &Attached, cluster: &Cluster) {
    // Whatever was to come is not sent.
    doing.dropped();
    if attached.expected.batches() > 1 {
        // The server has the next one already, which must not be carried out without the one before.
        return;
    }
    let endpoint = attached.lease.pool().endpoint();
    tokio::select! {
        biased;
        _ = goes_down(cluster, attached.server, endpoint) => {}
        () = doing.cancel() => {}
    }
}

/// Reads and drops the rest of a message that was refused. Most clients write all of one before they read,
/// and those that meet the end of the connection amid that tell their users of nothing else.
async fn hear_out(client: &mut Client) {
    let end = clock::now() + REST_TIME;
    let message = codec::head(&client.inbound).ok().flatten();
    let mut rest = message.map_or(0, |head| head.length);
    let mut most = REST_BYTES;
    loop {
        let came = client.inbound.len();
        client.inbound.clear();
        rest = rest.saturating_sub(came);
        most = most.saturating_sub(came);
        let silence = if rest > 0 { REST_SILENCE } else { REST_TAIL };
        let until = end.min(clock::now() + silence);
        let read = tokio::time::timeout_at(until.into(), read_on(client)).await;
        if most == 0 || !matches!(read, Ok(Ok(1..))) {
            return;
        }
    }
}

/// Reads more of a client that may not have taken all it was told.
async fn read_on(client: &mut Client) -> io::Result<usize> {
    poll_fn(|context| {
        // Once it reads no more there is nothing to tell it.
        let _ = client.out.poll_send(&mut client.stream, context);
        let (stream, into) = (&mut client.stream, &mut client.inbound);
        poll_read(stream, &client.scratch, into, SCRATCH, context)
    })
    .await
}
