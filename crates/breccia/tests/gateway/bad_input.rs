//! What no well-meaning client sends: broken frames, giants, silence.
//!
//! Invariant: another client, served beside the bad one, notices nothing.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Result;
use breccia_testkit::{Breccia, Redis, RespClient, wait_until};

use crate::common::{Config, Gateway};

const MIB: u64 = 1024 * 1024;

/// Everything the server says until it closes, or until it is silent for a second.
fn rest(stream: &mut TcpStream) -> Result<(Vec<u8>, bool)> {
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return Ok((answer, true)),
            Ok(count) => answer.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                return Ok((answer, false));
            }
            Err(_) => return Ok((answer, true)),
        }
    }
}

#[test]
fn broken_frames_are_answered_as_redis_does_and_closed() -> Result<()> {
    let (direct, servers) = (Redis::new()?, Redis::many(2)?);
    let gateway = Gateway::over(&servers)?;
    let mut good = gateway.client()?;
    for bytes in [
        b"*3\r\n$-1\r\n".as_slice(),
        b"*1\r\n$-5\r\n",
        b"*1\r\n$99999999999\r\n",
        b"*1\r\n$abc\r\n",
        b"*1\r\nGET\r\n",
        b"*99999999999\r\n",
        b"*abc\r\n",
        b"*2\r\n$3\r\nGET\r\n:1\r\n",
        b"GET \"unbalanced\r\n",
        b"PING\r\n*1\r\n$x\r\n",
    ] {
        let mut answers = Vec::new();
        for address in [direct.address(), gateway.address()] {
            let mut stream = TcpStream::connect(&address)?;
            stream.write_all(bytes)?;
            answers.push(rest(&mut stream)?);
        }
        let shown = bytes.escape_ascii();
        assert_eq!(
            answers[1].0.escape_ascii().to_string(),
            answers[0].0.escape_ascii().to_string(),
            "{shown}"
        );
        assert!(answers[1].1, "{shown}: the connection must be closed");
        assert_eq!(good.words("PING")?, b"+PONG\r\n", "{shown}");
    }
    Ok(())
}

#[test]
fn limits_are_kept_named_and_counted() -> Result<()> {
    let servers = Redis::many(2)?;
    let gateway = Config::new("redis")?
        .over(&servers)
        .listener("max-request-size = \"1MiB\"\nmax-arguments = 100\nmax-clients = 5")
        .start()?;
    let mut good = gateway.client()?;
    let check = |bytes: &[u8], name: &str| -> Result<()> {
        let mut stream = TcpStream::connect(gateway.address())?;
        stream.write_all(bytes)?;
        let (answer, closed) = rest(&mut stream)?;
        let answer = answer.escape_ascii().to_string();
        assert!(answer.contains(name) && closed, "{name}: {answer}");
        Ok(())
    };
    check(b"*2\r\n$3\r\nGET\r\n$2000000\r\n", "max-request-size")?;
    check(b"*101\r\n$4\r\nMGET\r\n", "max-arguments")?;
    good.words("PING")?;

    let crowd: Vec<RespClient> = (0..4).map(|_| gateway.client()).collect::<Result<_>>()?;
    let mut refused = gateway.client()?;
    assert_eq!(
        refused.read_reply()?,
        b"-ERR max number of clients reached\r\n"
    );
    drop(crowd);
    wait_until(Duration::from_secs(3), "a free place", || {
        let mut client = gateway.client()?;
        Ok(client
            .words("PING")
            .ok()
            .filter(|reply| reply == b"+PONG\r\n"))
    })?;
    let (_, metrics) = gateway.breccia.admin("/metrics")?;
    for limit in ["max-request-size", "max-arguments", "max-clients"] {
        let counted = metrics
            .lines()
            .any(|line| line.contains(limit) && !line.starts_with('#') && !line.ends_with(" 0"));
        assert!(counted, "{limit} is not counted:\n{metrics}");
    }
    Ok(())
}

#[test]
fn idle_clients_are_closed_when_told_so() -> Result<()> {
    let servers = Redis::many(1)?;
    let gateway = Config::new("redis")?
        .over(&servers)
        .listener("idle-timeout = \"1s\"")
        .start()?;
    let mut client = gateway.client()?;
    client.words("PING")?;
    client.set_patience(Duration::from_secs(5))?;
    let begun = Instant::now();
    assert!(client.closed());
    assert!(begun.elapsed() > Duration::from_millis(700));
    Ok(())
}

#[test]
fn open_requests_hold_little_memory() -> Result<()> {
    let servers = Redis::many(1)?;
    let mut gateway = Gateway::over(&servers)?;
    let before = gateway.breccia.process().resident_bytes()?;
    let mut streams = Vec::new();
    // A million arguments announced by each, and a million small ones begun by one.
    for _ in 0..200 {
        let mut stream = TcpStream::connect(gateway.address())?;
        stream.write_all(b"*1000000\r\n$4\r\nMGET\r\n$60000000\r\n")?;
        streams.push(stream);
    }
    let mut many = TcpStream::connect(gateway.address())?;
    let _end =
        many.write_all(&[b"*1000000\r\n".as_slice(), &b"$1\r\na\r\n".repeat(999_999)].concat());
    std::thread::sleep(Duration::from_millis(500));
    let grown = gateway
        .breccia
        .process()
        .resident_bytes()?
        .saturating_sub(before);
    assert!(grown < 120 * MIB, "grew by {} MiB", grown / MIB);
    assert_eq!(gateway.client()?.words("PING")?, b"+PONG\r\n");
    Ok(())
}

#[test]
fn a_million_open_requests_are_bounded() -> Result<()> {
    let servers = Redis::many(1)?;
    let mut gateway = Gateway::over(&servers)?;
    let before = gateway.breccia.process().resident_bytes()?;
    let mut stream = TcpStream::connect(gateway.address())?;
    stream.set_write_timeout(Some(Duration::from_millis(500)))?;
    // Never a whole request: the gateway may answer with an error or stop reading, not grow.
    let _end = stream.write_all(&b"*1000000\r\n".repeat(1_000_000));
    std::thread::sleep(Duration::from_millis(300));
    let grown = gateway
        .breccia
        .process()
        .resident_bytes()?
        .saturating_sub(before);
    assert!(grown < 100 * MIB, "grew by {} MiB", grown / MIB);
    assert_eq!(gateway.client()?.words("PING")?, b"+PONG\r\n");
    Ok(())
}

#[test]
fn a_half_closed_client_gets_its_replies() -> Result<()> {
    let servers = Redis::many(2)?;
    let gateway = Gateway::over(&servers)?;
    let mut stream = TcpStream::connect(gateway.address())?;
    stream.write_all(b"SET a 1\r\nGET a\r\nMGET a b c d\r\n")?;
    stream.shutdown(Shutdown::Write)?;
    let (answer, closed) = rest(&mut stream)?;
    assert_eq!(
        answer,
        b"+OK\r\n$1\r\n1\r\n*4\r\n$1\r\n1\r\n$-1\r\n$-1\r\n$-1\r\n"
    );
    assert!(closed);
    Ok(())
}

#[test]
fn a_client_that_never_reads_is_cut_and_costs_nobody() -> Result<()> {
    let servers = Redis::many(1)?;
    let mut gateway = Config::new("redis")?
        .over(&servers)
        .listener("reply-buffer = \"1MiB\"\nwrite-timeout = \"2s\"")
        .start()?;
    let mut good = gateway.client()?;
    good.call(&[b"SET", b"big", &vec![b'x'; 200_000]])?;
    let before = gateway.breccia.process().resident_bytes()?;
    let mut deaf = TcpStream::connect(gateway.address())?;
    deaf.set_write_timeout(Some(Duration::from_millis(200)))?;
    let begun = Instant::now();
    let mut cut = false;
    while begun.elapsed() < Duration::from_secs(15) && !cut {
        match deaf.write_all(&b"GET big\r\n".repeat(100)) {
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => cut = true,
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
        let asked = Instant::now();
        assert_eq!(good.words("PING")?, b"+PONG\r\n");
        assert!(asked.elapsed() < Duration::from_millis(500));
        let grown = gateway
            .breccia
            .process()
            .resident_bytes()?
            .saturating_sub(before);
        assert!(grown < 150 * MIB, "grew by {} MiB", grown / MIB);
    }
    assert!(
        cut,
        "a client that does not read for write-timeout must be closed"
    );
    Ok(())
}

#[test]
fn big_values_pass_both_ways() -> Result<()> {
    let servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let mut client = gateway.client()?;
    let mut other = gateway.client()?;
    for size in [65_535, 65_536, 65_537, 1_000_000, 1_048_577, 20_000_000] {
        let value: Vec<u8> = (0..size)
            .map(|at: u32| at.to_le_bytes()[0] ^ 0x5a)
            .collect();
        let key = format!("big{size}");
        assert_eq!(
            client.call(&[b"SET", key.as_bytes(), &value])?,
            b"+OK\r\n",
            "{size}"
        );
        for _ in 0..2 {
            let reply = client.call(&[b"GET", key.as_bytes()])?;
            assert_eq!(
                reply.len(),
                value.len() + size.to_string().len() + 5,
                "{size}"
            );
            assert!(
                reply.ends_with(&[&value[value.len() - 50..], b"\r\n"].concat()),
                "{size}"
            );
        }
        assert_eq!(other.words("PING")?, b"+PONG\r\n");
        assert_eq!(
            client.words(&format!("STRLEN {key}"))?,
            format!(":{size}\r\n").as_bytes()
        );
    }
    Ok(())
}

#[test]
fn check_names_every_fault_at_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let text = "wokers = 2\n[store.a]\ntype = \"redis\"\nurl = \"redis://127.0.0.1:1\"\ntimout = \"5s\"\n\
                [store.b]\ntype = \"sharded-in-memory\"\nstores = [\"a\", \"nowhere\"]\n\
                [listener.l]\nprotocol = \"redis\"\nbind = \"127.0.0.1:1\"\nstore = \"b\"\ndeadline = \"soon\"\n";
    std::fs::write(folder.path().join("bad.toml"), text)?;
    let output = Breccia::run(folder.path(), &["check", "--config", "bad.toml"])?;
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    for wanted in [
        "bad.toml:1:",
        "wokers",
        "workers",
        "bad.toml:5:",
        "timout",
        "timeout",
        "nowhere",
        "deadline",
        "soon",
    ] {
        assert!(
            errors.contains(wanted),
            "{wanted:?} is missing in:\n{errors}"
        );
    }
    Ok(())
}
