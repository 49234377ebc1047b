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
use crate::s3::codec::xml::{self, ListBucketResult, ListVersion};

use super::buckets::owner;
use super::dispatch::Call;
use super::namespace::Bucket;
use super::refusal::Refusal;
use super::request::Request;
use super::respond::Answer;

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
    /// Whether names are percent-encoded in the answer.
    pub(super) is_encoded: bool,
}

impl Names {
    /// Reads the parameters.
    pub(super) fn of(request: &Request) -> Result<Self, Refusal> {
        let kind = request.parameter("encoding-type")?.unwrap_or_default();
        let is_encoded = kind.eq_ignore_ascii_case("url");
        if !is_encoded && !kind.is_empty() {
            return Err(Refusal::argument("encoding-type is url"));
        }
        let query = &request.query;
        let delimiter = query.get("delimiter").unwrap_or_default();
        Ok(Self {
            prefix: query.get("prefix").unwrap_or_default().to_vec(),
            delimiter: (!delimiter.is_empty()).then(|| Bytes::copy_from_slice(delimiter)),
            is_encoded,
        })
    }

    /// How many items a page may have.
    pub(super) fn limit(asked: Option<u64>) -> usize {
        asked.map_or(MAX_PAGE, |asked| {
            usize::try_from(asked).unwrap_or(MAX_PAGE).min(MAX_PAGE)
        })
    }
}

/// `ListObjects` and `ListObjectsV2`.
pub(super) async fn objects(call: &Call, version: Version) -> Result<Answer, Refusal> {
    let request = &call.request;
    let names = Names::of(request)?;
    let limit = Names::limit(request.parameter_number("max-keys")?);
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
    let document = describe(request, &bucket, names, version, limit, page)?;
    Ok(Answer::xml(StatusCode::OK, document.write()?))
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

fn describe(
    request: &Request,
    bucket: &Bucket,
    names: Names,
    version: Version,
    limit: usize,
    page: ListPage,
) -> Result<ListBucketResult, Refusal> {
    let last = page.items.last().map(ListItem::name);
    let last = last.and_then(|name| bucket.visible(name));
    let next = last.filter(|_| page.more).map(<[u8]>::to_vec);
    let is_truncated = next.is_some();
    let given = |name| request.query.get(name).map(<[u8]>::to_vec);
    let (version, with_owner) = match version {
        Version::One => {
            let marker = given("marker").unwrap_or_default();
            let next_marker = next;
            (
                ListVersion::One {
                    marker,
                    next_marker,
                },
                true,
            )
        }
        Version::Two => {
            let token_given = request.parameter("continuation-token")?;
            let two = ListVersion::Two {
                start_after: given("start-after"),
                continuation_token: token_given.map(str::to_owned),
                next_continuation_token: next.as_deref().map(token),
            };
            (two, request.parameter("fetch-owner")? == Some("true"))
        }
    };
    let (mut objects, mut common_prefixes) = (Vec::new(), Vec::new());
    for item in page.items {
        match item {
            ListItem::Object(object) => objects.extend(listed(bucket, &object, with_owner)),
            ListItem::Prefix(prefix) => {
                common_prefixes.extend(bucket.visible(&prefix).map(<[u8]>::to_vec));
            }
        }
    }
    Ok(ListBucketResult {
        bucket: bucket.name.clone(),
        prefix: names.prefix,
        delimiter: names.delimiter.map(|delimiter| delimiter.to_vec()),
        max_keys: u32::try_from(limit).unwrap_or(u32::MAX),
        is_truncated,
        url_encoded: names.is_encoded,
        objects,
        common_prefixes,
        version,
    })
}

fn listed(bucket: &Bucket, object: &ListedObject, with_owner: bool) -> Option<xml::ListedObject> {
    Some(xml::ListedObject {
        key: bucket.visible(object.key.as_bytes())?.to_vec(),
        modified_ms: object.modified_ms,
        etag: object.etag.quoted(),
        size: object.size,
        owner: with_owner.then(owner),
        checksum_algorithms: Vec::new(),
    })
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
