//! Replies: where the one terminal reply to an upstream request ends, and what its blocks are. It
//! does not decide who gets them.
//!
//! Invariant: only bytes that answer the request's own kind of command are a reply; anything else
//! is wrong, and the connection that sent it cannot be trusted to be in step any more.

use memchr::memchr;

use super::line::Words;
use super::number::{unsigned_32, unsigned_64};

/// What kind of reply a request brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `VALUE` blocks, then `END`.
    Values,
    /// The outcome of a text storage command.
    Storage,
    /// `DELETED` or `NOT_FOUND`.
    Delete,
    /// `TOUCHED` or `NOT_FOUND`.
    Touch,
    /// A number or `NOT_FOUND`.
    Arithmetic,
    /// `OK`.
    Ok,
    /// `VERSION …`.
    Version,
    /// `STAT` lines, then `END`.
    Stats,
    /// The reply of `mg`.
    MetaGet,
    /// The reply of `ms`.
    MetaSet,
    /// The reply of `md`.
    MetaDelete,
    /// The reply of `ma`.
    MetaArithmetic,
    /// The reply of `ma`, if the server sends one, then `MN`.
    MetaArithmeticOrNone,
    /// The reply of `me`.
    MetaDebug,
    /// `MN`.
    MetaNoop,
}

/// How the search for a reply's end went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScannedReply {
    /// The reply is this many bytes long.
    Complete(usize),
    /// More bytes are needed.
    Incomplete,
    /// These bytes are no reply to the request; the text says why.
    Wrong(&'static str),
}

/// The longest reply line there is: `VALUE`, a key, three numbers; `ME` and error texts stay below.
const MAX_REPLY_LINE_BYTES: usize = 2048;

/// How far a reply that is not yet whole has been looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReplyScanner {
    /// Where the next line starts.
    line: usize,
    /// Up to where that line was searched for its end.
    searched: usize,
}

/// What one line means to the reply it stands in.
enum LineKind {
    Last,
    More,
    Block(usize, After),
}

#[derive(PartialEq, Eq)]
enum After {
    More,
    Last,
}

impl ReplyScanner {
    /// Looks for the end of the reply that starts at `bytes[0]`. Called again with the same bytes
    /// and more behind them until the answer is not `Incomplete`.
    pub fn scan(&mut self, shape: Shape, bytes: &[u8]) -> ScannedReply {
        loop {
            let from = self.searched.max(self.line);
            let Some(fresh) = bytes.get(from..) else {
                return ScannedReply::Incomplete;
            };
            let newline = memchr(b'\n', fresh).map(|at| at + from);
            // Without its end a line is at least one byte longer than what is here.
            if newline.unwrap_or(bytes.len()) - self.line >= MAX_REPLY_LINE_BYTES {
                return ScannedReply::Wrong("a line does not end");
            }
            let Some(newline) = newline else {
                self.searched = bytes.len();
                return ScannedReply::Incomplete;
            };
            let Some([line @ .., b'\r']) = bytes.get(self.line..newline) else {
                return ScannedReply::Wrong("a line does not end in CR LF");
            };
            match kind(shape, line, self.line == 0) {
                Ok(LineKind::Last) => return ScannedReply::Complete(newline + 1),
                Ok(LineKind::More) => self.line = newline + 1,
                Ok(LineKind::Block(length, after)) => {
                    let end = newline + 1 + length + 2;
                    let Some(block) = bytes.get(newline + 1..end) else {
                        // The line is classified once more when the block is whole.
                        self.searched = self.searched.max(newline);
                        return ScannedReply::Incomplete;
                    };
                    if !block.ends_with(b"\r\n") {
                        return ScannedReply::Wrong("a data block does not end where it should");
                    }
                    if after == After::Last {
                        return ScannedReply::Complete(end);
                    }
                    self.line = end;
                }
                Err(why) => return ScannedReply::Wrong(why),
            }
        }
    }
}

/// Whether a reply line is `ERROR`, `CLIENT_ERROR …` or `SERVER_ERROR …`.
pub fn is_error(line: &[u8]) -> bool {
    line.starts_with(b"ERROR")
        || line.starts_with(b"SERVER_ERROR")
        || line.starts_with(b"CLIENT_ERROR")
}

/// What a line means where a reply may be missing: then `MN` stands alone, else behind it.
fn kind(shape: Shape, line: &[u8], first: bool) -> Result<LineKind, &'static str> {
    if shape != Shape::MetaArithmeticOrNone {
        return classify(shape, line);
    }
    if !first || line == b"MN" {
        return classify(Shape::MetaNoop, line);
    }
    Ok(match classify(Shape::MetaArithmetic, line)? {
        LineKind::Block(length, _) => LineKind::Block(length, After::More),
        _ => LineKind::More,
    })
}

fn classify(shape: Shape, line: &[u8]) -> Result<LineKind, &'static str> {
    if is_error(line) {
        return error_line(shape, line);
    }
    let first = Words::new(line).next().unwrap_or_default();
    let last = match shape {
        Shape::Values if first == b"VALUE" => {
            return block(ValueLine::read(line).map(|value| value.length), After::More);
        }
        Shape::Stats if first == b"STAT" => return Ok(LineKind::More),
        Shape::MetaGet | Shape::MetaArithmetic if first == b"VA" => {
            return block(value_length(line), After::Last);
        }
        Shape::Values => line == b"END",
        // `stats reset` and its kin answer one word.
        Shape::Stats => matches!(line, b"END" | b"OK" | b"RESET"),
        Shape::Storage => {
            matches!(line, b"STORED" | b"NOT_STORED" | b"EXISTS" | b"NOT_FOUND")
        }
        Shape::Delete => matches!(line, b"DELETED" | b"NOT_FOUND"),
        Shape::Touch => matches!(line, b"TOUCHED" | b"NOT_FOUND"),
        Shape::Arithmetic => {
            line == b"NOT_FOUND" || (!line.is_empty() && line.iter().all(u8::is_ascii_digit))
        }
        Shape::Ok => line == b"OK",
        Shape::Version => first == b"VERSION",
        Shape::MetaGet => matches!(first, b"HD" | b"OK" | b"EN"),
        Shape::MetaSet => matches!(first, b"HD" | b"OK" | b"NS" | b"EX" | b"NF"),
        Shape::MetaDelete => matches!(first, b"HD" | b"OK" | b"EX" | b"NF"),
        Shape::MetaArithmetic | Shape::MetaArithmeticOrNone => {
            matches!(first, b"HD" | b"OK" | b"NS" | b"EX" | b"NF")
        }
        Shape::MetaDebug => matches!(first, b"ME" | b"EN"),
        Shape::MetaNoop => line == b"MN",
    };
    if last {
        Ok(LineKind::Last)
    } else {
        Err("a line answers another kind of command")
    }
}

fn block(length: Option<usize>, after: After) -> Result<LineKind, &'static str> {
    Ok(LineKind::Block(
        length.ok_or("a data block has no length")?,
        after,
    ))
}

/// A plain number that fits; servers write no other.
fn plain(word: &[u8]) -> Option<u32> {
    unsigned_32(word)
        .filter(|number| number.plain)
        .map(|number| number.value)
}

/// The length that a `VA` line tells.
fn value_length(line: &[u8]) -> Option<usize> {
    usize::try_from(plain(Words::new(line).nth(1)?)?).ok()
}

/// What a `VALUE` line tells of the block behind it.
struct ValueLine<'a> {
    key: &'a [u8],
    flags: u32,
    length: usize,
    cas: Option<u64>,
}

impl<'a> ValueLine<'a> {
    fn read(line: &'a [u8]) -> Option<Self> {
        let mut words = Words::new(line.strip_prefix(b"VALUE ")?);
        let key = words.next()?;
        let flags = plain(words.next()?)?;
        let length = usize::try_from(plain(words.next()?)?).ok()?;
        let cas = match words.next() {
            Some(word) => Some(unsigned_64(word)?.value),
            None => None,
        };
        Some(Self {
            key,
            flags,
            length,
            cas,
        })
    }
}

/// A server that refuses a storage command's line takes its data block for the next command, and
/// answers that, too. Only refusals after which memcached swallows the block leave it in step.
fn error_line(shape: Shape, line: &[u8]) -> Result<LineKind, &'static str> {
    let in_step = match shape {
        Shape::Storage => line.starts_with(b"SERVER_ERROR") || line.ends_with(b"bad data chunk"),
        Shape::MetaSet => !line.starts_with(b"ERROR"),
        _ => true,
    };
    if in_step {
        Ok(LineKind::Last)
    } else {
        Err("a storage command that was checked is refused")
    }
}

/// One `VALUE` block of a retrieval's reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueBlock<'a> {
    /// The item's key.
    pub key: &'a [u8],
    /// The client's flags.
    pub flags: u32,
    /// The CAS token, if it was asked for.
    pub cas: Option<u64>,
    /// The value.
    pub data: &'a [u8],
    /// The whole block: line, value and line ends.
    pub whole: &'a [u8],
}

/// The `VALUE` blocks of a whole retrieval reply, up to its last line.
#[derive(Clone, Debug)]
pub struct Values<'a> {
    rest: &'a [u8],
}

impl<'a> Values<'a> {
    /// Walks over a reply that `ReplyScanner` found complete.
    pub fn new(reply: &'a [u8]) -> Self {
        Self { rest: reply }
    }

    /// What is left: after the last block, the line that ends the reply.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = ValueBlock<'a>;

    fn next(&mut self) -> Option<ValueBlock<'a>> {
        let newline = memchr(b'\n', self.rest)?;
        let (line, after) = self.rest.split_at_checked(newline + 1)?;
        let ValueLine {
            key,
            flags,
            length,
            cas,
        } = ValueLine::read(line.strip_suffix(b"\r\n")?)?;
        let data = after.get(..length)?;
        let (whole, rest) = self.rest.split_at_checked(line.len() + length + 2)?;
        self.rest = rest;
        Some(ValueBlock {
            key,
            flags,
            cas,
            data,
            whole,
        })
    }
}

/// A whole meta reply, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetaReply<'a> {
    /// The return code: `HD`, `VA`, `EN`, `NF`, `NS`, `EX`.
    pub code: &'a [u8],
    /// The value, if the code is `VA`.
    pub value: Option<&'a [u8]>,
    flags: &'a [u8],
}

impl<'a> MetaReply<'a> {
    /// Takes apart a reply that `ReplyScanner` found complete.
    pub fn new(reply: &'a [u8]) -> Option<Self> {
        let newline = memchr(b'\n', reply)?;
        let (line, block) = reply.split_at_checked(newline + 1)?;
        let mut words = Words::new(line.strip_suffix(b"\r\n")?);
        let code = words.next()?;
        if code != b"VA" {
            return Some(Self {
                code,
                value: None,
                flags: words.rest(),
            });
        }
        let length = usize::try_from(plain(words.next()?)?).ok()?;
        Some(Self {
            code,
            value: Some(block.get(..length)?),
            flags: words.rest(),
        })
    }

    /// What stands behind a returned flag's letter, if it was returned.
    pub fn flag(&self, letter: u8) -> Option<&'a [u8]> {
        Words::new(self.flags).find_map(|flag| {
            let (first, argument) = flag.split_first()?;
            (*first == letter).then_some(argument)
        })
    }
}
