//! Transactions that a replica serves, when they fail there or must go on elsewhere.
//!
//! Not where they begin (`lazy.rs`). Invariant: what a client hears is what one server would have said,
//! and nothing of it stays on a connection that others use.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use breccia_testkit::{SqlClient, wait_until};

use crate::faults::prepare;
use crate::pooling::database;
use crate::rig::{Extra, Gateway, LIMIT, cluster};

const WAITS: Extra<'static> = Extra {
    top: "",
    server: "",
    composite: "replica-wait = \"2s\"",
    listener: "",
};

/// A transaction that has failed on a replica.
fn failed(client: &mut SqlClient) -> Result<()> {
    client.run("BEGIN READ ONLY")?;
    let reply = client.simple("SELECT 1/count(*) FROM t WHERE own = 77")?;
    ensure!(reply.code() == "22012" && reply.status == 'E', "{reply:?}");
    Ok(())
}

#[test]
fn what_comes_behind_the_end_of_a_failed_transaction_stays_with_its_session() -> Result<()> {
    let cluster = database("failedaway")?;
    let gateway = Gateway::over(&cluster, "failedaway", WAITS)?;
    let mut client = gateway.client("failedaway")?;
    let reads = gateway.replica_reads()?;
    for sql in ["SELECT 1", "COMMIT; SELECT 1"] {
        failed(&mut client)?;
        ensure!(client.simple("SELECT 1")?.code() == "25P02");
        ensure!(client.simple("SELECT 1; SELECT 2")?.code() == "25P02");
        ensure!(client.sync().ask()?.status == 'E', "a lone Sync");
        let reply = client.simple(sql)?;
        ensure!(["", "25P02"].contains(&reply.code()), "{sql}: {reply:?}");
        if reply.status == 'E' {
            ensure!(client.run("ROLLBACK")?.status == 'I');
        }
    }
    ensure!(gateway.replica_reads()? > reads, "none began on a replica");
    failed(&mut client)?;
    client.run("ROLLBACK; SET search_path = nowhere")?;
    ensure!(client.run("SHOW search_path")?.value() == Some("nowhere"));
    client.run("SET search_path = public")?;
    failed(&mut client)?;
    client.run("ROLLBACK; SELECT pg_advisory_lock(77)")?;
    for _ in 0..8 {
        let mut other = gateway.client("failedaway")?;
        let path = other.run("SELECT current_setting('search_path')")?;
        ensure!(path.value() == Some("\"$user\", public"), "{path:?}");
    }
    drop(client);
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77";
    for server in cluster.servers() {
        wait_until(LIMIT, "the lock to go with its session", || {
            let held = server.query("failedaway", locks)?;
            Ok((held.trim() == "0").then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn a_failed_transaction_ends_and_the_next_writes() -> Result<()> {
    let cluster = database("failedwrite")?;
    let gateway = Gateway::over(&cluster, "failedwrite", WAITS)?;
    let mut client = gateway.client("failedwrite")?;
    client.parse("s1", "SELECT 1").sync().ask()?.good()?;
    failed(&mut client)?;
    let insert = "INSERT INTO t (own) VALUES (1)";
    ensure!(client.run(&format!("ROLLBACK; {insert}"))?.status == 'I');
    failed(&mut client)?;
    client.parse("", "ROLLBACK").bind("", &[]).execute();
    client.parse("", insert).bind("", &[]).execute();
    let reply = client.sync().ask()?.good()?;
    ensure!(reply.tags == ["ROLLBACK", "INSERT 0 1"], "{reply:?}");
    failed(&mut client)?;
    client.run("ROLLBACK; BEGIN")?;
    client.run(insert)?;
    client.run("COMMIT")?;
    failed(&mut client)?;
    client.close("s1").sync().ask()?.good()?;
    client.run("ROLLBACK")?;
    client.parse("s1", "SELECT 2").sync().ask()?.good()?;
    let rows = client.run("SELECT count(*) FROM t WHERE own = 1")?;
    ensure!(rows.value() == Some("3"), "{rows:?}");
    Ok(())
}

#[test]
fn the_end_of_a_transaction_on_a_frozen_replica_forgets_nothing_it_has_shown() -> Result<()> {
    let mut cluster = cluster(None)?;
    prepare(&cluster)?;
    let extra = Extra {
        server: "timeout = \"2s\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "faults", extra)?;
    cluster.pause_replay(2)?;
    cluster
        .primary()
        .query("faults", "UPDATE t SET v = 'new' WHERE id = 7")?;
    // Sessions of which one has seen the new row on the first standby, in its transaction.
    let reads = gateway.replica_reads()?;
    let mut client = gateway.client("faults")?;
    wait_until(LIMIT, "the new row in a transaction on a replica", || {
        client.run("BEGIN READ ONLY")?;
        let seen = client.run("SELECT v FROM t WHERE id = 7")?;
        if seen.value() == Some("new") {
            return Ok(Some(()));
        }
        client.run("COMMIT")?;
        client = gateway.client("faults")?;
        Ok(None)
    })?;
    ensure!(gateway.replica_reads()? > reads, "no replica was read");
    cluster.server_mut(1).freeze_all()?;
    client.run("COMMIT")?;
    for _ in 0..4 {
        let seen = client.run("SELECT v FROM t WHERE id = 7")?;
        ensure!(seen.value() == Some("new"), "it went back: {seen:?}");
    }
    cluster.server_mut(1).thaw_all()
}

#[test]
fn a_transaction_that_writes_leaves_a_silent_replica_at_once() -> Result<()> {
    let mut cluster = cluster(None)?;
    prepare(&cluster)?;
    let extra = Extra {
        server: "timeout = \"30s\"",
        composite: "transactions = \"lazy\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "faults", extra)?;
    let mut client = gateway.client("faults")?;
    client.run("BEGIN")?;
    client.run("SELECT v FROM t WHERE id = 7")?;
    for number in [1, 2] {
        cluster.server_mut(number).freeze_all()?;
    }
    let begun = Instant::now();
    client.run("INSERT INTO t (v) VALUES ('written')")?;
    client.run("COMMIT")?;
    let took = begun.elapsed();
    for number in [1, 2] {
        cluster.server_mut(number).thaw_all()?;
    }
    ensure!(took < Duration::from_secs(20), "{took:?}");
    Ok(())
}

#[test]
fn a_lazy_transaction_that_says_read_write_reads_on_a_replica() -> Result<()> {
    let cluster = database("sayswrite")?;
    let extra = Extra {
        composite: "transactions = \"lazy\"\nreplica-wait = \"2s\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "sayswrite", extra)?;
    let mut client = gateway.client("sayswrite")?;
    let before = gateway.replica_reads()?;
    for _ in 0..3 {
        client.run("BEGIN READ WRITE")?;
        for _ in 0..2 {
            client.parse("", "SELECT count(*) FROM t").bind("", &[]);
            client.execute();
        }
        let reply = client.sync().ask()?.good()?;
        ensure!(reply.status == 'T' && reply.rows.len() == 2, "{reply:?}");
        client.run("INSERT INTO t (own) VALUES (1)")?;
        client.run("COMMIT")?;
    }
    ensure!(gateway.replica_reads()? > before, "none on a replica");
    Ok(())
}

#[test]
fn nobody_binds_the_unnamed_statement_of_another_session() -> Result<()> {
    let cluster = database("unnamed")?;
    let extra = Extra {
        listener: "pool-size = 1",
        ..WAITS
    };
    let gateway = Gateway::over(&cluster, "unnamed", extra)?;
    for sql in ["INSERT INTO t (own) VALUES (5)", "SELECT 'a secret'::text"] {
        gateway.client("unnamed")?.extended(sql, &[])?.good()?;
        for _ in 0..3 {
            let mut other = gateway.client("unnamed")?;
            let reply = other.bind("", &[]).execute().sync().ask()?;
            ensure!(reply.code() == "26000", "{sql}: {reply:?}");
            let described = other.frame(b'D', b"S\0").sync().ask()?;
            ensure!(described.code() == "26000", "{sql}: {described:?}");
        }
    }
    let rows = cluster
        .primary()
        .query("unnamed", "SELECT count(*) FROM t")?;
    ensure!(rows.trim() == "1", "{rows}");
    Ok(())
}

#[test]
fn a_sync_that_comes_later_ends_what_a_failure_has_skipped() -> Result<()> {
    let cluster = database("latesync")?;
    let gateway = Gateway::over(&cluster, "latesync", WAITS)?;
    let mut client = gateway.client("latesync")?;
    client.set_patience(Duration::from_secs(20))?;
    client.parse("s", "SELECT 1").sync().ask()?.good()?;
    for again in [false, true] {
        if again {
            client.parse("s", "SELECT 2");
        } else {
            client.bind("nosuch", &[]);
        }
        client.query("SELECT count(*) FROM t").flush()?;
        thread::sleep(Duration::from_millis(300));
        let reply = client.sync().ask()?;
        let code = if again { "42P05" } else { "26000" };
        ensure!(reply.code() == code && reply.status == 'I', "{reply:?}");
        client.run("SELECT count(*) FROM t")?;
    }
    Ok(())
}

#[test]
fn a_statement_that_a_pause_holds_back_can_be_cancelled() -> Result<()> {
    let cluster = database("cancelpause")?;
    let extra = Extra {
        listener: "queue-timeout = \"20s\"",
        ..WAITS
    };
    let gateway = Gateway::over(&cluster, "cancelpause", extra)?;
    for store in ["db", "pg0"] {
        let mut client = gateway.client("cancelpause")?;
        let cancel = client.canceller();
        let path = |action: &str| format!("/stores/{store}/{action}");
        let post = |action: &str| {
            breccia_testkit::http(gateway.breccia.admin_port(), "POST", &path(action))
        };
        post("pause")?;
        let begun = Instant::now();
        client.query("INSERT INTO t (own) VALUES (1)").flush()?;
        let reply = thread::scope(|scope| {
            let cancelling = scope.spawn(|| {
                thread::sleep(Duration::from_millis(300));
                cancel()
            });
            let reply = client.read_reply();
            cancelling.join().expect("no panic").context("a cancel")?;
            reply
        })?;
        ensure!(reply.code() == "57014", "{store}: {reply:?}");
        ensure!(begun.elapsed() < Duration::from_secs(10), "{store}: late");
        post("resume")?;
        client.run("INSERT INTO t (own) VALUES (2)")?;
    }
    Ok(())
}

#[test]
fn what_ends_a_failed_transaction_may_be_prepared_first() -> Result<()> {
    let cluster = database("failedprep")?;
    let gateway = Gateway::over(&cluster, "failedprep", WAITS)?;
    let mut client = gateway.client("failedprep")?;
    for round in 0..3 {
        failed(&mut client)?;
        let name = format!("end{round}");
        let prepared = client.parse(&name, "ROLLBACK").sync().ask()?.good()?;
        ensure!(prepared.status == 'E', "{prepared:?}");
        let ended = client.bind(&name, &[]).execute().sync().ask()?.good()?;
        ensure!(
            ended.tags == ["ROLLBACK"] && ended.status == 'I',
            "{ended:?}"
        );
        // What comes behind the end is answered by a server.
        failed(&mut client)?;
        client.bind(&name, &[]).execute();
        let reply = client.parse("", "SELECT nosuch FROM t").sync().ask()?;
        ensure!(reply.code() == "42703" && reply.status == 'I', "{reply:?}");
        failed(&mut client)?;
        client.bind("nosuch", &[]).bind(&name, &[]).execute();
        let reply = client.sync().ask()?;
        ensure!(reply.code() == "26000" && reply.status == 'E', "{reply:?}");
        let chained = client.run("ROLLBACK AND CHAIN")?;
        ensure!(chained.status == 'T', "{chained:?}");
        client.run("SELECT count(*) FROM t")?;
        ensure!(client.run("COMMIT")?.status == 'I');
    }
    Ok(())
}

#[test]
fn the_unnamed_statement_is_gone_where_a_server_says_so() -> Result<()> {
    let cluster = database("unnamedgone")?;
    let gateway = Gateway::over(&cluster, "unnamedgone", WAITS)?;
    let mut client = gateway.client("unnamedgone")?;
    let insert = "INSERT INTO t (own) VALUES (1)";
    for way in ["query", "begin", "close"] {
        client.parse("", insert).sync().ask()?.good()?;
        match way {
            "query" => drop(client.run("SELECT count(*) FROM t")?),
            "begin" => drop(client.run("BEGIN READ ONLY")?),
            _ => drop(client.close("").sync().ask()?.good()?),
        }
        let reply = client.bind("", &[]).execute().sync().ask()?;
        ensure!(reply.code() == "26000", "{way}: {reply:?}");
        client.run("ROLLBACK")?;
    }
    let rows = cluster
        .primary()
        .query("unnamedgone", "SELECT count(*) FROM t")?;
    ensure!(rows.trim() == "0", "{rows}");
    Ok(())
}

#[test]
fn a_cancel_is_heard_whenever_it_comes_in_a_pause() -> Result<()> {
    const CLIENTS: usize = 120;
    let cluster = database("cancelwhen")?;
    let extra = Extra {
        listener: "queue-timeout = \"5s\"",
        ..WAITS
    };
    let gateway = Gateway::over(&cluster, "cancelwhen", extra)?;
    let post = |action: &str| {
        let path = format!("/stores/pg0/{action}");
        breccia_testkit::http(gateway.breccia.admin_port(), "POST", &path)
    };
    let clients: Result<Vec<SqlClient>> =
        (0..CLIENTS).map(|_| gateway.client("cancelwhen")).collect();
    let clients = clients?;
    post("pause")?;
    let lost = thread::scope(|scope| -> Result<usize> {
        let threads: Vec<_> = clients
            .into_iter()
            .enumerate()
            .map(|(number, mut client)| {
                scope.spawn(move || -> Result<bool> {
                    client.query("INSERT INTO t (own) VALUES (1)").flush()?;
                    // Who waits looks around every so often: before, amid and behind that.
                    thread::sleep(Duration::from_millis(200 + (number % 60) as u64));
                    client.canceller()()?;
                    Ok(client.read_reply()?.code() != "57014")
                })
            })
            .collect();
        let mut lost = 0;
        for thread in threads {
            lost += usize::from(thread.join().expect("no panic")?);
        }
        Ok(lost)
    })?;
    post("resume")?;
    ensure!(lost == 0, "{lost} of {CLIENTS} cancels were not heard");
    Ok(())
}
