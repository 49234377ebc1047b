//! The one table in which kinds of stores and protocols are wired.
//!
//! Not their work. Invariant: whoever adds a kind of store or a protocol adds a line here, and
//! nowhere else in this crate.

mod memcached;
mod redis;
mod s3;
mod servers;
mod sql;
mod watch;
mod wiring;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use breccia_config::{ListenerPlan, Plan, Protocol, StorePlan};
use breccia_kv::front::limits::ListenerLimits;
use breccia_kv::front::settings::{ListenerSettings, SharedSettings, User};
use breccia_kv::memcached::frontend::MemcachedWorker;
use breccia_kv::memory::{Eviction, MemoryOptions, MemoryStore};
use breccia_kv::resp::frontend::RespWorker;
use breccia_net::health::{ProbeConfig, probe_loop};
use breccia_net::listener::Bind;
use breccia_net::tls::TlsServer;
use breccia_net::worker::{Accepted, ListenerIndex, Service, Workshop};
use breccia_sql::postgres::frontend::ALPN as POSTGRESQL_ALPN;

use crate::check;
use crate::gateway::{Gateway, Task};
use crate::reach::{Prober, Target};
pub(crate) use s3::{settings as s3_listener_settings, shared_settings as s3_settings};
pub(crate) use servers::{servers, terms, trunks};
pub(crate) use sql::{Renewed as RenewedSql, SharedSql, credential, endpoint as sql_endpoint};
pub(crate) use sql::{mysql_credential, mysql_endpoint, mysql_login};
pub(crate) use watch::{start as start_watches, start_watch};
pub(crate) use wiring::Wiring;

/// What a client over `max-clients` is told.
pub(crate) fn refusal(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Redis => b"-ERR max number of clients reached\r\n",
        Protocol::Memcached => b"SERVER_ERROR max number of clients reached\r\n",
        Protocol::S3 => {
            b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\
            retry-after: 1\r\nconnection: close\r\n\r\n"
        }
        // An ErrorResponse: FATAL, SQLSTATE 53300.
        Protocol::Postgresql => {
            b"E\0\0\0\x3bSFATAL\0VFATAL\0C53300\0Msorry, too many clients already\0\0"
        }
        // An ERR packet, 1040: no protocol is agreed on yet, so it has no SQLSTATE.
        Protocol::Mysql => b"\x17\0\0\0\xff\x10\x04Too many connections",
        _ => b"",
    }
}

/// Probes of stores on this machine's disks. A disk under load may be slow to answer.
const LOCAL_PROBE_INTERVAL: Duration = Duration::from_secs(1);
const LOCAL_PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a listener binds.
pub(crate) fn bind(plan: &ListenerPlan) -> Bind {
    match &plan.bind {
        breccia_config::BindPlan::Tcp(address) => Bind::Tcp(*address),
        breccia_config::BindPlan::Unix(path) => Bind::Unix(path.clone()),
    }
}

/// TLS towards a listener's clients, read from its files.
pub(crate) fn tls(plan: &ListenerPlan) -> Result<Option<TlsServer>, breccia_net::NetError> {
    let Some(tls) = &plan.tls else {
        return Ok(None);
    };
    let options = check::server_options(tls);
    let made = match plan.protocol {
        Protocol::Postgresql => TlsServer::of_protocol(&options, POSTGRESQL_ALPN),
        _ => TlsServer::new(&options),
    };
    made.map(Some)
}

/// Probes every endpoint from now on, in the runtime this is called in.
pub(crate) fn start_probes(gateway: &Gateway, plan: &Plan) -> Result<(), breccia_net::NetError> {
    for name in gateway.inventory().endpoints.keys() {
        start_probe(gateway, plan, name)?;
    }
    Ok(())
}

/// Probes the server of a store as the plan says, instead of as before. Of stores that share a
/// server the first one's keys count.
pub(crate) fn start_probe(
    gateway: &Gateway,
    plan: &Plan,
    name: &str,
) -> Result<(), breccia_net::NetError> {
    let inventory = gateway.inventory();
    let endpoints = &inventory.endpoints;
    let (Some(health), Some(store)) = (endpoints.get(name), plan.stores.get(name)) else {
        return Ok(());
    };
    if let StorePlan::RedisGroup(_) = store {
        watch::probe(gateway, store, name);
        return Ok(());
    }
    let Some(target) = Target::of(store)? else {
        return Ok(());
    };
    let mut sharing = endpoints
        .iter()
        .filter(|(_, other)| Arc::ptr_eq(health, other));
    if sharing.next().is_none_or(|(first, _)| first != name) {
        return Ok(());
    }
    let prober = Prober::new(target);
    let probe = move || {
        let prober = Arc::clone(&prober);
        async move { prober.probe().await }
    };
    let probing = probe_loop(Arc::clone(health), probes(store), probe);
    gateway.tasks.start(Task::Probe, name, probing);
    Ok(())
}

/// How often a store is probed. Stores inside this machine have no keys for it.
pub(crate) fn probes(store: &StorePlan) -> ProbeConfig {
    let (interval, timeout) = match store {
        StorePlan::Redis(plan) => (plan.probe_interval, plan.probe_timeout),
        StorePlan::RedisGroup(plan) => (plan.redis.probe_interval, plan.redis.probe_timeout),
        StorePlan::Memcached(plan) => (plan.probe_interval, plan.probe_timeout),
        StorePlan::S3(plan) => (plan.http.probe_interval, plan.http.probe_timeout),
        StorePlan::Azure(plan) => (plan.http.probe_interval, plan.http.probe_timeout),
        StorePlan::Gcs(plan) => (plan.http.probe_interval, plan.http.probe_timeout),
        StorePlan::Postgresql(plan) | StorePlan::Mysql(plan) => {
            (plan.probe_interval, plan.probe_timeout)
        }
        _ => (LOCAL_PROBE_INTERVAL, LOCAL_PROBE_TIMEOUT),
    };
    ProbeConfig { interval, timeout }
}

/// The settings of each listener that a reload may change.
pub(crate) fn shared_settings(plan: &Plan) -> BTreeMap<String, Arc<SharedSettings>> {
    let each = plan
        .listeners
        .iter()
        .filter(|(_, it)| it.s3.is_none() && it.sql.is_none());
    each.map(|(name, listener)| (name.clone(), SharedSettings::new(settings(listener))))
        .collect()
}

/// Who may use a listener, and within which limits.
pub(crate) fn settings(plan: &ListenerPlan) -> ListenerSettings {
    let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
    let users = plan.users.iter().map(|user| User {
        name: user.name.clone(),
        password: user
            .password
            .as_ref()
            .map(|password| password.expose().to_owned()),
    });
    ListenerSettings {
        users: users.collect(),
        limits: ListenerLimits {
            deadline: plan.deadline,
            idle_timeout: plan.idle_timeout,
            max_request_size: bytes(plan.max_request_size),
            max_held_request: bytes(match plan.protocol {
                Protocol::Redis => plan.max_held_request,
                // Its requests are always held.
                _ => plan.max_request_size,
            }),
            max_arguments: plan.max_arguments,
            max_in_flight: plan.max_in_flight,
            reply_buffer: bytes(plan.reply_buffer),
            write_timeout: plan.write_timeout,
            min_body_rate: plan.min_body_rate,
        },
    }
}

/// A store inside this process; `None` for other kinds.
pub(crate) fn memory_store(name: &str, plan: &StorePlan) -> Option<MemoryStore> {
    let StorePlan::Memory(memory) = plan else {
        return None;
    };
    Some(MemoryStore::new(MemoryOptions {
        name: name.to_owned(),
        max_memory: memory.max_memory,
        eviction: match memory.eviction {
            breccia_config::Eviction::S3Fifo => Eviction::S3Fifo,
            _ => Eviction::NoEviction,
        },
    }))
}

/// Makes the services of one worker. Lives on the worker.
pub(crate) struct Workbench {
    gateway: Arc<Gateway>,
    resp: Rc<RespWorker>,
    memcached: Rc<MemcachedWorker>,
}

impl Workbench {
    /// An empty one; make it on the worker's own thread.
    pub(crate) fn new(gateway: Arc<Gateway>) -> Self {
        Self {
            gateway,
            resp: RespWorker::new(),
            memcached: MemcachedWorker::new(),
        }
    }
}

impl Workshop for Workbench {
    fn service(&mut self, _: ListenerIndex, name: &str) -> Option<Rc<dyn Service>> {
        let (gateway, wiring) = (&self.gateway, self.gateway.wiring()?);
        let plan = gateway.plan();
        let listener = plan.listeners.get(name)?;
        Some(match listener.protocol {
            Protocol::Redis => redis::service(gateway, &wiring, &self.resp, name, listener),
            Protocol::Memcached => {
                memcached::service(gateway, &wiring, &self.memcached, name, listener)
            }
            Protocol::S3 => s3::service(gateway, &wiring.s3, name),
            Protocol::Postgresql | Protocol::Mysql => sql::service(&wiring.sql, name),
            _ => Rc::new(Closed),
        })
    }
}

/// Closes every connection: for a protocol this table does not know.
struct Closed;

impl Service for Closed {
    fn serve(self: Rc<Self>, connection: Accepted) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move { drop(connection) })
    }
}
