//! PostgreSQL's lexer in one pass, and the masked key of a text.
//!
//! Not a parser: it knows where tokens begin and end, not what they mean. Invariant: it ends every
//! literal, comment and name where the server does, or it says that it is in doubt.

/// Why the lexer cannot vouch for a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// A literal, name or comment that does not end: the server refuses the text.
    Unterminated,
    /// A number or parameter with something glued to its end; releases of PostgreSQL differ.
    Number,
    /// A byte that begins no token.
    Byte,
    /// A string that may go on in the next literal.
    Continuation,
}

/// The notation of a literal in quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quote {
    /// `'…'`, also after N.
    Plain,
    /// `E'…'`.
    Escape,
    /// `U&'…'`.
    Unicode,
    /// `B'…'` or `X'…'`.
    Bits,
    /// `$tag$…$tag$`.
    Dollar,
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A keyword or an unquoted name.
    Word,
    /// `"name"`.
    Quoted,
    /// `U&"name"`.
    UnicodeQuoted,
    /// A string.
    Text(Quote),
    /// A number without its sign.
    Number,
    /// `$1`.
    Parameter,
    /// An operator, cut as the server cuts it.
    Operator,
    /// One of `, ( ) [ ] . ; :`, or `::`, `:=`, or `..`.
    Mark(u8),
}

/// A token: its kind and its bytes in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Its first byte.
    pub start: usize,
    /// One past its last byte.
    pub end: usize,
}

/// Stands for `::` in [`Kind::Mark`].
pub const CAST: u8 = b'C';
/// Stands for `:=` in [`Kind::Mark`].
pub const ASSIGN: u8 = b'A';
/// Stands for `..` in [`Kind::Mark`]; only procedures have it.
pub const DOTS: u8 = b'D';

/// Reads the tokens of a text.
#[derive(Debug)]
pub struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    conforming: bool,
    hint: bool,
    blank: bool,
}

const START: u8 = 1;
const PART: u8 = 2;
const OPERATOR: u8 = 4;
const BLANK: u8 = 8;
const DIGIT: u8 = 16;

/// What each byte may be: one look-up for each byte of a text.
static CLASSES: [u8; 256] = classes();

#[expect(
    clippy::indexing_slicing,
    reason = "the index counts the bytes of the table"
)]
const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0_u8;
    loop {
        let mut class = 0;
        if byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80 {
            class |= START | PART;
        }
        if byte.is_ascii_digit() {
            class |= PART | DIGIT;
        }
        if byte == b'$' {
            class |= PART;
        }
        if is_operator_byte(byte) {
            class |= OPERATOR;
        }
        if matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0c) {
            class |= BLANK;
        }
        table[byte as usize] = class;
        if byte == u8::MAX {
            return table;
        }
        byte += 1;
    }
}

fn has(byte: u8, class: u8) -> bool {
    CLASSES
        .get(usize::from(byte))
        .is_some_and(|found| found & class != 0)
}

fn is_word_start(byte: u8) -> bool {
    has(byte, START)
}

fn is_word_part(byte: u8) -> bool {
    has(byte, PART)
}

fn is_operator(byte: u8) -> bool {
    has(byte, OPERATOR)
}

fn is_blank(byte: u8) -> bool {
    has(byte, BLANK)
}

const fn is_operator_byte(byte: u8) -> bool {
    matches!(
        byte,
        b'~' | b'!'
            | b'@'
            | b'#'
            | b'^'
            | b'&'
            | b'|'
            | b'`'
            | b'?'
            | b'+'
            | b'-'
            | b'*'
            | b'/'
            | b'%'
            | b'<'
            | b'>'
            | b'='
    )
}

impl<'a> Lexer<'a> {
    /// A lexer at the beginning of `text`; `conforming` is `standard_conforming_strings`.
    pub fn new(text: &'a [u8], conforming: bool) -> Self {
        Self {
            text,
            at: 0,
            conforming,
            hint: false,
            blank: false,
        }
    }

    /// A comment read so far says `breccia: primary`.
    pub fn hint(&self) -> bool {
        self.hint
    }

    fn byte(&self, at: usize) -> u8 {
        self.text.get(at).copied().unwrap_or(0)
    }

    fn slice(&self, start: usize, end: usize) -> &'a [u8] {
        self.text.get(start..end).unwrap_or_default()
    }

    /// The next token, or `None` at the end.
    pub fn token(&mut self) -> Result<Option<Token>, Doubt> {
        self.skip_blank()?;
        let start = self.at;
        if start >= self.text.len() {
            return Ok(None);
        }
        let byte = self.byte(start);
        let kind = if is_word_start(byte) {
            self.word_or_prefixed(byte)?
        } else if byte.is_ascii_digit() || (byte == b'.' && self.byte(start + 1).is_ascii_digit()) {
            self.number()?
        } else {
            self.other(byte)?
        };
        Ok(Some(Token {
            kind,
            start,
            end: self.at,
        }))
    }

    fn skip_blank(&mut self) -> Result<(), Doubt> {
        self.blank = false;
        loop {
            let byte = self.byte(self.at);
            if is_blank(byte) {
                self.at += 1;
            } else if byte != b'-' && byte != b'/' {
                return Ok(());
            } else if byte == b'-' && self.byte(self.at + 1) == b'-' {
                let start = self.at;
                let rest = self.slice(start, self.text.len());
                let length = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
                self.at += length;
                self.look_for_hint(start);
            } else if byte == b'/' && self.byte(self.at + 1) == b'*' {
                let start = self.at;
                self.block_comment()?;
                self.look_for_hint(start);
            } else {
                return Ok(());
            }
            self.blank = true;
        }
    }

    fn block_comment(&mut self) -> Result<(), Doubt> {
        let mut depth = 0_u32;
        loop {
            let rest = self.slice(self.at, self.text.len());
            let Some(found) = memchr::memchr2(b'*', b'/', rest) else {
                return Err(Doubt::Unterminated);
            };
            self.at += found;
            match (self.byte(self.at), self.byte(self.at + 1)) {
                (b'/', b'*') => {
                    depth += 1;
                    self.at += 2;
                }
                (b'*', b'/') => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return Ok(());
                    }
                }
                _ => self.at += 1,
            }
        }
    }

    fn look_for_hint(&mut self, start: usize) {
        let comment = self.slice(start, self.at);
        for found in memchr::memmem::find_iter(comment, b"breccia:") {
            let after = comment.get(found + b"breccia:".len()..).unwrap_or_default();
            self.hint |= after.trim_ascii_start().starts_with(b"primary");
        }
    }

    fn word_or_prefixed(&mut self, byte: u8) -> Result<Kind, Doubt> {
        let next = self.byte(self.at + 1);
        match (byte | 0x20, next) {
            _ if next != b'\'' && next != b'&' => {}
            (b'e', b'\'') => return self.string(1, true, Quote::Escape),
            (b'b' | b'x', b'\'') => return self.string(1, false, Quote::Bits),
            // The server reads NCHAR and then an ordinary literal.
            (b'n', b'\'') => return self.string(1, !self.conforming, Quote::Plain),
            (b'u', b'&') if self.byte(self.at + 2) == b'\'' => {
                return self.string(2, false, Quote::Unicode);
            }
            (b'u', b'&') if self.byte(self.at + 2) == b'"' => {
                self.at += 2;
                self.delimited(b'"', false)?;
                return Ok(Kind::UnicodeQuoted);
            }
            _ => {}
        }
        let rest = self.slice(self.at, self.text.len());
        self.at += rest
            .iter()
            .position(|byte| !is_word_part(*byte))
            .unwrap_or(rest.len());
        Ok(Kind::Word)
    }

    fn other(&mut self, byte: u8) -> Result<Kind, Doubt> {
        match byte {
            b'\'' => self.string(0, !self.conforming, Quote::Plain),
            b'"' => {
                self.delimited(b'"', false)?;
                Ok(Kind::Quoted)
            }
            b'$' => self.dollar(),
            b'.' if self.byte(self.at + 1) == b'.' => {
                self.at += 2;
                Ok(Kind::Mark(DOTS))
            }
            b',' | b'(' | b')' | b'[' | b']' | b'.' | b';' => {
                self.at += 1;
                Ok(Kind::Mark(byte))
            }
            b':' => {
                let mark = match self.byte(self.at + 1) {
                    b':' => CAST,
                    b'=' => ASSIGN,
                    _ => b':',
                };
                self.at += if mark == b':' { 1 } else { 2 };
                Ok(Kind::Mark(mark))
            }
            _ if is_operator(byte) => {
                self.operator();
                Ok(Kind::Operator)
            }
            _ => Err(Doubt::Byte),
        }
    }

    /// Reads a string whose quote is `skip` bytes ahead.
    fn string(&mut self, skip: usize, escapes: bool, quote: Quote) -> Result<Kind, Doubt> {
        self.at += skip;
        if quote == Quote::Bits {
            self.bits()?;
        } else {
            self.delimited(b'\'', escapes)?;
        }
        // A literal behind a line feed continues this one, under its rules: plain ones look the
        // same either way, the others do not.
        if quote != Quote::Plain {
            let (at, blank) = (self.at, self.blank);
            if self.skip_blank().is_ok() && self.byte(self.at) == b'\'' {
                return Err(Doubt::Continuation);
            }
            (self.at, self.blank) = (at, blank);
        }
        Ok(Kind::Text(quote))
    }

    /// Reads up to the closing delimiter; the position is on the opening one.
    fn delimited(&mut self, delimiter: u8, escapes: bool) -> Result<(), Doubt> {
        self.at += 1;
        loop {
            let rest = self.slice(self.at, self.text.len());
            let found = if escapes {
                rest.iter()
                    .position(|byte| *byte == delimiter || *byte == b'\\')
            } else {
                rest.iter().position(|byte| *byte == delimiter)
            };
            self.at += found.ok_or(Doubt::Unterminated)?;
            let behind = escapes && self.byte(self.at) == b'\\';
            if behind || self.byte(self.at + 1) == delimiter {
                self.at += 2;
            } else {
                self.at += 1;
                return Ok(());
            }
        }
    }

    /// Reads up to the next quote: two of them are no quote here, but an end and a beginning.
    fn bits(&mut self) -> Result<(), Doubt> {
        self.at += 1;
        let rest = self.slice(self.at, self.text.len());
        let end = memchr::memchr(b'\'', rest).ok_or(Doubt::Unterminated)?;
        self.at += end + 1;
        Ok(())
    }

    fn dollar(&mut self) -> Result<Kind, Doubt> {
        let start = self.at;
        let mut end = start + 1;
        if self.byte(end).is_ascii_digit() {
            while self.byte(end).is_ascii_digit() {
                end += 1;
            }
            self.at = end;
            let glued = is_word_part(self.byte(end));
            return if glued {
                Err(Doubt::Number)
            } else {
                Ok(Kind::Parameter)
            };
        }
        if is_word_start(self.byte(end)) {
            while is_word_part(self.byte(end)) && self.byte(end) != b'$' {
                end += 1;
            }
        }
        if self.byte(end) != b'$' {
            return Err(Doubt::Byte);
        }
        let tag = self.slice(start, end + 1);
        let rest = self.slice(end + 1, self.text.len());
        let found = memchr::memmem::find(rest, tag).ok_or(Doubt::Unterminated)?;
        self.at = end + 1 + found + tag.len();
        Ok(Kind::Text(Quote::Dollar))
    }

    fn digits(&mut self, digit: impl Fn(u8) -> bool) {
        while digit(self.byte(self.at)) || self.byte(self.at) == b'_' {
            self.at += 1;
        }
    }

    fn number(&mut self) -> Result<Kind, Doubt> {
        let radix = self.byte(self.at + 1) | 0x20;
        if self.byte(self.at) == b'0' && matches!(radix, b'x' | b'o' | b'b') {
            self.at += 2;
            match radix {
                b'x' => self.digits(|byte| byte.is_ascii_hexdigit()),
                b'o' => self.digits(|byte| matches!(byte, b'0'..=b'7')),
                _ => self.digits(|byte| matches!(byte, b'0' | b'1')),
            }
        } else {
            self.digits(|byte| byte.is_ascii_digit());
            if self.byte(self.at) == b'.' && self.byte(self.at + 1) != b'.' {
                self.at += 1;
                self.digits(|byte| byte.is_ascii_digit());
            }
            if self.byte(self.at) | 0x20 == b'e' {
                let sign = usize::from(matches!(self.byte(self.at + 1), b'+' | b'-'));
                if self.byte(self.at + 1 + sign).is_ascii_digit() {
                    self.at += 1 + sign;
                    self.digits(|byte| byte.is_ascii_digit());
                }
            }
        }
        let after = self.byte(self.at);
        if is_word_part(after) || (after == b'.' && self.byte(self.at + 1) != b'.') {
            Err(Doubt::Number)
        } else {
            Ok(Kind::Number)
        }
    }

    /// Takes an operator as long as the server takes it: a comment inside the run ends it, and it
    /// ends in `+` or `-` only if it holds a character no operator of the standard has.
    fn operator(&mut self) {
        let rest = self.slice(self.at, self.text.len());
        let mut length = rest
            .iter()
            .position(|byte| !is_operator(*byte))
            .unwrap_or(rest.len());
        let run = rest.get(..length).unwrap_or_default();
        for comment in [b"--", b"/*"] {
            if let Some(found) = run.windows(2).position(|pair| pair == comment) {
                length = length.min(found);
            }
        }
        let run = run.get(..length).unwrap_or_default();
        if !run.iter().any(|byte| b"~!@#^&|`?%".contains(byte)) {
            while length > 1 && matches!(run.get(length - 1), Some(b'+' | b'-')) {
                length -= 1;
            }
        }
        self.at += length.max(1);
    }
}

/// All tokens of a text.
pub fn tokens(text: &[u8], conforming: bool) -> Result<(Vec<Token>, bool), Doubt> {
    let mut lexer = Lexer::new(text, conforming);
    let mut tokens = Vec::new();
    while let Some(token) = lexer.token()? {
        tokens.push(token);
    }
    Ok((tokens, lexer.hint))
}

/// What [`mask`] saw beside the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Masked {
    /// A comment says `breccia: primary`.
    pub hint: bool,
    /// How many statements the text has.
    pub statements: u32,
}

/// Words a date or time literal may hold that stand for the beginning of the transaction.
const MOMENTS: [&[u8]; 4] = [b"now", b"today", b"tomorrow", b"yesterday"];
/// A literal longer than this is no date.
const MOMENT_BYTES: usize = 80;

/// Whether a literal may name a moment that depends on the beginning of its transaction.
pub fn names_moment(literal: &[u8]) -> bool {
    literal.len() <= MOMENT_BYTES
        && literal.iter().enumerate().any(|(at, byte)| {
            matches!(byte | 0x20, b'n' | b't' | b'y')
                && MOMENTS.iter().any(|moment| {
                    literal
                        .get(at..at + moment.len())
                        .is_some_and(|part| part.eq_ignore_ascii_case(moment))
                })
        })
}

fn write_word(word: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let mut seen = 0;
    out.extend(word.iter().map(|byte| {
        // A dollar is marked like a letter beyond ASCII.
        seen |= byte | (u8::from(*byte == b'$') << 7);
        byte.to_ascii_lowercase()
    }));
    // Other parsers disagree about such letters: a quoted name means the same to all.
    if seen >= 0x80 {
        out.insert(start, b'"');
        out.push(b'"');
    }
}

fn write_token(token: Token, bytes: &[u8], out: &mut Vec<u8>) {
    match token.kind {
        Kind::Word => write_word(bytes, out),
        Kind::Text(quote) => out.extend_from_slice(match quote {
            Quote::Bits => b"X'1'",
            Quote::Plain | Quote::Dollar if names_moment(bytes) => b"'now'",
            Quote::Plain | Quote::Dollar => b"'s'",
            Quote::Escape if names_moment(bytes) => b"E'now'",
            Quote::Escape => b"E's'",
            Quote::Unicode => b"U&'s'",
        }),
        Kind::Number => out.push(b'1'),
        _ => out.extend_from_slice(bytes),
    }
}

/// Writes the masked key of `sql` to `out`, which is cleared first: literals are replaced by a
/// placeholder of their kind, unquoted names are in lower case, white space and comments become
/// one blank, operators stand between blanks. The key is itself a statement of the same shape.
pub fn mask(sql: &[u8], conforming: bool, out: &mut Vec<u8>) -> Result<Masked, Doubt> {
    out.clear();
    if memchr::memchr(0, sql).is_some() {
        return Err(Doubt::Byte);
    }
    out.reserve(sql.len() + sql.len() / 2);
    let mut lexer = Lexer::new(sql, conforming);
    let mut statements = 0;
    let mut ended = true;
    let mut before = Kind::Mark(b';');
    while let Some(token) = lexer.token()? {
        if token.kind == Kind::Mark(b';') {
            ended = true;
            continue;
        }
        let marks = matches!(before, Kind::Mark(_)) || matches!(token.kind, Kind::Mark(_));
        let operator = before == Kind::Operator || token.kind == Kind::Operator;
        if ended {
            if statements > 0 {
                out.push(b';');
            }
            statements += 1;
            ended = false;
        } else if lexer.blank || operator || !marks {
            out.push(b' ');
        }
        write_token(token, lexer.slice(token.start, token.end), out);
        before = token.kind;
    }
    Ok(Masked {
        hint: lexer.hint,
        statements,
    })
}
