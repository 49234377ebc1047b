//! How many clients of this process are subscribed to what: the same for all workers.
//!
//! Not who they are; each worker's hub knows its own. Touched when subscriptions change and by
//! PUBSUB, never by a message. Invariant: a topic is listed while somebody is subscribed to it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::topic::{Kind, Topic};

/// The subscriptions of one store. See the module's page.
#[derive(Debug, Default)]
pub struct Roster(Mutex<BTreeMap<Topic, u64>>);

impl Roster {
    fn counts(&self) -> MutexGuard<'_, BTreeMap<Topic, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One client more.
    pub(crate) fn join(&self, topic: &Topic) {
        *self.counts().entry(topic.clone()).or_default() += 1;
    }

    /// One client less.
    pub(crate) fn leave(&self, topic: &Topic) {
        let mut counts = self.counts();
        if let Some(count) = counts.get_mut(topic) {
            *count -= 1;
            if *count == 0 {
                counts.remove(topic);
            }
        }
    }

    /// How many clients are subscribed.
    pub(crate) fn count(&self, topic: &Topic) -> u64 {
        self.counts().get(topic).copied().unwrap_or(0)
    }

    /// The topics of a kind that somebody is subscribed to.
    pub(crate) fn names(&self, kind: Kind, wanted: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let counts = self.counts();
        let own = counts.keys().filter(|topic| topic.kind == kind);
        own.filter(|topic| wanted(&topic.name))
            .map(|topic| topic.name.clone())
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
}
