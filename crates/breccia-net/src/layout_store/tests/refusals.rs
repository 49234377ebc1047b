//! What refuses to start, as an administrator meets it.
//!
//! Invariant: after every refusal the state folder holds what it held before.

use breccia_core::layout::{LayoutSpec, Role};

use super::{HashKind, addresses, check_parts, contents, none, spec, temporary, three};
use crate::layout_store::{
    LayoutRequest, LayoutStore, LayoutStoreError, open_layout, open_layouts,
};

/// Makes the layout of `three`, then opens `wanted`, which must be refused in these words.
fn check_refused(wanted: &LayoutSpec, parts: &[&str]) {
    let folder = temporary();
    let store = LayoutStore::open(folder.path()).expect("a store");
    let known = addresses(&[("redis-a", "h:1"), ("redis-b", "h:2"), ("redis-c", "h:3")]);
    open_layout(&store, &three(), None, &known).expect("a layout");
    let before = contents(folder.path());
    let error = open_layout(&store, wanted, None, &known).expect_err("refused");
    check_parts(&error.to_string(), parts);
    assert_eq!(error.kind(), breccia_core::ErrorKind::Refused);
    assert_eq!(contents(folder.path()), before);
    open_layout(&store, &three(), None, &known).expect("good again once it is put back");
}

#[test]
fn changed_shards_are_refused() {
    check_refused(
        &spec("cache", &["redis-a", "redis-c"]),
        &["layout has shard 'redis-b'", "put it back into `stores`"],
    );
    check_refused(
        &spec("cache", &["redis-a", "redis-b", "redis-c", "redis-d"]),
        &["config lists shard 'redis-d'", "take it out of `stores`"],
    );
    check_refused(
        &spec("cache", &["redis-a", "redis-x", "redis-c"]),
        &["`breccia layout rename-shard --config FILE cache redis-b redis-x`"],
    );
}

#[test]
fn changed_rules_are_refused() {
    let hash = LayoutSpec {
        hash: HashKind::Crc32IsoHdlc,
        ..three()
    };
    check_refused(
        &hash,
        &[
            "hashes with xxh3-64",
            "says crc32-iso-hdlc",
            "breccia layout adopt",
        ],
    );
    let tagged = LayoutSpec {
        hash_tag: "{}".parse().ok(),
        ..three()
    };
    check_refused(
        &tagged,
        &["no hash-tag", "take `hash-tag` out", "breccia layout adopt"],
    );
}

#[test]
fn renamed_composite_is_refused() {
    check_refused(
        &spec("sessions", &["redis-a", "redis-b", "redis-c"]),
        &[
            "'sessions' has no layout",
            "'cache'",
            "redis-a, redis-b, redis-c",
            "`breccia layout rename --config FILE cache sessions`",
            "cache.layout.toml away",
        ],
    );
    check_refused(
        &spec("sessions", &["redis-c", "redis-d"]),
        &["holds its shards redis-c"],
    );
}

#[test]
fn composite_of_other_shards_is_not_taken_for_a_renamed_one() {
    let store = LayoutStore::ephemeral();
    open_layout(&store, &three(), None, &none()).expect("a layout");
    open_layout(&store, &spec("sessions", &["x", "y"]), None, &none()).expect("another");
}

#[test]
fn composite_moved_into_another_is_refused_and_leaves_nothing_behind() {
    let folder = temporary();
    let store = LayoutStore::open(folder.path()).expect("a store");
    open_layout(&store, &three(), None, &none()).expect("a layout");
    let before = contents(folder.path());
    let inner = LayoutSpec {
        role: Role::Inner,
        ..three()
    };
    let all = spec("all", &["cache", "redis-d"]);
    let addresses = none();
    let request = |spec| LayoutRequest {
        spec,
        pinned_digest: None,
        addresses: &addresses,
    };
    let errors = open_layouts(&store, &[request(&all), request(&inner)]).expect_err("refused");
    let [LayoutStoreError::Differs { composite, .. }] = errors.as_slice() else {
        panic!("{errors:#?}")
    };
    assert_eq!(composite, "cache");
    check_parts(
        &errors[0].to_string(),
        &["'cache'", "in another composite", "`stores`"],
    );
    assert_eq!(contents(folder.path()), before);
}

#[test]
fn composite_moved_out_of_another_is_refused() {
    let store = LayoutStore::ephemeral();
    let inner = LayoutSpec {
        role: Role::Inner,
        ..three()
    };
    open_layout(&store, &inner, None, &none()).expect("a layout");
    let error = open_layout(&store, &three(), None, &none())
        .expect_err("refused")
        .to_string();
    check_parts(
        &error,
        &["inside another one", "lists it nowhere", "back into"],
    );
}

#[test]
fn all_composites_open_together_or_none_is_made() {
    let folder = temporary();
    let store = LayoutStore::open(folder.path()).expect("a store");
    let addresses = none();
    let request = |spec| LayoutRequest {
        spec,
        pinned_digest: None,
        addresses: &addresses,
    };
    let (one, two) = (spec("one", &["a", "b"]), spec("two", &["c", "d"]));
    let layouts = open_layouts(&store, &[request(&one), request(&two)]).expect("layouts");
    let names: Vec<&str> = layouts.iter().map(|layout| layout.composite()).collect();
    assert_eq!(names, ["one", "two"]);
    let before = contents(folder.path());
    let (one, two) = (spec("one", &["a"]), spec("two", &["c", "d", "e"]));
    let new = spec("new", &["f"]);
    let requests = [request(&new), request(&one), request(&two)];
    let errors = open_layouts(&store, &requests).expect_err("refused");
    assert_eq!(errors.len(), 2);
    check_parts(&errors[0].to_string(), &["'one'", "'b'"]);
    check_parts(&errors[1].to_string(), &["'two'", "'e'"]);
    assert_eq!(contents(folder.path()), before);
}

#[test]
fn pinned_digest_that_differs_is_refused() {
    let folder = temporary();
    let store = LayoutStore::open(folder.path()).expect("a store");
    let digest = open_layout(&store, &three(), None, &none())
        .expect("a layout")
        .digest();
    open_layout(&store, &three(), Some(&digest), &none()).expect("the same");
    open_layout(&store, &three(), Some(&digest.to_uppercase()), &none()).expect("the same");
    let wrong = "0123456789abcdef";
    let error = open_layout(&store, &three(), Some(wrong), &none()).expect_err("another");
    check_parts(
        &error.to_string(),
        &["'cache'", wrong, &digest, "breccia layout import"],
    );
}

#[test]
fn reversed_stores_and_an_empty_folder_are_refused_where_a_digest_is_pinned() {
    let first = LayoutStore::ephemeral();
    let digest = open_layout(&first, &three(), None, &none())
        .expect("a layout")
        .digest();
    let folder = temporary();
    let second = LayoutStore::open(folder.path()).expect("a store");
    let reversed = spec("cache", &["redis-c", "redis-b", "redis-a"]);
    let error = open_layout(&second, &reversed, Some(&digest), &none()).expect_err("another");
    let would_be = "67623734bf46f1f6";
    let parts = [
        "holds no layout",
        &digest,
        would_be,
        "breccia layout import",
        "order",
    ];
    check_parts(&error.to_string(), &parts);
    assert_eq!(second.all().expect("layouts"), []);
    let document = first.export("cache").expect("a document");
    second.import(&document, false).expect("imported");
    let layout = open_layout(&second, &reversed, Some(&digest), &none()).expect("the same");
    assert_eq!(layout.digest(), digest);
}

#[test]
fn first_layout_may_be_made_when_it_is_the_pinned_one() {
    let store = LayoutStore::ephemeral();
    let layout = open_layout(&store, &three(), Some("ff3842cce72fb897"), &none());
    assert_eq!(layout.expect("the pinned one").digest(), "ff3842cce72fb897");
}

#[test]
fn swapped_addresses_are_refused_until_accepted() {
    let folder = temporary();
    let store = LayoutStore::open(folder.path()).expect("a store");
    let right = addresses(&[("redis-a", "h:1"), ("redis-b", "h:2"), ("redis-c", "h:3")]);
    let swapped = addresses(&[("redis-a", "h:2"), ("redis-b", "h:1"), ("redis-c", "h:3")]);
    open_layout(&store, &three(), None, &right).expect("a layout");
    let before = contents(folder.path());
    let error = open_layout(&store, &three(), None, &swapped)
        .expect_err("swapped")
        .to_string();
    let accept = "`breccia layout accept-address --config FILE cache redis-a`";
    check_parts(
        &error,
        &["'redis-a' at h:2", "where shard 'redis-b' was", accept],
    );
    assert_eq!(contents(folder.path()), before);
    let was = store
        .accept_address("cache", "redis-a", "h:2")
        .expect("accepted");
    assert_eq!(was.as_deref(), Some("h:1"));
    open_layout(&store, &three(), None, &swapped).expect("accepted");
    assert_eq!(store.last_addresses("cache").expect("addresses"), swapped);
    open_layout(&store, &three(), None, &right).expect_err("swapped back");
}

#[test]
fn ring_of_moved_addresses_is_refused_until_each_is_accepted() {
    let store = LayoutStore::ephemeral();
    let right = addresses(&[("redis-a", "h:1"), ("redis-b", "h:2"), ("redis-c", "h:3")]);
    let ring = addresses(&[("redis-a", "h:2"), ("redis-b", "h:3"), ("redis-c", "h:1")]);
    open_layout(&store, &three(), None, &right).expect("a layout");
    for shard in ["redis-a", "redis-b"] {
        let error = open_layout(&store, &three(), None, &ring)
            .expect_err("a ring")
            .to_string();
        check_parts(&error, &[&format!("cache {shard}`")]);
        store
            .accept_address("cache", shard, &ring[shard])
            .expect("accepted");
    }
    open_layout(&store, &three(), None, &ring).expect("accepted");
}

#[test]
fn shard_that_moved_to_a_new_address_is_recorded() {
    let store = LayoutStore::ephemeral();
    let before = addresses(&[("redis-a", "h:1"), ("redis-b", "h:2")]);
    let after = addresses(&[("redis-a", "h:9"), ("redis-b", "h:2")]);
    let spec = spec("cache", &["redis-a", "redis-b"]);
    open_layout(&store, &spec, None, &before).expect("a layout");
    open_layout(&store, &spec, None, &after).expect("moved");
    assert_eq!(store.last_addresses("cache").expect("addresses"), after);
    let taken = addresses(&[("redis-a", "h:9"), ("redis-b", "h:1")]);
    open_layout(&store, &spec, None, &taken).expect("only the last address counts");
}

#[test]
fn addresses_of_no_shard_are_neither_kept_nor_believed() {
    let store = LayoutStore::ephemeral();
    let pair = spec("cache", &["redis-a", "redis-b"]);
    let known = addresses(&[("redis-a", "h:1"), ("redis-b", "h:2"), ("stranger", "h:3")]);
    open_layout(&store, &pair, None, &known).expect("a layout");
    assert_eq!(store.last_addresses("cache").expect("addresses").len(), 2);
    store.save_addresses("cache", &known).expect("saved");
    let moved = addresses(&[("redis-a", "h:3"), ("redis-b", "h:2")]);
    open_layout(&store, &pair, None, &moved).expect("the stranger is no shard");
}

#[test]
fn addresses_that_outlived_their_layout_do_not_refuse_a_new_one() {
    let store = LayoutStore::ephemeral();
    let old = addresses(&[("redis-a", "h:2"), ("redis-b", "h:1")]);
    store.save_addresses("cache", &old).expect("saved");
    let now = addresses(&[("redis-a", "h:1"), ("redis-b", "h:2")]);
    let pair = spec("cache", &["redis-a", "redis-b"]);
    open_layout(&store, &pair, None, &now).expect("a new layout");
    assert_eq!(store.last_addresses("cache").expect("addresses"), now);
}

#[test]
fn addresses_swapped_between_two_composites_are_refused_until_accepted() {
    let store = LayoutStore::ephemeral();
    let (left, right) = (spec("left", &["r0", "r1"]), spec("right", &["r2", "r3"]));
    let of_left = addresses(&[("r0", "h:0"), ("r1", "h:1")]);
    let of_right = addresses(&[("r2", "h:2"), ("r3", "h:3")]);
    let open = |of_left, of_right| {
        let request = |spec, addresses| LayoutRequest {
            spec,
            pinned_digest: None,
            addresses,
        };
        open_layouts(
            &store,
            &[request(&left, of_left), request(&right, of_right)],
        )
    };
    open(&of_left, &of_right).expect("layouts");
    let swapped_left = addresses(&[("r0", "h:2"), ("r1", "h:1")]);
    let swapped_right = addresses(&[("r2", "h:0"), ("r3", "h:3")]);
    let errors = open(&swapped_left, &swapped_right).expect_err("swapped");
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    check_parts(
        &texts.join("\n"),
        &["shard 'right/r2' was", "shard 'left/r0' was"],
    );
    for (composite, shard, address) in [("left", "r0", "h:2"), ("right", "r2", "h:0")] {
        let accepted = store.accept_address(composite, shard, address);
        accepted.expect("accepted");
    }
    open(&swapped_left, &swapped_right).expect("accepted");
    // A new composite may lie where others lie: it has no keys that could be missed.
    let (new, of_new) = (spec("new", &["r9"]), addresses(&[("r9", "h:1")]));
    open_layout(&store, &new, None, &of_new).expect("a layout");
}
