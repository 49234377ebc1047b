//! A text as a log may show it: its shape, and none of its literals.
//!
//! Not the key of remembered verdicts ([`super::remembered`]). Invariant: no byte of a literal, a comment
//! or a setting's value is shown; behind a doubt, nothing is.

use super::Mode;
use super::lexer::{self, Kind};

/// What stands for a literal.
const MASK: &str = "?";
/// What stands for the rest.
const CUT: &str = " …";

/// Whether the words here are a setting's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    /// They are not: it is a query, say.
    Shown,
    /// Behind SET, or the value before: a name comes.
    Next,
    /// Here they are.
    Masked,
}

/// The text without its literals, in at most `most` bytes and a sign that it is cut. The text must be one
/// that the lexer can read: see [`Mode::legible`].
#[must_use]
pub fn masked(sql: &[u8], mode: Mode, most: usize) -> String {
    let (mut out, mut cut) = (String::new(), false);
    let (mut values, mut depth) = (Values::Shown, 0_usize);
    let mut before: Option<lexer::Token> = None;
    let scanned = lexer::scan(sql, mode, |token| {
        if cut {
            return;
        }
        let bytes = sql.get(token.start..token.end).unwrap_or_default();
        let begins = before.is_none_or(|before| before.kind == Kind::Mark(b';'));
        match token.kind {
            Kind::Mark(b'(') => depth += 1,
            Kind::Mark(b')') => depth = depth.saturating_sub(1),
            _ => {}
        }
        let sets = token.kind == Kind::Word && bytes.eq_ignore_ascii_case(b"set");
        let assigns = token.kind == Kind::Mark(b'=') || bytes == b":=";
        values = match values {
            _ if begins && sets => Values::Next,
            _ if begins => Values::Shown,
            Values::Next if assigns => Values::Masked,
            Values::Masked if token.kind == Kind::Mark(b',') && depth == 0 => Values::Next,
            other => other,
        };
        let text = match token.kind {
            Kind::Text | Kind::Number => MASK.into(),
            Kind::Word | Kind::Quoted if values == Values::Masked => MASK.into(),
            _ => String::from_utf8_lossy(bytes),
        };
        let blank = before.is_some_and(|before| before.end < token.start);
        before = Some(token);
        cut = out.len() + usize::from(blank) + text.len() > most;
        if !cut {
            out.push_str(if blank { " " } else { "" });
            out.push_str(&text);
        }
    });
    if cut || scanned.is_err() {
        out.push_str(CUT);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sql: &str, expected: &str) {
        assert_eq!(
            masked(sql.as_bytes(), Mode::default(), 1000),
            expected,
            "{sql}"
        );
    }

    #[test]
    fn literals_of_every_notation_are_masked() {
        check(
            "SELECT 'a''b\\'c', \"d\", N'e', x'ff', 0xff, b'1', 1.5e3, -7, _utf8mb4'f', ?, `g`",
            "SELECT ?, ?, ?, ?, ?, ?, ?, -?, _utf8mb4?, ?, `g`",
        );
        check(
            "CREATE USER ann IDENTIFIED BY 'hunter2'",
            "CREATE USER ann IDENTIFIED BY ?",
        );
    }

    #[test]
    fn comments_and_white_space_become_one_blank() {
        check("SELECT /* 4711 */ a # x\n , -- y\n b", "SELECT a , b");
        check("/* secret */ SELECT`a b`", "SELECT`a b`");
        check("", "");
    }

    #[test]
    fn values_of_settings_are_masked_without_quotes_too() {
        check(
            "SET a = hunter2, @b := c, SESSION d = IF(e, f)",
            "SET a = ?, @b := ?, SESSION d = ?(?, ?)",
        );
        check(
            "UPDATE t SET a = b, c = 'd' WHERE e = 5; SET f = g",
            "UPDATE t SET a = b, c = ? WHERE e = ?; SET f = ?",
        );
    }

    #[test]
    fn nothing_is_shown_behind_a_doubt_or_the_bound() {
        check("SELECT a, 'open", "SELECT a, …");
        check("SELECT a /* open", "SELECT a …");
        let cut = masked(b"SELECT abcdef, g", Mode::default(), 10);
        assert_eq!(cut, "SELECT …");
    }
}
