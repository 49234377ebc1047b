//! Members on this machine's disks that are not there, not yet, or not now.
//!
//! Not full disks. Invariant: what is looked at, or refused, is left byte for byte as it was.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use breccia_testkit::{Breccia, wait_until};

use super::site::{Plan, Site, among_others};

const STOP: Duration = Duration::from_secs(20);

/// Every file and folder below a path, with the bytes of files.
fn tree(at: &Path) -> Result<BTreeMap<String, Option<Vec<u8>>>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![at.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.display().to_string();
            if path.is_dir() {
                found.insert(name, None);
                folders.push(path);
            } else {
                found.insert(name, Some(std::fs::read(&path)?));
            }
        }
    }
    Ok(found)
}

fn unchanged(at: &Path, before: &BTreeMap<String, Option<Vec<u8>>>) -> Result<()> {
    let now = tree(at)?;
    let names = before.keys().chain(now.keys());
    let mut changed = names.filter(|name| before.get(*name) != now.get(*name));
    match changed.next() {
        None => Ok(()),
        Some(name) => anyhow::bail!("{name} has changed"),
    }
}

/// `check --connect` on a site's config: the exit status and what it said.
fn check(site: &Site) -> Result<(Option<i32>, String)> {
    let config = site.gateway.config_path();
    let state = config.parent().context("a folder")?;
    let run = ["check", "--config", "breccia.toml", "--connect"];
    let output = Breccia::run(state, &run)?;
    let (out, error) = (&output.stdout, &output.stderr);
    let out = String::from_utf8_lossy(out);
    let said = format!("{out}{}", String::from_utf8_lossy(error));
    Ok((output.status.code(), said))
}

fn says(site: &Site, code: i32, parts: &[&str]) -> Result<()> {
    let (status, said) = check(site)?;
    ensure!(status == Some(code), "{status:?}: {said}");
    for part in parts {
        ensure!(said.contains(part), "no {part:?} in {said}");
    }
    Ok(())
}

/// A folder and a file, each with an object; the gateway has ended.
fn stopped() -> Result<Site> {
    let mut site = Plan::new()?.fs("one").fs("two").sqlite("file").start()?;
    for shard in 0..3 {
        site.put(&site.key_on(shard, "kept"), b"kept")?;
    }
    site.gateway.terminate(STOP)?;
    Ok(site)
}

#[test]
fn check_connect_sees_what_serve_would_refuse_and_changes_nothing() -> Result<()> {
    let _shared = among_others();
    let site = stopped()?;
    let folder = site.folder().to_path_buf();
    let good = ["one: fs:", "two: fs:", "file: sqlite:", "is there"];
    let before = tree(&folder)?;
    says(&site, 0, &good)?;
    unchanged(&folder, &before)?;
    // A disk that is not mounted.
    let (one, two, away) = (folder.join("one"), folder.join("two"), folder.join("away"));
    std::fs::rename(&one, &away)?;
    std::fs::create_dir(&one)?;
    says(&site, 1, &["the store 'one'", "has none now", "one: fs:"])?;
    ensure!(tree(&one)?.is_empty(), "a store was made");
    std::fs::remove_dir(&one)?;
    // Disks in each other's place.
    std::fs::rename(&two, &one)?;
    std::fs::rename(&away, &two)?;
    let swapped = ["the store 'one'", "the store 'two'"];
    says(&site, 1, &swapped)?;
    // Also if the state folder is lost.
    let state = site.gateway.state_folder();
    let kept = state.with_extension("kept");
    std::fs::rename(&state, &kept)?;
    says(&site, 1, &swapped)?;
    ensure!(!state.exists(), "a state folder was made");
    std::fs::rename(&kept, &state)?;
    std::fs::rename(&two, &away)?;
    std::fs::rename(&one, &two)?;
    std::fs::rename(&away, &one)?;
    // The file of a database, lost and then back.
    let file = folder.join("file.sqlite");
    std::fs::rename(&file, &away)?;
    says(&site, 1, &["the store 'file'", "has none now"])?;
    ensure!(!file.exists(), "a file was made");
    std::fs::rename(&away, &file)?;
    says(&site, 0, &good)
}

#[test]
fn check_connect_tells_places_without_a_store_and_places_in_use() -> Result<()> {
    let _shared = among_others();
    let mut site = Plan::new()?.fs("one").sqlite("file").start()?;
    site.put(&site.key_on(0, "kept"), b"kept")?;
    site.put(&site.key_on(1, "kept"), b"kept")?;
    says(
        &site,
        0,
        &["in use by a running gateway (process", "is there"],
    )?;
    // Killed: what was committed last lies in the logs.
    site.gateway.process().kill();
    let before = tree(site.folder())?;
    ensure!(
        before
            .keys()
            .any(|name| name.ends_with("one/index.sqlite-wal"))
    );
    says(&site, 0, &["one: fs:", "file: sqlite:", "is there"])?;
    unchanged(site.folder(), &before)?;
    let empty = tempfile::tempdir()?;
    let plan = Plan::new()?.fs("one").sqlite("file");
    let config = plan.config(breccia_testkit::free_port()?, &[0, 1]);
    let state = empty.path().join("state");
    let config = format!("{config}\n[state]\ndir = '{}'\n", state.display());
    std::fs::write(empty.path().join("breccia.toml"), config)?;
    let run = ["check", "--config", "breccia.toml", "--connect"];
    let output = Breccia::run(empty.path(), &run)?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{said}");
    ensure!(
        said.matches("holds no store yet; serve will make one")
            .count()
            == 2,
        "{said}"
    );
    ensure!(!state.exists(), "a state folder was made");
    Ok(())
}

#[test]
fn a_refused_start_leaves_an_empty_mount_point_empty() -> Result<()> {
    let _shared = among_others();
    let mut site = stopped()?;
    let config = site.config.clone();
    let (one, file) = (site.folder().join("one"), site.folder().join("file.sqlite"));
    let away = site.folder().join("away");
    let state = site.gateway.state_folder();
    for lost in [false, true] {
        if lost {
            std::fs::remove_dir_all(&state)?;
        }
        std::fs::rename(&one, &away)?;
        std::fs::create_dir(&one)?;
        let (status, log) = site.gateway.restart_refused(&config)?;
        ensure!(status.code() == Some(2) && log.contains("'one'"), "{log}");
        ensure!(tree(&one)?.is_empty(), "{:?}", tree(&one)?.keys());
        std::fs::remove_dir(&one)?;
        std::fs::rename(&away, &one)?;
        std::fs::rename(&file, &away)?;
        let (status, log) = site.gateway.restart_refused(&config)?;
        ensure!(status.code() == Some(2) && log.contains("'file'"), "{log}");
        ensure!(!file.exists(), "a file was made");
        std::fs::rename(&away, &file)?;
    }
    site.gateway.restart(&config)?;
    for shard in 0..3 {
        let key = site.key_on(shard, "kept");
        ensure!(site.get(&key)?.as_deref() == Some(b"kept".as_slice()));
    }
    Ok(())
}

/// Lets a member come back at `path` from `away`, and waits until its keys are served.
fn comes_back(site: &Site, shard: usize) -> Result<()> {
    let key = site.key_on(shard, "kept");
    wait_until(Duration::from_secs(30), "the member", || {
        let reply = site.call("GET", &key, b"")?;
        Ok((reply.status == 200).then_some(()))
    })
}

#[test]
fn a_member_that_cannot_be_opened_fails_its_own_keys_until_it_can() -> Result<()> {
    let _shared = among_others();
    let mut site = stopped()?;
    let config = site.config.clone();
    let away = site.folder().join("away");
    let places = [(0, "one", "one"), (2, "file", "file.sqlite")];
    for (shard, name, at) in places {
        let at = site.folder().join(at);
        std::fs::rename(&at, &away)?;
        // A link to itself fails all calls, whoever asks: root may read anything else.
        symlink(&at, &at)?;
        says(&site, 1, &[&format!("{name}: "), "cannot be used"])?;
        site.gateway.restart_unready(&config)?;
        let kept = site.key_on(shard, "kept");
        let reply = site.call("GET", &kept, b"")?;
        ensure!(reply.status == 503, "{}: {}", reply.status, reply.text());
        ensure!(reply.text().contains(name), "{}", reply.text());
        let (_, ready) = site.gateway.admin("/readyz")?;
        ensure!(ready.contains(name), "{ready}");
        site.put(&site.key_on(1, "other"), b"works")?;
        std::fs::remove_file(&at)?;
        std::fs::rename(&away, &at)?;
        comes_back(&site, shard)?;
        site.put(&site.key_on(shard, "later"), b"later")?;
        site.gateway.terminate(STOP)?;
    }
    Ok(())
}

#[test]
fn a_member_that_comes_back_as_another_one_is_not_used() -> Result<()> {
    let _shared = among_others();
    let mut site = stopped()?;
    let config = site.config.clone();
    let (one, away) = (site.folder().join("one"), site.folder().join("away"));
    std::fs::rename(&one, &away)?;
    symlink(&one, &one)?;
    site.gateway.restart_unready(&config)?;
    std::fs::remove_file(&one)?;
    std::fs::create_dir(&one)?;
    let key = site.key_on(0, "kept");
    wait_until(Duration::from_secs(30), "a look at the marker", || {
        let reply = site.call("PUT", &key, b"lost")?;
        ensure!(reply.status == 503, "{}: {}", reply.status, reply.text());
        Ok(reply.text().contains("has none now").then_some(()))
    })?;
    ensure!(tree(&one)?.is_empty(), "a store was made");
    std::fs::remove_dir(&one)?;
    std::fs::rename(&away, &one)?;
    comes_back(&site, 0)
}

#[test]
fn metrics_tell_the_room_of_members_on_disks() -> Result<()> {
    let _shared = among_others();
    let site = Plan::new()?.fs("one").sqlite("file").start()?;
    for store in ["one", "file"] {
        let of = |family: &str| {
            site.gateway
                .metric(&format!("{family}{{store=\"{store}\"}}"))
        };
        let free = wait_until(Duration::from_secs(20), "the metrics", || {
            let free = of("breccia_store_free_bytes")?;
            Ok((free > 0.0).then_some(free))
        })?;
        let all = of("breccia_store_size_bytes")?;
        ensure!(all >= free, "{store}: {free} of {all} bytes are free");
    }
    Ok(())
}
