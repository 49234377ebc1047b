//! Sends requests to the leaf of their key, as the bytes they are.
//!
//! Invariant: after a request is queued nothing of it is kept here but its place in the ring.

use std::rc::Rc;
use std::sync::Arc;

use super::super::codec::reply::Expected;
use super::super::codec::request::Request;
use super::super::commands::{Arguments, Flags, keys, pattern_option};
use super::super::encode::{self, RespVersion};
use super::clients::{Card, Waiting};
use super::dialogue::{RespDialogue, Step};
use super::leaf::{Mode, RespUpstream};
use super::marked::{RESERVED, is_any_reserved};
use super::metrics::UNKNOWN_ROW;
use super::redirect;
use super::route::{Command, DATABASES};
use super::service::{Backend, Forward};
use super::settings::{ModuleCommand, MultiKey};
use super::ticket::{Asked, Convert, Ticket};
use super::wire_error::{CROSSSLOT, not_offered};
use crate::pipeline::{Failure, Patience, Recipient};
use crate::topology::LeafIndex;

/// A request larger than this goes on the bulk connection, so that it holds up nobody else's.
pub(crate) const LARGE_REQUEST: usize = 64 * 1024;

impl Arguments for Request<'_> {
    fn count(&self) -> usize {
        self.len()
    }

    fn argument(&self, index: usize) -> Option<&[u8]> {
        (index < self.len()).then(|| Request::argument(self, index))
    }
}

/// A client that is blocked until its reply comes.
struct Waits(Arc<Card>);

impl Convert for Waits {
    fn convert(&self, reply: &[u8]) -> Vec<u8> {
        self.0.set_waiting(None);
        reply.to_vec()
    }

    fn convert_failure(&self, _: &Failure) -> Option<Vec<u8>> {
        self.0.set_waiting(None);
        None
    }

    fn lets_pass(&self) -> bool {
        self.0.set_waiting(None);
        true
    }
}

/// The request was answered with an error.
pub(crate) struct Answered;

/// Where the keys of one request lead.
pub(crate) enum Home {
    /// It has no keys.
    Nowhere,
    /// All its keys are on one leaf.
    Leaf(LeafIndex),
    /// Its keys are on several leaves.
    Apart,
    /// Its keys share a leaf, but no slot, and the store demands a slot.
    ApartInSlots,
}

impl RespDialogue {
    /// The forwarding side; only called where the backend forwards.
    pub(crate) fn forward(&self) -> Rc<Forward> {
        match &self.service.backend {
            Backend::Forward(forward) => Rc::clone(forward),
            Backend::Portable(_) => unreachable!("portable listeners never route to forwarding"),
        }
    }

    pub(crate) fn forward_one(
        &mut self,
        command: &Command,
        request: Request<'_>,
        index: usize,
    ) -> Step {
        let Backend::Forward(forward) = &self.service.backend else {
            return Step::Done;
        };
        let leaf = forward.place(request.argument(index)).leaf;
        if command.spec.writes() {
            self.note_write(leaf);
        } else if self.clustered && self.ask_replica(leaf, command, request) {
            return Step::Done;
        }
        self.send(leaf, command.row, request)
    }

    /// Asks a replica, if replicas of the leaf are read and the command may be asked of one.
    fn ask_replica(&mut self, leaf: LeafIndex, command: &Command, request: Request<'_>) -> bool {
        let forward = self.forward();
        let reads = command.spec.flags.contains(Flags::READONLY);
        if !reads || self.on_bulk || self.held(leaf).is_some() {
            return false;
        }
        let Some((replica, readonly)) = forward.fleet.reader(leaf, self.client.id) else {
            return false;
        };
        let mode = Mode {
            readonly,
            ..self.mode()
        };
        let way = (mode, Some(self.client.id));
        let upstream = forward.leaf(replica).shared(mode, way.1);
        let ticket = Ticket::Reply(self.ask(replica, command.row));
        let expires = self.now + self.settings.limits.deadline;
        let frame = request.frame();
        redirect::enqueue(
            &forward,
            &upstream,
            (ticket, replica, way, None),
            Some(leaf),
            (expires, Patience::Timeout),
            |out| out.extend_from_slice(frame),
        );
        true
    }

    /// Remembers that the client has written to a shard.
    pub(crate) fn note_write(&mut self, leaf: LeafIndex) {
        if let Some(wrote) = self.wrote.get_mut(leaf.get()) {
            *wrote = true;
        } else {
            self.wrote.resize(leaf.get() + 1, false);
            if let Some(wrote) = self.wrote.last_mut() {
                *wrote = true;
            }
        }
    }

    /// Queues a request for a leaf: on the client's lease if it has one there, on the bulk
    /// connection if it is large, else on the shared connection.
    pub(crate) fn send(&mut self, leaf: LeafIndex, row: u16, request: Request<'_>) -> Step {
        let frame = request.frame();
        if let Some(upstream) = self.held(leaf) {
            self.enqueue(&upstream, leaf, row, Patience::Timeout, frame);
            return Step::Done;
        }
        if frame.len() > LARGE_REQUEST && !self.on_bulk {
            return self.send_large(leaf, row, frame);
        }
        let upstream = self.path(leaf);
        self.enqueue(&upstream, leaf, row, Patience::Timeout, frame);
        Step::Done
    }

    /// The connection of the client's lease, if it is to this leaf.
    pub(crate) fn held(&self, leaf: LeafIndex) -> Option<Rc<RespUpstream>> {
        let lease = self.lease.as_ref().filter(|_| !self.lost_its_lease())?;
        (self.transaction.leaf() == Some(leaf)).then(|| Rc::clone(&lease.upstream))
    }

    /// Whether the client's WATCH was lost outside MULTI. Plain commands go on without it; EXEC
    /// still fails.
    pub(crate) fn lost_its_lease(&self) -> bool {
        let closed = self
            .lease
            .as_ref()
            .is_some_and(|lease| lease.upstream.is_closed());
        closed && !self.transaction.is_open()
    }

    /// The client's connection to a leaf, outside leases.
    pub(crate) fn path(&mut self, leaf: LeafIndex) -> Rc<RespUpstream> {
        if let Some(Some(upstream)) = self.paths.get(leaf.get()) {
            return Rc::clone(upstream);
        }
        let forward = self.forward();
        self.paths.resize(forward.count(), None);
        let upstream = if self.on_bulk {
            self.own_path(leaf)
        } else {
            forward.leaf(leaf).shared(self.mode(), Some(self.client.id))
        };
        if let Some(place) = self.paths.get_mut(leaf.get()) {
            *place = Some(Rc::clone(&upstream));
        }
        upstream
    }

    /// Reserves the client's next place for a request to `leaf`.
    pub(crate) fn ask(&mut self, leaf: LeafIndex, row: u16) -> Asked {
        let sequence = self.client.reserve(self.session.next_is_muted());
        if self.sampled() {
            self.client.begin_sample(sequence, self.now);
        }
        Asked {
            client: Rc::clone(&self.client),
            metrics: Rc::clone(&self.service.metrics),
            sequence,
            row,
            leaf,
        }
    }

    pub(crate) fn enqueue(
        &mut self,
        upstream: &RespUpstream,
        leaf: LeafIndex,
        row: u16,
        patience: Patience,
        frame: &[u8],
    ) -> bool {
        let ticket = Ticket::Reply(self.ask(leaf, row));
        self.enqueue_ticket(upstream, ticket, patience, |out| {
            out.extend_from_slice(frame);
        })
    }

    /// Queues a request that may wait; the client is shown as blocked until it is answered. The
    /// first time on a connection its number is asked for as well, so that CLIENT UNBLOCK can name it.
    fn enqueue_blocking(
        &mut self,
        upstream: &RespUpstream,
        leaf: LeafIndex,
        row: u16,
        frame: &[u8],
    ) {
        let number = Arc::clone(&upstream.memory().borrow().number);
        if number.is_wanted() {
            let ticket = Ticket::Numbered(Arc::clone(&number));
            self.enqueue_ticket(upstream, ticket, Patience::Timeout, |out| {
                encode::request(out, &[b"CLIENT", b"ID"]);
            });
        }
        let endpoint = Arc::clone(&self.forward().leaf(leaf).spec.endpoint);
        self.client.blocked.set(true);
        self.card.set_waiting(Some(Waiting {
            moved: endpoint.current().moved,
            endpoint,
            number,
        }));
        let waits = Box::new(Waits(Arc::clone(&self.card)));
        let ticket = Ticket::Converted(self.ask(leaf, row), waits);
        self.enqueue_ticket(upstream, ticket, Patience::Unbounded, |out| {
            out.extend_from_slice(frame);
        });
    }

    /// Queues bytes. A refusal is answered through the ticket, and told by `false`.
    pub(crate) fn enqueue_ticket(
        &self,
        upstream: &RespUpstream,
        ticket: Ticket,
        patience: Patience,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let expires = self.now + self.settings.limits.deadline;
        if self.clustered
            && let Some(leaf) = ticket.leaf()
            && let Backend::Forward(forward) = &self.service.backend
            && forward.fleet.has(leaf)
        {
            let whose = (self.mode(), (!self.on_bulk).then_some(self.client.id));
            // Alone on its lease: within WATCH the connection carries more than this request.
            let alone = patience == Patience::Unbounded
                && self.lease.is_none()
                && matches!(ticket, Ticket::Converted(..));
            let blocks = alone.then_some(self.settings.limits.deadline);
            return redirect::enqueue(
                forward,
                upstream,
                (ticket, leaf, whose, blocks),
                None,
                (expires, patience),
                write,
            );
        }
        match upstream.enqueue(ticket, Expected::One, expires, patience, write) {
            Ok(()) => true,
            Err((ticket, failure)) => {
                ticket.fail(&failure);
                false
            }
        }
    }

    /// Queues one large request on the worker's bulk connection, between this client's requests on
    /// shared ones: it must be alone, so that its client's order is kept.
    pub(crate) fn send_large(&mut self, leaf: LeafIndex, row: u16, frame: &[u8]) -> Step {
        if self.client.in_flight() > 0 {
            return Step::Wait;
        }
        let forward = self.forward();
        let known = forward.leaf(leaf);
        let upstream = known.shared(self.mode(), None);
        self.enqueue(&upstream, leaf, row, Patience::Timeout, frame);
        self.barrier = true;
        Step::Done
    }

    /// Queues one blocking request on a lease of its own, after everything before it is answered.
    fn send_leased(&mut self, leaf: LeafIndex, row: u16, frame: &[u8]) -> Step {
        if self.client.in_flight() > 0 {
            return Step::Wait;
        }
        let forward = self.forward();
        let known = forward.leaf(leaf);
        match known.lease(self.mode()) {
            Ok(lease) => {
                let upstream = Rc::clone(&lease.upstream);
                self.releasing.push(lease);
                self.barrier = true;
                self.client.patient.set(true);
                self.enqueue_blocking(&upstream, leaf, row, frame);
            }
            Err(failure) => self.ask(leaf, row).fail(&failure),
        }
        Step::Done
    }

    /// Where the request's keys lead; `self.keys` holds their positions afterwards.
    pub(crate) fn home(&mut self, command: &Command, request: Request<'_>) -> Home {
        let mut found = std::mem::take(&mut self.keys);
        // Where the keys cannot be told, the server refuses the request too: any shard may say so.
        let known = keys(command.spec, &request, &mut found).is_ok();
        let home = if known {
            self.home_of(&found, request)
        } else {
            Home::Nowhere
        };
        self.keys = found;
        home
    }

    pub(crate) fn home_of(&mut self, positions: &[usize], request: Request<'_>) -> Home {
        let forward = self.forward();
        let mut places = positions
            .iter()
            .map(|index| forward.place(Request::argument(&request, *index)));
        let Some(first) = places.next() else {
            return Home::Nowhere;
        };
        let mut same_slot = true;
        for place in places {
            if place.leaf != first.leaf || place.bound != first.bound {
                return Home::Apart;
            }
            same_slot &= place.slot == first.slot;
        }
        if !same_slot {
            if forward.store.multi_key == MultiKey::Slot {
                return Home::ApartInSlots;
            }
            self.service.metrics.same_shard_only();
            self.service
                .warn_same_shard_once(Request::argument(&request, 0));
        }
        Home::Leaf(first.leaf)
    }

    /// The leaf for a request whose keys must stay together, if it has keys.
    pub(crate) fn single_home(
        &mut self,
        command: &Command,
        request: Request<'_>,
    ) -> Result<Option<LeafIndex>, Answered> {
        if self.is_sharded()
            && let Some(option) = pattern_option(command.spec, &request)
        {
            let text =
                format!("ERR {option} option of SORT denied: it reaches keys of other shards");
            self.refuse(command.row, &text);
            return Err(Answered);
        }
        match self.home(command, request) {
            Home::Nowhere => Ok(None),
            Home::Leaf(leaf) => Ok(Some(leaf)),
            Home::Apart => {
                self.refuse(command.row, CROSSSLOT);
                Err(Answered)
            }
            Home::ApartInSlots => {
                self.refuse(
                    command.row,
                    "CROSSSLOT Keys in request don't hash to the same slot (multi-key = \"slot\")",
                );
                Err(Answered)
            }
        }
    }

    /// Whether there is more than one leaf.
    pub(crate) fn is_sharded(&self) -> bool {
        self.forward().is_sharded()
    }

    pub(crate) fn forward_same(&mut self, command: &Command, request: Request<'_>) -> Step {
        if self.refuse_subcommand(command, request) {
            return Step::Done;
        }
        if let Some(refusal) = self.refused_option(command, request) {
            self.refuse(command.row, &refusal);
            return Step::Done;
        }
        if matches!(command.spec.name, "script" | "function") {
            return self.library_command(command, request);
        }
        match self.single_home(command, request) {
            Err(Answered) => Step::Done,
            Ok(Some(leaf)) => {
                self.note_write(leaf);
                self.send(leaf, command.row, request)
            }
            Ok(None) => self.forward_any(command, request),
        }
    }

    /// Options that would reach what is not this store's, or only one of its servers.
    pub(crate) fn refused_option(&self, command: &Command, request: Request<'_>) -> Option<String> {
        match command.spec.name {
            "copy" if self.is_sharded() => request
                .arguments()
                .skip(3)
                .any(|word| word.eq_ignore_ascii_case(b"db"))
                .then(|| not_offered("copy … db", DATABASES)),
            _ => None,
        }
    }

    pub(crate) fn forward_blocking(&mut self, command: &Command, request: Request<'_>) -> Step {
        match self.single_home(command, request) {
            Err(Answered) => Step::Done,
            Ok(home) => {
                let leaf = home.unwrap_or_else(|| self.any_leaf());
                self.send_blocking(leaf, command.row, request)
            }
        }
    }

    fn send_blocking(&mut self, leaf: LeafIndex, row: u16, request: Request<'_>) -> Step {
        self.note_write(leaf);
        let Some(upstream) = self.held(leaf) else {
            return self.send_leased(leaf, row, request.frame());
        };
        self.enqueue_blocking(&upstream, leaf, row, request.frame());
        self.client.patient.set(true);
        self.barrier = true;
        Step::Done
    }

    pub(crate) fn forward_stream_read(&mut self, command: &Command, request: Request<'_>) -> Step {
        // Wherever the word stands: a group may be called "streams", and a lease too many costs
        // little.
        let blocks = request
            .arguments()
            .any(|word| word.eq_ignore_ascii_case(b"block"));
        if blocks {
            self.forward_blocking(command, request)
        } else {
            self.forward_same(command, request)
        }
    }

    /// To a leaf that is up, if there is one: any can answer.
    pub(crate) fn forward_any(&mut self, command: &Command, request: Request<'_>) -> Step {
        let leaf = self.any_leaf();
        self.send(leaf, command.row, request)
    }

    pub(crate) fn any_leaf(&self) -> LeafIndex {
        if let Some(leaf) = self.transaction.leaf()
            && !self.lost_its_lease()
        {
            return leaf;
        }
        let forward = self.forward();
        let holders = forward.holders();
        let up = holders
            .iter()
            .find(|leaf| forward.leaf(**leaf).spec.is_up());
        up.or(holders.first()).copied().unwrap_or_default()
    }

    pub(crate) fn home_of_channel(&self, request: Request<'_>) -> LeafIndex {
        self.forward().place(request.argument(1)).leaf
    }

    /// A command of a module that the configuration describes.
    pub(crate) fn forward_module(&mut self, request: Request<'_>) -> Option<Step> {
        let Backend::Forward(forward) = &self.service.backend else {
            return None;
        };
        if forward.store.modules.is_empty() || !self.session.authenticated {
            return None;
        }
        let name = String::from_utf8(request.argument(0).to_ascii_lowercase()).ok()?;
        let module = *forward.store.modules.get(&name)?;
        if self.subscriptions.count() > 0 && self.session.version == RespVersion::V2 {
            return Some(self.refuse_while_subscribed(UNKNOWN_ROW, &name));
        }
        let mut positions = std::mem::take(&mut self.keys);
        module_keys(module, request.len(), &mut positions);
        let reserved = self.is_marked() && is_any_reserved(&positions, request);
        let home = self.home_of(&positions, request);
        self.keys = positions;
        if reserved {
            self.transaction.spoil();
            self.refuse(UNKNOWN_ROW, RESERVED);
            return Some(Step::Done);
        }
        let leaf = match home {
            Home::Nowhere => None,
            Home::Leaf(leaf) => Some(leaf),
            Home::Apart | Home::ApartInSlots => {
                self.transaction.spoil();
                self.refuse(UNKNOWN_ROW, CROSSSLOT);
                return Some(Step::Done);
            }
        };
        if self.transaction.is_open() {
            return Some(self.queue_at(leaf, UNKNOWN_ROW, request.frame()));
        }
        let leaf = leaf.unwrap_or_else(|| self.any_leaf());
        if module.write {
            self.note_write(leaf);
        }
        Some(self.send(leaf, UNKNOWN_ROW, request))
    }
}

fn module_keys(module: ModuleCommand, count: usize, positions: &mut Vec<usize>) {
    positions.clear();
    if module.first_key == 0 {
        return;
    }
    let last = if module.last_key < 0 {
        let back = usize::try_from(module.last_key.unsigned_abs()).unwrap_or(usize::MAX);
        count.saturating_sub(back)
    } else {
        usize::try_from(module.last_key)
            .unwrap_or(usize::MAX)
            .min(count.saturating_sub(1))
    };
    positions.extend((module.first_key..=last).step_by(module.step.max(1)));
}
