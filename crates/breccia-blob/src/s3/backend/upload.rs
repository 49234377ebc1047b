//! Uploads in parts, by the member's own calls.
//!
//! Invariant: completing is sent once; what becomes of it is the server's word or unknown.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use breccia_core::error::Effect;
use bytes::Bytes;
use hyper::Method;

use super::S3Store;
use super::meta::{
    bare, checksum_by, checksum_in, checksum_text, etag_of, tag_is_opaque, time_of, written_ms,
};
use super::object::element_of;
use super::refusal::Refusal;
use super::xml::{self, Element};
use crate::body::Body;
use crate::checksum::{self, Algorithm, Checksum, ChecksumKind};
use crate::condition::ConditionalCall;
use crate::error::{BlobError, BodyFault};
use crate::http::Repeat;
use crate::key::Key;
use crate::meta::ETag;
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
        self.require_kept(&options.headers, &options.tags).await?;
        self.require_upload_tags(&options.tags).await?;
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
        let examined = self.examine(&name, upload, parts).await?;
        let body = xml::complete(&examined.parts, |part| {
            let checksum = part.checksum.as_ref()?;
            let name = format!("Checksum{}", checksum.algorithm.name());
            Some((name, STANDARD.encode(&checksum.value)))
        });
        let answer = self.ask(head, Bytes::from(body), Repeat::Never).await?;
        if !answer.status.is_success() {
            let error = self.incomplete(Refusal::of(&answer), &examined);
            return Err(self.judge(error, &name, &guard).await);
        }
        let document = match self.document(&answer, true) {
            Ok(document) => document,
            Err(error) => return Err(self.judge(error, &name, &guard).await),
        };
        let told = document.text_of("ETag").map(bare);
        let etag = match told.filter(|tag| !tag.is_empty()) {
            Some(native) if tag_is_opaque(&answer.headers) => ETag::unknown(native.as_bytes()),
            Some(native) => etag_of(native),
            // Ceph's gateway 16 leaves it empty.
            None => self.completed_tag(&name, &examined.parts).await?,
        };
        Ok(Written {
            etag,
            checksum: checksum_by(|header| element_of(&document, header)),
            modified_ms: written_ms(&answer.headers),
        })
    }

    /// Holds the chosen parts against those that are there: not every server checks all of it, and
    /// few say which part it is.
    async fn examine(
        &self,
        name: &str,
        upload: &UploadId,
        choices: Vec<PartChoice>,
    ) -> Result<Examined, BlobError> {
        let last = choices.last().map_or(0, |choice| choice.number);
        let mut wanted = choices.into_iter().peekable();
        let mut found = Examined::default();
        let mut after = 0;
        loop {
            let page = self.raw_parts(name, upload, after, MAX_PART_PAGE).await?;
            let before = after;
            for (there, native) in page.parts {
                after = after.max(there.number);
                match wanted.next_if(|choice| choice.number <= there.number) {
                    None => found.left_out = true,
                    Some(choice) if is_part(&choice, &there, &native) => {
                        if choice.number < last && there.size < MIN_PART_BYTES {
                            let (number, size) = (there.number, there.size);
                            return Err(BlobError::PartTooSmall { number, size });
                        }
                        found.parts.push(PartChoice {
                            etag: ETag::from_text(native),
                            ..choice
                        });
                    }
                    Some(choice) => {
                        let number = choice.number;
                        return Err(BlobError::InvalidPart { number });
                    }
                }
            }
            if !page.more || after == before {
                break;
            }
        }
        match wanted.next() {
            Some(missing) => Err(BlobError::InvalidPart {
                number: missing.number,
            }),
            None => Ok(found),
        }
    }

    /// The tag of an object that was just completed, where the answer does not say it.
    async fn completed_tag(&self, name: &str, parts: &[PartChoice]) -> Result<ETag, BlobError> {
        let md5s: Option<Vec<[u8; 16]>> = parts.iter().map(|part| part.etag.md5()).collect();
        match md5s {
            Some(md5s) => Ok(ETag::of_parts(checksum::md5(&md5s.concat()), md5s.len())),
            None => match self.look(name).await {
                Ok(meta) => Ok(meta.etag),
                Err(error) => Err(error.with_effect(Effect::Unknown)),
            },
        }
    }

    /// What a refused completion means, all of whose parts were found to be there.
    fn incomplete(&self, refusal: Refusal, examined: &Examined) -> BlobError {
        if examined.left_out && refusal.code == "InvalidPart" {
            return BlobError::Unsupported {
                store: self.name.clone(),
                operation: "completing an upload without some of its parts".to_owned(),
                reason: "the server wants all parts that were uploaded".to_owned(),
            };
        }
        let last = examined.parts.last().map_or(0, |part| part.number);
        let number = refusal.part.unwrap_or(last);
        match (refusal.code.as_str(), refusal.size) {
            ("EntityTooSmall", Some(size)) => BlobError::PartTooSmall { number, size },
            ("EntityTooSmall" | "InvalidPart", _) => BlobError::InvalidPart { number },
            _ => no_upload(self.refused(refusal, true)),
        }
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
        let page = self.raw_parts(&name, upload, after, limit).await?;
        Ok(PartPage {
            parts: page.parts.into_iter().map(|(part, _)| part).collect(),
            more: page.more,
            checksum: page.checksum,
        })
    }

    async fn raw_parts(
        &self,
        name: &str,
        upload: &UploadId,
        after: u16,
        limit: usize,
    ) -> Result<RawParts, BlobError> {
        let (marker, most) = (after.to_string(), limit.clamp(1, MAX_PART_PAGE).to_string());
        let query = [
            ("max-parts", most.as_str()),
            ("part-number-marker", marker.as_str()),
            ("uploadId", upload.0.as_str()),
        ];
        let head = self.head_of(Method::GET, name, &query);
        let answer = self.call(head, Bytes::new(), Repeat::WhenFailed).await;
        let document = self.document(&answer.map_err(no_upload)?, false)?;
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
        Ok(RawParts {
            parts,
            more: document.says("IsTruncated"),
            checksum: algorithm.map(|algorithm| (algorithm, choice)),
        })
    }

    fn part_in(&self, part: &Element) -> Result<(PartInfo, String), BlobError> {
        let read = || {
            let native = bare(part.text_of("ETag")?);
            let info = PartInfo {
                number: part.text_of("PartNumber")?.parse().ok()?,
                size: part.text_of("Size")?.parse().ok()?,
                etag: etag_of(native),
                checksum: checksum_by(|header| element_of(part, header)),
                modified_ms: time_of(part.text_of("LastModified")),
            };
            Some((info, native.to_owned()))
        };
        read().ok_or_else(|| self.nonsense("a part that lacks something", false))
    }
}

/// The parts to complete with, by the server's own tags.
#[derive(Debug, Default)]
struct Examined {
    parts: Vec<PartChoice>,
    /// Whether there are others.
    left_out: bool,
}

/// A page of parts with the server's own tags.
#[derive(Debug)]
struct RawParts {
    parts: Vec<(PartInfo, String)>,
    more: bool,
    checksum: Option<(Algorithm, ChecksumChoice)>,
}

/// Whether a chosen part is the one that is there. A part that the server encrypts was given a tag
/// made of the server's own.
fn is_part(choice: &PartChoice, there: &PartInfo, native: &str) -> bool {
    let tagged = choice.etag == there.etag || choice.etag == ETag::unknown(native.as_bytes());
    let summed = match (&choice.checksum, &there.checksum) {
        (Some(said), Some(kept)) if said.algorithm == kept.algorithm => said.value == kept.value,
        _ => true,
    };
    choice.number == there.number && tagged && summed
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
    let mut hasher = checksum::Hasher::new(algorithm);
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
