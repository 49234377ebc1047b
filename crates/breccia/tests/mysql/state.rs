//! What a session has set, made or asked stays its own, whatever connections serve it.
//!
//! Not what a statement is, which routing tests. Invariant: every value that is expected here is what a
//! session alone on one connection would see.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use breccia_testkit::{MY_FOUND_ROWS, MY_MODERN, MariaDbCluster, MyClient, MyValue};

use crate::rig::{Extra, Gateway, fresh, login, shared};

/// A database with a table of three rows.
pub(crate) fn numbers(database: &str) -> Result<Arc<MariaDbCluster>> {
    let cluster = shared()?;
    fresh(&cluster, database)?;
    let sql = format!(
        "CREATE TABLE {database}.t (id int AUTO_INCREMENT PRIMARY KEY, v varchar(40)); \
         INSERT INTO {database}.t (v) VALUES ('a'), ('b'), ('c')"
    );
    cluster.query(0, &sql)?;
    Ok(cluster)
}

/// A gateway whose sessions share two connections to each server, and a database with a table of numbers.
pub(crate) fn narrow(database: &str) -> Result<Gateway> {
    of_size(database, 2)
}

/// The same with more or fewer connections.
pub(crate) fn of_size(database: &str, size: usize) -> Result<Gateway> {
    let cluster = numbers(database)?;
    let listener = format!("pool-size = {size}\nqueue-timeout = \"20s\"");
    let extra = Extra {
        listener: &listener,
        ..Extra::default()
    };
    Gateway::over(&cluster, extra)
}

/// Other sessions that use the connections in between.
fn disturb(others: &mut [MyClient]) -> Result<()> {
    for client in others {
        client.run("SELECT 1")?;
        client.run("INSERT INTO t (v) VALUES ('other'), ('other')")?;
        client.run("SELECT SQL_CALC_FOUND_ROWS * FROM t LIMIT 1")?;
        client.query("SELECT * FROM nowhere")?;
        client.run("SELECT 1/0, @@sql_mode")?;
    }
    Ok(())
}

pub(crate) fn expect(client: &mut MyClient, sql: &str, expected: &str) -> Result<()> {
    let found = client.value(sql)?;
    ensure!(found == expected, "{sql}: {found} instead of {expected}");
    Ok(())
}

#[test]
fn clients_that_differ_in_found_rows_share_a_gateway() -> Result<()> {
    let _cluster = shared()?;
    let gateway = narrow("foundrows")?;
    let mut changed = gateway.client("foundrows")?;
    let mut found = gateway.client_of("foundrows", MY_MODERN | MY_FOUND_ROWS)?;
    for round in 0..50 {
        let sql = "UPDATE t SET v = 'a' WHERE id = 1";
        let (text, binary) = (round % 2 == 0, [MyValue::Bytes(b"a"), MyValue::Int(1)]);
        for (client, expected) in [(&mut changed, 0), (&mut found, 1)] {
            let reply = if text {
                client.run(sql)?
            } else {
                client
                    .once("UPDATE t SET v = ? WHERE id = ?", &binary)?
                    .good()?
            };
            ensure!(
                reply.affected() == expected,
                "{} rows of {expected}",
                reply.affected()
            );
        }
    }
    let upsert = "INSERT INTO t VALUES (1, 'a') ON DUPLICATE KEY UPDATE v = VALUES(v)";
    ensure!(changed.run(upsert)?.affected() == 0, "nothing changes");
    ensure!(found.run(upsert)?.affected() == 1, "one is found");
    Ok(())
}

#[test]
fn a_row_that_insert_returned_is_read_at_once() -> Result<()> {
    let _cluster = shared()?;
    let gateway = narrow("returned")?;
    let mut client = gateway.client("returned")?;
    for round in 0..200 {
        let sql = format!("INSERT INTO t (v) VALUES ('{round}') RETURNING id");
        let id = client.value(&sql)?;
        let sql = format!("SELECT v FROM t WHERE id = {id}");
        expect(&mut client, &sql, &round.to_string())?;
    }
    Ok(())
}

#[test]
fn last_insert_id_is_the_sessions_own() -> Result<()> {
    let _cluster = shared()?;
    let gateway = narrow("insertid")?;
    let mut client = gateway.client("insertid")?;
    let mut others = [
        gateway.client("insertid")?,
        gateway.client("insertid")?,
        gateway.client("insertid")?,
    ];
    expect(&mut client, "SELECT LAST_INSERT_ID()", "0")?;
    for round in 0..20 {
        let id = client
            .run("INSERT INTO t (v) VALUES ('x'), ('y')")?
            .insert_id()
            .to_string();
        if round % 2 == 0 {
            disturb(&mut others)?;
        }
        expect(&mut client, "SELECT LAST_INSERT_ID()", &id)?;
        disturb(&mut others)?;
        client.run("SELECT * FROM t LIMIT 3")?;
        expect(&mut client, "SELECT LAST_INSERT_ID()", &id)?;
        let reply = client.once("SELECT LAST_INSERT_ID()", &[])?.good()?;
        ensure!(
            reply.text().as_deref() == Some(id.as_str()),
            "in binary: {:?}",
            reply.text()
        );
        let sql = format!("SELECT v FROM t WHERE id = LAST_INSERT_ID() AND {round} >= 0");
        disturb(&mut others)?;
        expect(&mut client, &sql, "x")?;
        // An explicit id is told, and yet is not LAST_INSERT_ID().
        let explicit = 1_000_000 * (round + 1);
        let sql = format!("INSERT INTO t VALUES ({explicit}, 'e')");
        ensure!(client.run(&sql)?.insert_id() == explicit, "an explicit id");
        disturb(&mut others)?;
        expect(&mut client, "SELECT LAST_INSERT_ID()", &id)?;
        client.run("DO LAST_INSERT_ID(77)")?;
        disturb(&mut others)?;
        expect(&mut client, "SELECT LAST_INSERT_ID()", "77")?;
        client.run("SELECT LAST_INSERT_ID(78)")?;
        disturb(&mut others)?;
        expect(&mut client, "SELECT LAST_INSERT_ID()", "78")?;
        client.run("UPDATE t SET id = LAST_INSERT_ID(id + 1) WHERE id = 0")?;
        client.run("BEGIN")?;
        let id = client
            .run("INSERT INTO t (v) VALUES ('in')")?
            .insert_id()
            .to_string();
        expect(&mut client, "SELECT LAST_INSERT_ID()", &id)?;
        client.run(if round % 3 == 0 { "ROLLBACK" } else { "COMMIT" })?;
        disturb(&mut others)?;
        expect(&mut client, "SELECT LAST_INSERT_ID()", &id)?;
        client.run("INSERT INTO t (v) VALUES ('r') RETURNING id")?;
        disturb(&mut others)?;
        let direct = client.value("SELECT MAX(id) FROM t WHERE v = 'r'")?;
        expect(&mut client, "SELECT LAST_INSERT_ID()", &direct)?;
    }
    client.reset()?;
    expect(&mut client, "SELECT LAST_INSERT_ID()", "0")
}

#[test]
fn what_is_asked_of_the_statement_before_is_of_the_sessions_own() -> Result<()> {
    let _cluster = shared()?;
    let gateway = of_size("previous", 8)?;
    let mut client = gateway.client("previous")?;
    let mut others = [gateway.client("previous")?, gateway.client("previous")?];
    for _ in 0..20 {
        client.run("SELECT SQL_CALC_FOUND_ROWS * FROM t WHERE id < 4 LIMIT 1")?;
        expect(&mut client, "SELECT FOUND_ROWS()", "3")?;
        client.run("UPDATE t SET v = CONCAT(v, '') WHERE id = 99999")?;
        expect(&mut client, "SELECT ROW_COUNT()", "0")?;
        client.run("DELETE FROM t WHERE id > 3")?;
        client.run("INSERT INTO t (v) VALUES ('p'), ('q')")?;
        expect(&mut client, "SELECT ROW_COUNT()", "2")?;
        client.run("SELECT 1/0")?;
        let warnings = client.run("SHOW WARNINGS")?;
        ensure!(warnings.rows().len() == 1, "at once: {:?}", warnings.rows());
        client.run("SELECT 1/0")?;
        disturb(&mut others)?;
        let late = client.run("SHOW WARNINGS")?;
        ensure!(
            late.rows()
                .iter()
                .all(|row| row.get(1).is_some_and(|code| code == "1365")),
            "late: {:?}",
            late.rows()
        );
        client.query("SELECT * FROM notthere")?;
        let rows = client.run("SHOW ERRORS")?.rows();
        ensure!(
            rows.first()
                .and_then(|row| row.get(1))
                .is_some_and(|code| code == "1146"),
            "{rows:?}"
        );
        // A statement of a table forgets what was told before.
        client.run("SELECT * FROM t LIMIT 1")?;
        let rows = client.run("SHOW WARNINGS")?.rows();
        ensure!(rows.is_empty(), "others' warnings: {rows:?}");
        expect(&mut client, "SHOW COUNT(*) WARNINGS", "0")?;
        expect(&mut client, "SELECT @@warning_count", "0")?;
    }
    Ok(())
}

#[test]
fn what_is_asked_too_late_is_right_or_refused_and_never_anothers() -> Result<()> {
    let _cluster = shared()?;
    let gateway = narrow("late")?;
    let mut client = gateway.client("late")?;
    let mut others = [
        gateway.client("late")?,
        gateway.client("late")?,
        gateway.client("late")?,
    ];
    for (does, asks, right) in [
        (
            "SELECT SQL_CALC_FOUND_ROWS * FROM t WHERE id < 4 LIMIT 1",
            "SELECT FOUND_ROWS()",
            "3",
        ),
        ("DELETE FROM t WHERE id = 999999", "SELECT ROW_COUNT()", "0"),
        (
            "INSERT INTO t (v) VALUES ('1'), ('2'), ('3'), ('4'), ('5')",
            "SELECT ROW_COUNT()",
            "5",
        ),
        ("SELECT 1/0", "SHOW COUNT(*) WARNINGS", "1"),
    ] {
        for pause_ms in [0, 20, 1_500] {
            // A session that was refused keeps its connection, so each has one of its own.
            client = gateway.client("late")?;
            client.run(does)?;
            std::thread::sleep(std::time::Duration::from_millis(pause_ms));
            disturb(&mut others)?;
            let reply = client.query(asks)?;
            let refused = reply
                .fault
                .as_ref()
                .is_some_and(|it| it.message.starts_with("breccia:"));
            let text = reply.text();
            ensure!(
                refused || text.as_deref() == Some(right),
                "{does}, {pause_ms} ms: {text:?} {:?}",
                reply.fault
            );
            if refused {
                client.run(does)?;
                disturb(&mut others)?;
                expect(&mut client, asks, right)?;
            }
        }
    }
    client.ping().map(drop)
}

#[test]
fn what_a_session_makes_stays_with_it_and_is_seen_by_no_other() -> Result<()> {
    let _cluster = shared()?;
    let gateway = narrow("own")?;
    // Each makes something, looks at it, and asks what another session must not see.
    let rows: &[(&str, &str, &str, &str)] = &[
        ("SET @u = 5", "SELECT @u", "5", "SELECT @u"),
        ("SELECT 6 INTO @w", "SELECT @w", "6", "SELECT @w"),
        ("SELECT @z := 7", "SELECT @z", "7", "SELECT @z"),
        (
            "CREATE TEMPORARY TABLE mine AS SELECT 8 AS n",
            "SELECT n FROM mine",
            "8",
            "SELECT n FROM mine",
        ),
        (
            "DO GET_LOCK('own', 0)",
            "SELECT IS_USED_LOCK('own') IS NULL",
            "0",
            "",
        ),
        ("LOCK TABLES t READ", "SELECT COUNT(*) > 0 FROM t", "1", ""),
        ("PREPARE p FROM 'SELECT 9'", "EXECUTE p", "9", "EXECUTE p"),
        (
            "HANDLER t OPEN",
            "HANDLER t READ FIRST",
            "1",
            "HANDLER t READ FIRST",
        ),
    ];
    for (make, look, expected, other) in rows {
        let mut owner = gateway.client("own")?;
        owner.run(make)?;
        for _ in 0..5 {
            owner.run("SELECT 1")?;
            let found = owner.value(look).with_context(|| format!("after {make}"))?;
            ensure!(found == *expected, "{make}: {found}");
            if !other.is_empty() {
                let reply = gateway.client("own")?.query(other)?;
                let text = reply.text();
                ensure!(
                    reply.fault.is_some() || text.as_deref() == Some("NULL"),
                    "{make}: another sees {text:?}"
                );
            }
        }
        drop(owner);
        for _ in 0..6 {
            let mut next = gateway.client("own")?;
            next.run("SELECT 1")?;
            next.run("INSERT INTO t (v) VALUES ('free')")
                .with_context(|| format!("after {make}"))?;
            if !other.is_empty() {
                let reply = next.query(other)?;
                let text = reply.text();
                ensure!(
                    reply.fault.is_some() || text.as_deref() == Some("NULL"),
                    "{make}: left to the next: {text:?}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn an_xa_transaction_stays_with_its_session() -> Result<()> {
    let _cluster = shared()?;
    let gateway = narrow("xatx")?;
    let mut client = gateway.client("xatx")?;
    let mut other = gateway.client("xatx")?;
    for round in 0..5 {
        client.run(&format!("XA START 'x{round}'"))?;
        client.run("INSERT INTO t (v) VALUES ('xa')")?;
        expect(
            &mut client,
            "SELECT COUNT(*) > 0 FROM t WHERE v = 'xa'",
            "1",
        )?;
        let seen = other.value("SELECT COUNT(*) FROM t WHERE v = 'xa'")?;
        ensure!(seen == "0", "another session sees {seen}");
        client.run(&format!("XA END 'x{round}'"))?;
        client.run(&format!("XA PREPARE 'x{round}'"))?;
        client.run(&format!("XA ROLLBACK 'x{round}'"))?;
        expect(&mut client, "SELECT COUNT(*) FROM t WHERE v = 'xa'", "0")?;
    }
    Ok(())
}

#[test]
fn a_reset_and_another_user_begin_anew() -> Result<()> {
    let _cluster = shared()?;
    let gateway = narrow("anew")?;
    let mut client = gateway.client("anew")?;
    let dirty = |client: &mut MyClient| -> Result<()> {
        client.run("SET @u = 1, time_zone = '+05:00', sql_mode = 'ANSI_QUOTES'")?;
        client.run("CREATE TEMPORARY TABLE passing (n int)")?;
        client.run("BEGIN")?;
        client.run("INSERT INTO t (v) VALUES ('undone')").map(drop)
    };
    let clean = |client: &mut MyClient| -> Result<()> {
        expect(client, "SELECT @u", "NULL")?;
        expect(client, "SELECT @@time_zone", "SYSTEM")?;
        expect(client, "SELECT @@in_transaction", "0")?;
        expect(client, "SELECT COUNT(*) FROM t WHERE v = 'undone'", "0")?;
        ensure!(
            client.query("SELECT * FROM passing")?.code() == 1146,
            "a temporary table stays"
        );
        expect(client, "SELECT DATABASE()", "anew")
    };
    dirty(&mut client)?;
    let statement = client.prepare("SELECT 1")?.ok().context("prepared")?;
    client.reset()?;
    clean(&mut client)?;
    let gone = client.execute(&statement, &[])?;
    ensure!(gone.code() == 1243, "a statement after a reset: {gone:?}");
    dirty(&mut client)?;
    client.change_user(login("anew", 0))?;
    clean(&mut client)?;
    ensure!(
        client
            .change_user(breccia_testkit::MyLogin {
                password: "wrong",
                ..login("anew", 0)
            })
            .is_err()
    );
    Ok(())
}

#[test]
fn what_holds_for_one_statement_holds_for_no_other() -> Result<()> {
    let _cluster = shared()?;
    let gateway = narrow("onestatement")?;
    let asked = "SELECT CONCAT(@@sql_select_limit, ' ', @@time_zone)";
    let once = "SET STATEMENT sql_select_limit = 1 FOR SELECT id FROM t";
    for (text, after) in [
        (once.to_owned(), "18446744073709551615 +01:00"),
        (
            format!("SET sql_select_limit = 2; {once}; SET time_zone = '+02:00'"),
            "2 +02:00",
        ),
        (
            format!("SET sql_select_limit = 2; {once}; SET sql_select_limit = 3"),
            "3 +01:00",
        ),
    ] {
        let mut client = gateway.client("onestatement")?;
        client.allow_multi(true)?;
        client.run("SET time_zone = '+01:00'")?;
        let statement = client
            .prepare("SELECT COUNT(*) FROM t WHERE id > ?")?
            .ok()
            .context("prepared")?;
        client.run("SET sql_mode = 'ANSI'")?;
        client.run(&text)?;
        expect(&mut client, asked, after)?;
        // It is prepared there under the settings of before.
        client.execute(&statement, &[MyValue::Int(0)])?.good()?;
        expect(&mut client, asked, after).with_context(|| text.clone())?;
    }
    Ok(())
}
