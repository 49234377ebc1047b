//! SIGTERM while bodies move: they end, or are cut by `drain-timeout`; the process ends well.
//!
//! Not about kills (see [`super::durability`]). Invariant: every body here has begun before the signal.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use breccia_testkit::Signal;

use super::site::{Plan, among_others, bytes_of};

const SIZE: usize = 6 * 1024 * 1024;

#[test]
fn bodies_in_flight_are_finished_before_the_gateway_ends() -> Result<()> {
    let _shared = among_others();
    let mut site = Plan::new()?
        .fs("disk")
        .sqlite("file")
        .top("drain-timeout = \"60s\"")
        .start()?;
    let keys: Vec<String> = (0..4)
        .map(|n| site.key_on(n % 2, &format!("up-{n}")))
        .collect();
    let down = site.key_on(0, "down");
    site.put(&down, &bytes_of(&down, 1, SIZE))?;
    let mut uploads = Vec::new();
    for key in &keys {
        let body = bytes_of(key, 1, SIZE);
        let mut exchange = site.request("PUT", key).length(SIZE).open()?;
        exchange.write(&body[..SIZE / 2])?;
        uploads.push((exchange, body));
    }
    let mut download = site.request("GET", &down).open()?;
    ensure!(download.head()?.status == 200);
    let mut read = download.read(10_000)?;
    site.gateway.process().signal(Signal::Term)?;
    std::thread::sleep(Duration::from_millis(500));
    ensure!(
        site.get("new").is_err(),
        "a new connection is served while it drains"
    );
    for (exchange, body) in &mut uploads {
        exchange.write(&body[SIZE / 2..])?;
        let (reply, _) = exchange.reply()?;
        ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    }
    read.extend(download.read(SIZE)?);
    ensure!(
        read == bytes_of(&down, 1, SIZE),
        "the download has {} bytes",
        read.len()
    );
    let status = site.gateway.process().wait(Duration::from_secs(20))?;
    ensure!(status.success(), "{status}");
    let config = site.config.clone();
    site.gateway.restart(&config)?;
    for key in &keys {
        ensure!(site.get(key)? == Some(bytes_of(key, 1, SIZE)), "{key}");
    }
    Ok(())
}

#[test]
fn bodies_that_do_not_end_are_cut_by_the_drain_timeout() -> Result<()> {
    let _shared = among_others();
    let mut site = Plan::new()?
        .fs("disk")
        .sqlite("file")
        .top("drain-timeout = \"2s\"")
        .start()?;
    let keys = [site.key_on(0, "up"), site.key_on(1, "up")];
    for key in &keys {
        site.put(key, b"old")?;
    }
    let mut uploads = Vec::new();
    for key in &keys {
        let mut exchange = site.request("PUT", key).length(SIZE).open()?;
        exchange.write(&bytes_of(key, 1, SIZE)[..SIZE / 2])?;
        uploads.push(exchange);
    }
    let begun = Instant::now();
    let status = site.gateway.terminate(Duration::from_secs(20))?;
    ensure!(status.success(), "{status}");
    ensure!(
        begun.elapsed() > Duration::from_millis(1_500),
        "it did not wait"
    );
    for exchange in &mut uploads {
        ensure!(
            exchange.is_cut_within(Duration::from_secs(5))?,
            "still open"
        );
    }
    let config = site.config.clone();
    site.gateway.restart(&config)?;
    for key in &keys {
        ensure!(
            site.get(key)?.as_deref() == Some(b"old".as_slice()),
            "{key}"
        );
    }
    Ok(())
}
