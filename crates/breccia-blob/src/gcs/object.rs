//! Single objects: put, get, head, delete, copy, tags.
//!
//! Invariant: an object appears whole, at the end of the one request that has its last bytes; that
//! is sent once.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::GcsStore;
use super::refusal::MAX_PUT_BYTES;
use super::wire::{FIELDS, Resource, Target, resource};
use crate::body::{Body, Digests, Whole};
use crate::checksum::Checksum;
use crate::condition::{ConditionalCall, WriteCondition};
use crate::error::BlobError;
use crate::http::{Collected, MAX_ANSWER_BYTES, Repeat, RequestHead};
use crate::key::Key;
use crate::meta::{ETag, Headers, ObjectMeta, Tags};
use crate::packed::record::NOTE_NAME;
use crate::packed::{Guard, MAX_COLLECTED_BYTES, Member as _, Record, Seen, guard, random};
use crate::s3::codec::uri::{Slash, encode};
use crate::store::{CopyOptions, GetOptions, Opened, PutOptions, Written};

/// How often something is done anew because somebody else changed the object meanwhile.
const ATTEMPTS: u32 = 8;
/// The most calls that one copy takes.
const MAX_REWRITE_CALLS: u32 = 10_000;

/// What becomes of an object that is copied.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rewritten {
    done: bool,
    rewrite_token: Option<String>,
    resource: Option<Resource>,
}

impl GcsStore {
    pub(super) async fn put_object(
        &self,
        key: &Key,
        mut body: Body,
        options: PutOptions,
    ) -> Result<Written, BlobError> {
        let name = self.name_of(key)?;
        let guard = guard::guard(
            self,
            key,
            &options.condition,
            Some(ConditionalCall::PutIfAbsent),
            ConditionalCall::PutIfMatch,
        )
        .await?;
        let record = Record::new(options.headers, options.tags);
        let headers = record.headers.clone();
        let note = |checksum: Option<&Checksum>| record.with_checksum(checksum).pack(&self.name);
        let sent = self
            .put_named(&name, &mut body, note, &headers, &guard)
            .await;
        match sent {
            Ok((seen, digests)) => Ok(Written {
                etag: ETag::of_md5(digests.md5),
                checksum: digests.checksum,
                modified_ms: seen.modified_ms,
            }),
            Err(error) => Err(guard::judge(self, error, &name, &guard, &options.condition).await),
        }
    }

    /// Writes an object of this name; its note is made with the checksum, as far as it is known.
    pub(super) async fn put_named(
        &self,
        name: &str,
        body: &mut Body,
        note: impl FnOnce(Option<&Checksum>) -> Result<String, BlobError>,
        headers: &Headers,
        guard: &Guard,
    ) -> Result<(Seen, Digests), BlobError> {
        if body.size() > MAX_PUT_BYTES {
            return Err(BlobError::TooLarge {
                store: self.name.clone(),
                limit: MAX_PUT_BYTES,
            });
        }
        // The record of a small body can hold what came behind the bytes, too.
        let answer = if body.size() <= MAX_COLLECTED_BYTES {
            let bytes = body.collect().await?;
            let known = body.digests().and_then(|digests| digests.checksum.as_ref());
            let note = note(known)?;
            self.put_at_once(name, &bytes, resource(&note, headers), guard, Repeat::Never)
                .await?
        } else {
            let note = note(body.announced())?;
            self.put_streamed(name, body, resource(&note, headers), guard)
                .await?
        };
        let digests = body.digests().cloned();
        let digests =
            digests.ok_or_else(|| self.nonsense("success without the whole body", true))?;
        let seen = self.seen_in(&answer, true)?;
        if seen.md5 == Some(digests.md5) {
            Ok((seen, digests))
        } else {
            Err(self.nonsense(
                "md5Hash is not the MD5 of what was sent: what lies there now may be damaged",
                true,
            ))
        }
    }

    /// A record and bytes in one request.
    pub(super) async fn put_at_once(
        &self,
        name: &str,
        bytes: &Bytes,
        mut resource: serde_json::Map<String, Value>,
        guard: &Guard,
        repeat: Repeat,
    ) -> Result<Collected, BlobError> {
        resource.insert("name".to_owned(), name.into());
        let md5 = STANDARD.encode(crate::checksum::md5(bytes));
        resource.insert("md5Hash".to_owned(), md5.into());
        let boundary = random::<16>(&self.name)?;
        let mut payload = format!(
            "--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{}\r\n\
             --{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n",
            Value::Object(resource)
        )
        .into_bytes();
        payload.extend_from_slice(bytes);
        payload.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        let target = Target::new(self.uploads.clone())
            .with("uploadType", "multipart")
            .with("fields", FIELDS)
            .under(guard);
        let mut head = target.head(Method::POST);
        let kind = format!("multipart/related; boundary={boundary}");
        self.set(&mut head, "content-type", &kind)?;
        self.call(head, payload.into(), repeat).await
    }

    /// A session with the record, then the bytes in one request.
    async fn put_streamed(
        &self,
        name: &str,
        body: &mut Body,
        mut resource: serde_json::Map<String, Value>,
        guard: &Guard,
    ) -> Result<Collected, BlobError> {
        resource.insert("name".to_owned(), name.into());
        let target = Target::new(self.uploads.clone())
            .with("uploadType", "resumable")
            .with("fields", FIELDS)
            .under(guard);
        let mut head = self.json_head(target, Method::POST)?;
        let size = body.size().to_string();
        self.set(&mut head, "x-upload-content-length", &size)?;
        let json = Bytes::from(Value::Object(resource).to_string());
        // A session that nobody uses is nothing, so it may be begun twice.
        let begun = self.call(head, json, Repeat::WhenFailed).await?;
        let place = begun.header("location").and_then(path_of);
        let place = place.ok_or_else(|| self.nonsense("an upload without a place", false))?;
        let head = RequestHead::new(Method::PUT, place);
        match self.send_body(head, body).await {
            Err(error @ BlobError::Body { .. }) => {
                // It would end by itself in a week.
                let head = RequestHead::new(Method::DELETE, place);
                let _ = self.exchange(head, Bytes::new(), Repeat::Never).await;
                Err(error)
            }
            answer => answer,
        }
    }

    pub(super) async fn see(&self, name: &str) -> Result<Seen, BlobError> {
        let head = self.object(name).with("fields", FIELDS).head(Method::GET);
        let answer = self.call(head, Bytes::new(), Repeat::WhenFailed).await?;
        self.seen_in(&answer, false)
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
        for _ in 0..ATTEMPTS {
            let meta = self.see(&name).await?.meta(&self.name)?;
            options.conditions.check(&meta)?;
            let range = match options.span {
                None => 0..meta.size,
                Some(span) => span.of(meta.size)?,
            };
            if range.is_empty() {
                let source = Box::new(Whole::new(Bytes::new()));
                return Ok(Opened {
                    meta,
                    range,
                    source,
                });
            }
            // This very generation: what is told of it and its bytes belong together.
            let target = self
                .object(&name)
                .with("alt", "media")
                .with("generation", &meta.native.0);
            let mut head = target.head(Method::GET).in_lane(options.lane());
            // Else what is stored as gzip would be unpacked on its way.
            self.set(&mut head, "accept-encoding", "gzip")?;
            if range != (0..meta.size) {
                let last = range.end.saturating_sub(1);
                self.set(&mut head, "range", &format!("bytes={}-{last}", range.start))?;
            }
            let answer = self
                .exchange(head, Bytes::new(), Repeat::WhenFailed)
                .await?;
            match answer.status {
                StatusCode::OK | StatusCode::PARTIAL_CONTENT => {}
                StatusCode::NOT_FOUND => {
                    answer.discard().await;
                    continue;
                }
                _ => {
                    let answer = answer.collect(MAX_ANSWER_BYTES).await?;
                    return Err(self.refused(&answer, false));
                }
            }
            let length = range.end.saturating_sub(range.start);
            if answer.content_length() != Some(length) {
                let problem = "other bytes than those that were asked for";
                return Err(self.nonsense(problem, false));
            }
            return Ok(Opened {
                meta,
                range,
                source: answer.into_source(),
            });
        }
        Err(self.conflict())
    }

    pub(super) fn conflict(&self) -> BlobError {
        BlobError::Conflict {
            store: self.name.clone(),
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

    /// Replaces the record of an object, if it is still as it was seen.
    pub(super) async fn patch_note(
        &self,
        name: &str,
        seen: (&str, u64),
        note: &str,
    ) -> Result<(), BlobError> {
        let (generation, revision) = seen;
        let target = self
            .object(name)
            .with("ifGenerationMatch", generation)
            .with("ifMetagenerationMatch", &revision.to_string())
            .with("fields", "generation");
        let head = self.json_head(target, Method::PATCH)?;
        let json = json!({ "metadata": { NOTE_NAME: note } }).to_string();
        self.call(head, json.into(), Repeat::Never).await.map(drop)
    }

    pub(super) async fn replace_tags(&self, key: &Key, tags: Tags) -> Result<(), BlobError> {
        let name = self.name_of(key)?;
        for _ in 0..ATTEMPTS {
            let seen = self.see(&name).await?;
            let revision = seen.revision;
            let meta = seen.meta(&self.name)?;
            let mut record = Record::of_meta(&meta);
            record.tags.clone_from(&tags);
            let note = record.pack(&self.name)?;
            match self
                .patch_note(&name, (&meta.native.0, revision), &note)
                .await
            {
                Ok(()) => return Ok(()),
                Err(BlobError::PreconditionFailed) => {}
                Err(error) => return Err(error),
            }
        }
        Err(self.conflict())
    }

    pub(super) async fn copy_object(
        &self,
        from: &Key,
        to: &Key,
        options: CopyOptions,
    ) -> Result<Written, BlobError> {
        let (source, target) = (self.name_of(from)?, self.name_of(to)?);
        let guard = guard::guard(
            self,
            to,
            &options.condition,
            Some(ConditionalCall::PutIfAbsent),
            ConditionalCall::PutIfMatch,
        )
        .await?;
        let meta = self.see(&source).await?.meta(&self.name)?;
        options.source.check(&meta)?;
        let mut record = Record::of_meta(&meta);
        if let Some(headers) = options.headers {
            record.headers = headers;
        }
        if let Some(tags) = options.tags {
            record.tags = tags;
        }
        let json = Value::Object(resource(&record.pack(&self.name)?, &record.headers)).to_string();
        let rewritten = self.rewrite(&source, &meta.native.0, &target, json, &guard);
        match rewritten.await {
            Ok(seen) => Ok(Written {
                etag: meta.etag,
                checksum: meta.checksum,
                modified_ms: seen.modified_ms,
            }),
            // It was there a moment ago.
            Err(BlobError::NotFound) => Err(self.conflict()),
            Err(error) => Err(guard::judge(self, error, &target, &guard, &options.condition).await),
        }
    }

    /// Copies one generation, in as many calls as the service needs; the last publishes it.
    async fn rewrite(
        &self,
        from: &str,
        generation: &str,
        to: &str,
        json: String,
        guard: &Guard,
    ) -> Result<Seen, BlobError> {
        let target = self
            .object(from)
            .segment("rewriteTo/b")
            .segment(&encode(self.bucket.as_bytes(), Slash::Escape))
            .segment("o")
            .segment(&encode(to.as_bytes(), Slash::Escape))
            .with("sourceGeneration", generation)
            .under(guard);
        let json = Bytes::from(json);
        let mut token: Option<String> = None;
        for _ in 0..MAX_REWRITE_CALLS {
            let target = match token.take() {
                Some(token) => target.clone().with("rewriteToken", &token),
                None => target.clone(),
            };
            let head = self.json_head(target, Method::POST)?;
            let answer = self.call(head, json.clone(), Repeat::Never).await?;
            let rewritten: Rewritten = self.read(&answer.bytes, true)?;
            match (rewritten.done, rewritten.resource, rewritten.rewrite_token) {
                (true, Some(resource), _) => {
                    let seen = resource.seen();
                    return seen.map_err(|problem| self.nonsense(problem, true));
                }
                (false, _, Some(next)) => token = Some(next),
                _ => return Err(self.nonsense("a copy neither done nor to go on", true)),
            }
        }
        Err(self.nonsense("a copy that does not end", true))
    }
}

/// Path and query of a URL: the service gives the whole one.
fn path_of(url: &str) -> Option<&str> {
    if url.starts_with('/') {
        return Some(url);
    }
    let (_, rest) = url.split_once("://")?;
    rest.find('/').and_then(|at| rest.get(at..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_an_upload_is_read_from_its_url() {
        let check = |url: &str, path: Option<&str>| assert_eq!(path_of(url), path, "{url}");
        check("https://h:1/a/b?c=d", Some("/a/b?c=d"));
        check("/a?b", Some("/a?b"));
        check("https://h", None);
        check("", None);
    }
}
