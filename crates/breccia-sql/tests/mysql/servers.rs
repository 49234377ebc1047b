//! Upstream connections to a real `MariaDB`.

use std::time::Duration;

use anyhow::Result;
use breccia_core::address::Address;
use breccia_net::tls::{TlsClient, TlsClientOptions};
use breccia_sql::SqlError;
use breccia_sql::mysql::auth;
use breccia_sql::mysql::upstream::{Credential, Endpoint, ServerKind, UpstreamTls};
use breccia_testkit::{Certificates, MariaDb, MariaDbOptions};

use super::{endpoint, local, login};

fn with(arguments: &[String]) -> Result<MariaDb> {
    MariaDb::start(MariaDbOptions {
        arguments: arguments.to_vec(),
        ..MariaDbOptions::default()
    })
}

async fn value(endpoint: &Endpoint, user: &str, password: &str, sql: &str) -> Result<String> {
    let mut upstream = endpoint.open(&login(user, password)).await?;
    let rows = endpoint.ask(&mut upstream, sql).await?;
    Ok(rows[0][0].clone().unwrap_or_default())
}

#[tokio::test]
async fn a_password_opens_over_tcp_and_unix() -> Result<()> {
    let server = MariaDb::new()?;
    server.query("mysql", "CREATE USER bare@'%' IDENTIFIED BY ''")?;
    for address in [local(server.port()), Address::Unix(server.socket())] {
        let endpoint = endpoint(address);
        let mut upstream = endpoint.open(&login("breccia", "secret")).await?;
        assert_eq!(upstream.server, ServerKind::MariaDb);
        let rows = endpoint
            .ask(&mut upstream, "SELECT CONNECTION_ID(), NULL, ''")
            .await?;
        let number = upstream.connection_id.to_string();
        assert_eq!(rows, [vec![Some(number), None, Some(String::new())]]);
        let who = value(&endpoint, "bare", "", "SELECT CURRENT_USER()").await?;
        assert_eq!(who, "bare@%");
        let mut hash = login("breccia", "");
        hash.credential = Credential::NativeHash(auth::native_hash(b"secret"));
        endpoint.open(&hash).await?;
        for (user, password) in [("breccia", "wrong"), ("breccia", ""), ("nobody", "secret")] {
            let error = endpoint
                .open(&login(user, password))
                .await
                .expect_err("refused");
            let SqlError::Refused {
                sqlstate,
                errno,
                role,
                ..
            } = error
            else {
                panic!("{error}");
            };
            assert_eq!(
                (sqlstate.as_str(), errno, role.as_str()),
                ("28000", Some(1045), user)
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn every_connection_tells_its_changes_and_a_replicas_writes_nothing() -> Result<()> {
    let server = MariaDb::new()?;
    let endpoint = endpoint(local(server.port()));
    let mut upstream = endpoint.open(&login("breccia", "secret")).await?;
    let sql = "SELECT @@session_track_system_variables, @@session_track_schema, \
        @@session_track_state_change, @@session_track_transaction_info";
    let rows = endpoint.ask(&mut upstream, sql).await?;
    assert_eq!(
        rows[0].iter().flatten().collect::<Vec<_>>(),
        ["*", "1", "1", "CHARACTERISTICS"]
    );
    endpoint
        .run(&mut upstream, "CREATE TABLE mysql.t (a INT)")
        .await?;
    let mut reader = login("breccia", "secret");
    reader.read_only = true;
    let mut upstream = endpoint.open(&reader).await?;
    let write = endpoint
        .run(&mut upstream, "INSERT INTO mysql.t VALUES (1)")
        .await;
    let Err(SqlError::Question {
        sqlstate, errno, ..
    }) = write
    else {
        panic!("{write:?}");
    };
    assert_eq!((sqlstate.as_str(), errno), ("25006", Some(1792)));
    assert_eq!(
        endpoint
            .ask(&mut upstream, "SELECT COUNT(*) FROM mysql.t")
            .await?
            .len(),
        1
    );
    Ok(())
}

#[tokio::test]
async fn a_signature_opens_whatever_the_challenge() -> Result<()> {
    let server = MariaDb::new()?;
    server.query(
        "mysql",
        "INSTALL SONAME 'auth_ed25519'; \
         CREATE USER ed@'%' IDENTIFIED VIA ed25519 USING PASSWORD('a long password of more than 32 bytes')",
    )?;
    let endpoint = endpoint(local(server.port()));
    // One challenge in 256 ends with a zero byte.
    for _ in 0..600 {
        let login = login("ed", "a long password of more than 32 bytes");
        endpoint.open(&login).await?;
    }
    endpoint
        .open(&login("ed", "wrong"))
        .await
        .expect_err("refused");
    Ok(())
}

#[tokio::test]
async fn a_way_that_is_not_spoken_is_named() -> Result<()> {
    let server = MariaDb::new()?;
    server.query(
        "mysql",
        "INSTALL SONAME 'auth_pam_v1'; CREATE USER pam@'%' IDENTIFIED VIA pam USING 'mysql'",
    )?;
    let endpoint = endpoint(local(server.port()));
    let error = endpoint
        .open(&login("pam", "secret"))
        .await
        .expect_err("not spoken");
    let text = error.to_string();
    assert!(
        text.contains("\"pam\"") && text.contains("\"dialog\""),
        "{text}"
    );
    Ok(())
}

#[tokio::test]
async fn tls_is_made_where_it_is_asked_for() -> Result<()> {
    let certificates = Certificates::new()?;
    let at = |path: &std::path::Path| path.display().to_string();
    let folder = certificates.ca.parent().expect("a folder");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder, open)?;
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&certificates.server_key, readable)?;
    let server = with(&[
        format!("--ssl-cert={}", at(&certificates.server_cert)),
        format!("--ssl-key={}", at(&certificates.server_key)),
    ])?;
    let plain = MariaDb::new()?;
    let client = |ca| {
        let options = TlsClientOptions {
            ca,
            ..TlsClientOptions::default()
        };
        TlsClient::new(&options, "127.0.0.1")
    };
    let trusting = client(Some(certificates.ca.clone()))?;
    let cipher = "SELECT VARIABLE_VALUE FROM information_schema.SESSION_STATUS \
        WHERE VARIABLE_NAME = 'Ssl_cipher'";
    let mut there = endpoint(local(server.port()));
    let mut without = endpoint(local(plain.port()));
    assert_eq!(value(&there, "breccia", "secret", cipher).await?, "");
    there.tls = UpstreamTls::Prefer(trusting.clone());
    without.tls = there.tls.clone();
    assert_ne!(value(&there, "breccia", "secret", cipher).await?, "");
    assert_eq!(value(&without, "breccia", "secret", cipher).await?, "");
    there.tls = UpstreamTls::Require(trusting);
    without.tls = there.tls.clone();
    assert_ne!(value(&there, "breccia", "secret", cipher).await?, "");
    let error = without
        .open(&login("breccia", "secret"))
        .await
        .expect_err("no TLS");
    assert!(matches!(error, SqlError::NoTls { .. }), "{error}");
    there.tls = UpstreamTls::Require(client(None)?);
    let error = there
        .open(&login("breccia", "secret"))
        .await
        .expect_err("a stranger");
    assert!(matches!(error, SqlError::Connect { .. }), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_statement_is_ended_from_another_connection() -> Result<()> {
    let server = MariaDb::new()?;
    let endpoint = endpoint(local(server.port()));
    let login = login("breccia", "secret");
    let mut upstream = endpoint.open(&login).await?;
    let number = upstream.connection_id;
    let killing = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        endpoint.kill_query(&login, number).await
    };
    let asking = endpoint.ask(&mut upstream, "SELECT SLEEP(60)");
    let both = async { tokio::join!(asking, killing) };
    let (slept, killed) = tokio::time::timeout(Duration::from_secs(20), both).await?;
    killed?;
    let Err(SqlError::Question { errno, .. }) = slept else {
        panic!("{slept:?}");
    };
    assert_eq!(errno, Some(1317));
    assert_eq!(endpoint.ask(&mut upstream, "SELECT 1").await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_full_server_is_told_with_its_number() -> Result<()> {
    // The testkit's own arguments come first, and the last one counts; one more is for those with SUPER.
    let server = with(&["--max-connections=10".to_owned()])?;
    server.query("mysql", "CREATE USER plain@'%' IDENTIFIED BY 'secret'")?;
    let endpoint = endpoint(local(server.port()));
    let mut open = Vec::new();
    let error = loop {
        match endpoint.open(&login("plain", "secret")).await {
            Ok(upstream) => open.push(upstream),
            Err(error) => break error,
        }
        assert!(open.len() < 20);
    };
    let SqlError::Refused {
        sqlstate, errno, ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(
        (sqlstate.as_str(), *errno),
        ("08004", Some(1040)),
        "{error}"
    );
    Ok(())
}
