//! What each operation does to an entry: one pure function, shared by every member that edits
//! values in this process (memory) or by read and compare-and-set (memcached).
//!
//! No store, no clock (`now_ms` is an argument). Invariant: an expired entry is never seen, and an
//! operation that is refused or whose condition fails changes nothing.

use std::borrow::Cow;

use bytes::Bytes;

use crate::entry::{
    Condition, Entry, Expiry, ExpiryCondition, Lifetime, NewCounter, Operation, Outcome, Refusal,
    Value,
};

mod float;
mod number;

pub use float::add as add_floats;
pub use number::{parse_counter, parse_integer};

/// The longest value, as Redis's `proto-max-bulk-len` has it by default.
pub const MAX_VALUE_BYTES: u64 = 512 * 1024 * 1024;

/// What an operation does to the entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    Keep,
    /// This is the entry now. Its `cas` is the new token.
    Put(Entry),
    /// There is no entry any more.
    Remove,
}

/// The time and the token an edit works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The time, in milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// The CAS token that what is written gets.
    pub new_cas: u64,
}

/// Whether an expiry has passed.
#[must_use]
pub fn expired(entry: &Entry, now_ms: u64) -> bool {
    entry.expires_at_ms.is_some_and(|at| at <= now_ms)
}

/// Performs several operations on one entry, in order. The change is that of all of them together.
#[must_use]
pub fn apply_all(
    edit: Edit,
    operations: &[Operation<'_>],
    old: Option<&Entry>,
) -> (Change, Vec<Outcome>) {
    if let [operation] = operations {
        let (change, outcome) = apply(edit, operation, old);
        return (change, vec![outcome]);
    }
    let mut outcomes = Vec::with_capacity(operations.len());
    let mut change = Change::Keep;
    for operation in operations {
        let present = match &change {
            Change::Keep => old,
            Change::Put(entry) => Some(entry),
            Change::Remove => None,
        };
        let (next, outcome) = apply(edit, operation, present);
        outcomes.push(outcome);
        if next != Change::Keep {
            change = next;
        }
    }
    if change == Change::Remove && old.is_none() {
        change = Change::Keep;
    }
    (change, outcomes)
}

/// Performs one operation on one entry.
#[must_use]
pub fn apply(edit: Edit, operation: &Operation<'_>, old: Option<&Entry>) -> (Change, Outcome) {
    let old = old.filter(|entry| !expired(entry, edit.now_ms));
    match read(edit, operation, old) {
        Some(outcome) => (Change::Keep, outcome),
        None => write(edit, operation, old),
    }
}

/// What a reading operation answers; `None` for those that may write.
fn read(edit: Edit, operation: &Operation<'_>, old: Option<&Entry>) -> Option<Outcome> {
    Some(match *operation {
        Operation::Get => Outcome::Value(old.map(value)),
        Operation::GetRange { start, end } => Outcome::Data(range(old, start, end)),
        Operation::Length => Outcome::Length(old.map_or(0, length)),
        Operation::Exists | Operation::Touch => Outcome::Flag(old.is_some()),
        Operation::Type => Outcome::Type(old.map(|_| Cow::Borrowed("string"))),
        Operation::TimeToLive { .. } => {
            Outcome::Lifetime(lifetime(old, |at| at.saturating_sub(edit.now_ms)))
        }
        Operation::ExpiresAt { .. } => Outcome::Lifetime(lifetime(old, |at| at)),
        _ => return None,
    })
}

fn write(edit: Edit, operation: &Operation<'_>, old: Option<&Entry>) -> (Change, Outcome) {
    match *operation {
        Operation::GetAndExpire { expiry } => {
            let change = old.map(|entry| edit.expire_at(entry, edit.expires_at(expiry, old)));
            let outcome = Outcome::Value(old.map(value));
            (change.unwrap_or(Change::Keep), outcome)
        }
        Operation::Set {
            data,
            flags,
            condition,
            expiry,
            want_old,
        } => {
            let found = old.is_some();
            let wanted = old.filter(|_| want_old).map(|entry| entry.data.clone());
            if !holds(condition, old) {
                return (Change::Keep, Outcome::NotStored { found, old: wanted });
            }
            let data = Bytes::copy_from_slice(data);
            let change = edit.put(data, flags, edit.expires_at(expiry, old));
            let cas = edit.new_cas;
            (change, Outcome::Stored { cas, old: wanted })
        }
        Operation::Delete {
            condition,
            want_old,
        } => match old {
            Some(entry) if holds(condition, old) => {
                let old = want_old.then(|| entry.data.clone());
                (Change::Remove, Outcome::Deleted { old })
            }
            _ => {
                let found = old.is_some();
                (Change::Keep, Outcome::NotDeleted { found })
            }
        },
        Operation::Append { data, condition } => edit.extend(old, condition, data, false),
        Operation::Prepend { data, condition } => edit.extend(old, condition, data, true),
        Operation::SetRange { offset, data } => edit.set_range(old, offset, data),
        Operation::Increment { delta } => edit.increment(old, delta),
        Operation::IncrementFloat { delta } => edit.increment_float(old, delta),
        Operation::Count {
            delta,
            down,
            create,
        } => edit.count(old, delta, down, create),
        Operation::Expire { expiry, condition } => edit.expire(old, expiry, condition),
        Operation::Persist => match old {
            Some(entry) if entry.expires_at_ms.is_some() => {
                (edit.expire_at(entry, None), Outcome::Flag(true))
            }
            _ => (Change::Keep, Outcome::Flag(false)),
        },
        // `read` answers these.
        Operation::Get
        | Operation::GetRange { .. }
        | Operation::Length
        | Operation::Exists
        | Operation::Touch
        | Operation::Type
        | Operation::TimeToLive { .. }
        | Operation::ExpiresAt { .. } => (Change::Keep, Outcome::Flag(old.is_some())),
    }
}

impl Edit {
    fn expires_at(self, expiry: Expiry, old: Option<&Entry>) -> Option<u64> {
        match expiry {
            Expiry::Keep => old.and_then(|entry| entry.expires_at_ms),
            Expiry::Never => None,
            Expiry::At(at) => Some(at),
            Expiry::After(ms) => Some(self.now_ms.saturating_add(ms)),
        }
    }

    /// The change that writes an entry; what would have expired already is removed instead.
    fn put(self, data: Bytes, flags: u32, expires_at_ms: Option<u64>) -> Change {
        let entry = Entry {
            data,
            flags,
            cas: self.new_cas,
            expires_at_ms,
        };
        if expired(&entry, self.now_ms) {
            Change::Remove
        } else {
            Change::Put(entry)
        }
    }

    /// Changes nothing but the expiry. The token stays: for memcached a touch is no write.
    fn expire_at(self, old: &Entry, expires_at_ms: Option<u64>) -> Change {
        let entry = Entry {
            expires_at_ms,
            ..old.clone()
        };
        if expired(&entry, self.now_ms) {
            Change::Remove
        } else {
            Change::Put(entry)
        }
    }

    /// Writes a new value in place of `old`, whose flags and expiry stay.
    fn replace(self, old: Option<&Entry>, data: impl Into<Bytes>) -> Change {
        let flags = old.map_or(0, |entry| entry.flags);
        self.put(
            data.into(),
            flags,
            old.and_then(|entry| entry.expires_at_ms),
        )
    }

    fn extend(
        self,
        old: Option<&Entry>,
        condition: Condition<'_>,
        data: &[u8],
        front: bool,
    ) -> (Change, Outcome) {
        if !holds(condition, old) {
            return (
                Change::Keep,
                Outcome::NotStored {
                    found: old.is_some(),
                    old: None,
                },
            );
        }
        let present = old.map_or(&[][..], |entry| entry.data.as_ref());
        let length = (present.len() as u64).saturating_add(data.len() as u64);
        if length > MAX_VALUE_BYTES {
            return (Change::Keep, Outcome::Refused(Refusal::TooLong));
        }
        let whole = if front {
            [data, present].concat()
        } else {
            [present, data].concat()
        };
        (self.replace(old, whole), Outcome::Length(length))
    }

    fn set_range(self, old: Option<&Entry>, offset: u64, data: &[u8]) -> (Change, Outcome) {
        let present = old.map_or(&[][..], |entry| entry.data.as_ref());
        if data.is_empty() {
            return (Change::Keep, Outcome::Length(present.len() as u64));
        }
        let end = offset.saturating_add(data.len() as u64);
        let (Ok(from), Ok(to), true) = (
            usize::try_from(offset),
            usize::try_from(end),
            end <= MAX_VALUE_BYTES,
        ) else {
            return (Change::Keep, Outcome::Refused(Refusal::TooLong));
        };
        let mut whole = Vec::with_capacity(present.len().max(to));
        whole.extend_from_slice(present);
        if whole.len() < to {
            whole.resize(to, 0);
        }
        if let Some(part) = whole.get_mut(from..to) {
            part.copy_from_slice(data);
        }
        let length = whole.len() as u64;
        (self.replace(old, whole), Outcome::Length(length))
    }

    fn increment(self, old: Option<&Entry>, delta: i64) -> (Change, Outcome) {
        let present = match old {
            None => 0,
            Some(entry) => match parse_integer(&entry.data) {
                Some(number) => number,
                None => return (Change::Keep, Outcome::Refused(Refusal::NotInteger)),
            },
        };
        match present.checked_add(delta) {
            Some(sum) => (self.replace(old, sum.to_string()), Outcome::Integer(sum)),
            None => (Change::Keep, Outcome::Refused(Refusal::Overflow)),
        }
    }

    fn increment_float(self, old: Option<&Entry>, delta: &[u8]) -> (Change, Outcome) {
        let present = old.map_or(&b"0"[..], |entry| entry.data.as_ref());
        match add_floats(present, delta) {
            Ok(text) => {
                let data = Bytes::from(text);
                (self.replace(old, data.clone()), Outcome::Data(data))
            }
            Err(refusal) => (Change::Keep, Outcome::Refused(refusal)),
        }
    }

    fn count(
        self,
        old: Option<&Entry>,
        delta: u64,
        down: bool,
        create: Option<NewCounter>,
    ) -> (Change, Outcome) {
        let Some(entry) = old else {
            return match create {
                None => (
                    Change::Keep,
                    Outcome::NotStored {
                        found: false,
                        old: None,
                    },
                ),
                Some(NewCounter { value, expiry }) => {
                    let expires_at_ms = self.expires_at(expiry, None);
                    let change = self.put(value.to_string().into(), 0, expires_at_ms);
                    (change, Outcome::Counter(value))
                }
            };
        };
        let Some(present) = parse_counter(&entry.data) else {
            return (Change::Keep, Outcome::Refused(Refusal::NotCounter));
        };
        let result = if down {
            present.saturating_sub(delta)
        } else {
            present.wrapping_add(delta)
        };
        // In place, as memcached: a shorter number is padded to the old length.
        let mut text = result.to_string().into_bytes();
        text.resize(text.len().max(entry.data.len()), b' ');
        (self.replace(old, text), Outcome::Counter(result))
    }

    fn expire(
        self,
        old: Option<&Entry>,
        expiry: Expiry,
        condition: ExpiryCondition,
    ) -> (Change, Outcome) {
        let Some(entry) = old else {
            return (Change::Keep, Outcome::Flag(false));
        };
        let next = self.expires_at(expiry, old);
        if !expiry_holds(condition, entry.expires_at_ms, next) {
            return (Change::Keep, Outcome::Flag(false));
        }
        (self.expire_at(entry, next), Outcome::Flag(true))
    }
}

fn value(entry: &Entry) -> Value {
    Value {
        data: entry.data.clone(),
        flags: entry.flags,
        cas: entry.cas,
    }
}

fn length(entry: &Entry) -> u64 {
    entry.data.len() as u64
}

fn lifetime(old: Option<&Entry>, ms: impl Fn(u64) -> u64) -> Lifetime {
    match old.map(|entry| entry.expires_at_ms) {
        None => Lifetime::Missing,
        Some(None) => Lifetime::Forever,
        Some(Some(at)) => Lifetime::Ms(ms(at)),
    }
}

fn holds(condition: Condition<'_>, old: Option<&Entry>) -> bool {
    match condition {
        Condition::Always => true,
        Condition::IfAbsent => old.is_none(),
        Condition::IfPresent => old.is_some(),
        Condition::IfCas(cas) => old.is_some_and(|entry| entry.cas == cas),
        Condition::IfEquals(data) => old.is_some_and(|entry| entry.data == data),
    }
}

fn expiry_holds(condition: ExpiryCondition, old: Option<u64>, new: Option<u64>) -> bool {
    let time = |at: Option<u64>| at.map_or(u128::MAX, u128::from);
    match condition {
        ExpiryCondition::Always => true,
        ExpiryCondition::IfNone => old.is_none(),
        ExpiryCondition::IfSome => old.is_some(),
        ExpiryCondition::IfLater => time(new) > time(old),
        ExpiryCondition::IfSooner => time(new) < time(old),
        ExpiryCondition::IfSomeAndSooner => old.is_some() && time(new) < time(old),
    }
}

/// The part of the value that GETRANGE means.
fn range(old: Option<&Entry>, start: i64, end: i64) -> Bytes {
    let Some(entry) = old else {
        return Bytes::new();
    };
    let length = i64::try_from(entry.data.len()).unwrap_or(i64::MAX);
    if start < 0 && end < 0 && start > end {
        return Bytes::new();
    }
    let place = |at: i64| {
        if at < 0 {
            at.saturating_add(length).max(0)
        } else {
            at
        }
    };
    let (start, end) = (place(start), place(end).min(length - 1));
    let (Ok(from), Ok(to)) = (usize::try_from(start), usize::try_from(end)) else {
        return Bytes::new();
    };
    if from > to {
        Bytes::new()
    } else {
        entry.data.slice(from..=to)
    }
}

#[cfg(test)]
mod tests;
