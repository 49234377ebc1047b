//! TLS and Unix sockets on both sides.
//!
//! Who may come in by password is in `auth`. Invariant: each refusal here is of the handshake: the
//! server behind it would have answered.

use std::process::Command;

use anyhow::Result;
use breccia_testkit::{Breccia, Certificates, Redis, RedisOptions, RespClient};

use crate::common::{Config, Gateway, key_on};

/// What redis-cli prints that trusts `files` and shows a certificate of `clients`.
fn cli_tls(
    port: u16,
    files: &Certificates,
    clients: Option<&Certificates>,
    request: &[&str],
) -> Result<String> {
    let mut command = Command::new("redis-cli");
    command
        .args([
            "--tls",
            "-h",
            "127.0.0.1",
            "-p",
            &port.to_string(),
            "--no-auth-warning",
            "--cacert",
        ])
        .arg(&files.ca);
    if let Some(files) = clients {
        command.arg("--cert").arg(&files.client_cert);
        command.arg("--key").arg(&files.client_key);
    }
    let output = command.args(request).output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&text).trim().to_owned())
}

/// A listener's `tls` key.
fn listener_tls(files: &Certificates, clients: Option<&Certificates>) -> String {
    let client_ca = clients.map(|clients| format!(", client-ca = '{}'", clients.ca.display()));
    format!(
        "tls = {{ cert = '{}', key = '{}'{} }}",
        files.server_cert.display(),
        files.server_key.display(),
        client_ca.unwrap_or_default()
    )
}

/// A member over TLS, with the keys of its `tls` table.
fn member(config: Config, name: &str, redis: &Redis, keys: &str, more: &str) -> Config {
    let address = format!("localhost:{}", redis.tls_port().unwrap_or_default());
    let tls = format!("tls = {{ {keys} }}\n{more}");
    let mut config = config.redis(name, &address, &tls);
    let (plain, secure) = (format!("redis://{address}"), format!("rediss://{address}"));
    config.stores = config.stores.replace(&plain, &secure);
    config
}

fn over_tls(files: &Certificates) -> Result<Redis> {
    Redis::start(RedisOptions {
        tls: Some(files.clone()),
        ..RedisOptions::default()
    })
}

#[test]
fn tls_works_on_both_sides_with_client_certificates() -> Result<()> {
    let (files, strangers) = (Certificates::new()?, Certificates::new()?);
    let options = RedisOptions {
        tls: Some(files.clone()),
        tls_clients: true,
        ..RedisOptions::default()
    };
    let servers = [Redis::start(options.clone())?, Redis::start(options)?];
    let keys = format!(
        "ca = '{}', cert = '{}', key = '{}'",
        files.ca.display(),
        files.client_cert.display(),
        files.client_key.display()
    );
    let config = Config::new("redis")?;
    let config = member(config, "r0", &servers[0], &keys, "");
    let config = member(config, "r1", &servers[1], &keys, "");
    let gateway = config
        .listener(&listener_tls(&files, Some(&files)))
        .start()?;
    let port = gateway.config.port;
    assert_eq!(
        cli_tls(port, &files, Some(&files), &["SET", "a", "1"])?,
        "OK"
    );
    assert_eq!(
        cli_tls(port, &files, Some(&files), &["MGET", "a", "b"])?,
        "1"
    );
    for (clients, why) in [(None, "no certificate"), (Some(&strangers), "a stranger's")] {
        let refused = cli_tls(port, &files, clients, &["GET", "a"])?;
        assert!(
            refused.contains("rror") || refused.contains("closed"),
            "{why}: {refused}"
        );
    }
    let distrusted = cli_tls(port, &strangers, None, &["GET", "a"])?;
    assert!(
        distrusted.contains("certificate verify failed"),
        "{distrusted}"
    );
    // Who speaks no TLS gets nothing, and harms nobody.
    let mut plain = gateway.client()?;
    plain.send(b"PING\r\n")?;
    assert!(plain.read_reply().is_err());
    assert_eq!(cli_tls(port, &files, Some(&files), &["GET", "a"])?, "1");
    Ok(())
}

#[test]
fn a_tls_listener_without_client_certificates_asks_for_the_password() -> Result<()> {
    let files = Certificates::new()?;
    let servers = Redis::many(2)?;
    let mut config = Config::new("redis")?.over(&servers);
    config.tables = "[[listener.main.user]]\nname = \"default\"\npassword = \"p\"\n".to_owned();
    let gateway = config.listener(&listener_tls(&files, None)).start()?;
    let port = gateway.config.port;
    assert!(cli_tls(port, &files, None, &["GET", "a"])?.contains("NOAUTH"));
    assert_eq!(
        cli_tls(port, &files, None, &["-a", "p", "SET", "a", "1"])?,
        "OK"
    );
    Ok(())
}

#[test]
fn members_over_tls_serve_every_kind_of_command() -> Result<()> {
    let files = Certificates::new()?;
    let redis = Redis::start(RedisOptions {
        tls: Some(files.clone()),
        users: vec!["ann on >p ~* &* +@all".to_owned()],
        ..RedisOptions::default()
    })?;
    let keys = format!("ca = '{}'", files.ca.display());
    let login = "user = \"ann\"\npassword = \"p\"";
    let config = member(Config::new("redis")?, "r0", &redis, &keys, login);
    let gateway = config.start()?;
    let mut client = gateway.client()?;
    let replies = client.pipeline(&["SET a 1", "MULTI", "INCR a", "EXEC", "GET a"])?;
    assert_eq!(replies[3..].concat(), b"*1\r\n:2\r\n$1\r\n2\r\n");
    let large = vec![b'x'; 3_000_000];
    client.expect_ok(&[b"SET", b"large", &large])?;
    assert_eq!(client.words("STRLEN large")?, b":3000000\r\n");
    assert_eq!(client.words("GET large")?.len(), large.len() + 12);
    let mut subscriber = gateway.client()?;
    assert!(subscriber.words("SUBSCRIBE c")?.starts_with(b"*3"));
    client.words("PUBLISH c hello")?;
    assert!(subscriber.read_reply()?.ends_with(b"hello\r\n"));
    Ok(())
}

#[test]
fn a_members_certificate_is_checked_as_the_config_says() -> Result<()> {
    let (files, strangers) = (Certificates::new()?, Certificates::new()?);
    let redis = over_tls(&files)?;
    let ca = |files: &Certificates| format!("ca = '{}'", files.ca.display());
    let serves = |keys: &str| -> Result<bool> {
        let config = member(Config::new("redis")?, "r0", &redis, keys, "");
        let breccia = Breccia::start_unready(&config.text())?;
        let gateway = Gateway { breccia, config };
        let reply = gateway.client()?.words("SET a 1")?;
        let refused = reply.starts_with(b"-SHARDDOWN all/r0");
        assert!(
            refused || reply == b"+OK\r\n",
            "{keys}: {}",
            reply.escape_ascii()
        );
        Ok(!refused)
    };
    assert!(serves(&ca(&files))?);
    assert!(!serves(&ca(&strangers))?);
    assert!(serves("insecure = true")?);
    assert!(!serves(&format!(
        "{}, server-name = 'other.example'",
        ca(&files)
    ))?);
    Ok(())
}

#[test]
fn one_member_with_a_foreign_certificate_fails_only_its_own_keys() -> Result<()> {
    let (files, strangers) = (Certificates::new()?, Certificates::new()?);
    let (good, bad) = (over_tls(&files)?, over_tls(&strangers)?);
    let keys = format!("ca = '{}'", files.ca.display());
    let config = member(Config::new("redis")?, "r0", &good, &keys, "");
    let config = member(config, "r1", &bad, &keys, "");
    let breccia = Breccia::start_unready(&config.text())?;
    let gateway = Gateway { breccia, config };
    let mut client = gateway.client()?;
    let ours = key_on(0, 2, "k");
    assert_eq!(client.words(&format!("SET {ours} 1"))?, b"+OK\r\n");
    let reply = client.words(&format!("SET {} 1", key_on(1, 2, "k")))?;
    let text = reply.escape_ascii().to_string();
    assert!(text.starts_with("-SHARDDOWN all/r1"), "{text}");
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
    let mut breccia = Breccia::start(&text)?;
    let mut client = RespClient::connect_unix(&socket)?;
    assert_eq!(client.words("SET a 1")?, b"+OK\r\n");
    assert_eq!(redis.client()?.words("GET a")?, b"$1\r\n1\r\n");
    // A socket left behind by a killed gateway is in nobody's way.
    breccia.process().kill();
    assert!(socket.exists());
    breccia.restart(&text)?;
    let mut client = RespClient::connect_unix(&socket)?;
    assert_eq!(client.words("GET a")?, b"$1\r\n1\r\n");
    // One that is served is: a second gateway leaves it alone.
    let (status, output) = Breccia::refused(&text)?;
    assert!(!status.success(), "{output}");
    assert!(output.contains(&*socket.to_string_lossy()), "{output}");
    assert_eq!(client.words("PING")?, b"+PONG\r\n");
    Ok(())
}
