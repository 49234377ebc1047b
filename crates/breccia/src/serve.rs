//! `breccia serve`: from a config to a gateway that listens, and to its end.
//!
//! Not the serving. Invariant: the order is config, layouts, ports, workers. Whatever is refused
//! (exit status 2) is refused before a port is bound.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use breccia_config::{Plan, Protocol, StorePlan};
use breccia_net::NetError;
use breccia_net::layout_store::{LayoutStore, LayoutStoreError};
use breccia_net::sends;
use breccia_net::worker::WorkerPool;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::ServeArguments;
use crate::gateway::{Gateway, RATE_STEP, space};
use crate::listening::{self, Bound};
use crate::loading::{Given, Layouts};
use crate::trouble::{Trouble, print};
use crate::{admin, blobs, descriptors, loading, logging, markers, registry, reload, s3_keys};

pub(crate) fn run(arguments: &ServeArguments) -> Result<(), Trouble> {
    let (plan, warnings) = read_plan(arguments)?;
    run_plan(arguments, plan, warnings).map_err(|trouble| match (trouble, given(arguments)) {
        // What is found out after the file was read has its place in it all the same.
        (Trouble::Refused(lines), Some(given)) => Trouble::Refused(given.placed(lines)),
        (trouble, _) => trouble,
    })
}

fn run_plan(
    arguments: &ServeArguments,
    plan: Plan,
    warnings: Vec<breccia_config::Warning>,
) -> Result<(), Trouble> {
    logging::start(plan.log);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Trouble::failed)?;
    let leaves = blobs::Leaves::open(&plan)?;
    let (store, layouts) = runtime.block_on(open_store(&plan, &leaves, arguments))?;
    let store = Arc::new(store);
    let mut gateway = Gateway::new(Arc::new(plan), layouts, &leaves, &store)?;
    descriptors::prepare(&gateway);
    gateway.config.clone_from(&arguments.config);
    gateway.data_dir.clone_from(&arguments.data_dir);
    let ended = runtime.block_on(serve(Arc::new(gateway)));
    // A name that still resolves must not hold the exit back.
    runtime.shutdown_background();
    // The lock of the state folder is held to the end.
    drop(store);
    ended
}

fn read_plan(arguments: &ServeArguments) -> Result<(Plan, Vec<breccia_config::Warning>), Trouble> {
    if let Some(given) = given(arguments) {
        return given.load();
    }
    let folder = arguments.data_dir.as_deref();
    let folder = folder.unwrap_or(Path::new("breccia-data"));
    let keys = s3_keys::of(folder)?;
    let plan = breccia_config::quick_start(folder, &keys.access_key, &keys.secret_key);
    Ok((plan, Vec::new()))
}

fn given(arguments: &ServeArguments) -> Option<Given<'_>> {
    Some(Given {
        config: arguments.config.as_deref()?,
        data_dir: arguments.data_dir.as_deref(),
    })
}

/// Opens the state folder and every layout, or says everything that speaks against it.
async fn open_store(
    plan: &Plan,
    leaves: &blobs::Leaves,
    arguments: &ServeArguments,
) -> Result<(LayoutStore, Layouts), Trouble> {
    let store = if loading::composites(plan).is_empty() {
        LayoutStore::ephemeral()
    } else {
        LayoutStore::open(&plan.state_dir)?
    };
    let given = given(arguments);
    let refused = |refusals: Vec<LayoutStoreError>| {
        let lines = refusals.iter().map(|refusal| match given {
            Some(given) => given.lines(refusal),
            None => vec![refusal.to_string()],
        });
        Trouble::Refused(lines.flatten().collect())
    };
    let keeps_blobs =
        |(name, store): (&String, &StorePlan)| store.is_blob() && !plan.is_only_sql(name);
    let marks_blobs = plan.stores.iter().any(keeps_blobs);
    if marks_blobs || !markers::composites(plan).is_empty() {
        let restored = blobs::start::restore(plan, leaves, &store, given).await;
        restored.map_err(Trouble::Refused)?;
        let restored = markers::start::restore(plan, &store, given).await;
        restored.map_err(Trouble::Refused)?;
        // Only looked at yet: what is refused makes no layout.
        let reading = LayoutStore::open_read_only(&plan.state_dir);
        let layouts = loading::open_layouts(plan, &reading).map_err(refused)?;
        let found = markers::start::refusals(plan, &layouts, &reading, given).await;
        let mut lines = found.map_err(Trouble::refused)?;
        lines.extend(blobs::start::refusals(plan, leaves, &layouts, &reading, given).await);
        if !lines.is_empty() {
            return Err(Trouble::Refused(lines));
        }
    }
    let layouts = loading::open_layouts(plan, &store).map_err(refused)?;
    Ok((store, layouts))
}

async fn serve(gateway: Arc<Gateway>) -> Result<(), Trouble> {
    let plan = gateway.plan();
    let mut signals = Signals::new().map_err(Trouble::failed)?;
    let listeners = bind_all(&gateway, &plan)?;
    let admin = match &plan.admin {
        Some(admin) => Some(admin::Listening::open(admin).map_err(|error| at("admin", &error))?),
        None => None,
    };
    registry::start_watches(&gateway, &plan).await;
    registry::start_probes(&gateway, &plan).map_err(Trouble::refused)?;
    let kept = markers::keeper::start(&gateway, &plan).await;
    kept.map_err(Trouble::refused)?;
    gateway.blobs.start(&plan).await;
    gateway.set_wiring(registry::Wiring::new(&gateway, &plan)?);
    let shared = Arc::clone(&gateway);
    let (io_uring, told) = (plan.io_uring, Arc::new(AtomicBool::new(false)));
    let factory = move |_| {
        if io_uring {
            join_sends(&told);
        }
        registry::Workbench::new(Arc::clone(&shared))
    };
    let pool = WorkerPool::start(gateway.workers, gateway.drain.clone(), factory)
        .map_err(Trouble::failed)?;
    for bound in listeners {
        listening::start(&gateway, &plan, &pool.openings(), bound);
    }
    // Set once, here.
    let _ = gateway.openings.set(pool.openings());
    if let Some(admin) = admin {
        tracing::info!(bind = %admin.bind(), "admin listening");
        tokio::spawn(admin.serve(Arc::clone(&gateway)));
    }
    tokio::spawn(sample_rates(Arc::clone(&gateway)));
    space::watch_all(&gateway);
    tracing::info!(
        workers = gateway.workers,
        upstream_connections_at_most = gateway.upstream_connections(),
        "ready"
    );
    if gateway.config.is_none() {
        print(&banner(&plan));
    }
    signals.wait_for_the_end(&gateway).await;
    let timeout = gateway.plan().drain_timeout;
    tracing::info!(timeout_ms = %timeout.as_millis(), "draining");
    let drained = tokio::select! {
        drained = pool.drain(timeout) => drained,
        () = signals.second() => {
            return Err(Trouble::failed("stopped by a second signal, before the drain was over"));
        }
    };
    if drained.cut > 0 {
        tracing::warn!(
            connections = drained.cut,
            "drain-timeout passed: connections were cut"
        );
    }
    tracing::info!("stopped");
    Ok(())
}

/// Binds every listener of the plan, in its order.
fn bind_all(gateway: &Gateway, plan: &Plan) -> Result<Vec<Bound>, Trouble> {
    let inventory = gateway.inventory();
    let mut listeners = Vec::new();
    for (name, listener) in &plan.listeners {
        let place = format!("listener.{name}");
        let tls = registry::tls(listener)
            .map_err(|error| Trouble::refused(format!("{place}.{error}")))?;
        let drain = inventory.drains.get(name).unwrap_or(&gateway.drain);
        let bound = listening::bind(name, listener, tls, drain).map_err(|error| {
            let mut lines = vec![format!("{place}.bind: {error}")];
            if gateway.config.is_none() {
                let hint = "the quick start's ports are fixed; with --config FILE they are yours";
                lines.push(hint.to_owned());
            }
            Trouble::Failed(lines)
        })?;
        listeners.push(bound);
    }
    Ok(listeners)
}

/// A fault of a port or certificate with its place in the config.
fn at(place: &str, error: &NetError) -> Trouble {
    let line = format!("{place}: {error}");
    match error {
        NetError::AddressTaken { .. } | NetError::Bind { .. } => Trouble::failed(line),
        _ => Trouble::refused(line),
    }
}

/// Lets the sends of this worker leave together, if the system allows it. One worker tells if it does not.
fn join_sends(told: &AtomicBool) {
    if let Err(error) = sends::join_here()
        && !told.swap(true, Ordering::Relaxed)
    {
        tracing::info!(
            %error,
            "no io_uring here: each send is a system call of its own, which takes more CPU"
        );
    }
}

async fn sample_rates(gateway: Arc<Gateway>) {
    let mut ticks = tokio::time::interval(RATE_STEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        gateway.sample();
    }
}

/// What listens where, and a command to try each.
fn banner(plan: &Plan) -> String {
    let folder = plan.state_dir.display();
    let mut out = format!(
        "Breccia's quick start. Blobs stay in {folder}; what is in memory is gone at the end. \
         Stop it with Ctrl-C.\n\n"
    );
    for listener in plan.listeners.values() {
        let bind = &listener.bind;
        let port = match bind {
            breccia_config::BindPlan::Tcp(address) => address.port(),
            breccia_config::BindPlan::Unix(_) => 0,
        };
        let (name, kind, examples) = match listener.protocol {
            Protocol::Redis => {
                let example = format!("redis-cli -p {port} SET greeting hello");
                ("Redis", "memory stores", vec![example])
            }
            Protocol::Memcached => ("memcached", "memory stores", vec![memcached_example(port)]),
            Protocol::S3 => ("S3", "folders", s3_examples(listener, port)),
            _ => continue,
        };
        let shards = plan.served(listener).len();
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  {name:<10} {bind}  over {shards} {kind}");
        let mut word = "try:";
        for example in examples {
            let _ = writeln!(out, "             {word:<4} {example}");
            word = "";
        }
        out.push('\n');
    }
    if let Some(admin) = &plan.admin {
        let _ = writeln!(out, "  {:<10} {}", "admin", admin.bind);
        let program = std::env::args()
            .next()
            .unwrap_or_else(|| "breccia".to_owned());
        let _ = writeln!(out, "             try: {program} status\n");
    }
    out
}

/// Makes a bucket and puts an object with nothing but curl, which signs requests itself.
fn s3_examples(listener: &breccia_config::ListenerPlan, port: u16) -> Vec<String> {
    let keys = listener.users.iter().find_map(|user| user.s3.as_ref());
    let Some(keys) = keys else {
        return Vec::new();
    };
    let (access_key, secret_key) = (&keys.access_key, keys.secret_key.expose());
    let url = format!("http://127.0.0.1:{port}");
    // Older curls do not send the header that S3 asks for.
    let curl = format!(
        "curl --aws-sigv4 aws:amz:us-east-1:s3 --user {access_key}:{secret_key} \
         -H x-amz-content-sha256:UNSIGNED-PAYLOAD"
    );
    vec![
        format!("{curl} -X PUT {url}/first"),
        format!("{curl} --data-binary hello -X PUT {url}/first/greeting"),
        format!("{curl} {url}/first/greeting"),
    ]
}

/// Sets and gets a value with nothing but a shell.
fn memcached_example(port: u16) -> String {
    let requests = r"set greeting 0 0 5\r\nhello\r\nget greeting\r\nquit\r\n";
    format!("bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}; printf \"{requests}\" >&3; cat <&3'")
}

/// The signals a gateway listens to.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Reloads at each SIGHUP; returns at SIGTERM or SIGINT.
    async fn wait_for_the_end(&mut self, gateway: &Arc<Gateway>) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    // What it came to is logged there.
                    let _ = reload::reload(gateway);
                }
            }
        }
    }

    async fn second(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
