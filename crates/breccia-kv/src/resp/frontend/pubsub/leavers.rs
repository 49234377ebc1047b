//! Clients that have left a topic and are told so once no server counts their worker any more.
//!
//! Not who is subscribed ([`super::hub`]). A PUBLISH behind an answer that came earlier might count the
//! worker's connection, and with it a subscriber that is none. Invariant: whoever is added is told, by
//! the servers' confirmations or when its patience ends.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use breccia_net::clock;

use super::topic::Topic;
use crate::front::client::Client;
use crate::front::ring::Sequence;

/// How long one who leaves waits for servers to confirm it.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often it is looked whether that is over for somebody.
pub(crate) const LOOK: Duration = Duration::from_millis(100);

/// A client that is told something later.
pub(crate) struct Waiter {
    pub client: Rc<Client>,
    /// The place of the reply.
    pub sequence: Sequence,
    pub reply: Vec<u8>,
}

impl Waiter {
    /// Tells it.
    pub(crate) fn tell(&self) {
        self.client.fill(self.sequence, &self.reply);
    }
}

/// The last subscriber of a topic, which has left it.
struct Leaver {
    waiter: Waiter,
    /// It is told by then, whatever servers have answered.
    until: Instant,
    /// Lines on which the topic may still come.
    lines: BTreeSet<usize>,
}

impl Leaver {
    /// Whether it must wait on; else it is told.
    fn waits(&self) -> bool {
        let waits = !self.lines.is_empty();
        if !waits {
            self.waiter.tell();
        }
        waits
    }
}

/// Those of one hub.
#[derive(Default)]
pub(crate) struct Leavers(RefCell<BTreeMap<Topic, Vec<Leaver>>>);

impl Leavers {
    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Adds one who has left a topic that these lines have not ended.
    pub(crate) fn add(&self, topic: &Topic, waiter: Waiter, lines: BTreeSet<usize>) {
        let leaver = Leaver {
            waiter,
            until: clock::now() + PATIENCE,
            lines,
        };
        let mut all = self.0.borrow_mut();
        all.entry(topic.clone()).or_default().push(leaver);
    }

    /// Nobody need wait any more for the end of a topic on this line.
    pub(crate) fn ceased(&self, line: usize, topic: &Topic) {
        let mut all = self.0.borrow_mut();
        let Some(of_topic) = all.get_mut(topic) else {
            return;
        };
        of_topic.retain_mut(|leaver| {
            leaver.lines.remove(&line);
            leaver.waits()
        });
        if of_topic.is_empty() {
            all.remove(topic);
        }
    }

    /// Nobody need wait any more for this line.
    pub(crate) fn all_ceased(&self, line: usize) {
        self.retain(|leaver| {
            leaver.lines.remove(&line);
        });
    }

    /// Tells those who have waited long enough: a server that is silent keeps nobody.
    pub(crate) fn tell_late(&self) {
        let now = clock::now();
        self.retain(|leaver| {
            if leaver.until <= now {
                leaver.lines.clear();
            }
        });
    }

    fn retain(&self, change: impl Fn(&mut Leaver)) {
        self.0.borrow_mut().retain(|_, of_topic| {
            of_topic.retain_mut(|leaver| {
                change(leaver);
                leaver.waits()
            });
            !of_topic.is_empty()
        });
    }
}
