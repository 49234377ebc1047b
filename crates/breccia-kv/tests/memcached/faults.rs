//! Servers that die, freeze or break off, and clients that misbehave.
//!
//! Invariant: whatever happens to one shard, keys of the others answer, and no reply goes to a
//! request or a client that it does not belong to.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use breccia_kv::front::limits::ListenerLimits;
use breccia_kv::front::settings::{ListenerSettings, User};
use breccia_kv::memcached::frontend::MemcachedBackend;
use breccia_testkit::{Fault, FaultyProxy, Memcached, TextClient, wait_until};

use crate::dice::Dice;
use crate::front::{Front, home, metric, session, topology};

const NAMES: [&str; 3] = ["a", "b", "c"];

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn call(client: &mut TextClient, request: &str) -> String {
    text(&client.call(request.as_bytes()).unwrap())
}

/// A key for each of three servers.
fn keys() -> [String; 3] {
    [0, 1, 2].map(|server| {
        (0..1000)
            .map(|number| format!("key{number}"))
            .find(|key| home(key, 3) == server)
            .unwrap()
    })
}

#[test]
fn keys_lie_where_the_plain_rule_puts_them() {
    let servers = Memcached::many(3).unwrap();
    let front = Front::over(&servers);
    let mut client = TextClient::connect(&front.address).unwrap();
    for number in 0..300 {
        let key = format!("k{number}\u{e9}");
        let key = key.as_str();
        assert_eq!(
            call(&mut client, &format!("set {key} 0 0 1\r\nx\r\n")),
            "STORED\r\n"
        );
        for (index, server) in servers.iter().enumerate() {
            let found = call(&mut server.client().unwrap(), &format!("get {key}\r\n"));
            assert_eq!(
                found.starts_with("VALUE"),
                index == home(key, 3),
                "{key} on {index}"
            );
        }
    }
    // A key in base64 is the decoded key.
    assert_eq!(call(&mut client, "ms a2V5MQ== 1 b\r\ny\r\n"), "HD\r\n");
    assert_eq!(
        call(&mut client, "get key1\r\n"),
        "VALUE key1 0 1\r\ny\r\nEND\r\n"
    );
}

#[test]
fn a_dead_shard_fails_its_own_keys_only_and_comes_back() {
    let mut servers = Memcached::many(3).unwrap();
    let front = Front::over(&servers);
    let mut client = TextClient::connect(&front.address).unwrap();
    let keys = keys();
    for key in &keys {
        assert_eq!(
            call(&mut client, &format!("set {key} 0 0 1\r\nx\r\n")),
            "STORED\r\n"
        );
    }
    servers[1].kill9();
    let dead = &keys[1];
    wait_until(Duration::from_secs(2), "the dead shard fails", || {
        let reply = call(&mut client, &format!("get {dead}\r\n"));
        Ok(reply
            .starts_with("SERVER_ERROR breccia: SHARDDOWN cache/b ")
            .then_some(()))
    })
    .unwrap();
    let begun = Instant::now();
    for _ in 0..100 {
        let reply = call(&mut client, &format!("incr {dead} 1\r\n"));
        assert!(reply.contains("not applied"), "{reply}");
        assert_eq!(
            call(&mut client, &format!("get {}\r\n", keys[0]))
                .lines()
                .count(),
            3
        );
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "it fails at once");

    let all = call(
        &mut client,
        &format!("get {} {} {}\r\n", keys[0], keys[1], keys[2]),
    );
    assert!(
        all.starts_with(&format!("VALUE {} 0 1\r\nx\r\nVALUE {} ", keys[0], keys[2])),
        "{all}"
    );
    let last = text(&client_line(&mut client, &all));
    assert!(
        last.starts_with("SERVER_ERROR breccia: SHARDDOWN cache/b"),
        "{last}"
    );
    let flushed = call(&mut client, "flush_all\r\n");
    assert!(
        flushed.contains("SHARDDOWN cache/b") && flushed.contains("applied on cache/a, cache/c")
    );
    let silent = format!("set {dead} 0 0 1 noreply\r\nx\r\nincr {dead} 1 noreply\r\nmn\r\n");
    assert_eq!(call(&mut client, &silent), "MN\r\n");
    let loud = call(&mut client, &format!("ms {dead} 1 q\r\nx\r\n"));
    assert!(
        loud.starts_with("SERVER_ERROR breccia: SHARDDOWN"),
        "errors are never quiet: {loud}"
    );

    servers[1].restart_same_port().unwrap();
    wait_until(Duration::from_secs(2), "it serves again", || {
        let reply = call(&mut client, &format!("set {dead} 0 0 1\r\ny\r\n"));
        Ok((reply == "STORED\r\n").then_some(()))
    })
    .unwrap();
    drop(front);
}

/// The line behind the values of a reply that does not end in `END`.
fn client_line(client: &mut TextClient, reply: &str) -> Vec<u8> {
    match reply.rsplit("\r\n").nth(1) {
        Some(line) if line.starts_with("SERVER_ERROR") => line.as_bytes().to_vec(),
        _ => client.read_line().unwrap(),
    }
}

#[test]
fn what_a_frozen_shard_was_not_sent_never_runs() {
    let mut servers = Memcached::many(3).unwrap();
    let backend = MemcachedBackend::Forward(topology(&servers));
    let patience = Duration::from_millis(200);
    let front = Front::start_probing(backend, ListenerSettings::default(), patience);
    let mut client = TextClient::connect(&front.address).unwrap();
    let keys = keys();
    for key in &keys {
        call(&mut client, &format!("set {key} 0 0 1\r\n0\r\n"));
    }
    servers[2].sigstop().unwrap();
    let counter = &keys[2];
    let (mut certain, mut unknown, mut live) = (0_u64, 0_u64, 0_u64);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        let reply = call(&mut client, &format!("incr {counter} 1\r\n"));
        if reply.contains("not applied") {
            certain += 1;
        } else {
            // The server may have run one before the signal reached it.
            let ran = reply.trim().parse::<u64>().is_ok();
            assert!(ran || reply.contains("outcome unknown"), "{reply}");
            unknown += 1;
        }
        live += 1;
        let other = call(&mut client, &format!("incr {} 1\r\n", keys[0]));
        assert_eq!(other, format!("{live}\r\n"));
    }
    servers[2].sigcont().unwrap();
    let value = wait_until(Duration::from_secs(3), "it thaws", || {
        let reply = call(&mut client, &format!("get {counter}\r\n"));
        Ok(reply
            .lines()
            .nth(1)
            .and_then(|line| line.trim().parse::<u64>().ok()))
    })
    .unwrap();
    assert!(certain > 10, "{certain} were refused");
    assert!(
        value <= unknown,
        "{value} ran, {unknown} are unknown, {certain} were refused"
    );
}

#[test]
fn quiet_and_malformed_requests_never_shift_replies() {
    let servers = Memcached::many(3).unwrap();
    let front = Front::over(&servers);
    std::thread::scope(|scope| {
        for id in 0..8_u64 {
            let address = front.address.clone();
            scope.spawn(move || shout(&address, id));
        }
    });
}

/// One client: random requests on keys of its own, a marker after each. All its markers come back
/// in order, and nothing of another client's does.
fn shout(address: &str, id: u64) {
    let mut dice = Dice(id);
    for round in 0..30 {
        let mut input = String::new();
        for number in 0..60 {
            let request = dice
                .request()
                .replace("flush_all", "mn")
                .replace("abc", &format!("=c{id}="));
            let request = match request.split_once(' ') {
                // Lengths stay right: a block of three bytes became one of four.
                Some((verb, rest)) => format!("{verb} c{id}-{}", rest.replacen(" 3", " 4", 1)),
                None => request,
            };
            input.push_str(&request);
            let _ = write!(input, "mg marker k O{id}-{round}-{number}\r\n");
        }
        for number in 60..70 {
            let _ = write!(input, "mg marker k O{id}-{round}-{number}\r\n");
        }
        let output = text(&session(address, input.as_bytes()));
        let mut last = -1;
        for line in output.lines() {
            if let Some(marker) = line.strip_prefix("EN kmarker O") {
                let mut words = marker.split([' ', '-']);
                assert_eq!(words.next(), Some(id.to_string().as_str()), "{line}");
                assert_eq!(words.next(), Some(round.to_string().as_str()), "{line}");
                let number: i32 = words.next().unwrap().parse().unwrap();
                assert!(number > last, "{line} after {last}");
                last = number;
            }
            if let Some((_, rest)) = line.split_once("=c") {
                assert!(
                    rest.starts_with(&format!("{id}=")),
                    "{line} came to client {id}"
                );
            }
        }
        assert_eq!(last, 69, "the last marker came back: {input}\n{output}");
    }
}

#[test]
fn a_connection_lost_in_a_reply_shifts_nothing() {
    let server = Memcached::new().unwrap();
    let proxy = FaultyProxy::start(&server.address()).unwrap();
    let plain = std::slice::from_ref(&server);
    let mut front = Front::start(
        MemcachedBackend::Forward(crate::front::topology_at(&[proxy.address()])),
        ListenerSettings::default(),
    );
    let mut direct = plain[0].client().unwrap();
    for number in 0..100 {
        let value = format!("value-{number}-").repeat(200);
        let set = format!("set u{number} 0 0 {}\r\n{value}\r\n", value.len());
        assert_eq!(call(&mut direct, &set), "STORED\r\n");
    }
    let mut dice = Dice(3);
    let (mut good, mut failed) = (0, 0);
    for _ in 0..100 {
        proxy.set(Fault::ResetAfter(dice.roll(20_000) as u64));
        let mut client = TextClient::connect(&front.address).unwrap();
        for _ in 0..20 {
            let number = dice.roll(100);
            let reply = call(&mut client, &format!("get u{number}\r\n"));
            if reply.starts_with("SERVER_ERROR") {
                failed += 1;
                continue;
            }
            assert!(
                reply.starts_with(&format!("VALUE u{number} ")),
                "{reply:.60}"
            );
            assert!(
                reply.contains(&format!("\r\nvalue-{number}-value-{number}-")),
                "{reply:.60}"
            );
            good += 1;
        }
    }
    assert!(good > 100 && failed > 10, "{good} good, {failed} failed");
    front.drain(Duration::from_secs(1));
}

#[test]
fn large_values_keep_a_clients_order() {
    let servers = Memcached::many(3).unwrap();
    let front = Front::over(&servers);
    let big = "x".repeat(900_000);
    let key = &keys()[0];
    let mut input = String::new();
    for number in 0..5 {
        let _ = write!(input, "set {key} {number} 0 {}\r\n{big}\r\n", big.len());
        let _ = write!(
            input,
            "get {key}\r\nappend {key} 0 0 1 noreply\r\ny\r\nmg {key} s f\r\n"
        );
    }
    let output = text(&session(&front.address, input.as_bytes()));
    let mut expected = String::new();
    for number in 0..5 {
        let _ = write!(
            expected,
            "STORED\r\nVALUE {key} {number} {}\r\n{big}\r\nEND\r\n",
            big.len()
        );
        let _ = write!(expected, "HD s{} f{number}\r\n", big.len() + 1);
    }
    assert!(
        output == expected,
        "{} bytes, not {}",
        output.len(),
        expected.len()
    );
    // Too large for memcached, then for the listener.
    let long = "x".repeat(2 << 20);
    let set = format!("set {key} 0 0 {}\r\n{long}\r\nmn\r\n", long.len());
    let reply = session(&front.address, set.as_bytes());
    assert_eq!(
        text(&reply),
        "SERVER_ERROR object too large for cache\r\nMN\r\n"
    );
    let limits = ListenerLimits {
        max_request_size: 1 << 20,
        ..ListenerLimits::default()
    };
    let settings = ListenerSettings {
        users: Vec::new(),
        limits,
    };
    let small = Front::start(MemcachedBackend::Forward(topology(&servers)), settings);
    assert_eq!(session(&small.address, set.as_bytes()), reply);
    let hits = metric(&small.registry, "breccia_limit_hits_total");
    assert!(
        hits.keys().any(|name| name.contains("max-request-size")),
        "{hits:?}"
    );
}

#[test]
fn large_replies_keep_a_clients_order() {
    let servers = Memcached::many(3).unwrap();
    let front = Front::over(&servers);
    let (keys, big) = (keys(), "x".repeat(900_000));
    let mut input = String::new();
    for key in &keys {
        let _ = write!(input, "set {key} 0 0 {}\r\n{big}\r\n", big.len());
    }
    let all = keys.join(" ");
    let _ = write!(
        input,
        "get {all}\r\nset n 0 0 1\r\n0\r\nincr n 1\r\nget {all}\r\nincr n 1\r\n"
    );
    let mut values = String::new();
    for key in &keys {
        let _ = write!(values, "VALUE {key} 0 {}\r\n{big}\r\n", big.len());
    }
    let stored = "STORED\r\n".repeat(3);
    let expected = format!("{stored}{values}END\r\nSTORED\r\n1\r\n{values}END\r\n2\r\n");
    let output = text(&session(&front.address, input.as_bytes()));
    assert!(
        output == expected,
        "{} bytes, not {}",
        output.len(),
        expected.len()
    );
}

#[test]
fn clients_log_in_before_anything_else() {
    let servers = Memcached::many(1).unwrap();
    let user = User {
        name: "ann".into(),
        password: Some("secret".into()),
    };
    let settings = ListenerSettings {
        users: vec![user],
        limits: ListenerLimits::default(),
    };
    let front = Front::start(MemcachedBackend::Forward(topology(&servers)), settings);
    let mut client = TextClient::connect(&front.address).unwrap();
    let unknown = "CLIENT_ERROR unauthenticated\r\n";
    for command in ["get a\r\n", "mn\r\n", "version\r\n", "flush_all\r\n"] {
        assert_eq!(call(&mut client, command), unknown);
    }
    let wrong = call(&mut client, "set x 0 0 9\r\nann wrong\r\n");
    assert_eq!(wrong, "CLIENT_ERROR authentication failure\r\n");
    assert_eq!(call(&mut client, "get a\r\n"), unknown);
    assert_eq!(
        call(&mut client, "set x 0 0 10\r\nann secret\r\n"),
        "STORED\r\n"
    );
    assert_eq!(call(&mut client, "set a 0 0 1\r\n1\r\n"), "STORED\r\n");
    assert_eq!(call(&mut client, "incr a 1\r\n"), "2\r\n");
}

#[test]
fn other_protocols_and_endless_lines_are_turned_away() {
    let servers = Memcached::many(1).unwrap();
    let front = Front::over(&servers);
    let reply = text(&session(
        &front.address,
        b"\x80\x00\x00\x00\x00\x00\x00\x00",
    ));
    assert!(
        reply.starts_with("CLIENT_ERROR breccia: the binary protocol"),
        "{reply}"
    );
    let post = b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\nset a 0 0 1\r\nx\r\n";
    assert_eq!(
        text(&session(&front.address, post)),
        "",
        "a browser's request runs nothing"
    );
    assert_eq!(text(&session(&front.address, b"get a\r\n")), "END\r\n");
    let reply = text(&session(&front.address, &vec![b'x'; 1 << 16]));
    assert_eq!(reply, "CLIENT_ERROR line too long\r\n");
    let mut client = TextClient::connect(&front.address).unwrap();
    let stats = call(&mut client, "stats\r\n");
    for name in [
        "STAT pid ",
        "STAT version 1.6.18-breccia",
        "STAT breccia_shard:cache/a up",
    ] {
        assert!(stats.contains(name), "{stats}");
    }
    client.send(b"mn\r\nquit\r\n").unwrap();
    assert_eq!(text(&client.read_line().unwrap()), "MN\r\n");
    assert!(client.closed());
}

#[test]
fn a_drain_answers_what_was_received() {
    let servers = Memcached::many(3).unwrap();
    let mut front = Front::over(&servers);
    let mut clients: Vec<_> = (0..20)
        .map(|_| TextClient::connect(&front.address).unwrap())
        .collect();
    for client in &mut clients {
        assert_eq!(call(client, "mn\r\n"), "MN\r\n");
        for name in NAMES {
            client
                .send(format!("set {name} 0 0 1\r\nx\r\nget {name}\r\n").as_bytes())
                .unwrap();
        }
    }
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(front.drain(Duration::from_secs(5)), 0, "nobody was cut");
    for client in &mut clients {
        for name in NAMES {
            assert_eq!(text(&client.read_reply().unwrap()), "STORED\r\n");
            let value = text(&client.read_reply().unwrap());
            assert_eq!(value, format!("VALUE {name} 0 1\r\nx\r\nEND\r\n"));
        }
        assert!(client.closed());
    }
}
