//! Who on this worker is subscribed to what, and the lines to the servers.
//!
//! Invariant: a topic exists while it has a subscriber, and is subscribed on every line that is up.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use super::super::super::codec::reply::{elements, text};
use super::super::super::encode::{self, RespVersion};
use super::super::settings::{ForwardStore, SubscriptionLoss};
use super::line::{Line, LineState};
use crate::front::client::{Client, Ending};
use crate::front::ring::Sequence;

/// Whether a topic is a channel's name or a pattern over names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Channel,
    Pattern,
}

impl Kind {
    /// The word Redis uses.
    pub(crate) fn verb(self, joins: bool) -> &'static str {
        match (self, joins) {
            (Self::Channel, true) => "subscribe",
            (Self::Channel, false) => "unsubscribe",
            (Self::Pattern, true) => "psubscribe",
            (Self::Pattern, false) => "punsubscribe",
        }
    }
}

/// Something one can subscribe to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Topic {
    pub kind: Kind,
    pub name: Vec<u8>,
}

struct Waiter {
    client: Rc<Client>,
    sequence: Sequence,
    reply: Vec<u8>,
}

#[derive(Default)]
struct Audience {
    subscribers: BTreeMap<u64, (Rc<Client>, RespVersion)>,
    waiters: Vec<Waiter>,
    /// Lines that have confirmed, by number.
    confirmed: BTreeSet<usize>,
}

/// Subscriptions of one store on one worker.
pub(crate) struct Hub {
    store: Arc<ForwardStore>,
    audiences: RefCell<BTreeMap<Topic, Audience>>,
    lines: RefCell<Vec<Rc<Line>>>,
}

impl Hub {
    pub(crate) fn new(store: &Arc<ForwardStore>) -> Rc<Self> {
        let hub = Rc::new(Self {
            store: Arc::clone(store),
            audiences: RefCell::default(),
            lines: RefCell::default(),
        });
        let mut servers = BTreeSet::new();
        let mut lines = Vec::new();
        for leaf in store.topology.leaves() {
            // Channels belong to a server, not to a database: one line per server, or each
            // message would arrive once per shard that lives there.
            if servers.insert(leaf.endpoint.current().terms.place.address.clone()) {
                lines.push(Line::open(lines.len(), Arc::clone(leaf), &hub));
            }
        }
        *hub.lines.borrow_mut() = lines;
        hub
    }

    /// Whether it serves this store, and not an earlier one of the same name.
    pub(crate) fn is_of(&self, store: &Arc<ForwardStore>) -> bool {
        Arc::ptr_eq(&self.store, store)
    }

    fn name(&self) -> &str {
        self.store.topology.name()
    }

    /// Why nothing can be subscribed now, if so.
    pub(crate) fn unreachable(&self) -> Option<String> {
        let lines = self.lines.borrow();
        let none = lines.iter().all(|line| !line.spec.is_up());
        none.then(|| {
            format!(
                "SHARDDOWN no shard of {} can be reached; not subscribed",
                self.name()
            )
        })
    }

    /// Adds a subscriber; its place `sequence` is filled with `reply` once all live lines confirm.
    pub(crate) fn join(
        &self,
        topic: &Topic,
        client: &Rc<Client>,
        version: RespVersion,
        sequence: Sequence,
        reply: Vec<u8>,
    ) {
        let mut audiences = self.audiences.borrow_mut();
        let known = audiences.contains_key(topic);
        let audience = audiences.entry(topic.clone()).or_default();
        audience
            .subscribers
            .insert(client.id, (Rc::clone(client), version));
        audience.waiters.push(Waiter {
            client: Rc::clone(client),
            sequence,
            reply,
        });
        drop(audiences);
        if !known {
            for line in self.lines.borrow().iter() {
                line.say(topic.kind.verb(true), topic);
            }
        }
        self.settle(topic);
    }

    /// Removes a subscriber.
    pub(crate) fn leave(&self, topic: &Topic, client: &Client) {
        let mut audiences = self.audiences.borrow_mut();
        let Some(audience) = audiences.get_mut(topic) else {
            return;
        };
        audience.subscribers.remove(&client.id);
        audience.waiters.retain(|waiter| {
            let other = waiter.client.id != client.id;
            if !other {
                waiter.client.fill(waiter.sequence, &waiter.reply);
            }
            other
        });
        if audience.subscribers.is_empty() {
            audiences.remove(topic);
            drop(audiences);
            for line in self.lines.borrow().iter() {
                line.say(topic.kind.verb(false), topic);
            }
        }
    }

    /// All topics, for a line that has just come up.
    pub(crate) fn topics(&self) -> Vec<Topic> {
        self.audiences.borrow().keys().cloned().collect()
    }

    /// Whether nobody is subscribed to anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.audiences.borrow().is_empty()
    }

    /// A line has confirmed a topic.
    pub(crate) fn confirmed(&self, line: usize, topic: &Topic) {
        if let Some(audience) = self.audiences.borrow_mut().get_mut(topic) {
            audience.confirmed.insert(line);
        }
        self.settle(topic);
    }

    /// A line changed its state: topics may be complete without it.
    pub(crate) fn settle_all(&self) {
        for topic in self.topics() {
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
            line.state() == LineState::Down || audience.confirmed.contains(&line.number)
        });
        if complete && audience.confirmed.is_empty() && !audience.waiters.is_empty() {
            // Every shard is down: no confirmation would be true.
            for waiter in audience.waiters.drain(..) {
                waiter.client.end(Ending::Now("subscription-loss"));
            }
        } else if complete {
            for waiter in audience.waiters.drain(..) {
                waiter.client.fill(waiter.sequence, &waiter.reply);
            }
        }
    }

    /// A line that had subscriptions was lost: messages may have been missed.
    pub(crate) fn lost(&self, line: usize) {
        let mut missed = BTreeMap::new();
        for audience in self.audiences.borrow_mut().values_mut() {
            if audience.confirmed.remove(&line) {
                let subscribers = audience.subscribers.iter();
                missed.extend(subscribers.map(|(id, (client, _))| (*id, Rc::clone(client))));
            }
        }
        if missed.is_empty() {
            return;
        }
        tracing::warn!(
            store = self.name(),
            subscribers = missed.len(),
            "the subscription connection to a shard was lost; messages may have been missed"
        );
        if self.store.subscription_loss == SubscriptionLoss::Disconnect {
            for client in missed.values() {
                client.end(Ending::Now("subscription-loss"));
            }
        }
    }

    /// A server refused a subscription (its user may not, say): whoever waits for a confirmation
    /// is told so in the server's words, and leaves.
    pub(crate) fn refused(&self, error: &[u8]) {
        tracing::warn!(
            store = self.name(),
            error = %String::from_utf8_lossy(error).trim_end(),
            "a shard refused a subscription"
        );
        for audience in self.audiences.borrow_mut().values_mut() {
            for waiter in audience.waiters.drain(..) {
                waiter.client.fill(waiter.sequence, error);
                waiter.client.end(Ending::AfterReplies);
            }
        }
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
        match what {
            b"message" => self.fan_out(Kind::Channel, name, frame),
            b"pmessage" => self.fan_out(Kind::Pattern, name, frame),
            b"subscribe" => line.confirm(
                self,
                &Topic {
                    kind: Kind::Channel,
                    name: name.to_vec(),
                },
            ),
            b"psubscribe" => line.confirm(
                self,
                &Topic {
                    kind: Kind::Pattern,
                    name: name.to_vec(),
                },
            ),
            _ => {}
        }
    }

    /// A message from a connection that another one replaces. Topics the other has confirmed are
    /// told there.
    pub(crate) fn received_late(&self, frame: &[u8], is_owed: impl Fn(&Topic) -> bool) {
        let mut parts = elements(frame).into_iter().flatten();
        let kind = match parts.next().and_then(text) {
            Some(b"message") => Kind::Channel,
            Some(b"pmessage") => Kind::Pattern,
            _ => return,
        };
        let Some(name) = parts.next().and_then(text) else {
            return;
        };
        let topic = Topic {
            kind,
            name: name.to_vec(),
        };
        if is_owed(&topic) {
            self.fan_out(kind, name, frame);
        }
    }

    fn fan_out(&self, kind: Kind, name: &[u8], frame: &[u8]) {
        let audiences = self.audiences.borrow();
        let Some(audience) = audiences.get(&Topic {
            kind,
            name: name.to_vec(),
        }) else {
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
        for line in self.lines.get_mut() {
            line.wake();
        }
    }
}

/// The request that changes one topic on a server.
pub(crate) fn change(out: &mut Vec<u8>, verb: &str, topic: &Topic) {
    encode::request(out, &[verb.as_bytes(), &topic.name]);
}
