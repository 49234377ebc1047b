//! Secrets never show: not in logs of any level, admin pages, replies, or what commands print.
//!
//! One gateway is given a secret of every kind, is used and misused, and everything it said is
//! searched. Invariant: the search covers the state folder and both output streams.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result};
use breccia_testkit::{Breccia, Redis, RedisOptions, RespClient, http, wait_until};

use crate::common::{Config, Gateway};

/// Everything that must never be seen. Each is of its own kind.
const SECRETS: [&str; 8] = [
    "swordfish-listener",
    "swordfish-app",
    "swordfish-url",
    "swordfish-key",
    "swordfish-env",
    "swordfish-file",
    "swordfish-token",
    "swordfish-wrong",
];

/// Every secret begins with it; so does nothing else.
const MARK: &str = "swordfish";

fn nothing_shows(what: &str, text: &str) {
    if let Some(at) = text.find(MARK) {
        let begin = text.floor_char_boundary(at.saturating_sub(200));
        let end = text.ceil_char_boundary((at + 60).min(text.len()));
        let shown = text.get(begin..end).unwrap_or_default();
        assert!(shown.is_empty(), "a secret shows in {what}: …{shown}…");
    }
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr]
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .concat()
}

/// Redis members that take their passwords from a url, a key, the environment and a file.
struct Servers {
    redis: [Redis; 4],
    config: Config,
    folder: tempfile::TempDir,
}

impl Servers {
    fn new() -> Result<Servers> {
        let locked = |password: &str| {
            Redis::start(RedisOptions {
                password: Some(password.to_owned()),
                users: vec![format!("ann on >{password} ~* &* +@all")],
                ..RedisOptions::default()
            })
        };
        let redis = [
            locked(SECRETS[2])?,
            locked(SECRETS[3])?,
            locked(SECRETS[4])?,
            locked(SECRETS[5])?,
        ];
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("password"), SECRETS[5])?;
        let file = folder.path().join("password");
        let mut config = Config::new("redis")?
            .redis(
                "r0",
                &format!("ann:{}@{}", SECRETS[2], redis[0].address()),
                "",
            )
            .redis(
                "r1",
                &redis[1].address(),
                &format!("user = \"ann\"\npassword = \"{}\"", SECRETS[3]),
            )
            .redis(
                "r2",
                &redis[2].address(),
                "password = { env = \"A_PASSWORD\" }",
            )
            .redis(
                "r3",
                &redis[3].address(),
                &format!("password = {{ file = '{}' }}", file.display()),
            );
        config.tables = format!(
            "[[listener.main.user]]\nname = \"default\"\npassword = \"{}\"\n\
             [[listener.main.user]]\nname = \"app\"\npassword = \"{}\"\n",
            SECRETS[0], SECRETS[1]
        );
        Ok(Servers {
            redis,
            config,
            folder,
        })
    }

    /// The config's text with a log and an admin listener whose token is a secret.
    fn text(&self, log: &str, admin: u16) -> String {
        let state = self.folder.path().join("state");
        format!(
            "log = {log}\n{}\n[admin]\nbind = \"127.0.0.1:{admin}\"\ntoken = \"{}\"\n\
             [state]\ndir = '{}'\n",
            self.config.text(),
            SECRETS[6],
            state.display()
        )
    }
}

/// Uses the listener in every way that touches a secret; all replies.
fn misuse(address: &str) -> Result<String> {
    let mut replies = String::new();
    let mut client = RespClient::connect(address)?;
    let requests = [
        format!("AUTH {}", SECRETS[7]),
        format!("AUTH app {}", SECRETS[7]),
        format!("AUTH {} {}", SECRETS[7], SECRETS[7]),
        format!("HELLO 3 AUTH app {}", SECRETS[7]),
        format!("HELLO 3 AUTH app {} SETNAME", SECRETS[7]),
        format!("AUTH app {} more", SECRETS[1]),
        format!("AUTH {}", SECRETS[0]),
        format!("AUTH app {}", SECRETS[1]),
        format!("HELLO 2 AUTH app {}", SECRETS[1]),
        "SET a 1".to_owned(),
        "MGET a b c d e f g h i j k l".to_owned(),
        "CLIENT LIST".to_owned(),
        "CLIENT INFO".to_owned(),
        "CONFIG GET *".to_owned(),
        "CONFIG GET requirepass".to_owned(),
        "INFO everything".to_owned(),
        "ACL LIST".to_owned(),
        "ACL WHOAMI".to_owned(),
        "MONITOR".to_owned(),
        "SLOWLOG GET".to_owned(),
        "COMMAND DOCS auth".to_owned(),
        "SUBSCRIBE c".to_owned(),
    ];
    for request in requests {
        let reply = client.words(&request)?;
        replies.push_str(&reply.escape_ascii().to_string());
        replies.push('\n');
    }
    // A protocol error right behind a password.
    let mut broken = RespClient::connect(address)?;
    let frame = format!("*2\r\n$4\r\nAUTH\r\n$5\r\n{}\r\n*x\r\n", SECRETS[7]);
    broken.send(frame.as_bytes())?;
    while let Ok(reply) = broken.read_reply() {
        replies.push_str(&reply.escape_ascii().to_string());
    }
    Ok(replies)
}

/// What every command prints about a config.
fn commands(config: &Path) -> Result<String> {
    let mut text = String::new();
    let path = config.to_string_lossy();
    let folder = config.parent().context("a folder")?;
    for command in [
        "check --config CONFIG",
        "check --config CONFIG --connect",
        "explain --config CONFIG all key",
        "explain --config CONFIG r0 key",
        "layout show --config CONFIG",
        "layout diff --config CONFIG",
        "layout export --config CONFIG all",
        "layout adopt --config CONFIG all",
        "layout accept-address --config CONFIG all",
    ] {
        let words: Vec<String> = command
            .split(' ')
            .map(|word| word.replace("CONFIG", &path))
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        text.push_str(&said(&Breccia::run(folder, &words)?));
    }
    Ok(text)
}

fn all_files(folder: &Path) -> Result<String> {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder)? {
        text.push_str(&String::from_utf8_lossy(&std::fs::read(entry?.path())?));
    }
    Ok(text)
}

#[test]
fn no_secret_shows_anywhere_at_any_level() -> Result<()> {
    for log in [
        "{ level = \"trace\" }",
        "{ level = \"trace\", format = \"json\" }",
        "{ level = \"info\" }",
    ] {
        check_gateway(log)?;
    }
    Ok(())
}

fn check_gateway(log: &str) -> Result<()> {
    let mut servers = Servers::new()?;
    let admin = breccia_testkit::free_port()?;
    let text = servers.text(log, admin);
    let config = servers.folder.path().join("breccia.toml");
    std::fs::write(&config, &text)?;
    let mut command = std::process::Command::new(breccia_testkit::binary()?);
    command.args(["serve", "--config"]).arg(&config);
    command.env("A_PASSWORD", SECRETS[4]);
    let path = servers.folder.path().join("log");
    let mut process = breccia_testkit::Process::start(&mut command, "breccia", &path)?;
    process.wait_ready(Duration::from_secs(10), || {
        http(admin, "GET", "/readyz")
            .ok()
            .filter(|(status, _)| *status == 200)
    })?;
    let address = format!("127.0.0.1:{}", servers.config.port);
    nothing_shows("replies", &misuse(&address)?);

    // A server that comes back with another password, and one that is gone.
    let mut direct = servers.redis[3].client()?;
    direct.expect_ok(&[b"CONFIG", b"SET", b"requirepass", b"changed-word"])?;
    direct.words("CLIENT KILL TYPE normal SKIPME no").ok();
    servers.redis[0].kill9();
    nothing_shows("replies", &misuse(&address)?);

    for request in [
        "GET /status",
        "POST /reload",
        "GET /metrics",
        "GET /readyz",
        "GET /x",
    ] {
        let (method, path) = request.split_once(' ').context("a method")?;
        nothing_shows(request, &http(admin, method, path)?.1);
        nothing_shows(request, &with_token(admin, request)?);
    }
    let broken = text.replace("[store.r1]", "[store.r1]\npasword = \"swordfish-misspelt\"");
    std::fs::write(&config, broken)?;
    nothing_shows("a refused reload", &with_token(admin, "POST /reload")?);
    std::fs::write(&config, &text)?;
    nothing_shows("commands", &commands(&config)?);
    process.signal(breccia_testkit::Signal::Term)?;
    process.wait(Duration::from_secs(10))?;
    nothing_shows("commands", &commands(&config)?);
    nothing_shows("the log", &process.log());
    nothing_shows(
        "the state folder",
        &all_files(&servers.folder.path().join("state"))?,
    );
    Ok(())
}

/// An admin page as one who holds the token sees it.
fn with_token(admin: u16, request: &str) -> Result<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", admin))?;
    write!(
        stream,
        "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\r\n",
        SECRETS[6]
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Files with a fault beside, before or within a secret.
#[test]
fn no_fault_of_a_file_shows_the_secret_beside_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("breccia.toml");
    let store = "[store.a]\ntype = \"redis\"\n";
    for lines in [
        "url = \"redis://ann:swordfish@127.0.0.1:99999/0\"",
        "url = \"redis://ann:swordfish@127.0.0.1:1/x\"",
        "url = \"redis://ann:swordfish@127.0.0.1:1?x=swordfish\"",
        "url = \"redis://ann:swordfish%zz@127.0.0.1:1\"",
        "url = \"redis://ann:sword/fish:swordfish@h:1\"",
        "url = \"redis//ann:swordfish@h:1\"",
        "url = \"swordfish\"",
        "url = [\"swordfish\"]",
        "url = \"redis://h:1\"\npassword = \"swordfish\\u0001\"",
        "url = \"redis://h:1\"\npassword = [\"swordfish\"]",
        "url = \"redis://h:1\"\npassword = { env = \"swordfish!\" }",
        "url = \"redis://h:1\"\npassword = { value = \"swordfish\" }",
        "url = \"redis://h:1\"\npassword = { env = \"A\", value = \"swordfish\" }",
        "url = \"redis://h:1\"\npasswort = \"swordfish\"",
        "url = \"redis://h:1\"\npassword = \"swordfish",
        "url = \"redis://h:1\"\npassword = swordfish",
        "url = \"redis://h:1\"\npassword = \"swordfish\" swordfish",
        "url = \"redis://h:1\"\npassword = \"swordfish\\q\"",
        "url = \"redis://h:1\"\npassword = \"swordfish\"\npassword = \"swordfish\"",
        "url = \"redis://x:swordfish@h:1\"\npassword = \"swordfish\"",
        "url = \"redis://h:1\"\nuser = \"\"\npassword = \"swordfish\"",
        "url = \"redis://h:1\"\npassword = \"swordfish\"\ntls = { ca = \"/nowhere\" }",
        "url = \"rediss://:swordfish@h:1\"\ntls = { ca = \"/nowhere\" }",
        "url = \"redis://:swordfish@h:1\"\ntimeout = \"swift\"",
        "\"redis://:swordfish@h:1\"",
        "= \"redis://:swordfish@h:1\"",
    ] {
        std::fs::write(&config, format!("{store}{lines}\n"))?;
        for command in ["check", "serve"] {
            let path = config.to_string_lossy();
            let output = Breccia::run(folder.path(), &[command, "--config", &path])?;
            let text = said(&output);
            assert_eq!(output.status.code(), Some(2), "{lines}\n{text}");
            nothing_shows(lines, &text);
        }
    }
    Ok(())
}

#[test]
fn a_wrong_member_password_is_told_without_it() -> Result<()> {
    let locked = Redis::start(RedisOptions {
        password: Some("right-one".to_owned()),
        ..RedisOptions::default()
    })?;
    let config = Config::new("redis")?.redis("r0", &locked.address(), "password = \"swordfish\"");
    let breccia = Breccia::start_unready(&config.text())?;
    let gateway = Gateway { breccia, config };
    let reply = gateway.client()?.words("GET a")?.escape_ascii().to_string();
    assert!(
        reply.contains("all/r0") && reply.contains("WRONGPASS"),
        "{reply}"
    );
    nothing_shows("the reply", &reply);
    let output = Breccia::run(
        &std::env::temp_dir(),
        &[
            "check",
            "--connect",
            "--config",
            &gateway.breccia.config_path().to_string_lossy(),
        ],
    )?;
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("WRONGPASS") && text.contains("r0"), "{text}");
    nothing_shows("check", &text);
    wait_until(Duration::from_secs(3), "the log to tell", || {
        Ok(gateway.breccia.log().contains("r0").then_some(()))
    })?;
    nothing_shows("the log", &gateway.breccia.log());
    Ok(())
}
