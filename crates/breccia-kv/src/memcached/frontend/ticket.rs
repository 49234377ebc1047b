//! Who waits for a reply from a shard, and what is to become of it.
//!
//! Invariant: a ticket is used up exactly once, by a reply or by a failure; either way the client's
//! place in its ring is filled, with nothing where the client wants no answer.

use std::cell::Cell;
use std::rc::Rc;

use super::super::codec::is_error;
use super::super::rewrite::Quiet;
use super::super::wire_error::push_server_error;
use super::gather::Gather;
use super::neighbours::Neighbours;
use crate::front::client::Client;
use crate::front::failure::failure_text;
use crate::front::metrics::{FrontMetrics, Outcome};
use crate::front::ring::Sequence;
use crate::pipeline::{Failure, Recipient};
use crate::topology::LeafIndex;

/// A client that was sent a reply above this reads through bulk connections from then on.
pub(crate) const LARGE_REPLY_BYTES: usize = 1 << 20;

/// One client's request: where its reply goes and what it counts as.
#[derive(Clone)]
pub(crate) struct Asked {
    pub client: Rc<Client>,
    pub metrics: Rc<FrontMetrics>,
    pub sequence: Sequence,
    /// The command's row among the counters.
    pub row: u16,
    pub quiet: Quiet,
    /// Set once the client was sent a large reply.
    pub reads_bulk: Rc<Cell<bool>>,
}

impl Asked {
    /// Answers the request as a shard did, and counts it.
    pub(crate) fn answer(&self, reply: &[u8]) {
        let shown = if self.quiet.hides(reply) { &[] } else { reply };
        let outcome = if is_error(reply) {
            Outcome::Error
        } else {
            Outcome::Answered
        };
        self.finish(shown, outcome);
    }

    /// Answers the request with a failure and counts it.
    pub(crate) fn fail(&self, failure: &Failure, leaf: &str) {
        let mut reply = Vec::new();
        if !self.quiet.hides_errors() {
            push_server_error(failure_text(failure, leaf), &mut reply);
        }
        self.finish(&reply, Outcome::of(failure));
    }

    /// One shard has answered the whole request.
    pub(super) fn answered_by(&self, leaf: LeafIndex, reply: &[u8]) {
        self.metrics.count_leaf(leaf, Outcome::Answered);
        self.answer(reply);
    }

    /// One shard was to answer the whole request, and has not.
    pub(super) fn failed_by(&self, leaf: LeafIndex, failure: &Failure) {
        self.metrics.count_leaf(leaf, Outcome::of(failure));
        self.fail(failure, self.metrics.leaf_name(leaf));
    }

    /// Fills the client's place with these very bytes.
    pub(crate) fn finish(&self, shown: &[u8], outcome: Outcome) {
        self.metrics.count(self.row, outcome);
        if let Some(begun) = self.client.end_sample(self.sequence) {
            self.metrics.observe(begun);
        }
        if shown.len() > LARGE_REPLY_BYTES {
            self.reads_bulk.set(true);
        }
        self.client.fill(self.sequence, shown);
    }
}

/// What becomes of a reply.
pub(crate) enum Ticket {
    /// It goes to the client as it is.
    Whole(Asked, LeafIndex),
    /// It is one part of a reply.
    Part(Rc<Gather>, usize),
    /// It answers several requests.
    Neighbours(Box<Neighbours>),
}

impl Recipient for Ticket {
    fn deliver(self, reply: &[u8]) {
        match self {
            Self::Whole(asked, leaf) => asked.answered_by(leaf, reply),
            Self::Part(gather, part) => gather.deliver(part, reply),
            Self::Neighbours(neighbours) => neighbours.deliver(reply),
        }
    }

    fn fail(self, failure: &Failure) {
        match self {
            Self::Whole(asked, leaf) => asked.failed_by(leaf, failure),
            Self::Part(gather, part) => gather.fail(part, failure),
            Self::Neighbours(neighbours) => neighbours.fail(failure),
        }
    }

    fn abandoned(&self) -> bool {
        match self {
            Self::Whole(asked, _) => asked.client.is_gone(),
            Self::Part(gather, _) => gather.abandoned(),
            Self::Neighbours(neighbours) => neighbours.abandoned(),
        }
    }
}
