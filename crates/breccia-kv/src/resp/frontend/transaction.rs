//! MULTI, EXEC, DISCARD, WATCH and UNWATCH on one shard.
//!
//! MULTI is answered here; the first key picks the shard. From then on, and from WATCH on, the
//! client holds a lease to that shard, and every command for it goes there.
//!
//! Invariant: a lease is never opened again (see `UpstreamOptions::fragile`), so a command of a
//! transaction that was lost can only fail, never run outside it. A lease outlives the reply to
//! WATCH only if something is watched on it; a watch that was lost fails the next EXEC.

use std::cell::Cell;
use std::rc::Rc;

use super::super::codec::request::Request;
use super::super::commands::Flags;
use super::super::encode;
use super::dialogue::{RespDialogue, Step};
use super::leaf::RespUpstream;
use super::metrics::Outcome;
use super::route::{Command, Route, Scatter, TransactionCommand};
use super::ticket::{Convert, Ticket};
use super::wire_error::{CROSSSLOT, EXECABORT, failure_text, not_offered};
use crate::pipeline::{Failure, Patience};
use crate::topology::LeafIndex;

/// Bytes of commands without a key that may wait for the transaction's first key.
const MAX_HELD_BYTES: usize = 64 * 1024;

/// Where one client's transaction stands.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    open: bool,
    spoiled: bool,
    /// Whether the shard has been told MULTI.
    begun: bool,
    /// The shard of the lease, while there is one.
    leaf: Option<LeafIndex>,
    /// What is watched on the lease.
    watch: Rc<Watch>,
    /// Whether what an earlier lease watched was lost with it: EXEC must not run.
    watch_lost: bool,
    /// How many commands were queued.
    count: i64,
    /// Commands without a key that came before the first key.
    held: Vec<Vec<u8>>,
    held_bytes: usize,
    /// The commands queued so far; only for portable listeners.
    pub(crate) queued: Vec<Vec<Vec<u8>>>,
    /// About how much memory they take.
    pub(crate) queued_bytes: usize,
}

impl Transaction {
    /// Whether MULTI was given and neither EXEC nor DISCARD.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// Begins a transaction; a WATCH before it stays.
    pub(crate) fn open(&mut self) {
        self.open = true;
    }

    /// Whether EXEC must refuse.
    pub(crate) fn is_spoiled(&self) -> bool {
        self.spoiled
    }

    /// The shard the client holds a lease to.
    pub(crate) fn leaf(&self) -> Option<LeafIndex> {
        self.leaf
    }

    /// How many commands are queued; −1 outside a transaction.
    pub(crate) fn queued_commands(&self) -> i64 {
        if self.open { self.count } else { -1 }
    }

    /// One command more is queued.
    pub(crate) fn note_queued(&mut self) {
        self.count += 1;
    }

    /// A command could not be queued: EXEC will refuse.
    pub(crate) fn spoil(&mut self) {
        self.spoiled |= self.open;
    }
}

/// What came of each WATCH on one lease.
#[derive(Debug, Default)]
struct Watch {
    /// Whether the shard has said yes to one.
    holds: Cell<bool>,
    /// Whether one got no reply: nobody knows what the connection holds.
    unanswered: Cell<bool>,
}

/// Notes what comes of one WATCH.
struct Watching(Rc<Watch>);

impl Convert for Watching {
    fn convert(&self, reply: &[u8]) -> Vec<u8> {
        if reply.first() != Some(&b'-') {
            self.0.holds.set(true);
        }
        reply.to_vec()
    }

    fn convert_failure(&self, _: &Failure) -> Option<Vec<u8>> {
        self.0.unanswered.set(true);
        None
    }
}

/// A reply that is replaced by a fixed one.
struct Fixed(Vec<u8>);

impl Convert for Fixed {
    fn convert(&self, _: &[u8]) -> Vec<u8> {
        self.0.clone()
    }

    fn convert_failure(&self, _: &Failure) -> Option<Vec<u8>> {
        Some(self.0.clone())
    }
}

impl RespDialogue {
    pub(crate) fn transact(
        &mut self,
        command: &Command,
        kind: TransactionCommand,
        request: Request<'_>,
    ) -> Step {
        match kind {
            TransactionCommand::Multi if self.transaction.open => {
                self.refuse(command.row, "ERR MULTI calls can not be nested");
                Step::Done
            }
            TransactionCommand::Multi => {
                self.transaction.open();
                self.reply(command.row, encode::ok);
                Step::Done
            }
            TransactionCommand::Exec => self.exec(command),
            TransactionCommand::Discard => self.discard(command),
            TransactionCommand::Watch => self.watch(command, request),
            TransactionCommand::Unwatch => self.unwatch(command, request),
        }
    }

    fn watch(&mut self, command: &Command, request: Request<'_>) -> Step {
        let Ok(home) = self.single_home(command, request) else {
            return Step::Done;
        };
        let leaf = home.unwrap_or_default();
        if self.lost_its_lease() {
            // No reason to refuse this one; but EXEC must not run as if nothing had been watched.
            self.end_watch();
            self.transaction.watch_lost = true;
        }
        if self.transaction.leaf.is_some_and(|held| held != leaf) {
            self.refuse(command.row, CROSSSLOT);
            return Step::Done;
        }
        match self.take_lease(leaf) {
            Ok(Some(upstream)) => {
                let watch = Rc::clone(&self.transaction.watch);
                let watching = Box::new(Watching(Rc::clone(&watch)));
                let ticket = Ticket::Converted(self.ask(leaf, command.row), watching);
                let sent = self.enqueue_ticket(&upstream, ticket, Patience::Timeout, |out| {
                    out.extend_from_slice(request.frame());
                });
                if !sent {
                    // It may be part of a pipeline that relies on it.
                    upstream.close();
                }
                // Until the first reply it is not known whether the lease is kept.
                self.barrier |= !watch.holds.get();
                Step::Done
            }
            Ok(None) => Step::Wait,
            Err(failure) => {
                self.ask(leaf, command.row).fail(&failure);
                Step::Done
            }
        }
    }

    /// Gives up a lease on which no WATCH has succeeded: as on one Redis, those that failed leave
    /// nothing behind. Everything this client asked for is answered.
    pub(crate) fn settle_watch(&mut self) {
        if !self.transaction.open && !self.transaction.watch.holds.get() {
            self.end_watch();
        }
    }

    /// Lets go of the lease that WATCH took, clean if nothing came to be watched on it.
    fn end_watch(&mut self) {
        self.transaction.leaf = None;
        let watch = std::mem::take(&mut self.transaction.watch);
        let clean = !watch.holds.get() && !watch.unanswered.get();
        if let Some(lease) = self.lease.take()
            && clean
        {
            lease.give_back();
        }
    }

    fn unwatch(&mut self, command: &Command, request: Request<'_>) -> Step {
        let former = std::mem::take(&mut self.transaction);
        let (Some(lease), Some(leaf)) = (self.lease.take(), former.leaf) else {
            self.reply(command.row, encode::ok);
            return Step::Done;
        };
        if lease.upstream.is_closed() {
            // The watched keys are forgotten with the connection, which is all UNWATCH asks for.
            self.reply(command.row, encode::ok);
            return Step::Done;
        }
        let upstream = Rc::clone(&lease.upstream);
        let sent = self.enqueue(
            &upstream,
            leaf,
            command.row,
            Patience::Timeout,
            request.frame(),
        );
        self.release(lease, sent);
        Step::Done
    }

    /// The client's lease to `leaf`, taken now if it has none. `None`: its earlier requests must
    /// be answered first.
    fn take_lease(&mut self, leaf: LeafIndex) -> Result<Option<Rc<RespUpstream>>, Failure> {
        if let Some(lease) = &self.lease {
            return Ok(Some(Rc::clone(&lease.upstream)));
        }
        if self.client.in_flight() > 0 {
            return Ok(None);
        }
        let forward = self.forward();
        let known = forward.leaf(leaf);
        let lease = known.lease(self.mode())?;
        let upstream = Rc::clone(&lease.upstream);
        self.lease = Some(lease);
        self.transaction.leaf = Some(leaf);
        Ok(Some(upstream))
    }

    /// Gives the lease back once everything on it is answered, if what ends the client's state on
    /// it is on its way; else it is closed now, and the state with it.
    fn release(&mut self, lease: super::leaf::Lease, clean: bool) {
        if clean {
            self.releasing.push(lease);
        }
        self.barrier = true;
    }

    /// A command between MULTI and EXEC.
    pub(crate) fn queue(&mut self, command: &Command, request: Request<'_>) -> Step {
        if let Some(why) = self.unqueueable(command) {
            self.transaction.spoil();
            self.refuse(command.row, &why);
            return Step::Done;
        }
        if self.is_portable() {
            return self.queue_portable(command, request);
        }
        if self.refuse_subcommand(command, request) {
            return Step::Done;
        }
        if let Some(why) = self.refused_option(command, request) {
            self.transaction.spoil();
            self.refuse(command.row, &why);
            return Step::Done;
        }
        // PUBLISH has no key: its message reaches all subscribers from any shard. That of SPUBLISH
        // is heard on the channel's own shard only.
        let home = match command.spec.name {
            "spublish" => Ok(Some(self.home_of_channel(request))),
            _ => self.single_home(command, request),
        };
        let Ok(leaf) = home else {
            self.transaction.spoil();
            return Step::Done;
        };
        let script = match command.route {
            Route::Script => {
                self.queued_script_frame(leaf.or(self.transaction.leaf), command, request)
            }
            _ => None,
        };
        self.queue_at(
            leaf,
            command.row,
            script.as_deref().unwrap_or(request.frame()),
        )
    }

    /// Queues a request whose keys lead to `leaf`, if it has any.
    pub(crate) fn queue_at(&mut self, leaf: Option<LeafIndex>, row: u16, frame: &[u8]) -> Step {
        match (leaf, self.transaction.leaf) {
            (Some(wanted), Some(held)) if wanted != held => {
                self.transaction.spoil();
                self.refuse(row, CROSSSLOT);
                Step::Done
            }
            (Some(leaf), _) | (None, Some(leaf)) => self.queue_on(leaf, row, frame),
            (None, None) => self.hold(row, frame),
        }
    }

    fn unqueueable(&self, command: &Command) -> Option<String> {
        let name = command.spec.name;
        if command.spec.flags.contains(Flags::NO_MULTI) {
            return Some("ERR Command not allowed inside a transaction".to_owned());
        }
        let sharded = !self.is_portable() && self.is_sharded();
        match command.route {
            Route::Scatter(Scatter::Flush) if name == "flushall" => Some(not_offered(
                name,
                "within MULTI it would empty other databases too",
            )),
            Route::Refused(why) => Some(not_offered(name, why)),
            Route::PubSub | Route::Session if !matches!(name, "ping" | "echo") => Some(
                not_offered(name, "it is answered by Breccia, and MULTI runs on a shard"),
            ),
            Route::Scatter(_) | Route::Scan if sharded => Some(not_offered(
                name,
                "within MULTI it would see one shard only",
            )),
            Route::Scatter(_) | Route::Scan if self.is_marked() => Some(not_offered(
                name,
                "within MULTI it would see this store's markers",
            )),
            Route::Same if sharded && matches!(name, "script" | "function") => Some(not_offered(
                name,
                "within MULTI it would reach one shard only",
            )),
            Route::Wait => Some(not_offered(name, "it cannot be part of a transaction")),
            Route::Subscription(_) => Some(not_offered(
                name,
                "subscriptions cannot be part of a transaction",
            )),
            _ => None,
        }
    }

    /// Keeps a command without a key until the first key picks the shard.
    fn hold(&mut self, row: u16, frame: &[u8]) -> Step {
        if self.transaction.held_bytes + frame.len() > MAX_HELD_BYTES {
            self.transaction.spoil();
            let text = "ERR breccia: too many commands without a key before the first key of MULTI";
            self.refuse(row, text);
            return Step::Done;
        }
        self.transaction.held_bytes += frame.len();
        self.transaction.held.push(frame.to_vec());
        self.transaction.note_queued();
        self.reply(row, |out| encode::simple(out, "QUEUED"));
        Step::Done
    }

    fn queue_on(&mut self, leaf: LeafIndex, row: u16, frame: &[u8]) -> Step {
        self.note_write(leaf);
        match self.begin(leaf) {
            Ok(Some(upstream)) => {
                self.transaction.note_queued();
                if !self.enqueue(&upstream, leaf, row, Patience::Timeout, frame) {
                    // The shard does not know of this command: EXEC must not run the others.
                    self.transaction.spoil();
                }
                Step::Done
            }
            Ok(None) => Step::Wait,
            Err(failure) => {
                self.transaction.spoil();
                self.ask(leaf, row).fail(&failure);
                Step::Done
            }
        }
    }

    /// Makes sure that the shard has been told MULTI and what was held.
    fn begin(&mut self, leaf: LeafIndex) -> Result<Option<Rc<RespUpstream>>, Failure> {
        let Some(upstream) = self.take_lease(leaf)? else {
            return Ok(None);
        };
        if !self.transaction.begun {
            self.transaction.begun = true;
            let held = std::mem::take(&mut self.transaction.held);
            let begun = Ticket::Begun(Rc::clone(&upstream));
            let mut sent = self.enqueue_ticket(&upstream, begun, Patience::Timeout, |out| {
                encode::request(out, &[b"MULTI"]);
            });
            for frame in &held {
                sent = sent && self.silently(&upstream, frame);
            }
            if !sent {
                // Whatever followed would run outside the transaction: the lease takes no more.
                upstream.close();
            }
        }
        Ok(Some(upstream))
    }

    fn silently(&self, upstream: &RespUpstream, frame: &[u8]) -> bool {
        self.enqueue_ticket(upstream, Ticket::Ignored, Patience::Timeout, |out| {
            out.extend_from_slice(frame);
        })
    }

    fn exec(&mut self, command: &Command) -> Step {
        if !self.transaction.open {
            self.refuse(command.row, "ERR EXEC without MULTI");
            return Step::Done;
        }
        if self.is_portable() {
            return self.exec_portable(command);
        }
        if self.transaction.spoiled {
            return self.abort(command, EXECABORT);
        }
        if self.transaction.watch_lost {
            // As if a watched key had changed: nobody knows that none has.
            let mut reply = Vec::new();
            encode::null_array(&mut reply, self.session.version);
            self.abandon(command, reply);
            return Step::Done;
        }
        let nothing = !self.transaction.begun && self.transaction.held.is_empty();
        if nothing && self.lease.is_none() {
            self.transaction = Transaction::default();
            self.reply(command.row, |out| encode::array(out, 0));
            return Step::Done;
        }
        let leaf = self.any_leaf();
        match self.begin(leaf) {
            Ok(None) => Step::Wait,
            Ok(Some(upstream)) => {
                if let Some(failure) = upstream.unreachable() {
                    let name = self.service.metrics.place_name(leaf).into_owned();
                    let why = failure_text(&failure, &name);
                    return self.abort(command, &format!("EXECABORT Transaction lost: {why}"));
                }
                let frame = b"*1\r\n$4\r\nEXEC\r\n";
                let sent = self.enqueue(&upstream, leaf, command.row, Patience::Timeout, frame);
                self.end_transaction(sent);
                Step::Done
            }
            Err(failure) => {
                self.ask(leaf, command.row).fail(&failure);
                self.end_transaction(false);
                Step::Done
            }
        }
    }

    /// Ends the transaction with an error.
    pub(crate) fn abort(&mut self, command: &Command, text: &str) -> Step {
        let mut reply = Vec::new();
        encode::error(&mut reply, text);
        self.abandon(command, reply);
        Step::Done
    }

    fn discard(&mut self, command: &Command) -> Step {
        if !self.transaction.open {
            self.refuse(command.row, "ERR DISCARD without MULTI");
            return Step::Done;
        }
        self.abandon(command, b"+OK\r\n".to_vec());
        Step::Done
    }

    /// Ends the transaction without running it; the shard forgets it (and what was watched) before
    /// the client gets its reply, so the lease is clean.
    fn abandon(&mut self, command: &Command, reply: Vec<u8>) {
        let clean: &[u8] = if self.transaction.begun {
            b"*1\r\n$7\r\nDISCARD\r\n"
        } else {
            b"*1\r\n$7\r\nUNWATCH\r\n"
        };
        let live = self
            .lease
            .as_ref()
            .filter(|lease| !lease.upstream.is_closed());
        let sent = if let Some(upstream) = live.map(|lease| Rc::clone(&lease.upstream)) {
            let leaf = self.transaction.leaf.unwrap_or_default();
            let asked = self.ask(leaf, command.row);
            let ticket = Ticket::Converted(asked, Box::new(Fixed(reply)));
            self.enqueue_ticket(&upstream, ticket, Patience::Timeout, |out| {
                out.extend_from_slice(clean);
            })
        } else {
            self.reply(command.row, |out| out.extend_from_slice(&reply));
            false
        };
        self.end_transaction(sent);
    }

    fn end_transaction(&mut self, clean: bool) {
        self.transaction = Transaction::default();
        if let Some(lease) = self.lease.take() {
            self.release(lease, clean);
        }
    }

    /// Whether the listener serves the portable set.
    pub(crate) fn is_portable(&self) -> bool {
        matches!(self.service.backend, super::service::Backend::Portable(_))
    }

    /// Counts a request that was answered outside the usual ways.
    pub(crate) fn count(&self, row: u16, outcome: Outcome) {
        self.service.metrics.count(row, outcome);
    }
}
