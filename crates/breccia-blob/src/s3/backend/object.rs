//! Single objects: put, get, head, delete, tags.
//!
//! Invariant: a put is one streamed `PutObject`, sent once; the server has it whole only after the
//! body's clean end.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::Method;
use hyper::header::HeaderMap;

use super::S3Store;
use super::conditional::Guard;
use super::meta::{checksum_in, checksum_text, etag_in, tag_count, tag_is_opaque, written_ms};
use super::refusal::{MAX_PUT_BYTES, Refusal};
use super::xml;
use crate::body::{Body, Digests};
use crate::checksum;
use crate::condition::{ConditionalCall, WriteCondition};
use crate::error::BlobError;
use crate::http::Lane;
use crate::http::{Collected, HOLD_BACK_BYTES, HttpResponse, Repeat, RequestHead};
use crate::key::Key;
use crate::meta::{ETag, Headers, ObjectMeta, Tags};
use crate::s3::codec::range::ContentRange;
use crate::store::{GetOptions, Opened, PutOptions, Span, Written};

impl S3Store {
    pub(super) async fn put_object(
        &self,
        key: &Key,
        body: Body,
        options: PutOptions,
    ) -> Result<Written, BlobError> {
        let name = self.names.name_of(key)?;
        self.require_kept(&options.headers, &options.tags).await?;
        let guard = self
            .guard(
                key,
                &options.condition,
                Some(ConditionalCall::PutIfAbsent),
                ConditionalCall::PutIfMatch,
            )
            .await?;
        let mut head = self.head_of(Method::PUT, &name, &[]);
        self.set_headers(&mut head, &options.headers)?;
        self.set_tagging(&mut head, &options.tags)?;
        self.set_guard(&mut head, &guard)?;
        let sent = self.upload_body(head, body).await;
        let (answer, digests) = match sent {
            Ok(sent) => sent,
            Err(error) => return Err(self.judge(error, &name, &guard).await),
        };
        Ok(Written {
            etag: self.compare(&answer.headers, &digests)?,
            checksum: checksum_in(&answer.headers).or(digests.checksum),
            modified_ms: written_ms(&answer.headers),
        })
    }

    /// Sends a body with its checksum; also used for parts.
    pub(super) async fn upload_body(
        &self,
        mut head: RequestHead,
        mut body: Body,
    ) -> Result<(Collected, Digests), BlobError> {
        if body.size() > MAX_PUT_BYTES {
            return Err(BlobError::TooLarge {
                store: self.name.clone(),
                limit: MAX_PUT_BYTES,
            });
        }
        // A body that is held back whole anyway is read first: then checksums that came behind it
        // are known in time.
        let at_hand = if body.size() <= HOLD_BACK_BYTES as u64 {
            Some(body.collect().await?)
        } else {
            None
        };
        let known = body.digests().and_then(|digests| digests.checksum.as_ref());
        if let Some(checksum) = known.or(body.announced()).cloned() {
            self.set(
                &mut head,
                checksum.algorithm.header(),
                &checksum_text(&checksum),
            )?;
        }
        let answer = match at_hand {
            Some(bytes) => self.call(head, bytes, Repeat::Never).await?,
            None => self.send_body(head, &mut body).await?,
        };
        let digests = body.digests().cloned();
        let digests =
            digests.ok_or_else(|| self.nonsense("success without the whole body", true))?;
        Ok((answer, digests))
    }

    /// The tag of what was written; the server's own must be the MD5 of what was sent.
    pub(super) fn compare(
        &self,
        headers: &HeaderMap,
        digests: &Digests,
    ) -> Result<ETag, BlobError> {
        let (native, etag) = etag_in(headers)
            .ok_or_else(|| self.nonsense("a write without an ETag in its answer", true))?;
        match etag.md5() {
            Some(md5) if md5 != digests.md5 && !tag_is_opaque(headers) => Err(self.nonsense(
                format!(
                    "ETag {native} is not the MD5 of what was sent ({}): what lies there now may be damaged",
                    ETag::of_md5(digests.md5)
                ),
                true,
            )),
            _ => Ok(etag),
        }
    }

    /// What is known of an object, without its tags.
    pub(super) async fn look(&self, name: &str) -> Result<ObjectMeta, BlobError> {
        self.look_with_headers(name).await.map(|(meta, _)| meta)
    }

    pub(super) async fn look_with_headers(
        &self,
        name: &str,
    ) -> Result<(ObjectMeta, HeaderMap), BlobError> {
        let mut head = self.head_of(Method::HEAD, name, &[]);
        self.set(&mut head, "x-amz-checksum-mode", "ENABLED")?;
        let answer = self.call(head, Bytes::new(), Repeat::WhenFailed).await?;
        let size = answer
            .header("content-length")
            .and_then(|text| text.parse().ok());
        let size = size.ok_or_else(|| self.nonsense("an object without Content-Length", false))?;
        Ok((self.meta_in(&answer.headers, size)?, answer.headers))
    }

    pub(super) async fn head_object(&self, key: &Key) -> Result<ObjectMeta, BlobError> {
        let name = self.names.name_of(key)?;
        let (mut meta, headers) = self.look_with_headers(&name).await?;
        meta.tags = self.tags_in(&name, &headers).await?;
        Ok(meta)
    }

    /// The tags of an object whose answer says that it has some.
    async fn tags_in(&self, name: &str, headers: &HeaderMap) -> Result<Tags, BlobError> {
        if tag_count(headers).unwrap_or(0) == 0 {
            return Ok(Tags::new());
        }
        // The object's own answer may still be open.
        let head = self.head_of(Method::GET, name, &[("tagging", "")]);
        let head = head.in_lane(Lane::FollowUps);
        let answer = self.call(head, Bytes::new(), Repeat::WhenFailed).await?;
        Ok(xml::read_tagging(&self.document(&answer, false)?))
    }

    pub(super) async fn get_object(
        &self,
        key: &Key,
        options: GetOptions,
    ) -> Result<Opened, BlobError> {
        let name = self.names.name_of(key)?;
        if !options.conditions.is_empty() {
            // Looked at first: an answer that is not wanted would cost its connection.
            options.conditions.check(&self.look(&name).await?)?;
        }
        let head = self.head_of(Method::GET, &name, &[]);
        let mut head = head.in_lane(options.lane());
        self.set(&mut head, "x-amz-checksum-mode", "ENABLED")?;
        match options.span {
            None => {}
            Some(Span::Between(first, last)) if first <= last => {
                self.set(&mut head, "range", &format!("bytes={first}-{last}"))?;
            }
            Some(Span::From(first)) => self.set(&mut head, "range", &format!("bytes={first}-"))?,
            Some(Span::Last(count)) if count > 0 => {
                self.set(&mut head, "range", &format!("bytes=-{count}"))?;
            }
            Some(_) => {
                let size = self.look(&name).await?.size;
                return Err(BlobError::Range { size });
            }
        }
        let answer = self.open(head, Bytes::new(), Repeat::WhenFailed).await?;
        let (range, size) = match answer.status.as_u16() {
            200 => self.whole(&answer, options.span)?,
            206 => self.partial(&answer)?,
            416 => return Err(self.unsatisfied(&name, answer).await),
            _ => {
                let answer = answer.collect(crate::http::MAX_ANSWER_BYTES).await?;
                return Err(self.refused(Refusal::of(&answer), false));
            }
        };
        let mut meta = self.meta_in(&answer.headers, size)?;
        options.conditions.check(&meta)?;
        meta.tags = self.tags_in(&name, &answer.headers).await?;
        Ok(Opened {
            meta,
            range,
            source: answer.into_source(),
        })
    }

    fn whole(
        &self,
        answer: &HttpResponse,
        span: Option<Span>,
    ) -> Result<(std::ops::Range<u64>, u64), BlobError> {
        let size = answer.content_length();
        let size = size.ok_or_else(|| self.nonsense("an object without Content-Length", false))?;
        match span.map(|span| span.of(size)).transpose()? {
            Some(range) if range != (0..size) => {
                Err(self.nonsense("the whole object where a range was asked for", false))
            }
            _ => Ok((0..size, size)),
        }
    }

    fn partial(&self, answer: &HttpResponse) -> Result<(std::ops::Range<u64>, u64), BlobError> {
        let told = answer.headers.get("content-range");
        let told = told.and_then(|value| ContentRange::parse(value.as_bytes()));
        let Some(ContentRange {
            range: Some(range),
            size: Some(size),
        }) = told
        else {
            return Err(self.nonsense("a range without Content-Range", false));
        };
        let length = range.end.saturating_sub(range.start);
        if answer.content_length() == Some(length) {
            Ok((range, size))
        } else {
            Err(self.nonsense("a range of another length than its Content-Range", false))
        }
    }

    async fn unsatisfied(&self, name: &str, answer: HttpResponse) -> BlobError {
        let told = answer.headers.get("content-range");
        let told = told.and_then(|value| ContentRange::parse(value.as_bytes()));
        let size = told.and_then(|told| told.size);
        answer.discard().await;
        match size {
            Some(size) => BlobError::Range { size },
            None => match self.look(name).await {
                Ok(meta) => BlobError::Range { size: meta.size },
                Err(error) => error,
            },
        }
    }

    pub(super) async fn delete_object(
        &self,
        key: &Key,
        condition: WriteCondition,
    ) -> Result<bool, BlobError> {
        let name = self.names.name_of(key)?;
        let guard = self
            .guard(key, &condition, None, ConditionalCall::DeleteIfMatch)
            .await?;
        let mut head = self.head_of(Method::DELETE, &name, &[]);
        self.set_guard(&mut head, &guard)?;
        let repeat = Repeat::of_write(guard != Guard::None);
        match self.call(head, Bytes::new(), repeat).await {
            Ok(_) => Ok(true),
            Err(BlobError::NotFound) if guard == Guard::None => Ok(false),
            Err(error) => Err(self.judge(error, &name, &guard).await),
        }
    }

    pub(super) async fn replace_tags(&self, key: &Key, tags: Tags) -> Result<(), BlobError> {
        let name = self.names.name_of(key)?;
        if tags.is_empty() {
            let head = self.head_of(Method::DELETE, &name, &[("tagging", "")]);
            self.call(head, Bytes::new(), Repeat::WhenFailed).await?;
            return Ok(());
        }
        self.require_kept(&Headers::default(), &tags).await?;
        let body = Bytes::from(xml::tagging(&tags));
        let mut head = self.head_of(Method::PUT, &name, &[("tagging", "")]);
        self.set(
            &mut head,
            "content-md5",
            &STANDARD.encode(checksum::md5(&body)),
        )?;
        self.set(&mut head, "content-type", "application/xml")?;
        self.call(head, body, Repeat::WhenFailed).await?;
        Ok(())
    }
}

/// The text of the element that carries what a header does: `ChecksumCRC32C`.
pub(super) fn element_of<'e>(element: &'e xml::Element, header: &str) -> Option<&'e str> {
    let algorithm = checksum::Algorithm::ALL
        .iter()
        .find(|known| known.header() == header)?;
    element.text_of(&format!("Checksum{}", algorithm.name()))
}
