//! What the lexer makes of a text, and that no text makes it or the classifier panic.
//!
//! Not about verdicts. Invariant: keys differ where statements differ in more than literals.

use super::lexer::{self, Doubt};
use super::tests_support::classifier;
use proptest::prelude::*;

fn key(sql: &str) -> Result<String, Doubt> {
    let mut out = Vec::new();
    lexer::mask(sql.as_bytes(), true, &mut out)?;
    Ok(String::from_utf8(out).unwrap_or_default())
}

#[test]
fn keys_mask_literals_and_blanks_alone() {
    let same = [
        ("select 1", "SELECT  /* a /* b */ ' */ 42 ;"),
        ("select 'a'", "select 'it''s; --'"),
        ("select 'a'", "select $x$ ' $y$ $x$"),
        ("select E'a'", "select e'\\'; drop'"),
        ("select a-1", "select a - 2.5e-7"),
        ("select a<-1", "select a < -0xFF"),
        ("select x'00'", "select B'101'"),
        (
            "select a from b where c=1",
            "select A from b -- x\nwhere c = 1_000",
        ),
        ("select 1--x\n+1", "select 2 + .5"),
        ("select 1..2", "select 1.5..3.5e1"),
    ];
    for (left, right) in same {
        assert_eq!(key(left), key(right), "{left} | {right}");
    }
    let different = [
        ("select 1", "select '1'"),
        ("select a", "select \"A\""),
        ("select 'a'", "select E'a'"),
        ("select 1", "select -1"),
        ("select $1", "select $2"),
        ("select a", "select 1; select a"),
        ("select 'x'", "select 'NOW'"),
        ("select a.b", "select a b"),
        ("select a @-1", "select a @ -1"),
        ("select \"a b\"", "select a b"),
        ("select 1..2", "select 1.2"),
        ("select 1..2", "select 1 . .2"),
    ];
    for (left, right) in different {
        assert_ne!(key(left), key(right), "{left} | {right}");
    }
}

#[test]
fn the_lexer_says_when_it_doubts() {
    let rows = [
        ("select 'a", Doubt::Unterminated),
        ("select \"a", Doubt::Unterminated),
        ("select $a$ $b$", Doubt::Unterminated),
        ("select /* /* */", Doubt::Unterminated),
        ("select e'\\'", Doubt::Unterminated),
        ("select 1x", Doubt::Number),
        ("select 0xfrom", Doubt::Number),
        ("select $1a", Doubt::Number),
        ("select {", Doubt::Byte),
        ("select \\", Doubt::Byte),
        ("select e'a' \n 'b'", Doubt::Continuation),
        // Two quotes end bits and begin a literal.
        ("select b'1''0'", Doubt::Continuation),
        ("select 1.5.2", Doubt::Number),
    ];
    for (sql, doubt) in rows {
        assert_eq!(key(sql), Err(doubt), "{sql}");
    }
}

fn literal() -> impl Strategy<Value = (String, String)> {
    let text = "[a-c '\";$%/*-]{0,12}";
    let plain = |text: String| format!("'{}'", text.replace('\'', "''"));
    let escape = |text: String| format!("E'{}'", text.replace('\'', "\\'"));
    let dollar = |text: String| format!("$q${}$q$", text.replace('$', ""));
    prop_oneof![
        (text, text).prop_map(move |(a, b)| (plain(a), plain(b))),
        (text, text).prop_map(move |(a, b)| (escape(a), escape(b))),
        (text, text).prop_map(move |(a, b)| (plain(a), dollar(b))),
        (any::<u32>(), any::<u16>()).prop_map(|(a, b)| (a.to_string(), format!("{b}.5e3"))),
    ]
}

proptest! {
    #[test]
    fn no_bytes_make_the_lexer_panic(sql in prop::collection::vec(any::<u8>(), 0..200), on: bool) {
        let mut out = Vec::new();
        let _ = lexer::mask(&sql, on, &mut out);
        let _ = lexer::tokens(&sql, on);
    }

    #[test]
    fn no_text_makes_the_classifier_panic(
        sql in "(select|set|begin|explain|do|[a-z0-9]{1,3}|[-'\"$().,;:/*=<@ \n]|E'|\\$\\$|::|é){0,30}",
        on: bool,
    ) {
        let _ = classifier().classify(sql.as_bytes(), on);
    }

    #[test]
    fn a_key_is_its_own_key(sql in "([a-z]{1,3}|[-+().,<=@ ]|'x'|E'y'|\\$1|\"Q\"|12){0,20}") {
        if let Ok(once) = key(&sql) {
            // Of `E'…' N'…'`, which is no statement, the key seems to go on in its second literal.
            let again = key(&once).or_else(|doubt| match doubt {
                Doubt::Continuation => Ok(once.clone()),
                doubt => Err(doubt),
            });
            prop_assert_eq!(again, Ok(once.clone()));
        }
    }

    #[test]
    fn other_literals_have_the_same_key(literals in prop::collection::vec(literal(), 1..6)) {
        let text = |pick: fn(&(String, String)) -> &String| {
            literals.iter().fold("select x".to_owned(), |sql, pair| sql + " , " + pick(pair))
        };
        prop_assert_eq!(key(&text(|pair| &pair.0)), key(&text(|pair| &pair.1)));
    }
}
