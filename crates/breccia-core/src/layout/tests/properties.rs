//! Placement over many keys: the plain rule, balance, movement, independence.
//!
//! Invariant: the keys are fixed, so a test that passes once passes always.

use proptest::prelude::*;

use super::super::{Layout, LayoutSpec, Role};
use super::{layout_of, spec};
use crate::hash::HashKind;
use crate::slots::{ShardIndex, Slot};

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("shard-{number}")).collect()
}

fn layout(composite: &str, role: Role, hash: HashKind, shards: usize) -> Layout {
    layout_of(&LayoutSpec {
        role,
        hash,
        shards: numbered(shards),
        ..spec(composite, &[])
    })
}

fn outer(shards: usize) -> Layout {
    layout("outer", Role::Outer, HashKind::Xxh3_64, shards)
}

/// Keys as programs write them.
fn keys(count: u32) -> impl Iterator<Item = Vec<u8>> {
    (0..count).map(|number| format!("user:{number}:session").into_bytes())
}

/// How unevenly `counts` are filled, against what chance would do. A fair deal has a mean of
/// (cells - 1) and a variance of twice that; eight standard deviations and a bit are refused.
fn check_even(counts: &[u32], what: &str) {
    let total: u32 = counts.iter().sum();
    let cells = f64::from(u32::try_from(counts.len()).expect("few cells"));
    let expected = f64::from(total) / cells;
    let chi_square: f64 = counts
        .iter()
        .map(|count| (f64::from(*count) - expected).powi(2) / expected)
        .sum();
    let freedom = cells - 1.0;
    let limit = freedom + 8.0 * (2.0 * freedom).sqrt() + 8.0;
    assert!(
        chi_square < limit,
        "{what}: chi square {chi_square:.1} > {limit:.1}: {counts:?}"
    );
}

#[test]
fn first_layout_equals_plain_modulo_for_1_to_64_shards() {
    for hash in HashKind::ALL {
        for shards in 1..=64_u16 {
            let layout = layout("cache", Role::Outer, *hash, usize::from(shards));
            for key in keys(500) {
                let placement = layout.place(&key);
                let plain = hash.hash(&key) % u64::from(shards);
                assert_eq!(
                    u64::from(placement.shard.get()),
                    plain,
                    "{hash} {shards} {key:?}"
                );
            }
        }
    }
}

#[test]
fn keys_spread_evenly_over_shards() {
    for hash in [HashKind::Xxh3_64, HashKind::Fnv1a64, HashKind::Crc32IsoHdlc] {
        for role in [Role::Outer, Role::Inner] {
            for shards in [2, 3, 4, 5, 7, 8, 16, 64] {
                let layout = layout("cache", role, hash, shards);
                let mut counts = vec![0; shards];
                for key in keys(20_000) {
                    counts[layout.place(&key).shard.as_usize()] += 1;
                }
                check_even(&counts, &format!("{hash} {role:?} {shards}"));
            }
        }
    }
}

#[test]
fn keys_spread_evenly_over_slots() {
    let layout = outer(3);
    let mut counts = vec![0; 4098];
    for key in keys(200_000) {
        counts[usize::try_from(layout.place(&key).slot.get()).expect("small")] += 1;
    }
    check_even(&counts, "slots");
}

#[test]
fn composite_of_composites_fills_every_inner_shard_evenly() {
    for (outside, inside) in [
        (2, 2),
        (2, 4),
        (4, 2),
        (3, 3),
        (3, 6),
        (5, 5),
        (8, 8),
        (2, 3),
    ] {
        let outer = outer(outside);
        let inner: Vec<Layout> = (0..outside)
            .map(|number| {
                layout(
                    &format!("shard-{number}"),
                    Role::Inner,
                    HashKind::Xxh3_64,
                    inside,
                )
            })
            .collect();
        let mut counts = vec![0; outside * inside];
        for key in keys(20_000) {
            let first = outer.place(&key).shard.as_usize();
            let second = inner[first].place(&key).shard.as_usize();
            counts[first * inside + second] += 1;
        }
        check_even(&counts, &format!("{outside} composites of {inside}"));
    }
}

#[test]
fn three_levels_of_composites_fill_every_shard_evenly() {
    let top = outer(2);
    let inner = |name: &str| layout(name, Role::Inner, HashKind::Xxh3_64, 2);
    let middle = [inner("shard-0"), inner("shard-1")];
    let bottom = [inner("a"), inner("b"), inner("c"), inner("d")];
    let mut counts = vec![0; 8];
    for key in keys(20_000) {
        let first = top.place(&key).shard.as_usize();
        let second = first * 2 + middle[first].place(&key).shard.as_usize();
        counts[second * 2 + bottom[second].place(&key).shard.as_usize()] += 1;
    }
    check_even(&counts, "three levels of two");
}

/// The trap the seed is there for.
#[test]
fn without_a_seed_half_of_the_inner_shards_would_stay_empty() {
    let mut counts = [0_u32; 4];
    for key in keys(1000) {
        let first = outer(2).place(&key).shard.as_usize();
        counts[first * 2 + outer(2).place(&key).shard.as_usize()] += 1;
    }
    assert_eq!(counts.iter().filter(|count| **count == 0).count(), 2);
}

#[test]
fn two_inner_composites_place_independently_of_each_other() {
    let first = layout("a", Role::Inner, HashKind::Xxh3_64, 4);
    let second = layout("b", Role::Inner, HashKind::Xxh3_64, 4);
    let mut counts = vec![0; 16];
    for key in keys(20_000) {
        let row = first.place(&key).shard.as_usize();
        counts[row * 4 + second.place(&key).shard.as_usize()] += 1;
    }
    check_even(&counts, "pairs of placements");
}

proptest! {
    #[test]
    fn plain_modulo_holds_for_binary_keys(key: Vec<u8>, shards in 1..=64_u16) {
        let plain = HashKind::Xxh3_64.hash(&key) % u64::from(shards);
        let placement = outer(usize::from(shards)).place(&key);
        prop_assert_eq!(u64::from(placement.shard.get()), plain);
    }

    #[test]
    fn only_keys_of_reassigned_slots_move(
        shards in 2..=16_u16,
        moves in prop::collection::vec((0..4096_u32, 0..16_u16), 0..200),
        inner: bool,
    ) {
        let role = if inner { Role::Inner } else { Role::Outer };
        let before = layout("cache", role, HashKind::Xxh3_64, usize::from(shards));
        let moves: Vec<(Slot, ShardIndex)> = moves
            .into_iter()
            .map(|(slot, shard)| (Slot::new(slot), ShardIndex::new(shard % shards)))
            .collect();
        let after = before.reassign(&moves).expect("slots and shards that exist");
        for key in keys(300) {
            let (old, new) = (before.place(&key), after.place(&key));
            prop_assert_eq!((old.hash, old.slot), (new.hash, new.slot));
            let moved = moves.iter().rev().find(|(slot, _)| *slot == old.slot);
            prop_assert_eq!(new.shard, moved.map_or(old.shard, |(_, shard)| *shard));
        }
    }

    #[test]
    fn every_slot_lies_on_exactly_one_shard(shards in 1..=300_u16) {
        let layout = outer(usize::from(shards));
        let held: usize =
            (0..shards).map(|shard| layout.slots_held(ShardIndex::new(shard))).sum();
        prop_assert_eq!(Ok(held), usize::try_from(layout.slot_count()));
        prop_assert_eq!(layout.slot_count() % u32::from(shards), 0);
    }
}
