//! MULTI, EXEC and WATCH while others write, between shared connections and leases.
//!
//! Invariant: a successful EXEC ran on exactly what its client had read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use breccia_testkit::{Fault, FaultyProxy, Redis, Reply, RespClient};

use crate::common::{Config, Gateway, key_on};
use crate::driver::{Numbers, among_others, integer};

/// Runs `work(number)` in so many threads; what each came to.
fn together<T: Send + 'static>(
    count: u64,
    work: impl Fn(u64) -> Result<T> + Send + Sync + 'static,
) -> Result<Vec<T>> {
    let work = Arc::new(work);
    let threads: Vec<JoinHandle<Result<T>>> = (0..count)
        .map(|number| {
            let work = Arc::clone(&work);
            std::thread::spawn(move || work(number))
        })
        .collect();
    threads
        .into_iter()
        .map(|thread| thread.join().map_err(|_| anyhow!("it panicked"))?)
        .collect()
}

fn text(reply: &[u8]) -> String {
    reply.get(..120).unwrap_or(reply).escape_ascii().to_string()
}

#[test]
fn a_transaction_sees_the_write_before_it_whatever_others_do() -> Result<()> {
    let _others = among_others();
    let servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let address = gateway.address();
    together(8, move |client| {
        let mut connection = RespClient::connect(&address)?;
        let mut numbers = Numbers::new(client << 32);
        for turn in 0..150 {
            let key = format!("c{client}:{}", numbers.below(6));
            let wanted = format!("*1\r\n$8\r\n{turn:08}\r\n").into_bytes();
            let mut requests = vec![
                format!("GET elsewhere{turn}"),
                format!("SET {key} {turn:08}"),
            ];
            if numbers.below(2) == 0 {
                requests.push(format!("WATCH {key}"));
            }
            let others = numbers.below(3);
            requests.extend((0..others).map(|other| format!("GET other{other}")));
            requests.push("MULTI".to_owned());
            let exec = requests.len() + 1;
            requests.extend([
                format!("GET {key}"),
                "EXEC".to_owned(),
                format!("GET {key}"),
            ]);
            let words: Vec<&str> = requests.iter().map(String::as_str).collect();
            let replies = connection.pipeline(&words)?;
            ensure!(
                replies[exec] == wanted,
                "{requests:?}: {}",
                text(&replies[exec])
            );
            ensure!(
                replies[exec + 1] == wanted[4..],
                "{}",
                text(&replies[exec + 1])
            );
        }
        Ok(())
    })?;
    Ok(())
}

#[test]
fn a_slow_transaction_holds_what_its_client_queued() -> Result<()> {
    let _others = among_others();
    let servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let mut client = gateway.client()?;
    for (turn, pause) in [0, 30, 80, 150, 400].into_iter().enumerate() {
        let wait = || std::thread::sleep(Duration::from_millis(pause));
        let mut say = |words: &str, wanted: &[u8]| -> Result<()> {
            wait();
            let reply = client.words(words)?;
            ensure!(
                reply == wanted,
                "{words} after {pause} ms: {}",
                text(&reply)
            );
            Ok(())
        };
        say(&format!("WATCH slow{turn}"), b"+OK\r\n")?;
        say(&format!("GET slow{turn}"), b"$-1\r\n")?;
        say("MULTI", b"+OK\r\n")?;
        say(&format!("SET slow{turn} 1"), b"+QUEUED\r\n")?;
        say(&format!("GET slow{turn}"), b"+QUEUED\r\n")?;
        say("EXEC", b"*2\r\n+OK\r\n$1\r\n1\r\n")?;
        say("MULTI", b"+OK\r\n")?;
        say(&format!("SET slow{turn} 2"), b"+QUEUED\r\n")?;
        say("DISCARD", b"+OK\r\n")?;
        say(&format!("GET slow{turn}"), b"$1\r\n1\r\n")?;
    }
    Ok(())
}

#[test]
fn a_transaction_sees_the_write_before_it_through_resets() -> Result<()> {
    let _others = among_others();
    let server = Redis::new()?;
    let proxy = FaultyProxy::start(&server.address())?;
    let gateway = Config::new("redis")?
        .redis("r0", &proxy.address(), "")
        .start()?;
    let (address, stop) = (gateway.address(), Arc::new(AtomicBool::new(false)));
    let until = Arc::clone(&stop);
    let clients = std::thread::spawn(move || {
        together(6, move |client| {
            let mut connection = RespClient::connect(&address)?;
            let (mut seen, mut lost) = (0, 0);
            // Writes of unknown outcome may run late, even after a newer one.
            let mut unknown = Vec::new();
            for turn in 0.. {
                if until.load(Ordering::Relaxed) {
                    break;
                }
                let (set, get) = (format!("SET c{client} {turn:08}"), format!("GET c{client}"));
                let replies = connection.pipeline(&[&set, "MULTI", &get, "EXEC"])?;
                let (set, exec) = (&replies[0], &replies[3]);
                if exec.starts_with(b"-") || set.starts_with(b"-") {
                    lost += 1;
                    unknown.push(turn);
                } else {
                    let possible = unknown
                        .iter()
                        .chain([&turn])
                        .any(|turn| *exec == format!("*1\r\n$8\r\n{turn:08}\r\n").as_bytes());
                    ensure!(possible, "turn {turn}: {}", text(exec));
                    seen += 1;
                }
            }
            Ok((seen, lost))
        })
    });
    let mut numbers = Numbers::new(3);
    for _ in 0..80 {
        proxy.set(Fault::ResetAfter(numbers.below(2_000)));
        std::thread::sleep(Duration::from_millis(15));
        proxy.set(Fault::None);
        std::thread::sleep(Duration::from_millis(15 + numbers.below(30)));
    }
    stop.store(true, Ordering::Relaxed);
    let told = clients
        .join()
        .map_err(|_| anyhow!("the clients panicked"))??;
    let (seen, lost): (Vec<u64>, Vec<u64>) = told.into_iter().unzip();
    let (seen, lost): (u64, u64) = (seen.iter().sum(), lost.iter().sum());
    println!("{seen} transactions saw their write, {lost} were lost with a connection");
    ensure!(seen > 200 && lost > 10, "{seen} seen, {lost} lost");
    Ok(())
}

/// What a loop of optimistic increments came to.
#[derive(Debug, Default, Clone, Copy)]
struct Loops {
    done: i64,
    conflicts: i64,
    unknown: i64,
}

/// Reads a counter, adds one in a transaction that fails if it changed. Some clients use the
/// connection for other things between, and read before or after WATCH.
fn increment(client: &mut RespClient, key: &str, numbers: &mut Numbers) -> Result<Loops> {
    let mut loops = Loops::default();
    let watch = client.words(&format!("WATCH {key}"))?;
    if watch.starts_with(b"-") {
        return Ok(loops);
    }
    let reply = Reply::parse(&client.words(&format!("GET {key}"))?)?;
    if reply.error().is_some() {
        client.words("UNWATCH")?;
        return Ok(loops);
    }
    let value: i64 = String::from_utf8_lossy(reply.bytes().unwrap_or(b"0")).parse()?;
    if numbers.below(3) == 0 {
        client.words(&format!("SET elsewhere{} x", numbers.below(100)))?;
    }
    let replies = client.pipeline(&["MULTI", &format!("SET {key} {}", value + 1), "EXEC"])?;
    let exec = replies.last().context("the reply to EXEC")?;
    if exec.starts_with(b"*1") {
        loops.done += 1;
    } else if exec == b"*-1\r\n" {
        loops.conflicts += 1;
    } else if text(exec).contains("unknown") {
        loops.unknown += 1;
    } else {
        ensure!(exec.starts_with(b"-"), "{}", text(exec));
    }
    Ok(loops)
}

fn sum(all: impl IntoIterator<Item = Loops>) -> Loops {
    all.into_iter().fold(Loops::default(), |sum, loops| Loops {
        done: sum.done + loops.done,
        conflicts: sum.conflicts + loops.conflicts,
        unknown: sum.unknown + loops.unknown,
    })
}

fn stored(server: &Redis, key: &str) -> Result<i64> {
    let reply = server.client()?.reply(&format!("GET {key}"))?;
    Ok(String::from_utf8_lossy(reply.bytes().unwrap_or(b"0")).parse()?)
}

#[test]
fn no_conflict_is_missed_between_leases_and_shared_connections() -> Result<()> {
    let _others = among_others();
    let servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let (address, key) = (gateway.address(), key_on(1, 3, "counter"));
    let (stop, plain_key, to) = (
        Arc::new(AtomicBool::new(false)),
        key.clone(),
        address.clone(),
    );
    let until = Arc::clone(&stop);
    // Plain increments of the same counter, on shared connections.
    let plain = std::thread::spawn(move || {
        together(2, move |_| {
            let mut client = RespClient::connect(&to)?;
            let mut done = 0;
            while !until.load(Ordering::Relaxed) {
                let reply = client.words(&format!("INCR {plain_key}"))?;
                done += i64::from(integer(&reply).is_some());
                std::thread::sleep(Duration::from_millis(3));
            }
            Ok(done)
        })
    });
    let watched = key.clone();
    let loops = sum(together(8, move |number| {
        let (mut client, mut numbers) =
            (RespClient::connect(&address)?, Numbers::new(number << 32));
        (0..150)
            .map(|_| increment(&mut client, &watched, &mut numbers))
            .try_fold(Loops::default(), |before, now| Ok(sum([before, now?])))
    })?);
    stop.store(true, Ordering::Relaxed);
    let plain: i64 = plain
        .join()
        .map_err(|_| anyhow!("it panicked"))??
        .into_iter()
        .sum();
    let value = stored(&servers[1], &key)?;
    println!("{loops:?}, {plain} plain increments, counter {value}");
    ensure!(
        loops.done + plain == value,
        "{loops:?} + {plain} plain increments gave {value}"
    );
    ensure!(
        loops.done > 50 && loops.conflicts > 50,
        "{loops:?}: hardly any conflict"
    );
    Ok(())
}

#[test]
fn no_conflict_is_missed_through_resets() -> Result<()> {
    let _others = among_others();
    let server = Redis::new()?;
    let proxy = FaultyProxy::start(&server.address())?;
    let gateway = Config::new("redis")?
        .redis("r0", &proxy.address(), "")
        .start()?;
    let (address, stop) = (gateway.address(), Arc::new(AtomicBool::new(false)));
    let until = Arc::clone(&stop);
    let clients = std::thread::spawn(move || {
        together(6, move |number| {
            let mut client = RespClient::connect(&address)?;
            let (mut numbers, mut loops) = (Numbers::new(number << 32), Loops::default());
            while !until.load(Ordering::Relaxed) {
                loops = sum([loops, increment(&mut client, "counter", &mut numbers)?]);
            }
            Ok(loops)
        })
    });
    let mut numbers = Numbers::new(5);
    for _ in 0..80 {
        proxy.set(Fault::ResetAfter(numbers.below(1_000)));
        std::thread::sleep(Duration::from_millis(10));
        proxy.set(Fault::None);
        std::thread::sleep(Duration::from_millis(20 + numbers.below(30)));
    }
    stop.store(true, Ordering::Relaxed);
    let loops = sum(clients
        .join()
        .map_err(|_| anyhow!("the clients panicked"))??);
    let value = stored(&server, "counter")?;
    println!("{loops:?}, counter {value}");
    ensure!(
        loops.done <= value && value <= loops.done + loops.unknown,
        "{loops:?} gave {value}"
    );
    ensure!(
        loops.done > 100 && loops.conflicts > 20,
        "{loops:?}: hardly anything was tested"
    );
    Ok(())
}

#[test]
fn a_lost_lease_fails_the_transaction() -> Result<()> {
    let _others = among_others();
    let server = Redis::new()?;
    let proxy = FaultyProxy::start(&server.address())?;
    let gateway = Config::new("redis")?
        .redis("r0", &proxy.address(), "")
        .start()?;
    for turn in 0..20 {
        let mut client = gateway.client()?;
        let key = format!("t{turn}");
        client.words(&format!("SET {key} first"))?;
        client.expect_ok(&[b"WATCH", key.as_bytes()])?;
        let begun = turn % 2 == 1;
        if begun {
            // The transaction itself has begun on the connection that is lost.
            client.pipeline(&["MULTI", &format!("SET {key} mine")])?;
        }
        proxy.reset_all();
        std::thread::sleep(Duration::from_millis(20));
        crate::driver::until_answered(&gateway.address(), &format!("SET {key} other"), b"+OK\r\n")?;
        let mut rest = vec!["EXEC".to_owned()];
        if !begun {
            rest.splice(..0, ["MULTI".to_owned(), format!("SET {key} mine")]);
        }
        let words: Vec<&str> = rest.iter().map(String::as_str).collect();
        let replies = client.pipeline(&words)?;
        let exec = replies.last().context("the reply to EXEC")?;
        ensure!(
            exec.starts_with(b"-EXECABORT"),
            "turn {turn}: {}",
            text(exec)
        );
        let found = server.client()?.words(&format!("GET {key}"))?;
        ensure!(found == b"$5\r\nother\r\n", "turn {turn}: {}", text(&found));
        // The client is free for a next transaction.
        let again = client.pipeline(&["MULTI", &format!("SET {key} again"), "EXEC"])?;
        ensure!(
            again[2] == b"*1\r\n+OK\r\n",
            "turn {turn}: {}",
            text(&again[2])
        );
    }
    Ok(())
}

/// WATCH, MULTI, SET and EXEC of one key; what EXEC says.
fn swap(client: &mut RespClient, key: &str) -> Result<Vec<u8>> {
    client.expect_ok(&[b"WATCH", key.as_bytes()])?;
    multi(client, key)
}

/// MULTI, SET and EXEC of one key; what EXEC says.
fn multi(client: &mut RespClient, key: &str) -> Result<Vec<u8>> {
    let mut replies = client.pipeline(&["MULTI", &format!("SET {key} mine"), "EXEC"])?;
    replies.pop().context("the reply to EXEC")
}

#[test]
fn a_watch_that_failed_leaves_nothing_behind() -> Result<()> {
    let _others = among_others();
    let mut servers = Redis::many(2)?;
    let gateway = Gateway::over(&servers)?;
    let (up, down) = (key_on(0, 2, "k"), key_on(1, 2, "k"));
    let mut client = gateway.client()?;
    servers[1].kill9();
    let mut other = gateway.client()?;
    breccia_testkit::wait_until(Duration::from_secs(5), "the shard to be down", || {
        let reply = other.words(&format!("GET {down}"))?;
        Ok(reply.starts_with(b"-SHARDDOWN").then_some(()))
    })?;
    let refused = client.words(&format!("WATCH {down}"))?;
    ensure!(refused.starts_with(b"-SHARDDOWN"), "{}", text(&refused));
    let exec = swap(&mut client, &up)?;
    ensure!(exec == b"*1\r\n+OK\r\n", "another shard: {}", text(&exec));
    client.words(&format!("WATCH {down}"))?;
    for version in ["HELLO 3", "HELLO 2"] {
        let hello = client.words(version)?;
        ensure!(!hello.starts_with(b"-"), "{}", text(&hello));
    }
    client.words(&format!("WATCH {down}"))?;
    servers[1].restart_same_port()?;
    crate::driver::until_answered(&gateway.address(), &format!("GET {down}"), b"$-1\r\n")?;
    let exec = swap(&mut client, &down)?;
    ensure!(exec == b"*1\r\n+OK\r\n", "the shard: {}", text(&exec));
    Ok(())
}

#[test]
fn a_watch_that_a_shard_refuses_holds_no_lease() -> Result<()> {
    let _others = among_others();
    let servers = Redis::many(2)?;
    let mut config = Config::new("redis")?
        .redis("r0", &servers[0].address(), "max-leases = 2")
        .redis("r1", &servers[1].address(), "");
    "workers = 1\n".clone_into(&mut config.top);
    let gateway = config.start()?;
    let (closed, open) = (key_on(0, 2, "k"), key_on(1, 2, "k"));
    let mut direct = servers[0].client()?;
    direct.expect_ok(&[b"ACL", b"SETUSER", b"default", b"-watch"])?;
    let mut clients: Vec<RespClient> = (0..6).map(|_| gateway.client()).collect::<Result<_>>()?;
    for client in &mut clients {
        let refused = client.words(&format!("WATCH {closed}"))?;
        ensure!(refused.starts_with(b"-NOPERM"), "{}", text(&refused));
        // What one Redis does: nothing is watched, and the transaction runs.
        let exec = multi(client, &closed)?;
        ensure!(exec == b"*1\r\n+OK\r\n", "unwatched: {}", text(&exec));
        client.words(&format!("WATCH {closed}"))?;
        let exec = swap(client, &open)?;
        ensure!(exec == b"*1\r\n+OK\r\n", "another shard: {}", text(&exec));
        client.words(&format!("WATCH {closed}"))?;
    }
    // In one pipeline, too.
    let requests = [
        format!("WATCH {closed}"),
        format!("WATCH {open}"),
        "MULTI".to_owned(),
        format!("SET {open} x"),
        "EXEC".to_owned(),
    ];
    let words: Vec<&str> = requests.iter().map(String::as_str).collect();
    let replies = clients[0].pipeline(&words)?;
    ensure!(replies[4] == b"*1\r\n+OK\r\n", "{}", text(&replies[4]));
    // A refused WATCH after a good one takes nothing from it.
    direct.expect_ok(&[b"ACL", b"SETUSER", b"default", b"+watch"])?;
    let client = &mut clients[1];
    client.expect_ok(&[b"WATCH", closed.as_bytes()])?;
    direct.expect_ok(&[b"ACL", b"SETUSER", b"default", b"-watch"])?;
    client.words(&format!("WATCH {closed}"))?;
    direct.expect_ok(&[b"SET", closed.as_bytes(), b"theirs"])?;
    let exec = multi(client, &closed)?;
    ensure!(exec == b"*-1\r\n", "a conflict: {}", text(&exec));
    Ok(())
}

#[test]
fn a_lost_watch_fails_one_exec_and_no_later_watch() -> Result<()> {
    let _others = among_others();
    let servers = Redis::many(2)?;
    let proxy = FaultyProxy::start(&servers[0].address())?;
    let gateway = Config::new("redis")?
        .redis("r0", &proxy.address(), "")
        .redis("r1", &servers[1].address(), "")
        .start()?;
    let (lost, open) = (key_on(0, 2, "k"), key_on(1, 2, "k"));
    for (next, unwatched) in [(&open, false), (&lost, false), (&open, true), (&lost, true)] {
        let mut client = gateway.client()?;
        client.expect_ok(&[b"WATCH", lost.as_bytes()])?;
        proxy.reset_all();
        std::thread::sleep(Duration::from_millis(20));
        crate::driver::until_answered(&gateway.address(), &format!("SET {lost} x"), b"+OK\r\n")?;
        if unwatched {
            client.expect_ok(&[b"UNWATCH"])?;
        }
        let wanted: &[u8] = if unwatched {
            b"*1\r\n+OK\r\n"
        } else {
            b"*-1\r\n"
        };
        let exec = swap(&mut client, next)?;
        ensure!(exec == wanted, "{next}, {unwatched}: {}", text(&exec));
        let exec = swap(&mut client, &open)?;
        ensure!(exec == b"*1\r\n+OK\r\n", "{next} again: {}", text(&exec));
    }
    Ok(())
}
