//! Publish and subscribe over shards.
//!
//! PUBLISH goes to the shard its channel hashes to. Channels and patterns are subscribed on *all*
//! shards, so that keyspace events and messages published from scripts arrive too; a sharded
//! channel (SSUBSCRIBE, SPUBLISH) lives on the shard it hashes to, and only there. Each worker
//! keeps one subscription connection (a [`line::Line`]) per server and fans out to its clients.
//!
//! Invariant: a client is told "subscribed" only when every shard that it concerns and that is alive has confirmed; when
//! a line is lost, whoever may have missed something is told so by being disconnected.

mod hub;
mod leavers;
mod line;
mod questions;
mod roster;
mod topic;

use std::collections::BTreeSet;
use std::rc::Rc;

use super::super::codec::request::Request;
use super::super::encode;
use super::dialogue::{RespDialogue, Step};
use super::metrics::Outcome;
use super::route::{Command, Subscription};

pub(crate) use hub::Hub;
use leavers::Waiter;
pub use roster::Roster;
pub(crate) use topic::{Kind, Topic};

/// A longer name of a channel is refused.
const MAX_TOPIC_BYTES: usize = 8 * 1024;
/// Topics of one client; more are refused.
const MAX_TOPICS: usize = 65_536;

/// What one client is subscribed to.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    /// Channels and patterns.
    topics: BTreeSet<Topic>,
    /// How many of them are patterns.
    patterns: usize,
    /// Sharded channels; Redis counts them apart.
    shard: BTreeSet<Topic>,
}

impl Subscriptions {
    /// How many there are of every kind.
    pub(crate) fn count(&self) -> usize {
        self.topics.len() + self.shard.len()
    }

    /// How many channels, patterns and sharded channels.
    pub(crate) fn counts(&self) -> [usize; 3] {
        let channels = self.topics.len() - self.patterns;
        [channels, self.patterns, self.shard.len()]
    }

    fn insert(&mut self, topic: Topic) {
        let is_pattern = topic.kind == Kind::Pattern;
        if self.of_mut(topic.kind).insert(topic) && is_pattern {
            self.patterns += 1;
        }
    }

    fn remove(&mut self, topic: &Topic) -> bool {
        let removed = self.of_mut(topic.kind).remove(topic);
        if removed && topic.kind == Kind::Pattern {
            self.patterns -= 1;
        }
        removed
    }

    fn of(&self, kind: Kind) -> &BTreeSet<Topic> {
        match kind {
            Kind::Shard => &self.shard,
            Kind::Channel | Kind::Pattern => &self.topics,
        }
    }

    fn of_mut(&mut self, kind: Kind) -> &mut BTreeSet<Topic> {
        match kind {
            Kind::Shard => &mut self.shard,
            Kind::Channel | Kind::Pattern => &mut self.topics,
        }
    }

    /// What a confirmation counts.
    fn shown(&self, kind: Kind) -> i64 {
        i64::try_from(self.of(kind).len()).unwrap_or(i64::MAX)
    }
}

impl RespDialogue {
    pub(crate) fn subscribe(
        &mut self,
        command: &Command,
        kind: Subscription,
        request: Request<'_>,
    ) -> Step {
        let (topic_kind, joins) = match kind {
            Subscription::Channels => (Kind::Channel, true),
            Subscription::NoChannels => (Kind::Channel, false),
            Subscription::Patterns => (Kind::Pattern, true),
            Subscription::NoPatterns => (Kind::Pattern, false),
            Subscription::ShardChannels => (Kind::Shard, true),
            Subscription::NoShardChannels => (Kind::Shard, false),
        };
        self.count(command.row, Outcome::Answered);
        let mut topics: Vec<Topic> = request
            .arguments()
            .skip(1)
            .map(|name| Topic::new(topic_kind, name))
            .collect();
        if joins {
            self.join(command, topics);
            return Step::Done;
        }
        self.pass_skipped_reply();
        if topics.is_empty() {
            let own = self.subscriptions.of(topic_kind).iter();
            topics = own
                .filter(|topic| topic.kind == topic_kind)
                .cloned()
                .collect();
        }
        if topics.is_empty() {
            let (version, count) = (self.session.version, self.subscriptions.shown(topic_kind));
            self.client.answer(false, |out| {
                encode::push(out, version, 3);
                encode::bulk(out, topic_kind.verb(false).as_bytes());
                encode::null(out, version);
                encode::integer(out, count);
            });
        }
        for topic in topics {
            let was_subscribed = self.subscriptions.remove(&topic);
            let told = self.to_tell(&topic, false);
            if was_subscribed {
                self.forward().hub.leave(&topic, &self.client, Some(told));
                // Nor must a PUBLISH of the same pipeline find it still in force.
                self.barrier = true;
            } else {
                told.tell();
            }
        }
        self.client.patient.set(self.subscriptions.count() > 0);
        Step::Done
    }

    fn join(&mut self, command: &Command, topics: Vec<Topic>) {
        let hub = Rc::clone(&self.forward().hub);
        if self.subscriptions.count() + topics.len() > MAX_TOPICS {
            let text = format!("ERR breccia: more than {MAX_TOPICS} subscriptions of one client");
            return self.refuse(command.row, &text);
        }
        if topics
            .iter()
            .any(|topic| topic.name.len() > MAX_TOPIC_BYTES)
        {
            return self.refuse(
                command.row,
                "ERR breccia: a channel's name is longer than 8 KiB",
            );
        }
        let unheard = topics.iter().find(|topic| hub.is_in_cluster(topic));
        if let Some(topic) = unheard {
            let text = format!(
                "ERR breccia: the sharded channel '{}' lies on a member of type redis-cluster, and is \
                 not offered there; use SUBSCRIBE",
                topic.name.escape_ascii()
            );
            return self.refuse(command.row, &text);
        }
        if let Some(why) = hub.unreachable(&topics) {
            return self.refuse(command.row, &why);
        }
        self.pass_skipped_reply();
        for topic in topics {
            self.subscriptions.insert(topic.clone());
            hub.join(&topic, self.session.version, self.to_tell(&topic, true));
        }
        self.client.patient.set(true);
        // A PUBLISH of the same pipeline must find the subscription in force.
        self.barrier = true;
    }

    /// Confirmations are shown whatever CLIENT REPLY says; but if one reply was to be skipped, it was
    /// this command's.
    fn pass_skipped_reply(&mut self) {
        let _shown = self.session.next_is_muted();
    }

    pub(crate) fn unsubscribe_all(&mut self) {
        let own = std::mem::take(&mut self.subscriptions);
        for topic in own.topics.iter().chain(&own.shard) {
            self.forward().hub.leave(topic, &self.client, None);
        }
    }

    /// Messages come in the version that the client speaks now.
    pub(crate) fn renew_subscriptions(&self) {
        let own = &self.subscriptions;
        for topic in own.topics.iter().chain(&own.shard) {
            let hub = &self.forward().hub;
            hub.renew(topic, &self.client, self.session.version);
        }
    }

    /// The confirmation of what was just changed, and the place of the reply.
    fn to_tell(&self, topic: &Topic, joins: bool) -> Waiter {
        let mut reply = Vec::new();
        encode::push(&mut reply, self.session.version, 3);
        encode::bulk(&mut reply, topic.kind.verb(joins).as_bytes());
        encode::bulk(&mut reply, &topic.name);
        encode::integer(&mut reply, self.subscriptions.shown(topic.kind));
        Waiter {
            client: Rc::clone(&self.client),
            sequence: self.client.reserve(false),
            reply,
        }
    }
}
