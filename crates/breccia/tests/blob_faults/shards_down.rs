//! Shards that are down, frozen or cut: only their keys fail, soon and by name, and they come back.
//!
//! Not about a gateway that ends (see [`super::durability`]). Invariant: shard 0 of every site here is the
//! one that fails, and shard 1, a folder, never does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use breccia_testkit::{Fault, FaultyProxy, Postgres, PostgresOptions, Rgw, S3Request, S3Server};

use super::site::{Plan, Site, alone, among_others, bytes_of, got, path};

/// How long an answer about a shard that refuses connections may take, on a machine under load.
const SOON: Duration = Duration::from_secs(4);
/// How long one about a shard that is silent may take: its timeout is 3 s.
const SILENT: Duration = Duration::from_secs(12);

fn timed(site: &Site, method: &str, rest: &str, body: &[u8]) -> Result<(u16, String, Duration)> {
    let begun = Instant::now();
    let reply = site.call(method, rest, body)?;
    Ok((reply.status, reply.text(), begun.elapsed()))
}

/// Shard 0 fails as it should, and shard 1 works.
fn is_down(site: &Site, limit: Duration) -> Result<()> {
    let key = site.key_on(0, "down");
    for method in ["PUT", "GET", "DELETE", "PUT", "GET"] {
        let body: &[u8] = if method == "PUT" { b"x" } else { b"" };
        let (status, text, took) = timed(site, method, &key, body)?;
        ensure!(status == 503, "{method}: {status} {text}");
        ensure!(
            text.contains("far"),
            "{method} does not name the shard: {text}"
        );
        ensure!(took < limit, "{method} took {took:?}");
    }
    let (status, _, took) = timed(site, "HEAD", &key, b"")?;
    ensure!(
        status == 503 && took < limit,
        "HEAD: {status} after {took:?}"
    );
    let (status, text, took) = timed(site, "POST", &format!("{key}?uploads="), b"")?;
    ensure!(
        status == 503 && text.contains("far") && took < limit,
        "{status} {text} {took:?}"
    );
    let (status, text, took) = timed(site, "GET", "?list-type=2", b"")?;
    ensure!(
        status == 503 && text.contains("far") && took < limit,
        "{status} {text} {took:?}"
    );
    other_works(site)
}

fn other_works(site: &Site) -> Result<()> {
    let key = site.key_on(1, "works");
    let (status, text, took) = timed(site, "PUT", &key, b"here")?;
    ensure!(
        status == 200 && took < SOON,
        "{status} {text} after {took:?}"
    );
    let (status, text, took) = timed(site, "GET", &key, b"")?;
    ensure!(
        status == 200 && text == "here" && took < SOON,
        "{status} {text} after {took:?}"
    );
    Ok(())
}

fn is_back(site: &Site) -> Result<()> {
    site.wait_for_put(&site.key_on(0, "back"), 200)?;
    ensure!(site.get(&site.key_on(0, "back"))?.as_deref() == Some(b"waited for".as_slice()));
    site.keys()?;
    other_works(site)
}

/// What each key may hold: what was acknowledged last, or what was tried since with an unknown outcome.
type Known = BTreeMap<String, Vec<Option<Vec<u8>>>>;

/// Clients that write and read both shards and remember what was acknowledged.
#[derive(Debug, Default)]
struct Load {
    ended: AtomicBool,
    answers: AtomicU64,
    refusals: AtomicU64,
}

impl Load {
    fn client(&self, server: &S3Server, number: u64, shards: usize) -> Result<Known> {
        let mut known = Known::new();
        for version in 0.. {
            if self.ended.load(Ordering::Relaxed) {
                break;
            }
            let stem = format!("load-{number}-{}", version % 5);
            let shard = usize::try_from(version % 2)?;
            let key = super::site::key_on(shard, shards, &stem);
            let bytes = bytes_of(&key, version, 20_000);
            let reply = S3Request::new(server, "PUT", &path(&key)).send(&bytes)?;
            let versions = known.entry(key.clone()).or_insert_with(|| vec![None]);
            match reply.status {
                200 => *versions = vec![Some(bytes)],
                503 if reply.text().contains("far") => {
                    ensure!(shard == 0, "{key} of the other shard: {}", reply.text());
                    if !reply.text().contains("not applied") {
                        versions.push(Some(bytes));
                    }
                    self.refusals.fetch_add(1, Ordering::Relaxed);
                }
                status => anyhow::bail!("{key}: {status} {}", reply.text()),
            }
            self.answers.fetch_add(1, Ordering::Relaxed);
        }
        Ok(known)
    }
}

/// Lets clients work while `trouble` happens; then everything acknowledged is there.
fn under_load(site: &Site, trouble: impl FnOnce() -> Result<()>) -> Result<()> {
    let load = Load::default();
    let known = std::thread::scope(|scope| -> Result<Vec<_>> {
        let client = |number| {
            let load = &load;
            scope.spawn(move || load.client(&site.s3, number, site.plan.count()))
        };
        let clients: Vec<_> = (0..4).map(client).collect();
        std::thread::sleep(Duration::from_millis(700));
        let outcome = trouble();
        let back = is_back(site);
        std::thread::sleep(Duration::from_millis(300));
        load.ended.store(true, Ordering::Relaxed);
        let joined = clients.into_iter().map(|client| match client.join() {
            Ok(known) => known,
            Err(_) => anyhow::bail!("a client panicked"),
        });
        let known: Result<Vec<_>> = joined.collect();
        outcome?;
        back?;
        known
    })?;
    ensure!(
        load.refusals.load(Ordering::Relaxed) > 0,
        "nobody noticed the trouble"
    );
    for (key, versions) in known.iter().flatten() {
        let found = got(&site.s3, key)?;
        let fits = versions.contains(&found);
        ensure!(fits, "{key} is none of {} versions", versions.len());
    }
    Ok(())
}

/// While shard 0 is silent: its requests end with an outcome, and others do not wait for them.
fn is_silent(site: &Site) -> Result<()> {
    let key = site.key_on(0, "silent");
    std::thread::scope(|scope| -> Result<()> {
        let ask = |number: usize| {
            let key = format!("{key}-{number}");
            let key = super::site::key_on(0, site.plan.count(), &key);
            let method = if number.is_multiple_of(2) {
                "PUT"
            } else {
                "GET"
            };
            scope.spawn(move || timed(site, method, &key, b""))
        };
        let waiting: Vec<_> = (0..12).map(ask).collect();
        for _ in 0..10 {
            other_works(site).context("while the other shard is silent")?;
        }
        for waiting in waiting {
            let answer = waiting.join();
            let (status, text, took) = answer.map_err(|_| anyhow::anyhow!("a panic"))??;
            ensure!(status == 503 && text.contains("far"), "{status} {text}");
            let outcome = text.contains("unknown") || text.contains("not applied");
            ensure!(outcome, "the outcome is not told: {text}");
            ensure!(took < SILENT, "it took {took:?}");
        }
        Ok(())
    })
}

#[test]
fn a_bucket_that_is_down_fails_only_its_keys() -> Result<()> {
    let _shared = among_others();
    let rgw = Rgw::shared()?.s3();
    rgw.create_bucket("down")?;
    let proxy = FaultyProxy::start(rgw.address())?;
    // It starts while the shard is down.
    proxy.set(Fault::Refuse);
    let plan = Plan::new()?
        .s3("far", rgw, &proxy.address(), "down")
        .fs("near");
    let mut site = plan.start_unready()?;
    is_down(&site, SOON).context("down since the start")?;
    proxy.set(Fault::None);
    is_back(&site).context("up for the first time")?;
    site.gateway.wait_for("/readyz")?;
    for round in 0..2 {
        proxy.set(Fault::Refuse);
        proxy.reset_all();
        is_down(&site, SOON).with_context(|| format!("down, round {round}"))?;
        proxy.set(Fault::None);
        is_back(&site).with_context(|| format!("up, round {round}"))?;
    }
    cut_replies(&site, &proxy)
}

/// Connections that are reset within the reply of a shard.
fn cut_replies(site: &Site, proxy: &FaultyProxy) -> Result<()> {
    let key = site.key_on(0, "cut");
    let bytes = bytes_of(&key, 1, 1_000_000);
    site.put(&key, &bytes)?;
    for fault in [
        Fault::ResetAfter(300_000),
        Fault::CutAfter(300_000),
        Fault::ResetAfter(100),
    ] {
        proxy.set(fault);
        let mut exchange = site.request("GET", &key).open()?;
        // Nothing at all is an honest answer, too.
        if let Ok((reply, whole)) = exchange.reply() {
            ensure!(!(whole && reply.status == 200), "{fault:?}: whole");
            let prefix = reply.status != 200 || bytes.starts_with(&reply.body);
            ensure!(prefix, "{fault:?}: wrong bytes");
        }
        proxy.set(Fault::None);
        is_back(site).with_context(|| format!("{fault:?}"))?;
        ensure!(
            site.get(&key)?.as_deref() == Some(bytes.as_slice()),
            "{fault:?}"
        );
    }
    proxy.set(Fault::CutAfter(0));
    let newer = bytes_of(&key, 2, 1_000_000);
    let reply = site.call("PUT", &key, &newer)?;
    let text = reply.text();
    ensure!(
        reply.status == 503 && text.contains("far"),
        "{} {text}",
        reply.status
    );
    proxy.set(Fault::None);
    is_back(site)?;
    let found = site.get(&key)?.context("the key is gone")?;
    ensure!(found == newer || found == bytes, "neither of two versions");
    if text.contains("not applied") {
        ensure!(found == bytes, "told as not applied, and was: {text}");
    }
    Ok(())
}

#[test]
fn a_bucket_server_that_dies_or_freezes_under_load_harms_only_its_keys() -> Result<()> {
    let _alone = alone();
    let mut rgw = Rgw::start()?;
    rgw.s3().create_bucket("load")?;
    let server = rgw.s3().clone();
    let site = Plan::new()?
        .s3("far", &server, server.address(), "load")
        .fs("near")
        .start()?;
    under_load(&site, || {
        rgw.kill9();
        std::thread::sleep(Duration::from_millis(500));
        is_down(&site, SOON).context("killed")?;
        rgw.restart_same_port()
    })?;
    rgw.sigstop()?;
    is_silent(&site)?;
    rgw.sigcont()?;
    is_back(&site).context("thawed")
}

fn durable() -> Result<Postgres> {
    let postgres = Postgres::start(PostgresOptions {
        fsync: true,
        settings: Vec::new(),
    })?;
    postgres.create_database("blobs")?;
    Ok(postgres)
}

#[test]
fn a_database_that_dies_or_freezes_under_load_harms_only_its_keys() -> Result<()> {
    let _alone = alone();
    let mut postgres = durable()?;
    let port = postgres.port();
    let plan = Plan::new()?
        .postgres("far", &postgres, port, "blobs")
        .fs("near");
    postgres.kill9();
    let mut site = plan.start_unready()?;
    is_down(&site, SOON).context("down since the start")?;
    postgres.restart_same_port()?;
    is_back(&site).context("up for the first time")?;
    site.gateway.wait_for("/readyz")?;
    under_load(&site, || {
        postgres.kill9();
        std::thread::sleep(Duration::from_millis(500));
        is_down(&site, SOON).context("killed")?;
        postgres.restart_same_port()
    })?;
    postgres.freeze_all()?;
    is_silent(&site)?;
    postgres.thaw_all()?;
    is_back(&site).context("thawed")
}
