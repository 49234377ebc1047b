//! Parts of uploads: write one, copy one from an object, list them.
//!
//! Invariant: a part is acknowledged with the tag that a complete must name.

use hyper::StatusCode;
use hyper::body::Incoming;

use crate::body::Body;
use crate::checksum::Checksum;
use crate::error::BlobError;
use crate::listing::MAX_PAGE;
use crate::s3::codec::range::parse_copy_source_range;
use crate::s3::codec::xml::{CopyResult, ListPartsResult, ListedPart};
use crate::store::{GetOptions, Span};
use crate::upload::{MAX_PART_NUMBER, PartInfo};

use super::buckets::owner;
use super::copy::{as_precondition, source};
use super::digests;
use super::dispatch::Call;
use super::headers::{Out, set_checksum};
use super::refusal::Refusal;
use super::respond::Answer;
use super::uploads::upload_id;

fn part_number(call: &Call) -> Result<u16, Refusal> {
    let wrong = || Refusal::argument("a part's number is between 1 and 10000");
    let number = call.request.parameter_number("partNumber")?;
    let number = u16::try_from(number.ok_or_else(wrong)?).map_err(|_| wrong())?;
    if (1..=MAX_PART_NUMBER).contains(&number) {
        Ok(number)
    } else {
        Err(wrong())
    }
}

/// `UploadPart`.
pub(super) async fn put(call: &Call, incoming: Incoming) -> Result<Answer, Refusal> {
    let (id, number) = (upload_id(call)?, part_number(call)?);
    let (bucket, key) = call.object().await?;
    let body = call.body(incoming).await?;
    let part = bucket.store.put_part(&key, &id, number, body).await?;
    let mut out = Out::default();
    out.set("etag", &part.etag.quoted());
    set_part_checksum(&mut out, part.checksum.as_ref());
    Ok(Answer::empty(StatusCode::OK).with(out))
}

/// As S3 does, without the type, which belongs to whole objects.
fn set_part_checksum(out: &mut Out, checksum: Option<&Checksum>) {
    set_checksum(out, checksum);
    out.remove("x-amz-checksum-type");
}

/// `UploadPartCopy`.
pub(super) async fn copy(call: &Call) -> Result<Answer, Refusal> {
    let (id, number) = (upload_id(call)?, part_number(call)?);
    let range =
        match call.request.header("x-amz-copy-source-range")? {
            None => None,
            Some(text) => Some(parse_copy_source_range(text.as_bytes()).ok_or_else(|| {
                Refusal::argument("x-amz-copy-source-range is not bytes=first-last")
            })?),
        };
    let source = source(call).await?;
    let (bucket, key) = call.object().await?;
    // The part gets the checksum that the upload was begun with.
    let begun = bucket.store.list_parts(&key, &id, 0, 1).await?;
    let span = range
        .as_ref()
        .map(|range| Span::Between(range.start, range.end.saturating_sub(1)));
    let _share = call.share(None).await?;
    let options = GetOptions {
        span,
        conditions: source.conditions,
        for_copy: true,
    };
    let opened = source.bucket.store.get(&source.key, options).await;
    let opened = opened.map_err(as_precondition)?;
    if range.is_some_and(|range| range != opened.range) {
        let size = opened.meta.size;
        return Err(BlobError::Range { size }.into());
    }
    let size = opened.range.end.saturating_sub(opened.range.start);
    let limit = call.settings.limits.max_put_bytes;
    if size > limit {
        return Err(Refusal::EntityTooLarge { size, limit });
    }
    let mut body = Body::new(opened.source, size);
    if let Some((algorithm, _)) = begun.checksum {
        body = body.compute(algorithm);
    }
    let part = bucket.store.put_part(&key, &id, number, body).await?;
    let document = CopyResult {
        etag: part.etag.quoted(),
        modified_ms: part.modified_ms,
        checksums: digests::in_document(part.checksum.as_ref()),
    };
    Ok(Answer::xml(StatusCode::OK, document.write_part()))
}

fn listed(part: &PartInfo) -> ListedPart {
    ListedPart {
        number: part.number,
        modified_ms: part.modified_ms,
        etag: part.etag.quoted(),
        size: part.size,
        checksums: digests::in_document(part.checksum.as_ref()),
    }
}

/// `ListParts`.
pub(super) async fn list(call: &Call) -> Result<Answer, Refusal> {
    let request = &call.request;
    let id = upload_id(call)?;
    let (bucket, key) = call.object().await?;
    let marker = request.parameter_number("part-number-marker")?.unwrap_or(0);
    let after = u16::try_from(marker).unwrap_or(u16::MAX);
    let most = request.parameter_number("max-parts")?;
    let most = most.map_or(MAX_PAGE, |most| {
        usize::try_from(most).unwrap_or(MAX_PAGE).min(MAX_PAGE)
    });
    // The upload is looked up even if no part is asked for.
    let mut page = bucket
        .store
        .list_parts(&key, &id, after, most.max(1))
        .await?;
    if most == 0 {
        page.parts.clear();
        page.more = false;
    }
    let begun = page.checksum;
    let document = ListPartsResult {
        bucket: bucket.name.clone(),
        key: request.key.clone(),
        upload_id: id.0,
        part_number_marker: after,
        next_part_number_marker: page.parts.last().map(|part| part.number),
        max_parts: u32::try_from(most).unwrap_or(u32::MAX),
        is_truncated: page.more && !page.parts.is_empty(),
        url_encoded: false,
        owner: Some(owner()),
        parts: page.parts.iter().map(listed).collect(),
    };
    let mut out = Out::default();
    if let Some((algorithm, choice)) = begun {
        out.set("x-amz-checksum-algorithm", algorithm.name());
        out.set("x-amz-checksum-type", digests::kind_name(choice));
    }
    Ok(Answer::xml(StatusCode::OK, document.write()?).with(out))
}
