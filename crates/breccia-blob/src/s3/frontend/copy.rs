//! Copies of objects and into parts: where the source is, and what becomes of its headers.
//!
//! Invariant: whoever copies may read the source's bucket, and a source is read in one version only.

use std::sync::Arc;

use hyper::StatusCode;

use crate::condition::ReadConditions;
use crate::error::BlobError;
use crate::key::Key;
use crate::s3::codec::uri::Target;
use crate::s3::codec::xml::CopyResult;
use crate::store::{CopyOptions, Written, copy_streamed};

use super::digests;
use super::dispatch::Call;
use super::headers;
use super::namespace::Bucket;
use super::refusal::Refusal;
use super::respond::Answer;

/// Where a copy comes from.
pub(super) struct Source {
    pub(super) bucket: Bucket,
    pub(super) key: Key,
    pub(super) conditions: ReadConditions,
}

/// The source that `x-amz-copy-source` names.
pub(super) async fn source(call: &Call) -> Result<Source, Refusal> {
    let request = &call.request;
    let text = request.header("x-amz-copy-source")?.unwrap_or_default();
    // A question mark in a key is encoded; a plain one begins the version.
    let (path, version) = text.split_once('?').unwrap_or((text, ""));
    if !version.is_empty() {
        return Err(Refusal::not_implemented("a version of a copy's source"));
    }
    let path = format!("/{}", path.strip_prefix('/').unwrap_or(path));
    let target = encoded_slash(&path)?;
    let wrong = || Refusal::argument("x-amz-copy-source is not bucket/key");
    let bucket = target.bucket.ok_or_else(wrong)?;
    let key = target.key.ok_or_else(wrong)?;
    if std::str::from_utf8(&key).is_err() {
        return Err(wrong());
    }
    call.identity.may_use(&bucket)?;
    let bucket = call.frontend.namespace.find(&bucket).await?;
    let key = bucket.key(&key)?;
    Ok(Source {
        bucket,
        key,
        conditions: request.source_conditions()?,
    })
}

/// Some clients encode the whole, with the slash behind the bucket.
fn encoded_slash(path: &str) -> Result<Target, Refusal> {
    let target = Target::path_style(path);
    match target {
        Ok(target) if target.key.is_some() => Ok(target),
        other => {
            let whole = path.replacen("%2F", "/", 1).replacen("%2f", "/", 1);
            match Target::path_style(&whole) {
                Ok(target) if target.key.is_some() => Ok(target),
                _ => Ok(other?),
            }
        }
    }
}

/// A source that its conditions rule out refuses the copy, whichever condition it was.
pub(super) fn as_precondition(error: BlobError) -> BlobError {
    match error {
        BlobError::NotModified { .. } => BlobError::PreconditionFailed,
        error => error,
    }
}

/// Whether a directive header says to replace.
fn replaces(call: &Call, name: &'static str) -> Result<bool, Refusal> {
    match call.request.header(name)? {
        None => Ok(false),
        Some(text) if text.eq_ignore_ascii_case("COPY") => Ok(false),
        Some(text) if text.eq_ignore_ascii_case("REPLACE") => Ok(true),
        Some(_) => Err(Refusal::argument(format!("{name} is COPY or REPLACE"))),
    }
}

/// `CopyObject`.
pub(super) async fn object(call: &Call) -> Result<Answer, Refusal> {
    let request = &call.request;
    let new_headers = replaces(call, "x-amz-metadata-directive")?;
    let new_tags = replaces(call, "x-amz-tagging-directive")?;
    let tags = headers::tags_of_request(request)?.unwrap_or_default();
    let condition = request.write_condition()?;
    let source = source(call).await?;
    let (bucket, key) = call.object().await?;
    let itself = source.bucket.shares_store(&bucket) && source.key == key;
    let redirects = request.header("x-amz-website-redirect-location")?.is_some();
    if itself && !new_headers && !new_tags && !redirects {
        return Err(Refusal::request(
            "an object can be copied onto itself only with its metadata or tags replaced",
        ));
    }
    let options = CopyOptions {
        source: source.conditions,
        headers: new_headers
            .then(|| headers::of_request(request))
            .transpose()?,
        tags: new_tags.then_some(tags),
        condition,
    };
    // Without a copy of its own, the member's bytes go through here.
    let share = call.share(None).await?;
    let within = source.bucket.shares_store(&bucket);
    let (from, to) = (source.bucket.store, Arc::clone(&bucket.store));
    let (source, target) = (source.key, key.clone());
    let write = async move {
        let copied = if within {
            to.copy(&source, &target, options).await
        } else {
            copy_streamed(from.as_ref(), &source, to.as_ref(), &target, options).await
        };
        drop(share);
        Ok(copied.map_err(as_precondition)?)
    };
    let written = bucket.publish(&key, write).await?;
    Ok(Answer::xml(StatusCode::OK, result(&written).write_object()))
}

fn result(written: &Written) -> CopyResult {
    CopyResult {
        etag: written.etag.quoted(),
        modified_ms: written.modified_ms,
        checksums: digests::in_document(written.checksum.as_ref()),
    }
}
