//! Inline requests: a line of words, as people type them into a terminal. Words may be quoted as
//! in Redis: `"…"` with `\n \r \t \b \a \xHH` escapes, `'…'` with `\'` only.
//!
//! Invariant: what leaves here is a canonical array, so nothing behind it knows inline requests.

/// Splits a line (without its end) into words; `None` when a quote stays open or is followed by
/// more of a word.
pub(crate) fn split(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        let skipped = rest.iter().take_while(|byte| is_space(**byte)).count();
        rest = rest.get(skipped..)?;
        if rest.is_empty() {
            return Some(words);
        }
        let (word, after) = word(rest)?;
        words.push(word);
        rest = after;
    }
}

/// C's `isspace`, and NUL, which Redis takes for the end of the line.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c | 0)
}

fn word(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    while let Some((byte, after)) = rest.split_first() {
        match byte {
            b'"' | b'\'' => {
                let after = quoted(after, *byte, &mut word)?;
                // Redis: a closing quote must end the word.
                return after
                    .first()
                    .is_none_or(|next| is_space(*next))
                    .then_some((word, after));
            }
            byte if is_space(*byte) => break,
            byte => word.push(*byte),
        }
        rest = after;
    }
    Some((word, rest))
}

fn quoted<'l>(mut rest: &'l [u8], quote: u8, word: &mut Vec<u8>) -> Option<&'l [u8]> {
    loop {
        match rest {
            [byte, after @ ..] if *byte == quote => return Some(after),
            [b'\\', b'\'', after @ ..] if quote == b'\'' => {
                word.push(b'\'');
                rest = after;
            }
            [b'\\', b'x', high, low, after @ ..]
                if quote == b'"' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                word.push(hex(*high) << 4 | hex(*low));
                rest = after;
            }
            [b'\\', escaped, after @ ..] if quote == b'"' => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                rest = after;
            }
            [byte, after @ ..] => {
                word.push(*byte);
                rest = after;
            }
            [] => return None,
        }
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A').wrapping_add(10),
    }
}

/// Writes words as an array of bulk strings and records where each lies in it.
pub(crate) fn encode(words: &[Vec<u8>], places: &mut Vec<(usize, usize)>) -> Vec<u8> {
    let mut frame = format!("*{}\r\n", words.len()).into_bytes();
    places.clear();
    for word in words {
        frame.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        let start = frame.len();
        frame.extend_from_slice(word);
        places.push((start, frame.len()));
        frame.extend_from_slice(b"\r\n");
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Option<&[&str]>) {
        let words = split(line.as_bytes());
        let expected = expected.map(|words| {
            words
                .iter()
                .map(|word| word.as_bytes().to_vec())
                .collect::<Vec<_>>()
        });
        assert_eq!(words, expected, "{line:?}");
    }

    #[test]
    fn words_are_split_as_redis_splits_them() {
        check("", Some(&[]));
        check("  \r", Some(&[]));
        check("SET a 1\r", Some(&["SET", "a", "1"]));
        check("SET \"a b\" 'c d'", Some(&["SET", "a b", "c d"]));
        check(r#"SET "\x41\n\"" 'it\'s'"#, Some(&["SET", "A\n\"", "it's"]));
        check(r#"SET "open"#, None);
        check(r#"SET "a"b"#, None);
        check(r"SET 'a'b", None);
        check(r#"SET a"b""#, Some(&["SET", "ab"]));
        check(r#"SET "" ''"#, Some(&["SET", "", ""]));
    }
}
