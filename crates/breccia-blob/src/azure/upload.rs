//! Uploads in parts: blocks of one staging blob an upload, copied to the key when they are complete.
//!
//! The service keeps blocks that nobody commits for a week. Invariant: blocks are never staged on a
//! key's own blob while another upload of that key could drop them unnoticed.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use hyper::Method;
use hyper::header::HeaderMap;

use super::AzureStore;
use super::object::{MAX_COPY_BYTES, written_ms};
use super::refusal::MAX_BLOCK_BYTES;
use super::wire::{header, md5_of, quoted};
use crate::body::Body;
use crate::condition::ConditionalCall;
use crate::error::BlobError;
use crate::http::Repeat;
use crate::key::Key;
use crate::meta::{ETag, Headers};
use crate::packed::assembly::Assembly;
use crate::packed::uploads::{self, PartNote};
use crate::packed::{Guard, Member as _, Record, guard, random};
use crate::store::Written;
use crate::upload::{CompleteOptions, MAX_PART_NUMBER, PartChoice, PartInfo, UploadId};

/// How much of a staged blob the service copies at a time: 128 MiB.
const COPY_BLOCK_BYTES: u64 = 128 * 1024 * 1024;
/// How many of those are under way at the same time.
const COPY_BLOCKS_AT_ONCE: usize = 4;
/// How often blocks are copied anew because another write to the key has dropped them.
const COPY_ATTEMPTS: u32 = 3;

/// What is to be published, and as what.
struct Publication<'a> {
    stage: &'a str,
    /// The version of the staged blob.
    version: &'a str,
    size: u64,
    name: &'a str,
    note: &'a str,
    headers: &'a Headers,
    guard: &'a Guard,
}

impl AzureStore {
    fn stage_name(&self, id: &str) -> String {
        self.names.reserved(&format!("~stage/{id}"))
    }

    pub(super) async fn write_part(
        &self,
        key: &Key,
        upload: &UploadId,
        number: u16,
        mut body: Body,
    ) -> Result<PartInfo, BlobError> {
        self.name_of(key)?;
        uploads::check_number(number)?;
        self.bound(body.size(), MAX_BLOCK_BYTES)?;
        uploads::require(self, key, upload).await?;
        let block = if body.size() == 0 {
            // There are no blocks without bytes.
            body.collect().await?;
            None
        } else {
            let id = format!("{number:05}-{}", random::<9>(&self.name)?);
            let block = STANDARD.encode(id);
            let query = [("comp", "block"), ("blockid", block.as_str())];
            let head = self.head_of(Method::PUT, &self.stage_name(&upload.0), &query);
            let answer = self.send_body(head, &mut body).await?;
            self.compare_block(&answer.headers, &body)?;
            Some(block)
        };
        let digests = body.digests().cloned();
        let digests =
            digests.ok_or_else(|| self.nonsense("success without the whole body", true))?;
        let note = PartNote::new(digests.checksum.as_ref());
        let note = note.elsewhere(body.size(), digests.md5, block);
        let name = uploads::part_name(self, upload, number);
        let head = self.put_head(&name, &note.pack(), &Guard::None)?;
        let answer = self.call(head, Bytes::new(), Repeat::WhenFailed).await?;
        Ok(PartInfo {
            number,
            size: body.size(),
            etag: ETag::of_md5(digests.md5),
            checksum: digests.checksum,
            modified_ms: written_ms(&answer.headers),
        })
    }

    fn compare_block(&self, headers: &HeaderMap, body: &Body) -> Result<(), BlobError> {
        let theirs = header(headers, "content-md5").and_then(md5_of);
        match (theirs, body.digests()) {
            (Some(theirs), Some(ours)) if theirs != ours.md5 => Err(self.nonsense(
                "Content-MD5 is not the MD5 of the block that was sent",
                true,
            )),
            _ => Ok(()),
        }
    }

    pub(super) async fn finish_upload(
        &self,
        key: &Key,
        upload: &UploadId,
        choices: Vec<PartChoice>,
        options: CompleteOptions,
    ) -> Result<Written, BlobError> {
        let name = self.name_of(key)?;
        let begun = uploads::find(self, key, upload).await?;
        let stored = uploads::parts(self, upload, 0, usize::from(MAX_PART_NUMBER)).await?;
        let assembly = Assembly::choose(stored, &choices, begun.checksum(), &options)?;
        let guard = guard::guard(
            self,
            key,
            &options.condition,
            Some(ConditionalCall::CompleteIfAbsent),
            ConditionalCall::CompleteIfMatch,
        )
        .await?;
        if guard == Guard::IfAbsent {
            // Seen early, as blocks that are not chosen are gone once others are committed.
            match self.see(&name).await {
                Ok(_) => return Err(BlobError::PreconditionFailed),
                Err(BlobError::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        let mut record = Record::new(begun.headers, begun.tags)
            .with_checksum(assembly.checksum.as_ref())
            .with_parts(&assembly.sizes());
        record.etag = Some(assembly.etag.clone());
        let note = record.pack(&self.name)?;
        let stage = self.stage_name(&upload.0);
        let blocks = assembly.parts.iter().filter_map(|part| part.block.clone());
        let blocks: Vec<String> = blocks.collect();
        let staged = self
            .commit(&stage, &blocks, &record.headers, "", &Guard::None)
            .await?;
        let publication = Publication {
            stage: &stage,
            version: header(&staged, "etag").unwrap_or_default(),
            size: assembly.size,
            name: &name,
            note: &note,
            headers: &record.headers,
            guard: &guard,
        };
        let headers = match self.publish_staged(&publication).await {
            Ok(headers) => headers,
            Err(error) => {
                return Err(guard::judge(self, error, &name, &guard, &options.condition).await);
            }
        };
        // The object is there; what is left over is for maintenance.
        let _ = uploads::end(self, upload).await;
        Ok(Written {
            etag: assembly.etag,
            checksum: assembly.checksum,
            modified_ms: written_ms(&headers),
        })
    }

    /// `Put Block List`: makes a blob of blocks.
    async fn commit(
        &self,
        name: &str,
        blocks: &[String],
        headers: &Headers,
        note: &str,
        guard: &Guard,
    ) -> Result<HeaderMap, BlobError> {
        let mut list = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>");
        for block in blocks {
            // Writing to a String cannot fail.
            let _ = write!(list, "<Latest>{block}</Latest>");
        }
        list.push_str("</BlockList>");
        let mut head = self.head_of(Method::PUT, name, &[("comp", "blocklist")]);
        self.set_properties(&mut head, headers)?;
        self.set_note(&mut head, note)?;
        self.set_guard(&mut head, guard)?;
        // A staging blob may be committed twice: its blocks are the same.
        let repeat = if note.is_empty() && *guard == Guard::None {
            Repeat::WhenFailed
        } else {
            Repeat::Never
        };
        Ok(self.call(head, list.into(), repeat).await?.headers)
    }

    async fn publish_staged(&self, publication: &Publication<'_>) -> Result<HeaderMap, BlobError> {
        if publication.size <= MAX_COPY_BYTES {
            return self.publish_at_once(publication).await;
        }
        for _ in 0..COPY_ATTEMPTS {
            let blocks = match self.copy_blocks(publication).await {
                // The emulator cannot copy blocks, but copies any size at once.
                Err(BlobError::Unsupported { .. }) => {
                    return self.publish_at_once(publication).await;
                }
                blocks => blocks?,
            };
            let Publication {
                name,
                note,
                headers,
                guard,
                ..
            } = publication;
            match self.commit(name, &blocks, headers, note, guard).await {
                Err(BlobError::Server { code, .. }) if code == "InvalidBlockList" => {}
                answer => return answer,
            }
        }
        Err(BlobError::Conflict {
            store: self.name.clone(),
        })
    }

    async fn publish_at_once(&self, publication: &Publication<'_>) -> Result<HeaderMap, BlobError> {
        let Publication {
            stage,
            version,
            name,
            note,
            guard,
            ..
        } = publication;
        let copy = self.copy_blob(stage, version, name, note, guard);
        Ok(copy.await?.headers)
    }

    /// Has the service copy a staged blob as blocks of the key's own, which nobody sees yet.
    async fn copy_blocks(&self, publication: &Publication<'_>) -> Result<Vec<String>, BlobError> {
        let random = random::<9>(&self.name)?;
        let count = publication.size.div_ceil(COPY_BLOCK_BYTES);
        let copies = (0..count).map(|place| {
            let id = STANDARD.encode(format!("{place:05}-{random}"));
            let first = place.saturating_mul(COPY_BLOCK_BYTES);
            let end = first.saturating_add(COPY_BLOCK_BYTES).min(publication.size);
            async move {
                let query = [("comp", "block"), ("blockid", id.as_str())];
                let mut head = self.head_of(Method::PUT, publication.name, &query);
                let source = self.source_url(publication.stage);
                self.set(&mut head, "x-ms-copy-source", &source)?;
                let range = format!("bytes={first}-{}", end.saturating_sub(1));
                self.set(&mut head, "x-ms-source-range", &range)?;
                let version = quoted(publication.version);
                self.set(&mut head, "x-ms-source-if-match", &version)?;
                self.call(head, Bytes::new(), Repeat::WhenFailed).await?;
                Ok::<_, BlobError>(id)
            }
        });
        stream::iter(copies)
            .buffered(COPY_BLOCKS_AT_ONCE)
            .try_collect()
            .await
    }

    /// Drops the blocks of a staging blob, committed or not.
    pub(super) async fn drop_stage(&self, id: &str) -> Result<(), BlobError> {
        let stage = self.stage_name(id);
        // Blocks that were never committed cannot be deleted, but replaced.
        self.write_small(&stage, Bytes::new(), "", &Guard::None)
            .await?;
        self.remove(&stage, &Guard::None).await.map(drop)
    }
}
