//! Connections to shards that are reset in the middle of a reply, under pipelined traffic.
//!
//! The one thing that must never happen: a client gets a reply that belongs to another request.
//! Invariant: every reply that is no error can be told from the reply to any other request.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use breccia_testkit::{Fault, FaultyProxy, Redis, RedisOptions, RespClient, resp, wait_until};

use crate::common::{Config, Gateway, key_on};
use crate::driver::{Numbers, alone, among_others, request};

/// Requests of the big run, over all its clients.
const REQUESTS: u64 = 1_000_000;
/// Keys that are written once, before the trouble.
const KEYS: u64 = 5_000;
const CLIENTS: u64 = 10;

/// What lies under a key that never changes: of different lengths, some of many packets.
fn value(key: u64) -> String {
    let length = if key.is_multiple_of(50) {
        20_000
    } else {
        key % 97
    };
    format!(
        "value-of-{key}-{}",
        "x".repeat(usize::try_from(length).unwrap_or(0))
    )
}

fn bulk(text: &str) -> Vec<u8> {
    format!("${}\r\n{text}\r\n", text.len()).into_bytes()
}

/// A reply that is wanted.
enum Wanted {
    /// Exactly these bytes.
    Bytes(Vec<u8>),
    /// A value that this client wrote: not older than the last one acknowledged before, unless its
    /// outcome was called unknown (such a write may run late).
    Own { newest: u64 },
}

/// One client of the big run and what it knows of its own key.
struct Prober {
    id: u64,
    numbers: Numbers,
    /// The newest value that was sent, and the newest that was acknowledged.
    sent: u64,
    acknowledged: u64,
    unknown: BTreeSet<u64>,
    good: u64,
    failed: u64,
    /// The first error.
    error: Option<String>,
}

impl Prober {
    fn new(id: u64) -> Prober {
        Prober {
            id,
            numbers: Numbers::new(id << 32),
            sent: 0,
            acknowledged: 0,
            unknown: BTreeSet::new(),
            good: 0,
            failed: 0,
            error: None,
        }
    }

    /// One request: its bytes, the reply it must get, and the value it writes.
    fn next(&mut self, bytes: &mut Vec<u8>) -> (Wanted, Option<u64>) {
        let mut say = |words: &[&[u8]]| bytes.extend_from_slice(&resp::encode(words));
        let own = format!("own{}", self.id);
        match self.numbers.below(10) {
            0..=5 => {
                let key = self.numbers.below(KEYS);
                say(&[b"GET", format!("k{key}").as_bytes()]);
                (Wanted::Bytes(bulk(&value(key))), None)
            }
            6 => {
                // Over several shards: put together here from their replies.
                let keys: Vec<u64> = (0..4).map(|_| self.numbers.below(KEYS)).collect();
                let names: Vec<String> = keys.iter().map(|key| format!("k{key}")).collect();
                let mut words: Vec<&[u8]> = vec![b"MGET"];
                words.extend(names.iter().map(String::as_bytes));
                say(&words);
                let mut wanted = b"*4\r\n".to_vec();
                for key in keys {
                    wanted.extend(bulk(&value(key)));
                }
                (Wanted::Bytes(wanted), None)
            }
            7 => {
                let text = format!("echo-{}-{}", self.id, self.numbers.below(u64::MAX));
                say(&[b"ECHO", text.as_bytes()]);
                (Wanted::Bytes(bulk(&text)), None)
            }
            8 => {
                self.sent += 1;
                let value = format!("{own}:{}", self.sent);
                say(&[b"SET", own.as_bytes(), value.as_bytes()]);
                (Wanted::Bytes(b"+OK\r\n".to_vec()), Some(self.sent))
            }
            _ => {
                say(&[b"GET", own.as_bytes()]);
                (Wanted::Own { newest: self.sent }, None)
            }
        }
    }

    /// Takes one reply.
    fn judge(&mut self, reply: &[u8], wanted: &Wanted, wrote: Option<u64>) -> Result<()> {
        if reply.starts_with(b"-") {
            self.failed += 1;
            self.error
                .get_or_insert_with(|| reply.escape_ascii().to_string());
            if reply.escape_ascii().to_string().contains("unknown") {
                self.unknown.extend(wrote);
            }
            return Ok(());
        }
        self.good += 1;
        let shown = || reply.get(..80).unwrap_or(reply).escape_ascii().to_string();
        match wanted {
            Wanted::Bytes(bytes) => {
                ensure!(reply == bytes, "not {}: {}", shown_start(bytes), shown());
                self.acknowledged = wrote.unwrap_or(self.acknowledged);
            }
            Wanted::Own { newest } => {
                let (found, oldest) = (
                    own_value(reply, self.id).with_context(shown)?,
                    self.acknowledged,
                );
                let possible = (oldest..=*newest).contains(&found) || self.unknown.contains(&found);
                ensure!(possible, "{oldest}..={newest}: {}", shown());
            }
        }
        Ok(())
    }

    /// Pipelines of different depths until the budget is used up.
    fn run(mut self, address: &str, budget: &AtomicI64) -> Result<Prober> {
        let mut client = RespClient::connect(address)?;
        if self.id % 2 == 1 {
            client.words("HELLO 3")?;
        }
        let first = format!("SET own{} own{}:0", self.id, self.id);
        // The trouble may have begun already.
        while client.words(&first)? != b"+OK\r\n" {
            self.unknown.insert(0);
            std::thread::sleep(Duration::from_millis(10));
        }
        let depth = 10 + self.id * 17 % 90;
        let mut bytes = Vec::new();
        while budget.fetch_sub(depth.cast_signed(), Ordering::Relaxed) > 0 {
            bytes.clear();
            let wanted: Vec<(Wanted, Option<u64>)> =
                (0..depth).map(|_| self.next(&mut bytes)).collect();
            client.send(&bytes)?;
            for (wanted, wrote) in wanted {
                let reply = client
                    .read_reply()
                    .context("a client of the gateway was cut off")?;
                self.judge(&reply, &wanted, wrote)?;
            }
        }
        Ok(self)
    }
}

fn shown_start(bytes: &[u8]) -> String {
    bytes.get(..40).unwrap_or(bytes).escape_ascii().to_string()
}

/// The number in a value of this client's own key.
fn own_value(reply: &[u8], id: u64) -> Option<u64> {
    let text = std::str::from_utf8(reply).ok()?;
    let value = text.split("\r\n").nth(1)?;
    value.strip_prefix(&format!("own{id}:"))?.parse().ok()
}

/// A gateway whose connections to these servers can be broken.
fn behind_proxies(servers: &[Redis]) -> Result<(Gateway, Vec<FaultyProxy>)> {
    let proxies: Vec<FaultyProxy> = servers
        .iter()
        .map(|redis| FaultyProxy::start(&redis.address()))
        .collect::<Result<_>>()?;
    let config = (0..)
        .zip(&proxies)
        .fold(Config::new("redis")?, |config, (index, proxy)| {
            config.redis(&format!("r{index}"), &proxy.address(), "")
        });
    Ok((config.start()?, proxies))
}

/// Breaks connections, and now and then kills a server, until told to stop; how often.
fn trouble(
    servers: &mut [Redis],
    proxies: &[FaultyProxy],
    go_on: impl Fn() -> bool,
) -> Result<u64> {
    let mut numbers = Numbers::new(42);
    let mut faults = 0;
    let mut next_kill = Instant::now() + Duration::from_secs(1);
    while go_on() {
        let pick = usize::try_from(numbers.below(proxies.len() as u64))?;
        match numbers.below(4) {
            0 => proxies[pick].reset_all(),
            1 => proxies[pick].set(Fault::CutAfter(numbers.below(60_000))),
            _ => proxies[pick].set(Fault::ResetAfter(numbers.below(60_000))),
        }
        faults += 1;
        std::thread::sleep(Duration::from_millis(10 + numbers.below(40)));
        proxies[pick].set(Fault::None);
        std::thread::sleep(Duration::from_millis(20 + numbers.below(80)));
        if Instant::now() > next_kill {
            next_kill = Instant::now() + Duration::from_secs(4);
            servers[pick].kill9();
            std::thread::sleep(Duration::from_millis(30));
            servers[pick].restart_same_port()?;
            faults += 1;
        }
    }
    Ok(faults)
}

#[test]
fn no_client_gets_another_ones_reply_through_resets_and_kills() -> Result<()> {
    let _quiet = alone();
    let options = RedisOptions {
        // `no`: written before the reply, whatever the disk does; `everysec` may put the write off
        // behind a slow fsync, and a kill would then lose what Redis has acknowledged.
        arguments: ["--appendonly", "yes", "--appendfsync", "no"]
            .map(str::to_owned)
            .to_vec(),
        ..RedisOptions::default()
    };
    let mut servers: Vec<Redis> = (0..3)
        .map(|_| Redis::start(options.clone()))
        .collect::<Result<_>>()?;
    let (gateway, proxies) = behind_proxies(&servers)?;
    let mut setup = gateway.client()?;
    for key in 0..KEYS {
        let (name, value) = (format!("k{key}"), value(key));
        setup.expect_ok(&[b"SET", name.as_bytes(), value.as_bytes()])?;
    }
    let budget = Arc::new(AtomicI64::new(REQUESTS.cast_signed()));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|id| {
            let (address, budget) = (gateway.address(), Arc::clone(&budget));
            std::thread::spawn(move || Prober::new(id).run(&address, &budget))
        })
        .collect();
    let begun = Instant::now();
    let faults = trouble(&mut servers, &proxies, || {
        clients.iter().any(|client| !client.is_finished())
    })?;
    let (mut good, mut failed) = (0, 0);
    for client in clients {
        let told = client.join().map_err(|_| anyhow!("a client panicked"))??;
        good += told.good;
        failed += told.failed;
    }
    println!(
        "{good} good, {failed} errors, {faults} faults in {:?}",
        begun.elapsed()
    );
    assert!(good + failed >= REQUESTS, "{good} + {failed} requests");
    assert!(
        good > failed,
        "{good} good, {failed} errors: hardly anything was tested"
    );
    assert!(
        failed > 100,
        "{failed} errors in {faults} faults: the faults were not felt"
    );
    Ok(())
}

#[test]
fn clients_that_leave_with_requests_in_flight_shift_nobodys_replies() -> Result<()> {
    let _others = among_others();
    let servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let mut setup = gateway.client()?;
    for key in 0..KEYS {
        let (name, value) = (format!("k{key}"), value(key));
        setup.expect_ok(&[b"SET", name.as_bytes(), value.as_bytes()])?;
    }
    let budget = Arc::new(AtomicI64::new(60_000));
    let clients: Vec<_> = (0..4)
        .map(|id| {
            let (address, budget) = (gateway.address(), Arc::clone(&budget));
            std::thread::spawn(move || Prober::new(id).run(&address, &budget))
        })
        .collect();
    let mut left = 0;
    while clients.iter().any(|client| !client.is_finished()) {
        let mut leaver = std::net::TcpStream::connect(gateway.address())?;
        let gets: Vec<u8> = (0..20)
            .flat_map(|key| request(&format!("GET k{key}")))
            .collect();
        leaver.write_all(&gets)?;
        leaver.write_all(&request("BLPOP none 0"))?;
        // More than a gateway in a debug build can serve would only meet max-clients.
        std::thread::sleep(Duration::from_millis(2));
        left += 1;
    }
    for client in clients {
        let told = client.join().map_err(|_| anyhow!("a client panicked"))??;
        assert!(told.good > 0, "nothing was tested");
        assert_eq!(told.error, None, "{} errors", told.failed);
    }
    println!("{left} clients left in the middle");
    drop(setup);
    wait_until(Duration::from_secs(10), "all who left to be let go", || {
        let name = "breccia_connections{listener=\"main\"}";
        Ok((gateway.breccia.metric(name)? < 0.5).then_some(()))
    })?;
    assert!(left > 50, "{left} clients left");
    Ok(())
}

#[test]
fn a_big_reply_cut_in_the_middle_is_one_error() -> Result<()> {
    let _others = among_others();
    let servers = Redis::many(2)?;
    let (gateway, proxies) = behind_proxies(&servers)?;
    let (cut, whole) = (key_on(0, 2, "big"), key_on(1, 2, "big"));
    let mut client = gateway.client()?;
    let big = vec![b'x'; 3_000_000];
    client.expect_ok(&[b"SET", cut.as_bytes(), &big])?;
    client.expect_ok(&[b"SET", whole.as_bytes(), b"here"])?;
    for limit in [1, 5, 1_000, 65_536, 1_000_000, 2_999_999] {
        proxies[0].set(Fault::ResetAfter(limit));
        let replies = client.pipeline(&[
            &format!("GET {whole}"),
            &format!("GET {cut}"),
            &format!("GET {whole}"),
            &format!("MGET {whole} {cut}"),
            "ECHO end",
        ])?;
        proxies[0].set(Fault::None);
        let shown = |index: usize| -> String {
            let reply: &[u8] = &replies[index];
            reply.get(..100).unwrap_or(reply).escape_ascii().to_string()
        };
        assert_eq!(shown(0), "$4\\r\\nhere\\r\\n", "after {limit} bytes");
        assert!(
            shown(1).starts_with("-SHARDDOWN all/r0 "),
            "after {limit}: {}",
            shown(1)
        );
        assert_eq!(shown(2), "$4\\r\\nhere\\r\\n", "after {limit} bytes");
        assert!(
            shown(3).starts_with("-SHARDDOWN all/r0 "),
            "after {limit}: {}",
            shown(3)
        );
        assert_eq!(shown(4), "$3\\r\\nend\\r\\n", "after {limit} bytes");
    }
    crate::driver::until_answered(
        &gateway.address(),
        &format!("STRLEN {cut}"),
        b":3000000\r\n",
    )?;
    Ok(())
}

#[test]
fn a_server_that_breaks_the_protocol_loses_only_its_own_requests() -> Result<()> {
    let _others = among_others();
    let liar = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = liar.local_addr()?.to_string();
    std::thread::spawn(move || {
        for stream in liar.incoming().flatten() {
            std::thread::spawn(move || lie(stream));
        }
    });
    let server = Redis::new()?;
    let config = Config::new("redis")?.redis("r0", &server.address(), "");
    let gateway = config.redis("r1", &address, "").start()?;
    let (honest, lied) = (key_on(0, 2, "k"), key_on(1, 2, "k"));
    let mut client = gateway.client()?;
    for turn in 0..20 {
        let replies = client.pipeline(&[
            &format!("SET {honest} {turn}"),
            &format!("GET {lied}"),
            &format!("GET {honest}"),
        ])?;
        assert_eq!(replies[0], b"+OK\r\n");
        let reply = replies[1].escape_ascii().to_string();
        assert!(
            reply.starts_with("-SHARDDOWN all/r1 "),
            "turn {turn}: {reply}"
        );
        assert_eq!(replies[2], bulk(&turn.to_string()));
    }
    Ok(())
}

/// Answers PING as a Redis does, and everything else with what is no reply.
fn lie(mut stream: std::net::TcpStream) -> Option<()> {
    use std::io::{Read, Write};
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
        let said = buffer.get(..count)?;
        let ping = said
            .windows(4)
            .any(|word| word.eq_ignore_ascii_case(b"ping"));
        let get = said.windows(3).any(|word| word == b"GET");
        if ping {
            stream.write_all(b"+PONG\r\n").ok()?;
        }
        if get {
            stream.write_all(b"$12\r\nno such end!!!?\r\n").ok()?;
        }
    }
}

#[test]
fn a_black_hole_times_out_and_nobody_else_waits() -> Result<()> {
    let _quiet = alone();
    let servers = Redis::many(2)?;
    let proxy = FaultyProxy::start(&servers[1].address())?;
    let gateway = Config::new("redis")?
        .redis("r0", &servers[0].address(), "")
        .redis("r1", &proxy.address(), "timeout = \"2s\"")
        .start()?;
    let (live, dark) = (key_on(0, 2, "k"), key_on(1, 2, "k"));
    let mut client = gateway.client()?;
    client.words(&format!("SET {dark} 1"))?;
    proxy.set(Fault::BlackHole);
    let begun = Instant::now();
    client.send(&request(&format!("INCR {dark}")))?;
    let mut other = gateway.client()?;
    for _ in 0..50 {
        assert_eq!(other.words(&format!("SET {live} 1"))?, b"+OK\r\n");
    }
    assert!(begun.elapsed() < Duration::from_secs(1));
    let reply = client.read_reply()?.escape_ascii().to_string();
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
    assert!(reply.starts_with('-'), "{reply}");
    Ok(())
}
