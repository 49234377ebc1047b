//! How a store's errors look to a Redis client: one exhaustive match. Invariant: a client can tell
//! by the text whether the request was carried out.

use breccia_core::error::ErrorKind;

use crate::entry::{Outcome, Refusal};
use crate::error::KvError;
use crate::resp::encode;

/// Writes a store's error.
pub(super) fn write(error: &KvError, out: &mut Vec<u8>) {
    encode::error(out, &text(error));
}

/// The line for a store's error, its code first.
fn text(error: &KvError) -> String {
    match error {
        KvError::OutOfMemory { .. } => {
            "OOM command not allowed when used memory > 'maxmemory'.".into()
        }
        // The server's own words begin with their own code.
        KvError::Server { text, .. } => text.clone(),
        KvError::WrongValue { refusal: why, .. } => refusal(*why).into(),
        KvError::Down { .. }
        | KvError::Lost { .. }
        | KvError::Deadline { .. }
        | KvError::Timeout { .. }
        | KvError::Overloaded { .. }
        | KvError::Contention { .. }
        | KvError::Unsupported { .. }
        | KvError::KeyTooLong { .. }
        | KvError::ValueTooLarge { .. }
        | KvError::Protocol { .. }
        | KvError::CursorTooLarge { .. }
        | KvError::Members { .. }
        | KvError::Layout { .. }
        | KvError::Partial { .. } => format!("{} {error}", code(error.kind())),
    }
}

/// The code an error line begins with. The same trouble has the same code on the forwarding path.
fn code(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Unreachable | ErrorKind::Closing => "SHARDDOWN",
        ErrorKind::Timeout => "TIMEOUT",
        ErrorKind::Overloaded => "SHARDBUSY",
        ErrorKind::Conflict => "TRYAGAIN",
        ErrorKind::CrossShard => "CROSSSLOT",
        ErrorKind::Refused
        | ErrorKind::Invalid
        | ErrorKind::Unauthorized
        | ErrorKind::Unsupported
        | ErrorKind::Protocol
        | ErrorKind::Server
        | ErrorKind::System => "ERR breccia:",
    }
}

/// Redis's words for an operation that does not fit the value found.
pub(super) fn refusal(why: Refusal) -> &'static str {
    match why {
        Refusal::NotInteger | Refusal::NotCounter => super::arguments::NOT_INTEGER,
        Refusal::Overflow => "ERR increment or decrement would overflow",
        Refusal::NotFloat => "ERR value is not a valid float",
        Refusal::NotFinite => "ERR increment would produce NaN or Infinity",
        Refusal::TooLong => "ERR string exceeds maximum allowed size (proto-max-bulk-len)",
        Refusal::WrongType => "WRONGTYPE Operation against a key holding the wrong kind of value",
    }
}

/// An outcome that does not belong to the command: a fault of the member.
pub(super) fn unexpected(outcome: &Outcome, out: &mut Vec<u8>) {
    match outcome {
        Outcome::Refused(why) => encode::error(out, refusal(*why)),
        other => encode::error(out, &format!("ERR breccia: unexpected outcome {other:?}")),
    }
}

pub(super) fn wrong_arity(name: &str) -> Vec<u8> {
    format!("ERR wrong number of arguments for '{name}' command").into_bytes()
}

/// How much of a name and of the arguments Redis repeats.
const SHOWN_BYTES: usize = 128;

pub(super) fn unknown_command(arguments: &[Vec<u8>]) -> Vec<u8> {
    let cut = |bytes: &[u8], limit: usize| -> Vec<u8> {
        bytes
            .iter()
            .take(limit)
            .take_while(|byte| **byte != 0)
            .copied()
            .collect()
    };
    let name = arguments.first().map(Vec::as_slice).unwrap_or_default();
    let mut shown = Vec::new();
    for argument in arguments.iter().skip(1) {
        let Some(room) = SHOWN_BYTES
            .checked_sub(shown.len())
            .filter(|room| *room > 0)
        else {
            break;
        };
        shown.push(b'\'');
        shown.extend(cut(argument, room));
        shown.extend_from_slice(b"' ");
    }
    [
        &b"ERR unknown command '"[..],
        &cut(name, SHOWN_BYTES),
        b"', with args beginning with: ",
        &shown,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use breccia_core::error::Effect;

    use super::*;

    #[test]
    fn codes_tell_what_kind_of_trouble_it_is() {
        let check = |error: KvError, expected: &str| assert_eq!(text(&error), expected);
        let store = || "redis-b".to_owned();
        check(
            KvError::Down {
                store: store(),
                reason: "connection refused, 3 s".into(),
                effect: Effect::NotApplied,
            }
            .within("cache"),
            "SHARDDOWN cache/redis-b is unreachable (connection refused, 3 s); keys of other \
             shards work; not applied",
        );
        check(
            KvError::Timeout {
                store: store(),
                effect: Effect::Unknown,
            },
            "TIMEOUT redis-b did not answer within the store's timeout; outcome unknown",
        );
        check(
            KvError::OutOfMemory { store: store() },
            "OOM command not allowed when used memory > 'maxmemory'.",
        );
        check(
            KvError::Unsupported {
                store: "mc-a".into(),
                kind: crate::store::StoreKind::Memcached,
                operation: "set",
                reason: "its expiry is in whole seconds".into(),
            },
            "ERR breccia: 'set' cannot be done exactly by 'mc-a' (memcached): its expiry is in \
             whole seconds",
        );
        check(
            KvError::Server {
                store: store(),
                text: "READONLY no".into(),
                effect: Effect::NotApplied,
            },
            "READONLY no",
        );
    }
}
