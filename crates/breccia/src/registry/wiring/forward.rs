//! Forwarding: stores whose leaves all speak the listener's own protocol.
//!
//! Not the connections, which each worker opens for itself. Invariant: a leaf's name is its path
//! through the composites, as errors show it.

use std::collections::BTreeMap;
use std::sync::Arc;

use breccia_config::{
    MemcachedPlan, MultiKey, Plan, RedisGroupKind, RedisPlan, ShardedPlan, StorePlan,
};
use breccia_kv::endpoint::Endpoint;
use breccia_kv::memcached::frontend::MemcachedLeaf;
use breccia_kv::resp::frontend::{self, ForwardStore, ModuleCommand, RespLeaf, SubscriptionLoss};
use breccia_kv::topology::Topology;

use super::branch;
use crate::gateway::Inventory;
use crate::trouble::Trouble;

/// A store of Redis servers.
pub(super) fn redis(
    inventory: &Inventory,
    plan: &Plan,
    name: &str,
) -> Result<ForwardStore, Trouble> {
    let leaf = |path: &str, store: &str| match plan.stores.get(store) {
        Some(StorePlan::Redis(redis)) => {
            redis_leaf(inventory, path, store, (redis, false)).map(Arc::new)
        }
        Some(StorePlan::RedisGroup(group)) => {
            let has_slots = group.kind == RedisGroupKind::Cluster;
            redis_leaf(inventory, path, store, (&group.redis, has_slots)).map(Arc::new)
        }
        _ => Err(Trouble::failed(format!("store.{store} is no redis store"))),
    };
    let root = branch(inventory, name, name, &leaf)?;
    let sharded = match plan.stores.get(name) {
        Some(StorePlan::ShardedInMemory(sharded)) => Some(sharded),
        _ => None,
    };
    Ok(ForwardStore {
        topology: topology(name, root)?,
        multi_key: match sharded.map(|sharded| sharded.multi_key) {
            Some(MultiKey::Slot) => frontend::MultiKey::Slot,
            _ => frontend::MultiKey::Shard,
        },
        modules: sharded.map(modules).unwrap_or_default(),
        subscription_loss: match sharded.map(|sharded| sharded.subscription_loss) {
            Some(breccia_config::SubscriptionLoss::Resubscribe) => SubscriptionLoss::Resubscribe,
            _ => SubscriptionLoss::Disconnect,
        },
        roster: Arc::default(),
        scripts: Arc::default(),
    })
}

/// A store of memcached servers.
pub(super) fn memcached(
    inventory: &Inventory,
    plan: &Plan,
    name: &str,
) -> Result<Topology<Arc<MemcachedLeaf>>, Trouble> {
    let leaf = |path: &str, store: &str| match plan.stores.get(store) {
        Some(StorePlan::Memcached(memcached)) => {
            memcached_leaf(inventory, path, store, memcached).map(Arc::new)
        }
        _ => Err(Trouble::failed(format!(
            "store.{store} is no memcached store"
        ))),
    };
    topology(name, branch(inventory, name, name, &leaf)?)
}

fn topology<L>(name: &str, root: breccia_kv::topology::Branch<L>) -> Result<Topology<L>, Trouble> {
    Topology::new(name.to_owned(), root)
        .ok_or_else(|| Trouble::failed(format!("store.{name} has no members, or too many")))
}

fn modules(sharded: &ShardedPlan) -> BTreeMap<String, ModuleCommand> {
    let one = |plan: &breccia_config::CommandPlan| ModuleCommand {
        first_key: usize::try_from(plan.first_key).unwrap_or(usize::MAX),
        last_key: plan.last_key.into(),
        step: usize::try_from(plan.step).unwrap_or(usize::MAX),
        write: plan.write,
    };
    sharded
        .commands
        .iter()
        .map(|(name, plan)| (name.to_ascii_lowercase(), one(plan)))
        .collect()
}

fn redis_leaf(
    inventory: &Inventory,
    path: &str,
    store: &str,
    (plan, has_slots): (&RedisPlan, bool),
) -> Result<RespLeaf, Trouble> {
    Ok(RespLeaf {
        name: path.to_owned(),
        store: store.to_owned(),
        endpoint: endpoint(inventory, store)?,
        connections: plan.connections,
        trunks: inventory.trunks.get(store).map(Arc::clone),
        identity: inventory.identities.get(store).map(Arc::clone),
        cluster: inventory.clusters.get(store).map(Arc::clone),
        has_slots,
    })
}

fn memcached_leaf(
    inventory: &Inventory,
    path: &str,
    store: &str,
    plan: &MemcachedPlan,
) -> Result<MemcachedLeaf, Trouble> {
    Ok(MemcachedLeaf {
        name: path.to_owned(),
        store: store.to_owned(),
        endpoint: endpoint(inventory, store)?,
        connections: plan.connections,
    })
}

/// The server of a store.
pub(super) fn endpoint(inventory: &Inventory, store: &str) -> Result<Arc<Endpoint>, Trouble> {
    let found = inventory.servers.get(store).map(Arc::clone);
    found.ok_or_else(|| Trouble::failed(format!("store.{store} has no endpoint")))
}
