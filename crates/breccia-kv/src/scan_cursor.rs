//! The cursor of a SCAN over several stores: it names the leaf, so nothing is remembered here and
//! any gateway with the same layout can go on.
//!
//! 64 bits: bit 63 zero (clients parse i64); 62–52 the leaf in layout order; 51–44 a check of the
//! list of leaves; 43–0 the leaf's own cursor. Invariant: a cursor made for another list of leaves
//! starts the scan again, which repeats keys and omits none.

use breccia_core::HashKind;

/// Bits of a leaf's own cursor.
pub const UPSTREAM_BITS: u32 = 44;
const CHECK_BITS: u32 = 8;
const LEAF_BITS: u32 = 11;

/// A cursor, taken apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanCursor {
    /// The leaf's place in layout order.
    pub leaf: usize,
    /// The leaf's own cursor, below 2^44.
    pub upstream: u64,
}

/// Eight bits that tell one list of leaves from another; never zero, so no cursor made here is.
#[must_use]
pub fn check_of<'a>(leaves: impl Iterator<Item = &'a str>) -> u64 {
    let names: Vec<&str> = leaves.collect();
    HashKind::Xxh3_64.hash(names.join("\n").as_bytes()) % 255 + 1
}

impl ScanCursor {
    /// Takes a cursor apart; one that does not fit the list of leaves begins anew.
    #[must_use]
    pub fn decode(value: u64, check: u64, leaves: usize) -> Self {
        let leaf = value >> (UPSTREAM_BITS + CHECK_BITS);
        let found = value >> UPSTREAM_BITS & ((1 << CHECK_BITS) - 1);
        match usize::try_from(leaf) {
            Ok(leaf) if found == check && leaf < leaves => Self {
                leaf,
                upstream: value & ((1 << UPSTREAM_BITS) - 1),
            },
            _ => Self::default(),
        }
    }

    /// Puts a cursor together; `None` if a part does not fit.
    #[must_use]
    pub fn encode(self, check: u64) -> Option<u64> {
        let leaf = u64::try_from(self.leaf).ok()?;
        if leaf >> LEAF_BITS != 0 || self.upstream >> UPSTREAM_BITS != 0 {
            return None;
        }
        Some(leaf << (UPSTREAM_BITS + CHECK_BITS) | check << UPSTREAM_BITS | self.upstream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_survive_the_way_there_and_back() {
        for (leaf, upstream) in [(0, 1), (2047, (1 << 44) - 1), (5, 0)] {
            let cursor = ScanCursor { leaf, upstream };
            let value = cursor.encode(7).unwrap();
            assert!(i64::try_from(value).is_ok());
            assert_eq!(ScanCursor::decode(value, 7, 2048), cursor);
            assert_eq!(ScanCursor::decode(value, 8, 2048), ScanCursor::default());
            assert_eq!(ScanCursor::decode(value, 7, leaf), ScanCursor::default());
        }
        assert_eq!(
            ScanCursor {
                leaf: 0,
                upstream: 1 << 44
            }
            .encode(7),
            None
        );
        assert_eq!(
            ScanCursor {
                leaf: 2048,
                upstream: 0
            }
            .encode(7),
            None
        );
        assert_eq!(
            ScanCursor::decode(u64::MAX, 255, 2048),
            ScanCursor::default()
        );
    }

    #[test]
    fn another_list_of_leaves_has_another_check() {
        assert_ne!(
            check_of(["a", "b"].into_iter()),
            check_of(["a", "c"].into_iter())
        );
        assert_ne!(
            check_of(["a", "b"].into_iter()),
            check_of(["b", "a"].into_iter())
        );
    }
}
