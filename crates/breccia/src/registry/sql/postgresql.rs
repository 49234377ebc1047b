//! Wiring of listeners that speak PostgreSQL, and of the clusters behind them.
//!
//! Not the protocol. Invariant: a listener lets nobody in before its plan says who may.

use std::collections::HashMap;
use std::sync::Arc;

use breccia_config::{
    ListenerPlan, Plan, PoolMode, Secret, SqlListenerPlan, SqlPlan, SqlReadReplicaPlan, StorePlan,
    TransactionRouting,
};
use breccia_net::tls::TlsServer;
use breccia_sql::pool::PoolLimits;
use breccia_sql::postgres::cluster::{Cluster, ClusterOptions, ServerOptions};
use breccia_sql::postgres::frontend::{
    AuthQuery, Cancels, Counters, SharedListener, SqlLimits, SqlListener, SqlUser,
};
use breccia_sql::postgres::monitor;
use breccia_sql::postgres::scram::Verifier;
use breccia_sql::postgres::upstream::{Credential, Endpoint, OwnLogin, UpstreamTls};

use super::{consistency, health, pool_options, probes, tls_client};
use crate::gateway::Gateway;
use crate::trouble::Trouble;

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
        if let StorePlan::Postgresql(server) = server {
            plans.push(server);
            servers.push(self::server(gateway, plan, name, server)?);
        }
    }
    let options = options(name, composite);
    let made = Arc::new(Cluster::new(options, servers, &gateway.metrics));
    tokio::spawn(monitor::watch(
        Arc::clone(&made),
        probes(plans.into_iter()),
        gateway.metrics.clone(),
    ));
    Ok(made)
}

fn options(name: &str, plan: &SqlReadReplicaPlan) -> ClusterOptions {
    ClusterOptions {
        name: name.to_owned(),
        consistency: consistency(plan),
        max_lag: plan.max_lag,
        replica_wait: plan.replica_wait,
        lazy: plan.transactions == TransactionRouting::Lazy,
        read_functions: plan.read_functions.clone(),
    }
}

fn server(
    gateway: &Gateway,
    plan: &Plan,
    name: &str,
    server: &SqlPlan,
) -> Result<ServerOptions, Trouble> {
    let (endpoint, own_role) = endpoint(name, server)?;
    Ok(ServerOptions {
        endpoint,
        client_role: client_role(server),
        own_role,
        own_database: server.database.clone(),
        weight: server.weight,
        health: health(gateway, plan, name, server),
    })
}

/// Where a server is, and the role Breccia's own questions are asked as there, if one is configured.
pub(crate) fn endpoint(
    name: &str,
    server: &SqlPlan,
) -> Result<(Endpoint, Option<(String, Credential)>), Trouble> {
    let monitor = server.monitor_user.clone();
    let monitor = monitor.map(|user| (user, credential(server.monitor_password.as_ref())));
    let own = [
        (client_role(server), ["user", "password"]),
        (monitor.clone(), ["monitor-user", "monitor-password"]),
    ];
    let own = own.into_iter().filter_map(|(login, keys)| {
        let (role, credential) = login?;
        Some(OwnLogin {
            role,
            credential,
            keys,
        })
    });
    let own_role = monitor.or_else(|| client_role(server));
    let endpoint = Endpoint {
        name: name.to_owned(),
        address: server.address.clone(),
        tls: tls(name, server)?,
        timeout: server.timeout,
        own: own.collect(),
    };
    Ok((endpoint, own_role))
}

/// Who clients are on a server; `None`: each is itself.
fn client_role(server: &SqlPlan) -> Option<(String, Credential)> {
    let password = server.password.as_ref();
    (!server.user.is_empty()).then(|| (server.user.clone(), credential(password)))
}

/// What a role with this password proves itself with.
pub(crate) fn credential(password: Option<&Secret>) -> Credential {
    password.map_or(Credential::None, |password| {
        Credential::Password(password.expose().to_owned())
    })
}

fn tls(name: &str, server: &SqlPlan) -> Result<UpstreamTls, Trouble> {
    Ok(match tls_client(name, server)? {
        None => UpstreamTls::Off,
        Some((client, true)) => UpstreamTls::Prefer(client),
        Some((client, false)) => UpstreamTls::Require(client),
    })
}

/// A listener that lets nobody in yet; [`renewed`] makes it what its plan says.
pub(super) fn bare(
    gateway: &Gateway,
    name: &str,
    (plan, sql): (&ListenerPlan, &SqlListenerPlan),
    cluster: Arc<Cluster>,
    secret: Vec<u8>,
) -> SqlListener {
    let pools = PoolLimits::new(name, &pool_options(sql));
    SqlListener {
        name: name.to_owned(),
        cluster,
        users: Some(HashMap::new()),
        auth_query: None,
        tls: None,
        allow_md5: false,
        limits: limits(plan, sql, pools),
        cancels: Arc::new(Cancels::default()),
        secret,
        guesses: Arc::default(),
        drain: gateway.drain.clone(),
        counters: Counters::new(&gateway.metrics, name),
    }
}

/// A listener that was bare, as its plan has it.
pub(super) fn shared(
    bare: &SqlListener,
    plan: &ListenerPlan,
    sql: &SqlListenerPlan,
    tls: Option<TlsServer>,
) -> Result<Arc<SharedListener>, String> {
    renewed(bare, plan, sql, tls).map(SharedListener::new)
}

/// A listener as its plan has it now. What is not the plan's stays.
fn renewed(
    before: &SqlListener,
    plan: &ListenerPlan,
    sql: &SqlListenerPlan,
    tls: Option<TlsServer>,
) -> Result<SqlListener, String> {
    let same = before.auth_query.as_ref();
    let same = same.filter(|query| Some(query.sql()) == sql.auth_query.as_deref());
    let made = || sql.auth_query.clone().map(AuthQuery::new).map(Arc::new);
    Ok(SqlListener {
        name: before.name.clone(),
        cluster: Arc::clone(&before.cluster),
        users: users(plan, before)?,
        auth_query: same.cloned().or_else(made),
        tls,
        allow_md5: sql.allow_md5,
        limits: limits(plan, sql, Arc::clone(&before.limits.pool)),
        cancels: Arc::clone(&before.cancels),
        secret: before.secret.clone(),
        guesses: Arc::clone(&before.guesses),
        drain: before.drain.clone(),
        counters: before.counters.clone(),
    })
}

/// What a reload makes of a listener, and how that is put into force.
pub(super) fn renewal(
    shared: &Arc<SharedListener>,
    plan: &ListenerPlan,
    sql: &SqlListenerPlan,
    tls: Option<TlsServer>,
) -> Result<Box<dyn FnOnce()>, String> {
    let before = shared.get();
    let listener = renewed(&before, plan, sql, tls)
        .map_err(|error| format!("listener.{}: {error}", before.name))?;
    let (shared, pools) = (Arc::clone(shared), pool_options(sql));
    Ok(Box::new(move || {
        listener.limits.pool.set(&pools);
        listener.cluster.tidy();
        shared.set(listener);
    }))
}

fn limits(plan: &ListenerPlan, sql: &SqlListenerPlan, pool: Arc<PoolLimits>) -> SqlLimits {
    SqlLimits {
        idle_timeout: plan.idle_timeout,
        idle_in_transaction_timeout: sql.idle_in_transaction_timeout,
        transaction_timeout: sql.transaction_timeout,
        write_timeout: plan.write_timeout,
        max_request_size: usize::try_from(plan.max_request_size).unwrap_or(usize::MAX),
        slow_statement: sql.slow_statement,
        session_mode: sql.pool_mode == PoolMode::Session,
        pool,
    }
}

/// Who may log in; none are listed: everybody. A verifier takes long to make, so that of a password
/// which was there before is taken over.
fn users(
    plan: &ListenerPlan,
    before: &SqlListener,
) -> Result<Option<HashMap<String, SqlUser>>, String> {
    let mut users = HashMap::new();
    for user in &plan.users {
        let Some(sql) = &user.sql else {
            continue;
        };
        let password = user.password.as_ref().map(|it| it.expose().to_owned());
        let verifier = match (&password, &sql.scram_verifier) {
            (_, Some(text)) => Verifier::read(text.expose())
                .ok_or_else(|| format!("user {:?}: scram-verifier is malformed", user.name))?,
            (Some(text), None) => {
                let known = before.users.as_ref();
                let same = known.and_then(|known| known.get(&user.name));
                match same.filter(|same| same.password == password) {
                    Some(same) => same.verifier.clone(),
                    None => Verifier::drawn(&user.name, text, &before.secret),
                }
            }
            (None, None) => return Err(format!("user {:?} has no password", user.name)),
        };
        let upstream = sql.upstream_user.clone();
        let upstream = upstream.map(|role| (role, credential(sql.upstream_password.as_ref())));
        let made = SqlUser {
            verifier,
            password,
            upstream,
        };
        users.insert(user.name.clone(), made);
    }
    Ok((!users.is_empty()).then_some(users))
}
