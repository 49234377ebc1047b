//! `POST /stores/NAME/{drain,resume,pause,primary}`: steering the servers of SQL clusters.
//!
//! Not who may: the caller has seen to the token. Invariant: whatever is not done is said, and why.

use std::time::{Duration, Instant};

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
/// How long the end of a pause waits for a primary that says it is one.
const RESUME_WAIT: Duration = Duration::from_secs(5);
/// How long after an answer the servers are asked again.
const RESUME_LOOK: Duration = Duration::from_millis(50);

/// Does it; the status and the body of the answer.
pub(super) async fn steer(gateway: &Gateway, name: &str, action: Action) -> (StatusCode, Value) {
    let clusters = gateway.clusters();
    if let Some(cluster) = clusters.get(name)
        && matches!(action, Action::Pause | Action::Resume)
    {
        let whole = [(cluster.clone(), None)];
        return match action {
            Action::Pause => pause(gateway, &whole, name).await,
            _ => (StatusCode::OK, resume(gateway, &whole, name).await),
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
            let resumed = resume(gateway, &paused(), name).await;
            let mut body = drain(&places, name, false);
            if let (Some(note), Some(map)) = (resumed.get("note"), body.as_object_mut()) {
                map.insert("note".to_owned(), note.clone());
            }
            (StatusCode::OK, body)
        }
        Action::Primary => primary(&places, name),
        Action::Pause => pause(gateway, &paused(), name).await,
    }
}

/// A cluster, and the server of it that is paused; none: all of it.
type Paused = (AnyCluster, Option<usize>);

/// Holds back what has not begun, and waits a while for the end of what has.
async fn pause(gateway: &Gateway, places: &[Paused], name: &str) -> (StatusCode, Value) {
    let turn = gateway.steering.lock().await;
    set_paused(gateway, places, name, true);
    drop(turn);
    let end = clock::now() + PAUSE_WAIT;
    let mut running = runs(places);
    while running > 0 && clock::now() < end {
        tokio::time::sleep(PAUSE_LOOK).await;
        running = runs(places);
    }
    // Somebody may have ended it meanwhile.
    let paused = places
        .iter()
        .all(|(cluster, server)| is_paused(cluster, *server));
    let waiting: usize = places
        .iter()
        .map(|(cluster, _)| cluster.gates().waiting())
        .sum();
    let mut body = json!({
        "store": name, "paused": paused, "running": running, "waiting": waiting,
    });
    if !paused && let Some(map) = body.as_object_mut() {
        map.insert("note".to_owned(), "the pause was ended meanwhile".into());
        return (StatusCode::CONFLICT, body);
    }
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

/// Ends a pause once it is known who the primary is now: what waited must not go to the one of before.
async fn resume(gateway: &Gateway, places: &[Paused], name: &str) -> Value {
    // A pause that comes meanwhile begins after this one's end.
    let turn = gateway.steering.lock().await;
    let end = clock::now() + RESUME_WAIT;
    let mut unknown = None;
    for (cluster, server) in places {
        if !is_paused(cluster, *server) {
            continue;
        }
        if let Err(why) = know_primary(cluster, end).await {
            unknown.get_or_insert_with(|| format!("{}: {why}", cluster.name()));
        }
        // Whatever was done to the server, none of these was made to what it is now.
        cluster.close_idle(*server);
    }
    set_paused(gateway, places, name, false);
    drop(turn);
    let mut body = json!({ "store": name, "paused": false, "running": runs(places) });
    if let (Some(why), Some(map)) = (unknown, body.as_object_mut()) {
        tracing::warn!(store = name, why, "a pause ends without a primary");
        let note = format!("what waited goes on without a primary that takes writes: {why}");
        map.insert("note".to_owned(), note.into());
    }
    body
}

fn is_paused(cluster: &AnyCluster, server: Option<usize>) -> bool {
    let by_itself = |number: usize| {
        cluster
            .gates()
            .server(number)
            .is_some_and(|it| it.is_paused())
    };
    server.map_or_else(|| cluster.gates().is_paused(), by_itself)
}

/// Asks the servers anew until one is the primary and says so, or until `end`: then why none is.
async fn know_primary(cluster: &AnyCluster, end: Instant) -> Result<(), String> {
    loop {
        let asked = tokio::time::timeout_at(end.into(), cluster.gates().ask_anew()).await;
        let primary = takes_writes(cluster);
        let known = primary.is_ok() && asked.is_ok();
        if known || clock::now() + RESUME_LOOK >= end {
            return primary;
        }
        tokio::time::sleep(RESUME_LOOK).await;
    }
}

/// Whether there is a primary that says it is one, and is not known to be down.
fn takes_writes(cluster: &AnyCluster) -> Result<(), String> {
    let now = cluster.now();
    let number = now.primary?;
    let server = now.servers.get(number);
    let name = server.map_or("?", |it| it.name.as_str());
    if let Some(why) = server.and_then(|it| it.down.as_ref()) {
        return Err(format!("{name} is down: {why}"));
    }
    let claims = cluster.claims(number);
    claims.map_err(|why| format!("{name}: {why}"))
}

fn set_paused(gateway: &Gateway, places: &[Paused], name: &str, paused: bool) {
    for (cluster, server) in places {
        cluster.gates().pause(*server, paused);
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
