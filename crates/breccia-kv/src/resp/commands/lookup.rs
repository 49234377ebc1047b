//! From a command's name to its row: one hash, one comparison, no allocation.
//!
//! The index is an open-addressed table of row numbers, computed by the compiler from the generated
//! table. Not a general map. Invariant: every row is found by its name in any case, and a probe ends
//! at an empty place because the index is never full.

use super::{COMMANDS, CommandSpec};

/// Places in the index: a power of two, a few times the number of commands.
const PLACES: usize = 2048;
/// An empty place.
const EMPTY: u16 = u16::MAX;
/// No command has a longer name.
const LONGEST: usize = longest();

static INDEX: [u16; PLACES] = index();

/// The row of a command, its name in any case.
#[must_use]
#[inline]
pub fn find(name: &[u8]) -> Option<&'static CommandSpec> {
    COMMANDS.get(find_row(name)?)
}

/// The place of a command in [`COMMANDS`], its name in any case.
#[must_use]
#[inline]
pub fn find_row(name: &[u8]) -> Option<usize> {
    if name.len() > LONGEST {
        return None;
    }
    let mut place = first_place(name);
    loop {
        let row = *INDEX.get(place)?;
        let spec = COMMANDS.get(usize::from(row))?;
        if spec.name.as_bytes().eq_ignore_ascii_case(name) {
            return Some(usize::from(row));
        }
        place = (place + 1) % PLACES;
    }
}

/// A place from at most sixteen bytes of the name, folded to one case.
///
/// Setting bit 5 folds letters and merges a few other bytes; the comparison sorts those out.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the top bits of the product, fewer than 16"
)]
const fn first_place(name: &[u8]) -> usize {
    const FOLD: u64 = 0x2020_2020_2020_2020;
    let (head, tail) = match (name.first_chunk::<8>(), name.last_chunk::<8>()) {
        (Some(head), Some(tail)) => (u64::from_le_bytes(*head), u64::from_le_bytes(*tail)),
        _ => match (name.first_chunk::<4>(), name.last_chunk::<4>()) {
            (Some(head), Some(tail)) => (
                u32::from_le_bytes(*head) as u64,
                u32::from_le_bytes(*tail) as u64,
            ),
            _ => match *name {
                [a, b, c] => (a as u64 | (b as u64) << 8 | (c as u64) << 16, 0),
                [a, b] => (a as u64 | (b as u64) << 8, 0),
                [a] => (a as u64, 0),
                _ => (0, 0),
            },
        },
    };
    let mixed = (head | FOLD) ^ (tail | FOLD).rotate_left(23) ^ name.len() as u64;
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - PLACES.trailing_zeros())) as usize
}

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler: a bad index fails the build"
)]
const fn longest() -> usize {
    let mut longest = 0;
    let mut row = 0;
    while row < COMMANDS.len() {
        if COMMANDS[row].name.len() > longest {
            longest = COMMANDS[row].name.len();
        }
        row += 1;
    }
    longest
}

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler: a bad index fails the build"
)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the assertion bounds the number of rows"
)]
const fn index() -> [u16; PLACES] {
    assert!(
        COMMANDS.len() < PLACES / 2,
        "a fuller index needs more places"
    );
    let mut index = [EMPTY; PLACES];
    let mut row = 0;
    while row < COMMANDS.len() {
        let mut place = first_place(COMMANDS[row].name.as_bytes());
        while index[place] != EMPTY {
            place = (place + 1) % PLACES;
        }
        index[place] = row as u16;
        row += 1;
    }
    index
}
