//! Wiring of listeners that speak PostgreSQL, and of the clusters behind them.
//!
//! Not the protocol. Invariant: a cluster is made once, however many listeners serve it, and each
//! of its servers has one prober.

mod secret;

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use breccia_config::{
    Consistency as PlannedConsistency, ListenerPlan, Plan, PoolMode, Secret, SqlListenerPlan,
    SqlPlan, SqlReadReplicaPlan, SqlTlsMode, StorePlan, TransactionRouting,
};
use breccia_core::address::Address;
use breccia_net::health::{EndpointHealth, ProbeConfig};
use breccia_net::metrics;
use breccia_net::tls::{TlsClient, TlsClientOptions, TlsServer};
use breccia_net::worker::Service;
use breccia_sql::postgres::cluster::{Cluster, ClusterOptions, Consistency, ServerOptions};
use breccia_sql::postgres::frontend::{
    AuthQuery, Cancels, Counters, SharedListener, SqlLimits, SqlListener, SqlService, SqlUser,
};
use breccia_sql::postgres::monitor;
use breccia_sql::postgres::pool::{PoolLimits, PoolOptions};
use breccia_sql::postgres::scram::Verifier;
use breccia_sql::postgres::upstream::{Credential, Endpoint, UpstreamTls};

use crate::gateway::Gateway;
use crate::trouble::Trouble;

/// Roles and lag are asked at least this often, and an answer may take this long.
const ROLE_INTERVAL: Duration = Duration::from_millis(500);
const ROLE_TIMEOUT: Duration = Duration::from_millis(500);

/// Each SQL listener by its name, shared by all workers.
#[derive(Default)]
pub(super) struct SqlWiring(BTreeMap<String, Arc<SharedListener>>);

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
            let tls = super::tls(listener).map_err(|error| place(&error))?;
            if secret.is_empty() {
                secret = secret::of(&plan.state_dir).map_err(Trouble::failed)?;
            }
            let bare = bare(gateway, name, listener, sql, cluster, secret.clone());
            let made = renewed(&bare, listener, sql, tls).map_err(|error| place(&error))?;
            let shared = SharedListener::new(made);
            gateway.keep_sql_listener(name, Arc::clone(&shared));
            wiring.0.insert(name.clone(), shared);
        }
        Ok(wiring)
    }
}

/// The cluster of a store; made when it is first asked for.
fn cluster(gateway: &Gateway, plan: &Plan, name: &str) -> Result<Option<Arc<Cluster>>, Trouble> {
    let Some(StorePlan::SqlReadReplica(composite)) = plan.stores.get(name) else {
        return Ok(None);
    };
    if let Some(made) = gateway.cluster(name) {
        return Ok(Some(made));
    }
    let mut probes = ProbeConfig {
        interval: ROLE_INTERVAL,
        timeout: ROLE_TIMEOUT,
    };
    let mut servers = Vec::new();
    for (name, server) in plan.leaves(name) {
        if let StorePlan::Postgresql(server) = server {
            probes.interval = probes.interval.min(server.probe_interval);
            servers.push(self::server(gateway, plan, name, server)?);
        }
    }
    let made = Arc::new(Cluster::new(
        options(name, composite),
        servers,
        &gateway.metrics,
    ));
    tokio::spawn(monitor::watch(
        Arc::clone(&made),
        probes,
        gateway.metrics.clone(),
    ));
    gateway.keep_cluster(name, Arc::clone(&made));
    Ok(Some(made))
}

fn options(name: &str, plan: &SqlReadReplicaPlan) -> ClusterOptions {
    ClusterOptions {
        name: name.to_owned(),
        consistency: match plan.consistency {
            PlannedConsistency::Store => Consistency::Store,
            PlannedConsistency::Eventual => Consistency::Eventual,
            _ => Consistency::Session,
        },
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
    // A server that also keeps blobs has a prober of that slice already.
    let inventory = gateway.inventory();
    let shared = inventory
        .endpoints
        .get(name)
        .filter(|_| plan.is_only_sql(name));
    let health = if let Some(health) = shared {
        Arc::clone(health)
    } else {
        let health = EndpointHealth::new(name.to_owned(), server.address.clone());
        health.show_in(gateway.metrics.gauge(&metrics::STORE_UP, &[name]));
        health
    };
    let (endpoint, own_role) = endpoint(name, server)?;
    Ok(ServerOptions {
        endpoint,
        client_role: client_role(server),
        own_role,
        own_database: server.database.clone(),
        weight: server.weight,
        health,
    })
}

/// Where a server is, and the role Breccia's own questions are asked as there, if one is configured.
pub(crate) fn endpoint(
    name: &str,
    server: &SqlPlan,
) -> Result<(Endpoint, Option<(String, Credential)>), Trouble> {
    let monitor = server.monitor_user.clone();
    let monitor = monitor.map(|user| (user, credential(server.monitor_password.as_ref())));
    let own_role = monitor.or_else(|| client_role(server));
    let endpoint = Endpoint {
        name: name.to_owned(),
        address: server.address.clone(),
        tls: tls(name, server)?,
        timeout: server.timeout,
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
    let (Some(tls), Address::Tcp { host, .. }) = (&server.tls, &server.address) else {
        return Ok(UpstreamTls::Off);
    };
    if tls.mode == SqlTlsMode::Disable {
        return Ok(UpstreamTls::Off);
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
    let client = made.map_err(|error| Trouble::refused(format!("store.{name}: {error}")))?;
    Ok(match tls.mode {
        SqlTlsMode::Prefer => UpstreamTls::Prefer(client),
        _ => UpstreamTls::Require(client),
    })
}

/// A listener that lets nobody in yet; [`renewed`] makes it what its plan says.
fn bare(
    gateway: &Gateway,
    name: &str,
    plan: &ListenerPlan,
    sql: &SqlListenerPlan,
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

/// What a reload makes of an SQL listener; nothing of it is in force yet.
pub(crate) struct Renewed {
    shared: Arc<SharedListener>,
    listener: SqlListener,
    pools: PoolOptions,
}

impl Renewed {
    /// The listener as `plan` has it; `None`: that is no SQL listener.
    pub(crate) fn of(
        shared: Arc<SharedListener>,
        plan: &ListenerPlan,
        tls: Option<TlsServer>,
    ) -> Result<Option<Self>, String> {
        let Some(sql) = &plan.sql else {
            return Ok(None);
        };
        let before = shared.get();
        let listener = renewed(&before, plan, sql, tls)
            .map_err(|error| format!("listener.{}: {error}", before.name))?;
        Ok(Some(Self {
            shared,
            listener,
            pools: pool_options(sql),
        }))
    }

    /// Puts it in force: for clients to come, and the limits of pools for all.
    pub(crate) fn apply(self) {
        self.listener.limits.pool.set(&self.pools);
        self.listener.cluster.tidy();
        self.shared.set(self.listener);
    }
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

fn pool_options(sql: &SqlListenerPlan) -> PoolOptions {
    PoolOptions {
        size: sql.pool_size,
        queue_timeout: sql.queue_timeout,
        max_lifetime: sql.max_lifetime,
        idle_timeout: sql.upstream_idle_timeout,
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

/// The service of one listener on one worker. Runs on the worker.
pub(super) fn service(wiring: &SqlWiring, name: &str) -> Rc<dyn Service> {
    match wiring.0.get(name) {
        Some(listener) => SqlService::new(Arc::clone(listener)),
        None => Rc::new(super::Closed),
    }
}
