//! Opening a composite from Rust: its layout, its members, and their markers.
//!
//! Not what the binary does, which opens all composites of a configuration together, with the same
//! parts. Invariant: no member is used before its markers were seen right, also one that is down
//! while the composite is opened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use breccia_core::layout::{CompositeKind, Layout, LayoutSpec, Role};
use breccia_core::{HashKind, HashTag, PlacementKey};
use breccia_net::layout_store::{LayoutRequest, LayoutStore, open_layouts};

use futures_util::stream::{StreamExt as _, iter};

use super::ShardedBlob;
use crate::error::BlobError;
use crate::guarded::Guarded;
use crate::markers::{Composite, MarkedLeaf, first_refusals, refusals, restore};
use crate::store::{BlobStore, StoreFuture, StoreKind};

/// How many leaves are looked at at once.
const MAX_LOOKED: usize = 64;

/// What a composite's layout shall be. What is not set has its default.
#[derive(Clone, Debug)]
pub struct ShardedBlobOptions {
    /// The composite's name; its layout and its markers are kept under it.
    pub name: String,
    /// The hash function.
    pub hash: HashKind,
    /// The hash tag, if keys are hashed by a part of them.
    pub hash_tag: Option<HashTag>,
    /// What of a key is hashed.
    pub placement_key: PlacementKey,
    /// The digest the layout must have, if it is pinned.
    pub layout_digest: Option<String>,
}

impl ShardedBlobOptions {
    /// The plain rule: `xxh3_64(key) mod n`, in the order in which the members are first given.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            hash: HashKind::default(),
            hash_tag: None,
            placement_key: PlacementKey::Raw,
            layout_digest: None,
        }
    }
}

/// A member of a composite that is to be opened.
#[derive(Debug, Clone)]
pub enum Member {
    /// A store that is none of ours to open: a leaf.
    Leaf(Arc<dyn BlobStore>),
    /// A composite, opened together with the one above it: its leaves carry both markers.
    Composite(ShardedBlobOptions, Vec<Member>),
}

impl From<Arc<dyn BlobStore>> for Member {
    fn from(leaf: Arc<dyn BlobStore>) -> Self {
        Self::Leaf(leaf)
    }
}

impl<T: BlobStore + 'static> From<Arc<T>> for Member {
    fn from(leaf: Arc<T>) -> Self {
        Self::Leaf(leaf)
    }
}

impl Member {
    fn name(&self) -> &str {
        match self {
            Self::Leaf(leaf) => leaf.name(),
            Self::Composite(options, _) => &options.name,
        }
    }

    fn leaves(&self) -> Vec<Arc<dyn BlobStore>> {
        match self {
            Self::Leaf(leaf) => vec![Arc::clone(leaf)],
            Self::Composite(_, members) => members.iter().flat_map(Self::leaves).collect(),
        }
    }
}

/// What one composite of a tree asks for.
struct Asked {
    composite: Composite,
    spec: LayoutSpec,
    pinned_digest: Option<String>,
    addresses: BTreeMap<String, String>,
}

impl Asked {
    fn request(&self) -> LayoutRequest<'_> {
        LayoutRequest {
            spec: &self.spec,
            pinned_digest: self.pinned_digest.as_deref(),
            addresses: &self.addresses,
        }
    }
}

/// What the composites of a tree ask for, the outermost first.
fn ask(options: &ShardedBlobOptions, role: Role, members: &[Member]) -> Vec<Asked> {
    let below = |member: &Member| {
        let name = member.name().to_owned();
        let leaves = member.leaves().into_iter();
        leaves.map(move |leaf| (name.clone(), leaf))
    };
    let address = |member: &Member| match member {
        Member::Leaf(leaf) => Some((leaf.name().to_owned(), leaf.location()?)),
        Member::Composite(..) => None,
    };
    let mut asked = vec![Asked {
        composite: Composite {
            name: options.name.clone(),
            leaves: members.iter().flat_map(below).collect(),
        },
        spec: LayoutSpec {
            composite: options.name.clone(),
            kind: CompositeKind::Blob,
            hash: options.hash,
            hash_tag: options.hash_tag,
            placement_key: options.placement_key.clone(),
            role,
            shards: members
                .iter()
                .map(|member| member.name().to_owned())
                .collect(),
        },
        pinned_digest: options.layout_digest.clone(),
        addresses: members.iter().filter_map(address).collect(),
    }];
    for member in members {
        if let Member::Composite(options, members) = member {
            asked.extend(ask(options, Role::Inner, members));
        }
    }
    asked
}

impl ShardedBlob {
    /// Opens a composite: makes its layout the first time, gives its leaves their markers, and from
    /// then on refuses members that do not fit. `layouts` is where layouts are kept; a program that
    /// wants to forget them says so with [`LayoutStore::ephemeral`], and is guarded by the markers.
    ///
    /// # Errors
    /// [`BlobError::Layout`] and [`BlobError::Members`] say what differs and what mends it.
    pub async fn open(
        layouts: &Arc<LayoutStore>,
        options: ShardedBlobOptions,
        members: Vec<Member>,
    ) -> Result<Self, BlobError> {
        let wrong = |problem: String| BlobError::Members {
            composite: options.name.clone(),
            problem,
        };
        let refused = |lines: Vec<String>| wrong(format!("cannot be opened: {}", lines.join("\n")));
        let asked = ask(&options, Role::Outer, &members);
        check_names(&asked).map_err(wrong)?;
        let composites: Vec<Composite> = asked.iter().map(|one| one.composite.clone()).collect();
        restore(&composites, layouts).await.map_err(refused)?;
        let specs: Vec<_> = asked
            .iter()
            .map(|one| (&one.composite, &one.spec))
            .collect();
        let lines = first_refusals(&specs, layouts).await;
        if !lines.is_empty() {
            return Err(refused(lines));
        }
        let opened = open_all(&asked, layouts, refused)?;
        let marked = MarkedLeaf::all(&composites, &opened);
        let lines = refusals(&marked, layouts).await;
        if !lines.is_empty() {
            return Err(refused(lines));
        }
        let guarded = guards(marked, layouts).await;
        build(&options.name, &members, &opened, &guarded)
    }
}

type Guards = BTreeMap<String, Arc<Guarded>>;

/// Each leaf behind its guard, looked at once.
async fn guards(leaves: Vec<MarkedLeaf>, layouts: &Arc<LayoutStore>) -> Guards {
    let mut looks: Vec<StoreFuture<'_, (String, Arc<Guarded>)>> = Vec::with_capacity(leaves.len());
    for leaf in leaves {
        looks.push(Box::pin(async move {
            let name = leaf.leaf.name().to_owned();
            let guard = Guarded::new(leaf, Arc::clone(layouts));
            // Who does not answer is looked at again with the first request.
            if let Err(error) = guard.look().await {
                tracing::warn!(%error, "a shard cannot be used yet");
            }
            Ok((name, Arc::new(guard)))
        }));
    }
    let looked = iter(looks).buffer_unordered(MAX_LOOKED);
    looked
        .filter_map(|guard| std::future::ready(guard.ok()))
        .collect()
        .await
}

fn build(
    name: &str,
    members: &[Member],
    layouts: &BTreeMap<String, Arc<Layout>>,
    guards: &Guards,
) -> Result<ShardedBlob, BlobError> {
    let mut stores: Vec<Arc<dyn BlobStore>> = Vec::with_capacity(members.len());
    for member in members {
        match member {
            Member::Leaf(leaf) => {
                let guard = guards.get(leaf.name()).map(Arc::clone);
                stores.extend(guard.map(|guard| guard as Arc<dyn BlobStore>));
            }
            Member::Composite(options, members) => {
                stores.push(Arc::new(build(&options.name, members, layouts, guards)?));
            }
        }
    }
    let layout = layouts.get(name).map(Arc::clone);
    let layout = layout.ok_or_else(|| BlobError::Members {
        composite: name.to_owned(),
        problem: "has no layout".to_owned(),
    })?;
    ShardedBlob::new(layout, stores)
}

/// Names must tell leaves and composites apart, and a leaf must be one.
fn check_names(asked: &[Asked]) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for one in asked {
        if !seen.insert(one.composite.name.clone()) {
            let name = &one.composite.name;
            return Err(format!("is made of two composites of the name '{name}'"));
        }
    }
    for (_, leaf) in asked.iter().take(1).flat_map(|one| &one.composite.leaves) {
        let name = leaf.name();
        if leaf.kind() == StoreKind::Sharded {
            return Err(format!(
                "was given the composite '{name}' as a leaf; give it as Member::Composite, so that \
                 its leaves carry both markers"
            ));
        }
        if !seen.insert(name.to_owned()) {
            return Err(format!("is made of two stores of the name '{name}'"));
        }
    }
    Ok(())
}

fn open_all(
    asked: &[Asked],
    layouts: &LayoutStore,
    refused: impl Fn(Vec<String>) -> BlobError,
) -> Result<BTreeMap<String, Arc<Layout>>, BlobError> {
    let requests: Vec<LayoutRequest<'_>> = asked.iter().map(Asked::request).collect();
    let opened = open_layouts(layouts, &requests).map_err(|mut sources| {
        if sources.len() > 1 {
            return refused(sources.iter().map(ToString::to_string).collect());
        }
        match sources.pop().map(Arc::new) {
            Some(source) => BlobError::Layout { source },
            None => refused(Vec::new()),
        }
    })?;
    let named = opened.into_iter();
    Ok(named
        .map(|layout| (layout.composite().to_owned(), layout))
        .collect())
}
