//! Replies: finds the end of one, RESP2 or RESP3, without building a value.
//!
//! Invariant: the scanner never looks twice at what it has passed, so a reply that arrives in a
//! thousand pieces costs as much as one that arrives whole.

mod passing;

use super::super::peer::Peer;
use super::{line, number};
use crate::pipeline::Canary;
use crate::upstream::{Pass, Scan, Wire};

/// Redis replies frame themselves: nothing of the request is needed.
#[derive(Debug)]
pub struct RespWire;

impl Wire for RespWire {
    type Shape = Expected;
    type Scanner = ReplyScanner;
    type Memory = Peer;

    #[inline]
    fn scan(scanner: &mut ReplyScanner, expected: Option<Expected>, bytes: &[u8]) -> Scan {
        match expected {
            Some(Expected::AfterLine) => after_line(scanner, bytes),
            _ => scanner.scan(bytes),
        }
    }

    fn at_least(scanner: &ReplyScanner, bytes: &[u8]) -> usize {
        scanner.at_least(bytes)
    }

    fn pass(scanner: &mut ReplyScanner, bytes: &[u8]) -> Pass {
        scanner.pass(bytes)
    }

    #[inline]
    fn disowns(reply: &[u8]) -> bool {
        is_read_only(reply)
    }

    fn canary() -> Canary<Expected> {
        Canary {
            bytes: b"*1\r\n$4\r\nPING\r\n",
            shape: Expected::One,
        }
    }

    /// A PING would be queued; a nested MULTI is refused at once and spoils nothing (Redis 2 to 7:
    /// `multiCommand` answers an error without marking the transaction).
    fn canary_in_transaction() -> Canary<Expected> {
        Canary {
            bytes: b"*1\r\n$5\r\nMULTI\r\n",
            shape: Expected::One,
        }
    }
}

/// How many replies answer a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expected {
    /// One.
    #[default]
    One,
    /// A line, which answers ASKING, and the reply proper: one entry of the queue, so that nothing
    /// comes between the two.
    AfterLine,
}

/// The length of a line that has come whole.
pub(crate) fn line_length(bytes: &[u8]) -> Option<usize> {
    line(bytes, 0).map(|(_, next)| next)
}

fn after_line(scanner: &mut ReplyScanner, bytes: &[u8]) -> Scan {
    match bytes.first() {
        None => return Scan::Incomplete,
        Some(b'+' | b'-') => {}
        Some(_) => return Scan::Wrong("no line in answer to ASKING"),
    }
    let Some(start) = line_length(bytes) else {
        return Scan::Incomplete;
    };
    match scanner.scan(bytes.get(start..).unwrap_or_default()) {
        Scan::Complete(length) => Scan::Complete(start + length),
        Scan::Skip(_) => Scan::Wrong("a push on a connection without subscriptions"),
        other => other,
    }
}

/// Whether a server has refused a write because it is a replica: nothing was applied.
#[inline]
pub(crate) fn is_read_only(reply: &[u8]) -> bool {
    reply.first() == Some(&b'-') && reply.starts_with(b"-READONLY ")
}

/// How far a reply has been looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReplyScanner {
    /// Where the next element starts.
    at: usize,
    /// Elements that still have to come, once the first has begun.
    left: Option<u64>,
    /// Bytes that still have to come of a bulk string that is passed on, its end included.
    bulk: usize,
}

/// Elements of one reply; more is a broken stream, not data.
const MAX_ELEMENTS: u64 = 1 << 40;

impl ReplyScanner {
    /// See [`Wire::scan`].
    pub fn scan(&mut self, bytes: &[u8]) -> Scan {
        let mut left = self.left.unwrap_or(1);
        while left > 0 {
            match element(bytes, self.at) {
                Ok(Some(Element { next, children })) => {
                    self.at = next;
                    left = left - 1 + children;
                    if left > MAX_ELEMENTS {
                        return Scan::Wrong("a reply with too many elements");
                    }
                }
                Ok(None) => {
                    self.left = Some(left);
                    return Scan::Incomplete;
                }
                Err(why) => return Scan::Wrong(why),
            }
        }
        self.left = Some(0);
        if bytes.first() == Some(&b'>') {
            Scan::Skip(self.at)
        } else {
            Scan::Complete(self.at)
        }
    }
}

/// Lines that hold a number or a length end within this many bytes.
const MAX_NUMBER_LINE: usize = 40;

struct Element {
    next: usize,
    children: u64,
}

fn element(bytes: &[u8], at: usize) -> Result<Option<Element>, &'static str> {
    let Some(head) = head(bytes, at)? else {
        return Ok(None);
    };
    let Head {
        element,
        bulk: Some(length),
    } = head
    else {
        return Ok(Some(head.element));
    };
    let end = element.next + length;
    match bytes.get(end..end + 2) {
        None => Ok(None),
        Some(b"\r\n") => Ok(Some(Element {
            next: end + 2,
            children: 0,
        })),
        Some(_) => Err(WRONG_END),
    }
}

const WRONG_END: &str = "a bulk string that does not end in CR LF";

/// An element up to where the bytes of a bulk string begin.
struct Head {
    element: Element,
    /// The length of the bulk string, if it is one.
    bulk: Option<usize>,
}

fn head(bytes: &[u8], at: usize) -> Result<Option<Head>, &'static str> {
    let Some(kind) = bytes.get(at) else {
        return Ok(None);
    };
    let Some((text, next)) = line(bytes, at + 1) else {
        let waiting = bytes.len() - at;
        return match kind {
            b'+' | b'-' | b'(' => Ok(None),
            _ if waiting <= MAX_NUMBER_LINE || *kind == b',' => Ok(None),
            _ => Err("a length line without an end"),
        };
    };
    let free = matches!(kind, b'+' | b'-' | b'(' | b',');
    if !free && next - at > MAX_NUMBER_LINE + 1 {
        return Err("a length line without an end");
    }
    let text = text
        .strip_suffix(b"\r")
        .ok_or("a line that ends in LF alone")?;
    let head = |children, bulk| {
        let element = Element { next, children };
        Ok(Some(Head { element, bulk }))
    };
    match kind {
        b'+' | b'-' | b':' | b'(' | b',' | b'#' | b'_' => head(0, None),
        b'$' | b'=' | b'!' => {
            let length = number(text).ok_or("a bulk length that is no number")?;
            if length == -1 {
                return head(0, None);
            }
            let length = usize::try_from(length).map_err(|_| "a negative bulk length")?;
            head(0, Some(length))
        }
        b'*' | b'~' | b'>' | b'%' | b'|' => {
            let count = number(text).ok_or("an array length that is no number")?;
            if count == -1 {
                return head(0, None);
            }
            let count = u64::try_from(count).map_err(|_| "a negative array length")?;
            let children = match kind {
                b'%' => count.saturating_mul(2),
                b'|' => count.saturating_mul(2).saturating_add(1),
                _ => count,
            };
            head(children.min(MAX_ELEMENTS + 1), None)
        }
        _ => Err("an unknown reply type"),
    }
}

/// The elements of an array reply that has arrived whole, each as its bytes. `None` if it is not
/// an array (an error, say).
#[must_use]
pub fn elements(reply: &[u8]) -> Option<Elements<'_>> {
    if !matches!(reply.first(), Some(b'*' | b'~' | b'>' | b'%')) {
        return None;
    }
    let (text, at) = line(reply, 1)?;
    let count = number(text.strip_suffix(b"\r")?)?;
    let count = if reply.first() == Some(&b'%') {
        count * 2
    } else {
        count
    };
    Some(Elements {
        reply,
        at,
        left: u64::try_from(count).unwrap_or(0),
    })
}

/// See [`elements`].
#[derive(Clone, Debug)]
pub struct Elements<'r> {
    reply: &'r [u8],
    at: usize,
    left: u64,
}

impl Elements<'_> {
    /// How many are left.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left
    }
}

impl<'r> Iterator for Elements<'r> {
    type Item = &'r [u8];

    fn next(&mut self) -> Option<&'r [u8]> {
        if self.left == 0 {
            return None;
        }
        let rest = self.reply.get(self.at..)?;
        let mut scanner = ReplyScanner::default();
        let (Scan::Complete(length) | Scan::Skip(length)) = scanner.scan(rest) else {
            return None;
        };
        self.left -= 1;
        self.at += length;
        rest.get(..length)
    }
}

/// The integer of an integer reply that has arrived whole.
#[must_use]
pub fn integer(reply: &[u8]) -> Option<i64> {
    let text = reply.strip_prefix(b":")?.strip_suffix(b"\r\n")?;
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The payload of a bulk or simple string that has arrived whole; `None` for nulls and the rest.
#[must_use]
pub fn text(reply: &[u8]) -> Option<&[u8]> {
    match reply.first()? {
        b'+' => reply.get(1..reply.len().checked_sub(2)?),
        b'$' => {
            let (length, start) = line(reply, 1)?;
            let length = usize::try_from(number(length.strip_suffix(b"\r")?)?).ok()?;
            reply.get(start..start + length)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
