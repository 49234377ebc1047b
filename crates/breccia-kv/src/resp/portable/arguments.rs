//! Reading arguments as Redis reads them: strict numbers, words in any case. Invariant: what Redis
//! takes is taken and what it refuses is refused, with its words.

use crate::edit::parse_integer;

/// An error line, without its `-`.
pub(super) type Refused = Vec<u8>;

pub(super) const NOT_INTEGER: &str = "ERR value is not an integer or out of range";
pub(super) const SYNTAX: &str = "ERR syntax error";

/// The argument at a place; the arity check has made sure of those a command always has.
pub(super) fn argument(arguments: &[Vec<u8>], index: usize) -> &[u8] {
    arguments.get(index).map(Vec::as_slice).unwrap_or_default()
}

pub(super) fn integer(text: &[u8]) -> Result<i64, Refused> {
    parse_integer(text).ok_or_else(|| NOT_INTEGER.into())
}

/// Whether an argument is a certain word. As in C, a zero byte ends it.
pub(super) fn is_word(argument: &[u8], word: &str) -> bool {
    let end = argument
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(argument.len());
    argument
        .get(..end)
        .is_some_and(|text| text.eq_ignore_ascii_case(word.as_bytes()))
}

/// A SCAN cursor, read as `strtoul` reads it: a sign may stand before it, and no text is zero.
pub(super) fn cursor(text: &[u8]) -> Result<u64, Refused> {
    let invalid = || Refused::from("ERR invalid cursor");
    let end = text
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(text.len());
    let text = text.get(..end).unwrap_or_default();
    let (negative, digits) = match text {
        [] => return Ok(0),
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(invalid());
    }
    let value: u64 = std::str::from_utf8(digits)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(invalid)?;
    Ok(if negative {
        value.wrapping_neg()
    } else {
        value
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_read_as_the_c_library_reads_them() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(cursor(text.as_bytes()).ok(), expected, "{text:?}");
        };
        check("0", Some(0));
        check("17", Some(17));
        check("", Some(0));
        check("+5", Some(5));
        check("-1", Some(u64::MAX));
        check("18446744073709551615", Some(u64::MAX));
        check("18446744073709551616", None);
        for wrong in ["-", "+", "a", " 1", "1 ", "1a", "--1"] {
            check(wrong, None);
        }
    }

    #[test]
    fn words_end_at_a_zero_byte() {
        assert!(is_word(b"nX", "NX"));
        assert!(is_word(b"nx\0y", "NX"));
        assert!(!is_word(b"nxy", "NX"));
    }
}
