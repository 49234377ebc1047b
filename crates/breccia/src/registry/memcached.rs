//! Wiring of listeners that speak memcached.
//!
//! Not the protocol. Invariant: options are made from the plan here and nowhere else.

use std::rc::Rc;
use std::sync::Arc;

use breccia_config::{ListenerPlan, Plan};
use breccia_net::worker::{Service, WorkerIndex};

use crate::gateway::Gateway;

/// The service of one listener on one worker. Runs on the worker.
pub(super) fn service(
    _gateway: &Arc<Gateway>,
    _plan: &Plan,
    _name: &str,
    _listener: &ListenerPlan,
    _worker: WorkerIndex,
) -> Rc<dyn Service> {
    Rc::new(super::Closed)
}
