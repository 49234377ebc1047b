//! One client's conversation: takes its requests in order and sends each on its way.
//!
//! Invariant: while `barrier` is set nothing is dispatched until every earlier request of this
//! client is answered. That keeps a client's order where it changes connections.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use breccia_net::clock;

use super::super::codec::{Command, Decoded, Decoder, Request, Wrong, is_error};
use super::super::rewrite::Quiet;
use super::super::wire_error::{push_client_error, push_server_error};
use super::super::{local, typed};
use super::commands::row;
use super::leaf::MemcachedUpstream;
use super::login::{self, Login};
use super::service::{Backend, MemcachedService};
use super::ticket::Asked;
use crate::front::browser::{is_web_request, warn_of_browser};
use crate::front::client::Client;
use crate::front::connection::{Consumed, Dialogue, Next, REQUESTS_PER_TURN};
use crate::front::limits::ListenerLimits;
use crate::front::metrics::{Outcome, UNKNOWN_ROW};
use crate::front::settings::ListenerSettings;
use crate::front::work::Work;
use crate::store::KvStore;

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is on its way or answered.
    Done,
    /// It must be offered again when the client's earlier requests are answered.
    Wait,
    /// It was the last one.
    Close,
}

/// One client's conversation. See the module's page.
pub(super) struct MemcachedDialogue {
    pub(super) service: Rc<MemcachedService>,
    pub(super) client: Rc<Client>,
    pub(super) settings: Arc<ListenerSettings>,
    decoder: Decoder,
    authenticated: bool,
    /// Whether the first byte was looked at.
    greeted: bool,
    /// Bytes of a refused data block that are still to come.
    skip: usize,
    /// The shared connection to each leaf, opened when first used.
    pub(super) paths: Vec<Option<Rc<MemcachedUpstream>>>,
    pub(super) barrier: bool,
    /// Whether the request being dispatched is a large one that has waited for its turn.
    pub(super) large: bool,
    /// Whether a reply was so large that this client shall use bulk connections.
    pub(super) reads_bulk: Rc<Cell<bool>>,
    /// Whether it does.
    pub(super) on_bulk: bool,
    work: Work,
    pub(super) now: Instant,
    samples: Cell<u32>,
}

/// One request in this many has its duration measured.
const SAMPLE_EVERY: u32 = 32;

impl MemcachedDialogue {
    pub(super) fn new(
        service: Rc<MemcachedService>,
        client: Rc<Client>,
        settings: Arc<ListenerSettings>,
    ) -> Self {
        Self {
            decoder: Decoder::new(settings.limits.held_request()),
            authenticated: settings.users.is_empty(),
            service,
            client,
            settings,
            greeted: false,
            skip: 0,
            paths: Vec::new(),
            barrier: false,
            large: false,
            reads_bulk: Rc::default(),
            on_bulk: false,
            work: Work::default(),
            now: clock::now(),
            samples: Cell::new(0),
        }
    }

    /// Takes over what a reload has changed. Who is logged in stays so.
    fn renew_settings(&mut self) {
        if let Some(settings) = self.service.clients.newer_than(&self.settings) {
            self.decoder
                .set_max_request_bytes(settings.limits.held_request());
            self.settings = settings;
        }
    }

    /// Whether the next request may be dispatched.
    fn may_dispatch(&mut self) -> bool {
        if self.work.is_busy() {
            return false;
        }
        let changes = self.reads_bulk.get() && !self.on_bulk;
        if self.barrier || changes {
            if self.client.in_flight() > 0 {
                return false;
            }
            self.barrier = false;
            self.on_bulk = self.reads_bulk.get();
        }
        self.client.may_ask(&self.settings.limits)
    }

    fn dispatch(&mut self, request: &Request<'_>, frame: &[u8]) -> Step {
        if request.command == Command::Quit {
            self.service
                .metrics
                .count(row(&request.command), Outcome::Answered);
            return Step::Close;
        }
        if self.answer_locally(request) {
            return Step::Done;
        }
        match &self.service.backend {
            Backend::Forward(_) => self.forward(request, frame),
            Backend::Typed {
                store,
                inline: true,
            } => {
                let store = Arc::clone(store);
                self.execute_inline(&*store, request);
                Step::Done
            }
            Backend::Typed {
                store,
                inline: false,
            } => {
                let store = Arc::clone(store);
                self.execute(store, request, frame.into());
                Step::Done
            }
        }
    }

    fn answer_locally(&mut self, request: &Request<'_>) -> bool {
        let service = Rc::clone(&self.service);
        let mut answered = false;
        let local = !matches!(
            request.command,
            Command::Retrieve { .. }
                | Command::Store { .. }
                | Command::Arithmetic { .. }
                | Command::Delete { .. }
                | Command::Touch { .. }
                | Command::FlushAll { .. }
                | Command::Meta(_)
        );
        if local {
            self.answer(request, |out| {
                answered = local::answer(&request.command, || service.stats(), out);
            });
        }
        answered
    }

    /// Answers with a reply made here.
    pub(super) fn answer(&self, request: &Request<'_>, write: impl FnOnce(&mut Vec<u8>)) {
        self.client.answer(request.noreply, write);
        self.service
            .metrics
            .count(row(&request.command), Outcome::Answered);
    }

    /// Over a store that answers at once nothing is copied.
    fn execute_inline(&self, store: &dyn KvStore, request: &Request<'_>) {
        let mut failed = false;
        self.client.answer(false, |out| {
            let before = out.len();
            let ready = {
                let work = pin!(typed::execute(store, request, out));
                work.poll(&mut Context::from_waker(Waker::noop()))
            };
            if ready == Poll::Pending {
                push_server_error("an embedded store did not answer; outcome unknown", out);
            }
            failed = is_error(out.get(before..).unwrap_or_default());
        });
        let outcome = if failed {
            Outcome::Error
        } else {
            Outcome::Answered
        };
        self.service.metrics.count(row(&request.command), outcome);
    }

    fn execute(&mut self, store: Arc<dyn KvStore>, request: &Request<'_>, frame: Box<[u8]>) {
        let asked = Asked {
            quiet: Quiet::No,
            ..self.ask(request)
        };
        self.work.start(&self.client, async move {
            let mut out = Vec::new();
            if let Decoded::Request(request) = Decoder::new(usize::MAX).decode(&frame) {
                typed::execute(&*store, &request, &mut out).await;
            }
            asked.answer(&out);
        });
    }

    fn refuse(&mut self, wrong: Wrong) {
        if wrong.reply.starts_with("SERVER_ERROR object too large") {
            self.service.metrics.limit_hit("max-request-size");
        }
        self.client
            .answer(wrong.reply.is_empty(), |out| push_plain(wrong.reply, out));
        self.service.metrics.count(UNKNOWN_ROW, Outcome::Error);
    }

    /// Whether this request's duration is measured.
    pub(super) fn sampled(&self) -> bool {
        let count = self.samples.get().wrapping_add(1);
        self.samples.set(count);
        count.is_multiple_of(SAMPLE_EVERY)
    }

    /// Takes one request, or part of something refused, from the front of `bytes`: how much of it,
    /// and whether to stop.
    fn take(&mut self, bytes: &[u8]) -> (usize, Option<Next>) {
        if bytes.is_empty() {
            return (0, Some(Next::NeedMore));
        }
        if self.skip > 0 {
            let count = self.skip.min(bytes.len());
            self.skip -= count;
            return (count, None);
        }
        if !self.greeted {
            self.greeted = true;
            if bytes.first() == Some(&BINARY_REQUEST) {
                let text = "the binary protocol is not spoken here; use the text protocol";
                self.client
                    .answer(false, |out| push_client_error(text, out));
                return (0, Some(Next::Close));
            }
        }
        if !self.authenticated {
            return self.log_in(bytes);
        }
        let mut decoder = std::mem::replace(&mut self.decoder, Decoder::new(0));
        let found = decoder.decode(bytes);
        self.decoder = decoder;
        match found {
            Decoded::Incomplete | Decoded::Head(_) => (0, Some(Next::NeedMore)),
            Decoded::Request(request) => {
                let frame = bytes.get(..request.frame_length).unwrap_or_default();
                match self.dispatch(&request, frame) {
                    Step::Done => (frame.len(), None),
                    Step::Wait => {
                        self.barrier = true;
                        (0, Some(Next::Paused))
                    }
                    Step::Close => (0, Some(Next::Close)),
                }
            }
            Decoded::Wrong(_) if is_web_request(first_word(bytes)) => {
                warn_of_browser(&self.service.listener.name, &self.client);
                (0, Some(Next::Close))
            }
            Decoded::Wrong(wrong) => {
                self.refuse(wrong);
                if wrong.close {
                    return (0, Some(Next::Close));
                }
                self.skip = wrong.length;
                (0, None)
            }
        }
    }

    fn log_in(&mut self, bytes: &[u8]) -> (usize, Option<Next>) {
        match login::read(bytes, &self.settings.users) {
            Login::Incomplete => (0, Some(Next::NeedMore)),
            Login::Close => (0, Some(Next::Close)),
            Login::Answer { length, reply } => {
                self.client.answer(false, |out| push_plain(reply, out));
                self.service.metrics.count(UNKNOWN_ROW, Outcome::Error);
                (length, None)
            }
            Login::Accepted { length } => {
                self.authenticated = true;
                self.client.answer(false, |out| push_plain("STORED", out));
                (length, None)
            }
        }
    }
}

/// The first byte of every request of memcached's binary protocol.
const BINARY_REQUEST: u8 = 0x80;

fn first_word(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == b' ').next().unwrap_or_default()
}

fn push_plain(line: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(line.as_bytes());
    out.extend_from_slice(b"\r\n");
}

impl Dialogue for MemcachedDialogue {
    fn consume(&mut self, bytes: &[u8]) -> Consumed {
        self.now = clock::now();
        self.renew_settings();
        let mut at = 0;
        let mut budget = REQUESTS_PER_TURN;
        loop {
            if budget == 0 {
                return Consumed {
                    bytes: at,
                    next: Next::Yield,
                };
            }
            budget -= 1;
            if !self.may_dispatch() {
                return Consumed {
                    bytes: at,
                    next: Next::Paused,
                };
            }
            let (count, stop) = self.take(bytes.get(at..).unwrap_or_default());
            at += count;
            if let Some(next) = stop {
                return Consumed { bytes: at, next };
            }
        }
    }

    fn limits(&self) -> &ListenerLimits {
        &self.settings.limits
    }

    fn advance(&mut self, context: &mut Context<'_>) {
        self.work.advance(context);
    }

    fn leave(&mut self) {
        self.work.stop();
    }
}
