//! Listing a bucket: prefix, delimiter, offsets, pages.
//!
//! Invariant: the pages of a listing that nobody disturbs give each name and each common prefix once, in the
//! order of their UTF-8 bytes.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use serde_json::{Value, json};

use super::request::{Refusal, Request};
use super::store::Store;
use crate::http_message::HttpReply;

/// The most entries of a page, and how many without `maxResults`.
const PAGE: u64 = 1000;

/// Where a page ended: after a name, or after everything below a common prefix.
enum After {
    Start,
    Name(String),
    Prefix(String),
}

impl After {
    fn read(token: Option<&str>) -> Result<After, Refusal> {
        let Some(token) = token else {
            return Ok(After::Start);
        };
        let bad = || Refusal::new(400, "invalid", "Invalid pageToken");
        let text = URL_SAFE.decode(token).ok();
        let text = text.and_then(|bytes| String::from_utf8(bytes).ok());
        let text = text.ok_or_else(bad)?;
        match text.split_once(':') {
            Some(("name", name)) => Ok(After::Name(name.to_owned())),
            Some(("prefix", prefix)) => Ok(After::Prefix(prefix.to_owned())),
            _ => Err(bad()),
        }
    }

    fn token(&self) -> Option<String> {
        match self {
            After::Start => None,
            After::Name(name) => Some(URL_SAFE.encode(format!("name:{name}"))),
            After::Prefix(prefix) => Some(URL_SAFE.encode(format!("prefix:{prefix}"))),
        }
    }

    fn passes(&self, name: &str) -> bool {
        match self {
            After::Start => true,
            After::Name(last) => name > last.as_str(),
            After::Prefix(last) => name > last.as_str() && !name.starts_with(last.as_str()),
        }
    }
}

pub(super) fn list(store: &Store, bucket: &str, request: &Request) -> Result<HttpReply, Refusal> {
    let prefix = request.parameter("prefix").unwrap_or_default();
    let delimiter = request
        .parameter("delimiter")
        .filter(|text| !text.is_empty());
    let start = request.parameter("startOffset").unwrap_or_default();
    let end = request
        .parameter("endOffset")
        .filter(|text| !text.is_empty());
    let most = request.number("maxResults")?.unwrap_or(PAGE).clamp(1, PAGE);
    let mut after = After::read(request.parameter("pageToken"))?;
    let (mut items, mut prefixes) = (Vec::new(), Vec::<Value>::new());
    let mut more = false;
    let from = start.max(prefix).to_owned();
    for (name, object) in store.objects(bucket)?.range(from..) {
        if !name.starts_with(prefix) || end.is_some_and(|end| name.as_str() >= end) {
            break;
        }
        if !after.passes(name) {
            continue;
        }
        if (items.len() + prefixes.len()) as u64 == most {
            more = true;
            break;
        }
        let rest = name.strip_prefix(prefix).unwrap_or_default();
        let cut = delimiter.and_then(|text| Some(rest.find(text)? + text.len()));
        if let Some(cut) = cut {
            let common = format!("{prefix}{}", rest.get(..cut).unwrap_or_default());
            prefixes.push(common.clone().into());
            after = After::Prefix(common);
        } else {
            items.push(object.resource(bucket, name));
            after = After::Name(name.clone());
        }
    }
    let mut answer = json!({ "kind": "storage#objects" });
    let mut add = |name: &str, value: Option<Value>| {
        if let (Some(value), Some(fields)) = (value, answer.as_object_mut()) {
            fields.insert(name.to_owned(), value);
        }
    };
    // Empty lists are left out, as the service does.
    add("items", (!items.is_empty()).then(|| items.into()));
    add("prefixes", (!prefixes.is_empty()).then(|| prefixes.into()));
    let token = after.token().filter(|_| more);
    add("nextPageToken", token.map(Value::from));
    Ok(request.answer(&answer))
}
