//! The packed record of an object, and what a member tells of it natively.
//!
//! Not the bytes. Invariant: what is written here is read back by every later release; unknown
//! fields are passed over.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::checksum::{Algorithm, Checksum, ChecksumKind};
use crate::error::BlobError;
use crate::meta::{ETag, Headers, NativeVersion, ObjectMeta, PartSize, Tags};

/// The name of the record in an object's native metadata.
pub(crate) const NOTE_NAME: &str = "breccia";
/// The longest packed record: both services keep 8 KiB of metadata, names included.
const MAX_NOTE_BYTES: usize = 8 * 1024 - 64;

/// The record of an object.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    pub(crate) headers: Headers,
    #[serde(skip_serializing_if = "Tags::is_empty")]
    pub(crate) tags: Tags,
    #[serde(skip_serializing_if = "Option::is_none")]
    checksum: Option<String>,
    /// The entity tag, where it is not the MD5 that the member tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) etag: Option<ETag>,
    /// When it was written, where the member's own time has moved since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) modified_ms: Option<u64>,
    /// Runs of parts: the first number, how many, and the size of each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    runs: Vec<(u16, u16, u64)>,
}

impl Record {
    /// A record of these headers and tags.
    pub(crate) fn new(headers: Headers, tags: Tags) -> Self {
        Self {
            headers,
            tags,
            ..Self::default()
        }
    }

    /// The same with a checksum.
    pub(crate) fn with_checksum(mut self, checksum: Option<&Checksum>) -> Self {
        self.checksum = checksum.map(checksum_text);
        self
    }

    /// The same with the sizes of parts.
    pub(crate) fn with_parts(mut self, parts: &[PartSize]) -> Self {
        self.runs.clear();
        for part in parts {
            match self.runs.last_mut() {
                Some((first, count, size))
                    if first.checked_add(*count) == Some(part.number) && *size == part.size =>
                {
                    *count = count.saturating_add(1);
                }
                _ => self.runs.push((part.number, 1, part.size)),
            }
        }
        self
    }

    /// A record of what is known of an object already, so that rewriting it changes nothing.
    pub(crate) fn of_meta(meta: &ObjectMeta) -> Self {
        Self {
            etag: Some(meta.etag.clone()),
            ..Self::new(meta.headers.clone(), meta.tags.clone())
        }
        .with_checksum(meta.checksum.as_ref())
        .with_parts(&meta.parts)
    }

    /// The record as metadata. The sizes of parts are left out where there is no room for them.
    ///
    /// # Errors
    /// [`BlobError::Unsupported`] if it is too long even so.
    pub(crate) fn pack(&self, store: &str) -> Result<String, BlobError> {
        let whole = pack(self);
        if whole.len() <= MAX_NOTE_BYTES {
            return Ok(whole);
        }
        let mut shorter = self.clone();
        shorter.runs.clear();
        let text = pack(&shorter);
        if text.len() <= MAX_NOTE_BYTES {
            return Ok(text);
        }
        Err(BlobError::Unsupported {
            store: store.to_owned(),
            operation: "headers, user metadata and tags of this size".to_owned(),
            reason: format!(
                "packed they have {} bytes, and the service keeps {MAX_NOTE_BYTES}",
                text.len()
            ),
        })
    }

    fn parts(&self) -> Vec<PartSize> {
        let runs = self.runs.iter().flat_map(|(first, count, size)| {
            let numbers = (0..*count).filter_map(|place| first.checked_add(place));
            numbers.map(|number| PartSize {
                number,
                size: *size,
            })
        });
        runs.collect()
    }
}

/// What a member tells of an object.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) size: u64,
    pub(crate) modified_ms: u64,
    /// The MD5 that the service itself has computed.
    pub(crate) md5: Option<[u8; 16]>,
    /// What a condition names this version by.
    pub(crate) native: String,
    /// Counts the changes of metadata within a version, where the member does.
    pub(crate) revision: u64,
    /// The packed record.
    pub(crate) note: Option<String>,
    /// Headers, as the member has them.
    pub(crate) headers: Headers,
}

impl Seen {
    /// What clients see of it.
    ///
    /// # Errors
    /// [`BlobError::Damaged`] if its record cannot be read.
    pub(crate) fn meta(self, store: &str) -> Result<ObjectMeta, BlobError> {
        let record: Option<Record> = match &self.note {
            Some(note) => Some(unpack(store, note)?),
            None => None,
        };
        Ok(self.with(record))
    }

    /// The same for listings, where one record that cannot be read must not hide all others.
    pub(crate) fn listed_meta(self) -> ObjectMeta {
        let record = self.note.as_ref().and_then(|note| unpack("", note).ok());
        self.with(record)
    }

    fn with(self, record: Option<Record>) -> ObjectMeta {
        let parts = record.as_ref().map(Record::parts).unwrap_or_default();
        let (record, headers) = match record {
            Some(mut record) => {
                let headers = std::mem::take(&mut record.headers);
                (record, headers)
            }
            None => (Record::default(), self.headers),
        };
        let native_tag = || match self.md5 {
            Some(md5) => ETag::of_md5(md5),
            None => ETag::unknown(self.native.as_bytes()),
        };
        ObjectMeta {
            size: self.size,
            modified_ms: record.modified_ms.unwrap_or(self.modified_ms),
            etag: record.etag.unwrap_or_else(native_tag),
            checksum: record.checksum.as_deref().and_then(checksum_of),
            headers,
            tags: record.tags,
            parts,
            native: NativeVersion(self.native),
        }
    }
}

/// Anything as the text of native metadata.
pub(crate) fn pack<T: Serialize>(value: &T) -> String {
    let json = serde_json::to_vec(value).expect("these types have text keys only and cannot fail");
    URL_SAFE_NO_PAD.encode(json)
}

/// Reads it back.
pub(crate) fn unpack<T: DeserializeOwned>(store: &str, text: &str) -> Result<T, BlobError> {
    let damaged = |problem: String| BlobError::Damaged {
        store: store.to_owned(),
        problem: format!("a record that cannot be read: {problem}"),
    };
    let json = URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|error| damaged(error.to_string()))?;
    serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))
}

/// `CRC32C=base64`, or `CRC32C=base64-3` of three parts.
pub(crate) fn checksum_text(checksum: &Checksum) -> String {
    let (name, value) = (checksum.algorithm.name(), STANDARD.encode(&checksum.value));
    match checksum.kind {
        ChecksumKind::FullObject => format!("{name}={value}"),
        ChecksumKind::Composite { parts } => format!("{name}={value}-{parts}"),
    }
}

/// Reads it back; `None` if it is not one.
pub(crate) fn checksum_of(text: &str) -> Option<Checksum> {
    let (name, text) = text.split_once('=')?;
    let algorithm = Algorithm::from_name(name)?;
    let (value, kind) = match text.split_once('-') {
        None => (text, ChecksumKind::FullObject),
        Some((value, parts)) => {
            let parts = parts.parse().ok()?;
            (value, ChecksumKind::Composite { parts })
        }
    };
    let value = STANDARD.decode(value).ok()?;
    (value.len() == algorithm.length()).then_some(Checksum {
        algorithm,
        value,
        kind,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: u16, size: u64) -> PartSize {
        PartSize { number, size }
    }

    #[test]
    fn a_record_comes_back_and_decides_what_is_seen() {
        let checksum = Checksum {
            algorithm: Algorithm::Crc32c,
            value: vec![1, 2, 3, 4],
            kind: ChecksumKind::Composite { parts: 3 },
        };
        let parts = [part(1, 9), part(2, 9), part(4, 9), part(5, 1)];
        let mut record = Record::new(
            Headers {
                content_type: Some("t".to_owned()),
                ..Headers::default()
            },
            Tags::from([("a".to_owned(), "\u{e9}".to_owned())]),
        )
        .with_checksum(Some(&checksum))
        .with_parts(&parts);
        record.etag = Some(ETag::from_text("x-3"));
        let seen = Seen {
            note: Some(record.pack("s").expect("short")),
            md5: Some([0; 16]),
            native: "n".to_owned(),
            ..Seen::default()
        };
        let meta = seen.meta("s").expect("readable");
        assert_eq!(meta.parts, parts);
        assert_eq!(meta.checksum, Some(checksum));
        assert_eq!((meta.etag.as_str(), &meta.tags), ("x-3", &record.tags));
        assert_eq!(Record::of_meta(&meta), record);
    }

    #[test]
    fn without_a_record_nothing_is_made_up() {
        let seen = Seen {
            native: "n".to_owned(),
            ..Seen::default()
        };
        let meta = seen.clone().meta("s").expect("no record");
        assert_eq!(meta.etag, ETag::unknown(b"n"));
        let bad = Seen {
            note: Some("!".to_owned()),
            ..seen
        };
        assert!(matches!(
            bad.clone().meta("s"),
            Err(BlobError::Damaged { .. })
        ));
        assert_eq!(bad.listed_meta().etag, ETag::unknown(b"n"));
    }

    #[test]
    fn a_record_has_room_or_is_refused() {
        let parts: Vec<PartSize> = (1..=5000).map(|n| part(n, u64::from(n))).collect();
        let record = Record::default().with_parts(&parts);
        let packed = record.pack("s").expect("without the parts");
        let read: Record = unpack("s", &packed).expect("readable");
        assert!(read.parts().is_empty());
        let tags = (0..40).map(|n| (format!("{n}"), "v".repeat(250))).collect();
        let record = Record::new(Headers::default(), tags);
        assert!(matches!(
            record.pack("s"),
            Err(BlobError::Unsupported { .. })
        ));
    }
}
