//! Requests that are answered without asking a store.
//!
//! Invariant: nothing here can fail, block or change anything.

use super::codec::Command;
use super::wire_error::push_client_error;

/// What `version` and `stats` say: the protocol spoken is that of memcached 1.6.18.
pub const VERSION: &str = concat!("1.6.18-breccia-", env!("CARGO_PKG_VERSION"));

/// Appends the answer to a request that needs no store, `noreply` not considered. `stats` gives the
/// lines of `stats`. Returns `false` if the request needs a store (nothing was written) or is
/// `quit` (it has no answer).
pub fn answer(
    command: &Command<'_>,
    stats: impl FnOnce() -> Vec<(String, String)>,
    out: &mut Vec<u8>,
) -> bool {
    let line: &[u8] = match command {
        Command::MetaNoop => b"MN\r\n",
        Command::Version => {
            out.extend_from_slice(format!("VERSION {VERSION}\r\n").as_bytes());
            return true;
        }
        // Each worker logs as the configuration says; a client does not change that.
        Command::Verbosity => b"OK\r\n",
        Command::Shutdown => b"ERROR: shutdown not enabled\r\n",
        Command::Stats { arguments: b"" } => {
            for (name, value) in stats() {
                out.extend_from_slice(format!("STAT {name} {value}\r\n").as_bytes());
            }
            b"END\r\n"
        }
        Command::Stats {
            arguments: b"reset",
        } => b"RESET\r\n",
        // There are no slabs here: nothing to list.
        Command::Stats {
            arguments: b"items" | b"slabs" | b"sizes" | b"settings" | b"conns",
        } => b"END\r\n",
        Command::Stats {
            arguments: b"detail" | b"cachedump",
        } => {
            push_client_error("this 'stats' acts on one server; ask that server", out);
            return true;
        }
        Command::Stats { .. } => b"ERROR\r\n",
        Command::ServerOnly { name } => {
            let name = name.escape_ascii();
            push_client_error(format!("'{name}' acts on one server; ask that server"), out);
            return true;
        }
        _ => return false,
    };
    out.extend_from_slice(line);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(command: &Command<'_>, expected: Option<&str>) {
        let mut out = Vec::new();
        let answered = answer(command, || vec![("pid".into(), "7".into())], &mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(answered.then_some(text.as_str()), expected, "{command:?}");
    }

    #[test]
    fn session_commands_are_answered_as_by_memcached() {
        check(&Command::MetaNoop, Some("MN\r\n"));
        check(&Command::Verbosity, Some("OK\r\n"));
        check(
            &Command::Stats { arguments: b"" },
            Some("STAT pid 7\r\nEND\r\n"),
        );
        check(
            &Command::Stats {
                arguments: b"items",
            },
            Some("END\r\n"),
        );
        check(&Command::Stats { arguments: b"else" }, Some("ERROR\r\n"));
        check(&Command::Shutdown, Some("ERROR: shutdown not enabled\r\n"));
        let refused = "CLIENT_ERROR breccia: 'watch' acts on one server; ask that server\r\n";
        check(&Command::ServerOnly { name: b"watch" }, Some(refused));
        check(&Command::Quit, None);
        check(&Command::Delete { key: b"a" }, None);
    }

    #[test]
    fn version_reads_as_memcacheds() {
        let numbers = VERSION.split('-').next().unwrap();
        assert!(
            numbers
                .split('.')
                .all(|number| number.parse::<u32>().is_ok())
        );
    }
}
