//! Rust source with comments and literals blanked out, and the functions in it.
//!
//! Not a parser: just enough to count lines and to see identifiers without being misled by text.
//! Invariant: the blanked source has the same length and the same line breaks.

/// The source with the inside of comments, strings and characters replaced by blanks.
pub(crate) fn code_only(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match rest(bytes, at) {
            [b'/', b'/', ..] => find(bytes, at, b"\n"),
            [b'/', b'*', ..] => block_comment(bytes, at),
            [b'r' | b'b', ..] if !is_word(bytes, at.wrapping_sub(1)) => raw_or_byte(bytes, at),
            [b'"', ..] => string(bytes, at),
            [b'\'', ..] => character(bytes, at),
            _ => at,
        };
        for byte in out
            .iter_mut()
            .take(end)
            .skip(at)
            .filter(|byte| **byte != b'\n')
        {
            *byte = b' ';
        }
        at = end.max(at + 1);
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A function's name, first line and number of lines.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) lines: usize,
}

/// Every function with a body, from blanked source.
pub(crate) fn functions(code: &str) -> Vec<Function> {
    let bytes = code.as_bytes();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if is_word(bytes, at.wrapping_sub(1)) {
            continue;
        }
        let name: String = code
            .get(at + 3..)
            .unwrap_or_default()
            .chars()
            .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
            .collect();
        let Some(end) = body_end(bytes, at).filter(|_| !name.is_empty()) else {
            continue;
        };
        let lines = |from: usize, to: usize| {
            bytes
                .iter()
                .take(to)
                .skip(from)
                .filter(|byte| **byte == b'\n')
                .count()
        };
        found.push(Function {
            name,
            line: lines(0, at) + 1,
            lines: lines(at, end) + 1,
        });
    }
    found
}

/// The end of the braces that follow; none for a declaration without a body.
fn body_end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut brackets = 0_i32;
    for (at, byte) in bytes.iter().enumerate().skip(from) {
        match byte {
            b'(' | b'[' => brackets += 1,
            b')' | b']' => brackets -= 1,
            b';' if depth == 0 && brackets == 0 => return None,
            b'{' => depth += 1,
            b'}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 && brackets == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

fn rest(bytes: &[u8], at: usize) -> &[u8] {
    bytes.get(at..).unwrap_or_default()
}

fn is_word(bytes: &[u8], at: usize) -> bool {
    bytes
        .get(at)
        .is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

/// The end of the next `needle`, or of the source.
fn find(bytes: &[u8], from: usize, needle: &[u8]) -> usize {
    rest(bytes, from)
        .windows(needle.len())
        .position(|window| window == needle)
        .map_or(bytes.len(), |position| from + position + needle.len())
}

fn block_comment(bytes: &[u8], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0);
    while at < bytes.len() {
        match rest(bytes, at) {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The end of a string that begins at `from` with its quote.
fn string(bytes: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// `r"…"`, `r#"…"#`, `b"…"`, `br#"…"#`, `b'…'`; a plain word ends where it begins.
fn raw_or_byte(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    if bytes.get(at) == Some(&b'b') {
        at += 1;
    }
    match bytes.get(at) {
        Some(b'"') => return string(bytes, at),
        Some(b'\'') => return character(bytes, at),
        Some(b'r') => at += 1,
        _ => return from,
    }
    let hashes = rest(bytes, at)
        .iter()
        .take_while(|byte| **byte == b'#')
        .count();
    if bytes.get(at + hashes) != Some(&b'"') {
        return from;
    }
    let closing = [b"\"".as_slice(), "#".repeat(hashes).as_bytes()].concat();
    find(bytes, at + hashes + 1, &closing)
}

/// A character literal; a lifetime ends where it begins.
fn character(bytes: &[u8], from: usize) -> usize {
    match rest(bytes, from) {
        [_, b'\\', _, tail @ ..] => {
            let close = tail.iter().position(|byte| *byte == b'\'');
            close.map_or(bytes.len(), |position| from + 3 + position + 1)
        }
        [_, first, ..] => {
            let width = match first {
                0xf0.. => 4,
                0xe0.. => 3,
                0xc0.. => 2,
                _ => 1,
            };
            if bytes.get(from + 1 + width) == Some(&b'\'') {
                from + width + 2
            } else {
                from
            }
        }
        _ => from,
    }
}

#[cfg(test)]
mod tests {
    use super::{code_only, functions};

    #[test]
    fn text_is_blanked_and_code_is_kept() {
        let check = |source: &str, wanted: &str| assert_eq!(code_only(source), wanted);
        check("a // b\nc", "a     \nc");
        check("a /* b /* c */ */ d", "a                 d");
        check(r#"x("a\"b", 'c', '\n', 'é')"#, "x(      ,    ,     ,     )");
        check(
            "r#\"a\"b\"# + br\"c\" + b'd' + bar",
            "         +       +      + bar",
        );
        check("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)");
    }

    #[test]
    fn functions_are_measured_from_name_to_brace() {
        let source =
            "trait T {\n    fn none(&self);\n    fn some(&self) {\n        a(|| {});\n    }\n}\n";
        let found = functions(&code_only(source));
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].name.as_str(), found[0].line, found[0].lines),
            ("some", 3, 3)
        );
    }
}
