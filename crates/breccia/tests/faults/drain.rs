//! SIGTERM while clients are at work.
//!
//! Invariant: whatever a shard has run was answered, and no client meets a reset: counters on the
//! shards equal the replies that clients have read.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use breccia_testkit::{Fault, FaultyProxy, Redis, Signal};

use crate::common::{Config, Gateway};
use crate::driver::{among_others, request};

/// Sends increments of its own counter, a batch every few milliseconds, until it cannot; then reads
/// to the end. Answers how many replies came.
fn pour(address: &str, client: usize) -> Result<JoinHandle<Result<i64>>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    let mut writing = stream.try_clone()?;
    let batch = request(&format!("INCR drained{client}")).repeat(20);
    std::thread::spawn(move || {
        while writing.write_all(&batch).is_ok() {
            std::thread::sleep(Duration::from_millis(3));
        }
    });
    Ok(std::thread::spawn(move || {
        let (mut replies, mut buffer) = (0, vec![0; 64 * 1024]);
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return Ok(replies),
                Ok(count) => {
                    let bytes = buffer.get(..count).unwrap_or_default();
                    replies += i64::try_from(bytes.split(|byte| *byte == b'\n').count() - 1)?;
                }
                Err(error) => return Err(anyhow!("after {replies} replies: {error}")),
            }
        }
    }))
}

#[test]
fn clients_that_never_stop_sending_are_answered_and_let_go() -> Result<()> {
    let _others = among_others();
    let servers = Redis::many(3)?;
    let mut gateway = Gateway::over(&servers)?;
    let address = gateway.address();
    let clients: Vec<_> = (0..12)
        .map(|client| pour(&address, client))
        .collect::<Result<_>>()?;
    std::thread::sleep(Duration::from_millis(500));
    let begun = Instant::now();
    let status = gateway.breccia.terminate(Duration::from_secs(25))?;
    println!("the drain took {:?}", begun.elapsed());
    assert_eq!(status.code(), Some(0), "{}", gateway.breccia.log());
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    let (mut total, mut faults) = (0, Vec::new());
    for (client, thread) in clients.into_iter().enumerate() {
        let key = format!("drained{client}");
        let home = breccia_core::HashKind::Xxh3_64.hash(key.as_bytes()) % 3;
        let server = &servers[usize::try_from(home)?];
        let found = server.client()?.reply(&format!("GET {key}"))?;
        let ran: i64 = String::from_utf8_lossy(found.bytes().unwrap_or(b"0")).parse()?;
        match thread.join().map_err(|_| anyhow!("a client panicked"))? {
            Ok(replies) if replies == ran => total += replies,
            Ok(replies) => faults.push(format!("{key}: {ran} ran, {replies} were answered")),
            Err(error) => faults.push(format!("{key}: {ran} ran; {error}")),
        }
    }
    ensure!(faults.is_empty(), "{faults:?}");
    ensure!(total > 1_000, "{total} replies: hardly anything was tested");
    Ok(())
}

#[test]
fn requests_in_flight_are_answered_and_unread_bytes_bring_no_reset() -> Result<()> {
    let _others = among_others();
    let server = Redis::new()?;
    let proxy = FaultyProxy::start(&server.address())?;
    let mut gateway = Config::new("redis")?
        .redis("r0", &proxy.address(), "")
        .start()?;
    let mut streams = Vec::new();
    for client in 0..20 {
        let mut stream = TcpStream::connect(gateway.address())?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        if client == 0 {
            // The shared connections exist before replies are held back.
            stream.write_all(&request("SET warm 1"))?;
            let _ok = stream.read(&mut [0; 16])?;
        }
        streams.push(stream);
    }
    proxy.set(Fault::Delay(Duration::from_millis(400)));
    for stream in &mut streams {
        stream.write_all(&request("ECHO first"))?;
        stream.write_all(&request("INCR counter").repeat(50))?;
        stream.write_all(&request("ECHO last"))?;
    }
    std::thread::sleep(Duration::from_millis(150));
    gateway.breccia.process().signal(Signal::Term)?;
    std::thread::sleep(Duration::from_millis(100));
    for stream in &mut streams {
        // Nobody will read this; it must not turn the close into a reset.
        let _may_fail = stream.write_all(&b"x".repeat(100_000));
    }
    std::thread::sleep(Duration::from_millis(800));
    for (client, stream) in streams.iter_mut().enumerate() {
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer).into_owned();
        ensure!(
            end.is_ok(),
            "client {client}: {end:?} after {} bytes",
            answer.len()
        );
        ensure!(
            text.starts_with("$5\r\nfirst\r\n"),
            "client {client}: {text:?}"
        );
        let increments = text.lines().filter(|line| line.starts_with(':')).count();
        ensure!(
            increments == 50,
            "client {client}: {increments} of 50 were answered"
        );
        ensure!(text.contains("$4\r\nlast\r\n"), "client {client}: {text:?}");
    }
    let status = gateway.breccia.process().wait(Duration::from_secs(10))?;
    assert_eq!(status.code(), Some(0), "{}", gateway.breccia.log());
    assert_eq!(server.client()?.words("GET counter")?, b"$4\r\n1000\r\n");
    Ok(())
}

#[test]
fn requests_that_lie_in_the_socket_are_answered_too() -> Result<()> {
    let _others = among_others();
    let servers = Redis::many(1)?;
    let mut gateway = Config::new("redis")?.over(&servers).start()?;
    let stream = TcpStream::connect(gateway.address())?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    // Less than a socket's receive buffer: what lies with the sender has not been received.
    let count = 10_000;
    let (mut reading, mut writing) = (stream.try_clone()?, stream.try_clone()?);
    // A connection that is not accepted yet when the drain begins is nobody's.
    writing.write_all(b"PING\r\n")?;
    reading.read_exact(&mut [0; 7])?;
    let reader = std::thread::spawn(move || {
        let mut answer = Vec::new();
        reading
            .read_to_end(&mut answer)
            .map(|_| answer.len() / b"+PONG\r\n".len())
    });
    // Frozen while they are sent, so that all of them wait in the socket.
    gateway.breccia.process().signal(Signal::Stop)?;
    writing.write_all(&b"PING\r\n".repeat(count))?;
    std::thread::sleep(Duration::from_millis(50));
    gateway.breccia.process().signal(Signal::Term)?;
    gateway.breccia.process().signal(Signal::Cont)?;
    let answered = reader.join().map_err(|_| anyhow!("it panicked"))??;
    assert_eq!(
        answered, count,
        "requests that had arrived before the signal"
    );
    let status = gateway.breccia.process().wait(Duration::from_secs(10))?;
    assert_eq!(status.code(), Some(0), "{}", gateway.breccia.log());
    Ok(())
}

#[test]
fn subscribers_blocked_and_idle_clients_are_let_go_at_once() -> Result<()> {
    let _others = among_others();
    let servers = Redis::many(2)?;
    let mut gateway = Gateway::over(&servers)?;
    let mut subscriber = gateway.client()?;
    subscriber.words("SUBSCRIBE channel")?;
    let mut blocked = gateway.client()?;
    blocked.send(&request("BLPOP none 0"))?;
    let mut watching = gateway.client()?;
    watching.words("WATCH a")?;
    let mut open = gateway.client()?;
    open.pipeline(&["MULTI", "SET a 1"])?;
    let mut half = gateway.client()?;
    half.send(b"*2\r\n$3\r\nGET\r\n$1")?;
    let mut idle = gateway.client()?;
    idle.words("PING")?;
    std::thread::sleep(Duration::from_millis(100));
    let begun = Instant::now();
    gateway.breccia.process().signal(Signal::Term)?;
    for client in [
        &mut subscriber,
        &mut blocked,
        &mut watching,
        &mut open,
        &mut half,
        &mut idle,
    ] {
        assert!(client.closed());
    }
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    let status = gateway.breccia.process().wait(Duration::from_secs(10))?;
    assert_eq!(status.code(), Some(0), "{}", gateway.breccia.log());
    assert_eq!(servers[0].client()?.words("EXISTS a")?, b":0\r\n");
    Ok(())
}
