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
