//! Uploads in parts: a reserved object a part, composed when they are complete.
//!
//! ```text
//! parts (up to 10,000) ─▶ joins of 32 each ─▶ joins of joins ─▶ one compose onto the key
//! ```
//!
//! Invariant: what is composed are the generations that were chosen; the last compose publishes the
//! object whole, with its record.

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use hyper::Method;
use serde_json::{Map, Value, json};

use super::GcsStore;
use super::wire::{FIELDS, resource};
use crate::body::Body;
use crate::checksum::Checksum;
use crate::condition::ConditionalCall;
use crate::error::BlobError;
use crate::http::Repeat;
use crate::key::Key;
use crate::meta::{ETag, Headers};
use crate::packed::assembly::Assembly;
use crate::packed::listing::walk;
use crate::packed::uploads::{self, PartNote};
use crate::packed::{Guard, MAX_COLLECTED_BYTES, PARALLEL, Record, Seen, guard, random};
use crate::store::Written;
use crate::upload::{CompleteOptions, MAX_PART_NUMBER, PartChoice, PartInfo, UploadId};

/// The most objects that one compose takes.
const MAX_SOURCES: usize = 32;
/// The most joins that an upload can leave behind: those of one attempt, some times over.
const MAX_JOINS: usize = 10_000;

/// A generation of an object.
#[derive(Debug, Clone)]
struct Source {
    name: String,
    generation: String,
}

impl GcsStore {
    pub(super) async fn write_part(
        &self,
        key: &Key,
        upload: &UploadId,
        number: u16,
        mut body: Body,
    ) -> Result<PartInfo, BlobError> {
        self.name_of(key)?;
        uploads::check_number(number)?;
        uploads::require(self, key, upload).await?;
        let name = uploads::part_name(self, upload, number);
        let note = |checksum: Option<&Checksum>| Ok(PartNote::new(checksum).pack());
        let known_early = body.size() <= MAX_COLLECTED_BYTES || body.announced().is_some();
        let headers = Headers::default();
        let (seen, digests) = self
            .put_named(&name, &mut body, note, &headers, &Guard::None)
            .await?;
        if !known_early && digests.checksum.is_some() {
            // What came behind the bytes: nobody sees the part yet, so it may be told later.
            let note = PartNote::new(digests.checksum.as_ref()).pack();
            self.patch_note(&name, (&seen.native, seen.revision), &note)
                .await
                .map_err(|error| match error {
                    // Another upload of the same part was faster.
                    BlobError::PreconditionFailed | BlobError::NotFound => self.conflict(),
                    error => error,
                })?;
        }
        Ok(PartInfo {
            number,
            size: body.size(),
            etag: ETag::of_md5(digests.md5),
            checksum: digests.checksum,
            modified_ms: seen.modified_ms,
        })
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
        let mut record = Record::new(begun.headers, begun.tags)
            .with_checksum(assembly.checksum.as_ref())
            .with_parts(&assembly.sizes());
        record.etag = Some(assembly.etag.clone());
        let resource = resource(&record.pack(&self.name)?, &record.headers);
        let sources = assembly.parts.iter().map(|part| Source {
            name: part.name.clone(),
            generation: part.native.clone(),
        });
        let sources = self.join(upload, sources.collect()).await?;
        let composed = self.compose(&name, &sources, resource, &guard, Repeat::Never);
        let seen = match composed.await {
            Ok(seen) => seen,
            // The upload was ended meanwhile.
            Err(BlobError::NotFound) => return Err(BlobError::NoSuchUpload),
            Err(error) => {
                return Err(guard::judge(self, error, &name, &guard, &options.condition).await);
            }
        };
        // The object is there; what is left over is for maintenance.
        let _ = uploads::end(self, upload).await;
        Ok(Written {
            etag: assembly.etag,
            checksum: assembly.checksum,
            modified_ms: seen.modified_ms,
        })
    }

    /// Joins objects until one compose can take them.
    async fn join(
        &self,
        upload: &UploadId,
        mut sources: Vec<Source>,
    ) -> Result<Vec<Source>, BlobError> {
        let attempt = random::<8>(&self.name)?;
        let mut level = 0_u32;
        while sources.len() > MAX_SOURCES {
            let joins = sources
                .chunks(MAX_SOURCES)
                .enumerate()
                .map(|(place, some)| {
                    let own = format!("~join/{upload}/{attempt}-{level}-{place:04}");
                    let name = self.names.reserved(&own);
                    async move {
                        let repeat = Repeat::WhenFailed;
                        let seen = self
                            .compose(&name, some, Map::new(), &Guard::None, repeat)
                            .await
                            .map_err(|error| match error {
                                BlobError::NotFound => BlobError::NoSuchUpload,
                                error => error,
                            })?;
                        Ok::<_, BlobError>(Source {
                            name,
                            generation: seen.native,
                        })
                    }
                });
            let joins: Vec<_> = joins.collect();
            sources = stream::iter(joins).buffered(PARALLEL).try_collect().await?;
            level = level.saturating_add(1);
        }
        Ok(sources)
    }

    /// Makes one object of at most 32 others.
    async fn compose(
        &self,
        name: &str,
        sources: &[Source],
        mut resource: Map<String, Value>,
        guard: &Guard,
        repeat: Repeat,
    ) -> Result<Seen, BlobError> {
        resource
            .entry("contentType")
            .or_insert_with(|| "application/octet-stream".into());
        let sources: Vec<Value> = sources
            .iter()
            .map(|source| json!({ "name": source.name, "generation": source.generation }))
            .collect();
        let json = json!({ "sourceObjects": sources, "destination": resource }).to_string();
        let target = self
            .object(name)
            .segment("compose")
            .with("fields", FIELDS)
            .under(guard);
        let head = self.json_head(target, Method::POST)?;
        let answer = self.call(head, json.into(), repeat).await?;
        self.seen_in(&answer, true)
    }

    /// Publishes one object as another, as completing an upload does.
    pub(super) async fn compose_one(
        &self,
        from: &str,
        to: &str,
        guard: &Guard,
    ) -> Result<(), BlobError> {
        let source = Source {
            name: from.to_owned(),
            generation: self.see(from).await?.native,
        };
        self.compose(to, &[source], Map::new(), guard, Repeat::Never)
            .await
            .map(drop)
    }

    /// Removes what parts were joined in.
    pub(super) async fn drop_joins(&self, id: &str) -> Result<(), BlobError> {
        let prefix = self.names.reserved(&format!("~join/{id}/"));
        let found = walk(self, prefix, None, MAX_JOINS).await?;
        let names = found.into_iter().map(|(name, _)| name).collect();
        uploads::remove_all(self, names).await
    }

    /// A small object, whose repetition is harmless without a guard.
    pub(super) async fn put_small(
        &self,
        name: &str,
        bytes: Bytes,
        note: &str,
        guard: &Guard,
    ) -> Result<(), BlobError> {
        let resource = resource(note, &Headers::default());
        self.put_at_once(
            name,
            &bytes,
            resource,
            guard,
            Repeat::of_write(*guard != Guard::None),
        )
        .await
        .map(drop)
    }
}
