//! Values of hundreds of MiB, which pass without being held: what comes out, what it costs, what is
//! refused, and that nobody else waits.
//!
//! What breaks in the middle is in `huge_faults`. Invariant: a value that is read is the one that was
//! written, byte for byte.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use breccia_testkit::{Certificates, Redis, RedisOptions, RespClient, resp};

use crate::common::{Config, Gateway, key_on};
use crate::driver::{Traffic, alone, among_others, no_errors, request};

pub(crate) const MIB: usize = 1 << 20;

/// A piece of a value; every value is made of it, turned by a number of its own.
fn block() -> Vec<u8> {
    let mut state = 1_u64;
    let mut byte = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state.to_be_bytes()[0]
    };
    (0..MIB).map(|_| byte()).collect()
}

/// What precedes the bytes of a value in `SET key`.
pub(crate) fn head(key: &str, size: usize) -> Vec<u8> {
    format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${size}\r\n", key.len()).into_bytes()
}

/// Writes so many bytes of a value.
pub(crate) fn send_value(stream: &mut impl Write, size: usize) -> Result<()> {
    let block = block();
    let mut left = size;
    while left > 0 {
        let count = left.min(block.len());
        stream.write_all(&block[..count])?;
        left -= count;
    }
    Ok(())
}

/// Reads the reply of a GET, which must be a value of this size.
pub(crate) fn receive_value(stream: &mut impl Read, size: usize) -> Result<()> {
    let header = format!("${size}\r\n").into_bytes();
    let mut begun = vec![0; header.len()];
    stream.read_exact(&mut begun).context("the header")?;
    ensure!(begun == header, "{} came", begun.escape_ascii());
    let (block, mut piece) = (block(), vec![0; MIB]);
    let mut left = size;
    while left > 0 {
        let count = left.min(block.len());
        stream.read_exact(&mut piece[..count])?;
        ensure!(piece[..count] == block[..count], "wrong bytes, {left} left");
        left -= count;
    }
    let mut end = [0; 2];
    stream.read_exact(&mut end)?;
    ensure!(&end == b"\r\n", "{} ends it", end.escape_ascii());
    Ok(())
}

/// Reads a reply of one line.
pub(crate) fn receive_line(stream: &mut impl Read) -> Result<String> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while line.last() != Some(&b'\n') {
        stream.read_exact(&mut byte).context("a reply")?;
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

/// A plain connection with patience.
pub(crate) fn open(address: &str) -> Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_mins(1)))?;
    stream.set_write_timeout(Some(Duration::from_mins(1)))?;
    Ok(stream)
}

/// Sets a value and reads the reply.
pub(crate) fn set(stream: &mut (impl Read + Write), key: &str, size: usize) -> Result<String> {
    stream.write_all(&head(key, size))?;
    send_value(stream, size)?;
    stream.write_all(b"\r\n")?;
    receive_line(stream)
}

/// Gets a value, which must be of this size.
pub(crate) fn get(stream: &mut (impl Read + Write), key: &str, size: usize) -> Result<()> {
    stream.write_all(&request(&format!("GET {key}")))?;
    receive_value(stream, size)
}

/// The most memory that the gateway ever had.
fn peak(gateway: &mut Gateway) -> Result<usize> {
    let path = format!("/proc/{}/status", gateway.breccia.process().id());
    let status = std::fs::read_to_string(path)?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next());
    Ok(kib.context("no VmHWM")?.parse::<usize>()? * 1024)
}

#[test]
fn values_up_to_512_mib_pass_both_ways_in_less_than_32_mib() -> Result<()> {
    let _alone = alone();
    let servers = Redis::many(2)?;
    let mut gateway = Gateway::over(&servers)?;
    let mut client = open(&gateway.address())?;
    ensure!(set(&mut client, "small", 10)? == "+OK", "a small value");
    get(&mut client, "small", 10)?;
    let before = peak(&mut gateway)?;
    for (key, size) in [("a", 256 * MIB), ("b", 512 * MIB)] {
        ensure!(set(&mut client, key, size)? == "+OK", "{size} bytes");
        get(&mut client, key, size)?;
    }
    let mut resp3 = RespClient::connect(&gateway.address())?;
    ensure!(resp3.words("HELLO 3")?.starts_with(b"%7"), "RESP3");
    let stream = resp3.sender()?;
    get(&mut &stream, "b", 512 * MIB)?;
    let grown = peak(&mut gateway)?.saturating_sub(before);
    println!("{} KiB more than before", grown / 1024);
    ensure!(grown < 32 * MIB, "{grown} bytes more");
    Ok(())
}

#[test]
fn several_parts_of_a_request_or_reply_may_be_large() -> Result<()> {
    let _others = among_others();
    let servers = Redis::many(2)?;
    let mut gateway = Gateway::over(&servers)?;
    let mut client = open(&gateway.address())?;
    let before = peak(&mut gateway)?;
    client.write_all(b"*8\r\n$5\r\nRPUSH\r\n$1\r\nl\r\n")?;
    for size in [3, 40 * MIB, 0, 40 * MIB, 40 * MIB, 5] {
        client.write_all(format!("${size}\r\n").as_bytes())?;
        send_value(&mut client, size)?;
        client.write_all(b"\r\n")?;
    }
    ensure!(receive_line(&mut client)? == ":6", "RPUSH");
    client.write_all(&request("LRANGE l 0 -1"))?;
    ensure!(receive_line(&mut client)? == "*6", "LRANGE");
    for size in [3, 40 * MIB, 0, 40 * MIB, 40 * MIB, 5] {
        receive_value(&mut client, size)?;
    }
    // Many small parts, too: 100 MiB of them.
    client.write_all(b"*25602\r\n$5\r\nRPUSH\r\n$1\r\nm\r\n")?;
    let part = [b"$4096\r\n", [b'x'; 4096].as_slice(), b"\r\n"].concat();
    let parts = part.repeat(256);
    for _ in 0..100 {
        client.write_all(&parts)?;
    }
    ensure!(receive_line(&mut client)? == ":25600", "RPUSH of many");
    client.write_all(&request("LRANGE m 0 -1"))?;
    let reply = receive_line(&mut client)?;
    ensure!(reply == "*25600", "LRANGE of many: {reply}");
    let mut came = vec![0; parts.len()];
    for _ in 0..100 {
        client.read_exact(&mut came)?;
        ensure!(came == parts, "other parts");
    }
    client.write_all(&request("PING"))?;
    ensure!(receive_line(&mut client)? == "+PONG", "what follows");
    let grown = peak(&mut gateway)?.saturating_sub(before);
    ensure!(grown < 32 * MIB, "{grown} bytes more");
    Ok(())
}

#[test]
fn large_values_pass_under_tls_on_both_sides() -> Result<()> {
    let _others = among_others();
    let files = Certificates::new()?;
    let redis = Redis::start(RedisOptions {
        tls: Some(files.clone()),
        ..RedisOptions::default()
    })?;
    let address = format!("localhost:{}", redis.tls_port().unwrap_or_default());
    let ca = format!("tls = {{ ca = '{}' }}", files.ca.display());
    let mut config = Config::new("redis")?.redis("r0", &address, &ca);
    config.stores = config.stores.replace("redis://", "rediss://");
    let gateway = config
        .listener(&format!(
            "tls = {{ cert = '{}', key = '{}' }}",
            files.server_cert.display(),
            files.server_key.display()
        ))
        .start()?;
    let folder = tempfile::tempdir()?;
    let value = folder.path().join("value");
    let mut file = std::fs::File::create(&value)?;
    send_value(&mut file, 40 * MIB)?;
    let cli = |words: &[&str], input: Option<&std::path::Path>| -> Result<Vec<u8>> {
        let mut command = std::process::Command::new("redis-cli");
        command.args(["--tls", "-p", &gateway.config.port.to_string(), "--cacert"]);
        command.arg(&files.ca).args(words);
        if let Some(path) = input {
            command.stdin(std::fs::File::open(path)?);
        }
        Ok(command.output()?.stdout)
    };
    let reply = cli(&["-x", "SET", "k"], Some(&value))?;
    ensure!(reply == b"OK\n", "{}", reply.escape_ascii());
    let mut back = cli(&["GET", "k"], None)?;
    ensure!(back.pop() == Some(b'\n'), "redis-cli ends with a line");
    ensure!(back == std::fs::read(&value)?, "{} bytes", back.len());
    Ok(())
}

#[test]
fn muted_replies_stay_muted_however_large() -> Result<()> {
    let _others = among_others();
    let servers = Redis::many(1)?;
    let gateway = Gateway::over(&servers)?;
    let mut client = open(&gateway.address())?;
    client.write_all(&request("CLIENT REPLY OFF"))?;
    client.write_all(&head("k", 20 * MIB))?;
    send_value(&mut client, 20 * MIB)?;
    client.write_all(b"\r\n")?;
    client.write_all(&request("GET k"))?;
    client.write_all(&request("CLIENT REPLY ON"))?;
    ensure!(receive_line(&mut client)? == "+OK", "CLIENT REPLY ON");
    client.write_all(&request("CLIENT REPLY SKIP"))?;
    client.write_all(&request("GET k"))?;
    client.write_all(&request("STRLEN k"))?;
    let reply = receive_line(&mut client)?;
    ensure!(reply == ":20971520", "STRLEN: {reply}");
    get(&mut client, "k", 20 * MIB)
}

#[test]
fn what_cannot_be_streamed_is_refused_beyond_a_bound_and_the_client_goes_on() -> Result<()> {
    let _others = among_others();
    let servers = Redis::many(2)?;
    let gateway = Gateway::over(&servers)?;
    let mut client = open(&gateway.address())?;
    let mut ask = |words: &[&str], more: usize| -> Result<String> {
        let count = words.len() + usize::from(more > 0);
        client.write_all(format!("*{count}\r\n").as_bytes())?;
        for word in words {
            client.write_all(format!("${}\r\n{word}\r\n", word.len()).as_bytes())?;
        }
        if more > 0 {
            client.write_all(format!("${more}\r\n").as_bytes())?;
            send_value(&mut client, more)?;
            client.write_all(b"\r\n")?;
        }
        receive_line(&mut client)
    };
    let refused = |reply: &str| reply.contains("max-held-request (67108864 bytes)");
    let reply = ask(&["EVAL", "return 1", "1", "k"], 65 * MIB)?;
    ensure!(refused(&reply), "EVAL: {reply}");
    let reply = ask(&["MSET", "a", "1", "b"], 65 * MIB)?;
    ensure!(refused(&reply), "MSET: {reply}");
    let reply = ask(&["NONSENSE"], 65 * MIB)?;
    ensure!(refused(&reply), "NONSENSE: {reply}");
    ensure!(ask(&["MULTI"], 0)? == "+OK", "MULTI");
    let reply = ask(&["SET", "k"], 65 * MIB)?;
    ensure!(refused(&reply), "SET in MULTI: {reply}");
    let reply = ask(&["EXEC"], 0)?;
    ensure!(reply.starts_with("-EXECABORT"), "EXEC: {reply}");
    ensure!(ask(&["SET", "k"], 65 * MIB)? == "+OK", "SET");
    ensure!(ask(&["MSET", "k"], 65 * MIB)? == "+OK", "MSET of one");
    ensure!(ask(&["STRLEN", "k"], 0)? == ":68157440", "STRLEN");
    // A server that takes less says so itself.
    for server in &servers {
        let words = "CONFIG SET proto-max-bulk-len 1mb";
        ensure!(server.client()?.words(words)? == b"+OK\r\n", "{words}");
    }
    let reply = ask(&["SET", "k"], 65 * MIB)?;
    ensure!(reply.contains("invalid bulk length"), "SET: {reply}");
    ensure!(ask(&["STRLEN", "k"], 0)? == ":68157440", "STRLEN again");
    let hits = gateway
        .breccia
        .metric("breccia_limit_hits_total{listener=\"main\",limit=\"max-held")?;
    ensure!(hits >= 4.0, "{hits} limits were met");
    Ok(())
}

#[test]
fn what_must_be_merged_whole_is_refused_beyond_a_bound() -> Result<()> {
    let _others = among_others();
    let servers = Redis::many(2)?;
    let gateway = Gateway::over(&servers)?;
    let mut client = open(&gateway.address())?;
    let keys = [key_on(0, 2, "m"), key_on(1, 2, "m")];
    ensure!(set(&mut client, &keys[0], 300 * MIB)? == "+OK", "SET");
    client.write_all(&request(&format!("MGET {} {}", keys[0], keys[1])))?;
    let reply = receive_line(&mut client)?;
    ensure!(reply.contains("larger than 256 MiB"), "{reply}");
    client.write_all(&request(&format!("MGET {}", keys[0])))?;
    ensure!(receive_line(&mut client)? == "*1", "MGET of one key");
    receive_value(&mut client, 300 * MIB)
}

/// Clients with one request in flight each get on while others send and read large values and deep
/// pipelines on the same shards: each gets more turns than the large ones have values.
#[test]
fn deep_pipelines_and_large_values_starve_nobody() -> Result<()> {
    let _alone = alone();
    let servers = Redis::many(2)?;
    let mut config = Config::new("redis")?;
    config.top = "workers = 1\n".to_owned();
    // Those who asked in the moment of the first large reply wait behind it: long, on a busy machine.
    let patient = "timeout = \"30s\"";
    let gateway = (0..)
        .zip(&servers)
        .fold(config, |config, (index, redis)| {
            config.redis(&format!("r{index}"), &redis.address(), patient)
        })
        .start()?;
    let address = gateway.address();
    let mut large = open(&address)?;
    ensure!(set(&mut large, "large", 16 * MIB)? == "+OK", "SET");
    let small = Traffic::start(&address, 20, Duration::ZERO, |client, number| {
        request(&format!("INCRBY small{client} {}", number % 2))
    });
    let deep = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&deep);
    let mut pipeline = RespClient::connect(&address)?;
    let mut sender = pipeline.sender()?;
    let batch = request("INCR deep").repeat(10_000);
    let sending = std::thread::spawn(move || while sender.write_all(&batch).is_ok() {});
    let reading = std::thread::spawn(move || {
        while pipeline.read_reply().is_ok_and(|reply| reply != b"") {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    for _ in 0..6 {
        get(&mut large, "large", 16 * MIB)?;
        ensure!(set(&mut large, "large", 16 * MIB)? == "+OK", "SET");
    }
    let answers = small.end()?;
    drop(gateway);
    let joined = [sending.join(), reading.join()];
    ensure!(joined.iter().all(Result::is_ok), "a thread panicked");
    let counts: Vec<usize> = answers.iter().map(Vec::len).collect();
    println!("{counts:?} small, {} deep", deep.load(Ordering::Relaxed));
    for answers in &answers {
        no_errors("a small client", answers)?;
    }
    let (least, most) = (counts.iter().min(), counts.iter().max());
    let (Some(least), Some(most)) = (least, most) else {
        bail!("no clients");
    };
    ensure!(*least > 12, "{least} turns of a small client");
    ensure!(*most < 3 * least, "{least} to {most} turns");
    ensure!(deep.load(Ordering::Relaxed) > 10_000, "the deep pipeline");
    Ok(())
}

#[test]
fn a_value_is_streamed_under_every_name_that_one_key_has() -> Result<()> {
    let _others = among_others();
    let servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let mut client = open(&gateway.address())?;
    let value = "v".repeat(70 * MIB);
    let rows: [(&[&str], &[&str], &str); 8] = [
        (&["SET", "s"], &["EX", "100"], "+OK"),
        (&["SETEX", "s", "100"], &[], "+OK"),
        (&["APPEND", "p"], &[], ":73400320"),
        (&["SETRANGE", "r", "0"], &[], ":73400320"),
        (&["HSET", "h", "f"], &["g", "1"], ":2"),
        (&["SADD", "e"], &["m"], ":2"),
        (&["ZADD", "z", "1"], &[], ":1"),
        (&["set", "n"], &["XX"], "$-1"),
    ];
    for (before, after, wanted) in rows {
        let words: Vec<&[u8]> = before
            .iter()
            .copied()
            .chain([value.as_str()])
            .chain(after.iter().copied())
            .map(str::as_bytes)
            .collect();
        client.write_all(&resp::encode(&words))?;
        let reply = receive_line(&mut client)?;
        ensure!(reply == wanted, "{before:?}: {reply}");
    }
    Ok(())
}
