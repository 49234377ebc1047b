//! Every command with keys, on keys of every type and with every argument spoilt in turn.
//!
//! `examples.txt` has at least one good request for each command; the requests sent are made from
//! those. Not a place for histories: each request finds fresh keys. Invariant: every command of the
//! generated table that has keys is in the examples, or in [`LEFT_OUT`] with its reason.

use anyhow::{Context, Result};
use breccia_kv::resp::commands::{self, COMMANDS, CommandSpec, Flags, KeyFlags, keys};
use breccia_testkit::{Reply, RespClient, resp};

use crate::common::key_on;
use crate::compare::{self, How};
use crate::twins::{Twins, difference, none};
use crate::words::split;

const EXAMPLES: &str = include_str!("scripts/examples.txt");

/// Sent once, before everything else.
const LIBRARY: &str = "#!lua name=examples\n\
    redis.register_function{function_name='examples_get', flags={'no-writes'}, \
    callback=function(keys, args) return redis.call('GET', keys[1]) end}";

/// Commands with keys that need no example, and why.
const LEFT_OUT: [(&str, &str); 6] = [
    ("pfdebug", "refused: for administrators of one server"),
    (
        "move",
        "refused: keys of another database lie on other shards",
    ),
    ("migrate", "refused: keys would leave the layout"),
    (
        "restore-asking",
        "refused: for servers of a cluster among themselves",
    ),
    ("spublish", "a channel, not a key"),
    (
        "watch",
        "changes what the connection is: see transactions.txt",
    ),
];

/// What stands in the place of each argument in turn.
const EDGES: [&[u8]; 10] = [
    b"",
    b"abc",
    b"-1",
    b"nan",
    b"\x00\xff\r\n",
    b"0",
    b"1.5",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"18446744073709551616",
];
/// Of those, how many can never be a timeout that lasts.
const NO_TIMEOUTS: usize = 5;

/// Requests of one write.
const BATCH: usize = 60;

struct Section {
    name: &'static str,
    setup: Vec<Vec<Vec<u8>>>,
    examples: Vec<Vec<Vec<u8>>>,
}

/// One request, on keys made by a section's setup.
struct Case<'s> {
    setup: &'s [Vec<Vec<u8>>],
    what: &'s str,
    request: Vec<Vec<u8>>,
}

fn sections() -> Vec<Section> {
    let mut sections = Vec::new();
    for line in EXAMPLES
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            sections.push(Section {
                name,
                setup: Vec::new(),
                examples: Vec::new(),
            });
            continue;
        }
        let section: &mut Section = sections.last_mut().expect("a section comes first");
        let (list, text) = match line.strip_prefix("+ ") {
            Some(text) => (&mut section.setup, text),
            None => (&mut section.examples, line),
        };
        list.push(split(text).unwrap_or_else(|error| panic!("{line}: {error}")));
    }
    sections
}

/// The names of the commands that have an example.
pub(crate) fn commands() -> impl Iterator<Item = String> {
    let examples = sections().into_iter().flat_map(|section| section.examples);
    examples.map(|example| String::from_utf8_lossy(&example[0]).to_ascii_lowercase())
}

/// All examples, and what is sent before them.
pub(crate) fn requests() -> impl Iterator<Item = Vec<Vec<u8>>> {
    let sections = sections().into_iter();
    sections.flat_map(|section| section.setup.into_iter().chain(section.examples))
}

/// Four keys of one shard, whatever stands for them; five sets of them, taken in turn.
fn key_names() -> Vec<[Vec<u8>; 4]> {
    let on = |shard, salts: [&str; 4]| salts.map(|salt| key_on(shard, 3, salt).into_bytes());
    let empty = breccia_core::HashKind::Xxh3_64.hash(b"") % 3;
    let [_, second, third, fourth] = on(empty, ["", "e2-", "e3-", "e4-"]);
    vec![
        on(0, ["plain", "other", "third", "fourth"]),
        on(1, ["\r\n$5\r\n", "\0", "\u{7f}\u{ff} ", "\t"]),
        on(2, ["{tag}a", "{tag}b", "{}", "{"]),
        on(0, ["*1\r\n$4\r\nPING\r\n", "+OK\r\n", "-", ":"]),
        [Vec::new(), second, third, fourth],
    ]
}

fn place(request: &[Vec<u8>], names: &[Vec<u8>; 4], dump: &[u8]) -> Vec<Vec<u8>> {
    let place = |word: &Vec<u8>| match word.as_slice() {
        b"K" => names[0].clone(),
        b"K2" => names[1].clone(),
        b"K3" => names[2].clone(),
        b"K4" => names[3].clone(),
        b"@dump@" => dump.to_vec(),
        _ => word.clone(),
    };
    request.iter().map(place).collect()
}

/// Sends each case with its keys, in batches, and compares all replies.
fn compare(twins: &Twins, version: u8, cases: &[Case<'_>]) -> Result<Vec<String>> {
    let mut clients = twins.clients(version)?;
    let names = key_names();
    let mut dump = Vec::new();
    for client in &mut clients {
        client.call(&[b"FUNCTION", b"LOAD", LIBRARY.as_bytes()])?;
        client.call(&[b"SCRIPT", b"LOAD", b"return 2"])?;
        client.words("SET dumped value")?;
        let reply = client.reply("DUMP dumped")?;
        dump = reply.bytes().context("a payload")?.to_vec();
    }
    let mut differences = Vec::new();
    for (batch, cases) in cases.chunks(BATCH).enumerate() {
        let mut requests = Vec::new();
        for (index, case) in cases.iter().enumerate() {
            let names = &names[(batch + index) % names.len()];
            let [one, two, three, _] = names.clone();
            let all = |name: &[u8]| vec![name.to_vec(), one.clone(), two.clone(), three.clone()];
            requests.push((case, all(b"DEL")));
            requests.extend(
                case.setup
                    .iter()
                    .map(|setup| (case, place(setup, names, &dump))),
            );
            requests.push((case, place(&case.request, names, &dump)));
            requests.push((case, all(b"EXISTS")));
        }
        let bytes: Vec<u8> = requests
            .iter()
            .flat_map(|(_, request)| encode(request))
            .collect();
        for client in &mut clients {
            client.send(&bytes)?;
        }
        for (case, request) in requests {
            let [wanted, found] = read(&mut clients, &request)?;
            let how = if case.request.contains(&b"@dump@".to_vec()) {
                How::Exact
            } else {
                compare::how(&request)
            };
            if !compare::alike(how, &request, &wanted, &found)?
                && !compare::is_due_refusal(twins.servers.len(), &request, &found)
            {
                let what = format!("[{}] {}", case.what, show(&request));
                differences.push(difference(&what, &wanted, &found));
            }
        }
    }
    Ok(differences)
}

fn encode(request: &[Vec<u8>]) -> Vec<u8> {
    resp::encode(&request.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

fn read(clients: &mut [RespClient; 2], request: &[Vec<u8>]) -> Result<[Vec<u8>; 2]> {
    let [direct, through] = clients;
    let wanted = direct
        .read_reply()
        .with_context(|| format!("direct: {}", show(request)))?;
    let found = through
        .read_reply()
        .with_context(|| format!("through: {}", show(request)))?;
    Ok([wanted, found])
}

fn show(request: &[Vec<u8>]) -> String {
    let words: Vec<String> = request
        .iter()
        .map(|word| word.escape_ascii().to_string())
        .collect();
    words.join(" ")
}

/// Every example on keys of every type, and on none.
fn on_every_type(sections: &[Section]) -> Vec<Case<'_>> {
    let mut cases = Vec::new();
    for section in sections {
        for (number, example) in section.examples.iter().enumerate() {
            let mut request = example.clone();
            if number % 2 == 1 {
                request[0].make_ascii_lowercase();
            }
            let kind = |what, setup| Case {
                setup,
                what,
                request: request.clone(),
            };
            cases.push(kind("nothing", [].as_slice()));
            cases.extend(
                sections
                    .iter()
                    .map(|other| kind(other.name, &other.setup[..])),
            );
            // Its own type once more, in the other case of letters.
            cases.push(Case {
                setup: &section.setup,
                what: section.name,
                request: example.clone(),
            });
        }
    }
    cases
}

/// Every example cut short, with a word too many, and with each argument spoilt.
fn spoilt(sections: &[Section]) -> Vec<Case<'_>> {
    let mut cases = Vec::new();
    for section in sections {
        for example in &section.examples {
            let mut add = |request| {
                cases.push(Case {
                    setup: &section.setup,
                    what: section.name,
                    request,
                });
            };
            for length in 1..example.len() {
                add(example[..length].to_vec());
            }
            add([example.as_slice(), &[b"K4".to_vec()]].concat());
            let spec = commands::find(&example[0]).expect("examples are of known commands");
            let mut positions = vec![0];
            keys(spec, example.as_slice(), &mut positions).expect("examples are good requests");
            let waits = spec.flags.contains(Flags::BLOCKING);
            let edges = if waits {
                &EDGES[..NO_TIMEOUTS]
            } else {
                &EDGES[..]
            };
            for index in (1..example.len()).filter(|index| !positions.contains(index)) {
                for edge in edges {
                    let mut request = example.clone();
                    request[index] = edge.to_vec();
                    add(request);
                }
            }
        }
    }
    cases
}

fn check_types(shards: usize, version: u8) -> Result<()> {
    let (twins, sections) = (Twins::over(shards)?, sections());
    let cases = on_every_type(&sections);
    let what = format!(
        "{} requests over {shards} shards, RESP{version}",
        cases.len()
    );
    none(&what, &compare(&twins, version, &cases)?);
    Ok(())
}

#[test]
fn commands_on_every_type_answer_as_redis_over_one_shard_in_resp2() -> Result<()> {
    check_types(1, 2)
}

#[test]
fn commands_on_every_type_answer_as_redis_over_one_shard_in_resp3() -> Result<()> {
    check_types(1, 3)
}

#[test]
fn commands_on_every_type_answer_as_redis_over_three_shards_in_resp2() -> Result<()> {
    check_types(3, 2)
}

#[test]
fn commands_on_every_type_answer_as_redis_over_three_shards_in_resp3() -> Result<()> {
    check_types(3, 3)
}

#[test]
fn spoilt_arguments_are_answered_as_by_redis() -> Result<()> {
    let sections = sections();
    let cases = spoilt(&sections);
    for (shards, version) in [(1, 2), (3, 3)] {
        let twins = Twins::over(shards)?;
        let what = format!(
            "{} requests over {shards} shards, RESP{version}",
            cases.len()
        );
        none(&what, &compare(&twins, version, &cases)?);
    }
    Ok(())
}

#[test]
fn examples_are_good_requests() -> Result<()> {
    let (twins, names) = (Twins::over(1)?, key_names());
    let mut client = twins.direct.client()?;
    client.call(&[b"FUNCTION", b"LOAD", LIBRARY.as_bytes()])?;
    client.call(&[b"SCRIPT", b"LOAD", b"return 2"])?;
    client.words("SET dumped value")?;
    let dumped = client.reply("DUMP dumped")?;
    let dump = dumped.bytes().context("a payload")?;
    for section in sections() {
        for example in &section.examples {
            client.words("FLUSHALL")?;
            for request in section.setup.iter().chain([example]) {
                let request = place(request, &names[0], dump);
                let request: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
                let reply = client.call(&request)?;
                let wanted_error =
                    example.ends_with(&[b"K".to_vec()]) && show(example).contains("FREQ");
                let error = Reply::parse(&reply)?.error().map(str::to_owned);
                assert!(
                    error.is_none() || wanted_error,
                    "{}: {error:?}",
                    show(example)
                );
            }
        }
    }
    Ok(())
}

#[test]
fn every_command_with_keys_has_an_example() {
    let sections = sections();
    let examples = sections.iter().flat_map(|section| &section.examples);
    let known: std::collections::BTreeSet<String> = examples
        .filter_map(|example| compare::name(example))
        .collect();
    let has_keys = |spec: &CommandSpec| {
        spec.keys
            .iter()
            .any(|key| !key.flags.contains(KeyFlags::NOT_KEY))
    };
    let mut missing = Vec::new();
    for spec in COMMANDS {
        let own = has_keys(spec).then(|| spec.name.to_owned());
        let inner = spec.subcommands.iter().filter(|inner| has_keys(inner));
        let inner = inner.map(|inner| format!("{}|{}", spec.name, inner.name));
        missing.extend(own.into_iter().chain(inner).filter(|name| {
            !known.contains(name) && !LEFT_OUT.iter().any(|(other, _)| other == name)
        }));
    }
    assert!(
        missing.is_empty(),
        "no example in examples.txt: {}",
        missing.join(" ")
    );
}
