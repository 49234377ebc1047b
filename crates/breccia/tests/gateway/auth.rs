//! Who may use a listener, and as whom Breccia goes to its members.
//!
//! TLS is in `tls`; that secrets do not show, in `secrets`.
//!
//! Invariant: a refusal here is the gateway's own, the servers behind it would have answered.

use std::process::{Command, Stdio};

use anyhow::Result;
use breccia_testkit::{Breccia, Certificates, Redis, RedisOptions, RespClient};

use crate::common::{Config, Gateway, key_on};

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
    let mut twin = RespClient::connect(&direct.address())?;
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

/// Serves on every address instead of loopback; the servers stay where they are.
fn on_every_address(config: &Config) -> String {
    let bind = format!("bind = \"127.0.0.1:{}\"", config.port);
    let open = format!("bind = \"0.0.0.0:{}\"", config.port);
    config.text().replace(&bind, &open)
}

#[test]
fn a_listener_for_everybody_needs_users_or_certificates_or_says_so() -> Result<()> {
    let servers = Redis::many(1)?;
    let config = Config::new("redis")?.over(&servers);
    for bind in ["0.0.0.0", "[::]"] {
        let open = on_every_address(&config).replace("0.0.0.0", bind);
        let (status, output) = Breccia::refused(&open)?;
        assert_eq!(status.code(), Some(2), "{output}");
        for word in [
            "listener.main.bind",
            bind,
            "[[listener.main.user]]",
            "tls.client-ca",
        ] {
            assert!(output.contains(word), "{word}: {output}");
        }
        assert!(output.contains("insecure = true"), "{output}");
    }
    let mut nameless = config.clone();
    nameless.tables = "[[listener.main.user]]\nname = \"default\"\n".to_owned();
    let (status, output) = Breccia::refused(&on_every_address(&nameless))?;
    assert_eq!(status.code(), Some(2), "{output}");
    assert!(output.contains("listener.main.user[0]"), "{output}");

    drop(Breccia::start(&on_every_address(
        &config.clone().listener("insecure = true"),
    ))?);
    let mut users = with_users(&servers)?;
    users.port = config.port;
    drop(Breccia::start(&on_every_address(&users))?);

    let files = Certificates::new()?;
    let (cert, key) = (files.server_cert.display(), files.server_key.display());
    let half = format!("tls = {{ cert = '{cert}', key = '{key}' }}");
    let (status, output) = Breccia::refused(&on_every_address(&config.clone().listener(&half)))?;
    assert_eq!(
        status.code(),
        Some(2),
        "TLS alone lets everybody in: {output}"
    );
    let ca = files.ca.display();
    let whole = format!("tls = {{ cert = '{cert}', key = '{key}', client-ca = '{ca}' }}");
    drop(Breccia::start(&on_every_address(&config.listener(&whole)))?);
    Ok(())
}

#[test]
fn a_memcached_listener_for_everybody_needs_certificates() -> Result<()> {
    let config = Config::new("memcached")?.memory("m0");
    let (status, output) = Breccia::refused(&on_every_address(&config))?;
    assert_eq!(status.code(), Some(2), "{output}");
    assert!(output.contains("listener.main.bind"), "{output}");
    assert!(
        output.contains("tls.client-ca") && output.contains("insecure"),
        "{output}"
    );
    let mut users = config.clone();
    users.tables = format!("[[listener.main.user]]\nname = \"default\"\npassword = \"{SECRET}\"\n");
    let (status, output) = Breccia::refused(&users.text())?;
    assert_eq!(status.code(), Some(2), "{output}");
    assert!(
        output.contains("no log-in") && !output.contains(SECRET),
        "{output}"
    );

    let files = Certificates::new()?;
    let tls = format!(
        "tls = {{ cert = '{}', key = '{}', client-ca = '{}' }}",
        files.server_cert.display(),
        files.server_key.display(),
        files.ca.display()
    );
    let config = config.listener(&tls);
    let _breccia = Breccia::start(&on_every_address(&config))?;
    let mut client = Command::new("openssl");
    client.args([
        "s_client",
        "-quiet",
        "-connect",
        &format!("127.0.0.1:{}", config.port),
    ]);
    client.arg("-CAfile").arg(&files.ca);
    let stranger = said_by(&mut client)?;
    assert!(!stranger.contains("VERSION"), "{stranger}");
    client.arg("-cert").arg(&files.client_cert);
    client.arg("-key").arg(&files.client_key);
    let known = said_by(&mut client)?;
    assert!(known.contains("VERSION"), "{known}");
    Ok(())
}

/// What a memcached server answers to `version` and `quit` through a program that connects.
fn said_by(client: &mut Command) -> Result<String> {
    use std::io::Write as _;
    client.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = client.stderr(Stdio::null()).spawn()?;
    if let Some(stdin) = &mut child.stdin {
        // A refused handshake may have ended it already.
        let _ = stdin.write_all(b"version\r\nquit\r\n");
    }
    let output = child.wait_with_output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn an_admin_listener_for_everybody_needs_a_token_or_says_so() -> Result<()> {
    let servers = Redis::many(1)?;
    let text = Config::new("redis")?.over(&servers).text();
    let admin = |keys: &str| format!("{text}\n[admin]\nbind = \"0.0.0.0:0\"\n{keys}\n");
    let (status, output) = Breccia::refused(&admin(""))?;
    assert_eq!(status.code(), Some(2), "{output}");
    assert!(
        output.contains("admin.bind") && output.contains("token"),
        "{output}"
    );
    Ok(())
}

#[test]
fn users_come_and_go_by_reload_and_connections_stay() -> Result<()> {
    let servers = Redis::many(1)?;
    let gateway = with_users(&servers)?.start()?;
    let mut old = gateway.client()?;
    old.expect_ok(&[b"AUTH", b"app", format!("{SECRET}-app").as_bytes()])?;
    let mut config = gateway.config.clone();
    config.tables = "[[listener.main.user]]\nname = \"new\"\npassword = \"n\"\n".to_owned();
    let (status, body) = gateway.breccia.reload(&config.text())?;
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("listener.main.user"), "{body}");
    assert_eq!(old.words("SET a 1")?, b"+OK\r\n");
    let mut client = gateway.client()?;
    for login in [format!("AUTH {SECRET}"), format!("AUTH app {SECRET}-app")] {
        assert!(client.words(&login)?.starts_with(b"-WRONGPASS"), "{login}");
    }
    assert_eq!(client.words("AUTH new n")?, b"+OK\r\n");
    assert_eq!(client.words("GET a")?, b"$1\r\n1\r\n");
    Ok(())
}

#[test]
fn without_a_default_user_a_password_alone_is_no_login() -> Result<()> {
    let servers = Redis::many(1)?;
    let mut config = Config::new("redis")?.over(&servers);
    config.tables = "[[listener.main.user]]\nname = \"app\"\npassword = \"p\"\n".to_owned();
    let gateway = config.start()?;
    let mut client = gateway.client()?;
    for request in [
        "AUTH p",
        "AUTH default p",
        "GET a",
        "EXEC",
        "CLIENT SETNAME x",
        "WATCH a",
    ] {
        let reply = client.words(request)?;
        assert!(
            reply.starts_with(b"-"),
            "{request}: {}",
            reply.escape_ascii()
        );
    }
    assert_eq!(client.words("AUTH app p")?, b"+OK\r\n");
    assert_eq!(client.words("GET a")?, b"$-1\r\n");
    // RESET logs out, as on Redis.
    assert_eq!(client.words("RESET")?, b"+RESET\r\n");
    assert!(client.words("GET a")?.starts_with(b"-NOAUTH"));
    Ok(())
}

#[test]
fn requests_pipelined_behind_a_refused_login_are_refused_too() -> Result<()> {
    let servers = Redis::many(1)?;
    let gateway = with_users(&servers)?.start()?;
    let mut client = gateway.client()?;
    let login = format!("AUTH {SECRET}");
    let replies = client.pipeline(&["AUTH wrong", "SET a 1", &login, "SET a 2", "GET a"])?;
    assert!(replies[0].starts_with(b"-WRONGPASS") && replies[1].starts_with(b"-NOAUTH"));
    assert_eq!(replies[2..].concat(), b"+OK\r\n+OK\r\n$1\r\n2\r\n");
    Ok(())
}

#[test]
fn members_are_entered_by_password_or_as_a_user_for_every_kind_of_command() -> Result<()> {
    let options = RedisOptions {
        password: Some(UPSTREAM.to_owned()),
        users: vec![format!("ann on >{UPSTREAM}-ann ~* &* +@all")],
        ..RedisOptions::default()
    };
    let servers = [Redis::start(options.clone())?, Redis::start(options)?];
    let ann = format!("user = \"ann\"\npassword = \"{UPSTREAM}-ann\"");
    let gateway = Config::new("redis")?
        .redis(
            "r0",
            &servers[0].address(),
            &format!("password = \"{UPSTREAM}\""),
        )
        .redis("r1", &servers[1].address(), &ann)
        .start()?;
    let (mut client, mut resp3) = (gateway.client()?, gateway.client()?);
    assert!(resp3.words("HELLO 3")?.starts_with(b"%"));
    for shard in [0, 1] {
        let key = key_on(shard, 2, "k");
        assert_eq!(client.words(&format!("SET {key} 1"))?, b"+OK\r\n");
        assert_eq!(resp3.words(&format!("GET {key}"))?, b"$1\r\n1\r\n");
        let transaction = ["MULTI".to_owned(), format!("INCR {key}"), "EXEC".to_owned()];
        let requests: Vec<&str> = transaction.iter().map(String::as_str).collect();
        let replies = client.pipeline(&requests)?;
        assert_eq!(replies[2], b"*1\r\n:2\r\n", "{key}");
        let large = vec![b'x'; 200_000];
        client.expect_ok(&[b"SET", key.as_bytes(), &large])?;
        client.words(&format!("LPUSH l{key} 1"))?;
        assert!(client.words(&format!("BLPOP l{key} 1"))?.starts_with(b"*2"));
    }
    let mut subscriber = gateway.client()?;
    assert!(subscriber.words("SUBSCRIBE c")?.starts_with(b"*3"));
    client.words("PUBLISH c hello")?;
    assert!(subscriber.read_reply()?.ends_with(b"hello\r\n"));
    let who = servers[1].client()?.words("CLIENT LIST")?;
    assert!(String::from_utf8_lossy(&who).contains("user=ann"));
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
    let (ours, theirs) = (key_on(0, 2, "k"), key_on(1, 2, "k"));
    assert_eq!(client.words(&format!("SET {ours} 1"))?, b"+OK\r\n");
    let reply = client.words(&format!("SET {theirs} 1"))?;
    assert!(reply.starts_with(b"-"), "{}", reply.escape_ascii());
    assert!(!reply.escape_ascii().to_string().contains("not-this-one"));
    Ok(())
}
