//! What a second look found: each of these went wrong once.
//!
//! Not one theme. Invariant: a client here sees what one server alone would have shown it, or is told.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::pooling::database;
use crate::rig::{Extra, Gateway, LIMIT};

fn narrow(composite: &'static str) -> Extra<'static> {
    Extra {
        composite,
        listener: "pool-size = 1\nqueue-timeout = \"1s\"",
        ..Extra::default()
    }
}

#[test]
fn a_statement_that_found_no_connection_fails_the_transaction_that_was_only_begun() -> Result<()> {
    let cluster = database("only_begun")?;
    let gateway = Gateway::over(&cluster, "only_begun", narrow("transactions = \"lazy\""))?;
    let mut sleeper = gateway.client("only_begun")?;
    let mut client = gateway.client("only_begun")?;
    let wakes = sleeper.canceller();
    sleeper.query("SELECT pg_sleep(30)").flush()?;
    thread::sleep(Duration::from_millis(300));
    for end in ["ROLLBACK", "COMMIT"] {
        client.run("BEGIN")?;
        let refused = client.simple("INSERT INTO t (own) VALUES (1)")?;
        ensure!(
            (refused.code(), refused.status) == ("53300", 'E'),
            "{refused:?}"
        );
        let ended = client.run(end)?;
        ensure!(
            ended.tags == ["ROLLBACK"] && ended.status == 'I',
            "{ended:?}"
        );
    }
    client.run("BEGIN")?;
    ensure!(client.simple("INSERT INTO t (own) VALUES (1)")?.code() == "53300");
    wakes()?;
    ensure!(sleeper.read_reply()?.code() == "57014");
    // Nothing but its end is carried out.
    let skipped = client.simple("INSERT INTO t (own) VALUES (2)")?;
    ensure!(
        (skipped.code(), skipped.status) == ("25P02", 'E'),
        "{skipped:?}"
    );
    ensure!(client.extended("ROLLBACK", &[])?.good()?.status == 'I');
    ensure!(client.simple("COMMIT")?.status == 'I');
    // What comes next is of no transaction.
    ensure!(client.run("INSERT INTO t (own) VALUES (3)")?.status == 'I');
    client.hang_up();
    let rows = sleeper.run("SELECT string_agg(own::text, ',') FROM t")?;
    ensure!(rows.value() == Some("3"), "{rows:?}");
    Ok(())
}

#[test]
fn who_has_asked_for_the_primary_is_pinned_by_the_rest_too() -> Result<()> {
    let cluster = database("target_pins")?;
    cluster
        .primary()
        .query("target_pins", "CREATE SCHEMA b; CREATE TABLE b.t (own int)")?;
    let gateway = Gateway::over(&cluster, "target_pins", narrow(""))?;
    let mut other = gateway.client("target_pins")?;
    for leaves in [
        "SET search_path = b",
        "CREATE TEMP TABLE t (a int)",
        "SET ROLE pg_monitor",
    ] {
        let mut client = gateway.client("target_pins")?;
        client.run("SET breccia.target = 'primary'")?;
        client.run("SELECT 1")?;
        client.run(leaves)?;
        client.run("SET breccia.target = 'auto'")?;
        client.run("SELECT 2")?;
        // It keeps what it has made, so nobody else gets that.
        let waits = other.simple("INSERT INTO public.t (own) VALUES (1)")?;
        ensure!(waits.code() == "53300", "{leaves}: {waits:?}");
        client.hang_up();
        let path =
            "SELECT current_setting('search_path') || current_user || to_regclass('pg_temp.t')";
        let clean = other.run(&format!("SELECT coalesce(({path}), 'clean') /*{leaves}*/"))?;
        ensure!(clean.value() == Some("clean"), "{leaves}: {clean:?}");
    }
    Ok(())
}

#[test]
fn the_last_value_of_another_session_is_not_told() -> Result<()> {
    let cluster = database("last_values")?;
    let gateway = Gateway::over(&cluster, "last_values", narrow(""))?;
    let mut maker = gateway.client("last_values")?;
    let mut client = gateway.client("last_values")?;
    let told = |found: &str| found.parse::<u32>().is_ok();
    let tries: [&[&str]; 4] = [
        &["BEGIN", "SELECT lastval()", "ROLLBACK"],
        &["SELECT 1; SELECT lastval()"],
        &[
            "BEGIN",
            "SELECT 1",
            "SELECT currval('t_id_seq')",
            "ROLLBACK",
        ],
        &["BEGIN", "SELECT 1; SELECT lastval()", "ROLLBACK"],
    ];
    for statements in tries {
        maker.run("INSERT INTO t (own) VALUES (1)")?;
        let mut client = gateway.client("last_values")?;
        for sql in statements {
            let reply = client.simple(sql)?;
            let shown = reply
                .rows
                .iter()
                .flatten()
                .flatten()
                .any(|it| told(it) && it != "1");
            ensure!(!shown, "{sql}: {reply:?}");
        }
    }
    maker.run("INSERT INTO t (own) VALUES (1)")?;
    client.parse("", "SELECT 1").bind("", &[]).execute();
    client.parse("", "SELECT lastval()").bind("", &[]).execute();
    let reply = client.sync().ask()?;
    ensure!(reply.fault.is_some(), "{reply:?}");
    // Its own it is told, in the transaction that made it and behind it in one text.
    client.run("BEGIN")?;
    client.run("INSERT INTO t (own) VALUES (2)")?;
    let own = client.run("SELECT lastval() = max(id) FROM t WHERE own = 2")?;
    ensure!(own.value() == Some("t"), "{own:?}");
    client.run("COMMIT")?;
    let own = client.run("INSERT INTO t (own) VALUES (3); SELECT lastval()")?;
    ensure!(own.value().is_some_and(told), "{own:?}");
    Ok(())
}

#[test]
fn a_block_that_calls_what_changes_its_session_pins_it() -> Result<()> {
    let cluster = database("blocks")?;
    let makes = "CREATE FUNCTION use_tenant(a int) RETURNS void LANGUAGE plpgsql AS \
        $$ BEGIN PERFORM set_config('my.tenant', a::text, false); END $$";
    cluster.primary().query("blocks", makes)?;
    let gateway = Gateway::over(&cluster, "blocks", Extra::default())?;
    for sql in [
        "DO $$ BEGIN PERFORM use_tenant(5); END $$",
        "DO LANGUAGE plpgsql 'BEGIN PERFORM use_tenant(5); END'",
        "DO $$ BEGIN PERFORM pg_advisory_lock(9); END $$",
    ] {
        let mut client = gateway.client("blocks")?;
        client.run(sql)?;
        let pinned = client.run("SHOW breccia.pinned")?;
        ensure!(pinned.value() == Some("do"), "{sql}: {pinned:?}");
    }
    let mut client = gateway.client("blocks")?;
    client.run("DO $$ BEGIN PERFORM 1; END $$")?;
    ensure!(client.run("SHOW breccia.pinned")?.value() != Some("do"));
    // A text that cannot be read as UTF-8 may name it too.
    client.run("SET client_encoding = LATIN1")?;
    client
        .frame(b'Q', b"SELECT use_tenant(5), '\xe9'\0")
        .ask()?
        .good()?;
    ensure!(client.run("SHOW breccia.pinned")?.value() == Some("unparsed"));
    Ok(())
}

#[test]
fn a_function_that_was_made_just_now_leaves_nothing_to_others() -> Result<()> {
    let cluster = database("just_made")?;
    let gateway = Gateway::over(&cluster, "just_made", narrow(""))?;
    let mut maker = gateway.client("just_made")?;
    let mut client = gateway.client("just_made")?;
    for round in 0..5 {
        maker.run(&format!(
            "CREATE FUNCTION tenant{round}(a int) RETURNS void LANGUAGE plpgsql AS \
             $$ BEGIN PERFORM set_config('my.tenant', a::text, false); END $$"
        ))?;
        client.run(&format!("SELECT tenant{round}(5)"))?;
        drop(client);
        let left = maker.run("SELECT coalesce(current_setting('my.tenant', true), '')")?;
        ensure!(left.value() == Some(""), "round {round}: {left:?}");
        client = gateway.client("just_made")?;
    }
    Ok(())
}

#[test]
fn what_a_server_skips_changes_no_names() -> Result<()> {
    let cluster = database("skipped")?;
    let gateway = Gateway::over(&cluster, "skipped", Extra::default())?;
    let mut client = gateway.client("skipped")?;
    for name in ["one", "two"] {
        client
            .parse(name, "UPDATE t SET own = 4")
            .sync()
            .ask()?
            .good()?;
    }
    client.run("UPDATE t SET own = 5")?;
    client.parse("bad", "SELEC");
    client.parse("new", "UPDATE t SET own = 4").close("one");
    let failed = client.sync().ask()?;
    ensure!(failed.fault.is_some(), "{failed:?}");
    // Skipped, so it is still free; and that one is still there.
    client
        .parse("new", "UPDATE t SET own = 4")
        .sync()
        .ask()?
        .good()?;
    client.bind("one", &[]).execute().sync().ask()?.good()?;
    Ok(())
}

#[test]
fn who_goes_on_without_a_sync_after_a_failure_costs_no_memory() -> Result<()> {
    let cluster = database("no_sync")?;
    let mut gateway = Gateway::over(&cluster, "no_sync", Extra::default())?;
    let mut client = gateway.client("no_sync")?;
    client.parse("all", "DEALLOCATE ALL").sync().ask()?.good()?;
    let text = "x".repeat(10_000);
    client.parse("", "SELEC").frame(b'H', &[]).flush()?;
    ensure!(client.read_frame()?.0 == b'E');
    let before = crate::bounds::peak(&mut gateway)?;
    for _ in 0..20 {
        for number in 0..1_000 {
            client.bind("all", &[]).parse(&format!("n{number}"), &text);
        }
        client.flush()?;
    }
    client.sync().flush()?;
    ensure!(client.read_frame()?.0 == b'Z');
    let grown = crate::bounds::peak(&mut gateway)?.saturating_sub(before);
    ensure!(grown < 50 << 20, "it took {grown} bytes more");
    ensure!(client.run("SELECT 6")?.value() == Some("6"));
    Ok(())
}

#[test]
fn a_write_that_a_frozen_primary_does_not_answer_is_told() -> Result<()> {
    let mut cluster = crate::rig::cluster(None)?;
    cluster.primary().create_database("frozen")?;
    cluster
        .primary()
        .query("frozen", "CREATE TABLE t (v int)")?;
    let extra = Extra {
        server: "timeout = \"1s\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "frozen", extra)?;
    let mut client = gateway.client("frozen")?;
    client.set_patience(LIMIT)?;
    client
        .query("INSERT INTO t SELECT 1 FROM pg_sleep(25)")
        .flush()?;
    thread::sleep(Duration::from_millis(500));
    cluster.server_mut(0).freeze_all()?;
    let (kind, body) = client.read_frame().context("no answer")?;
    cluster.server_mut(0).thaw_all()?;
    let text = String::from_utf8_lossy(&body).into_owned();
    ensure!(kind == b'E' && text.contains("08007"), "{text}");
    Ok(())
}

#[test]
fn a_rollback_is_carried_out_however_it_comes_to_a_replica() -> Result<()> {
    let cluster = database("rolls_back")?;
    let extra = Extra {
        composite: "transactions = \"lazy\"\nreplica-wait = \"2s\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "rolls_back", extra)?;
    let mut client = gateway.client("rolls_back")?;
    for _ in 0..3 {
        client.run("BEGIN")?;
        ensure!(
            client
                .simple("SELECT 1 / own FROM (VALUES (0)) AS v(own)")?
                .code()
                == "22012"
        );
        // Prepared in one batch, run in the next.
        client.parse("r", "ROLLBACK").sync().ask()?;
        let ended = client.bind("r", &[]).execute().sync().ask()?.good()?;
        ensure!(ended.status == 'I', "{ended:?}");
        client.close("r").sync().ask()?.good()?;
        // What is sent behind it in one go is of no transaction.
        client.run("BEGIN")?;
        ensure!(
            client
                .simple("SELECT 1 / own FROM (VALUES (0)) AS v(own)")?
                .code()
                == "22012"
        );
        client
            .query("ROLLBACK")
            .query("INSERT INTO t (own) VALUES (8)")
            .flush()?;
        ensure!(client.read_reply()?.good()?.status == 'I');
        ensure!(client.read_reply()?.good()?.status == 'I');
    }
    let count = client.run("SELECT count(*) FROM t WHERE own = 8")?;
    ensure!(count.value() == Some("3"), "{count:?}");
    Ok(())
}

#[test]
fn a_name_that_could_not_be_prepared_is_free_though_its_close_was_skipped() -> Result<()> {
    let cluster = database("free_names")?;
    let gateway = Gateway::over(&cluster, "free_names", Extra::default())?;
    let mut client = gateway.client("free_names")?;
    let once = |client: &mut breccia_testkit::SqlClient, sql: &str| {
        client.parse("s", sql).bind("s", &[]).execute().close("s");
        client.sync().ask()
    };
    for _ in 0..3 {
        ensure!(once(&mut client, "UPDAT t SET own = 1")?.code() == "42601");
        once(&mut client, "UPDATE t SET own = 1")?.good()?;
    }
    // The other way round: it is still what it was.
    client
        .parse("s", "UPDATE t SET own = 2")
        .sync()
        .ask()?
        .good()?;
    client.parse("bad", "UPDAT").close("s");
    client.parse("s", "UPDATE t SET own = 3").sync().ask()?;
    client.bind("s", &[]).execute().sync().ask()?.good()?;
    Ok(())
}

#[test]
fn who_looks_at_a_statement_behind_a_lock_waits_and_can_be_cancelled() -> Result<()> {
    let cluster = database("locked")?;
    let extra = Extra {
        server: "timeout = \"1s\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "locked", extra)?;
    let mut client = gateway.client("locked")?;
    let update = "UPDATE t SET own = 5 RETURNING own";
    client
        .parse("s", update)
        .frame(b'D', b"Ss\0")
        .sync()
        .ask()?
        .good()?;
    let mut holder = breccia_testkit::SqlClient::connect(cluster.primary().port(), "locked")?;
    for cancels in [true, false] {
        gateway
            .client("locked")?
            .run("CREATE TABLE IF NOT EXISTS u (a int)")?;
        gateway.client("locked")?.run("DROP TABLE u")?;
        holder.run("BEGIN; LOCK TABLE t")?;
        client.bind("s", &[]).execute().sync().flush()?;
        thread::sleep(Duration::from_secs(2));
        if cancels {
            client.canceller()()?;
            ensure!(client.read_reply()?.code() == "57014");
        }
        holder.run("COMMIT")?;
        if !cancels {
            client.read_reply()?.good()?;
        }
    }
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'locked' \
        AND wait_event_type = 'Lock'";
    ensure!(holder.run(waiting)?.value() == Some("0"));
    Ok(())
}
