//! Who may use a listener, and as whom Breccia goes to its members.
//!
//! TLS is in `tls`; that secrets do not show, in `secrets`.
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
