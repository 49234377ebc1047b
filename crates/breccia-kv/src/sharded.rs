//! The sharded composite of the typed interface: each key lives on the member its layout names.
//!
//! Not the forwarding path (`topology.rs` flattens composites for that), and no wire format. It is
//! a store itself, so composites nest. Invariant: a key's member is decided by the layout alone,
//! never by which members answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use breccia_core::layout::{CompositeKind, Layout, LayoutSpec, Role};
use breccia_core::{HashKind, HashTag};
use breccia_net::layout_store::{LayoutStore, open_layout};
use bytes::Bytes;

use crate::entry::{Operation, Outcome};
use crate::error::{KvError, Part};
use crate::join;
use crate::scan_cursor::{ScanCursor, check_of};
use crate::store::{Capabilities, KeyedOperation, KvStore, ScanPage, ScanRequest, StoreFuture};

/// What a composite's layout shall be. What is not set has its default.
#[derive(Clone, Debug)]
pub struct ShardedOptions {
    /// The composite's name; its layout is kept under it.
    pub name: String,
    /// The hash function.
    pub hash: HashKind,
    /// The hash tag, if keys are hashed by a part of them.
    pub hash_tag: Option<HashTag>,
    /// Whether another composite will hold this one.
    pub role: Role,
    /// The digest the layout must have, if it is pinned.
    pub layout_digest: Option<String>,
}

impl ShardedOptions {
    /// The plain rule: `xxh3_64(key) mod n`, in the order in which the members are first given.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            hash: HashKind::default(),
            hash_tag: None,
            role: Role::Outer,
            layout_digest: None,
        }
    }
}

/// A store made of stores.
#[derive(Debug)]
pub struct ShardedKv {
    layout: Arc<Layout>,
    capabilities: Capabilities,
    /// In the order of the layout's shards.
    members: Vec<Arc<dyn KvStore>>,
    check: u64,
}

/// One member's part of a request for many keys.
struct Portion<'a> {
    member: usize,
    requests: Vec<KeyedOperation<'a>>,
    /// Where each outcome belongs in the whole.
    places: Vec<usize>,
}

impl ShardedKv {
    /// Opens a composite: makes its layout the first time, and from then on refuses members that
    /// do not fit it. `layouts` is where layouts are kept; a program that wants to forget them
    /// says so with [`LayoutStore::ephemeral`].
    ///
    /// # Errors
    /// [`KvError::Layout`] says what differs and what mends it.
    pub fn open(
        layouts: &LayoutStore,
        options: &ShardedOptions,
        members: Vec<Arc<dyn KvStore>>,
    ) -> Result<Self, KvError> {
        let spec = LayoutSpec {
            composite: options.name.clone(),
            kind: CompositeKind::InMemory,
            hash: options.hash,
            hash_tag: options.hash_tag,
            placement_key: breccia_core::PlacementKey::Raw,
            role: options.role,
            shards: members
                .iter()
                .map(|member| member.capabilities().name.clone())
                .collect(),
        };
        let pinned = options.layout_digest.as_deref();
        let layout =
            open_layout(layouts, &spec, pinned, &addresses(&members)).map_err(|source| {
                KvError::Layout {
                    composite: options.name.clone(),
                    source: Arc::new(source),
                }
            })?;
        Self::new(layout, members)
    }

    /// A composite with a layout that was opened before; members may come in any order.
    ///
    /// # Errors
    /// [`KvError::Members`] if they are not the layout's shards.
    pub fn new(layout: Arc<Layout>, members: Vec<Arc<dyn KvStore>>) -> Result<Self, KvError> {
        let wrong = |problem| KvError::Members {
            composite: layout.composite().into(),
            problem,
        };
        let count = members.len();
        let mut by_name: BTreeMap<String, Arc<dyn KvStore>> = members
            .into_iter()
            .map(|member| (member.capabilities().name.clone(), member))
            .collect();
        if by_name.len() != count {
            return Err(wrong("was given two members of one name".into()));
        }
        let mut members = Vec::with_capacity(count);
        for shard in layout.shards() {
            let member = by_name.remove(shard);
            members.push(member.ok_or_else(|| wrong(format!("has no member '{shard}'")))?);
        }
        if let Some(name) = by_name.keys().next() {
            return Err(wrong(format!("has no shard '{name}' in its layout")));
        }
        let leaves = members
            .iter()
            .flat_map(|member| member.capabilities().leaves.iter().cloned())
            .collect::<Vec<_>>();
        let check = check_of(leaves.iter().map(|leaf| leaf.name.as_str()));
        let name = layout.composite().to_owned();
        let capabilities = Capabilities {
            name,
            composite: true,
            leaves,
        };
        Ok(Self {
            layout,
            capabilities,
            members,
            check,
        })
    }

    /// The layout in force.
    #[must_use]
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    fn name(&self) -> &str {
        &self.capabilities.name
    }

    fn index_of(&self, key: &[u8]) -> usize {
        usize::from(self.layout.place(key).shard.get())
    }

    fn member(&self, index: usize) -> &dyn KvStore {
        &**self
            .members
            .get(index)
            .expect("there is a member for each shard of the layout")
    }

    fn split<'a>(&self, requests: &'a [KeyedOperation<'a>]) -> Vec<Portion<'a>> {
        let mut portions: BTreeMap<usize, Portion<'a>> = BTreeMap::new();
        for (place, request) in requests.iter().enumerate() {
            let member = self.index_of(request.key);
            let portion = portions.entry(member).or_insert_with(|| Portion {
                member,
                requests: Vec::new(),
                places: Vec::new(),
            });
            portion.requests.push(*request);
            portion.places.push(place);
        }
        portions.into_values().collect()
    }

    async fn apply_portions(
        &self,
        requests: &[KeyedOperation<'_>],
    ) -> Result<Vec<Outcome>, KvError> {
        if let Some(refusal) = requests.iter().find_map(|request| self.refusal(request)) {
            return Err(refusal);
        }
        let portions = self.split(requests);
        if let [portion] = &portions[..] {
            let answer = self
                .member(portion.member)
                .apply_each(&portion.requests)
                .await;
            return answer.map_err(|error| error.within(self.name()));
        }
        let futures = portions
            .iter()
            .map(|portion| self.member(portion.member).apply_each(&portion.requests))
            .collect();
        let answers = join::all(futures).await;
        if answers.iter().any(Result::is_err) {
            let parts = portions.iter().zip(answers).flat_map(|(portion, answer)| {
                let keys = portion
                    .requests
                    .iter()
                    .map(|request| request.key.to_vec())
                    .collect();
                let writes = portion
                    .requests
                    .iter()
                    .any(|request| request.operation.writes());
                self.parts(portion.member, keys, writes, answer.err())
            });
            return Err(KvError::Partial {
                parts: parts.collect(),
            }
            .within(self.name()));
        }
        let mut whole: Vec<Option<Outcome>> = vec![None; requests.len()];
        for (portion, answer) in portions.iter().zip(answers) {
            for (place, outcome) in portion.places.iter().zip(answer.into_iter().flatten()) {
                if let Some(slot) = whole.get_mut(*place) {
                    *slot = Some(outcome);
                }
            }
        }
        let whole: Option<Vec<Outcome>> = whole.into_iter().collect();
        Ok(whole.expect("a member answers each of its operations"))
    }

    /// What became of one member's part. A member that is a composite says it in more parts.
    fn parts(
        &self,
        member: usize,
        keys: Vec<Vec<u8>>,
        writes: bool,
        error: Option<KvError>,
    ) -> Vec<Part> {
        if let Some(KvError::Partial { parts }) = error {
            return parts;
        }
        let store = self.member(member).capabilities().name.clone();
        vec![Part {
            store,
            keys,
            writes,
            error: error.map(Arc::new),
        }]
    }

    /// Asks every member the same, at once. If one fails, the whole does.
    async fn ask_all<'a, T: Send + Unpin>(
        &'a self,
        writes: bool,
        ask: impl Fn(&'a dyn KvStore) -> StoreFuture<'a, T>,
    ) -> Result<Vec<T>, KvError> {
        let futures = self.members.iter().map(|member| ask(&**member)).collect();
        let answers = join::all(futures).await;
        if answers.iter().all(Result::is_ok) {
            return Ok(answers.into_iter().flatten().collect());
        }
        let parts = answers
            .into_iter()
            .enumerate()
            .flat_map(|(member, answer)| self.parts(member, Vec::new(), writes, answer.err()));
        Err(KvError::Partial {
            parts: parts.collect(),
        }
        .within(self.name()))
    }

    async fn scan_from(&self, request: ScanRequest<'_>) -> Result<ScanPage, KvError> {
        let leaves = self.capabilities.leaves.len();
        let cursor = ScanCursor::decode(request.cursor, self.check, leaves);
        let (index, first_leaf) = self.owner_of_leaf(cursor.leaf);
        let member = self.member(index);
        let inner = member.capabilities();
        let inside = ScanCursor {
            leaf: cursor.leaf - first_leaf,
            ..cursor
        };
        let check = check_of(inner.leaves.iter().map(|leaf| leaf.name.as_str()));
        let member_cursor = match (inner.composite, inside) {
            (false, _) => cursor.upstream,
            (
                true,
                ScanCursor {
                    leaf: 0,
                    upstream: 0,
                },
            ) => 0,
            (true, _) => inside.encode(check).unwrap_or(0),
        };
        let page = member
            .scan(ScanRequest {
                cursor: member_cursor,
                ..request
            })
            .await
            .map_err(|error| error.within(self.name()))?;
        let after = first_leaf + inner.leaves.len();
        let next = match (page.cursor, inner.composite) {
            (0, _) if after == leaves => {
                return Ok(ScanPage { cursor: 0, ..page });
            }
            (0, _) => ScanCursor {
                leaf: after,
                upstream: 0,
            },
            (value, false) => ScanCursor {
                leaf: first_leaf,
                upstream: value,
            },
            (value, true) => {
                let inside = ScanCursor::decode(value, check, inner.leaves.len());
                ScanCursor {
                    leaf: first_leaf + inside.leaf,
                    ..inside
                }
            }
        };
        let cursor = next.encode(self.check).ok_or_else(|| {
            let store = inner.name.clone();
            KvError::CursorTooLarge {
                store,
                cursor: page.cursor,
            }
            .within(self.name())
        })?;
        Ok(ScanPage { cursor, ..page })
    }

    /// The member that a leaf belongs to, and that member's first leaf.
    fn owner_of_leaf(&self, leaf: usize) -> (usize, usize) {
        let mut first = 0;
        for (index, member) in self.members.iter().enumerate() {
            let count = member.capabilities().leaves.len();
            if leaf < first + count {
                return (index, first);
            }
            first += count;
        }
        (0, 0)
    }

    /// A key of a member chosen by how many keys each has, so all keys are equally likely.
    async fn any_key(&self, seed: u64) -> Result<Option<Bytes>, KvError> {
        let counts = self.ask_all(false, |member| member.key_count()).await?;
        let total: u64 = counts.iter().sum();
        let mut left = seed.checked_rem(total).unwrap_or(0);
        let mut chosen = 0;
        for (index, count) in counts.iter().enumerate() {
            chosen = index;
            if left < *count {
                break;
            }
            left -= count;
        }
        let seed = breccia_core::hash::splitmix64(seed);
        // The chosen member may have lost its keys since they were counted.
        for step in 0..self.members.len() {
            let member = self.member((chosen + step) % self.members.len());
            let key = member
                .random_key(seed)
                .await
                .map_err(|error| error.within(self.name()))?;
            if key.is_some() {
                return Ok(key);
            }
        }
        Ok(None)
    }
}

/// The address of each member that has one.
fn addresses(members: &[Arc<dyn KvStore>]) -> BTreeMap<String, String> {
    let single = |member: &Arc<dyn KvStore>| match member.capabilities() {
        Capabilities {
            name,
            composite: false,
            leaves,
        } => {
            let address = leaves.first()?.address.clone()?;
            Some((name.clone(), address))
        }
        Capabilities { .. } => None,
    };
    members.iter().filter_map(single).collect()
}

impl KvStore for ShardedKv {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn refusal(&self, request: &KeyedOperation<'_>) -> Option<KvError> {
        let member = self.member(self.index_of(request.key));
        member
            .refusal(request)
            .map(|error| error.within(self.name()))
    }

    fn apply<'a>(
        &'a self,
        key: &'a [u8],
        operations: &'a [Operation<'a>],
    ) -> StoreFuture<'a, Vec<Outcome>> {
        let future = self.member(self.index_of(key)).apply(key, operations);
        Box::pin(async move { future.await.map_err(|error| error.within(self.name())) })
    }

    fn apply_each<'a>(
        &'a self,
        requests: &'a [KeyedOperation<'a>],
    ) -> StoreFuture<'a, Vec<Outcome>> {
        Box::pin(self.apply_portions(requests))
    }

    fn scan<'a>(&'a self, request: ScanRequest<'a>) -> StoreFuture<'a, ScanPage> {
        Box::pin(self.scan_from(request))
    }

    fn key_count(&self) -> StoreFuture<'_, u64> {
        Box::pin(async move {
            let counts = self.ask_all(false, |member| member.key_count()).await?;
            Ok(counts.into_iter().sum())
        })
    }

    fn flush(&self) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.ask_all(true, |member| member.flush()).await?;
            Ok(())
        })
    }

    fn random_key(&self, seed: u64) -> StoreFuture<'_, Option<Bytes>> {
        Box::pin(self.any_key(seed))
    }
}

#[cfg(test)]
mod tests;
