//! Reading the config anew while the gateway runs.
//!
//! Not a restart: what cannot change under way is named. Invariant: a file with any fault changes
//! nothing, and no reload drops a connection.

use std::collections::{BTreeMap, BTreeSet};

use breccia_config::{AdminPlan, ListenerPlan, Plan, StorePlan};
use breccia_net::metrics;
use breccia_net::tls::TlsServer;
use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::registry::RenewedSql;
use crate::trouble::Trouble;
use crate::{loading, logging, registry};

/// What a reload came to.
#[derive(Debug, Default, PartialEq, Eq)]
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
pub(crate) fn reload(gateway: &Gateway) -> Result<Reloaded, Vec<String>> {
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
    match &outcome {
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
    outcome
}

fn try_reload(gateway: &Gateway) -> Result<Reloaded, Vec<String>> {
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
        return Err(faults);
    }
    let before = gateway.plan();
    let (in_force, mut done) = merge(&before, &wanted);
    done.warnings = warnings.iter().map(ToString::to_string).collect();
    let sql = renew_sql(gateway, &in_force, &wanted, &mut tls).map_err(|fault| vec![fault])?;
    apply(gateway, &in_force, &wanted, tls);
    sql.into_iter().for_each(RenewedSql::apply);
    gateway.set_plan(in_force.into());
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
                shared.get().tls.clone()
            };
            renewed.extend(RenewedSql::of(shared, listener, tls)?);
        }
    }
    Ok(renewed)
}

/// Puts the parts of a plan that can change under way into force.
fn apply(gateway: &Gateway, plan: &Plan, wanted: &Plan, mut tls: BTreeMap<String, TlsServer>) {
    logging::set_level(plan.log.level);
    for handle in gateway.listeners() {
        if let Some(listener) = plan.listeners.get(handle.name()) {
            handle.set_max_clients(listener.max_clients);
            // In SQL the protocol's own side shakes hands.
            let takes = takes_tls(listener, wanted.listeners.get(handle.name()));
            if takes && listener.sql.is_none() {
                handle.set_tls(tls.remove(handle.name()));
            }
            if let Some(settings) = gateway.settings.get(handle.name()) {
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

/// The plan that is in force from now on: what was, with what can change under way taken from
/// `wanted`; and what became of each key that differs.
fn merge(before: &Plan, wanted: &Plan) -> (Plan, Reloaded) {
    let mut plan = before.clone();
    let mut done = Reloaded::default();
    let mut apply = |key: &str, differs: bool| {
        if differs {
            done.applied.push(key.to_owned());
        }
    };
    apply("log.level", plan.log.level != wanted.log.level);
    apply("drain-timeout", plan.drain_timeout != wanted.drain_timeout);
    plan.log.level = wanted.log.level;
    plan.drain_timeout = wanted.drain_timeout;
    if let (Some(old), Some(new)) = (&mut plan.admin, &wanted.admin) {
        apply("admin.token", old.token != new.token);
        old.token.clone_from(&new.token);
    }
    for (name, old) in &mut plan.listeners {
        if let Some(new) = wanted.listeners.get(name) {
            for key in apply_listener(old, new) {
                apply(&format!("listener.{name}.{key}"), true);
            }
        }
    }
    done.needs_restart = differing(&plan, wanted);
    (plan, done)
}

/// Takes over the settings of a listener that new connections see; answers their keys.
fn apply_listener(old: &mut ListenerPlan, new: &ListenerPlan) -> Vec<&'static str> {
    let mut keys = Vec::new();
    if old.protocol != new.protocol {
        // The users and limits of another protocol are not meant for this one.
        return keys;
    }
    macro_rules! take {
        ($old:ident $new:ident: $($field:ident $key:literal),+ $(,)?) => {$(
            if $old.$field != $new.$field {
                $old.$field.clone_from(&$new.$field);
                keys.push($key);
            }
        )+};
    }
    take!(old new:
        deadline "deadline",
        max_clients "max-clients",
        idle_timeout "idle-timeout",
        max_request_size "max-request-size",
        max_arguments "max-arguments",
        max_in_flight "max-in-flight",
        reply_buffer "reply-buffer",
        write_timeout "write-timeout",
        min_body_rate "min-body-rate",
        users "user",
        tls "tls",
    );
    if let (Some(old), Some(new)) = (&mut old.s3, &new.s3) {
        take!(old new: domain "domain", region "region");
    }
    if let (Some(old), Some(new)) = (&mut old.sql, &new.sql) {
        take!(old new:
            pool_mode "pool-mode",
            pool_size "pool-size",
            queue_timeout "queue-timeout",
            idle_in_transaction_timeout "idle-in-transaction-timeout",
            transaction_timeout "transaction-timeout",
            slow_statement "slow-statement",
            max_lifetime "max-lifetime",
            upstream_idle_timeout "upstream-idle-timeout",
            auth_query "auth-query",
            allow_md5 "allow-md5",
        );
    }
    keys
}

/// The keys, as far as they can be told, in which two plans still differ.
fn differing(before: &Plan, wanted: &Plan) -> Vec<String> {
    let mut keys = Vec::new();
    let mut note = |key: String, differs: bool| {
        if differs {
            keys.push(key);
        }
    };
    note("workers".to_owned(), before.workers != wanted.workers);
    note(
        "log.format".to_owned(),
        before.log.format != wanted.log.format,
    );
    note("state.dir".to_owned(), before.state_dir != wanted.state_dir);
    let place =
        |admin: &Option<AdminPlan>| admin.as_ref().map(|admin| (admin.bind, admin.insecure));
    note(
        "admin.bind".to_owned(),
        place(&before.admin) != place(&wanted.admin),
    );
    let names: BTreeSet<&String> = before
        .listeners
        .keys()
        .chain(wanted.listeners.keys())
        .collect();
    for name in names {
        let (old, new) = (before.listeners.get(name), wanted.listeners.get(name));
        match (old, new) {
            (Some(old), Some(new)) => {
                let key = |key: &str| format!("listener.{name}.{key}");
                note(key("protocol"), old.protocol != new.protocol);
                note(key("bind"), old.bind != new.bind);
                note(key("store"), old.store != new.store);
                if let (Some(old), Some(new)) = (&old.s3, &new.s3) {
                    note(key("buckets"), old.buckets != new.buckets);
                    note(key("domain"), old.domain != new.domain);
                    note(key("region"), old.region != new.region);
                    note(key("buffer-memory"), old.buffer_memory != new.buffer_memory);
                }
            }
            _ => note(format!("listener.{name}"), true),
        }
    }
    let names: BTreeSet<&String> = before.stores.keys().chain(wanted.stores.keys()).collect();
    for name in names {
        let (old, new) = (before.stores.get(name), wanted.stores.get(name));
        let differs = old.map(comparable) != new.map(comparable);
        note(format!("store.{name}"), differs);
    }
    keys
}

/// A store's plan without what a layout has settled already: the order of `stores`.
fn comparable(plan: &StorePlan) -> StorePlan {
    let mut plan = plan.clone();
    match &mut plan {
        StorePlan::ShardedInMemory(sharded) => sharded.stores.sort_unstable(),
        StorePlan::ShardedBlob(sharded) => sharded.stores.sort_unstable(),
        _ => {}
    }
    plan
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn plan(text: &str) -> Plan {
        breccia_config::parse(text, "test", Path::new("/tmp"), &|_| None)
            .expect("a plan")
            .0
    }

    fn check(old: &str, new: &str, applied: &[&str], needs_restart: &[&str]) {
        let base = "[store.a]\ntype = \"memory\"\n[store.b]\ntype = \"memory\"\n";
        let (old, new) = (
            plan(&format!("{old}\n{base}")),
            plan(&format!("{new}\n{base}")),
        );
        let (in_force, done) = merge(&old, &new);
        assert_eq!(done.applied, applied);
        assert_eq!(done.needs_restart, needs_restart);
        assert_eq!(differing(&in_force, &new), needs_restart);
    }

    #[test]
    fn of_an_sql_listener_all_but_its_place_is_applied() {
        let config = |keys: &str, password: &str| {
            format!(
                "[store.pg]\ntype = \"postgresql\"\nhost = \"127.0.0.1\"\nuser = \"u\"\n\
                 [store.db]\ntype = \"sql-read-replica\"\nprimary = \"pg\"\nreplicas = []\n\
                 [listener.x]\nprotocol = \"postgresql\"\nbind = \"127.0.0.1:7001\"\n\
                 store = \"db\"\n{keys}\n[[listener.x.user]]\nname = \"u\"\n\
                 password = \"{password}\""
            )
        };
        let old = config("", "p");
        check(&old, &config("", "q"), &["listener.x.user"], &[]);
        let keys = "max-clients = 7\nidle-timeout = \"9m\"\nmax-request-size = \"1MiB\"\n\
                    write-timeout = \"3s\"\npool-mode = \"session\"\npool-size = 3\n\
                    queue-timeout = \"1s\"\nidle-in-transaction-timeout = \"2s\"\n\
                    transaction-timeout = \"1m\"\nmax-lifetime = \"2h\"\n\
                    upstream-idle-timeout = \"1m\"\nauth-query = \"SELECT 1\"\nallow-md5 = true";
        let applied = keys.lines().filter_map(|line| line.split(" = ").next());
        let applied: Vec<String> = applied.map(|key| format!("listener.x.{key}")).collect();
        let applied: Vec<&str> = applied.iter().map(String::as_str).collect();
        check(&old, &config(keys, "p"), &applied, &[]);
        let moved = old.replace("7001", "7002");
        check(&old, &moved, &[], &["listener.x.bind"]);
        let eventual = old.replace("replicas = []", "replicas = []\nconsistency = \"eventual\"");
        check(&old, &eventual, &[], &["store.db"]);
    }

    #[test]
    fn a_listener_keeps_its_tls_unless_the_file_still_means_it() {
        let redis = "protocol = \"redis\"\nbind = \"127.0.0.1:7001\"\nstore = \"a\"";
        let plan = plan(&format!(
            "[store.a]\ntype = \"memory\"\n[listener.x]\n{redis}"
        ));
        let mut other = plan.listeners["x"].clone();
        assert!(takes_tls(&plan.listeners["x"], Some(&other)));
        assert!(!takes_tls(&plan.listeners["x"], None));
        other.protocol = breccia_config::Protocol::Memcached;
        assert!(!takes_tls(&plan.listeners["x"], Some(&other)));
    }

    #[test]
    fn each_changed_key_is_applied_or_named() {
        let listener = |keys: &str| {
            format!(
                "[listener.x]\nprotocol = \"redis\"\nbind = \"127.0.0.1:7001\"\nstore = \"a\"\n{keys}"
            )
        };
        check("", "", &[], &[]);
        check("workers = 1", "workers = 2", &[], &["workers"]);
        check("", "log = { level = \"debug\" }", &["log.level"], &[]);
        check(
            "drain-timeout = \"1s\"",
            "drain-timeout = \"2s\"",
            &["drain-timeout"],
            &[],
        );
        let deadline = "deadline = \"2s\"\nmax-clients = 7";
        let applied = ["listener.x.deadline", "listener.x.max-clients"];
        check(&listener(""), &listener(deadline), &applied, &[]);
        let user = "[[listener.x.user]]\nname = \"u\"\npassword = \"p\"";
        check(&listener(""), &listener(user), &["listener.x.user"], &[]);
        check(&listener(""), "", &[], &["listener.x"]);
        let moved = listener("").replace("7001", "7002");
        check(&listener(""), &moved, &[], &["listener.x.bind"]);
        let composite =
            |stores: &str| format!("[store.c]\ntype = \"sharded-in-memory\"\nstores = [{stores}]");
        check(
            &composite("\"a\", \"b\""),
            &composite("\"b\", \"a\""),
            &[],
            &[],
        );
        check(
            &composite("\"a\", \"b\""),
            &composite("\"a\""),
            &[],
            &["store.c"],
        );
    }
}
