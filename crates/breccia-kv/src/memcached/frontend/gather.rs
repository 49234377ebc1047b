//! Requests over several shards: how keys are dealt out, and waiting for all parts.
//!
//! Invariant: every part is answered or failed once; the last one composes the client's reply.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::super::codec::is_error;
use super::super::codec::{Keys, MAX_LINE_BYTES, RetrievalVerb};
use super::super::merge::{PartReply, merge_ok, merge_values};
use super::ticket::Asked;
use crate::front::failure::failure_text;
use crate::front::metrics::Outcome;
use crate::pipeline::Failure;
use crate::topology::LeafIndex;

/// How the parts make one reply.
pub(crate) enum Rule {
    /// Hits in the order of the keys.
    Values(Dealt),
    /// All must answer `OK`.
    Ok,
}

/// The keys of a retrieval, dealt out to parts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Dealt {
    /// All keys, one behind the other.
    text: Vec<u8>,
    /// For each key where it ends in `text`, and its part.
    keys: Vec<(usize, usize)>,
    /// The leaf of each part.
    pub leaves: Vec<LeafIndex>,
}

/// memcached closes on a `gat` whose line is long and comes in pieces.
const GAT_LINE_BYTES: usize = MAX_LINE_BYTES - 64;

impl Dealt {
    /// Deals keys out. `None` if all are on one leaf and fit one line: nothing to gather.
    pub(crate) fn new(
        verb: RetrievalVerb,
        keys: Keys<'_>,
        leaf_of: impl Fn(&[u8]) -> LeafIndex,
    ) -> Option<Self> {
        let longest = if verb.touches() {
            GAT_LINE_BYTES
        } else {
            usize::MAX
        };
        let mut dealt = Self::default();
        // The part that still takes keys of a leaf, with its line's length.
        let mut open: Vec<(LeafIndex, usize, usize)> = Vec::new();
        for key in keys.iter() {
            let leaf = leaf_of(key);
            let place = open.iter().position(|(known, ..)| *known == leaf);
            let place = place.unwrap_or_else(|| {
                open.push((leaf, dealt.leaves.len(), 0));
                dealt.leaves.push(leaf);
                open.len() - 1
            });
            let Some((_, part, length)) = open.get_mut(place) else {
                continue;
            };
            if *length + key.len() + 1 > longest {
                *part = dealt.leaves.len();
                *length = 0;
                dealt.leaves.push(leaf);
            }
            *length += key.len() + 1;
            dealt.text.extend_from_slice(key);
            dealt.keys.push((dealt.text.len(), *part));
        }
        (dealt.leaves.len() > 1).then_some(dealt)
    }

    /// Each key with its part, in the client's order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (&[u8], usize)> {
        let mut start = 0;
        self.keys.iter().map(move |(end, part)| {
            let key = self.text.get(start..*end).unwrap_or_default();
            start = *end;
            (key, *part)
        })
    }
}

enum State {
    Waiting,
    Answered(Vec<u8>),
    Failed(String),
}

/// A reply that is being put together.
pub(crate) struct Gather {
    asked: Asked,
    rule: Rule,
    parts: RefCell<Vec<(LeafIndex, State)>>,
    waiting: Cell<usize>,
    held: Cell<usize>,
}

impl Gather {
    pub(crate) fn new(asked: Asked, rule: Rule, leaves: &[LeafIndex]) -> Rc<Self> {
        let parts = leaves.iter().map(|leaf| (*leaf, State::Waiting)).collect();
        Rc::new(Self {
            asked,
            rule,
            parts: RefCell::new(parts),
            waiting: Cell::new(leaves.len()),
            held: Cell::new(0),
        })
    }

    /// The keys dealt out, if this is a retrieval.
    pub(crate) fn dealt(&self) -> Option<&Dealt> {
        match &self.rule {
            Rule::Values(dealt) => Some(dealt),
            Rule::Ok => None,
        }
    }

    pub(crate) fn abandoned(&self) -> bool {
        self.asked.client.is_gone()
    }

    pub(crate) fn deliver(&self, part: usize, reply: &[u8]) {
        self.held.set(self.held.get() + reply.len());
        self.asked.client.hold(reply.len());
        self.settle(part, Outcome::Answered, |_| State::Answered(reply.to_vec()));
    }

    pub(crate) fn fail(&self, part: usize, failure: &Failure) {
        self.settle(part, Outcome::of(failure), |leaf| {
            State::Failed(failure_text(failure, leaf))
        });
    }

    fn settle(&self, part: usize, outcome: Outcome, state: impl FnOnce(&str) -> State) {
        let mut parts = self.parts.borrow_mut();
        let Some((leaf, place)) = parts.get_mut(part) else {
            return;
        };
        self.asked.metrics.count_leaf(*leaf, outcome);
        *place = state(self.asked.metrics.leaf_name(*leaf));
        self.waiting.set(self.waiting.get() - 1);
        if self.waiting.get() == 0 {
            self.asked.client.unhold(self.held.get());
            self.compose(&parts);
        }
    }

    fn compose(&self, parts: &[(LeafIndex, State)]) {
        let mut failed = false;
        let replies: Vec<PartReply<'_>> = parts
            .iter()
            .map(|(_, state)| match state {
                State::Answered(reply) => Ok(reply.as_slice()),
                State::Failed(text) => {
                    failed = true;
                    Err(text.as_str())
                }
                State::Waiting => Err("a part is missing"),
            })
            .collect();
        let mut out = Vec::new();
        match &self.rule {
            Rule::Values(dealt) => merge_values(dealt.keys(), &replies, &mut out),
            Rule::Ok => {
                let name = |leaf: &LeafIndex| self.asked.metrics.leaf_name(*leaf);
                let named: Vec<_> = parts
                    .iter()
                    .zip(replies)
                    .map(|((leaf, _), reply)| (name(leaf), reply))
                    .collect();
                merge_ok(&named, &mut out);
            }
        }
        let outcome = if failed || is_error(&out) {
            Outcome::Error
        } else {
            Outcome::Answered
        };
        let shown = if self.asked.quiet.hides_errors() {
            &[]
        } else {
            out.as_slice()
        };
        self.asked.finish(shown, outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::codec::{Command, Decoded, Decoder};
    use super::*;

    fn deal(line: &str) -> Option<Dealt> {
        let decoded = Decoder::new(1 << 20).decode(line.as_bytes());
        let Decoded::Request(request) = decoded else {
            panic!("no request: {line}")
        };
        let Command::Retrieve { verb, keys, .. } = request.command else {
            panic!("no retrieval")
        };
        Dealt::new(verb, keys, |key| {
            LeafIndex::new(usize::from(key[0] - b'a')).unwrap()
        })
    }

    #[test]
    fn keys_are_dealt_in_order_and_one_leaf_needs_no_dealing() {
        assert_eq!(deal("get a1 a2 a1\r\n"), None);
        let dealt = deal("get b1 a1 b2 a1\r\n").unwrap();
        let keys: Vec<_> = dealt.keys().collect();
        let expected: Vec<(&[u8], usize)> = vec![(b"b1", 0), (b"a1", 1), (b"b2", 0), (b"a1", 1)];
        assert_eq!(keys, expected);
        assert_eq!(
            dealt
                .leaves
                .iter()
                .map(|leaf| leaf.get())
                .collect::<Vec<_>>(),
            [1, 0]
        );
    }

    #[test]
    fn a_long_gat_is_cut_into_lines_memcached_takes() {
        let keys: Vec<String> = (0..1000).map(|number| format!("a{number}")).collect();
        let list = keys.join(" ");
        assert_eq!(deal(&format!("get {list}\r\n")), None);
        let dealt = deal(&format!("gat 10 {list}\r\n")).unwrap();
        let mut lengths = vec![0; dealt.leaves.len()];
        for (key, part) in dealt.keys() {
            lengths[part] += key.len() + 1;
        }
        assert!(lengths.iter().all(|length| *length <= GAT_LINE_BYTES));
        assert_eq!(dealt.keys().count(), 1000);
    }
}
