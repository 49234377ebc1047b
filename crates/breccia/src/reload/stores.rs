//! What a reload changes of the servers that hold keys and values: where they are, who logs in, and
//! how long they are waited for.
//!
//! Not the connections, which follow their endpoint. Invariant: everything that can be refused is
//! refused before the first server changes.

use std::sync::Arc;

use breccia_config::{MemcachedPlan, Plan, RedisGroupPlan, RedisPlan, StorePlan};
use breccia_kv::endpoint::{Endpoint, Terms};
use tokio::sync::mpsc;

use crate::gateway::Gateway;
use crate::{loading, markers, registry};

/// Takes over what may change of a store under way; answers the keys. Its place may change if no
/// other store is at the same server: those share probes and subscriptions.
pub(super) fn take_over(old: &mut StorePlan, new: &StorePlan, alone: bool) -> Vec<&'static str> {
    match (old, new) {
        (StorePlan::Redis(old), StorePlan::Redis(new)) => take_redis(old, new, alone),
        (StorePlan::RedisGroup(old), StorePlan::RedisGroup(new)) => take_group(old, new),
        (StorePlan::Memcached(old), StorePlan::Memcached(new)) => take_memcached(old, new, alone),
        _ => Vec::new(),
    }
}

macro_rules! take {
    ($keys:ident, $old:ident, $new:ident: $($field:ident $key:literal),+ $(,)?) => {$(
        if $old.$field != $new.$field {
            $old.$field.clone_from(&$new.$field);
            $keys.push($key);
        }
    )+};
}

fn take_redis(old: &mut RedisPlan, new: &RedisPlan, alone: bool) -> Vec<&'static str> {
    let mut keys = Vec::new();
    let place = |plan: &RedisPlan| (plan.address.clone(), plan.database);
    if alone && place(old) != place(new) {
        (old.address, old.database) = place(new);
        keys.push("url");
    }
    take!(keys, old, new:
        user "user",
        password "password",
        tls "tls",
        timeout "timeout",
        stall_gate "stall-gate",
        max_in_flight "max-in-flight",
        max_leases "max-leases",
        databases "databases",
        probe_interval "probe-interval",
        probe_timeout "probe-timeout",
    );
    keys
}

/// Whom to ask may change under way; what kind of servers they tell of may not.
fn take_group(old: &mut RedisGroupPlan, new: &RedisGroupPlan) -> Vec<&'static str> {
    if old.kind.type_name() != new.kind.type_name() {
        return Vec::new();
    }
    let mut keys = Vec::new();
    take!(keys, old, new: urls "urls", kind "service");
    // Only who is asked first is written there.
    old.redis.address = new.redis.address.clone();
    keys.extend(take_redis(&mut old.redis, &new.redis, false));
    keys
}

fn take_memcached(old: &mut MemcachedPlan, new: &MemcachedPlan, alone: bool) -> Vec<&'static str> {
    let mut keys = Vec::new();
    if alone && old.address != new.address {
        old.address.clone_from(&new.address);
        keys.push("address");
    }
    take!(keys, old, new:
        timeout "timeout",
        stall_gate "stall-gate",
        max_in_flight "max-in-flight",
        probe_interval "probe-interval",
        probe_timeout "probe-timeout",
    );
    keys
}

/// Whether no other store of either plan is, or was, at the servers of this one.
pub(super) fn is_alone(before: &Plan, wanted: &Plan, name: &str) -> bool {
    let at = |plan: &Plan| plan.stores.get(name)?.address().cloned();
    let (old, new) = (at(before), at(wanted));
    let others = |plan: &Plan| {
        let mut others = plan.stores.iter().filter(|(other, _)| *other != name);
        others.any(|(_, store)| {
            let address = store.address();
            address.is_some() && (address == old.as_ref() || address == new.as_ref())
        })
    };
    !others(before) && !others(wanted)
}

/// The keys in which a store's two plans still differ, as far as they can be told.
pub(super) fn differing(old: &StorePlan, new: &StorePlan) -> Vec<&'static str> {
    macro_rules! differ {
        ($old:ident $new:ident: $($field:ident $key:literal),+ $(,)?) => {
            [$(($old.$field != $new.$field).then_some($key)),+].into_iter().flatten().collect()
        };
    }
    let mut keys = Vec::new();
    let mut note = |key, differs: bool| {
        if differs {
            keys.push(key);
        }
    };
    match (old, new) {
        (StorePlan::Redis(old), StorePlan::Redis(new)) => {
            let place = |plan: &RedisPlan| (plan.address.clone(), plan.database);
            note("url", place(old) != place(new));
            note("connections", old.connections != new.connections);
            let per = old.connections_per != new.connections_per;
            note("connections-per", per);
        }
        (StorePlan::RedisGroup(old), StorePlan::RedisGroup(new)) => {
            note(
                "connections",
                old.redis.connections != new.redis.connections,
            );
            let replicas = [old, new].map(|plan| plan.read_from_replicas);
            note("read-from-replicas", replicas[0] != replicas[1]);
        }
        (StorePlan::Memcached(old), StorePlan::Memcached(new)) => {
            note("address", old.address != new.address);
            note("connections", old.connections != new.connections);
        }
        (StorePlan::SqlReadReplica(old), StorePlan::SqlReadReplica(new)) => {
            keys = differ!(old new:
                primary "primary",
                replicas "replicas",
                consistency "consistency",
                transactions "transactions",
                max_lag "max-lag",
                replica_wait "replica-wait",
                read_functions "read-functions",
            );
        }
        (StorePlan::Postgresql(old), StorePlan::Postgresql(new))
        | (StorePlan::Mysql(old), StorePlan::Mysql(new)) => {
            keys = differ!(old new:
                address "host",
                database "database",
                user "user",
                password "password",
                monitor_user "monitor-user",
                monitor_password "monitor-password",
                tls "tls",
                max_connections "max-connections",
                timeout "timeout",
                table_prefix "table-prefix",
                weight "weight",
                probe_interval "probe-interval",
                probe_timeout "probe-timeout",
            );
        }
        _ => {}
    }
    keys
}

/// A server's terms to come.
struct Renewal {
    store: String,
    endpoint: Arc<Endpoint>,
    terms: Terms,
    /// Whether it stays where it is: that is for others to say, not for the file.
    stays: bool,
    /// Whether its plan has changed, and not only, perhaps, the files of its `tls`.
    changed: bool,
}

/// The servers as they will be. See the module's page.
pub(super) struct RenewedStores(Vec<Renewal>);

impl RenewedStores {
    /// Reads all that is needed: certificates anew, too, which may have been renewed in their place.
    pub(super) fn of(gateway: &Gateway, before: &Plan, plan: &Plan) -> Result<Self, Vec<String>> {
        let (mut renewed, mut faults) = (Vec::new(), Vec::new());
        for (name, endpoint) in &gateway.inventory().servers {
            let (old, Some(new)) = (before.stores.get(name), plan.stores.get(name)) else {
                continue;
            };
            match registry::terms(name, new) {
                Ok(Some(terms)) if matches!(new, StorePlan::RedisGroup(_)) => {
                    renewed.push(Renewal {
                        store: name.clone(),
                        endpoint: Arc::clone(endpoint),
                        terms,
                        stays: true,
                        changed: old != Some(new),
                    });
                }
                Ok(Some(terms)) if old != Some(new) || terms.place.tls.is_some() => {
                    renewed.push(Renewal {
                        store: name.clone(),
                        endpoint: Arc::clone(endpoint),
                        terms,
                        stays: false,
                        changed: old != Some(new),
                    });
                }
                Ok(_) => {}
                Err(fault) => faults.push(fault),
            }
        }
        if faults.is_empty() {
            Ok(Self(renewed))
        } else {
            Err(faults)
        }
    }

    /// Writes down where the shards are from now on. What cannot be written is refused.
    pub(super) fn record(gateway: &Gateway, plan: &Plan) -> Result<(), Vec<String>> {
        if loading::composites(plan).is_empty() {
            return Ok(());
        }
        let recorded = loading::open_layouts(plan, &gateway.layout_store);
        recorded.map(drop).map_err(|refusals| {
            let lines = refusals.iter().flat_map(|refusal| match gateway.given() {
                Some(given) => given.lines(refusal),
                None => vec![refusal.to_string()],
            });
            lines.collect()
        })
    }

    /// Puts the terms in force: connections follow from here on.
    pub(super) fn apply(self, gateway: &Arc<Gateway>, plan: &Plan) {
        for renewal in self.0 {
            let Renewal {
                store,
                endpoint,
                terms,
                stays,
                changed,
            } = renewal;
            let former = endpoint.current();
            let (was, is) = (&former.terms.place.address, terms.place.address.clone());
            if !stays && *was != is {
                tracing::warn!(store, %was, address = %is, "the store has moved");
                endpoint.health().move_to(is);
            }
            if let Some(cluster) = gateway.inventory().clusters.get(&store) {
                cluster.renew(&terms);
            }
            if stays {
                endpoint.renew(&terms);
            } else {
                endpoint.set(terms);
            }
            if changed {
                // The files were read a moment ago: what is broken since then is found when the
                // probe, or the look at the marker, connects.
                let probing = registry::start_probe(gateway, plan, &store);
                registry::start_watch(gateway, plan, &store, mpsc::channel(1).0);
                let marking = markers::keeper::follow(gateway, plan, &store);
                for error in [probing.err(), marking.err()].into_iter().flatten() {
                    tracing::error!(store, %error, "the store is watched as before the reload");
                }
            }
        }
    }
}
