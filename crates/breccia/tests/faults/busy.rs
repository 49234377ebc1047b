//! Shards that are alive and slow, and queues that are full.
//!
//! Invariant: slow is not down, and a full queue refuses at once instead of waiting.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use breccia_testkit::{Fault, FaultyProxy, Redis, RedisOptions, RespClient};

use crate::common::{Config, Gateway, key_on};
use crate::driver::{Traffic, alone, among_others, no_errors, request, until_answered};

#[test]
fn a_long_script_is_not_an_outage() -> Result<()> {
    let _quiet = alone();
    let options = RedisOptions {
        arguments: ["--busy-reply-threshold", "50"].map(str::to_owned).to_vec(),
        ..RedisOptions::default()
    };
    let servers = [Redis::start(options)?];
    let gateway = Gateway::over(&servers)?;
    gateway.client()?.words("SET a 1")?;
    let mut direct = servers[0].client()?;
    let script = "local i = 0 while i < 1e12 do i = i + 1 end";
    direct.send(&breccia_testkit::resp::encode(&[
        b"EVAL",
        script.as_bytes(),
        b"0",
    ]))?;
    std::thread::sleep(Duration::from_millis(300));
    let (begun, mut client) = (Instant::now(), gateway.client()?);
    let mut busy = 0;
    // Longer than two probes and their timeouts.
    while begun.elapsed() < Duration::from_secs(4) {
        let reply = client.words("GET a")?.escape_ascii().to_string();
        ensure!(reply.starts_with("-BUSY "), "{reply}");
        busy += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    ensure!(busy > 50, "{busy} answers");
    ensure!(gateway.breccia.metric("breccia_store_up{store=\"r0\"}")? > 0.5);
    servers[0].client()?.words("SCRIPT KILL")?;
    until_answered(&gateway.address(), "GET a", b"$1\r\n1\r\n")?;
    Ok(())
}

#[test]
fn a_slow_shard_serves_everything_in_its_time() -> Result<()> {
    let _quiet = alone();
    let servers = Redis::many(2)?;
    let proxy = FaultyProxy::start(&servers[1].address())?;
    let gateway = Config::new("redis")?
        .redis("r0", &servers[0].address(), "")
        .redis("r1", &proxy.address(), "")
        .start()?;
    // Longer than the stall gate: one batch of requests at a time is on its way.
    proxy.set(Fault::Delay(Duration::from_millis(150)));
    let slow = Traffic::start(&gateway.address(), 6, Duration::ZERO, |client, number| {
        request(&format!(
            "INCR {}",
            key_on(1, 2, &format!("s{client}n{number}:"))
        ))
    });
    std::thread::sleep(Duration::from_secs(3));
    let answers = slow.end_all()?;
    no_errors("a slow shard", &answers)?;
    println!("{} answers of a slow shard", answers.len());
    Ok(())
}

/// A gateway over one frozen shard with these limits, and clients that are served by one worker.
fn frozen(limits: &str) -> Result<(Gateway, Redis, Vec<RespClient>)> {
    let mut server = Redis::new()?;
    let mut config = Config::new("redis")?.redis("r0", &server.address(), limits);
    "workers = 1\n".clone_into(&mut config.top);
    let gateway = config.start()?;
    let mut clients: Vec<RespClient> = (0..8).map(|_| gateway.client()).collect::<Result<_>>()?;
    for client in &mut clients {
        client.words("SET a 1")?;
    }
    server.sigstop()?;
    Ok((gateway, server, clients))
}

#[test]
fn a_full_queue_refuses_at_once_and_reads_on() -> Result<()> {
    let _others = among_others();
    let (_gateway, _server, mut clients) = frozen("max-in-flight = 50")?;
    for client in &mut clients[1..] {
        client.send(&request("INCR counter").repeat(10))?;
    }
    std::thread::sleep(Duration::from_millis(200));
    let begun = Instant::now();
    let refused = clients[0].pipeline(&["INCR counter", "ECHO here", "INCR counter"])?;
    ensure!(
        begun.elapsed() < Duration::from_millis(500),
        "{:?}",
        begun.elapsed()
    );
    for reply in [&refused[0], &refused[2]] {
        let reply = reply.escape_ascii().to_string();
        ensure!(reply.starts_with("-SHARDBUSY all/r0"), "{reply}");
        ensure!(
            reply.contains("max-in-flight (50)") && reply.contains("not applied"),
            "{reply}"
        );
    }
    ensure!(refused[1] == b"$4\r\nhere\r\n");
    Ok(())
}

#[test]
fn leases_that_are_all_out_are_refused_at_once() -> Result<()> {
    let _others = among_others();
    let server = Redis::new()?;
    let mut config = Config::new("redis")?.redis("r0", &server.address(), "max-leases = 2");
    "workers = 1\n".clone_into(&mut config.top);
    let gateway = config.start()?;
    let mut clients: Vec<RespClient> = (0..3).map(|_| gateway.client()).collect::<Result<_>>()?;
    clients[0].expect_ok(&[b"WATCH", b"a"])?;
    clients[1].send(&request("BLPOP none 0"))?;
    std::thread::sleep(Duration::from_millis(200));
    for words in ["WATCH a", "BLPOP none 0"] {
        let reply = clients[2].words(words)?.escape_ascii().to_string();
        ensure!(
            reply.starts_with("-SHARDBUSY all/r0") && reply.contains("max-leases (2)"),
            "{words}: {reply}"
        );
    }
    ensure!(clients[2].words("SET a 1")? == b"+OK\r\n");
    let big = vec![b'x'; 200_000];
    let reply = clients[2]
        .call(&[b"SET", b"big", &big])?
        .escape_ascii()
        .to_string();
    println!("a big value while all leases are out: {reply}");
    ensure!(
        reply.starts_with("+OK") || reply.contains("max-leases"),
        "{reply}"
    );
    // Whoever leaves gives the lease back.
    drop(clients.remove(0));
    let begun = Instant::now();
    while clients[1].words("WATCH a")? != b"+OK\r\n" {
        ensure!(
            begun.elapsed() < Duration::from_secs(3),
            "the lease never came back"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
