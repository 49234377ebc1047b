//! Listings of objects, in both versions of the call.
//!
//! Not the merging over shards: the composite does that. Invariant: a continuation goes on exactly
//! behind the last item of the page before, whatever has changed meanwhile.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use hyper::StatusCode;

use crate::key::MAX_KEY_BYTES;
use crate::listing::{ListItem, ListPage, ListRequest, ListedObject, MAX_PAGE};
use crate::s3::codec::time;
use crate::s3::codec::uri::{Slash, encode};

use super::buckets::owner;
use super::dispatch::Call;
use super::namespace::Bucket;
use super::refusal::Refusal;
use super::request::Request;
use super::respond::Answer;
use super::xml::Xml;

/// What a continuation token begins with: the version of its form.
const TOKEN_VERSION: u8 = 1;

/// The two versions of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// `ListObjects`.
    One,
    /// `ListObjectsV2`.
    Two,
}

/// The parameters that all listings have, and how names are written.
pub(super) struct Names {
    pub(super) prefix: Vec<u8>,
    pub(super) delimiter: Option<Bytes>,
    is_encoded: bool,
}

impl Names {
    /// Reads the parameters.
    pub(super) fn of(request: &Request) -> Result<Self, Refusal> {
        let is_encoded = match request.parameter("encoding-type")? {
            None | Some("") => false,
            Some(kind) if kind.eq_ignore_ascii_case("url") => true,
            Some(_) => return Err(Refusal::argument("encoding-type is url")),
        };
        let query = &request.query;
        let delimiter = query.get("delimiter").unwrap_or_default();
        Ok(Self {
            prefix: query.get("prefix").unwrap_or_default().to_vec(),
            delimiter: (!delimiter.is_empty()).then(|| Bytes::copy_from_slice(delimiter)),
            is_encoded,
        })
    }

    /// How many items a page may have.
    pub(super) fn limit(&self, asked: Option<u64>) -> usize {
        asked.map_or(MAX_PAGE, |asked| {
            usize::try_from(asked).unwrap_or(MAX_PAGE).min(MAX_PAGE)
        })
    }

    /// Writes a name.
    pub(super) fn text(&self, xml: &mut Xml, element: &'static str, name: &[u8]) {
        if self.is_encoded {
            xml.text(element, &encode(name, Slash::Keep));
        } else {
            xml.text(element, &String::from_utf8_lossy(name));
        }
    }

    /// Writes the parameters back.
    pub(super) fn describe(&self, xml: &mut Xml) {
        self.text(xml, "Prefix", &self.prefix);
        if let Some(delimiter) = &self.delimiter {
            self.text(xml, "Delimiter", delimiter);
        }
        if self.is_encoded {
            xml.text("EncodingType", "url");
        }
    }
}

/// `ListObjects` and `ListObjectsV2`.
pub(super) async fn objects(call: &Call, version: Version) -> Result<Answer, Refusal> {
    let request = &call.request;
    let names = Names::of(request)?;
    let limit = names.limit(request.parameter_number("max-keys")?);
    let after = after(request, version)?;
    let bucket = call.bucket().await?;
    let page = if limit == 0 {
        ListPage::default()
    } else {
        let list = ListRequest {
            prefix: bucket.stored(&names.prefix),
            after: after.as_deref().map(|after| bucket.stored(after)),
            delimiter: names.delimiter.clone(),
            limit,
        };
        bucket.store.list(list).await?
    };
    let xml = write(request, &bucket, &names, version, limit, &page)?;
    Ok(Answer::xml(StatusCode::OK, xml))
}

/// Behind which name the page begins.
fn after(request: &Request, version: Version) -> Result<Option<Vec<u8>>, Refusal> {
    let named = |name| {
        let value = request.query.get(name);
        value.filter(|value| !value.is_empty()).map(<[u8]>::to_vec)
    };
    if version == Version::One {
        return Ok(named("marker"));
    }
    match request.query.get("continuation-token") {
        None => Ok(named("start-after")),
        Some(token) => read_token(token)
            .map(Some)
            .ok_or_else(|| Refusal::argument("the continuation token is not one of ours")),
    }
}

fn token(name: &[u8]) -> String {
    let mut bytes = vec![TOKEN_VERSION];
    bytes.extend_from_slice(name);
    URL_SAFE_NO_PAD.encode(bytes)
}

fn read_token(token: &[u8]) -> Option<Vec<u8>> {
    if token.len() > MAX_KEY_BYTES.saturating_mul(2) {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let name = bytes.strip_prefix(&[TOKEN_VERSION])?;
    (!name.is_empty()).then(|| name.to_vec())
}

fn write(
    request: &Request,
    bucket: &Bucket,
    names: &Names,
    version: Version,
    limit: usize,
    page: &ListPage,
) -> Result<Xml, Refusal> {
    let mut xml = Xml::root("ListBucketResult");
    xml.text("Name", &bucket.name);
    names.describe(&mut xml);
    xml.number("MaxKeys", limit as u64);
    let last = page.items.last().map(ListItem::name);
    let last = last.and_then(|name| bucket.visible(name));
    let next = last.filter(|_| page.more);
    xml.flag("IsTruncated", next.is_some());
    let with_owner = match version {
        Version::One => {
            let marker = request.query.get("marker").unwrap_or_default();
            names.text(&mut xml, "Marker", marker);
            if let Some(next) = next {
                names.text(&mut xml, "NextMarker", next);
            }
            true
        }
        Version::Two => {
            xml.number("KeyCount", page.items.len() as u64);
            let given = request.parameter("continuation-token")?;
            xml.text_some("ContinuationToken", given);
            if let Some(next) = next {
                xml.text("NextContinuationToken", &token(next));
            }
            if let Some(start) = request.query.get("start-after") {
                names.text(&mut xml, "StartAfter", start);
            }
            request.parameter("fetch-owner")? == Some("true")
        }
    };
    for item in &page.items {
        if let ListItem::Object(object) = item {
            write_object(&mut xml, bucket, names, object, with_owner);
        }
    }
    for item in &page.items {
        if let ListItem::Prefix(prefix) = item {
            xml.open("CommonPrefixes");
            let prefix = bucket.visible(prefix).unwrap_or_default();
            names.text(&mut xml, "Prefix", prefix);
            xml.close();
        }
    }
    Ok(xml)
}

fn write_object(
    xml: &mut Xml,
    bucket: &Bucket,
    names: &Names,
    object: &ListedObject,
    with_owner: bool,
) {
    let Some(key) = bucket.visible(object.key.as_bytes()) else {
        return;
    };
    xml.open("Contents");
    names.text(xml, "Key", key);
    xml.text("LastModified", &time::iso8601(object.modified_ms));
    xml.text("ETag", &object.etag.quoted());
    xml.number("Size", object.size);
    if with_owner {
        owner(xml, "Owner");
    }
    xml.text("StorageClass", "STANDARD");
    xml.close();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_hold_any_name_and_others_are_refused() {
        for name in [&b"a"[..], b"a/b c\xff", &[b'k'; MAX_KEY_BYTES]] {
            assert_eq!(read_token(token(name).as_bytes()).as_deref(), Some(name));
        }
        for wrong in [&b""[..], b"!", b"AQ", b"AmE", &[b'A'; 4096]] {
            assert_eq!(read_token(wrong), None);
        }
    }
}
