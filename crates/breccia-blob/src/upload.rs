//! Uploads in parts: their names, parts and choices.
//!
//! Not how a member keeps them. Invariant: an upload lies on the shard that owns its key, and none
//! of it is seen before it is completed.

use std::fmt;

use crate::checksum::{Algorithm, Checksum, ChecksumKind};
use crate::condition::WriteCondition;
use crate::key::Key;
use crate::meta::{ETag, Headers, Tags};

/// The highest number of a part.
pub const MAX_PART_NUMBER: u16 = 10_000;
/// Each part but the last has at least this many bytes.
pub const MIN_PART_BYTES: u64 = 5 * 1024 * 1024;
/// The longest text of an upload id.
pub const MAX_UPLOAD_ID_BYTES: usize = 1024;

/// The name of an upload: made by the member, opaque to everybody else.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UploadId(pub String);

impl fmt::Display for UploadId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What an upload begins with.
#[derive(Debug, Clone, Default)]
pub struct UploadOptions {
    /// The headers of the object to be.
    pub headers: Headers,
    /// The tags of the object to be.
    pub tags: Tags,
    /// The checksum its parts will come with, and what the object's shall be of.
    pub checksum: Option<(Algorithm, ChecksumChoice)>,
}

/// What the checksum of an object in parts is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChecksumChoice {
    /// All its bytes.
    FullObject,
    /// Its parts' checksums.
    Composite,
}

impl From<ChecksumKind> for ChecksumChoice {
    fn from(kind: ChecksumKind) -> Self {
        match kind {
            ChecksumKind::FullObject => Self::FullObject,
            ChecksumKind::Composite { .. } => Self::Composite,
        }
    }
}

/// A part that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartInfo {
    /// Its number, 1 to [`MAX_PART_NUMBER`].
    pub number: u16,
    /// How many bytes it has.
    pub size: u64,
    /// Its tag: the MD5 of its bytes.
    pub etag: ETag,
    /// Its checksum, if one was given or computed.
    pub checksum: Option<Checksum>,
    /// When it was written, in milliseconds since the Unix epoch.
    pub modified_ms: u64,
}

/// A part as the client names it when it completes an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartChoice {
    /// Its number.
    pub number: u16,
    /// The tag the client was given for it.
    pub etag: ETag,
    /// The checksum it says it has, if it does.
    pub checksum: Option<Checksum>,
}

/// How an upload is completed.
#[derive(Debug, Clone, Default)]
pub struct CompleteOptions {
    /// The condition, decided together with the publication.
    pub condition: WriteCondition,
    /// The checksum the whole object shall have, if the client says it.
    pub checksum: Option<Checksum>,
}

/// One page of an upload's parts, by number.
#[derive(Debug, Clone, Default)]
pub struct PartPage {
    /// The parts.
    pub parts: Vec<PartInfo>,
    /// Whether there are more behind the last.
    pub more: bool,
    /// What the upload began with, as far as the member tells.
    pub checksum: Option<(Algorithm, ChecksumChoice)>,
}

/// An upload that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadInfo {
    /// The key it is for.
    pub key: Key,
    /// Its name.
    pub id: UploadId,
    /// When it was begun, in milliseconds since the Unix epoch.
    pub begun_ms: u64,
}

/// One page of uploads, by key, then by id.
#[derive(Debug, Clone, Default)]
pub struct UploadPage {
    /// The uploads.
    pub uploads: Vec<UploadInfo>,
    /// Whether there are more behind the last.
    pub more: bool,
}
