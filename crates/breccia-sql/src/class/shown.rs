//! A text as a log may show it: its shape, and none of its literals.
//!
//! Not the key of remembered verdicts (`lexer::mask`), which is made for a parser. Invariant: no
//! byte of a literal, a comment or a setting's value is shown; behind a doubt, nothing is.

use super::lexer::{Kind, Lexer, Token};

/// What stands for a literal.
const MASK: &str = "?";
/// What stands for the rest.
const CUT: &str = " …";

/// Whether the words behind the next `=` or `TO` are a setting's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    /// They are not: it is a query, say.
    Shown,
    /// A SET may come that names a setting.
    MayCome,
    /// Behind SET.
    Next,
    /// Here they are.
    Masked,
}

/// The text without its literals, in at most `most` bytes and a sign that it is cut. The text must
/// be one that the lexer can read: `standard_conforming_strings` on, and a safe encoding.
#[must_use]
pub fn shown(sql: &[u8], most: usize) -> String {
    let mut out = String::new();
    let mut lexer = Lexer::new(sql, true);
    let mut before: Option<Token> = None;
    let mut values = Values::Shown;
    loop {
        let token = match lexer.token() {
            Ok(Some(token)) => token,
            Ok(None) => return out,
            Err(_) => break,
        };
        let bytes = sql.get(token.start..token.end).unwrap_or_default();
        let begins = before.is_none_or(|before| before.kind == Kind::Mark(b';'));
        values = next(values, token.kind, bytes, begins);
        let text = match token.kind {
            Kind::Text(_) | Kind::Number => MASK.into(),
            Kind::Word | Kind::Quoted | Kind::UnicodeQuoted if values == Values::Masked => {
                MASK.into()
            }
            _ => String::from_utf8_lossy(bytes),
        };
        let blank = before.is_some_and(|before| before.end < token.start);
        if out.len() + usize::from(blank) + text.len() > most {
            break;
        }
        if blank {
            out.push(' ');
        }
        // SET a TO b: the word itself says nothing.
        out.push_str(if values == Values::Masked && is(bytes, b"to") {
            "TO"
        } else {
            &text
        });
        before = Some(token);
    }
    out.push_str(CUT);
    out
}

fn is(bytes: &[u8], word: &[u8]) -> bool {
    bytes.eq_ignore_ascii_case(word)
}

/// SET and ALTER … SET give settings values that need no quotes; other statements set columns.
fn next(values: Values, kind: Kind, bytes: &[u8], begins: bool) -> Values {
    let word = |wanted: &[u8]| kind == Kind::Word && is(bytes, wanted);
    if begins {
        return if word(b"set") {
            Values::Next
        } else if word(b"alter") || word(b"create") {
            Values::MayCome
        } else {
            Values::Shown
        };
    }
    match values {
        Values::MayCome if word(b"set") => Values::Next,
        Values::Next if word(b"to") || (kind == Kind::Operator && bytes == b"=") => Values::Masked,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sql: &str, expected: &str) {
        assert_eq!(shown(sql.as_bytes(), 1000), expected, "{sql}");
    }

    #[test]
    fn literals_of_every_notation_are_masked() {
        check(
            "SELECT 'a''b', E'c\\'d', $$e$$, $x$f$x$, N'g', U&'h', B'1', X'ff', 1.5e3, -7, $1",
            "SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, -?, $1",
        );
        check(
            "ALTER ROLE ann PASSWORD 'hunter2'",
            "ALTER ROLE ann PASSWORD ?",
        );
        check("COPY t FROM PROGRAM 'curl'", "COPY t FROM PROGRAM ?");
        check("DO $$ secret $$ LANGUAGE plpgsql", "DO ? LANGUAGE plpgsql");
    }

    #[test]
    fn comments_and_white_space_become_one_blank() {
        check("SELECT /* 4711 */ a -- x\n , \n b", "SELECT a , b");
        check("/* secret */ SELECT\"a b\"", "SELECT\"a b\"");
        check("", "");
    }

    #[test]
    fn values_of_settings_are_masked_without_quotes_too() {
        check("SET my.key = hunter2", "SET my.key = ?");
        check(
            "set session my.key TO \"a\", b; SELECT a",
            "set session my.key TO ?, ?; SELECT a",
        );
        check(
            "ALTER ROLE ann SET my.key TO hunter2",
            "ALTER ROLE ann SET my.key TO ?",
        );
        check(
            "UPDATE t SET a = b, c = 'd' WHERE e = 5",
            "UPDATE t SET a = b, c = ? WHERE e = ?",
        );
    }

    #[test]
    fn nothing_is_shown_behind_a_doubt_or_the_bound() {
        check("SELECT a, 'open", "SELECT a, …");
        check("SELECT 1\\ 'x'", "SELECT ? …");
        assert_eq!(shown(b"SELECT aaa, bbb", 11), "SELECT aaa, …");
        assert_eq!(shown(b"SELECT aaa, bbb", 10), "SELECT aaa …");
        assert_eq!(shown(&[b'"', 0xff, b'"'], 99), "\"\u{fffd}\"");
    }

    #[test]
    fn no_literal_survives_any_cut() {
        let sql =
            b"INSERT INTO t VALUES ('secret', E'se\\'cret', $q$secret$q$, 'sec''ret') -- secret";
        for length in 0..=sql.len() {
            let text = shown(&sql[..length], 1000);
            assert!(!text.contains("sec") && !text.contains("cret"), "{text}");
        }
    }
}
