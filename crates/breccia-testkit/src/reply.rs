//! A RESP reply taken apart, for tests that look inside or compare as sets.
//!
//! Not a codec for anything but whole, valid frames. Invariant: equal bytes give equal replies.

use anyhow::{Context, Result, bail, ensure};

/// One reply of RESP2 or RESP3.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reply {
    /// `+`
    Status(String),
    /// `-` or `!`
    Error(String),
    /// `:`
    Integer(i64),
    /// `$`, or `=` with its format.
    Bulk(Vec<u8>),
    /// `$-1`, `*-1` or `_`
    Nil,
    /// `*`
    Array(Vec<Reply>),
    /// `%` (pairs one after another)
    Map(Vec<Reply>),
    /// `~`
    Set(Vec<Reply>),
    /// `>`
    Push(Vec<Reply>),
    /// `,`
    Double(String),
    /// `#`
    Boolean(bool),
    /// `(`
    BigNumber(String),
}

impl Reply {
    /// Takes one whole frame apart.
    pub fn parse(frame: &[u8]) -> Result<Reply> {
        let (reply, rest) = parse(frame)?;
        ensure!(
            rest.is_empty(),
            "bytes after the reply: {}",
            rest.escape_ascii()
        );
        Ok(reply)
    }

    /// The elements of an array, set, map or push; none for anything else.
    pub fn elements(&self) -> &[Reply] {
        match self {
            Reply::Array(all) | Reply::Map(all) | Reply::Set(all) | Reply::Push(all) => all,
            _ => &[],
        }
    }

    /// The bytes of a bulk string or status.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Reply::Bulk(bytes) => Some(bytes),
            Reply::Status(text) => Some(text.as_bytes()),
            _ => None,
        }
    }

    /// The number of an integer reply.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Reply::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// The error's text.
    pub fn error(&self) -> Option<&str> {
        match self {
            Reply::Error(text) => Some(text),
            _ => None,
        }
    }

    /// The same with the elements of the outermost collection in sorted order; a map's pairs stay
    /// together.
    #[must_use]
    pub fn sorted(self) -> Reply {
        match self {
            Reply::Array(mut all) => {
                all.sort();
                Reply::Array(all)
            }
            Reply::Set(mut all) => {
                all.sort();
                Reply::Set(all)
            }
            Reply::Map(all) => {
                let mut pairs: Vec<Vec<Reply>> = all.chunks(2).map(<[Reply]>::to_vec).collect();
                pairs.sort();
                Reply::Map(pairs.concat())
            }
            other => other,
        }
    }

    /// The kinds alone, without values: what two answers of different content have in common.
    pub fn shape(&self) -> String {
        let kind = match self {
            Reply::Status(_) => "status",
            Reply::Error(_) => "error",
            Reply::Integer(_) => "integer",
            Reply::Bulk(_) => "bulk",
            Reply::Nil => "nil",
            Reply::Array(_) => "array",
            Reply::Map(_) => "map",
            Reply::Set(_) => "set",
            Reply::Push(_) => "push",
            Reply::Double(_) => "double",
            Reply::Boolean(_) => "boolean",
            Reply::BigNumber(_) => "big number",
        };
        let inner: Vec<String> = self.elements().iter().map(Reply::shape).collect();
        if inner.is_empty() {
            kind.to_owned()
        } else {
            format!("{kind}[{}]", inner.join(","))
        }
    }
}

fn parse(frame: &[u8]) -> Result<(Reply, &[u8])> {
    let end = frame
        .iter()
        .position(|&byte| byte == b'\n')
        .context("a frame without an end")?;
    let (line, rest) = frame.split_at(end + 1);
    let (&kind, text) = line.split_first().context("an empty line")?;
    let text = String::from_utf8_lossy(text)
        .trim_end_matches(['\r', '\n'])
        .to_owned();
    Ok(match kind {
        b'+' => (Reply::Status(text), rest),
        b'-' => (Reply::Error(text), rest),
        b':' => (Reply::Integer(text.parse()?), rest),
        b'_' => (Reply::Nil, rest),
        b',' => (Reply::Double(text), rest),
        b'#' => (Reply::Boolean(text == "t"), rest),
        b'(' => (Reply::BigNumber(text), rest),
        b'$' | b'=' | b'*' if text.starts_with('-') => (Reply::Nil, rest),
        b'$' | b'=' | b'!' => {
            let (body, rest) = rest
                .split_at_checked(text.parse()?)
                .context("a short string")?;
            let rest = rest.get(2..).context("a string without an end")?;
            let error = kind == b'!';
            let reply = if error {
                Reply::Error(String::from_utf8_lossy(body).into_owned())
            } else {
                Reply::Bulk(body.to_vec())
            };
            (reply, rest)
        }
        b'*' | b'~' | b'>' | b'%' => {
            let count = text.parse::<usize>()? * if kind == b'%' { 2 } else { 1 };
            let mut rest = rest;
            let mut all = Vec::new();
            for _ in 0..count {
                let (element, after) = parse(rest)?;
                all.push(element);
                rest = after;
            }
            let reply = match kind {
                b'*' => Reply::Array(all),
                b'~' => Reply::Set(all),
                b'>' => Reply::Push(all),
                _ => Reply::Map(all),
            };
            (reply, rest)
        }
        _ => bail!("not a reply: {}", line.escape_ascii()),
    })
}
