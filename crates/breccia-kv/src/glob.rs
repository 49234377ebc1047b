//! Glob patterns with Redis's rules: `*`, `?`, `[a-z]`, `[^a]`, `\x`. Bytes, not characters.
//!
//! Not a regular expression, and not a file-name glob (`/` is a byte like any other). Invariant:
//! the time is at most proportional to pattern length times text length, whatever the pattern; only
//! the last `*` passed is ever retried.

/// Whether `text` matches `pattern`.
#[must_use]
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    if text.is_empty() {
        // Redis's matcher does not begin on an empty text; `*` alone never reaches it.
        return matches!(pattern, [] | [b'*']);
    }
    let mut rest = pattern;
    let mut left = text;
    // Where to go on when the present try fails: after the last star, one byte further in.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', after @ ..] = rest {
            rest = after;
            retry = Some((after, left));
            continue;
        }
        let step = match left.split_first() {
            None => {
                if rest.is_empty() {
                    return true;
                }
                None
            }
            Some((byte, tail)) => one(rest, *byte).map(|after| (after, tail)),
        };
        match step {
            Some((after, tail)) => {
                rest = after;
                left = tail;
            }
            None => match retry {
                Some((after, [_, tail @ ..])) => {
                    rest = after;
                    left = tail;
                    retry = Some((after, tail));
                }
                _ => return false,
            },
        }
    }
}

/// Matches one byte against the first element of `pattern`, which is no star; returns what follows
/// that element.
fn one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern {
        [] => None,
        [b'?', after @ ..] => Some(after),
        [b'[', inside @ ..] => class(inside, byte),
        [b'\\', literal, after @ ..] | [literal, after @ ..] => (*literal == byte).then_some(after),
    }
}

/// Matches one byte against a class, given from behind its `[`. A class that is never closed ends
/// with the pattern, as in Redis.
fn class(inside: &[u8], byte: u8) -> Option<&[u8]> {
    let (negated, mut rest) = match inside {
        [b'^', rest @ ..] => (true, rest),
        _ => (false, inside),
    };
    let mut found = false;
    let after = loop {
        match rest {
            [] => break rest,
            [b'\\', literal, tail @ ..] => {
                found |= *literal == byte;
                rest = tail;
            }
            [b']', tail @ ..] => break tail,
            [from, b'-', to, tail @ ..] => {
                found |= (*from.min(to)..=*from.max(to)).contains(&byte);
                rest = tail;
            }
            [literal, tail @ ..] => {
                found |= *literal == byte;
                rest = tail;
            }
        }
    };
    (found != negated).then_some(after)
}

/// A pattern that matches exactly `text`.
#[must_use]
pub fn escape(text: &[u8]) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(text.len() + 1);
    for byte in text {
        if matches!(byte, b'*' | b'?' | b'[' | b']' | b'\\' | b'^' | b'-') {
            pattern.push(b'\\');
        }
        pattern.push(*byte);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        let check = |pattern: &str, text: &str, expected: bool| {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                expected,
                "pattern {pattern:?}, text {text:?}"
            );
        };
        check("", "", true);
        check("", "a", false);
        check("*", "", true);
        check("**", "", false);
        check("**", "abc", true);
        check("h?llo", "hello", true);
        check("h?llo", "hllo", false);
        check("h*llo", "heeeello", true);
        check("h*llo", "hell", false);
        check("*a*b*", "xxaxxbxx", true);
        check("*a*b*", "xxbxxaxx", false);
        check("h[ae]llo", "hallo", true);
        check("h[ae]llo", "hillo", false);
        check("h[^e]llo", "hallo", true);
        check("h[^e]llo", "hello", false);
        check("h[a-b]llo", "hbllo", true);
        check("h[b-a]llo", "hallo", true);
        check("h[a-]llo", "h-llo", false);
        check("[a-]", "a", true);
        check("[]", "a", false);
        check("[]a", "a", false);
        check("[^]", "a", true);
        check("[^]a", "xa", true);
        check("[abc", "b", true);
        check("[abc", "d", false);
        check("[", "a", false);
        check("[^", "a", true);
        check("[\\]]", "]", true);
        check("[\\-x]", "-", true);
        check("\\*", "*", true);
        check("\\*", "a", false);
        check("a\\", "a\\", true);
        check("\\", "\\", true);
        check("[a\\", "\\", true);
        check("a*", "a", true);
        check("a*?", "a", false);
    }

    #[test]
    fn a_hostile_pattern_takes_linear_tries() {
        let pattern = [b"a*".repeat(500), b"b".to_vec()].concat();
        assert!(!matches(&pattern, &b"a".repeat(20_000)));
    }

    #[test]
    fn an_escaped_text_matches_itself_alone() {
        for text in [&b"*"[..], b"a[b]^-?\\", b"\x00\n\xff*", b""] {
            assert!(matches(&escape(text), text));
            assert!(!matches(&escape(text), &[text, b"x"].concat()));
        }
    }
}
