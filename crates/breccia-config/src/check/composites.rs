//! Checks of stores that are made of stores.
//!
//! The lists of a file make a graph that may hold anything, cycles among it: every walk here
//! keeps its own stack and visits a store once, so no file makes it recurse or run for ever.

use std::collections::{BTreeMap, BTreeSet};

use breccia_core::address::Address;
use breccia_core::slots::MAX_SHARDS;

use super::{Tables, groups, undefined};
use crate::decode::{Decoder, Spot};
use crate::fault::{ConfigError, Notice, RedisConfigError};
use crate::tables::{self, Family};
use crate::url::RedisUrl;
use crate::value::{Decoded, Name};

/// How deep composites may nest; one that lists only leaves is 1 deep.
const DEEPEST: usize = 8;

pub(super) fn check(decoder: &mut Decoder<'_>, stores: &Tables) {
    for store in stores.values() {
        list(decoder, store, stores);
    }
    markers(decoder, stores);
    let back = cycles(decoder, stores);
    let listed = listed(stores);
    let mut found = Found::default();
    for root in stores.keys().filter(|name| !listed.contains(name.as_str())) {
        tree(decoder, stores, &back, root, &mut found);
    }
    shared(decoder, stores, &found);
}

/// The names that some composite lists.
pub(super) fn listed(stores: &Tables) -> BTreeSet<&str> {
    stores
        .values()
        .flat_map(members)
        .map(|member| member.name.as_str())
        .collect()
}

/// The stores under `root` that are no composites, `root` itself if it is none.
pub(super) fn leaves<'d>(stores: &'d Tables, root: &str) -> Vec<(&'d str, &'d Decoded)> {
    let mut leaves = under(stores, root);
    leaves.retain(|(_, store)| store.get::<&[Name]>("stores").is_none());
    leaves
}

/// `root` and every store under it, each once.
pub(super) fn under<'d>(stores: &'d Tables, root: &str) -> Vec<(&'d str, &'d Decoded)> {
    let mut under = Vec::new();
    let mut seen = BTreeSet::new();
    let mut waiting = vec![root];
    while let Some(name) = waiting.pop() {
        let Some((name, store)) = stores.get_key_value(name) else {
            continue;
        };
        if !seen.insert(name) {
            continue;
        }
        under.push((name.as_str(), store));
        waiting.extend(
            members(store)
                .iter()
                .rev()
                .map(|member| member.name.as_str()),
        );
    }
    under
}

fn members(store: &Decoded) -> &[Name] {
    store.get("stores").unwrap_or(&[])
}

/// One list by itself: empty, a name twice, a name that no store has.
fn list(decoder: &mut Decoder<'_>, store: &Decoded, stores: &Tables) {
    let Some(members) = store.get::<&[Name]>("stores") else {
        return;
    };
    if members.is_empty() {
        decoder.fault_in(store, "stores", ConfigError::NoMembers);
    }
    let key = store.key("stores");
    let mut seen = BTreeSet::new();
    for member in members {
        let spot = Spot {
            path: &key,
            at: member.at,
        };
        if !seen.insert(&member.name) {
            decoder.fault(
                spot,
                ConfigError::ListedTwice {
                    name: member.name.clone(),
                },
            );
        } else if !stores.contains_key(&member.name) && !decoder.is_full() {
            decoder.fault(spot, undefined(&member.name, stores));
        }
    }
}

/// Markers need Redis servers: under the composite, and under every one that holds it, because a
/// mixed composite is served through what all its members can do.
fn markers(decoder: &mut Decoder<'_>, stores: &Tables) {
    let mut parents: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, store) in stores {
        for member in members(store) {
            parents.entry(member.name.as_str()).or_default().push(name);
        }
    }
    groups::mixed(decoder, stores, &parents);
    for (name, store) in stores {
        if store.kind != tables::SHARDED_IN_MEMORY.name || store.get("marker") != Some(true) {
            continue;
        }
        let tops = tops(&parents, name);
        let mut leaves = tops.into_iter().flat_map(|top| leaves(stores, top));
        let marked = [tables::REDIS.name, tables::REDIS_SENTINEL.name];
        let other = leaves.find(|(_, leaf)| !marked.contains(&leaf.kind));
        if let Some((leaf, plan)) = other {
            let error = RedisConfigError::MarkerNeedsRedis {
                leaf: leaf.to_owned(),
                kind: plan.kind,
            };
            decoder.fault_in(store, "marker", error.into());
        }
    }
}

/// The outermost composites that hold a store; itself, if none does. None within a cycle.
pub(super) fn tops<'d>(parents: &BTreeMap<&'d str, Vec<&'d str>>, name: &'d str) -> Vec<&'d str> {
    let mut tops = Vec::new();
    let mut seen = BTreeSet::new();
    let mut waiting = vec![name];
    while let Some(name) = waiting.pop() {
        if seen.insert(name) {
            match parents.get(name) {
                Some(above) => waiting.extend(above),
                None => tops.push(name),
            }
        }
    }
    tops
}

/// A composite and a member that leads back to it.
type BackEdges<'d> = BTreeSet<(&'d str, &'d str)>;

/// Reports every cycle, and returns the listings that close one.
fn cycles<'d>(decoder: &mut Decoder<'_>, stores: &'d Tables) -> BackEdges<'d> {
    let mut back = BackEdges::new();
    let mut done = BTreeSet::new();
    for start in stores.keys() {
        // The way from `start` down: each store with the members that are still to be visited.
        let mut way: Vec<(&'d str, std::slice::Iter<'d, Name>)> = Vec::new();
        let mut on_way = BTreeSet::new();
        let mut next = Some(start.as_str());
        loop {
            if let Some(name) = next.take()
                && let Some((name, store)) = stores.get_key_value(name)
                && !done.contains(name.as_str())
            {
                on_way.insert(name.as_str());
                way.push((name, members(store).iter()));
            }
            let Some((name, rest)) = way.last_mut() else {
                break;
            };
            let name = *name;
            match rest.next() {
                Some(member) if on_way.contains(member.name.as_str()) => {
                    if back.insert((name, member.name.as_str())) {
                        let path = circle(&way, &member.name);
                        let Some(store) = stores.get(name) else {
                            continue;
                        };
                        let spot = Spot {
                            path: &store.key("stores"),
                            at: member.at,
                        };
                        decoder.fault(spot, ConfigError::Cycle { path });
                    }
                }
                Some(member) => next = Some(member.name.as_str()),
                None => {
                    way.pop();
                    on_way.remove(name);
                    done.insert(name);
                }
            }
        }
    }
    back
}

/// `a -> b -> a`, shortened if it is long.
fn circle<'d>(way: &[(&'d str, std::slice::Iter<'d, Name>)], closing: &str) -> String {
    const MOST: usize = 8;
    let names: Vec<&str> = way
        .iter()
        .map(|(name, _)| *name)
        .skip_while(|name| *name != closing)
        .collect();
    let mut path = names
        .iter()
        .take(MOST)
        .copied()
        .collect::<Vec<_>>()
        .join(" -> ");
    if names.len() > MOST {
        path.push_str(" -> …");
    }
    format!("{path} -> {closing}")
}

/// What the walks from several roots have reported, so that none reports it again.
#[derive(Default)]
struct Found<'d> {
    /// A store, and the composite that lists it again.
    reached_twice: BTreeSet<(&'d str, &'d str)>,
    /// A leaf, and another that lies where it lies.
    same_location: BTreeSet<(&'d str, &'d str)>,
}

/// Everything under one composite that no other lists: each store once, and none where another is.
fn tree<'d>(
    decoder: &mut Decoder<'_>,
    stores: &'d Tables,
    back: &BackEdges<'d>,
    root: &'d str,
    found: &mut Found<'d>,
) {
    let mut parents: BTreeMap<&str, &str> = BTreeMap::new();
    let mut leaves = Vec::new();
    let mut deepest = 0;
    let mut waiting = vec![(root, 0_usize)];
    while let Some((name, depth)) = waiting.pop() {
        let Some(store) = stores.get(name) else {
            continue;
        };
        if store.get::<&[Name]>("stores").is_none() {
            leaves.push((name, store));
            continue;
        }
        deepest = deepest.max(depth + 1);
        for member in members(store) {
            let inner = member.name.as_str();
            if back.contains(&(name, inner)) {
                continue;
            }
            let Some(other) = parents.get(inner) else {
                parents.insert(inner, name);
                waiting.push((inner, depth + 1));
                continue;
            };
            // Twice in one list is reported there.
            if *other != name && found.reached_twice.insert((inner, name)) {
                let error = ConfigError::ReachedTwice {
                    name: member.name.clone(),
                    other: (*other).to_owned(),
                    root: root.to_owned(),
                };
                let key = store.key("stores");
                decoder.fault(
                    Spot {
                        path: &key,
                        at: member.at,
                    },
                    error,
                );
            }
        }
    }
    let Some(store) = stores.get(root) else {
        return;
    };
    if deepest > DEEPEST {
        decoder.fault_in(store, "stores", ConfigError::TooDeep { limit: DEEPEST });
    }
    let limit = usize::from(MAX_SHARDS);
    if leaves.len() > limit {
        let error = ConfigError::TooManyShards {
            leaves: leaves.len(),
            limit,
        };
        decoder.fault_in(store, "stores", error);
    }
    locations(decoder, root, &leaves, found);
    groups::locations(decoder, root, &leaves, &mut found.same_location);
}

/// Where a leaf's data lies: a server and the databases used there, if it has any.
struct Location<'d> {
    name: &'d str,
    databases: Option<(u32, u32)>,
}

fn locations<'d>(
    decoder: &mut Decoder<'_>,
    root: &str,
    leaves: &[(&'d str, &'d Decoded)],
    found: &mut Found<'d>,
) {
    let mut taken: BTreeMap<&Address, Vec<Location<'d>>> = BTreeMap::new();
    let mut in_order = leaves.to_vec();
    in_order.sort_by_key(|(_, store)| store.at);
    for (name, store) in in_order {
        let (address, key, databases) = if let Some(url) = store.get::<&RedisUrl>("url") {
            let count: u32 = store.get("databases").unwrap_or(1);
            let last = url.database.saturating_add(count.saturating_sub(1));
            (&url.address, "url", Some((url.database, last)))
        } else if let Some(address) = store.get::<&Address>("address") {
            (address, "address", None)
        } else {
            continue;
        };
        let here = Location { name, databases };
        let there = taken.entry(address).or_default();
        let other = there
            .iter()
            .find(|other| meet(other.databases, here.databases));
        if let Some(other) = other
            && found.same_location.insert((other.name, name))
        {
            let error = ConfigError::SameLocation {
                other: other.name.to_owned(),
                location: described(address, here.databases),
                composite: root.to_owned(),
            };
            decoder.fault_in(store, key, error);
        }
        there.push(here);
    }
}

fn meet(a: Option<(u32, u32)>, b: Option<(u32, u32)>) -> bool {
    match (a, b) {
        (Some((a_first, a_last)), Some((b_first, b_last))) => {
            a_first <= b_last && b_first <= a_last
        }
        _ => true,
    }
}

fn described(address: &Address, databases: Option<(u32, u32)>) -> String {
    match databases {
        None => address.to_string(),
        Some((first, last)) if first == last => format!("{address}, database {first}"),
        Some((first, last)) => format!("{address}, databases {first} to {last}"),
    }
}

/// Tells of a store that composites without a common root list: of a blob store as a fault.
fn shared(decoder: &mut Decoder<'_>, stores: &Tables, found: &Found<'_>) {
    let mut parents: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, store) in stores {
        for member in members(store) {
            parents
                .entry(member.name.as_str())
                .or_default()
                .insert(name);
        }
    }
    let reported: BTreeSet<&str> = found.reached_twice.iter().map(|(name, _)| *name).collect();
    for (name, parents) in parents {
        let (Some(store), mut parents) = (stores.get(name), parents.into_iter()) else {
            continue;
        };
        if let (Some(first), Some(second)) = (parents.next(), parents.next())
            && !reported.contains(name)
        {
            let (first, second) = (first.to_owned(), second.to_owned());
            let spot = Spot {
                path: &store.path,
                at: store.at,
            };
            if Family::of(store.kind) == Some(Family::Blob) {
                decoder.fault(spot, ConfigError::SharedBlobShard { first, second });
            } else {
                decoder.warn(spot, Notice::SharedShard { first, second });
            }
        }
    }
}
