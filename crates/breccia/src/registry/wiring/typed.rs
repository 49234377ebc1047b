//! Typed stores: those that mix kinds of leaves, or whose leaves are inside the inventory.
//!
//! Not forwarding: requests are understood here. Invariant: a store exists once in the process,
//! whichever composites and listeners lead to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use breccia_config::{Plan, RedisGroupPlan, RedisPlan, StorePlan};
use breccia_kv::io::KvIo;
use breccia_kv::memcached::backend::{MemcachedOptions, MemcachedStore};
use breccia_kv::resp::backend::{RedisOptions, RedisStore};
use breccia_kv::sharded::ShardedKv;
use breccia_kv::store::KvStore;

use super::forward;
use crate::gateway::Inventory;
use crate::trouble::Trouble;

/// Typed stores by name, composites and leaves alike.
#[derive(Clone, Default)]
pub(super) struct Typed {
    stores: BTreeMap<String, Arc<dyn KvStore>>,
    /// The thread on which connections to servers live; started when the first is needed.
    io: Option<KvIo>,
}

impl Typed {
    /// A store that was added.
    pub(super) fn get(&self, name: &str) -> Option<Arc<dyn KvStore>> {
        self.stores.get(name).map(Arc::clone)
    }

    /// Forgets all stores but these.
    pub(super) fn retain(&mut self, stays: impl Fn(&str) -> bool) {
        self.stores.retain(|name, _| stays(name));
    }

    /// Makes a store with everything under it, unless it is there already.
    pub(super) fn add(
        &mut self,
        inventory: &Inventory,
        plan: &Plan,
        name: &str,
    ) -> Result<Arc<dyn KvStore>, Trouble> {
        if let Some(made) = self.get(name) {
            return Ok(made);
        }
        let made = match inventory.layouts.get(name) {
            None => self.leaf(inventory, plan, name)?,
            Some(layout) => {
                let members = layout
                    .shards()
                    .iter()
                    .map(|member| self.add(inventory, plan, member))
                    .collect::<Result<_, _>>()?;
                let sharded = ShardedKv::new(Arc::clone(layout), members);
                Arc::new(sharded.map_err(Trouble::failed)?)
            }
        };
        self.stores.insert(name.to_owned(), Arc::clone(&made));
        Ok(made)
    }

    fn leaf(
        &mut self,
        inventory: &Inventory,
        plan: &Plan,
        name: &str,
    ) -> Result<Arc<dyn KvStore>, Trouble> {
        let made: Arc<dyn KvStore> = match plan.stores.get(name) {
            Some(StorePlan::Redis(redis) | StorePlan::RedisGroup(RedisGroupPlan { redis, .. })) => {
                let options = redis_options(inventory, plan, name, redis)?;
                Arc::new(RedisStore::new(self.io()?, options))
            }
            Some(StorePlan::Memcached(memcached)) => {
                let options = MemcachedOptions {
                    connections: memcached.connections,
                    deadline: deadline(plan, name),
                    endpoint: Some(forward::endpoint(inventory, name)?),
                    ..MemcachedOptions::new(name, memcached.address.clone())
                };
                Arc::new(MemcachedStore::new(self.io()?, options))
            }
            other => {
                let Some(memory) = inventory.memory.get(name) else {
                    let kind = other.map_or("undefined", StorePlan::type_name);
                    let line = format!("store.{name} ({kind}) cannot be a typed store");
                    return Err(Trouble::failed(line));
                };
                Arc::clone(&memory.store) as _
            }
        };
        Ok(made)
    }

    fn io(&mut self) -> Result<&KvIo, Trouble> {
        let started = match self.io.take() {
            Some(started) => started,
            None => KvIo::start().map_err(Trouble::failed)?,
        };
        Ok(self.io.insert(started))
    }
}

fn redis_options(
    inventory: &Inventory,
    plan: &Plan,
    name: &str,
    redis: &RedisPlan,
) -> Result<RedisOptions, Trouble> {
    Ok(RedisOptions {
        connections: redis.connections,
        deadline: deadline(plan, name),
        endpoint: Some(forward::endpoint(inventory, name)?),
        ..RedisOptions::new(name, redis.address.clone())
    })
}

/// How long a request may wait unsent: what the strictest listener that leads to the leaf allows.
fn deadline(plan: &Plan, leaf: &str) -> Duration {
    let leads = |store: &str| plan.leaves(store).iter().any(|(name, _)| *name == leaf);
    let listeners = plan
        .listeners
        .values()
        .filter(|listener| leads(&listener.store));
    listeners
        .map(|listener| listener.deadline)
        .min()
        .unwrap_or(Duration::from_secs(1))
}
