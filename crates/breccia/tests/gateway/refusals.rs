//! What a gateway refuses to start over, and that the mend it names mends it.
//!
//! The words of each refusal are tested where they are made; here it is the whole way: exit status,
//! message, the command out of the message, and every key found afterwards. Invariant: a refusal
//! leaves the state folder as it was.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use breccia_testkit::{Breccia, Redis, free_port};

use crate::common::{Config, Gateway};
use crate::keys::{found, keys, plain_rule, write};

/// A gateway `all` over the first three of four servers, with keys in it.
struct Rig {
    servers: Vec<Redis>,
    gateway: Gateway,
    keys: Vec<Vec<u8>>,
}

impl Rig {
    fn new() -> Result<Rig> {
        let servers = Redis::many(4)?;
        let gateway = Gateway::over(servers.get(..3).context("four servers")?)?;
        let keys = keys(300);
        write(&mut gateway.client()?, &keys)?;
        Ok(Rig {
            servers,
            gateway,
            keys,
        })
    }

    fn text(&self) -> String {
        self.gateway.config.text()
    }

    /// Starts again with a config that must be refused, with these words; `check` says the same.
    fn refused(&mut self, text: &str, words: &[&str]) -> Result<String> {
        let breccia = &mut self.gateway.breccia;
        if breccia.process().ended().is_none() {
            breccia.terminate(Duration::from_secs(20))?;
        }
        let before = contents(&breccia.state_folder())?;
        let (status, output) = breccia.restart_refused(text)?;
        assert_eq!(status.code(), Some(2), "{output}");
        for command in ["check", "layout diff"] {
            let (code, said) = self.run(command)?;
            assert_eq!(code, if command == "check" { 2 } else { 1 }, "{said}");
            expect(command, &said, words);
        }
        expect("serve", &output, words);
        let after = contents(&self.gateway.breccia.state_folder())?;
        assert!(before == after, "a refused start changed the state folder");
        Ok(output)
    }

    /// Runs a command with this gateway's config; its exit status and what it prints.
    fn run(&self, command: &str) -> Result<(i32, String)> {
        let config = self.gateway.breccia.config_path();
        let config = config.to_string_lossy();
        let mut arguments: Vec<&str> = command.split(' ').collect();
        if !arguments.contains(&"--config") {
            let after_name = if arguments.first() == Some(&"layout") {
                2
            } else {
                1
            };
            arguments.splice(after_name..after_name, ["--config", &*config]);
        }
        let output = Breccia::run(&std::env::temp_dir(), &arguments)?;
        let text = [output.stdout, output.stderr].concat();
        let code = output.status.code().context("it was killed")?;
        Ok((code, String::from_utf8_lossy(&text).into_owned()))
    }

    /// Runs the command a refusal names, which must succeed.
    fn mend(&self, output: &str, command: &str) -> Result<()> {
        let begin = format!("`breccia {command} ");
        let (_, rest) = output
            .split_once(&begin)
            .context("no such command is named")?;
        let (rest, _) = rest.split_once('`').context("a command without an end")?;
        let (code, said) = self.run(&format!("{command} {rest}"))?;
        assert_eq!(code, 0, "{command} {rest}: {said}");
        Ok(())
    }

    /// Starts with this config, which must be accepted now, and finds every key.
    fn starts(&mut self, text: &str) -> Result<()> {
        self.gateway.breccia.restart(text)?;
        let count = found(&mut self.gateway.client()?, &self.keys)?;
        assert_eq!(count, self.keys.len(), "keys are missing");
        Ok(())
    }

    fn flush_servers(&self) -> Result<()> {
        for redis in &self.servers {
            redis.client()?.expect_ok(&[b"FLUSHALL"])?;
        }
        Ok(())
    }
}

fn expect(what: &str, output: &str, words: &[&str]) {
    for word in words {
        assert!(
            output.contains(word),
            "{what}: {word:?} is missing in:\n{output}"
        );
    }
}

/// Every file of a folder with what is in it.
fn contents(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        // Who holds the folder is not what it holds.
        if !path.ends_with("breccia.lock") {
            files.insert(path.display().to_string(), std::fs::read(&path)?);
        }
    }
    Ok(files)
}

#[test]
fn a_removed_shard_is_refused_until_it_is_back() -> Result<()> {
    let mut rig = Rig::new()?;
    let whole = rig.text();
    rig.gateway.config.members.pop();
    let words = [
        "'all'",
        "has shard 'r2'",
        "does not list it",
        "put it back into `stores`",
    ];
    rig.refused(&rig.text(), &words)?;
    rig.starts(&whole)
}

#[test]
fn an_added_shard_is_refused_until_it_is_gone() -> Result<()> {
    let mut rig = Rig::new()?;
    let whole = rig.text();
    let config = rig.gateway.config.clone();
    let added = config.redis("r3", &rig.servers[3].address(), "").text();
    let words = [
        "'all'",
        "lists shard 'r3'",
        "does not have it",
        "take it out of `stores`",
    ];
    rig.refused(&added, &words)?;
    rig.starts(&whole)
}

#[test]
fn a_renamed_shard_is_refused_and_mended_by_rename_shard() -> Result<()> {
    let mut rig = Rig::new()?;
    let renamed = rig
        .text()
        .replace("store.r1", "store.east")
        .replace("\"r1\"", "\"east\"");
    let words = ["'all'", "has shard 'r1'", "the config has 'east' instead"];
    let output = rig.refused(&renamed, &words)?;
    rig.mend(&output, "layout rename-shard")?;
    rig.starts(&renamed)
}

#[test]
fn a_renamed_composite_is_refused_and_mended_by_rename() -> Result<()> {
    let mut rig = Rig::new()?;
    let renamed = rig
        .text()
        .replace("[store.all]", "[store.cache]")
        .replace("\"all\"", "\"cache\"");
    let words = ["'cache' has no layout", "the layout of 'all'", "r0, r1, r2"];
    let output = rig.refused(&renamed, &words)?;
    rig.mend(&output, "layout rename")?;
    rig.starts(&renamed)
}

/// A change that places keys anew: refused, refused by `adopt` while there are keys, and adopted
/// when there are none.
fn check_adopted(change: &str, words: &[&str], rule: impl Fn(&[u8]) -> usize) -> Result<()> {
    let mut rig = Rig::new()?;
    let whole = rig.text();
    let changed = rig.gateway.config.clone().composite(change).text();
    let output = rig.refused(&changed, words)?;
    let (code, said) = rig.run("layout adopt all")?;
    assert_eq!(code, 2, "{said}");
    expect(
        "adopt",
        &said,
        &["'r0' holds", "keys", "adopt needs empty shards"],
    );
    rig.starts(&whole)?;

    rig.flush_servers()?;
    rig.refused(&changed, words)?;
    rig.mend(&output, "layout adopt")?;
    rig.keys.clear();
    rig.starts(&changed)?;
    let keys = keys(300);
    write(&mut rig.gateway.client()?, &keys)?;
    for key in keys {
        let redis = rig.servers.get(rule(&key)).context("three shards")?;
        let held = redis.client()?.call(&[b"EXISTS", &key])?;
        assert_eq!(held, b":1\r\n", "{}", key.escape_ascii());
    }
    Ok(())
}

#[test]
fn another_hash_is_refused_and_adopted_over_empty_shards() -> Result<()> {
    let words = [
        "'all'",
        "hashes with xxh3-64",
        "fnv1a-64",
        "put back hash = \"xxh3-64\"",
    ];
    check_adopted("hash = \"fnv1a-64\"", &words, |key| {
        let rest = breccia_core::HashKind::Fnv1a64.hash(key) % 3;
        usize::try_from(rest).unwrap_or_default()
    })
}

#[test]
fn a_hash_tag_switched_on_is_refused_and_adopted_over_empty_shards() -> Result<()> {
    let words = [
        "'all'",
        "no hash-tag",
        "hash-tag \"{}\"",
        "take `hash-tag` out",
    ];
    check_adopted("hash-tag = \"{}\"", &words, |key| {
        let tagged = key.starts_with(b"{tag}");
        plain_rule(if tagged { b"tag" } else { key }, 3)
    })
}

#[test]
fn swapped_addresses_are_refused_until_they_are_back() -> Result<()> {
    let mut rig = Rig::new()?;
    let whole = rig.text();
    let (one, other) = (rig.servers[0].address(), rig.servers[1].address());
    let swapped = whole
        .replace(&one, "ONE")
        .replace(&other, &one)
        .replace("ONE", &other);
    let words = [
        "'all'",
        "shard 'r0' at",
        "where shard 'r1' was",
        "put the addresses back",
    ];
    rig.refused(&swapped, &words)?;
    rig.starts(&whole)
}

#[test]
fn shards_that_were_moved_are_accepted_at_each_others_addresses() -> Result<()> {
    let redis = Redis::new()?;
    let at = |database: u32| format!("{}/{database}", redis.address());
    let config = |first: &str, second: &str| -> Result<Config> {
        Ok(Config::new("redis")?
            .redis("r0", first, "")
            .redis("r1", second, ""))
    };
    let gateway = config(&at(0), &at(1))?.start()?;
    let keys = keys(300);
    write(&mut gateway.client()?, &keys)?;
    let mut rig = Rig {
        servers: Vec::new(),
        gateway,
        keys,
    };
    let mut moved = config(&at(1), &at(0))?;
    moved.port = rig.gateway.config.port;
    redis.client()?.expect_ok(&[b"SWAPDB", b"0", b"1"])?;
    let output = rig.refused(&moved.text(), &["shard 'r0' at", "where shard 'r1' was"])?;
    rig.mend(&output, "layout accept-address")?;
    rig.starts(&moved.text())
}

#[test]
fn a_composite_moved_into_another_is_refused_and_adopted_when_empty() -> Result<()> {
    let mut rig = Rig::new()?;
    let whole = rig.text();
    let url = rig.servers[3].url();
    let outer = format!(
        "[store.r3]\ntype = \"redis\"\nurl = \"{url}\"\n\
         [store.outer]\ntype = \"sharded-in-memory\"\nstores = [\"all\", \"r3\"]\n[listener.main]"
    );
    let moved = whole
        .replace("[listener.main]", &outer)
        .replace("store = \"all\"", "store = \"outer\"");
    let words = [
        "'all'",
        "a composite of its own",
        "lists it in another",
        "take it out of",
    ];
    let output = rig.refused(&moved, &words)?;
    rig.starts(&whole)?;
    rig.flush_servers()?;
    rig.refused(&moved, &words)?;
    rig.mend(&output, "layout adopt")?;
    rig.keys.clear();
    rig.starts(&moved)?;
    // And out again, which moves every key as well.
    rig.refused(
        &whole,
        &[
            "'all'",
            "inside another one",
            "lists it nowhere",
            "layout adopt",
        ],
    )?;
    Ok(())
}

#[test]
fn a_second_process_on_one_state_folder_is_refused_whatever_it_wants_to_do() -> Result<()> {
    let mut rig = Rig::new()?;
    let mut second = rig.gateway.config.clone();
    second.port = free_port()?;
    let state = rig.gateway.breccia.state_folder();
    let text = format!("{}\n[state]\ndir = '{}'\n", second.text(), state.display());
    let pid = format!("pid {}", rig.gateway.breccia.process().id());
    let folder = state.display().to_string();
    let words = [
        &*folder,
        "in use by another process",
        &*pid,
        "`dir` in `[state]`",
    ];
    let (status, output) = Breccia::refused(&text)?;
    assert_eq!(status.code(), Some(2), "{output}");
    expect("serve", &output, &words);
    for command in [
        "layout rename all other",
        "layout rename-shard all r0 r9",
        "layout adopt all",
        "layout accept-address all",
    ] {
        let (code, said) = rig.run(command)?;
        assert_eq!(code, 2, "{said}");
        expect(command, &said, &words);
    }
    // What only looks is not refused, and the running gateway has felt nothing.
    for command in [
        "layout show all",
        "layout diff",
        "layout export all",
        "check",
    ] {
        assert_eq!(rig.run(command)?.0, 0, "{command}");
    }
    assert_eq!(
        found(&mut rig.gateway.client()?, &rig.keys)?,
        rig.keys.len()
    );
    // Killed hard, it leaves no lock behind.
    rig.gateway.breccia.process().kill();
    drop(Breccia::start(&text)?);
    Ok(())
}

#[test]
fn a_second_gateway_with_another_layout_is_refused_until_it_imports_the_first() -> Result<()> {
    let rig = Rig::new()?;
    let (_, document) = rig.run("layout export all")?;
    let digest = document
        .lines()
        .find_map(|line| line.strip_prefix("digest = \""))
        .and_then(|rest| rest.strip_suffix('"'))
        .context("a digest in the document")?;
    let (_, status) = rig.gateway.breccia.admin("/status")?;
    assert!(status.contains(digest), "{status}");

    let pin = format!("layout-digest = \"{digest}\"");
    let mut same = rig.gateway.config.clone().composite(&pin);
    same.port = free_port()?;
    drop(Breccia::start(&same.text())?);

    let mut reversed = same;
    reversed.members.reverse();
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("breccia.toml");
    std::fs::write(&path, reversed.text())?;
    std::fs::write(folder.path().join("document"), &document)?;
    let run = |line: &str| Breccia::run(folder.path(), &line.split(' ').collect::<Vec<_>>());
    let refused = run("serve --config breccia.toml")?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    let words = [
        &*pin.replace(" = \"", " is ").replace('"', ""),
        "holds no layout of it",
    ];
    expect("serve", &said, &words);
    expect(
        "serve",
        &said,
        &["`breccia layout export --config breccia.toml all`"],
    );
    expect(
        "serve",
        &said,
        &["`breccia layout import --config breccia.toml DOCUMENT`"],
    );
    assert_eq!(run("check --config breccia.toml")?.status.code(), Some(2));
    let imported = run("layout import --config breccia.toml document")?;
    assert_eq!(imported.status.code(), Some(0));
    let state = folder.path().join("breccia-data");
    let text = format!(
        "{}\n[state]\ndir = '{}'\n",
        reversed.text(),
        state.display()
    );
    let breccia = Breccia::start(&text)?;
    let second = Gateway {
        breccia,
        config: reversed,
    };
    assert_eq!(found(&mut second.client()?, &rig.keys)?, rig.keys.len());
    Ok(())
}

#[test]
fn everything_that_speaks_against_a_start_is_said_at_once() -> Result<()> {
    let servers = Redis::many(3)?;
    let mut gateway = Gateway::over(&servers)?;
    let more = "[store.x]\ntype = \"memory\"\n\
                [store.other]\ntype = \"sharded-in-memory\"\nstores = [\"x\"]\n[listener.main]";
    let text = gateway.config.text().replace("[listener.main]", more);
    gateway.breccia.restart(&text)?;
    let wrong = gateway
        .config
        .clone()
        .composite("hash = \"crc16-xmodem\"\nhash-tag = \"{}\"");
    let wrong = wrong
        .text()
        .replace("[listener.main]", more)
        .replace("\"r1\", ", "")
        .replace("[store.other]", "[store.new]");
    let (status, output) = gateway.breccia.restart_refused(&wrong)?;
    assert_eq!(status.code(), Some(2), "{output}");
    let words = [
        "crc16-xmodem",
        "hash-tag \"{}\"",
        "'r1'",
        "layout rename --config",
    ];
    expect("serve", &output, &words);
    Ok(())
}

#[test]
fn a_lost_state_folder_is_made_again_as_it_was_and_said_aloud() -> Result<()> {
    let mut rig = Rig::new()?;
    let (_, before) = rig.run("layout export all")?;
    rig.gateway.breccia.terminate(Duration::from_secs(20))?;
    std::fs::remove_dir_all(rig.gateway.breccia.state_folder())?;
    rig.starts(&rig.text())?;
    assert_eq!(rig.run("layout export all")?.1, before);
    let log = rig.gateway.breccia.log();
    assert_eq!(log.matches("made a new layout").count(), 2, "{log}");
    Ok(())
}

#[test]
fn a_damaged_layout_is_refused_and_restored_from_an_export() -> Result<()> {
    let mut rig = Rig::new()?;
    let (_, document) = rig.run("layout export all")?;
    rig.gateway.breccia.terminate(Duration::from_secs(20))?;
    let path = rig.gateway.breccia.state_folder().join("all.layout.toml");
    std::fs::write(&path, document.replacen("r0", "rX", 1))?;
    let text = rig.text();
    let (status, output) = rig.gateway.breccia.restart_refused(&text)?;
    assert_eq!(status.code(), Some(2), "{output}");
    expect(
        "serve",
        &output,
        &[
            "all.layout.toml",
            "edited or damaged",
            "breccia layout export",
        ],
    );
    assert_eq!(rig.run("check")?.0, 2);
    std::fs::write(&path, document)?;
    rig.starts(&text)
}

#[test]
fn a_state_folder_given_by_argument_is_named_in_the_mend() -> Result<()> {
    let servers = Redis::many(1)?;
    let config = Config::new("redis")?.over(&servers);
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("a.toml"), config.text())?;
    let run = |line: &str| Breccia::run(folder.path(), &line.split(' ').collect::<Vec<_>>());
    assert_eq!(
        run("layout adopt --config a.toml --data-dir here all")?
            .status
            .code(),
        Some(0)
    );
    let renamed = config
        .text()
        .replace("\"r0\"", "\"r9\"")
        .replace("store.r0", "store.r9");
    std::fs::write(folder.path().join("a.toml"), renamed)?;
    let refused = run("serve --config a.toml --data-dir here")?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    let mend = "layout rename-shard --config a.toml --data-dir here all r0 r9";
    expect("serve", &said, &[&format!("`breccia {mend}`")]);
    assert_eq!(run(mend)?.status.code(), Some(0));
    assert_eq!(
        run("check --config a.toml --data-dir here")?.status.code(),
        Some(0)
    );
    Ok(())
}
