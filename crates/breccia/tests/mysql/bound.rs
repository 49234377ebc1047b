//! What binds a session, or is not the same on every server, in texts and tables that hide it well.
//!
//! Not what a text says plainly ([`crate::routing`]). Invariant: a session whose connection holds
//! something keeps it, and nothing of it is there for the next one.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use breccia_testkit::{MY_LOCAL_FILES, MY_MODERN, MY_OLD, MariaDbCluster, MyClient, wait_until};

use crate::rig::{Extra, Gateway, LIMIT, fresh, login, shared};

/// A database with a table of one row.
fn filled(cluster: &MariaDbCluster, database: &str) -> Result<()> {
    fresh(cluster, database)?;
    let sql = format!("USE {database}; CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
    cluster.query(0, &sql)?;
    cluster.wait_caught_up(LIMIT)
}

#[test]
fn locks_in_texts_that_are_hardly_read_stay_with_their_session() -> Result<()> {
    let cluster = shared()?;
    filled(&cluster, "bound")?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    let long = format!(" /* {} */", "x".repeat(1_100_000));
    let (short, long) = ("", long.as_str());
    let texts: &[(&[u8], &str, &str, &str)] = &[
        (b"/*!80000 x */ HANDLER t OPEN", short, "handler", ""),
        (b"/*!999999 x */ BACKUP STAGE START", short, "backup", ""),
        (b"SELECT `GET_LOCK`('bound 1', 0)", short, "lock", "bound 1"),
        (
            b"SELECT\xa0GET_LOCK('bound 2', 0)",
            short,
            "lock",
            "bound 2",
        ),
        (
            b"SELECT 1.5x, GET_LOCK('bound 3', 0)",
            short,
            "lock",
            "bound 3",
        ),
        (b"SELECT GET_LOCK('bound 4', 0)", long, "lock", "bound 4"),
        (b"HANDLER t OPEN", long, "handler", ""),
    ];
    for (text, behind, reason, lock) in texts {
        let shown = String::from_utf8_lossy(text);
        let mut client = gateway.client("bound")?;
        client.run("SET NAMES latin1")?;
        client.command(3, &[text, behind.as_bytes()].concat())?;
        client.results(false)?;
        let pinned = client.value("SHOW breccia.pinned")?;
        ensure!(pinned == *reason, "{shown}: pinned is {pinned:?}");
        drop(client);
        if !lock.is_empty() {
            let free = format!("SELECT IS_FREE_LOCK('{lock}')");
            wait_until(LIMIT, &format!("{shown} to be over"), || {
                Ok((cluster.query(0, &free)?.trim() == "1").then_some(()))
            })?;
        }
    }
    Ok(())
}

#[test]
fn what_commits_nothing_ends_no_read_only_transaction() -> Result<()> {
    let cluster = shared()?;
    filled(&cluster, "kept")?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    for between in [
        "ANALYZE SELECT 1",
        "CHECKSUM TABLE t",
        "HELP 'x'",
        "PURGE BINARY LOGS TO 'x'",
    ] {
        let mut client = gateway.client("kept")?;
        client.run("START TRANSACTION READ ONLY")?;
        client.run("SELECT * FROM t")?;
        // Carried out or refused: the transaction goes on.
        let _either = client.query(between)?;
        let write = client.query("UPDATE t SET a = 2")?;
        ensure!(
            write.fault.is_some(),
            "{between}: a write in a READ ONLY transaction"
        );
        client.run("ROLLBACK")?;
        ensure!(
            cluster.query(0, "SELECT a FROM kept.t")?.trim() == "1",
            "{between}"
        );
    }
    // What commits goes on doing so.
    let mut client = gateway.client("kept")?;
    for sql in [
        "START TRANSACTION READ ONLY",
        "SELECT * FROM t",
        "ANALYZE TABLE t",
        "UPDATE t SET a = 3",
    ] {
        client.run(sql)?;
    }
    ensure!(
        cluster.query(0, "SELECT a FROM kept.t")?.trim() == "3",
        "committed"
    );
    Ok(())
}

#[test]
fn an_optimizer_trace_is_its_own_sessions() -> Result<()> {
    let cluster = shared()?;
    filled(&cluster, "traced")?;
    let extra = Extra {
        listener: "pool-size = 1",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, extra)?;
    let trace = "SELECT COALESCE(MAX(QUERY), '') FROM information_schema.OPTIMIZER_TRACE";
    for _ in 0..3 {
        let mut client = gateway.client("traced")?;
        client.run("SET optimizer_trace = 'enabled=on'")?;
        client.run("SELECT a + 4111 FROM t")?;
        let own = client.value(trace)?;
        ensure!(own.contains("4111"), "its own: {own:?}");
        drop(client);
        let mut other = gateway.client("traced")?;
        let seen = other.value(trace)?;
        ensure!(seen.is_empty(), "another session sees {seen:?}");
    }
    Ok(())
}

#[test]
fn what_differs_from_server_to_server_is_read_on_the_primary() -> Result<()> {
    let cluster = shared()?;
    fresh(&cluster, "differs")?;
    let sql = "USE differs; CREATE SEQUENCE s; \
               CREATE TABLE same (a int, b int AS (a + 1) VIRTUAL); \
               CREATE TABLE server (a int, b int AS (@@server_id) VIRTUAL); \
               CREATE VIEW over_server AS SELECT b FROM server; \
               INSERT INTO same (a) VALUES (1); INSERT INTO server (a) VALUES (1)";
    cluster.query(0, sql)?;
    cluster.wait_caught_up(LIMIT)?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    gateway.wait_reads(&cluster)?;
    let own = cluster.query(0, "SELECT @@server_id")?;
    let mut client = gateway.client("differs")?;
    wait_until(LIMIT, "a read on a replica", || {
        ensure!(client.value("SELECT b FROM same")? == "2", "computed");
        Ok((client.value("SHOW breccia.server")? != "my0").then_some(()))
    })?;
    for table in ["server", "over_server"] {
        let read = client.value(&format!("SELECT b FROM {table}"))?;
        ensure!(read == own.trim(), "{table}: {read}");
        ensure!(client.value("SHOW breccia.server")? == "my0", "{table}");
    }
    client.run("SET sql_mode = 'ORACLE'")?;
    let next = client.value("SELECT s.NEXTVAL FROM dual")?;
    ensure!(
        client.value("SELECT s.CURRVAL FROM dual")? == next,
        "CURRVAL"
    );
    Ok(())
}

#[test]
fn a_file_behind_a_result_is_loaded() -> Result<()> {
    let cluster = shared()?;
    fresh(&cluster, "loaded")?;
    cluster.query(0, "CREATE TABLE loaded.t (a int)")?;
    let extra = Extra {
        listener: "local-infile = true",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, extra)?;
    let mut client = gateway.client_of("loaded", MY_OLD | MY_LOCAL_FILES)?;
    let load = "LOAD DATA LOCAL INFILE 'x' INTO TABLE t";
    client.command(3, format!("SELECT 1; {load}; SELECT 2; {load}").as_bytes())?;
    let mut files = 0;
    for _ in 0..64 {
        let (payload, number) = client.packet()?;
        match payload.first() {
            Some(0xfb) => {
                client.send(b"1\n2\n", number.wrapping_add(1))?;
                client.send(b"", number.wrapping_add(2))?;
                files += 1;
            }
            Some(0xff) => anyhow::bail!("{}", String::from_utf8_lossy(&payload)),
            _ => {}
        }
        // Of the last LOAD's OK: nothing follows.
        if files == 2 && payload.first() == Some(&0) {
            break;
        }
    }
    ensure!(
        client.value("SELECT COUNT(*) FROM t")? == "4",
        "two files of two rows"
    );
    Ok(())
}

#[test]
fn a_command_with_a_wrong_number_ends_its_session_alone() -> Result<()> {
    let cluster = shared()?;
    let extra = Extra {
        listener: "pool-size = 1",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, extra)?;
    let mut other = gateway.client("")?;
    let upstream = other.value("SELECT CONNECTION_ID() FROM DUAL FOR UPDATE")?;
    for command in [&b"\x03SELECT 1 FOR UPDATE"[..], b"\x16SELECT 1", b"\x0e"] {
        let mut client = gateway.client("")?;
        client.send(command, 7)?;
        let (payload, _) = client.packet().context("an answer")?;
        ensure!(payload.get(..3) == Some(&[0xff, 0x84, 0x04]), "{payload:?}");
        ensure!(client.is_closed(), "it goes on");
    }
    let now = other.value("SELECT CONNECTION_ID() FROM DUAL FOR UPDATE")?;
    ensure!(now == upstream, "the connection upstream is another one");
    Ok(())
}

#[test]
fn the_collation_of_set_names_is_that_of_columns_everywhere() -> Result<()> {
    let cluster = shared()?;
    fresh(&cluster, "collated")?;
    cluster.query(
        0,
        "CREATE TABLE collated.t (v varchar(9)); INSERT INTO collated.t VALUES ('a')",
    )?;
    cluster.wait_caught_up(LIMIT)?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    gateway.wait_reads(&cluster)?;
    let column = |client: &mut MyClient| -> Result<Vec<u8>> {
        let reply = client.query("SELECT v FROM t")?;
        let (packet, _) = reply.packets.get(1).context("a column")?;
        Ok(packet.clone())
    };
    for names in [
        "utf8mb4 COLLATE utf8mb4_unicode_ci",
        "latin1 COLLATE latin1_german1_ci",
        "latin1",
    ] {
        let set = format!("SET NAMES {names}");
        let mut direct =
            MyClient::connect_as(cluster.server(0).port(), login("collated", MY_MODERN))?;
        direct.run(&set)?;
        let expected = column(&mut direct)?;
        let mut client = gateway.client_of("collated", MY_MODERN)?;
        client.run(&set)?;
        for _ in 0..3 {
            ensure!(column(&mut client)? == expected, "{names}");
        }
        ensure!(
            client.value("SHOW breccia.server")? != "my0",
            "{names}: no replica"
        );
    }
    Ok(())
}

#[test]
fn the_last_number_of_a_sequence_is_its_own_sessions_where_no_text_asks_for_it() -> Result<()> {
    let cluster = shared()?;
    fresh(&cluster, "numbered")?;
    for sql in [
        "CREATE SEQUENCE s",
        "CREATE TABLE by_trigger (parent bigint)",
        "CREATE TRIGGER t BEFORE INSERT ON by_trigger FOR EACH ROW SET NEW.parent = LASTVAL(s)",
        "CREATE TABLE by_default (a int, parent bigint DEFAULT LASTVAL(s))",
        "CREATE TABLE taking (id bigint DEFAULT NEXTVAL(s), a int)",
        "CREATE FUNCTION f() RETURNS bigint READS SQL DATA RETURN LASTVAL(s)",
    ] {
        cluster.query(0, &format!("USE numbered; {sql}"))?;
    }
    let extra = Extra {
        listener: "pool-size = 2",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, extra)?;
    for take in [
        "SELECT NEXTVAL(s)",
        "INSERT INTO taking (a) VALUES (1) RETURNING id",
    ] {
        for (write, ask) in [
            (
                "INSERT INTO by_trigger VALUES (0)",
                "SELECT MAX(parent) FROM by_trigger",
            ),
            (
                "INSERT INTO by_default (a) VALUES (1)",
                "SELECT MAX(parent) FROM by_default",
            ),
            ("DO 0", "SELECT f()"),
        ] {
            let mut client = gateway.client("numbered")?;
            let own = client.value(take)?;
            // A connection lingers with its session for a moment.
            thread::sleep(Duration::from_millis(400));
            let mut other = gateway.client("numbered")?;
            ensure!(other.value("SELECT NEXTVAL(s)")? != own, "another number");
            thread::sleep(Duration::from_millis(400));
            client.run(write)?;
            let told = client.value(ask)?;
            ensure!(told == own, "{take}, {ask}: {told}, and not {own}");
        }
    }
    Ok(())
}
