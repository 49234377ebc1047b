//! Commands over several shards: split by key, or sent to all.
//!
//! Invariant: every shard (of a cluster: every slot) gets exactly one part, and the keys of a part
//! stand in the request's order, so the merged reply can be put together by order alone.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::super::codec::request::Request;
use super::super::encode;
use super::dialogue::{RespDialogue, Step};
use super::forward::LARGE_REQUEST;
use super::leaf::RespUpstream;
use super::marked::frame_for;
use super::merge::{Merge, Rule};
use super::route::{Command, Scatter, Split};
use super::service::Forward;
use super::ticket::{Asked, Convert, Ticket};
use super::wire_error::wrong_arity;
use crate::pipeline::Patience;
use crate::topology::LeafIndex;

/// Keys that are sent together, by the places of their arguments.
struct KeyPart {
    leaf: LeafIndex,
    bound: u16,
    keys: Vec<usize>,
}

/// A request's keys, by the parts they are sent in.
struct Parted {
    parts: Vec<KeyPart>,
    /// The part of each key, in the request's order.
    order: Vec<usize>,
}

impl Parted {
    fn new(forward: &Forward, keys: impl Iterator<Item = usize>, request: Request<'_>) -> Self {
        let mut parts: Vec<KeyPart> = Vec::new();
        let mut order = Vec::with_capacity(request.len());
        let mut numbers: BTreeMap<(LeafIndex, u16), usize> = BTreeMap::new();
        for index in keys {
            let place = forward.place(request.argument(index));
            let (leaf, bound) = (place.leaf, place.bound);
            let known = if bound == 0 {
                // Shards are few: looking through them costs less than a map.
                let same = |part: &KeyPart| part.leaf == leaf && part.bound == 0;
                parts.iter().position(same)
            } else {
                numbers.get(&(leaf, bound)).copied()
            };
            let number = known.unwrap_or(parts.len());
            if let Some(part) = parts.get_mut(number) {
                part.keys.push(index);
            } else {
                numbers.extend((bound != 0).then_some(((leaf, bound), number)));
                let keys = vec![index];
                parts.push(KeyPart { leaf, bound, keys });
            }
            order.push(number);
        }
        Self { parts, order }
    }
}

impl RespDialogue {
    pub(crate) fn forward_split(
        &mut self,
        command: &Command,
        split: Split,
        request: Request<'_>,
    ) -> Step {
        let step = if split == Split::Pairs { 2 } else { 1 };
        if split == Split::Pairs && request.len().is_multiple_of(2) {
            self.refuse(command.row, wrong_arity("mset"));
            return Step::Done;
        }
        let forward = self.forward();
        let first = forward.place(request.argument(1));
        if command.spec.writes() {
            self.note_write(first.leaf);
        }
        if request.len() == 1 + step || !forward.is_sharded() {
            return self.send(first.leaf, command.row, request);
        }
        let parted = Parted::new(&forward, (1..request.len()).step_by(step), request);
        if parted.parts.len() == 1 {
            return self.send(first.leaf, command.row, request);
        }
        let large = request.frame().len() > LARGE_REQUEST && !self.on_bulk;
        if large && self.client.in_flight() > 0 {
            return Step::Wait;
        }
        self.barrier |= large;
        self.send_parts(command, (split, step), request, parted);
        Step::Done
    }

    fn send_parts(
        &mut self,
        command: &Command,
        (split, step): (Split, usize),
        request: Request<'_>,
        parted: Parted,
    ) {
        let leaves: Vec<LeafIndex> = parted.parts.iter().map(|part| part.leaf).collect();
        let rule = match split {
            Split::Values => Rule::InOrder,
            Split::Count => Rule::Sum,
            Split::Pairs => Rule::First,
        };
        let asked = self.ask(LeafIndex::default(), command.row);
        let merge = self.merge(asked, rule, command, &leaves, parted.order);
        for (number, part) in parted.parts.into_iter().enumerate() {
            if command.spec.writes() {
                self.note_write(part.leaf);
            }
            let upstream = self.part_path(part.leaf);
            let ticket = Ticket::Part(Rc::clone(&merge), number);
            self.enqueue_ticket(&upstream, ticket, Patience::Timeout, |out| {
                encode::array(out, 1 + part.keys.len() * step);
                out.extend_from_slice(request.encoded(0));
                for key in part.keys {
                    for index in key..key + step {
                        out.extend_from_slice(request.encoded(index));
                    }
                }
            });
        }
    }

    /// Where a part goes: behind a barrier that was just set, on the bulk connection.
    fn part_path(&mut self, leaf: LeafIndex) -> Rc<RespUpstream> {
        if let Some(upstream) = self.held(leaf) {
            return upstream;
        }
        let forward = self.forward();
        if self.barrier {
            forward.leaf(leaf).shared(self.mode(), None)
        } else {
            self.path(leaf)
        }
    }

    fn merge(
        &self,
        asked: Asked,
        rule: Rule,
        command: &Command,
        leaves: &[LeafIndex],
        order: Vec<usize>,
    ) -> Rc<Merge> {
        let what = (command.spec.name, command.spec.writes());
        Merge::new(asked, rule, what, self.session.version, leaves, order)
    }

    pub(crate) fn scatter(
        &mut self,
        command: &Command,
        scatter: Scatter,
        request: Request<'_>,
    ) -> Step {
        let rule = match scatter {
            Scatter::Sum => Rule::Sum,
            Scatter::Join if self.is_marked() => Rule::JoinVisible,
            Scatter::Join => Rule::Join,
            Scatter::Flush | Scatter::First => Rule::First,
            Scatter::OneOf => Rule::OneOf,
            Scatter::AndEach => Rule::AndEach,
        };
        let convert = if command.spec.name == "script" {
            self.script_reply(request)
        } else {
            None
        };
        if scatter == Scatter::Flush {
            // A shared server's other databases are not ours: FLUSHALL goes out as FLUSHDB.
            let mut words: Vec<&[u8]> = vec![b"FLUSHDB"];
            words.extend(request.arguments().skip(1));
            let mut frame = Vec::new();
            encode::request(&mut frame, &words);
            self.send_to_all((command, scatter), (rule, convert), request, &frame);
        } else {
            self.send_to_all(
                (command, scatter),
                (rule, convert),
                request,
                request.frame(),
            );
        }
        Step::Done
    }

    /// Asks all shards how many keys they hold; `convert` makes the reply of the sum.
    pub(crate) fn count_keys(
        &mut self,
        command: &Command,
        request: Request<'_>,
        convert: Box<dyn Convert>,
    ) -> Step {
        let routes = Rc::clone(&self.service.routes);
        let Some(counts) = routes.find(b"dbsize") else {
            return Step::Done;
        };
        let counts = Command {
            row: command.row,
            ..*counts
        };
        let how = (Rule::Sum, Some(convert));
        self.send_to_all(
            (&counts, Scatter::Sum),
            how,
            request,
            b"*1\r\n$6\r\nDBSIZE\r\n",
        );
        Step::Done
    }

    fn send_to_all(
        &mut self,
        (command, scatter): (&Command, Scatter),
        (rule, convert): (Rule, Option<Box<dyn Convert>>),
        request: Request<'_>,
        frame: &[u8],
    ) {
        let forward = self.forward();
        let leaves = self.forward().holders();
        let asked = self.ask(LeafIndex::default(), command.row);
        let merge = self.merge(asked, rule, command, &leaves, Vec::new());
        if let Some(convert) = convert {
            merge.convert(convert);
        }
        for (part, leaf) in leaves.into_iter().enumerate() {
            if command.spec.writes() {
                self.note_write(leaf);
            }
            let upstream = self.held(leaf).unwrap_or_else(|| self.path(leaf));
            let ticket = Ticket::Part(Rc::clone(&merge), part);
            let database = self.session.database;
            let own = frame_for(&forward.leaf(leaf), database, scatter, command, request);
            self.enqueue_ticket(&upstream, ticket, Patience::Timeout, |out| {
                out.extend_from_slice(own.as_deref().unwrap_or(frame));
            });
        }
    }

    /// WAIT, on every shard the client has written to (on all, if it has written nothing): the
    /// smallest number of replicas counts. A PING before it makes the shard wait for everything
    /// written so far by anybody, which includes this client's writes on the shared connection.
    pub(crate) fn wait(&mut self, command: &Command, request: Request<'_>) -> Step {
        if self.client.in_flight() > 0 {
            return Step::Wait;
        }
        let mut leaves = self.forward().holders();
        let written = |leaf: &LeafIndex| self.wrote.get(leaf.get()).copied().unwrap_or(false);
        if leaves.iter().any(written) {
            leaves.retain(written);
        }
        let forward = self.forward();
        let mode = self.mode();
        let asked = self.ask(LeafIndex::default(), command.row);
        let merge = self.merge(asked, Rule::Min, command, &leaves, Vec::new());
        for (part, leaf) in leaves.into_iter().enumerate() {
            let known = forward.leaf(leaf);
            let lease = match known.lease(mode) {
                Ok(lease) => lease,
                Err(failure) => {
                    merge.fail(part, &failure);
                    continue;
                }
            };
            let upstream = Rc::clone(&lease.upstream);
            self.releasing.push(lease);
            self.enqueue_ticket(&upstream, Ticket::Ignored, Patience::Timeout, |out| {
                encode::request(out, &[b"PING"]);
            });
            let ticket = Ticket::Part(Rc::clone(&merge), part);
            self.enqueue_ticket(&upstream, ticket, Patience::Unbounded, |out| {
                out.extend_from_slice(request.frame());
            });
        }
        self.barrier = true;
        self.client.patient.set(true);
        Step::Done
    }

    /// SCRIPT and FUNCTION: what changes the libraries goes to all shards.
    pub(crate) fn library_command(&mut self, command: &Command, request: Request<'_>) -> Step {
        let subcommand = request.argument(1).to_ascii_lowercase();
        let scatter = match subcommand.as_slice() {
            b"load" | b"flush" | b"delete" | b"restore" => Scatter::First,
            b"exists" => Scatter::AndEach,
            _ => return self.forward_any(command, request),
        };
        self.scatter(command, scatter, request)
    }
}
