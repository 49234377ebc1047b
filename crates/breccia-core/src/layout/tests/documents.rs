//! Layout documents: round trips, and what is refused.
//!
//! Invariant: no damaged document is ever loaded as a layout.

use proptest::prelude::*;

use super::super::Layout;
use super::{braces, layout_of, spec, stalwarts, three};
use crate::error::CoreError;
use crate::hash::HashKind;
use crate::layout::{CompositeKind, LayoutSpec, Role};
use crate::placement_key::PlacementKey;
use crate::slots::{ShardIndex, Slot};

const DOCUMENT: &str = r#"# A layout of Breccia: where each key of one composite lies. Every gateway in front of these
# shards needs the same digest. Made by Breccia, and checked on loading: do not edit it.
format = 1
composite = "cache"
digest = "ff3842cce72fb897"
epoch = 1
kind = "in-memory"
role = "outer"
hash = "xxh3-64"
hash-tag = ""
placement-key = "raw"
seed = "0000000000000000"
slots = 4098

[[shard]]
name = "redis-a"
slots = "0-4095/3"

[[shard]]
name = "redis-b"
slots = "1-4096/3"

[[shard]]
name = "redis-c"
slots = "2-4097/3"
"#;

#[test]
fn document_is_readable_and_frozen() {
    let layout = layout_of(&three());
    assert_eq!(layout.to_document(), DOCUMENT);
    assert_eq!(Layout::from_document(DOCUMENT), Ok(layout));
}

#[test]
fn document_read_with_other_line_ends_and_comments_is_the_same() {
    let layout = layout_of(&three());
    let edited = DOCUMENT
        .replace('\n', "\r\n")
        .replace("epoch", "# note\r\n  epoch");
    assert_eq!(edited.parse(), Ok(layout));
}

/// A document damaged in one place is refused, and the error says all of `parts`.
fn check_damage(from: &str, to: &str, parts: &[&str]) {
    assert!(DOCUMENT.contains(from), "{from}");
    let text = DOCUMENT.replacen(from, to, 1);
    let error = Layout::from_document(&text).expect_err(from).to_string();
    for part in parts {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn damaged_documents_are_refused_with_the_line() {
    let check = check_damage;
    check("format = 1", "format = 2", &["format 2", "reads format 1"]);
    check("format = 1\n", "", &["line 13", "`format` is missing"]);
    check("\"cache\"", "cache", &["line 4", "not `key = value`"]);
    check(
        "\"cache\"",
        "\"sessions\"",
        &["'sessions'", "states digest ff3842cce72fb897"],
    );
    check("\"cache\"", "\"../cache\"", &["cannot name a store"]);
    check(
        "epoch = 1",
        "epoch = 2",
        &["states digest", "edited or damaged"],
    );
    check("epoch = 1", "epoch = one", &["line 6", "not `key = value`"]);
    check(
        "epoch = 1",
        "epoch = 1\nepoch = 1",
        &["line 7", "a second time"],
    );
    check(
        "epoch = 1",
        "epoch = 1\nage = 1",
        &["line 7", "`age` does not belong"],
    );
    check(
        "epoch = 1",
        "epoch = \"1\"",
        &["line 6", "`epoch` is not a number"],
    );
    check("\"in-memory\"", "\"sql\"", &["line 7", "kind = \"sql\""]);
    check("\"outer\"", "\"inner\"", &["states digest"]);
    check("\"xxh3-64\"", "\"xxh4\"", &["line 9", "hash = \"xxh4\""]);
    check("\"xxh3-64\"", "64", &["line 9", "not a quoted text"]);
    check("hash-tag = \"\"", "hash-tag = \"{}\"", &["states digest"]);
    check(
        "\"raw\"",
        "\"cooked\"",
        &["line 11", "placement-key = \"cooked\""],
    );
    check(
        "\"0000000000000000\"",
        "\"0000000000000001\"",
        &["line 12", "seed"],
    );
}

#[test]
fn damaged_slot_tables_are_refused_with_the_slot() {
    let check = check_damage;
    check("slots = 4098", "slots = 0", &["line 13", "`slots`"]);
    check(
        "slots = 4098",
        "slots = 99999999999",
        &["line 13", "`slots`"],
    );
    check(
        "slots = 4098",
        "slots = 4097",
        &["slot 4097 is beyond the last one, 4096"],
    );
    check(
        "slots = 4098",
        "slots = 4099",
        &["slot 4098 lies on no shard"],
    );
    check(
        "\"0-4095/3\"",
        "\"0-4092/3\"",
        &["slot 4095 lies on no shard"],
    );
    check(
        "\"0-4095/3\"",
        "\"1-4095/3\"",
        &["slot 1 lies on two shards"],
    );
    check(
        "\"0-4095/3\"",
        "\"0-4095/0\"",
        &["line 17", "'0-4095/0' is not a run"],
    );
    check("\"0-4095/3\"", "\"0-\"", &["line 17", "'0-' is not a run"]);
    check(
        "\"redis-a\"",
        "\"redis-b\"",
        &["already has a shard 'redis-b'"],
    );
    check("\"redis-a\"", "\"redis-x\"", &["states digest"]);
}

#[test]
fn truncated_documents_are_refused() {
    // The last line end may be missing; everything else counts.
    for end in 0..DOCUMENT.len() - 1 {
        let text = DOCUMENT.get(..end).expect("ASCII");
        assert!(Layout::from_document(text).is_err(), "{text}");
    }
}

#[test]
fn moved_slots_are_written_as_runs() {
    let layout = layout_of(&three());
    let moves: Vec<(Slot, ShardIndex)> = [3, 4, 5, 6, 4097]
        .map(|slot| (Slot::new(slot), ShardIndex::new(0)))
        .to_vec();
    let layout = layout.reassign(&moves).expect("moves");
    let document = layout.to_document();
    assert!(document.contains("\"0 3-6 9-4095/3 4097\""), "{document}");
    assert_eq!(Layout::from_document(&document), Ok(layout));
}

#[test]
fn shard_without_slots_is_written_and_read() {
    let layout = layout_of(&spec("cache", &["a", "b"]));
    let all: Vec<(Slot, ShardIndex)> = (0..4096)
        .map(|slot| (Slot::new(slot), ShardIndex::new(1)))
        .collect();
    let layout = layout.reassign(&all).expect("moves");
    let document = layout.to_document();
    assert!(
        document.contains("slots = \"\"") && document.contains("\"0-4095\""),
        "{document}"
    );
    assert_eq!(Layout::from_document(&document), Ok(layout));
}

fn any_layout() -> impl Strategy<Value = Layout> {
    let rule = (
        0..HashKind::ALL.len(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    );
    let moves = prop::collection::vec((0..4096_u32, any::<u16>()), 0..300);
    (1..=64_usize, rule, moves).prop_map(|(count, (hash, tag, inner, blob), moves)| {
        let first = layout_of(&LayoutSpec {
            composite: "cache.1".to_owned(),
            kind: if blob {
                CompositeKind::Blob
            } else {
                CompositeKind::InMemory
            },
            hash: HashKind::ALL[hash],
            hash_tag: if tag { braces() } else { None },
            placement_key: if blob && tag {
                stalwarts("mail/").placement_key
            } else {
                PlacementKey::Raw
            },
            role: if inner { Role::Inner } else { Role::Outer },
            shards: (0..count).map(|number| format!("shard-{number}")).collect(),
        });
        let shards = u16::try_from(count).expect("at most 64");
        let moves: Vec<(Slot, ShardIndex)> = moves
            .into_iter()
            .map(|(slot, shard)| (Slot::new(slot), ShardIndex::new(shard % shards)))
            .collect();
        first.reassign(&moves).expect("slots and shards that exist")
    })
}

proptest! {
    #[test]
    fn documents_round_trip(layout in any_layout()) {
        let document = layout.to_document();
        prop_assert_eq!(Layout::from_document(&document), Ok(layout));
    }

    #[test]
    fn changed_byte_never_gives_another_layout(
        layout in any_layout(),
        at in any::<prop::sample::Index>(),
        byte in 0x20..0x7f_u8,
    ) {
        let mut text = layout.to_document().into_bytes();
        let at = at.index(text.len());
        text[at] = byte;
        let text = String::from_utf8(text).expect("ASCII");
        // A comment or a blank may change; what is loaded must be the same layout.
        match Layout::from_document(&text) {
            Ok(loaded) => prop_assert_eq!(loaded, layout),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[ -~\n]{0,400}") {
        prop_assert!(Layout::from_document(&text).is_err());
    }

    #[test]
    fn any_text_after_a_good_head_is_read_or_refused(text in "[0-9a-z\\[\\]\" =/\n-]{0,200}") {
        let head = DOCUMENT.split("[[shard]]").next().unwrap_or_default();
        let result = Layout::from_document(&format!("{head}[[shard]]\n{text}"));
        prop_assert!(matches!(result, Err(CoreError::BadDocument { .. })), "{:?}", result);
    }
}
