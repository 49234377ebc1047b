//! A text and its tokens, and the simplest questions about them.
//!
//! Invariant: a place beyond the end is no token, and answers every question with no.

use super::lexer::{Kind, Token};
use std::borrow::Cow;

/// A text and some of its tokens.
#[derive(Clone, Copy)]
pub(super) struct Words<'a> {
    pub(super) sql: &'a [u8],
    pub(super) tokens: &'a [Token],
}

impl<'a> Words<'a> {
    pub(super) fn kind(&self, at: usize) -> Option<Kind> {
        self.tokens.get(at).map(|token| token.kind)
    }

    /// The bytes of a token as written.
    pub(super) fn raw(&self, at: usize) -> &'a [u8] {
        let token = self.tokens.get(at);
        token
            .and_then(|token| self.sql.get(token.start..token.end))
            .unwrap_or_default()
    }

    /// The bytes of a token, if they are UTF-8.
    pub(super) fn text(&self, at: usize) -> &'a str {
        std::str::from_utf8(self.raw(at)).unwrap_or_default()
    }

    /// The text from one token to another, both included, as written.
    pub(super) fn span(&self, first: usize, last: usize) -> Cow<'a, str> {
        match (self.tokens.get(first), self.tokens.get(last)) {
            (Some(first), Some(last)) => {
                String::from_utf8_lossy(self.sql.get(first.start..last.end).unwrap_or_default())
            }
            _ => Cow::Borrowed(""),
        }
    }

    pub(super) fn from(&self, at: usize) -> Self {
        Self {
            sql: self.sql,
            tokens: self.tokens.get(at..).unwrap_or_default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The token is this keyword, unquoted.
    pub(super) fn is(&self, at: usize, word: &str) -> bool {
        self.kind(at) == Some(Kind::Word) && self.raw(at).eq_ignore_ascii_case(word.as_bytes())
    }

    pub(super) fn any(&self, at: usize, words: &[&str]) -> bool {
        words.iter().any(|word| self.is(at, word))
    }

    /// These keywords stand here, one behind the other.
    pub(super) fn are(&self, at: usize, words: &[&str]) -> bool {
        words
            .iter()
            .enumerate()
            .all(|(offset, word)| self.is(at + offset, word))
    }

    /// These keywords and nothing else.
    pub(super) fn exactly(&self, words: &[&str]) -> bool {
        self.len() == words.len() && self.are(0, words)
    }

    pub(super) fn mark(&self, at: usize, mark: u8) -> bool {
        self.kind(at) == Some(Kind::Mark(mark))
    }

    pub(super) fn follows_dot(&self, at: usize) -> bool {
        at > 0 && self.mark(at - 1, b'.')
    }

    /// A word in lower case.
    pub(super) fn lower(&self, at: usize) -> String {
        self.text(at).to_ascii_lowercase()
    }

    /// The token as a name, without its quotes; `None`: it is none.
    pub(super) fn name(&self, at: usize) -> Option<Cow<'a, str>> {
        let raw = self.text(at);
        match self.kind(at)? {
            Kind::Word => Some(Cow::Borrowed(raw)),
            Kind::Quoted => {
                let quote = raw.get(..1)?;
                let inner = raw.get(1..raw.len().saturating_sub(1))?;
                Some(if inner.contains(quote) {
                    Cow::Owned(inner.replace(&quote.repeat(2), quote))
                } else {
                    Cow::Borrowed(inner)
                })
            }
            _ => None,
        }
    }

    /// The statements of the text: its tokens between semicolons, empty ones left out.
    pub(super) fn statements(&self) -> Vec<Self> {
        let parts = self.tokens.split(|token| token.kind == Kind::Mark(b';'));
        let parts = parts.filter(|tokens| !tokens.is_empty());
        parts
            .map(|tokens| Self {
                sql: self.sql,
                tokens,
            })
            .collect()
    }
}
