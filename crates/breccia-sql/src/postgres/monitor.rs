//! What the servers are asked on Breccia's own behalf: roles, positions, catalogues.
//!
//! Not a decision: answers go to [`super::cluster`]. Invariant: a question that is not answered
//! leaves a server unknown, and one that is unknown serves no reads.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use breccia_net::health::{ProbeConfig, ProbeFailure};
use breccia_net::metrics::{self, Registry};
use breccia_net::{NetError, clock};
use tokio::sync::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use super::cluster::report::{Answer, Heard, Report};
use super::cluster::{Cluster, Database, Server};
use super::token::Lsn;
use super::upstream::{Endpoint, Instance, Login, Row, Upstream};
use crate::class::{CatalogueBuilder, QUERIES};
use crate::error::SqlError;
use crate::sampler::Sample;
use crate::watching::{chase, sampled, watch_role};

/// Role, timeline, identity, position. A replica tells the timeline it receives; without the right
/// to see that, the one of its last restart point. More columns may be put behind; [`report`] reads
/// these.
pub const ROLE: &str = "SELECT pg_catalog.pg_is_in_recovery()::text, \
    (CASE WHEN pg_catalog.pg_is_in_recovery() \
     THEN greatest((SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver), \
                   (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint())) \
     ELSE ('x' || substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8))\
          ::bit(32)::int END)::text, \
    (SELECT system_identifier FROM pg_catalog.pg_control_system())::text, \
    (CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() \
     ELSE pg_catalog.pg_current_wal_insert_lsn() END)::text";

/// What a probe asks behind [`ROLE`]: how much of a primary's log replicas may have. Its next record
/// may lie behind the header of a page or segment that nobody has written yet.
const FLUSHED: &str = "(CASE WHEN pg_catalog.pg_is_in_recovery() \
     THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_flush_lsn() END)::text";

/// Role and position: a primary's next record, or what a replica has replayed for certain and what
/// a read there can have seen at most (a commit shows just before it counts as replayed).
const POSITION: &str = "SELECT pg_catalog.pg_is_in_recovery()::text, \
    (CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() \
     ELSE pg_catalog.pg_current_wal_insert_lsn() END)::text, \
    (CASE WHEN pg_catalog.pg_is_in_recovery() \
     THEN greatest(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn()) \
     END)::text";

/// How often a catalogue is read again although nobody said that it changed.
const CATALOGUE_INTERVAL: Duration = Duration::from_mins(1);
/// The same while some change may still be under way.
const DOUBT_INTERVAL: Duration = Duration::from_secs(1);
/// The pause after a catalogue that could not be read.
const CATALOGUE_RETRY: Duration = Duration::from_secs(2);
/// The pause while there is no primary to read one from.
const PRIMARY_RETRY: Duration = Duration::from_millis(50);
/// How often pools close what is idle.
const TIDY_INTERVAL: Duration = Duration::from_secs(1);

/// Watches a cluster for ever: roles by probes, positions on demand, catalogues of the databases
/// that are met. Runs in a multi-threaded runtime; the tasks it starts end with it.
pub async fn watch(cluster: Arc<Cluster>, probes: ProbeConfig, registry: Registry) {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..cluster.servers.len() {
        tasks.spawn(probe_role(Arc::clone(&cluster), number, probes));
        tasks.spawn(sample(Arc::clone(&cluster), number));
    }
    tasks.spawn(tidy(Arc::clone(&cluster), registry));
    tasks.spawn(follow_missed(Arc::clone(&cluster)));
    if let Some(server) = cluster.servers.first() {
        // The first session there need not wait for its catalogue.
        drop(cluster.database(&server.options.own_database));
    }
    let mut known = 0;
    loop {
        let databases = cluster.databases();
        for database in databases.iter().filter(|it| it.number >= known) {
            tasks.spawn(read_catalogues(Arc::clone(&cluster), Arc::clone(database)));
        }
        known = databases.len();
        cluster.met.notified().await;
    }
}

async fn tidy(cluster: Arc<Cluster>, registry: Registry) {
    loop {
        tokio::time::sleep(TIDY_INTERVAL).await;
        cluster.tidy();
        for (number, server) in cluster.servers.iter().enumerate() {
            let replica = server.report().is_some_and(|report| report.recovery);
            let labels = [server.name()];
            let Some((lag, bytes)) = cluster.lag(number).filter(|_| replica) else {
                // The last one would say of a replica that is gone that all is well.
                registry.remove(&metrics::REPLICA_LAG_SECONDS, &labels);
                registry.remove(&metrics::REPLICA_LAG_BYTES, &labels);
                continue;
            };
            let shown = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            let seconds = registry.gauge(&metrics::REPLICA_LAG_SECONDS, &labels);
            seconds.set(shown(lag.as_secs()));
            let gauge = registry.gauge(&metrics::REPLICA_LAG_BYTES, &labels);
            gauge.set(shown(bytes));
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

/// A connection for one kind of question, made when it is needed.
#[derive(Debug, Default)]
struct Line(Option<Upstream>);

impl Line {
    async fn ask(&mut self, server: &Server, sql: &str) -> Result<Vec<Row>, SqlError> {
        let endpoint = &server.options.endpoint;
        if let Some(mut upstream) = self.0.take() {
            match endpoint.ask(&mut upstream, sql).await {
                Ok(rows) => return Ok(self.keep(server, upstream, rows)),
                // Whether the server is there shows on a new connection only.
                Err(SqlError::Lost { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let login = server.own_login(None).ok_or_else(|| no_role(server))?;
        let mut upstream = endpoint.open(&login).await?;
        endpoint.identify(&mut upstream).await?;
        let rows = endpoint.ask(&mut upstream, sql).await?;
        Ok(self.keep(server, upstream, rows))
    }

    /// Of the server that the last answer came from: since when it runs at least, and which it is.
    fn instance(&self) -> Option<(Instant, Instance)> {
        let upstream = self.0.as_ref()?;
        Some((upstream.born, upstream.instance))
    }

    fn keep(&mut self, server: &Server, upstream: Upstream, rows: Vec<Row>) -> Vec<Row> {
        server.options.health.note_bytes();
        self.0 = Some(upstream);
        rows
    }
}

fn no_role(server: &Server) -> SqlError {
    SqlError::Login {
        server: server.name().to_owned(),
        role: String::new(),
        what: "the store has neither `user` nor `monitor-user`, so its role and position cannot \
               be asked",
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
    let sql = format!("{ROLE}, {FLUSHED}");
    match tokio::time::timeout(patience, line.ask(server, &sql)).await {
        Ok(Ok(rows)) => {
            let instance = line.instance().map(|(_, instance)| instance);
            let answer = rows.first().and_then(|row| probed(row, at, instance?));
            let said = answer.map(Heard::Said);
            cluster.note(number, |heard| said.unwrap_or(heard.unanswered()));
            Ok(())
        }
        Err(_) => {
            line.0 = None;
            cluster.note(number, Heard::unanswered);
            Err(ProbeFailure::Unanswered)
        }
        Ok(Err(SqlError::Refused { sqlstate, .. })) if sqlstate.starts_with("53") => {
            cluster.note(number, Heard::full);
            Ok(())
        }
        Ok(Err(error)) => {
            let gone = is_gone(&error);
            cluster.note(number, |heard| {
                if gone {
                    Heard::Gone
                } else {
                    heard.unanswered()
                }
            });
            Err(ProbeFailure::Connect(error.without_server()))
        }
    }
}

/// Whether an error shows that nothing listens, not only that something went wrong there.
fn is_gone(error: &SqlError) -> bool {
    matches!(
        error,
        SqlError::Connect {
            source: NetError::Connect { .. },
            ..
        }
    )
}

/// Reads the columns of [`ROLE`].
#[must_use]
pub fn report(columns: &[Option<String>]) -> Option<Report> {
    let [recovery, timeline, system, position, ..] = columns else {
        return None;
    };
    Some(Report {
        recovery: recovery.as_deref()? == "true",
        timeline: timeline.as_deref().and_then(|text| text.parse().ok()),
        system: system.as_deref()?.parse().ok()?,
        position: position.as_deref()?.parse().ok()?,
        flushed: position.as_deref()?.parse().ok()?,
    })
}

/// Reads the columns of a probe.
fn probed(columns: &[Option<String>], at: Instant, instance: Instance) -> Option<Answer> {
    let flushed = columns.get(4)?.as_deref()?.parse().ok()?;
    let report = report(columns)?;
    let report = Report {
        flushed,
        position: if report.recovery {
            report.position
        } else {
            end(report.position, instance)
        },
        ..report
    };
    let run = instance.run;
    Some(Answer { report, at, run })
}

/// Where a primary's log ends that is to go on at `next`.
fn end(next: Lsn, instance: Instance) -> Lsn {
    next.as_end(instance.page_bytes, instance.segment_bytes)
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
        let patience = server.options.endpoint.timeout;
        let asked = tokio::time::timeout(patience, line.ask(server, POSITION)).await;
        let answer = asked.ok().and_then(Result::ok);
        let sample = answer.and_then(|rows| sample_of(rows.first()?, question, at, &line));
        if sample.is_none() {
            line.0 = None;
        }
        sampled(&server.sampler, sample).await;
    }
}

fn sample_of(row: &Row, number: u64, at: Instant, line: &Line) -> Option<Sample<Lsn>> {
    let [recovery, position, seen] = row.as_slice() else {
        return None;
    };
    let (since, instance) = line.instance()?;
    let recovery = recovery.as_deref()? == "true";
    let position: Lsn = position.as_deref()?.parse().ok()?;
    let position = if recovery {
        position
    } else {
        end(position, instance)
    };
    let seen = seen.as_deref().and_then(|text| text.parse().ok());
    Some(Sample {
        number,
        at: Some(at),
        since: Some(since),
        run: instance.run,
        replica: recovery,
        position,
        seen: seen.unwrap_or(position),
    })
}

/// Keeps what is known of one database's catalogue true.
async fn read_catalogues(cluster: Arc<Cluster>, database: Arc<Database>) {
    let mut known = None;
    loop {
        let changes = database.changes.load(Ordering::Acquire);
        let pause = match read_catalogue(&cluster, &database).await {
            Ok(read) => {
                let builder = read.builder;
                let finished = tokio::task::spawn_blocking(move || builder.finish()).await;
                match finished {
                    Ok(catalogue) if changes == database.changes.load(Ordering::Acquire) => {
                        // One that says the same as the last is as true where that was.
                        if known != Some((changes, read.digest)) {
                            database.raise_floor(read.position);
                            known = Some((changes, read.digest));
                        }
                        database.classifier.set_catalogue(Arc::new(catalogue));
                        if database.take_doubt() {
                            DOUBT_INTERVAL
                        } else {
                            CATALOGUE_INTERVAL
                        }
                    }
                    // Changed while it was read.
                    _ => Duration::ZERO,
                }
            }
            Err(SqlError::NoPrimary { .. }) => PRIMARY_RETRY,
            Err(error) => {
                tracing::warn!(
                    store = cluster.options.name,
                    database = database.name,
                    %error,
                    "the catalogue cannot be read, so every statement goes to the primary"
                );
                CATALOGUE_RETRY
            }
        };
        let _ = tokio::time::timeout(pause, database.changed.notified()).await;
    }
}

/// A catalogue's rows, and where they were read.
struct CatalogueRead {
    builder: CatalogueBuilder,
    /// All that they show lies before it.
    position: Lsn,
    /// Of the rows, whatever their order.
    digest: u64,
}

async fn read_catalogue(cluster: &Cluster, database: &Database) -> Result<CatalogueRead, SqlError> {
    let view = cluster.view();
    let primary = view.primary.clone().map_err(|why| SqlError::NoPrimary {
        store: cluster.options.name.clone(),
        why,
    })?;
    let server = cluster.server(primary).ok_or_else(|| SqlError::NoPrimary {
        store: cluster.options.name.clone(),
        why: String::new(),
    })?;
    let login = server
        .own_login(Some(&database.name))
        .ok_or_else(|| no_role(server))?;
    let allowed = &cluster.options.read_functions;
    read(&server.options.endpoint, &login, allowed).await
}

/// Reads what the catalogue of the login's database says, as of one moment. Functions of the names in
/// `allowed` are taken for safe.
pub async fn catalogue(
    endpoint: &Endpoint,
    login: &Login,
    allowed: &[String],
) -> Result<CatalogueBuilder, SqlError> {
    Ok(read(endpoint, login, allowed).await?.builder)
}

async fn read(
    endpoint: &Endpoint,
    login: &Login,
    allowed: &[String],
) -> Result<CatalogueRead, SqlError> {
    let mut upstream = endpoint.open(login).await?;
    endpoint.identify(&mut upstream).await?;
    let begin = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY";
    endpoint.ask(&mut upstream, begin).await?;
    // Reading may write to the log (hints, whole pages): what is shown is fixed with the first question.
    let rows = endpoint.ask(&mut upstream, POSITION).await?;
    let position = rows
        .first()
        .and_then(|row| row.get(1)?.as_deref()?.parse().ok());
    let mut builder = CatalogueBuilder::new();
    for name in allowed {
        builder.allow_function(name);
    }
    let mut digest = 0_u64;
    for (number, sql) in QUERIES.iter().enumerate() {
        for row in endpoint.ask(&mut upstream, sql).await? {
            digest = digest.wrapping_add(digest_of(number, &row));
            let columns: Vec<Option<&str>> = row.iter().map(Option::as_deref).collect();
            builder.row(number, &columns);
        }
    }
    endpoint.ask(&mut upstream, "COMMIT").await?;
    Ok(CatalogueRead {
        builder,
        position: end(position.unwrap_or(Lsn(u64::MAX)), upstream.instance),
        digest,
    })
}

fn digest_of(query: usize, row: &Row) -> u64 {
    let mut bytes = query.to_le_bytes().to_vec();
    for column in row {
        match column {
            None => bytes.push(0),
            Some(text) => {
                bytes.push(1);
                bytes.extend_from_slice(&text.len().to_le_bytes());
                bytes.extend_from_slice(text.as_bytes());
            }
        }
    }
    xxh3_64(&bytes)
}
