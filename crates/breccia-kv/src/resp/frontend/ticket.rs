//! Who waits for a reply from a shard, and what is to become of it.
//!
//! Invariant: a ticket is used up exactly once, by a reply or by a failure; either way the
//! client's place in its ring is filled.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::super::encode;
use super::leaf::RespUpstream;
use super::merge::Merge;
use super::metrics::{FrontMetrics, Outcome};
use super::redirect::{Kept, Shielded};
use super::scripts::Sent;
use super::wire_error::failure_text;
use crate::front::client::Client;
use crate::front::ring::Sequence;
use crate::pipeline::{Failure, Recipient};
use crate::topology::LeafIndex;

/// One client's request: where its reply goes and what it counts as.
#[derive(Clone)]
pub(crate) struct Asked {
    pub client: Rc<Client>,
    pub metrics: Rc<FrontMetrics>,
    pub sequence: Sequence,
    /// The command's row in the table.
    pub row: u16,
    pub leaf: LeafIndex,
}

impl Asked {
    /// Answers the request and counts it.
    pub(crate) fn answer(&self, reply: &[u8]) {
        let outcome = if reply.first() == Some(&b'-') {
            Outcome::Error
        } else {
            Outcome::Answered
        };
        self.finish(reply, outcome);
    }

    /// Answers the request with a failure and counts it.
    pub(crate) fn fail(&self, failure: &Failure) {
        let mut reply = Vec::new();
        encode::error(
            &mut reply,
            &failure_text(failure, &self.metrics.place_name(self.leaf)),
        );
        self.client.trust();
        self.finish(&reply, Outcome::of(failure));
    }

    /// The reply of a shard came late.
    pub(crate) fn slow(&self, leaf: LeafIndex, took: Duration, now: Instant) {
        self.metrics
            .slow((self.row, leaf), &self.client, (took, now));
    }

    pub(crate) fn finish(&self, reply: &[u8], outcome: Outcome) {
        self.metrics.count(self.row, outcome);
        if let Some(begun) = self.client.end_sample(self.sequence) {
            self.metrics.observe(begun);
        }
        self.client.fill(self.sequence, reply);
    }
}

/// Changes a reply on its way to the client.
pub(crate) trait Convert {
    /// The reply as the client shall see it.
    fn convert(&self, reply: &[u8]) -> Vec<u8>;
    /// The failure as the client shall see it; `None`: the usual text.
    fn convert_failure(&self, _failure: &Failure) -> Option<Vec<u8>> {
        None
    }
}

/// What becomes of a reply.
pub(crate) enum Ticket {
    /// It goes to the client as it is.
    Reply(Asked),
    /// It is one part of a merged reply.
    Part(Rc<Merge>, usize),
    /// It goes to the client as it is, and tells whether the server knows a script.
    Script(Asked, Box<Sent>),
    /// It is changed on the way.
    Converted(Asked, Box<dyn Convert>),
    /// It says whether the shard opened a transaction on this connection.
    Begun(Rc<RespUpstream>),
    /// It may be that a cluster wants the request elsewhere.
    Kept(Box<Kept>),
    /// The same, where the request cannot go elsewhere: the client is told so.
    Shielded(Box<Shielded>),
    /// It is thrown away.
    Ignored,
}

impl Ticket {
    /// The leaf whose reply it waits for, if a client waits.
    pub(crate) fn leaf(&self) -> Option<LeafIndex> {
        match self {
            Self::Reply(asked) | Self::Script(asked, _) | Self::Converted(asked, _) => {
                Some(asked.leaf)
            }
            Self::Part(merge, part) => merge.leaf_of(*part),
            _ => None,
        }
    }

    /// The request goes to another leaf.
    pub(crate) fn moves_to(&mut self, leaf: LeafIndex) {
        match self {
            Self::Reply(asked) | Self::Script(asked, _) | Self::Converted(asked, _) => {
                asked.leaf = leaf;
            }
            _ => {}
        }
    }

    /// The client that waits.
    pub(crate) fn client(&self) -> Option<&Rc<Client>> {
        match self {
            Self::Reply(asked) | Self::Script(asked, _) | Self::Converted(asked, _) => {
                Some(&asked.client)
            }
            Self::Part(merge, _) => Some(merge.client()),
            _ => None,
        }
    }
}

impl Recipient for Ticket {
    fn deliver(self, reply: &[u8]) {
        match self {
            Self::Reply(asked) => {
                asked.metrics.count_leaf(asked.leaf, Outcome::Answered);
                asked.answer(reply);
            }
            Self::Part(merge, part) => merge.deliver(part, reply),
            Self::Script(asked, sent) => {
                sent.heard(reply);
                asked.metrics.count_leaf(asked.leaf, Outcome::Answered);
                asked.answer(reply);
            }
            Self::Converted(asked, convert) => {
                asked.metrics.count_leaf(asked.leaf, Outcome::Answered);
                asked.answer(&convert.convert(reply));
            }
            Self::Begun(upstream) if reply == b"+OK\r\n" => upstream.set_in_transaction(true),
            // What follows would run outside a transaction.
            Self::Begun(upstream) => upstream.seal(),
            Self::Kept(kept) => kept.deliver(reply),
            Self::Shielded(shielded) => shielded.deliver(reply),
            Self::Ignored => {}
        }
    }

    fn fail(self, failure: &Failure) {
        match self {
            Self::Reply(asked) | Self::Script(asked, _) => {
                asked.metrics.count_leaf(asked.leaf, Outcome::of(failure));
                asked.fail(failure);
            }
            Self::Part(merge, part) => merge.fail(part, failure),
            Self::Converted(asked, convert) => {
                asked.metrics.count_leaf(asked.leaf, Outcome::of(failure));
                match convert.convert_failure(failure) {
                    Some(reply) => asked.finish(&reply, Outcome::of(failure)),
                    None => asked.fail(failure),
                }
            }
            Self::Kept(kept) => kept.fail(failure),
            Self::Shielded(shielded) => shielded.inner.fail(failure),
            Self::Begun(_) | Self::Ignored => {}
        }
    }

    fn slow(&self, took: Duration, now: Instant) {
        match self {
            Self::Reply(asked) | Self::Script(asked, _) | Self::Converted(asked, _) => {
                asked.slow(asked.leaf, took, now);
            }
            Self::Part(merge, part) => merge.slow(*part, took, now),
            Self::Kept(kept) => kept.inner.slow(took, now),
            Self::Shielded(shielded) => shielded.inner.slow(took, now),
            Self::Begun(_) | Self::Ignored => {}
        }
    }

    fn abandoned(&self) -> bool {
        match self {
            Self::Reply(asked) | Self::Script(asked, _) | Self::Converted(asked, _) => {
                asked.client.is_gone()
            }
            Self::Part(merge, _) => merge.abandoned(),
            Self::Kept(kept) => kept.inner.abandoned(),
            Self::Shielded(shielded) => shielded.inner.abandoned(),
            Self::Begun(_) | Self::Ignored => false,
        }
    }
}
