//! Reading a chunked body.
//!
//! Invariant: what is kept between two calls is one line at most, and the declared trailers.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use ring::digest;

use super::{
    ChunkError, ChunkSigner, MOST_HEADER_LINE_BYTES, MOST_TRAILER_LINE_BYTES, MOST_TRAILERS,
    TRAILER_SIGNATURE,
};
use crate::s3::codec::hex;
use crate::s3::codec::sigv4::Signature;

/// What a body holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Bytes of the object. Not to be believed before `End`.
    Data(Bytes),
    /// A trailer; its name is in lower case. Signed ones were verified.
    Trailer {
        /// Its name.
        name: String,
        /// Its value, trimmed.
        value: String,
    },
    /// The body is whole, and everything that signs it matched.
    End,
}

#[derive(Debug)]
enum State {
    /// A chunk's first line.
    Header,
    /// So many bytes of the chunk are to come.
    Data(u64),
    /// The line end behind a chunk's data.
    DataEnd,
    /// A trailer's line, or the empty one that ends the body.
    Trailer,
    /// Whole, but events wait to be taken.
    Ending,
    /// `End` was returned.
    Done,
}

/// Reads an aws-chunked body, cut in any way.
///
/// The data of a signed chunk is returned as it arrives, while it is hashed, and a wrong signature is
/// reported at the end of that chunk: a chunk may be many MiB long and is not held in memory. So
/// **whoever calls must publish nothing before [`Event::End`]**. After an error the decoder is of no
/// further use.
pub struct Decoder {
    signer: Option<ChunkSigner>,
    declared: Vec<String>,
    length: u64,
    left: u64,
    chunks: u64,
    state: State,
    line: Vec<u8>,
    hash: digest::Context,
    signature: Signature,
    trailers: Vec<(String, String)>,
    trailer_signature: Option<Signature>,
    waiting: VecDeque<Event>,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Decoder")
            .field("state", &self.state)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

impl Decoder {
    /// For a body of `decoded_length` bytes (`x-amz-decoded-content-length`), with the trailers that
    /// `x-amz-trailer` names. Without a signer, signatures that come all the same are passed over: so
    /// reads a listener that lets everybody in.
    pub fn new<'a>(
        signer: Option<ChunkSigner>,
        decoded_length: u64,
        trailers: impl IntoIterator<Item = &'a str>,
    ) -> Result<Decoder, ChunkError> {
        let mut declared: Vec<String> = Vec::new();
        for name in trailers {
            if declared.len() == MOST_TRAILERS {
                return Err(ChunkError::TooManyTrailers);
            }
            declared.push(name.trim().to_ascii_lowercase());
        }
        Ok(Decoder {
            signer,
            declared,
            length: decoded_length,
            left: decoded_length,
            chunks: 0,
            state: State::Header,
            line: Vec::new(),
            hash: digest::Context::new(&digest::SHA256),
            signature: [0; 32],
            trailers: Vec::new(),
            trailer_signature: None,
            waiting: VecDeque::new(),
        })
    }

    /// Takes from `input` up to the next event; none: all of it was taken, and more is needed.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Event>, ChunkError> {
        loop {
            match self.state {
                State::Header => {
                    let Some(line) = self.line(input, MOST_HEADER_LINE_BYTES)? else {
                        return Ok(None);
                    };
                    self.begin_chunk(&line)?;
                }
                State::Data(0) => self.end_chunk()?,
                State::Data(left) => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    return Ok(Some(Event::Data(self.data(left, input))));
                }
                State::DataEnd => {
                    let Some(line) = self.line(input, 2)? else {
                        return Ok(None);
                    };
                    if !line.is_empty() {
                        return Err(malformed("a chunk is longer than its size"));
                    }
                    self.state = State::Header;
                }
                State::Trailer => {
                    let Some(line) = self.line(input, MOST_TRAILER_LINE_BYTES)? else {
                        return Ok(None);
                    };
                    self.trailer(&line)?;
                }
                State::Ending => {
                    if let Some(event) = self.waiting.pop_front() {
                        return Ok(Some(event));
                    }
                    self.state = State::Done;
                    return Ok(Some(Event::End));
                }
                State::Done if input.is_empty() => return Ok(None),
                State::Done => return Err(ChunkError::Extra),
            }
        }
    }

    /// The body is over: an error unless `End` was returned.
    pub fn finish(&self) -> Result<(), ChunkError> {
        match self.state {
            State::Done => Ok(()),
            _ => Err(ChunkError::Incomplete),
        }
    }

    /// A whole line without its end. Only `\r\n` ends one.
    fn line(&mut self, input: &mut Bytes, limit: usize) -> Result<Option<Vec<u8>>, ChunkError> {
        let end = memchr::memchr(b'\n', input);
        let taken = end.map_or(input.len(), |end| end + 1);
        let too_long = ChunkError::LineTooLong { limit };
        if self.line.len().saturating_add(taken) > limit {
            return Err(match self.state {
                State::DataEnd => malformed("a chunk is longer than its size"),
                _ => too_long,
            });
        }
        self.line.extend_from_slice(&input.split_to(taken));
        if end.is_none() {
            return Ok(None);
        }
        let mut line = std::mem::take(&mut self.line);
        line.pop();
        if line.pop() == Some(b'\r') {
            Ok(Some(line))
        } else {
            Err(malformed("a line does not end with CR LF"))
        }
    }

    fn begin_chunk(&mut self, line: &[u8]) -> Result<(), ChunkError> {
        let text = std::str::from_utf8(line).map_err(|_| malformed("a size is not a number"))?;
        let size = if self.signer.is_some() {
            let (size, signature) = text
                .split_once(";chunk-signature=")
                .ok_or(malformed("a chunk has no signature"))?;
            self.signature = hex::decode(signature.as_bytes())
                .ok_or(malformed("a chunk's signature is not 64 digits"))?;
            size
        } else {
            text.split_once(";chunk-signature=")
                .map_or(text, |(size, _)| size)
        };
        let digits = !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_hexdigit());
        let size = u64::from_str_radix(size, 16)
            .ok()
            .filter(|_| digits)
            .ok_or(malformed("a size is not a number"))?;
        self.left = self.left.checked_sub(size).ok_or(ChunkError::Length {
            declared: self.length,
        })?;
        self.chunks += 1;
        if size == 0 {
            self.end_signature()?;
            if self.left > 0 {
                return Err(ChunkError::Length {
                    declared: self.length,
                });
            }
            self.state = State::Trailer;
        } else {
            self.state = State::Data(size);
        }
        Ok(())
    }

    fn data(&mut self, left: u64, input: &mut Bytes) -> Bytes {
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        let data = input.split_to(input.remaining().min(most));
        if self.signer.is_some() {
            self.hash.update(&data);
        }
        // No more than `left` was taken.
        let taken = u64::try_from(data.len()).unwrap_or(left);
        self.state = State::Data(left.saturating_sub(taken));
        data
    }

    fn end_chunk(&mut self) -> Result<(), ChunkError> {
        self.end_signature()?;
        self.state = State::DataEnd;
        Ok(())
    }

    fn end_signature(&mut self) -> Result<(), ChunkError> {
        let Some(signer) = &mut self.signer else {
            return Ok(());
        };
        let fresh = digest::Context::new(&digest::SHA256);
        let hash = std::mem::replace(&mut self.hash, fresh).finish();
        if signer.chunk_matches(&hash, &self.signature) {
            Ok(())
        } else {
            Err(ChunkError::ChunkSignature { chunk: self.chunks })
        }
    }

    fn trailer(&mut self, line: &[u8]) -> Result<(), ChunkError> {
        let text = std::str::from_utf8(line).map_err(|_| malformed("a trailer is not UTF-8"))?;
        if text.is_empty() {
            return self.end_trailers();
        }
        let (name, value) = text
            .split_once(':')
            .ok_or(malformed("a trailer has no value"))?;
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim().to_owned());
        if name == TRAILER_SIGNATURE && self.signer.is_none() {
            return Ok(());
        }
        if name == TRAILER_SIGNATURE {
            let signature = hex::decode(value.as_bytes()).ok_or(ChunkError::TrailerSignature)?;
            if self.trailer_signature.replace(signature).is_some() {
                return Err(ChunkError::Trailer { name });
            }
            return Ok(());
        }
        let known = self.declared.contains(&name)
            && !self.trailers.iter().any(|(before, _)| *before == name);
        // The signature covers what stands before it.
        if !known || self.trailer_signature.is_some() {
            return Err(ChunkError::Trailer { name });
        }
        self.trailers.push((name, value));
        Ok(())
    }

    fn end_trailers(&mut self) -> Result<(), ChunkError> {
        for name in &self.declared {
            if !self.trailers.iter().any(|(came, _)| came == name) {
                return Err(ChunkError::TrailerMissing { name: name.clone() });
            }
        }
        if let Some(signer) = &self.signer
            && (!self.declared.is_empty() || self.trailer_signature.is_some())
        {
            let signature = self.trailer_signature.ok_or(ChunkError::TrailerSignature)?;
            if !signer.trailers_match(&canonical_trailers(&self.trailers), &signature) {
                return Err(ChunkError::TrailerSignature);
            }
        }
        let trailers = std::mem::take(&mut self.trailers).into_iter();
        self.waiting
            .extend(trailers.map(|(name, value)| Event::Trailer { name, value }));
        self.state = State::Ending;
        Ok(())
    }
}

fn malformed(what: &'static str) -> ChunkError {
    ChunkError::Malformed { what }
}

/// What the trailers' signature covers: one line each, in the order they came.
pub(super) fn canonical_trailers(trailers: &[(String, String)]) -> String {
    trailers
        .iter()
        .flat_map(|(name, value)| [name, ":", value, "\n"])
        .collect()
}
