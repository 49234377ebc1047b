//! A store whose primary Sentinel names: it is found, followed when it changes, and said so.
//!
//! Invariant: times are measured from the moment at which a replica says that it is the primary.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use breccia_testkit::{Breccia, Redis, RedisSentinel, Reply, RespClient, free_port, wait_until};

/// Writes are to be answered again this long after the promotion.
const RESUMES_WITHIN: Duration = Duration::from_secs(1);
const DOWN_AFTER: Duration = Duration::from_millis(700);
/// A failover is over by then.
const FAILOVER_LIMIT: Duration = Duration::from_secs(30);

fn config(group: &RedisSentinel, port: u16, more: &str) -> String {
    format!(
        "workers = 2\n[store.s]\ntype = \"redis-sentinel\"\nurls = [{}]\nservice = \"{}\"\n{more}\n\
         [listener.l]\nprotocol = \"redis\"\nbind = \"127.0.0.1:{port}\"\nstore = \"s\"\n",
        group.urls(),
        RedisSentinel::SERVICE
    )
}

fn client(port: u16) -> Result<RespClient> {
    RespClient::connect(&format!("127.0.0.1:{port}"))
}

/// One acknowledged write: its number, and when it was answered.
type Acknowledged = (u64, Instant);

/// Writes numbers to keys of their own until told to stop; answers what was acknowledged, and every
/// other answer.
fn write_until(stop: &AtomicBool, port: u16) -> Result<(Vec<Acknowledged>, Vec<String>)> {
    let (mut acknowledged, mut others) = (Vec::new(), Vec::new());
    let mut client = client(port)?;
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let (key, value) = (format!("k:{number}"), number.to_string());
        let reply = client.call(&[b"SET", key.as_bytes(), value.as_bytes()])?;
        if reply == b"+OK\r\n" {
            acknowledged.push((number, Instant::now()));
        } else {
            others.push(String::from_utf8_lossy(&reply).trim_end().to_owned());
        }
        number += 1;
        thread::sleep(Duration::from_millis(1));
    }
    Ok((acknowledged, others))
}

/// Waits until a replica says that it is the primary; which one, and when it said so.
fn promotion(group: &RedisSentinel) -> Result<(usize, Instant)> {
    let mut clients = Vec::new();
    for number in 1..group.servers.len() {
        clients.push((number, group.server(number)?.client()?));
    }
    let begun = Instant::now();
    while begun.elapsed() < FAILOVER_LIMIT {
        for (number, client) in &mut clients {
            // Sentinel cuts a server's clients off when it promotes it.
            let Ok(role) = client.call(&[b"ROLE"]) else {
                *client = group.server(*number)?.client()?;
                continue;
            };
            if String::from_utf8_lossy(&role).contains("master\r\n:") {
                return Ok((*number, Instant::now()));
            }
        }
        thread::sleep(Duration::from_millis(2));
    }
    anyhow::bail!("no replica was promoted")
}

/// Loses the primary under load as `lose` says, and holds the gateway to what it promises.
fn fail_over(lose: impl FnOnce(&mut RedisSentinel) -> Result<()>) -> Result<()> {
    let mut group = RedisSentinel::start(2, 3, DOWN_AFTER)?;
    let port = free_port()?;
    let gateway = Breccia::start(&config(&group, port, ""))?;
    let stop = Arc::new(AtomicBool::new(false));
    let writing = {
        let stop = Arc::clone(&stop);
        thread::spawn(move || write_until(&stop, port))
    };
    thread::sleep(Duration::from_millis(500));
    lose(&mut group)?;
    let (promoted, at) = promotion(&group)?;
    thread::sleep(Duration::from_secs(2));
    stop.store(true, Ordering::Relaxed);
    let (acknowledged, others) = writing.join().expect("the writer ends")?;
    let resumed = acknowledged.iter().find(|(_, answered)| *answered > at);
    let (number, resumed) = resumed.context("no write was answered after the promotion")?;
    let after = *resumed - at;
    println!("writes resumed {after:?} after the promotion (number {number})");
    ensure!(
        after < RESUMES_WITHIN,
        "writes resumed only after {after:?}"
    );
    for other in &others {
        let known = ["-SHARDDOWN ", "-TIMEOUT ", "-READONLY ", "-LOST "];
        ensure!(known.iter().any(|code| other.starts_with(code)), "{other}");
    }
    // What was acknowledged after the promotion is on the new primary.
    let mut server = group.server(promoted)?.client()?;
    for (number, answered) in &acknowledged {
        if *answered > at + Duration::from_millis(300) {
            let value = server.reply(&format!("GET k:{number}"))?;
            ensure!(
                value.bytes().is_some(),
                "k:{number} is lost ({value:?}), answered {:?} after the promotion of {promoted}:\n{}",
                *answered - at,
                gateway.log()
            );
        }
    }
    let log = gateway.log();
    let switches = log.matches("the primary has changed").count();
    ensure!(switches == 1, "{switches} switches are logged:\n{log}");
    let new = format!("127.0.0.1:{}", group.server(promoted)?.port());
    ensure!(log.contains(&format!("address={new}")), "{log}");
    let (_, status) = gateway.admin("/status")?;
    ensure!(
        status.contains(&format!("\"primary\": \"{new}\"")),
        "{status}"
    );
    Ok(())
}

#[test]
fn writes_resume_within_a_second_of_a_promotion_after_the_primary_was_killed() -> Result<()> {
    fail_over(|group| {
        group.servers[0].kill9();
        Ok(())
    })
}

#[test]
fn writes_resume_within_a_second_of_a_promotion_after_the_primary_froze() -> Result<()> {
    fail_over(|group| group.servers[0].sigstop())
}

#[test]
fn writes_resume_within_a_second_of_a_promotion_by_hand() -> Result<()> {
    fail_over(|group| {
        let words: [&[u8]; 3] = [b"SENTINEL", b"FAILOVER", RedisSentinel::SERVICE.as_bytes()];
        group.sentinel(1)?.expect_ok(&words)
    })
}

#[test]
fn the_gateway_starts_without_a_sentinel_and_heals() -> Result<()> {
    let group = RedisSentinel::start(0, 1, DOWN_AFTER)?;
    let (port, dead) = (free_port()?, free_port()?);
    let good = config(&group, port, "");
    let bad = good.replace(&group.urls(), &format!("\"redis://127.0.0.1:{dead}\""));
    let gateway = Breccia::start_unready(&bad)?;
    let mut client = client(port)?;
    let refusal = client.reply("GET k")?;
    let text = refusal.error().context("an error was expected")?;
    ensure!(
        text.starts_with("SHARDDOWN s is unreachable (no sentinel has named its primary"),
        "{text}"
    );
    let (status, answer) = gateway.reload(&good)?;
    ensure!(status == 200, "{answer}");
    wait_until(Duration::from_secs(5), "the primary to be found", || {
        Ok((client.call(&[b"SET", b"k", b"v"])? == b"+OK\r\n").then_some(()))
    })?;
    ensure!(client.reply("GET k")? == Reply::Bulk(b"v".to_vec()));
    Ok(())
}

#[test]
fn transactions_subscriptions_and_blocked_clients_survive_a_change_of_the_primary() -> Result<()> {
    let group = RedisSentinel::start(1, 1, DOWN_AFTER)?;
    let port = free_port()?;
    let _gateway = Breccia::start(&config(&group, port, ""))?;
    let (mut blocked, mut subscriber, mut watcher) = (client(port)?, client(port)?, client(port)?);
    watcher.expect_ok(&[b"WATCH", b"w"])?;
    subscriber.send(b"SUBSCRIBE c\r\n")?;
    subscriber.read_reply()?;
    blocked.send(b"BLPOP l 0\r\n")?;
    thread::sleep(Duration::from_millis(100));
    let words: [&[u8]; 3] = [b"SENTINEL", b"FAILOVER", RedisSentinel::SERVICE.as_bytes()];
    group.sentinel(0)?.expect_ok(&words)?;
    let (_, _) = promotion(&group)?;
    let mut other = client(port)?;
    wait_until(Duration::from_secs(5), "writes to resume", || {
        Ok((other.call(&[b"SET", b"k", b"v"])? == b"+OK\r\n").then_some(()))
    })?;
    // A blocked client is told; a watched transaction fails; both connections stay usable.
    let told = blocked.read_reply()?;
    ensure!(told.first() == Some(&b'-'), "{}", told.escape_ascii());
    watcher.expect_ok(&[b"MULTI"])?;
    watcher.call(&[b"SET", b"w", b"1"])?;
    let outcome = watcher.call(&[b"EXEC"])?;
    ensure!(outcome.first() == Some(&b'-'), "{}", outcome.escape_ascii());
    for client in [&mut blocked, &mut watcher] {
        ensure!(client.call(&[b"SET", b"k", b"v"])? == b"+OK\r\n");
    }
    wait_until(
        Duration::from_secs(5),
        "the subscription to be renewed",
        || Ok((other.reply("PUBLISH c m")?.integer() == Some(1)).then_some(())),
    )?;
    Ok(())
}

#[test]
fn a_check_names_the_primary_or_what_is_in_the_way() -> Result<()> {
    let group = RedisSentinel::start(0, 1, DOWN_AFTER)?;
    let folder = tempfile::tempdir()?;
    let check = |config: &str| -> Result<(bool, String)> {
        std::fs::write(folder.path().join("b.toml"), config)?;
        let output = Breccia::run(folder.path(), &["check", "--config", "b.toml", "--connect"])?;
        let said = [output.stdout, output.stderr].concat();
        Ok((
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        ))
    };
    let good = config(&group, free_port()?, "");
    let (fine, said) = check(&good)?;
    ensure!(fine && said.contains("answers (Redis "), "{said}");
    let (fine, said) = check(&good.replace("mymaster", "other"))?;
    ensure!(!fine && said.contains("No such master"), "{said}");
    let server: &Redis = group.server(0)?;
    let (fine, said) = check(&good.replace(&group.urls(), &format!("\"{}\"", server.url())))?;
    ensure!(!fine && said.contains("unknown command"), "{said}");
    Ok(())
}

#[test]
fn replicas_answer_reads_where_configured_and_the_primary_when_they_are_down() -> Result<()> {
    let mut group = RedisSentinel::start(1, 1, DOWN_AFTER)?;
    let port = free_port()?;
    let _gateway = Breccia::start(&config(&group, port, "read-from-replicas = true"))?;
    let mut client = client(port)?;
    client.expect_ok(&[b"SET", b"k", b"v"])?;
    let gets = |group: &RedisSentinel, server: usize| gets(&mut group.server(server)?.client()?);
    wait_until(Duration::from_secs(5), "a replica to answer", || {
        client.call(&[b"GET", b"k"])?;
        Ok((gets(&group, 1)? > 0).then_some(()))
    })?;
    let before = gets(&group, 0)?;
    for _ in 0..20 {
        ensure!(client.reply("GET k")? == Reply::Bulk(b"v".to_vec()));
    }
    ensure!(gets(&group, 0)? == before, "the primary answered reads");
    group.servers[1].kill9();
    thread::sleep(Duration::from_millis(300));
    wait_until(
        Duration::from_secs(5),
        "the primary to answer reads",
        || Ok((client.reply("GET k")? == Reply::Bulk(b"v".to_vec())).then_some(())),
    )?;
    Ok(())
}

/// How many GETs a server has answered.
pub(crate) fn gets(server: &mut RespClient) -> Result<u64> {
    let stats = server.call(&[b"INFO", b"commandstats"])?;
    let stats = String::from_utf8_lossy(&stats).into_owned();
    let (_, rest) = stats.split_once("cmdstat_get:calls=").unwrap_or(("", "0"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Ok(digits.parse()?)
}
