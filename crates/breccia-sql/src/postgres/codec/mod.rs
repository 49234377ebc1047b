//! Frames of PostgreSQL's protocol 3.0: bytes in, frames out.
//!
//! Not a connection. Sources: PostgreSQL's manual, chapters "Message Flow" and "Message Formats".
//! Invariant: a frame is told by its five-byte head alone; "not all there yet" is `Ok(None)`, and a
//! length that cannot be is an error.

pub mod message;
pub mod startup;

use thiserror::Error;

/// Tag and length: what every frame but the first begins with.
pub const HEAD_BYTES: usize = 5;

/// The largest frame, as PostgreSQL itself has it: what its head says is less than 1 GiB, and the
/// type's byte is not counted there.
pub const MAX_FRAME_BYTES: usize = 1 << 30;

/// What is wrong with bytes of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CodecError {
    /// A length that no frame has.
    #[error("a message of type {tag:?} claims {length} bytes")]
    Length {
        /// The frame's type.
        tag: char,
        /// What its head says.
        length: u32,
    },
    /// A frame whose inside does not fit its type.
    #[error("a message of type {tag:?} is malformed")]
    Malformed {
        /// The frame's type.
        tag: char,
    },
    /// A first packet that is none.
    #[error("the start-up packet is malformed")]
    Startup,
    /// A protocol this is not.
    #[error("protocol {major}.{minor} is not spoken here; 3.0 is")]
    Version {
        /// The number before the point.
        major: u16,
        /// The number after it.
        minor: u16,
    },
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The type.
    pub tag: u8,
    /// Bytes of the whole frame, head included.
    pub length: usize,
}

/// The head of the frame that `bytes` begin with; `None` if it is not all there.
#[inline]
pub fn head(bytes: &[u8]) -> Result<Option<Head>, CodecError> {
    let Some((&[tag, a, b, c, d], _)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
        return Ok(None);
    };
    let claimed = u32::from_be_bytes([a, b, c, d]);
    let length = claimed as usize + 1;
    if claimed < 4 || length > MAX_FRAME_BYTES {
        return Err(CodecError::Length {
            tag: char::from(tag),
            length: claimed,
        });
    }
    Ok(Some(Head { tag, length }))
}

/// The body of a whole frame.
#[inline]
#[must_use]
pub fn body(frame: &[u8]) -> &[u8] {
    frame.get(HEAD_BYTES..).unwrap_or_default()
}

/// Splits a string that ends with a zero byte from what follows it.
#[inline]
#[must_use]
pub fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(0, bytes)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

/// Splits a 16-bit number from what follows it.
#[must_use]
pub fn int16(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*number), rest))
}

/// Splits a 32-bit number from what follows it.
#[must_use]
pub fn int32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*number), rest))
}

/// A `Parse`: the statement's name, its text, and the types of its parameters as they stand in the
/// frame (a count and that many numbers).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parse<'a> {
    /// Empty for the unnamed statement.
    pub name: &'a [u8],
    /// The text.
    pub sql: &'a [u8],
    /// The rest of the frame.
    pub types: &'a [u8],
}

/// Reads the body of a `Parse`.
pub fn parse(body: &[u8]) -> Result<Parse<'_>, CodecError> {
    let read = || {
        let (name, rest) = text(body)?;
        let (sql, types) = text(rest)?;
        let (count, oids) = int16(types)?;
        (oids.len() == usize::from(count) * 4).then_some(Parse { name, sql, types })
    };
    read().ok_or(CodecError::Malformed { tag: 'P' })
}

/// The names a `Bind` begins with, and the rest of what is given of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bind<'a> {
    /// The portal; empty for the unnamed one.
    pub portal: &'a [u8],
    /// The statement; empty for the unnamed one.
    pub statement: &'a [u8],
    /// What follows.
    pub rest: &'a [u8],
}

/// Reads the beginning of a `Bind`'s body.
pub fn bind(body: &[u8]) -> Result<Bind<'_>, CodecError> {
    let read = || {
        let (portal, rest) = text(body)?;
        let (statement, rest) = text(rest)?;
        Some(Bind {
            portal,
            statement,
            rest,
        })
    };
    read().ok_or(CodecError::Malformed { tag: 'B' })
}

/// Of what follows the names in a `Bind`: how many values it holds, and the formats of results.
pub fn bound(rest: &[u8]) -> Result<(u16, Vec<u16>), CodecError> {
    let read = || {
        let (formats, rest) = int16(rest)?;
        let rest = rest.get(usize::from(formats) * 2..)?;
        let (values, mut rest) = int16(rest)?;
        for _ in 0..values {
            let (length, value) = int32(rest)?;
            // All bits set: NULL.
            let length = if length == u32::MAX {
                0
            } else {
                length as usize
            };
            rest = value.get(length..)?;
        }
        let (count, mut rest) = int16(rest)?;
        let mut results = Vec::new();
        for _ in 0..count {
            let (format, more) = int16(rest)?;
            results.push(format);
            rest = more;
        }
        rest.is_empty().then_some((values, results))
    };
    read().ok_or(CodecError::Malformed { tag: 'B' })
}

/// The kind (`S` or `P`) and the name in the body of a `Describe` or `Close`.
pub fn named(tag: u8, body: &[u8]) -> Result<(u8, &[u8]), CodecError> {
    let read = || {
        let (&kind, rest) = body.split_first()?;
        let (name, rest) = text(rest)?;
        (rest.is_empty() && matches!(kind, b'S' | b'P')).then_some((kind, name))
    };
    read().ok_or(CodecError::Malformed {
        tag: char::from(tag),
    })
}

/// The one string of a `Query`'s body.
pub fn query(body: &[u8]) -> Result<&[u8], CodecError> {
    match text(body) {
        Some((sql, [])) => Ok(sql),
        _ => Err(CodecError::Malformed { tag: 'Q' }),
    }
}

/// Name and value in the body of a `ParameterStatus`.
#[must_use]
pub fn parameter(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, rest) = text(body)?;
    let (value, _) = text(rest)?;
    Some((name, value))
}

/// A field of the body of an `ErrorResponse`, such as `b'C'` for its SQLSTATE.
#[must_use]
pub fn field(mut body: &[u8], wanted: u8) -> Option<&[u8]> {
    loop {
        let (&kind, rest) = body.split_first()?;
        if kind == 0 {
            return None;
        }
        let (value, rest) = text(rest)?;
        if kind == wanted {
            return Some(value);
        }
        body = rest;
    }
}

#[cfg(test)]
mod tests;
