//! Where keys lie, whatever happens to configuration, state folder and members.
//!
//! Not how layouts grow. Invariant: a gateway that would place a key elsewhere does not start.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use breccia_testkit::{Breccia, Postgres, Rgw, S3Request, S3Server, free_port};

use super::site::{Plan, Site, among_others, bytes_of, key_on, listed};

const KEYS: u64 = 60;
const FOREIGN: usize = 2_000;

fn fill(site: &Site) -> Result<()> {
    for number in 0..KEYS {
        let key = format!("key-{number}");
        site.put(&key, &bytes_of(&key, 1, 3_000))?;
    }
    Ok(())
}

fn holds_all(server: &S3Server) -> Result<()> {
    for number in 0..KEYS {
        let key = format!("key-{number}");
        let found = super::site::got(server, &key)?.with_context(|| format!("{key} is gone"))?;
        ensure!(found == bytes_of(&key, 1, 3_000), "{key} has changed");
    }
    Ok(())
}

/// A further gateway with a state folder of its own.
fn beside(site: &Site, order: &[usize]) -> Result<(Breccia, S3Server)> {
    let port = free_port()?;
    let gateway = Breccia::start(&site.plan.config(port, order))?;
    let (access_key, secret_key) = (&site.s3.access_key, &site.s3.secret_key);
    Ok((
        gateway,
        S3Server::local(port, access_key, secret_key, "us-east-1"),
    ))
}

#[test]
fn a_gateway_with_members_in_another_order_and_no_state_places_every_key_alike() -> Result<()> {
    let _shared = among_others();
    let rgw = Rgw::shared()?.s3();
    rgw.create_bucket("alike")?;
    let plan = Plan::new()?
        .sqlite("a")
        .s3("b", rgw, rgw.address(), "alike")
        .sqlite("c");
    let site = plan.start()?;
    fill(&site)?;
    let (other, server) = beside(&site, &[2, 0, 1])?;
    holds_all(&server)?;
    S3Request::new(&server, "PUT", "/mail/new")
        .send(b"by the second")?
        .success()?;
    ensure!(site.get("new")?.as_deref() == Some(b"by the second".as_slice()));
    ensure!(listed(&server, "mail")?.len() as u64 == KEYS + 1);
    let (_, first) = site.gateway.admin("/status")?;
    let digest = |status: &str| {
        let rest = status
            .split_once("\"digest\"")
            .map(|(_, rest)| rest.to_owned());
        rest.and_then(|rest| Some(rest.split('"').nth(1)?.to_owned()))
    };
    let (_, second) = other.admin("/status")?;
    ensure!(digest(&first).is_some(), "no digest in {first}");
    ensure!(digest(&first) == digest(&second), "{first}\n{second}");
    Ok(())
}

#[test]
fn folders_that_are_swapped_or_emptied_are_refused_and_a_lost_state_is_restored() -> Result<()> {
    let _shared = among_others();
    let mut site = Plan::new()?.fs("one").fs("two").fs("three").start()?;
    fill(&site)?;
    let config = site.config.clone();
    // One gateway at a time uses a folder.
    let log = site.plan.refused()?;
    ensure!(log.contains("one process at a time"), "{log}");
    let (one, two) = (site.folder().join("one"), site.folder().join("two"));
    let (one_text, two_text) = (one.display().to_string(), two.display().to_string());
    let swapped = config
        .replace(&format!("'{one_text}'"), "'SWAPPED'")
        .replace(&format!("'{two_text}'"), &format!("'{one_text}'"))
        .replace("'SWAPPED'", &format!("'{two_text}'"));
    ensure!(swapped != config);
    refused(&mut site, &swapped, "swapped")?;
    let (status, log) = Breccia::refused(&swapped)?;
    ensure!(
        status.code() == Some(2),
        "swapped, no state: {status} {log}"
    );
    // A disk that is not mounted: the folder is there, and empty.
    let away = site.folder().join("away");
    std::fs::rename(&one, &away)?;
    std::fs::create_dir(&one)?;
    let log = refused(&mut site, &config, "emptied")?;
    ensure!(log.contains("one"), "{log}");
    let (status, log) = Breccia::refused(&config)?;
    ensure!(
        status.code() == Some(2),
        "emptied, no state: {status} {log}"
    );
    std::fs::remove_dir_all(&one)?;
    std::fs::rename(&away, &one)?;
    site.gateway.restart(&config)?;
    holds_all(&site.s3)?;
    // A state folder that is lost comes back from the members.
    site.gateway.terminate(Duration::from_secs(20))?;
    let state = site.gateway.state_folder();
    let before = layouts(&state)?;
    ensure!(!before.is_empty(), "no layout in {}", state.display());
    std::fs::remove_dir_all(&state)?;
    site.gateway
        .restart(&site.plan.config(port_of(&site)?, &[2, 1, 0]))?;
    holds_all(&site.s3)?;
    ensure!(layouts(&state)? == before, "another layout than before");
    Ok(())
}

fn port_of(site: &Site) -> Result<u16> {
    let port = site.s3.address().rsplit(':').next().context("a port")?;
    Ok(port.parse()?)
}

/// The names and texts of the layouts in a state folder.
fn layouts(state: &Path) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(state)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.contains("layout") && path.is_file() {
            found.push((name, std::fs::read_to_string(&path)?));
        }
    }
    found.sort();
    Ok(found)
}

fn refused(site: &mut Site, config: &str, what: &str) -> Result<String> {
    let (status, log) = site.gateway.restart_refused(config)?;
    ensure!(status.code() == Some(2), "{what}: {status} {log}");
    Ok(log)
}

/// Objects that another program has put.
fn foreign(server: &S3Server, bucket: &str, keys: &[String]) -> Result<()> {
    std::thread::scope(|scope| -> Result<()> {
        let put = |keys: &[String]| -> Result<()> {
            for key in keys {
                let target = format!("/{bucket}/{key}");
                S3Request::new(server, "PUT", &target)
                    .send(key.as_bytes())?
                    .success()?;
            }
            Ok(())
        };
        let workers: Vec<_> = keys
            .chunks(keys.len().div_ceil(8).max(1))
            .map(|keys| scope.spawn(move || put(keys)))
            .collect();
        for worker in workers {
            worker.join().map_err(|_| anyhow::anyhow!("a panic"))??;
        }
        Ok(())
    })
}

#[test]
fn a_bucket_of_another_program_is_refused_and_then_adopted_whole() -> Result<()> {
    let _shared = among_others();
    let rgw = Rgw::shared()?.s3();
    rgw.create_bucket("foreign")?;
    let mut keys: Vec<String> = (0..FOREIGN)
        .map(|number| format!("folder{}/{number}", number % 7))
        .collect();
    foreign(rgw, "foreign", &keys)?;
    let plan = Plan::new()?.s3("theirs", rgw, rgw.address(), "foreign");
    let log = plan.refused()?;
    ensure!(
        log.contains("theirs") && log.contains("layout adopt"),
        "{log}"
    );
    let port = free_port()?;
    let folder = tempfile::tempdir()?;
    let config = state_in(&plan.config(port, &[0]), folder.path())?;
    let adopted = Breccia::run(
        folder.path(),
        &["layout", "adopt", "--config", "breccia.toml", "all"],
    )?;
    let text = printed(&adopted);
    ensure!(adopted.status.success(), "{text}");
    ensure!(
        text.contains("2000") || text.contains("2,000"),
        "no count: {text}"
    );
    let _gateway = Breccia::start(&config)?;
    let server = S3Server::local(
        port,
        "FAULTSACCESSKEY",
        "faults-secret-key-of-the-tests",
        "us-east-1",
    );
    keys.sort();
    ensure!(listed(&server, "mail")? == keys, "the listing differs");
    for key in keys.iter().step_by(97) {
        ensure!(
            super::site::got(&server, key)?.as_deref() == Some(key.as_bytes()),
            "{key}"
        );
    }
    Ok(())
}

fn printed(output: &std::process::Output) -> String {
    let (out, error) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(error)
    )
}

/// The configuration with a state folder, also written to `breccia.toml` in the folder.
fn state_in(config: &str, folder: &Path) -> Result<String> {
    let state = folder.join("state");
    let config = format!("{config}\n[state]\ndir = '{}'\n", state.display());
    std::fs::write(folder.join("breccia.toml"), &config)?;
    Ok(config)
}

#[test]
fn a_set_that_lies_elsewhere_than_the_layout_says_is_not_adopted() -> Result<()> {
    let _shared = among_others();
    let rgw = Rgw::shared()?.s3();
    for bucket in ["elsewhere-a", "elsewhere-b"] {
        rgw.create_bucket(bucket)?;
    }
    // Of the first bucket's forty keys, thirty belong to it.
    let at = |shard: usize, count: usize| -> Vec<String> {
        (0..count)
            .map(|number| key_on(shard, 2, &format!("s{shard}-{number}")))
            .collect()
    };
    foreign(rgw, "elsewhere-a", &[at(0, 30), at(1, 10)].concat())?;
    let plan = Plan::new()?
        .s3("first", rgw, rgw.address(), "elsewhere-a")
        .s3("second", rgw, rgw.address(), "elsewhere-b");
    let folder = tempfile::tempdir()?;
    state_in(&plan.config(free_port()?, &[0, 1]), folder.path())?;
    let adopt = ["layout", "adopt", "--config", "breccia.toml", "all"];
    let refused = Breccia::run(folder.path(), &adopt)?;
    let text = printed(&refused);
    ensure!(!refused.status.success(), "{text}");
    ensure!(text.contains("10") && text.contains("first"), "{text}");
    ensure!(text.contains("s1-"), "no example: {text}");
    plan.refused()
        .context("after an adoption that was refused")
        .map(drop)
}

/// `DeleteBucket` by one gateway against puts by another: no object without a bucket.
fn race(site: &Site, rounds: usize) -> Result<()> {
    let (_second, server) = beside(site, &[1, 0])?;
    let mut outcomes = [0, 0];
    for round in 0..rounds {
        let bucket = format!("race-{round}");
        site.s3.create_bucket(&bucket)?;
        // The second gateway has the record in its cache.
        S3Request::new(&server, "HEAD", &format!("/{bucket}"))
            .send(b"")?
            .success()?;
        let (deleted, put) = std::thread::scope(|scope| {
            let server = &server;
            let target = format!("/{bucket}/object");
            let put = scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(round as u64 % 8 * 3));
                S3Request::new(server, "PUT", &target).send(b"raced")
            });
            let delete = S3Request::new(&site.s3, "DELETE", &format!("/{bucket}")).send(b"");
            (delete, put.join())
        });
        let deleted = deleted?;
        let put = put.map_err(|_| anyhow::anyhow!("a panic"))??;
        if put.status == 200 {
            outcomes[0] += 1;
            ensure!(
                deleted.status == 409,
                "round {round}: put was acknowledged, delete answered {} {}",
                deleted.status,
                deleted.text()
            );
            ensure!(listed(&site.s3, &bucket)? == ["object"], "round {round}");
            continue;
        }
        outcomes[1] += 1;
        let text = put.text();
        ensure!(
            matches!(put.status, 404 | 409 | 503),
            "round {round}: {} {text}",
            put.status
        );
        if deleted.status == 204 {
            // A bucket of the same name has nothing of the old one.
            site.s3.create_bucket(&bucket)?;
            let keys = listed(&site.s3, &bucket)?;
            ensure!(
                keys.is_empty(),
                "round {round}: an orphan {keys:?} after {text}"
            );
        }
    }
    println!("puts won {}, deletes won {}", outcomes[0], outcomes[1]);
    Ok(())
}

#[test]
fn deleting_a_bucket_while_another_gateway_writes_leaves_no_orphan() -> Result<()> {
    let _shared = among_others();
    let postgres = Postgres::new()?;
    for database in ["one", "two"] {
        postgres.create_database(database)?;
    }
    let rgw = Rgw::shared()?.s3();
    for bucket in ["race-a", "race-b"] {
        rgw.create_bucket(bucket)?;
    }
    let site = Plan::new()?
        .sqlite("a")
        .sqlite("b")
        .made_by_clients()
        .start()?;
    race(&site, 30).context("sqlite")?;
    let port = postgres.port();
    let plan = Plan::new()?
        .postgres("a", &postgres, port, "one")
        .postgres("b", &postgres, port, "two");
    race(&plan.made_by_clients().start()?, 30).context("postgresql")?;
    let address = rgw.address();
    let plan = Plan::new()?
        .patient()
        .s3("a", rgw, address, "race-a")
        .s3("b", rgw, address, "race-b");
    race(&plan.made_by_clients().start()?, 16).context("s3")
}
