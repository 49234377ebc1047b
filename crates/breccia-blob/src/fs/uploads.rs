//! Uploads in parts over a folder.
//!
//! Not which parts make an object (see `complete`). Invariant: an upload ends in the transaction
//! that makes its object, and that object is of the very parts its manifest lists.

use std::sync::Arc;

use breccia_net::clock;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::Inner;
use super::complete::{Chosen, choose, crc_of};
use super::index::change::{Change, Completion, Publication};
use super::index::lookup;
use super::records::{
    Details, Facts, HexText, PartRow, Record, StoredChecksum, StoredChoice, UploadRow, UploadStart,
};
use crate::body::Body;
use crate::error::BlobError;
use crate::key::Key;
use crate::listing::MAX_PAGE;
use crate::meta::{ETag, hex};
use crate::store::Written;
use crate::upload::{
    ChecksumChoice, CompleteOptions, MAX_PART_NUMBER, PartChoice, PartInfo, PartPage, UploadId,
    UploadOptions,
};

/// So often a completion begins again because parts were replaced meanwhile.
const COMPLETIONS: usize = 8;
/// So many expired uploads are ended at a time.
const EXPIRED_AT_ONCE: usize = 64;
const ID_BYTES: usize = 16;

pub(super) async fn create(
    inner: &Arc<Inner>,
    key: &Key,
    options: UploadOptions,
) -> Result<UploadId, BlobError> {
    if let Some((algorithm, ChecksumChoice::FullObject)) = options.checksum
        && crc_of(algorithm).is_none()
    {
        return Err(BlobError::Unsupported {
            store: inner.folder.name().to_owned(),
            operation: format!("an upload in parts with a full-object {algorithm}"),
            reason: "it cannot be computed from those of the parts".to_owned(),
        });
    }
    let mut id = [0; ID_BYTES];
    SystemRandom::new()
        .fill(&mut id)
        .map_err(|_| inner.system("make an upload id", "the system gives no random bytes"))?;
    let id = hex(&id);
    let begun_ms = clock::unix_ms();
    let start = UploadStart {
        headers: options.headers,
        tags: options.tags,
        checksum: options.checksum.map(StoredChoice::of),
    };
    let record = Record::Upload {
        key: HexText::of(key.as_bytes()),
        id: id.clone(),
        begun_ms,
        start: start.clone(),
    };
    let written = inner.write_record(&record).await?;
    let row = UploadRow {
        key: key.clone(),
        id: id.clone(),
        generation: written.file.generation,
        begun_ms,
        start,
    };
    let change = Change::CreateUpload(Box::new(row));
    inner
        .committer
        .commit(change, vec![written.pending])
        .await?;
    Ok(UploadId(id))
}

pub(super) async fn put_part(
    inner: &Arc<Inner>,
    key: &Key,
    upload: &UploadId,
    number: u16,
    mut body: Body,
) -> Result<PartInfo, BlobError> {
    if !(1..=MAX_PART_NUMBER).contains(&number) {
        return Err(BlobError::InvalidPart { number });
    }
    // So that no body is taken in for nothing; the commit looks again.
    find(inner, key, upload, u16::MAX, 1).await?;
    let mut made = None;
    let written = inner
        .write_body(&mut body, |digests| {
            let etag = ETag::of_md5(digests.md5);
            let checksum = digests.checksum.as_ref().map(StoredChecksum::from);
            let modified_ms = clock::unix_ms();
            made = Some((etag.clone(), checksum.clone(), modified_ms));
            Record::Part {
                key: HexText::of(key.as_bytes()),
                upload: upload.0.clone(),
                number,
                etag,
                modified_ms,
                checksum,
            }
        })
        .await?;
    let (etag, checksum, modified_ms) =
        made.ok_or_else(|| inner.system("write a part", "its footer is missing"))?;
    let part = PartRow {
        number,
        file: written.file,
        etag,
        modified_ms,
        checksum,
    };
    let info = part.info();
    let change = Change::PutPart {
        key: key.clone(),
        upload: upload.0.clone(),
        part,
    };
    inner
        .committer
        .commit(change, vec![written.pending])
        .await?;
    Ok(info)
}

async fn find(
    inner: &Arc<Inner>,
    key: &Key,
    upload: &UploadId,
    after: u16,
    limit: usize,
) -> Result<(UploadRow, Vec<PartRow>), BlobError> {
    let (key, id) = (key.clone(), upload.0.clone());
    let found = inner
        .look_up(move |c| lookup::upload_with_parts(c, &key, &id, after, limit))
        .await?;
    found.ok_or(BlobError::NoSuchUpload)
}

pub(super) async fn complete(
    inner: &Arc<Inner>,
    key: &Key,
    upload: &UploadId,
    choices: Vec<PartChoice>,
    options: CompleteOptions,
) -> Result<Written, BlobError> {
    let mut last = BlobError::NoSuchUpload;
    for _ in 0..COMPLETIONS {
        let (row, there) = find(inner, key, upload, 0, usize::MAX).await?;
        let wanted = row.start.checksum.as_ref().and_then(StoredChoice::read);
        let chosen = choose(there, &choices, wanted, options.checksum.as_ref())?;
        match publish(inner, row, chosen, &options).await {
            Err(conflict @ BlobError::Conflict { .. }) => last = conflict,
            other => return other,
        }
    }
    Err(last)
}

/// Writes the manifest, and makes it the object if the parts are still the same.
async fn publish(
    inner: &Arc<Inner>,
    row: UploadRow,
    chosen: Chosen,
    options: &CompleteOptions,
) -> Result<Written, BlobError> {
    let facts = Facts {
        size: chosen.size,
        modified_ms: clock::unix_ms(),
        etag: chosen.etag.clone(),
        details: Details {
            headers: row.start.headers,
            tags: row.start.tags,
            checksum: chosen.checksum.as_ref().map(StoredChecksum::from),
        },
    };
    let answer = Written {
        etag: chosen.etag,
        checksum: chosen.checksum,
        modified_ms: facts.modified_ms,
    };
    let record = Record::Manifest {
        key: HexText::of(row.key.as_bytes()),
        facts: facts.clone(),
        upload: row.id.clone(),
        parts: chosen.parts.clone(),
    };
    let written = inner.write_record(&record).await?;
    let completion = Completion {
        object: Publication {
            key: row.key,
            facts,
            file: written.file,
            condition: options.condition.clone(),
        },
        upload: row.id,
        parts: chosen.parts,
    };
    let change = Change::Complete(Box::new(completion));
    inner
        .committer
        .commit(change, vec![written.pending])
        .await?;
    Ok(answer)
}

pub(super) async fn abort(
    inner: &Arc<Inner>,
    key: &Key,
    upload: &UploadId,
) -> Result<(), BlobError> {
    let change = Change::Abort {
        key: key.clone(),
        upload: upload.0.clone(),
        before_ms: None,
    };
    inner.committer.commit(change, Vec::new()).await.map(drop)
}

pub(super) async fn list_parts(
    inner: &Arc<Inner>,
    key: &Key,
    upload: &UploadId,
    after: u16,
    limit: usize,
) -> Result<PartPage, BlobError> {
    let limit = limit.clamp(1, MAX_PAGE);
    let (row, there) = find(inner, key, upload, after, limit.saturating_add(1)).await?;
    Ok(PartPage {
        more: there.len() > limit,
        parts: there.iter().take(limit).map(PartRow::info).collect(),
        checksum: row.start.checksum.as_ref().and_then(StoredChoice::read),
    })
}

/// Ends the uploads begun before a time; answers how many.
pub(super) async fn expire(inner: &Arc<Inner>, before_ms: u64) -> Result<u64, BlobError> {
    let mut ended = 0_u64;
    loop {
        let expired = inner
            .look_up(move |c| lookup::expired_uploads(c, before_ms, EXPIRED_AT_ONCE))
            .await?;
        if expired.is_empty() {
            return Ok(ended);
        }
        for (key, upload) in expired {
            let change = Change::Abort {
                key,
                upload,
                before_ms: Some(before_ms),
            };
            match inner.committer.commit(change, Vec::new()).await {
                Ok(_) => ended = ended.saturating_add(1),
                // Somebody else ended it first.
                Err(BlobError::NoSuchUpload) => {}
                Err(other) => return Err(other),
            }
        }
    }
}
