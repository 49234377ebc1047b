//! Uploads in parts: begin, complete, abort, list. Their parts are in `parts`.
//!
//! Invariant: a complete that is repeated after it succeeded is answered as the first one was.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::Incoming;

use crate::checksum::{self, Algorithm, Checksum};
use crate::condition::WriteCondition;
use crate::error::BlobError;
use crate::key::{Key, MAX_KEY_BYTES};
use crate::listing::{ListRequest, MAX_PAGE};
use crate::meta::ETag;
use crate::s3::codec::time;
use crate::s3::codec::uri::{Slash, encode};
use crate::store::Written;
use crate::upload::{
    ChecksumChoice, CompleteOptions, MAX_UPLOAD_ID_BYTES, PartChoice, UploadId, UploadInfo,
    UploadOptions,
};

use super::buckets::owner;
use super::digests;
use super::dispatch::Call;
use super::documents;
use super::headers::{self, Out};
use super::listing::Names;
use super::namespace::Bucket;
use super::refusal::Refusal;
use super::respond::Answer;
use super::xml::Xml;

/// The upload that a request names.
pub(super) fn upload_id(call: &Call) -> Result<UploadId, Refusal> {
    let text = call.request.parameter("uploadId")?.unwrap_or_default();
    if text.is_empty() || text.len() > MAX_UPLOAD_ID_BYTES {
        return Err(BlobError::NoSuchUpload.into());
    }
    Ok(UploadId(text.to_owned()))
}

/// `CreateMultipartUpload`.
pub(super) async fn create(call: &Call) -> Result<Answer, Refusal> {
    let request = &call.request;
    let options = UploadOptions {
        headers: headers::of_request(request)?,
        tags: headers::tags_of_request(request)?.unwrap_or_default(),
        checksum: checksum_choice(call)?,
    };
    let mut out = Out::default();
    if let Some((algorithm, choice)) = options.checksum {
        out.set("x-amz-checksum-algorithm", algorithm.name());
        out.set("x-amz-checksum-type", digests::kind_name(choice));
    }
    let (bucket, key) = call.object().await?;
    let id = bucket.store.create_upload(&key, options).await?;
    let mut xml = Xml::root("InitiateMultipartUploadResult");
    xml.text("Bucket", &bucket.name);
    xml.text("Key", &text_of(&request.key));
    xml.text("UploadId", &id.0);
    Ok(Answer::xml(StatusCode::OK, xml).with(out))
}

/// What the parts will come with, and what the whole's checksum will be of.
fn checksum_choice(call: &Call) -> Result<Option<(Algorithm, ChecksumChoice)>, Refusal> {
    let kind = call.request.header("x-amz-checksum-type")?;
    let kind = kind.map(digests::kind_of).transpose()?;
    let Some(name) = call.request.header("x-amz-checksum-algorithm")? else {
        return match kind {
            None => Ok(None),
            Some(_) => Err(Refusal::request(
                "x-amz-checksum-type needs x-amz-checksum-algorithm",
            )),
        };
    };
    let algorithm = digests::algorithm(name)?;
    let is_crc = !matches!(algorithm, Algorithm::Sha1 | Algorithm::Sha256);
    let choice = match (algorithm, kind) {
        (Algorithm::Crc64Nvme, None) => ChecksumChoice::FullObject,
        (_, None) => ChecksumChoice::Composite,
        (_, Some(ChecksumChoice::FullObject)) if is_crc => ChecksumChoice::FullObject,
        (Algorithm::Crc64Nvme, Some(ChecksumChoice::Composite))
        | (_, Some(ChecksumChoice::FullObject)) => {
            let kind = kind.map_or("", digests::kind_name);
            return Err(Refusal::request(format!(
                "{algorithm} has no checksum of the type {kind}"
            )));
        }
        (_, Some(ChecksumChoice::Composite)) => ChecksumChoice::Composite,
    };
    Ok(Some((algorithm, choice)))
}

/// `CompleteMultipartUpload`.
pub(super) async fn complete(call: &Call, incoming: Incoming) -> Result<Answer, Refusal> {
    let request = &call.request;
    let id = upload_id(call)?;
    let options = CompleteOptions {
        condition: request.write_condition()?,
        checksum: whole_checksum(call)?,
    };
    let expected_size = request.number("x-amz-mp-object-size")?;
    let (bucket, key) = call.object().await?;
    let document = call.document(incoming).await?;
    let parts = documents::complete(&document)?;
    drop(document);
    if let Some(expected) = expected_size {
        check_size(&bucket, &key, &id, &parts, expected).await?;
    }
    let again = etag_of(&parts).filter(|_| options.condition == WriteCondition::Always);
    let completed = bucket
        .store
        .complete_upload(&key, &id, parts, options)
        .await;
    let written = match (completed, again) {
        (Err(BlobError::NoSuchUpload), Some(etag)) => completed_before(&bucket, &key, etag).await?,
        (completed, _) => completed?,
    };
    bucket.confirm(&key).await?;
    Ok(Answer::xml(StatusCode::OK, result(call, &bucket, &written)))
}

fn result(call: &Call, bucket: &Bucket, written: &Written) -> Xml {
    let request = &call.request;
    let mut xml = Xml::root("CompleteMultipartUploadResult");
    let place = format!(
        "http://{}/{}/{}",
        request.host(),
        bucket.name,
        encode(&request.key, Slash::Keep)
    );
    xml.text("Location", &place);
    xml.text("Bucket", &bucket.name);
    xml.text("Key", &text_of(&request.key));
    xml.text("ETag", &written.etag.quoted());
    if let Some(checksum) = &written.checksum {
        let element = digests::element(checksum.algorithm);
        xml.text(element, &digests::to_text(checksum));
        xml.text("ChecksumType", digests::kind_name(checksum.kind.into()));
    }
    xml
}

/// The checksum that the whole object shall have, if the request says it.
fn whole_checksum(call: &Call) -> Result<Option<Checksum>, Refusal> {
    let found = digests::checksum_header(&call.request)?;
    let kind = call.request.header("x-amz-checksum-type")?;
    let kind = kind.map(digests::kind_of).transpose()?;
    if let (Some(found), Some(kind)) = (&found, kind)
        && ChecksumChoice::from(found.kind) != kind
    {
        return Err(Refusal::request(
            "x-amz-checksum-type is not that of the checksum given",
        ));
    }
    Ok(found)
}

/// The tag that an object of these parts has, if their tags are MD5s.
fn etag_of(parts: &[PartChoice]) -> Option<ETag> {
    let md5s: Option<Vec<[u8; 16]>> = parts.iter().map(|part| part.etag.md5()).collect();
    let md5s = md5s?.concat();
    Some(ETag::of_parts(checksum::md5(&md5s), parts.len()))
}

/// The answer to a complete that was repeated, because the first answer was lost: the upload is gone
/// and the object is the one it makes.
async fn completed_before(bucket: &Bucket, key: &Key, etag: ETag) -> Result<Written, BlobError> {
    match bucket.store.head(key).await {
        Ok(meta) if meta.etag == etag => Ok(Written {
            etag,
            checksum: meta.checksum,
            modified_ms: meta.modified_ms,
        }),
        Ok(_) | Err(BlobError::NotFound) => Err(BlobError::NoSuchUpload),
        Err(error) => Err(error),
    }
}

/// Holds the size that a client expects against the parts it has chosen.
async fn check_size(
    bucket: &Bucket,
    key: &Key,
    id: &UploadId,
    parts: &[PartChoice],
    expected: u64,
) -> Result<(), Refusal> {
    let mut size = 0_u64;
    let mut after = 0;
    loop {
        let page = bucket.store.list_parts(key, id, after, MAX_PAGE).await?;
        for part in &page.parts {
            if parts
                .binary_search_by_key(&part.number, |chosen| chosen.number)
                .is_ok()
            {
                size = size.saturating_add(part.size);
            }
            after = part.number;
        }
        if !page.more || page.parts.is_empty() {
            break;
        }
    }
    if size == expected {
        Ok(())
    } else {
        Err(Refusal::request(format!(
            "x-amz-mp-object-size is {expected}, the parts have {size} bytes"
        )))
    }
}

/// `AbortMultipartUpload`.
pub(super) async fn abort(call: &Call) -> Result<Answer, Refusal> {
    let id = upload_id(call)?;
    let (bucket, key) = call.object().await?;
    bucket.store.abort_upload(&key, &id).await?;
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}

/// A page of uploads, with what was rolled up.
#[derive(Default)]
struct Page {
    uploads: Vec<UploadInfo>,
    prefixes: Vec<Bytes>,
    /// The last upload or prefix of the page, if there is more behind it.
    next: Option<(Bytes, Option<UploadId>)>,
}

impl Page {
    fn len(&self) -> usize {
        self.uploads.len().saturating_add(self.prefixes.len())
    }
}

/// `ListMultipartUploads`.
pub(super) async fn list(call: &Call) -> Result<Answer, Refusal> {
    let request = &call.request;
    let bucket = call.bucket().await?;
    let names = Names::of(request)?;
    let most = names.limit(request.parameter_number("max-uploads")?);
    let key_marker = request.query.get("key-marker").unwrap_or_default();
    let id_marker = request.parameter("upload-id-marker")?.unwrap_or_default();
    let mut page = Page::default();
    if most > 0 {
        let marker = (!key_marker.is_empty()).then(|| {
            let id = (!id_marker.is_empty()).then(|| UploadId(id_marker.to_owned()));
            (bucket.stored(key_marker), id)
        });
        page = collect(&bucket, &names, marker, most).await?;
    }
    let mut xml = Xml::root("ListMultipartUploadsResult");
    xml.text("Bucket", &bucket.name);
    names.text(&mut xml, "KeyMarker", key_marker);
    xml.text("UploadIdMarker", id_marker);
    if let Some((key, id)) = &page.next {
        let key = bucket.visible(key).unwrap_or_default();
        names.text(&mut xml, "NextKeyMarker", key);
        let id = id.as_ref().map(|id| id.0.as_str()).unwrap_or_default();
        xml.text("NextUploadIdMarker", id);
    }
    names.describe(&mut xml);
    xml.number("MaxUploads", most as u64);
    xml.flag("IsTruncated", page.next.is_some());
    for upload in &page.uploads {
        let Some(key) = bucket.visible(upload.key.as_bytes()) else {
            continue;
        };
        xml.open("Upload");
        names.text(&mut xml, "Key", key);
        xml.text("UploadId", &upload.id.0);
        owner(&mut xml, "Initiator");
        owner(&mut xml, "Owner");
        xml.text("StorageClass", "STANDARD");
        xml.text("Initiated", &time::iso8601(upload.begun_ms));
        xml.close();
    }
    for prefix in &page.prefixes {
        xml.open("CommonPrefixes");
        let prefix = bucket.visible(prefix).unwrap_or_default();
        names.text(&mut xml, "Prefix", prefix);
        xml.close();
    }
    Ok(Answer::xml(StatusCode::OK, xml))
}

/// Stores list uploads without rolling up; that is done here.
async fn collect(
    bucket: &Bucket,
    names: &Names,
    marker: Option<(Bytes, Option<UploadId>)>,
    most: usize,
) -> Result<Page, Refusal> {
    let rule = ListRequest {
        prefix: bucket.stored(&names.prefix),
        after: marker.as_ref().map(|(key, _)| key.clone()),
        delimiter: names.delimiter.clone(),
        limit: most,
    };
    let mut page = Page::default();
    let mut after = match marker {
        None => None,
        Some((key, id)) => match rule.common_prefix(&key) {
            Some(prefix) if *prefix == *key => Some((last_under(prefix)?, None)),
            _ => Some((Key::new(key)?, id)),
        },
    };
    loop {
        let found = bucket
            .store
            .list_uploads(rule.prefix.clone(), after.clone(), MAX_PAGE)
            .await?;
        let mut skipped = false;
        for upload in found.uploads {
            if page.len() >= most {
                return Ok(page);
            }
            if let Some(prefix) = rule.common_prefix(upload.key.as_bytes()) {
                let prefix = Bytes::copy_from_slice(prefix);
                after = Some((last_under(&prefix)?, None));
                page.next = Some((prefix.clone(), None));
                page.prefixes.push(prefix);
                skipped = true;
                break;
            }
            after = Some((upload.key.clone(), Some(upload.id.clone())));
            page.next = Some((upload.key.bytes(), Some(upload.id.clone())));
            page.uploads.push(upload);
        }
        if !skipped && !found.more {
            page.next = None;
            return Ok(page);
        }
    }
}

/// A name behind every key with this prefix: the prefix, then the greatest letters there are.
fn last_under(prefix: &[u8]) -> Result<Key, BlobError> {
    const GREATEST: &[u8] = "\u{10ffff}".as_bytes();
    let mut name = prefix.to_vec();
    while name.len().saturating_add(GREATEST.len()) <= MAX_KEY_BYTES {
        name.extend_from_slice(GREATEST);
    }
    Key::new(name)
}

/// A key as text: requests with others have been refused.
pub(super) fn text_of(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}
