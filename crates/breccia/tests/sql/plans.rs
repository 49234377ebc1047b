//! Statements that a driver has described once, after the database has changed.
//!
//! Not which server they run on (`prepared.rs`). Invariant: rows have the columns that the client was
//! told, or the client gets the error that a server gives which has kept the statement.

use anyhow::{Context, Result, ensure};
use breccia_testkit::{PostgresCluster, SqlClient};

use crate::pooling::database;
use crate::rig::{Extra, Gateway};

/// Prepares and describes `sql` as a driver does.
fn prepare(client: &mut SqlClient, name: &str, sql: &str) -> Result<()> {
    client.parse(name, sql);
    let describe = format!("S{name}\0");
    client.frame(b'D', describe.as_bytes());
    client.sync().ask()?.good()?;
    Ok(())
}

/// Runs it without asking for its columns again: its first value, or its SQLSTATE.
fn run(client: &mut SqlClient, name: &str) -> Result<String> {
    client.bind(name, &[]).frame(b'E', b"\0\0\0\0\0");
    let reply = client.sync().ask()?;
    Ok(match reply.code() {
        "" => reply.value().unwrap_or("no row").to_owned(),
        code => code.to_owned(),
    })
}

/// What a client sees whose statement's table another client changes.
type Story = fn(&mut SqlClient, &mut SqlClient) -> Result<Vec<String>>;

const STORIES: [(&str, Story); 5] = [
    ("another type", |one, other| {
        prepare(one, "s", "SELECT a FROM p")?;
        let before = run(one, "s")?;
        other.run("ALTER TABLE p ALTER a TYPE text USING 'abcd'")?;
        let after = run(one, "s")?;
        prepare(one, "again", "SELECT a FROM p")?;
        Ok(vec![before, after, run(one, "again")?, run(one, "s")?])
    }),
    ("in a transaction", |one, other| {
        prepare(one, "s", "SELECT a FROM p")?;
        other.run("ALTER TABLE p ALTER a TYPE text USING 'abcd'")?;
        one.run("BEGIN")?;
        let failed = vec![run(one, "s")?, run(one, "s")?];
        one.run("ROLLBACK")?;
        one.run("BEGIN")?;
        let again = vec![run(one, "s")?];
        one.run("COMMIT")?;
        Ok([failed, again].concat())
    }),
    ("a write that returns", |one, other| {
        prepare(one, "s", "UPDATE p SET b = b + 1 RETURNING a")?;
        let before = run(one, "s")?;
        other.run("ALTER TABLE p ALTER a TYPE text USING 'abcd'")?;
        let after = run(one, "s")?;
        // It was not carried out.
        let done = one.run("SELECT b FROM p")?;
        Ok(vec![before, after, done.value().unwrap_or("").to_owned()])
    }),
    ("another table by the same name", |one, other| {
        other.run("CREATE SCHEMA x; CREATE TABLE x.p (a text); INSERT INTO x.p VALUES ('abcd')")?;
        prepare(one, "s", "SELECT a FROM p")?;
        let before = run(one, "s")?;
        one.run("SET search_path = x")?;
        let there = run(one, "s")?;
        one.run("SET search_path = public")?;
        Ok(vec![before, there, run(one, "s")?])
    }),
    ("a table more", |one, other| {
        prepare(one, "s", "SELECT a FROM p")?;
        other.run("CREATE TABLE q (a int)")?;
        let first = run(one, "s")?;
        other.run("ALTER TABLE p ADD c int")?;
        one.run("BEGIN")?;
        let second = run(one, "s")?;
        one.run("COMMIT")?;
        Ok(vec![first, second, run(one, "s")?])
    }),
];

fn fresh(cluster: &PostgresCluster, database: &str) -> Result<()> {
    let sql = "DROP SCHEMA IF EXISTS x CASCADE; DROP TABLE IF EXISTS p, q; \
        CREATE TABLE p (a int, b int); INSERT INTO p VALUES (7, 0)";
    cluster.primary().query(database, sql)?;
    cluster.wait_caught_up(crate::rig::LIMIT)
}

#[test]
fn a_client_sees_what_it_would_see_on_a_server_of_its_own() -> Result<()> {
    let cluster = database("plans")?;
    for (composite, listener) in [
        ("", "pool-size = 2"),
        ("transactions = \"lazy\"", "pool-size = 1"),
        ("", "pool-mode = \"session\""),
    ] {
        let extra = Extra {
            composite,
            listener,
            ..Extra::default()
        };
        let gateway = Gateway::over(&cluster, "plans", extra)?;
        for (name, story) in STORIES {
            fresh(&cluster, "plans")?;
            let direct = || SqlClient::connect(cluster.primary().port(), "plans");
            let expected = story(&mut direct()?, &mut direct()?)?;
            fresh(&cluster, "plans")?;
            let through = || gateway.client("plans");
            let seen = story(&mut through()?, &mut through()?);
            let seen = seen.with_context(|| format!("{name}, {listener} {composite}"))?;
            ensure!(
                seen == expected,
                "{name}, {listener} {composite}: {seen:?} instead of {expected:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn what_is_changed_behind_the_gateway_is_not_read_as_it_was() -> Result<()> {
    let cluster = database("behind_plans")?;
    let name = "behind_plans";
    fresh(&cluster, name)?;
    let gateway = Gateway::over(&cluster, name, Extra::default())?;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = gateway.client(name)?;
        prepare(&mut client, "s", "SELECT a FROM p")?;
        ensure!(run(&mut client, "s")? == "7");
        clients.push(client);
    }
    let change = "ALTER TABLE p ALTER a TYPE text USING 'abcd'";
    cluster.primary().query(name, change)?;
    cluster.wait_caught_up(crate::rig::LIMIT)?;
    // Connections that have kept the statement, and new ones that have not.
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
        WHERE datname = 'behind_plans' AND pid <> pg_backend_pid() AND random() < 0.5";
    for server in cluster.servers() {
        server.query(name, end)?;
    }
    for client in &mut clients {
        for _ in 0..3 {
            let seen = run(client, "s")?;
            ensure!(seen == "0A000", "{seen}");
        }
        prepare(client, "again", "SELECT a FROM p")?;
        ensure!(run(client, "again")? == "abcd");
    }
    Ok(())
}

#[test]
fn a_batch_of_many_statements_is_looked_at_whole() -> Result<()> {
    let cluster = database("many_plans")?;
    fresh(&cluster, "many_plans")?;
    let extra = Extra {
        listener: "pool-size = 1",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "many_plans", extra)?;
    let mut one = gateway.client("many_plans")?;
    let mut other = gateway.client("many_plans")?;
    let names: Vec<String> = (0..50).map(|number| format!("s{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        prepare(
            &mut one,
            name,
            &format!("UPDATE p SET b = {number} RETURNING b"),
        )?;
    }
    other.run("CREATE TABLE q (a int)")?;
    for begins in [false, true] {
        if begins {
            other.run("ALTER TABLE p ADD c int")?;
            one.run("BEGIN")?;
        }
        for name in &names {
            one.bind(name, &[]).frame(b'E', b"\0\0\0\0\0");
        }
        let reply = one.sync().ask()?.good()?;
        ensure!(reply.rows.len() == names.len(), "{}", reply.rows.len());
        if begins {
            one.run("COMMIT")?;
        }
    }
    Ok(())
}
