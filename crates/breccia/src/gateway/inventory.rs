//! What is made from the plan for each of its stores and listeners of keys and values, once in the
//! process.
//!
//! A value: a reload makes another one, which shares what stays. Invariant: what has one name in
//! both is one and the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use breccia_config::{Plan, RedisGroupKind, StorePlan};
use breccia_core::address::Address;
use breccia_kv::endpoint::Endpoint;
use breccia_kv::front::settings::SharedSettings;
use breccia_kv::identity::Identity;
use breccia_kv::resp::cluster::Cluster;
use breccia_kv::resp::frontend::Trunks;
use breccia_net::drain::Drain;
use breccia_net::health::EndpointHealth;
use breccia_net::metrics::{self, Registry};

use super::memory::{self, Memory};
use crate::blobs::Blobs;
use crate::loading::Layouts;
use crate::trouble::Trouble;
use crate::{markers, registry};

type Named<T> = BTreeMap<String, Arc<T>>;

/// See the module's page.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inventory {
    /// The layout of each composite.
    pub(crate) layouts: Layouts,
    /// The health of each leaf.
    pub(crate) endpoints: Named<EndpointHealth>,
    /// The server of each store of keys and values: what a reload may change of it.
    pub(crate) servers: Named<Endpoint>,
    /// The connections of each Redis store whose workers have none of their own.
    pub(crate) trunks: Named<Trunks>,
    /// What is known of each store that is a cluster.
    pub(crate) clusters: Named<Cluster>,
    /// The identity of each leaf that carries markers.
    pub(crate) identities: Named<Identity>,
    /// What a reload may change of each listener.
    pub(crate) settings: Named<SharedSettings>,
    /// The stores inside this process.
    pub(crate) memory: Named<Memory>,
    /// The way out of each listener that may go alone.
    pub(crate) drains: BTreeMap<String, Drain>,
}

impl Inventory {
    /// What a plan asks for, with what is there already.
    pub(crate) fn of(
        plan: &Plan,
        layouts: Layouts,
        known: &Self,
        blobs: &Blobs,
        (metrics, drain): (&Registry, &Drain),
    ) -> Result<Self, Trouble> {
        let layouts = layouts.into_iter().map(|(name, layout)| {
            let known = known.layouts.get(&name).cloned();
            (name, known.unwrap_or(layout))
        });
        let layouts: Layouts = layouts.collect();
        for (name, layout) in &layouts {
            let epoch = i64::try_from(layout.epoch().get()).unwrap_or(i64::MAX);
            metrics.gauge(&metrics::LAYOUT_EPOCH, &[name]).set(epoch);
        }
        let mut endpoints = endpoints(plan, &known.endpoints, metrics);
        for (name, health) in blobs.endpoints() {
            if !known.endpoints.contains_key(name) {
                health.show_in(metrics.gauge(&metrics::STORE_UP, &[name]));
            }
            endpoints.insert(name.clone(), Arc::clone(health));
        }
        let drains = registry::shared_settings(plan).into_keys().map(|name| {
            let drain = known
                .drains
                .get(&name)
                .cloned()
                .unwrap_or_else(|| drain.child());
            (name, drain)
        });
        let servers = keep(&known.servers, registry::servers(plan, &endpoints)?);
        Ok(Self {
            drains: drains.collect(),
            trunks: registry::trunks(plan, &known.trunks, metrics)?,
            clusters: keep(&known.clusters, clusters(plan, &servers)),
            servers,
            identities: keep(&known.identities, markers::identities(plan, &layouts)),
            settings: keep(&known.settings, registry::shared_settings(plan)),
            memory: keep(&known.memory, memory::stores(plan, metrics)),
            endpoints,
            layouts,
        })
    }
}

/// What is wanted: as it is known, or else as it was made now.
fn keep<T>(known: &Named<T>, made: Named<T>) -> Named<T> {
    let each = made.into_iter().map(|(name, made)| {
        let known = known.get(&name).map(Arc::clone);
        (name, known.unwrap_or(made))
    });
    each.collect()
}

/// What is known of each cluster of the plan, and of replicas that are read: nothing yet.
fn clusters(plan: &Plan, servers: &Named<Endpoint>) -> Named<Cluster> {
    let made = servers.iter().filter_map(|(name, contact)| {
        let Some(StorePlan::RedisGroup(group)) = plan.stores.get(name) else {
            return None;
        };
        let (reads, slots) = (
            group.read_from_replicas,
            group.kind == RedisGroupKind::Cluster,
        );
        let cluster = || Cluster::new(name.clone(), Arc::clone(contact), reads);
        (slots || reads).then(|| (name.clone(), cluster()))
    });
    made.collect()
}

/// The health of every store whose servers are found by asking others.
fn groups(plan: &Plan, known: &Named<EndpointHealth>, metrics: &Registry) -> Named<EndpointHealth> {
    let served = plan
        .listeners
        .values()
        .map(|listener| plan.served(listener));
    let groups = served
        .flatten()
        .filter(|(_, store)| matches!(store, StorePlan::RedisGroup(_)));
    let health = |(name, store): (&str, &StorePlan)| {
        let own = known.get(name).map(Arc::clone);
        let own = own.unwrap_or_else(|| {
            let location = store.location().unwrap_or_default();
            let health = EndpointHealth::located(name.to_owned(), location);
            health.show_in(metrics.gauge(&metrics::STORE_UP, &[name]));
            health
        });
        (name.to_owned(), own)
    };
    let unique: BTreeMap<&str, &StorePlan> = groups.collect();
    unique.into_iter().map(health).collect()
}

/// The health of every store that lies on a server and is reached from a listener. Stores at one
/// address (other databases of one Redis) share theirs: there is one prober for each endpoint.
fn endpoints(
    plan: &Plan,
    known: &Named<EndpointHealth>,
    metrics: &Registry,
) -> Named<EndpointHealth> {
    let mut by_address: BTreeMap<&Address, BTreeSet<&str>> = BTreeMap::new();
    for listener in plan.listeners.values() {
        for (name, store) in plan.served(listener) {
            if store.is_blob() && !plan.is_only_sql(name) {
                continue;
            }
            if let Some(address) = StorePlan::address(store) {
                by_address.entry(address).or_default().insert(name);
            }
        }
    }
    let mut endpoints = groups(plan, known, metrics);
    for (address, names) in by_address {
        let all: Vec<&str> = names.iter().copied().collect();
        let shared = all.iter().find_map(|name| known.get(*name)).map(Arc::clone);
        let health = shared.unwrap_or_else(|| EndpointHealth::new(all.join(", "), address.clone()));
        for name in names {
            let own = known.get(name).map(Arc::clone);
            let own = own.unwrap_or_else(|| {
                health.show_in(metrics.gauge(&metrics::STORE_UP, &[name]));
                Arc::clone(&health)
            });
            endpoints.insert(name.to_owned(), own);
        }
    }
    endpoints
}
