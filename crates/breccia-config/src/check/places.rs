//! Checks of where blob stores lie: no two in one place, and none inside of another.
//!
//! By text only: links and names of one server are not followed; markers find those at the start.
//! Invariant: every pair of blob stores of the file is held against each other, whether or not
//! they meet in a composite, because a place has room for one marker.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use breccia_core::address::Address;

use super::Tables;
use crate::assemble::blob::{endpoint, sql_address, sql_database};
use crate::decode::Decoder;
use crate::fault::ConfigError;
use crate::plan::{bucket_location, normalised};
use crate::tables;
use crate::url::RedisUrl;
use crate::value::Decoded;

/// Where a blob store lies.
struct Place {
    /// The key to blame.
    key: &'static str,
    /// What all stores share of which one may lie inside of another.
    ground: String,
    inner: Inner,
    /// The place for a message.
    shown: String,
}

/// The place within its ground.
enum Inner {
    /// A folder, which may hold others.
    Folder(PathBuf),
    /// A file: inside of a folder, perhaps.
    File(PathBuf),
    /// All keys that begin with a text.
    Prefix(String),
    /// Nothing but itself.
    Table,
}

pub(super) fn check(decoder: &mut Decoder<'_>, stores: &Tables) {
    let mut in_order: Vec<(&str, &Decoded, Place)> = Vec::new();
    for (name, store) in stores {
        if let Some(place) = place(store) {
            in_order.push((name, store, place));
        }
    }
    in_order.sort_by_key(|(_, store, _)| store.at);
    let mut grounds: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (number, (_, _, place)) in in_order.iter().enumerate() {
        grounds.entry(&place.ground).or_default().push(number);
    }
    let at = |number: &usize| in_order.get(*number);
    for together in grounds.values() {
        let mut before: Vec<&(&str, &Decoded, Place)> = Vec::new();
        for here in together.iter().filter_map(at) {
            if decoder.is_full() {
                return;
            }
            if let Some(error) = before.iter().find_map(|there| clash(there, here)) {
                let (_, store, place) = here;
                decoder.fault_in(store, place.key, error);
            }
            before.push(here);
        }
    }
}

/// What is wrong with `here`, given that `there` is where it is. Also if it is `there` that lies
/// inside: the later one is told.
fn clash(there: &(&str, &Decoded, Place), here: &(&str, &Decoded, Place)) -> Option<ConfigError> {
    let (other, location) = (there.0.to_owned(), there.2.shown.clone());
    match relation(&there.2.inner, &here.2.inner) {
        Relation::Apart => None,
        Relation::Same => Some(ConfigError::SamePlace { other, location }),
        Relation::Inside => Some(ConfigError::NestedPlace {
            way: "inside of",
            other,
            location,
        }),
        Relation::Around => Some(ConfigError::NestedPlace {
            way: "around",
            other,
            location,
        }),
    }
}

/// How the second of two places lies to the first.
enum Relation {
    Apart,
    Same,
    Inside,
    Around,
}

fn relation(there: &Inner, here: &Inner) -> Relation {
    let inside = |inner: &Path, outer: &Path| inner.starts_with(outer);
    match (there, here) {
        (Inner::Table, _) | (_, Inner::Table) => Relation::Same,
        (Inner::Prefix(there), Inner::Prefix(here)) if there == here => Relation::Same,
        (Inner::Prefix(there), Inner::Prefix(here)) if here.starts_with(there) => Relation::Inside,
        (Inner::Prefix(there), Inner::Prefix(here)) if there.starts_with(here) => Relation::Around,
        (Inner::Folder(there) | Inner::File(there), Inner::Folder(here) | Inner::File(here))
            if there == here =>
        {
            Relation::Same
        }
        (Inner::Folder(there), Inner::Folder(here) | Inner::File(here)) if inside(here, there) => {
            Relation::Inside
        }
        (Inner::Folder(there) | Inner::File(there), Inner::Folder(here)) if inside(there, here) => {
            Relation::Around
        }
        _ => Relation::Apart,
    }
}

/// Where a store lies; `None` if it is no blob store, or that was faulty.
fn place(store: &Decoded) -> Option<Place> {
    let kind = store.kind;
    if kind == tables::FS.name || kind == tables::SQLITE.name {
        let path = normalised(store.get("path")?);
        return Some(Place {
            key: "path",
            ground: "files".to_owned(),
            shown: path.display().to_string(),
            inner: if kind == tables::FS.name {
                Inner::Folder(path)
            } else {
                Inner::File(path)
            },
        });
    }
    if let Some(prefix) = store.get::<&str>("key-prefix") {
        let bucket = |key| Some((key, store.get::<&str>(key)?));
        let (key, bucket) = bucket("bucket").or_else(|| bucket("container"))?;
        let endpoint = endpoint(store)?;
        return Some(Place {
            key,
            ground: bucket_location(kind, &endpoint, bucket, ""),
            shown: bucket_location(kind, &endpoint, bucket, prefix),
            inner: Inner::Prefix(prefix.to_owned()),
        });
    }
    // Servers differ in whether the case of a table's name counts.
    let prefix = store.get::<&str>("table-prefix")?;
    let (address, database) = (sql_address(store)?, sql_database(store)?);
    let shown = format!("{kind}:{address}/{database}/{prefix}");
    Some(Place {
        key: "table-prefix",
        ground: format!(
            "{kind}:{address}/{database}/{}",
            prefix.to_ascii_lowercase()
        ),
        shown,
        inner: Inner::Table,
    })
}

/// The server of a store, and the key that names it.
pub(super) fn server(store: &Decoded) -> Option<(Address, &'static str)> {
    if let Some(url) = store.get::<&RedisUrl>("url") {
        return Some((url.address.clone(), "url"));
    }
    if let Some(address) = store.get::<&Address>("address") {
        return Some((address.clone(), "address"));
    }
    if store.values.contains_key("key-prefix") {
        return endpoint(store).map(|endpoint| (endpoint.address, "endpoint"));
    }
    let key = if store.given("socket") {
        "socket"
    } else {
        "host"
    };
    sql_address(store).map(|address| (address, key))
}
