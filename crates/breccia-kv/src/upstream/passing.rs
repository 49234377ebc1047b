//! Large replies: they are passed on as they come, and shared connections are retired for them.
//!
//! Not the framing, which is the protocol's. Invariant: of a reply that is passed on, no more is held
//! than one buffer here and one at its recipient; while that is full the server is not read, and
//! nobody but those whose requests were sent already waits behind it.

use std::rc::Rc;
use std::task::Context;
use std::time::{Duration, Instant};

use breccia_net::clock;

use super::{Pass, Successor, Upstream, Wire, given_up};
use crate::pipeline::{Cause, Pipeline, Recipient, Taking, Unsent};

/// A reply that must be held whole, to be merged or changed, is at most this large.
pub(crate) const MAX_HELD_REPLY: usize = 256 << 20;

/// A reader that others wait for is not cut off for shorter pauses than this, all together. (Who
/// reads slowly but steadily pauses often, and never for long.)
const LEAST_PAUSE: Duration = Duration::from_millis(250);

/// Why a large reply was thrown away that came before an earlier one of its client.
const OUT_OF_TURN: &str = "a large reply came before that to an earlier request, of another shard, \
                           and others wait behind it";

/// A reply on its way in pieces.
#[derive(Debug)]
pub(super) struct Passing {
    /// Since when its recipient takes no more.
    held_back: Option<Instant>,
    /// How long it took no more before that, all in all.
    paused: Duration,
}

impl Passing {
    /// Whether the server is to be read.
    pub(super) fn may_receive<W: Wire, R: Recipient + 'static>(
        &mut self,
        upstream: &Upstream<W, R>,
        pipeline: &mut Pipeline<R, W::Shape>,
        context: &mut Context<'_>,
    ) -> Result<bool, Cause> {
        let alone = !pipeline.has_followers() && !pipeline.has_unsent();
        if upstream.is_retired() && pipeline.is_for_nobody() && alone {
            // Nobody needs what else would come.
            upstream.closing.set(true);
            return Err(given_up());
        }
        if pipeline.has_room(context) {
            if let Some(since) = self.held_back.take() {
                self.paused += clock::now().saturating_duration_since(since);
            }
            return Ok(true);
        }
        let now = clock::now();
        let since = *self.held_back.get_or_insert(now);
        let paused = self.paused + now.saturating_duration_since(since);
        // Those who wait behind it hear something before their own time is over.
        let patience = upstream.current.borrow().terms.limits.timeout / 2;
        let waiting = pipeline.others_since();
        if waiting.is_none_or(|at| now.saturating_duration_since(at) < patience)
            || paused < LEAST_PAUSE.min(patience)
        {
            return Ok(false);
        }
        if pipeline.is_out_of_turn() {
            // Its client is not to blame: another server is. Nothing of the reply was given.
            pipeline.refuse_large(&Cause::LargeReply(OUT_OF_TURN.into()));
            self.held_back = None;
            return Ok(true);
        }
        pipeline.cut_off();
        Ok(false)
    }

    /// Whether its recipient takes no more.
    pub(super) fn is_held_back(&self) -> bool {
        self.held_back.is_some()
    }
}

/// Passes on what has come: how many bytes, and whether that was the end.
pub(super) fn pass_on<W: Wire, R: Recipient>(
    scanner: &mut W::Scanner,
    pipeline: &mut Pipeline<R, W::Shape>,
    bytes: &[u8],
    now: Instant,
) -> Result<(usize, bool), Cause> {
    let (count, ended) = match W::pass(scanner, bytes) {
        Pass::Part(count) => (count, false),
        Pass::End(count) => (count, true),
        Pass::Wrong(why) => {
            let why = format!("the server broke the protocol: {why}");
            return Err(Cause::Lost(why.into()));
        }
    };
    if count > 0 {
        pipeline.piece(bytes.get(..count).unwrap_or_default(), now);
    }
    if ended {
        *scanner = W::Scanner::default();
        pipeline.end_pieces(now);
    }
    Ok((count, ended))
}

impl<W: Wire, R: Recipient + 'static> Upstream<W, R> {
    /// Tells where the connection is found that takes the place of this one, when a large reply
    /// keeps it busy. Without it the connection serves one client alone.
    pub fn set_successor(&self, successor: Successor<W, R>) {
        let _first = self.successor.set(successor);
    }

    /// Whether others are to use another connection.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.retired.get()
    }

    /// The next reply is at least `size` bytes large. `None`: it is collected.
    pub(super) fn begin_large(
        &self,
        pipeline: &mut Pipeline<R, W::Shape>,
        size: usize,
    ) -> Result<Option<Passing>, Cause> {
        match pipeline.take_large() {
            Taking::Unasked => {
                let why = "the server sent a reply to no request";
                return Err(Cause::Lost(why.into()));
            }
            Taking::Whole if size <= MAX_HELD_REPLY => return Ok(None),
            Taking::Whole => {
                let limit = MAX_HELD_REPLY >> 20;
                let why = format!("a reply that must be held whole is larger than {limit} MiB");
                pipeline.refuse_large(&Cause::LargeReply(why.into()));
            }
            Taking::Pieces => {}
        }
        self.retire(pipeline);
        Ok(Some(Passing {
            held_back: None,
            paused: Duration::ZERO,
        }))
    }

    /// Lets another connection take the place of this one. What is not sent moves there, unless it
    /// would overtake something of its client's.
    fn retire(&self, pipeline: &mut Pipeline<R, W::Shape>) {
        let Some(successor) = self.successor.get() else {
            return;
        };
        if self.retired.replace(true) {
            return;
        }
        let Some(successor) = successor() else {
            return;
        };
        for unsent in pipeline.take_unsent() {
            let Unsent {
                recipient,
                shape,
                patience,
                expires,
                bytes,
            } = unsent;
            let write = |out: &mut Vec<u8>| out.extend_from_slice(&bytes);
            if let Err((recipient, failure)) =
                Rc::clone(&successor).enqueue(recipient, shape, expires, patience, write)
            {
                recipient.fail(&failure);
            }
        }
    }
}
