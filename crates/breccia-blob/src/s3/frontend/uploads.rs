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
use crate::s3::codec::uri::{Slash, encode};
use crate::s3::codec::xml::{CompleteResult, Initiated, ListUploadsResult, ListedUpload};
use crate::store::Written;
use crate::upload::{
    ChecksumChoice, CompleteOptions, MAX_UPLOAD_ID_BYTES, PartChoice, UploadId, UploadInfo,
    UploadOptions,
};

use super::digests::{self, Announced};
use super::dispatch::Call;
use super::documents;
use super::headers::{self, Out};
use super::listing::Names;
use super::namespace::Bucket;
use super::refusal::Refusal;
use super::respond::Answer;

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
    let document = Initiated {
        bucket: bucket.name,
        key: request.key.clone(),
        upload_id: id.0,
    };
    Ok(Answer::xml(StatusCode::OK, document.write()?).with(out))
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
    let default = match algorithm {
        Algorithm::Crc64Nvme => ChecksumChoice::FullObject,
        _ => ChecksumChoice::Composite,
    };
    let choice = kind.unwrap_or(default);
    let exists = match choice {
        ChecksumChoice::FullObject => !matches!(algorithm, Algorithm::Sha1 | Algorithm::Sha256),
        ChecksumChoice::Composite => algorithm != Algorithm::Crc64Nvme,
    };
    if !exists {
        let kind = digests::kind_name(choice);
        return Err(Refusal::request(format!(
            "{algorithm} has no checksum of the type {kind}"
        )));
    }
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
    // The checksum in its headers is the object's, not the document's.
    let document = call.document(incoming, Announced::default()).await?;
    let parts = documents::complete(&document)?;
    drop(document);
    if let Some(expected) = expected_size {
        check_size(&bucket, &key, &id, &parts, expected).await?;
    }
    let again = etag_of(&parts).filter(|_| options.condition == WriteCondition::Always);
    let (own, target) = (bucket.clone(), key.clone());
    let write = async move {
        let completed = own.store.complete_upload(&target, &id, parts, options);
        match (completed.await, again) {
            (Err(BlobError::NoSuchUpload), Some(etag)) => {
                Ok(completed_before(&own, &target, etag).await?)
            }
            (completed, _) => Ok(completed?),
        }
    };
    let written = bucket.publish(&key, write).await?;
    let document = result(call, &bucket, &written).write()?;
    Ok(Answer::xml(StatusCode::OK, document))
}

fn result(call: &Call, bucket: &Bucket, written: &Written) -> CompleteResult {
    let request = &call.request;
    let kind = written.checksum.as_ref().map(|checksum| checksum.kind);
    CompleteResult {
        location: format!(
            "http://{}/{}/{}",
            request.host(),
            bucket.name,
            encode(&request.key, Slash::Keep)
        ),
        bucket: bucket.name.clone(),
        key: request.key.clone(),
        etag: written.etag.quoted(),
        checksums: digests::in_document(written.checksum.as_ref()),
        checksum_type: kind.map(|kind| digests::kind_name(kind.into()).to_owned()),
    }
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
    let most = Names::limit(request.parameter_number("max-uploads")?);
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
    let document = describe(&bucket, names, page, key_marker, id_marker, most);
    Ok(Answer::xml(StatusCode::OK, document.write()?))
}

fn describe(
    bucket: &Bucket,
    names: Names,
    page: Page,
    key_marker: &[u8],
    id_marker: &str,
    most: usize,
) -> ListUploadsResult {
    let visible = |name: &[u8]| bucket.visible(name).unwrap_or_default().to_vec();
    let uploads = page.uploads.into_iter().map(|upload| ListedUpload {
        key: visible(upload.key.as_bytes()),
        upload_id: upload.id.0,
        initiated_ms: upload.begun_ms,
    });
    ListUploadsResult {
        bucket: bucket.name.clone(),
        prefix: names.prefix,
        delimiter: names.delimiter.map(|delimiter| delimiter.to_vec()),
        key_marker: key_marker.to_vec(),
        upload_id_marker: id_marker.to_owned(),
        is_truncated: page.next.is_some(),
        next_key_marker: page.next.as_ref().map(|(key, _)| visible(key)),
        next_upload_id_marker: page.next.and_then(|(_, id)| id.map(|id| id.0)),
        max_uploads: u32::try_from(most).unwrap_or(u32::MAX),
        url_encoded: names.is_encoded,
        uploads: uploads.collect(),
        common_prefixes: page.prefixes.iter().map(|prefix| visible(prefix)).collect(),
    }
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

/// The greatest name with this prefix: the prefix, then the greatest letters that there is room for.
fn last_under(prefix: &[u8]) -> Result<Key, BlobError> {
    const GREATEST: [&str; 4] = ["\u{10ffff}", "\u{ffff}", "\u{7ff}", "\u{7f}"];
    let mut name = prefix.to_vec();
    for letter in GREATEST {
        while name.len().saturating_add(letter.len()) <= MAX_KEY_BYTES {
            name.extend_from_slice(letter.as_bytes());
        }
    }
    Key::new(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_with_a_prefix_is_behind_the_last_one() {
        for length in [1, 1000, 1019, 1020, 1021, 1022, 1023, 1024] {
            let prefix = vec![b'/'; length];
            let last = last_under(&prefix).expect("a key");
            assert_eq!(last.as_bytes().len(), MAX_KEY_BYTES, "{length}");
            let room = MAX_KEY_BYTES - length;
            for letter in ["a", "\u{7f}", "\u{7ff}", "\u{ffff}", "\u{10ffff}"] {
                let count = room / letter.len();
                let name = [&prefix[..], letter.repeat(count).as_bytes()].concat();
                assert!(name <= last.as_bytes().to_vec(), "{length} {letter:?}");
            }
        }
    }
}
