//! Commands over several shards: split by key, or sent to all.
//!
//! Invariant: every shard gets exactly one part, and the keys of a part stand in the request's
//! order, so the merged reply can be put together by order alone.

use std::rc::Rc;

use super::super::codec::request::Request;
use super::super::encode;
use super::dialogue::{RespDialogue, Step};
use super::forward::LARGE_REQUEST;
use super::leaf::RespUpstream;
use super::marked::frame_for;
use super::merge::{Merge, Rule};
use super::route::{Command, Scatter, Split};
use super::ticket::{Asked, Convert, Ticket};
use super::wire_error::wrong_arity;
use crate::pipeline::Patience;
use crate::topology::LeafIndex;

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
        let topology = &forward.store.topology;
        let first = topology.place(request.argument(1)).leaf;
        if command.spec.writes() {
            self.note_write(first);
        }
        if request.len() == 1 + step || forward.leaves.len() == 1 {
            return self.send(first, command.row, request);
        }
        let order: Vec<LeafIndex> = (1..request.len())
            .step_by(step)
            .map(|index| topology.place(request.argument(index)).leaf)
            .collect();
        if order.iter().all(|leaf| *leaf == first) {
            return self.send(first, command.row, request);
        }
        let large = request.frame().len() > LARGE_REQUEST && !self.on_bulk;
        if large && self.client.in_flight() > 0 {
            return Step::Wait;
        }
        self.barrier |= large;
        self.send_parts(command, split, step, request, order);
        Step::Done
    }

    fn send_parts(
        &mut self,
        command: &Command,
        split: Split,
        step: usize,
        request: Request<'_>,
        order: Vec<LeafIndex>,
    ) {
        let mut counts = vec![0_usize; self.forward().leaves.len()];
        for leaf in &order {
            if let Some(count) = counts.get_mut(leaf.get()) {
                *count += 1;
            }
        }
        let used: Vec<(LeafIndex, usize)> = counts
            .into_iter()
            .enumerate()
            .filter(|(_, count)| *count > 0)
            .filter_map(|(index, count)| Some((LeafIndex::new(index)?, count)))
            .collect();
        let leaves: Vec<LeafIndex> = used.iter().map(|(leaf, _)| *leaf).collect();
        let rule = match split {
            Split::Values => Rule::InOrder,
            Split::Count => Rule::Sum,
            Split::Pairs => Rule::First,
        };
        let asked = self.ask(LeafIndex::default(), command.row);
        let merge = self.merge(asked, rule, command, &leaves, order);
        for (part, (leaf, count)) in used.into_iter().enumerate() {
            if command.spec.writes() {
                self.note_write(leaf);
            }
            let upstream = self.part_path(leaf);
            let ticket = Ticket::Part(Rc::clone(&merge), part);
            let order = Rc::clone(&merge);
            self.enqueue_ticket(&upstream, ticket, Patience::Timeout, |out| {
                encode::array(out, 1 + count * step);
                out.extend_from_slice(request.encoded(0));
                for (key, home) in order.order().iter().enumerate() {
                    if *home == leaf {
                        for index in 0..step {
                            out.extend_from_slice(request.encoded(1 + key * step + index));
                        }
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
        order: Vec<LeafIndex>,
    ) -> Rc<Merge> {
        let what = (command.spec.name, command.spec.writes());
        Merge::new(asked, rule, what, self.session.version, leaves, order)
    }

    /// All leaves, in layout order.
    fn all_leaves(&self) -> Vec<LeafIndex> {
        (0..self.forward().leaves.len())
            .filter_map(LeafIndex::new)
            .collect()
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
        let leaves = self.all_leaves();
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
            let own = frame_for(forward.leaf(leaf), database, scatter, command, request);
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
        let mut leaves = self.all_leaves();
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
