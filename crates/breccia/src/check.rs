//! `breccia check`: every fault of a config file at once, and on demand whether the stores answer.
//!
//! Not the checks themselves: those are the config crate's, and places on this machine's disks are
//! looked at in `places`. Invariant: it changes nothing, neither
//! on disk nor in a store.

mod logins;
mod places;
mod sql;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use breccia_config::{Plan, StorePlan};
use breccia_net::clock;
use breccia_net::layout_store::LayoutStore;
use breccia_net::tls::{TlsServer, TlsServerOptions};

use crate::blobs::Leaves;
use crate::cli::CheckArguments;
use crate::loading::{self, Given};
use crate::markers;
use crate::reach::Target;
use crate::registry;
use crate::trouble::{Trouble, complain, print};
use places::{Held, Places};

/// How long a store may take to answer everything it is asked.
const LIMIT: Duration = Duration::from_secs(5);

pub(crate) fn run(arguments: &CheckArguments) -> Result<(), Trouble> {
    let given = arguments.config.given();
    let (plan, warnings) = given.load()?;
    for warning in &warnings {
        complain(&format!("warning: {warning}"));
    }
    let file = given.config.display();
    let mut faults = given.placed(beyond_the_file(&plan));
    let refusals = loading::refusals(&plan);
    faults.extend(refusals.iter().flat_map(|refusal| given.lines(refusal)));
    // What is of no line is of the file.
    let here = format!("{file}:");
    for fault in faults.iter_mut().filter(|it| !it.starts_with(&here)) {
        fault.insert_str(0, &format!("{here} "));
    }
    if !faults.is_empty() {
        return Err(Trouble::Refused(faults));
    }
    let (stores, listeners) = (plan.stores.len(), plan.listeners.len());
    print(&format!(
        "{file}: good ({stores} stores, {listeners} listeners)\n"
    ));
    if arguments.connect {
        connect(&plan, given)
    } else {
        Ok(())
    }
}

/// What can only be seen outside of the file: certificates.
fn beyond_the_file(plan: &Plan) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, store) in &plan.stores {
        if let Err(error) = Target::of(store) {
            faults.push(format!("store.{name}.{error}"));
        }
        if plan.is_only_sql(name)
            && let Err(trouble) = match store {
                StorePlan::Postgresql(server) => registry::sql_endpoint(name, server).map(drop),
                StorePlan::Mysql(server) => registry::mysql_endpoint(name, server).map(drop),
                _ => Ok(()),
            }
        {
            faults.extend(trouble.into_lines());
        }
    }
    if let Err(trouble) = Leaves::open_some(plan, lies_on_a_server) {
        faults.extend(trouble.into_lines());
    }
    for (name, listener) in &plan.listeners {
        let tls = listener.tls.as_ref().map(server_options);
        if let Some(Err(error)) = tls.map(|options| TlsServer::new(&options)) {
            faults.push(format!("listener.{name}.{error}"));
        }
    }
    faults
}

/// Whether a store of blobs is reached over a connection. Others are opened by a gateway only: that
/// makes files, and takes a lock; here they are looked at.
pub(crate) fn lies_on_a_server(store: &StorePlan) -> bool {
    store.is_blob() && !matches!(store, StorePlan::Fs(_) | StorePlan::Sqlite(_))
}

/// TLS towards clients, as a listener's plan says.
pub(crate) fn server_options(plan: &breccia_config::TlsServerPlan) -> TlsServerOptions {
    TlsServerOptions {
        cert: plan.cert.clone(),
        key: plan.key.clone(),
        client_ca: plan.client_ca.clone(),
    }
}

/// Reaches every store at once and prints a line each.
fn connect(plan: &Plan, given: Given<'_>) -> Result<(), Trouble> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Trouble::failed)?;
    let mut leaves = Leaves::open_some(plan, lies_on_a_server)?;
    let mut found = runtime.block_on(reach_all(&plan.stores));
    found.extend(runtime.block_on(reach_leaves(&leaves)));
    let places = Places::look(plan, &mut leaves);
    let servers = runtime.block_on(sql::look(plan, LIMIT));
    found.extend(servers.lines);
    let held = Held::new(plan);
    let refused = runtime.block_on(wrong_shards(plan, &leaves, &held, given))?;
    found.extend(places.lines(&held));
    // A name that still resolves must not hold the exit back.
    runtime.shutdown_background();
    let mut failed = Vec::new();
    for (name, answer) in found {
        match answer {
            Ok(line) => print(&format!("{name}: {line}\n")),
            Err(line) => failed.push(format!("{name}: {line}")),
        }
    }
    for warning in servers.warnings {
        complain(&format!("warning: {warning}"));
    }
    failed.extend(servers.faults);
    failed.extend(refused);
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Trouble::Failed(failed))
    }
}

/// A line for each shard that answers and is not the one its layout means.
async fn wrong_shards(
    plan: &Plan,
    leaves: &Leaves,
    held: &Held,
    given: Given<'_>,
) -> Result<Vec<String>, Trouble> {
    let store = LayoutStore::open_read_only(&plan.state_dir);
    // Nothing speaks against the layouts: that was looked at before. One that a start would make,
    // or restore from the markers, is not here to hold servers of in-memory shards against.
    let mut layouts = loading::open_layouts(plan, &store).unwrap_or_default();
    layouts.retain(|name, _| matches!(store.load(name), Ok(Some(_))));
    let refusals = markers::start::refusals(plan, &layouts, &store, Some(given)).await;
    let mut lines = refusals.map_err(Trouble::refused)?;
    lines.extend(held.refusals(plan, leaves, given).await);
    Ok(lines)
}

/// Asks every leaf of blobs on a server for a sign of life.
async fn reach_leaves(leaves: &Leaves) -> BTreeMap<String, Result<String, String>> {
    let mut tasks = tokio::task::JoinSet::new();
    for (name, leaf) in leaves.iter() {
        let (name, leaf) = (name.clone(), Arc::clone(leaf));
        tasks.spawn(async move {
            let place = leaf.location().unwrap_or_default();
            let begun = clock::now();
            let asking = async {
                leaf.probe().await?;
                leaf.describe().await
            };
            let answer = match tokio::time::timeout(LIMIT, asking).await {
                Ok(answer) => answer.map_err(|error| error.to_string()),
                Err(_) => Err(format!("it does not answer within {} s", LIMIT.as_secs())),
            };
            let ms = (clock::now() - begun).as_secs_f64() * 1000.0;
            let answer = answer
                .map(|words| {
                    for word in words {
                        complain(&format!("warning: {word}"));
                    }
                    format!("{place} answers ({}, {ms:.1} ms)", leaf.kind().name())
                })
                .map_err(|why| format!("{place} cannot be used ({why})"));
            (name, answer)
        });
    }
    tasks.join_all().await.into_iter().collect()
}

async fn reach_all(
    stores: &BTreeMap<String, StorePlan>,
) -> BTreeMap<String, Result<String, String>> {
    let mut tasks = tokio::task::JoinSet::new();
    for (name, plan) in stores {
        let Ok(Some(target)) = Target::of(plan) else {
            continue;
        };
        let (name, place) = (name.clone(), plan.location().unwrap_or_default());
        tasks.spawn(async move {
            let begun = clock::now();
            let answer = match tokio::time::timeout(LIMIT, target.inspect()).await {
                Ok(answer) => answer,
                Err(_) => Err(format!("it does not answer within {} s", LIMIT.as_secs())),
            };
            let ms = (clock::now() - begun).as_secs_f64() * 1000.0;
            let answer = answer
                .map(|what| format!("{place} answers ({what}, {ms:.1} ms)"))
                .map_err(|why| format!("{place} cannot be used ({why})"));
            (name, answer)
        });
    }
    tasks.join_all().await.into_iter().collect()
}
