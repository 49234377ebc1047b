//! Object keys: any bytes, from one to [`MAX_KEY_BYTES`].
//!
//! Not how a member stores them: each backend encodes keys as it must, or refuses them by name.
//! Invariant: a key is never changed on its way, so two different keys are two objects everywhere.

use std::fmt;

use bytes::Bytes;

use crate::error::BlobError;

/// The longest key, in bytes, as S3 has it.
pub const MAX_KEY_BYTES: usize = 1024;

/// The name of an object. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

impl Key {
    /// A key of these bytes.
    ///
    /// # Errors
    /// [`BlobError::KeyEmpty`], [`BlobError::KeyTooLong`].
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, BlobError> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Err(BlobError::KeyEmpty);
        }
        if bytes.len() > MAX_KEY_BYTES {
            return Err(BlobError::KeyTooLong {
                length: bytes.len(),
            });
        }
        Ok(Self(bytes))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, shared.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        self.0.clone()
    }

    /// The key as text, if it is UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "\"{self}\"")
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_one_to_1024_bytes() {
        let check = |length: usize, good: bool| {
            assert_eq!(Key::new(vec![b'k'; length]).is_ok(), good, "{length}");
        };
        check(0, false);
        check(1, true);
        check(MAX_KEY_BYTES, true);
        check(MAX_KEY_BYTES + 1, false);
    }
}
