//! Uploads in parts, by the member's own calls.
//!
//! Invariant: completing is sent once; what becomes of it is the server's word or unknown.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::Method;

use super::S3Store;
use super::meta::{
    bare, checksum_by, checksum_in, checksum_text, etag_in, etag_of, time_of, written_ms,
};
use super::object::element_of;
use super::refusal::Refusal;
use super::wire::Repeat;
use super::xml::{self, Element};
use crate::body::Body;
use crate::checksum::{Algorithm, Checksum, ChecksumKind};
use crate::condition::ConditionalCall;
use crate::error::{BlobError, BodyFault};
use crate::key::Key;
use crate::store::Written;
use crate::upload::{
    ChecksumChoice, CompleteOptions, MAX_PART_NUMBER, MAX_UPLOAD_ID_BYTES, MIN_PART_BYTES,
    PartChoice, PartInfo, PartPage, UploadId, UploadOptions,
};

/// The most parts of one page of a listing.
const MAX_PART_PAGE: usize = 1000;

impl S3Store {
    pub(super) async fn begin_upload(
        &self,
        key: &Key,
        options: UploadOptions,
    ) -> Result<UploadId, BlobError> {
        let name = self.names.name_of(key)?;
        let mut head = self.head_of(Method::POST, &name, &[("uploads", "")]);
        self.set_headers(&mut head, &options.headers)?;
        self.set_tagging(&mut head, &options.tags)?;
        if let Some((algorithm, choice)) = options.checksum {
            self.set(&mut head, "x-amz-checksum-algorithm", algorithm.name())?;
            self.set(&mut head, "x-amz-checksum-type", choice_name(choice))?;
        }
        let answer = self.call(head, Bytes::new(), Repeat::Never).await?;
        self.upload_id(&self.document(&answer, true)?).map(UploadId)
    }

    /// The id in the answer to a begun upload.
    pub(super) fn upload_id(&self, document: &Element) -> Result<String, BlobError> {
        document
            .text_of("UploadId")
            .filter(|id| !id.is_empty() && id.len() <= MAX_UPLOAD_ID_BYTES)
            .map(str::to_owned)
            .ok_or_else(|| self.nonsense("an upload without a usable id", true))
    }

    pub(super) async fn write_part(
        &self,
        key: &Key,
        upload: &UploadId,
        number: u16,
        body: Body,
    ) -> Result<PartInfo, BlobError> {
        let name = self.names.name_of(key)?;
        if number == 0 || number > MAX_PART_NUMBER {
            return Err(BlobError::InvalidPart { number });
        }
        let size = body.size();
        let text = number.to_string();
        let query = [
            ("partNumber", text.as_str()),
            ("uploadId", upload.0.as_str()),
        ];
        let head = self.head_of(Method::PUT, &name, &query);
        let (answer, digests) = self.upload_body(head, body).await.map_err(no_upload)?;
        Ok(PartInfo {
            number,
            size,
            etag: self.compare(&answer.headers, &digests)?,
            checksum: checksum_in(&answer.headers).or(digests.checksum),
            modified_ms: written_ms(&answer.headers),
        })
    }

    pub(super) async fn finish_upload(
        &self,
        key: &Key,
        upload: &UploadId,
        parts: Vec<PartChoice>,
        options: CompleteOptions,
    ) -> Result<Written, BlobError> {
        let name = self.names.name_of(key)?;
        if !parts.is_sorted_by(|before, after| before.number < after.number) {
            return Err(BlobError::PartOrder);
        }
        let guard = self
            .guard(
                key,
                &options.condition,
                Some(ConditionalCall::CompleteIfAbsent),
                ConditionalCall::CompleteIfMatch,
            )
            .await?;
        if let Some(expected) = &options.checksum {
            refuse_other_checksum(expected, &parts)?;
        }
        let mut head = self.head_of(Method::POST, &name, &[("uploadId", &upload.0)]);
        self.set_guard(&mut head, &guard)?;
        self.set(&mut head, "content-type", "application/xml")?;
        if let Some(checksum) = &options.checksum {
            self.set(
                &mut head,
                checksum.algorithm.header(),
                &checksum_text(checksum),
            )?;
            let choice = ChecksumChoice::from(checksum.kind);
            self.set(&mut head, "x-amz-checksum-type", choice_name(choice))?;
        }
        let body = xml::complete(&parts, |part| {
            let checksum = part.checksum.as_ref()?;
            let name = format!("Checksum{}", checksum.algorithm.name());
            Some((name, STANDARD.encode(&checksum.value)))
        });
        let answer = self.ask(head, Bytes::from(body), Repeat::Never).await?;
        if !answer.status.is_success() {
            let refusal = Refusal::of(&answer);
            if matches!(refusal.code.as_str(), "InvalidPart" | "EntityTooSmall") {
                return Err(self.culprit(key, upload, &parts, refusal).await);
            }
            let error = no_upload(self.refused(refusal, true));
            return Err(self.judge(error, &name, &guard).await);
        }
        let document = match self.document(&answer, true) {
            Ok(document) => document,
            Err(error) => return Err(self.judge(error, &name, &guard).await),
        };
        let native = document
            .text_of("ETag")
            .map(bare)
            .filter(|tag| !tag.is_empty());
        let native =
            native.ok_or_else(|| self.nonsense("a completed upload without an ETag", true))?;
        let etag = match etag_in(&answer.headers) {
            Some((_, etag)) => etag,
            None => etag_of(native),
        };
        Ok(Written {
            etag,
            checksum: checksum_by(|header| element_of(&document, header)),
            modified_ms: written_ms(&answer.headers),
        })
    }

    /// Which part a refusal is about, where the server does not name it.
    async fn culprit(
        &self,
        key: &Key,
        upload: &UploadId,
        parts: &[PartChoice],
        refusal: Refusal,
    ) -> BlobError {
        let small = refusal.code == "EntityTooSmall";
        if let Some(number) = refusal.part {
            return match (small, refusal.size) {
                (true, Some(size)) => BlobError::PartTooSmall { number, size },
                _ => BlobError::InvalidPart { number },
            };
        }
        let last = parts.last().map_or(0, |part| part.number);
        let mut wanted = parts.iter().peekable();
        let mut after = 0;
        loop {
            let page = match self.parts_page(key, upload, after, MAX_PART_PAGE).await {
                Ok(page) => page,
                Err(error) => return error,
            };
            for there in &page.parts {
                after = after.max(there.number);
                let Some(choice) = wanted.peek().copied() else {
                    break;
                };
                if choice.number > there.number {
                    continue;
                }
                let other = choice.number != there.number || choice.etag != there.etag;
                if other && !small {
                    return BlobError::InvalidPart {
                        number: choice.number,
                    };
                }
                if small && choice.number < last && there.size < MIN_PART_BYTES {
                    let (number, size) = (there.number, there.size);
                    return BlobError::PartTooSmall { number, size };
                }
                wanted.next();
            }
            if !page.more || page.parts.is_empty() {
                break;
            }
        }
        let number = wanted.peek().map_or(last, |choice| choice.number);
        BlobError::InvalidPart { number }
    }

    pub(super) async fn end_upload(&self, key: &Key, upload: &UploadId) -> Result<(), BlobError> {
        self.end_named(&self.names.name_of(key)?, upload).await
    }

    pub(super) async fn end_named(&self, name: &str, upload: &UploadId) -> Result<(), BlobError> {
        let head = self.head_of(Method::DELETE, name, &[("uploadId", &upload.0)]);
        // Repeated, a success could become NoSuchUpload; so it is not.
        let answer = self.call(head, Bytes::new(), Repeat::Never).await;
        answer.map(drop).map_err(no_upload)
    }

    pub(super) async fn parts_page(
        &self,
        key: &Key,
        upload: &UploadId,
        after: u16,
        limit: usize,
    ) -> Result<PartPage, BlobError> {
        let name = self.names.name_of(key)?;
        let (marker, most) = (after.to_string(), limit.clamp(1, MAX_PART_PAGE).to_string());
        let query = [
            ("max-parts", most.as_str()),
            ("part-number-marker", marker.as_str()),
            ("uploadId", upload.0.as_str()),
        ];
        let head = self.head_of(Method::GET, &name, &query);
        let answer = self
            .call(head, Bytes::new(), Repeat::WhenFailed)
            .await
            .map_err(no_upload)?;
        let document = self.document(&answer, false)?;
        let mut parts = Vec::new();
        for part in document.all("Part") {
            parts.push(self.part_in(part)?);
        }
        let algorithm = document
            .text_of("ChecksumAlgorithm")
            .and_then(Algorithm::from_name);
        let choice = match document.text_of("ChecksumType") {
            Some("FULL_OBJECT") => ChecksumChoice::FullObject,
            _ => ChecksumChoice::Composite,
        };
        Ok(PartPage {
            parts,
            more: document.says("IsTruncated"),
            checksum: algorithm.map(|algorithm| (algorithm, choice)),
        })
    }

    fn part_in(&self, part: &Element) -> Result<PartInfo, BlobError> {
        let read = || {
            Some(PartInfo {
                number: part.text_of("PartNumber")?.parse().ok()?,
                size: part.text_of("Size")?.parse().ok()?,
                etag: etag_of(bare(part.text_of("ETag")?)),
                checksum: checksum_by(|header| element_of(part, header)),
                modified_ms: time_of(part.text_of("LastModified")),
            })
        };
        read().ok_or_else(|| self.nonsense("a part that lacks something", false))
    }
}

/// About an upload, "not found" is the upload.
fn no_upload(error: BlobError) -> BlobError {
    match error {
        BlobError::NotFound => BlobError::NoSuchUpload,
        error => error,
    }
}

fn choice_name(choice: ChecksumChoice) -> &'static str {
    match choice {
        ChecksumChoice::FullObject => "FULL_OBJECT",
        ChecksumChoice::Composite => "COMPOSITE",
    }
}

/// Holds the checksum the client says against what its parts' give: not every server does.
fn refuse_other_checksum(expected: &Checksum, parts: &[PartChoice]) -> Result<(), BlobError> {
    let algorithm = expected.algorithm;
    let ChecksumKind::Composite { .. } = expected.kind else {
        return Ok(());
    };
    let mut hasher = crate::checksum::Hasher::new(algorithm);
    for part in parts {
        match &part.checksum {
            Some(checksum) if checksum.algorithm == algorithm => hasher.update(&checksum.value),
            // Without all of them only the server can tell.
            _ => return Ok(()),
        }
    }
    if hasher.finish() == expected.value {
        Ok(())
    } else {
        let fault = BodyFault::Checksum { algorithm };
        Err(BlobError::Body { fault })
    }
}
