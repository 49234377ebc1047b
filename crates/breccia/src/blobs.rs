//! The blob stores of a gateway: leaves behind their guards, composites over them, the records of
//! buckets, and the tasks that watch and tidy.
//!
//! Not the stores. Invariant: a leaf is opened once in the process, and no request reaches it but
//! through its guard.

pub(crate) mod command;
pub(crate) mod leaves;
pub(crate) mod start;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use breccia_blob::BlobStore;
use breccia_blob::buckets::Buckets;
use breccia_blob::guarded::Guarded;
use breccia_blob::markers::{Composite, MarkedLeaf};
use breccia_blob::sharded::ShardedBlob;
use breccia_config::{Plan, StorePlan};
use breccia_net::clock;
use breccia_net::health::EndpointHealth;
use breccia_net::layout_store::LayoutStore;
use breccia_net::metrics::Registry;

use crate::loading::Layouts;
use crate::registry;
use crate::trouble::Trouble;
pub(crate) use leaves::Leaves;

/// Between two rounds of tidying.
const MAINTAIN_EVERY: Duration = Duration::from_mins(1);
/// How long a start waits for the first looks at the leaves.
const FIRST_LOOKS: Duration = Duration::from_secs(3);

/// See the module's page.
#[derive(Debug, Default)]
pub(crate) struct Blobs {
    /// By name of the store.
    guarded: BTreeMap<String, Arc<Guarded>>,
    composites: BTreeMap<String, Arc<ShardedBlob>>,
    buckets: BTreeMap<String, Arc<Buckets>>,
}

/// The composites of blob stores, with the leaves below each of their shards.
pub(crate) fn composites(plan: &Plan, leaves: &Leaves) -> Vec<Composite> {
    let blobs = plan.stores.iter().filter_map(|(name, store)| match store {
        StorePlan::ShardedBlob(sharded) => Some((name, sharded)),
        _ => None,
    });
    let composite = |(name, sharded): (&String, &breccia_config::ShardedBlobPlan)| {
        let below = sharded.stores.iter().flat_map(|shard| {
            let opened = plan.leaves(shard).into_iter();
            opened.filter_map(|(leaf, _)| Some((shard.clone(), leaves.get(leaf)?)))
        });
        Composite {
            name: name.clone(),
            leaves: below.collect(),
        }
    };
    blobs.map(composite).collect()
}

impl Blobs {
    /// Puts the leaves behind guards and makes the composites over them.
    pub(crate) fn new(
        plan: &Plan,
        layouts: &Layouts,
        leaves: &Leaves,
        store: &Arc<LayoutStore>,
        metrics: &Registry,
    ) -> Result<Self, Trouble> {
        let mut blobs = Self::default();
        for marked in MarkedLeaf::all(&composites(plan, leaves), layouts) {
            let name = marked.leaf.name().to_owned();
            let location = marked.leaf.location().unwrap_or_default();
            let health = EndpointHealth::located(name.clone(), location);
            let guarded = Guarded::new(marked, Arc::clone(store))
                .with_health(health)
                .with_metrics(metrics);
            blobs.guarded.insert(name, Arc::new(guarded));
        }
        for (name, store) in &plan.stores {
            if matches!(store, StorePlan::ShardedBlob(_)) {
                blobs.add(layouts, metrics, name)?;
            }
        }
        for listener in plan.listeners.values() {
            let by_clients = listener.s3.as_ref().is_some_and(|s3| s3.buckets.is_none());
            if let Some(store) = blobs.store(&listener.store).filter(|_| by_clients)
                && !blobs.buckets.contains_key(&listener.store)
            {
                let buckets = Arc::new(Buckets::new(store));
                blobs.buckets.insert(listener.store.clone(), buckets);
            }
        }
        Ok(blobs)
    }

    fn add(
        &mut self,
        layouts: &Layouts,
        metrics: &Registry,
        name: &str,
    ) -> Result<Arc<dyn BlobStore>, Trouble> {
        if let Some(made) = self.store(name) {
            return Ok(made);
        }
        let layout = layouts.get(name);
        let layout = layout.ok_or_else(|| Trouble::failed(format!("'{name}' has no layout")))?;
        let members = layout.shards().iter();
        let members = members.map(|shard| self.add(layouts, metrics, shard));
        let members = members.collect::<Result<Vec<_>, _>>()?;
        let made = ShardedBlob::new(Arc::clone(layout), members).map_err(Trouble::failed)?;
        let made = Arc::new(made.with_metrics(metrics));
        self.composites.insert(name.to_owned(), Arc::clone(&made));
        Ok(made)
    }

    /// A composite, or a leaf behind its guard.
    pub(crate) fn store(&self, name: &str) -> Option<Arc<dyn BlobStore>> {
        if let Some(composite) = self.composites.get(name) {
            return Some(Arc::clone(composite) as _);
        }
        self.guarded.get(name).map(|leaf| Arc::clone(leaf) as _)
    }

    /// The records of the buckets that clients make in a store.
    pub(crate) fn buckets(&self, store: &str) -> Option<&Arc<Buckets>> {
        self.buckets.get(store)
    }

    /// A leaf, if it is one of blobs.
    pub(crate) fn leaf(&self, name: &str) -> Option<&Arc<Guarded>> {
        self.guarded.get(name)
    }

    /// The health of each leaf by name.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = (&String, &Arc<EndpointHealth>)> {
        let leaves = self.guarded.iter();
        leaves.filter_map(|(name, leaf)| Some((name, leaf.health()?)))
    }

    /// Watches the leaves and tidies them from now on, in the runtime this is called in. Returns
    /// when each leaf that answers has been looked at once.
    pub(crate) async fn start(&self, plan: &Plan) {
        let mut looks = tokio::task::JoinSet::new();
        for (name, leaf) in &self.guarded {
            if let Some(config) = plan.stores.get(name).map(registry::probes) {
                tokio::spawn(Arc::clone(leaf).watch(config));
            }
            let leaf = Arc::clone(leaf);
            looks.spawn(async move {
                // Why it is not used is logged there, and shown by `status`.
                if leaf.look().await.is_ok()
                    && let Err(error) = leaf.probe_conditional().await
                {
                    let store = leaf.name();
                    tracing::warn!(store, %error, "its conditional calls could not be probed");
                }
            });
        }
        let all = async { while looks.join_next().await.is_some() {} };
        if tokio::time::timeout(FIRST_LOOKS, all).await.is_err() {
            // They go on.
            looks.detach_all();
        }
        for (name, composite) in &self.composites {
            if let Some(StorePlan::ShardedBlob(sharded)) = plan.stores.get(name)
                && !plan.is_inner(name)
            {
                tokio::spawn(maintain(Arc::clone(composite), sharded.upload_expiry));
            }
        }
    }
}

/// Ends uploads that have grown too old and clears leftovers away, for ever.
async fn maintain(composite: Arc<ShardedBlob>, expiry: Duration) {
    let expiry_ms = u64::try_from(expiry.as_millis()).unwrap_or(u64::MAX);
    loop {
        tokio::time::sleep(MAINTAIN_EVERY).await;
        let store = composite.name();
        match composite
            .maintain(clock::unix_ms().saturating_sub(expiry_ms))
            .await
        {
            Ok(done) if done == breccia_blob::store::Maintained::default() => {}
            Ok(done) => tracing::info!(
                store,
                uploads = done.uploads,
                leftovers = done.leftovers,
                "expired uploads were ended and leftovers cleared away"
            ),
            Err(error) => {
                tracing::warn!(store, %error, "it could not be tidied; tried again later");
            }
        }
    }
}
