//! Prepared statements whose state lives on a connection: cursors, data sent ahead, long texts and values.
//!
//! Invariant: a statement never runs without what its client sent for it, however few connections there
//! are and however the bytes arrive.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use breccia_testkit::{MyClient, MyStatement, MyValue};

use crate::rig::{Extra, Gateway, shared};
use crate::state::{expect, narrow, of_size};

/// `CURSOR_TYPE_READ_ONLY`.
const CURSOR: u8 = 1;

pub(crate) fn prepared(client: &mut MyClient, sql: &str) -> Result<MyStatement> {
    let prepared = client.prepare(sql)?;
    prepared.map_err(|reply| anyhow::anyhow!("{sql}: {:?}", reply.fault))
}

#[test]
fn a_long_execution_works_however_its_bytes_arrive() -> Result<()> {
    let _cluster = shared()?;
    let gateway = narrow("preplong")?;
    let mut client = gateway.client("preplong")?;
    client.run("CREATE TABLE wide (n int, v longtext)")?;
    // Types and the rest of the head take more than one read may bring.
    let many = 3000;
    let places = vec!["(?)"; many].join(", ");
    let sql = format!("INSERT INTO wide (n, v) VALUES (1, ?), (2, CONCAT_WS('', {places}))");
    let sql = sql.replace("(?)", "?");
    let statement = prepared(&mut client, &sql)?;
    let long = vec![b'x'; 2 << 20];
    let mut values = vec![MyValue::Bytes(&long)];
    values.extend(std::iter::repeat_n(MyValue::Int(7), many));
    let head = 5 + 9 + (many + 1).div_ceil(8) + 1 + 2 * (many + 1);
    let cuts = [
        1, 4, 5, 6, 7, 8, 9, 10, 13, 14, 15, 200, 389, 390, 391, 512, 3000,
    ];
    for cut in cuts.into_iter().chain([head - 1, head, head + 1, 100_000]) {
        let pause = Duration::from_millis(20);
        let reply = client.execute_cut(statement.id, &values, cut, pause)?;
        let affected = reply
            .good()
            .with_context(|| format!("cut at {cut}"))?
            .affected();
        ensure!(affected == 2, "cut at {cut}: {affected} rows");
    }
    expect(
        &mut client,
        "SELECT COUNT(DISTINCT v), MAX(LENGTH(v)), MIN(LENGTH(v)) FROM wide",
        "2",
    )?;
    expect(
        &mut client,
        "SELECT MIN(LENGTH(v)) FROM wide",
        &many.to_string(),
    )
}

#[test]
fn a_cursor_holds_its_connection_though_there_is_no_other() -> Result<()> {
    let _cluster = shared()?;
    let gateway = of_size("prepcursor", 1)?;
    let mut client = gateway.client("prepcursor")?;
    let select = prepared(&mut client, "SELECT id FROM t ORDER BY id")?;
    let opened = client.execute_as(select.id, &[], CURSOR, true)?.good()?;
    ensure!(opened.rows().is_empty(), "rows before the first fetch");
    for _ in 0..3 {
        let fetched = client.fetch(select.id, 1)?.good()?;
        ensure!(
            fetched.packets.len() == 2,
            "one row and its end: {fetched:?}"
        );
    }
    client.fetch(select.id, 1)?.good()?;
    // It is given back: another one may have it.
    gateway
        .client("prepcursor")?
        .run("UPDATE t SET v = 'x' WHERE id = 1")?;
    Ok(())
}

#[test]
fn cursors_and_data_live_in_a_read_only_transaction_on_a_replica() -> Result<()> {
    let cluster = shared()?;
    let gateway = narrow("prepaway")?;
    let mut client = gateway.client("prepaway")?;
    gateway.wait_reads(&cluster)?;
    let primary = cluster.query(0, "SELECT @@server_id")?;
    let select = prepared(&mut client, "SELECT id FROM t ORDER BY id")?;
    let like = prepared(&mut client, "SELECT LENGTH(?)")?;
    let (mut away, long) = (false, vec![b'y'; 3 << 20]);
    for _ in 0..50 {
        client.run("START TRANSACTION READ ONLY")?;
        client.run("SELECT COUNT(*) FROM t")?;
        away = client.value("SELECT @@server_id")? != primary.trim();
        client.execute_as(select.id, &[], CURSOR, true)?.good()?;
        client.fetch(select.id, 1)?.good()?;
        for piece in [&b"abc"[..], &long] {
            client.long_data(like.id, 0, piece)?;
        }
        let length = client.execute(&like, &[MyValue::Long])?.good()?;
        ensure!(
            length.text().as_deref() == Some("3145731"),
            "{:?}",
            length.text()
        );
        client.fetch(select.id, 1)?.good()?;
        client.run("COMMIT")?;
        // It outlives its transaction, as on a server, and another statement goes where it must.
        client.run("INSERT INTO t (v) VALUES ('beside')")?;
        let fetched = client.fetch(select.id, 1)?.good()?;
        ensure!(fetched.packets.len() == 2, "the third row: {fetched:?}");
        client.reset_statement(select.id)?.good()?;
        if away {
            break;
        }
    }
    ensure!(away, "no transaction ran on a replica");
    expect(&mut client, "SELECT COUNT(*) > 3 FROM t", "1")
}

#[test]
fn a_statement_whose_data_was_lost_with_its_connection_does_not_run() -> Result<()> {
    let cluster = shared()?;
    let gateway = narrow("preplost")?;
    let mut client = gateway.client("preplost")?;
    let insert = prepared(&mut client, "INSERT INTO t (v) VALUES (CONCAT(?, '!'))")?;
    client.long_data(insert.id, 0, b"first")?;
    client.run("SELECT COUNT(*) FROM t")?;
    ensure!(
        crate::rig::cut(&cluster, 0, "preplost")? > 0,
        "nothing was cut"
    );
    let refused = client.execute(&insert, &[MyValue::Long])?;
    ensure!(refused.code() != 0, "it ran");
    expect(&mut client, "SELECT COUNT(*) FROM t WHERE v LIKE '%!'", "0")?;
    client.long_data(insert.id, 0, b"second")?;
    client.execute(&insert, &[MyValue::Long])?.good()?;
    expect(&mut client, "SELECT v FROM t WHERE v LIKE '%!'", "second!")
}

#[test]
fn a_warning_of_a_statement_with_data_sent_ahead_can_be_asked_for() -> Result<()> {
    let _cluster = shared()?;
    let gateway = narrow("prepwarn")?;
    let mut client = gateway.client("prepwarn")?;
    let select = prepared(&mut client, "SELECT CAST(? AS UNSIGNED)")?;
    client.long_data(select.id, 0, b"12x")?;
    client.execute(&select, &[MyValue::Long])?.good()?;
    let warnings = client.run("SHOW WARNINGS")?;
    ensure!(warnings.rows().len() == 1, "{:?}", warnings.rows());
    Ok(())
}

#[test]
fn a_long_text_is_prepared_and_one_that_is_too_long_refused() -> Result<()> {
    let _cluster = shared()?;
    let gateway = narrow("preptext")?;
    let mut client = gateway.client("preptext")?;
    client.set_patience(Duration::from_secs(30))?;
    for length in [1 << 20, 3 << 20, (16 << 20) - 64] {
        let sql = format!("SELECT LENGTH('{}'), ?", "z".repeat(length));
        let reply = client.once(&sql, &[MyValue::Int(1)])?.good()?;
        ensure!(reply.rows()[0][0] == length.to_string(), "{length}");
    }
    let refused = client.prepare(&format!("SELECT '{}'", "z".repeat(17 << 20)))?;
    let refused = refused.err().context("a text of 17 MiB is prepared")?;
    ensure!(refused.code() == 1153, "{:?}", refused.fault);
    expect(&mut client, "SELECT 5", "5")
}

#[test]
fn what_a_client_allows_itself_holds_on_a_connection_that_it_keeps() -> Result<()> {
    let cluster = shared()?;
    let extra = Extra {
        listener: "pool-mode = \"session\"",
        ..Extra::default()
    };
    let _made = narrow("prepoption")?;
    let gateway = Gateway::over(&cluster, extra)?;
    let mut client = gateway.client("prepoption")?;
    client.run("UPDATE t SET v = 'kept' WHERE id = 1")?;
    for allowed in [true, false, true] {
        client.allow_multi(allowed)?.good()?;
        let reply = client.query("UPDATE t SET v = 'a' WHERE id = 1; SELECT 2")?;
        ensure!(
            (reply.code() == 0) == allowed,
            "{allowed}: {:?}",
            reply.fault
        );
    }
    Ok(())
}

#[test]
fn a_limit_of_rows_leaves_the_last_insert_id_alone() -> Result<()> {
    let _cluster = shared()?;
    let gateway = narrow("preplimit")?;
    let mut client = gateway.client("preplimit")?;
    client.run("SET sql_select_limit = 0, sql_safe_updates = 1")?;
    let id = client.run("INSERT INTO t (v) VALUES ('mine')")?.insert_id();
    // Longer than connections linger.
    std::thread::sleep(Duration::from_millis(1500));
    client.run("SET NAMES utf8mb4")?;
    gateway
        .client("preplimit")?
        .run("INSERT INTO t (v) VALUES ('another')")?;
    client.run("SET sql_select_limit = DEFAULT")?;
    expect(&mut client, "SELECT LAST_INSERT_ID()", &id.to_string())
}

#[test]
fn an_execution_that_is_cut_short_is_refused_and_its_session_goes_on() -> Result<()> {
    let cluster = shared()?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    let mut through = gateway.client("")?;
    let mut direct = MyClient::connect(cluster.server(0).port(), "")?;
    for client in [&mut direct, &mut through] {
        let prepared = client.prepare("SELECT ?")?;
        let statement = prepared.ok().context("a statement")?;
        for (length, code) in [(4, 1835), (8, 1835), (9, 1210), (10, 1210)] {
            // The statement's number, flags, how often, and what is there of its values.
            let mut body = statement.id.to_le_bytes().to_vec();
            body.extend_from_slice(&[0, 1, 0, 0, 0, 0]);
            body.truncate(length);
            client.command(23, &body)?;
            let reply = client.results(true)?;
            ensure!(reply.code() == code, "{length} bytes: {:?}", reply.fault);
            ensure!(client.value("SELECT 5")? == "5");
        }
    }
    Ok(())
}
