//! Generated statements: what is classed as a read is one, by the word of the servers.
//!
//! Each statement classed as a read runs on the primary, where it must leave no trace, and on a
//! standby that has caught up, where it must answer the same. The same is asked of the server's own
//! functions. Invariant: nothing that is not classed as a read is ever run.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use breccia_sql::class::{CatalogueBuilder, Class, Classifier, QUERIES};
use breccia_testkit::{ClusterOptions, Postgres, PostgresCluster, SqlClient};

use crate::rig::LIMIT;

#[path = "corpus_check.rs"]
mod check;
#[path = "corpus_functions.rs"]
mod functions;
#[path = "corpus_grammar.rs"]
mod grammar;
#[path = "corpus_setup.rs"]
mod setup;

use check::Servers;

const DATABASE: &str = "corpus";
/// How many statements a run makes unless `BRECCIA_TEST_STATEMENTS` says otherwise.
const STATEMENTS: usize = 8_000;
/// Of a hundred statements made of honest parts, so many are classed as reads.
const CLASSED: usize = 90;
/// Of a hundred statements classed as reads, so many run without an error of their own.
const SUCCEED: usize = 80;

/// A primary and a standby that say nothing of what they refuse.
fn cluster() -> Result<PostgresCluster> {
    let settings = [
        ("log_min_messages", "panic"),
        ("log_min_error_statement", "panic"),
        ("autovacuum", "off"),
        ("shared_buffers", "32MB"),
        // A listening session hears of what it should not have done.
        ("max_connections", "50"),
    ];
    let cluster = PostgresCluster::start(ClusterOptions {
        standbys: 1,
        settings: settings
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        ..ClusterOptions::default()
    })?;
    cluster.primary().create_database(DATABASE)?;
    set_up(cluster.primary(), DATABASE, setup::SETUP)?;
    cluster.wait_caught_up(LIMIT)?;
    Ok(cluster)
}

fn set_up(server: &Postgres, database: &str, statements: &[&str]) -> Result<()> {
    let mut client = SqlClient::connect(server.port(), database)?;
    for sql in statements {
        client.run(sql)?;
    }
    Ok(())
}

/// A classifier that knows a database's catalogue as a gateway does.
fn classifier(server: &Postgres, database: &str) -> Result<Classifier> {
    let mut client = SqlClient::connect(server.port(), database)?;
    let mut builder = CatalogueBuilder::new();
    for (number, sql) in QUERIES.iter().enumerate() {
        for row in client.run(sql)?.rows {
            let columns: Vec<_> = row.iter().map(Option::as_deref).collect();
            builder.row(number, &columns);
        }
    }
    let classifier = Classifier::new();
    classifier.set_catalogue(builder.finish().into());
    Ok(classifier)
}

/// Why a statement is not classed as a read.
fn reason(class: &Class) -> String {
    match class {
        Class::Primary(reason) => (*reason).to_owned(),
        other => format!("{other:?}"),
    }
}

#[test]
fn what_is_classed_as_a_read_leaves_no_trace_and_is_answered_alike() -> Result<()> {
    let cluster = cluster()?;
    let classifier = classifier(cluster.primary(), DATABASE)?;
    let mut servers = Servers::connect(&cluster, DATABASE, Some("app"))?;
    let given = std::env::var("BRECCIA_TEST_STATEMENTS").ok();
    let wanted = given
        .and_then(|number| number.parse().ok())
        .unwrap_or(STATEMENTS);
    let mut dice = crate::lexer::dice();
    let (mut honest, mut others, mut reads) = (0_usize, 0_usize, 0_usize);
    let mut missed: BTreeMap<String, (usize, String)> = BTreeMap::new();
    let mut complaints = String::new();
    for _ in 0..wanted {
        let made = grammar::statement(&mut dice);
        let class = classifier.classify(made.sql.as_bytes(), true).class.clone();
        let is_read = class == Class::Read;
        if made.parts.is_empty() {
            honest += 1;
        } else {
            others += 1;
        }
        match (made.parts.is_empty(), is_read) {
            (true, false) => {
                let missed = missed
                    .entry(reason(&class))
                    .or_insert((0, made.sql.clone()));
                missed.0 += 1;
                // The shortest tells most.
                if made.sql.len() < missed.1.len() {
                    missed.1.clone_from(&made.sql);
                }
            }
            (false, true) => writeln!(complaints, "a read: {:?} with {:?}", made.sql, made.parts)?,
            _ => {}
        }
        if is_read {
            reads += 1;
            servers.check(&made.sql)?;
        }
    }
    servers.finish()?;
    complaints += &servers.complaints;
    let classed = honest - missed.values().map(|(count, _)| count).sum::<usize>();
    println!(
        "{honest} statements of honest parts, {classed} of them classed as reads; {others} others"
    );
    for (reason, (count, example)) in &missed {
        println!("not a read, {reason}: {count}, such as {example:?}");
    }
    println!("{reads} ran on both servers; {}", servers.summary());
    ensure!(complaints.is_empty(), "\n{complaints}");
    ensure!(
        classed * 100 >= honest * CLASSED,
        "too few are classed as reads"
    );
    ensure!(
        servers.succeeded() * 100 >= reads * SUCCEED,
        "too many fail to tell anything"
    );
    ensure!(others * 5 >= wanted, "too few that are no reads");
    Ok(())
}

/// Each leaves something, or is answered by each server in its own way.
const TELLTALES: &[&str] = &[
    "SELECT nextval('ids')",
    "SELECT setval('ids', 1)",
    "SELECT pg_advisory_xact_lock(1)",
    "SELECT pg_advisory_lock_shared(2)",
    "SELECT lies(3)",
    "SELECT * FROM index_lies",
    "SELECT set_config('work_mem', '5MB', false)",
    "SELECT pg_notify('ch', 'x')",
    "SELECT txid_current()",
    "SELECT lo_create(0)",
    "SELECT writes()",
    "SELECT a FROM plain FOR SHARE",
    "CREATE TEMP TABLE left_behind ()",
    "PREPARE left_behind AS SELECT 1",
    "DECLARE left_behind CURSOR WITH HOLD FOR SELECT 1",
    "SELECT pg_is_in_recovery()",
    "SELECT inet_server_port()",
    "SELECT count(*) FROM fast",
    "SELECT count(*) FROM pg_stat_replication",
];

/// The check itself: whatever is no read is found out by it.
fn sees_what_is_no_read(servers: &mut Servers) -> Result<()> {
    for sql in TELLTALES {
        servers.complaints.clear();
        servers.check(sql)?;
        servers.finish()?;
        ensure!(
            !servers.complaints.is_empty(),
            "nothing is wrong with {sql}"
        );
    }
    servers.complaints.clear();
    Ok(())
}

#[test]
fn functions_of_the_server_classed_as_reads_are_answered_alike() -> Result<()> {
    let cluster = cluster()?;
    let classifier = classifier(cluster.primary(), DATABASE)?;
    // Most rights: what is refused tells nothing.
    let mut servers = Servers::connect(&cluster, DATABASE, None)?;
    let mut client = SqlClient::connect(cluster.primary().port(), DATABASE)?;
    let calls = functions::calls(&mut client)?;
    let mut reads = 0_usize;
    for sql in &calls {
        if classifier.classify(sql.as_bytes(), true).class == Class::Read {
            reads += 1;
            servers.check(sql)?;
        }
    }
    servers.finish()?;
    println!(
        "{} statements, {reads} classed as reads; {}",
        calls.len(),
        servers.summary()
    );
    ensure!(servers.complaints.is_empty(), "\n{}", servers.complaints);
    ensure!(reads > 3_000, "too few functions are reads");
    ensure!(
        servers.succeeded() * 2 > reads,
        "too many fail to tell anything"
    );
    sees_what_is_no_read(&mut servers)
}

#[test]
fn nothing_is_a_read_where_a_server_calls_what_lies_by_itself() -> Result<()> {
    let server = Postgres::new()?;
    let mut complaints = String::new();
    for (number, liar) in setup::LIARS.iter().enumerate() {
        let database = format!("liar{number}");
        server.create_database(&database)?;
        set_up(&server, &database, liar.setup).with_context(|| format!("liar {number}"))?;
        let mut client = SqlClient::connect(server.port(), &database)?;
        client.run("BEGIN")?;
        client.run(liar.sql)?;
        let locks = client.run("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")?;
        if locks.value() == Some("0") {
            writeln!(complaints, "{number}: {} takes no lock", liar.sql)?;
        }
        let class = classifier(&server, &database)?
            .classify(liar.sql.as_bytes(), true)
            .class
            .clone();
        if class == Class::Read {
            writeln!(complaints, "{number}: {} is a read", liar.sql)?;
        }
        println!("{}: {}", liar.sql, reason(&class));
    }
    ensure!(complaints.is_empty(), "\n{complaints}");
    Ok(())
}

#[test]
fn a_body_in_plpgsql_is_a_read_exactly_if_what_it_calls_is() -> Result<()> {
    let server = Postgres::new()?;
    server.create_database("bodies")?;
    set_up(&server, "bodies", setup::BODIES_SETUP)?;
    let of = |name: &str| {
        setup::BODIES
            .iter()
            .map(move |body| body.replace("{f}", name))
            .collect()
    };
    let mut bodies: Vec<String> = of("honest");
    let honest = bodies.len();
    bodies.extend::<Vec<_>>(of("lies"));
    bodies.extend(setup::LYING_BODIES.iter().map(|body| (*body).to_owned()));
    let mut client = SqlClient::connect(server.port(), "bodies")?;
    for (number, body) in bodies.iter().enumerate() {
        let head = format!("CREATE FUNCTION b{number}() RETURNS int LANGUAGE plpgsql STABLE");
        client.run(&format!("{head} AS $b${body}$b$"))?;
    }
    let classifier = classifier(&server, "bodies")?;
    let mut complaints = String::new();
    for (number, body) in bodies.iter().enumerate() {
        let call = format!("SELECT b{number}()");
        client.run("BEGIN")?;
        client.run(&call).with_context(|| body.clone())?;
        let locks = client.run("SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory'")?;
        client.run("COMMIT")?;
        let class = classifier.classify(call.as_bytes(), true).class.clone();
        let lies = locks.value() == Some("t");
        if lies != (number >= honest) || lies == (class == Class::Read) {
            writeln!(
                complaints,
                "takes a lock: {lies}, {}: {body}",
                reason(&class)
            )?;
        }
    }
    ensure!(complaints.is_empty(), "\n{complaints}");
    Ok(())
}
