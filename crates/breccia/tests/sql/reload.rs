//! Reloads of a gateway whose SQL sessions go on.
//!
//! Not reloads in general (`tests/serve.rs`). Invariant: a session that was there before a reload is
//! asked something after it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use breccia_testkit::{
    Breccia, Certificates, PostgresCluster, Signal, SqlClient, free_port, wait_until,
};
use serde_json::{Value, json};

use crate::rig::{Extra, LIMIT, file, shared};
use crate::secure::{TlsClient, Wire, psql};

const ONE: &str = "SELECT 40 + 2";
/// The testkit's superuser, who may log in everywhere here.
const USER: (&str, &str) = ("breccia", "secret");

/// A gateway that is told other things later.
struct Reloading {
    breccia: Breccia,
    port: u16,
    /// The file as it was first.
    first: String,
}

impl Reloading {
    /// A gateway whose listener has these keys, before its users.
    fn over(cluster: &PostgresCluster, listener: &str) -> Result<Reloading> {
        let port = free_port()?;
        let extra = Extra {
            listener,
            ..Extra::default()
        };
        let first = file(cluster, port, extra);
        cluster.wait_caught_up(LIMIT)?;
        let breccia = Breccia::start(&first)?;
        Ok(Reloading {
            breccia,
            port,
            first,
        })
    }

    /// The first file with other keys in place of `before`.
    fn with(&self, before: &str, after: &str) -> Result<String> {
        ensure!(
            self.first.contains(before),
            "{before:?} is not in {}",
            self.first
        );
        Ok(self.first.replace(before, after))
    }

    /// Reloads this file, which must be good; what was applied and what needs a restart.
    fn reload(&self, file: &str) -> Result<(Value, Value)> {
        let (status, body) = self.breccia.reload(file)?;
        ensure!(status == 200, "{status} {body}");
        let answer: Value = serde_json::from_str(&body)?;
        let key = |name: &str| answer.get(name).cloned().with_context(|| name.to_owned());
        Ok((key("applied")?, key("needs_restart")?))
    }

    fn client(&self) -> Result<SqlClient> {
        SqlClient::connect(self.port, "postgres")
    }

    /// What psql answers to one of these users.
    fn user(&self, user: (&str, &str)) -> Result<String, String> {
        psql(self.port, user, "", ONE)
    }
}

fn table(name: &str, password: &str) -> String {
    format!("[[listener.sql.user]]\nname = \"{name}\"\npassword = \"{password}\"\n")
}

fn is_refused(answer: &Result<String, String>) -> bool {
    let failed = "password authentication failed";
    matches!(answer, Err(text) if text.contains(failed))
}

#[test]
fn users_come_and_go_by_reload_and_sessions_stay() -> Result<()> {
    let cluster = shared()?;
    let gateway = Reloading::over(&cluster, "")?;
    let mut session = gateway.client()?;
    session.run("SET search_path = pg_catalog")?;
    let more = gateway.first.clone() + &table("ann", "apple") + &table("ben", "pear");
    let (applied, restart) = gateway.reload(&more)?;
    assert_eq!(
        (applied, restart),
        (json!(["listener.sql.user"]), json!([]))
    );
    for user in [("ann", "apple"), ("ben", "pear"), USER] {
        let found = gateway.user(user);
        ensure!(found.as_deref() == Ok("42"), "{user:?}: {found:?}");
    }
    // One goes, one gets another password; both over a signal.
    let fewer = table("ben", "plum");
    let fewer = gateway.with(&table(USER.0, USER.1), &fewer)?;
    fs::write(
        gateway.breccia.config_path(),
        with_admin(&gateway.breccia, &fewer)?,
    )?;
    let mut gateway = gateway;
    gateway.breccia.process().signal(Signal::Hup)?;
    let done = "breccia_reloads_total{outcome=\"applied\"}";
    wait_until(LIMIT, "the reload", || {
        Ok((gateway.breccia.metric(done)? >= 2.0).then_some(()))
    })?;
    for user in [("ann", "apple"), ("ben", "pear"), USER] {
        let found = gateway.user(user);
        ensure!(is_refused(&found), "{user:?}: {found:?}");
    }
    let found = gateway.user(("ben", "plum"));
    ensure!(found.as_deref() == Ok("42"), "{found:?}");
    // Who was there stays, as it was, also if it would be let in no more.
    let path = session.run("SHOW search_path")?;
    assert_eq!(path.value(), Some("pg_catalog"));
    ensure!(gateway.client().is_err());
    // The servers know it still: they may be asked.
    let query = "auth-query = \"SELECT usename, passwd FROM pg_shadow WHERE usename = $1\"\n";
    let place = "[[listener.sql.user]]";
    let (applied, _) = gateway.reload(&fewer.replacen(place, &format!("{query}{place}"), 1))?;
    assert_eq!(applied, json!(["listener.sql.auth-query"]));
    assert_eq!(gateway.client()?.run(ONE)?.value(), Some("42"));
    ensure!(is_refused(&gateway.user((USER.0, "wrong"))));
    Ok(())
}

/// A file as the testkit writes it, with the admin listener and state folder of this gateway.
fn with_admin(breccia: &Breccia, file: &str) -> Result<String> {
    let before = fs::read_to_string(breccia.config_path())?;
    let own = before.find("\n[admin]").context("no admin table")?;
    Ok(file.to_owned() + &before[own..])
}

#[test]
fn pools_grow_and_shrink_by_reload() -> Result<()> {
    let cluster = shared()?;
    let keys = "pool-size = 1\nqueue-timeout = \"1s\"";
    let gateway = Reloading::over(&cluster, keys)?;
    let mut clients = [gateway.client()?, gateway.client()?, gateway.client()?];
    let [holder, waiting, third] = &mut clients;
    holder.run("BEGIN")?;
    let full = waiting.simple("BEGIN")?;
    assert_eq!(full.code(), "53300", "{full:?}");
    // One that waits already is served as soon as there is room.
    let patient = gateway.with("\"1s\"", "\"30s\"")?;
    gateway.reload(&patient)?;
    waiting.query("BEGIN").flush()?;
    std::thread::sleep(Duration::from_millis(200));
    let larger = patient.replace("pool-size = 1", "pool-size = 2");
    let (applied, restart) = gateway.reload(&larger)?;
    assert_eq!(
        (applied, restart),
        (json!(["listener.sql.pool-size"]), json!([]))
    );
    assert_eq!(waiting.read_reply()?.good()?.status, 'T');
    let open = |wanted: usize| {
        wait_until(LIMIT, &format!("{wanted} connections"), || {
            let (_, status) = gateway.breccia.admin("/status")?;
            let status: Value = serde_json::from_str(&status)?;
            let pools = status["clusters"][0]["pools"].as_array();
            let of_primary = |pool: &&Value| pool["server"] == "pg0";
            let pool = pools.and_then(|pools| pools.iter().find(of_primary));
            let pool = pool.context("no pool of the primary")?;
            ensure!(pool["listener"] == "sql", "{pool}");
            Ok((pool["open"] == json!(wanted)).then_some(()))
        })
    };
    open(2)?;
    // What is lent comes back first; then one is closed.
    gateway.reload(&patient)?;
    for client in [&mut *holder, &mut *waiting] {
        client.run("COMMIT")?;
    }
    open(1)?;
    holder.run("BEGIN")?;
    third.query("BEGIN").flush()?;
    third.set_patience(Duration::from_millis(500))?;
    ensure!(third.read_frame().is_err(), "there is one connection again");
    Ok(())
}

#[test]
fn limits_and_modes_hold_for_sessions_to_come() -> Result<()> {
    let cluster = shared()?;
    let gateway = Reloading::over(&cluster, "pool-size = 20")?;
    let mut old = gateway.client()?;
    let keys = "pool-size = 20\nidle-timeout = \"300ms\"\nmax-request-size = \"1MiB\"\n\
                idle-in-transaction-timeout = \"200ms\"\npool-mode = \"session\"";
    let changed = gateway.with("pool-size = 20", keys)?;
    let (applied, restart) = gateway.reload(&changed)?;
    let expected = [
        "idle-timeout",
        "max-request-size",
        "pool-mode",
        "idle-in-transaction-timeout",
    ];
    let expected = expected.map(|key| format!("listener.sql.{key}"));
    assert_eq!((applied, restart), (json!(expected), json!([])));
    let long = format!("SELECT '{}'", "x".repeat(2_000_000));
    let refused = gateway.client()?.simple(&long);
    let text = refused.map_or_else(|error| error.to_string(), |reply| reply.frames);
    ensure!(text.contains("54000"), "{text}");
    let told = |mut client: SqlClient, code: &str| -> Result<()> {
        let Err(error) = client.read_reply() else {
            anyhow::bail!("it was not told to go");
        };
        ensure!(format!("{error:#}").contains(code), "{code}: {error:#}");
        Ok(())
    };
    let mut open = gateway.client()?;
    open.run("BEGIN")?;
    told(open, "25P03")?;
    told(gateway.client()?, "57P05")?;
    // A session of the new mode keeps its connection; the old one goes on lending.
    let backend = "SELECT pg_backend_pid()";
    let mut new = gateway.client()?;
    let own = new.run(backend)?.value().map(str::to_owned);
    let lent = old.run(backend)?.value().map(str::to_owned);
    ensure!(own.is_some() && own != lent, "{own:?} is lent to another");
    let mut newer = gateway.client()?;
    let third = newer.run(backend)?.value().map(str::to_owned);
    assert_eq!(third, lent, "what is idle is lent");
    old.run("BEGIN")?;
    std::thread::sleep(Duration::from_millis(800));
    assert_eq!(old.run(&long)?.value().map(str::len), Some(2_000_000));
    old.run("COMMIT")?;
    Ok(())
}

#[test]
fn what_waits_for_a_restart_is_named_and_a_faulty_file_changes_nothing() -> Result<()> {
    let cluster = shared()?;
    let gateway = Reloading::over(&cluster, "")?;
    let mut session = gateway.client()?;
    let moved = gateway
        .with(
            "type = \"sql-read-replica\"\n",
            "type = \"sql-read-replica\"\nmax-lag = \"1h\"\n",
        )?
        .replace(
            &format!(":{}\"", gateway.port),
            &format!(":{}\"", free_port()?),
        )
        .replace("name = \"breccia\"\n", "name = \"ann\"\n");
    let (applied, restart) = gateway.reload(&moved)?;
    assert_eq!(applied, json!(["listener.sql.user"]));
    assert_eq!(restart, json!(["listener.sql.bind", "store.db.max-lag"]));
    ensure!(
        gateway
            .breccia
            .log()
            .contains("listener.sql.bind store.db.max-lag")
    );
    ensure!(
        gateway.user(("ann", USER.1)).is_ok(),
        "it listens where it did"
    );
    gateway.reload(&gateway.first)?;
    let files = Certificates::new()?;
    let faulty = format!(
        "tls = {{ cert = '{}', key = '{}' }}\n[[listener.sql.user]]\nname = \"ann\"\n",
        files.server_cert.display(),
        files.client_key.display()
    );
    let faulty = gateway.with("[[listener.sql.user]]\nname = \"breccia\"\n", &faulty)?;
    let (status, body) = gateway.breccia.reload(&faulty)?;
    ensure!(
        status == 400 && body.contains("listener.sql.tls.cert"),
        "{status} {body}"
    );
    ensure!(
        is_refused(&gateway.user(("ann", USER.1))),
        "its users are not taken"
    );
    let found = gateway.user(USER);
    ensure!(found.as_deref() == Ok("42"), "{found:?}");
    assert_eq!(session.run(ONE)?.value(), Some("42"));
    Ok(())
}

#[test]
fn certificates_are_renewed_and_tls_comes_and_goes_by_reload() -> Result<()> {
    let (files, renewed) = (Certificates::new()?, Certificates::new()?);
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let install = |files: &Certificates| -> Result<()> {
        fs::copy(&files.server_cert, at("cert.pem"))?;
        fs::copy(&files.server_key, at("key.pem"))?;
        Ok(())
    };
    install(&files)?;
    let place = folder.path().display();
    let tls = format!("tls = {{ cert = '{place}/cert.pem', key = '{place}/key.pem' }}");
    let cluster = shared()?;
    let gateway = Reloading::over(&cluster, &tls)?;
    // Without users nobody needs a password: that leaves TLS.
    let open = gateway.with(&table(USER.0, USER.1), "")?;
    gateway.reload(&open)?;
    let mut session = TlsClient::asked(gateway.port, &files)?;
    session.wire().begin(USER.0)?;
    session.wire().answer()?;
    install(&renewed)?;
    let seen = TlsClient::asked(gateway.port, &files)?.certificate()?;
    assert_eq!(
        seen,
        session.certificate()?,
        "nothing changes before the reload"
    );
    let (applied, restart) = gateway.reload(&open)?;
    assert_eq!(
        (applied, restart),
        (json!([]), json!([])),
        "the file is as it was"
    );
    ensure!(
        TlsClient::asked(gateway.port, &files).is_err(),
        "another authority's now"
    );
    ensure!(TlsClient::asked(gateway.port, &renewed)?.certificate()? != seen);
    assert_eq!(
        session.wire().ask(ONE)?,
        ["42"],
        "a session stays under its own"
    );
    // The binding of a proof is that of the renewed certificate.
    gateway.reload(&gateway.first)?;
    let bound = "sslmode=require channel_binding=require";
    let found = psql(gateway.port, USER, bound, ONE);
    ensure!(found.as_deref() == Ok("42"), "{found:?}");
    let plain = gateway.with(&tls, "")?;
    let (applied, _) = gateway.reload(&plain)?;
    assert_eq!(applied, json!(["listener.sql.tls"]));
    let found = psql(gateway.port, USER, "sslmode=disable", ONE);
    ensure!(found.as_deref() == Ok("42"), "{found:?}");
    gateway.reload(&gateway.first)?;
    let found = psql(gateway.port, USER, "sslmode=disable", ONE);
    ensure!(
        found.as_ref().is_err_and(|it| it.contains("without TLS")),
        "{found:?}"
    );
    assert_eq!(session.wire().ask(ONE)?, ["42"]);
    Ok(())
}
