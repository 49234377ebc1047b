//! Sends requests to the leaf of their key, as the bytes they are, but for `noreply` and `q`.
//!
//! Invariant: after a request is queued nothing of it is kept here but its place in the ring.

use std::rc::Rc;

use super::super::codec::{Command, Request, RetrievalVerb, Shape};
use super::super::rewrite::{Quiet, flush_all, forward, retrieve, shape};
use super::commands::row;
use super::dialogue::{MemcachedDialogue, Step};
use super::gather::{Dealt, Gather, Rule};
use super::leaf::MemcachedUpstream;
use super::neighbours::{self, JOIN_WITHIN};
use super::service::{Backend, Forward};
use super::ticket::{Asked, Ticket};
use crate::pipeline::{Patience, Recipient};
use crate::topology::LeafIndex;

/// A request larger than this goes on the bulk connection, so that it holds up nobody else's.
pub(super) const LARGE_REQUEST_BYTES: usize = 64 * 1024;

impl MemcachedDialogue {
    /// Sends one request on its way to memcached servers.
    pub(super) fn forward(&mut self, request: &Request<'_>, frame: &[u8]) -> Step {
        let Backend::Forward(servers) = &self.service.backend else {
            return Step::Done;
        };
        let servers = Rc::clone(servers);
        if frame.len() > LARGE_REQUEST_BYTES && !self.on_bulk {
            if self.client.in_flight() > 0 {
                return Step::Wait;
            }
            self.large = true;
        }
        let place = |key: &[u8]| servers.topology.place(key).leaf;
        let leaf = match &request.command {
            Command::Retrieve {
                verb,
                exptime,
                keys,
            } => {
                if let Some(dealt) = Dealt::new(*verb, *keys, place) {
                    self.send_retrieval(&servers, *verb, *exptime, dealt, request);
                    return Step::Done;
                }
                let Some(first) = keys.iter().next() else {
                    self.answer(request, |out| out.extend_from_slice(b"END\r\n"));
                    return Step::Done;
                };
                let leaf = place(first);
                if keys.count() == 1 && !verb.touches() && !self.large {
                    return self.send_one_key(&servers, leaf, *verb, first, request);
                }
                leaf
            }
            Command::FlushAll { delay } => {
                self.send_flush(&servers, *delay, request);
                return Step::Done;
            }
            Command::Store { key, .. }
            | Command::Arithmetic { key, .. }
            | Command::Delete { key }
            | Command::Touch { key, .. } => place(key),
            Command::Meta(meta) => place(meta.key.bytes()),
            _ => return Step::Done,
        };
        let ticket = Ticket::Whole(self.ask(request), leaf);
        let upstream = self.path(&servers, leaf);
        self.enqueue(&upstream, ticket, request, |out| {
            forward(request, frame, out);
        });
        self.after_large();
        Step::Done
    }

    /// A client on the bulk connection goes back to its shared ones once it is answered.
    fn after_large(&mut self) {
        if std::mem::take(&mut self.large) {
            self.barrier = true;
        }
    }

    /// Takes the request's place in the client's order.
    pub(super) fn ask(&self, request: &Request<'_>) -> Asked {
        let sequence = self.client.reserve(false);
        if self.sampled() {
            self.client.begin_sample(sequence, self.now);
        }
        Asked {
            client: Rc::clone(&self.client),
            metrics: Rc::clone(&self.service.metrics),
            sequence,
            row: row(&request.command),
            quiet: Quiet::of(request),
            reads_bulk: Rc::clone(&self.reads_bulk),
        }
    }

    /// The client's connection to a leaf.
    fn path(&mut self, servers: &Forward, leaf: LeafIndex) -> Rc<MemcachedUpstream> {
        let known = servers.leaves.get(leaf.get());
        let server = known.expect("a topology places keys on its own leaves only");
        if self.large || self.on_bulk {
            return server.bulk();
        }
        if self.paths.len() < servers.leaves.len() {
            self.paths.resize(servers.leaves.len(), None);
        }
        let open = || server.shared(self.client.id);
        match self.paths.get_mut(leaf.get()) {
            Some(path) => Rc::clone(path.get_or_insert_with(open)),
            None => open(),
        }
    }

    fn enqueue(
        &self,
        upstream: &MemcachedUpstream,
        ticket: Ticket,
        request: &Request<'_>,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let shape = shape(&request.command).expect("only requests with a reply are sent");
        let expires = self.now + self.settings.limits.deadline;
        let queued = upstream.enqueue(ticket, shape, expires, Patience::Timeout, write);
        if let Err((ticket, failure)) = queued {
            ticket.fail(&failure);
        }
    }

    /// A `get` or `gets` of one key: as part of the one before it, if that has not left yet.
    fn send_one_key(
        &mut self,
        servers: &Forward,
        leaf: LeafIndex,
        verb: RetrievalVerb,
        key: &[u8],
        request: &Request<'_>,
    ) -> Step {
        let upstream = self.path(servers, leaf);
        let mut asked = Some((self.ask(request), leaf));
        let expires = self.now + self.settings.limits.deadline;
        let joined = upstream.unreachable().is_none()
            && upstream.widen(&Shape::Values, |ticket, first_expires, bytes, length| {
                let soon = first_expires <= expires && expires - first_expires <= JOIN_WITHIN;
                soon && neighbours::join(ticket, verb, (bytes, length), key, &mut asked)
            });
        if !joined && let Some((asked, leaf)) = asked {
            self.enqueue(&upstream, Ticket::Whole(asked, leaf), request, |out| {
                retrieve(verb, 0, std::iter::once(key), out);
            });
        }
        Step::Done
    }

    fn send_retrieval(
        &mut self,
        servers: &Forward,
        verb: RetrievalVerb,
        exptime: i32,
        dealt: Dealt,
        request: &Request<'_>,
    ) {
        let leaves = dealt.leaves.clone();
        let gather = Gather::new(self.ask(request), Rule::Values(dealt), &leaves);
        for (part, leaf) in leaves.into_iter().enumerate() {
            let upstream = self.path(servers, leaf);
            let ticket = Ticket::Part(Rc::clone(&gather), part);
            self.enqueue(&upstream, ticket, request, |out| {
                let Some(dealt) = gather.dealt() else { return };
                let keys = dealt
                    .keys()
                    .filter(|(_, home)| *home == part)
                    .map(|(key, _)| key);
                retrieve(verb, exptime, keys, out);
            });
        }
        self.after_large();
    }

    fn send_flush(&mut self, servers: &Forward, delay: i32, request: &Request<'_>) {
        let leaves: Vec<_> = (0..servers.leaves.len())
            .filter_map(LeafIndex::new)
            .collect();
        let gather = Gather::new(self.ask(request), Rule::Ok, &leaves);
        for (part, leaf) in leaves.into_iter().enumerate() {
            let upstream = self.path(servers, leaf);
            let ticket = Ticket::Part(Rc::clone(&gather), part);
            self.enqueue(&upstream, ticket, request, |out| flush_all(delay, out));
        }
    }
}
