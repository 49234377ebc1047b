//! Servers that die, freeze, refuse or speak TLS.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use breccia_blob::sql::{CHUNK, SqlOptions, SqlStore, SqlTlsMode};
use breccia_blob::store::{BlobStoreExt, GetOptions, PutOptions};
use breccia_blob::{BlobError, BlobStore, Body};
use breccia_core::error::Effect;

use crate::place::{Kind, Place, Told, key, pattern};

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
        () = tokio::time::sleep(Duration::from_millis(500)) => {}
    }
    place.kill();
    sender.send(new.slice(2 * CHUNK..)).await?;
    drop(sender);
    let error = put.await.expect_err("the server is dead");
    ensure!(matches!(error, BlobError::Down { .. }), "{error:?}");
    ensure!(error.effect() == Effect::NotApplied, "{error}");
    let down = store.get_bytes(&name).await.expect_err("the server is dead");
    ensure!(matches!(down, BlobError::Down { .. }), "{down:?}");
    place.restart()?;
    ensure!(store.get_bytes(&name).await?.1 == old, "the old object is not there");
    store.put_bytes(&name, new.clone()).await?;
    place.kill();
    place.restart()?;
    ensure!(store.get_bytes(&name).await?.1 == new, "an acknowledged put is lost");
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
    let limit = Duration::from_secs(2);
    let store = place.open("t_", |options| {
        options.timeout = limit;
        options.max_connections = 2;
    });
    store.put_bytes(&key("k"), "x").await?;
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
    store.put_bytes(&name, "z").await?;
    ensure!(store.get_bytes(&name).await?.1 == "z", "not what was put");
    Ok(())
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
    ensure!(words.to_lowercase().contains("denied") || words.contains("authentication failed"), "{words}");
    ensure!(!words.contains("wr0ng-passw0rd"), "the password shows: {words}");
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
    let place = Place::new(Kind::Sqlite)?;
    let options = |prefix: &str| SqlOptions {
        table_prefix: prefix.to_owned(),
        ..SqlOptions::new("sql-a")
    };
    let path = std::path::PathBuf::from("/nowhere/at/all.db");
    let file = breccia_blob::sql::SqliteOptions { path };
    let store = SqlStore::open_sqlite(options("t_"), &file)?;
    let error = store.probe().await.expect_err("no such folder");
    ensure!(matches!(error, BlobError::Down { .. }), "{error:?}");
    let error = SqlStore::open_sqlite(options("t; DROP"), &file).expect_err("no prefix");
    ensure!(matches!(error, BlobError::Options { .. }), "{error:?}");
    for kind in [breccia_blob::sql::Server::Postgresql, breccia_blob::sql::Server::Mysql] {
        let server = breccia_blob::sql::ServerOptions {
            server: kind,
            address: breccia_core::address::Address::Tcp {
                host: "127.0.0.1".to_owned(),
                port: breccia_testkit::free_port()?,
            },
            database: "d".to_owned(),
            user: "u".to_owned(),
            password: None,
            tls: breccia_blob::sql::SqlTlsOptions::default(),
        };
        let store = SqlStore::open(options("t_"), &server)?;
        let error = store.put_bytes(&key("k"), "x").await.expect_err("nobody listens");
        ensure!(error.effect() == Effect::NotApplied, "{error:?}");
        ensure!(error.to_string().contains("connection refused"), "{error}");
    }
    drop(place);
    let _ = SqlTlsMode::Disable;
    Ok(())
}
