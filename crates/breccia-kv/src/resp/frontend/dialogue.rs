//! One client's conversation: takes its requests in order and sends each on its way.
//!
//! Invariant: while `barrier` is set nothing is dispatched until every earlier request of this
//! client is answered. That is what keeps a client's order between shared connections and leases.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;
use std::time::Instant;

use breccia_net::clock;

use super::super::codec::request::{ProtocolError, Request, RequestLimits, RequestParser};
use super::super::commands::Flags;
use super::super::encode;
use super::clients::{Card, Doings};
use super::large::{Beginning, Going, Large};
use super::leaf::{Lease, Mode, RespUpstream};
use super::marked::RESERVED;
use super::metrics::{Outcome, UNKNOWN_ROW};
use super::own::OwnPath;
use super::pubsub::Subscriptions;
use super::route::{Command, Route, TransactionCommand, refused_subcommand};
use super::service::{Backend, RespService};
use super::session::{Session, SessionAction};
use super::settings::ListenerSettings;
use super::transaction::Transaction;
use super::wire_error::{self, NOAUTH, full_name};
use crate::front::browser::{is_web_request, warn_of_browser};
use crate::front::client::Client;
use crate::front::connection::{Consumed, Dialogue, Next, REQUESTS_PER_TURN};
use crate::front::limits::ListenerLimits;
use crate::front::work::Work;

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is on its way or answered.
    Done,
    /// It must be offered again when the client's earlier requests are answered.
    Wait,
    /// It was the last one.
    Close,
}

/// One client's conversation. See the module's page.
pub(crate) struct RespDialogue {
    pub(crate) service: Rc<RespService>,
    pub(crate) client: Rc<Client>,
    pub(crate) settings: Arc<ListenerSettings>,
    pub(crate) session: Session,
    pub(crate) transaction: Transaction,
    pub(crate) subscriptions: Subscriptions,
    /// The exclusive connection that holds this client's WATCH or MULTI.
    pub(crate) lease: Option<Lease>,
    /// Connections to give back once everything on them is answered.
    pub(crate) releasing: Vec<Lease>,
    /// The shared connection to each leaf, opened when first used.
    pub(crate) paths: Vec<Option<Rc<RespUpstream>>>,
    /// Shards this client has written to since it connected, by leaf; WAIT asks them.
    pub(crate) wrote: Vec<bool>,
    pub(crate) barrier: bool,
    /// What others see of the client.
    pub(crate) card: Arc<Card>,
    /// The row of the last command.
    last_row: u16,
    /// Whether some member is a cluster.
    pub(crate) clustered: bool,
    /// The state of the clusters' slots that the client's requests in flight were sent by.
    seen_slots: u64,
    /// Whether the client reads through other connections than those all share, as far as it can
    /// through its own (see `Client::reads_large`).
    pub(crate) on_bulk: bool,
    pub(crate) own: Vec<OwnPath>,
    /// How often a shared connection of this worker was retired.
    pub(crate) retirements: Rc<Cell<u64>>,
    pub(crate) seen_retirements: u64,
    /// The request that is passed on as it comes, if one is.
    pub(crate) large: Large,
    pub(crate) work: Work,
    /// Positions of keys; kept so that it is allocated once.
    pub(crate) keys: Vec<usize>,
    pub(crate) now: Instant,
    parser: RequestParser,
    samples: Cell<u32>,
}

/// One request in this many has its duration measured.
const SAMPLE_EVERY: u32 = 32;

impl RespDialogue {
    pub(crate) fn new(
        service: Rc<RespService>,
        client: Rc<Client>,
        settings: Arc<ListenerSettings>,
        card: Arc<Card>,
        trusted: bool,
    ) -> Self {
        let retirements = Rc::clone(&service.retirements);
        let clustered = match &service.backend {
            Backend::Forward(forward) => !forward.fleet.is_empty(),
            Backend::Portable(_) => false,
        };
        Self {
            own: Vec::new(),
            seen_retirements: retirements.get(),
            retirements,
            service,
            client,
            settings,
            session: Session::new(trusted),
            transaction: Transaction::default(),
            subscriptions: Subscriptions::default(),
            lease: None,
            releasing: Vec::new(),
            paths: Vec::new(),
            wrote: Vec::new(),
            barrier: false,
            card,
            last_row: UNKNOWN_ROW,
            clustered,
            seen_slots: 0,
            on_bulk: false,
            large: Large::default(),
            work: Work::default(),
            keys: Vec::new(),
            now: clock::now(),
            parser: RequestParser::default(),
            samples: Cell::new(0),
        }
    }

    /// The version and database of the client's upstream connections.
    pub(crate) fn mode(&self) -> Mode {
        Mode {
            version: self.session.version,
            database: self.session.database,
            readonly: false,
        }
    }

    /// Whether the next request may be dispatched.
    fn may_dispatch(&mut self) -> bool {
        if self.work.is_busy() || (self.clustered && !self.follows_slots()) {
            return false;
        }
        let changes = self.must_change_paths();
        if self.barrier || changes {
            if self.client.in_flight() > 0 {
                return false;
            }
            self.barrier = false;
            self.client.blocked.set(false);
            if changes {
                self.change_paths();
            }
            self.client.patient.set(self.subscriptions.count() > 0);
            self.settle_watch();
            for lease in self.releasing.drain(..) {
                lease.give_back();
            }
        }
        self.client.may_ask(&self.settings.limits)
    }

    /// Takes over where the slots of clusters lie now. Whether nothing more may overtake what was
    /// sent by a former state of them, or is on its way to another server.
    fn follows_slots(&mut self) -> bool {
        let Backend::Forward(forward) = &self.service.backend else {
            return true;
        };
        let slots = forward.fleet.renew();
        if (slots != self.seen_slots || self.client.redirected.get()) && self.client.in_flight() > 0
        {
            return false;
        }
        self.seen_slots = slots;
        self.client.redirected.set(false);
        true
    }

    /// Takes over what a reload has changed. Who is logged in stays so.
    fn renew_settings(&mut self) {
        if let Some(settings) = self.service.clients.newer_than(&self.settings) {
            self.settings = settings;
        }
    }

    pub(crate) fn request_limits(&self) -> RequestLimits {
        if !self.session.authenticated {
            return RequestLimits::UNAUTHENTICATED;
        }
        RequestLimits {
            max_request_size: self.settings.limits.max_request_size,
            max_arguments: self.settings.limits.max_arguments,
        }
    }

    fn protocol_error(&mut self, error: ProtocolError) {
        match error {
            ProtocolError::ManyArguments { .. } => self.service.metrics.limit_hit("max-arguments"),
            ProtocolError::LargeRequest { .. } => {
                self.service.metrics.limit_hit("max-request-size");
            }
            _ => {}
        }
        self.refuse(UNKNOWN_ROW, format!("ERR {error}"));
    }

    fn dispatch(&mut self, request: Request<'_>) -> Step {
        let Some(first) = request.arguments().next() else {
            return Step::Done;
        };
        let routes = Rc::clone(&self.service.routes);
        let Some(command) = routes.find(first) else {
            return self.unknown(request);
        };
        let row = command.row;
        self.last_row = row;
        let settles =
            self.lost_its_lease() || (command.spec.name == "reset" && self.lease.is_some());
        if settles && self.client.in_flight() > 0 {
            // What was sent on the lease is answered first: order, and no reply is cut off.
            return Step::Wait;
        }
        if let Some(text) = wire_error::malformed(command.spec, request) {
            return self.reject(command, &text);
        }
        if !self.session.authenticated && !command.spec.flags.contains(Flags::NO_AUTH) {
            return self.reject(command, NOAUTH.as_bytes());
        }
        if self.subscriptions.count() > 0 && !self.may_while_subscribed(command) {
            let name = full_name(command.spec, request);
            return self.refuse_while_subscribed(row, &name);
        }
        if self.is_marked() && self.touches_marker(command, request) {
            self.transaction.spoil();
            self.refuse(row, RESERVED);
            return Step::Done;
        }
        if self.transaction.is_open() {
            match command.route {
                Route::Transaction(
                    TransactionCommand::Multi
                    | TransactionCommand::Exec
                    | TransactionCommand::Discard,
                ) => {}
                _ if matches!(command.spec.name, "quit" | "reset") => {}
                _ => return self.queue(command, request),
            }
        }
        self.route(command, request)
    }

    pub(crate) fn refuse_while_subscribed(&mut self, row: u16, name: &str) -> Step {
        let text = format!(
            "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT \
             / RESET are allowed in this context"
        );
        self.refuse(row, &text);
        Step::Done
    }

    /// Refuses a request before it is looked at any further. It spoils a transaction; a refused
    /// EXEC ends one, as in Redis.
    fn reject(&mut self, command: &Command, text: &[u8]) -> Step {
        if command.spec.name == "exec" {
            let why = String::from_utf8_lossy(text.strip_prefix(b"ERR ").unwrap_or(text));
            let text = format!("EXECABORT Transaction discarded because of: {why}");
            return self.abort(command, &text);
        }
        self.transaction.spoil();
        self.refuse(command.row, text);
        Step::Done
    }

    fn route(&mut self, command: &Command, request: Request<'_>) -> Step {
        let Backend::Forward(_) = &self.service.backend else {
            return self.route_portable(command, request);
        };
        match command.route {
            Route::One(index) => self.forward_one(command, request, index),
            Route::Same => self.forward_same(command, request),
            Route::Script => self.forward_script(command, request),
            Route::Split(split) => self.forward_split(command, split, request),
            Route::Blocking => self.forward_blocking(command, request),
            Route::StreamRead => self.forward_stream_read(command, request),
            Route::Scatter(scatter) => self.scatter(command, scatter, request),
            Route::Scan => self.scan(command, request),
            Route::Publish => self.publish(command, request),
            Route::PubSub => self.pubsub(command, request),
            Route::Any => self.forward_any(command, request),
            Route::Wait => self.wait(command, request),
            Route::Subscription(kind) => self.subscribe(command, kind, request),
            Route::Transaction(kind) => self.transact(command, kind, request),
            Route::Session => self.session_command(command, request),
            Route::Refused(why) => {
                self.refuse(command.row, wire_error::not_offered(command.spec.name, why));
                Step::Done
            }
        }
    }

    /// Refuses a subcommand that is not offered; whether it was one.
    pub(crate) fn refuse_subcommand(&mut self, command: &Command, request: Request<'_>) -> bool {
        let Some(why) = refused_subcommand(command.spec.name, request.argument(1)) else {
            return false;
        };
        let name = full_name(command.spec, request).replace('|', " ");
        self.transaction.spoil();
        self.refuse(command.row, wire_error::not_offered(&name, why));
        true
    }

    pub(crate) fn session_command(&mut self, command: &Command, request: Request<'_>) -> Step {
        if self.refuse_subcommand(command, request) {
            return Step::Done;
        }
        match self.answer_session(command, request) {
            SessionAction::Done => Step::Done,
            SessionAction::Close => Step::Close,
            SessionAction::Forward => self.forward_any(command, request),
            SessionAction::Count(convert) => self.count_keys(command, request, convert),
            SessionAction::Reset => {
                self.reset();
                Step::Done
            }
        }
    }

    fn may_while_subscribed(&self, command: &Command) -> bool {
        self.session.version == encode::RespVersion::V3
            || matches!(command.route, Route::Subscription(_))
            || matches!(command.spec.name, "ping" | "quit" | "reset")
    }

    fn unknown(&mut self, request: Request<'_>) -> Step {
        if let Some(step) = self.forward_module(request) {
            return step;
        }
        if is_web_request(request.argument(0)) {
            warn_of_browser(&self.service.listener.name, &self.client);
            return Step::Close;
        }
        self.transaction.spoil();
        let text = wire_error::unknown_command(request.argument(0), request.arguments().skip(1));
        let muted = self.session.next_is_muted();
        self.client
            .answer(muted, |out| encode::error_bytes(out, &text));
        self.service.metrics.count(UNKNOWN_ROW, Outcome::Error);
        Step::Done
    }

    /// Answers with an error made here.
    pub(crate) fn refuse(&mut self, row: u16, text: impl AsRef<[u8]>) {
        let muted = self.session.next_is_muted();
        self.client
            .answer(muted, |out| encode::error_bytes(out, text.as_ref()));
        self.service.metrics.count(row, Outcome::Error);
    }

    /// Answers with a reply made here.
    pub(crate) fn reply(&mut self, row: u16, write: impl FnOnce(&mut Vec<u8>)) {
        let muted = self.session.next_is_muted();
        self.client.answer(muted, write);
        self.service.metrics.count(row, Outcome::Answered);
    }

    /// Lets the listener's list show what the client does; once a turn.
    pub(crate) fn note_doings(&self, row: u16) {
        let doings = Doings {
            row,
            database: self.session.database,
            version: self.session.version.number(),
            subscriptions: self.subscriptions.counts(),
            queued: self.transaction.queued_commands(),
        };
        self.card.note(self.now, doings);
    }

    /// Whether this request's duration is measured.
    pub(crate) fn sampled(&self) -> bool {
        let count = self.samples.get().wrapping_add(1);
        self.samples.set(count);
        count.is_multiple_of(SAMPLE_EVERY)
    }

    fn reset(&mut self) {
        self.lease = None;
        self.releasing.clear();
        self.paths.clear();
        self.transaction = Transaction::default();
        self.unsubscribe_all();
        self.session = Session::new(self.settings.users.is_empty());
        self.show_names();
        self.client.patient.set(false);
        self.barrier = true;
    }
}

impl Dialogue for RespDialogue {
    fn consume(&mut self, bytes: &[u8]) -> Consumed {
        self.now = clock::now();
        self.renew_settings();
        let mut parser = std::mem::take(&mut self.parser);
        let mut at = 0;
        let mut budget = REQUESTS_PER_TURN;
        let next = loop {
            if budget == 0 {
                break Next::Yield;
            }
            if self.large.is_coming() {
                match self.go_on_large(bytes.get(at..).unwrap_or_default()) {
                    Going::On(count) => at += count,
                    Going::Stop(next) => break next,
                }
                continue;
            }
            if !self.may_dispatch() {
                break Next::Paused;
            }
            budget -= 1;
            let rest = bytes.get(at..).unwrap_or_default();
            match parser.parse(rest, &self.request_limits()) {
                Ok(None) => match self.begin_large(&parser, rest) {
                    Beginning::Held => break Next::NeedMore,
                    Beginning::Begun(length) => {
                        parser.reset();
                        at += length;
                    }
                    Beginning::Wait => {
                        self.barrier = true;
                        break Next::Paused;
                    }
                },
                Ok(Some(length)) => match self.dispatch(parser.request(rest, length)) {
                    Step::Done => {
                        parser.reset();
                        at += length;
                    }
                    Step::Wait => {
                        self.barrier = true;
                        break Next::Paused;
                    }
                    Step::Close => break Next::Close,
                },
                Err(error) => {
                    self.protocol_error(error);
                    break Next::Close;
                }
            }
        };
        self.parser = parser;
        self.note_doings(self.last_row);
        if self.keys.capacity() > 1024 {
            self.keys = Vec::new();
        }
        Consumed { bytes: at, next }
    }

    fn limits(&self) -> &ListenerLimits {
        &self.settings.limits
    }

    fn is_mid_request(&self) -> bool {
        self.large.is_coming()
    }

    fn advance(&mut self, context: &mut Context<'_>) {
        self.work.advance(context);
    }

    fn leave(&mut self) {
        self.work.stop();
        self.large = Large::default();
        self.lease = None;
        self.releasing.clear();
        self.paths.clear();
        self.own.clear();
        self.unsubscribe_all();
    }
}
