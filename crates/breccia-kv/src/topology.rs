//! Where keys lead: nested composites flattened to one list of leaves. It is made once, from the
//! checked configuration and the layouts, and shared by all workers.
//!
//! Invariant: `place` is pure and allocates nothing; the same key leads to the same leaf on every
//! worker and every gateway that shows the same layouts.

use std::sync::Arc;

use breccia_core::layout::Layout;

/// A place in [`Topology`]'s list of leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeafIndex(u16);

impl LeafIndex {
    /// As an index.
    #[must_use]
    pub fn get(self) -> usize {
        usize::from(self.0)
    }

    /// The leaf at a place; `None` above 65,535.
    #[must_use]
    pub fn new(index: usize) -> Option<Self> {
        u16::try_from(index).ok().map(Self)
    }
}

/// A store as it nests: a leaf, or a composite of more.
#[derive(Clone, Debug)]
pub enum Branch<L> {
    /// A member that is no composite.
    Leaf(L),
    /// A sharded composite; members in the order of the layout's shards.
    Sharded(Arc<Layout>, Vec<Branch<L>>),
}

#[derive(Debug)]
enum Twig {
    Leaf(LeafIndex),
    Sharded(Arc<Layout>, Vec<Twig>),
}

/// Where a key lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The leaf that owns the key.
    pub leaf: LeafIndex,
    /// The key's slots on all levels, mixed into one number: keys with equal numbers stay together
    /// when a composite grows.
    pub slot: u64,
    /// Within some leaves (clusters) only keys of one slot may be used together: that slot and one;
    /// 0 elsewhere.
    pub bound: u16,
}

/// Leaves and the way from a key to one of them.
#[derive(Debug)]
pub struct Topology<L> {
    name: String,
    root: Twig,
    leaves: Vec<L>,
}

impl<L> Topology<L> {
    /// Flattens a store. `None` if it has no leaf, or more than 65,536.
    #[must_use]
    pub fn new(name: String, root: Branch<L>) -> Option<Self> {
        let mut leaves = Vec::new();
        let root = flatten(root, &mut leaves)?;
        (!leaves.is_empty()).then_some(Self { name, root, leaves })
    }

    /// The name of the store at the root.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All leaves, in layout order.
    #[must_use]
    pub fn leaves(&self) -> &[L] {
        &self.leaves
    }

    /// The leaf at a place of this topology's own.
    #[must_use]
    pub fn leaf(&self, index: LeafIndex) -> Option<&L> {
        self.leaves.get(index.get())
    }

    /// The layout at the root, if the store is a composite.
    #[must_use]
    pub fn layout(&self) -> Option<&Arc<Layout>> {
        match &self.root {
            Twig::Leaf(_) => None,
            Twig::Sharded(layout, _) => Some(layout),
        }
    }

    /// Where a key lies.
    #[must_use]
    pub fn place(&self, key: &[u8]) -> Place {
        let mut twig = &self.root;
        let mut slot = 0_u64;
        loop {
            match twig {
                Twig::Leaf(leaf) => {
                    return Place {
                        leaf: *leaf,
                        slot,
                        bound: 0,
                    };
                }
                Twig::Sharded(layout, members) => {
                    let placement = layout.place(key);
                    slot = slot.rotate_left(24) ^ u64::from(placement.slot.get());
                    twig = members
                        .get(usize::from(placement.shard.get()))
                        .expect("a layout's table names only its own shards");
                }
            }
        }
    }
}

fn flatten<L>(branch: Branch<L>, leaves: &mut Vec<L>) -> Option<Twig> {
    match branch {
        Branch::Leaf(leaf) => {
            let index = LeafIndex::new(leaves.len())?;
            leaves.push(leaf);
            Some(Twig::Leaf(index))
        }
        Branch::Sharded(layout, members) => {
            if members.len() != layout.shards().len() {
                return None;
            }
            let members = members
                .into_iter()
                .map(|member| flatten(member, leaves))
                .collect::<Option<_>>()?;
            Some(Twig::Sharded(layout, members))
        }
    }
}

#[cfg(test)]
mod tests {
    use breccia_core::HashKind;
    use breccia_core::layout::{CompositeKind, LayoutSpec, Role};

    use super::*;

    fn layout(name: &str, role: Role, shards: &[&str]) -> Arc<Layout> {
        let spec = LayoutSpec {
            composite: name.to_owned(),
            kind: CompositeKind::InMemory,
            hash: HashKind::default(),
            hash_tag: None,
            placement_key: breccia_core::PlacementKey::Raw,
            role,
            shards: shards.iter().map(|shard| (*shard).to_owned()).collect(),
        };
        Arc::new(Layout::first(&spec).unwrap())
    }

    #[test]
    fn a_flat_composite_is_the_plain_rule() {
        let members = vec![Branch::Leaf('a'), Branch::Leaf('b'), Branch::Leaf('c')];
        let root = Branch::Sharded(layout("cache", Role::Outer, &["a", "b", "c"]), members);
        let topology = Topology::new("cache".to_owned(), root).unwrap();
        for number in 0..1000_u32 {
            let key = number.to_be_bytes();
            let expected = HashKind::Xxh3_64.hash(&key) % 3;
            assert_eq!(topology.place(&key).leaf.get() as u64, expected);
        }
    }

    #[test]
    fn inner_composites_fill_all_their_shards() {
        let inner = |name: &str, leaves: [u8; 3]| {
            let shards = layout(name, Role::Inner, &["x", "y", "z"]);
            Branch::Sharded(shards, leaves.into_iter().map(Branch::Leaf).collect())
        };
        let members = vec![
            inner("i1", [0, 1, 2]),
            inner("i2", [3, 4, 5]),
            inner("i3", [6, 7, 8]),
        ];
        let root = Branch::Sharded(layout("top", Role::Outer, &["i1", "i2", "i3"]), members);
        let topology = Topology::new("top".to_owned(), root).unwrap();
        let mut counts = [0_u32; 9];
        for number in 0..9000_u32 {
            let place = topology.place(&number.to_be_bytes());
            counts[usize::from(*topology.leaf(place.leaf).unwrap())] += 1;
        }
        assert!(
            counts.iter().all(|count| (850..1150).contains(count)),
            "{counts:?}"
        );
    }
}
