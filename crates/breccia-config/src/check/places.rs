//! Checks of where blob stores lie: no two in one place, and none inside of another.
//!
//! By text only: links and names of one server are not followed; markers find those at the start.
//! Invariant: every pair of blob stores of the file is held against each other, whether or not
//! they meet in a composite, because a place has room for one marker.

use std::collections::BTreeMap;

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
    /// Where on its ground.
    position: String,
    extent: Extent,
    /// The place for a message.
    shown: String,
}

/// What else is at a position.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// A folder holds what has its path and a slash in front.
    Folder,
    /// A file is inside of folders, and holds nothing.
    File,
    /// A prefix of keys holds every longer one.
    Prefix,
    /// Tables hold nothing, and nothing holds them.
    Tables,
}

impl Place {
    /// The positions on this ground that would hold this one, the nearest first. They are as many
    /// as the position has bytes at most, which its key limits.
    fn outer(&self) -> impl Iterator<Item = &str> {
        let position = self.position.as_str();
        let ends = position.char_indices().rev();
        ends.filter_map(move |(end, sign)| match self.extent {
            Extent::Folder | Extent::File if sign == '/' => {
                // The root's own path is its slash.
                position
                    .get(..end.max(1))
                    .filter(|outer| *outer != position)
            }
            Extent::Prefix => position.get(..end),
            _ => None,
        })
    }

    fn holds_others(&self) -> bool {
        matches!(self.extent, Extent::Folder | Extent::Prefix)
    }
}

/// A store with its name and its place.
struct Placed<'d> {
    name: &'d str,
    store: &'d Decoded,
    place: Place,
}

impl Placed<'_> {
    fn fault(&self, decoder: &mut Decoder<'_>, error: ConfigError) {
        decoder.fault_in(self.store, self.place.key, error);
    }

    /// Says that this store lies in some way to another one.
    fn nested(&self, decoder: &mut Decoder<'_>, way: &'static str, other: &Self) {
        let (other, location) = (other.name.to_owned(), other.place.shown.clone());
        let error = ConfigError::NestedPlace {
            way,
            other,
            location,
        };
        self.fault(decoder, error);
    }
}

pub(super) fn check(decoder: &mut Decoder<'_>, stores: &Tables) {
    let mut all: Vec<Placed<'_>> = Vec::new();
    let only_servers = super::only_servers(stores);
    for (name, store) in stores {
        if only_servers.contains(name.as_str()) {
            continue;
        }
        if let Some(place) = place(store) {
            all.push(Placed { name, store, place });
        }
    }
    all.sort_by_key(|placed| placed.store.at);
    let mut taken: BTreeMap<(&str, &str), &Placed<'_>> = BTreeMap::new();
    let mut alone = Vec::new();
    for here in &all {
        let at = (here.place.ground.as_str(), here.place.position.as_str());
        if let Some(there) = taken.get(&at) {
            let (other, location) = (there.name.to_owned(), there.place.shown.clone());
            here.fault(decoder, ConfigError::SamePlace { other, location });
        } else {
            taken.insert(at, here);
            alone.push(here);
        }
    }
    for here in alone {
        let ground = here.place.ground.as_str();
        let mut around = here.place.outer().filter_map(|at| taken.get(&(ground, at)));
        let Some(there) = around.find(|there| there.place.holds_others()) else {
            continue;
        };
        // The later one of the file is told.
        if there.store.at < here.store.at {
            here.nested(decoder, "inside of", there);
        } else {
            there.nested(decoder, "around", here);
        }
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
            // A configuration file is UTF-8; the folder it lies in need not be.
            position: path.to_string_lossy().into_owned(),
            extent: if kind == tables::FS.name {
                Extent::Folder
            } else {
                Extent::File
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
            position: prefix.to_owned(),
            extent: Extent::Prefix,
        });
    }
    let prefix = store.get::<&str>("table-prefix")?;
    let (address, database) = (sql_address(store)?, sql_database(store)?);
    Some(Place {
        key: "table-prefix",
        ground: format!("{kind}:{address}/{database}"),
        // Servers differ in whether the case of a table's name counts.
        position: prefix.to_ascii_lowercase(),
        extent: Extent::Tables,
        shown: format!("{kind}:{address}/{database}/{prefix}"),
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
