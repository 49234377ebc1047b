//! The server's own table, walked: every command and subcommand that Redis itself tells of is on the page and
//! is as the page says, and those without keys answer to spoilt arguments as a server does.
//!
//! Commands with keys are spoilt in `matrix.rs`. Invariant: what is walked is the running server's table,
//! not ours.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use breccia_kv::resp::commands::{self, COMMANDS, CommandSpec, Flags, KeyShape};
use breccia_testkit::{Reply, RespClient, resp};

use crate::compare;
use crate::page::{Row, names, page};
use crate::twins::{Twins, difference, none};
use crate::{matrix, scripts};

type Request = Vec<Vec<u8>>;

fn words(text: &str) -> Request {
    text.split(' ')
        .map(|word| word.as_bytes().to_vec())
        .collect()
}

/// `client` and `client list`, as the server names them.
fn server_table(client: &mut RespClient) -> Result<Vec<Vec<String>>> {
    let docs = client.reply("COMMAND DOCS")?;
    let mut found = Vec::new();
    for pair in docs.elements().chunks(2) {
        let [name, about] = pair else { continue };
        let name = text(name)?;
        found.push(vec![name.clone()]);
        for field in about.elements().chunks(2) {
            let [key, value] = field else { continue };
            if text(key)? != "subcommands" {
                continue;
            }
            for inner in value.elements().iter().step_by(2) {
                let inner = text(inner)?;
                let (_, inner) = inner.split_once('|').context("container|subcommand")?;
                found.push(vec![name.clone(), inner.to_owned()]);
            }
        }
    }
    Ok(found)
}

fn text(reply: &Reply) -> Result<String> {
    let bytes = reply.bytes().context("a name")?;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// The command's row, or that of its container if all of that is refused or passed on.
fn row<'r>(rows: &'r [Row], name: &[String]) -> Option<&'r Row> {
    let of = |words: &[String]| {
        rows.iter().find(|row| {
            row.words.len() == words.len()
                && row
                    .words
                    .iter()
                    .zip(words)
                    .all(|(one, other)| one.eq_ignore_ascii_case(other))
        })
    };
    of(name).or_else(|| of(&name[..1]))
}

fn spec(name: &[String]) -> Result<&'static CommandSpec> {
    let spec = commands::find(name[0].as_bytes()).with_context(|| name.join(" "))?;
    let inner = name
        .get(1)
        .and_then(|inner| spec.subcommand(inner.as_bytes()));
    Ok(inner.unwrap_or(spec))
}

/// Whether a name is nothing without a subcommand's.
fn is_bare_container(name: &[String]) -> Result<bool> {
    let spec = spec(name)?;
    Ok(name.len() == 1 && !spec.subcommands.is_empty() && !spec.accepts(1))
}

/// The shortest request that the server would not call too short.
fn shortest(name: &[String]) -> Result<Request> {
    let mut request = words(&name.join(" "));
    let spec = spec(name)?;
    while !spec.accepts(request.len()) {
        request.push(b"1".to_vec());
    }
    Ok(request)
}

#[test]
fn every_command_of_the_servers_table_is_equal_or_refused_with_a_reason() -> Result<()> {
    let twins = Twins::over(3)?;
    let rows = page()?;
    let mut tried: Vec<(Request, bool)> = scripts::requests().collect();
    tried.extend(matrix::requests().map(|request| (request, false)));
    let table = server_table(&mut twins.direct.client()?)?;
    assert!(table.len() > 350, "{} commands", table.len());
    let mut wrong = Vec::new();
    for name in &table {
        let shown = name.join(" ");
        if is_bare_container(name)? {
            continue;
        }
        let Some(row) = row(&rows, name) else {
            wrong.push(format!("{shown}: not on the page"));
            continue;
        };
        if !row.refused {
            let mut tried = tried.iter().filter(|(request, _)| names(name, request));
            if tried.all(|(_, refused)| *refused) {
                wrong.push(format!("{shown}: not compared with a server"));
            }
            continue;
        }
        if row.reason.is_empty() {
            wrong.push(format!("{shown}: refused without a reason"));
        }
        for version in [2, 3] {
            let [_, mut through] = twins.clients(version)?;
            let request = shortest(name)?;
            let reply = through.call(&request.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
            let reply = String::from_utf8_lossy(&reply);
            if !reply.starts_with("-ERR breccia: '") {
                wrong.push(format!("{shown}: the page says refused, but {reply}"));
            }
        }
    }
    none("rows of the server's table", &wrong);
    Ok(())
}

/// What stands in the place of arguments. No ON: it would make the server track, and the gateway refuses it.
const EDGES: [&str; 16] = [
    "",
    "x",
    "0",
    "-1",
    "1",
    "1.5",
    "bcast",
    "off",
    "YES",
    "*",
    "SYNC",
    "ASYNC",
    "ID",
    "TYPE",
    "9223372036854775808",
    "\u{7f}\r\n",
];

/// Commands that change what the connection is, wait, or tell of what is this server's or connection's own:
/// they are in scripts.
const LEFT_OUT: [&str; 23] = [
    "auth",
    "client|id",
    "client|kill",
    "client|list",
    "client|reply",
    "client|setname",
    "command",
    "config|get",
    "discard",
    "exec",
    "function|restore",
    "hello",
    "latency|latest",
    "latency|reset",
    "multi",
    "quit",
    "reset",
    "scan",
    "select",
    "slowlog|get",
    "slowlog|len",
    "unwatch",
    "wait",
];

/// The names of commands without keys that are not refused.
fn without_keys(rows: &[Row]) -> Result<Vec<Vec<String>>> {
    let mut found = Vec::new();
    for spec in COMMANDS {
        let mut all = vec![vec![spec.name.to_owned()]];
        let inner = spec.subcommands.iter();
        all.extend(inner.map(|inner| vec![spec.name.to_owned(), inner.name.to_owned()]));
        for name in all {
            let known = self::spec(&name)?;
            let is_left_out = LEFT_OUT.contains(&name.join("|").as_str())
                || LEFT_OUT.contains(&name[0].as_str())
                || known.flags.contains(Flags::PUBSUB)
                || known.flags.contains(Flags::BLOCKING);
            let is_refused = row(rows, &name).is_none_or(|row| row.refused);
            if known.shape() == KeyShape::None && !is_left_out && !is_refused {
                found.push(name);
            }
        }
    }
    Ok(found)
}

/// Each name alone, and followed by one to three edges.
fn spoilt(name: &[String]) -> BTreeSet<Request> {
    let start = words(&name.join(" "));
    let mut all = BTreeSet::from([start.clone()]);
    for (number, edge) in EDGES.iter().enumerate() {
        let mut request = start.clone();
        for step in [0, 3, 7] {
            let word = if step == 0 {
                edge
            } else {
                &EDGES[(number + step) % EDGES.len()]
            };
            request.push(word.as_bytes().to_vec());
            all.insert(request.clone());
        }
    }
    all
}

fn check(shards: usize, version: u8) -> Result<()> {
    let twins = Twins::over(shards)?;
    let (mut clients, mut differences, mut count) = (twins.clients(version)?, Vec::new(), 0);
    for name in without_keys(&page()?)? {
        for request in spoilt(&name) {
            count += 1;
            let bytes = resp::encode(&request.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let mut replies = Vec::new();
            for client in &mut clients {
                client.send(&bytes)?;
                let shown = request.concat().escape_ascii().to_string();
                replies.push(client.read_reply().with_context(|| shown)?);
            }
            let (wanted, found) = (&replies[0], &replies[1]);
            let how = compare::how(&request);
            if !compare::alike(how, &request, wanted, found)? {
                let shown: Vec<String> = request
                    .iter()
                    .map(|word| word.escape_ascii().to_string())
                    .collect();
                differences.push(difference(&shown.join("|"), wanted, found));
            }
        }
    }
    none(
        &format!("{count} requests over {shards} shards, RESP{version}"),
        &differences,
    );
    Ok(())
}

#[test]
fn commands_without_keys_answer_to_anything_as_redis() -> Result<()> {
    check(1, 2)?;
    check(3, 3)
}
