//! What is written down of objects, parts and uploads: in footers of files and in rows of the index.
//!
//! Not the framing of a file (see `format`) and not the tables (see `index`). Invariant: whatever a
//! row of the index holds is in a footer too, so that the index can be made anew from the files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::checksum::{Algorithm, Checksum, ChecksumKind};
use crate::error::BlobError;
use crate::key::Key;
use crate::meta::{ETag, Headers, NativeVersion, ObjectMeta, PartSize, Tags, hex};
use crate::upload::{ChecksumChoice, PartInfo};

/// A key, or any bytes, as hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct HexText(String);

impl HexText {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(hex(bytes))
    }

    /// The bytes, if the text is one of hex digits.
    pub(super) fn bytes(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.0.len() / 2);
        for pair in self.0.as_bytes().chunks(2) {
            let pair = std::str::from_utf8(pair).ok().filter(|p| p.len() == 2)?;
            bytes.push(u8::from_str_radix(pair, 16).ok()?);
        }
        Some(bytes)
    }

    pub(super) fn key(&self) -> Option<Key> {
        Key::new(self.bytes()?).ok()
    }
}

/// A checksum as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredChecksum {
    algorithm: String,
    value: HexText,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    parts: Option<u32>,
}

impl From<&Checksum> for StoredChecksum {
    fn from(checksum: &Checksum) -> Self {
        Self {
            algorithm: checksum.algorithm.name().to_owned(),
            value: HexText::of(&checksum.value),
            parts: match checksum.kind {
                ChecksumKind::FullObject => None,
                ChecksumKind::Composite { parts } => Some(parts),
            },
        }
    }
}

impl StoredChecksum {
    /// The checksum; none if a later release wrote one this release does not know.
    pub(super) fn read(&self) -> Option<Checksum> {
        let algorithm = Algorithm::from_name(&self.algorithm)?;
        let value = self.value.bytes()?;
        let kind = match self.parts {
            None => ChecksumKind::FullObject,
            Some(parts) => ChecksumKind::Composite { parts },
        };
        (value.len() == algorithm.length()).then_some(Checksum {
            algorithm,
            value,
            kind,
        })
    }
}

/// The checksum that an upload's parts come with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredChoice {
    algorithm: String,
    full_object: bool,
}

impl StoredChoice {
    pub(super) fn of(choice: (Algorithm, ChecksumChoice)) -> Self {
        Self {
            algorithm: choice.0.name().to_owned(),
            full_object: choice.1 == ChecksumChoice::FullObject,
        }
    }

    pub(super) fn read(&self) -> Option<(Algorithm, ChecksumChoice)> {
        let choice = if self.full_object {
            ChecksumChoice::FullObject
        } else {
            ChecksumChoice::Composite
        };
        Some((Algorithm::from_name(&self.algorithm)?, choice))
    }
}

/// What of an object no listing needs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Details {
    pub(super) headers: Headers,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) tags: Tags,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) checksum: Option<StoredChecksum>,
}

/// What is known of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Facts {
    pub(super) size: u64,
    pub(super) modified_ms: u64,
    pub(super) etag: ETag,
    pub(super) details: Details,
}

/// A generation file: its number, how many bytes of data are in it, and how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileRef {
    pub(super) generation: u64,
    pub(super) size: u64,
    pub(super) file_bytes: u64,
}

/// A part of an upload, or of an object that was uploaded in parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PartRow {
    pub(super) number: u16,
    pub(super) file: FileRef,
    pub(super) etag: ETag,
    pub(super) modified_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) checksum: Option<StoredChecksum>,
}

impl PartRow {
    pub(super) fn info(&self) -> PartInfo {
        PartInfo {
            number: self.number,
            size: self.file.size,
            etag: self.etag.clone(),
            checksum: self.checksum.as_ref().and_then(StoredChecksum::read),
            modified_ms: self.modified_ms,
        }
    }
}

/// An object in the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ObjectRow {
    pub(super) facts: Facts,
    /// Its data, or the manifest of its parts.
    pub(super) file: FileRef,
    /// The upload whose parts it is made of.
    pub(super) upload: Option<String>,
    /// Its parts in order, if it has any.
    pub(super) parts: Vec<PartRow>,
}

impl ObjectRow {
    /// An object whose data are in one file.
    pub(super) fn of_one_file(facts: Facts, file: FileRef) -> Self {
        Self {
            facts,
            file,
            upload: None,
            parts: Vec::new(),
        }
    }

    pub(super) fn meta(&self) -> ObjectMeta {
        let details = &self.facts.details;
        ObjectMeta {
            size: self.facts.size,
            modified_ms: self.facts.modified_ms,
            etag: self.facts.etag.clone(),
            checksum: details.checksum.as_ref().and_then(StoredChecksum::read),
            headers: details.headers.clone(),
            tags: details.tags.clone(),
            parts: self.parts.iter().map(PartRow::part_size).collect(),
            native: NativeVersion(format!("{:016x}", self.file.generation)),
        }
    }

    /// The files that hold its bytes, in order.
    pub(super) fn pieces(&self) -> Vec<FileRef> {
        if self.upload.is_some() {
            self.parts.iter().map(|part| part.file).collect()
        } else {
            vec![self.file]
        }
    }
}

impl PartRow {
    fn part_size(&self) -> PartSize {
        PartSize {
            number: self.number,
            size: self.file.size,
        }
    }
}

/// An upload in the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UploadRow {
    pub(super) key: Key,
    pub(super) id: String,
    pub(super) generation: u64,
    pub(super) begun_ms: u64,
    pub(super) start: UploadStart,
}

/// What an upload began with.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct UploadStart {
    pub(super) headers: Headers,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) tags: Tags,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) checksum: Option<StoredChoice>,
}

/// The footer of a generation file: what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(super) enum Record {
    /// The bytes of an object.
    Object { key: HexText, facts: Facts },
    /// The bytes of a part.
    Part {
        key: HexText,
        upload: String,
        number: u16,
        etag: ETag,
        modified_ms: u64,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        checksum: Option<StoredChecksum>,
    },
    /// No bytes: an object that is made of parts.
    Manifest {
        key: HexText,
        facts: Facts,
        upload: String,
        parts: Vec<PartRow>,
    },
    /// No bytes: an upload that was begun.
    Upload {
        key: HexText,
        id: String,
        begun_ms: u64,
        start: UploadStart,
    },
    /// No bytes: tags in place of those the object of generation `target` was written with.
    Tags {
        key: HexText,
        target: u64,
        tags: Tags,
    },
    /// The bytes of a reserved object.
    Reserved { name: String },
}

/// The text of something that is written down.
pub(super) fn to_json<T: Serialize>(store: &str, value: &T) -> Result<Vec<u8>, BlobError> {
    serde_json::to_vec(value).map_err(|problem| BlobError::System {
        store: store.to_owned(),
        what: "write down what an object is".to_owned(),
        reason: problem.to_string(),
        effect: breccia_core::error::Effect::NotApplied,
    })
}
