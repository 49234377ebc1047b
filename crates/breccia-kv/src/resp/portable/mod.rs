//! The portable set: the Redis commands that every kind of store can answer, as a pure translation
//! to [`KvStore`] operations and back to the bytes Redis would send.
//!
//! ```text
//! arguments ─ plan ─▶ operations on keys ─ KvStore ─▶ outcomes ─ reply ─▶ bytes
//! ```
//!
//! Not a session (PING, AUTH, MULTI and their kin are the frontend's) and not the forwarding path.
//! Invariant: for each command offered here the reply equals Redis 7.0's, errors included; any other
//! command is refused with a message that names the member in the way.

mod arguments;
mod expiry;
mod keyspace;
mod plan;
mod reply;
mod transaction;
mod wire_error;

pub use transaction::{check_queued, execute_transaction};

use self::plan::{Planned, plan};
use super::commands::{self, CommandSpec};
use super::encode::{self, RespVersion};
use crate::entry::Operation;
use crate::store::{KvStore, Need};

/// Performs one command and writes its reply.
pub async fn execute(
    store: &dyn KvStore,
    arguments: &[Vec<u8>],
    version: RespVersion,
    out: &mut Vec<u8>,
) {
    let planned = match look_up(store, arguments).and_then(|spec| plan(spec, arguments)) {
        Ok(planned) => planned,
        Err(error) => return encode::error_bytes(out, &error),
    };
    let answer = match &planned {
        Planned::Answer(reply) => {
            out.extend_from_slice(reply);
            return;
        }
        Planned::Keyspace(command) => {
            return keyspace::execute(store, command, version, out).await;
        }
        Planned::One {
            key, operations, ..
        } => store.apply(key, operations).await,
        Planned::Each { requests, .. } => store.apply_each(requests).await,
    };
    match (answer, planned) {
        (Ok(outcomes), Planned::One { reply, .. } | Planned::Each { reply, .. }) => {
            reply.write(&outcomes, version, out);
        }
        (Ok(_), _) => {}
        (Err(error), _) => wire_error::write(&error, out),
    }
}

/// Whether the frontend may offer a command that opens or ends transactions. WATCH is not among
/// them: not every member can watch a key.
#[must_use]
pub fn offers_transaction(name: &str) -> bool {
    ["multi", "exec", "discard", "unwatch"]
        .iter()
        .any(|one| one.eq_ignore_ascii_case(name))
}

/// Finds what Redis knows of a command, or the error to answer: unknown, wrong number of arguments,
/// not in the portable set.
fn look_up(store: &dyn KvStore, arguments: &[Vec<u8>]) -> Result<&'static CommandSpec, Vec<u8>> {
    let name = arguments.first().map(Vec::as_slice).unwrap_or_default();
    let spec = commands::find(name).ok_or_else(|| wire_error::unknown_command(arguments))?;
    if !plan::is_portable(spec.name) {
        return Err(refuse(store, spec.name, Need::Redis));
    }
    if !spec.accepts(arguments.len()) {
        return Err(wire_error::wrong_arity(spec.name));
    }
    if plan::lists_keys(spec.name) && !store.capabilities().can(Need::Scan) {
        return Err(refuse(store, spec.name, Need::Scan));
    }
    Ok(spec)
}

/// The refusal that names the first member in the way.
fn refuse(store: &dyn KvStore, name: &str, need: Need) -> Vec<u8> {
    let name = name.to_ascii_uppercase();
    let wanted = match need {
        Need::Scan => "Redis or memory shards",
        _ => "Redis shards",
    };
    match store.capabilities().lacking(need) {
        Some(leaf) => {
            format!(
                "ERR breccia: '{name}' needs {wanted}; '{}' is {}",
                leaf.name, leaf.kind
            )
        }
        None => format!("ERR breccia: '{name}' is not offered over this kind of store"),
    }
    .into_bytes()
}

/// A plan's operations, whatever its kind.
impl<'a> Planned<'a> {
    fn each(&self) -> Vec<(&'a [u8], Operation<'a>)> {
        match self {
            Planned::One {
                key, operations, ..
            } => operations
                .iter()
                .map(|operation| (*key, *operation))
                .collect(),
            Planned::Each { requests, .. } => requests
                .iter()
                .map(|request| (request.key, request.operation))
                .collect(),
            Planned::Answer(_) | Planned::Keyspace(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
