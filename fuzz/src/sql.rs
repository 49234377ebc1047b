//! The lexer of statements, the masked key, and the classifier.
//!
//! Invariant checked: tokens and what lies between them are the whole text; neither the key nor a
//! verdict that is remembered depends on a literal; without a catalogue nothing is proven to read.

use std::sync::Arc;

use breccia_sql::class::lexer::{self, Kind, Masked, Quote, Token};
use breccia_sql::class::{Class, Classifier, Verdict};

/// A text of statements.
pub fn pg_lexer(data: &[u8]) {
    for conforming in [true, false] {
        let mut key = Vec::new();
        let masked = lexer::mask(data, conforming, &mut key);
        let tokens = match lexer::tokens(data, conforming) {
            Ok((tokens, hint)) => {
                assert!(masked.is_ok_and(|masked| masked.hint == hint) || data.contains(&0));
                tokens
            }
            Err(doubt) => {
                assert!(
                    masked == Err(doubt) || data.contains(&0),
                    "{masked:?}, {doubt:?}"
                );
                let _verdict = judge(data, conforming);
                continue;
            }
        };
        cover(data, &tokens, conforming);
        let (verdict, remembered) = judge(data, conforming);
        if let Ok(masked) = masked {
            let other = other_literals(data, &tokens);
            same_key(&other, conforming, &key, masked);
            if remembered {
                assert_eq!(
                    judge(&other, conforming).0,
                    verdict,
                    "a literal changes a verdict"
                );
            }
        }
    }
}

/// Tokens stand in their order, and only blanks and comments lie between them.
fn cover(text: &[u8], tokens: &[Token], conforming: bool) {
    let mut at = 0;
    for token in tokens {
        assert!(at <= token.start && token.start < token.end && token.end <= text.len());
        nothing_lies_in(&text[at..token.start], conforming);
        at = token.end;
    }
    nothing_lies_in(&text[at..], conforming);
}

fn nothing_lies_in(gap: &[u8], conforming: bool) {
    let found = lexer::tokens(gap, conforming).map(|(tokens, _)| tokens);
    assert_eq!(found, Ok(Vec::new()), "something is passed over");
}

/// The text with other literals of the same notation.
fn other_literals(text: &[u8], tokens: &[Token]) -> Vec<u8> {
    let (mut out, mut at) = (Vec::new(), 0);
    for token in tokens {
        out.extend_from_slice(&text[at..token.start]);
        let bytes = &text[token.start..token.end];
        match other_literal(token.kind, bytes) {
            // A moment such as 'now' is not a literal like others.
            Some(other) if lexer::names_moment(bytes) == lexer::names_moment(&other) => {
                out.extend_from_slice(&other);
            }
            _ => out.extend_from_slice(bytes),
        }
        at = token.end;
    }
    out.extend_from_slice(&text[at..]);
    out
}

fn other_literal(kind: Kind, bytes: &[u8]) -> Option<Vec<u8>> {
    let upto = |end: usize| bytes.get(..=end).unwrap_or_default();
    let find = |from: usize, wanted: u8| {
        let rest = bytes.get(from..)?;
        Some(from + rest.iter().position(|byte| *byte == wanted)?)
    };
    match kind {
        Kind::Number if bytes.starts_with(b".") => Some(b".7".to_vec()),
        Kind::Number => Some(b"7".to_vec()),
        Kind::Text(Quote::Dollar) => {
            let tag = upto(find(1, b'$')?);
            Some([tag, b"it's", tag].concat())
        }
        Kind::Text(Quote::Bits) => Some([upto(find(0, b'\'')?), b"1'"].concat()),
        Kind::Text(_) => Some([upto(find(0, b'\'')?), b"a -- ''b'"].concat()),
        _ => None,
    }
}

fn same_key(text: &[u8], conforming: bool, key: &[u8], masked: Masked) {
    let mut again = Vec::new();
    assert_eq!(lexer::mask(text, conforming, &mut again), Ok(masked));
    assert_eq!(again, key, "a literal changes the key");
}

/// What a classifier without a catalogue says, and whether it remembers that.
fn judge(text: &[u8], conforming: bool) -> (Arc<Verdict>, bool) {
    let classifier = Classifier::new();
    let verdict = classifier.classify(text, conforming);
    assert_ne!(verdict.class, Class::Read, "a read is proven from nothing");
    assert_eq!(
        classifier.classify(text, conforming),
        verdict,
        "the memory says otherwise"
    );
    let remembered = classifier.remembered() > 0;
    classifier.mark_write(text);
    assert_ne!(classifier.classify(text, conforming).class, Class::Read);
    (verdict, remembered)
}
