//! Single objects: put, get, head, delete, copy, tags.
//!
//! Invariant: a put is one streamed `Put Blob`, sent once; the service has it whole only after the
//! body's clean end.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::header::HeaderMap;
use hyper::{Method, StatusCode};

use super::AzureStore;
use super::refusal::MAX_PUT_BYTES;
use super::wire::{header, md5_of, quoted};
use crate::body::Body;
use crate::condition::{ConditionalCall, WriteCondition};
use crate::error::BlobError;
use crate::http::{Collected, HttpResponse, MAX_ANSWER_BYTES, Repeat, RequestHead};
use crate::key::Key;
use crate::meta::{ETag, ObjectMeta, Tags};
use crate::packed::{Guard, MAX_COLLECTED_BYTES, Member as _, Record, Seen, guard};
use crate::s3::codec::range::ContentRange;
use crate::s3::codec::time::parse_http_date;
use crate::store::{CopyOptions, GetOptions, Opened, PutOptions, Span, Written, copy_streamed};

/// The largest blob that the service copies while we wait: 256 MiB.
pub(super) const MAX_COPY_BYTES: u64 = 256 * 1024 * 1024;
/// How often tags are set anew because somebody else changed the object's metadata.
const TAG_ATTEMPTS: u32 = 8;

impl AzureStore {
    pub(super) async fn put_object(
        &self,
        key: &Key,
        mut body: Body,
        options: PutOptions,
    ) -> Result<Written, BlobError> {
        let name = self.name_of(key)?;
        self.bound(body.size(), MAX_PUT_BYTES)?;
        let guard = guard::guard(
            self,
            key,
            &options.condition,
            Some(ConditionalCall::PutIfAbsent),
            ConditionalCall::PutIfMatch,
        )
        .await?;
        let record = Record::new(options.headers, options.tags);
        // The record of a small body can hold what came behind the bytes, too.
        let at_hand = if body.size() <= MAX_COLLECTED_BYTES {
            Some(body.collect().await?)
        } else {
            None
        };
        let known = body.digests().and_then(|digests| digests.checksum.as_ref());
        let record = record.with_checksum(known.or(body.announced()));
        let mut head = self.put_head(&name, &record.pack(&self.name)?, &guard)?;
        self.set_properties(&mut head, &record.headers)?;
        let sent = match at_hand {
            Some(bytes) => {
                let md5 = body.digests().map(|digests| STANDARD.encode(digests.md5));
                self.set(&mut head, "content-md5", &md5.unwrap_or_default())?;
                self.call(head, bytes, Repeat::Never).await
            }
            None => self.send_body(head, &mut body).await,
        };
        let answer = match sent {
            Ok(answer) => answer,
            Err(error) => {
                return Err(guard::judge(self, error, &name, &guard, &options.condition).await);
            }
        };
        let digests = body.digests().cloned();
        let digests =
            digests.ok_or_else(|| self.nonsense("success without the whole body", true))?;
        Ok(Written {
            etag: self.compare(&answer.headers, digests.md5)?,
            checksum: digests.checksum,
            modified_ms: written_ms(&answer.headers),
        })
    }

    pub(super) fn bound(&self, size: u64, limit: u64) -> Result<(), BlobError> {
        if size <= limit {
            return Ok(());
        }
        Err(BlobError::TooLarge {
            store: self.name.clone(),
            limit,
        })
    }

    pub(super) fn put_head(
        &self,
        name: &str,
        note: &str,
        guard: &Guard,
    ) -> Result<RequestHead, BlobError> {
        let mut head = self.head_of(Method::PUT, name, &[]);
        self.set(&mut head, "x-ms-blob-type", "BlockBlob")?;
        self.set_note(&mut head, note)?;
        self.set_guard(&mut head, guard)?;
        Ok(head)
    }

    /// The tag of what was written; the service's MD5 must be that of what was sent.
    fn compare(&self, headers: &HeaderMap, md5: [u8; 16]) -> Result<ETag, BlobError> {
        match header(headers, "content-md5").and_then(md5_of) {
            Some(theirs) if theirs == md5 => Ok(ETag::of_md5(md5)),
            Some(theirs) => Err(self.nonsense(
                format!(
                    "Content-MD5 {} is not the MD5 of what was sent ({}): what lies there now may be damaged",
                    ETag::of_md5(theirs),
                    ETag::of_md5(md5)
                ),
                true,
            )),
            None => Ok(ETag::unknown(
                quoted(header(headers, "etag").unwrap_or_default()).as_bytes(),
            )),
        }
    }

    pub(super) async fn see(&self, name: &str) -> Result<Seen, BlobError> {
        let head = self.head_of(Method::HEAD, name, &[]);
        let answer = self.call(head, Bytes::new(), Repeat::WhenFailed).await?;
        self.seen_in(&answer.headers)
    }

    pub(super) async fn head_object(&self, key: &Key) -> Result<ObjectMeta, BlobError> {
        self.see(&self.name_of(key)?).await?.meta(&self.name)
    }

    pub(super) async fn get_object(
        &self,
        key: &Key,
        options: GetOptions,
    ) -> Result<Opened, BlobError> {
        let name = self.name_of(key)?;
        // The service knows no "last bytes", and an answer that is not wanted would cost its
        // connection.
        let last = matches!(options.span, Some(Span::Last(_)));
        let mut pinned = None;
        let mut span = options.span;
        if last || !options.conditions.is_empty() {
            let meta = self.see(&name).await?.meta(&self.name)?;
            options.conditions.check(&meta)?;
            if let Some(Span::Last(_)) = span {
                let range = Span::of(span.unwrap_or(Span::From(0)), meta.size)?;
                span = Some(Span::From(range.start));
                pinned = Some(meta.native.0);
            }
        }
        let head = self.head_of(Method::GET, &name, &[]);
        let mut head = head.in_lane(options.lane());
        match span {
            Some(Span::Between(first, end)) if first <= end => {
                self.set(&mut head, "x-ms-range", &format!("bytes={first}-{end}"))?;
            }
            Some(Span::From(first)) => {
                self.set(&mut head, "x-ms-range", &format!("bytes={first}-"))?;
            }
            Some(_) => return Err(self.no_range(&name).await),
            None => {}
        }
        if let Some(native) = pinned {
            self.set_guard(&mut head, &Guard::IfVersion(native))?;
        }
        let answer = self
            .exchange(head, Bytes::new(), Repeat::WhenFailed)
            .await?;
        match answer.status {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => {}
            StatusCode::RANGE_NOT_SATISFIABLE => return Err(self.no_range_in(&name, answer).await),
            StatusCode::PRECONDITION_FAILED if last => return Err(self.conflict()),
            _ => {
                let answer = answer.collect(MAX_ANSWER_BYTES).await?;
                return Err(self.refused(&answer, false));
            }
        }
        let told = answer.headers.get("content-range");
        let told = told.and_then(|value| ContentRange::parse(value.as_bytes()));
        if span.is_some() && told.is_none() {
            // The emulator answers a range behind the end with no bytes.
            return Err(self.no_range_in(&name, answer).await);
        }
        let meta = self.seen_in(&answer.headers)?.meta(&self.name)?;
        options.conditions.check(&meta)?;
        let range = match span {
            None => 0..meta.size,
            Some(span) => span.of(meta.size)?,
        };
        let length = range.end.saturating_sub(range.start);
        if answer.content_length() != Some(length) {
            return Err(self.nonsense("other bytes than those that were asked for", false));
        }
        Ok(Opened {
            meta,
            range,
            source: answer.into_source(),
        })
    }

    /// The same as [`Self::no_range`], once the answer that says so has been read away.
    async fn no_range_in(&self, name: &str, answer: HttpResponse) -> BlobError {
        answer.discard().await;
        self.no_range(name).await
    }

    /// A range that the object has nothing of.
    async fn no_range(&self, name: &str) -> BlobError {
        match self.see(name).await {
            Ok(seen) => BlobError::Range { size: seen.size },
            Err(error) => error,
        }
    }

    pub(super) async fn delete_object(
        &self,
        key: &Key,
        condition: WriteCondition,
    ) -> Result<bool, BlobError> {
        let name = self.name_of(key)?;
        let call = ConditionalCall::DeleteIfMatch;
        let guard = guard::guard(self, key, &condition, None, call).await?;
        match self.remove(&name, &guard).await {
            Ok(there) => Ok(there),
            Err(error) => Err(guard::judge(self, error, &name, &guard, &condition).await),
        }
    }

    pub(super) async fn replace_tags(&self, key: &Key, tags: Tags) -> Result<(), BlobError> {
        let name = self.name_of(key)?;
        for _ in 0..TAG_ATTEMPTS {
            let seen = self.see(&name).await?;
            let foreign = seen.headers.clone();
            let meta = seen.meta(&self.name)?;
            let mut record = Record::of_meta(&meta);
            record.tags.clone_from(&tags);
            // The service's own time becomes that of this change.
            record.modified_ms = Some(meta.modified_ms);
            let mut head = self.head_of(Method::PUT, &name, &[("comp", "metadata")]);
            self.keep_foreign(&mut head, &foreign)?;
            self.set_note(&mut head, &record.pack(&self.name)?)?;
            self.set_guard(&mut head, &Guard::IfVersion(meta.native.0))?;
            match self.call(head, Bytes::new(), Repeat::Never).await {
                Ok(_) => return Ok(()),
                Err(BlobError::PreconditionFailed) => {}
                Err(error) => return Err(error),
            }
        }
        Err(self.conflict())
    }

    fn conflict(&self) -> BlobError {
        BlobError::Conflict {
            store: self.name.clone(),
        }
    }

    pub(super) async fn copy_object(
        &self,
        from: &Key,
        to: &Key,
        options: CopyOptions,
    ) -> Result<Written, BlobError> {
        let (source, target) = (self.name_of(from)?, self.name_of(to)?);
        let meta = self.see(&source).await?.meta(&self.name)?;
        options.source.check(&meta)?;
        // A copy cannot get other properties than its source has.
        if options.headers.is_some() || meta.size > MAX_COPY_BYTES {
            return copy_streamed(self, from, self, to, options).await;
        }
        let guard = guard::guard(
            self,
            to,
            &options.condition,
            Some(ConditionalCall::CompleteIfAbsent),
            ConditionalCall::CompleteIfMatch,
        )
        .await?;
        let mut record = Record::of_meta(&meta);
        if let Some(tags) = options.tags {
            record.tags = tags;
        }
        let note = record.pack(&self.name)?;
        let copy = self.copy_blob(&source, &meta.native.0, &target, &note, &guard);
        match copy.await {
            Ok(answer) => Ok(Written {
                etag: meta.etag,
                checksum: meta.checksum,
                modified_ms: written_ms(&answer.headers),
            }),
            // Without a condition on the target it is the source that has changed.
            Err(BlobError::PreconditionFailed) if guard == Guard::None => Err(self.conflict()),
            Err(error) => Err(guard::judge(self, error, &target, &guard, &options.condition).await),
        }
    }

    /// `Copy Blob From URL`: done, whole, when it answers. Sent once.
    pub(super) async fn copy_blob(
        &self,
        from: &str,
        version: &str,
        to: &str,
        note: &str,
        guard: &Guard,
    ) -> Result<Collected, BlobError> {
        let mut head = self.head_of(Method::PUT, to, &[]);
        self.set(&mut head, "x-ms-copy-source", &self.source_url(from))?;
        self.set(&mut head, "x-ms-requires-sync", "true")?;
        self.set(&mut head, "x-ms-source-if-match", &quoted(version))?;
        self.set_note(&mut head, note)?;
        self.set_guard(&mut head, guard)?;
        let answer = self.call(head, Bytes::new(), Repeat::Never).await?;
        match answer.header("x-ms-copy-status") {
            Some("success") | None => Ok(answer),
            Some(status) => Err(self.nonsense(
                format!("a copy that should be done has the status {status}"),
                true,
            )),
        }
    }
}

/// When an object was written, by an answer that may not say it.
pub(super) fn written_ms(headers: &HeaderMap) -> u64 {
    ["last-modified", "date"]
        .iter()
        .find_map(|name| parse_http_date(header(headers, name)?))
        .unwrap_or_else(breccia_net::clock::unix_ms)
}
