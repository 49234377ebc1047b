//! What the layout commands do to a state folder.
//!
//! Invariant: after a mend, the config that was refused is accepted, and no key has moved.

use breccia_core::slots::Epoch;

use super::{HashKind, LayoutSpec, addresses, check_parts, none, spec, temporary, three};
use crate::layout_store::{LayoutStore, open_layout};

#[test]
fn renamed_composite_opens_under_its_new_name_with_its_addresses() {
    let folder = temporary();
    let store = LayoutStore::open(folder.path()).expect("a store");
    let known = addresses(&[("redis-a", "h:1"), ("redis-b", "h:2"), ("redis-c", "h:3")]);
    let before = open_layout(&store, &three(), None, &known).expect("a layout");
    let renamed = store.rename("cache", "sessions").expect("renamed");
    assert_ne!(renamed.digest(), before.digest());
    let wanted = LayoutSpec {
        composite: "sessions".to_owned(),
        ..three()
    };
    let after = open_layout(&store, &wanted, None, &known).expect("accepted");
    assert_eq!(*after, renamed);
    assert_eq!(after.place(b"key"), before.place(b"key"));
    assert_eq!(store.last_addresses("sessions").expect("addresses"), known);
    let names: Vec<String> = super::contents(folder.path()).into_keys().collect();
    let expected = [
        "breccia.lock",
        "sessions.addresses.json",
        "sessions.layout.toml",
    ];
    assert_eq!(names, expected);
}

#[test]
fn renaming_a_composite_can_be_repeated_after_a_crash_in_between() {
    let store = LayoutStore::ephemeral();
    let before = open_layout(&store, &three(), None, &none()).expect("a layout");
    store.rename("cache", "sessions").expect("renamed");
    store
        .save(&before)
        .expect("as if the old file were still there");
    let renamed = store.rename("cache", "sessions").expect("renamed again");
    assert_eq!(store.all().expect("layouts"), [renamed]);
}

#[test]
fn composites_are_not_renamed_onto_each_other() {
    let store = LayoutStore::ephemeral();
    open_layout(&store, &three(), None, &none()).expect("a layout");
    open_layout(&store, &spec("other", &["x"]), None, &none()).expect("a layout");
    let check = |old: &str, new: &str, parts: &[&str]| {
        check_parts(&store.rename(old, new).expect_err(new).to_string(), parts);
    };
    check(
        "cache",
        "other",
        &["'other' already has a layout", "another name"],
    );
    check(
        "nothing",
        "new",
        &["no layout of 'nothing'", "there are: cache, other"],
    );
    check("cache", "../x", &["'../x' cannot name a store"]);
    assert_eq!(store.all().expect("layouts").len(), 2);
}

#[test]
fn renamed_shard_keeps_its_keys_and_its_address() {
    let store = LayoutStore::ephemeral();
    let known = addresses(&[("redis-a", "h:1"), ("redis-b", "h:2"), ("redis-c", "h:3")]);
    let before = open_layout(&store, &three(), None, &known).expect("a layout");
    store
        .rename_shard("cache", "redis-b", "redis-x")
        .expect("renamed");
    let wanted = spec("cache", &["redis-a", "redis-x", "redis-c"]);
    let known = addresses(&[("redis-a", "h:1"), ("redis-x", "h:2"), ("redis-c", "h:3")]);
    let after = open_layout(&store, &wanted, None, &known).expect("accepted");
    assert_eq!(after.place(b"key"), before.place(b"key"));
    assert_eq!(store.last_addresses("cache").expect("addresses"), known);
    let swapped = addresses(&[("redis-a", "h:2"), ("redis-x", "h:1"), ("redis-c", "h:3")]);
    open_layout(&store, &wanted, None, &swapped).expect_err("still known");
}

#[test]
fn shards_that_cannot_be_renamed_are_reported() {
    let store = LayoutStore::ephemeral();
    open_layout(&store, &three(), None, &none()).expect("a layout");
    let check = |old: &str, new: &str, parts: &[&str]| {
        check_parts(
            &store
                .rename_shard("cache", old, new)
                .expect_err(new)
                .to_string(),
            parts,
        );
    };
    check(
        "redis-x",
        "redis-y",
        &["no shard 'redis-x'", "redis-a, redis-b, redis-c"],
    );
    check("redis-a", "redis-b", &["already has a shard 'redis-b'"]);
    check("redis-a", "", &["cannot name a store"]);
    let error = store
        .accept_address("cache", "redis-x", "h:1")
        .expect_err("unknown")
        .to_string();
    check_parts(&error, &["no shard 'redis-x'", "redis-a, redis-b, redis-c"]);
}

#[test]
fn import_refuses_what_is_damaged_or_another_layout() {
    let store = LayoutStore::ephemeral();
    let made = open_layout(&store, &three(), None, &none()).expect("a layout");
    let document = store.export("cache").expect("a document");
    assert_eq!(store.import(&document, false).expect("the same"), *made);
    let damaged = document.replace("redis-a", "redis-z");
    let error = store
        .import(&damaged, true)
        .expect_err("damaged")
        .to_string();
    check_parts(&error, &["cannot be imported", "states digest"]);
    let other = LayoutStore::ephemeral();
    let reversed = spec("cache", &["redis-c", "redis-b", "redis-a"]);
    let theirs = open_layout(&other, &reversed, None, &none()).expect("a layout");
    let document = other.export("cache").expect("a document");
    let error = store
        .import(&document, false)
        .expect_err("another")
        .to_string();
    check_parts(
        &error,
        &["'cache'", &made.digest(), &theirs.digest(), "--replace"],
    );
    assert_eq!(store.import(&document, true).expect("replaced"), *theirs);
    assert_eq!(
        store.load("cache").expect("readable"),
        Some((*theirs).clone())
    );
}

#[test]
fn adopted_layout_is_what_the_config_asks_for() {
    let store = LayoutStore::ephemeral();
    open_layout(&store, &three(), None, &none()).expect("a layout");
    let wanted = LayoutSpec {
        hash: HashKind::Crc16Xmodem,
        ..spec("cache", &["redis-a", "x"])
    };
    open_layout(&store, &wanted, None, &none()).expect_err("differs");
    let adopted = store.adopt(&wanted).expect("adopted");
    assert_eq!(adopted.epoch(), Epoch::new(2));
    assert_eq!(
        *open_layout(&store, &wanted, None, &none()).expect("accepted"),
        adopted
    );
    let fresh = store.adopt(&spec("fresh", &["f"])).expect("adopted");
    assert_eq!(fresh.epoch(), Epoch::FIRST);
}
