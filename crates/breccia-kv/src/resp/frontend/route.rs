//! Which way each command goes. It is a table, decided once; requests only look it up.
//!
//! Invariant: every command of the server's own table has exactly one route, and a command that
//! is not offered says why.

use super::super::commands::{COMMANDS, CommandSpec, Flags, KeyShape, find_row};

/// How one command is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// One key, at this argument: to its shard.
    One(usize),
    /// Several keys, which must share a shard.
    Same,
    /// As `Same`, for a script: it is to be known on all shards once one has run it.
    Script,
    /// Several keys, split over shards.
    Split(Split),
    /// Keys that must share a shard; may block, so it goes on a lease.
    Blocking,
    /// As `Same`, but on a lease if the request says BLOCK.
    StreamRead,
    /// To all shards.
    Scatter(Scatter),
    /// The cursor of SCAN names the shard.
    Scan,
    /// To the shard the channel hashes to.
    Publish,
    /// Questions about subscribers: about this gateway's own.
    PubSub,
    /// Subscribes or unsubscribes.
    Subscription(Subscription),
    /// MULTI and its kin.
    Transaction(TransactionCommand),
    /// Answered here.
    Session,
    /// Any shard can answer.
    Any,
    /// WAIT: to every shard the client has written to.
    Wait,
    /// Not offered; the text says why.
    Refused(&'static str),
}

/// Multi-key commands that are split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Split {
    /// Values in the order of the keys.
    Values,
    /// Counts are added.
    Count,
    /// Keys and values; every part answers OK.
    Pairs,
}

/// Commands sent to all shards, by how their replies are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scatter {
    /// Integers are added (DBSIZE).
    Sum,
    /// Arrays are joined (KEYS).
    Join,
    /// As FLUSHDB, on all; all answer OK.
    Flush,
    /// One of the replies that are no nulls (RANDOMKEY).
    OneOf,
    /// All must succeed; the first reply stands for all (SCRIPT LOAD).
    First,
    /// Integers of arrays are combined by AND (SCRIPT EXISTS).
    AndEach,
}

/// Commands that change a client's subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subscription {
    /// SUBSCRIBE
    Channels,
    /// UNSUBSCRIBE
    NoChannels,
    /// PSUBSCRIBE
    Patterns,
    /// PUNSUBSCRIBE
    NoPatterns,
    /// SSUBSCRIBE
    ShardChannels,
    /// SUNSUBSCRIBE
    NoShardChannels,
}

/// Commands of transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TransactionCommand {
    /// MULTI
    Multi,
    /// EXEC
    Exec,
    /// DISCARD
    Discard,
    /// WATCH
    Watch,
    /// UNWATCH
    Unwatch,
}

/// A command and its route.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Command {
    pub spec: &'static CommandSpec,
    pub route: Route,
    /// Its place in the table; metrics count by it.
    pub row: u16,
}

/// The routes of all commands.
#[derive(Debug)]
pub(crate) struct Routes {
    rows: Vec<Command>,
}

impl Routes {
    pub(crate) fn new() -> Self {
        let rows = COMMANDS
            .iter()
            .enumerate()
            .map(|(row, spec)| Command {
                spec,
                route: route(spec),
                row: u16::try_from(row).unwrap_or(u16::MAX),
            })
            .collect();
        Self { rows }
    }

    /// The command of that name, in any case.
    pub(crate) fn find(&self, name: &[u8]) -> Option<&Command> {
        self.rows.get(find_row(name)?)
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }
}

const ADMIN: &str = "it is for administrators of one server; ask the shard itself";
const REPLICATION: &str = "it belongs to the replication between servers";
const ONE_SERVER: &str = "it is about one server's state; ask the shard itself";
pub(crate) const DATABASES: &str = "keys of other databases lie on other shards";

/// Subcommands that are not offered though their command is.
const REFUSED_SUBCOMMANDS: &[(&str, &[&str], &str)] = &[
    (
        "client",
        &["pause", "unpause"],
        "whoever writes to the shards directly would not be paused",
    ),
    (
        "client",
        &["no-loop"],
        "invalidations of several shards are not merged",
    ),
    (
        "config",
        &["set", "rewrite"],
        "the settings of shards are not Breccia's",
    ),
    (
        "config",
        &["resetstat"],
        "what is counted here is never set back",
    ),
    (
        "latency",
        &["doctor", "graph", "histogram"],
        "the histograms are breccia_request_seconds and breccia_store_seconds of /metrics",
    ),
    (
        "memory",
        &["doctor", "malloc-stats", "purge", "stats"],
        ONE_SERVER,
    ),
    (
        "script",
        &["debug", "kill"],
        "which shard is meant cannot be told; ask the shard itself",
    ),
    (
        "function",
        &["kill"],
        "which shard is meant cannot be told; ask the shard itself",
    ),
];
pub(crate) const NO_TRACKING: &str = "invalidations of several shards are not merged";

/// Why a subcommand is not offered, if so.
pub(crate) fn refused_subcommand(command: &str, given: &[u8]) -> Option<&'static str> {
    let mut rows = REFUSED_SUBCOMMANDS.iter();
    let row = rows.find(|(name, subcommands, _)| {
        let mut subcommands = subcommands.iter();
        *name == command && subcommands.any(|one| one.as_bytes().eq_ignore_ascii_case(given))
    });
    row.map(|(.., why)| *why)
}

fn route(spec: &CommandSpec) -> Route {
    special(spec.name).unwrap_or_else(|| match spec.shape() {
        _ if spec.flags.contains(Flags::BLOCKING) => Route::Blocking,
        KeyShape::One(index) => Route::One(index.into()),
        KeyShape::Many => Route::Same,
        KeyShape::None => Route::Refused(ONE_SERVER),
    })
}

fn special(name: &str) -> Option<Route> {
    use Subscription as Sub;
    use TransactionCommand as Tx;
    Some(match name {
        "mget" => Route::Split(Split::Values),
        "mset" => Route::Split(Split::Pairs),
        "del" | "unlink" | "exists" | "touch" => Route::Split(Split::Count),
        "xread" | "xreadgroup" => Route::StreamRead,
        "dbsize" => Route::Scatter(Scatter::Sum),
        "keys" => Route::Scatter(Scatter::Join),
        "flushdb" | "flushall" => Route::Scatter(Scatter::Flush),
        "randomkey" => Route::Scatter(Scatter::OneOf),
        "scan" => Route::Scan,
        "publish" | "spublish" => Route::Publish,
        "subscribe" => Route::Subscription(Sub::Channels),
        "unsubscribe" => Route::Subscription(Sub::NoChannels),
        "psubscribe" => Route::Subscription(Sub::Patterns),
        "punsubscribe" => Route::Subscription(Sub::NoPatterns),
        "multi" => Route::Transaction(Tx::Multi),
        "exec" => Route::Transaction(Tx::Exec),
        "discard" => Route::Transaction(Tx::Discard),
        "watch" => Route::Transaction(Tx::Watch),
        "unwatch" => Route::Transaction(Tx::Unwatch),
        "ping" | "echo" | "hello" | "auth" | "client" | "select" | "reset" | "quit" | "info"
        | "config" | "command" | "role" | "slowlog" | "latency" => Route::Session,
        "eval" | "eval_ro" | "evalsha" | "evalsha_ro" => Route::Script,
        "script" | "function" => Route::Same, // decided by subcommand where it is dispatched
        "time" | "lolwut" => Route::Any,
        "ssubscribe" => Route::Subscription(Sub::ShardChannels),
        "sunsubscribe" => Route::Subscription(Sub::NoShardChannels),
        "pubsub" => Route::PubSub,
        "wait" => Route::Wait,
        "swapdb" | "move" => Route::Refused(DATABASES),
        "migrate" => Route::Refused("keys would leave the layout"),
        "cluster" | "readonly" | "readwrite" | "asking" => {
            Route::Refused("this is not a cluster to its clients")
        }
        "psync" | "sync" | "replconf" | "replicaof" | "slaveof" | "failover" | "restore-asking" => {
            Route::Refused(REPLICATION)
        }
        "monitor" | "debug" | "shutdown" | "save" | "bgsave" | "bgrewriteaof" | "lastsave"
        | "acl" | "module" | "pfdebug" | "pfselftest" => Route::Refused(ADMIN),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, route: Route) {
        assert_eq!(
            Routes::new().find(name.as_bytes()).unwrap().route,
            route,
            "{name}"
        );
    }

    #[test]
    fn commands_go_their_way() {
        check("GET", Route::One(1));
        check("lpush", Route::One(1));
        check("object", Route::Same);
        check("RENAME", Route::Same);
        check("bitop", Route::Same);
        check("BLPOP", Route::Blocking);
        check("MGET", Route::Split(Split::Values));
        check("eval", Route::Script);
        check("fcall", Route::Same);
        check("geosearch", Route::One(1));
    }

    #[test]
    fn a_command_without_keys_is_named_or_refused() {
        for command in &Routes::new().rows {
            if let Route::Refused(why) = command.route {
                assert!(!why.is_empty());
            }
            if command.spec.shape() == KeyShape::None && command.spec.subcommands.is_empty() {
                assert_ne!(command.route, Route::Same, "{}", command.spec.name);
            }
        }
    }
}
