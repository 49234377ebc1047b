//! The names under which a memcached listener counts its requests.
//!
//! Invariant: every command has one row, and the number of rows is fixed.

use breccia_net::metrics::Registry;

use super::super::codec::{ArithmeticVerb, Command, MetaVerb, RetrievalVerb, StoreVerb};
use crate::front::metrics::{FrontMetrics, UNKNOWN_ROW};

/// Names in the order of their rows.
const NAMES: [&str; 25] = [
    "get",
    "gets",
    "gat",
    "gats",
    "set",
    "add",
    "replace",
    "append",
    "prepend",
    "cas",
    "incr",
    "decr",
    "touch",
    "delete",
    "flush_all",
    "mg",
    "ms",
    "md",
    "ma",
    "me",
    "mn",
    "version",
    "verbosity",
    "stats",
    "quit",
];

/// The row that counts a command.
pub(super) fn row(command: &Command<'_>) -> u16 {
    match command {
        Command::Retrieve {
            verb: RetrievalVerb::Get,
            ..
        } => 0,
        Command::Retrieve {
            verb: RetrievalVerb::Gets,
            ..
        } => 1,
        Command::Retrieve {
            verb: RetrievalVerb::Gat,
            ..
        } => 2,
        Command::Retrieve {
            verb: RetrievalVerb::Gats,
            ..
        } => 3,
        Command::Store {
            verb: StoreVerb::Set,
            ..
        } => 4,
        Command::Store {
            verb: StoreVerb::Add,
            ..
        } => 5,
        Command::Store {
            verb: StoreVerb::Replace,
            ..
        } => 6,
        Command::Store {
            verb: StoreVerb::Append,
            ..
        } => 7,
        Command::Store {
            verb: StoreVerb::Prepend,
            ..
        } => 8,
        Command::Store {
            verb: StoreVerb::Cas,
            ..
        } => 9,
        Command::Arithmetic {
            verb: ArithmeticVerb::Increment,
            ..
        } => 10,
        Command::Arithmetic {
            verb: ArithmeticVerb::Decrement,
            ..
        } => 11,
        Command::Touch { .. } => 12,
        Command::Delete { .. } => 13,
        Command::FlushAll { .. } => 14,
        Command::Meta(meta) => match meta.verb {
            MetaVerb::Get => 15,
            MetaVerb::Set => 16,
            MetaVerb::Delete => 17,
            MetaVerb::Arithmetic => 18,
            MetaVerb::Debug => 19,
        },
        Command::MetaNoop => 20,
        Command::Version => 21,
        Command::Verbosity => 22,
        Command::Stats { .. } => 23,
        Command::Quit => 24,
        Command::Shutdown | Command::ServerOnly { .. } => UNKNOWN_ROW,
    }
}

/// The counters of one listener. `leaves` are paths and store names, in the topology's order.
pub(super) fn front_metrics(
    listener: String,
    registry: Registry,
    leaves: Vec<(String, String)>,
) -> FrontMetrics {
    FrontMetrics::new(
        NAMES.len(),
        |row| NAMES.get(row).copied(),
        listener,
        registry,
        leaves,
    )
}

#[cfg(test)]
mod tests {
    use super::super::super::codec::{Decoded, Decoder};
    use super::*;

    #[test]
    fn every_command_is_counted_under_its_name() {
        for (number, name) in NAMES.iter().enumerate() {
            let found = [
                "",
                " a",
                " 1",
                " a 1",
                " 1 a",
                " a 0 0 0",
                " a 0",
                " a 0 0 0 1",
            ]
            .iter()
            .flat_map(|rest| ["", "\r\n"].map(|data| format!("{name}{rest}\r\n{data}")))
            .find_map(|line| match Decoder::new(1 << 20).decode(line.as_bytes()) {
                Decoded::Request(request) => Some(row(&request.command)),
                _ => None,
            });
            assert_eq!(found.map(usize::from), Some(number), "{name}");
        }
        assert_eq!(row(&Command::Shutdown), UNKNOWN_ROW);
    }
}
