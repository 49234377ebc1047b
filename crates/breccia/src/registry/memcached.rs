//! Wiring of listeners that speak memcached.
//!
//! Not the protocol. Invariant: options are made from the plan here and nowhere else.

use std::rc::Rc;
use std::sync::Arc;

use breccia_config::ListenerPlan;
use breccia_kv::memcached::frontend::{MemcachedListener, MemcachedService, MemcachedWorker};
use breccia_net::worker::Service;

use super::wiring::Wiring;
use crate::gateway::Gateway;

/// The service of one listener on one worker. Runs on the worker.
pub(super) fn service(
    gateway: &Arc<Gateway>,
    wiring: &Wiring,
    worker: &MemcachedWorker,
    name: &str,
    listener: &ListenerPlan,
) -> Rc<dyn Service> {
    let inventory = gateway.inventory();
    let (Some(backend), Some(settings), Some(drain)) = (
        wiring.memcached(&listener.store),
        inventory.settings.get(name),
        inventory.drains.get(name),
    ) else {
        return Rc::new(super::Closed);
    };
    let options = MemcachedListener {
        name: name.to_owned(),
        backend,
        settings: Arc::clone(settings),
        registry: gateway.metrics.clone(),
        drain: drain.clone(),
    };
    MemcachedService::new(worker, options)
}
