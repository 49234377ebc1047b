//! Uploads in parts: begun, filled, listed, aborted.
//!
//! Not completed here. Invariant: whoever changes an upload or its parts holds the lock of the
//! upload's row, so a part is never published into an upload that has ended.

use breccia_core::error::Effect;
use breccia_net::clock;
use bytes::Bytes;

use super::driver::{Answer, Row, Value, signed};
use super::fault::Fault;
use super::list::{behind, end_of, page_values};
use super::pool::Session;
use super::put::{Stored, settle};
use super::record::{self, PartRecord, UploadRecord};
use super::statements::Query;
use super::store::Inner;
use super::transaction::Work;
use crate::body::Body;
use crate::error::BlobError;
use crate::key::Key;
use crate::listing::MAX_PAGE;
use crate::meta::{ETag, hex};
use crate::upload::{
    MAX_PART_NUMBER, PartInfo, PartPage, UploadId, UploadInfo, UploadOptions, UploadPage,
};

/// A part's row.
pub(super) struct PartRow {
    pub(super) info: PartInfo,
    pub(super) generation: i64,
}

impl PartRow {
    fn read(mut row: Row) -> Result<Self, Fault> {
        let number = row.integer()?;
        let generation = row.integer()?;
        let number = u16::try_from(number)
            .map_err(|_| Fault::Damaged(format!("a part with number {number}")))?;
        Ok(Self {
            generation,
            info: PartInfo {
                number,
                size: row.unsigned()?,
                modified_ms: row.unsigned()?,
                etag: ETag::from_text(row.text()?),
                checksum: record::checksum_of(&row.text()?)?,
            },
        })
    }

    pub(super) fn record(&self) -> PartRecord {
        PartRecord(self.info.number, self.info.size, self.generation)
    }

    pub(super) fn read_all(answer: Answer) -> Result<Vec<Self>, Fault> {
        answer.rows.into_iter().map(Self::read).collect()
    }
}

/// The columns that name an upload.
pub(super) fn upload_name(key: &Key, upload: &UploadId) -> Vec<Value> {
    vec![key.bytes().into(), id(upload)]
}

fn id(upload: &UploadId) -> Value {
    Value::Bytes(record::name_bytes(&upload.0))
}

/// An upload's record, locked; it is there or [`BlobError::NoSuchUpload`].
pub(super) async fn lock_upload(
    session: &mut Session,
    key: &Key,
    upload: &UploadId,
) -> Result<UploadRecord, Fault> {
    let answer = session
        .run(Query::LockUpload, upload_name(key, upload))
        .await?;
    let mut row = answer.first().ok_or(BlobError::NoSuchUpload)?;
    record::from_text(&row.text()?)
}

/// Within a transaction: an upload and the rows of its parts go; these generations become garbage.
pub(super) async fn remove_upload(
    session: &mut Session,
    key: &Key,
    upload: &UploadId,
    garbage: &[i64],
) -> Result<(), Fault> {
    session.run(Query::DeleteParts, vec![id(upload)]).await?;
    session
        .run(Query::DeleteUpload, upload_name(key, upload))
        .await?;
    if let Some(first) = garbage.first() {
        let all = record::generations_text(garbage.iter().copied());
        let values = vec![(*first).into(), all.into()];
        session.run(Query::InsertGarbage, values).await?;
    }
    Ok(())
}

/// All parts of an upload, by number.
pub(super) async fn all_parts(
    session: &mut Session,
    upload: &UploadId,
) -> Result<Vec<PartRow>, Fault> {
    let values = vec![id(upload), 0.into(), i64::from(MAX_PART_NUMBER).into()];
    PartRow::read_all(session.run(Query::ListParts, values).await?)
}

impl Inner {
    /// Begins an upload.
    pub(super) async fn create_upload(
        &self,
        key: &Key,
        options: UploadOptions,
    ) -> Result<UploadId, BlobError> {
        let mut name = self.generation()?.to_be_bytes().to_vec();
        name.extend_from_slice(&self.generation()?.to_be_bytes());
        let upload = UploadId(hex(&name));
        let record = UploadRecord::new(options.headers, options.tags, options.checksum);
        let mut values = upload_name(key, &upload);
        values.push(signed(clock::unix_ms()));
        values.push(record::to_text(&record).into());
        // If the answer is lost, an upload nobody knows of stays until it expires.
        self.write(Query::InsertUpload, values, Effect::Unknown)
            .await?;
        Ok(upload)
    }

    /// Writes a part.
    pub(super) async fn put_part(
        &self,
        key: &Key,
        upload: &UploadId,
        number: u16,
        body: Body,
    ) -> Result<PartInfo, BlobError> {
        if number == 0 || number > MAX_PART_NUMBER {
            return Err(BlobError::InvalidPart { number });
        }
        self.upload_record(key, upload).await?;
        let stored = self.store_body(body).await?;
        let info = PartInfo {
            number,
            size: stored.size,
            etag: ETag::of_md5(stored.digests.md5),
            checksum: stored.digests.checksum.clone(),
            modified_ms: clock::unix_ms(),
        };
        let publish = PublishPart {
            key,
            upload,
            info: &info,
            stored: &stored,
            store: &self.name,
        };
        let published = self.transact(&publish).await;
        self.settle_failure(&stored, published).await?;
        Ok(info)
    }

    async fn upload_record(&self, key: &Key, upload: &UploadId) -> Result<UploadRecord, BlobError> {
        let answer = self
            .ask(Query::FindUpload, upload_name(key, upload))
            .await?;
        let mut row = answer.first().ok_or(BlobError::NoSuchUpload)?;
        let text = row.text().and_then(|text| record::from_text(&text));
        text.map_err(|fault| self.told(fault))
    }

    /// Ends an upload and forgets its parts.
    pub(super) async fn abort_upload(&self, key: &Key, upload: &UploadId) -> Result<(), BlobError> {
        self.transact(&Abort { key, upload }).await
    }

    /// A page of parts.
    pub(super) async fn list_parts(
        &self,
        key: &Key,
        upload: &UploadId,
        after: u16,
        limit: usize,
    ) -> Result<PartPage, BlobError> {
        let record = self.upload_record(key, upload).await?;
        let limit = limit.clamp(1, MAX_PAGE);
        let most = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
        let values = vec![id(upload), i64::from(after).into(), most.into()];
        let answer = self.ask(Query::ListParts, values).await?;
        let rows = PartRow::read_all(answer).map_err(|fault| self.told(fault))?;
        let mut parts: Vec<PartInfo> = rows.into_iter().map(|row| row.info).collect();
        let more = parts.len() > limit;
        parts.truncate(limit);
        let checksum = record.checksum().map_err(|fault| self.told(fault))?;
        Ok(PartPage {
            parts,
            more,
            checksum,
        })
    }

    /// A page of uploads.
    pub(super) async fn list_uploads(
        &self,
        prefix: &Bytes,
        after: Option<(Key, Option<UploadId>)>,
        limit: usize,
    ) -> Result<UploadPage, BlobError> {
        let limit = limit.clamp(1, MAX_PAGE);
        let most = limit.saturating_add(1);
        let mut uploads = Vec::new();
        let mut from = prefix.clone();
        if let Some((key, known)) = after {
            let same_key = key.as_bytes().starts_with(prefix);
            if let Some(known) = known.filter(|_| same_key) {
                let mut values = upload_name(&key, &known);
                values.push(i64::try_from(most).unwrap_or(i64::MAX).into());
                let answer = self.ask(Query::ListUploadsOfKey, values).await?;
                uploads.extend(read_uploads(answer).map_err(|fault| self.told(fault))?);
            }
            from = from.max(behind(key.as_bytes()));
        }
        let left = most.saturating_sub(uploads.len());
        if left > 0 && from < end_of(prefix) {
            let values = page_values(from, prefix, left);
            let answer = self.ask(Query::ListUploads, values).await?;
            uploads.extend(read_uploads(answer).map_err(|fault| self.told(fault))?);
        }
        let more = uploads.len() > limit;
        uploads.truncate(limit);
        Ok(UploadPage { uploads, more })
    }
}

fn read_uploads(answer: Answer) -> Result<Vec<UploadInfo>, Fault> {
    let read = |mut row: Row| {
        Ok(UploadInfo {
            key: Key::new(row.bytes()?)?,
            id: UploadId(row.text()?),
            begun_ms: row.unsigned()?,
        })
    };
    answer.rows.into_iter().map(read).collect()
}

struct PublishPart<'a> {
    key: &'a Key,
    upload: &'a UploadId,
    info: &'a PartInfo,
    stored: &'a Stored,
    store: &'a str,
}

impl Work for PublishPart<'_> {
    type Output = ();

    async fn run(&self, session: &mut Session) -> Result<(), Fault> {
        lock_upload(session, self.key, self.upload).await?;
        settle(session, self.stored, self.store).await?;
        let number = i64::from(self.info.number);
        let named = || vec![id(self.upload), number.into()];
        let there = session.run(Query::FindPart, named()).await?;
        if let Some(mut row) = there.first() {
            let old = row.integer()?;
            session.run(Query::DeletePart, named()).await?;
            let all = record::generations_text(std::iter::once(old));
            let values = vec![old.into(), all.into()];
            session.run(Query::InsertGarbage, values).await?;
        }
        let mut values = named();
        values.extend([
            self.stored.generation.into(),
            signed(self.info.size),
            signed(self.info.modified_ms),
            self.info.etag.as_str().into(),
            record::checksum_text(self.info.checksum.as_ref()).into(),
        ]);
        session.run(Query::InsertPart, values).await?;
        Ok(())
    }
}

struct Abort<'a> {
    key: &'a Key,
    upload: &'a UploadId,
}

impl Work for Abort<'_> {
    type Output = ();

    async fn run(&self, session: &mut Session) -> Result<(), Fault> {
        lock_upload(session, self.key, self.upload).await?;
        let parts = all_parts(session, self.upload).await?;
        let garbage: Vec<i64> = parts.iter().map(|part| part.generation).collect();
        remove_upload(session, self.key, self.upload, &garbage).await
    }
}
