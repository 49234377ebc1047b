//! What stands behind the listeners, made once per process from the plan and its layouts.
//!
//! Not what runs on a worker. Invariant: a store is made once, however many listeners lead to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use breccia_config::{MultiKey, Plan, RedisPlan, ShardedPlan, StorePlan};
use breccia_kv::pipeline::PipelineLimits;
use breccia_kv::resp::frontend::{self, ForwardStore, ModuleCommand, RespLeaf, SubscriptionLoss};
use breccia_kv::topology::{Branch, Topology};

use crate::gateway::Gateway;
use crate::reach;
use crate::trouble::Trouble;

/// Request bytes that may wait for one upstream connection.
const MAX_UNSENT_BYTES: usize = 64 << 20;

/// See the module's page.
pub(crate) struct Wiring {
    /// Stores whose leaves are all Redis servers, by the store's name.
    pub forward: BTreeMap<String, Arc<ForwardStore>>,
}

impl Wiring {
    /// Makes everything the plan's listeners need.
    pub(crate) fn new(gateway: &Gateway, plan: &Plan) -> Result<Self, Trouble> {
        let mut wiring = Self {
            forward: BTreeMap::new(),
        };
        for listener in plan.listeners.values() {
            let redis_only = plan
                .leaves(&listener.store)
                .iter()
                .all(|(_, leaf)| is_redis(leaf));
            if redis_only && !wiring.forward.contains_key(&listener.store) {
                let store = forward_store(gateway, plan, &listener.store)?;
                wiring
                    .forward
                    .insert(listener.store.clone(), Arc::new(store));
            }
        }
        Ok(wiring)
    }
}

fn is_redis(store: &StorePlan) -> bool {
    matches!(store, StorePlan::Redis(_))
}

fn forward_store(gateway: &Gateway, plan: &Plan, name: &str) -> Result<ForwardStore, Trouble> {
    let leaf = |path: &str, store: &str, redis: &RedisPlan| -> Result<Arc<RespLeaf>, Trouble> {
        Ok(Arc::new(resp_leaf(gateway, path, store, redis)?))
    };
    let root = branch(
        gateway,
        plan,
        name,
        name,
        &|path, store| match plan.stores.get(store) {
            Some(StorePlan::Redis(redis)) => leaf(path, store, redis),
            _ => Err(Trouble::failed(format!("store.{store} is no redis store"))),
        },
    )?;
    let topology = Topology::new(name.to_owned(), root)
        .ok_or_else(|| Trouble::failed(format!("store.{name} has no members, or too many")))?;
    let sharded = match plan.stores.get(name) {
        Some(StorePlan::ShardedInMemory(sharded)) => Some(sharded),
        _ => None,
    };
    Ok(ForwardStore {
        topology,
        multi_key: match sharded.map(|sharded| sharded.multi_key) {
            Some(MultiKey::Slot) => frontend::MultiKey::Slot,
            _ => frontend::MultiKey::Shard,
        },
        modules: sharded.map(modules).unwrap_or_default(),
        subscription_loss: match sharded.map(|sharded| sharded.subscription_loss) {
            Some(breccia_config::SubscriptionLoss::Resubscribe) => SubscriptionLoss::Resubscribe,
            _ => SubscriptionLoss::Disconnect,
        },
    })
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

/// A store as it nests, its members in the order of the layout's shards.
pub(crate) fn branch<L>(
    gateway: &Gateway,
    plan: &Plan,
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
        .map(|member| branch(gateway, plan, &format!("{path}/{member}"), member, leaf))
        .collect::<Result<_, _>>()?;
    Ok(Branch::Sharded(Arc::clone(layout), members))
}

fn resp_leaf(
    gateway: &Gateway,
    path: &str,
    store: &str,
    plan: &RedisPlan,
) -> Result<RespLeaf, Trouble> {
    let health = gateway
        .endpoints
        .get(store)
        .ok_or_else(|| Trouble::failed(format!("store.{store} has no endpoint")))?;
    let tls = reach::tls_client(plan)
        .map_err(|error| Trouble::refused(format!("store.{store}.tls: {error}")))?;
    Ok(RespLeaf {
        name: path.to_owned(),
        store: store.to_owned(),
        address: plan.address.clone(),
        tls,
        user: plan.user.clone(),
        password: plan
            .password
            .as_ref()
            .map(|secret| secret.expose().to_owned()),
        database: plan.database,
        databases: plan.databases,
        connections: plan.connections,
        max_leases: plan.max_leases,
        limits: PipelineLimits {
            stall_gate: plan.stall_gate,
            timeout: plan.timeout,
            max_in_flight: plan.max_in_flight,
            max_unsent_bytes: MAX_UNSENT_BYTES,
        },
        health: Arc::clone(health),
    })
}
