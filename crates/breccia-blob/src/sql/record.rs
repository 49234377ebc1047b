//! What the columns `record`, `tags`, `checksum` and `generations` hold, as text.
//!
//! Not the rows. Invariant: what is written here is read back by every later release.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::driver::Row;
use super::fault::Fault;
use crate::checksum::{Algorithm, Checksum, ChecksumKind};
use crate::meta::{ETag, Headers, NativeVersion, ObjectMeta, PartSize, Tags};
use crate::upload::ChecksumChoice;

/// A checksum as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ChecksumRecord {
    algorithm: String,
    value: Vec<u8>,
    /// How many parts a composite one is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parts: Option<u32>,
}

impl From<&Checksum> for ChecksumRecord {
    fn from(checksum: &Checksum) -> Self {
        Self {
            algorithm: checksum.algorithm.name().to_owned(),
            value: checksum.value.clone(),
            parts: match checksum.kind {
                ChecksumKind::FullObject => None,
                ChecksumKind::Composite { parts } => Some(parts),
            },
        }
    }
}

impl ChecksumRecord {
    fn restore(self) -> Result<Checksum, Fault> {
        let algorithm = algorithm(&self.algorithm)?;
        if self.value.len() != algorithm.length() {
            return Err(Fault::Damaged(format!("a {algorithm} of wrong length")));
        }
        Ok(Checksum {
            algorithm,
            value: self.value,
            kind: match self.parts {
                None => ChecksumKind::FullObject,
                Some(parts) => ChecksumKind::Composite { parts },
            },
        })
    }
}

fn algorithm(name: &str) -> Result<Algorithm, Fault> {
    Algorithm::from_name(name)
        .ok_or_else(|| Fault::Damaged(format!("an unknown checksum algorithm '{name}'")))
}

/// The column `checksum` of a part.
pub(crate) fn checksum_text(checksum: Option<&Checksum>) -> String {
    to_text(&checksum.map(ChecksumRecord::from))
}

/// Reads it back.
pub(crate) fn checksum_of(text: &str) -> Result<Option<Checksum>, Fault> {
    let record: Option<ChecksumRecord> = from_text(text)?;
    record.map(ChecksumRecord::restore).transpose()
}

/// A part of an object: number, size, generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartRecord(pub(crate) u16, pub(crate) u64, pub(crate) i64);

/// The column `record` of an object.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ObjectRecord {
    #[serde(default)]
    pub(crate) headers: Headers,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) checksum: Option<ChecksumRecord>,
    /// The size of its chunks.
    pub(crate) chunk: u64,
    /// The parts it was uploaded in; empty if it was written whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) parts: Vec<PartRecord>,
}

/// The column `record` of an upload.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct UploadRecord {
    #[serde(default)]
    pub(crate) headers: Headers,
    #[serde(default)]
    pub(crate) tags: Tags,
    /// Algorithm, and whether the whole object's is wanted.
    #[serde(default)]
    checksum: Option<(String, bool)>,
}

impl UploadRecord {
    /// What an upload began with.
    pub(crate) fn new(
        headers: Headers,
        tags: Tags,
        checksum: Option<(Algorithm, ChecksumChoice)>,
    ) -> Self {
        let checksum = checksum.map(|(algorithm, choice)| {
            let whole = choice == ChecksumChoice::FullObject;
            (algorithm.name().to_owned(), whole)
        });
        Self {
            headers,
            tags,
            checksum,
        }
    }

    /// The checksum its parts come with.
    pub(crate) fn checksum(&self) -> Result<Option<(Algorithm, ChecksumChoice)>, Fault> {
        let restore = |(name, whole): &(String, bool)| {
            let choice = if *whole {
                ChecksumChoice::FullObject
            } else {
                ChecksumChoice::Composite
            };
            Ok((algorithm(name)?, choice))
        };
        self.checksum.as_ref().map(restore).transpose()
    }
}

/// A value as a column's text.
pub(crate) fn to_text<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("these types have text keys only and cannot fail")
}

/// Reads it back.
pub(crate) fn from_text<T: DeserializeOwned>(text: &str) -> Result<T, Fault> {
    serde_json::from_str(text).map_err(|error| Fault::Damaged(format!("a record: {error}")))
}

/// One run of chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) generation: i64,
    pub(crate) size: u64,
}

/// An object's row.
#[derive(Debug, Clone)]
pub(crate) struct StoredObject {
    pub(crate) meta: ObjectMeta,
    /// Where its bytes lie, in order.
    pub(crate) segments: Vec<Segment>,
    /// The size of its chunks, never nothing.
    pub(crate) chunk: u64,
}

impl StoredObject {
    /// Reads the columns of [`super::statements::Query::FindObject`].
    pub(crate) fn read(row: &mut Row) -> Result<Self, Fault> {
        let generation = row.integer()?;
        let size = row.unsigned()?;
        let modified_ms = row.unsigned()?;
        let etag = ETag::from_text(row.text()?);
        let record: ObjectRecord = from_text(&row.text()?)?;
        let tags: Tags = from_text(&row.text()?)?;
        let segments = segments(generation, size, &record.parts);
        let total = segments
            .iter()
            .fold(0_u64, |sum, segment| sum.saturating_add(segment.size));
        if total != size || record.chunk == 0 {
            return Err(Fault::Damaged(format!(
                "an object's row says {size} bytes, its parts have {total}"
            )));
        }
        let parts = record
            .parts
            .iter()
            .map(|PartRecord(number, size, _)| PartSize {
                number: *number,
                size: *size,
            });
        let meta = ObjectMeta {
            size,
            modified_ms,
            etag,
            checksum: record.checksum.map(ChecksumRecord::restore).transpose()?,
            headers: record.headers,
            tags,
            parts: parts.collect(),
            native: NativeVersion(format!("{generation:016x}")),
        };
        Ok(Self {
            meta,
            segments,
            chunk: record.chunk,
        })
    }
}

fn segments(generation: i64, size: u64, parts: &[PartRecord]) -> Vec<Segment> {
    if parts.is_empty() {
        return vec![Segment { generation, size }];
    }
    let segment = |PartRecord(_, size, generation): &PartRecord| Segment {
        generation: *generation,
        size: *size,
    };
    parts.iter().map(segment).collect()
}

/// The generations an object's row names, as the column `generations` of `garbage` holds them.
pub(crate) fn generations_of(generation: i64, record: &str) -> Result<String, Fault> {
    let record: ObjectRecord = from_text(record)?;
    let all = segments(generation, 0, &record.parts);
    Ok(generations_text(
        all.iter().map(|segment| segment.generation),
    ))
}

/// The column `generations`.
pub(crate) fn generations_text(all: impl Iterator<Item = i64>) -> String {
    to_text(&all.collect::<Vec<_>>())
}

/// The CRC32C that stands beside a chunk.
pub(crate) fn crc(bytes: &[u8]) -> i64 {
    let value = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes);
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A name as a column holds it.
pub(crate) fn name_bytes(name: &str) -> Bytes {
    Bytes::copy_from_slice(name.as_bytes())
}
