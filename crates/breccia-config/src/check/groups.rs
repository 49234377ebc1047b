//! Checks of Redis servers that are found by asking others: sentinels, or servers of a cluster.
//!
//! Not whether they answer. Invariant: no message shows a part of a url but its address.

use std::collections::{BTreeMap, BTreeSet};

use breccia_core::address::Address;

use super::composites::{leaves, tops};
use super::{Tables, stores};
use crate::decode::Decoder;
use crate::fault::{ConfigError, RedisConfigError};
use crate::tables;
use crate::url::RedisUrl;
use crate::value::Decoded;

/// Who is asked, the most; the others are found through them.
const URLS_MOST: usize = 32;

/// One store by itself.
pub(super) fn check(decoder: &mut Decoder<'_>, store: &Decoded) {
    let Some(urls) = store.get::<&[RedisUrl]>("urls") else {
        return;
    };
    let sentinel = store.kind == tables::REDIS_SENTINEL.name;
    let mut fault = |error: RedisConfigError| decoder.fault_in(store, "urls", error.into());
    if urls.len() > URLS_MOST {
        let (found, most) = (urls.len(), URLS_MOST);
        fault(RedisConfigError::ManyUrls { found, most });
    }
    if urls.iter().any(|url| url.address.host().is_none()) {
        fault(RedisConfigError::SocketInUrls);
    }
    if urls
        .iter()
        .any(|url| url.user.is_some() || url.password.is_some())
    {
        let keys = if sentinel {
            "`user` and `password`, or, for the sentinels, `sentinel-user` and `sentinel-password`"
        } else {
            "`user` and `password`"
        };
        fault(RedisConfigError::LoginInUrls { keys });
    }
    if urls.iter().any(|url| url.database != 0) {
        fault(RedisConfigError::DatabaseInUrls);
    }
    let tls = urls.iter().filter(|url| url.tls).count();
    if tls != 0 && tls != urls.len() {
        fault(RedisConfigError::MixedTls);
    }
    let mut seen = BTreeSet::new();
    if let Some(url) = urls.iter().find(|url| !seen.insert(&url.address)) {
        let address = url.address.to_string();
        fault(RedisConfigError::UrlTwice { address });
    }
    if let Some(url) = urls.first() {
        stores::tls(decoder, store, url);
    }
    for (user, password) in [("user", "password"), ("sentinel-user", "sentinel-password")] {
        if store.given(user) && !store.given(password) {
            let (present, absent) = (user, password);
            decoder.fault_in(store, user, ConfigError::Pair { present, absent });
        }
    }
}

/// Clusters are served with other Redis members only. `parents`: the composites that list a store.
pub(super) fn mixed(
    decoder: &mut Decoder<'_>,
    stores: &Tables,
    parents: &BTreeMap<&str, Vec<&str>>,
) {
    let clusters = stores
        .iter()
        .filter(|(_, store)| store.kind == tables::REDIS_CLUSTER.name);
    let mut looked_at = BTreeSet::new();
    for (cluster, _) in clusters {
        for top in tops(parents, cluster) {
            let Some(store) = stores.get(top).filter(|_| looked_at.insert(top)) else {
                continue;
            };
            let known = |kind: &str| tables::Family::of(kind) == Some(tables::Family::InMemory);
            let mut leaves = leaves(stores, top).into_iter();
            let other = leaves.find(|(_, leaf)| known(leaf.kind) && !tables::is_redis(leaf.kind));
            if let Some((other, plan)) = other {
                let error = RedisConfigError::MixedCluster {
                    leaf: cluster.clone(),
                    other: other.to_owned(),
                    kind: plan.kind,
                };
                decoder.fault_in(store, "stores", error.into());
            }
        }
    }
}

/// No two leaves of a composite are one service of one sentinel, or one cluster.
pub(super) fn locations<'d>(
    decoder: &mut Decoder<'_>,
    root: &str,
    leaves: &[(&'d str, &'d Decoded)],
    told: &mut BTreeSet<(&'d str, &'d str)>,
) {
    let mut taken: BTreeMap<(&str, Option<&str>, &Address), &'d str> = BTreeMap::new();
    let mut in_order = leaves.to_vec();
    in_order.sort_by_key(|(_, store)| store.at);
    for (name, store) in in_order {
        let urls = store.get::<&[RedisUrl]>("urls").unwrap_or_default();
        for url in urls {
            let place = (store.kind, store.get("service"), &url.address);
            let other = *taken.entry(place).or_insert(name);
            if other != name && told.insert((other, name)) {
                let error = ConfigError::SameLocation {
                    other: other.to_owned(),
                    location: url.address.to_string(),
                    composite: root.to_owned(),
                };
                decoder.fault_in(store, "urls", error);
            }
        }
    }
}
