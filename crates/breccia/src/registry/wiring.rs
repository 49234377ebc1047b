//! What stands behind the listeners, made once per process from the plan and its layouts.
//!
//! Not what runs on a worker. Invariant: a store is made once, however many listeners lead to it.

mod forward;
mod typed;

use std::collections::BTreeMap;
use std::sync::Arc;

use breccia_config::{ListenerPlan, Plan, Protocol, StorePlan};
use breccia_kv::memcached::frontend::{MemcachedBackend, MemcachedLeaf};
use breccia_kv::resp::frontend::{ClientRoster, ForwardStore, RespBackend, SlowLog};
use breccia_kv::topology::{Branch, Topology};

use super::s3::S3Wiring;
use super::sql::SqlWiring;
use crate::gateway::{Gateway, Inventory};
use crate::trouble::Trouble;
use typed::Typed;

/// See the module's page.
#[derive(Clone)]
pub(crate) struct Wiring {
    /// Stores whose leaves are all Redis servers, by the store's name.
    redis: BTreeMap<String, Arc<ForwardStore>>,
    /// Stores whose leaves are all memcached servers, by the store's name.
    memcached: BTreeMap<String, Arc<Topology<Arc<MemcachedLeaf>>>>,
    /// The clients of each Redis listener, by its name.
    pub(super) clients: BTreeMap<String, Arc<ClientRoster>>,
    /// The slow requests of each Redis listener, by its name.
    pub(super) slow: BTreeMap<String, Arc<SlowLog>>,
    /// All others of keys and values.
    typed: Typed,
    /// S3 listeners.
    pub(super) s3: Arc<S3Wiring>,
    /// SQL listeners.
    pub(super) sql: Arc<SqlWiring>,
}

impl std::fmt::Debug for Wiring {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Wiring").finish_non_exhaustive()
    }
}

impl Wiring {
    /// Makes everything the plan's listeners need.
    pub(crate) fn new(gateway: &Gateway, plan: &Plan) -> Result<Self, Trouble> {
        let mut wiring = Self {
            redis: BTreeMap::new(),
            memcached: BTreeMap::new(),
            clients: BTreeMap::new(),
            slow: BTreeMap::new(),
            typed: Typed::default(),
            s3: Arc::new(S3Wiring::new(gateway, plan)),
            sql: Arc::new(SqlWiring::new(gateway, plan)?),
        };
        let inventory = gateway.inventory();
        wiring.watch(plan);
        for listener in plan.listeners.values() {
            wiring.add(&inventory, plan, listener)?;
        }
        Ok(wiring)
    }

    /// Makes what every Redis listener of the plan keeps of its clients, and lets go of what others kept.
    fn watch(&mut self, plan: &Plan) {
        let redis = |name: &String| {
            let listener = plan.listeners.get(name);
            listener.is_some_and(|listener| listener.protocol == Protocol::Redis)
        };
        self.clients.retain(|name, _| redis(name));
        self.slow.retain(|name, _| redis(name));
        for name in plan.listeners.keys().filter(|name| redis(name)) {
            self.clients.entry(name.clone()).or_default();
            self.slow.entry(name.clone()).or_default();
        }
    }

    /// The same for another plan: what stays is shared. S3 and SQL listeners are as they were.
    pub(crate) fn renewed(&self, inventory: &Inventory, plan: &Plan) -> Result<Self, Trouble> {
        let mut wiring = self.clone();
        wiring
            .redis
            .retain(|name, _| plan.stores.contains_key(name));
        wiring
            .memcached
            .retain(|name, _| plan.stores.contains_key(name));
        wiring.typed.retain(|name| plan.stores.contains_key(name));
        wiring.watch(plan);
        for listener in plan.listeners.values() {
            wiring.add(inventory, plan, listener)?;
        }
        Ok(wiring)
    }

    fn add(
        &mut self,
        inventory: &Inventory,
        plan: &Plan,
        listener: &ListenerPlan,
    ) -> Result<(), Trouble> {
        if !matches!(listener.protocol, Protocol::Redis | Protocol::Memcached) {
            // A protocol this table does not know.
            return Ok(());
        }
        let name = listener.store.as_str();
        let leaves = plan.leaves(name);
        let all = |fits: fn(&StorePlan) -> bool| leaves.iter().all(|(_, leaf)| fits(leaf));
        match listener.protocol {
            Protocol::Redis if all(|leaf| leaf.redis().is_some()) => {
                if !self.redis.contains_key(name) {
                    let made = forward::redis(inventory, plan, name)?;
                    self.redis.insert(name.to_owned(), Arc::new(made));
                }
            }
            Protocol::Memcached if all(|leaf| matches!(leaf, StorePlan::Memcached(_))) => {
                if !self.memcached.contains_key(name) {
                    let made = forward::memcached(inventory, plan, name)?;
                    self.memcached.insert(name.to_owned(), Arc::new(made));
                }
            }
            Protocol::S3 => {}
            _ => drop(self.typed.add(inventory, plan, name)?),
        }
        Ok(())
    }

    /// What a Redis listener over a store leads to.
    pub(super) fn resp(&self, store: &str) -> Option<RespBackend> {
        let forward = self
            .redis
            .get(store)
            .map(|made| RespBackend::Forward(Arc::clone(made)));
        forward.or_else(|| self.typed.get(store).map(RespBackend::Portable))
    }

    /// What a memcached listener over a store leads to.
    pub(super) fn memcached(&self, store: &str) -> Option<MemcachedBackend> {
        let forward = self.memcached.get(store);
        let forward = forward.map(|made| MemcachedBackend::Forward(Arc::clone(made)));
        forward.or_else(|| self.typed.get(store).map(MemcachedBackend::Typed))
    }
}

/// A store as it nests, its members in the order of the layout's shards.
fn branch<L>(
    inventory: &Inventory,
    path: &str,
    name: &str,
    leaf: &dyn Fn(&str, &str) -> Result<L, Trouble>,
) -> Result<Branch<L>, Trouble> {
    let Some(layout) = inventory.layouts.get(name) else {
        return leaf(path, name).map(Branch::Leaf);
    };
    let members = layout
        .shards()
        .iter()
        .map(|member| branch(inventory, &format!("{path}/{member}"), member, leaf))
        .collect::<Result<_, _>>()?;
    Ok(Branch::Sharded(Arc::clone(layout), members))
}
