//! From Redis's reply to an operation's outcome. Invariant: an error that means the value does not
//! fit is an outcome, any other is the store's error.

use std::borrow::Cow;

use breccia_core::error::Effect;
use bytes::Bytes;

use super::super::codec::reply::{integer, text};
use super::RedisStore;
use crate::entry::{Condition, Lifetime, Operation, Outcome, Refusal, Value};
use crate::error::KvError;

impl RedisStore {
    /// What the reply to an operation's command says. `effect`: of the whole request, should it
    /// be an error.
    pub(super) fn outcome(
        &self,
        operation: &Operation<'_>,
        reply: &[u8],
        effect: Effect,
    ) -> Result<Outcome, KvError> {
        if reply.first() == Some(&b'-') {
            return match refusal(reply) {
                Some(refusal) => Ok(Outcome::Refused(refusal)),
                None => Err(self.server_error(reply, effect)),
            };
        }
        read(operation, reply).ok_or_else(|| {
            self.protocol(&format!(
                "no reply to '{}': {}",
                operation.name(),
                reply.escape_ascii()
            ))
        })
    }
}

/// Errors that say the value does not fit, by how they begin.
const REFUSALS: [(&[u8], Refusal); 8] = [
    (b"-WRONGTYPE", Refusal::WrongType),
    (b"-ERR value is not an integer", Refusal::NotInteger),
    (b"-ERR hash value is not an integer", Refusal::NotInteger),
    (
        b"-ERR increment or decrement would overflow",
        Refusal::Overflow,
    ),
    (b"-ERR decrement would overflow", Refusal::Overflow),
    (b"-ERR value is not a valid float", Refusal::NotFloat),
    (b"-ERR increment would produce NaN", Refusal::NotFinite),
    (
        b"-ERR string exceeds maximum allowed size",
        Refusal::TooLong,
    ),
];

fn refusal(reply: &[u8]) -> Option<Refusal> {
    REFUSALS
        .iter()
        .find(|(text, _)| reply.starts_with(text))
        .map(|(_, refusal)| *refusal)
}

fn is_null(reply: &[u8]) -> bool {
    matches!(reply, b"$-1\r\n" | b"_\r\n")
}

fn read(operation: &Operation<'_>, reply: &[u8]) -> Option<Outcome> {
    let data = || text(reply).map(Bytes::copy_from_slice);
    let unsigned = || integer(reply).and_then(|number| u64::try_from(number).ok());
    Some(match operation {
        Operation::Get | Operation::GetAndExpire { .. } if is_null(reply) => Outcome::Value(None),
        Operation::Get | Operation::GetAndExpire { .. } => Outcome::Value(Some(Value {
            data: data()?,
            flags: 0,
            cas: 0,
        })),
        Operation::GetRange { .. } | Operation::IncrementFloat { .. } => Outcome::Data(data()?),
        Operation::Length | Operation::Append { .. } | Operation::SetRange { .. } => {
            Outcome::Length(unsigned()?)
        }
        Operation::Exists | Operation::Touch | Operation::Persist | Operation::Expire { .. } => {
            Outcome::Flag(integer(reply)? != 0)
        }
        Operation::Type => {
            let name = String::from_utf8_lossy(text(reply)?).into_owned();
            Outcome::Type((name != "none").then_some(Cow::Owned(name)))
        }
        Operation::TimeToLive { .. } | Operation::ExpiresAt { .. } => {
            Outcome::Lifetime(match integer(reply)? {
                -2 => Lifetime::Missing,
                -1 => Lifetime::Forever,
                ms => Lifetime::Ms(u64::try_from(ms).ok()?),
            })
        }
        Operation::Set {
            condition,
            want_old,
            ..
        } => stored(*condition, *want_old, reply)?,
        Operation::Delete { want_old: true, .. } if is_null(reply) => {
            Outcome::NotDeleted { found: false }
        }
        Operation::Delete { want_old: true, .. } => Outcome::Deleted { old: Some(data()?) },
        Operation::Delete { .. } if integer(reply)? == 0 => Outcome::NotDeleted { found: false },
        Operation::Delete { .. } => Outcome::Deleted { old: None },
        Operation::Increment { .. } => Outcome::Integer(integer(reply)?),
        Operation::Prepend { .. } | Operation::Count { .. } => return None,
    })
}

fn stored(condition: Condition<'_>, want_old: bool, reply: &[u8]) -> Option<Outcome> {
    let null = is_null(reply);
    let old = if want_old && !null {
        Some(Bytes::copy_from_slice(text(reply)?))
    } else {
        None
    };
    let found = match (condition, want_old) {
        (Condition::IfAbsent, false) => null,
        (Condition::IfAbsent, true) | (Condition::IfPresent, _) => !null,
        _ => false,
    };
    let written = match condition {
        Condition::IfAbsent => !found,
        Condition::IfPresent => found,
        _ => true,
    };
    Some(if written {
        Outcome::Stored { cas: 0, old }
    } else {
        Outcome::NotStored { found, old }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Expiry;

    #[test]
    fn a_set_is_told_by_its_condition_and_reply() {
        let check = |condition, want_old, reply: &str, expected: Outcome| {
            let set = Operation::Set {
                data: b"",
                flags: 0,
                condition,
                expiry: Expiry::Never,
                want_old,
            };
            assert_eq!(
                read(&set, reply.as_bytes()),
                Some(expected),
                "{condition:?} {reply:?}"
            );
        };
        let old = || Some(Bytes::from_static(b"v"));
        let stored = |old| Outcome::Stored { cas: 0, old };
        let refused = |found, old| Outcome::NotStored { found, old };
        check(Condition::Always, false, "+OK\r\n", stored(None));
        check(Condition::Always, true, "$-1\r\n", stored(None));
        check(Condition::Always, true, "$1\r\nv\r\n", stored(old()));
        check(Condition::IfAbsent, false, "+OK\r\n", stored(None));
        check(Condition::IfAbsent, false, "$-1\r\n", refused(true, None));
        check(Condition::IfAbsent, true, "$-1\r\n", stored(None));
        check(
            Condition::IfAbsent,
            true,
            "$1\r\nv\r\n",
            refused(true, old()),
        );
        check(Condition::IfPresent, false, "+OK\r\n", stored(None));
        check(Condition::IfPresent, false, "$-1\r\n", refused(false, None));
        check(Condition::IfPresent, true, "$-1\r\n", refused(false, None));
        check(Condition::IfPresent, true, "$1\r\nv\r\n", stored(old()));
    }
}
