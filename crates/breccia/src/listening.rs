//! Listeners of the plan: bound, opened, and let go.
//!
//! Not what they serve. Invariant: a port is bound before anything is changed for it, so a port that
//! is taken refuses a start, or a reload, whole.

use std::sync::Arc;
use std::time::Duration;

use breccia_config::{ListenerPlan, Plan};
use breccia_net::NetError;
use breccia_net::drain::Drain;
use breccia_net::listener::Listener;
use breccia_net::tls::TlsServer;
use breccia_net::worker::{ListenerOptions, Openings};

use crate::gateway::Gateway;
use crate::registry;

/// A listener that has its port, and accepts nobody yet.
pub(crate) struct Bound {
    listener: Listener,
    options: ListenerOptions,
}

/// Binds one listener.
pub(crate) fn bind(
    name: &str,
    plan: &ListenerPlan,
    tls: Option<TlsServer>,
    drain: &Drain,
) -> Result<Bound, NetError> {
    Ok(Bound {
        listener: Listener::open(&registry::bind(plan))?,
        options: ListenerOptions {
            name: name.to_owned(),
            // In SQL it is first spoken of in the protocol: its own side shakes hands.
            tls: tls.filter(|_| !plan.protocol.is_sql()),
            max_clients: plan.max_clients,
            refusal: registry::refusal(plan.protocol),
            drain: drain.clone(),
        },
    })
}

/// Accepts from now on.
pub(crate) fn start(gateway: &Gateway, plan: &Plan, openings: &Openings, bound: Bound) {
    let Bound { listener, options } = bound;
    let (name, bind) = (options.name.clone(), listener.bind().clone());
    let index = gateway.next_listener();
    let Some(handle) = openings.listen(index, listener, options, &gateway.metrics) else {
        // The gateway is about to end.
        return;
    };
    gateway.keep_listener(handle);
    let listener = plan.listeners.get(&name);
    let protocol = listener.map(|listener| listener.protocol.name());
    let store = listener.map(|listener| listener.stores().join(", "));
    tracing::info!(listener = name, protocol, %bind, store, "listening");
}

/// Accepts no more on a listener, and drains its clients as a gateway that ends would.
pub(crate) fn retire(gateway: &Arc<Gateway>, name: &str, timeout: Duration) {
    let Some(handle) = gateway.take_listener(name) else {
        return;
    };
    let connections = handle.connections();
    tracing::info!(listener = name, bind = %handle.bind(), connections, "the listener goes");
    handle.drain().begin();
    tokio::spawn(async move {
        tokio::time::sleep(timeout).await;
        let cut = handle.connections();
        if cut > 0 {
            tracing::warn!(
                listener = handle.name(),
                connections = cut,
                "drain-timeout passed: connections were cut"
            );
        }
        handle.drain().close();
    });
}
