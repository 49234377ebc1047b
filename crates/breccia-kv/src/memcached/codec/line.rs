//! A command line and its words. It knows no commands.
//!
//! Invariant: words are cut as memcached 1.6 cuts them: at spaces only, and a NUL byte ends the
//! line early.

use memchr::memchr;

/// One command line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a> {
    /// Without its end, cut at the first NUL.
    pub(crate) text: &'a [u8],
    /// Its length in the buffer, end included.
    pub(crate) raw_length: usize,
    /// Whether it ended in `\r\n` and held no NUL.
    pub(crate) clean: bool,
}

impl<'a> Line<'a> {
    /// The line that ends at the newline at `newline` in `buffer`.
    pub(crate) fn new(buffer: &'a [u8], newline: usize) -> Self {
        let raw = buffer.get(..newline).unwrap_or_default();
        // As in memcached, a lone "\r\n" keeps its "\r" as a one-byte command.
        let (text, returned) = match raw {
            [text @ .., b'\r'] if !text.is_empty() => (text, true),
            _ => (raw, false),
        };
        let end = memchr(0, text);
        Self {
            text: end.map_or(text, |at| text.get(..at).unwrap_or_default()),
            raw_length: newline + 1,
            clean: returned && end.is_none(),
        }
    }
}

/// The words of a line.
#[derive(Clone, Debug)]
pub(crate) struct Words<'a> {
    rest: &'a [u8],
}

impl<'a> Words<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }

    /// What was not cut yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let start = self.rest.iter().position(|byte| *byte != b' ')?;
        let from = self.rest.get(start..)?;
        let end = memchr(b' ', from).unwrap_or(from.len());
        let (word, rest) = from.split_at_checked(end)?;
        self.rest = rest;
        Some(word)
    }
}

/// memcached looks at 23 words at once; a 24th and later ones only count as "too many".
const MAX_WORDS: usize = 23;

/// The words of a line that has a fixed form, the command's name first.
#[derive(Debug)]
pub(crate) struct Form<'a> {
    words: [&'a [u8]; MAX_WORDS],
    count: usize,
    /// Whether the words were parted by exactly one space each, with none before or behind.
    pub(crate) single_spaced: bool,
}

impl<'a> Form<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        let mut words = [[].as_slice(); MAX_WORDS];
        let (mut count, mut length) = (0, 0);
        for (place, word) in words.iter_mut().zip(Words::new(text)) {
            *place = word;
            count += 1;
            length += word.len() + 1;
        }
        Self {
            words,
            count,
            single_spaced: length == text.len() + 1,
        }
    }

    /// How many words there are, at most 23.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The word at an index; empty if there is none.
    pub(crate) fn word(&self, index: usize) -> &'a [u8] {
        self.words.get(index).copied().unwrap_or_default()
    }

    /// Whether the last word is `noreply`.
    pub(crate) fn ends_noreply(&self) -> bool {
        self.count > 0 && self.word(self.count - 1) == b"noreply"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(raw: &[u8], text: &[u8], clean: bool) {
        let line = Line::new(raw, raw.len() - 1);
        assert_eq!((line.text, line.clean), (text, clean), "{raw:?}");
        assert_eq!(line.raw_length, raw.len());
    }

    #[test]
    fn line_ends_are_cut_as_memcached_cuts_them() {
        check(b"get a\r\n", b"get a", true);
        check(b"get a\n", b"get a", false);
        check(b"get a\r\r\n", b"get a\r", true);
        check(b"get a\0b\r\n", b"get a", false);
        check(b"get a\0\n", b"get a", false);
        check(b"\r\n", b"\r", false);
        check(b"\n", b"", false);
    }

    #[test]
    fn words_part_at_spaces_only() {
        let words: Vec<_> = Words::new(b"  a  b\tc ").collect();
        assert_eq!(words, [b"a".as_slice(), b"b\tc"]);
        assert_eq!(Words::new(b"   ").next(), None);
    }

    #[test]
    fn a_form_knows_whether_it_may_be_forwarded_as_it_is() {
        for (text, single, count) in [
            ("a b c", true, 3),
            ("a  b", false, 2),
            (" a", false, 1),
            ("a ", false, 1),
        ] {
            let form = Form::new(text.as_bytes());
            assert_eq!(
                (form.single_spaced, form.count()),
                (single, count),
                "{text:?}"
            );
        }
        let long = "w ".repeat(40);
        let form = Form::new(long.as_bytes());
        assert_eq!((form.single_spaced, form.count()), (false, 23));
    }
}
