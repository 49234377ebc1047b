//! Requests: finds the end of one and the places of its arguments, in place.
//!
//! Invariant: a request that is accepted here is framed in the same way by Redis. Lengths must be
//! in canonical form and every argument must end in CR LF, so the bytes can be forwarded as they
//! are.

mod rest;

use super::{inline, line, number};

pub use rest::{Passed, Pending, Rest};

/// What bounds one request.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// Bytes of a whole request.
    pub max_request_size: usize,
    /// Arguments of a request, the command's name included.
    pub max_arguments: usize,
}

impl RequestLimits {
    /// What a client may send before it has logged in; the same numbers as Redis's.
    pub const UNAUTHENTICATED: Self = Self {
        max_request_size: 64 * 1024,
        max_arguments: 10,
    };
}

/// Why the bytes are no request. The connection is closed after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The number after `*` is not a count.
    #[error("Protocol error: invalid multibulk length")]
    InvalidMultibulkLength,
    /// The number after `$` is not a length.
    #[error("Protocol error: invalid bulk length")]
    InvalidBulkLength,
    /// An argument does not begin with `$`.
    #[error("Protocol error: expected '$', got '{got}'")]
    ExpectedBulk {
        /// The byte that came instead.
        got: char,
    },
    /// The line after `*` has no end.
    #[error("Protocol error: too big mbulk count string")]
    LongMultibulkLine,
    /// The line after `$` has no end.
    #[error("Protocol error: too big bulk count string")]
    LongBulkLine,
    /// An inline request has no end.
    #[error("Protocol error: too big inline request")]
    LongInline,
    /// An inline request has an open quote.
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// The bytes after an argument are not CR LF.
    #[error("Protocol error: an argument does not end in CR LF")]
    MissingEnd,
    /// More arguments than the listener's `max-arguments`.
    #[error("Protocol error: more than max-arguments ({limit}) arguments")]
    ManyArguments {
        /// The limit.
        limit: usize,
    },
    /// More bytes than the listener's `max-request-size`.
    #[error("Protocol error: a request of more than max-request-size ({limit} bytes)")]
    LargeRequest {
        /// The limit.
        limit: usize,
    },
}

/// Number lines longer than this are refused.
const MAX_NUMBER_LINE: usize = 32;
/// As Redis: an inline request is at most this long.
const MAX_INLINE: usize = 64 * 1024;

/// Reads requests one after another, picking up where it stopped when more bytes come.
///
/// The bytes passed must start at the same request until [`Self::reset`] is called.
#[derive(Debug, Default)]
pub struct RequestParser {
    arguments: Vec<(usize, usize)>,
    /// Where reading goes on.
    at: usize,
    /// Arguments that still have to come; `None` before the header was read.
    left: Option<usize>,
    /// An inline request, written again as an array.
    inline: Vec<u8>,
    is_inline: bool,
}

impl RequestParser {
    /// Forgets the request just read.
    pub fn reset(&mut self) {
        self.arguments.clear();
        if self.arguments.capacity() > 128 {
            self.arguments = Vec::new();
        }
        self.at = 0;
        self.left = None;
        if self.is_inline {
            self.is_inline = false;
            self.inline = Vec::new();
        }
    }

    /// Looks for the end of the request that starts at `bytes[0]`: `Some(length)` when it is whole.
    ///
    /// # Errors
    /// When no request can start this way.
    pub fn parse(
        &mut self,
        bytes: &[u8],
        limits: &RequestLimits,
    ) -> Result<Option<usize>, ProtocolError> {
        let mut left = match self.left {
            Some(left) => left,
            None => match bytes.first() {
                None => return Ok(None),
                Some(b'*') => match Self::header(bytes, limits)? {
                    None => return Ok(None),
                    Some((count, next)) => {
                        self.at = next;
                        count
                    }
                },
                Some(_) => return self.parse_inline(bytes, limits),
            },
        };
        while left > 0 {
            let Some((start, end)) = argument(bytes, self.at, limits)? else {
                break;
            };
            self.arguments.push((start, end));
            self.at = end + 2;
            left -= 1;
        }
        self.left = Some(left);
        Ok((left == 0).then_some(self.at))
    }

    fn header(
        bytes: &[u8],
        limits: &RequestLimits,
    ) -> Result<Option<(usize, usize)>, ProtocolError> {
        let Some((count, next)) = number_line(bytes, 1, ProtocolError::LongMultibulkLine)? else {
            return Ok(None);
        };
        let count = count.ok_or(ProtocolError::InvalidMultibulkLength)?;
        let count = usize::try_from(count).unwrap_or(0); // as Redis: a negative count is empty
        if count > i32::MAX as usize {
            return Err(ProtocolError::InvalidMultibulkLength);
        }
        if count > limits.max_arguments {
            return Err(ProtocolError::ManyArguments {
                limit: limits.max_arguments,
            });
        }
        Ok(Some((count, next)))
    }

    fn parse_inline(
        &mut self,
        bytes: &[u8],
        limits: &RequestLimits,
    ) -> Result<Option<usize>, ProtocolError> {
        let Some((text, next)) = line(bytes, 0) else {
            return if bytes.len() > MAX_INLINE {
                Err(ProtocolError::LongInline)
            } else {
                Ok(None)
            };
        };
        if text.len() > MAX_INLINE.min(limits.max_request_size) {
            return Err(ProtocolError::LongInline);
        }
        let words = inline::split(text).ok_or(ProtocolError::UnbalancedQuotes)?;
        if words.len() > limits.max_arguments {
            return Err(ProtocolError::ManyArguments {
                limit: limits.max_arguments,
            });
        }
        self.is_inline = true;
        self.inline = inline::encode(&words, &mut self.arguments);
        Ok(Some(next))
    }

    /// What has come of a request that is not whole: the arguments before the pending one.
    #[must_use]
    pub fn beginning<'b>(&'b self, bytes: &'b [u8], pending: &Pending) -> Request<'b> {
        Request {
            frame: bytes.get(..pending.start).unwrap_or_default(),
            arguments: &self.arguments,
        }
    }

    /// The request as an array, and the places of its arguments in it. `bytes` are those passed to
    /// [`Self::parse`], `length` what it answered.
    #[must_use]
    pub fn request<'b>(&'b self, bytes: &'b [u8], length: usize) -> Request<'b> {
        let frame = if self.is_inline {
            &self.inline
        } else {
            bytes.get(..length).unwrap_or_default()
        };
        Request {
            frame,
            arguments: &self.arguments,
        }
    }
}

/// One whole request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'b> {
    frame: &'b [u8],
    arguments: &'b [(usize, usize)],
}

impl<'b> Request<'b> {
    /// The request's bytes.
    #[must_use]
    pub fn frame(&self) -> &'b [u8] {
        self.frame
    }

    /// How many arguments there are, the command's name included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.arguments.len()
    }

    /// Whether it is an empty array, which is answered with nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.arguments.is_empty()
    }

    /// An argument; 0 is the command's name. Empty when there is none.
    #[must_use]
    pub fn argument(&self, index: usize) -> &'b [u8] {
        let Some((start, end)) = self.arguments.get(index) else {
            return &[];
        };
        self.frame.get(*start..*end).unwrap_or_default()
    }

    /// All arguments, in order.
    pub fn arguments(&self) -> impl Iterator<Item = &'b [u8]> + use<'b> {
        let frame = self.frame;
        self.arguments
            .iter()
            .map(move |(start, end)| frame.get(*start..*end).unwrap_or_default())
    }

    /// The bytes of one argument with its header and its end, as they stand in the frame.
    #[must_use]
    pub fn encoded(&self, index: usize) -> &'b [u8] {
        let from = match index.checked_sub(1) {
            Some(previous) => self.arguments.get(previous).map_or(0, |(_, end)| end + 2),
            None => memchr::memchr(b'\n', self.frame).map_or(0, |end| end + 1),
        };
        let Some((_, end)) = self.arguments.get(index) else {
            return &[];
        };
        self.frame.get(from..end + 2).unwrap_or_default()
    }
}

/// A number and its line's end: `Ok(None)` while incomplete, `Ok(Some((None, _)))` if no number.
fn number_line(
    bytes: &[u8],
    from: usize,
    too_long: ProtocolError,
) -> Result<Option<(Option<i64>, usize)>, ProtocolError> {
    let window = bytes
        .get(from..bytes.len().min(from + MAX_NUMBER_LINE))
        .unwrap_or_default();
    let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
        return if window.len() == MAX_NUMBER_LINE {
            Err(too_long)
        } else {
            Ok(None)
        };
    };
    let digits = window.get(..end).unwrap_or_default();
    Ok(Some((
        digits.strip_suffix(b"\r").and_then(number),
        from + end + 1,
    )))
}

/// The length that the header at `from` announces, and where the bytes begin; `None` while the
/// header has not arrived whole.
fn bulk_header(bytes: &[u8], from: usize) -> Result<Option<(usize, usize)>, ProtocolError> {
    match bytes.get(from) {
        None => return Ok(None),
        Some(b'$') => {}
        Some(other) => {
            return Err(ProtocolError::ExpectedBulk {
                got: char::from(*other),
            });
        }
    }
    let Some((length, start)) = number_line(bytes, from + 1, ProtocolError::LongBulkLine)? else {
        return Ok(None);
    };
    let length = length
        .and_then(|length| usize::try_from(length).ok())
        .filter(|length| *length <= 512 << 20)
        .ok_or(ProtocolError::InvalidBulkLength)?;
    Ok(Some((length, start)))
}

/// The place of the argument whose header starts at `from`; `None` while it has not arrived whole.
fn argument(
    bytes: &[u8],
    from: usize,
    limits: &RequestLimits,
) -> Result<Option<(usize, usize)>, ProtocolError> {
    let Some((length, start)) = bulk_header(bytes, from)? else {
        return Ok(None);
    };
    let end = start + length;
    if end + 2 > limits.max_request_size {
        return Err(ProtocolError::LargeRequest {
            limit: limits.max_request_size,
        });
    }
    match bytes.get(end..end + 2) {
        None => Ok(None),
        Some(b"\r\n") => Ok(Some((start, end))),
        Some(_) => Err(ProtocolError::MissingEnd),
    }
}

#[cfg(test)]
mod tests;
