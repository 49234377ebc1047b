//! SCAN over shards. The cursor names the shard, so it is valid on every gateway with the same
//! layout and nothing is remembered here.
//!
//! Cursor, 64 bits: bit 63 zero (clients parse i64); 62–52 the leaf; 51–44 a check of the list of
//! leaves; 43–0 the shard's own cursor. Invariant: a cursor made for another list of leaves starts
//! the scan again, which repeats keys and omits none.

use super::super::codec::reply::{elements, text};
use super::super::codec::request::Request;
use super::super::encode;
use super::dialogue::{RespDialogue, Step};
use super::route::Command;
use super::ticket::{Convert, Ticket};
use crate::pipeline::Patience;
use crate::topology::LeafIndex;
use breccia_core::HashKind;

const UPSTREAM_BITS: u32 = 44;
const CHECK_BITS: u32 = 8;
const LEAF_BITS: u32 = 11;

/// A cursor, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    leaf: u64,
    upstream: u64,
}

impl Cursor {
    fn decode(value: u64, check: u64) -> Self {
        let leaf = value >> (UPSTREAM_BITS + CHECK_BITS) & ((1 << LEAF_BITS) - 1);
        let found = value >> UPSTREAM_BITS & ((1 << CHECK_BITS) - 1);
        if value == 0 || found != check {
            return Self { leaf: 0, upstream: 0 };
        }
        Self { leaf, upstream: value & ((1 << UPSTREAM_BITS) - 1) }
    }

    fn encode(self, check: u64) -> u64 {
        self.leaf << (UPSTREAM_BITS + CHECK_BITS) | check << UPSTREAM_BITS | self.upstream
    }
}

/// Eight bits that tell one list of leaves from another; never zero, so no cursor made here is.
pub(crate) fn check_of<'a>(leaves: impl Iterator<Item = &'a str>) -> u64 {
    let names: Vec<&str> = leaves.collect();
    HashKind::Xxh3_64.hash(names.join("\n").as_bytes()) % 255 + 1
}

/// Puts the shard's place into the cursor of its reply.
struct ScanReply {
    leaf: u64,
    leaves: u64,
    check: u64,
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
            if cursor >> UPSTREAM_BITS != 0 {
                return None;
            }
            Cursor { leaf: self.leaf, upstream: cursor }.encode(self.check)
        } else if self.leaf + 1 < self.leaves {
            Cursor { leaf: self.leaf + 1, upstream: 0 }.encode(self.check)
        } else {
            0
        };
        let mut out = Vec::with_capacity(reply.len() + 24);
        encode::array(&mut out, 2);
        encode::bulk(&mut out, next.to_string().as_bytes());
        out.extend_from_slice(keys);
        Some(out)
    }
}

impl RespDialogue {
    pub(crate) fn scan(&mut self, command: &Command, request: Request<'_>) -> Step {
        if !self.is_sharded() {
            return self.forward_any(command, request);
        }
        let cursor =
            std::str::from_utf8(request.argument(1)).ok().and_then(|text| text.parse().ok());
        let Some(value) = cursor else {
            self.refuse(command.row, "ERR invalid cursor");
            return Step::Done;
        };
        let forward = self.forward();
        let leaves = forward.leaves.len() as u64;
        let check = check_of(forward.leaves.iter().map(|leaf| leaf.spec.name.as_str()));
        let mut cursor = Cursor::decode(value, check);
        if cursor.leaf >= leaves {
            cursor = Cursor { leaf: 0, upstream: 0 };
        }
        let index = usize::try_from(cursor.leaf).ok().and_then(LeafIndex::new).unwrap_or_default();
        let asked = self.ask(index, command.row);
        let convert = ScanReply { leaf: cursor.leaf, leaves, check };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_survive_the_way_there_and_back() {
        for cursor in [
            Cursor { leaf: 0, upstream: 1 },
            Cursor { leaf: 2047, upstream: (1 << 44) - 1 },
            Cursor { leaf: 5, upstream: 0 },
        ] {
            let value = cursor.encode(7);
            assert!(i64::try_from(value).is_ok());
            assert_eq!(Cursor::decode(value, 7), cursor);
            assert_eq!(Cursor::decode(value, 8), Cursor { leaf: 0, upstream: 0 });
        }
    }

    #[test]
    fn replies_lead_to_the_next_leaf_and_to_the_end() {
        let check = |leaf, reply: &str, cursor: u64| {
            let out = ScanReply { leaf, leaves: 2, check: 1 }.convert(reply.as_bytes());
            let found = text(elements(&out).unwrap().next().unwrap()).unwrap().to_vec();
            assert_eq!(String::from_utf8(found).unwrap(), cursor.to_string());
        };
        check(0, "*2\r\n$2\r\n17\r\n*0\r\n", 1 << 44 | 17);
        check(0, "*2\r\n$1\r\n0\r\n*0\r\n", 1 << 52 | 1 << 44);
        check(1, "*2\r\n$1\r\n0\r\n*0\r\n", 0);
        let out = ScanReply { leaf: 0, leaves: 2, check: 1 }
            .convert(b"*2\r\n$20\r\n18446744073709551615\r\n*0\r\n");
        assert!(out.starts_with(b"-ERR breccia"));
    }
}
