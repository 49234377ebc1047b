//! Uploads in parts, as reserved objects: the upload itself, and one for each part.
//!
//! ```text
//! ~upload/ID         what it began with; its key and time also in the record, so that a page tells
//! ~part/ID/00007     a part, or what is known of one
//! ```
//!
//! Not how parts are joined. Invariant: an upload is there exactly as long as its first object is;
//! what remains of others is removed by maintenance.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use breccia_net::clock;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};

use super::assembly::StoredPart;
use super::listing::{Walk, walk};
use super::record::{Seen, checksum_of, checksum_text, pack, unpack};
use super::{Guard, Member, PARALLEL, nonsense, random};
use crate::checksum::{Algorithm, Checksum};
use crate::error::BlobError;
use crate::key::Key;
use crate::meta::{ETag, Headers, Tags};
use crate::store::Maintained;
use crate::upload::{
    ChecksumChoice, MAX_PART_NUMBER, PartInfo, PartPage, UploadId, UploadInfo, UploadOptions,
    UploadPage,
};

/// How many hex digits an id has.
const ID_LENGTH: usize = 32;

/// What an upload began with.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct UploadRecord {
    key: String,
    #[serde(default)]
    pub(crate) headers: Headers,
    #[serde(default)]
    pub(crate) tags: Tags,
    /// The algorithm, and whether the whole object's is wanted.
    #[serde(default)]
    checksum: Option<(String, bool)>,
}

impl UploadRecord {
    /// The checksum its parts come with.
    pub(crate) fn checksum(&self) -> Option<(Algorithm, ChecksumChoice)> {
        let (name, whole) = self.checksum.as_ref()?;
        let choice = if *whole {
            ChecksumChoice::FullObject
        } else {
            ChecksumChoice::Composite
        };
        Some((Algorithm::from_name(name)?, choice))
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct UploadNote {
    key: String,
    begun_ms: u64,
}

/// What is known of a part beside its bytes.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct PartNote {
    /// The size and the MD5, where the object that keeps this is not the part itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<ETag>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) block: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checksum: Option<String>,
}

impl PartNote {
    /// With its checksum only.
    pub(crate) fn new(checksum: Option<&Checksum>) -> Self {
        Self {
            checksum: checksum.map(checksum_text),
            ..Self::default()
        }
    }

    /// The same for a part that is kept elsewhere.
    pub(crate) fn elsewhere(mut self, size: u64, md5: [u8; 16], block: Option<String>) -> Self {
        self.size = Some(size);
        self.etag = Some(ETag::of_md5(md5));
        self.block = block;
        self
    }

    pub(crate) fn pack(&self) -> String {
        pack(self)
    }
}

fn key_text(key: &Key) -> String {
    URL_SAFE_NO_PAD.encode(key.as_bytes())
}

fn upload_name<M: Member + ?Sized>(member: &M, id: &str) -> String {
    member.names().reserved(&format!("~upload/{id}"))
}

/// The name of a part.
pub(crate) fn part_name<M: Member + ?Sized>(member: &M, id: &UploadId, number: u16) -> String {
    member.names().reserved(&format!("~part/{id}/{number:05}"))
}

/// Only what we made can be an id: anything else could name something else.
fn check_id(id: &UploadId) -> Result<(), BlobError> {
    let digits = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'))
    };
    if id.0.len() == ID_LENGTH && digits(&id.0) {
        Ok(())
    } else {
        Err(BlobError::NoSuchUpload)
    }
}

fn ended(error: BlobError) -> BlobError {
    match error {
        BlobError::NotFound => BlobError::NoSuchUpload,
        error => error,
    }
}

/// Begins an upload.
pub(crate) async fn begin<M: Member + ?Sized>(
    member: &M,
    key: &Key,
    options: UploadOptions,
) -> Result<UploadId, BlobError> {
    member.accepts(key)?;
    // What the object will have must have room in its record.
    let record = super::Record::new(options.headers.clone(), options.tags.clone());
    record.pack(member.name())?;
    let id = UploadId(random::<16>(member.name())?);
    let note = UploadNote {
        key: key_text(key),
        begun_ms: clock::unix_ms(),
    };
    let record = UploadRecord {
        key: note.key.clone(),
        headers: options.headers,
        tags: options.tags,
        checksum: options.checksum.map(|(algorithm, choice)| {
            let whole = choice == ChecksumChoice::FullObject;
            (algorithm.name().to_owned(), whole)
        }),
    };
    let body = serde_json::to_vec(&record).map_err(|error| {
        nonsense(
            member.name(),
            format!("a record that cannot be: {error}"),
            false,
        )
    })?;
    let name = upload_name(member, &id.0);
    member
        .write_small(&name, body.into(), &pack(&note), &Guard::None)
        .await?;
    Ok(id)
}

/// Looks whether an upload is there and of this key.
pub(crate) async fn require<M: Member + ?Sized>(
    member: &M,
    key: &Key,
    id: &UploadId,
) -> Result<(), BlobError> {
    check_id(id)?;
    let seen = member
        .look(&upload_name(member, &id.0))
        .await
        .map_err(ended)?;
    let note: UploadNote = unpack(member.name(), seen.note.as_deref().unwrap_or_default())?;
    if note.key == key_text(key) {
        Ok(())
    } else {
        Err(BlobError::NoSuchUpload)
    }
}

/// What an upload of this key began with.
pub(crate) async fn find<M: Member + ?Sized>(
    member: &M,
    key: &Key,
    id: &UploadId,
) -> Result<UploadRecord, BlobError> {
    check_id(id)?;
    let bytes: Option<Bytes> = member.read_small(&upload_name(member, &id.0)).await?;
    let bytes = bytes.ok_or(BlobError::NoSuchUpload)?;
    let record: UploadRecord =
        serde_json::from_slice(&bytes).map_err(|error| BlobError::Damaged {
            store: member.name().to_owned(),
            problem: format!("an upload's record: {error}"),
        })?;
    if record.key == key_text(key) {
        Ok(record)
    } else {
        Err(BlobError::NoSuchUpload)
    }
}

/// A part's number must be one.
pub(crate) fn check_number(number: u16) -> Result<(), BlobError> {
    if (1..=MAX_PART_NUMBER).contains(&number) {
        Ok(())
    } else {
        Err(BlobError::InvalidPart { number })
    }
}

/// The parts of an upload behind a number, at most so many.
pub(crate) async fn parts<M: Member + ?Sized>(
    member: &M,
    id: &UploadId,
    after: u16,
    most: usize,
) -> Result<Vec<StoredPart>, BlobError> {
    let prefix = member.names().reserved(&format!("~part/{id}/"));
    let behind = (after > 0).then(|| part_name(member, id, after));
    let found = walk(member, prefix.clone(), behind, most).await?;
    let parts = found.into_iter().map(|(name, seen)| {
        let number = name
            .strip_prefix(&prefix)
            .and_then(|text| text.parse().ok());
        let number = number.ok_or_else(|| nonsense(member.name(), "a nameless part", false))?;
        stored(member, name, number, seen)
    });
    parts.collect()
}

fn stored<M: Member + ?Sized>(
    member: &M,
    name: String,
    number: u16,
    seen: Seen,
) -> Result<StoredPart, BlobError> {
    let note: PartNote = match &seen.note {
        Some(note) => unpack(member.name(), note)?,
        None => PartNote::default(),
    };
    let native = seen.md5.map(ETag::of_md5);
    let etag = note.etag.or(native).ok_or_else(|| BlobError::Damaged {
        store: member.name().to_owned(),
        problem: format!("part {number} of an upload without an MD5"),
    })?;
    Ok(StoredPart {
        info: PartInfo {
            number,
            size: note.size.unwrap_or(seen.size),
            etag,
            checksum: note.checksum.as_deref().and_then(checksum_of),
            modified_ms: seen.modified_ms,
        },
        name,
        native: seen.native,
        block: note.block,
    })
}

/// One page of an upload's parts.
pub(crate) async fn part_page<M: Member + ?Sized>(
    member: &M,
    key: &Key,
    id: &UploadId,
    after: u16,
    limit: usize,
) -> Result<PartPage, BlobError> {
    let record = find(member, key, id).await?;
    let mut found = parts(member, id, after, limit.saturating_add(1)).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    Ok(PartPage {
        more: more && !found.is_empty(),
        parts: found.into_iter().map(|part| part.info).collect(),
        checksum: record.checksum(),
    })
}

/// An upload, from the object that makes it one.
fn upload_in(prefix: &str, name: &str, seen: &Seen) -> Option<UploadInfo> {
    let id = UploadId(name.strip_prefix(prefix)?.to_owned());
    let note: UploadNote = unpack("", seen.note.as_deref()?).ok()?;
    let key = URL_SAFE_NO_PAD.decode(note.key).ok()?;
    Some(UploadInfo {
        key: Key::new(key).ok()?,
        id,
        begun_ms: note.begun_ms,
    })
}

/// One page of uploads, by key and then id. The member has them by id: all are looked through, and
/// only those of the page are kept.
pub(crate) async fn page<M: Member + ?Sized>(
    member: &M,
    prefix: &[u8],
    after: Option<(Key, Option<UploadId>)>,
    limit: usize,
) -> Result<UploadPage, BlobError> {
    let wanted = |upload: &UploadInfo| {
        let behind = match &after {
            None => true,
            Some((key, None)) => upload.key > *key,
            Some((key, Some(id))) => (&upload.key, &upload.id) > (key, id),
        };
        behind && upload.key.as_bytes().starts_with(prefix)
    };
    let names = upload_name(member, "");
    let mut walk = Walk::all(member, names.clone());
    let (mut first, mut more) = (BTreeMap::new(), false);
    while let Some(objects) = walk.objects().await? {
        let uploads = objects
            .iter()
            .filter_map(|(name, seen)| upload_in(&names, name, seen));
        for upload in uploads.filter(wanted) {
            first.insert((upload.key.clone(), upload.id.clone()), upload);
            if first.len() > limit {
                first.pop_last();
                more = true;
            }
        }
    }
    Ok(UploadPage {
        more: more && !first.is_empty(),
        uploads: first.into_values().collect(),
    })
}

/// Ends an upload and removes its parts.
pub(crate) async fn abort<M: Member + ?Sized>(
    member: &M,
    key: &Key,
    id: &UploadId,
) -> Result<(), BlobError> {
    require(member, key, id).await?;
    end(member, id).await
}

/// Removes everything of an upload; first what makes it one.
pub(crate) async fn end<M: Member + ?Sized>(member: &M, id: &UploadId) -> Result<(), BlobError> {
    member
        .remove(&upload_name(member, &id.0), &Guard::None)
        .await?;
    let prefix = member.names().reserved(&format!("~part/{id}/"));
    let most = usize::from(MAX_PART_NUMBER);
    let names = walk(member, prefix, None, most).await?;
    let names = names.into_iter().map(|(name, _)| name).collect();
    remove_all(member, names).await?;
    member.discard_stage(&id.0).await
}

/// Removes objects, several at a time.
pub(crate) async fn remove_all<M: Member + ?Sized>(
    member: &M,
    names: Vec<String>,
) -> Result<(), BlobError> {
    stream::iter(names)
        .map(|name| async move { member.remove(&name, &Guard::None).await.map(drop) })
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await
}

/// Ends uploads that began too long ago, and removes what is left of those that ended. Page by page:
/// however many there are, a page is all that is held.
pub(crate) async fn maintain<M: Member + ?Sized>(
    member: &M,
    expired_before_ms: u64,
) -> Result<Maintained, BlobError> {
    let mut done = Maintained::default();
    let names = upload_name(member, "");
    let mut walk = Walk::all(member, names.clone());
    while let Some(objects) = walk.objects().await? {
        let uploads = objects
            .iter()
            .filter_map(|(name, seen)| upload_in(&names, name, seen));
        for upload in uploads.filter(|upload| upload.begun_ms < expired_before_ms) {
            end(member, &upload.id).await?;
            done.uploads = done.uploads.saturating_add(1);
        }
    }
    for kind in ["~part/", "~stage/", "~join/"] {
        let removed = remove_leftovers(member, kind, expired_before_ms).await?;
        done.leftovers = done.leftovers.saturating_add(removed);
    }
    Ok(done)
}

/// Removes the old objects of one kind that belong to no upload; how many.
async fn remove_leftovers<M: Member + ?Sized>(
    member: &M,
    kind: &str,
    expired_before_ms: u64,
) -> Result<u64, BlobError> {
    let prefix = member.names().reserved(kind);
    let mut walk = Walk::all(member, prefix.clone());
    let mut removed = 0_u64;
    // The upload that was asked for last, and whether it is there: its objects come in one row.
    let mut asked: Option<(String, bool)> = None;
    while let Some(objects) = walk.objects().await? {
        let mut left = Vec::new();
        for (name, seen) in objects {
            if seen.modified_ms >= expired_before_ms {
                continue;
            }
            let own = name.strip_prefix(&prefix).unwrap_or_default();
            let id = own.split('/').next().unwrap_or_default();
            let alive = match &asked {
                Some((known, alive)) if known == id => *alive,
                _ => {
                    let alive = is_there(member, id).await?;
                    asked = Some((id.to_owned(), alive));
                    alive
                }
            };
            if !alive {
                left.push(name);
            }
        }
        removed = removed.saturating_add(left.len() as u64);
        remove_all(member, left).await?;
    }
    Ok(removed)
}

async fn is_there<M: Member + ?Sized>(member: &M, id: &str) -> Result<bool, BlobError> {
    match member.look(&upload_name(member, id)).await {
        Ok(_) => Ok(true),
        Err(BlobError::NotFound) => Ok(false),
        Err(error) => Err(error),
    }
}
