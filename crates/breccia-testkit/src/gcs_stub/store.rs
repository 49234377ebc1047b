//! Buckets of objects, and the calls on single objects.
//!
//! Not versioned: an older generation is gone. Invariant: generations only grow, over all buckets.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Value, json};

use super::object::{Object, settable};
use super::request::{Refusal, Request, json_reply};
use super::upload::Session;
use crate::http_message::HttpReply;

/// The most objects that one compose takes.
const MOST_SOURCES: usize = 32;

type Objects = BTreeMap<String, Object>;
type Answer = Result<HttpReply, Refusal>;

/// Everything that is stored.
#[derive(Debug, Default)]
pub(super) struct Store {
    buckets: BTreeMap<String, Objects>,
    generation: u64,
    pub(super) sessions: BTreeMap<String, Session>,
    rewrites: BTreeMap<String, u64>,
}

impl Store {
    pub(super) fn create_bucket(&mut self, name: &str) {
        self.buckets.entry(name.to_owned()).or_default();
    }

    pub(super) fn objects(&self, bucket: &str) -> Result<&Objects, Refusal> {
        self.buckets.get(bucket).ok_or_else(Refusal::no_bucket)
    }

    /// A number that was never given out, in the size of the service's (microseconds).
    pub(super) fn next_number(&mut self) -> u64 {
        self.generation = self.generation.max(1_700_000_000_000_000) + 7;
        self.generation
    }

    /// An object that is there, in the generation that the request asks for.
    fn present(
        &self,
        bucket: &str,
        name: &str,
        generation: Option<u64>,
    ) -> Result<&Object, Refusal> {
        let found = self.objects(bucket)?.get(name);
        found
            .filter(|object| generation.is_none_or(|wanted| wanted == object.generation))
            .ok_or_else(|| Refusal::no_object(bucket, name))
    }

    fn checked(&self, bucket: &str, name: &str, request: &Request) -> Result<&Object, Refusal> {
        let object = self.present(bucket, name, request.number("generation")?)?;
        conditions(Some(object), request, "if")?;
        Ok(object)
    }

    pub(super) fn bucket_resource(&self, bucket: &str) -> Answer {
        self.objects(bucket)?;
        let resource = json!({
            "kind": "storage#bucket", "id": bucket, "name": bucket, "location": "US",
            "storageClass": "STANDARD", "metageneration": "1",
        });
        Ok(json_reply(200, &resource))
    }

    pub(super) fn get(&self, bucket: &str, name: &str, request: &Request) -> Answer {
        let object = self.checked(bucket, name, request)?;
        if request.parameter("alt") != Some("media") {
            return Ok(request.answer(&object.resource(bucket, name)));
        }
        media(object, request.header("range"))
    }

    pub(super) fn delete(&mut self, bucket: &str, name: &str, request: &Request) -> Answer {
        self.checked(bucket, name, request)?;
        if let Some(objects) = self.buckets.get_mut(bucket) {
            objects.remove(name);
        }
        Ok(HttpReply {
            status: 204,
            ..HttpReply::default()
        })
    }

    pub(super) fn patch(&mut self, bucket: &str, name: &str, request: &Request) -> Answer {
        let mut object = self.checked(bucket, name, request)?.clone();
        object.patch(&request.json()?);
        let answer = request.answer(&object.resource(bucket, name));
        self.put(bucket, name, object);
        Ok(answer)
    }

    fn put(&mut self, bucket: &str, name: &str, object: Object) {
        if let Some(objects) = self.buckets.get_mut(bucket) {
            objects.insert(name.to_owned(), object);
        }
    }

    /// The conditions on the object that a request is going to write.
    pub(super) fn may_write(
        &self,
        bucket: &str,
        name: &str,
        request: &Request,
    ) -> Result<(), Refusal> {
        if name.is_empty() || name.len() > 1024 {
            return Err(Refusal::new(400, "required", "Required object name."));
        }
        conditions(self.objects(bucket)?.get(name), request, "if")
    }

    /// Writes a new generation under the request's conditions; its resource.
    pub(super) fn write(
        &mut self,
        (bucket, name): (&str, &str),
        content: Arc<Vec<u8>>,
        resource: &Value,
        request: &Request,
        components: u64,
    ) -> Result<Value, Refusal> {
        self.may_write(bucket, name, request)?;
        let mut object = Object::new(content, settable(resource), self.next_number());
        object.components = components;
        let resource = object.resource(bucket, name);
        self.put(bucket, name, object);
        Ok(resource)
    }

    pub(super) fn compose(&mut self, bucket: &str, name: &str, request: &Request) -> Answer {
        let body = request.json()?;
        let sources = body.get("sourceObjects").and_then(Value::as_array);
        let sources = sources.map(Vec::as_slice).unwrap_or_default();
        if sources.is_empty() || sources.len() > MOST_SOURCES {
            let message = format!("The number of source components must be 1 to {MOST_SOURCES}.");
            return Err(Refusal::new(400, "invalid", &message));
        }
        let (mut content, mut components) = (Vec::new(), 0);
        for source in sources {
            let source_name = source
                .get("name")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let object = self.present(bucket, source_name, number_in(source.get("generation")))?;
            let wanted = number_in(source.pointer("/objectPreconditions/ifGenerationMatch"));
            if wanted.is_some_and(|wanted| wanted != object.generation) {
                return Err(Refusal::precondition());
            }
            content.extend_from_slice(&object.content);
            components += object.components.max(1);
        }
        let resource = body.get("destination").cloned().unwrap_or_default();
        let written = self.write(
            (bucket, name),
            Arc::new(content),
            &resource,
            request,
            components,
        )?;
        Ok(request.answer(&written))
    }

    pub(super) fn rewrite(
        &mut self,
        (from, name): (&str, &str),
        target: (&str, &str),
        request: &Request,
        calls: u64,
    ) -> Answer {
        let object = self.present(from, name, request.number("sourceGeneration")?)?;
        conditions(Some(object), request, "ifSource")?;
        let (content, components) = (Arc::clone(&object.content), object.components);
        let body = request.json()?;
        // Without a resource in the request, the source's metadata goes along.
        let resource = if body.as_object().is_some_and(serde_json::Map::is_empty) {
            Value::Object(object.set.clone())
        } else {
            body
        };
        self.may_write(target.0, target.1, request)?;
        let size = content.len().to_string();
        let token = request
            .parameter("rewriteToken")
            .unwrap_or_default()
            .to_owned();
        let done_calls = match self.rewrites.remove(&token) {
            Some(before) => before + 1,
            None if token.is_empty() => 1,
            None => return Err(Refusal::new(400, "invalid", "Invalid rewrite token")),
        };
        if done_calls < calls {
            let token = format!("rewrite-{}", self.next_number());
            self.rewrites.insert(token.clone(), done_calls);
            let part = json!({
                "kind": "storage#rewriteResponse", "done": false, "objectSize": size,
                "totalBytesRewritten": "0", "rewriteToken": token,
            });
            return Ok(request.answer(&part));
        }
        let written = self.write(target, content, &resource, request, components)?;
        let whole = json!({
            "kind": "storage#rewriteResponse", "done": true, "objectSize": size,
            "totalBytesRewritten": size, "resource": written,
        });
        Ok(request.answer(&whole))
    }
}

fn number_in(value: Option<&Value>) -> Option<u64> {
    let value = value?;
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// The generation conditions of a request on one object; `prefix` is `if` or `ifSource`.
///
/// Generation 0 stands for an object that is not there.
fn conditions(object: Option<&Object>, request: &Request, prefix: &str) -> Result<(), Refusal> {
    let generation = object.map_or(0, |object| object.generation);
    let metageneration = object.map_or(0, |object| object.metageneration);
    let given = |name: &str| request.number(&format!("{prefix}{name}"));
    let matches = |wanted: Option<u64>, actual| wanted.is_none_or(|wanted| wanted == actual);
    let differs = |wanted: Option<u64>, actual| wanted.is_none_or(|wanted| wanted != actual);
    if !matches(given("GenerationMatch")?, generation)
        || !matches(given("MetagenerationMatch")?, metageneration)
    {
        return Err(Refusal::precondition());
    }
    if !differs(given("GenerationNotMatch")?, generation)
        || !differs(given("MetagenerationNotMatch")?, metageneration)
    {
        return Err(match request.method.as_str() {
            "GET" => Refusal::new(304, "notModified", "Not Modified"),
            _ => Refusal::precondition(),
        });
    }
    Ok(())
}

/// The content, or the part that a `Range` header asks for.
fn media(object: &Object, range: Option<&str>) -> Answer {
    let length = object.content.len();
    let mut hashes = format!("crc32c={}", object.crc32c());
    if let Some(md5) = object.md5() {
        let _infallible = write!(hashes, ",md5={md5}");
    }
    let mut headers = vec![
        ("x-goog-generation", object.generation.to_string()),
        ("x-goog-metageneration", object.metageneration.to_string()),
        ("x-goog-stored-content-length", length.to_string()),
        ("x-goog-hash", hashes),
        ("etag", object.etag()),
    ];
    let shown = [
        ("content-type", "contentType"),
        ("cache-control", "cacheControl"),
        ("content-disposition", "contentDisposition"),
        ("content-encoding", "contentEncoding"),
        ("content-language", "contentLanguage"),
    ];
    for (header, field) in shown {
        headers.extend(object.text(field).map(|value| (header, value.to_owned())));
    }
    let (status, body) = match range.and_then(|range| bounds(range, length)) {
        None => (200, object.content.as_slice()),
        Some((from, end)) => {
            let Some(part) = object
                .content
                .get(from..end)
                .filter(|part| !part.is_empty())
            else {
                let message = "Request range not satisfiable";
                return Err(Refusal::new(416, "requestedRangeNotSatisfiable", message));
            };
            let shown = format!("bytes {from}-{}/{length}", end - 1);
            headers.push(("content-range", shown));
            (206, part)
        }
    };
    let headers = headers.into_iter();
    Ok(HttpReply {
        status,
        headers: headers
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        body: body.to_vec(),
    })
}

/// First byte and end of a range; nothing when it is not one that is understood.
fn bounds(range: &str, length: usize) -> Option<(usize, usize)> {
    let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
    match (from.parse::<usize>(), to.parse::<usize>()) {
        (Ok(from), Ok(to)) if from <= to => Some((from, to.saturating_add(1).min(length))),
        (Ok(from), Err(_)) if to.is_empty() => Some((from, length)),
        (Err(_), Ok(last)) if from.is_empty() => Some((length.saturating_sub(last), length)),
        _ => None,
    }
}
