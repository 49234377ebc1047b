//! Random requests, right and slightly wrong, from a seed.
//!
//! Invariant: the same seed gives the same requests; all of them can be done by every member.

/// A small deterministic source of choices.
pub(crate) struct Dice(pub(crate) u64);

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
/// None of them passes while a test runs.
const TIMES: &[&str] = &[
    "0",
    "1000",
    "01000",
    "+1000",
    "-1",
    "4294968296",
    "2592001",
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
    "v", "k", "s", "t", "c", "f", "q", "b", "Oab", "u", "T0", "T1000", "C0", "C999999", "F5", "ME",
    "MA", "MP", "MR", "MS", "MI", "MD", "J5", "D3", "P", "L", "v", "k",
];

impl Dice {
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 = breccia_core::hash::splitmix64(self.0);
        usize::try_from(self.0 % sides as u64).unwrap()
    }

    fn pick<'w>(&mut self, words: &[&'w str]) -> &'w str {
        words[self.roll(words.len())]
    }

    /// One request, right or slightly wrong.
    pub(crate) fn request(&mut self) -> String {
        let key = self.pick(KEYS);
        let line = match self.roll(14) {
            0..=1 => {
                let verb = self.pick(&["get", "gets", "gat 1000", "gats 0"]);
                format!("{verb} {key} {} {}", self.pick(KEYS), self.pick(KEYS))
            }
            2..=4 => return self.storage(key),
            5..=6 => {
                let noreply = self.pick(&["", "", " noreply", " x y"]);
                let verb = self.pick(&["incr", "decr", "touch"]);
                let numbers = if verb == "touch" { TIMES } else { NUMBERS };
                format!("{verb} {key} {}{noreply}", self.pick(numbers))
            }
            7 => format!("delete {key}{}", self.pick(&["", " 0", " noreply", " 5"])),
            8 => self
                .pick(&["mn", "version", "flush_all", "verbosity 1", "GET a", ""])
                .to_owned(),
            9..=10 => {
                let data = self.pick(DATA);
                return format!("ms {key} {} {}\r\n{data}\r\n", data.len(), self.flags());
            }
            _ => format!(
                "{} {key} {}",
                self.pick(&["mg", "md", "ma", "ma"]),
                self.flags()
            ),
        };
        format!("{line}\r\n")
    }

    fn storage(&mut self, key: &str) -> String {
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
        format!("{verb} {key} {flags} {exptime} {length}{cas}{noreply}\r\n{data}\r\n")
    }

    fn flags(&mut self) -> String {
        let mut flags: Vec<&str> = (0..self.roll(5)).map(|_| self.pick(FLAGS)).collect();
        if self.roll(6) != 0 {
            flags.sort_unstable();
            flags.dedup_by_key(|flag| flag.as_bytes()[0]);
        }
        flags.join(" ")
    }
}
