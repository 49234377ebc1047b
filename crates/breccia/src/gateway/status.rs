//! The body of `/status`.
//!
//! Not metrics: it is what an operator reads. Invariant: keys, once released, keep their meaning.

use std::collections::{BTreeMap, VecDeque};

use breccia_blob::BlobStore;
use breccia_blob::condition::{ConditionalCall, Support};
use breccia_config::{Plan, RedisGroupKind, StorePlan};
use breccia_kv::resp::cluster::Cluster;
use breccia_net::clock;
use breccia_net::drain::Phase;
use serde_json::{Map, Value, json};

use super::{Gateway, Sample};

impl Gateway {
    /// Everything `/status` shows.
    pub(crate) fn status(&self) -> Value {
        let plan = self.plan();
        let samples = self.lock_samples().clone();
        let phase = match self.drain.phase() {
            Phase::Running => "running",
            Phase::Draining => "draining",
            Phase::Closing => "closing",
        };
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "phase": phase,
            "ready": self.readiness().is_ok(),
            "uptime_seconds": (clock::now() - self.started).as_secs(),
            "config": self.config.as_ref().map(|path| path.display().to_string()),
            "last_reload": self.last_reload().map(|last| last.to_json()),
            "workers": self.workers,
            "upstream_connections_at_most": self.upstream_connections(),
            "listeners": self.listener_values(&plan, &samples),
            "stores": self.store_values(&plan, &samples),
            "clusters": self.cluster_values(),
            "sessions_pinned": self.pinned_value(),
        })
    }

    fn listener_values(&self, plan: &Plan, samples: &VecDeque<Sample>) -> Vec<Value> {
        let rates = rates(samples, |sample| &sample.listeners);
        let values = self.listeners().into_iter().filter_map(|handle| {
            let listener = plan.listeners.get(handle.name())?;
            Some(json!({
                "name": handle.name(),
                "protocol": listener.protocol.name(),
                "bind": handle.bind().to_string(),
                "store": listener.stores().join(", "),
                "tls": listener.tls.is_some(),
                "connections": handle.connections(),
                "max_clients": listener.max_clients,
                "requests_per_second": rates.get(handle.name()).copied().unwrap_or_default(),
            }))
        });
        values.collect()
    }

    fn store_values(&self, plan: &Plan, samples: &VecDeque<Sample>) -> Vec<Value> {
        let rates = rates(samples, |sample| &sample.stores);
        let inventory = self.inventory();
        let value = |(name, store): (&String, &StorePlan)| {
            let mut value = Map::new();
            let mut put = |key: &str, what: Value| drop(value.insert(key.to_owned(), what));
            put("name", name.as_str().into());
            put("type", store.type_name().into());
            // Of a server with its replicas, clients say which database.
            let server = store.address().filter(|_| plan.is_only_sql(name));
            let server = server.map(ToString::to_string);
            if let Some(location) = server.or_else(|| store.location()) {
                put("location", location.into());
                let rate = rates.get(name).copied().unwrap_or_default();
                put("requests_per_second", rate.into());
            }
            if let Some(endpoint) = inventory.endpoints.get(name) {
                let down = endpoint.down();
                put("up", down.is_none().into());
                if let StorePlan::RedisGroup(group) = store
                    && let Some(address) = endpoint.address()
                {
                    if group.kind == RedisGroupKind::Cluster {
                        let cluster = inventory.clusters.get(name);
                        put("servers", cluster.map(|it| servers_value(it)).into());
                    } else {
                        put("primary", address.to_string().into());
                    }
                }
                if let Some(reason) = down {
                    let since = clock::now().saturating_duration_since(reason.since);
                    put("reason", reason.text.into());
                    put("down_seconds", since.as_secs().into());
                }
            }
            if let Some(memory) = inventory.memory.get(name) {
                let stats = memory.store.stats();
                put("entries", stats.entries.into());
                put("bytes", stats.bytes.into());
                put("evicted", stats.evicted.into());
            }
            if let Some(identity) = inventory.identities.get(name) {
                let refusal = identity.refusal();
                put("marker", refusal.as_deref().unwrap_or("right").into());
            }
            if let Some(leaf) = self.blobs.leaf(name) {
                let refusal = leaf.refusal();
                let marker = match &refusal {
                    Some(why) => why.as_str(),
                    None if leaf.is_ready() => "right",
                    None => "not looked at yet",
                };
                put("marker", marker.into());
                put("conditional", conditional_value(&**leaf));
            }
            if let Some(layout) = self.layout_value(name) {
                put("layout", layout);
            }
            Value::Object(value)
        };
        plan.stores.iter().map(value).collect()
    }

    fn layout_value(&self, name: &str) -> Option<Value> {
        let inventory = self.inventory();
        let layout = inventory.layouts.get(name)?;
        Some(json!({
            "digest": layout.digest(),
            "epoch": layout.epoch().get(),
            "role": layout.role().name(),
            "hash": layout.hash().name(),
            "hash_tag": layout.hash_tag().map(|tag| tag.to_string()),
            "placement_key": layout.placement_key().to_string(),
            "slots": layout.slot_count(),
            "shards": layout.shards(),
        }))
    }
}

/// The servers of a cluster that own slots.
fn servers_value(cluster: &Cluster) -> Value {
    let map = cluster.map();
    let each = cluster.primaries().into_iter().map(|server| {
        let down = server.endpoint.health().down();
        json!({
            "address": server.address.to_string(),
            "slots": map.count_of(server.number),
            "up": down.is_none(),
            "reason": down.map(|reason| reason.text),
        })
    });
    each.collect()
}

/// Which conditional calls a leaf of blobs offers.
fn conditional_value(leaf: &dyn BlobStore) -> Value {
    let support = leaf.conditional();
    let each = ConditionalCall::ALL.iter().map(|call| {
        let word = match support.of(*call) {
            Support::Yes => "yes",
            Support::No => "no",
            Support::Unprobed => "not probed yet",
        };
        (call.name().to_owned(), word.into())
    });
    Value::Object(each.collect())
}

/// Events a second between the first and the last sample.
fn rates(
    samples: &VecDeque<Sample>,
    counters: impl Fn(&Sample) -> &BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    let (Some(first), Some(last)) = (samples.front(), samples.back()) else {
        return BTreeMap::new();
    };
    let ms = u64::try_from((last.at - first.at).as_millis()).unwrap_or(u64::MAX);
    let rate = |(name, value): (&String, &u64)| {
        let before = counters(first).get(name).copied().unwrap_or_default();
        let events = value.saturating_sub(before);
        (
            name.clone(),
            events
                .saturating_mul(1000)
                .checked_div(ms)
                .unwrap_or_default(),
        )
    };
    counters(last).iter().map(rate).collect()
}
