//! Requests that a server of a cluster wants elsewhere: they go there, and the client does not see
//! it.
//!
//! ```text
//! shared connection ─ "-MOVED 77 h:p" ─▶ Kept ─▶ Redirects::queue ─▶ task ─▶ connection of h:p
//! ```
//!
//! A redirection proves that nothing was applied, so sending the request again is safe. Invariant: a
//! request goes only to servers that the cluster itself has named, at most [`MOST_HOPS`] times and
//! within the listener's deadline; on a lease, which carries state of its client, it goes nowhere.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use breccia_core::address::Address;
use breccia_core::error::Effect;
use breccia_net::clock;
use tokio::sync::Notify;

use super::super::cluster::Cluster;
use super::super::codec::reply::{Expected, line_length};
use super::super::encode;
use super::leaf::{Lease, Mode, RespUpstream};
use super::service::Forward;
use super::ticket::Ticket;
use crate::front::client::Client;
use crate::pipeline::{Cause, Failure, Patience, Recipient};
use crate::topology::LeafIndex;

/// How often one request is sent elsewhere.
const MOST_HOPS: u8 = 16;
/// Bytes of requests that one worker keeps for the case that they are wanted elsewhere; what comes
/// on top is sent all the same, and told if it is.
const MOST_KEPT_BYTES: usize = 64 << 20;
/// How often it is looked whether clients have left that block.
const LOOK: Duration = Duration::from_millis(100);
/// The pause before a request is sent again that no server takes at present.
const PAUSE: Duration = Duration::from_millis(20);

const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";

/// What a server says instead of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Redirection {
    /// The slot is another server's.
    Moved(u16, Option<Address>),
    /// The slot is on its way, and the key is with another server already.
    Ask(u16, Option<Address>),
    /// Nobody can answer at present.
    Later,
}

impl Redirection {
    /// `None`: it is an answer.
    fn read(reply: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(reply.strip_prefix(b"-")?)
            .ok()?
            .trim_end();
        let mut words = text.split(' ');
        let code = words.next()?;
        let mut target = || {
            let slot = words.next()?.parse().ok()?;
            let (host, port) = words.next()?.rsplit_once(':')?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            Some((slot, Address::tcp(host, port.parse().ok()?).ok()))
        };
        match code {
            "MOVED" => target().map(|(slot, to)| Self::Moved(slot, to)),
            "ASK" => target().map(|(slot, to)| Self::Ask(slot, to)),
            // What a script met within itself may have come after writes.
            "TRYAGAIN" | "CLUSTERDOWN" | "LOADING" | "MASTERDOWN"
                if !text.contains(" script: ") =>
            {
                Some(Self::Later)
            }
            _ => None,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Moved(..) => "moved",
            Self::Ask(..) => "ask",
            Self::Later => "later",
        }
    }

    /// Notes what it says of the cluster.
    fn note(&self, cluster: &Cluster) {
        match self {
            Self::Moved(slot, to) => {
                let known = to.as_ref().and_then(|to| cluster.number_of(to));
                match known {
                    Some(number) => cluster.hint(*slot, number),
                    None => cluster.doubt(),
                }
            }
            Self::Ask(..) => {}
            Self::Later => cluster.doubt(),
        }
    }
}

/// A request on a shared connection, with all that is needed to send it elsewhere.
pub(crate) struct Kept {
    pub(super) inner: Ticket,
    frame: Rc<Vec<u8>>,
    leaf: LeafIndex,
    /// The primary, while a replica is asked.
    home: Option<LeafIndex>,
    /// The client's way: the mode of its connections, and which of them.
    whose: (Mode, Option<u64>),
    expires: Instant,
    /// How long the request may wait for a server each time, if it blocks.
    blocks: Option<Duration>,
    /// The connection on which it blocks, after the first.
    lease: Option<Lease>,
    hops: u8,
    /// Whether the reply comes after that of ASKING.
    asking: bool,
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
            && let Some(redirection) = Redirection::read(reply)
        {
            Rc::clone(&self.redirects).take(self, redirection);
            return;
        }
        self.settle().deliver(reply);
    }

    pub(super) fn fail(self, failure: &Failure) {
        self.settle().fail(failure);
    }

    /// Whether its reply may be passed on before it is whole: it comes alone, on a connection that is
    /// not given back with it.
    pub(super) fn may_settle(&self) -> bool {
        !self.asking && self.lease.is_none()
    }

    /// The ticket, without what was kept.
    pub(super) fn settle(self) -> Ticket {
        let redirects = &self.redirects;
        let kept = &redirects.kept;
        kept.set(kept.get().saturating_sub(self.frame.len()));
        if let Some(lease) = self.lease {
            // Its queue is being looked at: it is given back a moment later.
            redirects.spent.borrow_mut().push(lease);
            redirects.news.notify_one();
        }
        self.inner
    }

    fn fail_unplaced(self, why: &str) {
        let cause = Cause::Down(why.into());
        let effect = Effect::NotApplied;
        self.fail(&Failure { cause, effect });
    }
}

/// A request that can go nowhere else.
pub(crate) struct Shielded {
    pub(super) inner: Ticket,
    cluster: Arc<Cluster>,
}

impl Shielded {
    pub(super) fn deliver(self, reply: &[u8]) {
        match Redirection::read(reply).filter(|_| reply.first() == Some(&b'-')) {
            None => self.inner.deliver(reply),
            Some(redirection) => {
                redirection.note(&self.cluster);
                let mut told = Vec::new();
                let text = "ERR breccia: the keys are moving to another server of the cluster; \
                            not applied, ask again";
                encode::error(&mut told, text);
                self.inner.deliver(&told);
            }
        }
    }
}

/// A ticket for a request that is not kept, and so can go nowhere else: a redirection is told to its
/// client in other words.
pub(super) fn shield(forward: &Forward, leaf: LeafIndex, ticket: Ticket) -> Ticket {
    match forward.fleet.cluster_of(leaf) {
        Some(cluster) if forward.fleet.has_slots_at(leaf) => Ticket::Shielded(Box::new(Shielded {
            inner: ticket,
            cluster: Arc::clone(cluster),
        })),
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
        Some(_) if !room || (upstream.is_lease() && blocks.is_none()) => {
            shield(forward, leaf, ticket)
        }
        Some(_) => {
            redirects.kept.set(redirects.kept.get() + frame.len());
            Ticket::Kept(Box::new(Kept {
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

/// A request, and what its server said of it.
type Sent = (Box<Kept>, Redirection);

/// Requests on their way to another server, of one listener on one worker.
pub(crate) struct Redirects {
    /// Those that can go at once, in the order in which their replies came.
    queue: RefCell<VecDeque<Sent>>,
    /// Those that wait, by when their pause ends.
    waiting: RefCell<BTreeMap<(Instant, u64), Sent>>,
    number: Cell<u64>,
    /// Connections to give back.
    spent: RefCell<Vec<Lease>>,
    /// Clients that block on a connection which their own dialogue does not know.
    blocked: RefCell<Vec<(Rc<Client>, Rc<RespUpstream>)>>,
    news: Notify,
    /// Bytes of all requests that are kept.
    kept: Cell<usize>,
}

impl Redirects {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            queue: RefCell::default(),
            waiting: RefCell::default(),
            number: Cell::new(0),
            spent: RefCell::default(),
            blocked: RefCell::default(),
            news: Notify::new(),
            kept: Cell::new(0),
        })
    }

    /// Takes a request whose server wants it elsewhere. Called while that server's replies are taken.
    fn take(&self, mut kept: Box<Kept>, redirection: Redirection) {
        if let Some(deadline) = kept.blocks {
            // It was with a server until now.
            kept.expires = clock::now() + deadline;
        }
        if let Some(client) = kept.inner.client() {
            // Its further requests wait, so that none overtakes this one.
            client.redirected.set(true);
        }
        if redirection == Redirection::Later {
            self.put_off(kept, redirection);
        } else {
            self.queue.borrow_mut().push_back((kept, redirection));
        }
        self.news.notify_one();
    }

    fn put_off(&self, kept: Box<Kept>, redirection: Redirection) {
        self.number.set(self.number.get() + 1);
        let due = (clock::now() + PAUSE, self.number.get());
        self.waiting.borrow_mut().insert(due, (kept, redirection));
    }

    pub(super) async fn run(self: Rc<Self>, forward: Weak<Forward>) {
        loop {
            let due = self.waiting.borrow().keys().next().map(|(due, _)| *due);
            let look = (!self.blocked.borrow().is_empty()).then(|| clock::now() + LOOK);
            let next = due.into_iter().chain(look).min();
            let pause = async {
                match next {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.news.notified() => {}
                () = pause => {}
            }
            let Some(forward) = forward.upgrade() else {
                return self.give_up();
            };
            self.let_go();
            self.send_all(&forward);
        }
    }

    /// Closes connections on which clients blocked that have left, and forgets those whose clients
    /// have their answers.
    fn let_go(&self) {
        self.blocked.borrow_mut().retain(|(client, upstream)| {
            if client.is_gone() {
                upstream.close();
            }
            !upstream.is_closed() && !upstream.is_idle()
        });
    }

    /// Fails everything that is on its way.
    fn give_up(&self) {
        let queued = std::mem::take(&mut *self.queue.borrow_mut());
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        for (kept, _) in queued.into_iter().chain(waiting.into_values()) {
            kept.fail_unplaced("its listener has ended");
        }
        self.spent.borrow_mut().clear();
    }

    fn send_all(&self, forward: &Forward) {
        for lease in self.spent.borrow_mut().drain(..) {
            lease.give_back();
        }
        loop {
            let next = self.queue.borrow_mut().pop_front();
            let Some((kept, redirection)) = next else {
                break;
            };
            self.send(forward, kept, &redirection);
        }
        let now = clock::now();
        loop {
            let mut waiting = self.waiting.borrow_mut();
            let Some(entry) = waiting.first_entry().filter(|it| it.key().0 <= now) else {
                break;
            };
            let (kept, redirection) = entry.remove();
            drop(waiting);
            self.send(forward, kept, &redirection);
        }
    }

    /// Sends a request where it is wanted, if that is known and it may be sent at all.
    fn send(&self, forward: &Forward, mut kept: Box<Kept>, redirection: &Redirection) {
        if kept.inner.abandoned() {
            return drop(kept.settle());
        }
        if clock::now() >= kept.expires {
            return kept.fail_unplaced("no server of the cluster took the request in time");
        }
        if kept.hops >= MOST_HOPS {
            return kept.fail_unplaced("the servers of the cluster do not agree who owns its slot");
        }
        let fleet = &forward.fleet;
        fleet.count_redirect(kept.leaf, redirection.kind());
        if let Some(cluster) = fleet.cluster_of(kept.leaf) {
            redirection.note(cluster);
        }
        let number = |to: &Option<Address>| {
            let cluster = fleet.cluster_of(kept.leaf)?;
            cluster.number_of(to.as_ref()?)
        };
        let (place, asking) = match redirection {
            Redirection::Moved(slot, to) => {
                let named = number(to).and_then(|number| fleet.place_of(kept.leaf, number));
                (named.or_else(|| fleet.owner(kept.leaf, *slot)), false)
            }
            Redirection::Ask(_, to) => {
                let named = number(to).and_then(|number| fleet.place_of(kept.leaf, number));
                (named, true)
            }
            Redirection::Later => (Some(kept.home.unwrap_or(kept.leaf)), false),
        };
        if kept.home.take().is_some() {
            // The primary answers whatever a replica does not.
            kept.whose.0.readonly = false;
        }
        let same = place == Some(kept.leaf) && *redirection != Redirection::Later;
        let Some(place) = place.filter(|_| !same) else {
            // Whoever is meant is not known yet: the first who was asked is asked again.
            if let Some(cluster) = fleet.cluster_of(kept.leaf) {
                cluster.doubt();
            }
            fleet.renew();
            kept.hops += 1;
            return self.put_off(kept, Redirection::Later);
        };
        kept.hops += u8::from(*redirection != Redirection::Later);
        kept.leaf = place;
        kept.asking = asking;
        resend(forward, kept);
    }
}

fn resend(forward: &Forward, mut kept: Box<Kept>) {
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
        let redirects = Rc::clone(&kept.redirects);
        let before = redirects.kept.get().saturating_sub(kept.frame.len());
        redirects.kept.set(before + frame.len());
        kept.frame = Rc::new(frame);
    }
    let (frame, expires, asking) = (Rc::clone(&kept.frame), kept.expires, kept.asking);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections_are_told_from_answers() {
        let check = |reply: &str, expected: Option<Redirection>| {
            assert_eq!(Redirection::read(reply.as_bytes()), expected, "{reply}");
        };
        let at = |host, port| Address::tcp(host, port).ok();
        check(
            "-MOVED 77 10.0.0.1:7001\r\n",
            Some(Redirection::Moved(77, at("10.0.0.1", 7001))),
        );
        check(
            "-MOVED 77 ::1:7001\r\n",
            Some(Redirection::Moved(77, at("::1", 7001))),
        );
        check("-MOVED 77 :7001\r\n", Some(Redirection::Moved(77, None)));
        check("-ASK 5 h:1\r\n", Some(Redirection::Ask(5, at("h", 1))));
        check(
            "-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
            Some(Redirection::Later),
        );
        check(
            "-CLUSTERDOWN Hash slot not served\r\n",
            Some(Redirection::Later),
        );
        check(
            "-CLUSTERDOWN The cluster is down script: 1, on @user_script:1.\r\n",
            None,
        );
        check("-MOVED\r\n", None);
        check("-ERR MOVED 77 h:1\r\n", None);
        check("+MOVED 77 h:1\r\n", None);
    }
}
