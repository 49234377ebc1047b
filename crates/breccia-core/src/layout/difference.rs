//! What a config asks for that a layout is not, in words an administrator can act on.
//!
//! Not here: refusing to start; who compares decides.
//!
//! Invariant: every difference that would move a key is listed, and each text names the mend.

use std::fmt;

use super::{CompositeKind, Layout, LayoutSpec, Role};
use crate::hash::{HashKind, HashTag};
use crate::placement_key::PlacementKey;

/// One thing in which a config differs from the layout of its composite.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayoutDifference {
    /// The config names the composite otherwise.
    Composite {
        /// The name in the layout.
        layout: String,
        /// The name in the config.
        config: String,
    },
    /// The config makes the composite of another kind.
    Kind {
        /// The composite.
        composite: String,
        /// The kind in the layout.
        layout: CompositeKind,
        /// The kind in the config.
        config: CompositeKind,
    },
    /// The composite was moved into another one, or out of one.
    Role {
        /// The composite.
        composite: String,
        /// The role in the layout.
        layout: Role,
        /// The role in the config.
        config: Role,
    },
    /// The config names another hash function.
    Hash {
        /// The composite.
        composite: String,
        /// The function in the layout.
        layout: HashKind,
        /// The function in the config.
        config: HashKind,
    },
    /// The config has another hash tag, or one of them has none.
    HashTag {
        /// The composite.
        composite: String,
        /// The tag in the layout.
        layout: Option<HashTag>,
        /// The tag in the config.
        config: Option<HashTag>,
    },
    /// The config takes other bytes of a key to hash.
    PlacementKey {
        /// The composite.
        composite: String,
        /// The rule in the layout.
        layout: PlacementKey,
        /// The rule in the config.
        config: PlacementKey,
    },
    /// One shard is gone and one is new: most likely a renamed store.
    ShardRenamed {
        /// The composite.
        composite: String,
        /// The shard in the layout.
        layout: String,
        /// The shard in the config.
        config: String,
    },
    /// The config lacks a shard of the layout.
    ShardRemoved {
        /// The composite.
        composite: String,
        /// The shard in the layout.
        shard: String,
        /// How many slots it holds.
        slots: usize,
        /// How many slots there are.
        of: u32,
    },
    /// The config lists a shard the layout does not know.
    ShardAdded {
        /// The composite.
        composite: String,
        /// The shard in the config.
        shard: String,
    },
}

pub(super) fn between(layout: &Layout, wanted: &LayoutSpec) -> Vec<LayoutDifference> {
    let mut found = Vec::new();
    let composite = || layout.composite.clone();
    if layout.composite != wanted.composite {
        let config = wanted.composite.clone();
        found.push(LayoutDifference::Composite {
            layout: composite(),
            config,
        });
    }
    if layout.kind != wanted.kind {
        let (layout, config) = (layout.kind, wanted.kind);
        found.push(LayoutDifference::Kind {
            composite: composite(),
            layout,
            config,
        });
    }
    if layout.role != wanted.role {
        let (layout, config) = (layout.role, wanted.role);
        found.push(LayoutDifference::Role {
            composite: composite(),
            layout,
            config,
        });
    }
    if layout.hash != wanted.hash {
        let (layout, config) = (layout.hash, wanted.hash);
        found.push(LayoutDifference::Hash {
            composite: composite(),
            layout,
            config,
        });
    }
    if layout.hash_tag != wanted.hash_tag {
        let (layout, config) = (layout.hash_tag, wanted.hash_tag);
        found.push(LayoutDifference::HashTag {
            composite: composite(),
            layout,
            config,
        });
    }
    if layout.placement_key != wanted.placement_key {
        let (layout, config) = (layout.placement_key.clone(), wanted.placement_key.clone());
        found.push(LayoutDifference::PlacementKey {
            composite: composite(),
            layout,
            config,
        });
    }
    shards(layout, wanted, &mut found);
    found
}

fn shards(layout: &Layout, wanted: &LayoutSpec, found: &mut Vec<LayoutDifference>) {
    let composite = &layout.composite;
    let removed: Vec<&String> = layout
        .shards
        .iter()
        .filter(|shard| !wanted.shards.contains(shard))
        .collect();
    let added: Vec<&String> = wanted
        .shards
        .iter()
        .filter(|shard| !layout.shards.contains(shard))
        .collect();
    if let ([old], [new]) = (removed.as_slice(), added.as_slice()) {
        found.push(LayoutDifference::ShardRenamed {
            composite: composite.clone(),
            layout: (*old).clone(),
            config: (*new).clone(),
        });
        return;
    }
    for shard in removed {
        let slots = layout
            .shard_index(shard)
            .map_or(0, |index| layout.slots_held(index));
        found.push(LayoutDifference::ShardRemoved {
            composite: composite.clone(),
            shard: shard.clone(),
            slots,
            of: layout.slot_count(),
        });
    }
    for shard in added {
        let (composite, shard) = (composite.clone(), shard.clone());
        found.push(LayoutDifference::ShardAdded { composite, shard });
    }
}

impl fmt::Display for LayoutDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Composite { layout, config } => write!(
                f,
                "the layout is of composite '{layout}', the config names it '{config}'; name it \
                 '{layout}' again, or run `breccia layout rename --config FILE {layout} {config}`"
            ),
            Self::Kind {
                composite,
                layout,
                config,
            } => write!(
                f,
                "'{composite}': the layout is of kind {}, the config's composite of kind {}; put \
                 the type back, or give the new composite another name",
                layout.name(),
                config.name()
            ),
            Self::Role {
                composite,
                layout: _,
                config,
            } => {
                let (was, change, mend) = match config {
                    Role::Inner => ("of its own", "lists it in another composite", "out of the"),
                    Role::Outer => ("inside another one", "lists it nowhere", "back into its"),
                };
                write!(
                    f,
                    "'{composite}': the layout was made for a composite {was}, the config \
                     {change}, which would place every key anew; take it {mend} other composite's \
                     `stores`, or, {}",
                    Adopt(composite)
                )
            }
            Self::Hash {
                composite,
                layout,
                config,
            } => write!(
                f,
                "'{composite}': the layout hashes with {layout}, the config says {config}; put \
                 back hash = \"{layout}\", or, {}",
                Adopt(composite)
            ),
            other => write_key_part(other, f),
        }
    }
}

fn write_key_part(difference: &LayoutDifference, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match difference {
        LayoutDifference::HashTag {
            composite,
            layout,
            config,
        } => write!(
            f,
            "'{composite}': the layout has {}, the config {}; {}, or, {}",
            Tag(*layout),
            Tag(*config),
            PutBack(*layout),
            Adopt(composite)
        ),
        LayoutDifference::PlacementKey {
            composite,
            layout,
            config,
        } => write!(
            f,
            "'{composite}': the layout has {}, the config {}; {}, or, {}",
            Rule(layout),
            Rule(config),
            PutRuleBack(layout),
            Adopt(composite)
        ),
        other => write_shard(other, f),
    }
}

fn write_shard(difference: &LayoutDifference, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match difference {
        LayoutDifference::ShardRenamed {
            composite,
            layout,
            config,
        } => write!(
            f,
            "'{composite}': the layout has shard '{layout}', the config has '{config}' instead; if \
             the store was renamed, run `breccia layout rename-shard --config FILE {composite} \
             {layout} {config}`, else put '{layout}' back into `stores`"
        ),
        LayoutDifference::ShardRemoved {
            composite,
            shard,
            slots,
            of,
        } => write!(
            f,
            "'{composite}': the layout has shard '{shard}' ({slots} of {of} slots), the config \
             does not list it; put it back into `stores`, or, if it was renamed, run `breccia \
             layout rename-shard --config FILE {composite} {shard} NEW-NAME`"
        ),
        LayoutDifference::ShardAdded { composite, shard } => write!(
            f,
            "'{composite}': the config lists shard '{shard}', the layout does not have it; take it \
             out of `stores`, or, if a shard was renamed to it, run `breccia layout rename-shard \
             --config FILE {composite} OLD-NAME {shard}`"
        ),
        _ => Ok(()),
    }
}

/// The mend of what places keys anew.
struct Adopt<'a>(&'a str);

impl fmt::Display for Adopt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "if its shards are empty, run `breccia layout adopt --config FILE {}`",
            self.0
        )
    }
}

struct Tag(Option<HashTag>);

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("no hash-tag"),
            Some(tag) => write!(f, "hash-tag \"{tag}\""),
        }
    }
}

struct PutBack(Option<HashTag>);

impl fmt::Display for PutBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("take `hash-tag` out of the config"),
            Some(tag) => write!(f, "put back hash-tag = \"{tag}\""),
        }
    }
}

struct Rule<'a>(&'a PlacementKey);

impl fmt::Display for Rule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "placement-key = \"{}\"", self.0.name())?;
        match self.0.prefix() {
            "" => Ok(()),
            prefix => write!(f, " with placement-prefix = \"{prefix}\""),
        }
    }
}

struct PutRuleBack<'a>(&'a PlacementKey);

impl fmt::Display for PutRuleBack<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            PlacementKey::Raw => f.write_str("take `placement-key` out of the config"),
            rule => write!(f, "put back {}", Rule(rule)),
        }
    }
}
