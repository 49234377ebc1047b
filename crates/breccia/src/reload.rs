//! Reading the config anew while the gateway runs.
//!
//! Not a restart: what cannot change under way is named. Invariant: a file with any fault changes
//! nothing, and no reload drops a connection.

mod last;
mod merge;
mod parts;
mod stores;

use std::collections::BTreeMap;
use std::sync::Arc;

use breccia_config::{ListenerPlan, Plan};
use breccia_net::metrics;
use breccia_net::tls::TlsServer;
use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::registry::RenewedSql;
use crate::trouble::Trouble;
use crate::{loading, logging, registry};
pub(crate) use last::LastReload;
use merge::merge;
use parts::Parts;
use stores::RenewedStores;

/// What a reload came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reloaded {
    /// Keys whose new value is in force.
    pub(crate) applied: Vec<String>,
    /// Keys whose new value waits for a restart.
    pub(crate) needs_restart: Vec<String>,
    pub(crate) warnings: Vec<String>,
}

impl Reloaded {
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "applied": self.applied,
            "needs_restart": self.needs_restart,
            "warnings": self.warnings,
        })
    }
}

/// Reads the file again and applies what can be applied; faults, one a line, if it is refused.
pub(crate) fn reload(gateway: &Arc<Gateway>) -> Result<Reloaded, Vec<String>> {
    let outcome = try_reload(gateway);
    let word = if outcome.is_ok() {
        "applied"
    } else {
        "refused"
    };
    gateway
        .metrics
        .shared_counter(&metrics::RELOADS, &[word])
        .increment();
    say(&outcome);
    gateway.set_last_reload(LastReload::now(outcome.clone()));
    outcome
}

/// One line for each event an operator can act on.
fn say(outcome: &Result<Reloaded, Vec<String>>) {
    match outcome {
        Ok(done) => {
            for warning in &done.warnings {
                tracing::warn!("{warning}");
            }
            tracing::info!(applied = done.applied.join(" "), "the config was reloaded");
            if !done.needs_restart.is_empty() {
                let keys = done.needs_restart.join(" ");
                tracing::warn!(keys, "these changes of the config need a restart");
            }
        }
        Err(faults) => {
            for fault in faults {
                tracing::error!("reload refused, nothing was changed: {fault}");
            }
        }
    }
}

fn try_reload(gateway: &Arc<Gateway>) -> Result<Reloaded, Vec<String>> {
    let Some(given) = gateway.given() else {
        return Err(vec![
            "the quick start has no config file to reload".to_owned(),
        ]);
    };
    let (wanted, warnings) = given.load().map_err(Trouble::into_lines)?;
    // What a restart would refuse is refused now.
    let refusals = loading::refusals(&wanted);
    let lines = refusals.iter().flat_map(|refusal| given.lines(refusal));
    let mut faults: Vec<String> = lines.collect();
    let mut tls = read_tls(&wanted, &mut faults);
    if !faults.is_empty() {
        return Err(given.placed(faults));
    }
    let before = gateway.plan();
    let (in_force, mut done) = merge(&before, &wanted);
    done.warnings = warnings.iter().map(ToString::to_string).collect();
    let sql = renew_sql(gateway, &in_force, &wanted, &mut tls).map_err(|fault| vec![fault])?;
    let stores = RenewedStores::of(gateway, &before, &in_force)?;
    let parts = Parts::of(gateway, &before, &in_force, |name| tls.remove(name))?;
    RenewedStores::record(gateway, &in_force)?;
    let in_force = Arc::new(in_force);
    apply(gateway, &in_force, &wanted, tls);
    stores.apply(gateway, &in_force);
    sql.into_iter().for_each(RenewedSql::apply);
    gateway.set_plan(Arc::clone(&in_force));
    if let Some(parts) = parts {
        parts.apply(gateway, &before, &in_force);
    }
    Ok(done)
}

/// Reads the certificates of every listener anew: the files may have been renewed in their place.
fn read_tls(plan: &Plan, faults: &mut Vec<String>) -> BTreeMap<String, TlsServer> {
    let mut read = BTreeMap::new();
    for (name, listener) in &plan.listeners {
        match registry::tls(listener) {
            Ok(Some(tls)) => drop(read.insert(name.clone(), tls)),
            Ok(None) => {}
            Err(error) => faults.push(format!("listener.{name}.{error}")),
        }
    }
    read
}

/// What SQL listeners will be; they take their TLS out of `tls`.
fn renew_sql(
    gateway: &Gateway,
    plan: &Plan,
    wanted: &Plan,
    tls: &mut BTreeMap<String, TlsServer>,
) -> Result<Vec<RenewedSql>, String> {
    let mut renewed = Vec::new();
    for (name, shared) in gateway.sql_listeners() {
        if let Some(listener) = plan.listeners.get(&name) {
            let takes = takes_tls(listener, wanted.listeners.get(&name));
            let tls = if takes {
                tls.remove(&name)
            } else {
                shared.tls()
            };
            renewed.extend(RenewedSql::of(&shared, listener, tls)?);
        }
    }
    Ok(renewed)
}

/// Puts the parts of a plan that can change under way into force.
fn apply(gateway: &Gateway, plan: &Plan, wanted: &Plan, mut tls: BTreeMap<String, TlsServer>) {
    logging::set_level(plan.log.level);
    let inventory = gateway.inventory();
    for handle in gateway.listeners() {
        if let Some(listener) = plan.listeners.get(handle.name()) {
            handle.set_max_clients(listener.max_clients);
            // In SQL the protocol's own side shakes hands.
            let takes = takes_tls(listener, wanted.listeners.get(handle.name()));
            if takes && listener.sql.is_none() {
                handle.set_tls(tls.remove(handle.name()));
            }
            if let Some(settings) = inventory.settings.get(handle.name()) {
                settings.set(registry::settings(listener));
            }
            if let Some(shared) = gateway.s3_settings.get(handle.name())
                && let Some(settings) = registry::s3_listener_settings(listener)
            {
                shared.set(settings);
            }
        }
    }
}

/// Whether a listener's TLS follows the file. One that is gone from the file, or is to speak another
/// protocol, stays as it was until a restart.
fn takes_tls(listener: &ListenerPlan, wanted: Option<&ListenerPlan>) -> bool {
    wanted.is_some_and(|wanted| wanted.protocol == listener.protocol)
}

#[cfg(test)]
mod tests;
