//! Where a mutation loop starts from, and how it goes on.
//!
//! Not coverage-guided: libFuzzer is for that. Invariant: the same name and number give the same
//! inputs on every machine.

mod mysql;
mod postgres;
mod s3;

use std::path::Path;

use breccia_core::hash::HashKind;
use breccia_core::layout::{CompositeKind, Layout, LayoutSpec, Role};

/// The inputs of a target to start from: those written here, and the files in `seeds/TARGET`, which
/// past runs found to reach something new or to break a promise.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    let written = match target {
        "resp_request" => bytes(&RESP_REQUESTS),
        "resp_reply" => bytes(&RESP_REPLIES),
        "memcached_request" | "memcached_typed" => bytes(&MEMCACHED_REQUESTS),
        "memcached_reply" => bytes(&MEMCACHED_REPLIES),
        "resp_portable" => bytes(&PORTABLE),
        "command_keys" => bytes(&COMMANDS),
        "layout_document" => layouts(),
        "s3_chunked" => bytes(&s3::CHUNKED),
        "s3_range" => bytes(&s3::RANGES),
        "s3_xml" => bytes(&s3::DOCUMENTS),
        "s3_key_encoding" => bytes(&s3::KEYS),
        "s3_authorization" => bytes(&s3::HEADS),
        "pg_startup" => bytes(&postgres::STARTUPS),
        "pg_frames" => bytes(&postgres::FRAMES),
        "pg_scram" => bytes(&postgres::EXCHANGES),
        "my_lexer" => bytes(&crate::mysql_class::STATEMENTS),
        "pg_lexer" => bytes(&postgres::STATEMENTS),
        "my_frames" => bytes(&mysql::FRAMES),
        "my_handshake" => bytes(&mysql::HANDSHAKES),
        "my_auth" => bytes(&mysql::LOGINS),
        _ => bytes(&[CONFIG.as_bytes()]),
    };
    let mut all = edges(target);
    all.extend(written);
    all.extend(kept(target));
    all
}

fn bytes(texts: &[&[u8]]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.to_vec()).collect()
}

/// The files of a target, in the order of their names.
fn kept(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("seeds")
        .join(target);
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    paths.sort();
    paths
        .iter()
        .filter_map(|path| std::fs::read(path).ok())
        .collect()
}

/// Lines around the lengths at which a codec gives up on them.
fn edges(target: &str) -> Vec<Vec<u8>> {
    let line = |start: &str, fill: &str, length: usize, end: &str| {
        let filling = fill.repeat(length.saturating_sub(start.len()));
        [start, &filling, end].concat().into_bytes()
    };
    let mut all = Vec::new();
    match target {
        "resp_request" => {
            for length in 31..36 {
                all.push(line("0*1", "0", length, "\r\n"));
                all.push(line("0*1\r\n$1", "0", length + 4, "\r\n"));
            }
            for length in (64 << 10) + 1..(64 << 10) + 3 {
                all.push(line("0ECHO ", "x", length, "\r\nPING\n"));
            }
        }
        "resp_reply" => {
            for kind in [":", "#", "_", ",", "(", "$", "*", "+"] {
                for length in [38, 39, 40, 41, 42, 60] {
                    all.push(line(kind, "1", length, "\r\n"));
                }
            }
        }
        "memcached_request" => {
            for length in 2046..2051 {
                for (start, end) in [("0mg a k", "\n"), ("0mg a k", "\r\n"), ("0gets", "\n")] {
                    all.push(line(
                        start,
                        if start == "0gets" { " a" } else { "x" },
                        length,
                        end,
                    ));
                }
                all.push(line("2get", " b", length, "\r\n"));
            }
        }
        "memcached_reply" => {
            for length in 2045..2052 {
                all.push(line("\x01SERVER_ERROR ", "x", length, "\r\n"));
                all.push(line("\x08HD O", "x", length, "\r\n"));
            }
        }
        "pg_startup" => {
            for length in 9_998..10_003_u32 {
                let claim = String::from_utf8_lossy(&length.to_be_bytes()).into_owned();
                all.push(line(&format!("{claim}\0\x03\0\0a\0"), "x", 10_003, "\0\0"));
            }
        }
        _ => {}
    }
    all
}

/// The first byte picks the limits.
const RESP_REQUESTS: [&[u8]; 8] = [
    b"0*3\r\n$3\r\nSET\r\n$1\r\na\r\n$5\r\nhello\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n",
    b"0*1\r\n$4\r\nPING\r\nPING\r\nSET a \"b c\\x00\\n\" 'd'\r\n",
    b"1*0\r\n*-1\r\n*2\r\n$4\r\nMGET\r\n$0\r\n\r\n",
    b"2*3\r\n$4\r\nEVAL\r\n$8\r\nreturn 1\r\n$3\r\nkey\r\n",
    b"0*1000000\r\n$536870912\r\n",
    b"1*1\r\n$65530\r\n",
    b"0\r\nGET a\nGET \"unbalanced\r\n",
    b"2*2\r\n$4\r\nECHO\r\n$40\r\n1234567890123456789012345678901234567890\r\n",
];

const RESP_REPLIES: [&[u8]; 8] = [
    b"+OK\r\n-ERR no\r\n:12\r\n$5\r\nhello\r\n$-1\r\n*-1\r\n",
    b"*2\r\n$1\r\na\r\n*3\r\n:1\r\n$-1\r\n+x\r\n",
    b"%1\r\n$1\r\na\r\n~2\r\n,1.5\r\n#t\r\n_\r\n(123456789012345678901234567890\r\n",
    b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n=7\r\ntxt:abc\r\n!3\r\nERR\r\n",
    b"|1\r\n+key\r\n:5\r\n$2\r\nok\r\n",
    b"*2\r\n|1\r\n+ttl\r\n:5\r\n$2\r\nok\r\n>1\r\n*0\r\n",
    b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n%1\r\n~0\r\n_\r\n",
    b"*9223372036854775807\r\n*99999999\r\n$99999999999\r\n",
];

/// The first byte picks the limit.
const MEMCACHED_REQUESTS: [&[u8]; 8] = [
    b"0set a 1 0 5 noreply\r\nhello\r\nget a b c\r\ngets a\r\n",
    b"0cas a 1 0 2 99\r\nhi\r\nadd a 0 -1 0\r\n\r\nincr a 5\r\ndecr a 5 noreply\r\n",
    b"0mg a v f c k O123 q\r\nms a 2 T90 F5 I\r\nhi\r\nmd a q\r\nma a N60 J5 D2\r\nmn\r\nme a\r\n",
    b"0ms Zm9v 3 b c\r\nbar\r\nmg Zm9v b k v\r\ngat 60 a b\r\ntouch a 60\r\nme Zm9v b\r\n",
    b"0flush_all 5 noreply\r\nversion\r\nverbosity 1\r\nstats items\r\ndelete a 0 noreply\r\nquit\r\n",
    b"0set a 0 0 99999999999\r\nset  a 0 0 4294967295\r\nset a x\r\nfrob\r\n",
    b"1set a 0 0 80\r\nset b 0 0 200 noreply\r\nms c 2000 q\r\nget a\r\n",
    b"0ms a S100 T0\r\nms a 2 F99999999999 F1\r\nhi\r\nappend a 0 0 1\r\nxy\r\nprepend a 0 0 -1\r\n",
];

/// The first byte picks what was asked.
const MEMCACHED_REPLIES: [&[u8]; 9] = [
    b"\x00VALUE a 1 5\r\nhello\r\nVALUE b 0 0 77\r\n\r\nEND\r\n",
    b"\x00VALUE a 1 5\r\nhello\r\nSERVER_ERROR out of memory writing get response\r\n",
    b"\x01STORED\r\nNOT_STORED\r\nEXISTS\r\nNOT_FOUND\r\nSERVER_ERROR out of memory\r\n",
    b"\x08VA 5 f1 c77 kabc Oxyz\r\nhello\r\nHD t5\r\nEN\r\n",
    b"\x07STAT pid 5\r\nSTAT version 1.6\r\nEND\r\nRESET\r\n",
    b"\x045\r\nNOT_FOUND\r\nCLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
    b"\x0bVA 2 t0\r\n17\r\nHD\r\nNS\r\nEX\r\nNF\r\n",
    b"\x0cME a exp=-1 la=5 cas=2 fetch=no cls=1 size=64\r\n",
    b"\x0dMN\r\n",
];

/// The first byte picks the version and the memory.
const PORTABLE: [&[u8]; 8] = [
    b"0SET a 1\nGET a\nINCR a\nINCRBY a -5\nINCRBYFLOAT a 1.5\nDECRBY a 2\nAPPEND a xyz\nSTRLEN a",
    b"1SET a 1 NX GET EX 10\nSET a 2 XX KEEPTTL\nGETSET a 3\nGETEX a PERSIST\nGETDEL a\nTTL a",
    b"0MSET a 1 b 2\nMGET a b c\nMSETNX a 1 d 2\nDEL a b c\nUNLINK a\nEXISTS a a\nTOUCH a b",
    b"1SETRANGE a 5 x\nGETRANGE a 0 -1\nSUBSTR a 0 2\nEXPIRE a 10 NX\nPEXPIREAT a 1 GT\nEXPIRETIME a",
    b"2SCAN 0 MATCH a* COUNT 5 TYPE string\nKEYS *\nDBSIZE\nRANDOMKEY\nTYPE a\nFLUSHDB\nFLUSHALL ASYNC",
    b"0MULTI\nSET a 1\nINCR a\nGET b\nEXPIRE a 0\nEXEC\nPSETEX a 10 x\nSETNX a 1\nSETEX a 0 x",
    b"3LPUSH a 1\nGET\nget a b\nOBJECT ENCODING a\nRENAME a b\nCOPY a b\nDUMP a\nPTTL a\nPERSIST a",
    b"1BITCOUNT a 0 -1 BIT\nSETBIT a 7 1\nGETBIT a 7\nLCS a b IDX\nEVAL x 1 a\nMULTI\nKEYS *\nEXEC",
];

const COMMANDS: [&[u8]; 8] = [
    b"MSET\na\n1\nb\n2",
    b"ZUNIONSTORE\nd\n2\na\nb\nWEIGHTS\n1\n2",
    b"XREADGROUP\nGROUP\ng\nc\nCOUNT\n1\nSTREAMS\na\nb\n>\n>",
    b"MIGRATE\nh\n1\n\n0\n5\nAUTH2\nu\np\nKEYS\na\nb",
    b"SORT\na\nBY\nw_*\nLIMIT\n0\n5\nGET\n#\nSTORE\nd",
    b"GEORADIUS\na\n1\n1\n1\nm\nSTOREDIST\nd",
    b"OBJECT\nENCODING\na",
    b"EVAL\ns\n99999999999999999999\na",
];

fn layouts() -> Vec<Vec<u8>> {
    let specification = |role, hash_tag| LayoutSpec {
        composite: "cache".to_owned(),
        kind: CompositeKind::InMemory,
        hash: HashKind::default(),
        hash_tag,
        placement_key: breccia_core::PlacementKey::Raw,
        role,
        shards: ["a", "b", "c"].map(str::to_owned).to_vec(),
    };
    let all = [
        specification(Role::Outer, None),
        specification(Role::Inner, "{}".parse().ok()),
    ];
    all.iter()
        .filter_map(|one| Layout::first(one).ok())
        .map(|layout| layout.to_document().into_bytes())
        .collect()
}

const CONFIG: &str = r#"workers = 2
drain-timeout = "30s"
log = { level = "info", format = "text" }
[admin]
bind = "127.0.0.1:9180"
[state]
dir = "state"
[store.redis-a]
type = "redis"
url = "redis://127.0.0.1:6379/0"
timeout = "5s"
tls = { ca = "ca.pem", insecure = true }
[store.mc]
type = "memcached"
address = "127.0.0.1:11211"
[store.mem]
type = "memory"
max-memory = "64MiB"
[store.cache]
type = "sharded-in-memory"
stores = ["redis-a", "mem"]
hash = "xxh3-64"
hash-tag = "{}"
command.FT-ADD = { first-key = 1, last-key = -1, step = 2, write = true }
[listener.cache]
protocol = "redis"
bind = "127.0.0.1:6380"
store = "cache"
max-request-size = "64MiB"
[[listener.cache.user]]
name = "default"
password = { env = "CACHE_PASSWORD" }
"#;

/// Pieces that formats of these kinds are made of.
const WORDS: [&[u8]; 56] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"*",
    b"$",
    b"*-1\r\n",
    b"$-1\r\n",
    b"0",
    b"-1",
    b"1",
    b"4294967295",
    b"4294967296",
    b"9223372036854775807",
    b"18446744073709551615",
    b"-0",
    b"01",
    b"+1",
    b"\"",
    b"'",
    b"\\x",
    b"noreply",
    b" q",
    b"[",
    b"]",
    b"=",
    b"{",
    b"\xff",
    b"STREAMS",
    b"$1\r\na\r\n",
    b"%1\r\n",
    b"|1\r\n",
    b">2\r\n",
    b"VALUE a 0 1\r\n",
    b"VA 1 ",
    b"END\r\n",
    b"ERROR",
    b"SERVER_ERROR ",
    b"mg a ",
    b"\0\0\0\x04",
    b"\0\0\0\x08",
    b"S\0\0\0\x04",
    b"select ",
    b"''",
    b"E'",
    b"U&'",
    b"$$",
    b"--",
    b"/*",
    b"*/",
    b"::",
    b";",
    b".5",
    b",p=",
    b"r=",
];

/// Endless inputs: a seed, changed a few times.
#[derive(Debug)]
pub struct Mutator {
    seeds: Vec<Vec<u8>>,
    /// How many of the seeds, from the first on, are edges.
    edges: usize,
    state: u64,
    input: Vec<u8>,
}

impl Mutator {
    /// Starts from the seeds of `target`.
    pub fn new(target: &str, number: u64) -> Mutator {
        Mutator {
            edges: edges(target).len(),
            seeds: of(target),
            state: number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            input: Vec::new(),
        }
    }

    /// The next input.
    #[expect(
        clippy::should_implement_trait,
        reason = "it lends: an iterator could not"
    )]
    pub fn next(&mut self) -> &[u8] {
        // Long lines take long; one in 16 will do.
        let from = if self.below(16) == 0 { 0 } else { self.edges };
        let seed = from + self.below(self.seeds.len() - from);
        self.input = self.seeds.get(seed).cloned().unwrap_or_default();
        for _ in 0..self.below(8) {
            self.change();
        }
        &self.input
    }

    fn change(&mut self) {
        let at = self.below(self.input.len() + 1);
        let end = at + self.below((self.input.len() - at).min(40) + 1);
        match self.below(7) {
            0 => {
                let bit = self.below(8);
                if let Some(byte) = self.input.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
            1 => drop(self.input.drain(at..end)),
            2 => {
                let piece: Vec<u8> = self.input.get(at..end).unwrap_or_default().to_vec();
                self.insert(at, &piece);
            }
            3 => self.input.truncate(at),
            4 => {
                let other = self.below(self.seeds.len());
                let tail = self.seeds.get(other).cloned().unwrap_or_default();
                let from = self.below(tail.len() + 1);
                self.insert(at, tail.get(from..).unwrap_or_default());
            }
            _ => {
                let word = self.below(WORDS.len());
                self.insert(at, WORDS.get(word).copied().unwrap_or_default());
            }
        }
    }

    fn insert(&mut self, at: usize, piece: &[u8]) {
        self.input.splice(at..at, piece.iter().copied());
    }

    fn below(&mut self, limit: usize) -> usize {
        // xorshift64: a mutation loop needs no better.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        usize::try_from(self.state % (limit.max(1) as u64)).unwrap_or(0)
    }
}
