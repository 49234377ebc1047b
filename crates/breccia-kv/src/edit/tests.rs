//! What each operation does, as a table.

use super::*;

const EDIT: Edit = Edit {
    now_ms: 1_000_000,
    new_cas: 9,
};

fn entry(data: &str, expires_at_ms: Option<u64>) -> Entry {
    Entry {
        data: Bytes::copy_from_slice(data.as_bytes()),
        flags: 5,
        cas: 3,
        expires_at_ms,
    }
}

/// The value afterwards, if there is one, and the outcome.
fn run(old: Option<&Entry>, operation: Operation<'_>) -> (Option<Entry>, Outcome) {
    let (change, outcome) = apply(EDIT, &operation, old);
    let after = match change {
        Change::Keep => old.filter(|entry| !expired(entry, EDIT.now_ms)).cloned(),
        Change::Put(entry) => Some(entry),
        Change::Remove => None,
    };
    (after, outcome)
}

#[test]
fn an_expired_entry_is_not_there() {
    let old = entry("x", Some(EDIT.now_ms));
    let check = |operation, expected| assert_eq!(run(Some(&old), operation).1, expected);
    check(Operation::Get, Outcome::Value(None));
    check(Operation::Exists, Outcome::Flag(false));
    check(Operation::delete(), Outcome::NotDeleted { found: false });
    check(
        Operation::TimeToLive {
            unit: TimeUnit::Milliseconds,
        },
        Outcome::Lifetime(Lifetime::Missing),
    );
    let (after, outcome) = run(Some(&old), Operation::Increment { delta: 2 });
    assert_eq!(outcome, Outcome::Integer(2));
    assert_eq!(after.map(|e| (e.flags, e.expires_at_ms)), Some((0, None)));
}

use crate::entry::TimeUnit;

#[test]
fn conditions_decide_writes() {
    let present = entry("x", None);
    let check = |old: Option<&Entry>, condition, written: bool| {
        let set = Operation::Set {
            data: b"new",
            flags: 1,
            condition,
            expiry: Expiry::Never,
            want_old: true,
        };
        let (after, outcome) = run(old, set);
        let old_data = old.map(|entry| entry.data.clone());
        if written {
            assert_eq!(
                outcome,
                Outcome::Stored {
                    cas: 9,
                    old: old_data
                }
            );
            assert_eq!(after.map(|e| e.data), Some(Bytes::from_static(b"new")));
        } else {
            assert_eq!(
                outcome,
                Outcome::NotStored {
                    found: old.is_some(),
                    old: old_data
                }
            );
            assert_eq!(after.as_ref(), old);
        }
    };
    check(None, Condition::Always, true);
    check(Some(&present), Condition::Always, true);
    check(None, Condition::IfAbsent, true);
    check(Some(&present), Condition::IfAbsent, false);
    check(None, Condition::IfPresent, false);
    check(Some(&present), Condition::IfPresent, true);
    check(None, Condition::IfCas(3), false);
    check(Some(&present), Condition::IfCas(3), true);
    check(Some(&present), Condition::IfCas(4), false);
    check(Some(&present), Condition::IfEquals(b"x"), true);
    check(Some(&present), Condition::IfEquals(b"y"), false);
    check(None, Condition::IfEquals(b""), false);
}

#[test]
fn edits_keep_flags_and_expiry() {
    let old = entry("10", Some(EDIT.now_ms + 1));
    let check = |operation, data: &str| {
        let after = run(Some(&old), operation).0;
        let expected = Entry {
            cas: 9,
            ..entry(data, old.expires_at_ms)
        };
        assert_eq!(after, Some(expected), "{operation:?}");
    };
    check(Operation::Increment { delta: -11 }, "-1");
    check(Operation::IncrementFloat { delta: b"0.5" }, "10.5");
    check(
        Operation::Append {
            data: b"0",
            condition: Condition::Always,
        },
        "100",
    );
    check(
        Operation::Prepend {
            data: b"-",
            condition: Condition::IfPresent,
        },
        "-10",
    );
    check(
        Operation::SetRange {
            offset: 3,
            data: b"x",
        },
        "10\0x",
    );
    check(
        Operation::SetRange {
            offset: 0,
            data: b"2",
        },
        "20",
    );
    check(
        Operation::Count {
            delta: 11,
            down: true,
            create: None,
        },
        "0 ",
    );
    check(
        Operation::Count {
            delta: u64::MAX,
            down: false,
            create: None,
        },
        "9 ",
    );
}

#[test]
fn a_write_that_has_expired_already_removes() {
    let old = entry("x", None);
    let set = |expiry| Operation::Set {
        data: b"y",
        flags: 0,
        condition: Condition::Always,
        expiry,
        want_old: false,
    };
    let expire = |expiry| Operation::Expire {
        expiry,
        condition: ExpiryCondition::Always,
    };
    for operation in [
        set(Expiry::At(1)),
        set(Expiry::After(0)),
        expire(Expiry::At(0)),
    ] {
        assert_eq!(apply(EDIT, &operation, Some(&old)).0, Change::Remove);
    }
    assert_eq!(
        run(Some(&old), expire(Expiry::At(0))).1,
        Outcome::Flag(true)
    );
}

#[test]
fn expiry_conditions_compare_with_never_as_latest() {
    use ExpiryCondition as If;
    let now = EDIT.now_ms;
    let check = |old: Option<u64>, condition, new: u64, changed: bool| {
        let operation = Operation::Expire {
            expiry: Expiry::At(now + new),
            condition,
        };
        let (_, outcome) = run(Some(&entry("x", old.map(|at| now + at))), operation);
        assert_eq!(
            outcome,
            Outcome::Flag(changed),
            "{old:?} {condition:?} {new}"
        );
    };
    check(None, If::IfNone, 5, true);
    check(Some(9), If::IfNone, 5, false);
    check(None, If::IfSome, 5, false);
    check(Some(9), If::IfSome, 5, true);
    check(None, If::IfLater, 5, false);
    check(Some(9), If::IfLater, 9, false);
    check(Some(9), If::IfLater, 10, true);
    check(None, If::IfSooner, 5, true);
    check(Some(9), If::IfSooner, 9, false);
    check(Some(9), If::IfSooner, 8, true);
    check(None, If::IfSomeAndSooner, 5, false);
    check(Some(9), If::IfSomeAndSooner, 8, true);
}

#[test]
fn ranges_are_cut_as_in_redis() {
    let old = entry("hello", None);
    let check = |start, end, expected: &str| {
        let outcome = run(Some(&old), Operation::GetRange { start, end }).1;
        assert_eq!(
            outcome,
            Outcome::Data(Bytes::copy_from_slice(expected.as_bytes()))
        );
    };
    check(0, -1, "hello");
    check(1, 3, "ell");
    check(-3, -2, "ll");
    check(0, -100, "h");
    check(-100, 1, "he");
    check(3, 1, "");
    check(-1, -3, "");
    check(5, 9, "");
    check(i64::MIN, i64::MAX, "hello");
    assert_eq!(
        run(None, Operation::GetRange { start: 0, end: -1 }).1,
        Outcome::Data(Bytes::new())
    );
}

#[test]
fn several_operations_see_each_other_and_refusals_change_nothing() {
    let operations = [
        Operation::set(b"5"),
        Operation::Increment { delta: 1 },
        Operation::Increment { delta: i64::MAX },
        Operation::Append {
            data: b"!",
            condition: Condition::Always,
        },
        Operation::Increment { delta: 1 },
        Operation::Length,
    ];
    let (change, outcomes) = apply_all(EDIT, &operations, None);
    assert_eq!(
        outcomes,
        [
            Outcome::Stored { cas: 9, old: None },
            Outcome::Integer(6),
            Outcome::Refused(Refusal::Overflow),
            Outcome::Length(2),
            Outcome::Refused(Refusal::NotInteger),
            Outcome::Length(2),
        ]
    );
    let Change::Put(entry) = change else {
        panic!("nothing was written")
    };
    assert_eq!(entry.data, "6!");
    let gone = [Operation::set(b"5"), Operation::delete()];
    assert_eq!(apply_all(EDIT, &gone, None).0, Change::Keep);
    assert_eq!(apply_all(EDIT, &gone, Some(&entry)).0, Change::Remove);
}
