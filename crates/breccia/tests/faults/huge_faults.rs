//! Large values on their way while something breaks: clients that die, stall or do not read, servers
//! that die or freeze, a drain.
//!
//! Invariant: a value is there whole or not at all; a client reads the bytes of its own reply, or its
//! connection ends; nobody else notices.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use breccia_testkit::{Fault, FaultyProxy, Redis, RespClient, Signal, wait_until};

use crate::common::{Config, Gateway};
use crate::driver::{Traffic, alone, among_others, no_errors, quantile, request};
use crate::huge::{MIB, get, head, open, receive_line, receive_value, send_value, set};

/// Clients of one server that connections of the gateway are.
fn connections(server: &Redis) -> Result<usize> {
    let list = server.client()?.reply("CLIENT LIST")?;
    let text = String::from_utf8_lossy(list.bytes().unwrap_or_default()).into_owned();
    Ok(text.lines().count() - 1)
}

#[test]
fn a_client_that_dies_in_the_middle_of_its_value_leaves_nothing_behind() -> Result<()> {
    let _others = among_others();
    let server = Redis::new()?;
    let gateway = Config::new("redis")?
        .over(std::slice::from_ref(&server))
        .start()?;
    let traffic = Traffic::start(&gateway.address(), 4, Duration::from_millis(1), |id, _| {
        request(&format!("INCR other{id}"))
    });
    // More than there are places for at once.
    let mut dying = Vec::new();
    for number in 0..40 {
        let mut client = open(&gateway.address())?;
        client.write_all(&head(&format!("dead{number}"), 512 * MIB))?;
        send_value(&mut client, 3 * MIB)?;
        dying.push(client);
        if number % 10 == 9 {
            dying.clear();
        }
    }
    let mut client = open(&gateway.address())?;
    ensure!(
        set(&mut client, "alive", 5 * MIB)? == "+OK",
        "a whole value"
    );
    wait_until(Duration::from_secs(5), "leases to end", || {
        Ok((connections(&server)? <= 8).then_some(()))
    })?;
    ensure!(
        server.client()?.words("EXISTS dead0 dead39")? == b":0\r\n",
        "a torso"
    );
    no_errors("others", &traffic.end_all()?)
}

#[test]
fn senders_of_a_byte_a_second_are_cut_and_take_nobodys_place() -> Result<()> {
    let _alone = alone();
    let server = Redis::new()?;
    let gateway = Config::new("redis")?
        .over(std::slice::from_ref(&server))
        .start()?;
    let mut slow: Vec<TcpStream> = (0..40)
        .map(|number| {
            let mut client = open(&gateway.address())?;
            client.write_all(&head(&format!("slow{number}"), 512 * MIB))?;
            // Some have got as far as to have a place.
            send_value(&mut client, if number < 10 { MIB } else { 10 })?;
            Ok(client)
        })
        .collect::<Result<_>>()?;
    let traffic = Traffic::start(&gateway.address(), 4, Duration::from_millis(1), |id, _| {
        request(&format!("INCR other{id}"))
    });
    let mut client = open(&gateway.address())?;
    let begun = Instant::now();
    let mut open_ones = slow.len();
    while open_ones > 0 && begun.elapsed() < Duration::from_secs(25) {
        ensure!(
            set(&mut client, "alive", 5 * MIB)? == "+OK",
            "a whole value"
        );
        let multi = ["MULTI", "SET alive 1", "EXEC"];
        let replies = RespClient::connect(&gateway.address())?.pipeline(&multi)?;
        ensure!(replies[2] == b"*1\r\n+OK\r\n", "a transaction");
        std::thread::sleep(Duration::from_secs(1));
        slow.retain_mut(|client| client.write_all(b"x").is_ok());
        open_ones = slow.len();
    }
    println!("all were cut after {:?}", begun.elapsed());
    ensure!(open_ones == 0, "{open_ones} slow senders are still there");
    let answers = traffic.end_all()?;
    no_errors("others", &answers)?;
    let p99 = quantile(&answers.iter().collect::<Vec<_>>(), 990)?;
    ensure!(p99 < Duration::from_millis(100), "{p99:?}");
    let hits = gateway
        .breccia
        .metric("breccia_limit_hits_total{listener=\"main\",limit=\"min-body")?;
    ensure!(hits >= 40.0, "{hits} limits were met");
    Ok(())
}

#[test]
fn a_client_that_waits_for_a_place_gets_one_or_hears_why_not() -> Result<()> {
    let _others = among_others();
    let server = Redis::new()?;
    let mut config = Config::new("redis")?;
    config.top = "workers = 1\n".to_owned();
    let gateway = config.over(std::slice::from_ref(&server)).start()?;
    let mut holders = Vec::new();
    for number in 0..16 {
        let mut client = open(&gateway.address())?;
        client.write_all(&head(&format!("held{number}"), 2 * MIB))?;
        send_value(&mut client, MIB)?;
        holders.push(client);
    }
    std::thread::sleep(Duration::from_millis(300));
    let mut client = open(&gateway.address())?;
    let reply = set(&mut client, "late", 5 * MIB)?;
    ensure!(
        reply.starts_with("-SHARDBUSY") && reply.contains("not applied"),
        "{reply}"
    );
    let mut waiting = open(&gateway.address())?;
    waiting.write_all(&head("late", 5 * MIB))?;
    send_value(&mut waiting, 2 * MIB)?;
    std::thread::sleep(Duration::from_millis(300));
    drop(holders.pop());
    send_value(&mut waiting, MIB)?;
    send_value(&mut waiting, 2 * MIB)?;
    waiting.write_all(b"\r\n")?;
    let reply = receive_line(&mut waiting)?;
    ensure!(reply == "+OK", "{reply}");
    get(&mut client, "late", 5 * MIB)
}

#[test]
fn slow_senders_lose_their_places_one_by_one_to_those_who_wait() -> Result<()> {
    let _alone = alone();
    let server = Redis::new()?;
    let mut config = Config::new("redis")?;
    config.top = "workers = 1\n".to_owned();
    let gateway = config.over(std::slice::from_ref(&server)).start()?;
    let mut slow = Vec::new();
    for number in 0..16 {
        let mut client = open(&gateway.address())?;
        client.write_all(&head(&format!("slow{number}"), 64 * MIB))?;
        send_value(&mut client, 100_000)?;
        slow.push(client);
    }
    let sending = std::thread::spawn(move || {
        for _ in 0..30 {
            std::thread::sleep(Duration::from_millis(200));
            slow.retain_mut(|client| client.write_all(&vec![b'x'; 20_000]).is_ok());
        }
        slow.len()
    });
    // Their pace is known after some seconds.
    std::thread::sleep(Duration::from_millis(4500));
    let mut client = open(&gateway.address())?;
    let reply = set(&mut client, "quick", 5 * MIB)?;
    let left = sending.join().unwrap_or_default();
    println!("{left} of 16 are left");
    ensure!(reply == "+OK", "{reply}");
    ensure!((10..16).contains(&left), "{left} slow senders are left");
    Ok(())
}

#[test]
fn a_reader_that_takes_nothing_is_closed_and_nobody_waits_for_it() -> Result<()> {
    let _alone = alone();
    let server = Redis::new()?;
    let mut config = Config::new("redis")?;
    config.top = "workers = 1\n".to_owned();
    let gateway = config
        .over(std::slice::from_ref(&server))
        .listener("write-timeout = \"2s\"")
        .start()?;
    let mut client = open(&gateway.address())?;
    ensure!(set(&mut client, "large", 32 * MIB)? == "+OK", "SET");
    let traffic = Traffic::start(&gateway.address(), 8, Duration::ZERO, |id, _| {
        request(&format!("INCR other{id}"))
    });
    let mut idle = Vec::new();
    for _ in 0..16 {
        let mut reader = open(&gateway.address())?;
        reader.write_all(&request("GET large"))?;
        idle.push(reader);
        std::thread::sleep(Duration::from_millis(100));
    }
    // Those that share a connection are closed one after another.
    let name = "breccia_limit_hits_total{listener=\"main\",limit=\"write-t";
    wait_until(Duration::from_secs(30), "readers to be closed", || {
        Ok((gateway.breccia.metric(name)? >= 16.0).then_some(()))
    })?;
    let answers = traffic.end_all()?;
    no_errors("others", &answers)?;
    // Only those wait at all who asked in the same moment, on the same connection.
    let all: Vec<_> = answers.iter().collect();
    let (most, slowest) = (quantile(&all, 980)?, quantile(&all, 999)?);
    println!("{} answers, p98 {most:?}, p99.9 {slowest:?}", all.len());
    ensure!(most < Duration::from_millis(500), "{most:?}");
    for reader in &mut idle {
        let mut came = Vec::new();
        let _cut = reader.read_to_end(&mut came);
        ensure!(came.len() < 32 * MIB, "it was not closed");
        ensure!(came.starts_with(b"$33554432\r\n"), "another reply");
    }
    get(&mut client, "large", 32 * MIB)
}

#[test]
fn a_slow_reader_gets_its_value_whole() -> Result<()> {
    let _others = among_others();
    let server = Redis::new()?;
    let gateway = Config::new("redis")?
        .redis("r0", &server.address(), "timeout = \"1s\"")
        .start()?;
    let mut client = open(&gateway.address())?;
    ensure!(set(&mut client, "large", 64 * MIB)? == "+OK", "SET");
    client.write_all(&request("GET large"))?;
    let mut slowly = Slowly(client);
    receive_value(&mut slowly, 64 * MIB)
}

/// Reads 16 MiB, then pauses longer than the store's timeout.
struct Slowly(TcpStream);

impl Read for Slowly {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.0.read(buffer)?;
        if count > 0 && buffer[0].is_multiple_of(64) && count > 60_000 {
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(count)
    }
}

#[test]
fn a_slow_but_steady_sender_is_no_timeout() -> Result<()> {
    let _others = among_others();
    let server = Redis::new()?;
    let gateway = Config::new("redis")?
        .redis("r0", &server.address(), "timeout = \"500ms\"")
        .start()?;
    let mut client = open(&gateway.address())?;
    client.write_all(&head("k", 8 * MIB))?;
    for _ in 0..8 {
        send_value(&mut client, MIB)?;
        std::thread::sleep(Duration::from_millis(600));
    }
    client.write_all(b"\r\n")?;
    ensure!(receive_line(&mut client)? == "+OK", "SET");
    Ok(())
}

#[test]
fn a_server_that_dies_in_the_middle_of_a_reply_cuts_its_reader_and_no_other() -> Result<()> {
    let _others = among_others();
    let servers = Redis::many(2)?;
    let proxy = FaultyProxy::start(&servers[0].address())?;
    let gateway = Config::new("redis")?
        .redis("r0", &proxy.address(), "")
        .redis("r1", &servers[1].address(), "")
        .start()?;
    let key = crate::common::key_on(0, 2, "cut");
    let mut client = open(&gateway.address())?;
    ensure!(set(&mut client, &key, 64 * MIB)? == "+OK", "SET");
    let others = crate::common::key_on(1, 2, "other");
    let traffic = Traffic::start(
        &gateway.address(),
        4,
        Duration::from_millis(1),
        move |_, _| request(&format!("INCR {others}")),
    );
    for turn in 0..6 {
        let mut client = open(&gateway.address())?;
        proxy.set(match turn % 2 {
            0 => Fault::ResetAfter(20_000_000),
            _ => Fault::CutAfter(20_000_000),
        });
        client.write_all(&request(&format!("GET {key}")))?;
        client.write_all(&request("PING"))?;
        let mut came = Vec::new();
        let _cut = client.read_to_end(&mut came);
        let end = came.len().saturating_sub(100);
        ensure!(
            came.starts_with(b"$67108864\r\n"),
            "{}",
            came.escape_ascii()
        );
        ensure!(
            (1_000_000..64 * MIB).contains(&came.len()),
            "{} bytes",
            came.len()
        );
        let tail = came[end..].escape_ascii().to_string();
        ensure!(
            !tail.contains("SHARDDOWN") && !tail.contains("PONG"),
            "{tail}"
        );
        proxy.set(Fault::None);
    }
    no_errors("others", &traffic.end_all()?)?;
    let mut client = open(&gateway.address())?;
    wait_until(Duration::from_secs(5), "the shard again", || {
        client.write_all(&request(&format!("STRLEN {key}")))?;
        Ok((receive_line(&mut client)? == ":67108864").then_some(()))
    })
}

#[test]
fn a_server_lost_in_the_middle_of_a_request_leaves_it_not_applied() -> Result<()> {
    let _others = among_others();
    let server = Redis::new()?;
    let proxy = FaultyProxy::start(&server.address())?;
    let gateway = Config::new("redis")?
        .redis("r0", &proxy.address(), "timeout = \"2s\"")
        .start()?;
    let mut client = open(&gateway.address())?;
    ensure!(set(&mut client, "k", 2 * MIB)? == "+OK", "SET");
    let mut broken = |fault: Fault| -> Result<String> {
        client.write_all(&head("k", 64 * MIB))?;
        send_value(&mut client, 8 * MIB)?;
        std::thread::sleep(Duration::from_millis(200));
        proxy.set(fault);
        if fault == Fault::None {
            proxy.reset_all();
        }
        send_value(&mut client, 56 * MIB)?;
        client.write_all(b"\r\n")?;
        let reply = receive_line(&mut client)?;
        proxy.set(Fault::None);
        proxy.reset_all();
        wait_until(Duration::from_secs(8), "the shard again", || {
            client.write_all(&request("STRLEN k"))?;
            Ok((receive_line(&mut client)? == ":2097152").then_some(()))
        })?;
        Ok(reply)
    };
    let reply = broken(Fault::None).context("a reset")?;
    ensure!(reply.ends_with("not applied"), "a reset: {reply}");
    let reply = broken(Fault::BlackHole).context("a black hole")?;
    ensure!(reply.starts_with('-'), "a black hole: {reply}");
    Ok(())
}

#[test]
fn a_frozen_server_never_runs_a_value_that_was_given_up() -> Result<()> {
    let _alone = alone();
    let mut server = Redis::new()?;
    let gateway = Config::new("redis")?
        .redis("r0", &server.address(), "timeout = \"1s\"")
        .start()?;
    let mut client = open(&gateway.address())?;
    ensure!(set(&mut client, "k", 2 * MIB)? == "+OK", "SET");
    client.write_all(&head("k", 64 * MIB))?;
    send_value(&mut client, 8 * MIB)?;
    server.sigstop()?;
    send_value(&mut client, 56 * MIB)?;
    client.write_all(b"\r\n")?;
    let reply = receive_line(&mut client)?;
    ensure!(
        reply.starts_with("-TIMEOUT") && reply.ends_with("not applied"),
        "{reply}"
    );
    server.sigcont()?;
    std::thread::sleep(Duration::from_millis(500));
    let length = server.client()?.words("STRLEN k")?;
    ensure!(length == b":2097152\r\n", "{}", length.escape_ascii());
    Ok(())
}

#[test]
fn a_shard_that_is_down_refuses_a_large_value_and_the_client_goes_on() -> Result<()> {
    let _others = among_others();
    let mut servers = Redis::many(2)?;
    let gateway = Gateway::over(&servers)?;
    let key = crate::common::key_on(0, 2, "down");
    let mut client = open(&gateway.address())?;
    ensure!(set(&mut client, &key, 2 * MIB)? == "+OK", "SET");
    servers[0].kill9();
    wait_until(Duration::from_secs(5), "the shard to be down", || {
        let reply = set(&mut client, &key, 20 * MIB)?;
        ensure!(reply.ends_with("not applied"), "{reply}");
        Ok(reply.starts_with("-SHARDDOWN").then_some(()))
    })?;
    let other = crate::common::key_on(1, 2, "down");
    ensure!(
        set(&mut client, &other, 20 * MIB)? == "+OK",
        "the other shard"
    );
    Ok(())
}

#[test]
fn a_drain_lets_values_on_their_way_pass() -> Result<()> {
    let _others = among_others();
    let server = Redis::new()?;
    let mut gateway = Config::new("redis")?
        .over(std::slice::from_ref(&server))
        .start()?;
    let mut reader = open(&gateway.address())?;
    ensure!(set(&mut reader, "large", 64 * MIB)? == "+OK", "SET");
    reader.write_all(&request("GET large"))?;
    let mut writer = open(&gateway.address())?;
    writer.write_all(&head("new", 32 * MIB))?;
    send_value(&mut writer, 16 * MIB)?;
    std::thread::sleep(Duration::from_millis(200));
    gateway.breccia.process().signal(Signal::Term)?;
    std::thread::sleep(Duration::from_millis(300));
    send_value(&mut writer, 16 * MIB)?;
    writer.write_all(b"\r\n")?;
    ensure!(
        receive_line(&mut writer)? == "+OK",
        "the value being written"
    );
    receive_value(&mut reader, 64 * MIB)?;
    let status = gateway.breccia.process().wait(Duration::from_secs(10))?;
    assert_eq!(status.code(), Some(0), "{}", gateway.breccia.log());
    let length = server.client()?.words("STRLEN new")?;
    ensure!(length == b":33554432\r\n", "{}", length.escape_ascii());
    Ok(())
}

#[test]
fn what_breaks_the_protocol_in_the_middle_of_a_value_is_not_run() -> Result<()> {
    let _others = among_others();
    let server = Redis::new()?;
    let gateway = Config::new("redis")?
        .over(std::slice::from_ref(&server))
        .start()?;
    let mut client = open(&gateway.address())?;
    client.write_all(&head("k", 4 * MIB))?;
    send_value(&mut client, 4 * MIB)?;
    client.write_all(b"xx*1\r\n$4\r\nPING\r\n")?;
    let reply = receive_line(&mut client)?;
    ensure!(reply.contains("does not end in CR LF"), "{reply}");
    let mut rest = Vec::new();
    client.read_to_end(&mut rest)?;
    ensure!(rest.is_empty(), "{}", rest.escape_ascii());
    ensure!(
        server.client()?.words("EXISTS k")? == b":0\r\n",
        "it was run"
    );
    Ok(())
}
