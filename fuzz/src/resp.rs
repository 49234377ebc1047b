//! The RESP codec, both sides.
//!
//! Invariant checked: cuts do not matter, an accepted request is in canonical form, a reply's parts
//! lie within it.

use breccia_kv::resp::codec::reply::{ReplyScanner, elements, integer, text};
use breccia_kv::resp::codec::request::{RequestLimits, RequestParser};
use breccia_kv::upstream::Scan;

use crate::pieces::same_in_pieces;

/// Requests from a client.
pub fn resp_request(data: &[u8]) {
    let limits = match data.first() {
        Some(b'!') => RequestLimits::UNAUTHENTICATED,
        _ => RequestLimits {
            max_request_size: 1 << 20,
            max_arguments: 1000,
        },
    };
    let read = |parser: &mut RequestParser, bytes: &[u8]| match parser.parse(bytes, &limits) {
        Ok(None) => None,
        Err(error) => Some((Err(error.to_string()), 0)),
        Ok(Some(length)) => {
            assert!(length > 0 && length <= bytes.len());
            let request = parser.request(bytes, length);
            let arguments: Vec<Vec<u8>> = request.arguments().map(<[u8]>::to_vec).collect();
            assert_eq!(arguments.len(), request.len());
            assert!(arguments.len() <= limits.max_arguments);
            if !arguments.is_empty() {
                assert_eq!(
                    request.frame(),
                    encoded(&arguments),
                    "an accepted request is canonical"
                );
            }
            let parts: usize = (0..arguments.len())
                .map(|at| request.encoded(at).len())
                .sum();
            assert!(parts <= request.frame().len());
            parser.reset();
            Some((Ok(arguments), length))
        }
    };
    same_in_pieces(data, RequestParser::default, read);
}

fn encoded(arguments: &[Vec<u8>]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        out.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        out.extend_from_slice(argument);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Replies from a server.
pub fn resp_reply(data: &[u8]) {
    let read = |scanner: &mut ReplyScanner, bytes: &[u8]| match scanner.scan(bytes) {
        Scan::Incomplete => None,
        Scan::Wrong(why) => Some((why.to_owned(), 0)),
        scan @ (Scan::Complete(length) | Scan::Skip(length)) => {
            assert!(length > 0 && length <= bytes.len());
            let reply = bytes.get(..length).unwrap_or_default();
            let _any = (integer(reply), text(reply));
            if let Some(elements) = elements(reply) {
                let total: usize = elements.map(<[u8]>::len).sum();
                assert!(total <= reply.len());
            }
            *scanner = ReplyScanner::default();
            Some((format!("{scan:?}"), length))
        }
    };
    same_in_pieces(data, ReplyScanner::default, read);
}
