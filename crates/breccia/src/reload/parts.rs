//! Listeners and stores of keys and values that come and go with a reload.
//!
//! Not what changes of those that stay. Invariant: a listener is opened only over stores that are all
//! in force as the file has them, and a store goes only when nothing leads to it any more.

use std::sync::Arc;

use breccia_config::{ListenerPlan, Plan, Protocol, StorePlan};
use breccia_net::layout_store::LayoutStore;
use breccia_net::tls::TlsServer;
use tokio::sync::mpsc;

use super::merge::comparable;
use crate::gateway::{Gateway, Inventory};
use crate::listening::{self, Bound};
use crate::loading;
use crate::registry::{self, Wiring};
use crate::trouble::Trouble;

/// Takes over what comes and goes; answers the keys. `plan`: what is in force, apart from that.
pub(super) fn take_over(plan: &mut Plan, before: &Plan, wanted: &Plan) -> Vec<String> {
    let mut keys = Vec::new();
    let go = gone(before, wanted);
    for name in go {
        plan.listeners.remove(&name);
        keys.push(format!("listener.{name}"));
    }
    let keeps_layouts = before.stores.values().any(StorePlan::has_layout);
    while let Some((name, store)) = next_store(plan, wanted, keeps_layouts) {
        keys.push(format!("store.{name}"));
        plan.stores.insert(name, store);
    }
    for (name, listener) in &wanted.listeners {
        let comes = !before.listeners.contains_key(name)
            && speaks_of_keys(listener)
            && before
                .listeners
                .values()
                .all(|other| other.bind != listener.bind)
            && is_in_force(plan, wanted, &listener.store);
        if comes {
            plan.listeners.insert(name.clone(), listener.clone());
            keys.push(format!("listener.{name}"));
        }
    }
    while let Some(name) = unused_store(plan, wanted) {
        plan.stores.remove(&name);
        keys.push(format!("store.{name}"));
    }
    keys
}

fn speaks_of_keys(listener: &ListenerPlan) -> bool {
    matches!(listener.protocol, Protocol::Redis | Protocol::Memcached)
}

/// Listeners that go. One whose port another one is to have waits for a restart: it is bound before
/// anything changes.
fn gone(before: &Plan, wanted: &Plan) -> Vec<String> {
    let is_gone = |(name, listener): &(&String, &ListenerPlan)| {
        let mut comes = wanted.listeners.iter();
        speaks_of_keys(listener)
            && !wanted.listeners.contains_key(*name)
            && comes.all(|(_, other)| other.bind != listener.bind)
    };
    let gone = before.listeners.iter().filter(is_gone);
    gone.map(|(name, _)| name.clone()).collect()
}

/// A store that comes, and whose members are all there already.
fn next_store(plan: &Plan, wanted: &Plan, keeps_layouts: bool) -> Option<(String, StorePlan)> {
    let comes = |(name, store): &(&String, &StorePlan)| {
        let may = match store {
            // Its markers would become part of what its members' connections prove.
            StorePlan::ShardedInMemory(sharded) => keeps_layouts && !sharded.marker,
            _ => store.is_in_memory(),
        };
        may && !plan.stores.contains_key(*name)
            && store
                .members()
                .iter()
                .all(|member| is_in_force(plan, wanted, member))
    };
    let found = wanted.stores.iter().find(comes);
    found.map(|(name, store)| (name.clone(), store.clone()))
}

/// Whether a store, with everything under it, is as the file has it.
fn is_in_force(plan: &Plan, wanted: &Plan, name: &str) -> bool {
    let (Some(own), Some(store)) = (plan.stores.get(name), wanted.stores.get(name)) else {
        return false;
    };
    comparable(own) == comparable(store)
        && store
            .members()
            .iter()
            .all(|member| is_in_force(plan, wanted, member))
}

/// A store that is gone from the file, and to which nothing leads any more.
fn unused_store(plan: &Plan, wanted: &Plan) -> Option<String> {
    let leads = |name: &String| {
        let mut listeners = plan.listeners.values();
        let mut stores = plan.stores.values();
        listeners.any(|listener| listener.stores().contains(&name.as_str()))
            || stores.any(|store| store.parts().contains(&name.as_str()))
    };
    let is_unused = |(name, store): &(&String, &StorePlan)| {
        store.is_in_memory() && !wanted.stores.contains_key(*name) && !leads(name)
    };
    let unused = plan.stores.iter().find(is_unused);
    unused.map(|(name, _)| name.clone())
}

/// What comes and goes, made as far as it can be without a change to what runs.
pub(super) struct Parts {
    inventory: Inventory,
    wiring: Wiring,
    bound: Vec<Bound>,
}

impl Parts {
    /// Makes what comes, and binds its ports; nothing, if nothing comes or goes.
    pub(super) fn of(
        gateway: &Gateway,
        before: &Plan,
        plan: &Plan,
        mut tls: impl FnMut(&str) -> Option<TlsServer>,
    ) -> Result<Option<Self>, Vec<String>> {
        let same = before.listeners.keys().eq(plan.listeners.keys())
            && before.stores.keys().eq(plan.stores.keys());
        let Some(wiring) = gateway.wiring().filter(|_| !same) else {
            return Ok(None);
        };
        // Only looked at yet: what is refused makes no layout.
        let reading = LayoutStore::open_read_only(&plan.state_dir);
        let layouts = loading::open_layouts(plan, &reading).map_err(|refusals| {
            let lines = refusals.iter().map(ToString::to_string);
            lines.collect::<Vec<_>>()
        })?;
        let known = gateway.inventory();
        let places = (&gateway.metrics, &gateway.drain);
        let inventory = Inventory::of(plan, layouts, &known, &gateway.blobs, places);
        let inventory = inventory.map_err(Trouble::into_lines)?;
        let wiring = wiring.renewed(&inventory, plan);
        let wiring = wiring.map_err(Trouble::into_lines)?;
        let (mut bound, mut faults) = (Vec::new(), Vec::new());
        for (name, listener) in &plan.listeners {
            if before.listeners.contains_key(name) {
                continue;
            }
            let drain = inventory.drains.get(name).unwrap_or(&gateway.drain);
            match listening::bind(name, listener, tls(name), drain) {
                Ok(listener) => bound.push(listener),
                Err(error) => faults.push(format!("listener.{name}.bind: {error}")),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let parts = Self {
            inventory,
            wiring,
            bound,
        };
        Ok(Some(parts))
    }

    /// Opens what comes, and lets go of what goes. `plan` is in force already.
    pub(super) fn apply(self, gateway: &Arc<Gateway>, before: &Plan, plan: &Plan) {
        let known = gateway.inventory();
        gateway.set_inventory(self.inventory);
        gateway.set_wiring(self.wiring);
        for name in before.stores.keys() {
            if !plan.stores.contains_key(name) {
                tracing::info!(store = name, "the store goes");
                gateway.tasks.stop(name);
            }
        }
        for (name, health) in &gateway.inventory().endpoints {
            if !known.endpoints.contains_key(name) {
                registry::start_watch(gateway, plan, name, mpsc::channel(1).0);
            }
            // Those that come, and those that were probed by a store that goes.
            let mut former = known.endpoints.iter();
            let left = former.any(|(other, known)| {
                Arc::ptr_eq(health, known) && !plan.stores.contains_key(other)
            });
            if (left || !known.endpoints.contains_key(name))
                && let Err(error) = registry::start_probe(gateway, plan, name)
            {
                tracing::error!(store = name, %error, "the store cannot be probed");
            }
        }
        for name in before.listeners.keys() {
            if !plan.listeners.contains_key(name) {
                listening::retire(gateway, name, plan.drain_timeout);
            }
        }
        if let Some(openings) = gateway.openings.get() {
            for bound in self.bound {
                listening::start(gateway, plan, openings, bound);
            }
        }
    }
}
