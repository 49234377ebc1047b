//! SIGHUP while clients keep asking.
//!
//! Not which keys a reload takes over; see `../gateway/reload`. Invariant: no client's connection
//! ends, and no request fails, for a reload of a file that is good or bad.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use breccia_net::stream::{Stream, connect};
use breccia_net::tls::{TlsClient, TlsClientOptions};
use breccia_testkit::{Certificates, FaultyProxy, Redis, free_port, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{Config, Gateway, key_on};
use crate::driver::{Traffic, alone, among_others, integer, no_errors, request};

const SHARDS: u64 = 3;
const CLIENTS: u64 = 8;
const LIMIT: Duration = Duration::from_secs(15);

/// The key that one client counts on one shard.
fn counter(client: u64, shard: u64) -> String {
    key_on(shard, SHARDS, &format!("c{client}:"))
}

/// Clients that count on every shard in turn.
fn counting(gateway: &Gateway) -> Traffic {
    let keys: Vec<Vec<String>> = (0..CLIENTS)
        .map(|client| (0..SHARDS).map(|shard| counter(client, shard)).collect())
        .collect();
    Traffic::start(
        &gateway.address(),
        CLIENTS,
        Duration::from_millis(1),
        move |client, number| {
            let at = |number: u64| usize::try_from(number).unwrap_or(0);
            request(&format!("INCR {}", keys[at(client)][at(number % SHARDS)]))
        },
    )
}

/// Ends the traffic: every request was carried out once, and none failed.
fn counted(gateway: &Gateway, traffic: Traffic) -> Result<usize> {
    let answers = traffic.end()?;
    let mut client = gateway.client()?;
    let mut sum = 0;
    for (number, answers) in (0..).zip(&answers) {
        no_errors("a client that counts", answers)?;
        for shard in 0..SHARDS {
            let expected = answers
                .iter()
                .filter(|answer| answer.number % SHARDS == shard)
                .count();
            let held = client.words(&format!("INCRBY {} 0", counter(number, shard)))?;
            ensure!(
                integer(&held) == i64::try_from(expected).ok(),
                "client {number}, shard {shard}: {expected} answers, {}",
                held.escape_ascii()
            );
        }
        sum += answers.len();
    }
    Ok(sum)
}

/// Reloads by signal, and waits until that has ended: how, and all that is shown of it.
fn hang_up(gateway: &mut Gateway, config: &str) -> Result<serde_json::Value> {
    let last = |gateway: &Gateway| -> Result<serde_json::Value> {
        let status: serde_json::Value = serde_json::from_str(&gateway.breccia.admin("/status")?.1)?;
        Ok(status["last_reload"].clone())
    };
    let before = last(gateway)?["unix_ms"].clone();
    std::thread::sleep(Duration::from_millis(5));
    gateway.breccia.hang_up(config)?;
    wait_until(LIMIT, "the reload", || {
        let last = last(gateway)?;
        Ok((last["unix_ms"] != before).then_some(last))
    })
}

/// Two addresses of one server.
fn two_ways(server: &Redis) -> Result<[FaultyProxy; 2]> {
    Ok([
        FaultyProxy::start(&server.address())?,
        FaultyProxy::start(&server.address())?,
    ])
}

/// Three servers, the last of them behind another address as well.
fn three(servers: &[Redis], last: &str) -> Result<Config> {
    let config = Config::new("redis")?;
    let config = config.redis("r0", &servers[0].address(), "");
    let config = config.redis("r1", &servers[1].address(), "");
    Ok(config.redis("r2", last, ""))
}

#[test]
fn a_shard_that_moves_under_load_loses_no_request_and_repeats_none() -> Result<()> {
    let _quiet = alone();
    let servers = Redis::many(3)?;
    let proxies = two_ways(&servers[2])?;
    let mut gateway = three(&servers, &proxies[0].address())?.start()?;
    let port = gateway.config.port;
    let traffic = counting(&gateway);
    for round in 0..6 {
        std::thread::sleep(Duration::from_millis(300));
        let mut config = three(&servers, &proxies[(round + 1) % 2].address())?;
        config.port = port;
        let done = hang_up(&mut gateway, &config.text())?;
        ensure!(
            done["applied"] == serde_json::json!(["store.r2.url"]),
            "{done}"
        );
        ensure!(done["needs_restart"] == serde_json::json!([]), "{done}");
    }
    std::thread::sleep(Duration::from_millis(300));
    let count = counted(&gateway, traffic)?;
    ensure!(count > 1_000, "only {count} answers");
    // The former address is left: what ends there is not missed.
    let before = proxies[1].accepted();
    proxies[1].reset_all();
    ensure!(
        gateway
            .client()?
            .words(&format!("EXISTS {}", counter(0, 2)))?
            == b":1\r\n"
    );
    ensure!(
        proxies[1].accepted() == before,
        "somebody still asks the former address"
    );
    Ok(())
}

/// A client over TLS that goes on asking on one connection.
struct Secure {
    runtime: tokio::runtime::Runtime,
    stream: Stream,
}

impl Secure {
    fn open(port: u16, files: &Certificates) -> Result<Secure> {
        let options = TlsClientOptions {
            ca: Some(files.ca.clone()),
            ..TlsClientOptions::default()
        };
        let client = TlsClient::new(&options, "127.0.0.1")?;
        let address = format!("127.0.0.1:{port}").parse()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let stream = runtime.block_on(connect(&address, Some(&client), LIMIT))?;
        Ok(Secure { runtime, stream })
    }

    fn ping(&mut self) -> Result<()> {
        let Secure { runtime, stream } = self;
        runtime.block_on(async {
            stream.write_all(b"AUTH p\r\nPING\r\n").await?;
            stream.flush().await?;
            let mut reply = [0; 12];
            stream.read_exact(&mut reply).await?;
            ensure!(&reply == b"+OK\r\n+PONG\r\n", "{}", reply.escape_ascii());
            Ok(())
        })
    }
}

/// A second listener, over TLS, that asks for a password.
fn secure(port: u16, files: &Certificates) -> String {
    format!(
        "[listener.secure]\nprotocol = \"redis\"\nstore = \"all\"\nbind = \"127.0.0.1:{port}\"\n\
         tls = {{ cert = '{}', key = '{}' }}\n\
         [[listener.secure.user]]\nname = \"default\"\npassword = \"p\"\n",
        files.server_cert.display(),
        files.server_key.display()
    )
}

#[test]
fn a_reload_under_load_drops_no_connection_and_a_broken_file_changes_nothing() -> Result<()> {
    let _quiet = alone();
    let servers = Redis::many(3)?;
    let proxy = FaultyProxy::start(&servers[2].address())?;
    let (old, new) = (Certificates::new()?, Certificates::new()?);
    let tls_port = free_port()?;
    let mut config = three(&servers, &proxy.address())?;
    config.tables = secure(tls_port, &old);
    let port = config.port;
    let mut gateway = config.start()?;
    let traffic = counting(&gateway);
    let mut held = Secure::open(tls_port, &old)?;
    held.ping()?;
    std::thread::sleep(Duration::from_millis(300));

    // A timeout, a user, a certificate and the address of a shard.
    let mut config = three(&servers, &servers[2].address())?;
    config.port = port;
    config.stores = config.stores.replacen("\n\n", "\ntimeout = \"7s\"\n\n", 1);
    config.tables = format!(
        "[[listener.main.user]]\nname = \"ann\"\npassword = \"p\"\n{}",
        secure(tls_port, &new)
    );
    let good = config.text();
    let done = hang_up(&mut gateway, &good)?;
    let expected = [
        "listener.main.user",
        "listener.secure.tls",
        "store.r0.timeout",
        "store.r2.url",
    ];
    ensure!(
        done["outcome"] == "applied" && done["applied"] == serde_json::json!(expected),
        "{done}"
    );
    ensure!(done["needs_restart"] == serde_json::json!([]), "{done}");
    std::thread::sleep(Duration::from_millis(300));

    // A broken file: nothing changes, and the fault is in the log and the status.
    let done = hang_up(
        &mut gateway,
        &good.replace("timeout = \"7s\"", "timeout = \"7 sheep\""),
    )?;
    let fault = done["faults"][0].as_str().unwrap_or_default().to_owned();
    ensure!(
        done["outcome"] == "refused" && fault.contains("timeout"),
        "{done}"
    );
    let log = gateway.breccia.log();
    ensure!(
        log.contains("nothing was changed") && log.contains("sheep"),
        "{log}"
    );
    std::thread::sleep(Duration::from_millis(300));

    held.ping().context("over TLS, since before the reload")?;
    ensure!(
        Secure::open(tls_port, &old).is_err(),
        "the old certificate is still shown"
    );
    Secure::open(tls_port, &new)?.ping()?;
    let mut client = gateway.client()?;
    ensure!(client.words("GET a")?.starts_with(b"-NOAUTH"));
    ensure!(client.words("AUTH ann p")? == b"+OK\r\n");
    let answers = traffic.end()?;
    for answers in &answers {
        no_errors("a client that counts", answers)?;
    }
    Ok(())
}

#[test]
fn listeners_that_come_and_go_under_load_disturb_nobody() -> Result<()> {
    let _others = among_others();
    let servers = Redis::many(3)?;
    let mut gateway = Gateway::over(&servers)?;
    let traffic = counting(&gateway);
    let port = free_port()?;
    let plain = gateway.config.clone();
    let mut more = plain.clone();
    more.tables = format!(
        "[listener.second]\nprotocol = \"redis\"\nstore = \"all\"\nbind = \"127.0.0.1:{port}\"\n"
    );
    for _ in 0..5 {
        let done = hang_up(&mut gateway, &more.text())?;
        ensure!(
            done["applied"] == serde_json::json!(["listener.second"]),
            "{done}"
        );
        let mut client = breccia_testkit::RespClient::connect(&format!("127.0.0.1:{port}"))?;
        ensure!(client.words("SET other 1")? == b"+OK\r\n");
        let done = hang_up(&mut gateway, &plain.text())?;
        ensure!(
            done["applied"] == serde_json::json!(["listener.second"]),
            "{done}"
        );
        ensure!(client.closed());
    }
    counted(&gateway, traffic)?;
    Ok(())
}

#[test]
fn pipelines_keep_their_order_while_a_shard_moves() -> Result<()> {
    let _others = among_others();
    let servers = Redis::many(3)?;
    let proxies = two_ways(&servers[2])?;
    let mut gateway = three(&servers, &proxies[0].address())?.start()?;
    let port = gateway.config.port;
    let address = gateway.address();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = &stop;
        let clients: Vec<_> = (0..4)
            .map(|client| {
                let address = address.clone();
                scope.spawn(move || deep_pipelines(&address, client, stop))
            })
            .collect();
        for round in 0..20 {
            std::thread::sleep(Duration::from_millis(50));
            let mut config = three(&servers, &proxies[(round + 1) % 2].address())?;
            config.port = port;
            let (code, body) = gateway.breccia.reload(&config.text())?;
            ensure!(code == 200, "{body}");
        }
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client
                .join()
                .map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        Ok(())
    })?;
    ensure!(gateway.breccia.process().ended().is_none());
    Ok(())
}

/// Counts in pipelines of 200 on two shards; every reply is the next number of its key.
fn deep_pipelines(address: &str, client: u64, stop: &AtomicBool) -> Result<()> {
    let mut connection = breccia_testkit::RespClient::connect(address)?;
    let keys = [
        key_on(1, SHARDS, &format!("p{client}:")),
        key_on(2, SHARDS, &format!("p{client}:")),
    ];
    let mut next = 1;
    while !stop.load(Ordering::Relaxed) {
        let requests: Vec<String> = (0..200)
            .map(|number| format!("INCR {}\r\n", keys[number % 2]))
            .collect();
        connection.send(requests.concat().as_bytes())?;
        for number in 0..200 {
            let reply = connection.read_reply()?;
            let expected = next + i64::from(number / 2);
            ensure!(
                integer(&reply) == Some(expected),
                "{expected}: {}",
                reply.escape_ascii()
            );
        }
        next += 100;
    }
    Ok(())
}
