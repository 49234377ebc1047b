//! TLS and Unix sockets on both sides.
//!
//! Who may come in by password is in `auth`. Invariant: each refusal here is of the handshake: the
//! server behind it would have answered.

use std::process::Command;

use anyhow::Result;
use breccia_testkit::{Breccia, Certificates, Redis, RedisOptions, RespClient};

use crate::common::{Config, Gateway, key_on};

fn cli_tls(port: u16, files: &Certificates, with_client: bool, request: &[&str]) -> Result<String> {
    let mut command = Command::new("redis-cli");
    command
        .args([
            "--tls",
            "-h",
            "127.0.0.1",
            "-p",
            &port.to_string(),
            "--cacert",
        ])
        .arg(&files.ca);
    if with_client {
        command
            .arg("--cert")
            .arg(&files.client_cert)
            .arg("--key")
            .arg(&files.client_key);
    }
    let output = command.args(request).output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&text).trim().to_owned())
}

#[test]
fn tls_works_on_both_sides_with_client_certificates() -> Result<()> {
    let files = Certificates::new()?;
    let options = RedisOptions {
        tls: Some(files.clone()),
        tls_clients: true,
        ..RedisOptions::default()
    };
    let servers = [Redis::start(options.clone())?, Redis::start(options)?];
    let mut config = Config::new("redis")?;
    for (index, redis) in servers.iter().enumerate() {
        let port = redis.tls_port().unwrap_or_default();
        let tls = format!(
            "tls = {{ ca = '{}', cert = '{}', key = '{}' }}",
            files.ca.display(),
            files.client_cert.display(),
            files.client_key.display()
        );
        config = config.redis(&format!("r{index}"), &format!("localhost:{port}"), &tls);
    }
    config.stores = config.stores.replace("redis://", "rediss://");
    let config = config.listener(&format!(
        "tls = {{ cert = '{}', key = '{}', client-ca = '{}' }}",
        files.server_cert.display(),
        files.server_key.display(),
        files.ca.display()
    ));
    let gateway = config.start()?;
    let port = gateway.config.port;
    assert_eq!(cli_tls(port, &files, true, &["SET", "a", "1"])?, "OK");
    assert_eq!(cli_tls(port, &files, true, &["MGET", "a", "b"])?, "1");
    let refused = cli_tls(port, &files, false, &["GET", "a"])?;
    assert!(
        !refused.contains('1') || refused.contains("rror"),
        "{refused}"
    );
    assert_ne!(refused, "1");
    Ok(())
}

#[test]
fn an_upstream_certificate_of_another_authority_is_refused() -> Result<()> {
    let (files, strangers) = (Certificates::new()?, Certificates::new()?);
    let redis = Redis::start(RedisOptions {
        tls: Some(files),
        ..RedisOptions::default()
    })?;
    let address = format!("localhost:{}", redis.tls_port().unwrap_or_default());
    let tls = format!("tls = {{ ca = '{}' }}", strangers.ca.display());
    let mut config = Config::new("redis")?.redis("r0", &address, &tls);
    config.stores = config.stores.replace("redis://", "rediss://");
    let breccia = Breccia::start_unready(&config.text())?;
    let gateway = Gateway { breccia, config };
    let reply = gateway.client()?.words("GET a")?;
    assert!(reply.starts_with(b"-"), "{}", reply.escape_ascii());
    Ok(())
}

#[test]
fn unix_sockets_serve_on_both_sides() -> Result<()> {
    let redis = Redis::start(RedisOptions {
        unix_socket: true,
        ..RedisOptions::default()
    })?;
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("breccia.sock");
    let mut config = Config::new("redis")?.redis("r0", "unused", "");
    config.stores = config.stores.replace(
        "redis://unused",
        &format!("unix://{}", redis.socket().display()),
    );
    let text = config.text().replace(
        &format!("bind = \"127.0.0.1:{}\"", config.port),
        &format!("bind = \"unix:{}\"", socket.display()),
    );
    let _breccia = Breccia::start(&text)?;
    let mut client = breccia_testkit::RespClient::connect_unix(&socket)?;
    assert_eq!(client.words("SET a 1")?, b"+OK\r\n");
    assert_eq!(redis.client()?.words("GET a")?, b"$1\r\n1\r\n");
    Ok(())
}
