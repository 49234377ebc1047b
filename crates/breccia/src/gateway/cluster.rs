//! What a gateway knows of its `sql-read-replica` stores: for `/status`, `/readyz` and steering.
//!
//! Not the way of a statement. Invariant: nothing shown from here holds a secret; of a pool only
//! its server and its counts are told.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use breccia_config::{ListenerPlan, Plan};
use breccia_net::metrics;
use breccia_sql::postgres::cluster::election::View;
use breccia_sql::postgres::cluster::{Cluster, Consistency, Server};
use serde_json::{Value, json};

use super::Gateway;

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
    pub(crate) fn clusters(&self) -> BTreeMap<String, Arc<Cluster>> {
        self.lock_clusters().clone()
    }

    /// What an SQL listener can serve; `None`: it is of another kind.
    pub(super) fn sql_readiness(&self, listener: &ListenerPlan) -> Option<Serves> {
        listener.sql.as_ref()?;
        let store = &listener.store;
        let Some(cluster) = self.cluster(store) else {
            return Some(Serves::Nothing(format!("{store} is not in service yet")));
        };
        Some(serves(&cluster))
    }

    /// `clusters` of `/status`.
    pub(super) fn cluster_values(&self) -> Vec<Value> {
        let clusters = self.clusters();
        clusters.values().map(|it| value(it)).collect()
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

fn serves(cluster: &Cluster) -> Serves {
    let view = cluster.view();
    let able = |number: &usize| cluster.server(*number).is_some_and(is_able);
    let reads = view.replicas.iter().any(able);
    let mut lines = Vec::new();
    let paused = paused(cluster);
    if !paused.is_empty() {
        lines.push(format!(
            "paused by an administrator, and statements wait: POST /stores/{}/resume",
            paused.join("/resume, /stores/")
        ));
    }
    if cluster.is_paused() {
        // Its clients wait here, and would be refused elsewhere: it stays ready.
        return Serves::Partly(lines);
    }
    if let Err(why) = primary(cluster, &view) {
        if !reads {
            let others = set_aside(cluster, &view);
            let others = others.iter().map(|(name, why)| format!("; {name}: {why}"));
            let others: String = others.collect();
            let why = format!("there is neither a primary ({why}) nor a replica{others}");
            return Serves::Nothing(why);
        }
        if cluster.options.consistency == Consistency::Store {
            return Serves::Nothing(format!(
                "there is no primary ({why}), and with consistency = \"store\" no read goes \
                 without its position"
            ));
        }
        lines.push(format!("no primary: only reads ({why})"));
    }
    lines.extend(
        set_aside(cluster, &view)
            .into_iter()
            .map(|(name, why)| format!("{name} is not used ({why})")),
    );
    if lines.is_empty() {
        Serves::Well
    } else {
        Serves::Partly(lines)
    }
}

fn is_able(server: &Server) -> bool {
    server.options.health.is_up() && !server.drained.load(Ordering::Relaxed) && !server.is_paused()
}

/// The primary, if it can be used now; else why not.
fn primary<'a>(cluster: &'a Cluster, view: &View) -> Result<&'a Server, String> {
    let number = view.primary.clone()?;
    let server = cluster.server(number).ok_or("it is unknown")?;
    match server.options.health.down() {
        None => Ok(server),
        Some(reason) => Err(format!("{} is down: {}", server.name(), reason.text)),
    }
}

/// The servers that are not used, but for the primary, and why.
fn set_aside(cluster: &Cluster, view: &View) -> Vec<(String, String)> {
    let others = cluster.servers.iter().enumerate();
    let others = others.filter(|(number, server)| {
        // A pause of all is told once, for the composite.
        let serves = cluster.is_paused() && is_able(server) && view.replicas.contains(number);
        view.primary != Ok(*number) && !serves
    });
    let aside = others.filter_map(|(number, server)| {
        let why = cluster.unused(view, number)?;
        Some((server.name().to_owned(), why))
    });
    aside.collect()
}

/// The stores that are paused: the composite, servers of it.
fn paused(cluster: &Cluster) -> Vec<String> {
    let whole = cluster.is_paused().then(|| cluster.options.name.clone());
    let servers = cluster.servers.iter().filter(|server| server.is_paused());
    let servers = servers.map(|server| server.name().to_owned());
    whole.into_iter().chain(servers).collect()
}

fn value(cluster: &Cluster) -> Value {
    let view = cluster.view();
    let primary = primary(cluster, &view);
    let aside = set_aside(cluster, &view);
    let aside: Vec<Value> = aside
        .into_iter()
        .map(|(name, why)| json!({ "name": name, "why": why }))
        .collect();
    let replicas = view.replicas.iter().filter_map(|number| {
        let server = cluster.server(*number).filter(|server| is_able(server))?;
        let (lag, bytes) = cluster.lag(*number)?;
        Some(json!({
            "name": server.name(),
            "lag_seconds": lag.as_secs(),
            "lag_bytes": bytes,
            "running": server.running(),
        }))
    });
    let drained = cluster.servers.iter();
    let drained = drained.filter(|server| server.drained.load(Ordering::Relaxed));
    let paused = paused(cluster);
    let mut out = json!({
        "name": cluster.options.name,
        "consistency": match cluster.options.consistency {
            Consistency::Session => "session",
            Consistency::Store => "store",
            Consistency::Eventual => "eventual",
        },
        "primary": primary.as_ref().ok().map(|server| server.name()),
        "timeline": view.timeline,
        "epoch": view.epoch,
        // A text: JSON's numbers are not this long everywhere.
        "system": view.system.to_string(),
        "replicas": replicas.collect::<Vec<_>>(),
        "set_aside": aside,
        "drained": drained.map(Server::name).collect::<Vec<_>>(),
        "paused": paused,
        "waiting": cluster.waiting(),
        "pools": pool_values(cluster),
    });
    if let (Err(why), Some(map)) = (primary, out.as_object_mut()) {
        map.insert("no_primary".to_owned(), why.into());
    }
    out
}

/// One for each login.
fn pool_values(cluster: &Cluster) -> Vec<Value> {
    let mut pools = Vec::new();
    for pool in cluster.pools() {
        let (idle, open) = pool.counts();
        let waiting = pool.waiting();
        let server = pool.endpoint().name.clone();
        let (role, database) = (pool.role().to_owned(), pool.database().to_owned());
        let listener = pool.listener().to_owned();
        pools.push((
            listener,
            server,
            role,
            database,
            pool.is_read_only(),
            idle,
            open,
            waiting,
        ));
    }
    pools.sort();
    let value = |(listener, server, role, database, read_only, idle, open, waiting)| {
        json!({
            "listener": listener, "server": server, "role": role, "database": database, "read_only": read_only,
            "idle": idle, "open": open, "waiting": waiting,
        })
    };
    pools.into_iter().map(value).collect()
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
