//! Servers that die, freeze, refuse or speak TLS.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use breccia_blob::sql::{
    CHUNK, Server, ServerOptions, SqlOptions, SqlStore, SqlTlsMode, SqlTlsOptions, SqliteOptions,
};
use breccia_blob::store::{BlobStoreExt, GetOptions, PutOptions};
use breccia_blob::{BlobError, BlobStore, Body};
use breccia_core::address::Address;
use breccia_core::error::Effect;
use breccia_testkit::{Certificates, free_port};

use crate::place::{Kind, Place, Running, Told, key, pattern};

async fn survives_a_kill_in_the_middle_of_a_put(kind: Kind) -> Result<()> {
    let mut place = Place::start(kind, true, &[])?;
    let store = place.open("t_", |options| options.timeout = Duration::from_secs(5));
    let old = pattern(3 * CHUNK, 1);
    store.put_bytes(&key("k"), old.clone()).await?;
    let (sender, source) = Told::new();
    let (name, new) = (key("k"), pattern(4 * CHUNK, 2));
    let body = Body::new(Box::new(source), new.len() as u64);
    let mut put = store.put(&name, body, PutOptions::default());
    sender.send(new.slice(..2 * CHUNK)).await?;
    tokio::select! {
        done = &mut put => bail!("the put has ended: {done:?}"),
        waited = place.wait_for("t_chunks", 3 + 2) => waited?,
    }
    place.kill();
    sender.send(new.slice(2 * CHUNK..)).await?;
    drop(sender);
    let error = put.await.expect_err("the server is dead");
    ensure!(matches!(error, BlobError::Down { .. }), "{error:?}");
    ensure!(error.effect() == Effect::NotApplied, "{error}");
    let down = store
        .get_bytes(&name)
        .await
        .expect_err("the server is dead");
    ensure!(matches!(down, BlobError::Down { .. }), "{down:?}");
    place.restart()?;
    ensure!(
        store.get_bytes(&name).await?.1 == old,
        "the old object is not there"
    );
    store.put_bytes(&name, new.clone()).await?;
    place.kill();
    place.restart()?;
    ensure!(
        store.get_bytes(&name).await?.1 == new,
        "an acknowledged put is lost"
    );
    let impatient = place.impatient("t_");
    impatient.maintain(0).await?;
    ensure!(place.count("t_chunks")? == 4, "chunks are left over");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_survives_a_kill_in_the_middle_of_a_put() -> Result<()> {
    survives_a_kill_in_the_middle_of_a_put(Kind::Postgresql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_survives_a_kill_in_the_middle_of_a_put() -> Result<()> {
    survives_a_kill_in_the_middle_of_a_put(Kind::Mysql).await
}

async fn waits_for_a_frozen_server_no_longer_than_told(kind: Kind) -> Result<()> {
    let mut place = Place::new(kind)?;
    let limit = Duration::from_secs(3);
    // Whoever makes the tables and the connections has all the time a loaded machine wants.
    place.store().put_bytes(&key("k"), "x").await?;
    let store = place.open("t_", |options| {
        options.timeout = limit;
        options.max_connections = 2;
    });
    until_it_works(&store, "x").await?;
    place.freeze()?;
    let begun = Instant::now();
    let name = key("k");
    let gets = (0..6).map(|_| store.get(&name, GetOptions::default()));
    for got in futures_util::future::join_all(gets).await {
        let error = got.expect_err("the server is frozen");
        let right = matches!(
            error,
            BlobError::Timeout { .. } | BlobError::Overloaded { .. } | BlobError::Down { .. }
        );
        ensure!(right && error.effect() == Effect::NotApplied, "{error:?}");
    }
    let put = store.put_bytes(&name, "y").await;
    ensure!(put.is_err(), "{put:?}");
    ensure!(begun.elapsed() < limit * 5, "{:?}", begun.elapsed());
    place.thaw()?;
    until_it_works(&store, "z").await?;
    ensure!(store.get_bytes(&name).await?.1 == "z", "not what was put");
    Ok(())
}

async fn until_it_works(store: &SqlStore, content: &'static str) -> Result<()> {
    let begun = Instant::now();
    loop {
        match store.put_bytes(&key("k"), content).await {
            Ok(_) => return Ok(()),
            Err(error) if begun.elapsed() > Duration::from_mins(1) => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_postgresql_is_waited_for_no_longer_than_told() -> Result<()> {
    waits_for_a_frozen_server_no_longer_than_told(Kind::Postgresql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_mariadb_is_waited_for_no_longer_than_told() -> Result<()> {
    waits_for_a_frozen_server_no_longer_than_told(Kind::Mysql).await
}

async fn tells_a_wrong_password_without_showing_it(kind: Kind) -> Result<()> {
    let place = Place::new(kind)?;
    let mut server = place.server().expect("a server");
    server.password = Some("wr0ng-passw0rd".to_owned());
    let store = SqlStore::open(SqlOptions::new("sql-a"), &server)?;
    let error = store.probe().await.expect_err("a wrong password");
    let words = format!("{error} {error:?} {store:?} {server:?}");
    ensure!(matches!(error, BlobError::Down { .. }), "{error:?}");
    ensure!(
        words.to_lowercase().contains("denied") || words.contains("authentication failed"),
        "{words}"
    );
    ensure!(
        !words.contains("wr0ng-passw0rd"),
        "the password shows: {words}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_tells_a_wrong_password_without_showing_it() -> Result<()> {
    tells_a_wrong_password_without_showing_it(Kind::Postgresql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_tells_a_wrong_password_without_showing_it() -> Result<()> {
    tells_a_wrong_password_without_showing_it(Kind::Mysql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connection_is_down_and_an_unusable_option_is_told() -> Result<()> {
    let options = |prefix: &str| SqlOptions {
        table_prefix: prefix.to_owned(),
        ..SqlOptions::new("sql-a")
    };
    let path = std::path::PathBuf::from("/nowhere/at/all.db");
    let file = SqliteOptions { path };
    let store = SqlStore::open_sqlite(options("t_"), &file)?;
    let error = store.probe().await.expect_err("no such folder");
    ensure!(matches!(error, BlobError::Down { .. }), "{error:?}");
    let error = SqlStore::open_sqlite(options("t; DROP"), &file).expect_err("no prefix");
    ensure!(matches!(error, BlobError::Options { .. }), "{error:?}");
    for server in [Server::Postgresql, Server::Mysql] {
        let server = ServerOptions {
            server,
            address: Address::Tcp {
                host: "127.0.0.1".to_owned(),
                port: free_port()?,
            },
            database: "d".to_owned(),
            user: "u".to_owned(),
            password: None,
            tls: SqlTlsOptions::default(),
        };
        let store = SqlStore::open(options("t_"), &server)?;
        let put = store.put_bytes(&key("k"), "x").await;
        let error = put.expect_err("nobody listens");
        ensure!(error.effect() == Effect::NotApplied, "{error:?}");
        ensure!(error.to_string().contains("connection refused"), "{error}");
    }
    Ok(())
}

async fn speaks_over_its_socket(kind: Kind) -> Result<()> {
    let place = Place::new(kind)?;
    let mut server = place.server().expect("a server");
    server.address = Address::Unix(match &place.running {
        Running::Postgresql(it) => it.socket_folder().join(format!(".s.PGSQL.{}", it.port())),
        Running::Mysql(it) => it.socket(),
        Running::Sqlite(_) => bail!("no server"),
    });
    let store = SqlStore::open(SqlOptions::new("sql-a"), &server)?;
    store.put_bytes(&key("k"), "over a socket").await?;
    ensure!(
        store.get_bytes(&key("k")).await?.1 == "over a socket",
        "not what was put"
    );
    Ok(())
}

/// A server with these certificates.
fn with_certificates(kind: Kind, ours: &Certificates) -> Result<Place> {
    // PostgreSQL reads them once, MariaDB too: they may go with this function.
    let folder = tempfile::tempdir()?;
    // The servers run as users of their own, and PostgreSQL wants to own its key.
    let (cert, private) = (folder.path().join("cert"), folder.path().join("key"));
    std::fs::copy(&ours.server_cert, &cert)?;
    std::fs::copy(&ours.server_key, &private)?;
    let user = if kind == Kind::Mysql {
        "mysql"
    } else {
        "postgres"
    };
    let script = format!(
        "chmod 755 {0} && chmod 600 {0}/key && chown -R {user}: {0}",
        folder.path().display()
    );
    let done = std::process::Command::new("sh")
        .args(["-c", &script])
        .status()?;
    ensure!(done.success(), "{script}");
    let (cert, private) = (cert.display().to_string(), private.display().to_string());
    let names = if kind == Kind::Mysql {
        vec![("ssl-cert", &*cert), ("ssl-key", &*private)]
    } else {
        let files = [("ssl_cert_file", &*cert), ("ssl_key_file", &*private)];
        std::iter::once(("ssl", "on")).chain(files).collect()
    };
    Place::start(kind, false, &names)
}

async fn checks_certificates_as_told(kind: Kind) -> Result<()> {
    let (ours, others) = (Certificates::new()?, Certificates::new()?);
    let place = with_certificates(kind, &ours)?;
    let check = async |mode, ca: Option<&Certificates>, name: Option<&str>, good| -> Result<()> {
        let mut server = place.server().expect("a server");
        server.tls = SqlTlsOptions {
            mode,
            ca: ca.map(|ca| ca.ca.clone()),
            server_name: name.map(str::to_owned),
            ..SqlTlsOptions::default()
        };
        let store = match SqlStore::open(SqlOptions::new("sql-a"), &server) {
            Err(BlobError::Options { .. }) if mode == SqlTlsMode::VerifyCa => return Ok(()),
            other => other?,
        };
        let put = store.put_bytes(&key("k"), "under TLS").await;
        ensure!(put.is_ok() == good, "{mode:?} {name:?}: {put:?}");
        Ok(())
    };
    check(SqlTlsMode::Disable, None, None, true).await?;
    check(SqlTlsMode::Prefer, None, None, true).await?;
    check(SqlTlsMode::Require, None, None, true).await?;
    check(SqlTlsMode::VerifyFull, Some(&ours), Some("localhost"), true).await?;
    check(
        SqlTlsMode::VerifyFull,
        Some(&others),
        Some("localhost"),
        false,
    )
    .await?;
    check(
        SqlTlsMode::VerifyFull,
        Some(&ours),
        Some("other.example"),
        false,
    )
    .await?;
    check(SqlTlsMode::VerifyFull, None, Some("localhost"), false).await?;
    check(
        SqlTlsMode::VerifyCa,
        Some(&ours),
        Some("other.example"),
        true,
    )
    .await?;
    check(
        SqlTlsMode::VerifyCa,
        Some(&others),
        Some("localhost"),
        false,
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_speaks_over_its_socket() -> Result<()> {
    speaks_over_its_socket(Kind::Postgresql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_speaks_over_its_socket() -> Result<()> {
    speaks_over_its_socket(Kind::Mysql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_postgresql_are_checked_as_told() -> Result<()> {
    checks_certificates_as_told(Kind::Postgresql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_mariadb_are_checked_as_told() -> Result<()> {
    checks_certificates_as_told(Kind::Mysql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_serves_who_only_prefers_it() -> Result<()> {
    for kind in [Kind::Postgresql, Kind::Mysql] {
        let place = Place::new(kind)?;
        for (mode, good) in [(SqlTlsMode::Prefer, true), (SqlTlsMode::Require, false)] {
            let mut server = place.server().expect("a server");
            server.tls.mode = mode;
            let store = SqlStore::open(SqlOptions::new("sql-a"), &server)?;
            let put = store.put_bytes(&key("k"), "x").await;
            ensure!(put.is_ok() == good, "{kind:?} {mode:?}: {put:?}");
        }
    }
    Ok(())
}
