//! Large requests: they are passed on as they come, and are never held whole.
//!
//! ```text
//! header of a large argument ─▶ may it be streamed? ─ no ─▶ held up to max-held-request, else refused
//!        │ yes                                              and thrown away as it comes
//!        ▼
//! earlier requests answered ─▶ a place among MAX_STREAMS ─▶ a connection of its own ─▶ bytes, as fast
//!                                                                            as the server takes them
//! ```
//!
//! Not the framing; see [`Rest`]. Invariant: what can be refused is refused before the first byte goes
//! to a server; from then on the request is whole on that connection, or the connection is closed and
//! the server never runs it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use breccia_core::error::Effect;
use breccia_net::clock;

use super::super::codec::reply::Expected;
use super::super::codec::request::{Passed, Pending, ProtocolError, Request, RequestParser, Rest};
use super::super::encode;
use super::dialogue::RespDialogue;
use super::leaf::Lease;
use super::marked::is_reserved;
use super::metrics::Outcome;
use super::redirect;
use super::route::{Command, Route, Split};
use super::service::Backend;
use super::streams::{MAX_STREAMS, Place, Sender, Streams};
use super::ticket::{Asked, Ticket};
use crate::front::connection::Next;
use crate::pipeline::{Cause, Failure, Recipient};
use crate::topology::LeafIndex;

/// A request larger than this is streamed, if it can be.
pub(crate) const STREAM_FROM: usize = 1 << 20;
/// So much of it must have come before anything is taken for it: who sends a byte a second has no
/// place.
const BEGIN_BYTES: usize = 64 * 1024;
/// With less room than this at the server nothing is taken: a header would be cut again and again.
const LEAST_ROOM: usize = 1024;

/// What came of waiting for a place.
#[derive(Default)]
enum Waited {
    #[default]
    Nothing,
    Found(Place),
    Late,
}

/// The large request that a client is sending.
#[derive(Default)]
pub(crate) struct Large {
    rest: Option<Rest>,
    /// Where it goes; `None`: nowhere, it is answered.
    way: Option<Way>,
    waited: Rc<RefCell<Waited>>,
}

struct Way {
    lease: Lease,
    sender: Rc<Sender>,
    asked: Asked,
}

/// A request that may be streamed.
struct Streamed {
    leaf: LeafIndex,
    row: u16,
    writes: bool,
}

/// What is to become of a request whose beginning was looked at.
pub(crate) enum Beginning {
    /// More of it is needed, as of any other.
    Held,
    /// It is offered again when the client is woken.
    Wait,
    /// So many bytes of it were taken; the rest is taken as it comes.
    Begun(usize),
}

/// What became of more of a large request.
pub(crate) enum Going {
    /// So many bytes were taken.
    On(usize),
    /// None can be taken now.
    Stop(Next),
}

impl Large {
    /// Whether a client is in the middle of such a request.
    pub(crate) fn is_coming(&self) -> bool {
        self.rest.is_some()
    }
}

impl RespDialogue {
    /// Looks at a request that has not come whole.
    pub(crate) fn begin_large(&mut self, parser: &RequestParser, bytes: &[u8]) -> Beginning {
        let Some(pending) = parser.pending(bytes) else {
            return Beginning::Held;
        };
        if pending.request_size() <= STREAM_FROM || bytes.len() < BEGIN_BYTES {
            return Beginning::Held;
        }
        let request = parser.beginning(bytes, &pending);
        let Some(streamed) = self.may_stream(request, &pending) else {
            let limit = self.settings.limits.held_request();
            if pending.request_size() <= limit {
                return Beginning::Held;
            }
            self.refuse_held(request, limit);
            return self.take_beginning(request, &pending);
        };
        if self.client.in_flight() > 0 {
            return Beginning::Wait;
        }
        let way = match self.find_way(&streamed) {
            None => return Beginning::Wait,
            Some(Ok(lease)) => self.begin_stream(&streamed, lease, request.frame()),
            Some(Err(failure)) => {
                self.ask(streamed.leaf, streamed.row).fail(&failure);
                None
            }
        };
        self.large.way = way;
        self.take_beginning(request, &pending)
    }

    fn take_beginning(&mut self, request: Request<'_>, pending: &Pending) -> Beginning {
        self.large.rest = Some(Rest::after(pending, request.len()));
        Beginning::Begun(request.frame().len())
    }

    /// Where a request may be streamed to: it has one key, which has come, and nothing but the server
    /// can refuse it.
    fn may_stream(&self, request: Request<'_>, pending: &Pending) -> Option<Streamed> {
        let Backend::Forward(forward) = &self.service.backend else {
            return None;
        };
        let Command { spec, route, row } = self.service.routes.find(request.argument(0))?;
        let key = match route {
            Route::One(index) => *index,
            Route::Split(Split::Pairs) if pending.count == 3 => 1,
            _ => return None,
        };
        let plain = spec.subcommands.is_empty() && spec.accepts(pending.count);
        let free = !self.transaction.is_open() && self.lease.is_none();
        let heard = self.session.authenticated && self.subscriptions.count() == 0;
        let own = self.is_marked() && is_reserved(request.argument(key));
        if key >= request.len() || !plain || !free || !heard || own {
            return None;
        }
        Some(Streamed {
            leaf: forward.place(request.argument(key)).leaf,
            row: *row,
            writes: spec.writes(),
        })
    }

    fn refuse_held(&mut self, request: Request<'_>, limit: usize) {
        self.transaction.spoil();
        self.service.metrics.limit_hit("max-held-request");
        let found = self.service.routes.find(request.argument(0));
        let row = found.map_or(super::metrics::UNKNOWN_ROW, |command| command.row);
        let text = format!(
            "ERR breccia: a request of more than max-held-request ({limit} bytes) that cannot be \
             passed on as it comes; not applied"
        );
        self.refuse(row, text);
    }

    /// A connection for a streamed request. `None`: its place is waited for.
    fn find_way(&mut self, streamed: &Streamed) -> Option<Result<Lease, Failure>> {
        let forward = self.forward();
        let leaf = forward.leaf(streamed.leaf);
        let waited = self.large.waited.take();
        let found = match waited {
            Waited::Found(place) => Some(place),
            Waited::Late => {
                self.service.metrics.limit_hit("max-streams");
                let text = format!("{MAX_STREAMS} large requests (max-streams) are on their way");
                return Some(Err(Failure {
                    cause: Cause::Full(text.into()),
                    effect: Effect::NotApplied,
                }));
            }
            Waited::Nothing => leaf.streams.try_take(),
        };
        let Some(place) = found else {
            self.wait_for_place(&leaf.streams);
            return None;
        };
        let lease = leaf.stream(self.mode(), place);
        match lease.upstream.unreachable() {
            Some(failure) => Some(Err(failure)),
            None => Some(Ok(lease)),
        }
    }

    fn wait_for_place(&mut self, streams: &Streams) {
        let places = streams.clone();
        let (waited, patience) = (Rc::clone(&self.large.waited), self.settings.limits.deadline);
        self.work
            .start(&self.client, wait_for(places, waited, patience));
    }

    fn begin_stream(&mut self, streamed: &Streamed, lease: Lease, head: &[u8]) -> Option<Way> {
        if streamed.writes {
            self.note_write(streamed.leaf);
        }
        let asked = self.ask(streamed.leaf, streamed.row);
        let ticket = Ticket::Reply(asked.clone());
        let ticket = redirect::shield(&self.forward(), streamed.leaf, ticket);
        let expires = self.now + self.settings.limits.deadline;
        match lease.upstream.begin(ticket, Expected::One, expires, head) {
            Ok(()) => {
                let leaf = self.forward().leaf(streamed.leaf);
                let sender = leaf.streams.watch(&self.client, &lease.upstream);
                Some(Way {
                    lease,
                    sender,
                    asked,
                })
            }
            Err((ticket, failure)) => {
                ticket.fail(&failure);
                None
            }
        }
    }

    /// Takes more of the request that is coming.
    pub(crate) fn go_on_large(&mut self, bytes: &[u8]) -> Going {
        let limits = self.request_limits();
        let Some(rest) = &mut self.large.rest else {
            return Going::On(0);
        };
        let bytes = match self
            .large
            .way
            .as_ref()
            .map(|way| way.lease.upstream.takes())
        {
            None => bytes,
            Some(Some(room)) if room < LEAST_ROOM => return Going::Stop(Next::Paused),
            Some(Some(room)) => bytes.get(..room).unwrap_or(bytes),
            // It has failed, as its reply says.
            Some(None) => {
                self.large.way = None;
                bytes
            }
        };
        match rest.pass(bytes, &limits) {
            Err(error) => {
                self.break_large(error);
                Going::Stop(Next::Close)
            }
            Ok(Passed { count: 0, .. }) => Going::Stop(Next::NeedMore),
            Ok(Passed { count, ended }) => {
                if let Some(way) = &self.large.way {
                    let upstream = &way.lease.upstream;
                    upstream.grow(bytes.get(..count).unwrap_or_default());
                    way.sender.sent(count, clock::now());
                }
                if ended {
                    self.end_large();
                }
                Going::On(count)
            }
        }
    }

    /// The request has come to its end.
    fn end_large(&mut self) {
        self.large.rest = None;
        self.barrier = true;
        if let Some(way) = self.large.way.take() {
            way.lease.upstream.end_growing();
            self.releasing.push(way.lease);
        }
    }

    /// What comes is no request: nothing of it may be run, and nothing after it understood.
    fn break_large(&mut self, error: ProtocolError) {
        self.large.rest = None;
        let Some(way) = self.large.way.take() else {
            return;
        };
        let mut reply = Vec::new();
        encode::error(&mut reply, &format!("ERR {error}"));
        way.asked.finish(&reply, Outcome::Error);
    }
}

async fn wait_for(places: Streams, waited: Rc<RefCell<Waited>>, patience: Duration) {
    let found = places.wait(patience).await;
    *waited.borrow_mut() = found.map_or(Waited::Late, Waited::Found);
}
