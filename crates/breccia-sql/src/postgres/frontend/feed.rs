//! What a client sends while its session holds a connection: what of it may go there now, and what
//! waits.
//!
//! Not batches that have yet to find their place ([`super::serve`]). Invariant: what waits for a server
//! is bounded by bytes and by answers owed, and waits at the client.

use bytes::Buf;

use super::attached::Attached;
use super::client::HIGH_WATER;
use super::session::{End, Session};
use crate::ends::Limit;
use crate::postgres::codec::message;
use crate::postgres::codec::{self, HEAD_BYTES, Head};

/// A frame of parameters or copied data longer than this passes in pieces.
const PIECES: usize = 64 * 1024;
/// Nothing more is sent to a server that owes so many answers.
const MAX_OWED: usize = 16_384;
/// Names stand at the beginning of a frame of parameters; longer ones are waited for.
const NAMES_BYTES: usize = 4 * 1024;

impl Session {
    /// Takes from the client what may go to the connection now.
    pub(super) fn feed(&mut self) -> Result<(), End> {
        loop {
            let Some(attached) = &mut self.attached else {
                return Ok(());
            };
            // What the server has not taken yet is bounded: the rest waits at the client.
            let full = attached.out.waiting() > HIGH_WATER;
            if attached.passing > 0 {
                let length = attached.passing.min(self.client.inbound.len());
                if length == 0 || full {
                    return Ok(());
                }
                let piece = self.client.inbound.get(..length).unwrap_or_default();
                attached.out.bytes.extend_from_slice(piece);
                self.client.inbound.advance(length);
                attached.passing -= length;
                continue;
            }
            let keeps = self.pinned.is_some() || self.listener.limits.session_mode;
            // A transaction on a replica goes on batch by batch: each may have to go elsewhere, also
            // once it has failed.
            let open = attached.expected.copy_in
                || attached.expected.unsynced
                || (attached.in_transaction() && !attached.replica)
                || (keeps && !attached.replica);
            let open = open && !attached.expected.is_asking();
            // Which statements there are is known before more of them are named.
            let open = open && (attached.expected.unsynced || !self.names.is_emptying());
            // So are answers that the client has not taken, of which some are made here.
            let full = full || self.client.out.waiting() > HIGH_WATER;
            if !open || attached.held || full {
                self.client.wanted = 0;
                return Ok(());
            }
            if attached.expected.len() >= MAX_OWED {
                // What is answered already must not lie in the server's buffer meanwhile.
                if !std::mem::replace(&mut attached.full, true) {
                    message::empty(&mut attached.out.bytes, b'H');
                }
                self.client.wanted = 0;
                return Ok(());
            }
            attached.full = false;
            if !self.feed_one()? {
                return Ok(());
            }
        }
    }

    /// Refuses a message that is longer than the listener allows. Long parameters and copied data pass
    /// in pieces.
    fn check_length(&mut self, head: Head) -> Result<(), End> {
        let pieces = matches!(head.tag, b'B' | b'd') && head.length > PIECES;
        if head.length > self.listener.limits.max_request_size + HEAD_BYTES && !pieces {
            let why = format!(
                "a message of {} bytes is longer than max-request-size allows",
                head.length
            );
            self.over = Some(Limit::Request);
            return Err(End::Told("54000", why));
        }
        Ok(())
    }

    /// The same of each message of a batch, if it is long enough to have such a one.
    pub(super) fn check_lengths(&mut self, frames: &[u8]) -> Result<(), End> {
        if frames.len() <= self.listener.limits.max_request_size {
            return Ok(());
        }
        let mut at = 0;
        while let Some(head) = codec::head(frames.get(at..).unwrap_or_default())? {
            self.check_length(head)?;
            at += head.length;
        }
        Ok(())
    }

    /// The length of the simple query that comes first, if that is what comes first.
    pub(super) fn long_query(&mut self) -> Result<usize, End> {
        match codec::head(&self.client.inbound)? {
            Some(head) if head.tag == b'Q' => self.check_length(head).map(|()| head.length),
            _ => Ok(0),
        }
    }

    /// Passes one frame of the client on; whether there was one.
    fn feed_one(&mut self) -> Result<bool, End> {
        if !self.client.drop_unwanted() {
            return Ok(false);
        }
        let Some(head) = codec::head(&self.client.inbound)? else {
            return Ok(false);
        };
        let attached = self.attached.as_ref();
        if attached.is_some_and(|it| it.expected.is_skipping()) && !matches!(head.tag, b'S' | b'X')
        {
            // The server would skip it too, so nothing of it is done or kept.
            self.client.drop_frame(head.length);
            return Ok(true);
        }
        let have = self.client.inbound.len();
        let pieces = matches!(head.tag, b'B' | b'd') && head.length > PIECES;
        let enough = if pieces { NAMES_BYTES } else { head.length };
        self.check_length(head)?;
        if have < enough {
            self.client.wanted = enough;
            return Ok(false);
        }
        self.client.wanted = 0;
        if head.tag == b'X' {
            return Err(End::Gone);
        }
        if let Some(attached) = &mut self.attached
            && attached.running.rests()
            && !attached.running.begins()
        {
            // Paused: it waits where a batch waits for its turn.
            return Ok(false);
        }
        let frame = self.client.inbound.get(..head.length).unwrap_or_default();
        let seen = self.see_frame(head, frame);
        if self.is_own_frame(head, frame, seen.as_ref().map(|it| &*it.0)) {
            return Ok(self.meet_own(head));
        }
        if self.is_in_doubt(head)? || self.needs_look(head)? {
            return Ok(false);
        }
        let frame = self.client.take(head.length.min(have));
        self.pass_unseen(head, &frame, seen)?;
        self.client.reuse(frame);
        Ok(true)
    }

    /// Whether a frame of the client names a statement whose name an unanswered batch has changed, or that
    /// one prepares: if the server has skipped that, the name stands for something else, or the statement
    /// is not there. The answer comes by itself.
    fn is_in_doubt(&self, head: Head) -> Result<bool, End> {
        // In the midst of a copy the server waits for the client.
        let owes = |it: &&Attached| it.expected.owes_ready() && !it.expected.copy_in;
        let Some(attached) = self.attached.as_ref().filter(owes) else {
            return Ok(false);
        };
        let length = head.length.min(self.client.inbound.len());
        let body = codec::body(self.client.inbound.get(..length).unwrap_or_default());
        let (name, text) = match head.tag {
            b'P' => {
                let parse = codec::parse(body)?;
                // That one is another from now on, whatever it was.
                let sql = (!parse.name.is_empty()).then_some(parse.sql);
                (parse.name, sql)
            }
            b'B' => (codec::bind(body)?.statement, None),
            b'D' | b'C' => match codec::named(head.tag, body)? {
                (b'S', name) => (name, None),
                _ => return Ok(false),
            },
            // It may be a DEALLOCATE.
            b'Q' => return Ok(self.names.is_changing() || attached.expected.is_preparing(|_| true)),
            _ => return Ok(false),
        };
        if self.names.is_changed(name) {
            return Ok(true);
        }
        if head.tag == b'C' || (name.is_empty() && head.tag == b'P') {
            return Ok(false);
        }
        let known = self.names.text(name).filter(|_| !name.is_empty());
        let fits = |sql: Option<&[u8]>| match sql {
            Some(sql) => known == Some(sql) || text == Some(sql),
            None => name.is_empty(),
        };
        Ok(attached.expected.is_preparing(fits))
    }

    /// Whether a frame of the client binds what the connection must describe first.
    fn needs_look(&mut self, head: Head) -> Result<bool, End> {
        if head.tag != b'B' || !self.names.any_told() {
            return Ok(false);
        }
        let length = head.length.min(self.client.inbound.len());
        let frame = self.client.inbound.get(..length).unwrap_or_default();
        let name = codec::bind(codec::body(frame))?.statement.to_vec();
        let alone = self.is_unshared(head, &[], false);
        let way = self.way(false, alone);
        Ok(way.is_some_and(|mut way| !way.is_looked_at(&name)))
    }
}
