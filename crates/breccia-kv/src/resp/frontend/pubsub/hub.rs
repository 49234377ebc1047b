//! Who on this worker is subscribed to what, and the lines to the servers.
//!
//! Invariant: a topic exists while it has a subscriber, and is subscribed on every line that it
//! concerns and that is up: all of them, or that of its shard.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use breccia_net::metrics::{self, Counter, Registry};

use super::super::super::codec::reply::{elements, text};
use super::super::super::encode::{self, RespVersion};
use super::super::leaf::RespLeaf;
use super::super::settings::{ForwardStore, SubscriptionLoss};
use super::leavers::{LOOK, Leavers, Waiter};
use super::line::{Line, LineState};
use super::topic::{Kind, Topic};
use crate::front::client::{Client, Ending};
use crate::topology::LeafIndex;

#[derive(Default)]
struct Audience {
    subscribers: BTreeMap<u64, (Rc<Client>, RespVersion)>,
    waiters: Vec<Waiter>,
    /// Lines that have confirmed, by number.
    confirmed: BTreeSet<usize>,
}

impl Audience {
    /// A line does not send this topic any more; who may have missed something by that.
    fn lose(&mut self, line: usize) -> BTreeMap<u64, Rc<Client>> {
        if !self.confirmed.remove(&line) {
            return BTreeMap::new();
        }
        let subscribers = self.subscribers.iter();
        subscribers
            .map(|(id, (client, _))| (*id, Rc::clone(client)))
            .collect()
    }
}

/// Subscriptions of one store on one worker.
pub(crate) struct Hub {
    store: Arc<ForwardStore>,
    losses: Counter,
    audiences: RefCell<BTreeMap<Topic, Audience>>,
    leavers: Leavers,
    /// Whether a task looks after their patience.
    ticks: Cell<bool>,
    lines: RefCell<Vec<Rc<Line>>>,
    /// What servers have confirmed and not yet ended, by line; the roster counts it.
    heard: RefCell<BTreeSet<(usize, Topic)>>,
    /// The line to the server of each leaf.
    line_of: Vec<usize>,
}

impl Hub {
    pub(crate) fn new(store: &Arc<ForwardStore>, registry: &Registry) -> Rc<Self> {
        // Channels belong to a server, not to a database: one line per server, or each message
        // would arrive once per shard that lives there.
        let leaves = store.topology.leaves();
        let mut servers: Vec<&Arc<RespLeaf>> = Vec::new();
        let mut line_of = Vec::with_capacity(leaves.len());
        for leaf in leaves {
            let known = servers.iter().position(|known| known.is_beside(leaf));
            line_of.push(known.unwrap_or(servers.len()));
            if known.is_none() {
                servers.push(leaf);
            }
        }
        let hub = Rc::new(Self {
            store: Arc::clone(store),
            losses: registry.counter(&metrics::SUBSCRIPTION_LOSSES, &[store.topology.name()]),
            audiences: RefCell::default(),
            leavers: Leavers::default(),
            ticks: Cell::new(false),
            lines: RefCell::default(),
            heard: RefCell::default(),
            line_of,
        });
        *hub.lines.borrow_mut() = servers
            .into_iter()
            .enumerate()
            .map(|(number, leaf)| Line::open(number, Arc::clone(leaf), &hub))
            .collect();
        hub
    }

    /// Whether it serves this store, and not an earlier one of the same name.
    pub(crate) fn is_of(&self, store: &Arc<ForwardStore>) -> bool {
        Arc::ptr_eq(&self.store, store)
    }

    fn name(&self) -> &str {
        self.store.topology.name()
    }

    /// Whether a topic is subscribed on this line.
    fn concerns(&self, line: usize, topic: &Topic) -> bool {
        let home = || self.store.topology.place(&topic.name).leaf;
        topic.kind != Kind::Shard || self.line_of.get(home().get()) == Some(&line)
    }

    /// Whether a topic is a sharded channel of a cluster.
    pub(crate) fn is_in_cluster(&self, topic: &Topic) -> bool {
        let topology = &self.store.topology;
        let home = || topology.leaf(topology.place(&topic.name).leaf);
        topic.kind == Kind::Shard && home().is_some_and(|leaf| leaf.has_slots)
    }

    /// Why one of these cannot be subscribed now, if so.
    pub(crate) fn unreachable(&self, topics: &[Topic]) -> Option<String> {
        let lines = self.lines.borrow();
        for topic in topics {
            let mut concerned = lines
                .iter()
                .filter(|line| self.concerns(line.number, topic));
            if concerned.all(|line| !line.spec.is_up()) {
                let shard = match topic.kind {
                    Kind::Shard => format!("the shard of {}", topic.name.escape_ascii()),
                    _ => format!("no shard of {}", self.name()),
                };
                let can = if topic.kind == Kind::Shard {
                    "cannot"
                } else {
                    "can"
                };
                return Some(format!(
                    "SHARDDOWN {shard} {can} be reached; not subscribed"
                ));
            }
        }
        None
    }

    /// Tells the lines that a topic concerns.
    fn say(&self, joins: bool, topic: &Topic) {
        for line in self.lines.borrow().iter() {
            if self.concerns(line.number, topic) {
                line.say(joins, topic);
            }
        }
    }

    /// Adds a subscriber, who is told so once all live lines have confirmed it.
    pub(crate) fn join(&self, topic: &Topic, version: RespVersion, told: Waiter) {
        let mut audiences = self.audiences.borrow_mut();
        let known = audiences.contains_key(topic);
        let audience = audiences.entry(topic.clone()).or_default();
        let subscriber = (Rc::clone(&told.client), version);
        let before = audience.subscribers.insert(told.client.id, subscriber);
        if before.is_none() {
            self.store.roster.join(topic);
        }
        audience.waiters.push(told);
        drop(audiences);
        if !known {
            self.say(true, topic);
        }
        self.settle(topic);
    }

    /// Removes a subscriber. `told`: what it is told, if it is there to be told: at once unless it was the
    /// last one, and then once no server that is up has the subscription any more.
    pub(crate) fn leave(self: &Rc<Self>, topic: &Topic, client: &Client, told: Option<Waiter>) {
        let is_last = self.remove(topic, client);
        if let Some(waiter) = told {
            let lines = if is_last {
                self.lines_with(topic)
            } else {
                BTreeSet::new()
            };
            self.tell_in_time(topic, waiter, lines);
        }
        if is_last {
            self.say(false, topic);
        }
    }

    /// Tells one who has left a topic, once these lines have ended it, or it has waited for long.
    fn tell_in_time(self: &Rc<Self>, topic: &Topic, waiter: Waiter, lines: BTreeSet<usize>) {
        if lines.is_empty() {
            waiter.tell();
            return;
        }
        self.leavers.add(topic, waiter, lines);
        if !self.ticks.replace(true) {
            tokio::task::spawn_local(tick(Rc::downgrade(self)));
        }
    }

    /// Removes a subscriber; whether it was the last one.
    fn remove(&self, topic: &Topic, client: &Client) -> bool {
        let mut audiences = self.audiences.borrow_mut();
        let Some(audience) = audiences.get_mut(topic) else {
            return false;
        };
        if audience.subscribers.remove(&client.id).is_some() {
            self.store.roster.leave(topic);
        }
        audience.waiters.retain(|waiter| {
            let other = waiter.client.id != client.id;
            if !other {
                waiter.tell();
            }
            other
        });
        let is_last = audience.subscribers.is_empty();
        if is_last {
            audiences.remove(topic);
        }
        is_last
    }

    /// The lines whose servers count this worker among those who hear a topic, or will, as far as they are
    /// up.
    fn lines_with(&self, topic: &Topic) -> BTreeSet<usize> {
        let heard = self.heard.borrow();
        let counts = |line: &&Rc<Line>| {
            line.state() != LineState::Down
                && (line.owes(topic) || heard.contains(&(line.number, topic.clone())))
        };
        let lines = self.lines.borrow();
        lines.iter().filter(counts).map(|it| it.number).collect()
    }

    /// Nobody need wait any more for the end of a topic on this line.
    pub(crate) fn ceased(&self, line: usize, topic: &Topic) {
        self.leavers.ceased(line, topic);
        self.let_lines_go();
    }

    /// Nobody need wait any more for this line.
    fn all_ceased(&self, line: usize) {
        self.leavers.all_ceased(line);
        self.let_lines_go();
    }

    /// Wakes the lines if they are not needed any more.
    fn let_lines_go(&self) {
        if self.is_empty() {
            self.lines.borrow().iter().for_each(|line| line.wake());
        }
    }

    /// A subscriber speaks another version from now on.
    pub(crate) fn renew(&self, topic: &Topic, client: &Client, version: RespVersion) {
        let mut audiences = self.audiences.borrow_mut();
        let audience = audiences.get_mut(topic);
        if let Some((_, known)) = audience.and_then(|a| a.subscribers.get_mut(&client.id)) {
            *known = version;
        }
    }

    /// The topics of a line that has just come up.
    pub(crate) fn topics_of(&self, line: usize) -> Vec<Topic> {
        let audiences = self.audiences.borrow();
        let concerned = audiences.keys().filter(|topic| self.concerns(line, topic));
        concerned.cloned().collect()
    }

    /// Whether nobody is subscribed to anything, nor waits for the end of a subscription.
    pub(crate) fn is_empty(&self) -> bool {
        self.audiences.borrow().is_empty() && self.leavers.is_empty()
    }

    /// The name by which the roster knows the server that a leaf lives on.
    pub(crate) fn server_of(&self, leaf: LeafIndex) -> Option<String> {
        let line = *self.line_of.get(leaf.get())?;
        self.server(line)
    }

    fn server(&self, line: usize) -> Option<String> {
        let lines = self.lines.borrow();
        Some(lines.get(line)?.spec.name.clone())
    }

    /// A line's server has begun to send a topic's messages, or has ended it.
    fn note(&self, line: usize, topic: &Topic, begins: bool) {
        let Some(server) = self.server(line) else {
            return;
        };
        let mut heard = self.heard.borrow_mut();
        if begins && heard.insert((line, topic.clone())) {
            self.store.roster.hears(&server, topic);
        } else if !begins && heard.remove(&(line, topic.clone())) {
            self.store.roster.ceases(&server, topic);
        }
    }

    /// A line's connection is gone, and with it all that its server sent there.
    pub(crate) fn is_deaf(&self, line: usize) {
        let heard: Vec<Topic> = self
            .heard
            .borrow()
            .iter()
            .filter(|(number, _)| *number == line)
            .map(|(_, topic)| topic.clone())
            .collect();
        for topic in heard {
            self.note(line, &topic, false);
        }
        self.all_ceased(line);
    }

    /// A line has confirmed a topic.
    pub(crate) fn confirmed(&self, line: usize, topic: &Topic) {
        self.note(line, topic, true);
        if let Some(audience) = self.audiences.borrow_mut().get_mut(topic) {
            audience.confirmed.insert(line);
        }
        self.settle(topic);
    }

    /// A line changed its state: topics may be complete without it.
    pub(crate) fn settle_all(&self, line: &Line) {
        if line.state() == LineState::Down {
            self.all_ceased(line.number);
        }
        let topics: Vec<Topic> = self.audiences.borrow().keys().cloned().collect();
        for topic in topics {
            self.settle(&topic);
        }
    }

    fn settle(&self, topic: &Topic) {
        let mut audiences = self.audiences.borrow_mut();
        let Some(audience) = audiences.get_mut(topic) else {
            return;
        };
        let lines = self.lines.borrow();
        let complete = lines.iter().all(|line| {
            line.state() == LineState::Down
                || audience.confirmed.contains(&line.number)
                || !self.concerns(line.number, topic)
        });
        if complete && audience.confirmed.is_empty() && !audience.waiters.is_empty() {
            // Every shard that it concerns is down: no confirmation would be true.
            for waiter in audience.waiters.drain(..) {
                waiter.client.end(Ending::Now("subscription-loss"));
            }
        } else if complete {
            for waiter in audience.waiters.drain(..) {
                waiter.tell();
            }
        }
    }

    /// A line that had subscriptions was lost: messages may have been missed.
    pub(crate) fn lost(&self, line: usize) {
        let mut missed = BTreeMap::new();
        for audience in self.audiences.borrow_mut().values_mut() {
            missed.extend(audience.lose(line));
        }
        self.end_missed(&missed, "the subscription connection to a shard was lost");
    }

    /// Tells those who may have missed messages, unless they are not to be told.
    fn end_missed(&self, missed: &BTreeMap<u64, Rc<Client>>, why: &str) {
        if missed.is_empty() {
            return;
        }
        self.losses
            .add(u64::try_from(missed.len()).unwrap_or(u64::MAX));
        tracing::warn!(
            store = self.name(),
            subscribers = missed.len(),
            "{why}; messages may have been missed"
        );
        if self.store.subscription_loss == SubscriptionLoss::Disconnect {
            for client in missed.values() {
                client.end(Ending::Now("subscription-loss"));
            }
        }
    }

    /// A server refused a subscription (its user may not, or it is busy): whoever waits for its
    /// confirmation is told so in the server's words, and leaves. Other topics are not concerned.
    pub(crate) fn refused(&self, line: usize, topic: &Topic, error: &[u8]) {
        let mut audiences = self.audiences.borrow_mut();
        let Some(audience) = audiences.get_mut(topic) else {
            return;
        };
        let told = String::from_utf8_lossy(error);
        let (store, error_text) = (self.name(), told.trim_end());
        if audience.waiters.is_empty() {
            tracing::debug!(store, error = error_text, "a shard refused a subscription");
        } else {
            tracing::warn!(store, error = error_text, "a shard refused a subscription");
        }
        for waiter in audience.waiters.drain(..) {
            waiter.client.fill(waiter.sequence, error);
            waiter.client.end(Ending::AfterReplies);
        }
        // Who had it on a connection that this one replaces has it no more.
        let missed = audience.lose(line);
        drop(audiences);
        self.end_missed(&missed, "a shard refused a subscription that it had");
    }

    /// What a line is to say of a topic of which its server refused something: whether to subscribe
    /// it or to end it. `None`: nothing, it is as it should be.
    pub(crate) fn lacks(&self, line: usize, topic: &Topic) -> Option<bool> {
        if let Some(audience) = self.audiences.borrow().get(topic) {
            return (!audience.confirmed.contains(&line)).then_some(true);
        }
        let heard = self.heard.borrow();
        heard.contains(&(line, topic.clone())).then_some(false)
    }

    /// A server does not know sharded channels: those who want one there are told so, and leave.
    /// The others of its line stay.
    pub(crate) fn refused_shard_channels(&self, line: usize, error: &[u8]) {
        self.audiences.borrow_mut().retain(|topic, audience| {
            if topic.kind != Kind::Shard || !self.concerns(line, topic) {
                return true;
            }
            for waiter in audience.waiters.drain(..) {
                waiter.client.fill(waiter.sequence, error);
            }
            for (client, _) in audience.subscribers.values() {
                client.end(Ending::AfterReplies);
                self.store.roster.leave(topic);
            }
            false
        });
    }

    /// A message or a confirmation from a server.
    pub(crate) fn received(&self, line: &Line, frame: &[u8]) {
        let Some(mut parts) = elements(frame) else {
            return;
        };
        let Some(what) = parts.next().and_then(text) else {
            return;
        };
        let Some(name) = parts.next().and_then(text) else {
            return;
        };
        if let Some(kind) = Kind::heard_by(what) {
            self.fan_out(kind, name, frame);
        } else if let Some(kind) = Kind::confirmed_by(what) {
            line.confirm(self, &Topic::new(kind, name));
        } else if let Some(kind) = Kind::ended_by(what) {
            let topic = Topic::new(kind, name);
            line.ended(&topic);
            self.note(line.number, &topic, false);
            self.ceased(line.number, &topic);
        }
    }

    /// A message from a connection that another one replaces. Topics the other has confirmed are
    /// told there.
    pub(crate) fn received_late(&self, frame: &[u8], is_owed: impl Fn(&Topic) -> bool) {
        let mut parts = elements(frame).into_iter().flatten();
        let Some(kind) = parts.next().and_then(text).and_then(Kind::heard_by) else {
            return;
        };
        let Some(name) = parts.next().and_then(text) else {
            return;
        };
        let topic = Topic::new(kind, name);
        if is_owed(&topic) {
            self.fan_out(kind, name, frame);
        }
    }

    fn fan_out(&self, kind: Kind, name: &[u8], frame: &[u8]) {
        let audiences = self.audiences.borrow();
        let Some(audience) = audiences.get(&Topic::new(kind, name)) else {
            return;
        };
        let mut push = Vec::new();
        for (client, version) in audience.subscribers.values() {
            match version {
                RespVersion::V2 => client.push(frame),
                RespVersion::V3 => {
                    if push.is_empty() {
                        push.extend_from_slice(frame);
                        if let Some(first) = push.first_mut() {
                            *first = b'>';
                        }
                    }
                    client.push(&push);
                }
            }
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        for number in 0..self.lines.get_mut().len() {
            self.is_deaf(number);
        }
        for line in self.lines.get_mut() {
            line.wake();
        }
    }
}

/// Looks after the patience of those who leave until there are none.
async fn tick(hub: Weak<Hub>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(hub) = hub.upgrade() else {
            return;
        };
        hub.leavers.tell_late();
        hub.let_lines_go();
        if hub.leavers.is_empty() {
            hub.ticks.set(false);
            return;
        }
    }
}

/// The request that changes one topic on a server.
pub(crate) fn change(out: &mut Vec<u8>, verb: &str, topic: &Topic) {
    encode::request(out, &[verb.as_bytes(), &topic.name]);
}
