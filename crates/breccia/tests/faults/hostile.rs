//! Clients that mean harm, in numbers, beside clients that mean well.
//!
//! Single broken frames are in `../gateway/bad_input.rs`. Invariant: the process stays small, the
//! hostile are let go, and the others see neither an error nor a delay worth the name.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use breccia_testkit::{Redis, wait_until};

use crate::common::{Config, Gateway};
use crate::driver::{Answer, Numbers, Traffic, alone, among_others, no_errors, quantile, request};

const MIB: u64 = 1024 * 1024;
/// Neighbours may wait on a machine that is busy with other things as well; they may not fail.
const PATIENT: &str = "deadline = \"5s\"";

/// Well-meaning clients, whose requests must all be answered while hostile ones are at work.
fn neighbours(gateway: &Gateway) -> Traffic {
    Traffic::start(
        &gateway.address(),
        3,
        Duration::from_millis(5),
        |client, number| {
            request(&if number % 2 == 0 {
                format!("SET neighbour{client} {number}")
            } else {
                format!("GET neighbour{client}")
            })
        },
    )
}

fn untouched(what: &str, neighbours: Traffic) -> Result<()> {
    let answers = neighbours.end_all()?;
    no_errors(&format!("neighbours of {what}"), &answers)?;
    let all: Vec<&Answer> = answers.iter().collect();
    let (p99, worst) = (quantile(&all, 990)?, quantile(&all, 999)?);
    println!(
        "neighbours of {what}: {} answers, p99 {p99:?}, worst {worst:?}",
        all.len()
    );
    ensure!(
        p99 < Duration::from_secs(1),
        "neighbours of {what} waited: p99 {p99:?}"
    );
    Ok(())
}

fn connect(gateway: &Gateway) -> Result<TcpStream> {
    let stream = TcpStream::connect(gateway.address())?;
    stream.set_write_timeout(Some(Duration::from_millis(300)))?;
    stream.set_read_timeout(Some(Duration::from_millis(300)))?;
    Ok(stream)
}

/// Memory the gateway holds beyond `before`, in MiB.
fn grown(gateway: &mut Gateway, before: u64) -> Result<u64> {
    Ok(gateway
        .breccia
        .process()
        .resident_bytes()?
        .saturating_sub(before)
        / MIB)
}

/// Whether the gateway has closed this connection; reads what is there.
fn is_closed(stream: &mut TcpStream) -> bool {
    let mut buffer = vec![0; 64 * 1024];
    stream
        .set_read_timeout(Some(Duration::from_millis(1)))
        .is_err()
        || loop {
            match stream.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
            }
        }
}

fn connections(gateway: &Gateway) -> Result<u64> {
    let value = gateway
        .breccia
        .metric("breccia_connections{listener=\"main\"}")?;
    Ok(format!("{value:.0}").parse()?)
}

/// A request that begins well, with one thing wrong, or bytes without any sense.
fn garbage(numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = request("SET key value").repeat(3);
    match numbers.below(3) {
        0 => {
            bytes.clear();
            bytes.extend((0..numbers.below(500)).map(|_| numbers.byte()));
        }
        1 => {
            let place = usize::try_from(numbers.below(bytes.len() as u64)).unwrap_or(0);
            bytes[place] = numbers.byte();
        }
        _ => {
            let heads = [
                "*-7\r\n",
                "*1\r\n$-3\r\n",
                "*99999999999999999999\r\n",
                "$3\r\n\r\n\0",
            ];
            let head = heads[usize::try_from(numbers.below(4)).unwrap_or(0)];
            bytes.splice(0..0, head.bytes());
        }
    }
    bytes
}

#[test]
fn garbage_hurts_only_its_own_connection() -> Result<()> {
    let _quiet = alone();
    let servers = Redis::many(3)?;
    let mut gateway = Config::new("redis")?
        .over(&servers)
        .listener(PATIENT)
        .start()?;
    let neighbours = neighbours(&gateway);
    let before = gateway.breccia.process().resident_bytes()?;
    let mut numbers = Numbers::new(11);
    for _ in 0..600 {
        let mut stream = connect(&gateway)?;
        stream.write_all(&garbage(&mut numbers))?;
        if numbers.below(2) == 0 {
            stream.shutdown(Shutdown::Write)?;
            let mut answer = Vec::new();
            let _closed = stream.read_to_end(&mut answer);
        }
    }
    untouched("garbage", neighbours)?;
    let grown = grown(&mut gateway, before)?;
    ensure!(grown < 30, "grew by {grown} MiB");
    wait_until(Duration::from_secs(5), "the connections to end", || {
        Ok((connections(&gateway)? == 0).then_some(()))
    })
}

#[test]
fn half_closed_sockets_are_let_go_in_every_state() -> Result<()> {
    let _others = among_others();
    let servers = Redis::many(2)?;
    let gateway = Gateway::over(&servers)?;
    let states: [&[u8]; 9] = [
        b"",
        b"PING\r\n",
        b"*2\r\n$3\r\nGET\r\n$1",
        b"*1000000\r\n",
        b"BLPOP none 0\r\n",
        b"SUBSCRIBE channel\r\n",
        b"MULTI\r\nSET a 1\r\n",
        b"WATCH a\r\n",
        b"MGET a b c d e f\r\nGET",
    ];
    let mut streams = Vec::new();
    for _ in 0..30 {
        for state in states {
            let mut stream = connect(&gateway)?;
            stream.write_all(state)?;
            streams.push(stream);
        }
    }
    wait_until(Duration::from_secs(5), "all clients to be there", || {
        Ok((connections(&gateway)? == streams.len() as u64).then_some(()))
    })?;
    std::thread::sleep(Duration::from_millis(100));
    for stream in &streams {
        stream.shutdown(Shutdown::Write)?;
    }
    // The sockets stay open on this side: only the gateway can end them.
    wait_until(
        Duration::from_secs(6),
        "half-closed clients to be let go",
        || Ok((connections(&gateway)? == 0).then_some(())),
    )
    .with_context(|| format!("{:?} are left", connections(&gateway)))?;
    for (index, stream) in streams.iter_mut().enumerate() {
        ensure!(
            is_closed(stream),
            "state {:?}",
            states[index % 9].escape_ascii().to_string()
        );
    }
    assert_eq!(servers[0].client()?.words("EXISTS a")?, b":0\r\n");
    assert_eq!(gateway.client()?.words("SET a 2")?, b"+OK\r\n");
    Ok(())
}

#[test]
fn clients_that_never_read_are_cut_and_cost_little() -> Result<()> {
    let _quiet = alone();
    let servers = Redis::many(2)?;
    let limits = format!("{PATIENT}\nreply-buffer = \"1MiB\"\nwrite-timeout = \"2s\"");
    let mut gateway = Config::new("redis")?
        .over(&servers)
        .listener(&limits)
        .start()?;
    gateway
        .client()?
        .expect_ok(&[b"SET", b"big", &vec![b'x'; 300_000]])?;
    let neighbours = neighbours(&gateway);
    let before = gateway.breccia.process().resident_bytes()?;
    let kinds: [&[u8]; 4] = [
        b"GET big\r\n",
        b"MGET big a b big c\r\n",
        b"COMMAND\r\n",
        b"SUBSCRIBE channel\r\n",
    ];
    let mut deaf = Vec::new();
    for _ in 0..2 {
        for kind in kinds {
            deaf.push((connect(&gateway)?, kind.repeat(300)));
        }
    }
    for (stream, requests) in &mut deaf {
        let _some = stream.write(requests)?;
    }
    let mut publisher = gateway.client()?;
    let (begun, mut most) = (Instant::now(), 0);
    let message = vec![b'm'; 100_000];
    while connections(&gateway)? > 4 {
        publisher.call(&[b"PUBLISH", b"channel", &message])?;
        most = most.max(grown(&mut gateway, before)?);
        ensure!(
            begun.elapsed() < Duration::from_secs(20),
            "{} are left",
            connections(&gateway)?
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    println!(
        "8 deaf clients were cut after {:?}; at most {most} MiB more",
        begun.elapsed()
    );
    ensure!(most < 300, "grew by {most} MiB");
    untouched("deaf clients", neighbours)?;
    let cut = gateway
        .breccia
        .metric("breccia_limit_hits_total{listener=\"main\",limit=\"write-t")?;
    ensure!(cut > 0.5, "write-timeout is not counted");
    Ok(())
}

#[test]
fn dripping_clients_are_cut() -> Result<()> {
    let _others = among_others();
    let servers = Redis::many(1)?;
    let gateway = Gateway::over(&servers)?;
    let mut dripping: Vec<TcpStream> = (0..40).map(|_| connect(&gateway)).collect::<Result<_>>()?;
    for stream in &mut dripping {
        stream.write_all(b"*2\r\n$3\r\nGET\r\n$60000\r\n")?;
    }
    let mut slow = gateway.client()?;
    let begun = Instant::now();
    // Whoever sends whole requests, however seldom, is no dripping client.
    while begun.elapsed() < Duration::from_secs(16) && connections(&gateway)? > 1 {
        for stream in &mut dripping {
            let _may_be_cut = stream.write(b"x");
        }
        ensure!(slow.words("PING")? == b"+PONG\r\n", "a slow client was cut");
        std::thread::sleep(Duration::from_millis(500));
    }
    println!("cut after {:?}", begun.elapsed());
    ensure!(
        begun.elapsed() > Duration::from_secs(5),
        "cut after {:?}",
        begun.elapsed()
    );
    ensure!(
        connections(&gateway)? == 1,
        "{} are left",
        connections(&gateway)?
    );
    let cut = gateway
        .breccia
        .metric("breccia_limit_hits_total{listener=\"main\",limit=\"min-b")?;
    ensure!(cut > 39.5, "min-body-rate is counted {cut} times");
    Ok(())
}

/// Writes `bytes` again and again until the gateway closes, `most` bytes are written, or it takes
/// no more for a while.
fn flood(stream: &mut TcpStream, bytes: &[u8], most: u64) -> u64 {
    let mut written = 0;
    while written < most {
        match stream.write(bytes) {
            Ok(count) => written += count as u64,
            Err(_) => break,
        }
    }
    written
}

/// Reads and drops all replies, so that only the gateway's own limits count.
fn read_on(mut stream: TcpStream) -> std::thread::JoinHandle<std::io::Result<()>> {
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        while stream.read(&mut buffer)? > 0 {}
        Ok(())
    })
}

#[test]
fn endless_requests_and_transactions_stay_small() -> Result<()> {
    let _quiet = alone();
    let servers = Redis::many(2)?;
    let mut gateway = Config::new("redis")?
        .over(&servers)
        .listener(PATIENT)
        .start()?;
    let value = "v".repeat(1_000);
    let queued = request(&format!("SET key {value}")).repeat(60);
    let spoiled = request(&format!("NOSUCH key {value}")).repeat(60);
    let keyless = request(&format!("ECHO {value}")).repeat(60);
    let rows: [(&str, &[u8], &[u8], u64); 8] = [
        (
            "an inline request without an end",
            b"",
            &b"x".repeat(60_000),
            200,
        ),
        (
            "a request of headers only",
            b"",
            &b"*1000000\r\n".repeat(6_000),
            200,
        ),
        (
            "arguments without an end",
            b"*1048576\r\n",
            &format!("$1000\r\n{value}\r\n").into_bytes().repeat(60),
            200,
        ),
        ("a flood of nonsense", b"", &b"x\r\n".repeat(20_000), 6),
        ("a flood of PING", b"", &b"PING\r\n".repeat(10_000), 20),
        ("a transaction without an end", b"MULTI\r\n", &queued, 300),
        (
            "a spoiled transaction without an end",
            b"MULTI\r\n",
            &spoiled,
            300,
        ),
        (
            "a transaction without a key or an end",
            b"MULTI\r\n",
            &keyless,
            300,
        ),
    ];
    for (what, head, bytes, mebibytes) in rows {
        let neighbours = neighbours(&gateway);
        let before = gateway.breccia.process().resident_bytes()?;
        let mut stream = connect(&gateway)?;
        stream.write_all(head)?;
        let reading = read_on(stream.try_clone()?);
        let written = flood(&mut stream, bytes, mebibytes * MIB);
        let grown = grown(&mut gateway, before)?;
        println!(
            "{what}: {} MiB written, {grown} MiB more memory",
            written / MIB
        );
        ensure!(grown < 120, "{what}: grew by {grown} MiB");
        stream.shutdown(Shutdown::Both)?;
        let _ended = reading.join();
        untouched(what, neighbours)?;
    }
    Ok(())
}

#[test]
fn a_request_of_a_million_keys_is_answered_whole() -> Result<()> {
    let _others = among_others();
    let servers = Redis::many(3)?;
    let mut gateway = Gateway::over(&servers)?;
    let before = gateway.breccia.process().resident_bytes()?;
    let mut client = gateway.client()?;
    client.words("MSET k1 one k2 two k3 three")?;
    let count = 1_000_000;
    let mut bytes = format!("*{}\r\n$4\r\nMGET\r\n", count + 1).into_bytes();
    for number in 0..count {
        bytes.extend_from_slice(format!("$2\r\nk{}\r\n", number % 5).as_bytes());
    }
    client.send(&bytes)?;
    let reply = client.read_reply()?;
    let five: &[u8] = b"$-1\r\n$3\r\none\r\n$3\r\ntwo\r\n$5\r\nthree\r\n$-1\r\n";
    let head = format!("*{count}\r\n");
    ensure!(reply.starts_with(head.as_bytes()), "not a million values");
    ensure!(
        reply[head.len()..] == five.repeat(count / 5),
        "values in another order"
    );
    let grown = grown(&mut gateway, before)?;
    println!("a million keys: {grown} MiB more memory");
    ensure!(grown < 400, "grew by {grown} MiB");
    Ok(())
}
