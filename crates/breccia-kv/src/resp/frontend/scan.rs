//! SCAN over shards: one shard after another, as the cursor says (see [`crate::scan_cursor`]).
//!
//! Invariant: a shard that cannot answer fails the scan; it is never passed over.

use super::super::codec::reply::{elements, text};
use super::super::codec::request::Request;
use super::super::encode;
use super::dialogue::{RespDialogue, Step};
use super::marked::visible;
use super::route::Command;
use super::ticket::{Convert, Ticket};
use crate::pipeline::Patience;
use crate::scan_cursor::ScanCursor;

/// Puts the shard's place into the cursor of its reply.
struct ScanReply {
    leaf: usize,
    leaves: usize,
    check: u64,
    /// Whether there are keys to hide.
    marked: bool,
}

impl Convert for ScanReply {
    fn convert(&self, reply: &[u8]) -> Vec<u8> {
        if reply.first() == Some(&b'-') {
            return reply.to_vec();
        }
        self.rewrite(reply).unwrap_or_else(|| {
            let mut out = Vec::new();
            let text = "ERR breccia: a shard's SCAN cursor does not fit in 44 bits";
            encode::error(&mut out, text);
            out
        })
    }
}

impl ScanReply {
    fn rewrite(&self, reply: &[u8]) -> Option<Vec<u8>> {
        let mut parts = elements(reply)?;
        let cursor = text(parts.next()?)?;
        let cursor: u64 = std::str::from_utf8(cursor).ok()?.parse().ok()?;
        let keys = parts.next()?;
        let next = if cursor != 0 {
            ScanCursor {
                leaf: self.leaf,
                upstream: cursor,
            }
            .encode(self.check)?
        } else if self.leaf + 1 < self.leaves {
            ScanCursor {
                leaf: self.leaf + 1,
                upstream: 0,
            }
            .encode(self.check)?
        } else {
            0
        };
        let mut out = Vec::with_capacity(reply.len() + 24);
        encode::array(&mut out, 2);
        encode::bulk(&mut out, next.to_string().as_bytes());
        if self.marked {
            let (count, shown) = visible(keys)?;
            encode::array(&mut out, count);
            out.extend_from_slice(&shown);
        } else {
            out.extend_from_slice(keys);
        }
        Some(out)
    }
}

impl RespDialogue {
    pub(crate) fn scan(&mut self, command: &Command, request: Request<'_>) -> Step {
        if !self.is_sharded() && !self.is_marked() {
            return self.forward_any(command, request);
        }
        let cursor = parse_cursor(request.argument(1));
        let Some(value) = cursor else {
            self.refuse(command.row, "ERR invalid cursor");
            return Step::Done;
        };
        let forward = self.forward();
        let holders = forward.holders();
        let leaves = holders.len();
        let check = forward.fleet.check_of(&forward.leaves);
        let cursor = ScanCursor::decode(value, check, leaves);
        let index = holders.get(cursor.leaf).copied().unwrap_or_default();
        let asked = self.ask(index, command.row);
        let marked = forward.marked;
        let convert = ScanReply {
            leaf: cursor.leaf,
            leaves,
            check,
            marked,
        };
        let ticket = Ticket::Converted(asked, Box::new(convert));
        let upstream = self.held(index).unwrap_or_else(|| self.path(index));
        self.enqueue_ticket(&upstream, ticket, Patience::Timeout, |out| {
            encode::array(out, request.len());
            out.extend_from_slice(request.encoded(0));
            encode::bulk(out, cursor.upstream.to_string().as_bytes());
            for argument in 2..request.len() {
                out.extend_from_slice(request.encoded(argument));
            }
        });
        Step::Done
    }
}

/// A cursor as a server reads it: digits behind a sign or none, and nothing at all is zero.
fn parse_cursor(given: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(given).ok()?;
    let (digits, negative) = match text.strip_prefix('-') {
        Some(digits) => (digits, true),
        None => (text.strip_prefix('+').unwrap_or(text), false),
    };
    if text.is_empty() {
        return Some(0);
    }
    let digits = digits
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some(digits)?;
    let value: u64 = digits.parse().ok()?;
    Some(if negative {
        value.wrapping_neg()
    } else {
        value
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_read_as_by_a_server() {
        let check = |given: &[u8], wanted| assert_eq!(parse_cursor(given), wanted, "{given:?}");
        check(b"", Some(0));
        check(b"17", Some(17));
        check(b"+17", Some(17));
        check(b"-1", Some(u64::MAX));
        check(b"18446744073709551615", Some(u64::MAX));
        for wrong in [
            b"18446744073709551616".as_slice(),
            b"-",
            b"+-1",
            b" 1",
            b"1 ",
            b"x",
            b"\xff",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn replies_lead_to_the_next_leaf_and_to_the_end() {
        let check = |leaf, reply: &str, cursor: u64| {
            let scan = ScanReply {
                leaf,
                leaves: 2,
                check: 1,
                marked: leaf == 1,
            };
            let out = scan.convert(reply.as_bytes());
            let found = text(elements(&out).unwrap().next().unwrap())
                .unwrap()
                .to_vec();
            assert_eq!(String::from_utf8(found).unwrap(), cursor.to_string());
        };
        check(0, "*2\r\n$2\r\n17\r\n*0\r\n", (1 << 44) + 17);
        check(0, "*2\r\n$1\r\n0\r\n*0\r\n", (1 << 52) + (1 << 44));
        check(1, "*2\r\n$1\r\n0\r\n*0\r\n", 0);
        let out = ScanReply {
            leaf: 0,
            leaves: 2,
            check: 1,
            marked: false,
        }
        .convert(b"*2\r\n$20\r\n18446744073709551615\r\n*0\r\n");
        assert!(out.starts_with(b"-ERR breccia"));
    }
}
