//! `POST /stores/NAME/{drain,resume,pause,primary}`: steering the servers of SQL clusters.
//!
//! Not who may: the caller has seen to the token. Invariant: whatever is not done is said, and why.

use std::time::Duration;

use breccia_net::{clock, metrics};
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::clusters::AnyCluster;
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
type Place = (AnyCluster, usize);

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
        let whole = [(cluster.clone(), None)];
        return match action {
            Action::Pause => pause(gateway, &whole, name).await,
            _ => (StatusCode::OK, resume(gateway, &whole, name)),
        };
    }
    let places: Vec<Place> = clusters
        .values()
        .filter_map(|cluster| {
            let number = cluster.server_names().iter().position(|it| *it == name)?;
            Some((cluster.clone(), number))
        })
        .collect();
    if places.is_empty() {
        return not_a_server(gateway, name);
    }
    let paused = || -> Vec<Paused> {
        let each = places.iter();
        each.map(|(cluster, number)| (cluster.clone(), Some(*number)))
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
type Paused = (AnyCluster, Option<usize>);

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
            cluster.close_idle(*server);
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
    let each = places.iter();
    each.map(|(cluster, server)| cluster.running(*server)).sum()
}

fn refused(status: StatusCode, why: impl Into<String>) -> (StatusCode, Value) {
    (status, json!({ "refused": why.into() }))
}

fn not_a_server(gateway: &Gateway, name: &str) -> (StatusCode, Value) {
    let clusters = gateway.clusters();
    if let Some(cluster) = clusters.get(name) {
        let why = format!(
            "{name} is a sql-read-replica; name one of its servers: {}",
            cluster.server_names().join(", ")
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
    let mut known: Vec<&str> = clusters.values().flat_map(|it| it.server_names()).collect();
    known.sort_unstable();
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
        cluster.drain(*number, drained);
        running += cluster.running(Some(*number));
        is_primary |= cluster.now().primary == Ok(*number);
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
        if let Err(why) = cluster.claims(*number) {
            let why = format!(
                "{name} does not claim to be the primary of {}: {why}",
                cluster.name()
            );
            return refused(StatusCode::CONFLICT, why);
        }
    }
    let note = places
        .iter()
        .find_map(|(cluster, it)| cluster.left_behind(*it));
    let mut epochs = serde_json::Map::new();
    for (cluster, number) in places {
        cluster.name_primary(Some(*number));
        let now = cluster.now();
        if now.primary != Ok(*number) {
            cluster.name_primary(None);
            let why = format!(
                "{name} was named and is not followed in {}: ask /status what is said of it",
                cluster.name()
            );
            return refused(StatusCode::CONFLICT, why);
        }
        epochs.insert(cluster.name().to_owned(), now.epoch.into());
    }
    let mut body = json!({ "primary": name, "epoch": epochs });
    if let (Some(note), Some(map)) = (&note, body.as_object_mut()) {
        map.insert("note".to_owned(), note.as_str().into());
    }
    let note = note.unwrap_or_default();
    tracing::warn!(store = name, note, "an administrator has named the primary");
    (StatusCode::OK, body)
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
