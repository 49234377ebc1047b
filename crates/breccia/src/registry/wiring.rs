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
use crate::gateway::Gateway;
use crate::trouble::Trouble;
use typed::Typed;

/// See the module's page.
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
    pub(super) s3: S3Wiring,
    /// SQL listeners.
    pub(super) sql: SqlWiring,
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
            s3: S3Wiring::new(gateway, plan),
            sql: SqlWiring::new(gateway, plan)?,
        };
        for (name, listener) in &plan.listeners {
            if listener.protocol == Protocol::Redis {
                wiring.clients.insert(name.clone(), Arc::default());
                wiring.slow.insert(name.clone(), Arc::default());
            }
            wiring.add(gateway, plan, listener)?;
        }
        Ok(wiring)
    }

    fn add(
        &mut self,
        gateway: &Gateway,
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
            Protocol::Redis if all(|leaf| matches!(leaf, StorePlan::Redis(_))) => {
                if !self.redis.contains_key(name) {
                    let made = forward::redis(gateway, plan, name)?;
                    self.redis.insert(name.to_owned(), Arc::new(made));
                }
            }
            Protocol::Memcached if all(|leaf| matches!(leaf, StorePlan::Memcached(_))) => {
                if !self.memcached.contains_key(name) {
                    let made = forward::memcached(gateway, plan, name)?;
                    self.memcached.insert(name.to_owned(), Arc::new(made));
                }
            }
            Protocol::S3 => {}
            _ => drop(self.typed.add(gateway, plan, name)?),
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
    gateway: &Gateway,
    path: &str,
    name: &str,
    leaf: &dyn Fn(&str, &str) -> Result<L, Trouble>,
) -> Result<Branch<L>, Trouble> {
    let Some(layout) = gateway.layouts.get(name) else {
        return leaf(path, name).map(Branch::Leaf);
    };
    let members = layout
        .shards()
        .iter()
        .map(|member| branch(gateway, &format!("{path}/{member}"), member, leaf))
        .collect::<Result<_, _>>()?;
    Ok(Branch::Sharded(Arc::clone(layout), members))
}
