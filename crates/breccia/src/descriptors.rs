//! The process's limit of open files.
//!
//! Not the limits of the config. Invariant: the soft limit is only ever raised, and never above the
//! hard one, which is the administrator's.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::gateway::Gateway;

/// Files that are open beside the connections: layouts, logs, event queues, the admin listener.
const OTHER_FILES: u64 = 128;

/// Raises the soft limit as far as it goes, and warns if the config's connections still do not fit.
pub(crate) fn prepare(gateway: &Gateway) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if limit.current != limit.maximum && setrlimit(Resource::Nofile, raised).is_err() {
        tracing::warn!("the limit of open files could not be raised to its hard limit");
    }
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let plan = gateway.plan();
    let clients = plan.listeners.values().map(|listener| listener.max_clients);
    let connections = clients.fold(gateway.upstream_connections(), usize::saturating_add);
    let wanted = u64::try_from(connections)
        .unwrap_or(u64::MAX)
        .saturating_add(OTHER_FILES);
    // The quick start's limits are nobody's wish.
    if allowed < wanted && gateway.config.is_some() {
        tracing::warn!(
            allowed,
            wanted,
            "fewer open files are allowed than max-clients and upstream connections may need; \
             raise the hard limit (ulimit -Hn, LimitNOFILE) or lower max-clients"
        );
    }
}
