//! Members whose disk is full: a clear refusal, nothing half visible, and work again with new room.
//!
//! Not quotas. The disks are small `tmpfs` file systems, which only root can mount. Invariant: a disk
//! is unmounted when its value is dropped.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use breccia_testkit::process::run;
use tempfile::TempDir;

use super::site::{Plan, Site, Upload, among_others, bytes_of};

const MIB: usize = 1024 * 1024;

/// A small file system.
#[derive(Debug)]
struct Disk {
    folder: TempDir,
}

impl Disk {
    /// `None` where this process may not mount, which is only so for others than root.
    fn mount(size: &str) -> Result<Option<Disk>> {
        let folder = tempfile::tempdir()?;
        let options = format!("size={size}");
        let mounted = run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(folder.path()));
        let root = run(Command::new("id").arg("-u"))?.trim() == "0";
        match mounted {
            Ok(_) => Ok(Some(Disk { folder })),
            Err(error) if root => Err(error),
            Err(_) => Ok(None),
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn grow(&self, size: &str) -> Result<()> {
        let options = format!("remount,size={size}");
        run(Command::new("mount")
            .args(["-o", &options])
            .arg(self.path()))?;
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _gone = run(Command::new("umount").arg("--lazy").arg(self.path()));
    }
}

/// Fills the first shard; the keys that were stored, and the first refusal.
fn fill(site: &Site, length: usize) -> Result<Vec<(String, Vec<u8>)>> {
    let mut stored = Vec::new();
    for number in 0..64 {
        let key = site.key_on(0, &format!("fill-{number}"));
        let bytes = bytes_of(&key, number, length);
        let reply = site.call("PUT", &key, &bytes)?;
        if reply.status == 200 {
            stored.push((key, bytes));
            continue;
        }
        full(&format!("put {number}"), reply.status, &reply.text())?;
        return Ok(stored);
    }
    anyhow::bail!("64 objects of {length} bytes found room")
}

fn full(what: &str, status: u16, text: &str) -> Result<()> {
    ensure!(matches!(status, 503 | 507), "{what}: {status} {text}");
    ensure!(
        text.contains("tiny"),
        "{what} does not name the shard: {text}"
    );
    Ok(())
}

fn holds(site: &Site, stored: &[(String, Vec<u8>)]) -> Result<()> {
    for (key, bytes) in stored {
        let found = site.get(key)?.with_context(|| format!("{key} is gone"))?;
        ensure!(found == *bytes, "{key} has changed");
    }
    let mut expected: Vec<String> = stored.iter().map(|(key, _)| key.clone()).collect();
    expected.sort();
    let keys = site.keys()?;
    ensure!(keys == expected, "listed {keys:?}, stored {expected:?}");
    Ok(())
}

/// What every member does on a full disk.
fn check(mut site: Site, disk: &Disk) -> Result<()> {
    let mut stored = fill(&site, MIB)?;
    ensure!(
        stored.len() >= 2,
        "only {} objects found room",
        stored.len()
    );
    holds(&site, &stored)?;
    // An overwrite that finds no room leaves the old version whole.
    let key = stored[0].0.clone();
    let reply = site.call("PUT", &key, &bytes_of(&key, 99, 4 * MIB))?;
    full("the overwrite", reply.status, &reply.text())?;
    // A part that finds no room, too.
    let other = site.key_on(0, "parts");
    match Upload::begin(&site.s3, &other) {
        Ok(upload) => {
            let target = format!("{}&partNumber=1", upload.target);
            let reply = site.call("PUT", &target, &bytes_of(&other, 1, 6 * MIB))?;
            full("the part", reply.status, &reply.text())?;
        }
        Err(error) => full("the upload", 503, &format!("{error:#}"))?,
    }
    // The other shard works.
    let elsewhere = site.key_on(1, "elsewhere");
    site.put(&elsewhere, b"there is room")?;
    stored.push((elsewhere, b"there is room".to_vec()));
    holds(&site, &stored)?;
    // A start on a full disk finds the same.
    site.kill_and_restart().context("a start on a full disk")?;
    holds(&site, &stored)?;
    disk.grow("64m")?;
    let key = site.key_on(0, "after");
    site.wait_for_put(&key, 200)?;
    stored.push((key, b"waited for".to_vec()));
    let key = stored[0].0.clone();
    let bytes = bytes_of(&key, 100, 4 * MIB);
    site.put(&key, &bytes)?;
    stored[0].1 = bytes;
    holds(&site, &stored)?;
    site.kill_and_restart()?;
    holds(&site, &stored)
}

/// Deleting is what one does about a full disk; SQLite's log `needs_room` even for that.
fn deleting_makes_room(site: &Site, disk: &Disk, needs_room: bool) -> Result<()> {
    let mut stored = fill(site, MIB)?;
    // Fill the rest with small ones, so that not a page is left.
    for number in 0..10_000 {
        let key = site.key_on(0, &format!("small-{number}"));
        let bytes = bytes_of(&key, 1, 16 * 1024);
        let reply = site.call("PUT", &key, &bytes)?;
        if reply.status != 200 {
            full("a small put", reply.status, &reply.text())?;
            break;
        }
        stored.push((key, bytes));
    }
    holds(site, &stored)?;
    let key = stored[0].0.clone();
    let reply = site.call("DELETE", &key, b"")?;
    if needs_room && reply.status != 204 {
        full("a delete", reply.status, &reply.text())?;
        holds(site, &stored)?;
        disk.grow("24m")?;
        site.call("DELETE", &key, b"")?.success()?;
    } else {
        ensure!(
            reply.status == 204,
            "delete: {} {}",
            reply.status,
            reply.text()
        );
    }
    stored.swap_remove(0);
    holds(site, &stored)?;
    site.wait_for_put(&key, 200)?;
    stored.push((key, b"waited for".to_vec()));
    holds(site, &stored)
}

#[test]
fn a_full_disk_of_an_fs_member_is_told_and_harms_nothing() -> Result<()> {
    let _shared = among_others();
    let Some(disk) = Disk::mount("8m")? else {
        return Ok(());
    };
    let site = Plan::new()?
        .fs_at("tiny", &disk.path().join("blobs"))
        .fs("wide")
        .start()?;
    check(site, &disk)
}

#[test]
fn a_full_disk_of_an_sqlite_member_is_told_and_harms_nothing() -> Result<()> {
    let _shared = among_others();
    let Some(disk) = Disk::mount("16m")? else {
        return Ok(());
    };
    let path = disk.path().join("blobs.sqlite");
    let site = Plan::new()?.sqlite_at("tiny", &path).fs("wide").start()?;
    check(site, &disk)
}

#[test]
fn deleting_works_on_a_full_disk_of_an_fs_member() -> Result<()> {
    let _shared = among_others();
    let Some(disk) = Disk::mount("8m")? else {
        return Ok(());
    };
    let site = Plan::new()?
        .fs_at("tiny", &disk.path().join("blobs"))
        .fs("wide")
        .start()?;
    deleting_makes_room(&site, &disk, false)
}

#[test]
fn deleting_on_a_full_disk_of_an_sqlite_member_needs_a_little_room() -> Result<()> {
    let _shared = among_others();
    let Some(disk) = Disk::mount("16m")? else {
        return Ok(());
    };
    let path = disk.path().join("blobs.sqlite");
    let site = Plan::new()?.sqlite_at("tiny", &path).fs("wide").start()?;
    deleting_makes_room(&site, &disk, true)
}
