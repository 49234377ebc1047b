//! Texts seen lately by this thread, as pieces around their whole numbers, and their verdicts.
//!
//! Not the memory of verdicts ([`super::cache`]), but a way past the lexer to what stands there.
//! Invariant: a text matches a shape only if it differs from the text that made it in the digits of
//! numbers, so both have the same tokens and the same masked key.

use super::lexer::{self, Kind};
use super::{Signs, Verdict};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Longer texts are not remembered here.
const LONGEST: usize = 1024;
/// Shapes are looked up by the beginning of their text, up to its first digit.
const BEGINNING: usize = 24;
/// Places for texts of the same beginning.
const WAYS: usize = 4;
/// Places by beginning; a power of two.
const SETS: usize = 64;

/// A text's bytes, and where its whole numbers stand.
#[derive(Debug)]
struct Shape {
    classifier: u64,
    version: u64,
    text: Box<[u8]>,
    numbers: Box<[(usize, usize)]>,
    verdict: Arc<Verdict>,
    /// Digits are no part of what is looked for.
    signs: Signs,
}

/// The shapes that one thread remembers: at most [`SETS`] times [`WAYS`], of [`LONGEST`] bytes each.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    sets: Vec<Set>,
    next: usize,
}

#[derive(Debug, Default)]
struct Set {
    shapes: [Option<Shape>; WAYS],
    /// The hash of the last text with a string in it: such texts seldom come twice, and are remembered
    /// if they do.
    missed: u64,
}

impl Shapes {
    /// The verdict of a text of this shape, of the classifier with this number at this version, and what
    /// the text mentions.
    pub(super) fn get(
        &self,
        sql: &[u8],
        classifier: u64,
        version: u64,
    ) -> Option<(Arc<Verdict>, Signs)> {
        let set = self.sets.get(place(sql)?)?;
        let found = set.shapes.iter().flatten().find(|shape| {
            shape.version == version && shape.classifier == classifier && shape.fits(sql)
        });
        found.map(|shape| (Arc::clone(&shape.verdict), shape.signs))
    }

    /// Remembers a verdict reached at this version. `any`: it is that of all texts of this shape, and
    /// the lexer vouches for them; else it is that of this text alone.
    pub(super) fn put(
        &mut self,
        sql: &[u8],
        any: bool,
        classifier: u64,
        version: u64,
        (verdict, signs): &(Arc<Verdict>, Signs),
    ) {
        let (Some(place), true) = (place(sql), sql.len() <= LONGEST) else {
            return;
        };
        if self.sets.is_empty() {
            self.sets.resize_with(SETS, Default::default);
        }
        let Some(set) = self.sets.get_mut(place) else {
            return;
        };
        let hash = xxh3_64(sql);
        let again = std::mem::replace(&mut set.missed, hash) == hash;
        let numbers = if any {
            numbers(sql, again)
        } else {
            again.then(Box::default)
        };
        let Some(numbers) = numbers else {
            return;
        };
        let set = &mut set.shapes;
        let of_no_use = |shape: &Option<Shape>| {
            shape.as_ref().is_none_or(|shape| {
                shape.classifier == classifier && (shape.version != version || shape.fits(sql))
            })
        };
        let at = set.iter().position(of_no_use).unwrap_or(self.next % WAYS);
        self.next = self.next.wrapping_add(1);
        if let Some(slot) = set.get_mut(at) {
            *slot = Some(Shape {
                classifier,
                version,
                text: sql.into(),
                numbers,
                verdict: Arc::clone(verdict),
                signs: *signs,
            });
        }
    }
}

impl Shape {
    fn fits(&self, sql: &[u8]) -> bool {
        let (mut rest, mut done) = (sql, 0);
        for (start, end) in &self.numbers {
            let piece = self.text.get(done..*start).unwrap_or_default();
            let Some(behind) = rest.strip_prefix(piece) else {
                return false;
            };
            let digits = behind.iter().take_while(|byte| byte.is_ascii_digit());
            let digits = digits.count();
            if digits == 0 {
                return false;
            }
            rest = behind.get(digits..).unwrap_or_default();
            done = *end;
        }
        rest == self.text.get(done..).unwrap_or_default()
    }
}

/// Where a text stands by its beginning, which all texts of its shape share.
fn place(sql: &[u8]) -> Option<usize> {
    let beginning = sql.get(..BEGINNING.min(sql.len()))?;
    let digit = beginning.iter().position(u8::is_ascii_digit);
    let beginning = beginning.get(..digit.unwrap_or(beginning.len()))?;
    usize::try_from(xxh3_64(beginning) % SETS as u64).ok()
}

/// The numbers of a text that are digits and nothing else: whatever other digits stand there, it has
/// the same tokens. `None`: it holds a string, and is seen for the first time; or the lexer is in doubt.
fn numbers(sql: &[u8], again: bool) -> Option<Box<[(usize, usize)]>> {
    let (tokens, _) = lexer::tokens(sql, true).ok()?;
    let string = |token: &lexer::Token| matches!(token.kind, Kind::Text(_));
    if !again && tokens.iter().any(string) {
        return None;
    }
    let plain = |token: &&lexer::Token| {
        let digits = sql.get(token.start..token.end).unwrap_or_default();
        // What follows decides whether a point belongs to the number.
        let point = sql.get(token.end) == Some(&b'.');
        token.kind == Kind::Number && !point && digits.iter().all(u8::is_ascii_digit)
    };
    let numbers = tokens.iter().filter(plain).map(|it| (it.start, it.end));
    Some(numbers.collect())
}

#[cfg(test)]
mod tests {
    use super::super::Class;
    use super::*;

    fn verdict() -> (Arc<Verdict>, Signs) {
        let verdict = Verdict {
            class: Class::Read,
            hint_primary: false,
            ddl: false,
            uses_now: false,
            single: true,
        };
        (Arc::new(verdict), Signs::default())
    }

    fn key(sql: &str) -> Option<Vec<u8>> {
        let mut key = Vec::new();
        lexer::mask(sql.as_bytes(), true, &mut key).ok()?;
        Some(key)
    }

    #[test]
    fn texts_that_differ_in_digits_have_one_shape() {
        let check = |made: &str, asked: &str, expected: bool| {
            let mut shapes = Shapes::default();
            (0..2).for_each(|_| shapes.put(made.as_bytes(), true, 1, 1, &verdict()));
            let found = shapes.get(asked.as_bytes(), 1, 1).is_some();
            assert_eq!(found, expected, "{made} / {asked}");
            assert!(!found || key(made) == key(asked), "{made} / {asked}");
        };
        let select = "SELECT abalance FROM accounts WHERE aid = ";
        let with = |end: &str| format!("{select}{end}");
        check(&with("1"), &with("1"), true);
        check(&with("1;"), &with("99999999999999999999;"), true);
        check(&with("1 AND b > 7"), &with("22 AND b > 0"), true);
        check(&with("1 AND b > 7"), &with("22 AND b > x"), false);
        check(&with("1"), &with("1.5"), false);
        check(&with("1"), &with("1e5"), false);
        check(&with("0"), &with("0x1f"), false);
        check(&with("1"), &with("1_000"), false);
        check(&with("1"), &with("-1"), false);
        check(&with("1"), &with(""), false);
        check(&with("1"), &with("1; DROP TABLE a"), false);
        check(&with("1"), &with("1 -- 2"), false);
        check(&with("1..2"), &with("3..2"), false);
        check(&with("1.5"), &with("2.5"), false);
        check(&with("a1"), &with("a2"), false);
        check(&with("$1"), &with("$2"), false);
        check(&with("'1'"), &with("'2'"), false);
        check(&with("'1'"), &with("'1'"), true);
        check("SELECT 1", "SELECT 22", true);
        check("SELECT 1", "SELECT x", false);
        check("VALUES (1, 2)", "VALUES (33, 4)", true);
        check("1", "2", true);
    }

    #[test]
    fn a_text_with_a_string_is_remembered_when_it_comes_again() {
        let mut shapes = Shapes::default();
        let text = |n: u8| format!("SELECT a FROM accounts WHERE name = 'n{n}'");
        for n in 0..9 {
            shapes.put(text(n).as_bytes(), true, 1, 1, &verdict());
        }
        assert!((0..9).all(|n| shapes.get(text(n).as_bytes(), 1, 1).is_none()));
        shapes.put(text(8).as_bytes(), true, 1, 1, &verdict());
        assert!(shapes.get(text(8).as_bytes(), 1, 1).is_some());
    }

    #[test]
    fn a_verdict_of_one_text_is_that_of_no_other() {
        let mut shapes = Shapes::default();
        let sql = b"SET statement_timeout TO 100";
        (0..2).for_each(|_| shapes.put(sql, false, 1, 1, &verdict()));
        assert!(shapes.get(sql, 1, 1).is_some());
        let other = b"SET statement_timeout TO 200";
        assert!(shapes.get(other, 1, 1).is_none());
    }

    #[test]
    fn a_verdict_holds_for_its_classifier_and_version() {
        let mut shapes = Shapes::default();
        let sql = b"SELECT abalance FROM accounts WHERE aid = 1";
        shapes.put(sql, true, 1, 1, &verdict());
        assert!(shapes.get(sql, 1, 2).is_none() && shapes.get(sql, 2, 1).is_none());
        shapes.put(sql, true, 1, 2, &verdict());
        assert!(shapes.get(sql, 1, 1).is_none() && shapes.get(sql, 1, 2).is_some());
    }

    #[test]
    fn of_many_texts_with_one_beginning_the_last_are_kept() {
        let mut shapes = Shapes::default();
        let text = |n: usize| format!("SELECT abalance FROM accounts{}", "x".repeat(n));
        for n in 0..50 {
            shapes.put(text(n).as_bytes(), true, 1, 1, &verdict());
        }
        let known = (0..50).filter(|n| shapes.get(text(*n).as_bytes(), 1, 1).is_some());
        assert_eq!(known.collect::<Vec<_>>(), [46, 47, 48, 49]);
        let long = "x".repeat(LONGEST + 1);
        shapes.put(long.as_bytes(), true, 1, 1, &verdict());
        assert!(shapes.get(long.as_bytes(), 1, 1).is_none());
    }
}
