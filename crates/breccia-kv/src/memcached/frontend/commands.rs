//! The names under which a memcached listener counts its requests.
//!
//! Invariant: every command has one row, and the number of rows is fixed.

use breccia_net::metrics::Registry;

use super::super::codec::{ArithmeticVerb, Command};
use crate::front::metrics::{FrontMetrics, UNKNOWN_ROW};

/// Names in the order of their rows.
const NAMES: [&str; 25] = [
    "get", "gets", "gat", "gats", "set", "add", "replace", "append", "prepend", "cas", "incr",
    "decr", "touch", "delete", "flush_all", "mg", "ms", "md", "ma", "me", "mn", "version",
    "verbosity", "stats", "quit",
];

/// The row that counts a command.
pub(super) fn row(command: &Command<'_>) -> u16 {
    let name = match command {
        Command::Retrieve { verb, .. } => verb.name(),
        Command::Store { verb, .. } => verb.name(),
        Command::Arithmetic { verb: ArithmeticVerb::Increment, .. } => "incr",
        Command::Arithmetic { verb: ArithmeticVerb::Decrement, .. } => "decr",
        Command::Touch { .. } => "touch",
        Command::Delete { .. } => "delete",
        Command::FlushAll { .. } => "flush_all",
        Command::Meta(meta) => meta.verb.name(),
        Command::MetaNoop => "mn",
        Command::Version => "version",
        Command::Verbosity => "verbosity",
        Command::Stats { .. } => "stats",
        Command::Quit => "quit",
        Command::Shutdown | Command::ServerOnly { .. } => return UNKNOWN_ROW,
    };
    let row = NAMES.iter().position(|known| *known == name);
    row.and_then(|row| u16::try_from(row).ok()).unwrap_or(UNKNOWN_ROW)
}

/// The counters of one listener. `leaves` are paths and store names, in the topology's order.
pub(super) fn front_metrics(
    listener: String,
    registry: Registry,
    leaves: Vec<(String, String)>,
) -> FrontMetrics {
    FrontMetrics::new(NAMES.len(), |row| NAMES.get(row).copied(), listener, registry, leaves)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_counted_under_its_name() {
        let check = |command: &Command<'_>, name: &str| {
            assert_eq!(NAMES.get(usize::from(row(command))), Some(&name));
        };
        check(&Command::Delete { key: b"a" }, "delete");
        check(&Command::Quit, "quit");
        check(&Command::MetaNoop, "mn");
        assert_eq!(row(&Command::Shutdown), UNKNOWN_ROW);
    }
}
