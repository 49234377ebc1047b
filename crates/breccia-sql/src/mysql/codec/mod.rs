//! Packets of MySQL's client/server protocol 10: bytes in, packets out.
//!
//! Not a connection. Source: the protocol's chapters in MySQL's internals manual and MariaDB's
//! "Clients & Utilities: protocol". Invariant: a packet is told by its four-byte header alone, and
//! reading one never looks behind its end.

pub mod capabilities;
pub mod command;
pub mod handshake;
pub mod lenenc;
mod prepared;
mod replies;
pub mod status;
mod track;

use thiserror::Error;

pub use prepared::{ExecuteHead, PrepareOk, first_number, with_types};
pub use replies::{ErrPacket, OkPacket, eof};
pub use track::{Change, changes, write_change};

/// The length and the number of a packet: what each begins with.
pub const HEADER_BYTES: usize = 4;
/// The longest payload of one packet; a payload that is longer, or exactly as long, goes on in the next.
pub const MAX_PACKET: usize = 0xff_ffff;

/// What is wrong with bytes of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CodecError {
    /// A packet whose inside does not fit its kind.
    #[error("Malformed communication packet")]
    Malformed,
    /// A packet of a kind that is never so long.
    #[error("a packet of {length} bytes came where none is so long")]
    TooLong {
        /// What its header says.
        length: usize,
    },
    /// A client or server older than protocol 4.1.
    #[error("the peer speaks a protocol older than 4.1")]
    TooOld,
    /// A packet came out of order.
    #[error("Got packets out of order")]
    OutOfOrder,
}

/// A packet's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the payload.
    pub length: usize,
    /// The packet's number in its exchange.
    pub sequence: u8,
}

/// The header that `bytes` begin with; `None` if it is not all there.
#[inline]
#[must_use]
pub fn header(bytes: &[u8]) -> Option<Header> {
    let (&[a, b, c, sequence], _) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    Some(Header {
        length: u32::from_le_bytes([a, b, c, 0]) as usize,
        sequence,
    })
}

/// Writes a payload as one packet, or as several where it is that long, from number `sequence` on.
pub fn write_packet(out: &mut Vec<u8>, sequence: &mut u8, payload: &[u8]) {
    let mut rest = payload;
    loop {
        let (now, later) = rest.split_at(rest.len().min(MAX_PACKET));
        // At most three bytes long.
        let length = u32::try_from(now.len()).unwrap_or_default().to_le_bytes();
        out.extend_from_slice(length.get(..3).unwrap_or_default());
        out.push(*sequence);
        out.extend_from_slice(now);
        *sequence = sequence.wrapping_add(1);
        if now.len() < MAX_PACKET {
            return;
        }
        rest = later;
    }
}

/// What is still to be read of a payload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a NULL of a row comes next, which is taken then.
    pub(crate) fn is_null(&mut self) -> bool {
        let found = self.0.strip_prefix(b"\xfb");
        if let Some(rest) = found {
            self.0 = rest;
        }
        found.is_some()
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], CodecError> {
        let (now, later) = self
            .0
            .split_at_checked(count)
            .ok_or(CodecError::Malformed)?;
        self.0 = later;
        Ok(now)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| CodecError::Malformed)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, CodecError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, CodecError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, CodecError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn int(&mut self) -> Result<u64, CodecError> {
        let (value, length) = lenenc::read_int(self.0).ok_or(CodecError::Malformed)?;
        self.take(length)?;
        Ok(value)
    }

    pub(crate) fn string(&mut self) -> Result<&'a [u8], CodecError> {
        let length = self.int()?;
        self.take(usize::try_from(length).map_err(|_| CodecError::Malformed)?)
    }

    /// Up to a NUL, which is taken too.
    pub(crate) fn text(&mut self) -> Result<&'a [u8], CodecError> {
        let end = memchr::memchr(0, self.0).ok_or(CodecError::Malformed)?;
        let text = self.take(end)?;
        self.take(1)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests;
