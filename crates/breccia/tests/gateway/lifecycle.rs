//! Starting, being looked at, reloading and ending.
//!
//! Invariant: no request that was received goes without an answer because of a reload or a drain.

use std::time::Duration;

use anyhow::{Context, Result};
use breccia_testkit::{Breccia, Process, Redis, RespClient, Signal, TextClient, http, wait_until};

use crate::common::{Config, Gateway};

#[test]
fn quick_start_serves_both_protocols_with_nothing_installed() -> Result<()> {
    let taken = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_err();
    if [6380, 11212, 9180].into_iter().any(taken) {
        println!("a quick start's port is taken on this machine: not tested");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let mut command = std::process::Command::new(breccia_testkit::binary()?);
    command.arg("serve").current_dir(folder.path());
    let mut process = Process::start(&mut command, "breccia", &folder.path().join("log"))?;
    process.wait_ready(Duration::from_secs(10), || {
        http(9180, "GET", "/readyz")
            .ok()
            .filter(|(status, _)| *status == 200)
    })?;
    let mut client = RespClient::connect("127.0.0.1:6380")?;
    assert_eq!(client.words("SET a 1")?, b"+OK\r\n");
    assert_eq!(client.words("GET a")?, b"$1\r\n1\r\n");
    let mut text = TextClient::connect("127.0.0.1:11212")?;
    assert_eq!(text.call(b"set b 7 0 1\r\n2\r\n")?, b"STORED\r\n");
    assert_eq!(text.call(b"get b\r\n")?, b"VALUE b 7 1\r\n2\r\nEND\r\n");
    process.signal(Signal::Term)?;
    assert_eq!(process.wait(Duration::from_secs(10))?.code(), Some(0));
    for word in ["6380", "11212", "9180"] {
        assert!(process.log().contains(word), "{}", process.log());
    }
    Ok(())
}

#[test]
fn admin_pages_tell_how_things_are() -> Result<()> {
    let mut servers = Redis::many(2)?;
    let gateway = Gateway::over(&servers)?;
    gateway.client()?.words("SET a 1")?;
    assert_eq!(gateway.breccia.admin("/healthz")?.0, 200);
    assert_eq!(gateway.breccia.admin("/readyz")?.0, 200);
    let (_, metrics) = gateway.breccia.admin("/metrics")?;
    for family in [
        "breccia_requests_total",
        "breccia_request_seconds",
        "breccia_store_up",
        "breccia_store_requests_total",
        "breccia_connections",
        "breccia_layout_epoch",
    ] {
        assert!(
            metrics.contains(family),
            "{family} is missing in:\n{metrics}"
        );
    }
    servers[1].kill9();
    // The listener still serves the other shard's keys, so it stays ready, and says what is down.
    wait_until(Duration::from_secs(5), "/readyz to say so", || {
        let (status, body) = gateway.breccia.admin("/readyz")?;
        Ok((status == 200 && body.contains("r1 is down")).then_some(()))
    })?;
    assert!(gateway.breccia.metric("breccia_store_up{store=\"r1\"}")? < 0.5);
    assert!(gateway.breccia.metric("breccia_store_up{store=\"r0\"}")? > 0.5);
    let (_, status) = gateway.breccia.admin("/status")?;
    assert!(
        status.contains("\"r1\"") && status.contains("digest"),
        "{status}"
    );
    servers[0].kill9();
    wait_until(Duration::from_secs(5), "/readyz to give up", || {
        let (status, body) = gateway.breccia.admin("/readyz")?;
        Ok((status == 503 && body.contains("r0") && body.contains("r1")).then_some(()))
    })?;
    Ok(())
}

#[test]
fn explain_says_where_a_key_lies() -> Result<()> {
    let servers = Redis::many(3)?;
    let mut gateway = Gateway::over(&servers)?;
    gateway.client()?.words("SET somekey 1")?;
    gateway.breccia.terminate(Duration::from_secs(10))?;
    let config = gateway.breccia.config_path();
    let folder = config.parent().context("a folder")?.to_owned();
    let output = Breccia::run(
        &folder,
        &["explain", "--config", "breccia.toml", "all", "somekey"],
    )?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let lies = |redis: &Redis| -> Result<bool> {
        Ok(redis.client()?.words("EXISTS somekey")? == b":1\r\n")
    };
    for (index, redis) in servers.iter().enumerate() {
        assert_eq!(
            text.contains(&redis.address()),
            lies(redis)?,
            "r{index}: {text}"
        );
    }
    let hex = Breccia::run(
        &folder,
        &[
            "explain",
            "--config",
            "breccia.toml",
            "all",
            "736f6d656b6579",
            "--hex",
        ],
    )?;
    assert_eq!(
        String::from_utf8_lossy(&hex.stdout).matches("r0").count(),
        text.matches("r0").count()
    );
    let layout = Breccia::run(&folder, &["layout", "show", "--config", "breccia.toml"])?;
    assert!(String::from_utf8_lossy(&layout.stdout).contains("all"));
    Ok(())
}

#[test]
fn a_reload_keeps_connections_and_a_bad_one_changes_nothing() -> Result<()> {
    let servers = Redis::many(2)?;
    let mut gateway = Gateway::over(&servers)?;
    let mut client = gateway.client()?;
    client.words("SET a 1")?;
    let (status, body) = gateway.breccia.reload("this is no toml")?;
    assert!(status >= 400, "{status} {body}");
    assert_eq!(client.words("GET a")?, b"$1\r\n1\r\n");

    let mut more = gateway.config.clone();
    more.tables =
        "[[listener.main.user]]\nname = \"default\"\npassword = \"new-password\"\n".to_owned();
    let (status, body) = gateway.breccia.reload(&more.text())?;
    assert_eq!(status, 200, "{body}");
    assert_eq!(
        client.words("GET a")?,
        b"$1\r\n1\r\n",
        "a connection outlives a reload"
    );
    assert!(gateway.client()?.words("GET a")?.starts_with(b"-NOAUTH"));

    let plain = gateway.config.text();
    gateway.breccia.reload(&plain)?;
    std::fs::write(gateway.breccia.config_path(), "broken")?;
    gateway.breccia.process().signal(Signal::Hup)?;
    wait_until(
        Duration::from_secs(5),
        "a line about the broken file",
        || Ok(gateway.breccia.log().contains("breccia.toml").then_some(())),
    )?;
    assert_eq!(gateway.client()?.words("GET a")?, b"$1\r\n1\r\n");
    Ok(())
}

#[test]
fn a_drain_answers_what_was_received_and_ends_with_zero() -> Result<()> {
    let servers = Redis::many(3)?;
    let mut gateway = Gateway::over(&servers)?;
    let mut client = gateway.client()?;
    let mut subscriber = gateway.client()?;
    subscriber.words("SUBSCRIBE c")?;
    let mut blocked = gateway.client()?;
    blocked.send(b"BLPOP none 0\r\n")?;
    client.words("PING")?;
    let requests: Vec<String> = (0..2_000)
        .map(|number| format!("INCR k{number}\r\n"))
        .collect();
    client.send(requests.concat().as_bytes())?;
    // The first answer shows that the requests have arrived.
    assert_eq!(client.read_reply()?, b":1\r\n");
    gateway.breccia.process().signal(Signal::Term)?;
    for number in 1..2_000 {
        assert_eq!(
            client
                .read_reply()
                .with_context(|| format!("reply {number}"))?,
            b":1\r\n"
        );
    }
    assert!(client.closed());
    assert!(subscriber.closed() && blocked.closed());
    let status = gateway.breccia.process().wait(Duration::from_secs(10))?;
    assert_eq!(status.code(), Some(0), "{}", gateway.breccia.log());
    Ok(())
}

#[test]
fn a_second_signal_ends_at_once() -> Result<()> {
    let mut servers = Redis::many(1)?;
    let mut gateway = Gateway::over(&servers)?;
    let mut client = gateway.client()?;
    client.words("PING")?;
    servers[0].sigstop()?;
    client.send(b"GET a\r\n")?;
    let process = gateway.breccia.process();
    process.signal(Signal::Term)?;
    std::thread::sleep(Duration::from_millis(50));
    process.signal(Signal::Term)?;
    process.wait(Duration::from_secs(1))?;
    Ok(())
}

#[test]
fn a_taken_port_is_told() -> Result<()> {
    let servers = Redis::many(1)?;
    let gateway = Gateway::over(&servers)?;
    let (status, output) = Breccia::refused(&gateway.config.text())?;
    assert!(!status.success());
    assert!(
        output.contains(&gateway.config.port.to_string()),
        "{output}"
    );
    Ok(())
}

#[test]
fn an_unreachable_member_does_not_stop_the_start() -> Result<()> {
    let mut servers = Redis::many(2)?;
    servers[1].kill9();
    let config = Config::new("redis")?.over(&servers);
    let breccia = Breccia::start_unready(&config.text())?;
    let gateway = Gateway { breccia, config };
    let mut client = gateway.client()?;
    let (up, down) = (
        crate::common::key_on(0, 2, "k"),
        crate::common::key_on(1, 2, "k"),
    );
    assert_eq!(client.words(&format!("SET {up} 1"))?, b"+OK\r\n");
    let reply = client.words(&format!("SET {down} 1"))?;
    assert!(
        reply.starts_with(b"-SHARDDOWN all/r1"),
        "{}",
        reply.escape_ascii()
    );
    servers[1].restart_same_port()?;
    wait_until(Duration::from_secs(3), "the shard to serve", || {
        Ok((client.words(&format!("SET {down} 1"))? == b"+OK\r\n").then_some(()))
    })?;
    Ok(())
}
