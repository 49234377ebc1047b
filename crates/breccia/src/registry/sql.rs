//! Wiring of listeners that speak SQL, and of the clusters behind them.
//!
//! Not the protocols, and not what only one of them has (`postgresql.rs`, `mysql.rs`). Invariant: a cluster is made
//! once, however many listeners serve it, and each of its servers has one prober.

mod mysql;
mod postgresql;
mod secret;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use breccia_config::{
    Consistency as PlannedConsistency, ListenerPlan, Plan, Protocol, SqlListenerPlan, SqlPlan,
    SqlReadReplicaPlan, SqlTlsMode, StorePlan,
};
use breccia_core::address::Address;
use breccia_net::health::{EndpointHealth, ProbeConfig};
use breccia_net::metrics;
use breccia_net::tls::{TlsClient, TlsClientOptions, TlsServer};
use breccia_net::worker::Service;
use breccia_sql::consistency::Consistency;
use breccia_sql::mysql::frontend as mysql_front;
use breccia_sql::pool::PoolOptions;
use breccia_sql::postgres::frontend as postgres_front;

use crate::clusters::AnyCluster;
use crate::gateway::Gateway;
use crate::trouble::Trouble;
pub(crate) use mysql::{
    credential as mysql_credential, endpoint as mysql_endpoint, login as mysql_login,
};
pub(crate) use postgresql::{credential, endpoint};

/// Roles and lag are asked at least this often, and an answer may take this long.
const ROLE_INTERVAL: Duration = Duration::from_millis(500);
const ROLE_TIMEOUT: Duration = Duration::from_millis(500);

/// A listener, shared by all workers.
#[derive(Debug, Clone)]
pub(crate) enum SharedSql {
    /// One that speaks PostgreSQL.
    Postgresql(Arc<postgres_front::SharedListener>),
    /// One that speaks MySQL.
    Mysql(Arc<mysql_front::SharedListener>),
}

impl SharedSql {
    /// TLS as it is now.
    pub(crate) fn tls(&self) -> Option<TlsServer> {
        match self {
            Self::Postgresql(shared) => shared.get().tls.clone(),
            Self::Mysql(shared) => shared.get().tls.clone(),
        }
    }

    /// The service on one worker. Runs on the worker.
    fn service(&self) -> Rc<dyn Service> {
        match self {
            Self::Postgresql(shared) => postgres_front::SqlService::new(Arc::clone(shared)),
            Self::Mysql(shared) => mysql_front::MysqlService::new(Arc::clone(shared)),
        }
    }
}

/// Each SQL listener by its name.
#[derive(Default)]
pub(super) struct SqlWiring(BTreeMap<String, SharedSql>);

impl SqlWiring {
    /// What the plan's SQL listeners lead to. The clusters are watched from now on, in the runtime
    /// this is called in.
    pub(super) fn new(gateway: &Gateway, plan: &Plan) -> Result<Self, Trouble> {
        let mut wiring = Self::default();
        let mut secret = Vec::new();
        for (name, listener) in &plan.listeners {
            let Some(sql) = &listener.sql else {
                continue;
            };
            let Some(cluster) = cluster(gateway, plan, &listener.store)? else {
                continue;
            };
            let place = |error: &dyn std::fmt::Display| {
                Trouble::refused(format!("listener.{name}: {error}"))
            };
            let tls = super::tls(listener)
                .map_err(|error| Trouble::refused(format!("listener.{name}.{error}")))?;
            let shared = match cluster {
                AnyCluster::Postgresql(cluster) => {
                    if secret.is_empty() {
                        secret = secret::of(&plan.state_dir).map_err(Trouble::failed)?;
                    }
                    let secret = secret.clone();
                    let bare = postgresql::bare(gateway, name, (listener, sql), cluster, secret);
                    postgresql::shared(&bare, listener, sql, tls).map(SharedSql::Postgresql)
                }
                AnyCluster::Mysql(cluster) => {
                    let plans = (listener, sql);
                    mysql::shared(gateway, name, plans, cluster, tls).map(SharedSql::Mysql)
                }
            };
            let shared = shared.map_err(|error| place(&error))?;
            gateway.keep_sql_listener(name, shared.clone());
            wiring.0.insert(name.clone(), shared);
        }
        Ok(wiring)
    }
}

/// The cluster of a store; made when it is first asked for.
fn cluster(gateway: &Gateway, plan: &Plan, name: &str) -> Result<Option<AnyCluster>, Trouble> {
    let Some(StorePlan::SqlReadReplica(composite)) = plan.stores.get(name) else {
        return Ok(None);
    };
    if let Some(made) = gateway.cluster(name) {
        return Ok(Some(made));
    }
    let made = match plan.spoken(name) {
        Some(Protocol::Postgresql) => {
            AnyCluster::Postgresql(postgresql::cluster(gateway, plan, name, composite)?)
        }
        Some(Protocol::Mysql) => AnyCluster::Mysql(mysql::cluster(gateway, plan, name, composite)?),
        _ => return Ok(None),
    };
    gateway.keep_cluster(name, made.clone());
    Ok(Some(made))
}

/// How often the servers of a composite are asked for their roles.
fn probes<'p>(servers: impl Iterator<Item = &'p SqlPlan>) -> ProbeConfig {
    let intervals = servers.map(|server| server.probe_interval);
    ProbeConfig {
        interval: intervals.fold(ROLE_INTERVAL, Duration::min),
        timeout: ROLE_TIMEOUT,
    }
}

fn consistency(plan: &SqlReadReplicaPlan) -> Consistency {
    match plan.consistency {
        PlannedConsistency::Store => Consistency::Store,
        PlannedConsistency::Eventual => Consistency::Eventual,
        _ => Consistency::Session,
    }
}

/// The health of a server.
fn health(gateway: &Gateway, plan: &Plan, name: &str, server: &SqlPlan) -> Arc<EndpointHealth> {
    // A server that also keeps blobs has a prober of that slice already.
    let inventory = gateway.inventory();
    let shared = inventory
        .endpoints
        .get(name)
        .filter(|_| plan.is_only_sql(name));
    if let Some(health) = shared {
        return Arc::clone(health);
    }
    let health = EndpointHealth::new(name.to_owned(), server.address.clone());
    health.show_in(gateway.metrics.gauge(&metrics::STORE_UP, &[name]));
    health
}

/// TLS towards a server, and whether it may go without if the server cannot; `None`: never.
fn tls_client(name: &str, server: &SqlPlan) -> Result<Option<(TlsClient, bool)>, Trouble> {
    let (Some(tls), Address::Tcp { host, .. }) = (&server.tls, &server.address) else {
        return Ok(None);
    };
    if tls.mode == SqlTlsMode::Disable {
        return Ok(None);
    }
    let options = TlsClientOptions {
        ca: tls.ca.clone(),
        cert: tls.cert.clone(),
        key: tls.key.clone(),
        server_name: tls.server_name.clone(),
        insecure: !tls.mode.verifies(),
    };
    let made = match tls.mode {
        SqlTlsMode::VerifyCa => TlsClient::of_any_name(&options, host),
        _ => TlsClient::new(&options, host),
    };
    let client = made.map_err(|error| Trouble::refused(format!("store.{name}.{error}")))?;
    Ok(Some((client, tls.mode == SqlTlsMode::Prefer)))
}

/// What a reload makes of an SQL listener; nothing of it is in force yet.
pub(crate) struct Renewed(Box<dyn FnOnce()>);

impl Renewed {
    /// The listener as `plan` has it; `None`: that is no SQL listener.
    pub(crate) fn of(
        shared: &SharedSql,
        plan: &ListenerPlan,
        tls: Option<TlsServer>,
    ) -> Result<Option<Self>, String> {
        let Some(sql) = &plan.sql else {
            return Ok(None);
        };
        let apply = match shared {
            SharedSql::Postgresql(shared) => postgresql::renewal(shared, plan, sql, tls)?,
            SharedSql::Mysql(shared) => mysql::renewal(shared, plan, sql, tls)?,
        };
        Ok(Some(Self(apply)))
    }

    /// Puts it in force: for clients to come, and the limits of pools for all.
    pub(crate) fn apply(self) {
        (self.0)();
    }
}

fn pool_options(sql: &SqlListenerPlan) -> PoolOptions {
    PoolOptions {
        size: sql.pool_size,
        queue_timeout: sql.queue_timeout,
        max_lifetime: sql.max_lifetime,
        idle_timeout: sql.upstream_idle_timeout,
    }
}

/// The service of one listener on one worker. Runs on the worker.
pub(super) fn service(wiring: &SqlWiring, name: &str) -> Rc<dyn Service> {
    match wiring.0.get(name) {
        Some(listener) => listener.service(),
        None => Rc::new(super::Closed),
    }
}
