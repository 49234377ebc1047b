//! Neighbouring retrievals of one key each that wait for the same server leave as one request of
//! several keys: memcached spends most of a small `get` on its line, not on its key.
//!
//! It changes no order: only a request that has not left takes in the one that follows it in the
//! same queue. Invariant: each client gets the reply that its own request alone would have got.

use std::time::Duration;

use breccia_core::error::Effect;

use super::super::codec::{RetrievalVerb, Values};
use super::ticket::{Asked, Ticket};
use crate::pipeline::{Cause, Failure};
use crate::topology::LeafIndex;

/// A request joins only one whose deadline is at most this much earlier, for it becomes its own.
pub(super) const JOIN_WITHIN: Duration = Duration::from_millis(5);
/// Keys of one joined request.
const MAX_KEYS: usize = 64;
/// What is expected of a client that was sent nothing yet.
const UNKNOWN_BYTES: usize = 4 * 1024;
/// What all replies to one joined request may be expected to take together, judged by what their
/// clients were sent lately.
const MAX_EXPECTED_BYTES: usize = 64 * 1024;

/// Requests for one key each that one reply will answer.
pub(crate) struct Neighbours {
    /// All keys, one behind the other.
    text: Vec<u8>,
    members: Vec<Member>,
    expected: usize,
}

struct Member {
    asked: Asked,
    leaf: LeafIndex,
    /// Where its key ends in the text.
    end: usize,
}

/// Lets the request of `ticket`, whose line is the last `length` of `bytes`, take in one for
/// another `key`. Whoever asks for it is taken from `asked` if so.
pub(super) fn join(
    ticket: &mut Ticket,
    verb: RetrievalVerb,
    (bytes, length): (&mut Vec<u8>, usize),
    key: &[u8],
    asked: &mut Option<(Asked, LeafIndex)>,
) -> bool {
    let line = bytes.get(bytes.len() - length..).unwrap_or_default();
    let Some(first) = line
        .strip_prefix(verb.name().as_bytes())
        .and_then(|rest| rest.strip_prefix(b" "))
        .and_then(|rest| rest.strip_suffix(b"\r\n"))
    else {
        return false;
    };
    if let Ticket::Whole(asked, leaf) = ticket {
        if first.contains(&b' ') {
            return false;
        }
        let mut alone = Neighbours::default();
        alone.add(first, asked.clone(), *leaf);
        *ticket = Ticket::Neighbours(Box::new(alone));
    }
    let Ticket::Neighbours(neighbours) = ticket else {
        return false;
    };
    let Some((newcomer, leaf)) = asked.take_if(|(newcomer, _)| neighbours.takes(newcomer)) else {
        return false;
    };
    neighbours.add(key, newcomer, leaf);
    bytes.truncate(bytes.len() - b"\r\n".len());
    bytes.push(b' ');
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(b"\r\n");
    true
}

impl Default for Neighbours {
    fn default() -> Self {
        Self {
            text: Vec::with_capacity(256),
            members: Vec::with_capacity(8),
            expected: 0,
        }
    }
}

impl Neighbours {
    fn takes(&self, newcomer: &Asked) -> bool {
        self.members.len() < MAX_KEYS && self.expected + expected(newcomer) <= MAX_EXPECTED_BYTES
    }

    fn add(&mut self, key: &[u8], asked: Asked, leaf: LeafIndex) {
        self.text.extend_from_slice(key);
        self.expected += expected(&asked);
        self.members.push(Member {
            asked,
            leaf,
            end: self.text.len(),
        });
    }

    /// Gives each request its own part of the reply: its hit, if it has one, and the end. What is
    /// missing because the server broke off with an error gets that error. A hit that nobody asked
    /// for fails them all: another one would look like a miss.
    pub(super) fn deliver(&self, reply: &[u8]) {
        let mut values = Values::new(reply);
        let mut next = values.next();
        let mut hits = Vec::with_capacity(self.members.len());
        let mut start = 0;
        for member in &self.members {
            let key = self.text.get(start..member.end).unwrap_or_default();
            start = member.end;
            let hit = next.take_if(|hit| hit.key == key);
            if hit.is_some() {
                next = values.next();
            }
            hits.push(hit.map(|hit| hit.whole));
        }
        if next.is_some() {
            let cause = Cause::Lost("it answered with keys that were not asked for".into());
            let effect = Effect::NotApplied;
            return self.fail(&Failure { cause, effect });
        }
        let mut own = Vec::new();
        for (member, hit) in self.members.iter().zip(hits) {
            let Some(hit) = hit else {
                // What is left is the line that ends the reply.
                member.asked.answered_by(member.leaf, values.rest());
                continue;
            };
            own.clear();
            own.extend_from_slice(hit);
            own.extend_from_slice(b"END\r\n");
            member.asked.answered_by(member.leaf, &own);
        }
    }

    pub(super) fn fail(&self, failure: &Failure) {
        for member in &self.members {
            member.asked.failed_by(member.leaf, failure);
        }
    }

    pub(super) fn abandoned(&self) -> bool {
        self.members.iter().all(|one| one.asked.client.is_gone())
    }
}

/// About how many bytes the reply will take.
fn expected(asked: &Asked) -> usize {
    match asked.client.reply_size() {
        0 => UNKNOWN_BYTES,
        known => known,
    }
}
