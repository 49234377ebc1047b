//! Wiring of listeners that speak redis.
//!
//! Not the protocol. Invariant: options are made from the plan here and nowhere else.

use std::rc::Rc;
use std::sync::Arc;

use breccia_config::ListenerPlan;
use breccia_kv::resp::frontend::{RespListener, RespService, RespWorker};
use breccia_net::worker::Service;

use super::wiring::Wiring;
use crate::gateway::Gateway;

/// The service of one listener on one worker. Runs on the worker.
pub(super) fn service(
    gateway: &Arc<Gateway>,
    wiring: &Wiring,
    worker: &RespWorker,
    name: &str,
    listener: &ListenerPlan,
) -> Rc<dyn Service> {
    let inventory = gateway.inventory();
    let (Some(backend), Some(settings), Some(drain)) = (
        wiring.resp(&listener.store),
        inventory.settings.get(name),
        inventory.drains.get(name),
    ) else {
        return Rc::new(super::Closed);
    };
    let options = RespListener {
        name: name.to_owned(),
        backend,
        settings: Arc::clone(settings),
        clients: wiring.clients.get(name).map(Arc::clone).unwrap_or_default(),
        slow: wiring.slow.get(name).map(Arc::clone).unwrap_or_default(),
        registry: gateway.metrics.clone(),
        drain: drain.clone(),
    };
    RespService::new(worker, options)
}
