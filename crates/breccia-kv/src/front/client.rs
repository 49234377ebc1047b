//! One client as the rest of the worker sees it: where its replies go, how to wake it, how to end
//! it. Its socket is not here (see [`super::connection`]).
//!
//! Invariant: once `gone` is set nothing is written for this client, so recipients that outlive it
//! (tombstones) cost nothing.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use super::handle::Handle;
use super::limits::ListenerLimits;
use super::ring::{ReplyRing, Sequence};
use crate::turn::wake_after_others;

/// Why a client is being closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It asked for it, or broke the protocol: earlier replies are still written.
    AfterReplies,
    /// It waits for something that will not come, or does not read: nothing more is written.
    Now(&'static str),
}

/// One client of one worker.
#[derive(Debug)]
pub struct Client {
    /// Unique in this process.
    pub id: u64,
    /// The peer's address, for lists and logs.
    pub peer: String,
    /// How other threads reach it.
    pub handle: Arc<Handle>,
    ring: RefCell<ReplyRing>,
    waker: RefCell<Option<Waker>>,
    woken: Cell<bool>,
    gone: Cell<bool>,
    ending: Cell<Option<Ending>>,
    /// When bytes last arrived from the client.
    heard_at: Cell<Instant>,
    /// Since when too many reply bytes wait.
    clogged_since: Cell<Option<Instant>>,
    /// While a request is incomplete: when the present window began, and the bytes since.
    body: Cell<Option<(Instant, u64)>>,
    /// The tasks that wait until the client takes another piece of its reply: one for each server
    /// that has a large one for it.
    feeders: RefCell<Vec<Waker>>,
    /// While a reply comes in pieces: since when the client has read nothing of it.
    unread_since: Cell<Option<Instant>>,
    /// About how large this client's largest recent reply was, in bytes.
    reply_size: Cell<usize>,
    /// Bytes of replies that wait for their other parts.
    held: Cell<usize>,
    /// Whether it was ever sent a reply that would hold others up on a shared connection.
    pub reads_large: Cell<bool>,
    /// How many requests it may have in flight until more is known of its replies' sizes.
    window: Cell<usize>,
    /// A request whose duration is measured.
    sample: Cell<Option<(Sequence, Instant)>>,
    /// Whether the client waits for something it subscribed to or blocks on: never idle.
    pub patient: Cell<bool>,
    /// What it asked for last may wait on its shard, and nothing is asked before that is answered.
    pub blocked: Cell<bool>,
    hurried: Cell<bool>,
    /// Whether a request of its was sent to another server than at first, and the client has not been
    /// without requests in flight since.
    pub(crate) redirected: Cell<bool>,
    /// How many of its requests are with servers of clusters.
    pub(crate) at_servers: Cell<usize>,
}

/// The ending of a client that another one has ended.
pub(crate) const KILLED: &str = "client-kill";

/// The ending of a client whose reply broke off in the middle: nothing that could follow would be
/// understood.
pub(crate) const BROKEN_REPLY: &str = "broken-reply";

/// A larger reply is passed on in pieces, and its client reads through other connections than those
/// that all share from then on.
pub(crate) const LARGE_REPLY: usize = 1 << 20;
/// Requests a new client may have in flight before its first reply.
const FIRST_WINDOW: usize = 16;
/// `min-body-rate` is held over windows of this length.
const BODY_WINDOW: Duration = Duration::from_secs(10);

impl Client {
    /// A client that has just connected.
    #[must_use]
    pub fn new(id: u64, peer: String, now: Instant) -> Rc<Self> {
        Rc::new(Self {
            id,
            peer,
            handle: Arc::default(),
            ring: RefCell::default(),
            waker: RefCell::default(),
            woken: Cell::new(false),
            gone: Cell::new(false),
            ending: Cell::new(None),
            heard_at: Cell::new(now),
            clogged_since: Cell::new(None),
            body: Cell::new(None),
            feeders: RefCell::default(),
            unread_since: Cell::new(None),
            reply_size: Cell::new(0),
            held: Cell::new(0),
            reads_large: Cell::new(false),
            window: Cell::new(FIRST_WINDOW),
            sample: Cell::new(None),
            patient: Cell::new(false),
            blocked: Cell::new(false),
            hurried: Cell::new(false),
            redirected: Cell::new(false),
            at_servers: Cell::new(0),
        })
    }

    /// Takes a place for a reply that will come later.
    pub fn reserve(&self, muted: bool) -> Sequence {
        self.ring.borrow_mut().reserve(muted)
    }

    /// Gives a reply to a request and wakes the client.
    pub fn fill(&self, sequence: Sequence, reply: &[u8]) {
        if self.gone.get() {
            return;
        }
        let known = self.reply_size.get();
        self.reply_size.set(reply.len().max(known - known / 16));
        if reply.len() > LARGE_REPLY {
            self.reads_large.set(true);
        }
        self.window.set(self.window.get().saturating_add(1));
        self.ring.borrow_mut().fill(sequence, reply);
        self.wake();
    }

    /// Whether a piece of the reply to a request is taken now; else `context` is woken when it is.
    pub(crate) fn has_room(&self, sequence: Sequence, context: &Context<'_>) -> bool {
        let room = self.gone.get() || self.ring.borrow().has_room(sequence);
        if !room {
            let mut feeders = self.feeders.borrow_mut();
            if !feeders.iter().any(|it| it.will_wake(context.waker())) {
                feeders.push(context.waker().clone());
            }
        }
        room
    }

    /// Gives a piece of a reply and wakes the client.
    pub(crate) fn piece(&self, sequence: Sequence, bytes: &[u8]) {
        if !self.gone.get() {
            self.ring.borrow_mut().piece(sequence, bytes);
            self.wake();
        }
    }

    /// Whether the client has, or will read, a part of the reply to a request.
    pub(crate) fn has_begun(&self, sequence: Sequence) -> bool {
        !self.gone.get() && self.ring.borrow().is_begun(sequence)
    }

    /// The last piece of a reply was given.
    pub(crate) fn end_pieces(&self, sequence: Sequence) {
        if !self.gone.get() {
            self.reply_size.set(self.reply_size.get().max(LARGE_REPLY));
            self.window.set(self.window.get().saturating_add(1));
            self.ring.borrow_mut().end_pieces(sequence);
            self.unread_since.set(None);
            self.wake();
        }
    }

    /// Lets who waits to give a piece look again, if one may be taken. Others come first: else the
    /// two would go on by themselves until the whole reply is through.
    pub(crate) fn feed(&self) {
        if self.feeders.borrow().is_empty() || !self.ring.borrow().is_low() {
            return;
        }
        for feeder in self.feeders.take() {
            wake_after_others(&mut Context::from_waker(&feeder));
        }
    }

    /// Whether the client may have one more request in flight: its replies, if they are as large
    /// as the last ones, must fit in its reply buffer, and a new client is trusted step by step.
    #[must_use]
    pub fn may_ask(&self, limits: &ListenerLimits) -> bool {
        let ring = self.ring.borrow();
        let in_flight = ring.in_flight();
        let expected = in_flight.saturating_mul(self.reply_size.get());
        in_flight < limits.max_in_flight.min(self.window.get())
            && expected <= limits.reply_buffer
            && self.may_go_on(limits)
    }

    /// Whether more is taken of a request that has its place already: not while too much waits for
    /// the client.
    pub(crate) fn may_go_on(&self, limits: &ListenerLimits) -> bool {
        let buffered = self.ring.borrow().buffered();
        buffered.saturating_add(self.held.get()) <= limits.reply_buffer
    }

    /// About how large this client's largest recent reply was, in bytes.
    pub(crate) fn reply_size(&self) -> usize {
        self.reply_size.get()
    }

    /// Counts bytes that wait for other parts of their reply.
    pub(crate) fn hold(&self, bytes: usize) {
        self.held.set(self.held.get().saturating_add(bytes));
    }

    /// The parts were put together.
    pub(crate) fn unhold(&self, bytes: usize) {
        self.held.set(self.held.get().saturating_sub(bytes));
    }

    /// Lets the client ask as much as it may: nothing large is to be expected.
    pub(crate) fn trust(&self) {
        self.window.set(usize::MAX);
    }

    /// Appends a reply made here; the caller runs in the client's own turn, or wakes it.
    pub fn answer(&self, muted: bool, write: impl FnOnce(&mut Vec<u8>)) {
        self.ring.borrow_mut().answer(muted, write);
    }

    /// Appends out-of-band bytes and wakes the client.
    pub fn push(&self, bytes: &[u8]) {
        if !self.gone.get() {
            let mut ring = self.ring.borrow_mut();
            if self.blocked.get() {
                ring.push_to_blocked(bytes);
            } else {
                ring.push(bytes);
            }
            drop(ring);
            self.wake();
        }
    }

    /// Requests without a reply in the output yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.ring.borrow().in_flight()
    }

    /// The client's replies, for its connection.
    pub(crate) fn ring(&self) -> &RefCell<ReplyRing> {
        &self.ring
    }

    /// Starts to measure a request, if none is being measured.
    pub fn begin_sample(&self, sequence: Sequence, now: Instant) {
        if self.sample.get().is_none() {
            self.sample.set(Some((sequence, now)));
        }
    }

    /// When the request being measured began, if it is this one.
    #[must_use]
    pub fn end_sample(&self, sequence: Sequence) -> Option<Instant> {
        let (sampled, begun) = self.sample.get()?;
        if sampled != sequence {
            return None;
        }
        self.sample.set(None);
        Some(begun)
    }

    /// Whether the client has left.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.gone.get()
    }

    pub(crate) fn leave(&self) {
        self.gone.set(true);
        *self.ring.borrow_mut() = ReplyRing::default();
        *self.waker.borrow_mut() = None;
        self.feed();
    }

    /// Closes the client. A stronger ending replaces a weaker one.
    pub fn end(&self, ending: Ending) {
        if !matches!(self.ending.get(), Some(Ending::Now(_))) {
            self.ending.set(Some(ending));
            self.wake();
        }
    }

    /// How the client is being closed, if it is.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        self.ending.get()
    }

    /// The gateway drains, and whatever had arrived from this client can be read by now.
    pub(crate) fn hurry(&self) {
        if !self.hurried.replace(true) {
            self.wake();
        }
    }

    /// See [`Client::hurry`].
    pub(crate) fn is_hurried(&self) -> bool {
        self.hurried.get()
    }

    /// Wakes the client's connection.
    pub fn wake(&self) {
        if !self.woken.replace(true)
            && let Some(waker) = &*self.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }

    pub(crate) fn park(&self, context: &Context<'_>) {
        self.woken.set(false);
        let mut waker = self.waker.borrow_mut();
        if !waker
            .as_ref()
            .is_some_and(|known| known.will_wake(context.waker()))
        {
            *waker = Some(context.waker().clone());
        }
    }

    pub(crate) fn heard(&self, now: Instant, bytes: usize, incomplete: bool) {
        self.heard_at.set(now);
        self.body.set(incomplete.then(|| {
            let (since, before) = self.body.get().unwrap_or((now, 0));
            (since, before + bytes as u64)
        }));
    }

    /// A client that was not read is read again, perhaps in the middle of a request.
    pub(crate) fn owes_more(&self, now: Instant, incomplete: bool) {
        let body = self.body.get().filter(|_| incomplete);
        self.body.set(body.or(incomplete.then_some((now, 0))));
    }

    /// The time, if too many reply bytes wait, and whether the client has just read something that counts.
    pub(crate) fn note_clogged(&self, clogged: Option<Instant>, progress: bool) {
        note_since(&self.clogged_since, clogged, progress);
    }

    /// The time, if pieces of a reply wait for the client, and whether it has just read something.
    pub(crate) fn note_unread(&self, unread: Option<Instant>, progress: bool) {
        note_since(&self.unread_since, unread, progress);
    }

    /// Whether an earlier reply has not come, so that nothing of this one can be taken however much
    /// the client reads.
    pub(crate) fn is_out_of_turn(&self, sequence: Sequence) -> bool {
        !self.gone.get() && self.ring.borrow().is_out_of_turn(sequence)
    }

    /// Since when the client last sent something.
    #[must_use]
    pub fn idle_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard_at.get())
    }

    /// Holds the client to the limits that depend on time. Called about once a second.
    pub fn sweep(&self, now: Instant, limits: &ListenerLimits) {
        let since = |at: Instant| now.saturating_duration_since(at);
        let reads_nothing = [self.clogged_since.get(), self.unread_since.get()];
        if (reads_nothing.into_iter().flatten()).any(|at| since(at) >= limits.write_timeout) {
            self.end(Ending::Now("write-timeout"));
        }
        if let Some((began, bytes)) = self.body.get()
            && since(began) >= BODY_WINDOW
        {
            if bytes < limits.min_body_rate.saturating_mul(since(began).as_secs()) {
                self.end(Ending::Now("min-body-rate"));
            }
            self.body.set(Some((now, 0)));
        }
        let quiet = self.in_flight() == 0 && !self.patient.get();
        if quiet && self.idle_for(now) >= Duration::from_secs(2) {
            self.ring.borrow_mut().shrink();
        }
        if let Some(limit) = limits.idle_timeout
            && quiet
            && self.body.get().is_none()
            && self.idle_for(now) >= limit
        {
            self.end(Ending::Now("idle-timeout"));
        }
    }
}

/// Keeps since when something has been so: it ends with `None`, and begins anew with progress.
fn note_since(since: &Cell<Option<Instant>>, now: Option<Instant>, progress: bool) {
    let known = since.get().filter(|_| !progress);
    since.set(now.map(|now| known.unwrap_or(now)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_is_coming_goes_on_however_large_the_last_reply_was() {
        let client = Client::new(1, String::new(), Instant::now());
        let limits = ListenerLimits {
            reply_buffer: 1000,
            ..ListenerLimits::default()
        };
        let last = client.reserve(false);
        client.fill(last, &[b'x'; 2000]);
        assert!(!client.may_go_on(&limits), "the last reply is not read");
        client.ring().borrow_mut().wrote(2000);
        client.reserve(false);
        assert!(!client.may_ask(&limits), "one more such reply");
        assert!(client.may_go_on(&limits));
        client.hold(1000);
        assert!(!client.may_go_on(&limits), "parts of a reply wait");
    }

    #[test]
    fn everybody_who_waits_to_give_a_piece_is_woken() {
        struct Count(std::sync::atomic::AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
        let client = Client::new(1, String::new(), Instant::now());
        client.reserve(false);
        let second = client.reserve(false);
        let counts = [(); 2].map(|()| Arc::new(Count(0.into())));
        for count in counts.iter().chain(&counts) {
            let waker = Waker::from(Arc::clone(count));
            assert!(!client.has_room(second, &Context::from_waker(&waker)));
        }
        assert!(client.is_out_of_turn(second));
        client.feed();
        for count in &counts {
            assert_eq!(count.0.load(std::sync::atomic::Ordering::Relaxed), 1);
        }
    }
}
