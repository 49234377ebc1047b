//! Typed stores: those that mix kinds of leaves, or whose leaves are inside the gateway.
//!
//! Not forwarding: requests are understood here. Invariant: a memory store exists once in the
//! process, whichever composites and listeners lead to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use breccia_config::{Plan, StorePlan};
use breccia_kv::sharded::ShardedKv;
use breccia_kv::store::KvStore;

use crate::gateway::Gateway;
use crate::trouble::Trouble;

/// Typed stores by name, composites and leaves alike.
#[derive(Default)]
pub(super) struct Typed {
    stores: BTreeMap<String, Arc<dyn KvStore>>,
}

impl Typed {
    /// A store that was added.
    pub(super) fn get(&self, name: &str) -> Option<Arc<dyn KvStore>> {
        self.stores.get(name).map(Arc::clone)
    }

    /// Makes a store with everything under it, unless it is there already.
    pub(super) fn add(
        &mut self,
        gateway: &Gateway,
        plan: &Plan,
        name: &str,
    ) -> Result<Arc<dyn KvStore>, Trouble> {
        if let Some(made) = self.get(name) {
            return Ok(made);
        }
        let made = match gateway.layouts.get(name) {
            None => leaf(gateway, plan, name)?,
            Some(layout) => {
                let members = layout
                    .shards()
                    .iter()
                    .map(|member| self.add(gateway, plan, member))
                    .collect::<Result<_, _>>()?;
                let sharded = ShardedKv::new(Arc::clone(layout), members);
                Arc::new(sharded.map_err(Trouble::failed)?)
            }
        };
        self.stores.insert(name.to_owned(), Arc::clone(&made));
        Ok(made)
    }
}

fn leaf(gateway: &Gateway, plan: &Plan, name: &str) -> Result<Arc<dyn KvStore>, Trouble> {
    if let Some(memory) = gateway.memory.get(name) {
        return Ok(Arc::clone(&memory.store) as _);
    }
    let kind = plan
        .stores
        .get(name)
        .map_or("undefined", StorePlan::type_name);
    Err(Trouble::failed(format!(
        "store.{name} ({kind}) cannot be a typed store"
    )))
}
