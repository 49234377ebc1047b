//! Requests that a server of a cluster wants elsewhere: they go there, and the client does not see
//! it.
//!
//! ```text
//! shared connection ─ "-MOVED 77 h:p" ─▶ Kept ─▶ Redirects::take ─▶ task ─▶ connection of h:p
//! ```
//!
//! A redirection proves that nothing was applied, so sending the request again is safe. Invariant: a
//! request goes only to servers that the cluster itself has named, at most [`MOST_HOPS`] times and
//! within the listener's deadline; on a lease, which carries state of its client, it goes nowhere.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use breccia_core::address::Address;
use breccia_core::error::Effect;
use breccia_net::clock;

use super::super::cluster::Cluster;
use super::super::codec::reply::{Expected, line_length};
use super::super::commands::COMMANDS;
use super::super::encode;
use super::leaf::{Lease, Mode, RespUpstream};
use super::metrics::UNKNOWN_ROW;
use super::redirection::{Redirection, Target};
use super::redirects::Redirects;
use super::service::Forward;
use super::ticket::Ticket;
use super::touch::{Touch, runs_code, shortened};
use crate::front::client::Client;
use crate::pipeline::{Cause, Failure, Patience, Recipient};
use crate::topology::LeafIndex;

/// How often one request is sent elsewhere.
pub(super) const MOST_HOPS: u8 = 16;
/// Bytes of requests that one worker keeps for the case that they are wanted elsewhere; what comes
/// on top is sent all the same, and told if it is.
const MOST_KEPT_BYTES: usize = 64 << 20;
/// The pause before a request is sent again that no server takes at present.
pub(super) const PAUSE: Duration = Duration::from_millis(20);

const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";

/// A request that is with a server: its bytes are kept, and its client's others wait for it if one of
/// them is refused. Both end with this value.
pub(super) struct Hold {
    redirects: Rc<Redirects>,
    client: Option<Rc<Client>>,
    bytes: usize,
    at_server: bool,
}

impl Hold {
    fn new(redirects: &Rc<Redirects>, client: Option<&Rc<Client>>, bytes: usize) -> Self {
        redirects.kept.set(redirects.kept.get() + bytes);
        let mut hold = Self {
            redirects: Rc::clone(redirects),
            client: client.map(Rc::clone),
            bytes,
            at_server: false,
        };
        hold.arrive();
        hold
    }

    fn resize(&mut self, bytes: usize) {
        let others = self.redirects.kept.get().saturating_sub(self.bytes);
        self.redirects.kept.set(others + bytes);
        self.bytes = bytes;
    }

    fn arrive(&mut self) {
        if !std::mem::replace(&mut self.at_server, true)
            && let Some(client) = &self.client
        {
            client.at_servers.set(client.at_servers.get() + 1);
        }
    }

    pub(super) fn come_back(&mut self) {
        if !std::mem::replace(&mut self.at_server, false) {
            return;
        }
        if let Some(client) = &self.client {
            client
                .at_servers
                .set(client.at_servers.get().saturating_sub(1));
            if client.at_servers.get() == 0 && (client.redirected.get() || client.is_gone()) {
                self.redirects.look_at(client.id);
            }
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.resize(0);
        self.come_back();
    }
}

/// A request on a shared connection, with all that is needed to send it elsewhere.
pub(crate) struct Kept {
    pub(super) inner: Ticket,
    pub(super) frame: Rc<Vec<u8>>,
    pub(super) leaf: LeafIndex,
    /// The primary, while a replica is asked.
    pub(super) home: Option<LeafIndex>,
    /// The client's way: the mode of its connections, and which of them.
    pub(super) whose: (Mode, Option<u64>),
    pub(super) expires: Instant,
    /// How long the request may wait for a server each time, if it blocks.
    pub(super) blocks: Option<Duration>,
    /// The connection on which it blocks, after the first.
    lease: Option<Lease>,
    pub(super) hops: u8,
    /// Whether the reply comes after that of ASKING.
    pub(super) asking: bool,
    /// Whether it was asked of a replica, which keeps no order with what primaries are asked.
    pub(super) loose: bool,
    /// When it was sent at first, and at last.
    pub(super) sent: (Instant, Instant),
    pub(super) hold: Hold,
    redirects: Rc<Redirects>,
}

impl Kept {
    pub(super) fn deliver(self: Box<Self>, reply: &[u8]) {
        let start = if self.asking {
            line_length(reply)
        } else {
            None
        };
        let reply = reply.get(start.unwrap_or(0)..).unwrap_or_default();
        if reply.first() == Some(&b'-')
            && let Some(redirection) = self.read(reply)
        {
            Rc::clone(&self.redirects).take(self, redirection, PAUSE);
            return;
        }
        self.settle().deliver(reply);
    }

    /// What the server says instead of an answer, if this is none.
    fn read(&self, reply: &[u8]) -> Option<Redirection> {
        // Most errors are answers: the request is looked at only if this may be none.
        let said = Redirection::read(reply)?;
        let touch = Touch::of(&self.frame);
        if touch.runs_code {
            return Redirection::read_of_code(reply, touch.slot);
        }
        Some(said)
    }

    /// A request of a replica only reads: the primary is asked instead, whatever became of it.
    pub(super) fn fail(self: Box<Self>, failure: &Failure) {
        let large = matches!(failure.cause, Cause::LargeReply(_));
        if self.home.is_some() && !large && clock::now() < self.expires {
            return Rc::clone(&self.redirects).take(self, Redirection::Later, Duration::ZERO);
        }
        if failure.effect == Effect::Unknown {
            self.note_answered();
        }
        self.release().fail(failure);
    }

    /// Whether its reply may be passed on before it is whole: it comes alone, on a connection that is
    /// not given back with it.
    pub(super) fn may_settle(&self) -> bool {
        !self.asking && self.lease.is_none()
    }

    /// The ticket of a request that is answered, without what was kept.
    pub(super) fn settle(self) -> Ticket {
        self.note_answered();
        self.release()
    }

    fn note_answered(&self) {
        if !self.loose {
            let touch = || Touch::of(&self.frame);
            self.redirects.note_answered(&self.inner, touch);
        }
    }

    fn release(self) -> Ticket {
        if let Some(lease) = self.lease {
            // Its queue is being looked at: it is given back a moment later.
            self.redirects.spent.borrow_mut().push(lease);
            self.redirects.news.notify_one();
        }
        self.inner
    }

    pub(super) fn fail_unplaced(self, why: &str) {
        let inner = self.release();
        if !inner.abandoned() {
            let cause = Cause::Down(why.into());
            let effect = Effect::NotApplied;
            inner.fail(&Failure { cause, effect });
        }
    }
}

/// A request that can go nowhere else.
pub(crate) struct Shielded {
    pub(super) inner: Ticket,
    cluster: Arc<Cluster>,
    /// Where others of its client may wait for it.
    hold: Option<Hold>,
}

impl Shielded {
    pub(super) fn deliver(self, reply: &[u8]) {
        match Redirection::read_exact(reply) {
            None => self.settle().deliver(reply),
            Some(redirection) => {
                redirection.note(&self.cluster, None);
                let mut told = Vec::new();
                let text = "ERR breccia: the keys are moving to another server of the cluster; \
                            not applied, ask again";
                encode::error(&mut told, text);
                self.inner.deliver(&told);
            }
        }
    }

    pub(super) fn fail(self, failure: &Failure) {
        let ticket = if failure.effect == Effect::Unknown {
            self.settle()
        } else {
            self.inner
        };
        ticket.fail(failure);
    }

    /// The ticket of a request that is answered.
    pub(super) fn settle(self) -> Ticket {
        if let Some(hold) = &self.hold {
            hold.redirects.note_answered(&self.inner, || Touch::UNKNOWN);
        }
        self.inner
    }
}

/// A ticket for a request that is not kept, and so can go nowhere else: a redirection is told to its
/// client in other words. What code on the server says is passed on as it is: it may have run.
pub(super) fn shield(forward: &Forward, leaf: LeafIndex, ticket: Ticket) -> Ticket {
    let code = ticket.row().is_some_and(|row| {
        row == UNKNOWN_ROW || COMMANDS.get(usize::from(row)).is_some_and(runs_code)
    });
    match forward.fleet.cluster_of(leaf) {
        Some(cluster) if forward.fleet.has_slots_at(leaf) && !code => {
            Ticket::Shielded(Box::new(Shielded {
                inner: ticket,
                cluster: Arc::clone(cluster),
                hold: None,
            }))
        }
        _ => ticket,
    }
}

/// A ticket, its leaf, its client's way, and, if it blocks alone on a lease, how long it may wait for
/// a server.
pub(super) type Asking = (Ticket, LeafIndex, (Mode, Option<u64>), Option<Duration>);

/// Queues a request at a server of a cluster.
pub(super) fn enqueue(
    forward: &Forward,
    upstream: &RespUpstream,
    (ticket, leaf, whose, blocks): Asking,
    home: Option<LeafIndex>,
    (expires, patience): (Instant, Patience),
    write: impl FnOnce(&mut Vec<u8>),
) -> bool {
    let redirects = forward.fleet.redirects();
    let mut frame = Vec::new();
    write(&mut frame);
    let room = redirects.kept.get() + frame.len() <= MOST_KEPT_BYTES;
    let frame = Rc::new(frame);
    let ticket = match forward.fleet.cluster_of(leaf) {
        // A single primary's answers are its own.
        Some(_) if upstream.is_lease() && !forward.fleet.has_slots_at(leaf) => ticket,
        Some(_) if upstream.is_lease() && blocks.is_none() => shield(forward, leaf, ticket),
        Some(_) if !room => match shield(forward, leaf, ticket) {
            Ticket::Shielded(mut shielded) => {
                let client = shielded.inner.client();
                shielded.hold = Some(Hold::new(redirects, client, 0));
                Ticket::Shielded(shielded)
            }
            other => other,
        },
        Some(_) => {
            let now = clock::now();
            let client = ticket.client();
            Ticket::Kept(Box::new(Kept {
                hold: Hold::new(redirects, client, frame.len()),
                inner: ticket,
                frame: Rc::clone(&frame),
                leaf,
                home,
                whose,
                expires,
                blocks,
                lease: None,
                hops: 0,
                asking: false,
                loose: home.is_some(),
                sent: (now, now),
                redirects: Rc::clone(redirects),
            }))
        }
        None => ticket,
    };
    let write = |out: &mut Vec<u8>| out.extend_from_slice(&frame);
    match upstream.enqueue(ticket, Expected::One, expires, patience, write) {
        Ok(()) => true,
        Err((ticket, failure)) => {
            ticket.fail(&failure);
            false
        }
    }
}

/// Where a request goes: the server, and whether it is told that it is asked while the slot moves.
pub(super) type Destination = (LeafIndex, bool);

/// Where a request is wanted, if that is known.
pub(super) fn destination(
    forward: &Forward,
    kept: &Kept,
    redirection: &Redirection,
    sayer: &Address,
) -> Option<Destination> {
    let fleet = &forward.fleet;
    let named = |to: &Target| {
        let number = to.number(fleet.cluster_of(kept.leaf)?, Some(sayer))?;
        fleet.place_of(kept.leaf, number)
    };
    let (place, asking) = match redirection {
        Redirection::Moved(slot, to) => {
            (named(to).or_else(|| fleet.owner(kept.leaf, *slot))?, false)
        }
        Redirection::Ask(_, to) => (named(to)?, true),
        // Who was asked while the slot moves is asked in the same way again.
        Redirection::Later => match kept.home {
            Some(home) => return Some((home, false)),
            None => return Some((kept.leaf, kept.asking)),
        },
    };
    (place != kept.leaf).then_some((place, asking))
}

pub(super) fn resend(forward: &Forward, mut kept: Box<Kept>) {
    let (mode, client) = kept.whose;
    let leaf = forward.leaf(kept.leaf);
    let (upstream, patience) = if kept.blocks.is_some() {
        match leaf.lease(mode) {
            Ok(lease) => {
                let upstream = Rc::clone(&lease.upstream);
                if let Some(former) = kept.lease.replace(lease) {
                    former.give_back();
                }
                if let Some(client) = kept.inner.client() {
                    let blocked = (Rc::clone(client), Rc::clone(&upstream));
                    kept.redirects.blocked.borrow_mut().push(blocked);
                }
                (upstream, Patience::Unbounded)
            }
            Err(failure) => return kept.fail(&failure),
        }
    } else {
        (leaf.shared(mode, client), Patience::Timeout)
    };
    if let Ticket::Script(_, sent) = &mut kept.inner
        && let Some(frame) = sent.move_to(&upstream, &kept.frame)
    {
        kept.hold.resize(frame.len());
        kept.frame = Rc::new(frame);
    }
    let now = clock::now();
    let mut frame = Rc::clone(&kept.frame);
    if kept.blocks.is_some()
        && let Some(shorter) = shortened(&frame, now.saturating_duration_since(kept.sent.0))
    {
        frame = Rc::new(shorter);
    }
    kept.sent.1 = now;
    kept.hold.arrive();
    let (expires, asking) = (kept.expires, kept.asking);
    kept.inner.moves_to(kept.leaf);
    let expected = if asking {
        Expected::AfterLine
    } else {
        Expected::One
    };
    let write = |out: &mut Vec<u8>| {
        if asking {
            out.extend_from_slice(ASKING);
        }
        out.extend_from_slice(&frame);
    };
    let sent = upstream.enqueue(Ticket::Kept(kept), expected, expires, patience, write);
    if let Err((ticket, failure)) = sent {
        ticket.fail(&failure);
    }
}
