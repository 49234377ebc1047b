//! Stores whose shards carry markers: the markers' keys are neither shown to clients nor touched
//! by them, and a flush leaves them in place.
//!
//! Not the checking of markers; see [`crate::identity`]. Invariant: what a client sees of a marked
//! store is what it would see without markers, keys with the reserved prefix apart.

use super::super::codec::reply::{elements, text};
use super::super::codec::request::Request;
use super::super::commands::keys;
use super::super::encode;
use super::dialogue::RespDialogue;
use super::leaf::Leaf;
use super::route::{Command, Scatter};
use super::service::Backend;
use crate::identity::{Identity, MARKER_PREFIX};

pub(crate) const RESERVED: &str =
    "ERR breccia: keys that begin with 'breccia:layout:' are Breccia's own: this store has markers";

/// Flushes and writes the markers again, in one step: nobody sees the shard without them.
const FLUSH: &[u8] = b"redis.call('FLUSHDB', unpack(ARGV, #KEYS + 1)) \
    for i = 1, #KEYS do redis.call('SET', KEYS[i], ARGV[i]) end \
    return redis.status_reply('OK')";

const DBSIZE: &[u8] = b"return redis.call('DBSIZE') - redis.call('EXISTS', unpack(KEYS))";

/// Draws again when a marker was drawn: so many times in a row it cannot be while there are others.
const RANDOMKEY: &[u8] = b"for _ = 1, 100 do \
    local key = redis.call('RANDOMKEY') \
    if not key then return false end \
    if string.sub(key, 1, #ARGV[1]) ~= ARGV[1] then return key end \
    end return false";

/// Whether a key is reserved for markers.
pub(crate) fn is_reserved(key: &[u8]) -> bool {
    key.starts_with(MARKER_PREFIX)
}

/// Whether one of these arguments is a marker's key.
pub(crate) fn is_any_reserved(positions: &[usize], request: Request<'_>) -> bool {
    positions
        .iter()
        .any(|index| is_reserved(Request::argument(&request, *index)))
}

/// The elements of a list of keys without the markers, and how many they are.
pub(crate) fn visible(list: &[u8]) -> Option<(usize, Vec<u8>)> {
    let mut shown = Vec::with_capacity(list.len());
    let mut count = 0;
    for element in elements(list)? {
        if !text(element).is_some_and(is_reserved) {
            shown.extend_from_slice(element);
            count += 1;
        }
    }
    Some((count, shown))
}

/// What a leaf is sent for a command to all shards; `None`: the client's own request does.
pub(crate) fn frame_for(
    leaf: &Leaf,
    database: u32,
    scatter: Scatter,
    command: &Command,
    request: Request<'_>,
) -> Option<Vec<u8>> {
    // Clients' further databases carry no markers.
    let identity = leaf.spec.identity.as_ref().filter(|_| database == 0)?;
    match scatter {
        Scatter::Flush => {
            let mut options = request.arguments().skip(1);
            let known = |option: &[u8]| {
                option.eq_ignore_ascii_case(b"async") || option.eq_ignore_ascii_case(b"sync")
            };
            // Whatever else is asked for the server refuses, and flushes nothing.
            let sound = request.len() <= 2 && options.all(known);
            sound.then(|| script(FLUSH, identity, true, request.arguments().skip(1)))
        }
        Scatter::Sum if command.spec.name == "dbsize" => {
            Some(script(DBSIZE, identity, false, std::iter::empty()))
        }
        Scatter::OneOf => Some(script(
            RANDOMKEY,
            identity,
            false,
            std::iter::once(MARKER_PREFIX),
        )),
        _ => None,
    }
}

/// A script over the markers' keys, with their values if it needs them.
fn script<'a>(
    body: &'static [u8],
    identity: &'a Identity,
    with_values: bool,
    more: impl Iterator<Item = &'a [u8]>,
) -> Vec<u8> {
    let carried = identity.carried();
    let mut rest: Vec<&[u8]> = carried.iter().map(|marker| marker.key.as_slice()).collect();
    if with_values {
        rest.extend(carried.iter().map(|marker| marker.value.as_slice()));
    }
    rest.extend(more);
    let mut frame = Vec::new();
    encode::array(&mut frame, 3 + rest.len());
    encode::bulk(&mut frame, b"EVAL");
    encode::bulk(&mut frame, body);
    encode::bulk(&mut frame, carried.len().to_string().as_bytes());
    for word in rest {
        encode::bulk(&mut frame, word);
    }
    frame
}

impl RespDialogue {
    /// Whether some shard carries markers.
    pub(crate) fn is_marked(&self) -> bool {
        matches!(&self.service.backend, Backend::Forward(forward) if forward.marked)
    }

    /// Whether a request names a marker's key.
    pub(crate) fn touches_marker(&mut self, command: &Command, request: Request<'_>) -> bool {
        let mut found = std::mem::take(&mut self.keys);
        let known = keys(command.spec, &request, &mut found).is_ok();
        let touches = known && is_any_reserved(&found, request);
        self.keys = found;
        touches
    }
}

#[cfg(test)]
mod tests {
    use breccia_core::layout::{CompositeKind, Layout, LayoutSpec, Marker, Role};

    use super::*;

    #[test]
    fn lists_of_keys_lose_the_markers_only() {
        let check = |keys: &[&[u8]], expected: &[&[u8]]| {
            let (mut list, mut wanted) = (Vec::new(), Vec::new());
            encode::request(&mut list, keys);
            for key in expected {
                encode::bulk(&mut wanted, key);
            }
            assert_eq!(visible(&list), Some((expected.len(), wanted)));
        };
        check(&[], &[]);
        check(&[b"a", b"breccia:layout:cache", b"b"], &[b"a", b"b"]);
        check(&[b"breccia:layout:", b"breccia:layou"], &[b"breccia:layou"]);
        assert_eq!(visible(b"-ERR x\r\n"), None);
    }

    #[test]
    fn scripts_name_the_markers_keys() {
        let spec = LayoutSpec {
            composite: "c".to_owned(),
            kind: CompositeKind::InMemory,
            hash: breccia_core::HashKind::default(),
            hash_tag: None,
            placement_key: breccia_core::PlacementKey::Raw,
            role: Role::Outer,
            shards: vec!["a".to_owned()],
        };
        let layout = Layout::first(&spec).unwrap();
        let identity = Identity::new(&[Marker::new(&layout, "a").unwrap()]);
        let frame = script(DBSIZE, &identity, false, std::iter::empty());
        let words: Vec<_> = elements(&frame).unwrap().filter_map(text).collect();
        assert_eq!(words, [b"EVAL", DBSIZE, b"1", b"breccia:layout:c"]);
    }
}
