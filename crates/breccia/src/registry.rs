//! The one table in which kinds of stores and protocols are wired.
//!
//! Not their work. Invariant: whoever adds a kind of store or a protocol adds a line here, and
//! nowhere else in this crate.

mod memcached;
mod redis;

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use breccia_config::{ListenerPlan, Plan, Protocol};
use breccia_net::health::{ProbeConfig, probe_loop};
use breccia_net::listener::Bind;
use breccia_net::worker::{Accepted, Service, WorkerIndex};

use crate::gateway::Gateway;
use crate::reach::{Prober, Target};

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
    for (name, health) in &gateway.endpoints {
        let Some(store) = plan.stores.get(name) else {
            continue;
        };
        let config = match store {
            breccia_config::StorePlan::Redis(redis) => ProbeConfig {
                interval: redis.probe_interval,
                timeout: redis.probe_timeout,
            },
            breccia_config::StorePlan::Memcached(memcached) => ProbeConfig {
                interval: memcached.probe_interval,
                timeout: memcached.probe_timeout,
            },
            _ => continue,
        };
        let Some(target) = Target::of(store)? else {
            continue;
        };
        let prober = Prober::new(target);
        let probe = move || {
            let prober = Arc::clone(&prober);
            async move { prober.probe().await }
        };
        tokio::spawn(probe_loop(Arc::clone(health), config, probe));
    }
    Ok(())
}

/// The services of one worker, one per listener in the order of the plan. Runs on the worker.
pub(crate) fn services(
    gateway: &Arc<Gateway>,
    plan: &Plan,
    worker: WorkerIndex,
) -> Vec<Rc<dyn Service>> {
    let services = plan
        .listeners
        .iter()
        .map(|(name, listener)| match listener.protocol {
            Protocol::Redis => redis::service(gateway, plan, name, listener, worker),
            Protocol::Memcached => memcached::service(gateway, plan, name, listener, worker),
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
