//! Checks of what only S3 listeners have: buckets and key pairs.
//!
//! Not who may reach a listener (`listeners.rs`). Invariant: a store is served with the names of
//! buckets in its keys or without, never both.

use std::collections::{BTreeMap, BTreeSet};

use super::composites::under;
use super::{Tables, blob, sql, undefined};
use crate::decode::{Decoder, Spot, which};
use crate::fault::ConfigError;
use crate::plan::Protocol;
use crate::tables::{self, Family};
use crate::value::{Decoded, Name, join, quoted};

fn users(listener: &Decoded) -> &[Decoded] {
    listener.get::<&[Decoded]>("user").unwrap_or(&[])
}

/// The key pairs of an S3 listener's users.
pub(super) fn key_pairs(decoder: &mut Decoder<'_>, listener: &Decoded) {
    if users(listener).is_empty() {
        let faulty = listener.given("user") && listener.get::<&[Decoded]>("user").is_none();
        if !faulty && listener.get("insecure") == Some(false) {
            let spot = Spot {
                path: &listener.path,
                at: listener.at,
            };
            let error = ConfigError::NoS3User {
                listener: listener.path.clone(),
            };
            decoder.fault(spot, error);
        }
    }
    let buckets = listener.get::<&BTreeMap<String, Name>>("buckets");
    let mut access_keys = BTreeSet::new();
    for user in users(listener) {
        for (key, example) in [
            ("access-key", "access-key = \"ACCESS-KEY\""),
            ("secret-key", "secret-key = { env = \"NAME\" }"),
        ] {
            if !user.given(key) {
                let example = example.to_owned();
                decoder.fault_in(user, key, ConfigError::MissingKey { example });
            }
        }
        if let Some(access_key) = user.get::<&str>("access-key")
            && !access_keys.insert(access_key)
        {
            decoder.fault_in(user, "access-key", ConfigError::AccessKeyTwice);
        }
        let (Some(buckets), Some(seen)) = (buckets, user.get::<&[Name]>("buckets")) else {
            continue;
        };
        for name in seen.iter().filter(|name| !buckets.contains_key(&name.name)) {
            let key = user.key("buckets");
            let known = buckets.keys().map(String::as_str);
            let error = ConfigError::Undefined {
                what: "bucket of this listener",
                name: quoted(&name.name),
                mend: which(&name.name, known, "bucket", "buckets"),
            };
            let spot = Spot {
                path: &key,
                at: name.at,
            };
            decoder.fault(spot, error);
        }
    }
}

/// The stores a listener serves, each with its place.
pub(super) fn served(listener: &Decoded) -> Vec<(&str, String, usize)> {
    let mut served = Vec::new();
    if let Some(store) = listener.get::<&str>("store") {
        served.push((store, listener.key("store"), listener.at("store")));
    }
    let buckets = listener.get::<&BTreeMap<String, Name>>("buckets");
    for (bucket, store) in buckets.into_iter().flatten() {
        let path = join(&listener.key("buckets"), bucket);
        served.push((store.name.as_str(), path, store.at));
    }
    served
}

/// Whether each store an S3 listener serves is one that it can.
pub(super) fn stores(decoder: &mut Decoder<'_>, listener: &Decoded, stores: &Tables) {
    blob::one_of(decoder, listener, ["store", "buckets"]);
    let clients_make_buckets = !listener.given("buckets");
    for (name, path, at) in served(listener) {
        let spot = Spot { path: &path, at };
        let Some(store) = stores.get(name) else {
            if !decoder.is_full() {
                decoder.fault(spot, undefined(name, stores));
            }
            continue;
        };
        let kind = store.kind;
        if kind != tables::SHARDED_BLOB.name {
            let served_with = sql::served_with(Some(store), stores);
            let store = name.to_owned();
            match Family::of(kind) {
                Some(family @ (Family::InMemory | Family::Sql)) => decoder.fault(
                    spot,
                    ConfigError::OtherProtocol {
                        protocol: Protocol::S3.name(),
                        wanted: "sharded-blob composites",
                        store,
                        kind,
                        other: if family == Family::Sql {
                            served_with
                        } else {
                            "protocol = \"redis\""
                        },
                    },
                ),
                Some(Family::Blob) => {
                    decoder.fault(spot, ConfigError::NeedsComposite { store, kind });
                }
                None => {}
            }
            continue;
        }
        if clients_make_buckets {
            unread_names(decoder, spot, stores, name);
        }
    }
}

/// Where clients make buckets, keys carry their names, and are no names of Stalwart's.
fn unread_names(decoder: &mut Decoder<'_>, spot: Spot<'_>, stores: &Tables, name: &str) {
    let mut inner = under(stores, name).into_iter();
    let stalwart = inner.find(|(_, store)| blob::is_stalwart(store) == Some(true));
    if let Some((composite, _)) = stalwart {
        let error = ConfigError::StalwartNeedsBuckets {
            composite: composite.to_owned(),
            store: name.to_owned(),
        };
        decoder.fault(spot, error);
    }
}

/// No store has keys with the names of buckets for one listener, and without for another.
pub(super) fn modes(decoder: &mut Decoder<'_>, listeners: &[&Decoded]) {
    let mut whole: BTreeMap<&str, &str> = BTreeMap::new();
    let is_s3 = |listener: &&&Decoded| {
        listener.choice("protocol", Protocol::ALL, Protocol::name) == Some(Protocol::S3)
    };
    let all = || listeners.iter().filter(is_s3);
    for listener in all() {
        if let Some(store) = listener.get::<&str>("store") {
            whole.entry(store).or_insert(&listener.path);
        }
    }
    for listener in all().filter(|listener| !listener.given("store")) {
        for (store, path, at) in served(listener) {
            if let Some(other) = whole.get(store) {
                let error = ConfigError::BucketModes {
                    store: store.to_owned(),
                    other: (*other).to_owned(),
                };
                decoder.fault(Spot { path: &path, at }, error);
            }
        }
    }
}
