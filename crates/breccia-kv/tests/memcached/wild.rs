//! Random sessions over servers alone: every command and flag of text and meta, and lines that are wrong in
//! every way that a line can be.
//!
//! What is refused or answered here (`stats`, `watch` and their kin) is not asked; see `docs/memcached.md`.
//! Invariant: the same seed gives the same sessions, and no time that is given passes while a test runs.

use crate::dice::Dice;
use crate::twins::Twins;

const KEYS: &[&str] = &[
    "a",
    "b",
    "c",
    "Zm9v",
    "foo",
    "YQ==",
    "noreply",
    "0",
    "-1",
    "k\u{1}",
    "k\u{7f}",
    "\u{ff}\u{e4}",
    "{a}b",
];
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "2",
    "5",
    "007",
    "+1",
    "-1",
    "-0",
    "1000",
    "2147483647",
    "2147483648",
    "-2147483648",
    "4294967295",
    "4294967296",
    "4294967297",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "x",
    "1x",
    "0x10",
    "1.5",
    "1e3",
    "",
];
const TIMES: &[&str] = &[
    "0",
    "1000",
    "01000",
    "+1000",
    "-1",
    "2592000",
    "2592001",
    "2147483647",
    "4294968296",
    "-2147483648",
    "x",
];
/// No number that is negative as a signed one comes of these: such an item memcached 1.6.18 takes for a number
/// only if no `-` is anywhere in the memory behind it.
const DELTAS: &[&str] = &[
    "0",
    "1",
    "5",
    "007",
    "+1",
    "-1",
    "1000",
    "4294967297",
    "18446744073709551616",
    "x",
    "1x",
    "1.5",
    "",
];
const DATA: &[&str] = &[
    "",
    "1",
    "17",
    "999",
    "abc",
    "1844674407370955161",
    " 5 x",
    "5\r\n",
    "\r\nx",
    "get a\r\nmn",
    "\0\u{ff}\n",
    "-3",
];
const FLAGS: &[&str] = &[
    "v",
    "k",
    "s",
    "t",
    "c",
    "f",
    "q",
    "b",
    "h",
    "l",
    "u",
    "O",
    "Oab",
    "O0123456789012345678901234567890",
    TOO_LONG,
    "T0",
    "T1000",
    "T-1",
    "T",
    "Tx",
    "C0",
    "C999999",
    "C",
    "Cx",
    "C18446744073709551616",
    "F5",
    "F4294967295",
    "F4294967296",
    "F",
    "Fx",
    "ME",
    "MA",
    "MP",
    "MR",
    "MS",
    "MI",
    "MD",
    "Me",
    "Ma",
    "Mi",
    "M+",
    "M-",
    "M",
    "MM",
    "MSS",
    "J5",
    "J",
    "Jx",
    "D3",
    "D0",
    "D",
    "D-1",
    "N0",
    "N1000",
    "N",
    "N-1",
    "R500",
    "R5000",
    "R",
    "I",
    "P",
    "Px",
    "L",
    "L1",
    "S5",
    "E7",
    "x",
    "!",
    "1",
    "k",
    "v",
    "q",
    "kxyz",
    "vv",
    "noreply",
];
/// Lines without a key, and some that are too short.
const RARE: &[&str] = &[
    "mn",
    "mn x",
    "flush_all",
    "flush_all 0",
    "flush_all -1",
    "flush_all noreply",
    "flush_all x",
    "flush_all 0 noreply",
    "verbosity 1",
    "verbosity",
    "verbosity x noreply",
    "version x",
    "",
    "quit x",
    "shutdown",
    "shutdown x",
    "misbehave",
    "GET a",
    "me",
    "mg",
    "ms",
    "md",
    "ma",
    "set",
    "get",
    "incr",
];
/// The opaque token that is too long.
const TOO_LONG: &str = "O01234567890123456789012345678901";
/// What may stand behind a complete line of the classic commands.
const TAILS: &[&str] = &[
    "",
    "",
    "",
    "",
    " noreply",
    " noreply",
    " x",
    " 0",
    " noreply x",
    " NOREPLY",
];

impl Dice {
    fn one<'w>(&mut self, words: &[&'w str]) -> &'w str {
        words[self.roll(words.len())]
    }

    /// A key. In a session of several requests none is too long: a retrieval of such a one makes memcached forget
    /// the replies to what came before it.
    fn key(&mut self, alone: bool) -> String {
        match self.roll(40) {
            0 => "k".repeat(250),
            1 if alone => "k".repeat(251),
            _ => self.one(KEYS).to_owned(),
        }
    }

    fn keys(&mut self, alone: bool) -> String {
        let keys: Vec<String> = (0..=self.roll(4)).map(|_| self.key(alone)).collect();
        keys.join(" ")
    }

    fn meta_flags(&mut self) -> String {
        let most = if self.roll(20) == 0 { 22 } else { 5 };
        let mut flags: Vec<&str> = (0..self.roll(most)).map(|_| self.one(FLAGS)).collect();
        if self.roll(4) != 0 {
            flags.sort_unstable();
            flags.dedup_by_key(|flag| flag.as_bytes().first().copied());
        }
        flags.iter().flat_map(|flag| [" ", flag]).collect()
    }

    /// A line and its data block, if one belongs to it.
    fn wild(&mut self, alone: bool) -> (String, Option<&'static str>) {
        let (key, tail) = (self.key(alone), self.one(TAILS));
        let line = match self.roll(if alone { 15 } else { 12 }) {
            0 => format!(
                "{} {}",
                self.one(&["get", "gets", "bget"]),
                self.keys(alone)
            ),
            1 => format!(
                "{} {} {}",
                self.one(&["gat", "gats"]),
                self.one(TIMES),
                // One that is too long makes memcached touch those before it.
                self.keys(false)
            ),
            2..=4 => return self.stored(&key, tail),
            5 => format!("touch {key} {}{tail}", self.one(TIMES)),
            6 => format!("delete {key}{tail}"),
            7 => self.one(RARE).to_owned(),
            8..=9 => {
                let data = self.one(DATA);
                return (
                    format!("ms {key} {}{}", self.length(data), self.meta_flags()),
                    Some(data),
                );
            }
            10 => self.meta(&["mg", "mg", "md"], &key),
            11 => format!("me {key}{}", self.one(&["", " b", " x", " b b"])),
            12 => format!(
                "{} {key} {}{tail}",
                self.one(&["incr", "decr"]),
                self.one(DELTAS)
            ),
            _ => self.meta(&["ma"], &key),
        };
        (line, None)
    }

    /// A classic command that stores.
    fn stored(&mut self, key: &str, tail: &str) -> (String, Option<&'static str>) {
        let verb = self.one(&["set", "add", "replace", "append", "prepend", "cas"]);
        let data = self.one(DATA);
        let flags = if self.roll(4) == 0 {
            self.one(NUMBERS)
        } else {
            "7"
        };
        let time = self.one(TIMES);
        let cas = match verb {
            "cas" => format!(" {}", self.one(NUMBERS)),
            _ => String::new(),
        };
        let length = self.length(data);
        let line = format!("{verb} {key} {flags} {time} {length}{cas}{tail}");
        (line, Some(data))
    }

    /// A meta command without data. With an opaque token that is too long memcached complains, but makes the item of
    /// `N` and counts all the same; here it does nothing.
    fn meta(&mut self, verbs: &[&str], key: &str) -> String {
        let flags = self.meta_flags().replace(TOO_LONG, "O1");
        format!("{} {key}{flags}", self.one(verbs))
    }

    fn length(&mut self, data: &str) -> String {
        match self.roll(12) {
            0 => self.roll(9).to_string(),
            // Not the long ones: memcached would swallow the rest of the session.
            1 => self
                .one(&["x", "-1", "+3", "03", "1x", "", "2147483646", "2147483647"])
                .to_owned(),
            _ => data.chars().count().to_string(),
        }
    }

    /// Does harm to a line.
    fn harm(&mut self, line: &str) -> String {
        let mut letters: Vec<char> = line.chars().collect();
        let at = self.roll(letters.len() + 1);
        match self.roll(9) {
            0 => letters.insert(at, ' '),
            1 => letters.insert(at, '\t'),
            2 => letters.insert(at, '\0'),
            3 => letters.insert(at, '\r'),
            4 if at < letters.len() => drop(letters.remove(at)),
            5 if at < letters.len() => letters[at].make_ascii_uppercase(),
            6 => return format!("  {line}"),
            7 => return format!("{line}  "),
            _ => return line.replacen(' ', "  ", 1),
        }
        letters.into_iter().collect()
    }

    /// One request with its end, right or wrong.
    fn wild_request(&mut self, alone: bool) -> String {
        let (mut line, data) = self.wild(alone);
        // Part of a number might be a time that passes during the test, or a length that swallows the rest.
        let is_whole = |part: &[u8]| part.iter().all(u8::is_ascii_digit) || part == b"kkkk";
        let is_fragile = line.starts_with("flush_all") || line.as_bytes().windows(4).any(is_whole);
        if self.roll(4) == 0 && !is_fragile {
            line = self.harm(&line);
        }
        // What would be a question about the server itself is none of ours.
        let first = line
            .trim_start()
            .split([' ', '\0'])
            .next()
            .unwrap_or_default();
        if ["stats", "watch", "slabs", "lru"].contains(&first) {
            "mn".clone_into(&mut line);
        }
        let end = if self.roll(15) == 0 { "\n" } else { "\r\n" };
        let Some(data) = data else {
            return format!("{line}{end}");
        };
        let data_end = if self.roll(25) == 0 {
            self.one(&["\n", "", "\r", "x\r\n"])
        } else {
            "\r\n"
        };
        format!("{line}{end}{data}{data_end}")
    }

    /// One client's whole input. Only alone does a request count: an item that an unsent reply of memcached's
    /// still holds is counted in a copy, which is not padded.
    fn wild_session(&mut self) -> String {
        if self.roll(3) == 0 {
            return self.wild_request(true);
        }
        (0..2 + self.roll(8))
            .map(|_| self.wild_request(false))
            .collect()
    }
}

fn check(shards: usize, seed: u64, sessions: usize) {
    let (mut twins, mut dice) = (Twins::servers(shards), Dice(seed));
    // At the end of its input memcached drops the replies that it holds back while a data block is incomplete: so
    // every block is completed.
    let held: Vec<String> = KEYS
        .iter()
        .map(|key| format!("mg {key} k f t s v\r\n"))
        .collect();
    let end = format!("{}\r\nmn\r\n{}", "x".repeat(1200), held.concat());
    for _ in 0..sessions {
        twins.check(&(dice.wild_session() + &end));
    }
}

/// How many sessions; more are asked for by `BRECCIA_WILD_SESSIONS`.
fn sessions() -> usize {
    let wanted = std::env::var("BRECCIA_WILD_SESSIONS").ok();
    wanted.and_then(|text| text.parse().ok()).unwrap_or(1500)
}

/// The seed; another one by `BRECCIA_WILD_SEED`.
fn seed() -> u64 {
    let wanted = std::env::var("BRECCIA_WILD_SEED").ok();
    wanted.and_then(|text| text.parse().ok()).unwrap_or(11)
}

#[test]
fn wild_sessions_over_one_server_answer_as_memcached() {
    check(1, seed(), sessions());
}

#[test]
fn wild_sessions_over_three_servers_answer_as_memcached() {
    check(3, seed() + 1, sessions());
}
