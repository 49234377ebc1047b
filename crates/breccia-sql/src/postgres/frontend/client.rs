//! The client's connection: bytes in, bytes out.
//!
//! Not what they mean. Invariant: a client that is silent holds no buffer, and what waits for one
//! that does not read is bounded by [`HIGH_WATER`] and one frame.

use std::future::poll_fn;
use std::io;
use std::time::Instant;

use breccia_net::stream::Stream;
use bytes::{Buf, BytesMut};

use crate::flow::KEPT;
pub(super) use crate::flow::{HIGH_WATER, Outgoing, READ_AHEAD, SCRATCH, Scratch, poll_read};
use crate::postgres::codec::{self, CodecError};

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: Stream,
    pub(super) scratch: Scratch,
    /// Read and not yet looked at.
    pub(super) inbound: BytesMut,
    pub(super) out: Outgoing,
    /// How many bytes of `inbound` it takes to go on.
    pub(super) wanted: usize,
    /// What the client sends while its one read runs may wait, until the session looks around again.
    pub(super) unwatched: bool,
    /// How many bytes of a frame that nobody wants still follow.
    unwanted: usize,
}

impl Client {
    pub(super) fn new(stream: Stream, scratch: Scratch) -> Self {
        Self {
            stream,
            scratch,
            inbound: BytesMut::new(),
            out: Outgoing::default(),
            wanted: 0,
            unwatched: false,
            unwanted: 0,
        }
    }

    /// Reads more; 0 at the end.
    pub(super) async fn read(&mut self) -> io::Result<usize> {
        poll_fn(|context| {
            let (stream, into) = (&mut self.stream, &mut self.inbound);
            poll_read(stream, &self.scratch, into, SCRATCH, context)
        })
        .await
    }

    /// Ends when the client has left. What it sends meanwhile is read ahead, and not more than
    /// [`READ_AHEAD`]: behind that nobody sees it leave.
    pub(super) async fn left(&mut self) {
        while self.inbound.len() < READ_AHEAD {
            if matches!(self.read().await, Ok(0) | Err(_)) {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    /// Sends all that waits, by `end` at the latest.
    pub(super) async fn send(&mut self, end: Instant) -> io::Result<()> {
        self.out.send(&mut self.stream, end).await
    }

    /// Drops copied data that has come before anything else: it is left over of a copy that failed, and
    /// a server would ignore it.
    pub(super) fn drop_copied(&mut self) -> Result<(), CodecError> {
        loop {
            self.drop_unwanted();
            match codec::head(&self.inbound)? {
                Some(head) if matches!(head.tag, b'd' | b'c' | b'f') => self.unwanted = head.length,
                _ => return Ok(()),
            }
        }
    }

    /// Drops the frame of `length` bytes that comes next, as far as it is here and as it comes.
    pub(super) fn drop_frame(&mut self, length: usize) {
        self.unwanted = length;
        self.drop_unwanted();
    }

    /// Drops what nobody wants; whether all of that has come.
    pub(super) fn drop_unwanted(&mut self) -> bool {
        let here = self.unwanted.min(self.inbound.len());
        self.inbound.advance(here);
        self.unwanted -= here;
        self.unwanted == 0
    }

    /// Takes the first `length` bytes; without a copy, and without sharing if there are no others.
    pub(super) fn take(&mut self, length: usize) -> BytesMut {
        if length == self.inbound.len() {
            std::mem::take(&mut self.inbound)
        } else {
            self.inbound.split_to(length)
        }
    }

    /// Gives back what [`Client::take`] took, for the next bytes.
    pub(super) fn reuse(&mut self, mut taken: BytesMut) {
        if self.inbound.capacity() == 0 && taken.capacity() <= KEPT {
            taken.clear();
            self.inbound = taken;
        }
    }

    /// Lets go of buffers before a wait that may be long.
    pub(super) fn rest(&mut self) {
        if self.inbound.is_empty() && self.inbound.capacity() > KEPT {
            self.inbound = BytesMut::new();
        }
        self.out.rest();
    }
}
