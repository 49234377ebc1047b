//! Bodies on their way into a store and out of one.
//!
//! Not buffers: at most one chunk is held here. Invariant: a [`Body`] ends cleanly only after its
//! size and every digest that was announced have been found right, so whoever publishes an object
//! after the clean end publishes what the client meant.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use md5::{Digest as _, Md5};

use crate::checksum::{Algorithm, Checksum, Hasher};
use crate::error::{BlobError, BodyFault};

/// The size of chunks that stores read and sources should give, in bytes.
pub const CHUNK_BYTES: usize = 64 * 1024;

/// The answer to [`ByteSource::next`].
pub type NextChunk<'a> =
    Pin<Box<dyn Future<Output = Option<Result<Bytes, BlobError>>> + Send + 'a>>;

/// Where bytes come from, chunk by chunk. Dropping it before the end cancels whatever feeds it.
pub trait ByteSource: Send {
    /// The next chunk, not empty; `None` at the clean end. After an error nothing more is asked.
    fn next(&mut self) -> NextChunk<'_>;

    /// Checksums that came behind the bytes; asked once, after the clean end.
    fn trailing_checksums(&mut self) -> Vec<Checksum> {
        Vec::new()
    }
}

/// A source of bytes that are at hand.
#[derive(Debug)]
pub struct Whole(Option<Bytes>);

impl Whole {
    /// Gives these bytes, in one chunk.
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        Self((!bytes.is_empty()).then_some(bytes))
    }
}

impl ByteSource for Whole {
    fn next(&mut self) -> NextChunk<'_> {
        let chunk = self.0.take();
        Box::pin(async move { chunk.map(Ok) })
    }
}

/// What is known of a body that has been read to its clean end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digests {
    /// The MD5, from which an `ETag` is made.
    pub md5: [u8; 16],
    /// The checksum that was announced or asked for, if any.
    pub checksum: Option<Checksum>,
}

/// A body on its way into a store, checked as it passes.
pub struct Body {
    source: Box<dyn ByteSource>,
    size: u64,
    seen: u64,
    md5: Md5,
    hasher: Option<Hasher>,
    expected_md5: Option<[u8; 16]>,
    expected: Option<Checksum>,
    sha256: Option<(Hasher, [u8; 32])>,
    digests: Option<Digests>,
}

impl fmt::Debug for Body {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Body")
            .field("size", &self.size)
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

impl Body {
    /// A body of exactly `size` bytes.
    #[must_use]
    pub fn new(source: Box<dyn ByteSource>, size: u64) -> Self {
        Self {
            source,
            size,
            seen: 0,
            md5: Md5::new(),
            hasher: None,
            expected_md5: None,
            expected: None,
            sha256: None,
            digests: None,
        }
    }

    /// A body of bytes at hand.
    #[must_use]
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Self::new(Box::new(Whole::new(bytes)), size)
    }

    /// The MD5 the body must have (`Content-MD5`).
    #[must_use]
    pub fn expect_md5(mut self, md5: [u8; 16]) -> Self {
        self.expected_md5 = Some(md5);
        self
    }

    /// The SHA-256 the body must have (`x-amz-content-sha256`).
    #[must_use]
    pub fn expect_sha256(mut self, sha256: [u8; 32]) -> Self {
        self.sha256 = Some((Hasher::new(Algorithm::Sha256), sha256));
        self
    }

    /// The checksum the body must have (`x-amz-checksum-*`).
    #[must_use]
    pub fn expect(mut self, checksum: Checksum) -> Self {
        self.hasher = Some(Hasher::new(checksum.algorithm));
        self.expected = Some(checksum);
        self
    }

    /// A checksum to compute; one that comes behind the bytes is compared with it.
    #[must_use]
    pub fn compute(mut self, algorithm: Algorithm) -> Self {
        self.hasher = Some(Hasher::new(algorithm));
        self
    }

    /// How many bytes it has in all.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The checksum that was announced before the bytes, if any: a store may pass it on.
    #[must_use]
    pub fn announced(&self) -> Option<&Checksum> {
        self.expected.as_ref()
    }

    /// What was computed; present after the clean end.
    #[must_use]
    pub fn digests(&self) -> Option<&Digests> {
        self.digests.as_ref()
    }

    /// The next chunk; `None` after the clean end, when everything has been found right.
    pub async fn next(&mut self) -> Option<Result<Bytes, BlobError>> {
        if self.digests.is_some() {
            return None;
        }
        match self.source.next().await {
            Some(Ok(chunk)) => Some(self.take_in(chunk)),
            Some(Err(error)) => Some(Err(error)),
            None => match self.conclude() {
                Ok(digests) => {
                    self.digests = Some(digests);
                    None
                }
                Err(fault) => Some(Err(BlobError::Body { fault })),
            },
        }
    }

    /// Reads what is left and gives it as one: for bodies known to be small.
    ///
    /// # Errors
    /// Those of [`Body::next`].
    pub async fn collect(&mut self) -> Result<Bytes, BlobError> {
        let mut first: Option<Bytes> = None;
        let mut rest: Vec<u8> = Vec::new();
        while let Some(chunk) = self.next().await {
            let chunk = chunk?;
            match &first {
                None => first = Some(chunk),
                Some(head) => {
                    if rest.is_empty() {
                        rest.extend_from_slice(head);
                    }
                    rest.extend_from_slice(&chunk);
                }
            }
        }
        Ok(if rest.is_empty() {
            first.unwrap_or_default()
        } else {
            rest.into()
        })
    }

    fn take_in(&mut self, chunk: Bytes) -> Result<Bytes, BlobError> {
        self.seen = self.seen.saturating_add(chunk.len() as u64);
        if self.seen > self.size {
            let fault = BodyFault::TooLong {
                expected: self.size,
            };
            return Err(BlobError::Body { fault });
        }
        self.md5.update(&chunk);
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&chunk);
        }
        if let Some((hasher, _)) = &mut self.sha256 {
            hasher.update(&chunk);
        }
        Ok(chunk)
    }

    fn conclude(&mut self) -> Result<Digests, BodyFault> {
        if self.seen != self.size {
            return Err(BodyFault::TooShort {
                expected: self.size,
                got: self.seen,
            });
        }
        let md5: [u8; 16] = std::mem::replace(&mut self.md5, Md5::new())
            .finalize()
            .into();
        if self.expected_md5.is_some_and(|expected| expected != md5) {
            return Err(BodyFault::Md5);
        }
        if let Some((hasher, expected)) = self.sha256.take()
            && hasher.finish() != expected
        {
            return Err(BodyFault::Sha256);
        }
        let trailing = self.source.trailing_checksums();
        let computed = self.hasher.take().map(|hasher| {
            let algorithm = hasher.algorithm();
            Checksum::full(algorithm, hasher.finish())
        });
        for expected in self.expected.iter().chain(&trailing) {
            let algorithm = expected.algorithm;
            if computed
                .as_ref()
                .is_none_or(|found| found.algorithm != algorithm || found.value != expected.value)
            {
                return Err(BodyFault::Checksum { algorithm });
            }
        }
        Ok(Digests {
            md5,
            checksum: computed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum;

    async fn drain(mut body: Body) -> Result<Option<Digests>, BlobError> {
        while let Some(chunk) = body.next().await {
            chunk?;
        }
        Ok(body.digests().cloned())
    }

    #[tokio::test]
    async fn a_body_ends_cleanly_only_if_everything_announced_is_right() {
        let good = || Body::from_bytes("123456789");
        let md5 = checksum::md5(b"123456789");
        let crc = Checksum::full(Algorithm::Crc32c, 0xe306_9283_u32.to_be_bytes().to_vec());
        let digests = drain(good().expect_md5(md5).expect(crc.clone())).await;
        let digests = digests.expect("all is right").expect("digests");
        assert_eq!((digests.md5, digests.checksum), (md5, Some(crc.clone())));
        let mut wrong = crc;
        wrong.value[0] ^= 1;
        let check = async |body: Body, expected: BodyFault| {
            let error = drain(body).await.expect_err("something is wrong");
            assert!(
                matches!(&error, BlobError::Body { fault } if *fault == expected),
                "{error:?}"
            );
        };
        check(good().expect_md5([0; 16]), BodyFault::Md5).await;
        check(good().expect_sha256([0; 32]), BodyFault::Sha256).await;
        let algorithm = Algorithm::Crc32c;
        check(good().expect(wrong), BodyFault::Checksum { algorithm }).await;
        let source = || Box::new(Whole::new(Bytes::from_static(b"123456789")));
        check(Body::new(source(), 8), BodyFault::TooLong { expected: 8 }).await;
        let short = BodyFault::TooShort {
            expected: 10,
            got: 9,
        };
        check(Body::new(source(), 10), short).await;
    }
}
