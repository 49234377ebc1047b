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

#[test]
fn settings_are_brought_back_whatever_the_last_session_reads_by() -> Result<()> {
    let (_cluster, gateway) = narrow("readers")?;
    let mut one = gateway.client("readers")?;
    let mut other = gateway.client("readers")?;
    other.run("SET my.path = 'C:\\temp'")?;
    other.run("SET my.word = 'é'")?;
    other.run("SET search_path = b11")?;
    ensure!(pinned(&mut other)?.is_empty());
    one.run("SET client_encoding = LATIN1")?;
    one.run("SET standard_conforming_strings = off")?;
    for _ in 0..3 {
        ensure!(shown(&mut one, "standard_conforming_strings")? == "off");
        ensure!(shown(&mut other, "my.path")? == "C:\\temp");
        ensure!(shown(&mut one, "client_encoding")? == "LATIN1");
        ensure!(shown(&mut other, "my.word")? == "é");
        ensure!(shown(&mut other, "client_encoding")? == "UTF8");
    }
    // What was set in other words would be read otherwise: the session stays where it is.
    other.run("SET client_encoding = LATIN1")?;
    ensure!(pinned(&mut other)? == "set");
    Ok(())
}

#[test]
fn a_limit_of_the_last_session_does_not_cut_short_what_brings_settings_back() -> Result<()> {
    let (cluster, gateway) = narrow("limits")?;
    cluster
        .primary()
        .query("limits", "CREATE SCHEMA b12; CREATE TABLE b12.t (own int)")?;
    let mut one = gateway.client("limits")?;
    let mut other = gateway.client("limits")?;
    other.run("SET search_path = b12")?;
    // Long, so that reading it takes longer than the limit.
    let long = "x".repeat(16_000_000);
    other.run(&format!("SET my.long = '{long}'"))?;
    for _ in 0..5 {
        one.run("SET statement_timeout = 15")?;
        other.run("INSERT INTO t (own) VALUES (1)")?;
        ensure!(shown(&mut one, "statement_timeout")? == "15ms");
    }
    let rows = |table: &str| {
        cluster
            .primary()
            .query("limits", &format!("SELECT count(*) FROM {table}"))
    };
    ensure!((rows("b12.t")?.trim(), rows("public.t")?.trim()) == ("5", "0"));
    Ok(())
}

#[test]
fn a_setting_that_a_server_refuses_keeps_the_statement_back() -> Result<()> {
    let (cluster, gateway) = narrow("refused")?;
    let mut one = gateway.client("refused")?;
    let mut other = gateway.client("refused")?;
    // Its value is good until its dictionary is gone.
    one.run("CREATE TEXT SEARCH CONFIGURATION gone (COPY = simple)")?;
    one.run("SET default_text_search_config = gone")?;
    one.run("INSERT INTO t (own) VALUES (1)")?;
    other.run("DROP TEXT SEARCH CONFIGURATION gone")?;
    let error = one.simple("INSERT INTO t (own) VALUES (2)");
    let error = error.err().context("it goes on under another setting")?;
    ensure!(error.to_string().contains("08006"), "{error:#}");
    let count = "SELECT count(*) FROM t WHERE own = 2";
    ensure!(cluster.primary().query("refused", count)?.trim() == "0");
    Ok(())
}

#[test]
fn default_and_reset_bring_back_the_start_and_clients_are_told() -> Result<()> {
    for mode in ["transaction", "session"] {
        let name = format!("start_{mode}");
        let cluster = database(&name)?;
        let listener = format!("pool-mode = \"{mode}\"\npool-size = 2");
        let extra = Extra {
            listener: &listener,
            ..Extra::default()
        };
        let gateway = Gateway::over(&cluster, &name, extra)?;
        let parameters = [
            ("database", name.as_str()),
            ("TimeZone", "Asia/Tokyo"),
            ("DateStyle", "German"),
            ("standard_conforming_strings", "off"),
        ];
        let mut client = SqlClient::connect_with(gateway.port, &parameters)?;
        for back in [
            "SET TIME ZONE DEFAULT",
            "RESET \"TimeZone\"",
            "SET datestyle TO DEFAULT",
            "RESET ALL",
            "DISCARD ALL",
        ] {
            client.run("SET \"TimeZone\" = 'UTC'")?;
            client.run("SET datestyle = 'SQL'")?;
            client.run("SET standard_conforming_strings = on")?;
            client.run(back)?;
            for (name, start) in [("TimeZone", "Asia/Tokyo"), ("DateStyle", "German, DMY")] {
                let value = shown(&mut client, name)?;
                let told = client.parameters.get(name).cloned().unwrap_or_default();
                ensure!(
                    value == told,
                    "{mode}, {back}: {name} is {value}, told {told}"
                );
                let returns = back.ends_with("ALL")
                    || back.to_lowercase().contains(&name.to_lowercase())
                    || (name == "TimeZone" && back.contains("ZONE"));
                ensure!(
                    !returns || value == start,
                    "{mode}, {back}: {name} is {value}"
                );
            }
            if back.ends_with("ALL") {
                // Read as it is: one string, and not two and a SET ROLE between them.
                let sql = "SELECT 'a\\'; SET ROLE pg_monitor; SELECT '";
                ensure!(client.run(sql)?.rows.len() == 1, "{mode}, {back}");
                ensure!(client.parameters["standard_conforming_strings"] == "off");
            }
            client.run("DISCARD ALL")?;
        }
    }
    Ok(())
}

#[test]
fn a_notification_comes_through_while_settings_are_brought_back() -> Result<()> {
    let cluster = database("notices")?;
    let extra = Extra {
        listener: "pool-mode = \"session\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "notices", extra)?;
    let parameters = [("database", "notices"), ("application_name", "began")];
    let mut client = SqlClient::connect_with(gateway.port, &parameters)?;
    client.run("LISTEN n")?;
    let port = cluster.primary().port();
    let notifier = std::thread::spawn(move || -> Result<()> {
        let mut direct = SqlClient::connect(port, "notices")?;
        // The number makes each another: the same ones in one transaction would be one.
        (0..2_000).try_for_each(|it| direct.run(&format!("NOTIFY n, '{it}'")).map(drop))
    });
    let mut heard = 0;
    while !notifier.is_finished() {
        // It is noticed at the end of a statement: of the client's, or of Breccia's own behind it.
        heard += client
            .run("RESET application_name")?
            .frames
            .matches('A')
            .count();
    }
    notifier.join().expect("a thread without panic")?;
    heard += client.run("SELECT 1")?.frames.matches('A').count();
    heard += client.run("SELECT 1")?.frames.matches('A').count();
    ensure!(heard == 2_000, "{heard} notifications");
    Ok(())
}

/// Lets go of prepared statements by SQL in all the ways that fail, and in those that do not.
fn let_go(client: &mut SqlClient) -> Result<Vec<String>> {
    let sql = "/* breccia: primary */ SELECT 14";
    let mut told = Vec::new();
    let mut tell = |what: &str, reply: breccia_testkit::SqlReply| {
        let value = reply.value().unwrap_or_default();
        told.push(format!("{what}: {} {value} {:?}", reply.code(), reply.tags));
    };
    client.parse("s", sql).sync().ask()?.good()?;
    for outer in ["BEGIN", "CREATE TEMP TABLE IF NOT EXISTS pin (a int)"] {
        client.run(outer)?;
        client.run("INSERT INTO t (own) VALUES (14)")?;
        // Parsed, bound, and never run.
        let reply = client.parse("", "DEALLOCATE s").sync().ask()?;
        tell("parsed", reply);
        let reply = client.bind("s", &[]).execute().sync().ask()?;
        tell("still there", reply);
        let reply = client
            .parse("", "DEALLOCATE s")
            .bind("", &[])
            .sync()
            .ask()?;
        tell("bound", reply);
        let reply = client.bind("s", &[]).execute().sync().ask()?;
        tell("still there", reply);
        // Skipped behind an error.
        client.parse("", "SELECT 1/0").bind("", &[]).execute();
        client.parse("", "DEALLOCATE s").bind("", &[]).execute();
        let reply = client.sync().ask()?;
        tell("skipped", reply);
        if outer == "BEGIN" {
            // Refused in a transaction that has failed.
            tell("refused", client.simple("DEALLOCATE s")?);
            tell("refused", client.extended("DEALLOCATE s", &[])?);
            client.run("ROLLBACK")?;
            client.run("BEGIN")?;
        }
        let reply = client.bind("s", &[]).execute().sync().ask()?;
        tell("still there", reply);
        tell("let go", client.extended("DEALLOCATE s", &[])?);
        let reply = client.bind("s", &[]).execute().sync().ask()?;
        tell("gone", reply);
        client.run("ROLLBACK")?;
        client.parse("s", sql).sync().ask()?.good()?;
        client.run("BEGIN")?;
        client.run("INSERT INTO t (own) VALUES (14)")?;
        tell("let go", client.simple("DEALLOCATE s")?);
        let reply = client.bind("s", &[]).execute().sync().ask()?;
        tell("gone", reply);
        client.run("ROLLBACK")?;
        client.parse("s", sql).sync().ask()?.good()?;
    }
    client.run("DISCARD ALL")?;
    Ok(told)
}

#[test]
fn what_is_let_go_of_by_sql_is_gone_only_if_that_was_done() -> Result<()> {
    let (cluster, gateway) = narrow("let_go")?;
    let mut direct = SqlClient::connect(cluster.primary().port(), "let_go")?;
    let wanted = let_go(&mut direct)?;
    for round in 0..2 {
        let found = let_go(&mut gateway.client("let_go")?)?;
        ensure!(
            found == wanted,
            "round {round}: {found:#?}, not {wanted:#?}"
        );
        // Nobody else is in its way.
        let mut other = gateway.client("let_go")?;
        let sql = "/* breccia: primary */ SELECT 14";
        ensure!(prepared(&mut other, "mine", sql)? == "14", "round {round}");
    }
    Ok(())
}

#[test]
fn what_others_have_prepared_is_not_shown_and_not_to_be_had() -> Result<()> {
    let (cluster, gateway) = narrow("unseen")?;
    let secret = "/* breccia: primary */ SELECT 'a secret'";
    let mut other = gateway.client("unseen")?;
    prepared(&mut other, "mine", secret)?;
    let mut one = gateway.client("unseen")?;
    let sql = "SELECT statement FROM Pg_Prepared_Statements";
    for outer in ["SELECT 1", "BEGIN", "CREATE TEMP TABLE pin (a int)"] {
        one.run(outer)?;
        for reply in [one.simple(sql)?, one.extended(sql, &[])?] {
            let refused = matches!(reply.code(), "42P01" | "25P02");
            ensure!(refused && reply.rows.is_empty(), "{outer}: {reply:?}");
        }
        one.run("ROLLBACK")?;
    }
    one.run("DISCARD ALL")?;
    // By the name that the server's log has for it, and by those that are easy to guess.
    let log = cluster.primary().log();
    let name = log.lines().filter(|line| line.contains("'a secret'"));
    let mut name = name.filter_map(|line| line.split("execute ").nth(1)?.split(':').next());
    let name = name.next_back().context("it was not run")?;
    ensure!(name.len() > "breccia_1_".len() + 8, "{name}");
    for number in 0..50 {
        let reply = one.simple(&format!("EXECUTE breccia_{number}"))?;
        ensure!(reply.code() == "26000", "{reply:?}");
    }
    ensure!(bound(&mut other, "mine")? == "a secret");
    Ok(())
}
