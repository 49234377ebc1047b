//! What a running gateway knows of itself, for the admin listener, reloads and the banner.
//!
//! Not the way of a request: workers never look here. Invariant: nothing shown from here holds a
//! secret.

mod cluster;
mod inventory;
mod memory;
pub(crate) mod space;
mod status;
mod tasks;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use breccia_blob::s3::frontend::SharedSettings as S3Settings;
use breccia_config::{ConnectionsPer, Plan, RedisPlan, StorePlan};
use breccia_net::clock;
use breccia_net::drain::{Drain, Phase};
use breccia_net::layout_store::LayoutStore;
use breccia_net::metrics::{self, Registry};
use breccia_net::worker::{ListenerHandle, ListenerIndex, Openings};

use crate::blobs::{Blobs, Leaves};
use crate::clusters::AnyCluster;
use crate::loading::{Given, Layouts};
use crate::registry::{self, SharedSql, Wiring};
use crate::reload::LastReload;
use crate::trouble::Trouble;
use cluster::Serves;
pub(crate) use inventory::Inventory;
pub(crate) use tasks::{Task, Tasks};

/// Rates are means over this long.
const RATE_SPAN: Duration = Duration::from_secs(10);
/// How often the counters behind the rates are read.
pub(crate) const RATE_STEP: Duration = Duration::from_secs(1);

/// The shared state of a gateway.
#[derive(Debug)]
pub(crate) struct Gateway {
    /// The config file; none in the quick start.
    pub(crate) config: Option<PathBuf>,
    /// `--data-dir`.
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) metrics: Registry,
    pub(crate) drain: Drain,
    pub(crate) workers: usize,
    pub(crate) layout_store: Arc<LayoutStore>,
    /// What goes on for each store: see [`Task`].
    pub(crate) tasks: Tasks,
    pub(crate) blobs: Blobs,
    /// What a reload may change of each S3 listener, by name.
    pub(crate) s3_settings: BTreeMap<String, Arc<S3Settings>>,
    /// Set once the workers run.
    pub(crate) openings: OnceLock<Openings>,
    /// How many listeners there have been.
    numbered: AtomicUsize,
    listeners: Mutex<Vec<ListenerHandle>>,
    inventory: Mutex<Arc<Inventory>>,
    wiring: Mutex<Option<Arc<Wiring>>>,
    started: Instant,
    plan: Mutex<Arc<Plan>>,
    last_reload: Mutex<Option<LastReload>>,
    samples: Mutex<VecDeque<Sample>>,
    clusters: Mutex<BTreeMap<String, AnyCluster>>,
    /// Pauses begin and end one after the other.
    pub(crate) steering: tokio::sync::Mutex<()>,
    sql_listeners: Mutex<BTreeMap<String, SharedSql>>,
}

/// Counters at one moment, by listener and by store.
#[derive(Debug, Clone)]
struct Sample {
    at: Instant,
    listeners: BTreeMap<String, u64>,
    stores: BTreeMap<String, u64>,
}

/// Replies of RESP2 and of RESP3 do not translate, so each has connections of its own.
const RESP_VERSIONS: usize = 2;

impl Gateway {
    /// The state of a gateway that is about to start.
    pub(crate) fn new(
        plan: Arc<Plan>,
        layouts: Layouts,
        leaves: &Leaves,
        store: &Arc<LayoutStore>,
    ) -> Result<Self, Trouble> {
        let metrics = Registry::new();
        let workers = plan.workers.unwrap_or_else(|| {
            std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
        });
        let blobs = Blobs::new(&plan, &layouts, leaves, store, &metrics)?;
        let (drain, none) = (Drain::new(), Inventory::default());
        let inventory = Inventory::of(&plan, layouts, &none, &blobs, (&metrics, &drain))?;
        Ok(Self {
            inventory: Mutex::new(Arc::new(inventory)),
            wiring: Mutex::default(),
            openings: OnceLock::new(),
            numbered: AtomicUsize::new(0),
            layout_store: Arc::clone(store),
            tasks: Tasks::default(),
            config: None,
            data_dir: None,
            blobs,
            s3_settings: registry::s3_settings(&plan),
            metrics,
            drain,
            workers,
            listeners: Mutex::default(),
            started: clock::now(),
            plan: Mutex::new(plan),
            last_reload: Mutex::default(),
            samples: Mutex::default(),
            clusters: Mutex::default(),
            steering: tokio::sync::Mutex::default(),
            sql_listeners: Mutex::default(),
        })
    }

    /// The arguments it was started with; none in the quick start.
    pub(crate) fn given(&self) -> Option<Given<'_>> {
        Some(Given {
            config: self.config.as_deref()?,
            data_dir: self.data_dir.as_deref(),
        })
    }

    /// The plan in force.
    pub(crate) fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.lock_plan())
    }

    /// Puts another plan in force; what it asks for has been applied.
    pub(crate) fn set_plan(&self, plan: Arc<Plan>) {
        *self.lock_plan() = plan;
    }

    /// What the last reload came to; none before the first.
    pub(crate) fn last_reload(&self) -> Option<LastReload> {
        self.lock_last_reload().clone()
    }

    /// Keeps what a reload came to.
    pub(crate) fn set_last_reload(&self, last: LastReload) {
        *self.lock_last_reload() = Some(last);
    }

    fn lock_last_reload(&self) -> MutexGuard<'_, Option<LastReload>> {
        let last = self.last_reload.lock();
        last.unwrap_or_else(PoisonError::into_inner)
    }

    /// The cluster of a `sql-read-replica`, once it is made.
    pub(crate) fn cluster(&self, name: &str) -> Option<AnyCluster> {
        self.lock_clusters().get(name).cloned()
    }

    /// Keeps a cluster that was made.
    pub(crate) fn keep_cluster(&self, name: &str, cluster: AnyCluster) {
        self.lock_clusters().insert(name.to_owned(), cluster);
    }

    /// Every SQL listener that serves, by its name.
    pub(crate) fn sql_listeners(&self) -> BTreeMap<String, SharedSql> {
        self.lock_sql_listeners().clone()
    }

    /// Keeps an SQL listener that was made.
    pub(crate) fn keep_sql_listener(&self, name: &str, listener: SharedSql) {
        self.lock_sql_listeners().insert(name.to_owned(), listener);
    }

    fn lock_sql_listeners(&self) -> MutexGuard<'_, BTreeMap<String, SharedSql>> {
        let listeners = self.sql_listeners.lock();
        listeners.unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_clusters(&self) -> MutexGuard<'_, BTreeMap<String, AnyCluster>> {
        self.clusters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The listeners; none before they are bound.
    pub(crate) fn listeners(&self) -> Vec<ListenerHandle> {
        self.lock_listeners().clone()
    }

    /// A number for one more listener.
    pub(crate) fn next_listener(&self) -> ListenerIndex {
        ListenerIndex(self.numbered.fetch_add(1, Ordering::Relaxed))
    }

    /// Keeps a listener that accepts.
    pub(crate) fn keep_listener(&self, handle: ListenerHandle) {
        self.lock_listeners().push(handle);
    }

    /// Forgets a listener.
    pub(crate) fn take_listener(&self, name: &str) -> Option<ListenerHandle> {
        let mut listeners = self.lock_listeners();
        let place = listeners.iter().position(|handle| handle.name() == name)?;
        Some(listeners.remove(place))
    }

    fn lock_listeners(&self) -> MutexGuard<'_, Vec<ListenerHandle>> {
        let listeners = self.listeners.lock();
        listeners.unwrap_or_else(PoisonError::into_inner)
    }

    /// What is made of the plan in force.
    pub(crate) fn inventory(&self) -> Arc<Inventory> {
        Arc::clone(&self.lock_inventory())
    }

    /// Puts another inventory in the place of the one there is.
    pub(crate) fn set_inventory(&self, inventory: Inventory) {
        *self.lock_inventory() = Arc::new(inventory);
    }

    fn lock_inventory(&self) -> MutexGuard<'_, Arc<Inventory>> {
        let inventory = self.inventory.lock();
        inventory.unwrap_or_else(PoisonError::into_inner)
    }

    /// What stands behind the listeners, once it is made.
    pub(crate) fn wiring(&self) -> Option<Arc<Wiring>> {
        self.lock_wiring().clone()
    }

    /// Keeps what was made to stand behind the listeners.
    pub(crate) fn set_wiring(&self, wiring: Wiring) {
        *self.lock_wiring() = Some(Arc::new(wiring));
    }

    fn lock_wiring(&self) -> MutexGuard<'_, Option<Arc<Wiring>>> {
        self.wiring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The most connections all workers together open to servers for shared use; of SQL listeners,
    /// those of one role and one database. Of Redis, both for clients that speak RESP2 and for those
    /// that speak RESP3; they are opened when first used.
    pub(crate) fn upstream_connections(&self) -> usize {
        let plan = self.plan();
        let served: BTreeMap<&str, &StorePlan> = plan
            .listeners
            .values()
            .filter(|listener| listener.sql.is_none())
            .flat_map(|listener| plan.served(listener))
            .collect();
        let of_redis = |plan: &RedisPlan, servers: usize| {
            let owners = match plan.connections_per {
                ConnectionsPer::Process => 1,
                _ => self.workers,
            };
            let each = plan.connections.saturating_mul(owners);
            each.saturating_mul(servers).saturating_mul(RESP_VERSIONS)
        };
        let each = served.iter().map(|(name, store)| match store {
            StorePlan::Redis(plan) => of_redis(plan, 1),
            StorePlan::RedisGroup(plan) => of_redis(&plan.redis, self.servers_of(name).max(1)),
            StorePlan::Memcached(plan) => plan.connections.saturating_mul(self.workers),
            StorePlan::S3(plan) => plan.http.max_connections,
            StorePlan::Azure(plan) => plan.http.max_connections,
            StorePlan::Gcs(plan) => plan.http.max_connections,
            StorePlan::Postgresql(plan) | StorePlan::Mysql(plan) => plan.max_connections,
            _ => 0,
        });
        each.fold(cluster::pooled_connections(&plan), usize::saturating_add)
    }

    /// How many servers of a cluster own slots, as far as is known.
    fn servers_of(&self, name: &str) -> usize {
        let inventory = self.inventory();
        let cluster = inventory.clusters.get(name);
        cluster.map_or(0, |cluster| cluster.primaries().len())
    }

    /// The servers of clusters that are down, though their cluster is not.
    fn down_servers(&self) -> Vec<String> {
        let inventory = self.inventory();
        let all = inventory.clusters.iter().flat_map(|(name, cluster)| {
            let servers = cluster.primaries().into_iter();
            servers.map(move |server| (name, server))
        });
        let down = all.filter_map(|(name, server)| {
            let reason = server.endpoint.health().down()?;
            Some(format!("{name} at {} ({})", server.address, reason.text))
        });
        down.collect()
    }

    /// `Ok` if every listener can serve, and what is down all the same; else what cannot, and why.
    pub(crate) fn readiness(&self) -> Result<String, String> {
        if self.drain.phase() != Phase::Running {
            return Err("draining\n".to_owned());
        }
        let plan = self.plan();
        if self.listeners().len() != plan.listeners.len() {
            return Err("starting\n".to_owned());
        }
        let (mut faults, mut partly) = (String::new(), String::new());
        for (name, listener) in &plan.listeners {
            // Writing to a String cannot fail.
            match self.sql_readiness(listener) {
                Some(Serves::Well) => {}
                Some(Serves::Partly(lines)) => partly += &cluster::partly(name, &lines),
                Some(Serves::Nothing(why)) => {
                    let _ = writeln!(faults, "listener {name} cannot serve: {why}");
                }
                None => {
                    let leaves = plan.served(listener);
                    let down: Vec<String> = leaves
                        .iter()
                        .filter_map(|(leaf, _)| self.cannot_serve(leaf))
                        .collect();
                    if !leaves.is_empty() && down.len() == leaves.len() {
                        let _ =
                            writeln!(faults, "listener {name} cannot serve: {}", down.join(", "));
                    }
                }
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let inventory = self.inventory();
        let keyed = inventory
            .endpoints
            .keys()
            .filter(|leaf| !plan.is_only_sql(leaf));
        let mut down: Vec<String> = keyed.filter_map(|leaf| self.cannot_serve(leaf)).collect();
        down.extend(self.down_servers());
        if !down.is_empty() {
            let _ = writeln!(
                partly,
                "down, with their own keys only: {}",
                down.join(", ")
            );
        }
        Ok(format!("ready\n{partly}"))
    }

    /// Why a leaf cannot serve its keys now.
    fn cannot_serve(&self, leaf: &str) -> Option<String> {
        let inventory = self.inventory();
        let endpoint = inventory.endpoints.get(leaf)?;
        if let Some(reason) = endpoint.down() {
            return Some(format!("{leaf} is down ({})", reason.text));
        }
        let identity = inventory.identities.get(leaf);
        if let Some(why) = identity.and_then(|known| known.refusal()) {
            return Some(format!("{leaf} is not used ({why})"));
        }
        if let Some(why) = self.blobs.leaf(leaf).and_then(|leaf| leaf.refusal()) {
            return Some(format!("{leaf} is not used ({why})"));
        }
        (!endpoint.is_probed()).then(|| format!("{leaf} has not been probed yet"))
    }

    /// Reads the counters behind the rates, and those that stores keep for themselves. Called every
    /// `RATE_STEP`.
    pub(crate) fn sample(&self) {
        let inventory = self.inventory();
        for memory in inventory.memory.values() {
            memory.show();
        }
        let sample = Sample {
            at: clock::now(),
            listeners: self.metrics.totals(&metrics::REQUESTS, "listener"),
            stores: self.metrics.totals(&metrics::STORE_REQUESTS, "store"),
        };
        let mut samples = self.lock_samples();
        while samples
            .front()
            .is_some_and(|first| sample.at - first.at > RATE_SPAN)
        {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    fn lock_plan(&self) -> MutexGuard<'_, Arc<Plan>> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_samples(&self) -> MutexGuard<'_, VecDeque<Sample>> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
