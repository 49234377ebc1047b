//! How a gateway ends, and how it lives when file descriptors run out.
//!
//! Not tests of commands. Invariant: every wait is bounded, so a gateway that hangs fails the test.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use breccia_testkit::{
    Breccia, Process, Redis, RespClient, Signal, connect_narrow, free_port, http, wait_until,
};

const PING: &[&[u8]] = &[b"PING"];
/// What the socket of a client takes that reads late.
const ROOM: usize = 2304;

fn over(redis: &Redis, listener: u16) -> String {
    format!(
        "[store.r]\ntype = \"redis\"\nurl = \"{}\"\nstall-gate = \"4s\"\n\
         [listener.main]\nprotocol = \"redis\"\nbind = \"127.0.0.1:{listener}\"\nstore = \"r\"\n\
         deadline = \"5s\"\n",
        redis.url()
    )
}

struct Fixture {
    redis: Redis,
    gateway: Breccia,
    client: RespClient,
}

/// A gateway over one frozen Redis, and a client whose request is in flight to it.
fn waiting(extra: &str) -> Fixture {
    let mut redis = Redis::new().expect("a Redis");
    let listener = free_port().expect("a port");
    let config = format!("{extra}{}", over(&redis, listener));
    let gateway = Breccia::start(&config).expect("it starts");
    let mut client = RespClient::connect(&format!("127.0.0.1:{listener}")).expect("a client");
    client
        .expect_ok(&[b"SET", b"a", b"1"])
        .expect("it is stored");
    redis.sigstop().expect("it is frozen");
    client.send(b"GET a\r\n").expect("it is sent");
    std::thread::sleep(Duration::from_millis(100));
    Fixture {
        redis,
        gateway,
        client,
    }
}

#[test]
fn a_drain_answers_what_was_received_and_exits_with_0() {
    let Fixture {
        mut redis,
        mut gateway,
        mut client,
    } = waiting("");
    gateway.process().signal(Signal::Term).expect("a signal");
    std::thread::sleep(Duration::from_millis(300));
    assert!(
        gateway.process().ended().is_none(),
        "it waits for the request in flight"
    );
    assert_eq!(gateway.admin("/readyz").expect("an answer").0, 503);
    redis.sigcont().expect("it thaws");
    assert_eq!(client.read_reply().expect("the reply"), b"$1\r\n1\r\n");
    assert!(
        client.closed(),
        "the connection is closed after the last reply"
    );
    let status = gateway
        .process()
        .wait(Duration::from_secs(5))
        .expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", gateway.log());
}

#[test]
fn a_drain_ends_with_drain_timeout() {
    let Fixture {
        mut gateway,
        redis: _redis,
        client: _client,
    } = waiting("drain-timeout = \"500ms\"\n");
    let begun = Instant::now();
    let status = gateway.terminate(Duration::from_secs(10)).expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", gateway.log());
    assert!(
        begun.elapsed() > Duration::from_millis(450),
        "{:?}",
        begun.elapsed()
    );
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
    assert!(
        gateway.log().contains("connections were cut"),
        "{}",
        gateway.log()
    );
}

#[test]
fn a_second_signal_ends_at_once() {
    let Fixture {
        mut gateway,
        redis: _redis,
        client: _client,
    } = waiting("");
    gateway.process().signal(Signal::Term).expect("a signal");
    std::thread::sleep(Duration::from_millis(200));
    assert!(gateway.process().ended().is_none());
    let begun = Instant::now();
    let status = gateway.terminate(Duration::from_secs(5)).expect("it ends");
    assert_eq!(status.code(), Some(1), "{}", gateway.log());
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn clients_over_max_clients_are_told() {
    let redis = Redis::new().expect("a Redis");
    let listener = free_port().expect("a port");
    let config = over(&redis, listener) + "max-clients = 2\n";
    let gateway = Breccia::start(&config).expect("it starts");
    let address = format!("127.0.0.1:{listener}");
    let connect = || RespClient::connect(&address).expect("a client");
    let (mut first, mut second) = (connect(), connect());
    assert_eq!(first.call(PING).expect("a reply"), b"+PONG\r\n");
    assert_eq!(second.call(PING).expect("a reply"), b"+PONG\r\n");
    let told = connect().read_reply().expect("the refusal");
    assert_eq!(told, b"-ERR max number of clients reached\r\n");
    let limit = "breccia_limit_hits_total{listener=\"main\",limit=\"max-clients\"}";
    assert!(gateway.metric(limit).expect("the metric") > 0.5);
    drop(first);
    wait_until(Duration::from_secs(2), "a free place", || {
        Ok(connect()
            .call(PING)
            .is_ok_and(|reply| reply == b"+PONG\r\n")
            .then_some(()))
    })
    .expect("a place that was given back is taken");
}

/// A gateway that may open 64 files, over a Redis; its admin port.
fn short_of_files(folder: &std::path::Path, redis: &Redis, listener: u16) -> (Process, u16) {
    let admin = free_port().expect("a port");
    let config = format!(
        "workers = 1\n{}[admin]\nbind = \"127.0.0.1:{admin}\"\n[state]\ndir = \"state\"\n",
        over(redis, listener)
    );
    std::fs::write(folder.join("breccia.toml"), config).expect("the config is written");
    let binary = breccia_testkit::binary().expect("the binary");
    let mut command = Command::new("sh");
    command
        .args([
            "-c",
            "ulimit -n 64; exec \"$0\" serve --config breccia.toml",
        ])
        .arg(binary)
        .current_dir(folder);
    let mut process =
        Process::start(&mut command, "nothing", &folder.join("log")).expect("it starts");
    process
        .wait_ready(Duration::from_secs(10), || {
            http(admin, "GET", "/readyz")
                .ok()
                .filter(|(status, _)| *status == 200)
        })
        .expect("it gets ready");
    (process, admin)
}

#[test]
fn a_lack_of_file_descriptors_is_waited_out_and_logged_sparingly() {
    let redis = Redis::new().expect("a Redis");
    let folder = tempfile::tempdir().expect("a folder");
    let listener = free_port().expect("a port");
    let (process, _) = short_of_files(folder.path(), &redis, listener);
    let address = format!("127.0.0.1:{listener}");
    let mut first = RespClient::connect(&address).expect("a client");
    assert_eq!(first.call(&[b"GET", b"a"]).expect("a reply"), b"$-1\r\n");
    let crowd: Vec<TcpStream> = (0..100)
        .map(|_| TcpStream::connect(&address).expect("the backlog has room"))
        .collect();
    wait_until(Duration::from_secs(3), "the log line", || {
        Ok(process
            .log()
            .contains("connections cannot be accepted")
            .then_some(()))
    })
    .expect("it is logged");
    let before = process.cpu_seconds().expect("its CPU time");
    std::thread::sleep(Duration::from_secs(2));
    let used = process.cpu_seconds().expect("its CPU time") - before;
    assert!(
        used < 0.5,
        "it used {used} s of CPU in 2 s while it could accept nobody"
    );
    assert_eq!(
        process
            .log()
            .matches("connections cannot be accepted")
            .count(),
        1
    );
    assert_eq!(
        first.call(&[b"GET", b"a"]).expect("others are served"),
        b"$-1\r\n"
    );
    drop(crowd);
    wait_until(Duration::from_secs(5), "a new client to be served", || {
        let reply = RespClient::connect(&address).and_then(|mut client| client.call(PING));
        Ok(reply.is_ok_and(|reply| reply == b"+PONG\r\n").then_some(()))
    })
    .expect("it accepts again");
}

/// What lies in the queues of a connection's two sockets, in bytes. `None` without `/proc`.
fn queued(client: u16, server: u16) -> Option<usize> {
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let hex = |text: &str| usize::from_str_radix(text, 16).ok();
    let port = |address: &str| hex(address.split(':').nth(1)?);
    let mut bytes = 0;
    for line in table.lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ends = [port(words.get(1)?)?, port(words.get(2)?)?].map(|it| u16::try_from(it).ok());
        let (sent, received) = words.get(4)?.split_once(':')?;
        if ends == [Some(client), Some(server)] {
            bytes += hex(received)?;
        } else if ends == [Some(server), Some(client)] {
            bytes += hex(sent)?;
        }
    }
    Some(bytes)
}

/// How many bytes a client's sockets take while it reads nothing.
fn room(address: &str, request: &[u8]) -> usize {
    let mut client = connect_narrow(address, ROOM).expect("a client");
    let server = client.peer_addr().expect("an address").port();
    let own = client.local_addr().expect("an address").port();
    client.write_all(&request.repeat(4000)).expect("sent");
    let (mut before, begun) = (0, Instant::now());
    loop {
        std::thread::sleep(Duration::from_millis(300));
        let now = queued(own, server).expect("the sockets' queues");
        if now == before && now > 0 {
            return now;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{now} and more");
        before = now;
    }
}

#[test]
fn a_drain_waits_for_who_reads_the_last_replies_late() {
    let redis = Redis::new().expect("a Redis");
    let listener = free_port().expect("a port");
    let mut gateway = Breccia::start(&over(&redis, listener)).expect("it starts");
    let address = format!("127.0.0.1:{listener}");
    let value = vec![b'v'; 3000];
    let mut setup = RespClient::connect(&address).expect("a client");
    setup
        .expect_ok(&[b"SET", b"v", &value])
        .expect("it is stored");
    let reply = [b"$3000\r\n", value.as_slice(), b"\r\n"].concat();
    let least = room(&address, b"GET v\r\n") / reply.len();
    // A little more than the sockets take; of much more the drain would know in any case.
    let clients: Vec<(TcpStream, usize)> = (2..=5)
        .map(|more| {
            let mut client = connect_narrow(&address, ROOM).expect("a client");
            let count = least + more;
            client.write_all(&b"GET v\r\n".repeat(count)).expect("sent");
            (client, count)
        })
        .collect();
    std::thread::sleep(Duration::from_secs(1));
    gateway.process().signal(Signal::Term).expect("a signal");
    std::thread::sleep(Duration::from_secs(4));
    for (mut client, count) in clients {
        let limit = Some(Duration::from_secs(20));
        client.set_read_timeout(limit).expect("an option");
        let mut got = Vec::new();
        client.read_to_end(&mut got).expect("all and the end");
        assert_eq!(got.len(), reply.len() * count, "of {count} replies");
        assert!(got == reply.repeat(count), "other bytes");
    }
    let status = gateway
        .process()
        .wait(Duration::from_secs(5))
        .expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", gateway.log());
}
