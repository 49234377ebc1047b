//! Memory while many big bodies move, and clients that are too slow.
//!
//! Not a benchmark: bodies are of 8 MiB, or as many as `BRECCIA_MEMORY_MIB` says (100 for a release build), and
//! all of them are in flight at once, since each waits for all others halfway. Invariant: nothing else of
//! this program runs meanwhile.

use std::sync::Barrier;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use breccia_testkit::{Exchange, Rgw, wait_until};

use super::site::{Plan, Site, alone, bytes_of};

const CLIENTS: usize = 64;
const LIMIT: u64 = 256 * 1024 * 1024;
const PIECE: usize = 256 * 1024;

fn body_bytes() -> usize {
    let named = std::env::var("BRECCIA_MEMORY_MIB").ok();
    named.and_then(|text| text.parse().ok()).unwrap_or(8) * 1024 * 1024
}

/// The most resident memory so far, and now, in bytes.
fn memory(site: &mut Site) -> Result<(u64, u64)> {
    let id = site.gateway.process().id();
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let value = |name: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let text = line
            .and_then(|line| line.split_whitespace().next())
            .context("a line")?;
        Ok(text.parse::<u64>()? * 1024)
    };
    Ok((value("VmHWM:")?, value("VmRSS:")?))
}

fn together(work: impl Fn(usize, &Barrier) -> Result<()> + Sync) -> Result<()> {
    let gate = Barrier::new(CLIENTS);
    std::thread::scope(|scope| {
        let (gate, work) = (&gate, &work);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| scope.spawn(move || work(number, gate)))
            .collect();
        for client in clients {
            client
                .join()
                .map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        Ok(())
    })
}

fn upload(site: &Site, number: usize, gate: &Barrier, piece: &[u8], length: usize) -> Result<()> {
    let request = site.request("PUT", &format!("big-{number}")).length(length);
    let pieces = length / PIECE;
    let mut exchange = request.open();
    let mut sent = Ok(());
    for count in 0..pieces {
        if count == pieces / 2 {
            gate.wait();
        }
        if let (Ok(exchange), Ok(())) = (&mut exchange, &sent) {
            sent = exchange.write(piece);
        }
    }
    let (reply, _) = exchange?
        .reply()
        .with_context(|| format!("upload {number}, {sent:?}"))?;
    ensure!(
        reply.status == 200,
        "upload {number}: {} {}",
        reply.status,
        reply.text()
    );
    sent
}

fn download(site: &Site, number: usize, gate: &Barrier, piece: &[u8], length: usize) -> Result<()> {
    let opened = site.request("GET", &format!("big-{number}")).open();
    let begun = opened.and_then(|mut exchange| {
        let head = exchange.head()?;
        ensure!(head.status == 200, "download {number}: {}", head.status);
        Ok(exchange)
    });
    gate.wait();
    let mut exchange = begun?;
    for count in 0..length / PIECE {
        let read = exchange.read(PIECE)?;
        ensure!(
            read == piece,
            "download {number}: piece {count} has {} bytes",
            read.len()
        );
    }
    Ok(())
}

fn check(mut site: Site) -> Result<()> {
    let length = body_bytes();
    let piece = bytes_of("piece", 1, PIECE);
    let (_, idle) = memory(&mut site)?;
    together(|number, gate| upload(&site, number, gate, &piece, length))?;
    let (after_uploads, _) = memory(&mut site)?;
    together(|number, gate| download(&site, number, gate, &piece, length))?;
    let (most, now) = memory(&mut site)?;
    let shown = |bytes: u64| bytes / 1024 / 1024;
    println!(
        "resident MiB: idle {}, at most {} while uploading, {} in all, {} at the end",
        shown(idle),
        shown(after_uploads),
        shown(most),
        shown(now)
    );
    ensure!(most < LIMIT, "{} MiB were resident", shown(most));
    Ok(())
}

#[test]
fn many_big_bodies_stay_within_bounded_memory_over_folders() -> Result<()> {
    let _alone = alone();
    check(
        Plan::new()?
            .fs("a")
            .fs("b")
            .listener("deadline = \"30s\"")
            .start()?,
    )
}

#[test]
fn many_big_bodies_stay_within_bounded_memory_over_buckets() -> Result<()> {
    let _alone = alone();
    let rgw = Rgw::shared()?.s3();
    rgw.create_bucket("memory-a")?;
    rgw.create_bucket("memory-b")?;
    let plan = Plan::new()?
        .patient()
        .s3("a", rgw, rgw.address(), "memory-a")
        .s3("b", rgw, rgw.address(), "memory-b");
    let site = plan.listener("deadline = \"30s\"").start()?;
    check(site)
}

/// Sends a byte a second on each, until all are cut.
fn fed_slowly(writers: &mut [Exchange]) -> Result<()> {
    let feed = |writer: &mut Exchange| -> Result<bool> {
        for _ in 0..30 {
            let cut = writer.is_cut_within(Duration::from_secs(1))?;
            if cut || writer.write(b"x").is_err() {
                return Ok(true);
            }
        }
        Ok(false)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = writers
            .iter_mut()
            .map(|writer| scope.spawn(move || feed(writer)))
            .collect();
        for thread in threads {
            let cut = thread.join().map_err(|_| anyhow::anyhow!("a panic"))??;
            ensure!(cut, "a client that sends a byte a second is not cut");
        }
        Ok(())
    })
}

#[test]
fn clients_that_are_too_slow_are_cut_and_their_memory_comes_back() -> Result<()> {
    let _alone = alone();
    let keys = "min-body-rate = \"1KiB\"\nwrite-timeout = \"2s\"\nbuffer-memory = \"8MiB\"";
    let site = Plan::new()?.fs("a").sqlite("b").listener(keys).start()?;
    let length = 16 * 1024 * 1024;
    let there = site.key_on(0, "there");
    site.put(&there, &bytes_of(&there, 1, length))?;
    let (mut readers, mut writers) = (Vec::new(), Vec::new());
    for number in 0..12 {
        let mut reader = site.request("GET", &there).open()?;
        if reader.head()?.status == 200 {
            readers.push(reader);
        }
        let key = site.key_on(number % 2, &format!("slow-{number}"));
        let mut writer = site.request("PUT", &key).length(length).open()?;
        writer.write(&bytes_of(&key, 1, 100_000))?;
        writers.push(writer);
    }
    ensure!(
        readers.len() > 4,
        "only {} readers were let in",
        readers.len()
    );
    fed_slowly(&mut writers)?;
    // All of the small budget is to be had again.
    let free = wait_until(
        Duration::from_secs(20),
        "the memory of slow readers",
        || {
            let key = site.key_on(0, "after");
            let stored = site
                .call("PUT", &key, &bytes_of(&key, 1, 2_000_000))?
                .status
                == 200;
            Ok((stored && site.get(&key)?.is_some()).then_some(()))
        },
    );
    free?;
    for reader in &mut readers {
        let read = reader.read(length).unwrap_or_default();
        ensure!(
            read.len() < length,
            "a client that did not read was waited for"
        );
        ensure!(
            bytes_of(&there, 1, length).starts_with(&read),
            "wrong bytes"
        );
    }
    for number in 0..12 {
        let key = site.key_on(number % 2, &format!("slow-{number}"));
        ensure!(site.get(&key)?.is_none(), "{key} is there");
    }
    Ok(())
}
