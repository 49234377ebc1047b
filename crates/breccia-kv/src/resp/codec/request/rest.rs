//! The rest of a request that is passed on before it is whole: where it ends.
//!
//! Not the passing itself. Invariant: it is framed as strictly as what is collected, and nothing of it
//! is kept here but how much still has to come.

use super::{ProtocolError, RequestLimits, RequestParser, bulk_header};

/// An argument whose header has come, and whose end has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// How many arguments there are, this one and those after it included.
    pub count: usize,
    /// Where its bytes begin.
    pub start: usize,
    /// How many they are.
    pub length: usize,
}

impl Pending {
    /// How large the request is at least, in bytes.
    #[must_use]
    pub fn request_size(&self) -> usize {
        self.start + self.length + 2
    }
}

impl RequestParser {
    /// The argument that has not come whole, after [`Self::parse`] has said so of the request.
    #[must_use]
    pub fn pending(&self, bytes: &[u8]) -> Option<Pending> {
        let left = self.left.filter(|left| *left > 0)?;
        let (length, start) = bulk_header(bytes, self.at).ok()??;
        Some(Pending {
            count: self.arguments.len() + left,
            start,
            length,
        })
    }
}

/// The rest of a request, from the bytes of an argument on.
#[derive(Clone, Copy, Debug)]
pub struct Rest {
    /// Bytes that still have to come of the present argument, its end included.
    argument: usize,
    /// Arguments after it.
    arguments: usize,
    /// Bytes of the request up to the end of the present argument.
    size: usize,
}

/// What a look at more of the rest says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// This many bytes more belong to it.
    pub count: usize,
    /// Whether it ends there.
    pub ended: bool,
}

impl Rest {
    /// What follows after the header of the pending argument, of which `index` stand before it.
    #[must_use]
    pub fn after(pending: &Pending, index: usize) -> Self {
        Self {
            argument: pending.length + 2,
            arguments: pending.count - index - 1,
            size: pending.request_size(),
        }
    }

    /// Goes on. `bytes` begin where the part before ended.
    ///
    /// # Errors
    /// When they cannot be the rest of a request.
    pub fn pass(&mut self, bytes: &[u8], limits: &RequestLimits) -> Result<Passed, ProtocolError> {
        let mut at = 0;
        loop {
            if self.argument > 0 {
                at += self.pass_argument(bytes.get(at..).unwrap_or_default())?;
            }
            if self.argument > 0 || self.arguments == 0 {
                break;
            }
            let Some((length, start)) = bulk_header(bytes, at)? else {
                break;
            };
            self.size += start - at + length + 2;
            if self.size > limits.max_request_size {
                return Err(ProtocolError::LargeRequest {
                    limit: limits.max_request_size,
                });
            }
            self.argument = length + 2;
            self.arguments -= 1;
            at = start;
        }
        Ok(Passed {
            count: at,
            ended: self.argument == 0 && self.arguments == 0,
        })
    }

    /// As many bytes of the present argument as there are; its last two must be CR LF.
    fn pass_argument(&mut self, bytes: &[u8]) -> Result<usize, ProtocolError> {
        let count = self.argument.min(bytes.len());
        let data = self.argument.saturating_sub(2).min(count);
        let end: &[u8] = if self.argument == 1 { b"\n" } else { b"\r\n" };
        if !end.starts_with(bytes.get(data..count).unwrap_or_default()) {
            return Err(ProtocolError::MissingEnd);
        }
        self.argument -= count;
        Ok(count)
    }
}
