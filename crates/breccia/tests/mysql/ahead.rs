//! What clients send ahead of an execution, and what they fetch after it.
//!
//! Not what servers answer to it ([`crate::differential`]). Invariant: data and cursors are where their
//! statement runs, for as long as it needs them.

use std::io::Write as _;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use breccia_testkit::{MY_CURSOR, MariaDbCluster, MyClient, MyReply, MyStatement, MyValue};

use crate::rig::{Extra, Gateway, fresh, shared};

/// More than that makes an execution a long one.
const LONG: usize = (1 << 20) + 77;

/// An execution of a statement whose parameters are texts, as its packet.
fn execution(id: u32, values: &[&[u8]]) -> Result<Vec<u8>> {
    let mut payload = vec![0x17];
    payload.extend(id.to_le_bytes());
    payload.push(0);
    payload.extend(1_u32.to_le_bytes());
    payload.extend(vec![0; values.len().div_ceil(8)]);
    payload.push(1);
    payload.extend([0xfd, 0].repeat(values.len()));
    for value in values {
        payload.push(0xfd);
        payload.extend(&u32::try_from(value.len())?.to_le_bytes()[..3]);
        payload.extend(*value);
    }
    let mut packet = u32::try_from(payload.len())?.to_le_bytes()[..3].to_vec();
    packet.push(0);
    packet.extend(payload);
    Ok(packet)
}

#[test]
fn a_long_execution_may_come_in_any_pieces() -> Result<()> {
    const PARAMETERS: usize = 700;
    let cluster = shared()?;
    let _turn = crate::rig::turn();
    fresh(&cluster, "pieces")?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    let mut client = gateway.client("pieces")?;
    let marks = vec!["?"; PARAMETERS].join(",");
    let sql = format!("SELECT LENGTH(CONCAT_WS('', {marks}))");
    let statement = prepared(&mut client, &sql)?;
    let long = vec![b'x'; LONG];
    let mut values: Vec<&[u8]> = vec![b"ab"; PARAMETERS];
    *values.last_mut().context("a value")? = &long;
    let packet = execution(statement.id, &values)?;
    let expected = (LONG + 2 * (PARAMETERS - 1)).to_string();
    let (nulls, types) = (14, 15 + PARAMETERS.div_ceil(8));
    let mut raw = client.raw()?;
    raw.set_nodelay(true)?;
    for cut in [
        6,
        7,
        9,
        10,
        13,
        nulls,
        nulls + 40,
        types - 1,
        types,
        types + 700,
        types + 2 * PARAMETERS - 1,
        types + 2 * PARAMETERS,
    ] {
        let (first, rest) = packet.split_at(cut);
        raw.write_all(first)?;
        // Nothing tells when the gateway has read it; where it has not yet, this asks for less.
        thread::sleep(Duration::from_millis(20));
        raw.write_all(rest)?;
        let reply = client.results(true)?.good()?;
        ensure!(
            column(&reply) == expected,
            "cut at {cut}: {}",
            column(&reply)
        );
    }
    Ok(())
}

/// The statement, prepared.
fn prepared(client: &mut MyClient, sql: &str) -> Result<MyStatement> {
    client.prepare(sql)?.ok().context("prepared")
}

/// A gateway whose sessions have one connection to each server, and do not wait long for it.
fn narrow(cluster: &MariaDbCluster, database: &str) -> Result<Gateway> {
    fresh(cluster, database)?;
    let sql = format!("CREATE TABLE {database}.t (k int PRIMARY KEY, v varchar(4))");
    cluster.query(0, &sql)?;
    let sql = format!("INSERT INTO {database}.t VALUES (1,'a'),(2,'b'),(3,'c'),(4,'d')");
    cluster.query(0, &sql)?;
    let extra = Extra {
        listener: "pool-size = 1\nqueue-timeout = \"300ms\"",
        ..Extra::default()
    };
    Gateway::over(cluster, extra)
}

/// The first column of a reply.
fn column(reply: &MyReply) -> String {
    reply.rows().concat().join(",")
}

/// Rows of a cursor.
fn fetched(client: &mut MyClient, statement: &MyStatement, rows: u32) -> Result<usize> {
    let reply = client.fetch(statement.id, rows)?.good()?;
    // The last packet is the end of them.
    Ok(reply.packets.len() - 1)
}

#[test]
fn cursors_and_data_are_where_a_read_only_transaction_runs() -> Result<()> {
    let cluster = shared()?;
    let _turn = crate::rig::turn();
    let gateway = narrow(&cluster, "there")?;
    let mut client = gateway.client("there")?;
    let select = prepared(&mut client, "SELECT k FROM t ORDER BY k")?;
    let length = prepared(&mut client, "SELECT CONCAT(@@server_id, ':', LENGTH(?))")?;
    client.run("START TRANSACTION READ ONLY")?;
    client.run("SELECT COUNT(*) FROM t")?;
    let there = client.value("SELECT @@server_id")?;
    let primary = cluster.query(0, "SELECT @@server_id")?;
    ensure!(there != primary.trim(), "it runs on the primary");

    client.execute_as(select.id, &[], MY_CURSOR, true)?.good()?;
    ensure!(fetched(&mut client, &select, 1)? == 1, "the first row");
    client.long_data(length.id, 0, b"12345")?;
    client.long_data(length.id, 0, &vec![b'6'; LONG])?;
    let reply = client.execute(&length, &[MyValue::Long])?.good()?;
    let expected = format!("{there}:{}", LONG + 5);
    ensure!(column(&reply) == expected, "{}", column(&reply));
    client.run("COMMIT")?;

    // The cursor outlives its transaction, and what follows runs where it should.
    client.run("INSERT INTO t VALUES (5, 'e')")?;
    let count = client.value("SELECT COUNT(*) FROM t")?;
    ensure!(count == "5", "{count}");
    ensure!(fetched(&mut client, &select, 2)? == 2, "two more rows");
    ensure!(fetched(&mut client, &select, 9)? == 1, "the last row");
    ensure!(
        client.fetch(select.id, 1)?.code() == 1421,
        "the cursor is at its end"
    );
    let before = gateway.replica_reads()?;
    client.run("START TRANSACTION READ ONLY")?;
    client.run("SELECT COUNT(*) FROM t")?;
    client.run("COMMIT")?;
    ensure!(
        gateway.replica_reads()? > before,
        "nothing goes to replicas any more"
    );
    Ok(())
}

/// What a client of a narrow gateway does with the connection, and whether it still has it then.
type Step<'a> = (
    &'static str,
    Box<dyn FnOnce(&mut MyClient) -> Result<()> + 'a>,
    bool,
);

#[test]
fn a_connection_is_kept_for_a_cursor_and_for_data_and_then_given_back() -> Result<()> {
    let cluster = shared()?;
    let _turn = crate::rig::turn();
    let gateway = narrow(&cluster, "kept")?;
    let mut client = gateway.client("kept")?;
    let mut other = gateway.client("kept")?;
    let select = prepared(&mut client, "SELECT k FROM t ORDER BY k")?;
    let insert = prepared(&mut client, "INSERT INTO t VALUES (?, ?)")?;
    let open = |client: &mut MyClient| {
        let opened = client.execute_as(select.id, &[], MY_CURSOR, true)?;
        opened.good().map(drop)
    };
    let send = |client: &mut MyClient| {
        client.long_data(insert.id, 1, b"xy")?;
        // It has no answer: what is asked after it is answered after it.
        client.query("SELECT k FROM t").map(drop)
    };
    let fetch = |rows: u32, expected: usize| {
        let select = &select;
        move |client: &mut MyClient| {
            let found = fetched(client, select, rows)?;
            ensure!(found == expected, "{found} rows");
            Ok(())
        }
    };
    let steps: Vec<Step<'_>> = vec![
        ("a cursor", Box::new(open), true),
        ("some rows", Box::new(fetch(2, 2)), true),
        ("all rows", Box::new(fetch(1000, 2)), false),
        ("a cursor again", Box::new(open), true),
        (
            "a closed cursor",
            Box::new(|client| client.reset_statement(select.id)?.good().map(drop)),
            false,
        ),
        ("data", Box::new(send), true),
        (
            "data that is used",
            Box::new(|client| {
                let values = [MyValue::Int(10), MyValue::Long];
                client.execute(&insert, &values)?.good().map(drop)
            }),
            false,
        ),
        ("data again", Box::new(send), true),
        (
            "data that is forgotten",
            Box::new(|client| client.reset_statement(insert.id)?.good().map(drop)),
            false,
        ),
        ("data at last", Box::new(send), true),
        (
            "a closed statement",
            Box::new(|client| client.close(&insert)),
            false,
        ),
    ];
    for (what, step, has) in steps {
        step(&mut client).context(what)?;
        let code = other.query("UPDATE t SET v = 'z' WHERE k = 1")?.code();
        let expected = if has { 1040 } else { 0 };
        ensure!(code == expected, "{what}: the other client got {code}");
    }
    let value = client.value("SELECT v FROM t WHERE k = 10")?;
    ensure!(value == "xy", "{value}");
    Ok(())
}

#[test]
fn warnings_of_what_ran_with_data_can_be_asked_for() -> Result<()> {
    let cluster = shared()?;
    let _turn = crate::rig::turn();
    let gateway = narrow(&cluster, "asked")?;
    let mut client = gateway.client("asked")?;
    client.run("SET sql_mode = ''")?;
    let insert = prepared(&mut client, "INSERT INTO t VALUES (?, ?)")?;
    client.long_data(insert.id, 1, b"too long")?;
    client
        .execute(&insert, &[MyValue::Int(10), MyValue::Long])?
        .good()?;
    let warnings = client.run("SHOW WARNINGS")?.rows();
    ensure!(warnings.len() == 1, "{warnings:?}");
    Ok(())
}

#[test]
fn why_a_statement_cannot_take_data_is_told_when_it_runs() -> Result<()> {
    let cluster = shared()?;
    let _turn = crate::rig::turn();
    let gateway = narrow(&cluster, "untaken")?;
    let mut client = gateway.client("untaken")?;
    client.run("SELECT COUNT(*) FROM t")?;
    // Prepared on a replica, and so not yet where data goes.
    let select = prepared(&mut client, "SELECT LENGTH(?) FROM t")?;
    cluster.query(
        0,
        "CREATE TABLE untaken.u (k int PRIMARY KEY); DROP TABLE untaken.t",
    )?;
    client.run("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")?;
    client.long_data(select.id, 0, b"12345")?;
    client.long_data(select.id, 0, &vec![b'6'; LONG])?;
    let code = client.execute(&select, &[MyValue::Long])?.code();
    ensure!(code == 1146, "with data sent ahead: {code}");
    let long = vec![b'x'; LONG];
    let code = client.execute(&select, &[MyValue::Bytes(&long)])?.code();
    ensure!(code == 1146, "with a long value: {code}");

    // What was said of the next transaction still holds.
    client.run("BEGIN")?;
    client.run("SELECT * FROM u FOR UPDATE")?;
    let level = client.value(
        "SELECT trx_isolation_level FROM information_schema.innodb_trx \
         WHERE trx_query LIKE '%innodb_trx%'",
    )?;
    ensure!(level == "READ COMMITTED", "{level}");
    client.run("COMMIT").map(drop)
}
