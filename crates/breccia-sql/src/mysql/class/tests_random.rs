//! Texts that nobody has thought of.
//!
//! Invariant checked: no text makes the classification fail, and what is spoilt is no read.

use proptest::prelude::*;

use super::tests::classifier;
use super::*;

fn modes() -> impl Strategy<Value = Mode> {
    (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|it| Mode {
        ansi_quotes: it.0,
        no_backslash_escapes: it.1,
        legible: it.2,
        multi_statements: it.3,
        ..Mode::default()
    })
}

fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let words = prop::sample::select(vec![
        "SELECT", "FROM", "orders", "FOR", "UPDATE", "(", ")", "'", "\"", "`", "\\", "/*", "/*!",
        "*/", "--", "-- ", "#", "\n", ";", "@", "@@", "x", "1", ".5", "1e", ":=", "INTO", "SET",
        "=", ",", ".", "f", "LIMIT", "WITH", "AS", "UNION", "é", "\u{a0}", "0x", "N'", "breccia",
    ]);
    prop::collection::vec((words, any::<bool>()), 0..40).prop_map(|words| {
        let word = |(word, blank): (&str, bool)| format!("{word}{}", if blank { " " } else { "" });
        words.into_iter().map(word).collect::<String>().into_bytes()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_text_has_a_verdict(sql in pieces(), mode in modes()) {
        let classifier = classifier();
        let first = classifier.classify(&sql, mode, Some("shop"));
        let again = classifier.classify(&sql, mode, Some("shop"));
        prop_assert_eq!(&first, &again);
        let _text = classifier.blame(&sql, mode, Some("shop"));
        let blank = Classifier::default().classify(&sql, mode, Some("shop"));
        prop_assert_ne!(&blank.class, &Class::Read);
        if first.class == Class::Read {
            prop_assert!(first.single && !first.ddl && !first.asks_last_insert_id);
        }
    }

    #[test]
    fn any_bytes_are_cut_in_order(sql in prop::collection::vec(any::<u8>(), 0..200), mode in modes()) {
        if let Ok((tokens, _)) = lexer::tokens(&sql, mode) {
            let mut at = 0;
            for token in tokens {
                prop_assert!(at <= token.start && token.start < token.end && token.end <= sql.len());
                at = token.end;
            }
        }
        let _verdict = classifier().classify(&sql, mode, None);
    }
}
