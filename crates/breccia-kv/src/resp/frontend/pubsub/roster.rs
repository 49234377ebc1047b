//! How many clients of this process are subscribed to what: the same for all workers.
//!
//! Not who they are; each worker's hub knows its own. Touched when subscriptions change, by PUBSUB and by
//! the number that PUBLISH answers, never by a message. Invariant: a topic is listed while somebody is
//! subscribed to it, or a worker on its behalf.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::topic::{Kind, Topic};
use crate::glob;

/// Who listens to one topic.
#[derive(Debug, Default)]
struct Listeners {
    clients: u64,
    /// Workers whose subscription a server has confirmed, by the name of its shard.
    workers: BTreeMap<String, u64>,
}

/// The subscriptions of one store. See the module's page.
#[derive(Debug, Default)]
pub struct Roster {
    topics: Mutex<BTreeMap<Topic, Listeners>>,
    /// Whether there are none; to be looked at without the lock.
    listened: AtomicBool,
}

impl Roster {
    fn topics(&self) -> MutexGuard<'_, BTreeMap<Topic, Listeners>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, topic: &Topic, change: impl FnOnce(&mut Listeners)) {
        let mut topics = self.topics();
        let listeners = topics.entry(topic.clone()).or_default();
        change(listeners);
        if listeners.clients == 0 && listeners.workers.is_empty() {
            topics.remove(topic);
        }
        self.listened.store(!topics.is_empty(), Ordering::Release);
    }

    /// One client more.
    pub(crate) fn join(&self, topic: &Topic) {
        self.change(topic, |listeners| listeners.clients += 1);
    }

    /// One client less.
    pub(crate) fn leave(&self, topic: &Topic) {
        self.change(topic, |listeners| {
            listeners.clients = listeners.clients.saturating_sub(1);
        });
    }

    /// A shard's server has confirmed the subscription of one worker more.
    pub(crate) fn hears(&self, shard: &str, topic: &Topic) {
        self.change(topic, |listeners| {
            *listeners.workers.entry(shard.to_owned()).or_default() += 1;
        });
    }

    /// One worker less is subscribed there.
    pub(crate) fn ceases(&self, shard: &str, topic: &Topic) {
        self.change(topic, |listeners| {
            let count = listeners.workers.get(shard).copied().unwrap_or(0);
            if count > 1 {
                listeners.workers.insert(shard.to_owned(), count - 1);
            } else {
                listeners.workers.remove(shard);
            }
        });
    }

    /// Whether anybody may be subscribed to anything.
    pub(crate) fn is_listened_to(&self) -> bool {
        self.listened.load(Ordering::Acquire)
    }

    /// How many clients a message has reached, of which a shard says that so many connections were sent
    /// it: our own connections there count as the clients behind them.
    pub(crate) fn audience(&self, shard: &str, (kind, channel): (Kind, &[u8]), said: i64) -> i64 {
        let topics = self.topics();
        let (mut clients, mut workers) = (0, 0);
        let mut add = |listeners: &Listeners| {
            clients += listeners.clients;
            workers += listeners.workers.get(shard).copied().unwrap_or(0);
        };
        topics
            .get(&Topic::new(kind, channel))
            .into_iter()
            .for_each(&mut add);
        if kind == Kind::Channel {
            let all = topics.iter();
            all.filter(|(topic, _)| topic.kind == Kind::Pattern)
                .filter(|(topic, _)| glob::matches(&topic.name, channel))
                .for_each(|(_, listeners)| add(listeners));
        }
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        said.saturating_sub(number(workers))
            .max(0)
            .saturating_add(number(clients))
    }

    /// How many clients are subscribed.
    pub(crate) fn count(&self, topic: &Topic) -> u64 {
        let topics = self.topics();
        topics.get(topic).map_or(0, |listeners| listeners.clients)
    }

    /// The topics of a kind that some client is subscribed to.
    pub(crate) fn names(&self, kind: Kind, wanted: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let topics = self.topics();
        let own = topics
            .iter()
            .filter(|(topic, listeners)| topic.kind == kind && listeners.clients > 0);
        own.filter(|(topic, _)| wanted(&topic.name))
            .map(|(topic, _)| topic.name.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_listed_while_somebody_is_subscribed() {
        let roster = Roster::default();
        let (channel, shard) = (
            Topic::new(Kind::Channel, b"c"),
            Topic::new(Kind::Shard, b"c"),
        );
        roster.join(&channel);
        roster.join(&channel);
        roster.join(&shard);
        assert_eq!((roster.count(&channel), roster.count(&shard)), (2, 1));
        roster.leave(&channel);
        assert_eq!(roster.names(Kind::Channel, |_| true), [b"c"]);
        roster.leave(&channel);
        roster.leave(&channel);
        assert!(roster.names(Kind::Channel, |_| true).is_empty());
        assert_eq!(roster.names(Kind::Shard, |name| name == b"c"), [b"c"]);
        assert!(roster.names(Kind::Pattern, |_| true).is_empty());
    }

    #[test]
    fn our_connections_count_as_the_clients_behind_them() {
        let roster = Roster::default();
        assert!(!roster.is_listened_to());
        let (channel, pattern) = (
            Topic::new(Kind::Channel, b"news"),
            Topic::new(Kind::Pattern, b"n*"),
        );
        let check = |said, wanted| {
            assert_eq!(roster.audience("a", (Kind::Channel, b"news"), said), wanted);
        };
        // Two clients of one worker and three of another, one of them by a pattern.
        for _ in 0..4 {
            roster.join(&channel);
        }
        roster.join(&pattern);
        assert!(roster.is_listened_to());
        roster.hears("a", &channel);
        roster.hears("a", &channel);
        roster.hears("a", &pattern);
        roster.hears("b", &channel);
        check(3, 5);
        // Two more, who asked the server itself.
        check(5, 7);
        // It has forgotten us already.
        check(0, 5);
        roster.ceases("a", &channel);
        check(2, 5);
        roster.ceases("a", &channel);
        roster.ceases("a", &pattern);
        roster.ceases("b", &channel);
        roster.leave(&pattern);
        for _ in 0..4 {
            roster.leave(&channel);
        }
        check(1, 1);
        assert!(!roster.is_listened_to());
    }
}
