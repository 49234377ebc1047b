//! TLS towards the servers, in each mode, and what is said where it cannot be had.
//!
//! Not TLS of clients (`tls.rs`). Invariant: whether a connection is encrypted is asked of the
//! server it leads to.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use breccia_net::stream::Socket;
use breccia_net::tls::{TlsClient, TlsClientOptions, TlsServer, TlsServerOptions};
use breccia_testkit::{
    Breccia, Certificates, ClusterOptions, PostgresCluster, SqlClient, free_port, wait_until,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::rig::{Extra, Gateway, LIMIT, file, shared};
use crate::secure::{SSL_REQUEST, psql};

/// Who comes in by its certificate: what the testkit's client certificate calls itself.
const BY_CERTIFICATE: &str = "breccia-test-client";

/// A primary and two standbys that offer TLS, and take [`BY_CERTIFICATE`] only by its certificate.
fn cluster(files: &Certificates) -> Result<PostgresCluster> {
    let cluster = PostgresCluster::start(ClusterOptions {
        standbys: 2,
        tls: Some(files.clone()),
        access: vec![format!("hostssl all {BY_CERTIFICATE} 127.0.0.1/32 cert")],
        ..ClusterOptions::default()
    })?;
    let role = format!("CREATE ROLE \"{BY_CERTIFICATE}\" LOGIN IN ROLE pg_monitor");
    cluster.primary().query("postgres", &role)?;
    cluster.wait_caught_up(LIMIT)?;
    Ok(cluster)
}

/// How many connections of `role` a server has, and how many of them are encrypted.
fn connections(cluster: &PostgresCluster, number: usize, role: &str) -> Result<(u32, u32)> {
    let sql = format!(
        "SELECT count(*), count(*) FILTER (WHERE ssl) FROM pg_stat_ssl \
         JOIN pg_stat_activity USING (pid) WHERE usename = '{role}' \
         AND backend_type = 'client backend' AND application_name = ''"
    );
    let text = cluster.server(number).query("postgres", &sql)?;
    let (all, encrypted) = text.trim().split_once('|').context("two numbers")?;
    Ok((all.parse()?, encrypted.parse()?))
}

fn tls(mode: &str, others: &str) -> String {
    format!("tls = {{ mode = \"{mode}\"{others} }}")
}

fn ca(files: &Certificates) -> String {
    format!(", ca = '{}'", files.ca.display())
}

/// Starts a gateway that cannot use its servers, and waits until it says `part` of this one.
fn trouble(config: &str, server: &str, part: &str) -> Result<()> {
    let breccia = Breccia::start_unready(config)?;
    let mut last = String::new();
    let begin = format!("; {server}: it is down: ");
    let told = wait_until(Duration::from_secs(20), part, || {
        let (status, body) = breccia.admin("/readyz")?;
        ensure!(status == 503, "it is ready: {body}");
        last = body;
        let of_it = last.split_once(&begin).map(|(_, rest)| rest);
        let of_it = of_it.map(|rest| rest.split("; pg").next().unwrap_or(rest));
        Ok(of_it.is_some_and(|said| said.contains(part)).then_some(()))
    });
    told.with_context(|| format!("it says {last}"))
}

#[test]
fn each_mode_encrypts_and_checks_what_it_says() -> Result<()> {
    let files = Certificates::new()?;
    let cluster = cluster(&files)?;
    let other_name = ", server-name = \"other.example\"";
    for (mode, more, encrypted) in [
        ("disable", String::new(), false),
        ("prefer", String::new(), true),
        ("require", String::new(), true),
        ("verify-ca", ca(&files) + other_name, true),
        ("verify-full", ca(&files), true),
        (
            "verify-full",
            ca(&files) + ", server-name = \"localhost\"",
            true,
        ),
    ] {
        let server = tls(mode, &more);
        let extra = Extra {
            server: &server,
            ..Extra::default()
        };
        let gateway = Gateway::over(&cluster, "postgres", extra)?;
        let mut client = gateway.client("postgres")?;
        let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        let expected = if encrypted { "t" } else { "f" };
        assert_eq!(client.run(sql)?.value(), Some(expected), "{server}");
        for number in 0..3 {
            let (all, found) = connections(&cluster, number, "breccia")?;
            ensure!(all > 0, "{server}: nobody is on server {number}");
            let wanted = if encrypted { all } else { 0 };
            assert_eq!(found, wanted, "{server}: of {all} on server {number}");
        }
        // A cancel takes the same way.
        client.query("SELECT pg_sleep(30)").flush()?;
        let cancel = client.canceller();
        let cancelled = wait_until(Duration::from_secs(10), "the statement to run", || {
            let sql = "SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(30)'";
            let runs = cluster.primary().query("postgres", sql)?;
            Ok((runs.trim() == "1").then_some(()))
        });
        cancelled.and_then(|()| cancel())?;
        assert_eq!(client.read_reply()?.code(), "57014", "{server}");
    }
    Ok(())
}

#[test]
fn a_server_that_does_not_pass_is_named_with_the_reason() -> Result<()> {
    let (files, strangers) = (Certificates::new()?, Certificates::new()?);
    let cluster = cluster(&files)?;
    let without = shared()?;
    let check = |cluster: &PostgresCluster, server: String, parts: [&str; 2]| -> Result<()> {
        let extra = Extra {
            server: &server,
            ..Extra::default()
        };
        let port = free_port()?;
        trouble(&file(cluster, port, extra), parts[0], parts[1])
    };
    let unknown = "no authority of tls.ca, by default the system's, has signed it";
    let server = tls("verify-full", &ca(&strangers));
    check(&cluster, server, ["pg0", unknown])?;
    check(
        &cluster,
        tls("verify-ca", &ca(&strangers)),
        ["pg2", unknown],
    )?;
    check(&cluster, tls("verify-full", ""), ["pg1", unknown])?;
    let server = tls(
        "verify-full",
        &(ca(&files) + ", server-name = \"other.example\""),
    );
    check(
        &cluster,
        server,
        ["pg0", "not valid for name \"other.example\""],
    )?;
    let parts = [
        "pg0",
        "does not offer TLS, and tls.mode of store.pg0 asks for it",
    ];
    check(&without, tls("require", ""), parts)?;
    check(&without, tls("verify-full", &ca(&files)), parts)?;
    // Where it is only preferred, such a server serves.
    let server = tls("prefer", "");
    let extra = Extra {
        server: &server,
        ..Extra::default()
    };
    Gateway::over(&without, "postgres", extra).map(drop)
}

#[test]
fn clients_and_check_are_told_too() -> Result<()> {
    let (files, strangers) = (Certificates::new()?, Certificates::new()?);
    let cluster = cluster(&files)?;
    let server = tls("verify-full", &ca(&strangers));
    let extra = Extra {
        server: &server,
        ..Extra::default()
    };
    let port = free_port()?;
    let config = file(&cluster, port, extra);
    let breccia = Breccia::start_unready(&config)?;
    let Err(error) = SqlClient::connect(port, "postgres") else {
        anyhow::bail!("a session began");
    };
    ensure!(format!("{error:#}").contains("57P03"), "{error:#}");
    let path = breccia.config_path();
    let arguments = ["check", "--connect", "--config", &path.to_string_lossy()];
    let checked = Breccia::run(path.parent().context("a folder")?, &arguments)?;
    let text = String::from_utf8_lossy(&checked.stderr);
    ensure!(checked.status.code() == Some(1), "{text}");
    for name in ["pg0", "pg1", "pg2"] {
        let line = text.lines().find(|line| line.starts_with(name));
        let line = line.with_context(|| format!("{name} is not named: {text}"))?;
        ensure!(line.contains("; no authority of tls.ca"), "{line}");
    }
    Ok(())
}

#[test]
fn a_server_may_ask_for_this_ends_certificate() -> Result<()> {
    let files = Certificates::new()?;
    let cluster = cluster(&files)?;
    let as_role = |more: &str| {
        let server = tls("verify-full", &(ca(&files) + more));
        let extra = Extra {
            server: &server,
            ..Extra::default()
        };
        let port = free_port()?;
        let config = file(&cluster, port, extra);
        // No password: the certificate is all there is.
        let named = "user = \"breccia\"\npassword = \"secret\"";
        ensure!(config.contains(named), "{config}");
        let config = config.replace(named, &format!("user = \"{BY_CERTIFICATE}\""));
        anyhow::Ok((config, port))
    };
    let shown = format!(
        ", cert = '{}', key = '{}'",
        files.client_cert.display(),
        files.client_key.display()
    );
    let (config, port) = as_role(&shown)?;
    let _breccia = Breccia::start(&config)?;
    let mut client = SqlClient::connect(port, "postgres")?;
    let sql = "SELECT current_user || ' ' || client_dn FROM pg_stat_ssl \
               WHERE pid = pg_backend_pid()";
    let expected = format!("{BY_CERTIFICATE} /CN={BY_CERTIFICATE}");
    assert_eq!(client.run(sql)?.value(), Some(expected.as_str()));
    for number in 0..3 {
        let (all, encrypted) = connections(&cluster, number, BY_CERTIFICATE)?;
        ensure!(
            all > 0 && all == encrypted,
            "server {number}: {encrypted} of {all}"
        );
    }
    let (config, _) = as_role("")?;
    let told = format!("role \"{BY_CERTIFICATE}\": connection requires a valid client certificate");
    trouble(&config, "pg0", &told)
}

/// One that stands between: to this end it shows a certificate of its own, to the server it is a
/// client. Both handshakes succeed, and it reads everything.
fn stand_between(server: u16, files: &Certificates) -> Result<u16> {
    let own = TlsServer::new(&TlsServerOptions {
        cert: files.server_cert.clone(),
        key: files.server_key.clone(),
        client_ca: None,
    })?;
    let options = TlsClientOptions {
        insecure: true,
        ..TlsClientOptions::default()
    };
    let theirs = TlsClient::new(&options, "localhost")?;
    let (port, ports) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let place = listener.local_addr().expect("its address");
            port.send(place.port()).expect("the test waits");
            while let Ok((near, _)) = listener.accept().await {
                let (own, theirs) = (own.clone(), theirs.clone());
                // One that ends early is gone; the next may do.
                tokio::spawn(async move { pass(near, server, &own, &theirs).await });
            }
        });
    });
    Ok(ports.recv()?)
}

async fn pass(
    mut near: TcpStream,
    server: u16,
    own: &TlsServer,
    theirs: &TlsClient,
) -> std::io::Result<()> {
    let mut packet = [0; 8];
    near.read_exact(&mut packet).await?;
    near.write_all(b"S").await?;
    let mut near = own.handshake(Socket::Tcp(near.into())).await?;
    let mut far = TcpStream::connect(("127.0.0.1", server)).await?;
    far.write_all(&SSL_REQUEST).await?;
    far.read_u8().await?;
    let mut far = theirs.handshake(Socket::Tcp(far.into())).await?;
    copy_bidirectional(&mut near, &mut far).await?;
    Ok(())
}

#[test]
fn a_proof_is_bound_to_the_channel_it_is_given_on() -> Result<()> {
    let (files, strangers) = (Certificates::new()?, Certificates::new()?);
    let cluster = cluster(&files)?;
    let between = stand_between(cluster.primary().port(), &strangers)?;
    // Who does not bind its proof comes through: nothing else is in the way.
    let user = (cluster.primary().user(), cluster.primary().password());
    let unbound = "sslmode=require channel_binding=disable";
    let found = psql(between, user, unbound, "SELECT 40 + 2");
    ensure!(found.as_deref() == Ok("42"), "{found:?}");

    let server = tls("require", "");
    let extra = Extra {
        server: &server,
        ..Extra::default()
    };
    let direct = format!("port = {}\n", cluster.primary().port());
    let config = file(&cluster, free_port()?, extra);
    ensure!(config.contains(&direct), "{config}");
    let config = config.replace(&direct, &format!("port = {between}\n"));
    let breccia = Breccia::start_unready(&config)?;
    let failure = "channel binding check failed";
    wait_until(LIMIT, failure, || {
        let status = breccia.admin("/status")?.1;
        let told = status.contains("pg0") && status.contains(failure);
        Ok(told.then_some(()))
    })?;
    ensure!(
        cluster.primary().log().contains(failure),
        "the server says so"
    );
    Ok(())
}
