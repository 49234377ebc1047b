//! From an operation to the Redis command that does it exactly. Pure. Invariant: an operation that
//! no single command does gives `None`, never a command that nearly does it.

use std::borrow::Cow;

use super::super::encode;
use crate::entry::{Condition, Expiry, ExpiryCondition, Operation};

/// A command's words.
#[derive(Clone, Debug)]
pub(super) struct Command<'a> {
    words: Vec<Cow<'a, [u8]>>,
}

impl<'a> Command<'a> {
    pub(super) fn words(words: &[&'a [u8]]) -> Self {
        Self {
            words: words.iter().map(|word| Cow::Borrowed(*word)).collect(),
        }
    }

    pub(super) fn many(name: &'a [u8], keys: impl Iterator<Item = &'a [u8]>) -> Self {
        Self {
            words: std::iter::once(name)
                .chain(keys)
                .map(Cow::Borrowed)
                .collect(),
        }
    }

    pub(super) fn push(&mut self, word: Vec<u8>) {
        self.words.push(Cow::Owned(word));
    }

    fn number(mut self, number: impl Into<i128>) -> Self {
        self.push(number.into().to_string().into_bytes());
        self
    }

    fn word(mut self, word: &'a [u8]) -> Self {
        self.words.push(Cow::Borrowed(word));
        self
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        encode::array(out, self.words.len());
        for word in &self.words {
            encode::bulk(out, word);
        }
    }
}

/// The command that does an operation.
pub(super) fn command<'a>(key: &'a [u8], operation: &Operation<'a>) -> Option<Command<'a>> {
    let on = |name: &'a [u8]| Command::words(&[name, key]);
    let command = match *operation {
        Operation::Get => on(b"GET"),
        Operation::GetAndExpire { expiry } => {
            let getex = on(b"GETEX");
            match expiry {
                Expiry::Keep => on(b"GET"),
                Expiry::Never => getex.word(b"PERSIST"),
                expiry => at(getex, expiry),
            }
        }
        Operation::GetRange { start, end } => on(b"GETRANGE").number(start).number(end),
        Operation::Length => on(b"STRLEN"),
        Operation::Exists => on(b"EXISTS"),
        Operation::Touch => on(b"TOUCH"),
        Operation::Type => on(b"TYPE"),
        Operation::TimeToLive { .. } => on(b"PTTL"),
        Operation::ExpiresAt { .. } => on(b"PEXPIRETIME"),
        Operation::Set {
            data,
            flags: 0,
            condition,
            expiry,
            want_old,
        } => set(on(b"SET").word(data), condition, expiry, want_old)?,
        Operation::Delete {
            condition: Condition::Always | Condition::IfPresent,
            want_old,
        } => on(if want_old { b"GETDEL" } else { b"DEL" }),
        Operation::Append {
            data,
            condition: Condition::Always,
        } => on(b"APPEND").word(data),
        Operation::SetRange { offset, data } => on(b"SETRANGE").number(offset).word(data),
        Operation::Increment { delta } => on(b"INCRBY").number(delta),
        Operation::IncrementFloat { delta } => on(b"INCRBYFLOAT").word(delta),
        Operation::Expire { expiry, condition } => {
            let command = match expiry {
                Expiry::At(at) => on(b"PEXPIREAT").number(at),
                Expiry::After(ms) => on(b"PEXPIRE").number(ms),
                Expiry::Keep | Expiry::Never => return None,
            };
            match condition {
                ExpiryCondition::Always => command,
                ExpiryCondition::IfNone => command.word(b"NX"),
                ExpiryCondition::IfSome => command.word(b"XX"),
                ExpiryCondition::IfLater => command.word(b"GT"),
                ExpiryCondition::IfSooner => command.word(b"LT"),
                ExpiryCondition::IfSomeAndSooner => command.word(b"XX").word(b"LT"),
            }
        }
        Operation::Persist => on(b"PERSIST"),
        _ => return None,
    };
    Some(command)
}

fn set<'a>(
    command: Command<'a>,
    condition: Condition<'a>,
    expiry: Expiry,
    want_old: bool,
) -> Option<Command<'a>> {
    let command = match condition {
        Condition::Always => command,
        Condition::IfAbsent => command.word(b"NX"),
        Condition::IfPresent => command.word(b"XX"),
        Condition::IfCas(_) | Condition::IfEquals(_) => return None,
    };
    let command = if want_old {
        command.word(b"GET")
    } else {
        command
    };
    Some(match expiry {
        Expiry::Never => command,
        Expiry::Keep => command.word(b"KEEPTTL"),
        expiry => at(command, expiry),
    })
}

/// The time options that SET and GETEX share.
fn at(command: Command<'_>, expiry: Expiry) -> Command<'_> {
    match expiry {
        // Redis takes no zero; any time that has passed is the same.
        Expiry::At(0) | Expiry::After(0) => command.word(b"PXAT").number(1),
        Expiry::At(at) => command.word(b"PXAT").number(at),
        Expiry::After(ms) => command.word(b"PX").number(ms),
        Expiry::Keep | Expiry::Never => command,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(operation: Operation<'_>, expected: Option<&str>) {
        let found = command(b"k", &operation).map(|command| {
            let words = command
                .words
                .iter()
                .map(|word| word.escape_ascii().to_string());
            words.collect::<Vec<_>>().join(" ")
        });
        assert_eq!(found.as_deref(), expected, "{operation:?}");
    }

    #[test]
    fn writes_become_the_commands_that_do_them() {
        let check = |condition, expiry, want_old, expected: Option<&str>| {
            let set = Operation::Set {
                data: b"v",
                flags: 0,
                condition,
                expiry,
                want_old,
            };
            check(set, expected);
        };
        let after = Expiry::After(9);
        check(Condition::Always, Expiry::Never, false, Some("SET k v"));
        check(
            Condition::IfAbsent,
            after,
            true,
            Some("SET k v NX GET PX 9"),
        );
        check(
            Condition::IfPresent,
            Expiry::Keep,
            false,
            Some("SET k v XX KEEPTTL"),
        );
        check(
            Condition::Always,
            Expiry::At(0),
            false,
            Some("SET k v PXAT 1"),
        );
        check(Condition::IfCas(1), Expiry::Never, false, None);
        check(Condition::IfEquals(b"x"), Expiry::Never, false, None);
    }

    #[test]
    fn other_operations_become_the_commands_that_do_them() {
        let getex = |expiry| Operation::GetAndExpire { expiry };
        check(getex(Expiry::Never), Some("GETEX k PERSIST"));
        check(getex(Expiry::After(5)), Some("GETEX k PX 5"));
        check(Operation::delete(), Some("DEL k"));
        check(Operation::Increment { delta: -1 }, Some("INCRBY k -1"));
        let expire = Operation::Expire {
            expiry: Expiry::At(7),
            condition: ExpiryCondition::IfSomeAndSooner,
        };
        check(expire, Some("PEXPIREAT k 7 XX LT"));
        let (data, condition) = (&b"v"[..], Condition::Always);
        check(Operation::Prepend { data, condition }, None);
        let condition = Condition::IfPresent;
        check(Operation::Append { data, condition }, None);
        let count = Operation::Count {
            delta: 1,
            down: false,
            create: None,
        };
        check(count, None);
    }
}
