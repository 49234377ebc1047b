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
use crate::s3::codec::time;
use crate::store::{GetOptions, Span};
use crate::upload::{MAX_PART_NUMBER, PartInfo};

use super::buckets::owner;
use super::copy::{as_precondition, source};
use super::digests;
use super::dispatch::Call;
use super::headers::{Out, set_checksum};
use super::refusal::Refusal;
use super::respond::Answer;
use super::uploads::{text_of, upload_id};
use super::xml::Xml;

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
    let mut xml = Xml::root("CopyPartResult");
    describe(&mut xml, &part);
    Ok(Answer::xml(StatusCode::OK, xml))
}

fn describe(xml: &mut Xml, part: &PartInfo) {
    xml.text("LastModified", &time::iso8601(part.modified_ms));
    xml.text("ETag", &part.etag.quoted());
    if let Some(checksum) = &part.checksum {
        let element = digests::element(checksum.algorithm);
        xml.text(element, &digests::to_text(checksum));
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
    let mut xml = Xml::root("ListPartsResult");
    xml.text("Bucket", &bucket.name);
    xml.text("Key", &text_of(&request.key));
    xml.text("UploadId", &id.0);
    owner(&mut xml, "Initiator");
    owner(&mut xml, "Owner");
    xml.text("StorageClass", "STANDARD");
    xml.number("PartNumberMarker", marker);
    let last = page.parts.last().map_or(after, |part| part.number);
    xml.number("NextPartNumberMarker", u64::from(last));
    xml.number("MaxParts", most as u64);
    xml.flag("IsTruncated", page.more && !page.parts.is_empty());
    if let Some((algorithm, choice)) = page.checksum {
        xml.text("ChecksumAlgorithm", algorithm.name());
        xml.text("ChecksumType", digests::kind_name(choice));
    }
    for part in &page.parts {
        xml.open("Part");
        xml.number("PartNumber", u64::from(part.number));
        describe(&mut xml, part);
        xml.number("Size", part.size);
        xml.close();
    }
    Ok(Answer::xml(StatusCode::OK, xml))
}
