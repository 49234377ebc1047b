//! What is held back for a session, or held with one: transactions that are to begin, settings on the
//! way to another connection, connections that must be kept.
//!
//! Not connections that are lost. Invariant: what a session said is so wherever its next statement
//! runs, and so for nobody else.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use breccia_testkit::{MyClient, MyValue, wait_until};

use crate::rig::{Extra, Gateway, LIMIT, fresh, shared};

/// A gateway of so many connections, and a database with a row to read and a table to write to.
fn gateway_of(database: &str, size: usize, timeout: &str) -> Result<Gateway> {
    let cluster = shared()?;
    fresh(&cluster, database)?;
    let sql = format!(
        "CREATE TABLE {database}.t (id int PRIMARY KEY, v varchar(20)); \
         INSERT INTO {database}.t VALUES (1, 'a'); \
         CREATE TABLE {database}.w (v varchar(40))"
    );
    cluster.query(0, &sql)?;
    let listener = format!("pool-size = {size}\nqueue-timeout = \"{timeout}\"");
    let extra = Extra {
        listener: &listener,
        ..Extra::default()
    };
    Gateway::over(&cluster, extra)
}

fn rows(database: &str) -> Result<String> {
    let sql = format!("SELECT IFNULL(GROUP_CONCAT(v ORDER BY v), '') FROM {database}.w");
    Ok(shared()?.query(0, &sql)?.trim().to_owned())
}

/// The number that the primary has given to the connection that a client uses now.
fn upstream(client: &mut MyClient) -> Result<String> {
    client.value("SELECT CONNECTION_ID() + 0 FROM t LIMIT 1 FOR UPDATE")
}

fn expect(client: &mut MyClient, sql: &str, expected: &str) -> Result<()> {
    let found = client.value(sql)?;
    ensure!(found == expected, "{sql}: {found} instead of {expected}");
    Ok(())
}

#[test]
fn a_statement_that_is_prepared_again_leaves_a_transaction_alone() -> Result<()> {
    let _cluster = shared()?;
    for (database, early, late) in [
        ("againoff", "SET NAMES utf8mb4", "SET autocommit = 0"),
        (
            "againmode",
            "SET sql_mode = 'ANSI_QUOTES'",
            "SET autocommit = 0, sql_mode = ''",
        ),
        ("againon", "SET autocommit = 0", "SET autocommit = 1"),
        (
            "againlevel",
            "SET tx_isolation = 'SERIALIZABLE'",
            "SET tx_isolation = 'READ-COMMITTED'",
        ),
    ] {
        let gateway = gateway_of(database, 3, "20s")?;
        let mut client = gateway.client(database)?;
        client.run(early)?;
        let sql = "SELECT v FROM t WHERE id = ?";
        let statement = client.prepare(sql)?.ok().context("prepared")?;
        let first = upstream(&mut client)?;
        client.run("COMMIT")?;
        client.run(late)?;
        // Another session takes the connection on which it is prepared.
        let mut other = wait_until(LIMIT, "the connection to be another's", || {
            let mut other = gateway.client(database)?;
            other.run("BEGIN")?;
            let theirs = upstream(&mut other)?;
            Ok((theirs == first).then_some(other))
        })?;
        other.run("COMMIT")?;
        other.run("BEGIN")?;
        other.run("INSERT INTO w VALUES ('theirs')")?;
        if !late.contains("autocommit = 0") {
            client.run("BEGIN")?;
        }
        client.run("INSERT INTO w VALUES ('early')")?;
        let reply = client.execute(&statement, &[MyValue::Int(1)])?.good()?;
        ensure!(reply.text().as_deref() == Some("a"), "{late}: another row");
        ensure!(reply.status() & 1 != 0, "{late}: the transaction is over");
        let new = client
            .prepare("SELECT \"v\" FROM t")?
            .ok()
            .context("prepared")?;
        client.execute(&new, &[])?.good()?;
        ensure!(
            upstream(&mut client)? != first,
            "{late}: it ran where it was prepared"
        );
        client.run("ROLLBACK")?;
        other.run("ROLLBACK")?;
        ensure!(rows(database)?.is_empty(), "{late}: it is committed");
        // Nor was anything begun: what comes next is as the session has it.
        client.run("INSERT INTO w VALUES ('late')")?;
        let open = late.contains("autocommit = 0");
        ensure!(
            rows(database)?.is_empty() == open,
            "{late}: another autocommit"
        );
    }
    Ok(())
}

#[test]
fn a_connection_that_was_brought_half_way_is_used_by_nobody() -> Result<()> {
    let cluster = shared()?;
    for (database, lock) in [("halfhome", " FOR UPDATE"), ("halfaway", "")] {
        let gateway = gateway_of(database, 1, "20s")?;
        let gone = format!("{database}gone");
        fresh(&cluster, &gone)?;
        let zone = format!("SELECT @@time_zone FROM {database}.t{lock}");
        let mut client = gateway.client(&gone)?;
        client.run("SET time_zone = '+05:00', lc_time_names = 'de_DE'")?;
        let mut other = gateway.client(database)?;
        expect(&mut other, &zone, "SYSTEM")?;
        cluster.query(0, &format!("DROP DATABASE {gone}"))?;
        cluster.wait_caught_up(LIMIT)?;
        for _ in 0..3 {
            let reply = client.query(&zone)?;
            ensure!(matches!(reply.code(), 0 | 1049), "{:?}", reply.fault);
            expect(&mut other, &zone, "SYSTEM")?;
            expect(&mut gateway.client(database)?, &zone, "SYSTEM")?;
        }
        // It is not lost for ever.
        client.run(&format!("USE {database}"))?;
        expect(&mut client, &zone, "+05:00")?;
        expect(&mut other, &zone, "SYSTEM")?;
    }
    Ok(())
}

/// Statements between SET TRANSACTION and what it is for.
const DETOURS: &[&str] = &[
    "",
    "SELECT 1",
    "SELECT @@sql_mode",
    "SHOW WARNINGS",
    "SELECT LAST_INSERT_ID()",
    "DO 1",
    "SET time_zone = '+03:00'",
    "SHOW breccia.server",
    "SELECT * FROM nowhere",
    "SELECT FROM WHERE",
    "SELECT v FROM t",
    "SELECT v FROM t FOR UPDATE",
    "INSERT INTO w VALUES ('detour')",
    "ping",
    "prepare",
];

/// Which statements were refused after SET TRANSACTION READ ONLY and a detour: in the next transaction,
/// in the one after, and in none.
fn refused(
    client: &mut MyClient,
    set: &str,
    detour: &str,
    meanwhile: &mut dyn FnMut() -> Result<()>,
) -> Result<Vec<u16>> {
    client.run("SET time_zone = '+02:00'")?;
    client.run(set)?;
    match detour {
        "" => {}
        "ping" => drop(client.ping()?.good()?),
        "prepare" => drop(
            client
                .prepare("SELECT v FROM t")?
                .ok()
                .context("prepared")?,
        ),
        _ => drop(client.query(detour)?),
    }
    meanwhile()?;
    let mut codes = Vec::new();
    for sql in [
        "BEGIN",
        "INSERT INTO w VALUES ('first')",
        "COMMIT",
        "INSERT INTO w VALUES ('between')",
        "START TRANSACTION",
        "INSERT INTO w VALUES ('second')",
        "COMMIT",
    ] {
        codes.push(client.query(sql)?.code());
    }
    Ok(codes)
}

#[test]
fn what_is_set_for_the_next_transaction_is_spent_as_on_a_server() -> Result<()> {
    let cluster = shared()?;
    let gateway = gateway_of("nexttx", 2, "20s")?;
    let mut others = [gateway.client("nexttx")?, gateway.client("nexttx")?];
    let mut failed = Vec::new();
    for set in [
        "SET TRANSACTION READ ONLY",
        "set transaction read only, isolation level serializable",
    ] {
        for detour in DETOURS {
            let direct = MyClient::connect(cluster.primary().port(), "nexttx");
            let own = detour.starts_with("SHOW breccia");
            let as_if = if own { "" } else { detour };
            let expected = refused(&mut direct?, set, as_if, &mut || Ok(()))?;
            // Nobody else's transaction is like that, on whatever connection.
            let mut meanwhile = || {
                thread::sleep(Duration::from_millis(150));
                others.iter_mut().try_for_each(|other| {
                    other.run("INSERT INTO w VALUES ('o')")?;
                    other.run("BEGIN")?;
                    other.run("INSERT INTO w VALUES ('p')")?;
                    other.run("COMMIT").map(drop)
                })
            };
            let mut client = gateway.client("nexttx")?;
            let found = refused(&mut client, set, detour, &mut meanwhile)
                .with_context(|| format!("{set}; {detour}"))?;
            if found != expected {
                failed.push(format!(
                    "{set}; {detour}: {found:?} instead of {expected:?}"
                ));
            }
        }
    }
    ensure!(failed.is_empty(), "{failed:#?}");
    Ok(())
}

#[test]
fn a_level_that_is_set_for_the_next_transaction_is_that_of_the_next_only() -> Result<()> {
    let _cluster = shared()?;
    let gateway = gateway_of("nextlevel", 3, "20s")?;
    let mut writer = gateway.client("nextlevel")?;
    writer.run("BEGIN")?;
    writer.run("INSERT INTO w VALUES ('dirty')")?;
    let mut client = gateway.client("nextlevel")?;
    for detour in [
        "SELECT 1",
        "SHOW WARNINGS",
        "SET time_zone = '+01:00'",
        "SHOW breccia.server",
    ] {
        client.run("SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED")?;
        client.run(detour)?;
        client.run("BEGIN")?;
        expect(&mut client, "SELECT COUNT(*) FROM w", "1").context(detour)?;
        client.run("COMMIT")?;
        client.run("BEGIN")?;
        expect(&mut client, "SELECT COUNT(*) FROM w", "0").context(detour)?;
        client.run("COMMIT")?;
        expect(&mut client, "SELECT COUNT(*) FROM w", "0").context(detour)?;
        expect(&mut client, "SELECT @@tx_isolation", "REPEATABLE-READ")?;
    }
    Ok(())
}

#[test]
fn a_set_transaction_that_is_none_is_refused_at_once() -> Result<()> {
    let cluster = shared()?;
    let gateway = gateway_of("nexttxbad", 2, "20s")?;
    for sql in [
        "SET TRANSACTION",
        "SET TRANSACTION READ",
        "SET TRANSACTION ONLY",
        "SET TRANSACTION READ ONLY READ ONLY",
        "SET TRANSACTION READ ONLY, READ WRITE",
        "SET TRANSACTION READ ONLY,",
        "SET TRANSACTION ISOLATION LEVEL",
        "SET TRANSACTION ISOLATION LEVEL READ",
        "SET TRANSACTION ISOLATION LEVEL COMMITTED READ",
        "SET TRANSACTION ISOLATION LEVEL CHAOS",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE, ISOLATION LEVEL SERIALIZABLE",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SELECT 1",
        "SET TRANSACTION READ WRITE, ISOLATION LEVEL READ COMMITTED",
        "SET /* a comment */ TRANSACTION READ WRITE",
        "SET TRANSACTION READ WRITE;",
    ] {
        let mut direct = MyClient::connect(cluster.primary().port(), "nexttxbad")?;
        let expected = direct.query(sql)?.code();
        let mut client = gateway.client("nexttxbad")?;
        let found = client.query(sql)?.code();
        ensure!(found == expected, "{sql}: {found} instead of {expected}");
        for sql in [
            "SELECT v FROM t",
            "INSERT INTO w VALUES ('a')",
            "BEGIN",
            "COMMIT",
        ] {
            client.run(sql)?;
        }
    }
    Ok(())
}

#[test]
fn what_is_set_in_a_transaction_on_a_replica_holds_everywhere_afterwards() -> Result<()> {
    let cluster = shared()?;
    fresh(&cluster, "setaway2")?;
    let sql = "USE setaway2; CREATE TABLE n AS SELECT seq FROM seq_1_to_9; \
               CREATE TABLE t AS SELECT 1 AS id, 'b' AS v";
    cluster.query(0, sql)?;
    let gateway = gateway_of("setaway", 1, "20s")?;
    let mut other = gateway.client("setaway")?;
    let mut client = gateway.client("setaway")?;
    client.run("START TRANSACTION READ ONLY")?;
    expect(&mut client, "SELECT v FROM t", "a")?;
    let server = client.value("SHOW breccia.server")?;
    ensure!(server != "my0", "a READ ONLY transaction on {server}");
    client.run("SET time_zone = '+04:00', lc_time_names = 'de_DE'")?;
    client.run("SET NAMES latin1")?;
    client.run("SET sql_select_limit = 7")?;
    client.run("USE setaway2")?;
    let asked = "SELECT CONCAT_WS(' ', FROM_UNIXTIME(0), DATE_FORMAT('2020-01-01', '%W'), \
                 CHARSET('x'), COLLATION('x'), DATABASE(), v) FROM t";
    let set = "1970-01-01 04:00:00 Mittwoch latin1 latin1_swedish_ci setaway2 b";
    expect(&mut client, asked, set)?;
    client.run("COMMIT")?;
    let mut seen = std::collections::BTreeSet::new();
    let locked = format!("{asked} FOR UPDATE");
    for _ in 0..6 {
        for sql in [asked, &locked] {
            expect(&mut client, sql, set)?;
            seen.insert(client.value("SHOW breccia.server")? == "my0");
            let theirs = other.value(sql)?;
            let fits = theirs.contains("Wednesday utf8mb4") && theirs.ends_with("setaway a");
            ensure!(fits, "another session: {theirs}");
        }
        for sql in [
            "SELECT seq FROM setaway2.n",
            "SELECT seq FROM setaway2.n FOR UPDATE",
        ] {
            ensure!(client.run(sql)?.rows().len() == 7, "{sql}: another limit");
            ensure!(other.run(sql)?.rows().len() == 9, "{sql}: another's limit");
        }
    }
    ensure!(seen.len() == 2, "all on the primary, or all on replicas");
    Ok(())
}

#[test]
fn a_target_hides_no_pin() -> Result<()> {
    let _cluster = shared()?;
    let gateway = gateway_of("target", 2, "20s")?;
    let mut other = gateway.client("target")?;
    for (make, look, expected) in [
        (
            "CREATE TEMPORARY TABLE mine AS SELECT 8 AS n",
            "SELECT n FROM mine",
            "8",
        ),
        ("SET @u = 5", "SELECT @u", "5"),
        (
            "DO GET_LOCK('target', 10)",
            "SELECT IS_USED_LOCK('target') IS NULL",
            "0",
        ),
        ("PREPARE p FROM 'SELECT 9'", "EXECUTE p", "9"),
    ] {
        for steps in [
            &[
                "SET breccia.target = 'primary'",
                make,
                "SET breccia.target = 'auto'",
            ][..],
            &[
                make,
                "SET breccia.target = 'primary'",
                "SET breccia.target = 'auto'",
            ],
            &[make, "SET breccia.target = 'primary'"],
            &["SET breccia.target = 'primary'", make],
        ] {
            let mut client = gateway.client("target")?;
            for step in steps {
                client.run(step)?;
            }
            for _ in 0..5 {
                other.run("SELECT v FROM t")?;
                other.run("INSERT INTO w VALUES ('other')")?;
                client.run("SELECT v FROM t")?;
                expect(&mut client, look, expected).with_context(|| format!("{steps:?}"))?;
            }
            let pinned = client.value("SHOW breccia.pinned")?;
            ensure!(!pinned.contains("target"), "{steps:?}: pinned for {pinned}");
        }
    }
    Ok(())
}

#[test]
fn a_target_that_is_given_up_gives_the_connection_back() -> Result<()> {
    let _cluster = shared()?;
    let gateway = gateway_of("untarget", 1, "5s")?;
    let mut client = gateway.client("untarget")?;
    let mut other = gateway.client("untarget")?;
    client.run("SET breccia.target = 'primary'")?;
    expect(&mut client, "SELECT v FROM t", "a")?;
    expect(&mut client, "SHOW breccia.server", "my0")?;
    client.run("SET breccia.target = 'auto'")?;
    other.run("INSERT INTO w VALUES ('other')")?;
    expect(&mut client, "SELECT COUNT(*) FROM w", "1")
}

#[test]
fn an_error_that_leaves_a_transaction_open_keeps_its_session_there() -> Result<()> {
    let cluster = shared()?;
    let gateway = gateway_of("unsure", 2, "1s")?;
    let program = "CREATE PROCEDURE unsure.fails() BEGIN START TRANSACTION; \
                   INSERT INTO unsure.w VALUES ('early'); SIGNAL SQLSTATE '45000'; END";
    cluster.query(0, &format!("DELIMITER //\n{program} //"))?;
    for (before, fails) in [
        ("SELECT 1", "CALL fails()"),
        (
            "SELECT 1",
            "BEGIN; INSERT INTO w VALUES ('early'); SELECT * FROM nowhere",
        ),
        (
            "SELECT 1",
            "START TRANSACTION; INSERT INTO w VALUES ('early'); INSERT INTO t VALUES (1, 'dup')",
        ),
        ("SET autocommit = 0", "CALL fails()"),
        (
            "SET autocommit = 0",
            "INSERT INTO w VALUES ('early'); SELECT * FROM nowhere",
        ),
    ] {
        let mut client = gateway.client("unsure")?;
        client.run(before)?;
        let reply = client.query(fails)?;
        ensure!(reply.fault.is_some(), "{fails}: it went well");
        // Others have the other connection, and wait in vain for this one.
        let mut holder = gateway.client("unsure")?;
        holder.run("BEGIN")?;
        let mut third = gateway.client("unsure")?;
        let crowded = third.query("INSERT INTO w VALUES ('third')")?;
        ensure!(crowded.code() == 1040, "{fails}: {:?}", crowded.fault);
        holder.run("COMMIT")?;
        expect(&mut client, "SELECT COUNT(*) FROM w WHERE v = 'early'", "1")?;
        client.run("ROLLBACK")?;
        ensure!(
            rows("unsure")?.is_empty(),
            "{fails}: {} is there",
            rows("unsure")?
        );
        // From then on it keeps nothing.
        let before = if before.contains("autocommit") {
            "COMMIT"
        } else {
            "SELECT 1"
        };
        client.run(before)?;
        for _ in 0..3 {
            third.run("UPDATE t SET v = 'a'")?;
        }
    }
    Ok(())
}

#[test]
fn a_snapshot_is_of_the_moment_at_which_it_was_asked_for() -> Result<()> {
    let cluster = shared()?;
    for composite in ["", "transactions = \"lazy\""] {
        fresh(&cluster, "snapshot")?;
        cluster.query(0, "CREATE TABLE snapshot.w (v varchar(9))")?;
        let extra = Extra {
            composite,
            ..Extra::default()
        };
        let gateway = Gateway::over(&cluster, extra)?;
        for begin in [
            "START TRANSACTION WITH CONSISTENT SNAPSHOT",
            "START TRANSACTION READ ONLY, WITH CONSISTENT SNAPSHOT",
            "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
        ] {
            let mut client = gateway.client("snapshot")?;
            let before = client.value("SELECT COUNT(*) FROM w")?;
            client.run(begin)?;
            cluster.query(0, "INSERT INTO snapshot.w VALUES ('late')")?;
            cluster.wait_caught_up(LIMIT)?;
            expect(&mut client, "SELECT COUNT(*) FROM w", &before).context(begin)?;
            client.run("COMMIT")?;
        }
    }
    Ok(())
}
