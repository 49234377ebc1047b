//! The checksums of objects: which there are, and computing them as bytes pass.
//!
//! Not who compares them: [`crate::body::Body`] does. Invariant: a checksum's value has the length
//! of its algorithm.

use std::fmt;

use crc_fast::{CrcAlgorithm, Digest as CrcDigest};
use md5::{Digest as _, Md5};
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

/// A checksum algorithm of S3's `x-amz-checksum-*` headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// CRC-32 (ISO-HDLC), four bytes, big endian.
    Crc32,
    /// CRC-32C (Castagnoli), four bytes, big endian.
    Crc32c,
    /// CRC-64/NVME, eight bytes, big endian.
    Crc64Nvme,
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: &[Self] = &[
        Self::Crc32,
        Self::Crc32c,
        Self::Crc64Nvme,
        Self::Sha1,
        Self::Sha256,
    ];

    /// The name in S3's headers and XML: `CRC32C`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64Nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }

    /// The algorithm of this name, whatever its case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let mut all = Self::ALL.iter().copied();
        all.find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
    }

    /// The header that carries it: `x-amz-checksum-crc32c`.
    #[must_use]
    pub fn header(self) -> &'static str {
        match self {
            Self::Crc32 => "x-amz-checksum-crc32",
            Self::Crc32c => "x-amz-checksum-crc32c",
            Self::Crc64Nvme => "x-amz-checksum-crc64nvme",
            Self::Sha1 => "x-amz-checksum-sha1",
            Self::Sha256 => "x-amz-checksum-sha256",
        }
    }

    /// How many bytes a value has.
    #[must_use]
    pub fn length(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme => 8,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Whether a checksum is of an object's bytes or of its parts' checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChecksumKind {
    /// Of all bytes of the object.
    FullObject,
    /// Of the checksums of its parts, in order; S3 writes `-N` behind it.
    Composite {
        /// How many parts.
        parts: u32,
    },
}

/// A checksum with its algorithm.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Checksum {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The raw value.
    pub value: Vec<u8>,
    /// What it is of.
    pub kind: ChecksumKind,
}

impl Checksum {
    /// A checksum of all bytes.
    #[must_use]
    pub fn full(algorithm: Algorithm, value: Vec<u8>) -> Self {
        Self {
            algorithm,
            value,
            kind: ChecksumKind::FullObject,
        }
    }
}

/// Computes a checksum as bytes pass.
pub enum Hasher {
    /// One of the CRCs.
    Crc(Algorithm, CrcDigest),
    /// SHA-1 or SHA-256.
    Sha(Algorithm, Context),
}

impl fmt::Debug for Hasher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Hasher({})", self.algorithm())
    }
}

impl Hasher {
    /// A hasher that has seen nothing.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Crc32 => Self::Crc(algorithm, CrcDigest::new(CrcAlgorithm::Crc32IsoHdlc)),
            Algorithm::Crc32c => Self::Crc(algorithm, CrcDigest::new(CrcAlgorithm::Crc32Iscsi)),
            Algorithm::Crc64Nvme => Self::Crc(algorithm, CrcDigest::new(CrcAlgorithm::Crc64Nvme)),
            Algorithm::Sha1 => Self::Sha(algorithm, Context::new(&SHA1_FOR_LEGACY_USE_ONLY)),
            Algorithm::Sha256 => Self::Sha(algorithm, Context::new(&SHA256)),
        }
    }

    /// What it computes.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Crc(algorithm, _) | Self::Sha(algorithm, _) => *algorithm,
        }
    }

    /// Takes in bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Crc(_, digest) => digest.update(bytes),
            Self::Sha(_, context) => context.update(bytes),
        }
    }

    /// The value, big endian.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        match self {
            Self::Crc(algorithm, digest) => {
                let value = digest.finalize().to_be_bytes();
                let skip = value.len().saturating_sub(algorithm.length());
                value.into_iter().skip(skip).collect()
            }
            Self::Sha(_, context) => context.finish().as_ref().to_vec(),
        }
    }
}

/// The checksum of bytes at hand.
#[must_use]
pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Vec<u8> {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(bytes);
    hasher.finish()
}

/// The MD5 of bytes at hand.
#[must_use]
pub fn md5(bytes: &[u8]) -> [u8; 16] {
    Md5::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_catalogues() {
        let check = |algorithm: Algorithm, expected: &[u8]| {
            assert_eq!(of(algorithm, b"123456789"), expected, "{algorithm}");
            assert_eq!(expected.len(), algorithm.length());
        };
        check(Algorithm::Crc32, &0xcbf4_3926_u32.to_be_bytes());
        check(Algorithm::Crc32c, &0xe306_9283_u32.to_be_bytes());
        check(
            Algorithm::Crc64Nvme,
            &0xae8b_1486_0a79_9888_u64.to_be_bytes(),
        );
    }

    #[test]
    fn names_and_headers_fit() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::from_name(algorithm.name()), Some(*algorithm));
            let name = algorithm.name().to_lowercase();
            assert_eq!(algorithm.header(), format!("x-amz-checksum-{name}"));
        }
    }
}
