//! One reply made of the replies of several shards.
//!
//! Invariant: if any part fails, the whole reply is one error that names the shards and, for
//! writes, what was applied and what is unknown; an error or a null never stands in for a part.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::{Duration, Instant};

use breccia_core::error::Effect;
use breccia_net::clock;

use super::super::codec::reply::{Elements, elements, integer};
use super::super::encode::{self, RespVersion};
use super::marked::visible;
use super::metrics::Outcome;
use super::ticket::{Asked, Convert};
use super::wire_error::failure_text;
use crate::front::client::Client;
use crate::front::ring::Sequence;
use crate::pipeline::Failure;
use crate::topology::LeafIndex;

/// How the parts become one reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Elements of arrays, in the order of the request's keys.
    InOrder,
    /// Integers are added.
    Sum,
    /// The smallest integer.
    Min,
    /// Elements of arrays, one part after another.
    Join,
    /// The same without the markers' keys.
    JoinVisible,
    /// The first part stands for all.
    First,
    /// One of the parts that are no nulls.
    OneOf,
    /// Integers of arrays are combined by AND.
    AndEach,
}

struct Part {
    leaf: LeafIndex,
    state: State,
}

enum State {
    Waiting,
    Answered(Vec<u8>),
    /// The shard answered with an error: the request was not applied there.
    Refused(String),
    Failed(Failure),
}

/// A reply in the making.
pub(crate) struct Merge {
    asked: Asked,
    rule: Rule,
    name: &'static str,
    writes: bool,
    version: RespVersion,
    parts: RefCell<Vec<Part>>,
    waiting: Cell<usize>,
    held: Cell<usize>,
    /// For [`Rule::InOrder`]: the part of each key.
    order: Vec<usize>,
    /// Changes the whole reply on its way.
    convert: OnceCell<Box<dyn Convert>>,
}

impl Merge {
    /// A reply that waits for one part from each of `leaves`.
    pub(crate) fn new(
        asked: Asked,
        rule: Rule,
        (name, writes): (&'static str, bool),
        version: RespVersion,
        leaves: &[LeafIndex],
        order: Vec<usize>,
    ) -> Rc<Self> {
        let parts = leaves
            .iter()
            .map(|leaf| Part {
                leaf: *leaf,
                state: State::Waiting,
            })
            .collect();
        Rc::new(Self {
            asked,
            rule,
            name,
            writes,
            version,
            parts: RefCell::new(parts),
            waiting: Cell::new(leaves.len()),
            held: Cell::new(0),
            order,
            convert: OnceCell::new(),
        })
    }

    /// Changes the whole reply on its way; before any part is answered.
    pub(crate) fn convert(&self, convert: Box<dyn Convert>) {
        let _first = self.convert.set(convert);
    }

    /// Whom a part was sent to.
    pub(crate) fn leaf_of(&self, part: usize) -> Option<LeafIndex> {
        Some(self.parts.borrow().get(part)?.leaf)
    }

    /// Who waits for the reply.
    pub(crate) fn client(&self) -> &Rc<Client> {
        &self.asked.client
    }

    /// The request's place among those of its client.
    pub(crate) fn sequence(&self) -> Sequence {
        self.asked.sequence
    }

    /// The reply of one shard came late.
    pub(crate) fn slow(&self, part: usize, took: Duration, now: Instant) {
        if let Some(part) = self.parts.borrow().get(part) {
            self.asked.slow(part.leaf, took, now);
        }
    }

    pub(crate) fn deliver(&self, part: usize, reply: &[u8]) {
        let state = match reply.strip_prefix(b"-") {
            Some(text) => State::Refused(without_end(text)),
            None => State::Answered(reply.to_vec()),
        };
        self.held.set(self.held.get() + reply.len());
        self.asked.client.hold(reply.len());
        self.settle(part, state, Outcome::Answered);
    }

    pub(crate) fn fail(&self, part: usize, failure: &Failure) {
        self.settle(part, State::Failed(failure.clone()), Outcome::of(failure));
    }

    fn settle(&self, part: usize, state: State, outcome: Outcome) {
        let mut parts = self.parts.borrow_mut();
        let Some(part) = parts.get_mut(part) else {
            return;
        };
        self.asked.metrics.count_leaf(part.leaf, outcome);
        part.state = state;
        self.waiting.set(self.waiting.get() - 1);
        if self.waiting.get() > 0 {
            return;
        }
        self.asked.client.unhold(self.held.get());
        let reply = match self.trouble(&parts) {
            Some(text) => Err(text),
            None => self.compose(&parts).ok_or_else(|| {
                format!(
                    "ERR breccia: the shards' replies to {} do not fit together",
                    self.name
                )
            }),
        };
        match reply {
            Ok(reply) => {
                let reply = match self.convert.get() {
                    Some(convert) => convert.convert(&reply),
                    None => reply,
                };
                self.asked.finish(&reply, Outcome::Answered);
            }
            Err(text) => {
                let mut reply = Vec::new();
                encode::error(&mut reply, &text);
                self.asked.finish(&reply, Outcome::Error);
            }
        }
    }

    /// The error of the whole, if any part is in trouble.
    fn trouble(&self, parts: &[Part]) -> Option<String> {
        let name = |part: &Part| self.asked.metrics.place_name(part.leaf).into_owned();
        let mut first = None;
        let (mut applied, mut refused, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
        for part in parts {
            let text = match &part.state {
                State::Waiting | State::Answered(_) => {
                    applied.push(name(part));
                    continue;
                }
                State::Refused(text) => {
                    refused.push(name(part));
                    let (code, rest) = text.split_once(' ').unwrap_or((text, ""));
                    let name = name(part);
                    // A trunk's own error names the shard already.
                    if rest.starts_with(&name) {
                        text.clone()
                    } else {
                        format!("{code} {name}: {rest}")
                    }
                }
                State::Failed(failure) => {
                    let list = if failure.effect == Effect::Unknown {
                        &mut unknown
                    } else {
                        &mut refused
                    };
                    list.push(name(part));
                    failure_text(failure, &name(part))
                }
            };
            first.get_or_insert(text);
        }
        let mut text = first?;
        if let Some(same) = same_refusal(parts) {
            return Some(same);
        }
        if self.writes {
            // Writing to a String cannot fail.
            let _ = write!(text, " ({} as a whole:", self.name);
            for list in [&mut applied, &mut refused, &mut unknown] {
                // Slots of one server are parts of their own.
                list.dedup();
            }
            for (what, list) in [
                ("applied", applied),
                ("not applied", refused),
                ("unknown", unknown),
            ] {
                if !list.is_empty() {
                    let _ = write!(text, " {what} on {};", list.join(", "));
                }
            }
            text.pop();
            text.push(')');
        }
        Some(text)
    }

    fn compose(&self, parts: &[Part]) -> Option<Vec<u8>> {
        let replies: Vec<(LeafIndex, &[u8])> = parts
            .iter()
            .map(|part| match &part.state {
                State::Answered(reply) => Some((part.leaf, reply.as_slice())),
                _ => None,
            })
            .collect::<Option<_>>()?;
        let mut out = Vec::with_capacity(replies.iter().map(|(_, reply)| reply.len() + 8).sum());
        match self.rule {
            Rule::InOrder => self.in_order(&replies, &mut out)?,
            Rule::Sum => {
                let sum = replies
                    .iter()
                    .try_fold(0_i64, |sum, (_, reply)| sum.checked_add(integer(reply)?))?;
                encode::integer(&mut out, sum);
            }
            Rule::Min => {
                let all: Option<Vec<i64>> =
                    replies.iter().map(|(_, reply)| integer(reply)).collect();
                encode::integer(&mut out, all?.into_iter().min()?);
            }
            Rule::Join => {
                let parts: Option<Vec<_>> =
                    replies.iter().map(|(_, reply)| elements(reply)).collect();
                let parts = parts?;
                let count: u64 = parts.iter().map(Elements::left).sum();
                encode::array(&mut out, usize::try_from(count).ok()?);
                for element in parts.into_iter().flatten() {
                    out.extend_from_slice(element);
                }
            }
            Rule::JoinVisible => {
                let parts: Option<Vec<_>> =
                    replies.iter().map(|(_, reply)| visible(reply)).collect();
                let parts = parts?;
                encode::array(&mut out, parts.iter().map(|(count, _)| count).sum());
                for (_, shown) in &parts {
                    out.extend_from_slice(shown);
                }
            }
            Rule::First => out.extend_from_slice(replies.first()?.1),
            Rule::OneOf => {
                let found: Vec<&[u8]> = replies
                    .iter()
                    .map(|(_, reply)| *reply)
                    .filter(|reply| *reply != b"$-1\r\n" && *reply != b"_\r\n")
                    .collect();
                let turn = usize::try_from(clock::seed() >> 1).unwrap_or(0);
                match found.get(turn.checked_rem(found.len()).unwrap_or(0)) {
                    Some(reply) => out.extend_from_slice(reply),
                    None => encode::null(&mut out, self.version),
                }
            }
            Rule::AndEach => and_each(&replies, &mut out)?,
        }
        Some(out)
    }

    fn in_order(&self, replies: &[(LeafIndex, &[u8])], out: &mut Vec<u8>) -> Option<()> {
        let mut sources = Vec::with_capacity(replies.len());
        for (_, reply) in replies {
            sources.push(elements(reply)?);
        }
        encode::array(out, self.order.len());
        for part in &self.order {
            out.extend_from_slice(sources.get_mut(*part)?.next()?);
        }
        sources
            .iter()
            .all(|source| source.left() == 0)
            .then_some(())
    }
}

/// An error's text without the end of its line; spaces before that are the server's.
fn without_end(text: &[u8]) -> String {
    let text = text.strip_suffix(b"\r\n").unwrap_or(text);
    String::from_utf8_lossy(text).into_owned()
}

/// What all shards refused the request with, if it is one text: a client shall see that of Redis.
fn same_refusal(parts: &[Part]) -> Option<String> {
    let mut texts = parts.iter().map(|part| match &part.state {
        State::Refused(text) => Some(text),
        _ => None,
    });
    let first = texts.next()??;
    texts.all(|text| text == Some(first)).then(|| first.clone())
}

fn and_each(replies: &[(LeafIndex, &[u8])], out: &mut Vec<u8>) -> Option<()> {
    let mut all: Option<Vec<i64>> = None;
    for (_, reply) in replies {
        let values: Vec<i64> = elements(reply)?.map(integer).collect::<Option<_>>()?;
        all = Some(match all {
            None => values,
            Some(known) if known.len() == values.len() => known
                .iter()
                .zip(values)
                .map(|(one, other)| one & other)
                .collect(),
            Some(_) => return None,
        });
    }
    let all = all?;
    encode::array(out, all.len());
    for value in all {
        encode::integer(out, value);
    }
    Some(())
}
