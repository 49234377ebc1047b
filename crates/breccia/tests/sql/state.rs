//! What a session sets and prepares stays its own, however its frames are sent and whatever fails.
//!
//! Two clients share one upstream connection, so whatever is left on it shows. Not a random schedule
//! (`sessions.rs`). Invariant: each of these went wrong once, or could.

use anyhow::{Context, Result, ensure};
use breccia_testkit::{PostgresCluster, SqlClient};
use std::sync::Arc;

use crate::pooling::database;
use crate::rig::{Extra, Gateway};

/// A gateway with one connection to each server for all sessions of a database.
fn narrow(name: &str) -> Result<(Arc<PostgresCluster>, Gateway)> {
    let cluster = database(name)?;
    let extra = Extra {
        listener: "pool-size = 1",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, name, extra)?;
    Ok((cluster, gateway))
}

/// What a session's setting is, asked on the primary.
fn shown(client: &mut SqlClient, name: &str) -> Result<String> {
    let reply = client.run(&format!("SHOW {name}"))?;
    Ok(reply.value().context("no value")?.to_owned())
}

fn pinned(client: &mut SqlClient) -> Result<String> {
    shown(client, "breccia.pinned")
}

/// Reads up to the end of a command or an error; the types of the frames.
fn up_to_the_end(client: &mut SqlClient) -> Result<String> {
    let mut frames = String::new();
    while !frames.ends_with(['C', 'E']) {
        frames.push(char::from(client.read_frame()?.0));
    }
    Ok(frames)
}

const PINS: [(&str, &str); 5] = [
    ("LISTEN pieces", "listen"),
    ("CREATE TEMP TABLE pieces (a int)", "temp"),
    ("SELECT pg_advisory_lock(421)", "advisory-lock"),
    ("SET ROLE pg_monitor", "role"),
    ("SET work_mem = '3MB'", "set"),
];

#[test]
fn a_batch_in_pieces_pins_as_a_whole_one_does() -> Result<()> {
    let (_cluster, gateway) = narrow("pieces")?;
    let mut client = gateway.client("pieces")?;
    for (sql, reason) in PINS {
        client.parse("", sql).bind("", &[]).execute();
        client.frame(b'H', &[]).flush()?;
        let frames = up_to_the_end(&mut client)?;
        ensure!(frames.ends_with('C'), "{sql}: {frames}");
        client.sync().ask()?.good()?;
        ensure!(pinned(&mut client)? == reason, "{sql} with a Flush");
        client.run("DISCARD ALL")?;
        // Longer than what is looked at whole.
        let long = "x".repeat(1 << 20);
        client.parse("", "SELECT length($1)").bind("", &[&long]);
        client.execute().parse("", sql).bind("", &[]).execute();
        client.sync().ask()?.good()?;
        ensure!(pinned(&mut client)? == reason, "{sql} behind a long value");
        client.run("DISCARD ALL")?;
        // More names than are kept of a batch.
        for number in 0..64 {
            client.parse(&format!("s{number}"), "SELECT 1");
        }
        client.parse("last", sql).bind("last", &[]).execute();
        client.sync().ask()?.good()?;
        ensure!(pinned(&mut client)? == reason, "{sql} behind many names");
        client.run("DISCARD ALL")?;
        ensure!(pinned(&mut client)?.is_empty(), "{sql}: still pinned");
    }
    Ok(())
}

#[test]
fn a_write_in_pieces_that_is_lost_is_not_said_to_be_undone() -> Result<()> {
    let (cluster, gateway) = narrow("lost_pieces")?;
    let mut client = gateway.client("lost_pieces")?;
    let sql = "INSERT INTO t (own) SELECT 1 FROM pg_sleep(30)";
    client.parse("", sql).bind("", &[]).frame(b'H', &[]);
    client.flush()?;
    client.execute().sync().flush()?;
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE datname = 'lost_pieces' AND wait_event = 'PgSleep'";
    let ended = || Ok((cluster.primary().query("postgres", end)?.trim() == "1").then_some(()));
    breccia_testkit::wait_until(crate::rig::LIMIT, "a statement to end", ended)?;
    let mut told = String::new();
    while let Ok((kind, body)) = client.read_frame() {
        if kind == b'E' {
            told.push_str(&String::from_utf8_lossy(&body));
        }
    }
    ensure!(told.contains("08007"), "{told:?}");
    Ok(())
}

/// A call by the protocol's own message: the number of a function, and arguments in text.
fn call(client: &mut SqlClient, function: u32, arguments: &[&str]) -> Result<()> {
    let mut body = function.to_be_bytes().to_vec();
    body.extend([0, 0]);
    body.extend(u16::try_from(arguments.len())?.to_be_bytes());
    for argument in arguments {
        body.extend(u32::try_from(argument.len())?.to_be_bytes());
        body.extend(argument.as_bytes());
    }
    body.extend([0, 0]);
    client.frame(b'F', &body).ask()?.good()?;
    Ok(())
}

#[test]
fn a_function_called_by_number_pins_unless_it_is_of_large_objects() -> Result<()> {
    let (_cluster, gateway) = narrow("called")?;
    let mut client = gateway.client("called")?;
    // lo_creat, with both modes.
    call(&mut client, 957, &["393216"])?;
    ensure!(pinned(&mut client)?.is_empty(), "by a large object");
    // pg_advisory_lock(bigint)
    call(&mut client, 2880, &["422"])?;
    ensure!(pinned(&mut client)? == "function-call");
    Ok(())
}

#[test]
fn a_setting_of_a_batch_that_fails_is_not_kept() -> Result<()> {
    let (_cluster, gateway) = narrow("failed_set")?;
    let mut one = gateway.client("failed_set")?;
    let mut other = gateway.client("failed_set")?;
    other.run("SET search_path = b9")?;
    let before = shown(&mut one, "search_path")?;
    one.parse("", "SET search_path = b9")
        .bind("", &[])
        .execute();
    let reply = one.parse("", "SELEC").sync().ask()?;
    ensure!(reply.code() == "42601", "{reply:?}");
    ensure!(shown(&mut other, "search_path")? == "b9");
    ensure!(shown(&mut one, "search_path")? == before);
    ensure!(pinned(&mut one)?.is_empty());
    Ok(())
}

#[test]
fn what_a_client_pool_sends_brings_back_the_start() -> Result<()> {
    const RESET: &str = "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;";
    let (_cluster, gateway) = narrow("pool_reset")?;
    let parameters = [("database", "pool_reset"), ("search_path", "began")];
    let mut one = SqlClient::connect_with(gateway.port, &parameters)?;
    let mut other = gateway.client("pool_reset")?;
    let server = shown(&mut other, "search_path")?;
    for round in 0..2 {
        one.run("SET search_path = mine")?;
        one.run(RESET)?;
        ensure!(pinned(&mut one)?.is_empty(), "round {round}");
        ensure!(shown(&mut other, "search_path")? == server, "round {round}");
        ensure!(shown(&mut one, "search_path")? == "began", "round {round}");
    }
    Ok(())
}

/// A statement whose constant is worked out when it is prepared, and stays on the primary.
const MIDNIGHT: &str =
    "/* breccia: primary */ SELECT extract(epoch FROM '2026-01-01 00:00'::timestamptz)::bigint";
const UTC: &str = "1767225600";
const TOKYO: &str = "1767193200";

fn bound(client: &mut SqlClient, name: &str) -> Result<String> {
    let reply = client.bind(name, &[]).execute().sync().ask()?.good()?;
    Ok(reply.value().context("no value")?.to_owned())
}

fn prepared(client: &mut SqlClient, name: &str, sql: &str) -> Result<String> {
    client.parse(name, sql).sync().ask()?.good()?;
    bound(client, name)
}

#[test]
fn a_prepared_statement_is_shared_by_those_who_read_it_alike() -> Result<()> {
    let (_cluster, gateway) = narrow("alike")?;
    let zoned = |zone| {
        let parameters = [("database", "alike"), ("TimeZone", zone)];
        SqlClient::connect_with(gateway.port, &parameters)
    };
    let (mut one, mut other) = (zoned("UTC")?, zoned("Asia/Tokyo")?);
    ensure!(prepared(&mut one, "s", MIDNIGHT)? == UTC);
    ensure!(prepared(&mut other, "s", MIDNIGHT)? == TOKYO);
    ensure!(bound(&mut one, "s")? == UTC);
    // Who changes the setting has it read again, and nobody else.
    one.run("SET \"TimeZone\" = 'Asia/Tokyo'")?;
    ensure!(bound(&mut one, "s")? == TOKYO);
    ensure!(prepared(&mut zoned("UTC")?, "s", MIDNIGHT)? == UTC);
    one.run("RESET timezone")?;
    ensure!(bound(&mut one, "s")? == UTC);
    // A search path is part of it.
    let tables = "CREATE SCHEMA b7; CREATE TABLE b7.kinds (a text); INSERT INTO b7.kinds VALUES \
                  ('text'); CREATE TABLE public.kinds (a int); INSERT INTO public.kinds VALUES (7)";
    one.run(tables)?;
    other.run("SET search_path = b7")?;
    let sql = "/* breccia: primary */ SELECT a FROM kinds WHERE a = $1";
    for (client, value) in [(&mut one, "7"), (&mut other, "text")] {
        client.parse("k", sql).sync().ask()?.good()?;
        let reply = client.bind("k", &[value]).execute().sync().ask()?.good()?;
        ensure!(reply.value() == Some(value), "{reply:?}");
    }
    Ok(())
}

#[test]
fn what_is_prepared_under_a_setting_of_a_transaction_is_nobody_elses() -> Result<()> {
    let (_cluster, gateway) = narrow("local")?;
    let zoned = || {
        let parameters = [("database", "local"), ("TimeZone", "UTC")];
        SqlClient::connect_with(gateway.port, &parameters)
    };
    let (mut one, mut other) = (zoned()?, zoned()?);
    ensure!(prepared(&mut other, "s", MIDNIGHT)? == UTC);
    ensure!(prepared(&mut one, "shared", MIDNIGHT)? == UTC);
    for (round, set) in [
        "SET LOCAL timezone = 'Asia/Tokyo'",
        "SELECT set_config('timezone', 'Asia/Tokyo', true)",
    ]
    .iter()
    .enumerate()
    {
        // Step by step, and all at once.
        one.run("BEGIN")?;
        one.run(set)?;
        let name = format!("s{round}");
        ensure!(prepared(&mut one, &name, MIDNIGHT)? == TOKYO, "{set}");
        one.run("COMMIT")?;
        one.query("BEGIN").query(set).parse("", set);
        let name = format!("p{round}");
        one.parse(&name, MIDNIGHT).bind(&name, &[]).execute().sync();
        one.query("COMMIT").flush()?;
        let values: Vec<Option<String>> = (0..4)
            .map(|_| Ok(one.read_reply()?.good()?.value().map(str::to_owned)))
            .collect::<Result<_>>()?;
        ensure!(values[2].as_deref() == Some(TOKYO), "{set}: {values:?}");
        // One that others share, and that this connection has not prepared.
        one.run("CREATE TABLE again (a int); DROP TABLE again")?;
        one.query("BEGIN")
            .query(set)
            .bind("shared", &[])
            .sync()
            .flush()?;
        for _ in 0..3 {
            one.read_reply()?;
        }
        one.run("ROLLBACK")?;
        ensure!(bound(&mut other, "s")? == UTC, "{set}");
        ensure!(prepared(&mut zoned()?, "s", MIDNIGHT)? == UTC, "{set}");
    }
    Ok(())
}

#[test]
fn a_statement_that_names_a_moment_is_of_its_own_moment() -> Result<()> {
    let (_cluster, gateway) = narrow("moment")?;
    let sql = "/* breccia: primary */ SELECT extract(epoch FROM timestamptz 'now')::bigint";
    let first: i64 = prepared(&mut gateway.client("moment")?, "s", sql)?.parse()?;
    std::thread::sleep(std::time::Duration::from_millis(2_100));
    let mut other = gateway.client("moment")?;
    let then: i64 = prepared(&mut other, "s", sql)?.parse()?;
    ensure!(then >= first + 2, "{first} and {then}");
    ensure!(bound(&mut other, "s")?.parse::<i64>()? >= then);
    Ok(())
}
