//! The memory store beyond what `edit` and the conformance suite check: time, limits, scans.

use std::collections::BTreeSet;

use super::*;
use crate::entry::{Condition, Expiry, Value};

fn store(max_memory: Option<u64>, eviction: Eviction) -> MemoryStore {
    MemoryStore::new(MemoryOptions {
        name: "m".into(),
        max_memory,
        eviction,
    })
}

fn set_until(at: u64) -> Operation<'static> {
    Operation::Set {
        data: b"value",
        flags: 0,
        condition: Condition::Always,
        expiry: Expiry::At(at),
        want_old: false,
    }
}

fn data(store: &MemoryStore, key: &[u8], now_ms: u64) -> Option<Bytes> {
    match store
        .apply_at(key, &[Operation::Get], now_ms)
        .unwrap()
        .pop()
    {
        Some(Outcome::Value(value)) => value.map(|Value { data, .. }| data),
        other => panic!("{other:?}"),
    }
}

#[test]
fn entries_end_by_the_time_they_are_given() {
    let store = store(None, Eviction::NoEviction);
    store.apply_at(b"k", &[set_until(100)], 1).unwrap();
    assert!(data(&store, b"k", 99).is_some());
    assert_eq!(data(&store, b"k", 100), None);
    assert_eq!(store.stats().entries, 0);
    assert_eq!(store.stats().bytes, 0);
    assert_eq!(store.stats().expired, 1);
}

#[test]
fn expired_entries_are_removed_without_being_touched() {
    let store = store(None, Eviction::NoEviction);
    for number in 0..1000 {
        store
            .apply_at(format!("k{number}").as_bytes(), &[set_until(100)], 1)
            .unwrap();
    }
    store.sweep(100);
    assert_eq!(store.stats().entries, 0);
    assert_eq!(store.memory.used.load(Ordering::Relaxed), 0);
}

#[test]
fn a_full_store_refuses_writes_and_then_makes_room_by_expiry() {
    let store = store(Some(100_000), Eviction::NoEviction);
    let value = vec![b'x'; 40_000];
    store.apply_at(b"a", &[set_until(100)], 1).unwrap();
    store.apply_at(b"b", &[Operation::set(&value)], 1).unwrap();
    store.apply_at(b"c", &[Operation::set(&value)], 1).unwrap();
    let error = store
        .apply_at(b"d", &[Operation::set(&value)], 1)
        .unwrap_err();
    assert!(matches!(error, KvError::OutOfMemory { .. }), "{error}");
    assert_eq!(data(&store, b"d", 1), None);
    assert!(data(&store, b"b", 1).is_some());
    store.apply_at(b"b", &[Operation::delete()], 1).unwrap();
    store.apply_at(b"d", &[Operation::set(&value)], 1).unwrap();
}

#[test]
fn a_write_of_many_keys_that_does_not_fit_changes_nothing() {
    let store = store(Some(100_000), Eviction::NoEviction);
    let value = vec![b'x'; 60_000];
    store.apply_at(b"a", &[Operation::set(b"old")], 1).unwrap();
    let before = store.stats();
    let requests = [&b"a"[..], b"b"].map(|key| KeyedOperation {
        key,
        operation: Operation::set(&value),
    });
    assert!(store.apply_each_at(&requests, 1).is_err());
    assert_eq!(data(&store, b"a", 1).as_deref(), Some(&b"old"[..]));
    assert_eq!(data(&store, b"b", 1), None);
    assert_eq!(store.stats(), before);
}

#[test]
fn eviction_keeps_memory_within_its_limit() {
    let limit = 1024 * 1024;
    let store = store(Some(limit), Eviction::S3Fifo);
    let value = vec![b'x'; 1000];
    for number in 0..5000 {
        let key = format!("k{number}");
        store
            .apply_at(key.as_bytes(), &[Operation::set(&value)], 1)
            .unwrap();
        assert!(store.stats().bytes <= limit);
        assert!(
            data(&store, key.as_bytes(), 1).is_some(),
            "{key} was just written"
        );
    }
    let stats = store.stats();
    assert!(stats.evicted > 3000, "{stats:?}");
    assert!(stats.bytes > limit / 2, "{stats:?}");
    assert_eq!(stats.bytes, store.memory.used.load(Ordering::Relaxed));
    assert_eq!(stats.entries + stats.evicted, 5000);
    let large = vec![b'x'; 600_000];
    let error = store
        .apply_at(b"k", &[Operation::set(&large)], 1)
        .unwrap_err();
    assert!(matches!(error, KvError::ValueTooLarge { .. }), "{error}");
}

#[test]
fn memory_that_is_given_back_is_counted_back() {
    for eviction in [Eviction::NoEviction, Eviction::S3Fifo] {
        let store = store(Some(1 << 24), eviction);
        for number in 0..1000_u32 {
            let key = (number % 200).to_be_bytes();
            let big = vec![b'x'; number as usize];
            let operation = match number % 5 {
                0 => set_until(1_000_000),
                1 => Operation::delete(),
                2 => Operation::Append {
                    data: &big,
                    condition: Condition::Always,
                },
                3 => Operation::Persist,
                _ => Operation::set(&big),
            };
            store.apply_at(&key, &[operation], 1).unwrap();
        }
        for number in 0..200_u32 {
            store
                .apply_at(&number.to_be_bytes(), &[Operation::delete()], 1)
                .unwrap();
        }
        let stats = store.stats();
        assert_eq!((stats.entries, stats.bytes), (0, 0));
        assert_eq!(store.memory.used.load(Ordering::Relaxed), 0);
    }
}

fn scan_all(store: &MemoryStore, count: usize, mut between: impl FnMut(usize)) -> Vec<Bytes> {
    let mut keys = Vec::new();
    let mut cursor = 0;
    for page_number in 0.. {
        let request = ScanRequest {
            cursor,
            count,
            ..ScanRequest::default()
        };
        let page = store.scan_at(request, 1);
        keys.extend(page.keys);
        between(page_number);
        cursor = page.cursor;
        assert!(cursor < 1 << 44);
        if cursor == 0 {
            break;
        }
    }
    keys
}

#[test]
fn a_scan_returns_every_key_once() {
    let store = store(None, Eviction::NoEviction);
    let written: BTreeSet<Bytes> = (0..5000).map(|n| Bytes::from(format!("k{n}"))).collect();
    for key in &written {
        store.apply_at(key, &[Operation::set(b"")], 1).unwrap();
    }
    for count in [0, 1, 7, 1000, 100_000] {
        let found = scan_all(&store, count, |_| ());
        assert_eq!(found.len(), written.len());
        assert_eq!(
            found.into_iter().collect::<BTreeSet<_>>(),
            written,
            "count {count}"
        );
    }
}

#[test]
fn a_scan_finds_what_stays_whatever_comes_and_goes() {
    let store = store(None, Eviction::NoEviction);
    let staying: BTreeSet<Bytes> = (0..500).map(|n| Bytes::from(format!("stay{n}"))).collect();
    for key in &staying {
        store.apply_at(key, &[Operation::set(b"")], 1).unwrap();
    }
    let found = scan_all(&store, 10, |page| {
        for number in 0..50 {
            let key = format!("go{page}-{number}");
            store
                .apply_at(key.as_bytes(), &[Operation::set(b"")], 1)
                .unwrap();
            if let Some(before) = page.checked_sub(2) {
                let key = format!("go{before}-{number}");
                store
                    .apply_at(key.as_bytes(), &[Operation::delete()], 1)
                    .unwrap();
            }
        }
    });
    let found: BTreeSet<Bytes> = found.into_iter().collect();
    assert!(staying.is_subset(&found));
}

#[test]
fn a_random_key_is_found_if_there_is_one() {
    let store = store(None, Eviction::NoEviction);
    assert_eq!(store.random_key_at(u64::MAX, 1), None);
    store.apply_at(b"only", &[Operation::set(b"")], 1).unwrap();
    for seed in [0, 1 << 20, u64::MAX / 2, u64::MAX] {
        assert_eq!(store.random_key_at(seed, 1).as_deref(), Some(&b"only"[..]));
    }
}

#[test]
fn cas_tokens_change_on_every_write_even_over_a_deletion() {
    let store = store(None, Eviction::NoEviction);
    let mut seen = BTreeSet::new();
    for number in 0..10 {
        let operations = [Operation::set(b"x"), Operation::Get];
        let outcomes = store.apply_at(b"k", &operations, 1).unwrap();
        let [Outcome::Stored { cas, .. }, Outcome::Value(Some(value))] = &outcomes[..] else {
            panic!("{outcomes:?}");
        };
        assert_eq!(*cas, value.cas);
        assert!(seen.insert(*cas), "token {cas} came twice");
        if number % 2 == 0 {
            store.apply_at(b"k", &[Operation::delete()], 1).unwrap();
        }
    }
}

#[test]
fn threads_do_not_lose_each_others_writes() {
    let store = store(None, Eviction::NoEviction);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for number in 0..2000_u32 {
                    let key = (number % 7).to_be_bytes();
                    let operations = [Operation::Increment { delta: 1 }];
                    store.apply_at(&key, &operations, 1).unwrap();
                    let pair = [key, 9_u32.to_be_bytes()];
                    let requests = [0, 1].map(|place| KeyedOperation {
                        key: &pair[place],
                        operation: Operation::Increment { delta: 1 },
                    });
                    store.apply_each_at(&requests, 1).unwrap();
                }
            });
        }
    });
    let sum: i64 = (0..7_u32)
        .map(|number| {
            let text = data(&store, &number.to_be_bytes(), 1).unwrap();
            crate::edit::parse_integer(&text).unwrap()
        })
        .sum();
    assert_eq!(sum, 16_000);
    let shared = data(&store, &9_u32.to_be_bytes(), 1);
    assert_eq!(shared.as_deref(), Some(&b"8000"[..]));
}
