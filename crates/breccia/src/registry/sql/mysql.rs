//! Wiring of listeners that speak MySQL, and of the clusters behind them.
//!
//! Not the protocol. Invariant: a listener lets nobody in before its plan says who may.

use std::collections::HashMap;
use std::sync::Arc;

use breccia_config::{
    ListenerPlan, Plan, PoolMode, Secret, SqlListenerPlan, SqlPlan, SqlReadReplicaPlan, StorePlan,
    TransactionRouting,
};
use breccia_net::tls::TlsServer;
use breccia_sql::mysql::cluster::{Cluster, ClusterOptions, ServerOptions};
use breccia_sql::mysql::frontend::{
    Clients, Counters, MysqlLimits, MysqlListener, MysqlUser, SharedListener,
};
use breccia_sql::mysql::monitor;
use breccia_sql::mysql::upstream::{Credential, Endpoint, Login, OwnLogin, UpstreamTls};
use breccia_sql::pool::PoolLimits;

use super::{consistency, health, pool_options, probes, tls_client};
use crate::gateway::Gateway;
use crate::trouble::Trouble;

/// The number of the collation that Breccia's own questions are asked in.
const UTF8MB4_GENERAL_CI: u8 = 45;

/// Makes the cluster of a composite, and watches it from now on.
pub(super) fn cluster(
    gateway: &Gateway,
    plan: &Plan,
    name: &str,
    composite: &SqlReadReplicaPlan,
) -> Result<Arc<Cluster>, Trouble> {
    let mut plans = Vec::new();
    let mut servers = Vec::new();
    for (name, server) in plan.leaves(name) {
        if let StorePlan::Mysql(server) = server {
            plans.push(server);
            servers.push(self::server(gateway, plan, name, server)?);
        }
    }
    let options = ClusterOptions {
        name: name.to_owned(),
        consistency: consistency(composite),
        max_lag: composite.max_lag,
        replica_wait: composite.replica_wait,
        lazy: composite.transactions == TransactionRouting::Lazy,
        read_functions: composite.read_functions.clone(),
    };
    let made = Arc::new(Cluster::new(options, servers, &gateway.metrics));
    tokio::spawn(monitor::watch(
        Arc::clone(&made),
        probes(plans.into_iter()),
        gateway.metrics.clone(),
    ));
    Ok(made)
}

fn server(
    gateway: &Gateway,
    plan: &Plan,
    name: &str,
    server: &SqlPlan,
) -> Result<ServerOptions, Trouble> {
    let (endpoint, own_login) = endpoint(name, server)?;
    Ok(ServerOptions {
        endpoint,
        client_login: client_login(server),
        own_login,
        weight: server.weight,
        health: health(gateway, plan, name, server),
    })
}

/// Where a server is, and the user Breccia's own questions are asked as there, if one is configured.
pub(crate) fn endpoint(
    name: &str,
    server: &SqlPlan,
) -> Result<(Endpoint, Option<(String, Credential)>), Trouble> {
    let monitor = server.monitor_user.clone();
    let monitor = monitor.map(|user| (user, credential(server.monitor_password.as_ref())));
    let own = [
        (client_login(server), ["user", "password"]),
        (monitor.clone(), ["monitor-user", "monitor-password"]),
    ];
    let own = own.into_iter().filter_map(|(login, keys)| {
        let (user, credential) = login?;
        Some(OwnLogin {
            user,
            credential,
            keys,
        })
    });
    let tls = match tls_client(name, server)? {
        None => UpstreamTls::Off,
        Some((client, true)) => UpstreamTls::Prefer(client),
        Some((client, false)) => UpstreamTls::Require(client),
    };
    let endpoint = Endpoint {
        name: name.to_owned(),
        address: server.address.clone(),
        tls,
        health: None,
        timeout: server.timeout,
        own: own.collect(),
    };
    Ok((endpoint, monitor.or_else(|| client_login(server))))
}

/// Who clients are on a server; `None`: each is itself.
fn client_login(server: &SqlPlan) -> Option<(String, Credential)> {
    let password = server.password.as_ref();
    (!server.user.is_empty()).then(|| (server.user.clone(), credential(password)))
}

/// What a user with this password proves itself with.
pub(crate) fn credential(password: Option<&Secret>) -> Credential {
    password.map_or(Credential::None, |password| {
        Credential::Password(password.expose().to_owned())
    })
}

/// The login for one question, outside of any schema.
pub(crate) fn login(user: &str, credential: Credential) -> Login {
    Login {
        user: user.to_owned(),
        credential,
        capabilities: 0,
        collation: UTF8MB4_GENERAL_CI,
        with_schema: false,
        read_only: false,
    }
}

/// A listener as its plan has it.
pub(super) fn shared(
    gateway: &Gateway,
    name: &str,
    (plan, sql): (&ListenerPlan, &SqlListenerPlan),
    cluster: Arc<Cluster>,
    tls: Option<TlsServer>,
) -> Result<Arc<SharedListener>, String> {
    let pools = PoolLimits::new(name, &pool_options(sql));
    Ok(SharedListener::new(MysqlListener {
        name: name.to_owned(),
        cluster,
        users: users(plan)?,
        tls,
        limits: limits(plan, sql, pools),
        clients: Arc::new(Clients::default()),
        guesses: Arc::default(),
        drain: gateway.drain.clone(),
        counters: Counters::new(&gateway.metrics, name),
    }))
}

/// What a reload makes of a listener, and how that is put into force. What is not the plan's stays.
pub(super) fn renewal(
    shared: &Arc<SharedListener>,
    plan: &ListenerPlan,
    sql: &SqlListenerPlan,
    tls: Option<TlsServer>,
) -> Result<Box<dyn FnOnce()>, String> {
    let before = shared.get();
    let users = users(plan).map_err(|error| format!("listener.{}: {error}", before.name))?;
    let listener = MysqlListener {
        name: before.name.clone(),
        cluster: Arc::clone(&before.cluster),
        users,
        tls,
        limits: limits(plan, sql, Arc::clone(&before.limits.pool)),
        clients: Arc::clone(&before.clients),
        guesses: Arc::clone(&before.guesses),
        drain: before.drain.clone(),
        counters: before.counters.clone(),
    };
    let (shared, pools) = (Arc::clone(shared), pool_options(sql));
    Ok(Box::new(move || {
        listener.limits.pool.set(&pools);
        listener.cluster.tidy();
        shared.set(listener);
    }))
}

fn limits(plan: &ListenerPlan, sql: &SqlListenerPlan, pool: Arc<PoolLimits>) -> MysqlLimits {
    MysqlLimits {
        idle_timeout: plan.idle_timeout,
        idle_in_transaction_timeout: sql.idle_in_transaction_timeout,
        transaction_timeout: sql.transaction_timeout,
        write_timeout: plan.write_timeout,
        slow_statement: sql.slow_statement,
        session_mode: sql.pool_mode == PoolMode::Session,
        local_infile: sql.local_infile,
        max_request_size: plan.max_request_size,
        pool,
    }
}

/// Who may log in; none are listed: everybody.
fn users(plan: &ListenerPlan) -> Result<Option<HashMap<String, MysqlUser>>, String> {
    let mut users = HashMap::new();
    for user in &plan.users {
        let password = user.password.as_ref();
        let password = password.ok_or_else(|| format!("user {:?} has no password", user.name))?;
        let sql = user.sql.as_ref();
        let upstream = sql.and_then(|sql| {
            let role = sql.upstream_user.clone()?;
            Some((role, credential(sql.upstream_password.as_ref())))
        });
        let made = MysqlUser {
            password: password.expose().to_owned(),
            upstream,
        };
        users.insert(user.name.clone(), made);
    }
    Ok((!users.is_empty()).then_some(users))
}
