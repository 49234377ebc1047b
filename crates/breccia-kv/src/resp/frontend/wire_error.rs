//! How failures look to a Redis client. One exhaustive match; texts say what happened, where, and
//! what became of the request.
//!
//! Invariant: every text says "not applied" or "outcome unknown", and never holds a secret.

use super::super::codec::request::Request;
use super::super::commands::CommandSpec;
pub(crate) use crate::front::failure::failure_text;

pub(crate) const NOAUTH: &str = "NOAUTH Authentication required.";
pub(crate) const WRONGPASS: &str = "WRONGPASS invalid username-password pair or user is disabled.";
pub(crate) const CROSSSLOT: &str = "CROSSSLOT Keys in request don't hash to the same shard";
pub(crate) const SYNTAX: &str = "ERR syntax error";
pub(crate) const EXECABORT: &str = "EXECABORT Transaction discarded because of previous errors.";

/// What Redis says of a command it does not know.
pub(crate) fn unknown_command<'a>(
    name: &[u8],
    arguments: impl Iterator<Item = &'a [u8]>,
) -> Vec<u8> {
    const SHOWN: usize = 128;
    let mut text = b"ERR unknown command '".to_vec();
    text.extend(c_text(name, SHOWN));
    text.extend_from_slice(b"', with args beginning with: ");
    let start = text.len();
    for argument in arguments {
        let used = text.len() - start;
        if used >= SHOWN {
            break;
        }
        text.push(b'\'');
        text.extend(c_text(argument, SHOWN - used));
        text.extend_from_slice(b"' ");
    }
    text
}

/// A command's name as Redis gives it in errors: `pubsub|numsub`.
pub(crate) fn full_name(spec: &CommandSpec, request: Request<'_>) -> String {
    match spec.subcommand(request.argument(1)) {
        Some(subcommand) => format!("{}|{}", spec.name, subcommand.name),
        None => spec.name.to_owned(),
    }
}

/// What Redis says of a request with too few or too many arguments.
pub(crate) fn wrong_arity(name: &str) -> String {
    format!("ERR wrong number of arguments for '{name}' command")
}

/// What Redis says of a request with an unknown subcommand or a wrong number of arguments; `None`
/// for a good one.
pub(crate) fn malformed(spec: &CommandSpec, request: Request<'_>) -> Option<Vec<u8>> {
    if !spec.accepts(request.len()) {
        return Some(wrong_arity(spec.name).into_bytes());
    }
    if spec.subcommands.is_empty() || request.len() < 2 {
        return None;
    }
    match spec.subcommand(request.argument(1)) {
        Some(subcommand) if !subcommand.accepts(request.len()) => {
            Some(wrong_arity(&format!("{}|{}", spec.name, subcommand.name)).into_bytes())
        }
        Some(_) => None,
        // Newer than the table, and sent by libraries when they connect.
        None if spec.name == "client" && is_newer_client_option(request.argument(1)) => None,
        None => Some(unknown_subcommand(spec.name, request.argument(1))),
    }
}

fn is_newer_client_option(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"setinfo") || name.eq_ignore_ascii_case(b"no-touch")
}

/// What Redis says of a subcommand that its own code finds too long.
pub(crate) fn wrong_subcommand(command: &str, given: &[u8]) -> String {
    let given = String::from_utf8_lossy(given);
    format!(
        "ERR unknown subcommand or wrong number of arguments for '{given}'. Try {command} HELP."
    )
}

fn unknown_subcommand(command: &str, given: &[u8]) -> Vec<u8> {
    let mut text = b"ERR unknown subcommand '".to_vec();
    text.extend(c_text(given, 128));
    text.extend_from_slice(b"'. Try ");
    text.extend_from_slice(command.to_ascii_uppercase().as_bytes());
    text.extend_from_slice(b" HELP.");
    text
}

/// What the server quotes of an argument: at most so many bytes, and none after a zero byte.
fn c_text(argument: &[u8], most: usize) -> impl Iterator<Item = u8> {
    argument
        .iter()
        .copied()
        .take(most)
        .take_while(|byte| *byte != 0)
}

/// What Breccia says of a command it does not offer.
pub(crate) fn not_offered(name: &str, why: &str) -> String {
    format!(
        "ERR breccia: '{}' is not offered: {why}",
        name.to_ascii_uppercase()
    )
}
