//! kill -9 of the gateway while clients write: what was acknowledged is there, whole.
//!
//! Not a loss of power: the kernel outlives the gateway. Invariant: a client knows of each of its keys which
//! versions may be there, before it looks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use breccia_core::hash::splitmix64;
use breccia_testkit::{S3Request, S3Server, wait_until};

use super::site::{
    BUCKET, Plan, Site, Upload, among_others, bytes_of, generation_files, got, listed, path,
};

const CLIENTS: u64 = 8;
const KEYS: u64 = 12;
const ACKNOWLEDGED: u64 = 1_000;
const PART: usize = 5 * 1024 * 1024;

/// What a key may hold: a version, or nothing.
type State = Option<u64>;

/// One client's knowledge: per key what was acknowledged last, and what was tried after that.
type Knowledge = BTreeMap<String, (State, Vec<State>)>;

fn length_of(version: u64) -> usize {
    let number = splitmix64(version);
    let limit = if number.is_multiple_of(16) {
        900_000
    } else {
        70_000
    };
    usize::try_from(number / 16 % limit).unwrap_or(0)
}

fn content(key: &str, version: u64) -> Vec<u8> {
    let length = length_of(version);
    // Every sixty-fourth version is written in parts.
    let parts = if version.is_multiple_of(64) { PART } else { 0 };
    bytes_of(key, version, parts + length + 64)
}

/// How a version is cut into parts: two for big ones, and for every eighth a single small one.
fn parts_of(version: u64, bytes: &[u8]) -> Option<Vec<&[u8]>> {
    if version.is_multiple_of(64) {
        return Some(vec![&bytes[..PART], &bytes[PART..]]);
    }
    (version % 8 == 1).then(|| vec![bytes])
}

/// Whether the write of this version was acknowledged.
fn write(server: &S3Server, key: &str, version: u64) -> Result<bool> {
    if version % 16 == 5 {
        let reply = S3Request::new(server, "DELETE", &path(key)).send(b"")?;
        return Ok(reply.status == 204);
    }
    let bytes = content(key, version);
    if let Some(parts) = parts_of(version, &bytes) {
        let mut upload = Upload::begin(server, key)?;
        for part in parts {
            upload.part(server, part)?;
        }
        return Ok(upload.complete(server)?.0 == 200);
    }
    Ok(S3Request::new(server, "PUT", &path(key))
        .send(&bytes)?
        .status
        == 200)
}

/// Writes until the gateway is gone; adds what it learnt.
fn client(
    server: &S3Server,
    number: u64,
    known: &mut Knowledge,
    versions: &AtomicU64,
    acknowledged: &AtomicU64,
    ended: &AtomicBool,
) {
    let mut failures = 0;
    while failures < 3 && !ended.load(Ordering::Relaxed) {
        let version = versions.fetch_add(1, Ordering::Relaxed);
        let key = format!("c{number}-{}", splitmix64(version) % KEYS);
        let state = (version % 16 != 5).then_some(version);
        let entry = known.entry(key.clone()).or_default();
        entry.1.push(state);
        if write(server, &key, version).unwrap_or(false) {
            *entry = (state, Vec::new());
            acknowledged.fetch_add(1, Ordering::Relaxed);
        } else {
            failures += 1;
        }
    }
}

/// Looks at every key: it holds what was acknowledged, or whole what was tried after that.
fn verify(server: &S3Server, known: &mut Knowledge) -> Result<()> {
    for (key, (acknowledged, tried)) in known {
        let found = got(server, key)?;
        let allowed: Vec<State> = std::iter::once(*acknowledged)
            .chain(tried.drain(..))
            .collect();
        let matching = allowed.iter().find(|state| match (state, &found) {
            (None, None) => true,
            (Some(version), Some(bytes)) => *bytes == content(key, *version),
            _ => false,
        });
        let start = found.as_ref().map(|bytes| {
            let line = bytes
                .split(|byte| *byte == b'\n')
                .next()
                .unwrap_or_default();
            (bytes.len(), line.escape_ascii().to_string())
        });
        let state = matching.with_context(|| {
            format!("{key} holds {start:?}; it may hold one of {allowed:?}, the first acknowledged")
        })?;
        *acknowledged = *state;
    }
    Ok(())
}

/// Lets clients write for a while, kills the gateway meanwhile, starts it again and looks.
fn round(
    site: &mut Site,
    known: &mut [Knowledge],
    versions: &AtomicU64,
    acknowledged: &AtomicU64,
    pause: Duration,
) -> Result<()> {
    let server = site.s3.clone();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (number, known) in known.iter_mut().enumerate() {
            let (server, ended) = (&server, &ended);
            let work = move || client(server, number as u64, known, versions, acknowledged, ended);
            scope.spawn(work);
        }
        std::thread::sleep(pause);
        site.gateway.process().kill();
        ended.store(true, Ordering::Relaxed);
    });
    let config = site.config.clone();
    site.gateway.restart(&config)?;
    verify_all(&server, known)
}

/// The same for all clients; and the listing tells the same keys.
fn verify_all(server: &S3Server, known: &mut [Knowledge]) -> Result<()> {
    for known in known.iter_mut() {
        verify(server, known)?;
    }
    let present =
        |(key, (state, _)): (&String, &(State, Vec<State>))| state.is_some().then(|| key.clone());
    let mut expected: Vec<String> = known.iter().flatten().filter_map(present).collect();
    expected.sort();
    let listed = listed(server, BUCKET)?;
    ensure!(
        listed == expected,
        "listed {listed:?}, there are {expected:?}"
    );
    Ok(())
}

/// An index that is lost is made anew from the files.
fn the_index_is_lost(site: &mut Site, known: &mut [Knowledge]) -> Result<()> {
    site.gateway.process().kill();
    for entry in std::fs::read_dir(site.folder().join("disk"))? {
        let path = entry?.path();
        if path.display().to_string().contains("index.sqlite") {
            std::fs::remove_file(path)?;
        }
    }
    let config = site.config.clone();
    site.gateway.restart(&config)?;
    verify_all(&site.s3, known)
}

/// Takes everything away; the folder is as it was before the first put.
fn nothing_is_left(site: &mut Site, before: usize) -> Result<()> {
    let folder = site.folder().join("disk");
    let stray = generation_files(&folder)?.pop().context("no file at all")?;
    let kept = std::fs::read(&stray)?;
    for key in site.keys()? {
        site.call("DELETE", &key, b"")?.success()?;
    }
    let uploads = site.call("GET", "?uploads=", b"")?.success()?.text();
    for upload in uploads.split("<Upload>").skip(1) {
        let key = super::site::element(upload, "Key")?;
        let id = super::site::element(upload, "UploadId")?;
        site.call("DELETE", &format!("{key}?uploadId={id}"), b"")?
            .success()?;
    }
    let gone = || Ok((!stray.exists()).then_some(()));
    wait_until(
        Duration::from_secs(20),
        "the last object's file to be removed",
        gone,
    )?;
    // What a process that was killed leaves: a file that no index knows.
    site.gateway.process().kill();
    std::fs::write(&stray, kept)?;
    site.kill_and_restart()?;
    let swept = || Ok((generation_files(&folder)?.len() <= before).then_some(()));
    let left = wait_until(Duration::from_secs(20), "leftovers to be removed", swept);
    left.with_context(|| format!("{before} files before, now {:?}", generation_files(&folder)))?;
    ensure!(!stray.exists(), "the stray file is there");
    // It is as whole as one of an object that the index has lost: it is kept aside for a while.
    let aside = folder
        .join("set-aside")
        .join(stray.file_name().context("a name")?);
    ensure!(aside.exists(), "the stray file was not put aside");
    ensure!(site.keys()?.is_empty(), "keys are left: {:?}", site.keys());
    Ok(())
}

#[test]
fn what_was_acknowledged_outlives_a_kill() -> Result<()> {
    let _shared = among_others();
    let mut site = Plan::new()?.fs("disk").sqlite("file").start()?;
    let before = generation_files(&site.folder().join("disk"))?.len();
    let mut known: Vec<Knowledge> = (0..CLIENTS).map(|_| Knowledge::new()).collect();
    let (versions, acknowledged) = (AtomicU64::new(1), AtomicU64::new(0));
    let mut rounds = 0;
    while acknowledged.load(Ordering::Relaxed) < ACKNOWLEDGED || rounds < 5 {
        rounds += 1;
        ensure!(
            rounds <= 60,
            "only {acknowledged:?} writes in {rounds} rounds"
        );
        let pause = Duration::from_millis(300 + splitmix64(rounds) % 1_500);
        let outcome = round(&mut site, &mut known, &versions, &acknowledged, pause);
        outcome.with_context(|| format!("after kill {rounds}, {acknowledged:?} acknowledged"))?;
    }
    println!("{acknowledged:?} acknowledged writes over {rounds} kills");
    the_index_is_lost(&mut site, &mut known).context("after the loss of the index")?;
    nothing_is_left(&mut site, before)
}
