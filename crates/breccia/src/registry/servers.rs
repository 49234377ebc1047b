//! Servers of keys and values: from a store's plan to the terms on which it is used.
//!
//! Not the connections. Invariant: a store has one endpoint in the process, whichever composites and
//! listeners lead to it, so what a reload changes changes everywhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use breccia_config::{ConnectionsPer, MemcachedPlan, Plan, RedisPlan, StorePlan};
use breccia_kv::endpoint::{Endpoint, Place, Terms};
use breccia_kv::io::KvIo;
use breccia_kv::pipeline::PipelineLimits;
use breccia_kv::resp::frontend::Trunks;
use breccia_net::health::EndpointHealth;
use breccia_net::metrics::Registry;

use crate::reach;
use crate::trouble::Trouble;

/// Request bytes that may wait for one upstream connection.
const MAX_UNSENT_BYTES: usize = 64 << 20;

/// The endpoint of each store of keys and values that is on a server and has a health.
pub(crate) fn servers(
    plan: &Plan,
    healths: &BTreeMap<String, Arc<EndpointHealth>>,
) -> Result<BTreeMap<String, Arc<Endpoint>>, Trouble> {
    let mut servers = BTreeMap::new();
    for (name, health) in healths {
        let Some(store) = plan.stores.get(name) else {
            continue;
        };
        if let Some(terms) = terms(name, store).map_err(Trouble::refused)? {
            servers.insert(name.clone(), Endpoint::new(terms, Arc::clone(health)));
        }
    }
    Ok(servers)
}

/// The shared connections of Redis stores whose workers have none of their own, as they are known, or
/// made now. A thread each.
pub(crate) fn trunks(
    plan: &Plan,
    known: &BTreeMap<String, Arc<Trunks>>,
    metrics: &Registry,
) -> Result<BTreeMap<String, Arc<Trunks>>, Trouble> {
    let mut trunks = BTreeMap::new();
    for (name, store) in &plan.stores {
        let StorePlan::Redis(redis) = store else {
            continue;
        };
        if redis.connections_per == ConnectionsPer::Process {
            let own = if let Some(known) = known.get(name) {
                Arc::clone(known)
            } else {
                let io = KvIo::start().map_err(Trouble::failed)?;
                Trunks::new(io, metrics.clone())
            };
            trunks.insert(name.clone(), own);
        }
    }
    Ok(trunks)
}

/// The terms on which a store's server is used; `None` for a store without one. Reads the files of
/// its `tls`.
pub(crate) fn terms(name: &str, store: &StorePlan) -> Result<Option<Terms>, String> {
    match store {
        StorePlan::Redis(redis) => redis_terms(name, redis).map(Some),
        StorePlan::RedisGroup(group) => {
            let mut terms = redis_terms(name, &group.redis)?;
            terms.place.vacant = Some("nobody has been asked yet where it is".into());
            Ok(Some(terms))
        }
        StorePlan::Memcached(memcached) => {
            let place = Place::plain(memcached.address.clone());
            Ok(Some(Terms::simple(place, memcached_limits(memcached))))
        }
        _ => Ok(None),
    }
}

fn redis_terms(name: &str, plan: &RedisPlan) -> Result<Terms, String> {
    let tls = reach::tls_client(plan).map_err(|error| format!("store.{name}.tls: {error}"))?;
    let password = plan.password.as_ref();
    Ok(Terms {
        place: Place {
            address: plan.address.clone(),
            tls,
            user: plan.user.clone(),
            password: password.map(|secret| secret.expose().to_owned()),
            database: plan.database,
            vacant: None,
        },
        limits: PipelineLimits {
            stall_gate: plan.stall_gate,
            timeout: plan.timeout,
            max_in_flight: plan.max_in_flight,
            max_unsent_bytes: MAX_UNSENT_BYTES,
        },
        max_leases: plan.max_leases,
        databases: plan.databases,
    })
}

fn memcached_limits(plan: &MemcachedPlan) -> PipelineLimits {
    PipelineLimits {
        stall_gate: plan.stall_gate,
        timeout: plan.timeout,
        max_in_flight: plan.max_in_flight,
        max_unsent_bytes: MAX_UNSENT_BYTES,
    }
}
