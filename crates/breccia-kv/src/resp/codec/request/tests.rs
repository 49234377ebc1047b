//! Requests: canonical ones, broken ones, and every way to cut them.

use super::*;

const LIMITS: RequestLimits = RequestLimits {
    max_request_size: 1 << 20,
    max_arguments: 1000,
};

/// Parses all requests in `bytes`, given whole, and again split at every byte boundary; the two
/// must agree.
fn check(bytes: &[u8], expected: Result<&[&[&[u8]]], ProtocolError>) {
    let expected: Result<Vec<Vec<Vec<u8>>>, _> = expected.map(|all| {
        all.iter()
            .map(|r| r.iter().map(|a| a.to_vec()).collect())
            .collect()
    });
    assert_eq!(
        parse_in_pieces(bytes, bytes.len().max(1)),
        expected,
        "{}",
        bytes.escape_ascii()
    );
    for size in 1..bytes.len() {
        assert_eq!(
            parse_in_pieces(bytes, size),
            expected,
            "{size}: {}",
            bytes.escape_ascii()
        );
    }
}

fn parse_in_pieces(bytes: &[u8], size: usize) -> Result<Vec<Vec<Vec<u8>>>, ProtocolError> {
    let mut parser = RequestParser::default();
    let mut requests = Vec::new();
    let mut from = 0;
    let mut seen = 0;
    while seen < bytes.len() {
        seen = (seen + size).min(bytes.len());
        while let Some(length) = parser.parse(&bytes[from..seen], &LIMITS)? {
            let request = parser.request(&bytes[from..], length);
            requests.push(request.arguments().map(<[u8]>::to_vec).collect());
            let again: Vec<u8> = (0..request.len())
                .flat_map(|i| request.encoded(i).to_vec())
                .collect();
            assert!(request.frame().ends_with(&again));
            parser.reset();
            from += length;
        }
    }
    Ok(requests)
}

#[test]
fn whole_requests_are_found() {
    check(b"", Ok(&[]));
    check(b"*1\r\n$4\r\nPING\r\n", Ok(&[&[b"PING"]]));
    check(b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n", Ok(&[&[b"GET", b""]]));
    check(
        b"*2\r\n$3\r\nGET\r\n$4\r\n\r\n\r\n\r\n",
        Ok(&[&[b"GET", b"\r\n\r\n"]]),
    );
    check(
        b"*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nQUIT\r\n",
        Ok(&[&[b"PING"], &[b"QUIT"]]),
    );
    check(b"*0\r\n*-1\r\n", Ok(&[&[], &[]]));
    check(
        b"PING\r\nSET a \"b c\"\n",
        Ok(&[&[b"PING"], &[b"SET", b"a", b"b c"]]),
    );
    check(b"\r\n", Ok(&[&[]]));
}

#[test]
fn incomplete_requests_wait() {
    for bytes in [
        &b"*"[..],
        b"*1",
        b"*1\r\n$",
        b"*1\r\n$4\r\nPIN",
        b"*1\r\n$4\r\nPING\r",
        b"PING",
    ] {
        check(bytes, Ok(&[]));
    }
}

#[test]
fn broken_requests_are_refused() {
    use ProtocolError::*;
    check(b"*x\r\n", Err(InvalidMultibulkLength));
    check(b"*1\n", Err(InvalidMultibulkLength));
    check(b"*01\r\n", Err(InvalidMultibulkLength));
    check(b"*+1\r\n", Err(InvalidMultibulkLength));
    check(b"*9999999999\r\n", Err(InvalidMultibulkLength));
    check(b"*1001\r\n", Err(ManyArguments { limit: 1000 }));
    check(b"*1\r\n$-1\r\n", Err(InvalidBulkLength));
    check(b"*1\r\n$-0\r\n", Err(InvalidBulkLength));
    check(b"*1\r\n$99999999999\r\n", Err(InvalidBulkLength));
    check(b"*1\r\n$2000000\r\n", Err(LargeRequest { limit: 1 << 20 }));
    check(b"*1\r\n:4\r\n", Err(ExpectedBulk { got: ':' }));
    check(b"*1\r\n$4\r\nPINGxx", Err(MissingEnd));
    check(
        b"*00000000000000000000000000000000000",
        Err(LongMultibulkLine),
    );
    check(
        b"*1\r\n$00000000000000000000000000000000000",
        Err(LongBulkLine),
    );
    check(b"SET \"a\r\n", Err(UnbalancedQuotes));
}

#[test]
fn a_line_without_end_is_refused_before_it_fills_memory() {
    let mut parser = RequestParser::default();
    let long = vec![b'x'; MAX_INLINE + 1];
    assert_eq!(parser.parse(&long, &LIMITS), Err(ProtocolError::LongInline));
}

/// Passes the rest of a request on in pieces of `step` bytes, once `seen` of it have come and an
/// argument is pending; how many bytes it had.
fn passed(bytes: &[u8], seen: usize, step: usize) -> Option<Result<usize, ProtocolError>> {
    let mut parser = RequestParser::default();
    assert_eq!(parser.parse(&bytes[..seen], &LIMITS), Ok(None));
    let pending = parser.pending(&bytes[..seen])?;
    let beginning = parser.beginning(&bytes[..seen], &pending);
    let mut rest = Rest::after(&pending, beginning.len());
    let (mut from, mut to) = (beginning.frame().len(), seen);
    loop {
        match rest.pass(&bytes[from..to], &LIMITS) {
            Ok(Passed { count, ended }) => {
                from += count;
                if ended {
                    return Some(Ok(from));
                }
                assert!(to < bytes.len(), "it does not end");
                to = (to + step).min(bytes.len());
            }
            Err(error) => return Some(Err(error)),
        }
    }
}

#[test]
fn a_request_that_is_passed_on_ends_where_it_would_if_it_were_held() {
    let request = b"*5\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\n\r\n\r\n\r\n$0\r\n\r\n$2\r\nEX\r\n";
    let whole = [request.as_slice(), b"*1\r\n$4\r\nPING\r\n"].concat();
    let mut pending = 0;
    for seen in 0..request.len() {
        for step in 1..5 {
            if let Some(end) = passed(&whole, seen, step) {
                assert_eq!(end, Ok(request.len()), "{seen} {step}");
                pending += 1;
            }
        }
    }
    assert!(pending > 50);
}

#[test]
fn the_rest_of_a_request_is_held_to_the_same_rules() {
    let check = |rest: &[u8], expected| {
        let bytes = [b"*4\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\nva", rest].concat();
        assert_eq!(
            passed(&bytes, 26, 3),
            Some(Err(expected)),
            "{}",
            rest.escape_ascii()
        );
    };
    check(b"luxx", ProtocolError::MissingEnd);
    check(b"lu\r\r", ProtocolError::MissingEnd);
    check(b"lu\r\n:1\r\n", ProtocolError::ExpectedBulk { got: ':' });
    check(b"lu\r\n$01\r\n", ProtocolError::InvalidBulkLength);
    check(
        b"lu\r\n$1048576\r\n",
        ProtocolError::LargeRequest { limit: 1 << 20 },
    );
}

#[test]
fn a_pending_argument_tells_how_large_its_request_is() {
    let mut parser = RequestParser::default();
    let bytes = b"*4\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000\r\nva";
    assert_eq!(parser.parse(bytes, &LIMITS), Ok(None));
    let pending = parser.pending(bytes).unwrap();
    assert_eq!(
        (pending.count, pending.length, pending.request_size()),
        (4, 1000, 27 + 1002)
    );
    assert_eq!(parser.beginning(bytes, &pending).argument(1), b"k");
    let mut parser = RequestParser::default();
    for bytes in [&b"*4\r\n$3\r\nSET\r\n$1"[..], b"*4\r\n", b"SET"] {
        parser.reset();
        assert_eq!(parser.parse(bytes, &LIMITS), Ok(None));
        assert_eq!(parser.pending(bytes), None);
    }
}
