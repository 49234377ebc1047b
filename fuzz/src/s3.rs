//! The S3 wire: chunked bodies, ranges, XML, key names and signatures.
//!
//! Invariant checked: however a body is cut, it says the same; what is written is read back; what is
//! accepted is within its limits, and no signature is believed that nobody made.

use breccia_blob::key_encoding;
use breccia_blob::s3::codec::chunked::{ChunkError, ChunkSigner, Decoder, Encoder, Event};
use breccia_blob::s3::codec::range::{self, RangeHeader};
use breccia_blob::s3::codec::sigv4::{
    self, MOST_EXPIRES_S, MOST_SIGNED_HEADERS, RequestHead, Scope, SigningKey,
};
use breccia_blob::s3::codec::uri::{Query, Target};
use breccia_blob::s3::codec::xml;
use breccia_core::PlacementKey;
use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

use crate::pieces;

const TRAILER: &str = "x-amz-checksum-crc32";
/// 2013-05-24: what the seeds are dated.
const NOW_MS: u64 = 1_369_353_600_000;

fn key(secret: &str) -> SigningKey {
    SigningKey::derive(secret, Scope::s3("20130524", "us-east-1"))
}

fn signer(signed: bool) -> Option<ChunkSigner> {
    signed.then(|| ChunkSigner::new(key("secret"), "20130524T000000Z".to_owned(), [7; 32]))
}

type Body = Result<(Vec<u8>, Vec<(String, String)>), ChunkError>;

fn read_body<'a>(mut decoder: Decoder, parts: impl Iterator<Item = &'a [u8]>) -> Body {
    let (mut data, mut trailers, mut ended) = (Vec::new(), Vec::new(), false);
    for part in parts {
        let mut input = Bytes::copy_from_slice(part);
        while let Some(event) = decoder.next(&mut input)? {
            assert!(!ended, "an event after the end");
            match event {
                Event::Data(bytes) => {
                    assert!(!bytes.is_empty(), "data of no bytes");
                    data.extend_from_slice(&bytes);
                }
                Event::Trailer { name, value } => trailers.push((name, value)),
                Event::End => ended = true,
            }
        }
        assert!(input.is_empty(), "bytes are left without an event");
    }
    decoder.finish()?;
    assert!(ended, "a body is whole without its end");
    Ok((data, trailers))
}

/// The first byte: whether chunks are signed, whether a trailer is declared, and how many bytes the
/// body should have. Then the body.
pub fn s3_chunked(data: &[u8]) {
    let Some((first, body)) = data.split_first() else {
        return;
    };
    let (signed, trailer, length) = (first & 1 != 0, first & 2 != 0, u64::from(first >> 2));
    let decoder = || {
        let names = trailer.then_some(TRAILER);
        Decoder::new(signer(signed), length, names).expect("one trailer is within the limit")
    };
    let whole = read_body(decoder(), std::iter::once(body));
    for (short, long) in [(4, 300), (40, 2000)] {
        let parts = pieces::cut(body, short, long);
        assert_eq!(read_body(decoder(), parts.into_iter()), whole);
    }
    assert_eq!(read_body(decoder(), body.chunks(1)), whole);
    if let Ok((bytes, trailers)) = &whole {
        assert_eq!(u64::try_from(bytes.len()), Ok(length));
        assert_eq!(trailers.len(), usize::from(trailer));
    }
    // And the other way: any bytes, written in chunks of any length, are read back.
    let mut encoder = Encoder::new(signer(signed));
    let mut written = Vec::new();
    for part in pieces::cut(body, 4, 300) {
        written.extend_from_slice(&encoder.chunk(part));
    }
    let trailers = [(TRAILER.to_owned(), "AAAAAA==".to_owned())];
    written.extend_from_slice(&encoder.finish(&trailers));
    let length = u64::try_from(body.len()).unwrap_or(0);
    let again = Decoder::new(signer(signed), length, [TRAILER]).expect("within the limit");
    let expected = Ok((body.to_vec(), trailers.to_vec()));
    assert_eq!(
        read_body(again, std::iter::once(written.as_slice())),
        expected
    );
}

/// A range header, and after a line end the size of the object.
pub fn s3_range(data: &[u8]) {
    let mut lines = data.splitn(2, |byte| *byte == b'\n');
    let (header, size) = (lines.next().unwrap_or(b""), lines.next().unwrap_or(b"9"));
    let size = std::str::from_utf8(size)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(9);
    let parsed = RangeHeader::parse(header);
    match parsed.resolve(size) {
        Ok(Some(range)) => {
            assert!(range.start < range.end && range.end <= size);
            let text = range::content_range(&range, size);
            let again =
                range::ContentRange::parse(text.as_bytes()).expect("what is written is read");
            // The largest number stands for all larger ones: it has no byte behind it.
            assert_eq!((again.range, again.size), (Some(range), Some(size)));
        }
        Ok(None) => assert!(!matches!(parsed, RangeHeader::One(_))),
        Err(error) => assert_eq!(error.size, size),
    }
    if let RangeHeader::One(one) = parsed {
        assert_eq!(RangeHeader::parse(one.to_header().as_bytes()), parsed);
    }
    if let Some(range) = range::parse_copy_source_range(header) {
        assert!(range.start < range.end);
    }
    let _answer = range::ContentRange::parse(header);
}

/// Any document, to every reader.
pub fn s3_xml(data: &[u8]) {
    if let Ok(request) = xml::CompleteRequest::read(data) {
        assert!(!request.parts.is_empty() && request.parts.len() <= xml::MOST_PARTS);
        assert_eq!(
            xml::CompleteRequest::read(request.write().as_bytes()),
            Ok(request)
        );
    }
    if let Ok(request) = xml::DeleteRequest::read(data) {
        assert!(request.objects.len() <= xml::MOST_DELETE_KEYS);
        assert!(request.objects.iter().all(|object| !object.key.is_empty()));
        let text = request.write().expect("keys from XML are UTF-8");
        assert_eq!(xml::DeleteRequest::read(text.as_bytes()), Ok(request));
    }
    if let Ok(tagging) = xml::Tagging::read(data) {
        assert!(tagging.tags.len() <= xml::MOST_TAGS);
        assert_eq!(xml::Tagging::read(tagging.write().as_bytes()), Ok(tagging));
    }
    if let Ok(Some(region)) = xml::read_location_constraint(data) {
        let text = xml::write_location_constraint(&region);
        assert_eq!(
            xml::read_location_constraint(text.as_bytes()),
            Ok(Some(region))
        );
    }
    if let Ok(list) = xml::ListBucketResult::read(data) {
        let text = list
            .write()
            .expect("keys from XML are UTF-8, or are written encoded");
        assert_eq!(xml::ListBucketResult::read(text.as_bytes()), Ok(list));
    }
    if let Ok(Ok(result)) = xml::CompleteResult::read(data) {
        let text = result.write().expect("keys from XML are UTF-8");
        assert_eq!(xml::CompleteResult::read(text.as_bytes()), Ok(Ok(result)));
    }
    if let Ok(error) = xml::ErrorDocument::read(data) {
        assert_eq!(
            xml::ErrorDocument::read(error.write().as_bytes()),
            Ok(error)
        );
    }
    if let Ok(result) = xml::DeleteResult::read(data) {
        let text = result.write().expect("keys from XML are UTF-8");
        assert_eq!(xml::DeleteResult::read(text.as_bytes()), Ok(result));
    }
    let _answers = (
        xml::Initiated::read(data),
        xml::CopyResult::read_object(data),
        xml::CopyResult::read_part(data),
        xml::ListPartsResult::read(data),
        xml::ListUploadsResult::read(data),
        xml::read_versioning(data),
    );
}

/// Any bytes as a key, and as a key's name.
pub fn s3_key_encoding(data: &[u8]) {
    let name = key_encoding::encode(data);
    assert_eq!(key_encoding::decode(&name).as_deref(), Ok(data));
    let (front, back) = data.split_at(data.len() / 2);
    assert!(name.starts_with(&key_encoding::encoded_prefix(front)));
    let names = key_encoding::encode(front).cmp(&key_encoding::encode(back));
    assert_eq!(names, front.cmp(back), "names sort otherwise than keys");
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(key) = key_encoding::decode(text)
    {
        assert_eq!(key_encoding::encode(&key), text, "a key has two names");
    }
    let prefix = "p/".to_owned();
    let raw = PlacementKey::Stalwart { prefix }
        .hashed_bytes(data)
        .into_owned();
    assert!(raw.len() <= data.len());
    assert_eq!(PlacementKey::Raw.hashed_bytes(data).as_ref(), data);
}

/// A request's head: method, path and query on the first line, then headers. Its signer is unknown.
pub fn s3_authorization(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut lines = text.split('\n');
    let mut words = lines.next().unwrap_or_default().splitn(3, ' ');
    let mut word = || words.next().unwrap_or_default();
    let (method, path, query) = (word(), word(), word());
    let mut headers = HeaderMap::new();
    for (name, value) in lines.take(60).filter_map(|line| line.split_once(':')) {
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_str(value.trim());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let head = RequestHead {
        method,
        path,
        query,
        headers: &headers,
    };
    if let Ok(parsed) = Query::parse(query)
        && let Ok(Some(claim)) = sigv4::Authorization::parse(&head, &parsed)
    {
        assert!(claim.signed_headers.len() <= MOST_SIGNED_HEADERS);
        assert_eq!(claim.scope.service, "s3");
        if let sigv4::Form::Presigned { expires_s } = claim.form {
            assert!((1..=MOST_EXPIRES_S).contains(&expires_s));
        }
    }
    // A secret that no input was signed with.
    let keys =
        |_: &str, scope: &Scope| Some(SigningKey::derive("never used elsewhere", scope.clone()));
    let verified = sigv4::verify(&head, NOW_MS, sigv4::Regions::Any, &keys);
    assert!(
        !matches!(verified, Ok(Some(_))),
        "a forged signature is believed"
    );
    if let Ok(target) = Target::of_host("b.localhost:80", &["localhost"], path) {
        assert_eq!(target.bucket.as_deref(), Some("b"));
        assert_ne!(target.key, Some(Vec::new()));
    }
}
