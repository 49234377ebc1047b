//! MULTI and EXEC over one key: the operations of all queued commands go to the store as one.
//!
//! Not the session: who queues and when is the frontend's. Invariant: either all queued commands
//! are performed, in order and with nothing between them, or none is.

use super::arguments::Refused;
use super::plan::{Planned, plan};
use super::reply::Reply;
use super::{look_up, refuse, wire_error};
use crate::entry::Operation;
use crate::resp::commands;
use crate::resp::encode::{self, RespVersion};
use crate::store::{KvStore, Need};

const ONE_KEY: &str =
    "CROSSSLOT breccia: a transaction over these shards holds the commands of one key only";

/// Whether a command may be queued behind those `queued_before`; if not, `refusal` gets the error
/// reply and EXEC must refuse.
pub fn check_queued(
    store: &dyn KvStore,
    queued_before: &[Vec<Vec<u8>>],
    arguments: &[Vec<u8>],
    refusal: &mut Vec<u8>,
) -> bool {
    let verdict = look_up(store, arguments).and_then(|spec| {
        if spec.name != "ping" && spec.name != "echo" && keys(arguments).is_empty() {
            return Err(refuse(store, spec.name, Need::Redis));
        }
        let first = queued_before
            .iter()
            .find_map(|one| keys(one).first().copied());
        let first = first.or_else(|| keys(arguments).first().copied());
        if keys(arguments).iter().all(|key| Some(*key) == first) {
            Ok(())
        } else {
            Err(ONE_KEY.into())
        }
    });
    if let Err(error) = &verdict {
        encode::error_bytes(refusal, error);
    }
    verdict.is_ok()
}

/// The keys of a command, found by where they stand: its other arguments may still be wrong.
fn keys(arguments: &[Vec<u8>]) -> Vec<&[u8]> {
    let mut places = Vec::new();
    let name = arguments.first().map(Vec::as_slice).unwrap_or_default();
    match commands::find(name).map(|spec| commands::keys(spec, arguments, &mut places)) {
        Some(Ok(())) => {}
        _ => return Vec::new(),
    }
    places
        .into_iter()
        .filter_map(|place| arguments.get(place))
        .map(Vec::as_slice)
        .collect()
}

/// One queued command: how its part of the outcomes is told, or its reply.
enum Step {
    Told { reply: Reply, operations: usize },
    Fixed(Vec<u8>),
}

/// Performs the queued commands, which [`check_queued`] let pass, and writes EXEC's reply.
pub async fn execute_transaction(
    store: &dyn KvStore,
    queued: &[Vec<Vec<u8>>],
    version: RespVersion,
    out: &mut Vec<u8>,
) {
    let mut key: Option<&[u8]> = None;
    let mut operations: Vec<Operation<'_>> = Vec::new();
    let mut steps = Vec::with_capacity(queued.len());
    for arguments in queued {
        let step = match look_up(store, arguments).and_then(|spec| plan(spec, arguments)) {
            Ok(planned) => {
                let each = planned.each();
                key = key.or(each.first().map(|(key, _)| *key));
                if each.iter().any(|(one, _)| Some(*one) != key) {
                    return encode::error(out, ONE_KEY);
                }
                operations.extend(each.iter().map(|(_, operation)| *operation));
                step(planned, each.len())
            }
            Err(error) => Step::Fixed(error_line(&error)),
        };
        steps.push(step);
    }
    let outcomes = match key {
        Some(key) if !operations.is_empty() => store.apply(key, &operations).await,
        _ => Ok(Vec::new()),
    };
    let outcomes = match outcomes {
        Ok(outcomes) => outcomes,
        Err(error) => return wire_error::write(&error, out),
    };
    let mut rest = &outcomes[..];
    encode::array(out, steps.len());
    for step in steps {
        match step {
            Step::Fixed(bytes) => out.extend_from_slice(&bytes),
            Step::Told { reply, operations } => {
                let (mine, others) = rest.split_at_checked(operations).unwrap_or((rest, &[]));
                reply.write(mine, version, out);
                rest = others;
            }
        }
    }
}

fn step(planned: Planned<'_>, operations: usize) -> Step {
    match planned {
        Planned::One { reply, .. } | Planned::Each { reply, .. } => {
            Step::Told { reply, operations }
        }
        Planned::Answer(bytes) => Step::Fixed(bytes),
        Planned::Keyspace(_) => Step::Fixed(error_line(
            b"ERR breccia: this command cannot be part of a transaction",
        )),
    }
}

fn error_line(error: &[u8]) -> Refused {
    let mut line = Vec::new();
    encode::error_bytes(&mut line, error);
    line
}
