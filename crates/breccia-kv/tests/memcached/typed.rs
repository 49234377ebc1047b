//! The memcached front over a memory store against a real memcached: the same bytes in, the same
//! bytes out. It tests no sockets of ours: the front's parts are driven by hand.
//!
//! CAS tokens differ; where they are compared, it is by which ones are equal.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use breccia_kv::memcached::codec::{Command, Decoded, Decoder};
use breccia_kv::memcached::{local, typed};
use breccia_kv::memory::{MemoryOptions, MemoryStore};
use breccia_testkit::Memcached;

/// Feeds a client's whole input to the front's parts over a store.
async fn typed_session(store: &MemoryStore, input: &[u8]) -> Vec<u8> {
    let mut decoder = Decoder::new(1 << 20);
    let mut out = Vec::new();
    let mut rest = input;
    while !rest.is_empty() {
        let length = match decoder.decode(rest) {
            Decoded::Request(request) => {
                if request.command == Command::Quit {
                    break;
                }
                let before = out.len();
                if local::answer(&request.command, Vec::new, &mut out) {
                    if request.noreply {
                        out.truncate(before);
                    }
                } else {
                    typed::execute(store, &request, &mut out).await;
                }
                request.frame_length
            }
            Decoded::Wrong(wrong) => {
                if !wrong.reply.is_empty() {
                    out.extend_from_slice(wrong.reply.as_bytes());
                    out.extend_from_slice(b"\r\n");
                }
                if wrong.close {
                    break;
                }
                wrong.length
            }
            Decoded::Incomplete | Decoded::Head(_) => break,
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    out
}

/// Sends the whole input to memcached, half-closes, and reads to the end.
fn memcached_session(server: &Memcached, input: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream.write_all(input).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut out = Vec::new();
    stream.read_to_end(&mut out).unwrap();
    out
}

/// Replaces CAS tokens by the order in which they were first seen (or by `#`), times to live by
/// `t#` and the version by `#`.
fn normal(output: &[u8], seen: Option<&mut BTreeMap<String, usize>>) -> String {
    let mut seen = seen;
    let mut rank = |token: &str| match &mut seen {
        _ if token == "0" => "0".to_owned(),
        None => "#".to_owned(),
        Some(seen) => {
            let next = seen.len();
            format!("#{}", seen.entry(token.to_owned()).or_insert(next))
        }
    };
    let mut lines = Vec::new();
    for line in String::from_utf8_lossy(output).split("\r\n") {
        let words: Vec<&str> = line.split(' ').collect();
        let word = |index: usize, word: &str| match (words[0], index, word.split_at_checked(1)) {
            ("VALUE", 4, _) => rank(word),
            ("HD" | "VA" | "EX" | "NS" | "NF" | "EN", 1.., Some(("c", token))) => {
                format!("c{}", rank(token))
            }
            ("HD" | "VA", 1.., Some(("t", left))) if left != "-1" => "t#".into(),
            ("VERSION", 1, _) => "#".into(),
            _ => word.into(),
        };
        let mut word = word;
        let words: Vec<String> = words.iter().enumerate().map(|(i, w)| word(i, w)).collect();
        lines.push(words.join(" "));
    }
    lines.join("\n")
}

/// A real memcached and a memory store with the same history.
struct Twins {
    server: Memcached,
    store: MemoryStore,
    runtime: tokio::runtime::Runtime,
    /// The tokens seen, while they are compared: a memory store's are unique for each key only.
    seen: Option<[BTreeMap<String, usize>; 2]>,
    /// Whether `kfoo` counts as the same as `kZm9v b`: memcached returns a key in the form in which
    /// the item was made, Breccia in the form in which it was asked for.
    same_key_form: bool,
}

impl Twins {
    fn new() -> Self {
        Self {
            // Its background threads hold items now and then, which shows in how numbers are padded.
            server: Memcached::start(&["-o", "no_lru_maintainer,no_lru_crawler"]).unwrap(),
            store: MemoryStore::new(MemoryOptions::new("mem")),
            runtime: tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap(),
            seen: None,
            same_key_form: false,
        }
    }

    fn raw(&mut self, inputs: [&[u8]; 2]) -> [Vec<u8>; 2] {
        let real = memcached_session(&self.server, inputs[0]);
        let ours = self.runtime.block_on(typed_session(&self.store, inputs[1]));
        [real, ours]
    }

    fn check(&mut self, input: &str) {
        let bytes: Vec<u8> = input.chars().map(|c| u8::try_from(c).unwrap()).collect();
        self.check_bytes([&bytes, &bytes], input);
    }

    fn check_bytes(&mut self, inputs: [&[u8]; 2], shown: &str) {
        let [real, ours] = self.raw(inputs);
        let [theirs, mine] = match &mut self.seen {
            Some([theirs, mine]) => [Some(theirs), Some(mine)],
            None => [None, None],
        };
        let mut expected = normal(&real, theirs);
        let mut found = normal(&ours, mine);
        if self.same_key_form {
            for text in [&mut expected, &mut found] {
                *text = text.replace("kZm9v b", "kfoo");
            }
        }
        assert_eq!(
            found,
            expected,
            "for {:?}",
            shown.get(..400).unwrap_or(shown)
        );
    }

    /// Checks an input in which `{cas}` is the present token of the key `k` on either side.
    fn check_with_cas(&mut self, input: &str) {
        let tokens = self.raw([b"gets k\r\n", b"gets k\r\n"]).map(|reply| {
            let text = String::from_utf8(reply).unwrap();
            let line = text.lines().next().unwrap().to_owned();
            line.split(' ').nth(4).expect("k exists").to_owned()
        });
        let [real, ours] = tokens.map(|token| input.replace("{cas}", &token));
        self.check_bytes([real.as_bytes(), ours.as_bytes()], input);
    }
}

#[test]
fn text_commands_answer_as_memcached() {
    let mut twins = Twins::new();
    let k250 = "k".repeat(250);
    for input in [
        "get k\r\nset k 7 0 3\r\nabc\r\nget k\r\ngets k\r\nget k k nope k\r\n",
        "add k 0 0 1\r\nx\r\nadd k2 0 0 1\r\ny\r\nreplace k2 4294967295 0 0\r\n\r\nget k2\r\n",
        "replace nope 0 0 1\r\nx\r\nappend nope 0 0 1\r\nx\r\nprepend nope 0 0 1\r\nx\r\n",
        "append k 9 9 2\r\nde\r\nprepend k 9 9 2\r\nyz\r\ngets k\r\nmg k v f t\r\n",
        "cas k 0 0 1 999999\r\nx\r\ncas k 0 0 1 0\r\nx\r\ncas nope 0 0 1 5\r\nx\r\n",
        "delete k\r\ndelete k\r\ndelete k2 0\r\ndelete k noreply\r\nget k k2\r\n",
        "set n 5 0 3\r\n100\r\ndecr n 1\r\nget n\r\nincr n 1\r\nget n\r\ndecr n 200\r\nget n\r\n",
        "set n 5 0 20\r\n18446744073709551615\r\nincr n 2\r\nget n\r\nincr n 18446744073709551615\r\n",
        "set n 0 0 4\r\n1 2x\r\nincr n 1\r\nget n\r\nset n 0 0 4\r\n  12\r\nincr n 1\r\nget n\r\n",
        "set n 0 0 2\r\n-5\r\nincr n 1\r\nset n 0 0 0\r\n\r\nincr n 1\r\nset n 0 0 2\r\n1x\r\nincr n 1\r\n",
        "set n 0 0 21\r\n118446744073709551615\r\nincr n 1\r\nset n 0 0 2\r\n+7\r\ndecr n 1\r\nget n\r\n",
        "set n 0 0 22\r\n0000000000000000000005\r\nincr n 1\r\nget n\r\nincr nope 1\r\ndecr nope 1\r\n",
        "set t 1 100 1\r\nx\r\nmg t t\r\ntouch t 0\r\nmg t t\r\ntouch nope 0\r\ntouch t -1\r\nget t\r\n",
        "set t 1 -1 1\r\nx\r\nget t\r\nset t 1 2592001 1\r\nx\r\nget t\r\nset t 1 2147483648 1\r\nx\r\nget t\r\n",
        "set t 1 0 1\r\nx\r\ngat 100 t nope t\r\nmg t t\r\ngats 0 t\r\nmg t t\r\ngat -1 t\r\nget t\r\ngat 5\r\n",
        "set a 0 0 1\r\n1\r\nflush_all\r\nget a\r\nset a 0 0 1\r\n1\r\nflush_all -1\r\nget a\r\n",
        "mn\r\nversion\r\nverbosity 1\r\nshutdown\r\nmn\r\nstats reset\r\nstats nothing\r\n",
        "set a 0 0 1\r\n1\r\nquit\r\nmn\r\n",
        "set a 0 0 2 noreply\r\n11\r\nincr a 1 noreply\r\nincr a x noreply\r\nget a\r\ntouch a 5 noreply\r\n",
        "append a 0 0 2 noreply\r\nzz\r\nincr a 1 noreply\r\nadd a 0 0 1 noreply\r\nx\r\nget a\r\nmn\r\n",
        "delete a noreply\r\nflush_all noreply\r\nverbosity 1 noreply\r\ncas a 0 0 1 5 noreply\r\nx\r\nmn\r\n",
    ] {
        twins.check(input);
    }
    twins.check(&format!(
        "set {k250} 0 0 1\r\nx\r\nget {k250} {k250}\r\ndelete {k250}\r\n"
    ));
}

#[test]
fn tokens_compare_as_in_memcached() {
    let mut twins = Twins::new();
    twins.seen = Some(Default::default());
    twins.check("set k 1 100 1\r\nx\r\ngets k\r\n");
    twins.check_with_cas(
        "touch k 200\r\ngat 300 k\r\nmg k T400\r\ncas k 2 0 1 {cas}\r\ny\r\ngets k\r\n",
    );
    twins.check_with_cas("cas k 3 0 2 {cas}\r\n10\r\ncas k 3 0 2 {cas}\r\n11\r\ngets k\r\n");
    twins.check_with_cas("incr k 1\r\ncas k 0 0 1 {cas}\r\nz\r\ngets k\r\n");
    twins.check_with_cas(
        "ma k C{cas} D5 v c t\r\nma k C{cas} v\r\nma k C{cas} q k O1\r\ngets k\r\n",
    );
    twins.check_with_cas("ma k C{cas} MD D100 v T50 t\r\nmg k v t c\r\n");
    twins.check_with_cas("ms k 1 C{cas} c k O9 F7\r\n5\r\nms k 1 C{cas} c k\r\nx\r\ngets k\r\n");
    twins.check_with_cas("ms k 1 MA C{cas} c\r\n6\r\nms k 1 MP C{cas} c\r\n6\r\ngets k\r\n");
    twins.check_with_cas("ms k 1 MR C{cas} c\r\n6\r\nms k 1 ME C{cas} c\r\n6\r\ngets k\r\n");
    twins.check_with_cas("ms k 1 MS C{cas} q\r\n7\r\nms k 1 MS C{cas} q\r\n8\r\nmn\r\nget k\r\n");
    twins.check_with_cas("md k C9999 k\r\nmd k C{cas} k O5\r\nmd k C{cas}\r\nmd k C0\r\n");
    twins.check("set k 0 0 1\r\nx\r\n");
    twins.check_with_cas("ma k C9999\r\nma k C{cas}\r\nset k 0 0 0\r\n\r\nma k C9999\r\n");
    twins.check_with_cas(
        "md k C0\r\nms k 1 MA C0 c\r\n1\r\nms k 1 C0 c\r\n1\r\nma k C0 v\r\nget k\r\n",
    );
}

#[test]
fn meta_commands_answer_as_memcached() {
    let mut twins = Twins::new();
    for input in [
        "mg k\r\nmg k v k O1\r\nmg k q\r\nms k 3\r\nabc\r\nmg k\r\nmg k s v k t c f O1 q u\r\n",
        "ms k 3 c k O1 T100 F9\r\nabc\r\nmg k t f\r\nms k 1 q\r\nx\r\nms k 1 q c\r\nx\r\nmn\r\n",
        "ms k 1 ME c k\r\nz\r\nms n 1 MR k c\r\nz\r\nms n 1 MA c\r\nz\r\nms n 1 MP O1\r\nz\r\nms n 1 C5 k c\r\nz\r\n",
        "ms n 1 MA C5 c\r\nz\r\nms n 1 MR C5 c\r\nz\r\nms n 1 ME C5 c\r\nz\r\nms n 1 MR C0\r\nz\r\nmd n\r\n",
        "ms k 1 T-1\r\nx\r\nmg k\r\nms k 0 F5 T0\r\n\r\nmg k v s f\r\nms k 2 MA F7 T7\r\nyz\r\nmg k v f t\r\n",
        "mg k t T100\r\nmg k T200 t\r\nmg k T0 v t\r\nmg nope T100 t k\r\nmg k T5 q\r\n",
        "md k q\r\nmd k q\r\nmd k q k O1\r\nms k 1\r\nx\r\nmd k k O1\r\nmd k b\r\n",
        "ma n\r\nma n q\r\nma n k O1 q\r\nma n N0 J5 v\r\nma n v c t k O1\r\nma n D10 v q\r\nma n MD D3 v\r\n",
        "ma m N100 J7 t v\r\nma p t N100 v\r\nma p t\r\nma o N100 T50 t v\r\nma r T50 N100 t v q\r\nma r v\r\n",
        "ma m MI v\r\nma m M+ v\r\nma m M- v\r\nma m MD D100 v\r\nmg m v\r\nma m D18446744073709551615 v\r\n",
        "ma e N-1 J4 v\r\nma e v\r\nset s 0 0 1\r\nx\r\nma s\r\nma s q\r\nma s v k O1\r\nma e C5 N0 v\r\n",
        "ms Zm9v 3 b k\r\nabc\r\nget foo\r\nmg Zm9v b k v\r\nmg Zm8= b k\r\nmg Zm9vZg==Zg== b k\r\nmg Zm=v b k\r\n",
        "ma YmFy b N0 k v\r\nma YmFy b k\r\nget bar\r\nmd YmFy b k\r\nmd YmFy b k\r\nms YmFy 1 b q\r\n1\r\nget bar\r\n",
        "mg foo v P L Pxx\r\nmg foo P1 L2\r\nmg foo I M D\r\nmg foo I MZ C5 F5 J5 D5\r\nmg foo MX\r\n",
        "set fo 0 0 1\r\nx\r\nmg fo vxyz\r\nmg fo qxyz kxyz\r\nmg nope qxyz kxyz Oxyz\r\nmn extra\r\n",
    ] {
        twins.check(input);
    }
}

#[test]
fn malformed_input_answers_as_memcached() {
    let mut twins = Twins::new();
    let long = "k".repeat(251);
    let opaque = "x".repeat(32);
    for input in [
        "set k 0 0 1\r\nabc\r\nmn\r\n",
        "set k 0 0 1 noreply\r\nabc\r\nmn\r\n",
        "set k 0 0 5\r\nhello\nmn\r\nmn\r\n",
        "set k 0 0 1\r\n\r\nmn\r\nmn\r\n",
        "set k 0 0 a\r\nmn\r\n",
        "set k x 0 1\r\nmn\r\n",
        "set k 0 x 1\r\nmn\r\n",
        "set k 0 0 -1\r\nmn\r\n",
        "set k 0 0\r\nmn\r\n",
        "set k 0 0 1 2 3\r\nmn\r\n",
        "set k 0 0 noreply\r\nmn\r\n",
        "set k 0 0 x noreply\r\nmn\r\n",
        "set k -1 0 1\r\na\r\nmn\r\n",
        "set k 4294967296 0 1\r\na\r\nget k\r\n",
        "set k 0 0 4294967297\r\na\r\nget k\r\n",
        "set k +7 0 +1\r\na\r\nget k\r\n",
        "set k 01 0 01\r\na\r\nget k\r\n",
        "set k 0 0 2147483646\r\nmn\r\n",
        "cas k 0 0 1\r\na\r\nmn\r\n",
        "cas k 0 0 1 x\r\nmn\r\n",
        "set k 0 0 1 foo\r\na\r\nincr k 1 foo\r\ntouch k 0 foo\r\nmn\r\n",
        "get\r\ngat\r\ngats\r\ngat x k\r\nget k\nmn\nget k\0z\r\n  get  k  \r\nget k\t\r\n",
        "\r\n\n\nx\r\nMN\r\nGET k\r\nmx\r\nmnx\r\nbget k\r\nmgx k\r\n",
        "incr k x\r\nincr k x noreply\r\nincr k\r\nincr k -1\r\nincr k 1 2 3\r\nincr noreply\r\n",
        "delete\r\ndelete k 5\r\ndelete k 5 noreply\r\ndelete a b c d\r\ndelete k 0 noreply\r\nmn\r\n",
        "touch k\r\ntouch k x\r\ntouch k x noreply\r\ntouch\r\ntouch k 1 2 3\r\nmn\r\n",
        "flush_all x\r\nflush_all x noreply\r\nflush_all noreply 1\r\nflush_all 1 2 3\r\nmn\r\n",
        "verbosity\r\nverbosity x\r\nverbosity noreply\r\nverbosity 1 2 3\r\nmn\r\n",
        "mg\r\nms\r\nmd\r\nma\r\nme\r\nms k\r\nms k x\r\nabc\r\nms k -1\r\nms k S1\r\na\r\n",
        "ms k 1\r\nabc\r\nms k 1 q\r\nabc\r\nms k 1 q k\r\nabc\r\nmn\r\n",
        "ms k 3 !\r\nabc\r\nms k 3 q q\r\nabc\r\nms k 3 Fx\r\nabc\r\nms k 3 Fx Tx\r\nabc\r\nmn\r\n",
        "ms k 3 Tx Fx\r\nabc\r\nms k 3 M\r\nabc\r\nms k 3 MZ\r\nabc\r\nms k 3 Tx !\r\nabc\r\nmn\r\n",
        "ms k 3 b\r\nabc\r\nms k 3 b !\r\nabc\r\nms k 3 \u{ff}\r\nabc\r\nms k 3 T\r\nabc\r\nmn\r\n",
        "mg k !\r\nmg k k k\r\nmg k q q\r\nmg k T\r\nmg k Tx\r\nmg k N\r\nmg k Rx\r\nmg k Jx\r\nmg k Dx\r\n",
        "mg k M\r\nmg k Cx\r\nmg k Fx\r\nmg k ! q q\r\nmg k q q !\r\nmg k Zm8 b\r\nmg Zm8 b\r\nmg !! b\r\n",
        "md k !\r\nmd k k k\r\nmd Zm8 b\r\nma k !\r\nma k Dx\r\nma k MZ\r\nma k D-1\r\nma k MZ !\r\n",
        "ms k 2147483647\r\nmn\r\nms k 2147483646\r\nmn\r\nms k 1 2\r\na\r\nmn\r\n",
    ] {
        twins.check(input);
    }
    for (start, end) in [
        ("set", "0 0 3"),
        ("set", "0 0 3 noreply"),
        ("ms", "3"),
        ("ms", "3 q"),
    ] {
        twins.check(&format!("{start} {long} {end}\r\nabc\r\nmn\r\n"));
    }
    for start in [
        "get", "get k", "gat 1", "incr", "delete", "touch", "mg", "md", "ma", "me",
    ] {
        twins.check(&format!("{start} {long} 1\r\nmn\r\n"));
        twins.check(&format!("{start} {long} noreply\r\nmn\r\n"));
    }
    for start in [
        "mg k",
        "mg k q",
        "ms k 1",
        "ms k 1 Fx",
        "ms k 1 MZ",
        "md k",
        "ma k",
        "ma k MZ",
    ] {
        let data = if start.starts_with("ms") { "x\r\n" } else { "" };
        twins.check(&format!(
            "{start} O{opaque}\r\n{data}{start} O{}\r\n{data}",
            &opaque[1..]
        ));
    }
    let flags = "a b c d e f g h i j k l m n o p r";
    for start in ["mg", "ms", "md", "ma"] {
        twins.check(&format!(
            "{start} k {flags}\r\nmn\r\n{start} k {flags} s\r\nmn\r\n"
        ));
    }
}

#[test]
fn what_only_memcached_can_do_is_refused() {
    let mut twins = Twins::new();
    let mut check = |input: &str, what: &str| {
        let [_, ours] = twins.raw([b"", input.as_bytes()]);
        let refusal = format!("CLIENT_ERROR breccia: {what}");
        assert!(
            ours.starts_with(refusal.as_bytes()),
            "{}",
            String::from_utf8_lossy(&ours)
        );
    };
    let needs = |what: &str| format!("{what} needs memcached shards only; 'mem' is memory\r\n");
    for letter in ["N5", "R5", "h", "l"] {
        check(
            &format!("mg k {letter}\r\n"),
            &needs(&format!("the mg flag '{}'", &letter[..1])),
        );
    }
    check("md k I\r\n", &needs("the md flag 'I'"));
    check("ms k 1 I C5\r\nx\r\n", &needs("the ms flag 'I'"));
    check("me k\r\n", &needs("'me'"));
    check("flush_all 10\r\n", &needs("flush_all with a delay"));
    check("watch\r\n", "'watch' acts on one server");
}

/// A small deterministic source of choices.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = breccia_core::hash::splitmix64(self.0);
        usize::try_from(self.0 % sides as u64).unwrap()
    }

    fn pick<'w>(&mut self, words: &[&'w str]) -> &'w str {
        words[self.roll(words.len())]
    }

    /// One request, right or slightly wrong.
    fn request(&mut self) -> String {
        const KEYS: &[&str] = &["a", "b", "c", "Zm9v", "foo"];
        const NUMBERS: &[&str] = &[
            "0",
            "1",
            "2",
            "3",
            "007",
            "+1",
            "-1",
            "1000",
            "4294967297",
            "x",
        ];
        const DATA: &[&str] = &[
            "",
            "1",
            "17",
            "999",
            "abc",
            "18446744073709551615",
            " 5 x",
            "5\r\n",
        ];
        const FLAGS: &[&str] = &[
            "v", "k", "s", "t", "c", "f", "q", "b", "Oab", "u", "T0", "T1000", "C0", "C999999",
            "F5", "ME", "MA", "MP", "MR", "MS", "MI", "MD", "J5", "D3", "P", "L", "v", "k",
        ];
        let key = self.pick(KEYS);
        let line = match self.roll(14) {
            0..=1 => {
                let verb = self.pick(&["get", "gets", "gat 1000", "gats 0"]);
                format!("{verb} {key} {} {}", self.pick(KEYS), self.pick(KEYS))
            }
            2..=4 => {
                let verb = self.pick(&["set", "add", "replace", "append", "prepend", "cas"]);
                let data = self.pick(DATA);
                let cas = if verb == "cas" { " 999999" } else { "" };
                let noreply = self.pick(&["", "", " noreply", " x"]);
                let flags = if self.roll(9) == 0 {
                    self.pick(NUMBERS)
                } else {
                    "7"
                };
                let exptime = self.pick(&["0", "1000", "0", "-1", "2592001"]);
                let length = if self.roll(12) == 0 {
                    self.roll(6)
                } else {
                    data.len()
                };
                return format!(
                    "{verb} {key} {flags} {exptime} {length}{cas}{noreply}\r\n{data}\r\n"
                );
            }
            5..=6 => {
                let noreply = self.pick(&["", "", " noreply", " x y"]);
                let verb = self.pick(&["incr", "decr", "touch"]);
                format!("{verb} {key} {}{noreply}", self.pick(NUMBERS))
            }
            7 => format!("delete {key}{}", self.pick(&["", " 0", " noreply", " 5"])),
            8 => self
                .pick(&["mn", "version", "flush_all", "verbosity 1", "GET a", ""])
                .to_owned(),
            verb => {
                let mut flags: Vec<&str> = (0..self.roll(5)).map(|_| self.pick(FLAGS)).collect();
                if self.roll(6) != 0 {
                    flags.sort_unstable();
                    flags.dedup_by_key(|flag| flag.as_bytes()[0]);
                }
                let flags = flags.join(" ");
                if verb < 11 {
                    let data = self.pick(DATA);
                    return format!("ms {key} {} {flags}\r\n{data}\r\n", data.len());
                }
                format!("{} {key} {flags}", self.pick(&["mg", "md", "ma", "ma"]))
            }
        };
        format!("{line}\r\n")
    }
}

#[test]
fn random_sessions_answer_as_memcached() {
    let mut dice = Dice(7);
    for _ in 0..10 {
        let mut twins = Twins::new();
        twins.same_key_form = true;
        for _ in 0..400 {
            // One at a time: an item that an unsent reply of memcached's still holds is counted in
            // a copy, which is not padded.
            twins.check(&dice.request());
        }
    }
}
