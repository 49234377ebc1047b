//! Putting the parts of a request over several shards together. It sends nothing and waits for
//! nothing.
//!
//! Invariant: hits come in the order of the client's keys, as from one server; a key whose shard
//! could not be asked is never silently left out: the reply then ends in an error, not in `END`.

use super::codec::Values;
use super::wire_error::push_server_error;

/// What became of one shard's part: its reply, or a failure in words.
pub type PartReply<'a> = Result<&'a [u8], &'a str>;

/// Appends the reply to a retrieval: `keys` in the client's order, each with the index of its part.
/// A part holds the hits of its keys in the same order.
pub fn merge_values<'k>(
    keys: impl Iterator<Item = (&'k [u8], usize)>,
    parts: &[PartReply<'_>],
    out: &mut Vec<u8>,
) {
    let mut walks: Vec<_> = parts
        .iter()
        .map(|part| part.map_or(Values::new(b""), Values::new).peekable())
        .collect();
    for (key, part) in keys {
        let Some(walk) = walks.get_mut(part) else {
            continue;
        };
        if let Some(block) = walk.next_if(|block| block.key == key) {
            out.extend_from_slice(block.whole);
        }
    }
    let mut failures = Vec::new();
    for part in parts {
        match part {
            Ok(reply) => failures.extend(end_error(reply)),
            Err(text) => failures.push((*text).to_owned()),
        }
    }
    if failures.is_empty() {
        out.extend_from_slice(b"END\r\n");
    } else {
        push_server_error(failures.join("; "), out);
    }
}

/// The error a server ended its part with, if it did.
fn end_error(reply: &[u8]) -> Option<String> {
    let mut values = Values::new(reply);
    values.by_ref().for_each(drop);
    let last = values.rest();
    (last != b"END\r\n").then(|| {
        let line = last.strip_suffix(b"\r\n").unwrap_or(last);
        format!("a shard answered {}", String::from_utf8_lossy(line))
    })
}

/// Appends the reply to a request that every shard must answer `OK`; parts come with their shards'
/// names.
pub fn merge_ok(parts: &[(&str, PartReply<'_>)], out: &mut Vec<u8>) {
    let mut done = Vec::new();
    let mut failures = Vec::new();
    for (shard, part) in parts {
        match part {
            Ok(b"OK\r\n") => done.push(*shard),
            Ok(reply) => {
                let line = String::from_utf8_lossy(reply);
                failures.push(format!("{shard} answered {}", line.trim_end()));
            }
            Err(text) => failures.push((*text).to_owned()),
        }
    }
    if failures.is_empty() {
        out.extend_from_slice(b"OK\r\n");
        return;
    }
    if !done.is_empty() {
        failures.push(format!("applied on {}", done.join(", ")));
    }
    push_server_error(failures.join("; "), out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(keys: &[(&str, usize)], parts: &[PartReply<'_>], expected: &str) {
        let mut out = Vec::new();
        let keys = keys.iter().map(|(key, part)| (key.as_bytes(), *part));
        merge_values(keys, parts, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn hits_come_in_the_order_of_the_keys() {
        let first = b"VALUE a 0 1\r\n1\r\nVALUE c 0 3\r\nEND\r\nVALUE a 0 1\r\n1\r\nEND\r\n";
        let second = b"VALUE b 5 0 9\r\n\r\nEND\r\n";
        check(
            &[("b", 1), ("a", 0), ("x", 0), ("c", 0), ("y", 1), ("a", 0)],
            &[Ok(first), Ok(second)],
            "VALUE b 5 0 9\r\n\r\nVALUE a 0 1\r\n1\r\nVALUE c 0 3\r\nEND\r\nVALUE a 0 1\r\n1\r\nEND\r\n",
        );
        check(&[("z", 0)], &[Ok(b"END\r\n")], "END\r\n");
        check(&[], &[], "END\r\n");
    }

    #[test]
    fn a_failed_part_is_an_error_and_never_a_miss() {
        let hit = b"VALUE a 0 1\r\n1\r\nEND\r\n";
        check(
            &[("a", 0), ("b", 1)],
            &[Ok(hit), Err("TIMEOUT cache/b")],
            "VALUE a 0 1\r\n1\r\nSERVER_ERROR breccia: TIMEOUT cache/b\r\n",
        );
        check(
            &[("a", 0), ("b", 1)],
            &[
                Ok(hit),
                Ok(b"SERVER_ERROR out of memory writing get response\r\n"),
            ],
            "VALUE a 0 1\r\n1\r\nSERVER_ERROR breccia: a shard answered \
             SERVER_ERROR out of memory writing get response\r\n",
        );
    }

    #[test]
    fn a_flush_that_failed_somewhere_says_where_it_was_applied() {
        let mut out = Vec::new();
        merge_ok(&[("a", Ok(b"OK\r\n")), ("b", Ok(b"OK\r\n"))], &mut out);
        assert_eq!(out, b"OK\r\n");
        out.clear();
        merge_ok(
            &[
                ("a", Ok(b"OK\r\n")),
                ("b", Err("SHARDDOWN b")),
                ("c", Ok(b"ERROR\r\n")),
            ],
            &mut out,
        );
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "SERVER_ERROR breccia: SHARDDOWN b; c answered ERROR; applied on a\r\n"
        );
    }
}
