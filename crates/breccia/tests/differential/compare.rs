//! Which differences between two replies to one request are allowed.
//!
//! Equal bytes are always good. Only what the server's own tips call nondeterministic may differ, and
//! each of those commands has a rule here. Invariant: an error never equals anything but itself.

use anyhow::Result;
use breccia_core::HashKind;
use breccia_kv::resp::commands::{self, CommandSpec, keys, pattern_option};
use breccia_testkit::Reply;

/// Longest that two servers with one history may be apart, in seconds.
const APART_SECONDS: u64 = 20;

/// How two replies to one request are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// Byte by byte.
    Exact,
    /// The outermost collection in any order.
    Sorted,
    /// As `Sorted`, behind a cursor; a part of a scan by its shape.
    Scan {
        /// One step gives everything.
        whole: bool,
    },
    /// Numbers may be apart by so much, for the time that has passed.
    Near(u64),
    /// The kinds of the elements alone.
    Shape,
}

/// Commands whose tips say nondeterministic although the same history gives the same bytes.
const EXACT: [&str; 6] = [
    "object|encoding",
    "object|refcount",
    "object|freq",
    "xautoclaim",
    "xclaim",
    "xtrim",
];
/// Commands that tell of time in seconds.
const SECONDS: [&str; 2] = ["ttl", "expiretime"];
/// Commands that tell of time in milliseconds.
const MILLISECONDS: [&str; 6] = [
    "pttl",
    "pexpiretime",
    "xpending",
    "object|idletime",
    "xinfo|consumers",
    "xinfo|stream",
];

/// The name of a request's command, with that of its subcommand.
pub(crate) fn name(request: &[Vec<u8>]) -> Option<String> {
    let spec = commands::find(request.first()?)?;
    let inner = request.get(1).and_then(|word| spec.subcommand(word));
    Some(match inner {
        Some(inner) => format!("{}|{}", spec.name, inner.name),
        None => spec.name.to_owned(),
    })
}

fn spec(request: &[Vec<u8>]) -> Option<&'static CommandSpec> {
    let spec = commands::find(request.first()?)?;
    Some(
        request
            .get(1)
            .and_then(|word| spec.subcommand(word))
            .unwrap_or(spec),
    )
}

/// The rule for a request.
pub(crate) fn how(request: &[Vec<u8>]) -> How {
    let (Some(name), Some(spec)) = (name(request), spec(request)) else {
        return How::Exact;
    };
    let name = name.as_str();
    if EXACT.contains(&name) || name == "xadd" && !request.iter().any(|word| word == b"*") {
        How::Exact
    } else if SECONDS.contains(&name) {
        How::Near(APART_SECONDS)
    } else if MILLISECONDS.contains(&name) {
        How::Near(APART_SECONDS * 1000)
    } else if spec.nondeterministic_order || is_unsorted(name, request) {
        How::Sorted
    } else if name.ends_with("scan") {
        How::Scan {
            whole: is_whole_scan(request),
        }
    } else if spec.nondeterministic_output || ["info", "hello"].contains(&name) {
        How::Shape // It draws lots, or tells of the server's own clock, seed or memory.
    } else {
        How::Exact
    }
}

/// Whether two replies to one request are as good as equal.
pub(crate) fn alike(how: How, request: &[Vec<u8>], wanted: &[u8], found: &[u8]) -> Result<bool> {
    if wanted == found {
        return Ok(true);
    }
    let is_error = |reply: &[u8]| matches!(reply.first(), Some(b'-' | b'!'));
    if how == How::Exact || is_error(wanted) || is_error(found) {
        return Ok(false);
    }
    let (wanted, found) = (Reply::parse(wanted)?, Reply::parse(found)?);
    Ok(match how {
        How::Exact => false,
        How::Sorted => {
            let pairs = request
                .first()
                .is_some_and(|name| name.eq_ignore_ascii_case(b"hgetall"));
            sorted(pairs, wanted) == sorted(pairs, found)
        }
        How::Scan { whole: true } => all_sorted(wanted) == all_sorted(found),
        How::Scan { whole: false } => wanted.elements().len() == 2 && found.elements().len() == 2,
        How::Near(apart) => near(apart, &wanted, &found),
        How::Shape => wanted.shape() == found.shape(),
    })
}

/// SORT without sorting gives a set's own order, which it has not.
fn is_unsorted(name: &str, request: &[Vec<u8>]) -> bool {
    name.starts_with("sort") && request.iter().any(|word| word == b"nosort")
}

/// RESP2 gives a hash as an array of pairs.
fn sorted(pairs: bool, reply: Reply) -> Reply {
    match reply {
        Reply::Array(all) if pairs => Reply::Map(all).sorted(),
        other => other.sorted(),
    }
}

fn all_sorted(reply: Reply) -> Reply {
    match reply {
        Reply::Array(all) => Reply::Array(all.into_iter().map(all_sorted).collect()).sorted(),
        other => other,
    }
}

/// Whether a scan of a few elements is over in one step.
fn is_whole_scan(request: &[Vec<u8>]) -> bool {
    let cursor = request.iter().skip(1).take(2).any(|word| word == b"0");
    let count = request
        .iter()
        .position(|word| word.eq_ignore_ascii_case(b"count"));
    let count = count.and_then(|at| request.get(at + 1));
    let enough = |count: &Vec<u8>| {
        std::str::from_utf8(count).is_ok_and(|text| text.parse::<u64>().is_ok_and(|n| n >= 10))
    };
    cursor && count.is_none_or(enough)
}

fn near(apart: u64, wanted: &Reply, found: &Reply) -> bool {
    match (wanted, found) {
        (Reply::Integer(wanted), Reply::Integer(found)) => {
            wanted == found || *wanted >= 0 && *found >= 0 && wanted.abs_diff(*found) <= apart
        }
        _ if wanted.elements().is_empty() => wanted == found,
        _ => {
            let (one, other) = (wanted.elements(), found.elements());
            std::mem::discriminant(wanted) == std::mem::discriminant(found)
                && one.len() == other.len()
                && one
                    .iter()
                    .zip(other)
                    .all(|(one, other)| near(apart, one, other))
        }
    }
}

/// Whether a gateway over `shards` must refuse a request that one Redis takes, and the reply does so:
/// keys of different shards, and options that reach past the shard of the key.
pub(crate) fn is_due_refusal(shards: usize, request: &[Vec<u8>], reply: &[u8]) -> bool {
    let Some(spec) = request.first().and_then(|name| commands::find(name)) else {
        return false;
    };
    if shards == 1 {
        return false;
    }
    if reply.starts_with(b"-CROSSSLOT Keys in request don't hash to the same shard\r\n") {
        let mut found = Vec::new();
        let known = keys(spec, request, &mut found).is_ok();
        let shard = |index: &usize| {
            let key = request.get(*index).map(Vec::as_slice).unwrap_or_default();
            HashKind::Xxh3_64.hash(key) % shards as u64
        };
        let mut homes = found.iter().map(shard);
        let first = homes.next();
        return known && homes.any(|home| Some(home) != first);
    }
    if pattern_option(spec, request).is_some() {
        return String::from_utf8_lossy(reply).contains(" option of SORT denied: it reaches keys");
    }
    let to_database = request
        .iter()
        .skip(3)
        .any(|word| word.eq_ignore_ascii_case(b"db"));
    spec.name == "copy" && to_database && reply.starts_with(b"-ERR breccia: 'COPY ")
}
