//! Request lines of the meta protocol, and the few numbers read from `stats`. No socket. Invariant:
//! nothing from a key can end a line: what is not printable goes as base64.

use super::super::codec::encode_base64;
use super::super::codec::number;

/// A key as it is written.
#[derive(Debug)]
pub(super) struct WireKey {
    text: Vec<u8>,
    binary: bool,
}

impl WireKey {
    pub(super) fn new(key: &[u8]) -> Self {
        let binary = !key.iter().all(u8::is_ascii_graphic);
        let mut text = Vec::new();
        if binary {
            encode_base64(key, &mut text);
        } else {
            text.extend_from_slice(key);
        }
        Self { text, binary }
    }
}

/// A request that is being written.
#[derive(Debug)]
pub(super) struct Line {
    bytes: Vec<u8>,
    data: Option<Vec<u8>>,
}

impl Line {
    pub(super) fn new(command: &[u8]) -> Self {
        Self {
            bytes: command.to_vec(),
            data: None,
        }
    }

    pub(super) fn on(command: &[u8], key: &WireKey) -> Self {
        Self::new(command).word(&key.text).base64(key)
    }

    /// A storage request: its length stands behind the key, its data behind the line.
    pub(super) fn store(key: &WireKey, data: &[u8]) -> Self {
        let mut line = Self::new(b"ms").word(&key.text);
        line.bytes.push(b' ');
        number::push(&mut line.bytes, data.len() as u64);
        line.data = Some(data.to_vec());
        line.base64(key)
    }

    fn base64(self, key: &WireKey) -> Self {
        if key.binary { self.word(b"b") } else { self }
    }

    pub(super) fn word(mut self, word: &[u8]) -> Self {
        self.bytes.push(b' ');
        self.bytes.extend_from_slice(word);
        self
    }

    /// A flag with a number.
    pub(super) fn flag(mut self, letter: u8, value: u64) -> Self {
        self.bytes.extend_from_slice(&[b' ', letter]);
        number::push(&mut self.bytes, value);
        self
    }

    /// `T`, whose number may be below zero.
    pub(super) fn time(mut self, seconds: i32) -> Self {
        self.bytes.extend_from_slice(b" T");
        number::push_signed(&mut self.bytes, seconds);
        self
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(b"\r\n");
        if let Some(data) = self.data {
            self.bytes.extend_from_slice(&data);
            self.bytes.extend_from_slice(b"\r\n");
        }
        self.bytes
    }
}

/// The number behind `STAT name`.
pub(super) fn stat(reply: &[u8], name: &[u8]) -> Option<u64> {
    reply.split(|byte| *byte == b'\n').find_map(|line| {
        let mut words = line.trim_ascii_end().split(|byte| *byte == b' ');
        if words.next() != Some(b"STAT") || words.next() != Some(name) {
            return None;
        }
        std::str::from_utf8(words.next()?).ok()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_the_meta_protocol() {
        let check = |line: Line, expected: &str| {
            assert_eq!(String::from_utf8(line.finish()).unwrap(), expected);
        };
        let (plain, binary) = (WireKey::new(b"k"), WireKey::new(b"\x00\r\n"));
        check(
            Line::on(b"mg", &plain).word(b"v").time(-1),
            "mg k v T-1\r\n",
        );
        check(Line::on(b"md", &binary).flag(b'C', 7), "md AA0K b C7\r\n");
        check(
            Line::store(&binary, b"x\r\n").word(b"c"),
            "ms AA0K 3 b c\r\nx\r\n\r\n",
        );
    }

    #[test]
    fn a_stat_is_found_by_its_whole_name() {
        let reply = b"STAT time_in_x 5\r\nSTAT time 17\r\nEND\r\n";
        assert_eq!(stat(reply, b"time"), Some(17));
        assert_eq!(stat(reply, b"tim"), None);
    }
}
