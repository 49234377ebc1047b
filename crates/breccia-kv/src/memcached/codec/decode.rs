//! Cutting requests out of a read buffer. What a command line means is decided in `parse.rs`.
//!
//! Invariant: `decode` never looks past the frame it reports, and the frame's length is what
//! memcached 1.6 would have consumed, for good requests and bad ones.

use memchr::memchr;

use super::MAX_LINE_BYTES;
use super::line::Line;
use super::meta::INVALID_FLAG;
use super::parse::{Parsed, parse};
use super::request::{Command, Request};

/// What stands at the start of a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A whole request.
    Request(Request<'a>),
    /// A whole, good command line; its data block (`frame_length`) is not all here yet.
    Head(Request<'a>),
    /// Less than a line.
    Incomplete,
    /// Bytes that ask for nothing that can be done.
    Wrong(Wrong),
}

/// An answer to bytes that are no good request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The reply, line end excluded; empty if `noreply` was understood.
    pub reply: &'static str,
    /// How many bytes to drop, from the start of the buffer on; they may not all be here yet.
    pub length: usize,
    /// Whether the connection must be closed after the reply.
    pub close: bool,
}

/// Cuts requests out of a read buffer.
#[derive(Debug)]
pub struct Decoder {
    max_request_bytes: usize,
    /// How much of an unfinished line was searched for its end.
    scanned: usize,
}

impl Decoder {
    /// A decoder that takes requests up to this size, data block included.
    pub fn new(max_request_bytes: usize) -> Self {
        Self {
            max_request_bytes,
            scanned: 0,
        }
    }

    /// Changes the size up to which requests are taken.
    pub fn set_max_request_bytes(&mut self, max_request_bytes: usize) {
        self.max_request_bytes = max_request_bytes;
    }

    /// What stands at the start of `buffer`. After `Incomplete` it is called again with the same
    /// bytes and more behind them.
    pub fn decode<'a>(&mut self, buffer: &'a [u8]) -> Decoded<'a> {
        let newline = buffer
            .get(self.scanned..)
            .and_then(|fresh| memchr(b'\n', fresh))
            .map(|at| at + self.scanned);
        let line_length = newline.map_or(buffer.len(), |at| {
            // A lone "\n" goes upstream as "\r\n", and must fit there, too.
            let lone = at == 0 || buffer.get(at - 1) != Some(&b'\r');
            at + 1 + usize::from(lone)
        });
        if line_length > MAX_LINE_BYTES
            && (line_length > self.max_request_bytes || !is_retrieval(buffer))
        {
            self.scanned = 0;
            let reply = "CLIENT_ERROR line too long";
            return Decoded::Wrong(Wrong {
                reply,
                length: MAX_LINE_BYTES,
                close: true,
            });
        }
        let Some(newline) = newline else {
            self.scanned = buffer.len();
            return Decoded::Incomplete;
        };
        self.scanned = 0;
        self.complete(Line::new(buffer, newline), buffer)
    }

    fn complete<'a>(&self, line: Line<'a>, buffer: &'a [u8]) -> Decoded<'a> {
        let parsed = match parse(line) {
            Ok(parsed) => parsed,
            Err(refusal) => {
                let length = line.raw_length + refusal.swallow.map_or(0, |data| data + 2);
                return Decoded::Wrong(Wrong {
                    reply: refusal.reply,
                    length,
                    close: false,
                });
            }
        };
        let Parsed {
            command,
            noreply,
            plain,
            data_length,
        } = parsed;
        let block = data_length.map_or(0, |length| length + 2);
        let frame_length = line.raw_length + block;
        let wrong = |reply| {
            let reply = if noreply { "" } else { reply };
            Decoded::Wrong(Wrong {
                reply,
                length: frame_length,
                close: false,
            })
        };
        if frame_length > self.max_request_bytes.max(MAX_LINE_BYTES) && data_length.is_some() {
            return wrong("SERVER_ERROR object too large for cache");
        }
        let line_length = line.raw_length;
        let mut request = Request {
            command,
            data: &[],
            noreply,
            plain,
            line_length,
            frame_length,
        };
        let Some(length) = data_length else {
            return Decoded::Request(request);
        };
        let Some(block) = buffer.get(line_length..frame_length) else {
            return Decoded::Head(request);
        };
        match block.split_at_checked(length) {
            Some((data, b"\r\n")) => request.data = data,
            // memcached 1.6.18 would not have looked at the data of a flag that it does not know.
            _ if has_unknown_flag(&request.command) => return wrong(INVALID_FLAG),
            _ => return wrong("CLIENT_ERROR bad data chunk"),
        }
        Decoded::Request(request)
    }
}

fn has_unknown_flag(command: &Command<'_>) -> bool {
    matches!(command, Command::Meta(meta) if meta.flags.unknown.is_some())
}

/// Whether an over-long line is the start of a retrieval, whose keys may be many.
fn is_retrieval(buffer: &[u8]) -> bool {
    let spaces = buffer
        .iter()
        .take(101)
        .take_while(|byte| **byte == b' ')
        .count();
    let text = buffer.get(spaces..).unwrap_or_default();
    let names: [&[u8]; 4] = [b"get ", b"gets ", b"gat ", b"gats "];
    spaces <= 100 && names.iter().any(|name| text.starts_with(name))
}
