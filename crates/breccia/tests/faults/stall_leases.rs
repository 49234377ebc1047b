//! A frozen shard as clients see it that hold a connection of their own: MULTI, WATCH, big values.
//!
//! Default settings. Invariant: what was answered with an error more than 100 ms after the stall
//! began never runs, on leases as on shared connections.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use breccia_testkit::{Redis, RespClient};

use crate::common::{Gateway, key_on};
use crate::driver::{among_others, request};

/// What one client of the frozen shard did: the keys that its requests count up, and each reply.
struct Told {
    what: String,
    keys: Vec<String>,
    replies: Vec<Vec<u8>>,
}

impl Told {
    /// Whether the client was told that its request number `index` was applied; `None`: neither.
    fn applied(&self, index: usize) -> bool {
        self.replies
            .get(index)
            .is_some_and(|reply| !reply.starts_with(b"-"))
    }
}

fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

fn key(salt: &str) -> String {
    key_on(1, 3, salt)
}

/// Increments one after another, with pauses, on a connection that watches a key.
fn watching(mut client: RespClient, salt: &str) -> Result<Told> {
    let keys: Vec<String> = (0..4)
        .map(|number| key(&format!("{salt}{number}:")))
        .collect();
    for key in &keys {
        client.send(&request(&format!("INCR {key}")))?;
        pause(100);
    }
    let replies = keys
        .iter()
        .map(|_| client.read_reply())
        .collect::<Result<_>>()?;
    Ok(Told {
        what: "increments while watching".to_owned(),
        keys,
        replies,
    })
}

/// Transactions of one increment, each written at once; closed loop.
fn transactions(mut client: RespClient, salt: &str, until: Instant) -> Result<Told> {
    let (mut keys, mut replies) = (Vec::new(), Vec::new());
    for number in 0.. {
        if Instant::now() > until {
            break;
        }
        let key = key(&format!("{salt}{number}:"));
        let answers = client.pipeline(&["MULTI", &format!("INCR {key}"), "EXEC"])?;
        replies.push(
            answers
                .into_iter()
                .next_back()
                .context("the reply to EXEC")?,
        );
        keys.push(key);
        pause(20);
    }
    Ok(Told {
        what: "transactions".to_owned(),
        keys,
        replies,
    })
}

/// A transaction whose commands come one by one, with pauses.
fn slow_transaction(mut client: RespClient, salt: &str) -> Result<Told> {
    let key = key(salt);
    let mut last = Vec::new();
    for words in [
        "MULTI",
        &format!("INCR {key}"),
        &format!("INCR {key}"),
        "EXEC",
    ] {
        client.send(&request(words))?;
        pause(150);
    }
    for _ in 0..4 {
        last = client.read_reply()?;
    }
    Ok(Told {
        what: "a slow transaction".to_owned(),
        keys: vec![key],
        replies: vec![last],
    })
}

/// Big values, each on a connection of its own; closed loop.
fn big_values(mut client: RespClient, salt: &str, until: Instant) -> Result<Told> {
    let (mut keys, mut replies) = (Vec::new(), Vec::new());
    let value = vec![b'v'; 100 * 1024];
    for number in 0.. {
        if Instant::now() > until {
            break;
        }
        let key = key(&format!("{salt}{number}:"));
        replies.push(client.call(&[b"APPEND", key.as_bytes(), &value])?);
        keys.push(key);
        pause(20);
    }
    Ok(Told {
        what: "big values".to_owned(),
        keys,
        replies,
    })
}

type Work = Box<dyn FnOnce(RespClient) -> Result<Told> + Send>;

/// Clients with their work; those that watch have done so already.
fn clients(gateway: &Gateway, until: Instant) -> Result<Vec<(RespClient, Work)>> {
    let mut all: Vec<(RespClient, Work)> = Vec::new();
    for number in 0..4 {
        let salt = move |kind: &str| format!("{kind}{number}-");
        let mut watcher = gateway.client()?;
        watcher.expect_ok(&[b"WATCH", key("watched").as_bytes()])?;
        all.push((
            watcher,
            Box::new(move |client| watching(client, &salt("w"))),
        ));
        let work: Work = Box::new(move |client| transactions(client, &salt("t"), until));
        all.push((gateway.client()?, work));
        all.push((
            gateway.client()?,
            Box::new(move |client| slow_transaction(client, &salt("s"))),
        ));
        let work: Work = Box::new(move |client| big_values(client, &salt("b"), until));
        all.push((gateway.client()?, work));
    }
    Ok(all)
}

#[test]
fn nothing_that_was_refused_on_a_lease_runs_late() -> Result<()> {
    let _others = among_others();
    let mut servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    // Leases and shared connections exist before the stall.
    for (number, mut client) in (0..8).zip(std::iter::repeat_with(|| gateway.client())) {
        let client = client
            .as_mut()
            .map_err(|error| anyhow::anyhow!("{error}"))?;
        let key = key(&format!("warm{number}"));
        client.pipeline(&[
            &format!("SET {key} v"),
            "MULTI",
            &format!("GET {key}"),
            "EXEC",
        ])?;
    }
    let stall_ends = Instant::now() + Duration::from_millis(3_400);
    let clients = clients(&gateway, stall_ends)?;
    servers[1].sigstop()?;
    pause(150);
    let threads: Vec<_> = clients
        .into_iter()
        .map(|(client, work)| std::thread::spawn(move || work(client)))
        .collect();
    pause(u64::try_from(
        stall_ends
            .saturating_duration_since(Instant::now())
            .as_millis(),
    )?);
    servers[1].sigcont()?;
    let mut told = Vec::new();
    for thread in threads {
        told.push(
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a client panicked"))??,
        );
    }
    pause(300);
    let mut shard = servers[1].client()?;
    let (mut applied, mut refused) = (0, 0);
    for told in &told {
        for (index, key) in told.keys.iter().enumerate() {
            let ran = shard.words(&format!("EXISTS {key}"))? == b":1\r\n";
            let reply = told.replies[index].escape_ascii().to_string();
            let reply = reply.get(..120).unwrap_or(&reply);
            let was_told = told.applied(index);
            ensure!(
                ran == was_told,
                "{}: {key} ran: {ran}; told: {reply}",
                told.what
            );
            if ran { applied += 1 } else { refused += 1 }
        }
    }
    println!("{applied} requests were applied, {refused} refused; nothing else ran");
    ensure!(
        refused > 20,
        "only {refused} were refused: the stall was not felt"
    );
    Ok(())
}
