//! Requests that servers have refused, of all clients of one listener on one worker: they are sent
//! again, each client's in its order.
//!
//! Not what a refusal says. Invariant: while a client has refused requests nothing of it is
//! dispatched, and they go on only once no other request of it is with a server, so it is known what
//! has been answered before them (see [`Line`]).

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use breccia_net::clock;
use tokio::sync::Notify;

use super::leaf::{Lease, RespUpstream};
use super::line::{Line, Pass, Waiting};
use super::redirect::{Destination, Kept, MOST_HOPS, PAUSE, destination, resend};
use super::redirection::Redirection;
use super::service::Forward;
use super::ticket::Ticket;
use super::touch::Touch;
use crate::front::client::Client;

/// How often it is looked whether clients have left that block.
const LOOK: Duration = Duration::from_millis(100);

const NOT_TAKEN: &str = "no server of the cluster took the request in time";
const OVERTAKEN: &str =
    "no server of the cluster took the request before a later one of its client";
const DISAGREED: &str = "the servers of the cluster do not agree who owns its slot";
const ENDED: &str = "its listener has ended";

/// A request, and what its server said of it.
type Refused = (Box<Kept>, Redirection);

/// A client of which some requests were refused.
struct Served {
    client: Rc<Client>,
    line: Line<Refused>,
    /// When the line is looked at again.
    look: Option<Instant>,
}

/// Requests on their way to another server, of one listener on one worker.
pub(crate) struct Redirects {
    /// Refused requests, by the number of their client. While a client has some, nothing new of it is
    /// dispatched; they go on once no other request of it is with a server.
    lines: RefCell<BTreeMap<u64, Served>>,
    /// Clients whose lines are to be looked at: now, and then.
    ready: RefCell<BTreeSet<u64>>,
    looks: RefCell<BTreeSet<(Instant, u64)>>,
    /// Connections to give back.
    pub(super) spent: RefCell<Vec<Lease>>,
    /// Clients that block on a connection which their own dialogue does not know.
    pub(super) blocked: RefCell<Vec<(Rc<Client>, Rc<RespUpstream>)>>,
    pub(super) news: Notify,
    /// Bytes of all requests that are kept.
    pub(super) kept: Cell<usize>,
    /// Nothing is sent any more.
    ended: Cell<bool>,
}

impl Redirects {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            lines: RefCell::default(),
            ready: RefCell::default(),
            looks: RefCell::default(),
            spent: RefCell::default(),
            blocked: RefCell::default(),
            news: Notify::new(),
            kept: Cell::new(0),
            ended: Cell::new(false),
        })
    }

    /// Takes a request whose server wants it elsewhere, or asked again after a pause. Called while
    /// that server's replies are taken.
    pub(super) fn take(&self, mut kept: Box<Kept>, redirection: Redirection, pause: Duration) {
        let Some((sequence, client)) = kept.inner.place() else {
            return kept.fail_unplaced(NOT_TAKEN);
        };
        if self.ended.get() {
            return kept.fail_unplaced(ENDED);
        }
        let client = Rc::clone(client);
        // Its further requests wait, so that none overtakes this one.
        client.redirected.set(true);
        kept.hold.come_back();
        let now = clock::now();
        let alone = redirection == Redirection::Later;
        if let Some(deadline) = kept.blocks {
            // Whether it has blocked until now: a server that takes no requests refuses at once, and
            // slowly at most.
            let least = if alone { deadline / 2 } else { PAUSE };
            if now.saturating_duration_since(kept.sent.1) > least {
                kept.expires = now + deadline;
            }
        }
        let waiting = Waiting {
            sequence,
            touch: (!kept.loose).then(|| Touch::of(&kept.frame)),
            due: if alone { now + pause } else { now },
            expires: kept.expires,
            alone,
            request: (kept, redirection),
        };
        let id = client.id;
        let mut lines = self.lines.borrow_mut();
        let served = lines.entry(id).or_insert_with(|| Served {
            client,
            line: Line::default(),
            look: None,
        });
        served.line.insert(waiting);
        drop(lines);
        self.look_at(id);
    }

    /// A request was answered, or perhaps applied: those of its client that were refused before must
    /// not be sent again after it.
    pub(super) fn note_answered(&self, ticket: &Ticket, touch: impl FnOnce() -> Touch) {
        if let Some((sequence, client)) = ticket.place()
            && client.redirected.get()
            && let Some(served) = self.lines.borrow_mut().get_mut(&client.id)
        {
            served.line.note_answered(sequence, touch());
        }
    }

    pub(super) fn look_at(&self, client: u64) {
        self.ready.borrow_mut().insert(client);
        self.news.notify_one();
    }

    pub(super) async fn run(self: Rc<Self>, forward: Weak<Forward>) {
        loop {
            let due = self.looks.borrow().first().map(|(due, _)| *due);
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
        self.ended.set(true);
        let lines = std::mem::take(&mut *self.lines.borrow_mut());
        for mut served in lines.into_values() {
            for waiting in served.line.take() {
                waiting.request.0.fail_unplaced(ENDED);
            }
        }
        self.spent.borrow_mut().clear();
    }

    fn send_all(&self, forward: &Forward) {
        for lease in self.spent.borrow_mut().drain(..) {
            lease.give_back();
        }
        let now = clock::now();
        let mut ready = std::mem::take(&mut *self.ready.borrow_mut());
        {
            let mut looks = self.looks.borrow_mut();
            while let Some((due, client)) = looks.first().copied().filter(|(due, _)| *due <= now) {
                looks.remove(&(due, client));
                ready.insert(client);
            }
        }
        for client in ready {
            self.go_through(forward, client, now);
            self.look_later(client, now);
        }
    }

    /// Sends what may be sent of one client's requests, in their order.
    fn go_through(&self, forward: &Forward, id: u64, now: Instant) {
        let (ended, all) = {
            let mut lines = self.lines.borrow_mut();
            let Some(served) = lines.get_mut(&id) else {
                return;
            };
            if served.client.is_gone() {
                (served.line.take(), Vec::new())
            } else {
                let expired = served.line.take_expired(now);
                // While one of its requests is with a server it is open which of them comes first.
                let free = served.client.at_servers.get() == 0;
                (expired, if free { served.line.take() } else { Vec::new() })
            }
        };
        for waiting in ended {
            waiting.request.0.fail_unplaced(NOT_TAKEN);
        }
        let mut pass = Pass::new();
        for waiting in all {
            let overtaken = {
                let lines = self.lines.borrow();
                lines
                    .get(&id)
                    .is_some_and(|it| it.line.is_overtaken(&waiting))
            };
            if overtaken {
                waiting.request.0.fail_unplaced(OVERTAKEN);
                continue;
            }
            if let Some(waiting) = send(forward, waiting, &mut pass, now) {
                pass.hold(&waiting);
                if let Some(served) = self.lines.borrow_mut().get_mut(&id) {
                    served.line.insert(waiting);
                }
            }
        }
    }

    /// Notes when a client's line is looked at again, if it has one still.
    fn look_later(&self, id: u64, now: Instant) {
        let (mut lines, mut looks) = (self.lines.borrow_mut(), self.looks.borrow_mut());
        let Some(served) = lines.get_mut(&id) else {
            return;
        };
        if let Some(former) = served.look.take() {
            looks.remove(&(former, id));
        }
        if served.line.is_empty() && served.client.at_servers.get() == 0 {
            lines.remove(&id);
            return;
        }
        served.look = served.line.next_look(now);
        looks.extend(served.look.map(|due| (due, id)));
    }
}

/// Sends a request where it is wanted; it comes back if that is not known, or if it must wait.
fn send(
    forward: &Forward,
    mut waiting: Waiting<Refused>,
    pass: &mut Pass<Destination>,
    now: Instant,
) -> Option<Waiting<Refused>> {
    if waiting.due > now || pass.is_behind(&waiting) {
        return Some(waiting);
    }
    let (kept, redirection) = &mut waiting.request;
    let fleet = &forward.fleet;
    let leaf = kept.leaf;
    let sayer = forward.leaf(leaf).terms().place.address.clone();
    if let Some(cluster) = fleet.cluster_of(leaf) {
        redirection.note(cluster, Some(&sayer));
    }
    let Some(destination) = destination(forward, kept, redirection, &sayer) else {
        // Whoever is meant is not known yet: the first who was asked is asked again.
        fleet.count_redirect(leaf, redirection.kind());
        if let Some(cluster) = fleet.cluster_of(leaf) {
            cluster.doubt();
        }
        fleet.renew();
        kept.hops += 1;
        kept.asking = false;
        *redirection = Redirection::Later;
        (waiting.alone, waiting.due) = (true, now + PAUSE);
        return Some(waiting);
    };
    if pass.holds(&waiting, destination) {
        return Some(waiting);
    }
    let (mut kept, redirection) = waiting.request;
    if kept.hops >= MOST_HOPS {
        kept.fail_unplaced(DISAGREED);
        return None;
    }
    pass.sent(waiting.touch, destination, waiting.alone);
    fleet.count_redirect(leaf, redirection.kind());
    kept.hops += u8::from(redirection != Redirection::Later);
    if kept.home.take().is_some() {
        // The primary answers whatever a replica does not.
        kept.whose.0.readonly = false;
    }
    (kept.leaf, kept.asking) = destination;
    resend(forward, kept);
    None
}
