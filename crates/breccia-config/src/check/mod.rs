//! Checks that hold one part of a file against another.
//!
//! Not the reading of single values. Invariant: a check skips what was faulty when it was read,
//! so one mistake is one fault.

mod blob;
mod composites;
mod families;
mod foreign;
mod groups;
mod listeners;
mod places;
mod s3;
mod sql;
mod stores;

use std::collections::{BTreeMap, BTreeSet};

use crate::decode::{Decoder, Spot, which};
use crate::fault::{ConfigError, Notice};
use crate::value::{Decoded, quoted};
pub(crate) use sql::only_servers;

/// The tables of one kind, by name.
pub(crate) type Tables = BTreeMap<String, Decoded>;

/// Checks a whole file.
pub(crate) fn check(decoder: &mut Decoder<'_>, file: &Decoded) {
    let none = Tables::new();
    let stores: &Tables = file.get("store").unwrap_or(&none);
    let listeners: &Tables = file.get("listener").unwrap_or(&none);
    for store in stores.values() {
        stores::check(decoder, store);
        groups::check(decoder, store);
        blob::check(decoder, store);
    }
    composites::check(decoder, stores);
    families::check(decoder, stores);
    sql::check(decoder, stores);
    places::check(decoder, stores);
    listeners::check(decoder, file, listeners, stores);
    if listeners.is_empty() {
        if !file.given("listener") {
            decoder.warn_of_file(Notice::NoListener);
        }
    } else {
        unused(decoder, stores, listeners);
    }
}

/// Warns of stores that nothing uses.
fn unused(decoder: &mut Decoder<'_>, stores: &Tables, listeners: &Tables) {
    let mut listed = composites::listed(stores);
    listed.extend(stores.values().flat_map(sql::listed).map(|(name, ..)| name));
    let served: BTreeSet<&str> = listeners
        .values()
        .flat_map(s3::served)
        .map(|(store, ..)| store)
        .collect();
    for (name, store) in stores {
        if !listed.contains(name.as_str()) && !served.contains(name.as_str()) {
            decoder.warn(
                Spot {
                    path: &store.path,
                    at: store.at,
                },
                Notice::UnusedStore,
            );
        }
    }
}

/// The fault of a name that no store has.
fn undefined(name: &str, stores: &Tables) -> ConfigError {
    let mend = if stores.is_empty() {
        "define it as a [store.NAME]".to_owned()
    } else {
        which(name, stores.keys().map(String::as_str), "store", "stores")
    };
    ConfigError::Undefined {
        what: "store",
        name: quoted(name),
        mend,
    }
}
