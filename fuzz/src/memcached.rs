//! The memcached codec, both sides, and what is written anew from a request.
//!
//! Invariant checked: cuts do not matter; a request's parts lie in it; what goes upstream for it is
//! one request of the same meaning that asks for its reply; a reply's blocks are all of it.

use breccia_kv::memcached::codec::{
    Command, Decoded, Decoder, MAX_KEY_BYTES, MAX_LINE_BYTES, MetaReply, ReplyScanner, Request,
    ScannedReply, Shape, Values, is_error,
};
use breccia_kv::memcached::rewrite::{Quiet, forward};

use crate::pieces::{Step, lies_in, same_however_cut};

/// A listener's usual limit, one that is hit soon, and one little above the longest line.
const LIMITS: [usize; 3] = [64 << 20, 100, 3000];

/// Requests from a client; the first byte picks the limit.
pub fn memcached_request(data: &[u8]) {
    let Some((first, data)) = data.split_first() else {
        return;
    };
    let limit = LIMITS[usize::from(*first) % LIMITS.len()];
    let most = limit.max(MAX_LINE_BYTES);
    same_however_cut(
        data,
        || Decoder::new(limit),
        |decoder, bytes, closely| match decoder.decode(bytes) {
            Decoded::Incomplete => {
                assert!(
                    bytes.len() <= most,
                    "{} bytes wait for more than the limit",
                    bytes.len()
                );
                Step::More
            }
            Decoded::Head(request) => {
                assert!(request.line_length <= bytes.len() && bytes.len() < request.frame_length);
                assert!(
                    request.frame_length <= most,
                    "a data block above the limit is waited for"
                );
                Step::More
            }
            Decoded::Request(request) => {
                if closely {
                    check_request(&request, &bytes[..request.frame_length]);
                }
                let found = (request.noreply, request.plain, request.line_length);
                let found = format!("{found:?} {}", meaning(&request));
                Step::Frame(found, request.frame_length)
            }
            Decoded::Wrong(wrong) if wrong.close => Step::Last(format!("{wrong:?}")),
            Decoded::Wrong(wrong) => {
                assert!(!wrong.reply.contains(['\r', '\n']));
                Step::Drop(format!("{wrong:?}"), wrong.length)
            }
        },
    );
    written_requests_read_back(data);
}

fn check_request(request: &Request<'_>, frame: &[u8]) {
    assert!(request.line_length <= request.frame_length);
    let (line, block) = frame.split_at(request.line_length);
    assert_eq!(
        line.iter().position(|byte| *byte == b'\n'),
        Some(line.len() - 1),
        "one line"
    );
    if !block.is_empty() {
        assert_eq!(block, [request.data, b"\r\n"].concat());
        assert!(lies_in(block, request.data));
    }
    let check_key = |key: &[u8]| {
        assert!((1..=MAX_KEY_BYTES).contains(&key.len()) && lies_in(line, key));
        assert!(
            !key.iter().any(|byte| matches!(byte, b' ' | b'\n' | 0)),
            "{key:?}"
        );
    };
    match &request.command {
        Command::Retrieve { keys, .. } => {
            assert_eq!(keys.iter().count(), keys.count());
            keys.iter().for_each(check_key);
        }
        Command::Store { key, .. }
        | Command::Arithmetic { key, .. }
        | Command::Delete { key }
        | Command::Touch { key, .. } => check_key(key),
        Command::Meta(meta) => {
            check_key(meta.key.text);
            assert!((1..=MAX_KEY_BYTES).contains(&meta.key.bytes().len()));
        }
        _ => {}
    }
    check_forwarded(request, frame);
}

/// What goes upstream is one loud request of the same meaning, and would pass as it is.
fn check_forwarded(request: &Request<'_>, frame: &[u8]) {
    let mut out = Vec::new();
    let Some(shape) = forward(request, frame, &mut out) else {
        assert!(out.is_empty());
        return;
    };
    assert!(out.len() <= frame.len() + 12, "rewriting makes it longer");
    // What only the server knows to be quiet stays so, with a sign behind it that it is done.
    let quiet = Quiet::of(request);
    let mut loud = Quiet::No;
    if quiet == Quiet::Kept {
        loud = quiet;
        let sent = out.strip_suffix(b"mn\r\n");
        out = sent.expect("a sign that it is done").to_vec();
    }
    let decoded = Decoder::new(usize::MAX).decode(&out);
    let Decoded::Request(again) = decoded else {
        panic!(
            "{} became {}: {decoded:?}",
            frame.escape_ascii(),
            out.escape_ascii()
        );
    };
    assert_eq!(again.frame_length, out.len(), "one request became several");
    assert_eq!(Quiet::of(&again), loud, "{}", out.escape_ascii());
    assert_eq!(again.data, request.data);
    assert_eq!(meaning(&again), meaning(request));
    let mut third = Vec::new();
    assert_eq!(forward(&again, &out, &mut third), Some(shape));
    if loud == Quiet::Kept {
        out.extend_from_slice(b"mn\r\n");
        assert_eq!(out, third);
        return;
    }
    assert_eq!(out, third);
    let never_plain = match &request.command {
        Command::FlushAll { .. } => true,
        Command::Retrieve { keys, .. } => keys.count() == 0,
        _ => false,
    };
    assert!(
        again.plain || never_plain,
        "{} is not plain",
        out.escape_ascii()
    );
}

/// A command without what Breccia keeps to itself (`q`) and what has one meaning only.
fn meaning(request: &Request<'_>) -> String {
    match &request.command {
        Command::Retrieve {
            verb,
            exptime,
            keys,
        } => {
            let keys: Vec<&[u8]> = keys.iter().collect();
            format!("{verb:?} {exptime} {}", keys.join(&b' ').escape_ascii())
        }
        Command::FlushAll { delay } => format!("flush {}", (*delay).max(0)),
        Command::Meta(meta) => {
            let loud = |flag: &&[u8]| flag.first() != Some(&b'q');
            let flags: Vec<&[u8]> = meta.flags.iter().filter(loud).collect();
            let flags = flags.join(&b' ').escape_ascii().to_string();
            let (ttl, vivify, cas) = (meta.flags.ttl, meta.flags.vivify, meta.flags.cas);
            format!(
                "{:?} {:?} {flags:?} {ttl:?} {vivify:?} {cas:?}",
                meta.verb, meta.key
            )
        }
        other => format!("{other:?}"),
    }
}

/// A data block of any bytes is read as it was written, also one that looks like commands.
fn written_requests_read_back(data: &[u8]) {
    let store = [
        format!("set k 1 2 {}\r\n", data.len()).as_bytes(),
        data,
        b"\r\n",
    ]
    .concat();
    let meta = [
        format!("ms k {} c\r\n", data.len()).as_bytes(),
        data,
        b"\r\n",
    ]
    .concat();
    for frame in [store, meta] {
        match Decoder::new(LIMITS[0]).decode(&frame) {
            Decoded::Request(request) => {
                assert_eq!((request.data, request.frame_length), (data, frame.len()));
                assert!(request.plain);
            }
            other => panic!("{other:?}"),
        }
    }
}

const SHAPES: [Shape; 14] = [
    Shape::Values,
    Shape::Storage,
    Shape::Delete,
    Shape::Touch,
    Shape::Arithmetic,
    Shape::Ok,
    Shape::Version,
    Shape::Stats,
    Shape::MetaGet,
    Shape::MetaSet,
    Shape::MetaDelete,
    Shape::MetaArithmetic,
    Shape::MetaDebug,
    Shape::MetaNoop,
];

/// Replies from a server; the first byte picks what was asked.
pub fn memcached_reply(data: &[u8]) {
    let Some((first, data)) = data.split_first() else {
        return;
    };
    let shape = SHAPES[usize::from(*first) % SHAPES.len()];
    same_however_cut(
        data,
        ReplyScanner::default,
        |scanner, bytes, closely| match scanner.scan(shape, bytes) {
            ScannedReply::Incomplete => Step::More,
            ScannedReply::Wrong(why) => Step::Last(why),
            ScannedReply::Complete(length) => {
                if closely {
                    check_reply(shape, &bytes[..length]);
                }
                *scanner = ReplyScanner::default();
                Step::Frame("", length)
            }
        },
    );
    written_replies_read_back(data);
}

fn check_reply(shape: Shape, reply: &[u8]) {
    assert!(reply.ends_with(b"\r\n"));
    let first_end = reply.iter().position(|byte| *byte == b'\n');
    match shape {
        Shape::Values => check_values(reply),
        Shape::MetaGet | Shape::MetaArithmetic if !is_error(reply) => check_meta(reply),
        Shape::Stats => {}
        _ => assert_eq!(first_end, Some(reply.len() - 1), "the reply is one line"),
    }
}

fn check_values(reply: &[u8]) {
    let mut values = Values::new(reply);
    let mut total = 0;
    for block in values.by_ref() {
        assert!(lies_in(reply, block.whole) && lies_in(block.whole, block.key));
        assert!(lies_in(block.whole, block.data) && block.whole.ends_with(b"\r\n"));
        let line = block.whole.len() - block.data.len() - 2;
        assert_eq!(&block.whole[line..line + block.data.len()], block.data);
        total += block.whole.len();
    }
    let rest = values.rest();
    assert_eq!(total + rest.len(), reply.len());
    assert!(
        rest == b"END\r\n" || is_error(rest),
        "not a last line: {}",
        rest.escape_ascii()
    );
    assert_eq!(
        rest.iter().position(|byte| *byte == b'\n'),
        Some(rest.len() - 1)
    );
}

fn check_meta(reply: &[u8]) {
    let meta = MetaReply::new(reply).expect("a whole meta reply can be taken apart");
    let line = reply
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1);
    let block = meta.value.map_or(0, |value| value.len() + 2);
    assert_eq!(line + block, reply.len());
    assert_eq!(meta.value.is_some(), meta.code == b"VA");
    assert!(meta.value.is_none_or(|value| lies_in(reply, value)));
    let _any = meta.flag(b'c');
}

/// Values of any bytes come out as they went in.
fn written_replies_read_back(data: &[u8]) {
    let mut reply = Vec::new();
    let parts: Vec<&[u8]> = data.split(|byte| *byte == b'\n').take(32).collect();
    for part in &parts {
        reply.extend_from_slice(format!("VALUE k 7 {} 9\r\n", part.len()).as_bytes());
        reply.extend_from_slice(part);
        reply.extend_from_slice(b"\r\n");
    }
    reply.extend_from_slice(b"END\r\n");
    let whole = ScannedReply::Complete(reply.len());
    assert_eq!(ReplyScanner::default().scan(Shape::Values, &reply), whole);
    let found: Vec<&[u8]> = Values::new(&reply).map(|block| block.data).collect();
    assert_eq!(found, parts);
}
