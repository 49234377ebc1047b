//! Layout tests: identity, changes, differences and documents.
//!
//! Not here: the properties over many keys (see `properties.rs`). Invariant: the digests below
//! were computed by another program from the definition, and never change.

mod documents;
mod properties;

use super::*;

pub(super) fn spec(composite: &str, shards: &[&str]) -> LayoutSpec {
    LayoutSpec {
        composite: composite.to_owned(),
        kind: CompositeKind::InMemory,
        hash: HashKind::Xxh3_64,
        hash_tag: None,
        placement_key: PlacementKey::Raw,
        role: Role::Outer,
        shards: shards.iter().map(|shard| (*shard).to_owned()).collect(),
    }
}

pub(super) fn three() -> LayoutSpec {
    spec("cache", &["redis-a", "redis-b", "redis-c"])
}

pub(super) fn layout_of(spec: &LayoutSpec) -> Layout {
    Layout::first(spec).expect("a valid spec")
}

pub(super) fn braces() -> Option<HashTag> {
    "{}".parse().ok()
}

#[test]
fn golden_digests_hold() {
    let check = |spec: &LayoutSpec, digest: &str| assert_eq!(layout_of(spec).digest(), digest);
    check(&three(), "ff3842cce72fb897");
    check(
        &spec("cache", &["redis-c", "redis-b", "redis-a"]),
        "67623734bf46f1f6",
    );
    check(
        &LayoutSpec {
            role: Role::Inner,
            ..three()
        },
        "82ccf65d3ecfe0ca",
    );
    check(
        &LayoutSpec {
            hash_tag: braces(),
            ..three()
        },
        "af233cfc7933e666",
    );
    let crc = LayoutSpec {
        hash: HashKind::Crc16Xmodem,
        ..spec("cache", &["redis-a", "redis-b"])
    };
    check(&crc, "5ff40f53389da346");
    let blob = LayoutSpec {
        kind: CompositeKind::Blob,
        ..spec("blobs", &["disk-a"])
    };
    check(&blob, "94a8af53e87b9b4f");
    check(&stalwarts(""), "cdf6b43c0b6036d2");
    check(&stalwarts("mail/"), "9ba2592b64a934e0");
}

pub(super) fn stalwarts(prefix: &str) -> LayoutSpec {
    LayoutSpec {
        kind: CompositeKind::Blob,
        placement_key: PlacementKey::Stalwart {
            prefix: prefix.to_owned(),
        },
        ..spec("blobs", &["disk-a", "disk-b", "disk-c"])
    }
}

#[test]
fn stalwarts_names_are_placed_by_what_they_stand_for() {
    let check = |prefix: &str, key: &str, shard: &str| {
        let layout = layout_of(&stalwarts(prefix));
        let placed = layout.place(key.as_bytes()).shard;
        assert_eq!(layout.shard_name(placed), Some(shard), "{key}");
    };
    let counted = "aaaqeayeaudaocajbifqydiob2ibceqtcqkrmfyydenbwha0dypq";
    check("", &"a".repeat(52), "disk-c");
    check("", counted, "disk-b");
    check("mail/", &format!("mail/{counted}"), "disk-b");
    // What is no such name is hashed as it is: here as in a layout without the rule.
    let raw = layout_of(&spec("x", &["disk-a", "disk-b", "disk-c"]));
    for key in ["README.md", "mail/README.md", counted] {
        let wanted = raw.shard_name(raw.place(key.as_bytes()).shard);
        check("mail/", key, wanted.expect("a shard"));
    }
}

#[test]
fn a_prefix_that_no_document_can_hold_is_refused() {
    let error = Layout::first(&stalwarts("a\"b")).expect_err("a quote");
    assert!(error.to_string().contains("placement key"), "{error}");
}

#[test]
fn first_layout_follows_the_order_of_the_config() {
    let layout = layout_of(&three());
    assert_eq!(layout.slot_count(), 4098);
    assert_eq!(layout.epoch(), Epoch::FIRST);
    assert_eq!((layout.seed(), layout.role()), (0, Role::Outer));
    let check = |key: &[u8], shard: &str| {
        assert_eq!(
            layout.shard_name(layout.place(key).shard),
            Some(shard),
            "{key:02x?}"
        );
    };
    check(&[0; 32], "redis-c");
    check(&[0xff; 32], "redis-a");
    check(b"\x01hello", "redis-a");
    check(b"", "redis-b");
}

#[test]
fn inner_layout_mixes_with_the_seed_of_its_name() {
    let layout = layout_of(&LayoutSpec {
        role: Role::Inner,
        ..spec("cache-a", &["a", "b"])
    });
    assert_eq!(layout.seed(), 0x1922_0eb2_d99b_bcf8);
    let placement = layout.place(b"hello");
    assert_eq!(placement.hash, 0x9555_e855_5c62_dcfd);
    let mixed = splitmix64(placement.hash ^ layout.seed());
    assert_eq!(u64::from(placement.slot.get()), mixed % 4096);
}

#[test]
fn hash_tag_decides_placement_when_set() {
    let tagged = layout_of(&LayoutSpec {
        hash_tag: braces(),
        ..three()
    });
    let plain = layout_of(&three());
    assert_eq!(tagged.place(b"{user}.a"), plain.place(b"user"));
    assert_eq!(tagged.place(b"{user}.b"), plain.place(b"user"));
    assert_eq!(
        plain.place(b"{user}.a").hash,
        HashKind::Xxh3_64.hash(b"{user}.a")
    );
}

#[test]
fn specs_that_cannot_be_are_refused() {
    let check = |spec: &LayoutSpec, part: &str| {
        let error = Layout::first(spec).expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
    };
    check(&spec("cache", &[]), "'cache' has no shards");
    check(&spec("cache", &["a", "b", "a"]), "already has a shard 'a'");
    check(&spec("ca/che", &["a"]), "'ca/che' cannot name a store");
    check(&spec("cache", &["a", ".."]), "'..' cannot name a store");
    check(&spec("cache", &["a", ""]), "'' cannot name a store");
    check(&spec(&"x".repeat(129), &["a"]), "cannot name a store");
    let many: Vec<String> = (0..2049).map(|number| format!("s{number}")).collect();
    check(
        &LayoutSpec {
            shards: many,
            ..spec("cache", &[])
        },
        "2049 shards",
    );
}

#[test]
fn every_change_makes_a_new_digest_and_epoch() {
    let layout = layout_of(&three());
    let moved = layout
        .reassign(&[(Slot::new(0), ShardIndex::new(1))])
        .expect("a move");
    let renamed = layout.renamed("sessions").expect("a name");
    let shard = layout.shard_renamed("redis-b", "redis-x").expect("a name");
    let replaced = layout.replaced(&three()).expect("a spec");
    let mut digests = vec![layout.digest()];
    for next in [moved, renamed, shard, replaced] {
        assert_eq!(next.epoch(), Epoch::new(2));
        assert_eq!(next.slot_count(), layout.slot_count());
        digests.push(next.digest());
    }
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), 5);
}

#[test]
fn renaming_moves_no_key() {
    let inner = layout_of(&LayoutSpec {
        role: Role::Inner,
        ..three()
    });
    let renamed = inner.renamed("sessions").expect("a name");
    let renamed = renamed.shard_renamed("redis-a", "redis-z").expect("a name");
    assert_eq!(renamed.composite(), "sessions");
    assert_eq!(renamed.shards(), ["redis-z", "redis-b", "redis-c"]);
    for number in 0..1000_u32 {
        let key = number.to_le_bytes();
        assert_eq!(inner.place(&key), renamed.place(&key));
    }
}

#[test]
fn changes_that_cannot_be_are_refused() {
    let layout = layout_of(&three());
    let check = |result: Result<Layout, CoreError>, part: &str| {
        let error = result.expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
    };
    check(
        layout.shard_renamed("redis-x", "y"),
        "it has redis-a, redis-b, redis-c",
    );
    check(
        layout.shard_renamed("redis-a", "redis-b"),
        "already has a shard 'redis-b'",
    );
    check(layout.renamed("a b"), "'a b' cannot name a store");
    let (slot, shard) = (Slot::new(0), ShardIndex::new(0));
    check(
        layout.reassign(&[(Slot::new(4098), shard)]),
        "slots 0 to 4097",
    );
    check(
        layout.reassign(&[(slot, ShardIndex::new(3))]),
        "shards 0 to 2",
    );
}

/// Every difference, and the words its text must hold.
fn check_differences(wanted: &LayoutSpec, expected: &[&[&str]]) {
    let found = layout_of(&three()).differences(wanted);
    let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), expected.len(), "{texts:#?}");
    for (text, parts) in texts.iter().zip(expected) {
        for part in *parts {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}

#[test]
fn order_of_shards_is_no_difference() {
    check_differences(&three(), &[]);
    check_differences(&spec("cache", &["redis-c", "redis-a", "redis-b"]), &[]);
}

#[test]
fn differences_of_shards_name_the_mend() {
    check_differences(
        &spec("cache", &["redis-a", "redis-c"]),
        &[&[
            "shard 'redis-b' (1366 of 4098 slots)",
            "put it back",
            "rename-shard",
        ]],
    );
    check_differences(
        &spec("cache", &["redis-a", "redis-b", "redis-c", "redis-d"]),
        &[&[
            "lists shard 'redis-d'",
            "take it out of `stores`",
            "rename-shard",
        ]],
    );
    check_differences(
        &spec("cache", &["redis-a", "redis-x", "redis-c"]),
        &[&[
            "has shard 'redis-b', the config has 'redis-x'",
            "`breccia layout rename-shard --config FILE cache redis-b redis-x`",
            "put 'redis-b' back",
        ]],
    );
    check_differences(
        &spec("cache", &["redis-a", "x", "y"]),
        &[&["'redis-b'"], &["'redis-c'"], &["'x'"], &["'y'"]],
    );
}

#[test]
fn differences_of_rules_name_the_mend() {
    let adopt = "`breccia layout adopt --config FILE cache`";
    check_differences(
        &LayoutSpec {
            hash: HashKind::Crc16Xmodem,
            ..three()
        },
        &[&[
            "hashes with xxh3-64",
            "says crc16-xmodem",
            "hash = \"xxh3-64\"",
            adopt,
        ]],
    );
    check_differences(
        &LayoutSpec {
            hash_tag: braces(),
            ..three()
        },
        &[&[
            "has no hash-tag",
            "hash-tag \"{}\"",
            "take `hash-tag` out",
            adopt,
        ]],
    );
    check_differences(
        &LayoutSpec {
            role: Role::Inner,
            ..three()
        },
        &[&["lists it in another composite", "out of the other", adopt]],
    );
    check_differences(
        &LayoutSpec {
            kind: CompositeKind::Blob,
            ..three()
        },
        &[&["kind in-memory", "kind blob", "another name"]],
    );
    check_differences(
        &LayoutSpec {
            composite: "sessions".to_owned(),
            ..three()
        },
        &[&["`breccia layout rename --config FILE cache sessions`"]],
    );
    check_differences(
        &LayoutSpec {
            hash: HashKind::FirstByte,
            hash_tag: braces(),
            ..spec("cache", &["a"])
        },
        &[
            &["hash"],
            &["hash-tag"],
            &["redis-a"],
            &["redis-b"],
            &["redis-c"],
            &["'a'"],
        ],
    );
}

#[test]
fn another_placement_key_is_a_difference() {
    let adopt = "`breccia layout adopt --config FILE cache`";
    check_differences(
        &LayoutSpec {
            placement_key: stalwarts("mail/").placement_key,
            ..three()
        },
        &[&[
            "has placement-key = \"raw\"",
            "placement-key = \"stalwart\" with placement-prefix = \"mail/\"",
            "take `placement-key` out",
            adopt,
        ]],
    );
    let rule = layout_of(&stalwarts("mail/")).differences(&LayoutSpec {
        placement_key: PlacementKey::Raw,
        ..stalwarts("")
    });
    let rule: Vec<String> = rule.iter().map(ToString::to_string).collect();
    let wanted = "put back placement-key = \"stalwart\" with placement-prefix = \"mail/\"";
    assert!(rule.len() == 1 && rule[0].contains(wanted), "{rule:?}");
}

#[test]
fn differences_tell_what_the_layout_has_and_the_config_lacks() {
    let inner = layout_of(&LayoutSpec {
        role: Role::Inner,
        hash_tag: braces(),
        ..three()
    });
    let texts: Vec<String> = inner
        .differences(&three())
        .iter()
        .map(ToString::to_string)
        .collect();
    let [role, tag] = texts.as_slice() else {
        panic!("{texts:#?}")
    };
    assert!(
        role.contains("lists it nowhere") && role.contains("back into"),
        "{role}"
    );
    assert!(tag.contains("put back hash-tag = \"{}\""), "{tag}");
}
