//! Operations on single objects: put, get, head, delete, attributes.
//!
//! Invariant: a put is acknowledged only after the store has published it whole.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::body::Incoming;

use crate::body::Whole;
use crate::checksum::ChecksumKind;
use crate::condition::WriteCondition;
use crate::error::BlobError;
use crate::key::Key;
use crate::meta::{ETag, ObjectMeta};
use crate::s3::codec::range::{ByteRange, RangeHeader, content_range};
use crate::s3::codec::time;
use crate::s3::codec::xml::ObjectAttributes;
use crate::store::{GetOptions, Opened, PutOptions, Span, Written};
use crate::upload::MAX_PART_NUMBER;

use super::digests;
use super::dispatch::Call;
use super::headers::{self, Out, override_headers, set_checksum};
use super::namespace::Bucket;
use super::refusal::Refusal;
use super::respond::Answer;

/// What `GetObjectAttributes` may be asked for.
const ATTRIBUTES: &[&str] = &[
    "ETag",
    "Checksum",
    "ObjectParts",
    "StorageClass",
    "ObjectSize",
];
/// How often a get by part number begins anew because the object was replaced meanwhile.
const PART_ATTEMPTS: usize = 3;

/// `PutObject`.
pub(super) async fn put(call: &Call, incoming: Incoming) -> Result<Answer, Refusal> {
    let request = &call.request;
    let options = PutOptions {
        headers: headers::of_request(request)?,
        tags: headers::tags_of_request(request)?.unwrap_or_default(),
        condition: request.write_condition()?,
    };
    let (bucket, key) = call.object().await?;
    let body = call.body(incoming).await?;
    let (store, target) = (Arc::clone(&bucket.store), key.clone());
    let write = async move { Ok(store.put(&target, body, options).await?) };
    let written = bucket.publish(&key, write).await?;
    Ok(Answer::empty(StatusCode::OK).with(of_written(&written)))
}

/// The headers of what was written.
fn of_written(written: &Written) -> Out {
    let mut out = Out::default();
    out.set("etag", &written.etag.quoted());
    set_checksum(&mut out, written.checksum.as_ref());
    out
}

/// `GetObject`.
pub(super) async fn get(call: &Call) -> Result<Answer, Refusal> {
    let (bucket, key) = call.object().await?;
    let number = part_number(call)?;
    let (mut opened, mut wanted) = read(call, &bucket, &key, number).await?;
    let share = if let Some(share) = call.share_now(size_of(&opened)) {
        share
    } else {
        // Whoever holds memory may wait for a connection: so none is held while memory is waited
        // for. What comes then may be another version, of any size.
        drop(opened);
        let share = call.share(None).await?;
        (opened, wanted) = read(call, &bucket, &key, number).await?;
        share
    };
    let size = size_of(&opened);
    let out = of_read(call, &opened.meta, &wanted, number)?;
    let answer = Answer::stream(wanted.status(), opened.source, size, share);
    Ok(answer.with(out))
}

async fn read(
    call: &Call,
    bucket: &Bucket,
    key: &Key,
    number: Option<u16>,
) -> Result<(Opened, Wanted), Refusal> {
    match number {
        None => open(call, bucket, key).await,
        Some(number) => open_part(call, bucket, key, number).await,
    }
}

fn size_of(opened: &Opened) -> u64 {
    opened.range.end.saturating_sub(opened.range.start)
}

/// `HeadObject`.
pub(super) async fn head(call: &Call) -> Result<Answer, Refusal> {
    let (bucket, key) = call.object().await?;
    let number = part_number(call)?;
    let meta = bucket.store.head(&key).await?;
    call.request.read_conditions()?.check(&meta)?;
    let wanted = match number {
        Some(number) => part_of(&meta, number)?,
        None => match span(call, || Ok(meta.etag.clone()))? {
            None => Wanted::whole(&meta),
            Some(span) => Wanted {
                range: span.of(meta.size)?,
                partial: true,
            },
        },
    };
    let size = wanted.range.end.saturating_sub(wanted.range.start);
    let out = of_read(call, &meta, &wanted, number)?;
    Ok(Answer::head(wanted.status(), size).with(out))
}

/// Which bytes an answer holds.
struct Wanted {
    range: std::ops::Range<u64>,
    /// Whether the client asked for a part of the object.
    partial: bool,
}

impl Wanted {
    fn whole(meta: &ObjectMeta) -> Self {
        Self {
            range: 0..meta.size,
            partial: false,
        }
    }

    fn status(&self) -> StatusCode {
        if self.partial {
            StatusCode::PARTIAL_CONTENT
        } else {
            StatusCode::OK
        }
    }
}

fn of_read(
    call: &Call,
    meta: &ObjectMeta,
    wanted: &Wanted,
    number: Option<u16>,
) -> Result<Out, Refusal> {
    let request = &call.request;
    let mut out = headers::of_object(meta);
    if wanted.partial && !wanted.range.is_empty() {
        out.set("content-range", &content_range(&wanted.range, meta.size));
    }
    if number.is_some() && !meta.parts.is_empty() {
        out.set("x-amz-mp-parts-count", &meta.parts.len().to_string());
    }
    let mode = request.header("x-amz-checksum-mode")?.unwrap_or_default();
    if mode.eq_ignore_ascii_case("enabled") && wanted.range == (0..meta.size) {
        set_checksum(&mut out, meta.checksum.as_ref());
    }
    override_headers(&mut out, request, call.identity.signed)?;
    Ok(out)
}

async fn open(call: &Call, bucket: &Bucket, key: &Key) -> Result<(Opened, Wanted), Refusal> {
    let has_if_range = call.request.has_header("if-range");
    let known = if has_if_range {
        Some(bucket.store.head(key).await?.etag)
    } else {
        None
    };
    let span = span(call, || known.ok_or(BlobError::NotFound))?;
    let conditions = call.request.read_conditions()?;
    let options = GetOptions {
        span,
        conditions,
        for_copy: false,
    };
    let opened = bucket.store.get(key, options).await?;
    let wanted = Wanted {
        range: opened.range.clone(),
        partial: span.is_some(),
    };
    Ok((opened, wanted))
}

/// The range that is asked for. With `If-Range` only while the object is the one that is named.
fn span(
    call: &Call,
    etag: impl FnOnce() -> Result<ETag, BlobError>,
) -> Result<Option<Span>, Refusal> {
    let Some(value) = call.request.header("range")? else {
        return Ok(None);
    };
    let span = match RangeHeader::parse(value.as_bytes()) {
        RangeHeader::One(ByteRange::From(first)) => Span::From(first),
        RangeHeader::One(ByteRange::Between(first, last)) => Span::Between(first, last),
        RangeHeader::One(ByteRange::Last(count)) => Span::Last(count),
        RangeHeader::Several | RangeHeader::Ignored => return Ok(None),
    };
    match call.request.header("if-range")? {
        // A date is a weak validator: the whole object is always a right answer.
        Some(named) if named != etag()?.quoted() => Ok(None),
        _ => Ok(Some(span)),
    }
}

fn part_number(call: &Call) -> Result<Option<u16>, Refusal> {
    let Some(number) = call.request.parameter_number("partNumber")? else {
        return Ok(None);
    };
    if call.request.has_header("range") {
        return Err(Refusal::request("Range and partNumber exclude each other"));
    }
    let number = u16::try_from(number).ok();
    let number = number.filter(|number| (1..=MAX_PART_NUMBER).contains(number));
    let wrong = || Refusal::argument("a part's number is between 1 and 10000");
    number.map(Some).ok_or_else(wrong)
}

/// The bytes of a part. An object that was written whole is its own first part.
fn part_of(meta: &ObjectMeta, number: u16) -> Result<Wanted, Refusal> {
    if meta.parts.is_empty() {
        let in_parts = meta.etag.as_str().rsplit_once('-');
        if in_parts.is_some_and(|(_, parts)| parts != "1") {
            return Err(Refusal::not_implemented(
                "partNumber of an object whose shard does not tell its parts",
            ));
        }
        return match number {
            1 => Ok(Wanted {
                range: 0..meta.size,
                partial: true,
            }),
            _ => Err(Refusal::NoSuchPart { number }),
        };
    }
    let mut start = 0_u64;
    for part in &meta.parts {
        let end = start.saturating_add(part.size);
        if part.number == number {
            return Ok(Wanted {
                range: start..end,
                partial: true,
            });
        }
        start = end;
    }
    Err(Refusal::NoSuchPart { number })
}

async fn open_part(
    call: &Call,
    bucket: &Bucket,
    key: &Key,
    number: u16,
) -> Result<(Opened, Wanted), Refusal> {
    for _ in 0..PART_ATTEMPTS {
        let meta = bucket.store.head(key).await?;
        let conditions = call.request.read_conditions()?;
        conditions.check(&meta)?;
        let wanted = part_of(&meta, number)?;
        if wanted.range.is_empty() {
            let opened = Opened {
                meta,
                range: wanted.range.clone(),
                source: Box::new(Whole::new(bytes::Bytes::new())),
            };
            return Ok((opened, wanted));
        }
        let last = wanted.range.end.saturating_sub(1);
        let span = Some(Span::Between(wanted.range.start, last));
        let options = GetOptions {
            span,
            conditions,
            for_copy: false,
        };
        let opened = bucket.store.get(key, options).await?;
        if opened.meta.etag == meta.etag && opened.range == wanted.range {
            return Ok((opened, wanted));
        }
    }
    let store = bucket.store.name().to_owned();
    Err(BlobError::Conflict { store }.into())
}

/// `DeleteObject`: as in S3, deleting what is not there succeeds.
pub(super) async fn delete(call: &Call) -> Result<Answer, Refusal> {
    let condition = call.request.write_condition()?;
    if condition == WriteCondition::IfAbsent {
        return Err(Refusal::not_implemented("If-None-Match on a delete"));
    }
    let (bucket, key) = call.object().await?;
    bucket.store.delete(&key, condition).await?;
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}

/// `GetObjectAttributes`.
pub(super) async fn attributes(call: &Call) -> Result<Answer, Refusal> {
    let mut names: Vec<String> = Vec::new();
    for value in call.request.headers().get_all("x-amz-object-attributes") {
        let text = value.to_str();
        let text = text.map_err(|_| Refusal::argument("x-amz-object-attributes is not ASCII"))?;
        names.extend(text.split(',').map(|name| name.trim().to_owned()));
    }
    if names.is_empty()
        || names
            .iter()
            .any(|name| !ATTRIBUTES.contains(&name.as_str()))
    {
        return Err(Refusal::argument(
            "x-amz-object-attributes names no attribute",
        ));
    }
    let wants = |name: &str| names.iter().any(|wanted| wanted == name);
    let (bucket, key) = call.object().await?;
    let meta = bucket.store.head(&key).await?;
    call.request.read_conditions()?.check(&meta)?;
    let mut checksum = meta.checksum.filter(|_| wants("Checksum"));
    let checksum_type = checksum
        .as_ref()
        .map(|checksum| digests::kind_name(checksum.kind.into()).to_owned());
    if let Some(checksum) = &mut checksum {
        // Here, S3 leaves out how many parts there are.
        checksum.kind = ChecksumKind::FullObject;
    }
    // Without checksums of the parts, S3 tells no more of them than how many there are.
    let parts = u32::try_from(meta.parts.len()).unwrap_or(u32::MAX);
    let document = ObjectAttributes {
        etag: wants("ETag").then(|| meta.etag.as_str().to_owned()),
        checksums: digests::in_document(checksum.as_ref()),
        checksum_type,
        part_count: (wants("ObjectParts") && parts > 0).then_some(parts),
        storage_class: wants("StorageClass").then(|| "STANDARD".to_owned()),
        size: wants("ObjectSize").then_some(meta.size),
    };
    let mut out = Out::default();
    out.set("last-modified", &time::http_date(meta.modified_ms));
    Ok(Answer::xml(StatusCode::OK, document.write()).with(out))
}
