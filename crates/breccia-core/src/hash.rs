//! The hash functions a composite may place keys with, and hash tags.
//!
//! Not here: what becomes of a hash (see [`crate::layout`]).
//!
//! Invariant: a name means one function for ever. Its golden vectors are checked in below; a
//! function with other results gets another name.

use std::fmt;
use std::str::FromStr;

use crc::{CRC_16_XMODEM, CRC_32_ISO_HDLC, Crc, Table};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::CoreError;

static CRC16: Crc<u16, Table<16>> = Crc::<u16, Table<16>>::new(&CRC_16_XMODEM);
static CRC32: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISO_HDLC);

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// A hash function from key bytes to 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[non_exhaustive]
pub enum HashKind {
    /// XXH3, 64 bits, default secret, seed 0.
    #[default]
    Xxh3_64,
    /// FNV-1a in true 64-bit arithmetic over unsigned bytes (the textbook's).
    Fnv1a64,
    /// CRC-16/XMODEM, as Redis Cluster computes it (polynomial 0x1021, not reflected).
    Crc16Xmodem,
    /// CRC-32/ISO-HDLC, as in zlib and Ethernet (reflected).
    Crc32IsoHdlc,
    /// The first byte of the key; an empty key gives 0.
    FirstByte,
}

impl HashKind {
    /// Every function there is, in the order messages list them.
    pub const ALL: &[HashKind] = &[
        HashKind::Xxh3_64,
        HashKind::Fnv1a64,
        HashKind::Crc16Xmodem,
        HashKind::Crc32IsoHdlc,
        HashKind::FirstByte,
    ];

    /// The frozen name, as in a config.
    pub fn name(self) -> &'static str {
        match self {
            HashKind::Xxh3_64 => "xxh3-64",
            HashKind::Fnv1a64 => "fnv1a-64",
            HashKind::Crc16Xmodem => "crc16-xmodem",
            HashKind::Crc32IsoHdlc => "crc32-iso-hdlc",
            HashKind::FirstByte => "first-byte",
        }
    }

    /// Hashes a key. Narrower functions fill the low bits.
    #[inline]
    pub fn hash(self, key: &[u8]) -> u64 {
        match self {
            HashKind::Xxh3_64 => xxh3_64(key),
            HashKind::Fnv1a64 => fnv1a_64(key),
            HashKind::Crc16Xmodem => u64::from(CRC16.checksum(key)),
            HashKind::Crc32IsoHdlc => u64::from(CRC32.checksum(key)),
            HashKind::FirstByte => key.first().copied().map_or(0, u64::from),
        }
    }
}

impl fmt::Display for HashKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for HashKind {
    type Err = CoreError;

    fn from_str(name: &str) -> Result<Self, CoreError> {
        let found = HashKind::ALL
            .iter()
            .copied()
            .find(|kind| kind.name() == name);
        found.ok_or_else(|| CoreError::UnknownHash {
            name: name.to_owned(),
        })
    }
}

/// The names of all functions, for messages.
pub(crate) fn known_names() -> String {
    let names: Vec<&str> = HashKind::ALL.iter().map(|kind| kind.name()).collect();
    names.join(", ")
}

fn fnv1a_64(key: &[u8]) -> u64 {
    key.iter().fold(FNV_OFFSET, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME)
    })
}

/// One step of the `SplitMix64` generator: a bijection of 64 bits that leaves no pattern of its
/// input's low bits. Inner composites use it so that two levels of one hash stay independent.
#[inline]
pub fn splitmix64(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The pair of characters between which the hashed part of a key lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HashTag {
    open: u8,
    close: u8,
}

impl HashTag {
    /// The pair that Redis Cluster knows.
    pub const BRACES: Self = Self {
        open: b'{',
        close: b'}',
    };

    /// What is hashed of a key: the part between the first opening character and the next closing
    /// one; the whole key when there is no such part or it is empty.
    #[inline]
    pub fn hashed_part<'k>(&self, key: &'k [u8]) -> &'k [u8] {
        self.part(key).unwrap_or(key)
    }

    fn part(self, key: &[u8]) -> Option<&[u8]> {
        let start = key
            .iter()
            .position(|byte| *byte == self.open)?
            .checked_add(1)?;
        let rest = key.get(start..)?;
        let end = rest.iter().position(|byte| *byte == self.close)?;
        rest.get(..end).filter(|part| !part.is_empty())
    }
}

impl fmt::Display for HashTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", char::from(self.open), char::from(self.close))
    }
}

impl FromStr for HashTag {
    type Err = CoreError;

    fn from_str(text: &str) -> Result<Self, CoreError> {
        // A quote or a backslash would need escapes wherever a tag is written down.
        let usable = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        match text.as_bytes() {
            [open, close] if usable(*open) && usable(*close) => Ok(HashTag {
                open: *open,
                close: *close,
            }),
            _ => Err(CoreError::BadHashTag {
                text: text.to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
