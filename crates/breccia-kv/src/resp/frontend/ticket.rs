//! Who waits for a reply from a shard, and what is to become of it.
//!
//! Invariant: a ticket is used up exactly once, by a reply or by a failure; either way the
//! client's place in its ring is filled.

use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, Instant};

use super::super::codec::reply::integer;
use super::super::encode;
use super::super::peer::ConnectionNumber;
use super::leaf::RespUpstream;
use super::merge::Merge;
use super::metrics::{FrontMetrics, Outcome};
use super::redirect::{Kept, Shielded};
use super::scripts::Sent;
use super::wire_error::failure_text;
use crate::front::client::{BROKEN_REPLY, Client, Ending};
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

    /// The last piece of the reply was given.
    fn end_pieces(&self) {
        self.count(Outcome::Answered);
        self.client.end_pieces(self.sequence);
    }

    /// The reply breaks off: the client is closed, because what followed would be taken for the rest.
    fn break_off(&self, failure: &Failure) {
        let client = &self.client;
        if !client.has_begun(self.sequence) {
            return self.fail(failure);
        }
        let why = failure_text(failure, self.metrics.leaf_name(self.leaf));
        tracing::warn!(
            peer = client.peer,
            reason = why,
            "a reply broke off in the middle"
        );
        self.count(Outcome::of(failure));
        client.end(Ending::Now(BROKEN_REPLY));
    }

    fn count(&self, outcome: Outcome) {
        self.metrics.count(self.row, outcome);
        if let Some(begun) = self.client.end_sample(self.sequence) {
            self.metrics.observe(begun);
        }
    }

    pub(crate) fn finish(&self, reply: &[u8], outcome: Outcome) {
        self.count(outcome);
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
    /// Whether a large reply goes to the client as it comes, unchanged; then this was the last that
    /// is heard of it.
    fn lets_pass(&self) -> bool {
        false
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
    /// It is the number by which the shard calls this connection.
    Numbered(Arc<ConnectionNumber>),
    /// It goes to the client in pieces, as they come.
    Pieces(Asked),
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

    /// Its place among the requests of its client, and who that is.
    pub(crate) fn place(&self) -> Option<(Sequence, &Rc<Client>)> {
        match self {
            Self::Reply(asked) | Self::Script(asked, _) | Self::Converted(asked, _) => {
                Some((asked.sequence, &asked.client))
            }
            Self::Part(merge, _) => Some((merge.sequence(), merge.client())),
            _ => None,
        }
    }

    /// The row of its command, if it is one and gets the reply as it is.
    pub(crate) fn row(&self) -> Option<u16> {
        match self {
            Self::Reply(asked) | Self::Script(asked, _) => Some(asked.row),
            _ => None,
        }
    }

    /// The client that waits.
    pub(crate) fn client(&self) -> Option<&Rc<Client>> {
        match self {
            Self::Reply(asked)
            | Self::Script(asked, _)
            | Self::Converted(asked, _)
            | Self::Pieces(asked) => Some(&asked.client),
            Self::Part(merge, _) => Some(merge.client()),
            Self::Kept(kept) => kept.inner.client(),
            Self::Shielded(shielded) => shielded.inner.client(),
            Self::Begun(_) | Self::Numbered(_) | Self::Ignored => None,
        }
    }

    /// Who gets the reply as it is, if it may.
    fn passes_to(&self) -> Option<Asked> {
        match self {
            Self::Reply(asked) => Some(asked.clone()),
            Self::Script(asked, sent) => {
                sent.heard(b"$");
                Some(asked.clone())
            }
            Self::Converted(asked, convert) if convert.lets_pass() => Some(asked.clone()),
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
            Self::Numbered(number) => number.learn(integer(reply)),
            Self::Pieces(asked) => {
                asked.client.piece(asked.sequence, reply);
                asked.end_pieces();
            }
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
            Self::Pieces(asked) => {
                asked.metrics.count_leaf(asked.leaf, Outcome::of(failure));
                asked.break_off(failure);
            }
            Self::Converted(asked, convert) => {
                asked.metrics.count_leaf(asked.leaf, Outcome::of(failure));
                match convert.convert_failure(failure) {
                    Some(reply) => asked.finish(&reply, Outcome::of(failure)),
                    None => asked.fail(failure),
                }
            }
            Self::Numbered(number) => number.learn(None),
            Self::Kept(kept) => kept.fail(failure),
            Self::Shielded(shielded) => shielded.fail(failure),
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
            Self::Begun(_) | Self::Numbered(_) | Self::Pieces(_) | Self::Ignored => {}
        }
    }

    fn abandoned(&self) -> bool {
        self.client().is_some_and(|client| client.is_gone())
    }

    fn owner(&self) -> u64 {
        self.client().map_or(0, |client| client.id)
    }

    fn takes_pieces(&mut self) -> bool {
        // A large reply is an answer: nobody sends the request elsewhere any more.
        *self = match std::mem::replace(self, Self::Ignored) {
            Self::Kept(kept) if kept.may_settle() => kept.settle(),
            Self::Shielded(shielded) => shielded.settle(),
            other => other,
        };
        let Some(asked) = self.passes_to() else {
            return false;
        };
        asked.client.reads_large.set(true);
        *self = Self::Pieces(asked);
        true
    }

    fn piece(&self, bytes: &[u8]) {
        if let Self::Pieces(asked) = self {
            asked.client.piece(asked.sequence, bytes);
        }
    }

    fn end_pieces(self) {
        if let Self::Pieces(asked) = self {
            asked.metrics.count_leaf(asked.leaf, Outcome::Answered);
            asked.end_pieces();
        }
    }

    fn has_room(&self, context: &mut Context<'_>) -> bool {
        match self {
            Self::Pieces(asked) => asked.client.has_room(asked.sequence, context),
            _ => true,
        }
    }

    fn is_out_of_turn(&self) -> bool {
        match self {
            Self::Pieces(asked) => asked.client.is_out_of_turn(asked.sequence),
            _ => false,
        }
    }

    fn wants_more(&self) {
        if let Some(client) = self.client() {
            client.wake();
        }
    }

    fn cut_off(&self) {
        if let Some(client) = self.client() {
            client.end(Ending::Now("write-timeout"));
        }
    }
}
