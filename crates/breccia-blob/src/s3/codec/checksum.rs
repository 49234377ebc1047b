//! Checksums of objects: computed from bytes as they pass, and of wholes from those of their parts.
//!
//! It compares nothing and knows no body. Invariant: a checksum has exactly its algorithm's length,
//! also when it was read from a header.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crc_fast::CrcAlgorithm;
use md5::Md5;
use thiserror::Error;

/// How a checksum is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// CRC-32 as in zip (`CRC32`).
    Crc32,
    /// CRC-32 of Castagnoli (`CRC32C`).
    Crc32c,
    /// CRC-64 of NVM Express (`CRC64NVME`).
    Crc64Nvme,
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
    /// MD5: `Content-MD5`, and what `ETags` are made of; not one of the `x-amz-checksum` algorithms.
    Md5,
}

/// Whether a multipart object's checksum is over its bytes, or over its parts' checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChecksumType {
    /// `FULL_OBJECT`
    FullObject,
    /// `COMPOSITE`
    Composite,
}

/// Why there is no checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ChecksumError {
    /// Not base64, or not of the algorithm's length.
    #[error("not a {} checksum in base64", algorithm.name())]
    Value {
        /// The algorithm it was read for.
        algorithm: Algorithm,
    },
    /// A hash of the whole does not follow from hashes of the parts, or S3 defines no such composite.
    #[error("{} has no {} checksum of parts", algorithm.name(), checksum_type.name())]
    NotCombinable {
        /// The algorithm.
        algorithm: Algorithm,
        /// The type that was asked for.
        checksum_type: ChecksumType,
    },
}

impl ChecksumType {
    /// As in `x-amz-checksum-type`.
    pub fn name(self) -> &'static str {
        match self {
            ChecksumType::FullObject => "FULL_OBJECT",
            ChecksumType::Composite => "COMPOSITE",
        }
    }

    /// Reads `x-amz-checksum-type`.
    pub fn from_name(name: &str) -> Option<ChecksumType> {
        [ChecksumType::FullObject, ChecksumType::Composite]
            .into_iter()
            .find(|known| known.name() == name)
    }
}

impl Algorithm {
    /// The algorithms with an `x-amz-checksum` header.
    pub const HEADERS: [Algorithm; 5] = [
        Algorithm::Crc32,
        Algorithm::Crc32c,
        Algorithm::Crc64Nvme,
        Algorithm::Sha1,
        Algorithm::Sha256,
    ];

    /// As in `x-amz-checksum-algorithm`.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Crc32 => "CRC32",
            Algorithm::Crc32c => "CRC32C",
            Algorithm::Crc64Nvme => "CRC64NVME",
            Algorithm::Sha1 => "SHA1",
            Algorithm::Sha256 => "SHA256",
            Algorithm::Md5 => "MD5",
        }
    }

    /// Reads `x-amz-checksum-algorithm` or `x-amz-sdk-checksum-algorithm`. MD5 is not among them.
    pub fn from_name(name: &str) -> Option<Algorithm> {
        Algorithm::HEADERS
            .into_iter()
            .find(|known| known.name().eq_ignore_ascii_case(name))
    }

    /// The header, or trailer, that carries it.
    pub fn header(self) -> &'static str {
        match self {
            Algorithm::Crc32 => "x-amz-checksum-crc32",
            Algorithm::Crc32c => "x-amz-checksum-crc32c",
            Algorithm::Crc64Nvme => "x-amz-checksum-crc64nvme",
            Algorithm::Sha1 => "x-amz-checksum-sha1",
            Algorithm::Sha256 => "x-amz-checksum-sha256",
            Algorithm::Md5 => "content-md5",
        }
    }

    /// The algorithm of a header in lower case; also of `content-md5`.
    pub fn from_header(name: &str) -> Option<Algorithm> {
        Algorithm::HEADERS
            .into_iter()
            .chain([Algorithm::Md5])
            .find(|known| known.header() == name)
    }

    /// The element that carries it in XML.
    pub fn element(self) -> &'static str {
        match self {
            Algorithm::Crc32 => "ChecksumCRC32",
            Algorithm::Crc32c => "ChecksumCRC32C",
            Algorithm::Crc64Nvme => "ChecksumCRC64NVME",
            Algorithm::Sha1 => "ChecksumSHA1",
            Algorithm::Sha256 => "ChecksumSHA256",
            Algorithm::Md5 => "ChecksumMD5",
        }
    }

    /// Its length in bytes.
    pub fn length(self) -> usize {
        match self {
            Algorithm::Crc32 | Algorithm::Crc32c => 4,
            Algorithm::Crc64Nvme => 8,
            Algorithm::Sha1 => 20,
            Algorithm::Sha256 => 32,
            Algorithm::Md5 => 16,
        }
    }

    fn crc(self) -> Option<CrcAlgorithm> {
        match self {
            Algorithm::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
            Algorithm::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
            Algorithm::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
            Algorithm::Sha1 | Algorithm::Sha256 | Algorithm::Md5 => None,
        }
    }

    /// What S3 computes for a multipart object when the client does not say.
    pub fn default_type(self) -> ChecksumType {
        match self {
            Algorithm::Crc64Nvme => ChecksumType::FullObject,
            _ => ChecksumType::Composite,
        }
    }

    /// Whether S3 defines this type for a multipart object.
    pub fn allows(self, checksum_type: ChecksumType) -> bool {
        match checksum_type {
            ChecksumType::FullObject => self.crc().is_some(),
            ChecksumType::Composite => !matches!(self, Algorithm::Crc64Nvme | Algorithm::Md5),
        }
    }

    fn of(self, bytes: &[u8]) -> Vec<u8> {
        let mut hasher = Hasher::new(self);
        hasher.update(bytes);
        hasher.finish()
    }
}

/// A checksum being computed.
#[derive(Clone)]
pub struct Hasher {
    algorithm: Algorithm,
    state: State,
}

#[derive(Clone)]
enum State {
    Crc(crc_fast::Digest),
    Sha(ring::digest::Context),
    Md5(Md5),
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Hasher({})", self.algorithm.name())
    }
}

impl Hasher {
    /// A checksum of nothing yet.
    pub fn new(algorithm: Algorithm) -> Hasher {
        use ring::digest;
        let state = match algorithm {
            Algorithm::Crc32 => State::Crc(crc_fast::Digest::new(CrcAlgorithm::Crc32IsoHdlc)),
            Algorithm::Crc32c => State::Crc(crc_fast::Digest::new(CrcAlgorithm::Crc32Iscsi)),
            Algorithm::Crc64Nvme => State::Crc(crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme)),
            Algorithm::Sha1 => State::Sha(digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY)),
            Algorithm::Sha256 => State::Sha(digest::Context::new(&digest::SHA256)),
            Algorithm::Md5 => State::Md5(<Md5 as md5::Digest>::new()),
        };
        Hasher { algorithm, state }
    }

    /// Which one it is.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// More bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Crc(digest) => digest.update(bytes),
            State::Sha(context) => context.update(bytes),
            State::Md5(digest) => md5::Digest::update(digest, bytes),
        }
    }

    /// The checksum, [`Algorithm::length`] bytes.
    pub fn finish(self) -> Vec<u8> {
        match self.state {
            State::Crc(digest) => crc_bytes(self.algorithm, digest.finalize()),
            State::Sha(context) => context.finish().as_ref().to_vec(),
            State::Md5(digest) => md5::Digest::finalize(digest).to_vec(),
        }
    }
}

/// The checksum as headers and XML carry it.
pub fn to_base64(checksum: &[u8]) -> String {
    STANDARD.encode(checksum)
}

/// Reads a checksum as headers and XML carry it.
pub fn from_base64(algorithm: Algorithm, text: &str) -> Result<Vec<u8>, ChecksumError> {
    let wrong = ChecksumError::Value { algorithm };
    // The length is known before anything is decoded: 4 letters for 3 bytes.
    if text.len() != algorithm.length().div_ceil(3).saturating_mul(4) {
        return Err(wrong);
    }
    let bytes = STANDARD.decode(text).map_err(|_| wrong)?;
    if bytes.len() == algorithm.length() {
        Ok(bytes)
    } else {
        Err(wrong)
    }
}

/// Reads `base64-N`, the composite checksum of N parts.
pub fn from_composite(algorithm: Algorithm, text: &str) -> Result<(Vec<u8>, u32), ChecksumError> {
    let wrong = ChecksumError::Value { algorithm };
    let (value, count) = text.rsplit_once('-').ok_or(wrong)?;
    if count.is_empty() || !count.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong);
    }
    let count = count.parse().map_err(|_| wrong)?;
    Ok((from_base64(algorithm, value)?, count))
}

/// The checksum of the parts' checksums, as `base64-N`.
pub fn composite<'a>(
    algorithm: Algorithm,
    parts: impl IntoIterator<Item = &'a [u8]>,
) -> Result<String, ChecksumError> {
    if !algorithm.allows(ChecksumType::Composite) {
        return Err(ChecksumError::NotCombinable {
            algorithm,
            checksum_type: ChecksumType::Composite,
        });
    }
    let (mut hasher, mut count) = (Hasher::new(algorithm), 0_usize);
    for part in parts {
        if part.len() != algorithm.length() {
            return Err(ChecksumError::Value { algorithm });
        }
        hasher.update(part);
        count += 1;
    }
    Ok(format!("{}-{count}", to_base64(&hasher.finish())))
}

/// The checksum of the whole from those of its parts, each with the part's length in bytes. Only a
/// CRC can do that.
pub fn full_object<'a>(
    algorithm: Algorithm,
    parts: impl IntoIterator<Item = (&'a [u8], u64)>,
) -> Result<Vec<u8>, ChecksumError> {
    let crc = algorithm.crc().ok_or(ChecksumError::NotCombinable {
        algorithm,
        checksum_type: ChecksumType::FullObject,
    })?;
    let mut whole = crc_value(algorithm, &algorithm.of(b""))?;
    for (part, length) in parts {
        let part = crc_value(algorithm, part)?;
        // An empty part changes nothing.
        if length > 0 {
            whole = crc_fast::checksum_combine(crc, whole, part, length);
        }
    }
    Ok(crc_bytes(algorithm, whole))
}

fn crc_value(algorithm: Algorithm, bytes: &[u8]) -> Result<u64, ChecksumError> {
    if bytes.len() != algorithm.length() {
        return Err(ChecksumError::Value { algorithm });
    }
    Ok(bytes
        .iter()
        .fold(0, |value, byte| (value << 8) | u64::from(*byte)))
}

/// The last bytes of the number, most significant first.
fn crc_bytes(algorithm: Algorithm, value: u64) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let from = bytes.len().saturating_sub(algorithm.length());
    bytes.get(from..).unwrap_or_default().to_vec()
}

#[cfg(test)]
#[path = "checksum_tests.rs"]
mod tests;
