//! The one table in which kinds of stores and protocols are wired.
//!
//! Not their work. Invariant: whoever adds a kind of store or a protocol adds a line here, and
//! nowhere else in this crate.

mod memcached;
mod redis;
mod wiring;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use breccia_config::{ListenerPlan, Plan, Protocol, StorePlan};
use breccia_kv::front::limits::ListenerLimits;
use breccia_kv::front::settings::{ListenerSettings, SharedSettings, User};
use breccia_kv::memcached::frontend::MemcachedWorker;
use breccia_kv::memory::{Eviction, MemoryOptions, MemoryStore};
use breccia_kv::resp::frontend::RespWorker;
use breccia_net::health::{ProbeConfig, probe_loop};
use breccia_net::listener::Bind;
use breccia_net::worker::{Accepted, Service};

use crate::gateway::Gateway;
use crate::reach::{Prober, Target};
pub(crate) use wiring::Wiring;

/// What a client over `max-clients` is told.
pub(crate) fn refusal(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Redis => b"-ERR max number of clients reached\r\n",
        Protocol::Memcached => b"SERVER_ERROR max number of clients reached\r\n",
        _ => b"",
    }
}

/// Where a listener binds.
pub(crate) fn bind(plan: &ListenerPlan) -> Bind {
    match &plan.bind {
        breccia_config::BindPlan::Tcp(address) => Bind::Tcp(*address),
        breccia_config::BindPlan::Unix(path) => Bind::Unix(path.clone()),
    }
}

/// Probes every endpoint from now on, in the runtime this is called in.
pub(crate) fn start_probes(gateway: &Gateway, plan: &Plan) -> Result<(), breccia_net::NetError> {
    let mut addresses = BTreeSet::new();
    for (name, health) in &gateway.endpoints {
        let Some(store) = plan.stores.get(name) else {
            continue;
        };
        let config = match store {
            StorePlan::Redis(redis) => ProbeConfig {
                interval: redis.probe_interval,
                timeout: redis.probe_timeout,
            },
            StorePlan::Memcached(memcached) => ProbeConfig {
                interval: memcached.probe_interval,
                timeout: memcached.probe_timeout,
            },
            _ => continue,
        };
        let Some(target) = Target::of(store)? else {
            continue;
        };
        if !addresses.insert(health.address()) {
            continue;
        }
        let prober = Prober::new(target);
        let probe = move || {
            let prober = Arc::clone(&prober);
            async move { prober.probe().await }
        };
        tokio::spawn(probe_loop(Arc::clone(health), config, probe));
    }
    Ok(())
}

/// The settings of each listener that a reload may change.
pub(crate) fn shared_settings(plan: &Plan) -> BTreeMap<String, Arc<SharedSettings>> {
    let each = plan.listeners.iter();
    each.map(|(name, listener)| (name.clone(), SharedSettings::new(settings(listener))))
        .collect()
}

/// Who may use a listener, and within which limits.
pub(crate) fn settings(plan: &ListenerPlan) -> ListenerSettings {
    let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
    let users = plan.users.iter().map(|user| User {
        name: user.name.clone(),
        password: user
            .password
            .as_ref()
            .map(|password| password.expose().to_owned()),
    });
    ListenerSettings {
        users: users.collect(),
        limits: ListenerLimits {
            deadline: plan.deadline,
            idle_timeout: plan.idle_timeout,
            max_request_size: bytes(plan.max_request_size),
            max_arguments: plan.max_arguments,
            max_in_flight: plan.max_in_flight,
            reply_buffer: bytes(plan.reply_buffer),
            write_timeout: plan.write_timeout,
            min_body_rate: plan.min_body_rate,
        },
    }
}

/// A store inside this process; `None` for other kinds.
pub(crate) fn memory_store(name: &str, plan: &StorePlan) -> Option<MemoryStore> {
    let StorePlan::Memory(memory) = plan else {
        return None;
    };
    Some(MemoryStore::new(MemoryOptions {
        name: name.to_owned(),
        max_memory: memory.max_memory,
        eviction: match memory.eviction {
            breccia_config::Eviction::S3Fifo => Eviction::S3Fifo,
            _ => Eviction::NoEviction,
        },
    }))
}

/// The services of one worker, one per listener in the order of the plan. Runs on the worker.
pub(crate) fn services(
    gateway: &Arc<Gateway>,
    plan: &Plan,
    wiring: &Wiring,
) -> Vec<Rc<dyn Service>> {
    let (resp, memcached) = (RespWorker::new(), MemcachedWorker::new());
    let services = plan
        .listeners
        .iter()
        .map(|(name, listener)| match listener.protocol {
            Protocol::Redis => redis::service(gateway, wiring, &resp, name, listener),
            Protocol::Memcached => memcached::service(gateway, wiring, &memcached, name, listener),
            _ => Rc::new(Closed),
        });
    services.collect()
}

/// Closes every connection: for a protocol this table does not know.
struct Closed;

impl Service for Closed {
    fn serve(self: Rc<Self>, connection: Accepted) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move { drop(connection) })
    }
}
