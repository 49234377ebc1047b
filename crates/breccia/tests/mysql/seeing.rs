//! What a gateway over MariaDB tells of itself: the log of slow and refused statements, and `explain`.
//!
//! Not what statements do. Invariant: a literal here is a word that stands nowhere else, and no log
//! ever holds it.

use anyhow::{Context, Result, ensure};
use breccia_testkit::{Breccia, MariaDbCluster, MyClient, MyValue, free_port, wait_until};

use crate::rig::{Extra, Gateway, LIMIT, cluster, file, fresh, shared};

/// A literal that nobody may see.
const SECRET: &str = "hunter2";

/// A database with a table, an in-memory table, a function, and views over them.
fn seen(database: &str) -> Result<()> {
    let cluster = shared()?;
    fresh(&cluster, database)?;
    let sql = format!(
        "USE {database}; CREATE TABLE t (id int PRIMARY KEY, v varchar(40)); \
         INSERT INTO t VALUES (1, 'a'), (2, 'b'); CREATE TABLE quick (id int) ENGINE=MEMORY; \
         CREATE FUNCTION twice(n int) RETURNS int DETERMINISTIC READS SQL DATA \
         RETURN (SELECT COUNT(*) + n FROM t); \
         CREATE FUNCTION other(n int) RETURNS int DETERMINISTIC NO SQL RETURN n; \
         CREATE VIEW vw AS SELECT id, twice(id) AS n FROM t; CREATE VIEW wider AS SELECT n FROM vw"
    );
    cluster.query(0, &sql)?;
    cluster.wait_caught_up(LIMIT)
}

/// The only line of the log that holds all `parts`, once it is there.
fn only(gateway: &Gateway, parts: &[&str]) -> Result<String> {
    let fits = |line: &&str| parts.iter().all(|part| line.contains(part));
    let found = wait_until(LIMIT, &format!("a line of the log with {parts:?}"), || {
        let log = gateway.breccia.log();
        let found: Vec<String> = log.lines().filter(fits).map(str::to_owned).collect();
        Ok((!found.is_empty()).then_some(found))
    })?;
    ensure!(!gateway.breccia.log().contains(SECRET), "the secret");
    let [line] = found.as_slice() else {
        anyhow::bail!("{found:#?}");
    };
    Ok(line.clone())
}

#[test]
fn a_slow_statement_is_told_with_its_place_and_without_its_literals() -> Result<()> {
    let cluster = shared()?;
    seen("slow")?;
    let extra = Extra {
        listener: "slow-statement = \"150ms\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, extra)?;
    let mut client = gateway.client("slow")?;
    let check = |parts: &[&str]| -> Result<()> {
        let line = only(&gateway, &[&["a slow statement"], parts].concat())?;
        for part in ["listener=\"sql\"", "user=\"", "database=\"slow\"", "ms="] {
            ensure!(line.contains(part), "{part} in {line}");
        }
        Ok(())
    };
    client.run(&format!(
        "SELECT SLEEP(0.2), v FROM t WHERE v <> '{SECRET}' AND id = 1 /* {SECRET} */"
    ))?;
    check(&[
        "server=\"my0\"",
        "reason=\"function\"",
        "statement=\"SELECT SLEEP(?), v FROM t WHERE v <> ? AND id = ?\"",
    ])?;
    let sql = "UPDATE t SET v = CONCAT(?, SLEEP(0.2)) WHERE id = 2";
    client
        .once(sql, &[MyValue::Bytes(SECRET.as_bytes())])?
        .good()?;
    check(&[
        "reason=\"write\"",
        "statement=\"UPDATE t SET v = CONCAT(?, SLEEP(?)) WHERE id = ?\"",
    ])?;
    // One that is passed on piece by piece.
    let long = SECRET.repeat(300_000);
    client.run(&format!("DO SLEEP(0.2), LENGTH('{long}')"))?;
    check(&["reason=\"long\"", "statement=\"DO SLEEP(?), LENGTH( …\""])
}

#[test]
fn a_statement_that_is_refused_here_is_told() -> Result<()> {
    let cluster = shared()?;
    seen("refused")?;
    let extra = Extra {
        listener: "pool-size = 1\nqueue-timeout = \"200ms\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, extra)?;
    let mut holder = gateway.client("refused")?;
    holder.run("BEGIN")?;
    holder.run("SELECT * FROM t FOR UPDATE")?;
    let mut other = gateway.client("refused")?;
    let sql = format!("UPDATE t SET v = '{SECRET}'");
    ensure!(other.query(&sql)?.code() == 1040, "a full pool");
    let line = only(&gateway, &["a statement is refused"])?;
    for part in [
        "08004",
        "statement=\"UPDATE t SET v = ?\"",
        "database=\"refused\"",
    ] {
        ensure!(line.contains(part), "{part} in {line}");
    }
    Ok(())
}

#[test]
fn an_explanation_names_what_is_not_proven_also_without_the_primary() -> Result<()> {
    let cluster = shared()?;
    seen("explained")?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("breccia.toml");
    let check = |config: &str, more: &[&str], sql: &str, parts: &[&str]| -> Result<()> {
        std::fs::write(&path, config)?;
        let words = ["--database", "explained", "--sql", sql];
        let command = ["explain", "--config", &path.to_string_lossy(), "db"];
        let output = Breccia::run(folder.path(), &[&command[..], &words, more].concat())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        for part in parts {
            ensure!(text.contains(part), "{sql}: no {part:?} in {text}");
        }
        Ok(())
    };
    let config = file(&cluster, free_port()?, Extra::default());
    let known = "catalogue  read from my0 now";
    let read = "target     replica";
    check(&config, &[], "SELECT v FROM t", &[known, read])?;
    let chain = "namely     view explained.wider, which uses view explained.vw, which uses function \
                 twice, which is a stored function";
    check(
        &config,
        &[],
        "SELECT * FROM wider",
        &[known, "(view)", chain],
    )?;
    let engine = "table explained.quick, whose engine";
    check(
        &config,
        &[],
        "SELECT * FROM t, quick",
        &["(engine)", engine],
    )?;
    let offline = [
        "catalogue  not known: it was not asked for",
        "(no-catalogue)",
    ];
    check(&config, &["--offline"], "SELECT v FROM t", &offline)?;
    let vouching = Extra {
        composite: "read-functions = [\"twice\"]",
        ..Extra::default()
    };
    let vouching = file(&cluster, free_port()?, vouching);
    check(&vouching, &[], "SELECT * FROM wider", &[known, read])?;
    // The primary is gone, and a replica knows the same.
    let own = format!("port = {}\n", cluster.primary().port());
    let config = config.replace(&own, &format!("port = {}\n", free_port()?));
    let known = "catalogue  read from my1 now";
    check(&config, &[], "SELECT * FROM wider", &[known, chain])
}

#[test]
fn functions_that_the_file_vouches_for_are_reads() -> Result<()> {
    let cluster = shared()?;
    seen("vouched")?;
    let extra = Extra {
        composite: "replica-wait = \"2s\"\nread-functions = [\"Twice\", \"sleep\"]",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, extra)?;
    let mut client = gateway.client("vouched")?;
    let mut check = |sql: &str, replica: bool| -> Result<()> {
        for binary in [false, true] {
            let reply = if binary {
                client.once(sql, &[])?
            } else {
                client.query(sql)?
            };
            reply.good().with_context(|| sql.to_owned())?;
            let server = client.value("SHOW breccia.server")?;
            ensure!((server != "my0") == replica, "{sql}: {server}");
        }
        Ok(())
    };
    check("SELECT twice(3)", true)?;
    check("SELECT `vouched`.`TWICE`(id) FROM t", true)?;
    check("SELECT * FROM wider", true)?;
    check("SELECT twice(other(1))", false)?;
    check("SELECT SLEEP(0)", false)?;
    check("SELECT twice(id) FROM t FOR UPDATE", false)?;
    let direct =
        MyClient::connect(cluster.primary().port(), "vouched")?.value("SELECT twice(3)")?;
    ensure!(client.value("SELECT twice(3)")? == direct);
    Ok(())
}

#[test]
fn the_wish_for_the_primary_is_shown_beside_another_pin() -> Result<()> {
    let _cluster = crate::rig::shared()?;
    let gateway = crate::state::narrow("wishes")?;
    let mut client = gateway.client("wishes")?;
    client.run("SET @a = 1")?;
    for wish in ["primary", "auto", "primary"] {
        client.run(&format!("SET breccia.target = '{wish}'"))?;
        ensure!(client.value("SHOW breccia.target")? == wish);
        ensure!(client.value("SHOW breccia.pinned")? == "user-variable");
    }
    client.run("RESET breccia.target")?;
    ensure!(client.value("SHOW breccia.target")? == "auto");
    Ok(())
}

/// What `check --connect` says with this user for Breccia's own questions.
fn checked(user: &str) -> Result<String> {
    let server = format!("monitor-user = \"{user}\"\nmonitor-password = \"pw\"");
    let extra = Extra {
        server: &server,
        ..Extra::default()
    };
    checked_over(&*shared()?, extra)
}

/// What `check --connect` says of these servers.
fn checked_over(cluster: &MariaDbCluster, extra: Extra<'_>) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("breccia.toml");
    std::fs::write(&path, file(cluster, free_port()?, extra))?;
    let command = ["check", "--connect", "--config", &path.to_string_lossy()];
    let output = Breccia::run(folder.path(), &command)?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(output.status.code() == Some(0), "{text}");
    Ok(text)
}

#[test]
fn a_monitor_that_sees_no_table_is_warned_of() -> Result<()> {
    let cluster = shared()?;
    seen("watched")?;
    cluster.query(
        0,
        "CREATE OR REPLACE USER blind IDENTIFIED BY 'pw'; GRANT SLAVE MONITOR ON *.* TO blind; \
         CREATE OR REPLACE USER eyes IDENTIFIED BY 'pw'; GRANT SLAVE MONITOR ON *.* TO eyes; \
         GRANT SELECT, SHOW VIEW ON watched.* TO eyes",
    )?;
    cluster.wait_caught_up(LIMIT)?;
    let (blind, eyes) = (checked("blind")?, checked("eyes")?);
    let warns = |text: &str| text.matches("GRANT SELECT").count();
    ensure!(warns(&blind) == 1 && blind.contains("my0"), "{blind}");
    ensure!(warns(&eyes) == 0, "{eyes}");
    Ok(())
}

#[test]
fn a_replica_that_is_late_on_purpose_or_answers_by_other_settings_is_warned_of() -> Result<()> {
    let cluster = cluster()?;
    cluster.query(
        1,
        "STOP SLAVE; CHANGE MASTER TO MASTER_USE_GTID = no, MASTER_DELAY = 60; START SLAVE; \
         SET GLOBAL sql_mode = 'ANSI'",
    )?;
    let extra = Extra {
        listener: "pool-size = 399",
        ..Extra::default()
    };
    let text = checked_over(&cluster, extra)?;
    for part in [
        "my1: its replication from 127.0.0.1:",
        "uses no GTIDs",
        "60 s late on purpose (MASTER_DELAY), more than max-lag (10 s)",
        "my1: it differs from the primary my0 in sql_mode (\"",
        "my2: it takes 400 connections of clients (max_connections), and listener.sql may open 399",
    ] {
        ensure!(text.contains(part), "no {part:?} in {text}");
    }
    ensure!(!text.contains("my2: it differs"), "{text}");
    Ok(())
}

#[test]
fn a_wrong_password_of_a_store_is_not_told_as_the_clients() -> Result<()> {
    let cluster = shared()?;
    cluster.query(
        0,
        "CREATE OR REPLACE USER watch IDENTIFIED BY 'pw'; GRANT SLAVE MONITOR ON *.* TO watch",
    )?;
    cluster.wait_caught_up(LIMIT)?;
    let extra = Extra {
        server: "monitor-user = \"watch\"\nmonitor-password = \"pw\"",
        ..Extra::default()
    };
    let port = free_port()?;
    let right = file(&cluster, port, extra);
    let (stores, listener) = right.split_once("[listener.sql]").context("a listener")?;
    let stores = stores.replace("\npassword = \"secret\"", "\npassword = \"old\"");
    let breccia = Breccia::start(&format!("{stores}[listener.sql]{listener}"))?;
    wait_until(LIMIT, "the primary", || {
        Ok(breccia.log().contains("the primary is known").then_some(()))
    })?;
    let Err(error) = MyClient::connect(port, "") else {
        anyhow::bail!("a session");
    };
    let told = format!("{error:#}");
    for part in [
        "1045",
        "this is the login that store.my0 has there, and not the client's: mend its `user` and",
    ] {
        ensure!(told.contains(part), "no {part:?} in {told}");
    }
    Ok(())
}
