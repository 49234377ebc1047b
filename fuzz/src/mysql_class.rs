//! The lexer of MySQL statements, and the classifier.
//!
//! Invariant checked: tokens and what lies between them are the whole text; a verdict that comes from
//! memory is the one that was reached; without a catalogue nothing is proven to read.

use breccia_sql::mysql::class::lexer;
use breccia_sql::mysql::class::{Catalogue, Class, Classifier, Mode};

/// A text of statements.
pub fn my_lexer(data: &[u8]) {
    for bits in 0..8_u8 {
        let mode = Mode {
            ansi_quotes: bits & 1 != 0,
            no_backslash_escapes: bits & 2 != 0,
            legible: bits & 4 == 0,
            multi_statements: true,
            ..Mode::default()
        };
        if let Ok((tokens, _)) = lexer::tokens(data, mode) {
            let mut at = 0;
            for token in tokens {
                assert!(at <= token.start && token.start < token.end && token.end <= data.len());
                at = token.end;
            }
        }
        let classifier = Classifier::default();
        assert_ne!(classifier.classify(data, mode, None).class, Class::Read);
        classifier.set_catalogue(catalogue());
        let first = classifier.classify(data, mode, Some("shop"));
        assert_eq!(first, classifier.classify(data, mode, Some("shop")));
        if first.class == Class::Read {
            assert!(first.single && !first.ddl, "a read that is more than that");
        }
    }
}

fn catalogue() -> Catalogue {
    let row = ["shop", "orders", "BASE TABLE", "InnoDB", "0"].map(|it| Some(it.to_owned()));
    Catalogue::from_rows(&[row.to_vec()], &[], &[])
}

/// Texts to begin with.
pub(crate) const STATEMENTS: [&[u8]; 8] = [
    b"SELECT o.id, 'it''s', \"a\\\"b\" FROM `orders` o WHERE id = 17 -- x\n LIMIT 5",
    b"SELECT 1 /*!50000 INTO OUTFILE 'x' */ FOR UPDATE",
    b"WITH c (a) AS (SELECT id FROM shop.orders) SELECT * FROM c UNION SELECT .5e3",
    b"SET @a = 1, @@session.sql_mode = 'ANSI', autocommit = 0",
    b"SET breccia.target = 'primary'; SHOW breccia.token",
    b"CREATE PROCEDURE p() BEGIN SET @x = 1; END",
    b"SELECT _utf8mb4'x', N'y', x'1f', 0x1F, b'01', \\N, a.1b # end",
    b"/* breccia: primary */ EXPLAIN FORMAT=JSON SELECT @@identity",
];
