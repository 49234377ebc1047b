//! The page that says what becomes of each command: `docs/redis-commands.md`, made of the routes.
//!
//! For tests only: `BRECCIA_REGENERATE=1` writes the page anew. That it is true of the running
//! gateway, the differential suite tests. Invariant: every command of the table is on the page.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::super::commands::{COMMANDS, CommandSpec, Find, KeyFlags, REDIS_VERSION};
use super::route::{Command, Route, Routes, Scatter, Split, refused_subcommand};

const HEAD: &str = "\
What becomes of each command of Redis VERSION before a store whose members are all Redis servers. The page is
generated from the table that the gateway itself uses (`BRECCIA_REGENERATE=1 cargo test -p breccia-kv page`), and the
differential suite holds every row against a real server.

| class | what it means |
|---|---|
| as one | works as on one server, whatever the shards |
| one shard | works as on one server when all its keys are on one shard; else `-CROSSSLOT` (hash tags bring keys together) |
| here | answered by Breccia, about Breccia |
| refused | answered with an error that gives the reason |

Before a store with other members (memcached, memory) only the portable set works; the error names the member in the
way. Commands of modules are described by the composite's `command` table.

| command | class | to know |
|---|---|---|
";

/// What is to be known of single commands, beside their routes.
const NOTES: &[(&str, &str)] = &[
    ("client|caching", "as to a client that does not track"),
    (
        "client|kill",
        "any client of this listener, whichever worker serves it",
    ),
    (
        "client|list",
        "the clients of this listener; what only a server has (sizes of its buffers) is zero",
    ),
    (
        "client|tracking",
        "OFF is answered; ON is refused: invalidations of several shards are not merged",
    ),
    ("client|trackinginfo", "nobody tracks"),
    (
        "client|unblock",
        "the shard unblocks who waits for it, on any worker; who waits in WAIT counts as not waiting",
    ),
    (
        "command",
        "any shard answers, of its own commands; so do its subcommands",
    ),
    ("config|get", "a few settings that libraries ask for"),
    (
        "copy",
        "with DB it is refused over several shards: keys of other databases lie on other shards",
    ),
    ("eval", NO_KEYS),
    ("eval_ro", NO_KEYS),
    ("evalsha", SCRIPTS),
    ("evalsha_ro", SCRIPTS),
    ("fcall", NO_KEYS),
    ("fcall_ro", NO_KEYS),
    (
        "flushall",
        "as FLUSHDB on all shards: other databases of a shared server are not this store's",
    ),
    ("hello", "RESP2 and RESP3"),
    (
        "info",
        "about Breccia; the key space of the shards only where it is asked for by name, or all is",
    ),
    (
        "latency|history",
        "of the one event `command`: the slowest reply of each second",
    ),
    (
        "latency|latest",
        "of the one event `command`: the slowest reply of each second",
    ),
    (
        "multi",
        "the first key picks the shard; a key of another shard spoils the transaction",
    ),
    ("publish", SUBSCRIBERS),
    (
        "script|exists",
        "a script that some client has shown exists, whichever shard ran it",
    ),
    ("select", "0, or what the members' `databases` allow"),
    (
        "slowlog|get",
        "replies that came from a shard later than 10 ms, with the shard; arguments are not kept",
    ),
    ("sort", PATTERNS),
    ("sort_ro", PATTERNS),
    ("spublish", SUBSCRIBERS),
    (
        "wait",
        "asks every shard this client has written to; the smallest number counts",
    ),
];
const SCRIPTS: &str =
    "a script that some client has shown is known on all shards, also after one was started again";
const NO_KEYS: &str = "without keys any shard runs it";
const PATTERNS: &str =
    "BY and GET with a pattern are refused over several shards: they reach keys of other shards";
const SUBSCRIBERS: &str = "goes to the shard of its channel; of the number, the clients of another gateway count once \
                           for each of its workers, and so do all within MULTI, in scripts and above 64 KiB";

/// A command or subcommand as the page shows it.
struct Row {
    name: String,
    class: &'static str,
    note: String,
}

fn row(command: &Command, spec: &CommandSpec, subcommand: Option<&str>) -> Row {
    let key = match subcommand {
        Some(subcommand) => format!("{}|{subcommand}", command.spec.name),
        None => command.spec.name.to_owned(),
    };
    let refusal =
        subcommand.and_then(|name| refused_subcommand(command.spec.name, name.as_bytes()));
    let (class, mut note) = match refusal {
        Some(why) => ("refused", why.to_owned()),
        None => class(command, spec, subcommand),
    };
    if let Some((_, more)) = NOTES.iter().find(|(name, _)| *name == key) {
        if !note.is_empty() {
            note.push_str("; ");
        }
        note.push_str(more);
    }
    Row {
        name: key.replace('|', " ").to_ascii_uppercase(),
        class,
        note,
    }
}

fn class(
    command: &Command,
    spec: &CommandSpec,
    subcommand: Option<&str>,
) -> (&'static str, String) {
    let name = command.spec.name;
    let (class, note) = match command.route {
        Route::Refused(why) => ("refused", why),
        _ if subcommand == Some("help") => ("as one", "any shard has the text"),
        Route::One(_) | Route::Publish | Route::Wait => ("as one", ""),
        Route::Same if matches!(name, "script" | "function") => ("as one", library(subcommand)),
        Route::Same | Route::Script if has_one_key(spec) => ("as one", ""),
        Route::Same | Route::Script | Route::Transaction(_) => ("one shard", ""),
        Route::Split(Split::Values) => ("as one", "split over the shards"),
        Route::Split(_) => (
            "as one",
            "split over the shards; atomic on each of them only",
        ),
        Route::Blocking if has_one_key(spec) => ("as one", "waits on a connection of its own"),
        Route::Blocking => ("one shard", "waits on a connection of its own"),
        Route::StreamRead => (
            "one shard",
            "with BLOCK it waits on a connection of its own",
        ),
        Route::Scatter(Scatter::Sum) => ("as one", "the shards' numbers are added"),
        Route::Scatter(Scatter::Join) => ("as one", "the shards' keys are joined"),
        Route::Scatter(Scatter::OneOf) => ("as one", "one of the shards' answers"),
        Route::Scan => ("as one", "one shard after another, as its cursor says"),
        Route::Subscription(_) if name.ends_with("ssubscribe") || name == "sunsubscribe" => {
            ("as one", "on the shard of its channel")
        }
        Route::Scatter(_) | Route::Subscription(_) => ("as one", "on all shards"),
        Route::PubSub => ("here", "of this gateway's own subscribers"),
        Route::Session if name == "command" => ("as one", ""),
        Route::Session => ("here", ""),
        Route::Any => ("as one", "any shard answers"),
    };
    (class, note.to_owned())
}

fn library(subcommand: Option<&str>) -> &'static str {
    match subcommand {
        Some("load" | "flush" | "delete" | "restore") => "on all shards",
        Some("exists") => "",
        _ => "any shard answers",
    }
}

fn has_one_key(spec: &CommandSpec) -> bool {
    match spec.keys {
        [key] => {
            matches!(key.find, Find::Range { last: 0, .. })
                && !key.flags.contains(KeyFlags::NOT_KEY)
        }
        keys => keys.is_empty(),
    }
}

fn rows() -> Vec<Row> {
    let routes = Routes::new();
    let mut rows = Vec::new();
    for spec in COMMANDS {
        let command = routes.find(spec.name.as_bytes()).unwrap();
        let refused = matches!(command.route, Route::Refused(_));
        if refused || spec.subcommands.is_empty() || spec.accepts(1) {
            rows.push(row(command, spec, None));
        }
        // COMMAND's are all answered by a shard.
        if refused || spec.name == "command" {
            continue;
        }
        for subcommand in spec.subcommands {
            rows.push(row(command, subcommand, Some(subcommand.name)));
        }
    }
    rows
}

fn page() -> String {
    let mut page = "# Redis commands\n\n".to_owned();
    page.push_str(&HEAD.replace("VERSION", REDIS_VERSION));
    for row in rows() {
        writeln!(page, "| `{}` | {} | {} |", row.name, row.class, row.note).unwrap();
    }
    page
}

#[test]
fn the_page_of_commands_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/redis-commands.md");
    let wanted = page();
    if std::env::var_os("BRECCIA_REGENERATE").is_some() {
        fs::write(&path, &wanted).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == wanted,
        "docs/redis-commands.md is not current: BRECCIA_REGENERATE=1 cargo test -p breccia-kv page"
    );
}

#[test]
fn every_note_belongs_to_a_row() {
    let names: Vec<String> = rows().into_iter().map(|row| row.name).collect();
    for (name, _) in NOTES {
        let shown = name.replace('|', " ").to_ascii_uppercase();
        assert!(names.contains(&shown), "{name}");
    }
}
