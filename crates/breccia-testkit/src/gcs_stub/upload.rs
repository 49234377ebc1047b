//! Uploads: the content alone, metadata and content in one body, or a resumable session.
//!
//! Not like the service in one thing: a session never expires. Invariant: an object appears whole, at the
//! end of its upload.

use std::sync::Arc;

use serde_json::{Value, json};

use super::object::verify;
use super::request::{Refusal, Request, parse_json};
use super::store::Store;
use crate::http_message::HttpReply;

/// All pieces of a resumable upload but the last are a multiple of this.
const PIECE: usize = 256 * 1024;

/// An upload that has begun.
#[derive(Debug, Clone)]
pub(super) struct Session {
    bucket: String,
    name: String,
    resource: Value,
    begun_by: Request,
    content: Vec<u8>,
    finished: Option<Value>,
}

pub(super) fn upload(
    store: &mut Store,
    method: &str,
    bucket: &str,
    request: &Request,
    address: &str,
) -> Result<HttpReply, Refusal> {
    store.objects(bucket)?;
    match (method, request.parameter("uploadType")) {
        ("POST", Some("media")) => {
            let resource = json!({ "contentType": request.header("content-type") });
            finish(store, bucket, request, resource, request.body.clone())
        }
        ("POST", Some("multipart")) => {
            let (resource, content) =
                two_parts(request).ok_or_else(|| bad("Malformed multipart body."))??;
            finish(store, bucket, request, resource, content)
        }
        ("POST", Some("resumable")) => begin(store, bucket, request, address),
        ("PUT", Some("resumable")) => proceed(store, request),
        ("DELETE", Some("resumable")) => {
            store
                .sessions
                .remove(request.parameter("upload_id").unwrap_or_default());
            Ok(HttpReply {
                status: 499,
                ..HttpReply::default()
            })
        }
        _ => Err(bad("Unknown uploadType.")),
    }
}

fn bad(message: &str) -> Refusal {
    Refusal::new(400, "badRequest", message)
}

fn name_of(request: &Request, resource: &Value) -> String {
    let inside = resource.get("name").and_then(Value::as_str);
    let name = inside.or(request.parameter("name"));
    name.unwrap_or_default().to_owned()
}

/// A type is always shown.
fn with_type(mut resource: Value, otherwise: Option<&str>) -> Value {
    let known = resource.get("contentType").is_some_and(Value::is_string);
    if let Some(fields) = resource.as_object_mut().filter(|_| !known) {
        let kind = otherwise.unwrap_or("application/octet-stream");
        fields.insert("contentType".to_owned(), kind.into());
    }
    resource
}

fn finish(
    store: &mut Store,
    bucket: &str,
    request: &Request,
    resource: Value,
    content: Vec<u8>,
) -> Result<HttpReply, Refusal> {
    let name = name_of(request, &resource);
    verify(&content, &resource)?;
    let resource = with_type(resource, None);
    let written = store.write((bucket, &name), Arc::new(content), &resource, request, 0)?;
    Ok(request.answer(&written))
}

/// Metadata and content of a `multipart/related` body.
fn two_parts(request: &Request) -> Option<Result<(Value, Vec<u8>), Refusal>> {
    let kind = request.header("content-type")?;
    let boundary = kind.split_once("boundary=")?.1.split(';').next()?.trim();
    let mark = format!("--{}", boundary.trim_matches('"'));
    let first = after(&request.body, mark.as_bytes())?;
    let line_mark = [b"\r\n", mark.as_bytes()].concat();
    let (metadata, rest) = cut(first, &line_mark)?;
    let end_mark = [&line_mark, b"--".as_slice()].concat();
    let (content, _) = cut(rest, &end_mark)?;
    let metadata = after(metadata, b"\r\n\r\n")?;
    let (head, content) = cut(content, b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let kind = head
        .lines()
        .find_map(|line| line.strip_prefix("content-type:"));
    let resource = parse_json(metadata).map(|resource| with_type(resource, kind.map(str::trim)));
    Some(resource.map(|resource| (resource, content.to_vec())))
}

fn cut<'a>(bytes: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes.windows(mark.len()).position(|part| part == mark)?;
    Some((bytes.get(..at)?, bytes.get(at + mark.len()..)?))
}

fn after<'a>(bytes: &'a [u8], mark: &[u8]) -> Option<&'a [u8]> {
    cut(bytes, mark).map(|(_, rest)| rest)
}

fn begin(
    store: &mut Store,
    bucket: &str,
    request: &Request,
    address: &str,
) -> Result<HttpReply, Refusal> {
    let resource = with_type(request.json()?, request.header("x-upload-content-type"));
    let name = name_of(request, &resource);
    store.may_write(bucket, &name, request)?;
    let id = format!("upload-{}", store.next_number());
    let target = format!("/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={id}");
    let session = Session {
        bucket: bucket.to_owned(),
        name,
        resource,
        begun_by: request.clone(),
        content: Vec::new(),
        finished: None,
    };
    store.sessions.insert(id, session);
    Ok(HttpReply {
        status: 200,
        headers: vec![("location".to_owned(), format!("http://{address}{target}"))],
        body: Vec::new(),
    })
}

fn proceed(store: &mut Store, request: &Request) -> Result<HttpReply, Refusal> {
    let id = request
        .parameter("upload_id")
        .unwrap_or_default()
        .to_owned();
    let none = || Refusal::new(404, "notFound", "No such upload session.");
    let session = store.sessions.get_mut(&id).ok_or_else(none)?;
    if let Some(finished) = &session.finished {
        return Ok(request.answer(finished));
    }
    let range = request.header("content-range").unwrap_or("bytes 0-/*");
    let (span, total) = range
        .strip_prefix("bytes ")
        .and_then(|range| range.split_once('/'))
        .ok_or_else(|| bad("Failed to parse Content-Range header."))?;
    let whole = request.header("content-range").is_none();
    if span != "*" {
        let from = span.split('-').next().and_then(|from| from.parse().ok());
        if from != Some(session.content.len()) {
            return Err(Refusal::new(
                503,
                "backendError",
                "A piece is missing before this one.",
            ));
        }
        session.content.extend_from_slice(&request.body);
    }
    let length = session.content.len();
    let last = whole || total.parse() == Ok(length);
    if !last {
        if span != "*" && !request.body.len().is_multiple_of(PIECE) {
            return Err(bad(
                "A piece that is not the last must be a multiple of 256 KiB.",
            ));
        }
        let stored = length
            .checked_sub(1)
            .map(|end| ("range".to_owned(), format!("bytes=0-{end}")));
        return Ok(HttpReply {
            status: 308,
            headers: stored.into_iter().collect(),
            body: Vec::new(),
        });
    }
    let session = session.clone();
    verify(&session.content, &session.resource)?;
    let target = (session.bucket.as_str(), session.name.as_str());
    let content = Arc::new(session.content);
    // The conditions are those of the request that began it, looked at now.
    let written = store.write(target, content, &session.resource, &session.begun_by, 0)?;
    if let Some(session) = store.sessions.get_mut(&id) {
        session.content = Vec::new();
        session.finished = Some(written.clone());
    }
    Ok(request.answer(&written))
}
