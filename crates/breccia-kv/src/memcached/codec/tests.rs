//! Tests of the codec: rows of bytes and what they mean, each fed whole and byte by byte.

use super::*;

/// Feeds `input` in pieces of `step` bytes; tells each answer of the decoder in one line.
fn feed(input: &[u8], step: usize, max: usize) -> Vec<String> {
    let mut decoder = Decoder::new(max);
    let mut told = Vec::new();
    let (mut start, mut end) = (0, 0);
    loop {
        while start < end {
            match decoder.decode(&input[start..end]) {
                Decoded::Request(request) => {
                    assert!(request.frame_length <= end - start);
                    start += request.frame_length;
                    told.push(tell(&request));
                }
                Decoded::Head(request) => {
                    assert!(request.frame_length > end - start);
                    break;
                }
                Decoded::Incomplete => break,
                Decoded::Wrong(wrong) => {
                    told.push(format!("!{}", wrong.reply));
                    if wrong.close {
                        told.push("close".to_owned());
                        return told;
                    }
                    start += wrong.length;
                }
            }
        }
        if end == input.len() {
            if start < end {
                told.push("…".to_owned());
            }
            return told;
        }
        end = (end + step).min(input.len());
    }
}

/// One request in one line: `p` for plain, `n` for noreply, then the command.
fn tell(request: &Request<'_>) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let command = match &request.command {
        Command::Retrieve {
            verb,
            exptime,
            keys,
        } => {
            let list: Vec<_> = keys.iter().map(text).collect();
            assert_eq!(list.len(), keys.count());
            format!("{} {exptime} {}", verb.name(), list.join(","))
        }
        Command::Store {
            verb,
            key,
            flags,
            exptime,
            cas,
        } => {
            format!("{} {} {flags} {exptime} {cas}", verb.name(), text(key))
        }
        Command::Arithmetic { verb, key, delta } => {
            format!("{} {} {delta}", verb.name(), text(key))
        }
        Command::Delete { key } => format!("delete {}", text(key)),
        Command::Touch { key, exptime } => format!("touch {} {exptime}", text(key)),
        Command::FlushAll { delay } => format!("flush_all {delay}"),
        Command::Meta(MetaCommand { verb, key, flags }) => {
            let list: Vec<_> = flags.iter().map(text).collect();
            let quiet = if flags.quiet { " quiet" } else { "" };
            format!(
                "{} {} [{}]{quiet}",
                verb.name(),
                text(key.bytes()),
                list.join(" ")
            )
        }
        Command::Stats { arguments } => format!("stats {}", text(arguments)),
        Command::ServerOnly { name } => format!("server-only {}", text(name)),
        other => format!("{other:?}"),
    };
    let plain = if request.plain { "p" } else { "" };
    let noreply = if request.noreply { "n" } else { "" };
    let data = if request.data.is_empty() {
        String::new()
    } else {
        text(request.data)
    };
    format!("{plain}{noreply} {command} {data}")
        .trim()
        .to_owned()
}

fn check(input: &str, expected: &[&str]) {
    let input: Vec<u8> = input.chars().map(|c| u8::try_from(c).unwrap()).collect();
    let told = feed(&input, input.len().max(1), 1 << 20);
    assert_eq!(told, expected, "{input:?}");
    for step in [1, 2, 3, 7] {
        assert_eq!(feed(&input, step, 1 << 20), expected, "in steps of {step}");
    }
}

#[test]
fn retrievals() {
    check("get a\r\n", &["p get 0 a"]);
    check("gets a b  c\r\n", &["gets 0 a,b,c"]);
    check("gets a b c\r\n", &["p gets 0 a,b,c"]);
    check("get a \r\n", &["get 0 a"]);
    check("get a\n", &["get 0 a"]);
    check("get a\0b\r\n", &["get 0 a"]);
    check(" get a\r\n", &["get 0 a"]);
    check("bget a\r\n", &["get 0 a"]);
    check("gat 10 a b\r\n", &["p gat 10 a,b"]);
    check("gat +10 a\r\n", &["gat 10 a"]);
    check("gats -1 a\r\n", &["p gats -1 a"]);
    check("gat 10\r\n", &["gat 10"]);
    check("get\r\ngat\r\n", &["!ERROR", "!ERROR"]);
    check("gat x a\r\n", &["!CLIENT_ERROR invalid exptime argument"]);
    let long = "k".repeat(250);
    check(&format!("get {long}\r\n"), &[&format!("p get 0 {long}")]);
    check(
        &format!("get a {long}k\r\n"),
        &["!CLIENT_ERROR bad command line format"],
    );
}

#[test]
fn storage_commands() {
    check("set a 1 2 3\r\nabc\r\n", &["p set a 1 2 0 abc"]);
    check("set a 1 2 3 noreply\r\n\r\na\r\n", &["n set a 1 2 0 \r\na"]);
    check("set a 1 2 3 else\r\nabc\r\n", &["set a 1 2 0 abc"]);
    check("cas a 0 0 0 9\r\n\r\n", &["p cas a 0 0 9"]);
    check("cas a 0 0 1 9 noreply\r\nx\r\n", &["n cas a 0 0 9 x"]);
    check("append a 01 0 1\r\nx\r\n", &["append a 1 0 0 x"]);
    check("set a 0 4294967295 1\r\nx\r\n", &["set a 0 -1 0 x"]);
    check("set a 0 0 4294967297\r\nx\r\n", &["set a 0 0 0 x"]);
    check("set a 0 0 5\r\nabc", &["…"]);
}

#[test]
fn bad_storage_commands_drop_what_memcached_drops() {
    let bad = "!CLIENT_ERROR bad command line format";
    check(
        "set a 0 0 1\r\nabc\r\nmn\r\n",
        &["!CLIENT_ERROR bad data chunk", "!ERROR", "MetaNoop"],
    );
    check(
        "set a 0 0 1 noreply\r\nabc\r\nmn\r\n",
        &["!", "!ERROR", "MetaNoop"],
    );
    check("set a 0 0 x\r\nmn\r\n", &[bad, "MetaNoop"]);
    check("set a 0 0 -1\r\nmn\r\n", &[bad, "MetaNoop"]);
    check("set a 0 0 2147483646\r\nmn\r\n", &[bad, "MetaNoop"]);
    check(
        "set a 0 0 2147483645\r\nmn\r\n",
        &["!SERVER_ERROR object too large for cache"],
    );
    check("set a 0 0 9999999 noreply\r\nmn\r\n", &["!"]);
    check("set a 0 0 noreply\r\nmn\r\n", &["!", "MetaNoop"]);
    check("set a 0 0\r\nmn\r\n", &["!ERROR", "MetaNoop"]);
    check("set a 0 0 1 2 3\r\nmn\r\n", &["!ERROR", "MetaNoop"]);
    check("cas a 0 0 1\r\na\r\n", &["!ERROR", "!ERROR"]);
    let long = "k".repeat(251);
    check(&format!("set {long} 0 0 3\r\nabc\r\n"), &[bad, "!ERROR"]);
}

#[test]
fn an_oversized_block_is_dropped_whole() {
    let input = [
        b"set a 0 0 5000\r\n".as_slice(),
        &[b'x'; 5000],
        b"\r\nmn\r\n",
    ]
    .concat();
    for step in [1, 100, input.len()] {
        let told = feed(&input, step, 4096);
        assert_eq!(
            told,
            ["!SERVER_ERROR object too large for cache", "MetaNoop"]
        );
    }
}

#[test]
fn short_commands() {
    check("incr a 5\r\n", &["p incr a 5"]);
    check("decr a 5 noreply\r\n", &["n decr a 5"]);
    check("incr a 5 else\r\n", &["incr a 5"]);
    check(
        "incr a x\r\n",
        &["!CLIENT_ERROR invalid numeric delta argument"],
    );
    check("incr a x noreply\r\nincr a\r\n", &["!", "!ERROR"]);
    check("delete a\r\n", &["p delete a"]);
    check("delete a 0\r\n", &["delete a"]);
    check("delete a 0 noreply\r\n", &["n delete a"]);
    check("delete noreply\r\n", &["p delete noreply"]);
    let usage = "!CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]";
    check("delete a 5\r\ndelete a 5 noreply\r\n", &[usage, "!"]);
    check("delete a b c d\r\ndelete\r\n", &["!ERROR", "!ERROR"]);
    check(
        "touch a 5\r\ntouch a 5 noreply\r\n",
        &["p touch a 5", "n touch a 5"],
    );
    check(
        "touch a x\r\ntouch a\r\n",
        &["!CLIENT_ERROR invalid exptime argument", "!ERROR"],
    );
}

#[test]
fn server_commands() {
    check(
        "flush_all\r\nflush_all noreply\r\n",
        &["flush_all 0", "n flush_all 0"],
    );
    check(
        "flush_all 5\r\nflush_all -5 noreply\r\n",
        &["flush_all 5", "n flush_all -5"],
    );
    check(
        "flush_all noreply 10\r\n",
        &["!CLIENT_ERROR invalid exptime argument"],
    );
    check(
        "flush_all x noreply\r\nflush_all 1 2 3\r\n",
        &["!", "!ERROR"],
    );
    check(
        "version x\r\nquit x\r\nmn x\r\n",
        &["Version", "Quit", "MetaNoop"],
    );
    check(
        "verbosity 1\r\nverbosity 1 noreply\r\n",
        &["Verbosity", "n Verbosity"],
    );
    check("verbosity\r\nverbosity noreply\r\n", &["!ERROR", "!"]);
    check(
        "verbosity x\r\n",
        &["!CLIENT_ERROR bad command line format"],
    );
    check("stats\r\nstats items\r\n", &["stats", "stats items"]);
    check(
        "shutdown\r\nslabs\r\nlru x noreply\r\n",
        &["Shutdown", "server-only slabs", "n server-only lru"],
    );
    check("\r\n\nx\r\nGET a\r\nmx\r\n", &["!ERROR"; 5]);
}

#[test]
fn meta_commands() {
    check("mg a v k\r\n", &["p mg a [v k]"]);
    check("mg a  v\r\n", &["mg a [v]"]);
    check("mg a v q Oxyz\r\n", &["mg a [v q Oxyz] quiet"]);
    check("ms a 3 T5 c\r\nabc\r\n", &["p ms a [T5 c] abc"]);
    check("ms a 0\r\n\r\n", &["p ms a []"]);
    check(
        "md a I T5\r\nma a N0 J5 D2 MD\r\n",
        &["p md a [I T5]", "p ma a [N0 J5 D2 MD]"],
    );
    check(
        "mg Zm9v b k\r\nmg Z!m9v b\r\n",
        &["p mg foo [b k]", "p mg foo [b]"],
    );
    check(
        "me a\r\nme Zm9v b x\r\nme a k\r\n",
        &["p me a []", "me foo [b]", "me a []"],
    );
    check("mg a !\r\n", &["p mg a [!]"]);
}

#[test]
fn bad_meta_commands_drop_what_memcached_drops() {
    let bad = "!CLIENT_ERROR bad command line format";
    let flags = "!CLIENT_ERROR invalid or duplicate flag";
    let token = "!CLIENT_ERROR bad token in command line format";
    check("mg\r\nms\r\nmd\r\nma\r\n", &["!ERROR"; 4]);
    check("ms a\r\nms a x\r\nms a -1\r\nme\r\n", &[bad; 4]);
    check(
        "mg a k k\r\nmd a k k\r\n",
        &["!CLIENT_ERROR duplicate flag", flags],
    );
    check(
        "mg a \u{ff}\r\nmg a ! q q\r\n",
        &["!CLIENT_ERROR duplicate flag", "!CLIENT_ERROR invalid flag"],
    );
    check(
        "ms a 3 q q\r\nabc\r\nmn\r\n",
        &["!CLIENT_ERROR duplicate flag", "MetaNoop"],
    );
    check("ms a 3 Fx\r\nabc\r\nms a 3 Fx Tx\r\nabc\r\n", &[bad, token]);
    check("ms a 3 Tx Fx\r\nabc\r\n", &[token]);
    check(
        "ms a 3 M\r\nabc\r\n",
        &["!CLIENT_ERROR incorrect length for M token"],
    );
    check(
        "ms a 3 MZ\r\nabc\r\n",
        &["!CLIENT_ERROR invalid mode for ms M token"],
    );
    check(
        "ma a MZ\r\nma a Jx\r\n",
        &["!CLIENT_ERROR invalid mode for ma M token", flags],
    );
    check(
        "mg a Jx\r\n",
        &["!CLIENT_ERROR invalid numeric initial value"],
    );
    check("mg Zm8 b\r\n", &["!CLIENT_ERROR error decoding key"]);
    check("me !! b\r\n", &[bad]);
    check(
        "ms a 1 k\r\nabc\r\nmn\r\n",
        &["!CLIENT_ERROR bad data chunk", "!ERROR", "MetaNoop"],
    );
    let opaque = "x".repeat(32);
    let long = "!CLIENT_ERROR opaque token too long";
    check(
        &format!("ms a 3 O{opaque}\r\nabc\r\nmg a O{opaque}\r\n"),
        &[long, long],
    );
    let many = "a ".repeat(18);
    check(
        &format!("mg k {many}\r\n"),
        &["!CLIENT_ERROR options flags are too long"],
    );
    check(
        &format!("md k {many}\r\n"),
        &["!CLIENT_ERROR options flags too long"],
    );
}

#[test]
fn long_lines_are_for_retrievals_only() {
    let keys = "k ".repeat(2000);
    let told = feed(format!("get {keys}\r\nmn\r\n").as_bytes(), 11, 1 << 20);
    assert_eq!(
        (told.len(), told.last().map(String::as_str)),
        (2, Some("MetaNoop"))
    );
    for line in [
        "x".repeat(2048),
        format!("mg {}", "x".repeat(3000)),
        " ".repeat(3000),
    ] {
        check(
            &format!("{line}\r\nmn\r\n"),
            &["!CLIENT_ERROR line too long", "close"],
        );
    }
    let told = feed(format!("get {keys}\r\n").as_bytes(), 7, 3000);
    assert_eq!(told, ["!CLIENT_ERROR line too long", "close"]);
}

#[test]
fn any_bytes_give_the_same_answers_however_they_are_cut() {
    use proptest::prelude::*;
    let word = prop_oneof![
        "(get|gat|set|cas|incr|delete|touch|flush_all|mg|ms|md|ma|me|mn|stats|noreply)",
        "(a|k|b|q|O1|T5|N0|Zm9v|MA|C3|0|1|2|3|-1|4294967296|x)",
        "[ \r\n\0]",
        "\r\n",
        "\\PC{0,4}",
    ];
    let input = proptest::collection::vec(word, 0..60).prop_map(|words| words.join(" "));
    proptest!(|(input in input, step in 1_usize..9)| {
        let bytes = input.as_bytes();
        let whole = feed(bytes, bytes.len().max(1), 200);
        prop_assert_eq!(feed(bytes, step, 200), whole);
    });
}

fn check_reply(shape: Shape, reply: &str, expected: ScannedReply) {
    let bytes = reply.as_bytes();
    assert_eq!(
        ReplyScanner::default().scan(shape, bytes),
        expected,
        "{reply:?}"
    );
    let mut scanner = ReplyScanner::default();
    for end in 1..=bytes.len() {
        match scanner.scan(shape, &bytes[..end]) {
            ScannedReply::Incomplete => {}
            ended => {
                assert_eq!(ended, expected, "{reply:?} at {end}");
                if let ScannedReply::Complete(length) = ended {
                    assert_eq!(length, end, "{reply:?}");
                }
                return;
            }
        }
    }
    assert_eq!(expected, ScannedReply::Incomplete, "{reply:?}");
}

#[test]
fn replies_end_where_their_shape_says() {
    let whole = |shape, reply: &str| {
        check_reply(shape, reply, ScannedReply::Complete(reply.len()));
        let followed = format!("{reply}STORED\r\n");
        let found = ReplyScanner::default().scan(shape, followed.as_bytes());
        assert_eq!(found, ScannedReply::Complete(reply.len()));
        check_reply(shape, &reply[..reply.len() - 1], ScannedReply::Incomplete);
    };
    whole(Shape::Values, "END\r\n");
    whole(Shape::Values, "VALUE a 0 5\r\nEND\r\n\r\nEND\r\n");
    whole(
        Shape::Values,
        "VALUE a 0 0 17\r\n\r\nVALUE b 1 1 18\r\nx\r\nEND\r\n",
    );
    whole(
        Shape::Values,
        "VALUE a 0 1\r\nx\r\nSERVER_ERROR out of memory\r\n",
    );
    whole(Shape::Storage, "STORED\r\n");
    whole(
        Shape::Storage,
        "SERVER_ERROR object too large for cache\r\n",
    );
    whole(Shape::Arithmetic, "18446744073709551615\r\n");
    whole(
        Shape::Arithmetic,
        "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
    );
    whole(Shape::Delete, "NOT_FOUND\r\n");
    whole(Shape::Touch, "TOUCHED\r\n");
    whole(Shape::Ok, "OK\r\n");
    whole(Shape::Version, "VERSION 1.6.18\r\n");
    whole(Shape::Stats, "STAT a 1\r\nSTAT b END\r\nEND\r\n");
    whole(Shape::MetaGet, "VA 2 t-1 f0\r\nab\r\n");
    whole(Shape::MetaGet, "EN\r\n");
    whole(Shape::MetaGet, "HD kfoo O1\r\n");
    whole(Shape::MetaSet, "NS\r\n");
    whole(Shape::MetaSet, "CLIENT_ERROR invalid flag\r\n");
    whole(Shape::MetaDelete, "EX\r\n");
    whole(Shape::MetaArithmetic, "VA 1 c3\r\n7\r\n");
    whole(Shape::MetaArithmeticOrNone, "MN\r\n");
    whole(Shape::MetaArithmeticOrNone, "HD\r\nMN\r\n");
    whole(Shape::MetaArithmeticOrNone, "VA 4 k\r\nMN\r\n\r\nMN\r\n");
    whole(Shape::MetaArithmeticOrNone, "CLIENT_ERROR bad\r\nMN\r\n");
    whole(Shape::MetaDebug, "ME a exp=-1\r\n");
    whole(Shape::MetaNoop, "MN\r\n");
}

#[test]
fn replies_of_another_kind_are_wrong() {
    let other = ScannedReply::Wrong("a line answers another kind of command");
    check_reply(Shape::Values, "STORED\r\n", other);
    check_reply(Shape::Storage, "END\r\n", other);
    check_reply(Shape::Arithmetic, "\r\n", other);
    check_reply(Shape::Arithmetic, "1x\r\n", other);
    check_reply(Shape::MetaNoop, "HD\r\n", other);
    check_reply(Shape::MetaGet, "NF\r\n", other);
    check_reply(Shape::MetaArithmeticOrNone, "HD\r\nHD\r\nMN\r\n", other);
    check_reply(Shape::MetaArithmeticOrNone, "EN\r\nMN\r\n", other);
    check_reply(Shape::Ok, "OK \r\n", other);
    let refused = ScannedReply::Wrong("a storage command that was checked is refused");
    check_reply(Shape::Storage, "ERROR\r\n", refused);
    check_reply(
        Shape::Storage,
        "CLIENT_ERROR bad command line format\r\n",
        refused,
    );
    check_reply(Shape::MetaSet, "ERROR\r\n", refused);
    check_reply(
        Shape::Values,
        "VALUE a 0\r\n",
        ScannedReply::Wrong("a data block has no length"),
    );
    let misplaced = ScannedReply::Wrong("a data block does not end where it should");
    check_reply(Shape::Values, "VALUE a 0 1\r\nabc\r\nEND\r\n", misplaced);
    check_reply(Shape::MetaGet, "VA 1\r\nabc\r\n", misplaced);
    check_reply(
        Shape::Ok,
        "OK\n",
        ScannedReply::Wrong("a line does not end in CR LF"),
    );
    let endless = "STAT ".repeat(1000);
    let found = ReplyScanner::default().scan(Shape::Stats, endless.as_bytes());
    assert_eq!(found, ScannedReply::Wrong("a line does not end"));
}

#[test]
fn a_retrievals_reply_is_walked_block_by_block() {
    let reply = b"VALUE a 7 3\r\nabc\r\nVALUE b 0 2 99\r\n\r\n\r\nEND\r\n";
    let mut values = Values::new(reply);
    let first = values.next().unwrap();
    assert_eq!(
        (first.key, first.flags, first.cas, first.data),
        (&b"a"[..], 7, None, &b"abc"[..])
    );
    assert_eq!(first.whole, b"VALUE a 7 3\r\nabc\r\n");
    let second = values.next().unwrap();
    assert_eq!(
        (second.key, second.cas, second.data),
        (&b"b"[..], Some(99), &b"\r\n"[..])
    );
    assert_eq!(values.next(), None);
    assert_eq!(values.rest(), b"END\r\n");
}

#[test]
fn a_meta_reply_gives_its_flags() {
    let reply = MetaReply::new(b"VA 3 t-1 c42 W\r\na\r\n\r\n").unwrap();
    assert_eq!((reply.code, reply.value), (&b"VA"[..], Some(&b"a\r\n"[..])));
    assert_eq!(reply.flag(b'c'), Some(&b"42"[..]));
    assert_eq!(reply.flag(b'W'), Some(&b""[..]));
    assert_eq!(reply.flag(b'Z'), None);
    assert_eq!(MetaReply::new(b"EN\r\n").unwrap().code, b"EN");
}
