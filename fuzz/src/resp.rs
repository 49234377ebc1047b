//! The RESP codec, both sides.
//!
//! Invariant checked: cuts do not matter; an accepted request is in canonical form and within its
//! limits, so another parser frames it in the same way; a reply's parts are all of it and lie in it.

use breccia_kv::resp::codec::reply::{ReplyScanner, elements, integer, text};
use breccia_kv::resp::codec::request::{Request, RequestLimits, RequestParser, Rest};
use breccia_kv::resp::encode;
use breccia_kv::upstream::{Pass, Scan};

use crate::pieces::{Step, cut, lies_in, same_however_cut};

/// The limits of a listener without settings, of a client before its login, and tight ones.
const LIMITS: [RequestLimits; 3] = [
    RequestLimits {
        max_request_size: 64 << 20,
        max_arguments: 1 << 20,
    },
    RequestLimits::UNAUTHENTICATED,
    RequestLimits {
        max_request_size: 64,
        max_arguments: 3,
    },
];

/// What an unfinished or inline request may take whatever its limit: Redis's bound on a line.
const LINE: usize = 64 << 10;

/// Requests from a client; the first byte picks the limits.
pub fn resp_request(data: &[u8]) {
    let Some((first, data)) = data.split_first() else {
        return;
    };
    let limits = LIMITS[usize::from(*first) % LIMITS.len()];
    same_however_cut(data, RequestParser::default, |parser, bytes, closely| {
        read(parser, bytes, &limits, closely)
    });
    streamed_requests_end_where_held_ones_do(data, &limits);
    written_requests_read_back(data);
}

/// A request that is passed on from some argument on is framed as one that is held.
fn streamed_requests_end_where_held_ones_do(data: &[u8], limits: &RequestLimits) {
    let whole = RequestParser::default().parse(data, limits);
    for seen in seen(data, whole.ok().flatten()) {
        let mut parser = RequestParser::default();
        let (head, _) = data.split_at(seen);
        if parser.parse(head, limits) != Ok(None) {
            continue;
        }
        let Some(pending) = parser.pending(head) else {
            continue;
        };
        if pending.request_size() > limits.max_request_size {
            continue; // refused before it is streamed
        }
        let before = parser.beginning(head, &pending).len();
        let mut rest = Rest::after(&pending, before);
        let (mut at, mut ended) = (pending.start, false);
        let mut refused = false;
        for piece in cut(&data[pending.start..], 3, 90) {
            // What was not taken comes again with more behind it.
            let end = piece.as_ptr_range().end as usize - data.as_ptr() as usize;
            match rest.pass(&data[at..end], limits) {
                Ok(passed) => (at, ended) = (at + passed.count, passed.ended),
                Err(_) => refused = true,
            }
            if ended || refused {
                break;
            }
        }
        match &whole {
            Ok(Some(length)) => assert!(ended && at == *length, "{seen}: {at} of {length}"),
            Ok(None) => {
                assert!(!ended, "{seen}: an end where there is none");
                // The end of a value is looked at byte by byte here, and as a pair there.
                assert!(!refused || never_one(data, limits), "{seen}: refused");
            }
            Err(_) => assert!(!ended, "{seen}: an end of what is no request"),
        }
    }
}

/// Whether what is not refused yet will be, whatever comes.
fn never_one(data: &[u8], limits: &RequestLimits) -> bool {
    let longer = [data, b"\r\n"].concat();
    RequestParser::default().parse(&longer, limits).is_err()
}

/// Some places to change over at, before the end of a frame if there is one.
fn seen(data: &[u8], length: Option<usize>) -> impl Iterator<Item = usize> {
    let end = length.unwrap_or(data.len());
    let step = (end / 24).max(1);
    (1..end).step_by(step)
}

fn read(
    parser: &mut RequestParser,
    bytes: &[u8],
    limits: &RequestLimits,
    closely: bool,
) -> Step<Result<Vec<Vec<u8>>, String>> {
    match parser.parse(bytes, limits) {
        Ok(None) => {
            let most = limits.max_request_size.max(LINE) + 40;
            assert!(
                bytes.len() <= most,
                "{} bytes wait for more than the limit",
                bytes.len()
            );
            Step::More
        }
        Err(error) => {
            let mut reply = Vec::new();
            encode::error(&mut reply, &format!("ERR {error}"));
            check_reply(&reply, 0);
            Step::Last(Err(error.to_string()))
        }
        Ok(Some(length)) => {
            assert!(
                length <= limits.max_request_size.max(40) + 1,
                "a request above its limit"
            );
            let request = parser.request(bytes, length);
            let arguments: Vec<Vec<u8>> = request.arguments().map(<[u8]>::to_vec).collect();
            assert!(arguments.len() <= limits.max_arguments);
            if closely {
                check_request(request, &bytes[..length], &arguments);
            }
            parser.reset();
            Step::Frame(Ok(arguments), length)
        }
    }
}

fn check_request(request: Request<'_>, bytes: &[u8], arguments: &[Vec<u8>]) {
    assert_eq!(
        (request.len(), request.is_empty()),
        (arguments.len(), arguments.is_empty())
    );
    let frame = request.frame();
    assert!(
        bytes[0] != b'*' || std::ptr::eq(frame, bytes),
        "an array is read in place"
    );
    let mut parts = 0;
    for (at, argument) in arguments.iter().enumerate() {
        assert_eq!(request.argument(at), argument.as_slice());
        assert!(lies_in(frame, request.argument(at)));
        let part = request.encoded(at);
        let header = format!("${}\r\n", argument.len());
        assert_eq!(part, [header.as_bytes(), argument, b"\r\n"].concat());
        assert!(lies_in(frame, part));
        parts += part.len();
    }
    assert!(request.argument(arguments.len()).is_empty());
    if arguments.is_empty() {
        return; // answered with nothing, never forwarded
    }
    let header = format!("*{}\r\n", arguments.len());
    assert!(frame.starts_with(header.as_bytes()) && frame.len() == header.len() + parts);
    let unlimited = RequestLimits {
        max_request_size: usize::MAX,
        max_arguments: usize::MAX,
    };
    let mut again = RequestParser::default();
    assert_eq!(
        again.parse(frame, &unlimited),
        Ok(Some(frame.len())),
        "{}",
        frame.escape_ascii()
    );
    assert!(again.request(frame, frame.len()).arguments().eq(arguments));
}

/// Arguments of any bytes, written as a client would, are read as they were.
fn written_requests_read_back(data: &[u8]) {
    let arguments: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    let mut frame = Vec::new();
    encode::request(&mut frame, &arguments);
    let mut parser = RequestParser::default();
    assert_eq!(parser.parse(&frame, &LIMITS[0]), Ok(Some(frame.len())));
    assert!(
        parser
            .request(&frame, frame.len())
            .arguments()
            .eq(arguments)
    );
}

/// Replies from a server.
pub fn resp_reply(data: &[u8]) {
    same_however_cut(
        data,
        ReplyScanner::default,
        |scanner, bytes, closely| match scanner.scan(bytes) {
            Scan::Incomplete => Step::More,
            Scan::Wrong(why) => Step::Last((why, false)),
            Scan::Complete(length) | Scan::Skip(length) => {
                if closely {
                    check_reply(&bytes[..length], 0);
                }
                *scanner = ReplyScanner::default();
                Step::Frame(("", bytes[0] == b'>'), length)
            }
        },
    );
    passed_replies_end_where_collected_ones_do(data);
    written_replies_read_back(data);
}

/// A reply that is passed on from some byte on is framed as one that is collected.
fn passed_replies_end_where_collected_ones_do(data: &[u8]) {
    let whole = ReplyScanner::default().scan(data);
    let length = match whole {
        Scan::Complete(length) => Some(length),
        Scan::Skip(_) => return, // never passed on
        _ => None,
    };
    for seen in seen(data, length) {
        let mut scanner = ReplyScanner::default();
        let (head, _) = data.split_at(seen);
        if scanner.scan(head) != Scan::Incomplete {
            continue;
        }
        let least = scanner.at_least(head);
        assert!(
            length.is_none_or(|length| least <= length),
            "{seen}: too long"
        );
        let (mut at, mut end, mut refused) = (0, None, false);
        let mut ends = cut(&data[seen..], 3, 90)
            .into_iter()
            .map(|piece| piece.as_ptr_range().end as usize - data.as_ptr() as usize);
        let mut to = seen;
        loop {
            match scanner.pass(&data[at..to]) {
                Pass::Part(count) => at += count,
                Pass::End(count) => end = Some(at + count),
                Pass::Wrong(_) => refused = true,
            }
            let Some(next) = ends.next().filter(|_| end.is_none() && !refused) else {
                break;
            };
            to = next;
        }
        match whole {
            Scan::Complete(length) => assert_eq!(end, Some(length), "{seen}"),
            Scan::Incomplete => {
                assert!(end.is_none(), "{seen}: {end:?}");
                let longer = [data, b"\r\n"].concat();
                let will_be = matches!(ReplyScanner::default().scan(&longer), Scan::Wrong(_));
                // The end of a value is looked at byte by byte here, and as a pair there.
                assert!(!refused || will_be, "{seen}: refused");
            }
            _ => assert!(end.is_none(), "{seen}: an end of what is no reply"),
        }
    }
}

/// Arrays within arrays are looked into this deep.
const MOST_LEVELS: usize = 40;

fn check_reply(reply: &[u8], level: usize) {
    let mut scanner = ReplyScanner::default();
    let kind = reply[0];
    let whole = if kind == b'>' {
        Scan::Skip(reply.len())
    } else {
        Scan::Complete(reply.len())
    };
    assert_eq!(scanner.scan(reply), whole);
    if let Some(value) = integer(reply) {
        assert_eq!(kind, b':');
        let mut out = Vec::new();
        encode::integer(&mut out, value);
        assert_eq!(integer(&out), Some(value));
    }
    if let Some(text) = text(reply) {
        assert!(matches!(kind, b'+' | b'$') && lies_in(reply, text));
        let mut out = Vec::new();
        encode::bulk(&mut out, text);
        assert!(kind == b'+' || out == reply, "a bulk string is canonical");
    }
    let Some(elements) = elements(reply) else {
        assert!(
            !matches!(kind, b'*' | b'~' | b'>' | b'%'),
            "an array has elements"
        );
        return;
    };
    let (count, header) = announced(reply);
    assert_eq!(elements.left(), count);
    let elements: Vec<&[u8]> = elements.collect();
    assert_eq!(
        elements.len() as u64,
        count,
        "the announced number of elements"
    );
    let total: usize = elements.iter().map(|element| element.len()).sum();
    assert_eq!(
        header + total,
        reply.len(),
        "an array is its elements and nothing else"
    );
    for element in elements {
        assert!(lies_in(reply, element));
        if level < MOST_LEVELS {
            check_reply(element, level + 1);
        }
    }
}

/// How many elements an array's header promises, and the header's length. Nulls have none.
fn announced(reply: &[u8]) -> (u64, usize) {
    let end = reply
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or_default();
    let digits = std::str::from_utf8(&reply[1..end])
        .unwrap_or_default()
        .trim_end();
    let count: i64 = digits.parse().expect("the scanner accepted it");
    let count = u64::try_from(count).unwrap_or(0);
    (if reply[0] == b'%' { count * 2 } else { count }, end + 1)
}

/// What `encode` writes is one whole reply.
fn written_replies_read_back(data: &[u8]) {
    let parts: Vec<&[u8]> = data.split(|byte| *byte == b'\n').take(64).collect();
    let mut reply = Vec::new();
    encode::array(&mut reply, parts.len());
    for (at, part) in parts.iter().enumerate() {
        match at % 3 {
            0 => encode::bulk(&mut reply, part),
            1 => encode::error_bytes(&mut reply, part),
            _ => encode::verbatim(&mut reply, part),
        }
    }
    check_reply(&reply, 0);
    let first = elements(&reply)
        .and_then(|mut all| all.next())
        .and_then(text);
    assert_eq!(first, parts.first().copied());
}
