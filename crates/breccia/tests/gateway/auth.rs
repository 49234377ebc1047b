//! Who may use a listener, TLS on both sides, and secrets that must not show.
//!
//! Invariant: a refusal here is the gateway's own, the servers behind it would have answered.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use breccia_testkit::{Breccia, Certificates, Redis, RedisOptions};

use crate::common::{Config, Gateway};

const SECRET: &str = "correct-horse-battery";
const UPSTREAM: &str = "upstream-pass-phrase";

fn with_users(servers: &[Redis]) -> Result<Config> {
    let mut config = Config::new("redis")?.over(servers);
    config.tables = format!(
        "[[listener.main.user]]\nname = \"default\"\npassword = \"{SECRET}\"\n\
         [[listener.main.user]]\nname = \"app\"\npassword = \"{SECRET}-app\"\n"
    );
    Ok(config)
}

#[test]
fn commands_before_auth_and_wrong_passwords_are_refused_as_by_redis() -> Result<()> {
    let direct = Redis::start(RedisOptions {
        password: Some(SECRET.to_owned()),
        users: vec![format!("app on >{SECRET}-app ~* &* +@all")],
        ..RedisOptions::default()
    })?;
    let servers = Redis::many(2)?;
    let gateway = with_users(&servers)?.start()?;
    let mut twin = breccia_testkit::RespClient::connect(&direct.address())?;
    let mut client = gateway.client()?;
    let login = format!("AUTH {SECRET}");
    for request in [
        "GET a",
        "PING",
        "SUBSCRIBE c",
        "MULTI",
        "EXEC",
        "MGET a b",
        "CLIENT ID",
        "NOSUCH",
        "GET",
        "AUTH",
        "AUTH a b c",
        "AUTH nope",
        "AUTH app nope",
        "AUTH nobody x",
        "HELLO 3 AUTH app nope",
        "HELLO 3",
        "HELLO 9",
        "RESET",
        "GET a",
        &login,
        "SET a 1",
        "GET a",
        "RESET",
        "GET a",
    ] {
        let (wanted, found) = (twin.words(request)?, client.words(request)?);
        assert_eq!(
            found.escape_ascii().to_string(),
            wanted.escape_ascii().to_string(),
            "{request}"
        );
    }
    let mut other = gateway.client()?;
    assert!(
        other
            .words(&format!("HELLO 3 AUTH app {SECRET}-app"))?
            .starts_with(b"%")
    );
    assert_eq!(other.words("GET a")?, b"$1\r\n1\r\n");
    Ok(())
}

#[test]
fn one_password_does_for_redis_cli_without_a_name() -> Result<()> {
    let servers = Redis::many(1)?;
    let gateway = with_users(&servers)?.start()?;
    let port = gateway.config.port.to_string();
    let output = Command::new("redis-cli")
        .args([
            "-p",
            &port,
            "--no-auth-warning",
            "-a",
            SECRET,
            "SET",
            "a",
            "1",
        ])
        .output()?;
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "OK");
    Ok(())
}

#[test]
fn a_listener_for_everybody_must_say_so() -> Result<()> {
    let servers = Redis::many(1)?;
    let config = Config::new("redis")?.over(&servers);
    let open = config.text().replace("127.0.0.1:", "0.0.0.0:").replace(
        &servers[0].address().replace("127.0.0.1", "0.0.0.0"),
        &servers[0].address(),
    );
    let (status, output) = Breccia::refused(&open)?;
    assert_eq!(status.code(), Some(2), "{output}");
    assert!(
        output.contains("insecure") && output.contains("listener.main"),
        "{output}"
    );

    let insecure = open.replace(
        "protocol = \"redis\"",
        "insecure = true\nprotocol = \"redis\"",
    );
    drop(Breccia::start(&insecure)?);

    let mut users = with_users(&servers)?;
    users.port = config.port;
    let users = users
        .text()
        .replace("bind = \"127.0.0.1:", "bind = \"0.0.0.0:");
    drop(Breccia::start(&users)?);
    Ok(())
}

#[test]
fn secrets_never_show() -> Result<()> {
    let options = RedisOptions {
        password: Some(UPSTREAM.to_owned()),
        ..RedisOptions::default()
    };
    let servers = [Redis::start(options.clone())?, Redis::start(options)?];
    let mut config = with_users(&[])?;
    for (index, redis) in servers.iter().enumerate() {
        let password = "password = { env = \"TEST_UPSTREAM\" }";
        config = config.redis(&format!("r{index}"), &redis.address(), password);
    }
    config.top.push_str("log = { level = \"debug\" }\n");
    let breccia = Breccia::start_with(&config.text(), &[("TEST_UPSTREAM", UPSTREAM)])?;
    let mut gateway = Gateway { breccia, config };
    let mut client = gateway.client()?;
    client.words(&format!("AUTH {SECRET}"))?;
    assert_eq!(client.words("SET a 1")?, b"+OK\r\n");
    client.words("AUTH wrong-one")?;
    let mut shown = String::new();
    for path in ["/status", "/metrics", "/readyz", "/healthz"] {
        shown.push_str(&gateway.breccia.admin(path)?.1);
    }
    for request in [
        "CLIENT LIST",
        "CLIENT INFO",
        "CONFIG GET *",
        "INFO",
        "COMMAND DOCS auth",
    ] {
        shown.push_str(&String::from_utf8_lossy(&client.words(request)?));
    }
    gateway.breccia.terminate(Duration::from_secs(10))?;
    shown.push_str(&gateway.breccia.log());
    for secret in [SECRET, UPSTREAM, "wrong-one"] {
        assert!(!shown.contains(secret), "{secret} shows");
    }
    Ok(())
}

#[test]
fn a_wrong_upstream_password_is_told_and_fails_only_that_shard() -> Result<()> {
    let locked = Redis::start(RedisOptions {
        password: Some(UPSTREAM.to_owned()),
        ..RedisOptions::default()
    })?;
    let open = Redis::new()?;
    let config = Config::new("redis")?
        .redis("open", &open.address(), "")
        .redis("locked", &locked.address(), "password = \"not-this-one\"");
    let breccia = Breccia::start_unready(&config.text())?;
    let gateway = Gateway { breccia, config };
    let mut client = gateway.client()?;
    let (ours, theirs) = (
        crate::common::key_on(0, 2, "k"),
        crate::common::key_on(1, 2, "k"),
    );
    assert_eq!(client.words(&format!("SET {ours} 1"))?, b"+OK\r\n");
    let reply = client.words(&format!("SET {theirs} 1"))?;
    assert!(reply.starts_with(b"-"), "{}", reply.escape_ascii());
    assert!(!reply.escape_ascii().to_string().contains("not-this-one"));
    Ok(())
}

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
