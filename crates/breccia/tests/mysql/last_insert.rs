//! What a session asks about its own last statement, while others use the same connections: the last
//! insert id, the rows that were found or changed.
//!
//! Not what is set or made, which other tests do. Invariant: a session is told its own or, where that
//! is gone, an error; never another's.

use anyhow::{Context, Result, ensure};
use breccia_testkit::{MyClient, MyReply, wait_until};

use crate::rig::{Extra, Gateway, LIMIT, behind_proxies, fresh, shared, together};

/// Sessions that take turns on the connections.
const SESSIONS: usize = 6;

/// A gateway of so many connections, and a database in which the last insert id is asked in many ways.
fn gateway_of(database: &str, size: usize) -> Result<Gateway> {
    let cluster = shared()?;
    fresh(&cluster, database)?;
    let sql = format!(
        "USE {database}; CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY, v int); \
         CREATE TABLE log (who int PRIMARY KEY, id bigint); \
         CREATE TABLE touched (who int PRIMARY KEY, n int, id bigint); \
         CREATE TABLE counted (n int); \
         CREATE VIEW lastview AS SELECT LAST_INSERT_ID() AS id; \
         CREATE FUNCTION last() RETURNS bigint NOT DETERMINISTIC READS SQL DATA \
         RETURN LAST_INSERT_ID(); \
         CREATE PROCEDURE tell() SELECT LAST_INSERT_ID(); \
         CREATE TRIGGER touching BEFORE UPDATE ON touched FOR EACH ROW \
         SET NEW.id = LAST_INSERT_ID()"
    );
    cluster.query(0, &sql)?;
    let listener = format!("pool-size = {size}\nqueue-timeout = \"20s\"");
    let extra = Extra {
        listener: &listener,
        ..Extra::default()
    };
    Gateway::over(&cluster, extra)
}

/// Statements that do something with the id, and the query that tells what it was to them. `#` is the
/// session's number.
const WAYS: &[(&str, &str)] = &[
    ("", "SELECT LAST_INSERT_ID()"),
    ("", "SELECT last()"),
    ("", "SELECT id FROM lastview"),
    ("", "SELECT @@last_insert_id"),
    ("", "SELECT @@session.identity"),
    ("", "SELECT /*!50000 LAST_INSERT_ID() */ FROM t LIMIT 1"),
    ("", "SELECT (SELECT last()) FROM t LIMIT 1"),
    ("", "CALL tell()"),
    (
        "REPLACE INTO log VALUES (#, LAST_INSERT_ID())",
        "SELECT id FROM log WHERE who = #",
    ),
    (
        "REPLACE INTO log SELECT #, LAST_INSERT_ID()",
        "SELECT id FROM log WHERE who = #",
    ),
    (
        "REPLACE INTO log SELECT #, id FROM lastview",
        "SELECT id FROM log WHERE who = #",
    ),
    (
        "REPLACE INTO log VALUES (#, last())",
        "SELECT id FROM log WHERE who = #",
    ),
    (
        "UPDATE log SET id = LAST_INSERT_ID() WHERE who = #",
        "SELECT id FROM log WHERE who = #",
    ),
    (
        "UPDATE log SET id = last() WHERE who = #",
        "SELECT id FROM log WHERE who = #",
    ),
    (
        "UPDATE log JOIN lastview SET log.id = lastview.id WHERE who = #",
        "SELECT id FROM log WHERE who = #",
    ),
    (
        "UPDATE touched SET n = n + 1 WHERE who = #",
        "SELECT id FROM touched WHERE who = #",
    ),
];

/// One way, by text or prepared: what the id was there.
fn ask(client: &mut MyClient, number: usize, way: (&str, &str), binary: bool) -> Result<String> {
    let mut run = |sql: &str| -> Result<MyReply> {
        let sql = sql.replace('#', &number.to_string());
        if binary {
            client.once(&sql, &[])?.good()
        } else {
            client.run(&sql)
        }
    };
    if !way.0.is_empty() {
        run(way.0)?;
    }
    let reply = run(way.1)?;
    // A CALL ends with an OK, behind its rows.
    let row = reply.results.iter().find_map(|it| it.rows.first());
    let value = row.and_then(|it| it.first()?.as_ref()).context("no row")?;
    Ok(String::from_utf8_lossy(value).into_owned())
}

/// One session: it asks in all ways, at first without having inserted anything.
fn session(gateway: &Gateway, database: &str, number: usize) -> Result<()> {
    let mut client = gateway.client(database)?;
    client.run(&format!("INSERT INTO touched VALUES ({number}, 0, 0)"))?;
    let mut id = "0".to_owned();
    for round in 0..4 {
        for (at, way) in WAYS.iter().enumerate() {
            let binary = (round + at) % 2 == 0;
            let found = ask(&mut client, number, *way, binary)
                .with_context(|| format!("{way:?}, session {number}"))?;
            ensure!(
                found == id,
                "{way:?}, session {number}: {found} instead of {id}"
            );
            if (at + number + round).is_multiple_of(3) && round > 0 {
                let reply = client.run("INSERT INTO t (v) VALUES (1), (2)")?;
                id = reply.insert_id().to_string();
            }
        }
        // Every other session never inserts anything.
        if number % 2 == 1 {
            continue;
        }
        let reply = client.run("INSERT INTO t (v) VALUES (1), (2)")?;
        id = reply.insert_id().to_string();
    }
    Ok(())
}

#[test]
fn the_last_insert_id_is_the_sessions_own_however_it_is_asked() -> Result<()> {
    let cluster = shared()?;
    for size in [1, 2] {
        let database = format!("lastid{size}");
        let gateway = gateway_of(&database, size)?;
        cluster.query(0, &format!("INSERT INTO {database}.t (v) VALUES (0)"))?;
        together(SESSIONS, |number| session(&gateway, &database, number))
            .with_context(|| format!("{size} connections"))?;
    }
    Ok(())
}

#[test]
fn a_last_insert_id_that_is_put_into_a_variable_is_the_sessions_own() -> Result<()> {
    let _cluster = shared()?;
    let gateway = gateway_of("lastvar", 2)?;
    let mut other = gateway.client("lastvar")?;
    for sql in [
        "SET @x = LAST_INSERT_ID()",
        "SET @x = last()",
        "SELECT LAST_INSERT_ID() INTO @x",
        "SELECT last() INTO @x",
        "SELECT @x := id FROM lastview",
    ] {
        for inserts in [false, true] {
            let mut client = gateway.client("lastvar")?;
            let mut id = 0;
            if inserts {
                id = client.run("INSERT INTO t (v) VALUES (1)")?.insert_id();
            }
            // Another one uses the connections meanwhile, both of them.
            for _ in 0..3 {
                other.run("INSERT INTO t (v) VALUES (2)")?;
                gateway
                    .client("lastvar")?
                    .run("INSERT INTO t (v) VALUES (3)")?;
            }
            client.run(sql)?;
            let found = client.value("SELECT @x")?;
            ensure!(found == id.to_string(), "{sql}: {found} instead of {id}");
        }
    }
    Ok(())
}

/// What a session does, and what it then does with a number of that: right, or refused.
const COUNTED: &[(&str, &str, &str, &str)] = &[
    (
        "SELECT SQL_CALC_FOUND_ROWS id FROM t WHERE id <= 5 LIMIT 1",
        "SET @n = FOUND_ROWS()",
        "SELECT @n",
        "5",
    ),
    (
        "SELECT SQL_CALC_FOUND_ROWS id FROM t WHERE id <= 5 LIMIT 1",
        "INSERT INTO counted SELECT FOUND_ROWS()",
        "SELECT n FROM counted",
        "5",
    ),
    (
        "SELECT SQL_CALC_FOUND_ROWS id FROM t WHERE id <= 5 LIMIT 1",
        "INSERT INTO counted VALUES (FOUND_ROWS())",
        "SELECT n FROM counted",
        "5",
    ),
    (
        "SELECT id FROM t WHERE id <= 4",
        "INSERT INTO counted VALUES (FOUND_ROWS())",
        "SELECT n FROM counted",
        "4",
    ),
    (
        "UPDATE t SET v = v + 1 WHERE id <= 3",
        "SET @n = ROW_COUNT()",
        "SELECT @n",
        "3",
    ),
    (
        "UPDATE t SET v = v + 1 WHERE id <= 3",
        "INSERT INTO counted VALUES (ROW_COUNT())",
        "SELECT n FROM counted",
        "3",
    ),
    (
        "INSERT INTO t (v) VALUES (1), (2)",
        "INSERT INTO counted SELECT ROW_COUNT()",
        "SELECT n FROM counted",
        "2",
    ),
    (
        "DELETE FROM t WHERE id > 10",
        "UPDATE counted SET n = ROW_COUNT()",
        "SELECT n FROM counted",
        "0",
    ),
];

#[test]
fn numbers_of_the_statement_before_are_right_wherever_they_are_put() -> Result<()> {
    let cluster = shared()?;
    let gateway = gateway_of("counts", 8)?;
    let (mut refused, mut right) = (0, 0);
    for (does, asks, tells, expected) in COUNTED {
        for (begin, pause_ms) in [("", 0), ("BEGIN", 0), ("", 300)] {
            let reset = "TRUNCATE TABLE t; INSERT INTO t (v) SELECT seq FROM seq_1_to_10; \
                         TRUNCATE TABLE counted";
            cluster.query(0, &format!("USE counts; {reset}"))?;
            cluster.wait_caught_up(LIMIT)?;
            if asks.starts_with("UPDATE") {
                cluster.query(0, "INSERT INTO counts.counted VALUES (99)")?;
            }
            let mut client = gateway.client("counts")?;
            let mut other = gateway.client("counts")?;
            if !begin.is_empty() {
                client.run(begin)?;
            }
            let row = format!("{begin} {does}; {asks} after {pause_ms} ms");
            for _ in 0..2 {
                client.run(does).with_context(|| row.clone())?;
                std::thread::sleep(std::time::Duration::from_millis(pause_ms));
                if pause_ms > 0 {
                    other.run("INSERT INTO t (id, v) VALUES (1000, 1), (1001, 1), (1002, 1)")?;
                    other.run("DELETE FROM t WHERE id >= 1000")?;
                    other.run("SELECT SQL_CALC_FOUND_ROWS 1 FROM t LIMIT 1")?;
                }
                let reply = client.query(asks)?;
                if let Some(fault) = reply.fault {
                    ensure!(fault.message.starts_with("breccia:"), "{row}: {fault}");
                    refused += 1;
                    continue;
                }
                let found = client.value(tells)?;
                ensure!(found == *expected, "{row}: {found} instead of {expected}");
                right += 1;
                break;
            }
        }
    }
    println!("{right} were right, {refused} refused");
    ensure!(right == 3 * COUNTED.len(), "only {right} were ever told");
    Ok(())
}

#[test]
fn where_is_null_may_mean_the_last_insert_id_it_is_the_sessions_own() -> Result<()> {
    let cluster = shared()?;
    fresh(&cluster, "isnull")?;
    let table = "CREATE TABLE isnull.n (id int AUTO_INCREMENT PRIMARY KEY, v int)";
    cluster.query(0, table)?;
    cluster.wait_caught_up(LIMIT)?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    gateway.wait_reads(&cluster)?;
    for on in [
        "SET sql_auto_is_null = 1",
        "SET @@sql_auto_is_null = 1",
        "SET SESSION sql_auto_is_null = ON, sort_buffer_size = 300000",
    ] {
        let mut client = gateway.client("isnull")?;
        client.run(on)?;
        let mut other = gateway.client("isnull")?;
        let id = client.run("INSERT INTO n (v) VALUES (1)")?.insert_id();
        other.run("INSERT INTO n (v) VALUES (2)")?;
        let found = client.run("SELECT id FROM n WHERE id IS NULL")?;
        ensure!(
            found.text() == Some(id.to_string()),
            "{on}: {:?}",
            found.rows()
        );
        ensure!(client.value("SHOW breccia.pinned")? == "auto-is-null");
        // As ODBC drivers begin.
        other.run("SET sql_auto_is_null = 0")?;
        ensure!(other.value("SHOW breccia.pinned")?.is_empty());
    }
    Ok(())
}

#[test]
fn a_last_insert_id_that_is_lost_is_refused_and_comes_back_with_the_next() -> Result<()> {
    let cluster = shared()?;
    fresh(&cluster, "lostid")?;
    let sql = "USE lostid; CREATE TABLE n (id int AUTO_INCREMENT PRIMARY KEY); \
               CREATE TABLE w (v varchar(9))";
    cluster.query(0, sql)?;
    let (gateway, proxies) = behind_proxies(&cluster, Extra::default())?;
    let primary = proxies.first().context("a proxy")?;
    let mut client = gateway.client("lostid")?;
    client.run("INSERT INTO n VALUES (NULL)")?;
    client.run("INSERT INTO n VALUES (NULL)")?;
    primary.reset_all();
    let reply = client.query("SELECT LAST_INSERT_ID()")?;
    let fault = reply.fault.context("it was lost with its connection")?;
    ensure!(matches!(fault.code, 1053 | 1158), "{fault}");
    wait_until(LIMIT, "a write", || {
        let mut other = gateway.client("lostid")?;
        let wrote = other.query("INSERT INTO w VALUES ('other')")?;
        Ok(wrote.fault.is_none().then_some(()))
    })?;
    // What has none of its own does not bring one back.
    client.run("INSERT INTO w VALUES ('no id')")?;
    let reply = client.query("SELECT LAST_INSERT_ID()")?;
    ensure!(reply.fault.is_some(), "{:?} is told", reply.text());
    let id = client.run("INSERT INTO n VALUES (NULL)")?.insert_id();
    ensure!(client.value("SELECT LAST_INSERT_ID()")? == id.to_string());
    Ok(())
}
