//! What a gateway knows of its `sql-read-replica` stores: for `/status`, `/readyz` and steering.
//!
//! Not the way of a statement. Invariant: nothing shown from here holds a secret; of a pool only
//! its server and its counts are told.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use breccia_config::{ListenerPlan, Plan};
use breccia_net::metrics;
use breccia_sql::consistency::Consistency;
use serde_json::{Value, json};

use super::Gateway;
use crate::clusters::{AnyCluster, Lag, Now, PoolNow, ServerNow, SqlCluster};

/// Whether a listener of SQL can serve now.
pub(super) enum Serves {
    /// All of it.
    Well,
    /// Not all of it: what cannot be had, one line each.
    Partly(Vec<String>),
    /// Nothing, and why.
    Nothing(String),
}

impl Gateway {
    /// Every cluster that is in service, by its store's name.
    pub(crate) fn clusters(&self) -> BTreeMap<String, AnyCluster> {
        self.lock_clusters().clone()
    }

    /// What an SQL listener can serve; `None`: it is of another kind.
    pub(super) fn sql_readiness(&self, listener: &ListenerPlan) -> Option<Serves> {
        listener.sql.as_ref()?;
        let store = &listener.store;
        let Some(cluster) = self.cluster(store) else {
            return Some(Serves::Nothing(format!("{store} is not in service yet")));
        };
        Some(serves(&*cluster))
    }

    /// `clusters` of `/status`.
    pub(super) fn cluster_values(&self) -> Vec<Value> {
        let clusters = self.clusters();
        clusters.values().map(|it| value(&**it)).collect()
    }

    /// Sessions of all SQL listeners that were pinned since the start, by reason.
    pub(super) fn pinned_value(&self) -> Value {
        json!(self.metrics.totals(&metrics::SQL_PINNED, "reason"))
    }
}

/// The connections that the pools of SQL listeners may hold for one role and one database.
pub(super) fn pooled_connections(plan: &Plan) -> usize {
    let each = plan.listeners.values().filter_map(|listener| {
        let sql = listener.sql.as_ref()?;
        Some(sql.pool_size.saturating_mul(plan.served(listener).len()))
    });
    each.fold(0, usize::saturating_add)
}

fn serves(cluster: &dyn SqlCluster) -> Serves {
    let now = cluster.now();
    let reads = now.servers.iter().any(|it| it.is_replica && it.is_able());
    let mut lines = Vec::new();
    let paused = paused(cluster, &now);
    if !paused.is_empty() {
        lines.push(format!(
            "paused by an administrator, and statements wait: POST /stores/{}/resume",
            paused.join("/resume, /stores/")
        ));
    }
    if cluster.gates().is_paused() {
        // Its clients wait here, and would be refused elsewhere: it stays ready.
        return Serves::Partly(lines);
    }
    if let Err(why) = primary(&now) {
        if !reads {
            let others = set_aside(cluster, &now);
            let others = others.iter().map(|(name, why)| format!("; {name}: {why}"));
            let others: String = others.collect();
            let why = format!("there is neither a primary ({why}) nor a replica{others}");
            return Serves::Nothing(why);
        }
        if cluster.consistency() == Consistency::Store {
            return Serves::Nothing(format!(
                "there is no primary ({why}), and with consistency = \"store\" no read goes \
                 without its position"
            ));
        }
        lines.push(format!("no primary: only reads ({why})"));
    }
    if let Some((name, why)) = unasked(cluster, &now) {
        lines.push(format!(
            "{name} stays the primary and cannot be asked ({why}): reads that follow writes stay there"
        ));
    }
    if now.shut {
        lines.push(
            "read_only is ON at the primary: it refuses most users' writes (1290)".to_owned(),
        );
    }
    lines.extend(
        set_aside(cluster, &now)
            .into_iter()
            .map(|(name, why)| format!("{name} is not used ({why})")),
    );
    if lines.is_empty() {
        Serves::Well
    } else {
        Serves::Partly(lines)
    }
}

/// The primary, if it can be used now; else why not.
fn primary(now: &Now) -> Result<&ServerNow, String> {
    let number = now.primary.clone()?;
    let server = now.servers.get(number).ok_or("it is unknown")?;
    match &server.down {
        None => Ok(server),
        Some(reason) => Err(format!("{} is down: {reason}", server.name)),
    }
}

/// The primary, if it is used although it answers none of Breccia's own questions, and why it does not.
fn unasked<'a>(cluster: &dyn SqlCluster, now: &'a Now) -> Option<(&'a str, &'a str)> {
    let server = primary(now).ok()?;
    let why = server.unused.as_deref()?;
    let held = server.paused || cluster.gates().is_paused();
    (!held).then_some((server.name.as_str(), why))
}

/// The servers that are not used, but for the primary, and why.
fn set_aside<'a>(cluster: &dyn SqlCluster, now: &'a Now) -> Vec<(&'a str, &'a str)> {
    let others = now.servers.iter().enumerate();
    let others = others.filter(|(number, server)| {
        // A pause of all is told once, for the composite.
        let serves = cluster.gates().is_paused() && server.is_able() && server.is_replica;
        now.primary != Ok(*number) && !serves
    });
    let aside = others.filter_map(|(_, it)| Some((it.name.as_str(), it.unused.as_deref()?)));
    aside.collect()
}

/// The stores that are paused: the composite, servers of it.
fn paused(cluster: &dyn SqlCluster, now: &Now) -> Vec<String> {
    let whole = cluster
        .gates()
        .is_paused()
        .then(|| cluster.name().to_owned());
    let servers = now.servers.iter().filter(|server| server.paused);
    let servers = servers.map(|server| server.name.clone());
    whole.into_iter().chain(servers).collect()
}

fn value(cluster: &dyn SqlCluster) -> Value {
    let now = cluster.now();
    let primary = primary(&now);
    let aside: Vec<Value> = set_aside(cluster, &now)
        .into_iter()
        .map(|(name, why)| json!({ "name": name, "why": why }))
        .collect();
    let replicas = now
        .servers
        .iter()
        .filter(|it| it.is_replica && it.is_able());
    let replicas = replicas.filter_map(|server| Some(replica_value(server, server.lag?)));
    let drained = now.servers.iter().filter(|server| server.drained);
    let drained: Vec<&str> = drained.map(|server| server.name.as_str()).collect();
    let mut out = json!({
        "name": cluster.name(),
        "consistency": match cluster.consistency() {
            Consistency::Session => "session",
            Consistency::Store => "store",
            Consistency::Eventual => "eventual",
        },
        "primary": primary.as_ref().ok().map(|server| server.name.as_str()),
        "epoch": now.epoch,
        "replicas": replicas.collect::<Vec<_>>(),
        "set_aside": aside,
        "drained": drained,
        "paused": paused(cluster, &now),
        "waiting": cluster.gates().waiting(),
        "pools": cluster.pools().into_iter().map(pool_value).collect::<Vec<_>>(),
    });
    if let Some(map) = out.as_object_mut() {
        let about = now.about.iter();
        map.extend(about.map(|(key, value)| ((*key).to_owned(), value.clone())));
        if let Err(why) = primary {
            map.insert("no_primary".to_owned(), why.into());
        }
        if now.shut {
            map.insert("primary_read_only".to_owned(), true.into());
        }
        if let Some((_, why)) = unasked(cluster, &now) {
            map.insert("primary_cannot_be_asked".to_owned(), why.into());
        }
    }
    out
}

fn replica_value(server: &ServerNow, lag: Lag) -> Value {
    let mut out = json!({
        "name": server.name, "lag_seconds": lag.seconds, "running": server.running,
    });
    if let (Some(bytes), Some(map)) = (lag.bytes, out.as_object_mut()) {
        map.insert("lag_bytes".to_owned(), bytes.into());
    }
    out
}

/// One for each login.
fn pool_value(pool: PoolNow) -> Value {
    let (idle, open, waiting) = pool.counts;
    let mut out = json!({
        "listener": pool.listener, "server": pool.server, "role": pool.role,
        "read_only": pool.read_only, "idle": idle, "open": open, "waiting": waiting,
    });
    if let Some(map) = out.as_object_mut() {
        let of = pool.of.into_iter();
        map.extend(of.map(|(name, told)| (name.to_owned(), told.into())));
    }
    out
}

/// The lines of `/readyz` about one listener that does not serve everything.
pub(super) fn partly(listener: &str, lines: &[String]) -> String {
    let mut out = String::new();
    for line in lines {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "listener {listener}: {line}");
    }
    out
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_pool_counts_once_for_each_server() {
        let server = |name: &str, port: u16| {
            format!(
                "[store.{name}]\ntype = \"postgresql\"\nhost = \"127.0.0.1\"\nport = {port}\n\
                 user = \"u\"\npassword = \"p\"\n"
            )
        };
        let text = format!(
            "{}{}[store.db]\ntype = \"sql-read-replica\"\nprimary = \"a\"\nreplicas = [\"b\"]\n\
             [listener.x]\nprotocol = \"postgresql\"\nbind = \"127.0.0.1:3\"\nstore = \"db\"\n\
             pool-size = 7\n[[listener.x.user]]\nname = \"u\"\npassword = \"p\"\n",
            server("a", 1),
            server("b", 2)
        );
        let plan = breccia_config::parse(&text, "test", Path::new("/tmp"), &|_| None);
        assert_eq!(pooled_connections(&plan.expect("a plan").0), 14);
    }
}
