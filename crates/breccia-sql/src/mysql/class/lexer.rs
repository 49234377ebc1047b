//! The words of a text, as a MySQL or MariaDB server cuts them.
//!
//! Not a parser, and no judge: it knows no keyword. What stands in an executable comment is cut too,
//! as if it were no comment, and that there was one is told: whether a server runs it depends on its
//! version. Invariant: tokens stand in their order, each has a byte, and only blanks and comments lie
//! between them; what this lexer and a server could cut in two ways is a [`Doubt`].

use super::Mode;

/// Why a text cannot be cut: it goes to the primary, which tells what is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubt;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A keyword or a name, without quotes.
    Word,
    /// A name in backticks, or in double quotes under `ANSI_QUOTES`.
    Quoted,
    /// A literal in quotes, with its prefix (`N'…'`, `x'…'`, `b'…'`) if it has one.
    Text,
    /// A number, also `0x…` and `0b…`.
    Number,
    /// `@name`: a variable of the user.
    UserVariable,
    /// `@@name`, with `global.`, `session.` or `local.` if it is said.
    SystemVariable,
    /// A mark of one byte.
    Mark(u8),
    /// An operator of several bytes.
    Operator,
}

/// A piece of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Its first byte.
    pub start: usize,
    /// The byte behind its last.
    pub end: usize,
}

/// What a text says besides its tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Notes {
    /// A comment says `breccia: primary`.
    pub hint: bool,
    /// There is a comment that some servers run: `/*! … */`, `/*M! … */`.
    pub executable: bool,
    /// There is an optimizer's hint that sets a variable or a group of resources.
    pub sets_by_hint: bool,
    /// A word has bytes beyond ASCII. Some character sets know blanks among them.
    pub foreign: bool,
}

/// Operators of several bytes, the longest first.
const OPERATORS: [&[u8]; 12] = [
    b"<=>", b"->>", b"->", b"<<", b">>", b"<=", b">=", b"<>", b"!=", b":=", b"||", b"&&",
];

/// Cuts a text, and hands every token to `each`.
///
/// # Errors
/// [`Doubt`]: something is not ended, or cannot stand there.
pub fn scan(text: &[u8], mode: Mode, mut each: impl FnMut(Token)) -> Result<Notes, Doubt> {
    let mut lexer = Lexer {
        text,
        mode,
        at: 0,
        notes: Notes::default(),
        inside: false,
        before: None,
    };
    while let Some(token) = lexer.token()? {
        each(token);
        lexer.before = Some(token);
    }
    Ok(lexer.notes)
}

/// The tokens of a text, and what it says besides.
///
/// # Errors
/// [`Doubt`], as [`scan`].
pub fn tokens(text: &[u8], mode: Mode) -> Result<(Vec<Token>, Notes), Doubt> {
    let mut found = Vec::new();
    let notes = scan(text, mode, |token| found.push(token))?;
    Ok((found, notes))
}

struct Lexer<'a> {
    text: &'a [u8],
    mode: Mode,
    at: usize,
    notes: Notes,
    /// In an executable comment.
    inside: bool,
    before: Option<Token>,
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || !byte.is_ascii()
}

impl Lexer<'_> {
    fn byte(&self, at: usize) -> u8 {
        self.text.get(at).copied().unwrap_or(0)
    }

    fn starts(&self, with: &[u8]) -> bool {
        self.text
            .get(self.at..)
            .is_some_and(|rest| rest.starts_with(with))
    }

    fn token(&mut self) -> Result<Option<Token>, Doubt> {
        self.skip_blank()?;
        let start = self.at;
        if start >= self.text.len() {
            return if self.inside { Err(Doubt) } else { Ok(None) };
        }
        let kind = self.kind(self.byte(start))?;
        let end = self.at;
        Ok(Some(Token { kind, start, end }))
    }

    fn skip_blank(&mut self) -> Result<(), Doubt> {
        while self.at < self.text.len() {
            let (byte, next) = (self.byte(self.at), self.byte(self.at + 1));
            let dashes = byte == b'-' && next == b'-' && self.ends_dashes(self.at + 2);
            if is_blank(byte) {
                self.at += 1;
            } else if byte == b'#' || dashes {
                let rest = self.text.get(self.at..).unwrap_or_default();
                let length = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
                self.look_for_hint(self.at, self.at + length);
                self.at += length;
            } else if byte == b'/' && next == b'*' {
                self.comment()?;
            } else if self.inside && byte == b'*' && next == b'/' {
                self.inside = false;
                self.at += 2;
            } else {
                break;
            }
        }
        Ok(())
    }

    /// Two dashes are a comment only in front of a blank, a control character or the end.
    fn ends_dashes(&self, at: usize) -> bool {
        at >= self.text.len() || self.byte(at) == b' ' || self.byte(at).is_ascii_control()
    }

    fn comment(&mut self) -> Result<(), Doubt> {
        let mark = match (self.byte(self.at + 2), self.byte(self.at + 3)) {
            (b'!', _) => 3,
            (b'M', b'!') => 4,
            _ => 0,
        };
        if mark > 0 {
            if self.inside {
                return Err(Doubt);
            }
            self.notes.executable = true;
            self.inside = true;
            self.at += mark;
            while self.byte(self.at).is_ascii_digit() {
                self.at += 1;
            }
            return Ok(());
        }
        let rest = self.text.get(self.at + 2..).unwrap_or_default();
        let length = memchr::memmem::find(rest, b"*/").ok_or(Doubt)?;
        let comment = rest.get(..length).unwrap_or_default();
        if comment.first() == Some(&b'+') {
            let upper = comment.to_ascii_uppercase();
            let says = |word: &[u8]| memchr::memmem::find(&upper, word).is_some();
            self.notes.sets_by_hint |= says(b"SET_VAR") || says(b"RESOURCE_GROUP");
        }
        self.look_for_hint(self.at, self.at + 2 + length);
        self.at += length + 4;
        Ok(())
    }

    fn look_for_hint(&mut self, start: usize, end: usize) {
        let comment = self.text.get(start..end).unwrap_or_default();
        for found in memchr::memmem::find_iter(comment, b"breccia:") {
            let after = comment.get(found + b"breccia:".len()..).unwrap_or_default();
            self.notes.hint |= after.trim_ascii_start().starts_with(b"primary");
        }
    }

    fn kind(&mut self, byte: u8) -> Result<Kind, Doubt> {
        let next = self.byte(self.at + 1);
        match byte {
            b'\'' => self.text(0),
            b'"' if !self.mode.ansi_quotes => self.text(0),
            b'"' | b'`' => {
                self.delimited(byte)?;
                Ok(Kind::Quoted)
            }
            b'@' => self.variable(next),
            b'n' | b'N' | b'x' | b'X' | b'b' | b'B' if next == b'\'' => self.text(1),
            b'0'..=b'9' if !self.follows_dot() => self.number(),
            b'.' if next.is_ascii_digit() => match self.touches() {
                // A name goes on.
                Some(Kind::Word) => self.mark(byte),
                Some(Kind::Quoted) => Err(Doubt),
                _ => self.fraction(),
            },
            b'\\' if next == b'N' && !in_word(self.byte(self.at + 2)) => {
                self.at += 2;
                Ok(Kind::Word)
            }
            _ if in_word(byte) => {
                self.word();
                Ok(Kind::Word)
            }
            _ => self.mark(byte),
        }
    }

    fn follows_dot(&self) -> bool {
        self.before.is_some_and(|it| it.kind == Kind::Mark(b'.'))
    }

    /// What ends where this begins.
    fn touches(&self) -> Option<Kind> {
        self.before.filter(|it| it.end == self.at).map(|it| it.kind)
    }

    fn word(&mut self) {
        while in_word(self.byte(self.at)) && self.at < self.text.len() {
            self.notes.foreign |= !self.byte(self.at).is_ascii();
            self.at += 1;
        }
    }

    fn mark(&mut self, byte: u8) -> Result<Kind, Doubt> {
        if let Some(operator) = OPERATORS.iter().find(|it| self.starts(it)) {
            self.at += operator.len();
            return Ok(Kind::Operator);
        }
        if !b"()+-*/%=<>!~^&|.,;?:{}".contains(&byte) {
            return Err(Doubt);
        }
        self.at += 1;
        Ok(Kind::Mark(byte))
    }

    /// A literal in quotes, behind a prefix of some bytes.
    fn text(&mut self, prefix: usize) -> Result<Kind, Doubt> {
        self.at += prefix;
        let quote = self.byte(self.at);
        self.at += 1;
        while self.at < self.text.len() {
            let byte = self.byte(self.at);
            if byte == b'\\' && !self.mode.no_backslash_escapes {
                self.at += 2;
            } else if byte == quote {
                self.at += 1;
                if self.byte(self.at) != quote {
                    return Ok(Kind::Text);
                }
                self.at += 1;
            } else {
                self.at += 1;
            }
        }
        Err(Doubt)
    }

    /// A name in quotes: only the doubled quote stands for itself.
    fn delimited(&mut self, quote: u8) -> Result<(), Doubt> {
        let start = self.at;
        self.at += 1;
        while self.at < self.text.len() {
            let byte = self.byte(self.at);
            self.at += 1;
            if byte == quote {
                if self.byte(self.at) != quote {
                    return if self.at == start + 2 {
                        Err(Doubt)
                    } else {
                        Ok(())
                    };
                }
                self.at += 1;
            }
        }
        Err(Doubt)
    }

    fn variable(&mut self, next: u8) -> Result<Kind, Doubt> {
        if next == b'@' {
            self.at += 2;
            let start = self.at;
            while in_word(self.byte(self.at)) || self.byte(self.at) == b'.' {
                self.notes.foreign |= !self.byte(self.at).is_ascii();
                self.at += 1;
            }
            // `@@session . name` and names in quotes.
            let last = self.byte(self.at.saturating_sub(1));
            if self.at == start || last == b'.' {
                return Err(Doubt);
            }
            return Ok(Kind::SystemVariable);
        }
        self.at += 1;
        match next {
            b'\'' | b'"' => {
                self.text(0)?;
            }
            b'`' => self.delimited(next)?,
            _ => {
                while in_word(self.byte(self.at)) || self.byte(self.at) == b'.' {
                    self.at += 1;
                }
            }
        }
        Ok(Kind::UserVariable)
    }

    fn digits(&mut self) {
        while self.byte(self.at).is_ascii_digit() {
            self.at += 1;
        }
    }

    /// Digits first: a number, or a name that begins with digits.
    fn number(&mut self) -> Result<Kind, Doubt> {
        let start = self.at;
        self.digits();
        let first = self.byte(self.at);
        if !in_word(first) {
            return if first == b'.' {
                self.fraction()
            } else {
                Ok(Kind::Number)
            };
        }
        if first | 0x20 == b'e' && matches!(self.byte(self.at + 1), b'+' | b'-' | b'0'..=b'9') {
            return self.exponent();
        }
        self.word();
        let run = self.text.get(start..self.at).unwrap_or_default();
        let number = match run {
            [b'0', b'x', digits @ ..] => digits.iter().all(u8::is_ascii_hexdigit),
            [b'0', b'b', digits @ ..] => digits.iter().all(|it| matches!(it, b'0' | b'1')),
            _ => false,
        };
        Ok(if number && run.len() > 2 {
            Kind::Number
        } else {
            Kind::Word
        })
    }

    fn fraction(&mut self) -> Result<Kind, Doubt> {
        self.at += 1;
        self.digits();
        let next = self.byte(self.at);
        if next | 0x20 == b'e' && matches!(self.byte(self.at + 1), b'+' | b'-' | b'0'..=b'9') {
            return self.exponent();
        }
        self.ended()
    }

    fn exponent(&mut self) -> Result<Kind, Doubt> {
        self.at += 2;
        self.digits();
        self.ended()
    }

    /// A number that goes over into a word is cut by servers as they please.
    fn ended(&self) -> Result<Kind, Doubt> {
        if in_word(self.byte(self.at)) {
            Err(Doubt)
        } else {
            Ok(Kind::Number)
        }
    }
}
