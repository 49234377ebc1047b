//! Clients that read large values slowly, or write them after they have read some: nobody waits for
//! them too long, and they are not harmed by their own replies.
//!
//! What breaks meanwhile is in `huge_faults`. Invariant: a request is told to have an unknown outcome
//! only when a server is at fault.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use breccia_net::stream::{Socket, Stream};
use breccia_net::tls::{TlsClient, TlsClientOptions};
use breccia_testkit::{Certificates, Redis, connect_narrow, resp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{Config, Gateway, key_on};
use crate::driver::{alone, among_others, request};
use crate::huge::{MIB, get, open, receive_line, receive_value, set};

#[test]
fn a_large_value_is_written_after_larger_ones_were_read() -> Result<()> {
    let _others = among_others();
    let servers = Redis::many(2)?;
    let gateway = Gateway::over(&servers)?;
    let keys = [key_on(0, 2, "m"), key_on(1, 2, "m")];
    let mut client = open(&gateway.address())?;
    for key in &keys {
        ensure!(set(&mut client, key, 6 * MIB)? == "+OK", "SET");
    }
    client.write_all(&request(&format!("MGET {} {}", keys[0], keys[1])))?;
    ensure!(receive_line(&mut client)? == "*2", "MGET");
    receive_value(&mut client, 6 * MIB)?;
    receive_value(&mut client, 6 * MIB)?;
    ensure!(set(&mut client, "x", 20 * MIB)? == "+OK", "SET after MGET");

    let gateway = Config::new("redis")?
        .redis("r0", &servers[0].address(), "")
        .listener("reply-buffer = \"512KiB\"\nmax-in-flight = 1")
        .start()?;
    let mut client = open(&gateway.address())?;
    ensure!(set(&mut client, "x", 2 * MIB)? == "+OK", "SET");
    get(&mut client, "x", 2 * MIB)?;
    ensure!(set(&mut client, "x", 20 * MIB)? == "+OK", "SET after GET");
    Ok(())
}

/// Reads a value, and pauses after each MiB.
fn slowly(client: &mut impl Read, size: usize, pause: Duration) -> Result<()> {
    ensure!(receive_line(client)? == format!("${size}"), "header");
    let mut piece = vec![0; MIB];
    for _ in 0..size / MIB {
        client.read_exact(&mut piece)?;
        std::thread::sleep(pause);
    }
    ensure!(receive_line(client)?.is_empty(), "its end");
    Ok(())
}

#[test]
fn what_a_slow_reader_asked_for_behind_its_value_is_answered() -> Result<()> {
    let _others = among_others();
    let server = Redis::new()?;
    let gateway = Config::new("redis")?
        .redis("r0", &server.address(), "timeout = \"1s\"")
        .start()?;
    let mut client = open(&gateway.address())?;
    ensure!(set(&mut client, "large", 64 * MIB)? == "+OK", "SET");
    let both = [request("GET large"), request("INCR n")].concat();
    client.write_all(&both)?;
    slowly(&mut client, 64 * MIB, Duration::from_millis(50))?;
    ensure!(receive_line(&mut client)? == ":1", "INCR");
    // One long pause, too.
    client.write_all(&both)?;
    std::thread::sleep(Duration::from_millis(1500));
    slowly(&mut client, 64 * MIB, Duration::ZERO)?;
    let reply = receive_line(&mut client)?;
    ensure!(reply == ":2", "INCR after a pause: {reply}");
    Ok(())
}

/// Keeps a server busy, so that what is sent to it meanwhile comes together.
fn keep_busy(server: &Redis) -> Result<TcpStream> {
    let mut direct = open(&server.address())?;
    let script = b"local i = 0 while i < 6000000 do i = i + 1 end return i";
    direct.write_all(&resp::encode(&[b"EVAL", script, b"0"]))?;
    std::thread::sleep(Duration::from_millis(3));
    Ok(direct)
}

#[test]
fn others_are_answered_though_somebody_before_them_reads_slowly_and_steadily() -> Result<()> {
    let _alone = alone();
    let server = Redis::new()?;
    let mut config = Config::new("redis")?;
    config.top = "workers = 1\n".to_owned();
    let gateway = config
        .redis("r0", &server.address(), "timeout = \"2s\"\nconnections = 1")
        .start()?;
    let mut writer = open(&gateway.address())?;
    ensure!(set(&mut writer, "large", 64 * MIB)? == "+OK", "SET");
    let mut cut = 0;
    for turn in 1..=4 {
        let (mut reader, mut other) = (open(&gateway.address())?, open(&gateway.address())?);
        for client in [&mut other, &mut reader] {
            client.write_all(&request("GET small"))?;
            receive_line(client)?;
        }
        let _busy = keep_busy(&server)?;
        reader.write_all(&request("GET large"))?;
        std::thread::sleep(Duration::from_millis(3));
        other.write_all(&request("INCR n"))?;
        let begun = Instant::now();
        let waiting = std::thread::spawn(move || (receive_line(&mut other), begun.elapsed()));
        let read = slowly(&mut reader, 64 * MIB, Duration::from_millis(50));
        cut += usize::from(read.is_err());
        let Ok((reply, took)) = waiting.join() else {
            anyhow::bail!("a thread panicked");
        };
        let reply = reply?;
        println!("{turn}: {reply} after {took:?}, reader {read:?}");
        ensure!(reply == format!(":{turn}"), "{reply} after {took:?}");
    }
    ensure!(cut > 0, "nobody ever waited behind the reader");
    Ok(())
}

#[test]
fn a_large_value_behind_a_frozen_shard_harms_neither_its_reader_nor_others() -> Result<()> {
    let _alone = alone();
    let mut servers = Redis::many(2)?;
    let mut config = Config::new("redis")?;
    config.top = "workers = 1\n".to_owned();
    let more = "timeout = \"2s\"\nconnections = 1";
    let gateway = config
        .redis("r0", &servers[0].address(), more)
        .redis("r1", &servers[1].address(), more)
        .start()?;
    let [frozen, large, small] = [(0, "f"), (1, "l"), (1, "s")].map(|(at, it)| key_on(at, 2, it));
    ensure!(
        set(&mut open(&gateway.address())?, &large, 8 * MIB)? == "+OK",
        "SET"
    );
    let (mut reader, mut other) = (open(&gateway.address())?, open(&gateway.address())?);
    for (client, key) in [(&mut other, &small), (&mut reader, &frozen)] {
        client.write_all(&request(&format!("GET {key}")))?;
        receive_line(client)?;
    }
    servers[0].sigstop()?;
    let _busy = keep_busy(&servers[1])?;
    let both = [&frozen, &large].map(|key| request(&format!("GET {key}")));
    reader.write_all(&both.concat())?;
    std::thread::sleep(Duration::from_millis(3));
    other.write_all(&request(&format!("INCR {small}")))?;
    let reply = receive_line(&mut other)?;
    ensure!(reply == ":1", "the other: {reply}");
    let first = receive_line(&mut reader).context("the frozen one")?;
    ensure!(first.starts_with('-'), "{first}");
    let second = receive_line(&mut reader).context("the large one")?;
    println!("{first} / {second}");
    match second.strip_prefix('$') {
        Some(_) => {
            let mut value = vec![0; 8 * MIB + 2];
            reader.read_exact(&mut value)?;
        }
        None => ensure!(second.contains("before that to an earlier"), "{second}"),
    }
    servers[0].sigcont()?;
    reader.write_all(&request("PING"))?;
    let reply = receive_line(&mut reader)?;
    ensure!(reply == "+PONG", "{reply}");
    Ok(())
}

#[test]
fn a_line_of_some_mib_passes() -> Result<()> {
    let _others = among_others();
    let server = Redis::new()?;
    let gateway = Config::new("redis")?
        .redis("r0", &server.address(), "")
        .start()?;
    let mut client = std::io::BufReader::new(open(&gateway.address())?);
    let mut ask = |script: &[u8], before: usize| -> Result<usize> {
        let request = resp::encode(&[b"EVAL", script, b"0"]);
        client.get_mut().write_all(&request)?;
        for _ in 0..before {
            receive_line(&mut client)?;
        }
        Ok(receive_line(&mut client)?.len())
    };
    let script = b"return redis.status_reply(string.rep('x', 3000000))";
    ensure!(ask(script, 0)? == 3_000_001, "alone");
    let script = b"local t = {} for i = 1, 40000 do t[i] = string.rep('x', 50) end \
        t[40001] = {ok = string.rep('y', 3000000)} return t";
    ensure!(ask(script, 1 + 2 * 40_000)? == 3_000_001, "in an array");
    Ok(())
}

#[test]
fn who_reads_slowly_under_tls_but_goes_on_is_not_cut() -> Result<()> {
    const VALUE: usize = 500_000;
    const REPLIES: usize = 12;
    let _others = among_others();
    let files = Certificates::new()?;
    let servers = Redis::many(1)?;
    let gateway = Config::new("redis")?
        .redis("r0", &servers[0].address(), "")
        .listener(&format!(
            "write-timeout = \"1s\"\ntls = {{ cert = '{}', key = '{}' }}",
            files.server_cert.display(),
            files.server_key.display()
        ))
        .start()?;
    let value = "v".repeat(VALUE);
    ensure!(servers[0].client()?.words(&format!("SET k {value}"))? == b"+OK\r\n");
    let options = TlsClientOptions {
        ca: Some(files.ca.clone()),
        ..TlsClientOptions::default()
    };
    let client = TlsClient::new(&options, "127.0.0.1")?;
    let socket = connect_narrow(&gateway.address(), 64 * 1024)?;
    socket.set_nonblocking(true)?;
    let expected = (format!("${VALUE}\r\n").len() + VALUE + 2) * REPLIES;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let begun = Instant::now();
    runtime.block_on(async {
        let socket = Socket::Tcp(tokio::net::TcpStream::from_std(socket)?.into());
        let mut stream = Stream::TlsClient(Box::new(client.handshake(socket).await?));
        stream.write_all(&request("GET k").repeat(REPLIES)).await?;
        let (mut space, mut got) = (vec![0; 16 * 1024], 0);
        while got < expected {
            let count = stream.read(&mut space).await?;
            ensure!(count > 0, "cut after {got} of {expected} bytes");
            got += count;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    })?;
    ensure!(
        begun.elapsed() > Duration::from_secs(3),
        "{:?} is no test of a limit of a second",
        begun.elapsed()
    );
    Ok(())
}
