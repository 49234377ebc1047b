//! What a client is told, or spared, when a server fails it or refuses something.
//!
//! Not standbys that fail under load (`faults.rs`). Invariant: nobody is told that nothing was
//! committed where something may have been, and what ends a server's process runs once.

use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use breccia_testkit::{PostgresCluster, SqlClient, wait_until};

use crate::positions::{on_replica, prepared, ran_on};
use crate::rig::{Extra, Gateway, LIMIT, cluster};

/// The code of the reply that is due, be it an answer's or the last word of a connection.
fn code(client: &mut SqlClient) -> String {
    match client.read_reply() {
        Ok(reply) => reply.code().to_owned(),
        Err(error) => format!("{error:#}"),
    }
}

/// Sends what begins in a transaction, and waits until it is under way.
fn send(gateway: &Gateway, before: &[&str], texts: &[&str]) -> Result<SqlClient> {
    let mut client = gateway.client("p")?;
    for sql in before {
        client.run(sql)?;
    }
    for sql in texts {
        client.query(sql);
    }
    client.flush()?;
    Ok(client)
}

#[test]
fn what_may_have_been_committed_is_not_called_undone() -> Result<()> {
    let mut cluster = cluster(Some(1))?;
    cluster.primary().create_database("p")?;
    cluster.primary().query("p", "CREATE TABLE t (v text)")?;
    let gateway = Gateway::over(&cluster, "p", Extra::default())?;
    // Commits wait for it from now on, and none is answered.
    cluster.server_mut(1).freeze_all()?;
    let insert = "INSERT INTO t VALUES ('x')";
    let open = &["BEGIN", insert][..];
    let mut unknown = [
        ("chain", send(&gateway, open, &["COMMIT AND CHAIN"])?),
        (
            "several",
            send(&gateway, open, &["INSERT INTO t VALUES ('y'); COMMIT"])?,
        ),
        (
            "two-phase",
            send(&gateway, open, &["PREPARE TRANSACTION 'one'"])?,
        ),
        (
            "behind a rollback",
            send(&gateway, open, &["SELECT pg_sleep(1); ROLLBACK", insert])?,
        ),
    ];
    let mut early = gateway.client("p")?;
    for sql in open {
        early.run(sql)?;
    }
    early
        .parse("", "COMMIT")
        .bind("", &[])
        .sync()
        .ask()?
        .good()?;
    early.execute().sync().flush()?;
    let mut undone = send(&gateway, open, &["UPDATE t SET v = pg_sleep(60)::text"])?;
    thread::sleep(Duration::from_secs(2));
    cluster.server_mut(0).kill9();
    for (what, client) in &mut unknown {
        let mut told = code(client);
        if told.is_empty() {
            told = code(client);
        }
        ensure!(told.contains("08007"), "{what}: {told:?}");
    }
    let told = code(&mut early);
    ensure!(
        told.contains("08007"),
        "bound in an earlier batch: {told:?}"
    );
    let told = code(&mut undone);
    ensure!(told.contains("57P01"), "an open transaction: {told:?}");
    cluster.server_mut(1).thaw_all()
}

#[test]
fn a_setting_that_a_replica_refuses_is_the_primarys_matter() -> Result<()> {
    let cluster = prepared()?;
    let gateway = Gateway::over(&cluster, "p", Extra::default())?;
    let early = "CREATE TEXT SEARCH CONFIGURATION mine (COPY = english)";
    for number in [1, 2] {
        cluster.pause_replay(number)?;
    }
    cluster.primary().query("p", early)?;
    let mut client = gateway.client("p")?;
    client.run("SET default_text_search_config = 'public.mine'")?;
    for round in 0..3 {
        let tag = format!("with-a-setting-{round}-");
        let found = client.run(&format!("SELECT count(*) FROM t /* {tag} */"))?;
        assert_eq!(found.value(), Some("1"));
        assert_eq!(ran_on(&cluster, &tag)?, 0);
    }
    for number in [1, 2] {
        cluster.resume_replay(number)?;
    }
    on_replica(&cluster, "known-there", |tag| {
        client.run(&format!("SELECT count(*) FROM t /* {tag} */"))?;
        Ok(())
    })?;
    Ok(())
}

#[test]
fn one_sessions_isolation_moves_nobody_else_to_the_primary() -> Result<()> {
    let cluster = prepared()?;
    let gateway = Gateway::over(&cluster, "p", Extra::default())?;
    let sql = |tag: &str| format!("SELECT v FROM t WHERE id = 1 /* {tag} */");
    let (mut strict, mut other) = (gateway.client("p")?, gateway.client("p")?);
    on_replica(&cluster, "before", |tag| other.run(&sql(tag)).map(drop))?;
    strict.run("SET default_transaction_isolation = 'serializable'")?;
    for round in 0..5 {
        let tag = format!("strict-{round}-");
        assert_eq!(strict.run(&sql(&tag))?.value(), Some("first"));
        assert_eq!(ran_on(&cluster, &tag)?, 0, "a standby cannot do that");
    }
    on_replica(&cluster, "after", |tag| other.run(&sql(tag)).map(drop))?;
    // What only a standby refuses, for a while: a view that is not filled there yet.
    cluster.primary().query(
        "p",
        "CREATE MATERIALIZED VIEW m AS SELECT v FROM t WITH NO DATA",
    )?;
    cluster.wait_caught_up(LIMIT)?;
    gateway.client("p")?.run("CREATE TABLE later (a int)")?;
    cluster.pause_replay(1)?;
    cluster.pause_replay(2)?;
    cluster
        .primary()
        .query("p", "REFRESH MATERIALIZED VIEW m")?;
    let view = |tag: &str| format!("SELECT v FROM m /* {tag} */");
    let mut late = gateway.client("p")?;
    assert_eq!(late.run(&view("unfilled"))?.value(), Some("first"));
    cluster.resume_replay(1)?;
    cluster.resume_replay(2)?;
    on_replica(&cluster, "filled", |tag| late.run(&view(tag)).map(drop))?;
    Ok(())
}

/// The process that runs a statement with this tag on a server.
fn process(cluster: &PostgresCluster, number: usize, tag: &str) -> Result<String> {
    let sql = format!(
        "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%/* {tag} %' \
         AND pid <> pg_backend_pid()"
    );
    wait_until(LIMIT, "the statement to run", || {
        let found = cluster.server(number).query("p", &sql)?;
        Ok(Some(found.trim().to_owned()).filter(|pid| !pid.is_empty()))
    })
}

#[test]
fn what_ends_its_process_is_not_run_again() -> Result<()> {
    let cluster = prepared()?;
    let gateway = Gateway::over(&cluster, "p", Extra::default())?;
    let mut client = gateway.client("p")?;
    let place = on_replica(&cluster, "before", |tag| {
        client.run(&format!("SELECT v FROM t /* {tag} */"))?;
        Ok(())
    })?;
    // The same replica serves on, and another session's read there is innocent.
    client.query("SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b /* fatal */").flush()?;
    let pid = process(&cluster, place, "fatal")?;
    let innocent = thread::spawn({
        let mut other = gateway.client("p")?;
        move || -> Result<(SqlClient, Option<String>)> {
            let found = other.run("SELECT max(v), count(*) FROM t, generate_series(1, 2000) a, generate_series(1, 3000) b /* innocent */")?;
            let value = found.value().map(str::to_owned);
            Ok((other, value))
        }
    });
    thread::sleep(Duration::from_millis(500));
    let killed = Command::new("kill").args(["-9", &pid]).status()?;
    ensure!(killed.success(), "kill -9 {pid}");
    let told = code(&mut client);
    ensure!(told.contains("08006"), "{told:?}");
    assert_eq!(ran_on(&cluster, "/* fatal */")?, place);
    let (_, value) = innocent.join().expect("a client").context("innocent")?;
    assert_eq!(value.as_deref(), Some("first"));
    Ok(())
}
