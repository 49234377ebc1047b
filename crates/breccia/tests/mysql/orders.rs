//! Statements in orders that mix what is on a replica with what is open on the primary.
//!
//! Each was tried for being carried out in the wrong place. Invariant: what a client hears is what one
//! server would have said, and a replica never has a transaction of its own.

use anyhow::{Result, ensure};
use breccia_testkit::{MariaDbCluster, MyClient, MyStatement, MyValue};

use crate::prepared::prepared;
use crate::rig::{Extra, Gateway, shared};
use crate::state::{expect, numbers};

/// `CURSOR_TYPE_READ_ONLY`, and `SERVER_STATUS_IN_TRANS`.
const CURSOR: u8 = 1;
const IN_TRANS: u16 = 1;

fn gateway(database: &str, composite: &str) -> Result<Gateway> {
    let cluster = numbers(database)?;
    let gateway = Gateway::over(
        &cluster,
        Extra {
            composite,
            ..Extra::default()
        },
    )?;
    gateway.wait_reads(&cluster)?;
    Ok(gateway)
}

/// Begins a READ ONLY transaction on a replica.
fn read_only(client: &mut MyClient, cluster: &MariaDbCluster) -> Result<()> {
    let primary = cluster.query(0, "SELECT @@server_id")?;
    for _ in 0..100 {
        client.run("START TRANSACTION READ ONLY")?;
        client.run("SELECT COUNT(*) FROM t")?;
        if client.value("SELECT @@server_id")? != primary.trim() {
            return Ok(());
        }
        client.run("COMMIT")?;
    }
    anyhow::bail!("no transaction ran on a replica");
}

/// What each server has of a table.
fn everywhere(cluster: &MariaDbCluster, sql: &str) -> Result<Vec<String>> {
    (0..3)
        .map(|number| Ok(cluster.query(number, sql)?.trim().to_owned()))
        .collect()
}

#[test]
fn the_end_of_a_transaction_goes_where_that_is_and_not_to_an_old_cursor() -> Result<()> {
    let cluster = shared()?;
    let gateway = gateway("oldcursors", "")?;
    for (end, wanted) in [("COMMIT", "1"), ("ROLLBACK", "0")] {
        let mut client = gateway.client("oldcursors")?;
        let select = prepared(&mut client, "SELECT id FROM t ORDER BY id")?;
        read_only(&mut client, &cluster)?;
        client.execute_as(select.id, &[], CURSOR, true)?.good()?;
        client.run("COMMIT")?;
        client.run("BEGIN")?;
        client.run(&format!("INSERT INTO t (v) VALUES ('{end}')"))?;
        client.fetch(select.id, 1)?.good()?;
        let ended = client.run(end)?;
        ensure!(ended.status() & IN_TRANS == 0, "{end}: it is still open");
        drop(client);
        let count = format!("SELECT COUNT(*) FROM oldcursors.t WHERE v = '{end}'");
        ensure!(cluster.query(0, &count)?.trim() == wanted, "{end}");
    }
    Ok(())
}

#[test]
fn data_sent_ahead_leaves_the_end_of_a_lazy_transaction_alone() -> Result<()> {
    let cluster = shared()?;
    let gateway = gateway("lazydata", "transactions = \"lazy\"")?;
    let mut client = gateway.client("lazydata")?;
    client.run("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")?;
    let insert = prepared(&mut client, "INSERT INTO t (v) VALUES (?)")?;
    client.run("BEGIN")?;
    client.run("SELECT COUNT(*) FROM t")?;
    client.long_data(insert.id, 0, b"sent ahead")?;
    client.run("COMMIT")?;
    client.execute(&insert, &[MyValue::Long])?.good()?;
    client.run("INSERT INTO t (v) VALUES ('later')")?;
    drop(client);
    let count = "SELECT COUNT(*) FROM lazydata.t WHERE v IN ('later', 'sent ahead')";
    ensure!(cluster.query(0, count)?.trim() == "2");
    Ok(())
}

#[test]
fn nothing_said_in_a_read_only_transaction_writes_on_its_replica() -> Result<()> {
    let cluster = shared()?;
    let gateway = gateway("smuggled", "")?;
    MyClient::connect(cluster.primary().port(), "smuggled")?.run(
        "CREATE PROCEDURE writes() BEGIN START TRANSACTION READ WRITE; \
         INSERT INTO t (v) VALUES ('called'); COMMIT; END",
    )?;
    let positions = "SELECT @@global.gtid_binlog_pos LIKE '%-2-%' OR \
                     @@global.gtid_binlog_pos LIKE '%-3-%'";
    let before = everywhere(&cluster, positions)?;
    let insert = "INSERT INTO t (v) VALUES ('written')";
    let texts: [(&[&str], &str); 9] = [
        (&["START TRANSACTION READ WRITE", insert, "COMMIT"], "1"),
        (&["START TRANSACTION", insert, "COMMIT"], "1"),
        (&["BEGIN", insert, "ROLLBACK"], "0"),
        (
            &[
                "SET SESSION TRANSACTION READ WRITE",
                "START TRANSACTION",
                insert,
                "COMMIT",
            ],
            "1",
        ),
        (&["SET autocommit = 1", "COMMIT", insert], "1"),
        (&["ANALYZE TABLE t", insert], "1"),
        (&["!CALL writes()", "COMMIT"], "0"),
        (&["!SET GLOBAL long_query_time = 11", "COMMIT"], "0"),
        (
            &[
                "!COMMIT; START TRANSACTION READ WRITE; INSERT INTO t (v) VALUES ('written'); COMMIT",
                "COMMIT",
            ],
            "0",
        ),
    ];
    for (texts, wanted) in texts {
        let mut client = gateway.client("smuggled")?;
        read_only(&mut client, &cluster)?;
        for sql in texts {
            match sql.strip_prefix('!') {
                Some(sql) => ensure!(client.query(sql)?.code() == 1105, "{sql} was run"),
                None => drop(client.run(sql)?),
            }
        }
        drop(client);
        cluster.wait_caught_up(crate::rig::LIMIT)?;
        let count = "SELECT COUNT(*) FROM smuggled.t WHERE v IN ('written', 'called')";
        let found = everywhere(&cluster, count)?;
        ensure!(found.iter().all(|it| it == wanted), "{texts:?}: {found:?}");
        cluster.query(0, "DELETE FROM smuggled.t WHERE v = 'written'")?;
    }
    let found = everywhere(&cluster, positions)?;
    ensure!(found == before, "a replica has written: {found:?}");
    let slow = everywhere(&cluster, "SELECT @@global.long_query_time = 11")?;
    ensure!(slow.iter().all(|it| it == "0"), "{slow:?}");
    Ok(())
}

#[test]
fn a_text_that_asks_about_itself_goes_where_its_writes_go() -> Result<()> {
    let cluster = shared()?;
    let gateway = gateway("asksitself", "")?;
    let mut client = gateway.client("asksitself")?;
    client.allow_multi(true)?;
    for _ in 0..3 {
        client.run("SELECT COUNT(*) FROM t")?;
        let reply =
            client.run("UPDATE t SET v = CONCAT(v, 'x') WHERE id < 3; SELECT ROW_COUNT()")?;
        ensure!(reply.rows() == [["2"]], "{reply:?}");
        client.run("SELECT COUNT(*) FROM t")?;
        let smuggled = "SELECT FOUND_ROWS(); START TRANSACTION READ WRITE; \
                        INSERT INTO t (v) VALUES ('smuggled'); COMMIT";
        drop(client.query(smuggled)?);
    }
    cluster.wait_caught_up(crate::rig::LIMIT)?;
    let counts = everywhere(&cluster, "SELECT COUNT(*) FROM asksitself.t")?;
    ensure!(
        counts.windows(2).all(|pair| pair[0] == pair[1]),
        "{counts:?}"
    );
    Ok(())
}

#[test]
fn statements_of_the_same_text_do_not_share_cursors_or_data() -> Result<()> {
    let _cluster = shared()?;
    let gateway = gateway("sametext", "")?;
    let mut client = gateway.client("sametext")?;
    let sql = "SELECT id FROM t WHERE id > ? ORDER BY id";
    let (one, two) = (prepared(&mut client, sql)?, prepared(&mut client, sql)?);
    let row = |client: &mut MyClient, id: u32| -> Result<Vec<u8>> {
        let fetched = client.fetch(id, 1)?.good()?;
        Ok(fetched.packets.into_iter().next().unwrap_or_default().0)
    };
    let open = |client: &mut MyClient, statement: &MyStatement, above: i64| {
        let values = [MyValue::Int(above)];
        client
            .execute_as(statement.id, &values, CURSOR, true)?
            .good()
    };
    // What two cursors of different texts say, one after the other.
    open(&mut client, &one, 0)?;
    let (first, second) = (row(&mut client, one.id)?, row(&mut client, one.id)?);
    open(&mut client, &one, 0)?;
    ensure!(row(&mut client, one.id)? == first);
    open(&mut client, &two, 1)?;
    ensure!(row(&mut client, two.id)? == second, "the other's row");
    client.execute(&two, &[MyValue::Int(2)])?.good()?;
    let three = prepared(&mut client, sql)?;
    ensure!(row(&mut client, one.id)? == second, "its cursor is gone");
    client.close(&three)?;
    let sql = "INSERT INTO t (id, v) VALUES (?, ?)";
    let (one, two) = (prepared(&mut client, sql)?, prepared(&mut client, sql)?);
    client.long_data(one.id, 1, b"of one")?;
    client.long_data(two.id, 1, b"of two")?;
    client
        .execute(&two, &[MyValue::Int(102), MyValue::Long])?
        .good()?;
    client
        .execute(&one, &[MyValue::Int(101), MyValue::Long])?
        .good()?;
    let rows = client
        .run("SELECT v FROM t WHERE id > 100 ORDER BY id")?
        .rows();
    ensure!(rows == [["of one"], ["of two"]], "{rows:?}");
    Ok(())
}

#[test]
fn a_statement_with_an_old_cursor_runs_anew_where_its_sessions_writes_are() -> Result<()> {
    let cluster = shared()?;
    let gateway = gateway("anew", "")?;
    let mut client = gateway.client("anew")?;
    let count = prepared(&mut client, "SELECT COUNT(*) FROM t")?;
    for round in 0..20 {
        read_only(&mut client, &cluster)?;
        client.execute_as(count.id, &[], CURSOR, true)?.good()?;
        client.run("COMMIT")?;
        client.run("INSERT INTO t (v) VALUES ('own')")?;
        client.execute_as(count.id, &[], CURSOR, true)?.good()?;
        let fetched = client.fetch(count.id, 1)?.good()?;
        let number = fetched.packets.first().and_then(|it| it.0.get(2).copied());
        ensure!(number == Some(4 + round), "{number:?} in round {round}");
        client.reset_statement(count.id)?.good()?;
    }
    Ok(())
}

#[test]
fn a_schema_that_one_session_enters_is_no_other_sessions() -> Result<()> {
    let _cluster = shared()?;
    let gateway = gateway("entered", "")?;
    for _ in 0..5 {
        let mut one = gateway.client("")?;
        one.run("USE entered")?;
        one.run("UPDATE t SET v = 'x' WHERE id = 1")?;
        drop(one);
        let mut other = gateway.client("")?;
        expect(
            &mut other,
            "SELECT IFNULL(DATABASE(), 'none') FROM entered.t FOR UPDATE",
            "none",
        )?;
        ensure!(other.query("INSERT INTO t (v) VALUES ('lost')")?.code() == 1046);
    }
    Ok(())
}

#[test]
fn the_last_insert_id_is_known_in_a_read_only_transaction() -> Result<()> {
    let cluster = shared()?;
    let gateway = gateway("lastid", "")?;
    let mut client = gateway.client("lastid")?;
    client.run("INSERT INTO t (v) VALUES ('mine')")?;
    read_only(&mut client, &cluster)?;
    expect(&mut client, "SELECT LAST_INSERT_ID()", "4")?;
    client.run("COMMIT")?;
    expect(&mut client, "SELECT LAST_INSERT_ID()", "4")
}

#[test]
fn a_sequences_last_value_is_told_to_nobody_else() -> Result<()> {
    let cluster = shared()?;
    let gateway = gateway("lastvalue", "")?;
    cluster.query(0, "CREATE SEQUENCE lastvalue.s")?;
    let (mut one, mut other) = (gateway.client("lastvalue")?, gateway.client("lastvalue")?);
    one.run("SELECT NEXTVAL(s)")?;
    for _ in 0..3 {
        let reply = other.query("SELECT IFNULL(LASTVAL(s), 'none')")?;
        ensure!(
            reply.code() == 1105 || reply.text().as_deref() == Some("none"),
            "{reply:?}"
        );
    }
    Ok(())
}
