//! What the servers are asked on Breccia's own behalf: roles and positions.
//!
//! Not a decision: answers go to [`super::cluster`]. Invariant: a question that is not answered
//! leaves a server unknown, and one that is unknown serves no reads.

mod catalogue;
mod ddl;
mod line;
mod schemas;

use std::sync::Arc;
use std::time::{Duration, Instant};

use breccia_net::health::{ProbeConfig, ProbeFailure, probe_loop};
use breccia_net::metrics::{self, Registry};
use breccia_net::{NetError, clock};
use tokio::sync::Mutex;

use super::cluster::report::{self, Answer, Heard, Report};
use super::cluster::{Cluster, Sample};
use super::gtid::Gtids;
use super::upstream::{Endpoint, Login, ServerKind, Table};
use crate::error::SqlError;
use crate::freshness::Position as _;
pub use catalogue::ask_catalogue;
pub use line::run_question;
use line::{Errand, Line, Told};
pub use schemas::{Catalogue, keep_schemas};

/// How long positions are asked for that nobody waits for.
const MISSED_PATIENCE: Duration = Duration::from_secs(2);
/// The pause between two questions for the position of one server.
const SAMPLE_PAUSE: Duration = Duration::from_micros(300);
/// The pause after one that failed.
const FAILED_PAUSE: Duration = Duration::from_millis(100);
/// How often pools close what is idle.
const TIDY_INTERVAL: Duration = Duration::from_secs(1);

/// Watches a cluster for ever: roles by probes, positions on demand. Runs in a multi-threaded runtime;
/// the tasks it starts end with it.
pub async fn watch(cluster: Arc<Cluster>, probes: ProbeConfig, registry: Registry) {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..cluster.servers.len() {
        tasks.spawn(probe_role(Arc::clone(&cluster), number, probes));
        tasks.spawn(sample(Arc::clone(&cluster), number));
    }
    tasks.spawn(tidy(Arc::clone(&cluster), registry));
    let schemas = catalogue::Schemas {
        read_functions: cluster.options.read_functions.clone(),
    };
    tasks.spawn(keep_schemas(Arc::clone(&cluster), schemas));
    tasks.spawn(follow_missed(cluster));
    while tasks.join_next().await.is_some() {}
}

/// Asks one server what it is, on a connection of its own: for `breccia check --connect`. `None`: it
/// tells neither its number nor where it is.
pub async fn ask_report(endpoint: &Endpoint, login: &Login) -> Result<Option<Report>, SqlError> {
    let mut upstream = endpoint.open(login).await?;
    let tables = line::carry_out(endpoint, &mut upstream, Errand::Role).await?;
    Ok(read_report(upstream.server, &tables))
}

/// What an operator is told of a server that may not be asked what it is.
#[must_use]
pub fn complaint(error: &SqlError) -> String {
    match error {
        SqlError::Question { text, sqlstate, .. } if sqlstate == "42000" => format!(
            "its replication cannot be asked ({text}): GRANT SLAVE MONITOR ON *.* (MariaDB) or \
             REPLICATION CLIENT ON *.* (MySQL) to the store's `monitor-user`, or `user`"
        ),
        other => other.to_string(),
    }
}

async fn tidy(cluster: Arc<Cluster>, registry: Registry) {
    loop {
        tokio::time::sleep(TIDY_INTERVAL).await;
        cluster.tidy();
        for (number, server) in cluster.servers.iter().enumerate() {
            let replica = server.is_replica() == Some(true);
            let labels = [server.name()];
            let Some(lag) = cluster.lag(number).filter(|_| replica) else {
                // The last one would say of a replica that is gone that all is well.
                registry.remove(&metrics::REPLICA_LAG_SECONDS, &labels);
                continue;
            };
            let seconds = i64::try_from(lag.as_secs()).unwrap_or(i64::MAX);
            let gauge = registry.gauge(&metrics::REPLICA_LAG_SECONDS, &labels);
            gauge.set(seconds);
        }
    }
}

/// Asks for the positions that a read did not find in time: the primary's, then the replicas', which
/// may have come up to it by then.
async fn follow_missed(cluster: Arc<Cluster>) {
    loop {
        cluster.missed.notified().await;
        let view = cluster.view();
        let primary = view.primary.clone().ok();
        if let Some(primary) = primary.and_then(|it| cluster.server(it)) {
            let end = clock::now() + MISSED_PATIENCE;
            let sampler = &primary.sampler;
            let _ = sampler.from_now(end).await;
        }
        for replica in view.replicas.iter().filter_map(|it| cluster.server(*it)) {
            replica.sampler.ask(replica.sampler.ticket());
        }
    }
}

async fn probe_role(cluster: Arc<Cluster>, number: usize, probes: ProbeConfig) {
    let Some(health) = cluster
        .server(number)
        .map(|it| Arc::clone(&it.options.health))
    else {
        return;
    };
    let line = Arc::new(Mutex::new(Line::default()));
    // Whoever waits for the probe must not give it up before its silence was noted.
    let patience = probes.timeout.mul_f32(0.9);
    let watched = Arc::clone(&cluster);
    let probing = Arc::clone(&line);
    let probe = move || {
        let (cluster, line) = (Arc::clone(&watched), Arc::clone(&probing));
        async move { probe_once(&cluster, number, &line, patience).await }
    };
    let Some(gate) = cluster.gates().server(number) else {
        return;
    };
    // A probe under way ends first: what is noted last was asked last. The health is for the prober to tell.
    let asks = gate
        .questions
        .carry_out(|| probe_once(&cluster, number, &line, patience));
    tokio::join!(probe_loop(health, probes, probe), asks);
}

async fn probe_once(
    cluster: &Cluster,
    number: usize,
    line: &Mutex<Line>,
    patience: Duration,
) -> Result<(), ProbeFailure> {
    let Some(server) = cluster.server(number) else {
        return Ok(());
    };
    let mut line = line.lock().await;
    let at = clock::now();
    match tokio::time::timeout(patience, line.ask(server, Errand::Role)).await {
        Ok(Ok(told)) => {
            let answer = answered(&told, at);
            let trouble = answer.is_none().then(|| {
                "it tells neither its server_id nor where it is, so its role is unknown".to_owned()
            });
            cluster.note(number, trouble, |heard| match answer {
                Some(answer) => Heard::Said(answer),
                None => heard.unanswered(),
            });
            Ok(())
        }
        Err(_) => {
            line.close();
            cluster.note(number, None, Heard::unanswered);
            Err(ProbeFailure::Unanswered)
        }
        Ok(Err(error)) => {
            line.close();
            failed(cluster, number, &error)
        }
    }
}

/// A probe that ended in an error: the server is gone, lets nobody in for now, or must not be asked.
fn failed(cluster: &Cluster, number: usize, error: &SqlError) -> Result<(), ProbeFailure> {
    match error {
        // Too many connections, of all users or of this one.
        SqlError::Refused { sqlstate, .. } if sqlstate.starts_with("08") || sqlstate == "42000" => {
            cluster.note(number, None, Heard::full);
            Ok(())
        }
        SqlError::Refused { .. } | SqlError::Login { .. } | SqlError::Question { .. } => {
            let why = complaint(error);
            cluster.note(number, Some(why.clone()), Heard::unanswered);
            // It is there: clients may get in where this user may not.
            Ok(())
        }
        SqlError::Hanging { .. } => {
            cluster.note(number, Some(error.to_string()), Heard::unanswered);
            Err(ProbeFailure::Unanswered)
        }
        SqlError::Connect {
            source: NetError::Connect { .. },
            ..
        } => {
            cluster.note(number, None, |_| Heard::Gone);
            Err(ProbeFailure::Connect(error.without_server()))
        }
        _ => {
            cluster.note(number, None, Heard::unanswered);
            Err(ProbeFailure::Connect(error.without_server()))
        }
    }
}

/// What a server says it is.
fn answered(told: &Told, at: Instant) -> Option<Answer> {
    let report = read_report(told.kind, &told.tables)?;
    let run = told.run;
    Some(Answer { report, at, run })
}

fn read_report(kind: ServerKind, tables: &[Table]) -> Option<Report> {
    let [variables, replication, galera @ ..] = tables else {
        return None;
    };
    Report::read(kind, variables, replication, galera.first())
}

/// Asks one server for its position whenever somebody wants it.
async fn sample(cluster: Arc<Cluster>, number: usize) {
    let Some(server) = cluster.server(number) else {
        return;
    };
    let mut line = Line::default();
    // The first wait is for an answer, and not for a login too; and what a session reads from now on
    // is of the run that this connection is to.
    server.sampler.ask(server.sampler.ticket());
    loop {
        let question = server.sampler.next_question().await;
        let at = clock::now();
        let asked = line.ask(server, Errand::Position);
        let asked = tokio::time::timeout(server.options.endpoint.timeout, asked).await;
        let told = asked.ok().and_then(Result::ok);
        if let Some(sample) = told.and_then(|told| sampled(&told, question, at)) {
            server.sampler.publish(sample);
            tokio::time::sleep(SAMPLE_PAUSE).await;
        } else {
            line.close();
            tokio::time::sleep(FAILED_PAUSE).await;
        }
    }
}

fn sampled(told: &Told, number: u64, at: Instant) -> Option<Sample> {
    let [position, replication] = told.tables.as_slice() else {
        return None;
    };
    let sources = report::sources(replication);
    let (position, seen) = positioned(told.kind, position, &sources)?;
    Some(Sample {
        number,
        replica: !sources.is_empty(),
        position,
        seen,
        at: Some(at),
        since: Some(told.since),
        run: told.run,
    })
}

/// Where a server is, and what a read there can have seen at most.
fn positioned(
    kind: ServerKind,
    table: &Table,
    sources: &[report::Source],
) -> Option<(Gtids, Gtids)> {
    let [first, second] = table.rows.first()?.as_slice() else {
        return None;
    };
    let first: Gtids = first.as_deref()?.parse().ok()?;
    let second: Gtids = second.as_deref()?.parse().ok()?;
    if sources.is_empty() {
        let position = match kind {
            ServerKind::MariaDb => report::primary_position(Some(first), Some(second)),
            ServerKind::MySql => first,
        };
        return Some((position.clone(), position));
    }
    let position = match kind {
        ServerKind::MariaDb => second,
        ServerKind::MySql => first,
    };
    let mut seen = position.clone();
    for source in sources {
        seen.raise(&source.received);
    }
    Some((position, seen))
}
