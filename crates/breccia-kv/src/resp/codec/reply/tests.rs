//! Replies: every type of RESP2 and RESP3, whole and cut at every byte.

use super::*;

#[test]
fn the_reply_behind_that_of_asking_is_framed_with_it() {
    let check = |bytes: &[u8], wanted: usize| {
        let mut scanner = ReplyScanner::default();
        for end in 0..wanted {
            let scan = RespWire::scan(&mut scanner, Some(Expected::AfterLine), &bytes[..end]);
            assert_eq!(scan, Scan::Incomplete, "{end}");
        }
        let scan = RespWire::scan(&mut scanner, Some(Expected::AfterLine), bytes);
        assert_eq!(scan, Scan::Complete(wanted));
    };
    check(b"+OK\r\n*2\r\n$1\r\na\r\n:1\r\n+next", 20);
    check(b"-ERR unknown\r\n$-1\r\n", 19);
    let mut scanner = ReplyScanner::default();
    let wrong = RespWire::scan(&mut scanner, Some(Expected::AfterLine), b":1\r\n");
    assert!(matches!(wrong, Scan::Wrong(_)));
}

fn check(reply: &[u8], expected: Scan) {
    let mut whole = reply.to_vec();
    whole.extend_from_slice(b"+NEXT\r\n");
    assert_eq!(
        ReplyScanner::default().scan(&whole),
        expected,
        "{}",
        reply.escape_ascii()
    );
    let mut scanner = ReplyScanner::default();
    for end in 0..reply.len() {
        match scanner.scan(&reply[..end]) {
            Scan::Incomplete => {}
            Scan::Wrong(_) if matches!(expected, Scan::Wrong(_)) => return,
            other => panic!("{other:?} after {end} bytes of {}", reply.escape_ascii()),
        }
    }
    assert_eq!(scanner.scan(reply), expected, "{}", reply.escape_ascii());
}

#[test]
fn every_type_is_framed() {
    for reply in [
        &b"+OK\r\n"[..],
        b"-ERR wrong\r\n",
        b":-12\r\n",
        b"$-1\r\n",
        b"$0\r\n\r\n",
        b"$4\r\n\r\n\r\n\r\n",
        b"*-1\r\n",
        b"*0\r\n",
        b"*2\r\n*1\r\n:1\r\n$3\r\nabc\r\n",
        b"_\r\n",
        b"#t\r\n",
        b",1.25\r\n",
        b",inf\r\n",
        b"(3492890328409238509324850943850943825024385\r\n",
        b"!5\r\nERR x\r\n",
        b"=7\r\ntxt:abc\r\n",
        b"%1\r\n+k\r\n:1\r\n",
        b"~2\r\n:1\r\n:2\r\n",
        b"|1\r\n+ttl\r\n:3600\r\n*1\r\n:1\r\n",
        b"*1\r\n|1\r\n+ttl\r\n:3600\r\n:1\r\n",
    ] {
        check(reply, Scan::Complete(reply.len()));
    }
    check(b">2\r\n+message\r\n:1\r\n", Scan::Skip(18));
}

#[test]
fn broken_replies_are_wrong() {
    for (reply, why) in [
        (&b"x\r\n"[..], "an unknown reply type"),
        (b"+OK\n", "a line that ends in LF alone"),
        (b"$x\r\n", "a bulk length that is no number"),
        (b"$-2\r\n", "a negative bulk length"),
        (b"$1\r\nabc\r\n", "a bulk string that does not end in CR LF"),
        (b"*-2\r\n", "a negative array length"),
        (b"*999999999999999\r\n", "a reply with too many elements"),
    ] {
        check(reply, Scan::Wrong(why));
    }
}

#[test]
fn elements_of_an_array_are_its_bytes() {
    let reply = b"*3\r\n$1\r\na\r\n*1\r\n:1\r\n$-1\r\n";
    let found: Vec<&[u8]> = elements(reply).unwrap().collect();
    assert_eq!(found, [&b"$1\r\na\r\n"[..], b"*1\r\n:1\r\n", b"$-1\r\n"]);
    assert!(elements(b"-ERR\r\n").is_none());
}

#[test]
fn texts_and_integers_are_read() {
    assert_eq!(text(b"$3\r\nabc\r\n"), Some(&b"abc"[..]));
    assert_eq!(text(b"+OK\r\n"), Some(&b"OK"[..]));
    assert_eq!(text(b"$-1\r\n"), None);
    assert_eq!(integer(b":-7\r\n"), Some(-7));
    assert_eq!(integer(b"$1\r\n1\r\n"), None);
}

/// Passes a reply on in pieces of `step` bytes, after `scan` has seen `seen` of it.
fn passed(reply: &[u8], seen: usize, step: usize) -> Pass {
    let mut scanner = ReplyScanner::default();
    assert_eq!(scanner.scan(&reply[..seen]), Scan::Incomplete);
    let (mut from, mut to, mut sum) = (0, seen, 0);
    loop {
        match scanner.pass(&reply[from..to]) {
            Pass::Part(count) => {
                from += count;
                sum += count;
                assert!(to < reply.len(), "it does not end");
                to = (to + step).min(reply.len());
            }
            Pass::End(count) => return Pass::End(sum + count),
            wrong @ Pass::Wrong(_) => return wrong,
        }
    }
}

#[test]
fn a_reply_that_is_passed_on_ends_where_it_would_if_it_were_collected() {
    for reply in [
        &b"$11\r\nhello\r\nyou!\r\n"[..],
        b"*3\r\n$3\r\nabc\r\n*2\r\n:1\r\n$0\r\n\r\n$2\r\n\r\n\r\n",
        b"%1\r\n+a\r\n*2\r\n$-1\r\n_\r\n",
        b"|1\r\n+a\r\n:1\r\n*1\r\n=5\r\ntxt:x\r\n",
    ] {
        let whole = [reply, b"+NEXT\r\n"].concat();
        for seen in 0..reply.len() {
            for step in 1..5 {
                assert_eq!(passed(&whole, seen, step), Pass::End(reply.len()));
            }
        }
    }
    for seen in 0..8 {
        let wrong = passed(b"$3\r\nabc\n\n+NEXT\r\n", seen, 1);
        assert!(matches!(wrong, Pass::Wrong(_)), "{wrong:?}");
        let wrong = passed(b"$3\r\nabc\rx+NEXT\r\n", seen, 1);
        assert!(matches!(wrong, Pass::Wrong(_)), "{wrong:?}");
    }
}

#[test]
fn the_length_of_a_large_string_is_known_from_its_header() {
    let known = |bytes: &[u8]| {
        let mut scanner = ReplyScanner::default();
        assert_eq!(scanner.scan(bytes), Scan::Incomplete);
        scanner.at_least(bytes)
    };
    assert_eq!(known(b"$1000\r\n"), 1009);
    assert_eq!(known(b"*2\r\n:1\r\n$1000\r\nabc"), 1017);
    assert_eq!(known(b"$10"), 3);
    assert_eq!(known(b"*2\r\n:1\r\n"), 8);
    assert_eq!(known(b">2\r\n+message\r\n$1000\r\nabc"), 0);
}
