//! Several replies that answer one request. Invariant: they are counted as they arrive, so a
//! request of many commands stays one entry of its connection's queue.

use bytes::Bytes;

use super::super::codec::reply::{ReplyScanner, RespWire, is_read_only};
use crate::pipeline::Canary;
use crate::upstream::{Scan, Wire};

/// Redis's replies, as many as the request's shape says.
#[derive(Debug)]
pub(super) struct RepliesWire;

/// How far the replies to one request have been looked at.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// Where the present reply starts.
    start: usize,
    /// How many have come whole.
    whole: usize,
    reply: ReplyScanner,
}

impl Wire for RepliesWire {
    type Shape = usize;
    type Scanner = Scanner;
    type Memory = ();

    fn scan(scanner: &mut Scanner, shape: Option<usize>, bytes: &[u8]) -> Scan {
        // A greeting's replies come one by one.
        let wanted = shape.unwrap_or(1);
        while scanner.whole < wanted {
            let rest = bytes.get(scanner.start..).unwrap_or_default();
            match scanner.reply.scan(rest) {
                Scan::Complete(length) => {
                    scanner.start += length;
                    scanner.whole += 1;
                    scanner.reply = ReplyScanner::default();
                }
                Scan::Skip(_) => {
                    return Scan::Wrong("a push on a connection without subscriptions");
                }
                other => return other,
            }
        }
        Scan::Complete(scanner.start)
    }

    fn disowns(reply: &[u8]) -> bool {
        is_read_only(reply)
    }

    fn canary() -> Canary<usize> {
        Canary {
            bytes: RespWire::canary().bytes,
            shape: 1,
        }
    }
}

/// The replies to one request.
#[derive(Debug)]
pub(super) struct Replies {
    bytes: Bytes,
}

impl Replies {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self { bytes }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.bytes[..];
        std::iter::from_fn(move || {
            let Scan::Complete(length) = ReplyScanner::default().scan(rest) else {
                return None;
            };
            let (reply, others) = rest.split_at_checked(length)?;
            rest = others;
            Some(reply)
        })
    }

    pub(super) fn first(&self) -> &[u8] {
        self.iter().next().unwrap_or_default()
    }

    pub(super) fn last(&self) -> &[u8] {
        self.iter().last().unwrap_or_default()
    }

    /// A part of these bytes, without copying.
    pub(super) fn share(&self, part: &[u8]) -> Bytes {
        self.bytes.slice_ref(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_counted_however_they_are_cut() {
        let whole = b"+OK\r\n$3\r\na\r\n\r\n*2\r\n:1\r\n$-1\r\n+NEXT\r\n";
        for cut in 0..whole.len() {
            let mut scanner = Scanner::default();
            let early = RepliesWire::scan(&mut scanner, Some(3), &whole[..cut]);
            let found = match early {
                Scan::Incomplete => RepliesWire::scan(&mut scanner, Some(3), whole),
                early => early,
            };
            assert_eq!(found, Scan::Complete(27), "cut at {cut}");
        }
        let replies = Replies::new(Bytes::from_static(&whole[..27]));
        assert_eq!(replies.iter().count(), 3);
        assert_eq!(replies.first(), b"+OK\r\n");
        assert_eq!(replies.last(), b"*2\r\n:1\r\n$-1\r\n");
    }
}
