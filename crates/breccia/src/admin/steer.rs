//! `POST /stores/NAME/{drain,resume,pause,primary}`: steering the servers of SQL clusters.
//!
//! Not who may: the caller has seen to the token. Invariant: whatever is not done is said, and why.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use breccia_net::{clock, metrics};
use breccia_sql::postgres::cluster::{Cluster, Server};
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::gateway::Gateway;

/// What is wanted of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Drain,
    Resume,
    Pause,
    Primary,
}

/// The store and the action that a path names.
pub(super) fn read(path: &str) -> Option<(&str, Action)> {
    let (name, action) = path.strip_prefix("/stores/")?.split_once('/')?;
    let action = match action {
        "drain" => Action::Drain,
        "resume" => Action::Resume,
        "pause" => Action::Pause,
        "primary" => Action::Primary,
        _ => return None,
    };
    (!name.is_empty()).then_some((name, action))
}

/// A server's place: its cluster, and its number there.
type Place = (Arc<Cluster>, usize);

/// How long the answer to a pause waits for what still runs.
const PAUSE_WAIT: Duration = Duration::from_secs(5);
/// How often it looks.
const PAUSE_LOOK: Duration = Duration::from_millis(20);

/// Does it; the status and the body of the answer.
pub(super) async fn steer(gateway: &Gateway, name: &str, action: Action) -> (StatusCode, Value) {
    let clusters = gateway.clusters();
    if let Some(cluster) = clusters.get(name)
        && matches!(action, Action::Pause | Action::Resume)
    {
        let whole = [(Arc::clone(cluster), None)];
        return match action {
            Action::Pause => pause(gateway, &whole, name).await,
            _ => (StatusCode::OK, resume(gateway, &whole, name)),
        };
    }
    let places: Vec<Place> = clusters
        .values()
        .filter_map(|cluster| {
            let number = cluster.servers.iter().position(|it| it.name() == name)?;
            Some((Arc::clone(cluster), number))
        })
        .collect();
    if places.is_empty() {
        return not_a_server(gateway, name);
    }
    let paused = || -> Vec<Paused> {
        let each = places.iter();
        each.map(|(cluster, number)| (Arc::clone(cluster), Some(*number)))
            .collect()
    };
    match action {
        Action::Drain => (StatusCode::OK, drain(&places, name, true)),
        Action::Resume => {
            resume(gateway, &paused(), name);
            (StatusCode::OK, drain(&places, name, false))
        }
        Action::Primary => primary(&places, name),
        Action::Pause => pause(gateway, &paused(), name).await,
    }
}

/// A cluster, and the server of it that is paused; none: all of it.
type Paused = (Arc<Cluster>, Option<usize>);

/// Holds back what has not begun, and waits a while for the end of what has.
async fn pause(gateway: &Gateway, places: &[Paused], name: &str) -> (StatusCode, Value) {
    set_paused(gateway, places, name, true);
    let end = clock::now() + PAUSE_WAIT;
    let mut running = runs(places);
    while running > 0 && clock::now() < end {
        tokio::time::sleep(PAUSE_LOOK).await;
        running = runs(places);
    }
    let waiting: usize = places.iter().map(|(cluster, _)| cluster.waiting()).sum();
    let mut body = json!({
        "store": name, "paused": true, "running": running, "waiting": waiting,
    });
    if running == 0 {
        // Whatever is done to the server now, none of these would outlive it.
        for (cluster, server) in places {
            let of_it = |it: &str| {
                server.is_none_or(|number| {
                    cluster
                        .server(number)
                        .is_some_and(|server| server.name() == it)
                })
            };
            let pools = cluster.pools();
            let pools = pools.iter().filter(|pool| of_it(&pool.endpoint().name));
            pools.for_each(|pool| pool.close_idle());
        }
        return (StatusCode::OK, body);
    }
    if let Some(map) = body.as_object_mut() {
        let note = "nothing new begins there, and what runs goes on; ask again until running is 0";
        map.insert("note".to_owned(), note.into());
    }
    (StatusCode::ACCEPTED, body)
}

fn resume(gateway: &Gateway, places: &[Paused], name: &str) -> Value {
    set_paused(gateway, places, name, false);
    json!({ "store": name, "paused": false, "running": runs(places) })
}

fn set_paused(gateway: &Gateway, places: &[Paused], name: &str, paused: bool) {
    for (cluster, server) in places {
        cluster.pause(*server, paused);
    }
    let gauge = gateway.metrics.gauge(&metrics::STORE_PAUSED, &[name]);
    gauge.set(i64::from(paused));
    tracing::info!(store = name, paused, "an administrator steers a store");
}

/// What runs in those places.
fn runs(places: &[Paused]) -> usize {
    let each = places.iter().map(|(cluster, server)| match server {
        Some(number) => cluster.server(*number).map_or(0, Server::running),
        None => cluster.servers.iter().map(Server::running).sum(),
    });
    each.sum()
}

fn refused(status: StatusCode, why: impl Into<String>) -> (StatusCode, Value) {
    (status, json!({ "refused": why.into() }))
}

fn not_a_server(gateway: &Gateway, name: &str) -> (StatusCode, Value) {
    let clusters = gateway.clusters();
    let servers = |cluster: &Cluster| -> Vec<String> {
        let names = cluster.servers.iter().map(Server::name);
        names.map(str::to_owned).collect()
    };
    if let Some(cluster) = clusters.get(name) {
        let why = format!(
            "{name} is a sql-read-replica; name one of its servers: {}",
            servers(cluster).join(", ")
        );
        return refused(StatusCode::CONFLICT, why);
    }
    if let Some(store) = gateway.plan().stores.get(name) {
        let why = format!(
            "{name} is of type {} and no server of a sql-read-replica that a listener serves; \
             only those can be steered",
            store.type_name()
        );
        return refused(StatusCode::CONFLICT, why);
    }
    let mut known: Vec<String> = clusters.values().flat_map(|it| servers(it)).collect();
    known.sort();
    known.dedup();
    let known = if known.is_empty() {
        "this gateway serves no SQL".to_owned()
    } else {
        format!("there are: {}", known.join(", "))
    };
    refused(
        StatusCode::NOT_FOUND,
        format!("there is no store {name}; {known}"),
    )
}

/// Takes a server out of the choice for reads, or back into it, in every cluster it is of.
fn drain(places: &[Place], name: &str, drained: bool) -> Value {
    let mut running = 0;
    let mut is_primary = false;
    for (cluster, number) in places {
        let Some(server) = cluster.server(*number) else {
            continue;
        };
        server.drained.store(drained, Ordering::Relaxed);
        running += server.running();
        is_primary |= cluster.view().primary == Ok(*number);
    }
    tracing::info!(store = name, drained, "an administrator steers a server");
    let mut body = json!({ "store": name, "drained": drained, "running": running });
    if let (true, true, Some(map)) = (drained, is_primary, body.as_object_mut()) {
        let note = "it is the primary, which writes cannot do without: it goes on serving, and is \
                    drained as soon as it is a replica";
        map.insert("note".to_owned(), note.into());
    }
    body
}

/// Names the primary among several that claim to be it.
fn primary(places: &[Place], name: &str) -> (StatusCode, Value) {
    for (cluster, number) in places {
        if let Err(why) = claims(cluster, *number) {
            let why = format!(
                "{name} does not claim to be the primary of {}: {why}",
                cluster.options.name
            );
            return refused(StatusCode::CONFLICT, why);
        }
    }
    let note = places
        .iter()
        .find_map(|(cluster, it)| left_behind(cluster, *it));
    let mut epochs = serde_json::Map::new();
    for (cluster, number) in places {
        cluster.name_primary(Some(*number));
        let view = cluster.view();
        if view.primary != Ok(*number) {
            cluster.name_primary(None);
            let why = format!(
                "{name} was named and is not followed in {}: ask /status what is said of it",
                cluster.options.name
            );
            return refused(StatusCode::CONFLICT, why);
        }
        epochs.insert(cluster.options.name.clone(), view.epoch.into());
    }
    let mut body = json!({ "primary": name, "epoch": epochs });
    if let (Some(note), Some(map)) = (&note, body.as_object_mut()) {
        map.insert("note".to_owned(), note.as_str().into());
    }
    let note = note.unwrap_or_default();
    tracing::warn!(store = name, note, "an administrator has named the primary");
    (StatusCode::OK, body)
}

/// What clients lose sight of if this server is followed, which may be what somebody wants.
fn left_behind(cluster: &Cluster, number: usize) -> Option<String> {
    let view = cluster.view();
    let timeline = cluster.server(number)?.report()?.timeline?;
    (timeline < view.timeline).then(|| {
        format!(
            "it is on the older timeline {timeline}: what was committed on timeline {} is not \
             there; if that was no intention, name the other server again at once",
            view.timeline
        )
    })
}

/// Whether a server says that it is a primary of the cluster that is known; else why not.
fn claims(cluster: &Cluster, number: usize) -> Result<(), &'static str> {
    let report = cluster.server(number).and_then(Server::report);
    let report = report.ok_or("it does not answer; start it, or name another")?;
    if report.recovery {
        return Err("it is a replica; promote it first (pg_promote), then it is found by itself");
    }
    let known = cluster.view().system;
    if known != 0 && report.system != known {
        return Err("it belongs to another cluster (its system identifier differs)");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_store_and_an_action() {
        let check = |path: &str, expected: Option<(&str, Action)>| {
            assert_eq!(read(path), expected, "{path}");
        };
        check("/stores/pg1/drain", Some(("pg1", Action::Drain)));
        check("/stores/a.b_c-d/resume", Some(("a.b_c-d", Action::Resume)));
        check("/stores/pg1/primary", Some(("pg1", Action::Primary)));
        check("/stores/db/pause", Some(("db", Action::Pause)));
        check("/stores//drain", None);
        check("/stores/pg1", None);
        check("/stores/pg1/drain/", None);
        check("/stores/pg1/DRAIN", None);
        check("/status", None);
    }
}
