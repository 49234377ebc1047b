//! The client's connection: bytes in, bytes out.
//!
//! Not what they mean. Invariant: a client that is silent holds no buffer, and what waits for one
//! that does not read is bounded by [`HIGH_WATER`] and what one read of a server brings.

use std::future::poll_fn;
use std::io;
use std::time::Instant;

use breccia_net::stream::Stream;
use bytes::BytesMut;

use crate::flow::{KEPT, Outgoing, Scratch, poll_read};
use crate::mysql::codec::{self, CodecError, HEADER_BYTES};

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: Stream,
    pub(super) scratch: Scratch,
    /// Read and not yet looked at.
    pub(super) inbound: BytesMut,
    pub(super) out: Outgoing,
}

impl Client {
    pub(super) fn new(stream: Stream, scratch: Scratch) -> Self {
        Self {
            stream,
            scratch,
            inbound: BytesMut::new(),
            out: Outgoing::default(),
        }
    }

    async fn read_at_most(&mut self, most: usize) -> io::Result<usize> {
        poll_fn(|context| {
            let (stream, into) = (&mut self.stream, &mut self.inbound);
            poll_read(stream, &self.scratch, into, most, context)
        })
        .await
    }

    /// Sends all that waits, by `end` at the latest.
    pub(super) async fn send(&mut self, end: Instant) -> io::Result<()> {
        self.out.send(&mut self.stream, end).await
    }

    /// Reads one packet of at most `most` bytes of payload; its number and its payload. Nothing behind it
    /// is read: behind the packet that asks for TLS, its handshake comes without a pause.
    pub(super) async fn packet(&mut self, most: usize) -> io::Result<(u8, BytesMut)> {
        loop {
            let mut wanted = HEADER_BYTES;
            if let Some(header) = codec::header(&self.inbound) {
                if header.length > most {
                    let error = CodecError::TooLong {
                        length: header.length,
                    };
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
                wanted += header.length;
                if self.inbound.len() >= wanted {
                    let mut packet = self.take(wanted);
                    return Ok((header.sequence, packet.split_off(HEADER_BYTES)));
                }
            }
            if self.read_at_most(wanted - self.inbound.len()).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
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
