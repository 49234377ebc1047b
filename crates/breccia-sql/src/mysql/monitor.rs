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

use breccia_net::health::{ProbeConfig, ProbeFailure};
use breccia_net::metrics::{self, Registry};
use breccia_net::{NetError, clock};
use tokio::sync::Mutex;

use super::cluster::report::{self, Answer, Heard, Report};
use super::cluster::{Cluster, Sample};
use super::gtid::Gtids;
use super::upstream::{Endpoint, Login, ServerKind, Table};
use crate::error::SqlError;
use crate::freshness::Position as _;
use crate::watching::{chase, sampled, watch_role};
pub use catalogue::ask_catalogue;
pub use line::run_question;
use line::{Errand, Line, Told};
pub use schemas::{Catalogue, keep_schemas};

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
        let sampler = |it: usize| Some(&cluster.server(it)?.sampler);
        let primary = view.primary.as_ref().ok().and_then(|it| sampler(*it));
        let replicas = view.replicas.iter().filter_map(|it| sampler(*it));
        chase(primary, replicas).await;
    }
}

async fn probe_role(cluster: Arc<Cluster>, number: usize, probes: ProbeConfig) {
    let server = cluster.server(number);
    let Some((server, gate)) = server.zip(cluster.gates().server(number)) else {
        return;
    };
    let health = Arc::clone(&server.options.health);
    let line = Mutex::new(Line::default());
    let probe = |patience| probe_once(&cluster, number, &line, patience);
    watch_role(health, gate, probes, probe).await;
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
        let sample = told.and_then(|told| sample_of(&told, question, at));
        if sample.is_none() {
            line.close();
        }
        sampled(&server.sampler, sample).await;
    }
}

fn sample_of(told: &Told, number: u64, at: Instant) -> Option<Sample> {
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
