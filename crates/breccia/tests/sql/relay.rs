//! Bytes between a client and a server, where one of them is slower than the other or says
//! something out of turn.
//!
//! Not what a session keeps (`sessions.rs`). Invariant: nobody here waits for ever, and what is left
//! over of one session never reaches another.

use std::io::Write as _;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use breccia_testkit::{SqlClient, wait_until};

use crate::pooling::database;
use crate::rig::{Extra, Gateway, LIMIT};

/// One connection for all.
const NARROW: Extra<'static> = Extra {
    top: "",
    server: "",
    composite: "",
    listener: "pool-size = 1\nqueue-timeout = \"5s\"",
};

/// A frame of rows of a copy: long, so that it is likely to be cut.
fn copied(client: &mut SqlClient) {
    let rows = b"7\n".repeat(20_000);
    client.frame(b'd', &rows);
}

#[test]
fn what_is_left_of_a_copy_that_failed_reaches_nobody_else() -> Result<()> {
    let cluster = database("relay_copy")?;
    // It fails late, so that much is on its way by then.
    cluster.primary().query(
        "relay_copy",
        "CREATE FUNCTION slow(a int) RETURNS bool LANGUAGE plpgsql AS \
         'BEGIN PERFORM pg_sleep(0.5); RETURN false; END'; \
         CREATE TABLE c (a int CHECK (slow(a)))",
    )?;
    let gateway = Gateway::over(&cluster, "relay_copy", NARROW)?;
    for round in 0..5 {
        let mut copier = gateway.client("relay_copy")?;
        copier.query("COPY c FROM STDIN");
        (0..500).for_each(|_| copied(&mut copier));
        copier.frame(b'c', &[]);
        let (copier, other) = thread::scope(|scope| {
            let copying = scope.spawn(move || -> Result<SqlClient> {
                copier.flush()?;
                Ok(copier)
            });
            thread::sleep(Duration::from_millis(100));
            let mut other = gateway.client("relay_copy")?;
            let value = format!("round {round}");
            let insert = format!("INSERT INTO t (v) VALUES ('{value}') RETURNING v");
            let reply = other.run(&insert)?;
            ensure!(reply.value() == Some(&value), "{round}: {reply:?}");
            Ok((copying.join().expect("no panic")?, other))
        })?;
        // The first one has heard of its failure only, goes on, and holds no connection meanwhile.
        let (mut copier, mut other) = (copier, other);
        let failed = copier.read_reply();
        ensure!(failed.is_ok_and(|it| it.code() == "23514"), "its failure");
        other.run("UPDATE t SET own = 1")?;
        ensure!(copier.run("SELECT 'on'")?.value() == Some("on"));
    }
    Ok(())
}

/// The kinds of all answers up to the last `ReadyForQuery` of so many.
fn kinds(client: &mut SqlClient, wanted: usize) -> Result<String> {
    let (mut kinds, mut ends) = (String::new(), 0);
    while ends < wanted {
        let (kind, _) = client.read_frame().with_context(|| kinds.clone())?;
        ends += usize::from(kind == b'Z');
        kinds.push(char::from(kind));
    }
    Ok(kinds)
}

#[test]
fn a_copy_sent_with_its_data_is_answered_as_by_a_server() -> Result<()> {
    let cluster = database("relay_ahead")?;
    cluster.primary().query(
        "relay_ahead",
        "CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END'; \
         CREATE TABLE closed (v text); \
         CREATE TRIGGER never BEFORE INSERT ON closed EXECUTE FUNCTION never()",
    )?;
    let gateway = Gateway::over(&cluster, "relay_ahead", NARROW)?;
    // The copy, its data, what ends it; whether a Sync comes at once too, as some libraries have it.
    let cases: [(&str, &[u8], u8, bool); 6] = [
        ("t (own)", b"1\n2\n", b'c', false),
        ("t (own)", b"1\nx\n", b'c', false),
        ("t (own)", b"1\n", b'f', false),
        ("t (own)", b"1\n2\n", b'c', true),
        ("closed", b"1\n", b'c', false),
        ("closed", b"1\n", b'c', true),
    ];
    for (into, data, end, early) in cases {
        let ask = |port: u16| -> Result<String> {
            let mut client = SqlClient::connect(port, "relay_ahead")?;
            client.set_patience(Duration::from_secs(10))?;
            client.parse("", &format!("COPY {into} FROM STDIN"));
            client.bind("", &[]).execute();
            let mut told = String::new();
            if early {
                // The answer shows that the server has begun to read.
                client.sync().flush()?;
                while !told.ends_with(['G', 'Z']) {
                    told.push(char::from(client.read_frame()?.0));
                }
            }
            client
                .frame(b'd', data)
                .frame(end, if end == b'f' { b"\0" } else { b"" });
            client.sync();
            // The batch behind it is nobody else's.
            client.parse("", "INSERT INTO t (v) VALUES ('behind')");
            client.bind("", &[]).execute().sync().flush()?;
            let mut last = String::new();
            while !last.contains("Z12nCZ") {
                last += &kinds(&mut client, 1)?;
            }
            // A Sync that the failed copy had not read is answered, or told to nobody if it is not known
            // by then to be that.
            Ok((told + &last).replace("EZZ", "EZ"))
        };
        let direct = ask(cluster.primary().port())?;
        let told = ask(gateway.port).with_context(|| format!("{into} {data:?} {early}"))?;
        ensure!(
            told == direct,
            "{into} {data:?} {early}: {told}, not {direct}"
        );
    }
    let sql = "SELECT count(own) || ' ' || count(v) FROM t";
    let found = cluster.primary().query("relay_ahead", sql)?;
    ensure!(found.trim() == "8 12", "{found}");
    Ok(())
}

#[test]
fn a_sync_that_a_failed_copy_left_unread_is_answered_to_nobody_else() -> Result<()> {
    let cluster = database("relay_unread")?;
    // It fails before it reads anything, and late, so that the client has sent all by then.
    cluster.primary().query(
        "relay_unread",
        "CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN PERFORM pg_sleep(0.3); RAISE ''no''; END'; CREATE TABLE closed (v text); \
         CREATE TRIGGER never BEFORE INSERT ON closed EXECUTE FUNCTION never()",
    )?;
    let gateway = Gateway::over(&cluster, "relay_unread", NARROW)?;
    let mut other = gateway.client("relay_unread")?;
    for round in 0..6 {
        let within = round % 2 == 1;
        let mut copier = gateway.client("relay_unread")?;
        if within {
            copier.run("BEGIN")?;
        }
        copier.parse("", "COPY closed FROM STDIN");
        copier.bind("", &[]).execute().sync().flush()?;
        while copier.read_frame()?.0 != b'G' {}
        // The server takes a while to skip that, and answers what is behind it late.
        for _ in 0..9_000 {
            copier.frame(b'd', b"1\n");
        }
        copier.frame(b'c', b"").sync().flush()?;
        if within {
            // What it asks next is answered by its own answers.
            let failed = kinds(&mut copier, 1)?;
            ensure!(failed.ends_with("EZ"), "{failed}");
            for _ in 0..3 {
                let code = copier.simple("SELECT 'in it'")?.code().to_owned();
                ensure!(code == "25P02", "{round}: {code:?}");
            }
            copier.run("ROLLBACK")?;
            ensure!(copier.run("SELECT 'out'")?.value() == Some("out"));
        }
        for number in 0..20 {
            let value = format!("{round}-{number}");
            // A write, so that it goes to the same server, and a word that is nobody else's.
            let insert = format!("INSERT INTO t (v) VALUES ('{value}') RETURNING v");
            let reply = other.run(&insert)?;
            ensure!(reply.value() == Some(&value), "{value}: {reply:?}");
        }
    }
    Ok(())
}

/// Takes frames up to the last `ReadyForQuery` of so many, slower than they come; how many rows.
fn slowly(wanted: usize, mut frame: impl FnMut() -> Result<u8>) -> Result<usize> {
    let (mut rows, mut ends) = (0, 0);
    while ends < wanted {
        match frame()? {
            b'D' => rows += 1,
            b'Z' => ends += 1,
            b'E' => bail!("an error behind {rows} rows"),
            _ => {}
        }
        if rows % 64 == 1 {
            thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(rows)
}

#[test]
fn a_slow_client_may_ask_again_before_it_has_read() -> Result<()> {
    let cluster = database("relay_slow")?;
    let gateway = Gateway::over(&cluster, "relay_slow", Extra::default())?;
    let mut client = gateway.client("relay_slow")?;
    let before = gateway.replica_reads()?;
    for _ in 0..8 {
        let long = "SELECT repeat('x', 1000) FROM generate_series(1, 10000)";
        client.query(long).query("SELECT 2").flush()?;
        let rows = slowly(2, || Ok(client.read_frame()?.0))?;
        ensure!(rows == 10_001, "{rows} rows");
    }
    ensure!(gateway.replica_reads()? >= before + 16.0, "all are reads");
    Ok(())
}

#[test]
fn a_query_behind_what_failed_is_nobody_elses_to_wait_for() -> Result<()> {
    let cluster = database("relay_skipped")?;
    let gateway = Gateway::over(&cluster, "relay_skipped", NARROW)?;
    let mut hasty = gateway.client("relay_skipped")?;
    let mut other = gateway.client("relay_skipped")?;
    for round in 0..5 {
        hasty.run(&format!("SET work_mem = '{}MB'", round + 5))?;
        other.run("UPDATE t SET own = 1")?;
        hasty
            .parse("", "SELEC")
            .query("INSERT INTO t (own) VALUES (2)");
        hasty.flush()?;
        ensure!(hasty.read_frame()?.0 == b'E');
        let answer = thread::scope(|scope| {
            let asking = scope.spawn(|| other.run("UPDATE t SET own = 3"));
            thread::sleep(Duration::from_millis(200));
            // As a server has it, there is no answer before this.
            let end = hasty.sync().ask();
            ensure!(end?.frames == "Z");
            asking.join().expect("no panic")
        });
        answer?;
    }
    let left = cluster
        .primary()
        .query("relay_skipped", "SELECT count(*) FROM t")?;
    ensure!(left.trim() == "0", "{left} rows");
    Ok(())
}

#[test]
fn deallocate_in_a_failed_transaction_is_answered() -> Result<()> {
    let cluster = database("relay_freed")?;
    let gateway = Gateway::over(&cluster, "relay_freed", NARROW)?;
    let mut client = gateway.client("relay_freed")?;
    let mut number = 0;
    // The transaction's connection, to the primary, has not prepared it.
    let mut prepare = |client: &mut SqlClient| {
        wait_until(LIMIT, "a statement prepared on a replica", || {
            number += 1;
            let before = gateway.replica_reads()?;
            client.close("s").parse("s", &format!("SELECT {number}"));
            client.sync().ask()?.good()?;
            Ok((gateway.replica_reads()? > before).then_some(()))
        })
    };
    for end in ["ROLLBACK", "COMMIT"] {
        prepare(&mut client)?;
        client.run("BEGIN")?;
        ensure!(client.simple("SELECT 1/0")?.code() == "22012");
        let reply = client.simple("DEALLOCATE s")?;
        ensure!(
            (reply.code(), reply.frames.as_str()) == ("25P02", "EZ"),
            "{reply:?}"
        );
        ensure!(reply.status == 'E');
        client.run(end)?;
        // It is still there: on the same connection, and wherever.
        client.query("BEGIN").bind("s", &[]).execute().sync();
        client.query("COMMIT").flush()?;
        for _ in 0..3 {
            client.read_reply()?.good()?;
        }
        client.bind("s", &[]).execute().sync().ask()?.good()?;
    }
    prepare(&mut client)?;
    client.run("BEGIN")?;
    client.run("INSERT INTO t (own) VALUES (1)")?;
    ensure!(client.run("DEALLOCATE s")?.frames == "CZ");
    client.run("COMMIT")?;
    ensure!(client.bind("s", &[]).execute().sync().ask()?.code() == "26000");
    Ok(())
}

/// The most memory a gateway has held so far, in bytes.
fn peak(gateway: &mut Gateway) -> Result<u64> {
    let path = format!("/proc/{}/status", gateway.breccia.process().id());
    let status = std::fs::read_to_string(&path).context(path)?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.context("no VmHWM")?.trim().trim_end_matches(" kB");
    Ok(kib.trim().parse::<u64>()? << 10)
}

#[test]
fn what_one_end_does_not_take_is_not_kept_for_it() -> Result<()> {
    const ROUNDS: usize = 40_000;
    let cluster = database("relay_kept")?;
    let mut gateway = Gateway::over(&cluster, "relay_kept", Extra::default())?;
    // A client that reads nothing, with and without a connection.
    for first in ["SELECT 1", "LISTEN something"] {
        let before = peak(&mut gateway)?;
        let mut client = gateway.client("relay_kept")?;
        client.run(first)?;
        let mut wire = client.raw()?;
        wire.set_write_timeout(None)?;
        thread::scope(|scope| -> Result<()> {
            let writing = scope.spawn(move || {
                let question = b"Q\0\0\0\x19SHOW breccia.servers\0".repeat(100);
                (0..ROUNDS / 100).try_for_each(|_| wire.write_all(&question))
            });
            thread::sleep(Duration::from_secs(5));
            for _ in 0..ROUNDS {
                client.read_reply()?.good()?;
            }
            Ok(writing.join().expect("no panic")?)
        })?;
        let grown = peak(&mut gateway)?.saturating_sub(before);
        ensure!(grown < 16 << 20, "{first}: {grown} bytes more");
    }
    // A server that reads nothing.
    let before = peak(&mut gateway)?;
    let mut client = gateway.client("relay_kept")?;
    client
        .parse("", "SELECT pg_sleep(3)")
        .bind("", &[])
        .execute();
    client.frame(b'H', &[]).flush()?;
    let value = "x".repeat(100 << 20);
    let sql = "SELECT length($1::text), pg_backend_pid()";
    client.parse("", sql).bind("", &[&value]).execute().sync();
    let reply = client.ask()?.good()?;
    ensure!(
        reply.rows.len() == 2 && reply.frames.ends_with('Z'),
        "{:?}",
        reply.frames
    );
    let grown = peak(&mut gateway)?.saturating_sub(before);
    ensure!(grown < 16 << 20, "{grown} bytes more");
    Ok(())
}
