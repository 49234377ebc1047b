//! Following servers that others know of: the primary that sentinels name, the servers of a cluster.
//!
//! Not the choice, which is the slice's. Invariant: a store has one watch in the process, and its
//! prober looks where the watch has led.

use std::sync::Arc;
use std::time::Duration;

use breccia_config::{Plan, StorePlan};
use breccia_kv::resp::cluster::{self, ClusterOptions};
use breccia_kv::resp::sentinel;
use breccia_net::health::{ProbeFailure, probe_loop};
use tokio::sync::mpsc;

use super::probes;
use crate::gateway::{Gateway, Task};
use crate::reach::{self, Prober, Target};

/// How long a start waits for the first looks.
const FIRST_LIMIT: Duration = Duration::from_secs(2);

/// Follows the servers of every such store from now on, in the runtime this is called in. Returns
/// when everybody has been asked once, so that a start is not followed by refusals.
pub(crate) async fn start(gateway: &Arc<Gateway>, plan: &Plan) {
    let (looking, mut looked) = mpsc::channel::<()>(1);
    for name in gateway.inventory().servers.keys() {
        start_watch(gateway, plan, name, looking.clone());
    }
    drop(looking);
    // Nothing is ever sent: it ends when the last watch has dropped its end.
    let _ = tokio::time::timeout(FIRST_LIMIT, looked.recv()).await;
}

/// Follows the servers of one store as the plan says, instead of as before.
pub(crate) fn start_watch(
    gateway: &Arc<Gateway>,
    plan: &Plan,
    name: &str,
    looking: mpsc::Sender<()>,
) {
    let inventory = gateway.inventory();
    let (Some(store), Some(endpoint)) = (plan.stores.get(name), inventory.servers.get(name)) else {
        return;
    };
    let StorePlan::RedisGroup(group) = store else {
        return;
    };
    let options = match reach::sentinels(name, group) {
        Ok(options) => options,
        Err(error) => {
            tracing::error!(store = name, %error, "the store is followed as before the reload");
            return;
        }
    };
    let seeds = ClusterOptions {
        seeds: group.urls.clone(),
        interval: group.redis.probe_interval,
        patience: group.redis.probe_timeout,
    };
    let (shared, store, of) = (Arc::downgrade(gateway), store.clone(), name.to_owned());
    let moved = move || {
        if let Some(gateway) = shared.upgrade() {
            probe(&gateway, &store, &of);
        }
    };
    let tasks = &gateway.tasks;
    match (options, inventory.clusters.get(name)) {
        (Some(mut options), known) => {
            options.replicas = known.map(Arc::clone);
            let watching = sentinel::watch(options, Arc::clone(endpoint), moved, looking);
            tasks.start(Task::Watch, name, watching);
        }
        (None, Some(known)) => {
            let watching = cluster::watch(seeds, Arc::clone(known), moved, looking);
            tasks.start(Task::Watch, name, watching);
        }
        (None, None) => {}
    }
}

/// Probes the server that a store has been led to, instead of the one before.
pub(super) fn probe(gateway: &Gateway, store: &StorePlan, name: &str) {
    let inventory = gateway.inventory();
    let Some(endpoint) = inventory.servers.get(name) else {
        return;
    };
    let address = endpoint.current().terms.place.address.clone();
    let prober = match Target::of(store) {
        Ok(Some(target)) => Prober::new(target.on(&address)),
        _ => return,
    };
    let known = Arc::clone(endpoint);
    let probe = move || {
        let (prober, known) = (Arc::clone(&prober), Arc::clone(&known));
        async move {
            match &known.current().terms.place.vacant {
                Some(why) => Err(ProbeFailure::Connect(why.to_string())),
                None => prober.probe().await,
            }
        }
    };
    let probing = probe_loop(Arc::clone(endpoint.health()), probes(store), probe);
    gateway.tasks.start(Task::Probe, name, probing);
}
