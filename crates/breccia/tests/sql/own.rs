//! `SHOW breccia.…` and `SET breccia.…`, in both protocols, wherever a session is.
//!
//! Not what tokens are good for (`freshness.rs`). Invariant: no server is ever asked about `breccia.…`;
//! all their logs are looked through for it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use breccia_testkit::{PostgresCluster, SqlClient, SqlReply, clients_folder, process};

use crate::pooling::database;
use crate::rig::{Extra, Gateway};

/// How a statement is sent, and the frames of a good answer with rows and without.
type Way = (&'static str, fn(&mut SqlClient, &str) -> Result<SqlReply>);

const WAYS: [Way; 4] = [
    ("simple", SqlClient::simple),
    ("extended", |client, sql| client.extended(sql, &[])),
    ("prepared", |client, sql| {
        let reply = client.parse("p", sql).frame(b'D', b"Sp\0").sync().ask()?;
        if reply.fault.is_some() {
            return Ok(reply);
        }
        let reply = client.bind("p", &[]).execute().sync().ask()?;
        client.close("p").sync().ask()?.good()?;
        Ok(reply)
    }),
    ("flushed", |client, sql| {
        client
            .parse("", sql)
            .frame(b'D', b"S\0")
            .frame(b'H', b"")
            .flush()?;
        let first = client.read_frame()?;
        if first.0 == b'1' {
            ensure!(client.read_frame()?.0 == b't', "no description");
            client.read_frame()?;
            return client.bind("", &[]).execute().sync().ask();
        }
        ensure!(first.0 == b'E', "{first:?}");
        client.sync().ask()?;
        // The error is read; once more, for the caller.
        client.extended(sql, &[])
    }),
];

fn no_server_was_asked(cluster: &PostgresCluster) -> Result<()> {
    for server in cluster.servers() {
        let log = server.log();
        let asked = log.lines().find(|line| {
            line.contains("breccia.") && (line.contains("statement:") || line.contains("execute"))
        });
        ensure!(asked.is_none(), "{asked:?}");
    }
    Ok(())
}

/// Every name, every way.
fn ask_all(client: &mut SqlClient, status: char) -> Result<()> {
    for (way, send) in WAYS {
        for name in [
            "token", "target", "primary", "version", "reason", "server", "pinned",
        ] {
            let reply = send(client, &format!("SHOW breccia.{name}"))?;
            let reply = reply.good().with_context(|| format!("{way} {name}"))?;
            ensure!(
                reply.status == status && reply.tags == ["SHOW"],
                "{way}: {reply:?}"
            );
            ensure!(reply.rows.len() == 1, "{way}: {reply:?}");
            ensure!(
                name == "pinned" || reply.value() != Some(""),
                "{way} {name}: {reply:?}"
            );
        }
        let reply = send(client, "SHOW breccia.servers")?.good()?;
        let cells = |row: &Vec<Option<String>>| row.iter().take(3).flatten().cloned().collect();
        let seen: Vec<Vec<String>> = reply.rows.iter().map(cells).collect();
        let row = |server, role| vec![server, role, "in service"];
        let wanted = [
            row("pg0", "primary"),
            row("pg1", "replica"),
            row("pg2", "replica"),
        ];
        ensure!(seen == wanted, "{way}: {seen:?}");
        let lags = reply
            .rows
            .iter()
            .map(|row| row.get(4).is_some_and(Option::is_some));
        let lags: Vec<bool> = lags.collect();
        ensure!(lags == [false, true, true], "{way}: {reply:?}");
        let reply = send(client, "SHOW breccia.pools")?.good()?;
        ensure!(
            reply
                .rows
                .iter()
                .all(|row| row.len() == 8 && row.first() == Some(&Some("sql".to_owned())))
        );
        ensure!(!reply.rows.is_empty(), "no pools");
    }
    Ok(())
}

#[test]
fn breccia_shows_itself_in_every_way_a_session_can_ask() -> Result<()> {
    let cluster = database("shows")?;
    let gateway = Gateway::over(&cluster, "shows", Extra::default())?;
    let mut client = gateway.client("shows")?;
    client.run("INSERT INTO t (own) VALUES (1)")?;
    ensure!(client.run("SHOW breccia.reason")?.value() == Some("write"));
    ensure!(client.run("SHOW breccia.server")?.value() == Some("pg0"));
    ask_all(&mut client, 'I')?;
    client.run("BEGIN")?;
    client.run("INSERT INTO t (own) VALUES (2)")?;
    ask_all(&mut client, 'T')?;
    client.run("COMMIT")?;
    client.run("CREATE TEMP TABLE mine (a int)")?;
    ask_all(&mut client, 'I')?;
    ensure!(client.run("SHOW breccia.pinned")?.value() == Some("temp"));
    client.run("DISCARD ALL")?;
    // A transaction that is held, and runs on a replica.
    client.run("BEGIN READ ONLY")?;
    ask_all(&mut client, 'T')?;
    client.run("SELECT count(*) FROM t")?;
    ask_all(&mut client, 'T')?;
    client.run("COMMIT")?;
    let session = Extra {
        listener: "pool-mode = \"session\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, "shows", session)?;
    let mut client = gateway.client("shows")?;
    client.run("INSERT INTO t (own) VALUES (1)")?;
    ask_all(&mut client, 'I')?;
    no_server_was_asked(&cluster)
}

/// A statement, its SQLSTATE, and what its hint must say.
const WRONG: [(&str, &str, &str); 10] = [
    (
        "SHOW breccia.nonsense",
        "42704",
        "breccia.token, breccia.target",
    ),
    (
        "SET breccia.nonsense = 1",
        "42704",
        "breccia.token and breccia.target",
    ),
    (
        "SET breccia.version = '9'",
        "55P02",
        "breccia.token and breccia.target",
    ),
    (
        "RESET breccia.nonsense",
        "42704",
        "breccia.token and breccia.target",
    ),
    ("SET breccia.token = 'x'", "22023", "SHOW breccia.token"),
    ("RESET breccia.token", "22023", "another session"),
    ("SET breccia.target = 'replica'", "22023", ""),
    (
        "SET LOCAL breccia.target = 'primary'",
        "0A000",
        "of its own",
    ),
    (
        "SET breccia.target = 'primary'; SELECT 1",
        "0A000",
        "of its own",
    ),
    ("SELECT 1; SHOW breccia.token", "0A000", "of its own"),
];

#[test]
fn what_is_wrong_about_breccia_is_told_and_fails_its_transaction() -> Result<()> {
    let cluster = database("wrong")?;
    let gateway = Gateway::over(&cluster, "wrong", Extra::default())?;
    let mut client = gateway.client("wrong")?;
    let mut stranger = gateway.client("wrong")?;
    for (way, send) in WAYS {
        for (sql, code, hint) in WRONG {
            let check = |reply: &SqlReply, status: char| -> Result<()> {
                let fault = reply.fault.clone().context(sql)?;
                ensure!(
                    fault.code == code && fault.hint.contains(hint),
                    "{way}: {sql}: {fault:?}"
                );
                ensure!(reply.status == status, "{way}: {sql}: {reply:?}");
                Ok(())
            };
            check(&send(&mut client, sql)?, 'I')?;
            if way == "flushed" {
                // It asks twice, and the second answer is that of a failed transaction.
                continue;
            }
            client.run("BEGIN")?;
            client.run("INSERT INTO t (own) VALUES (13)")?;
            check(&send(&mut client, sql)?, 'E')?;
            ensure!(client.simple("SELECT 1")?.code() == "25P02", "{sql}");
            ensure!(
                client.simple("SHOW breccia.token")?.code() == "25P02",
                "{sql}"
            );
            ensure!(client.simple("COMMIT")?.tags == ["ROLLBACK"], "{sql}");
            // One that no server knows yet.
            client.run("BEGIN READ ONLY")?;
            check(&send(&mut client, sql)?, 'E')?;
            ensure!(client.simple("SELECT 1")?.code() == "25P02", "{sql}");
            ensure!(client.simple("COMMIT")?.tags == ["ROLLBACK"], "{sql}");
        }
        ensure!(
            client.run("SHOW breccia.target")?.value() == Some("auto"),
            "{way}"
        );
    }
    let count = stranger.run("SELECT count(*) FROM t WHERE own = 13")?;
    ensure!(count.value() == Some("0"), "{count:?}");
    no_server_was_asked(&cluster)
}

#[test]
fn a_target_is_set_and_reset_in_every_way() -> Result<()> {
    let cluster = database("targets")?;
    let gateway = Gateway::over(&cluster, "targets", Extra::default())?;
    let mut client = gateway.client("targets")?;
    for (way, send) in WAYS {
        let target = |client: &mut SqlClient| -> Result<Option<String>> {
            Ok(client
                .run("SHOW breccia.target")?
                .value()
                .map(str::to_owned))
        };
        for (set, tag) in [
            ("SET breccia.target = auto", "SET"),
            ("RESET breccia.target", "RESET"),
        ] {
            let reply = send(&mut client, "SET breccia.target = 'primary'")?.good()?;
            ensure!(reply.tags == ["SET"], "{way}: {reply:?}");
            let before = gateway.replica_reads()?;
            client.run("SELECT count(*) FROM t")?;
            ensure!(
                gateway.replica_reads()? - before < 0.5,
                "{way}: not on the primary"
            );
            ensure!(target(&mut client)?.as_deref() == Some("primary"), "{way}");
            let reply = send(&mut client, set)?.good()?;
            ensure!(reply.tags == [tag], "{way}: {reply:?}");
            ensure!(target(&mut client)?.as_deref() == Some("auto"), "{way}");
        }
    }
    Ok(())
}

#[test]
fn a_session_may_begin_with_a_target_and_a_token() -> Result<()> {
    let cluster = database("beginnings")?;
    let gateway = Gateway::over(&cluster, "beginnings", Extra::default())?;
    let token = gateway.client("beginnings")?.run("SHOW breccia.token")?;
    let token = token.value().context("a token")?.to_owned();
    let connect = |parameters: &[(&str, &str)]| {
        let database = ("database", "beginnings");
        SqlClient::connect_with(gateway.port, &[&[database], parameters].concat())
    };
    let options = format!("-c breccia.target=primary -c breccia.token={token}");
    let mut client = connect(&[("options", &options)])?;
    ensure!(client.run("SHOW breccia.target")?.value() == Some("primary"));
    let before = gateway.replica_reads()?;
    client.run("SELECT count(*) FROM t")?;
    ensure!(
        gateway.replica_reads()? - before < 0.5,
        "not on the primary"
    );
    let mut client = connect(&[("Breccia.Target", "auto"), ("breccia.token", "1:1:0/0")])?;
    client.run("SELECT count(*) FROM t")?;
    ensure!(client.run("SHOW breccia.reason")?.value() == Some("foreign-token"));
    for (parameter, code) in [
        (("breccia.nonsense", "1"), "42704"),
        (("breccia.target", "replica"), "22023"),
        (("breccia.token", "it's \\ none"), "22023"),
        (("breccia.servers", "1"), "55P02"),
    ] {
        let error = format!(
            "{:#}",
            connect(&[parameter]).map(drop).expect_err("a login")
        );
        ensure!(error.contains(code), "{parameter:?}: {error}");
    }
    no_server_was_asked(&cluster)
}

#[test]
fn a_batch_of_both_kinds_is_refused_whole() -> Result<()> {
    let cluster = database("mixed")?;
    let gateway = Gateway::over(&cluster, "mixed", Extra::default())?;
    let mut client = gateway.client("mixed")?;
    let both = |client: &mut SqlClient, first: &str, second: &str| -> Result<SqlReply> {
        client.parse("", first).bind("", &[]).execute();
        client
            .parse("", second)
            .bind("", &[])
            .execute()
            .sync()
            .ask()
    };
    let (insert, show) = ("INSERT INTO t (own) VALUES (5)", "SHOW breccia.target");
    for (first, second) in [(insert, show), (show, insert)] {
        let reply = both(&mut client, first, second)?;
        ensure!(reply.code() == "0A000" && reply.status == 'I', "{reply:?}");
        client.run("BEGIN")?;
        client.run("INSERT INTO t (own) VALUES (6)")?;
        let reply = both(&mut client, first, second)?;
        let fault = reply.fault.clone().context("no error")?;
        ensure!(
            fault.message.contains("breccia") && reply.status == 'E',
            "{reply:?}"
        );
        client.run("ROLLBACK")?;
    }
    // Answers come in order, also to who does not wait for them.
    client
        .query("BEGIN")
        .query(insert)
        .query(show)
        .query("SHOW breccia.nonsense");
    client
        .query("COMMIT")
        .query("SHOW breccia.version")
        .flush()?;
    let answers: Vec<String> = (0..6)
        .map(|_| {
            let reply = client.read_reply()?;
            let tag = reply.tags.first().cloned().unwrap_or_default();
            Ok(format!("{tag}{}{}", reply.code(), reply.status))
        })
        .collect::<Result<_>>()?;
    ensure!(
        answers
            == [
                "BEGINT",
                "INSERT 0 1T",
                "SHOWT",
                "42704E",
                "ROLLBACKI",
                "SHOWI"
            ],
        "{answers:?}"
    );
    ensure!(client.run("SELECT count(*) FROM t")?.value() == Some("0"));
    // Rows in portions.
    client.parse("", "SHOW breccia.servers").bind("", &[]);
    client
        .frame(b'E', &[0, 0, 0, 0, 2])
        .frame(b'E', &[0, 0, 0, 0, 0])
        .sync();
    let reply = client.ask()?.good()?;
    ensure!(reply.frames == "12DDsDCZ", "{}", reply.frames);
    no_server_was_asked(&cluster)
}

#[test]
fn drivers_ask_breccia_as_they_ask_a_server() -> Result<()> {
    let cluster = database("drivers")?;
    for mode in ["transaction", "session"] {
        let listener = format!("pool-mode = \"{mode}\"");
        let extra = Extra {
            listener: &listener,
            ..Extra::default()
        };
        let gateway = Gateway::over(&cluster, "drivers", extra)?;
        let mut command = Command::new("timeout");
        command
            .arg("60")
            .arg(clients_folder().join("sql-python/bin/python"));
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sql/own.py"));
        command.args([&gateway.port.to_string(), "drivers"]);
        let text = process::run(&mut command).context(mode)?;
        ensure!(text.lines().last() == Some("all good"), "{mode}: {text}");
    }
    no_server_was_asked(&cluster)
}
