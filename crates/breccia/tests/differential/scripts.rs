//! Histories of one or several connections, given to both sides line by line.
//!
//! ```text
//! SET k v          the first connection asks and gets one reply, compared by the rule of compare.rs
//! b: GET k         so does another one; each letter is a connection
//! a= XADD s 1-1 …  the reply must be equal byte by byte, whatever the rule
//! a~ PUBLISH c m   the reply must have the same shape
//! a! SWAPDB 0 1    not for Redis: the gateway refuses it with a text that names Breccia
//! a? RENAME x y    not for Redis: the gateway refuses it because of several shards; if there is one, nothing
//! a> BLPOP q 0     sent, without waiting for its reply
//! a< 2             two replies are read, and must be equal byte by byte
//! a# 2             two replies are read, whatever they are
//! a& "PING\r\n"    sent as these bytes
//! a.               the other side has closed the connection
//! a+               a new connection in its place
//! ... 50           50 ms pass
//! ```
//!
//! `@last@` stands for the string this connection was answered last, `@70000@` for that many bytes.
//! Invariant: a line that cannot be read fails the test.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use breccia_kv::resp::commands::COMMANDS;
use breccia_testkit::{Reply, RespClient, resp};

use crate::compare::{self, How};
use crate::matrix;
use crate::twins::{Twins, difference, none};
use crate::words::split;

/// Scripts of one key a request.
const PLAIN: [(&str, &str); 19] = [
    ("strings", include_str!("scripts/strings.txt")),
    ("bitmaps", include_str!("scripts/bitmaps.txt")),
    ("lists", include_str!("scripts/lists.txt")),
    ("sets", include_str!("scripts/sets.txt")),
    ("sorted sets", include_str!("scripts/sorted_sets.txt")),
    ("hashes", include_str!("scripts/hashes.txt")),
    ("streams", include_str!("scripts/streams.txt")),
    ("generic", include_str!("scripts/generic.txt")),
    ("transactions", include_str!("scripts/transactions.txt")),
    ("sessions", include_str!("scripts/sessions.txt")),
    ("watch", include_str!("scripts/watch.txt")),
    ("blocking", include_str!("scripts/blocking.txt")),
    ("publish and subscribe", include_str!("scripts/pubsub.txt")),
    ("large", include_str!("scripts/large.txt")),
    ("keyspace", include_str!("scripts/keyspace.txt")),
    ("refused", include_str!("scripts/refused.txt")),
    ("libraries", include_str!("scripts/libraries.txt")),
    ("inline", include_str!("scripts/inline.txt")),
    ("session state", include_str!("scripts/session_state.txt")),
];

/// Scripts whose keys carry tags, for stores that heed them.
const TAGGED: [(&str, &str); 1] = [("several keys", include_str!("scripts/multi.txt"))];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Ask(Option<How>),
    Refused { always: bool },
    Send,
    Raw,
    Read(usize),
    Skip(usize),
    Closed,
    Connect,
    Pause(u64),
}

struct Row {
    line: &'static str,
    client: char,
    act: Act,
    words: Vec<Vec<u8>>,
}

fn row(line: &'static str) -> Result<Row> {
    if let Some(milliseconds) = line.strip_prefix("... ") {
        let act = Act::Pause(milliseconds.parse()?);
        return Ok(Row {
            line,
            client: 'a',
            act,
            words: Vec::new(),
        });
    }
    let mut letters = line.chars();
    let client = letters.next().context("an empty line")?;
    let act = match letters.next() {
        Some(':') => Act::Ask(None),
        Some('=') => Act::Ask(Some(How::Exact)),
        Some('~') => Act::Ask(Some(How::Shape)),
        Some('!') => Act::Refused { always: true },
        Some('?') => Act::Refused { always: false },
        Some('>') => Act::Send,
        Some('&') => Act::Raw,
        Some('<') => Act::Read(letters.as_str().trim().parse()?),
        Some('#') => Act::Skip(letters.as_str().trim().parse()?),
        Some('.') => Act::Closed,
        Some('+') => Act::Connect,
        _ => {
            return Ok(Row {
                line,
                client: 'a',
                act: Act::Ask(None),
                words: split(line)?,
            });
        }
    };
    let words = if matches!(act, Act::Read(_) | Act::Skip(_)) {
        Vec::new()
    } else {
        split(letters.as_str())?
    };
    Ok(Row {
        line,
        client,
        act,
        words,
    })
}

/// The lines of a script.
fn rows(script: &'static str) -> impl Iterator<Item = Row> {
    let lines = script
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| row(line).unwrap_or_else(|error| panic!("{line}: {error}")))
}

/// The requests of all scripts, and whether the gateway is to refuse them whatever the shards.
pub(crate) fn requests() -> impl Iterator<Item = (Vec<Vec<u8>>, bool)> {
    let all = PLAIN.iter().chain(&TAGGED);
    all.flat_map(|(_, script)| rows(script))
        .filter(|row| !row.words.is_empty())
        .map(|row| (row.words, row.act == Act::Refused { always: true }))
}

/// One side's end of one connection.
struct End {
    client: RespClient,
    last: Vec<u8>,
}

impl End {
    fn request(&self, words: &[Vec<u8>]) -> Vec<Vec<u8>> {
        words
            .iter()
            .map(|word| self.fill(word).unwrap_or_else(|| word.clone()))
            .collect()
    }

    fn fill(&self, word: &[u8]) -> Option<Vec<u8>> {
        let name = word.strip_prefix(b"@")?.strip_suffix(b"@")?;
        if name == b"last" {
            return Some(self.last.clone());
        }
        let size: usize = std::str::from_utf8(name).ok()?.parse().ok()?;
        Some(
            (0..size)
                .map(|index| u8::try_from(index * 7 % 251).unwrap_or(0))
                .collect(),
        )
    }

    fn send(&mut self, words: &[Vec<u8>]) -> Result<()> {
        let request = self.request(words);
        self.client.send(&resp::encode(
            &request.iter().map(Vec::as_slice).collect::<Vec<_>>(),
        ))
    }

    fn read(&mut self) -> Result<Vec<u8>> {
        let reply = self.client.read_reply()?;
        if let Reply::Bulk(bytes) = Reply::parse(&reply)? {
            self.last = bytes;
        }
        Ok(reply)
    }
}

/// A script under way.
struct Stage<'t> {
    twins: &'t Twins,
    version: u8,
    connections: BTreeMap<char, [End; 2]>,
    differences: Vec<String>,
}

impl Stage<'_> {
    fn connect(&mut self, client: char) -> Result<()> {
        let ends = self.twins.clients(self.version)?;
        let ends = ends.map(|client| End {
            client,
            last: Vec::new(),
        });
        self.connections.insert(client, ends);
        Ok(())
    }

    fn ends(&mut self, client: char) -> Result<&mut [End; 2]> {
        if !self.connections.contains_key(&client) {
            self.connect(client)?;
        }
        self.connections.get_mut(&client).context("made just now")
    }

    fn compare(&mut self, row: &Row, how: How) -> Result<()> {
        let shards = self.twins.servers.len();
        let [direct, through] = self.ends(row.client)?;
        let (wanted, found) = (direct.read()?, through.read()?);
        if !compare::alike(how, &row.words, &wanted, &found)?
            && !compare::is_due_refusal(shards, &row.words, &found)
        {
            self.differences.push(difference(row.line, &wanted, &found));
        }
        Ok(())
    }

    fn refused(&mut self, row: &Row, always: bool) -> Result<()> {
        if !always && self.twins.servers.len() == 1 {
            return Ok(());
        }
        let [_, through] = self.ends(row.client)?;
        through.send(&row.words)?;
        let found = through.read()?;
        let text = String::from_utf8_lossy(&found).into_owned();
        let good = found.starts_with(b"-")
            && (text.contains("breccia") || !always && text.contains("shard"));
        if !good {
            self.differences
                .push(difference(row.line, b"(a refusal)", &found));
        }
        Ok(())
    }

    fn play(&mut self, row: &Row) -> Result<()> {
        match row.act {
            Act::Pause(milliseconds) => std::thread::sleep(Duration::from_millis(milliseconds)),
            Act::Connect => self.connect(row.client)?,
            Act::Ask(how) => {
                for end in self.ends(row.client)? {
                    end.send(&row.words)?;
                }
                self.compare(row, how.unwrap_or_else(|| compare::how(&row.words)))?;
            }
            Act::Refused { always } => self.refused(row, always)?,
            Act::Send => {
                for end in self.ends(row.client)? {
                    end.send(&row.words)?;
                }
            }
            Act::Raw => {
                for end in self.ends(row.client)? {
                    let bytes = end.request(&row.words).concat();
                    end.client.send(&bytes)?;
                }
            }
            Act::Read(count) => {
                for _ in 0..count {
                    self.compare(row, How::Exact)?;
                }
            }
            Act::Skip(count) => {
                for end in self.ends(row.client)? {
                    for _ in 0..count {
                        end.read()?;
                    }
                }
            }
            Act::Closed => {
                for end in self.ends(row.client)? {
                    if !end.client.closed() {
                        bail!("the connection is open");
                    }
                }
            }
        }
        Ok(())
    }
}

/// Plays scripts one after another over the same servers.
pub(crate) fn check(twins: &Twins, version: u8, scripts: &[(&str, &'static str)]) {
    let mut found = Vec::new();
    let mut lines = 0;
    for (name, script) in scripts {
        let mut stage = Stage {
            twins,
            version,
            connections: BTreeMap::new(),
            differences: Vec::new(),
        };
        for row in rows(script) {
            lines += 1;
            let played = stage.play(&row);
            if let Err(error) = played {
                stage
                    .differences
                    .push(format!("{}: {error:#}; the rest was left out", row.line));
                break;
            }
        }
        found.extend(
            stage
                .differences
                .into_iter()
                .map(|text| format!("{name}: {text}")),
        );
    }
    none(
        &format!(
            "{lines} lines over {} shards, RESP{version}",
            twins.servers.len()
        ),
        &found,
    );
}

fn check_all(shards: usize, version: u8) -> Result<()> {
    check(&Twins::over(shards)?, version, &PLAIN);
    let tagged = Twins::with(shards, "hash-tag = \"{}\"", "")?;
    check(&tagged, version, &TAGGED);
    Ok(())
}

#[test]
fn histories_over_one_shard_are_as_of_redis_in_resp2() -> Result<()> {
    check_all(1, 2)
}

#[test]
fn histories_over_one_shard_are_as_of_redis_in_resp3() -> Result<()> {
    check_all(1, 3)
}

#[test]
fn histories_over_three_shards_are_as_of_redis_in_resp2() -> Result<()> {
    check_all(3, 2)
}

#[test]
fn histories_over_three_shards_are_as_of_redis_in_resp3() -> Result<()> {
    check_all(3, 3)
}

#[test]
fn every_command_is_in_a_script_or_an_example() {
    let mut known: BTreeSet<String> = matrix::commands().collect();
    for (_, script) in PLAIN.iter().chain(&TAGGED) {
        known.extend(
            rows(script)
                .filter_map(|row| row.words.first().cloned())
                .map(|name| String::from_utf8_lossy(&name).to_ascii_lowercase()),
        );
    }
    let missing: Vec<&str> = COMMANDS
        .iter()
        .map(|spec| spec.name)
        .filter(|name| !known.contains(*name))
        .collect();
    assert!(missing.is_empty(), "in no script: {}", missing.join(" "));
}
