//! Frames that a server skips, and what was sent behind them before that was known.
//!
//! Not frames in any order, which `dice.rs` tries. Invariant: what is bound is what the server itself has
//! under that name.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use breccia_testkit::{SqlClient, SqlReply, wait_until};

use crate::pooling::database;
use crate::rig::{Extra, Gateway, LIMIT};

/// A Bind of a statement that nobody has prepared: all behind it is skipped.
fn fails(client: &mut SqlClient) -> &mut SqlClient {
    client.bind("nosuch", &[])
}

fn insert(value: &str) -> String {
    format!("INSERT INTO t (v) VALUES ('{value}')")
}

/// What is in the table, and then nothing is.
fn rows(client: &mut SqlClient) -> Result<Vec<String>> {
    let reply = client.run("SELECT v FROM t ORDER BY id")?;
    client.run("DELETE FROM t")?;
    let values = reply.rows.into_iter().flatten().flatten();
    Ok(values.collect())
}

/// The codes of what answers so many batches.
fn codes(client: &mut SqlClient, batches: usize) -> Result<Vec<String>> {
    client.flush()?;
    (0..batches)
        .map(|_| Ok(client.read_reply()?.code().to_owned()))
        .collect()
}

#[test]
fn the_text_that_was_prepared_last_is_run_and_not_one_that_was_skipped() -> Result<()> {
    let cluster = database("lasttext")?;
    for listener in ["", "pool-mode = \"session\""] {
        let extra = Extra {
            listener,
            ..Extra::default()
        };
        let gateway = Gateway::over(&cluster, "lasttext", extra)?;
        for before in ["", "BEGIN", "CREATE TEMP TABLE mine (a int)"] {
            let mut client = gateway.client("lasttext")?;
            if !before.is_empty() {
                client.run(before)?;
            }
            let undo = if before == "BEGIN" {
                "ROLLBACK"
            } else {
                "SELECT 1"
            };
            fails(&mut client).parse("s1", &insert("A")).sync();
            client.query(undo);
            client.parse("s1", &insert("B")).sync();
            client.bind("s1", &[]).execute().sync();
            client.bind("s1", &[]).execute().sync();
            let told = codes(&mut client, 5)?;
            ensure!(told == ["26000", "", "", "", ""], "{before}: {told:?}");
            let left = rows(&mut client)?;
            ensure!(left == ["B", "B"], "{before}: {left:?}");
            // The same of a Close that is skipped, and one that is not.
            fails(&mut client).close("s1").sync();
            client.close("s1").sync();
            client.parse("s1", &insert("C")).sync();
            client.bind("s1", &[]).execute().sync();
            let told = codes(&mut client, 4)?;
            ensure!(told == ["26000", "", "", ""], "{before}: {told:?}");
            let left = rows(&mut client)?;
            ensure!(left == ["C"], "{before}: {left:?}");
            // And of a DEALLOCATE behind a Close that is skipped.
            fails(&mut client).close("s1").sync();
            client.query("DEALLOCATE s1");
            client.parse("s1", &insert("D")).sync();
            client.bind("s1", &[]).execute().sync();
            let told = codes(&mut client, 4)?;
            ensure!(told == ["26000", "", "", ""], "{before}: {told:?}");
            let left = rows(&mut client)?;
            ensure!(left == ["D"], "{before}: {left:?}");
        }
    }
    Ok(())
}

#[test]
fn the_unnamed_statement_is_what_it_was_before_one_that_was_skipped() -> Result<()> {
    let cluster = database("unnamed")?;
    let gateway = Gateway::over(&cluster, "unnamed", Extra::default())?;
    for pinned in [false, true] {
        let mut client = gateway.client("unnamed")?;
        if pinned {
            client.run("CREATE TEMP TABLE mine (a int)")?;
        }
        client.parse("", &insert("B")).sync().ask()?.good()?;
        let reply = fails(&mut client).parse("", &insert("A")).sync().ask()?;
        ensure!(reply.code() == "26000");
        client.bind("", &[]).execute().sync().ask()?.good()?;
        let left = rows(&mut client)?;
        ensure!(left == ["B"], "{left:?}");
        // One that fails leaves none, nor does a query.
        for ends in ["SELECT nope", ""] {
            client.parse("", &insert("B")).sync().ask()?.good()?;
            if ends.is_empty() {
                client.run("SELECT 1")?;
                fails(&mut client).parse("", &insert("A")).sync().ask()?;
            } else {
                ensure!(client.parse("", ends).sync().ask()?.code() == "42703");
            }
            let reply = client.bind("", &[]).execute().sync().ask()?;
            ensure!(reply.code() == "26000", "{ends}: {reply:?}");
        }
        ensure!(rows(&mut client)?.is_empty());
    }
    Ok(())
}

#[test]
fn names_stay_free_that_a_skipped_batch_gives_and_lets_go_of() -> Result<()> {
    let cluster = database("revived")?;
    let gateway = Gateway::over(&cluster, "revived", Extra::default())?;
    for all in ["DEALLOCATE ALL", "DISCARD ALL"] {
        let mut client = gateway.client("revived")?;
        fails(&mut client).parse("s1", &insert("A"));
        client.parse("", all).bind("", &[]).execute();
        ensure!(client.sync().ask()?.code() == "26000");
        client.parse("s1", &insert("B")).bind("s1", &[]).execute();
        client.sync().ask()?.good().context(all)?;
        client.bind("s1", &[]).execute().sync().ask()?.good()?;
        let left = rows(&mut client)?;
        ensure!(left == ["B", "B"], "{all}: {left:?}");
    }
    Ok(())
}

/// Data of a copy, and its end.
fn copies(client: &mut SqlClient, end: u8) -> &mut SqlClient {
    let body: &[u8] = if end == b'f' { b"no\0" } else { b"" };
    client.frame(b'd', b"1\t1\tcopied\n").frame(end, body)
}

/// Reads frames up to the end of a batch; the reply, without ending a copy.
fn reads(client: &mut SqlClient) -> Result<(String, Vec<u8>)> {
    let (mut kinds, mut last) = (String::new(), Vec::new());
    loop {
        let (kind, body) = client.read_frame()?;
        if kind != b'S' && kind != b'N' {
            kinds.push(char::from(kind));
        }
        last = if kind == b'E' { body } else { last };
        if kind == b'Z' {
            return Ok((kinds, last));
        }
    }
}

#[test]
fn a_sync_in_the_midst_of_a_copy_is_no_sync() -> Result<()> {
    let cluster = database("copysync")?;
    let gateway = Gateway::over(&cluster, "copysync", Extra::default())?;
    let direct = cluster.primary().port();
    for extended in [false, true] {
        for (end, pause_ms) in [(b'c', 0), (b'c', 100), (b'f', 100)] {
            let mut seen = Vec::new();
            for port in [direct, gateway.port] {
                let mut client = SqlClient::connect(port, "copysync")?;
                client.set_patience(Duration::from_secs(10))?;
                client.run("DELETE FROM t")?;
                if extended {
                    client.parse("", "COPY t FROM STDIN").bind("", &[]);
                    client.frame(b'E', &[0, 0, 0, 0, 0]).frame(b'H', b"");
                } else {
                    client.query("COPY t FROM STDIN");
                }
                client.flush()?;
                std::thread::sleep(Duration::from_millis(pause_ms));
                client.sync().flush()?;
                copies(&mut client, end);
                if extended {
                    client.sync();
                }
                client.flush()?;
                let copied = reads(&mut client)?.0;
                let after: Vec<SqlReply> = ["SELECT 41 + 1", "SELECT count(*) FROM t"]
                    .iter()
                    .map(|sql| client.run(sql))
                    .collect::<Result<_>>()
                    .with_context(|| format!("{extended}, {end}, {pause_ms}"))?;
                client.parse("s", "SELECT 3").bind("s", &[]).execute();
                let last = client.sync().ask()?.good()?;
                let values: Vec<_> = after
                    .iter()
                    .map(|it| it.value().unwrap_or_default().to_owned())
                    .collect();
                seen.push((copied, values, last.value().map(str::to_owned)));
            }
            ensure!(
                seen[0] == seen[1],
                "{extended}, {end}, {pause_ms}: {seen:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn the_end_of_a_server_process_is_told_in_a_lazy_transaction_too() -> Result<()> {
    let cluster = database("lazyend")?;
    let extra = Extra {
        composite: "transactions = \"lazy\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "lazyend", extra)?;
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                WHERE query LIKE '%slow one%' AND pid <> pg_backend_pid()";
    let mut client = gateway.client("lazyend")?;
    client.run("BEGIN")?;
    client.query("INSERT INTO t (v) SELECT 'slow one' FROM pg_sleep(20)");
    client.flush()?;
    wait_until(LIMIT, "the statement", || {
        let killed = cluster.primary().query("lazyend", kill)?;
        Ok((killed.trim() != "0").then_some(()))
    })?;
    let mut raw = client.raw()?;
    raw.flush()?;
    let told = client.read_frame().context("no word")?;
    ensure!(told.0 == b'E', "{told:?}");
    Ok(())
}
