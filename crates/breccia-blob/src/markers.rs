//! Markers on blob shards: which leaf carries which, and what a leaf shows that is looked at.
//!
//! Not the verdict, which is the core's, and not the way of requests: see [`crate::guarded`].
//! Invariant: a marker is written only to a leaf that holds nothing yet, over an earlier one of
//! ours, or where an administrator says so.
//!
//! A start goes: [`restore`] (layouts that the state folder lost are made again), [`first_refusals`]
//! (before layouts are made that do not exist yet), the layouts are opened, [`refusals`] (leaves that answer are held against them), and from then on each leaf is
//! looked at before its first use, and again after each time it was unreachable.

mod start;
mod words;

use std::collections::BTreeMap;
use std::sync::Arc;

use breccia_core::layout::{Layout, Marker, Verdict};
use breccia_net::layout_store::{LayoutStore, MarkerRecord};
use bytes::Bytes;

use crate::error::BlobError;
use crate::listing::ListRequest;
use crate::store::{BlobStore, ReservedWrite};

pub use start::{first_refusals, refusals, restore};

/// What the names of markers begin with; the composite's name follows.
const MARKERS: &str = "marker/";
/// The reserved object that says how a member writes keys.
const KEY_MODE: &str = "keys";

/// The name of the reserved object that is a composite's marker.
#[must_use]
pub fn marker_name(composite: &str) -> String {
    format!("{MARKERS}{composite}")
}

/// A composite, and the leaves below each of its shards.
#[derive(Debug, Clone)]
pub struct Composite {
    /// Its name.
    pub name: String,
    /// Each leaf with the name of the shard it is, or lies below.
    pub leaves: Vec<(String, Arc<dyn BlobStore>)>,
}

impl Composite {
    /// A composite of these shards, which may be composites themselves.
    #[must_use]
    pub fn of(name: impl Into<String>, shards: &[Arc<dyn BlobStore>]) -> Self {
        let mut leaves = Vec::new();
        for shard in shards {
            let below = leaves_of(shard);
            leaves.extend(
                below
                    .into_iter()
                    .map(|leaf| (shard.name().to_owned(), leaf)),
            );
        }
        Self {
            name: name.into(),
            leaves,
        }
    }
}

/// The leaves below a store, or itself.
#[must_use]
pub fn leaves_of(store: &Arc<dyn BlobStore>) -> Vec<Arc<dyn BlobStore>> {
    let shards = store.shards();
    if shards.is_empty() {
        return vec![Arc::clone(store)];
    }
    shards.iter().flat_map(leaves_of).collect()
}

/// A leaf, and the markers it carries: one for each composite above it.
#[derive(Debug, Clone)]
pub struct MarkedLeaf {
    /// The leaf.
    pub leaf: Arc<dyn BlobStore>,
    /// What it carries, or shall carry.
    pub markers: Vec<Marker>,
}

impl MarkedLeaf {
    /// Every leaf of these composites, by name; `layouts` are by the name of their composite.
    #[must_use]
    pub fn all(composites: &[Composite], layouts: &BTreeMap<String, Arc<Layout>>) -> Vec<Self> {
        let mut leaves: BTreeMap<String, Self> = BTreeMap::new();
        for composite in composites {
            let Some(layout) = layouts.get(&composite.name) else {
                continue;
            };
            for (shard, leaf) in &composite.leaves {
                let entry = leaves.entry(leaf.name().to_owned());
                let marked = entry.or_insert_with(|| Self {
                    leaf: Arc::clone(leaf),
                    markers: Vec::new(),
                });
                marked.markers.extend(Marker::new(layout, shard));
            }
        }
        leaves.into_values().collect()
    }

    fn name(&self) -> &str {
        self.leaf.name()
    }
}

/// Why a leaf is not used.
#[derive(Debug, Clone)]
pub(crate) enum Unfit {
    /// Nothing was learnt of it.
    Unread(BlobError),
    /// It must not be used: what is wrong, and what mends it.
    Refused(String),
}

impl From<BlobError> for Unfit {
    fn from(error: BlobError) -> Self {
        Self::Unread(error)
    }
}

/// What is to be done about one marker of a leaf.
enum Task {
    /// It is right.
    Nothing,
    /// The leaf holds nothing, and may be given it.
    Write,
    /// It takes the place of an earlier one, which lay under this name.
    Replace(String),
}

/// Looks at every marker of a leaf and at how it writes keys. Nothing is written.
async fn look(leaf: &MarkedLeaf, layouts: &LayoutStore) -> Result<Vec<Task>, Unfit> {
    let mut tasks = Vec::with_capacity(leaf.markers.len());
    for marker in &leaf.markers {
        tasks.push(look_at(leaf, marker, layouts).await?);
    }
    let mode = kept_key_mode(leaf).await?;
    if let (Some(kept), Some(wanted)) = (&mode, leaf.leaf.key_mode())
        && kept != wanted
    {
        return Err(Unfit::Refused(words::other_key_mode(leaf, kept, wanted)));
    }
    Ok(tasks)
}

async fn look_at(leaf: &MarkedLeaf, marker: &Marker, layouts: &LayoutStore) -> Result<Task, Unfit> {
    let composite = marker.layout().composite();
    let known = record(layouts, leaf, marker);
    let digest = known.as_ref().map(|record| record.digest.as_str());
    let mut name = marker_name(composite);
    let mut found = leaf.leaf.read_reserved(&name).await?;
    if found.is_none()
        && let Some(known) = known.as_ref().filter(|known| known.composite != composite)
    {
        // Renamed since: the marker lies under the composite's former name.
        name = marker_name(&known.composite);
        found = leaf.leaf.read_reserved(&name).await?;
    }
    if found.is_none() {
        // Whose it is now says more than that ours is missing.
        refuse_foreign(leaf, marker).await?;
    }
    match marker.judge(found.as_deref(), digest, false) {
        Verdict::Right => Ok(Task::Nothing),
        Verdict::Replace => Ok(Task::Replace(name)),
        Verdict::Write => {
            refuse_full(leaf, marker).await?;
            Ok(Task::Write)
        }
        Verdict::Refuse(fault) => Err(Unfit::Refused(words::fault(leaf, marker, &fault))),
    }
}

/// A leaf that another composite has marked is not ours to mark.
async fn refuse_foreign(leaf: &MarkedLeaf, marker: &Marker) -> Result<(), Unfit> {
    let own: Vec<String> = leaf
        .markers
        .iter()
        .map(|marker| marker_name(marker.layout().composite()))
        .collect();
    match foreign(leaf, &own).await?.first() {
        None => Ok(()),
        Some(name) => {
            let other = name.strip_prefix(MARKERS).unwrap_or(name);
            Err(Unfit::Refused(words::foreign(leaf, marker, other)))
        }
    }
}

/// The markers on a leaf that are not among these.
async fn foreign(leaf: &MarkedLeaf, own: &[String]) -> Result<Vec<String>, BlobError> {
    let mut names = leaf.leaf.list_reserved(MARKERS, None).await?;
    names.retain(|name| !own.contains(name));
    Ok(names)
}

/// Objects that nobody has placed by this layout would not be found.
async fn refuse_full(leaf: &MarkedLeaf, marker: &Marker) -> Result<(), Unfit> {
    let one = ListRequest {
        limit: 1,
        ..ListRequest::default()
    };
    let page = leaf.leaf.list(one).await?;
    if page.items.is_empty() {
        return Ok(());
    }
    Err(Unfit::Refused(words::not_adopted(leaf, marker)))
}

async fn kept_key_mode(leaf: &MarkedLeaf) -> Result<Option<String>, Unfit> {
    if leaf.leaf.key_mode().is_none() {
        return Ok(None);
    }
    let kept = leaf.leaf.read_reserved(KEY_MODE).await?;
    Ok(kept.map(|text| String::from_utf8_lossy(&text).trim().to_owned()))
}

/// What was recorded of one leaf for a marker.
fn record(layouts: &LayoutStore, leaf: &MarkedLeaf, marker: &Marker) -> Option<MarkerRecord> {
    // An unreadable file is refused at start; later on, a look is as good as the first.
    let records = layouts.marker_records(marker.layout().composite()).ok()?;
    records.get(leaf.name()).cloned()
}

/// Looks at a leaf, and gives it the markers that it may be given.
pub(crate) async fn settle(leaf: &MarkedLeaf, layouts: &LayoutStore) -> Result<(), Unfit> {
    let tasks = look(leaf, layouts).await?;
    keep_key_mode(leaf).await?;
    for (marker, task) in leaf.markers.iter().zip(tasks) {
        let composite = marker.layout().composite();
        match task {
            Task::Nothing => {}
            Task::Write => write(leaf, marker, ReservedWrite::IfAbsent).await?,
            Task::Replace(name) => {
                write(leaf, marker, ReservedWrite::Always).await?;
                if name != marker_name(composite) {
                    leaf.leaf.delete_reserved(&name).await?;
                }
            }
        }
        remember(leaf, marker, layouts)?;
    }
    Ok(())
}

/// Before any marker: a leaf that is marked has its mode written down.
async fn keep_key_mode(leaf: &MarkedLeaf) -> Result<(), Unfit> {
    let Some(mode) = leaf.leaf.key_mode() else {
        return Ok(());
    };
    if kept_key_mode(leaf).await?.is_none() {
        let text = Bytes::from_static(mode.as_bytes());
        let written = leaf
            .leaf
            .write_reserved(KEY_MODE, text, ReservedWrite::IfAbsent)
            .await?;
        let kept = kept_key_mode(leaf).await?;
        if !written && kept.as_deref() != Some(mode) {
            let kept = kept.unwrap_or_default();
            return Err(Unfit::Refused(words::other_key_mode(leaf, &kept, mode)));
        }
    }
    Ok(())
}

async fn write(leaf: &MarkedLeaf, marker: &Marker, how: ReservedWrite) -> Result<(), Unfit> {
    let composite = marker.layout().composite();
    let name = marker_name(composite);
    let text = Bytes::from(marker.to_text());
    if leaf.leaf.write_reserved(&name, text, how).await? {
        let store = leaf.name();
        tracing::info!(
            store,
            composite,
            "the shard carries this layout's marker now"
        );
    }
    // Another gateway may have been faster, with the same marker or with another.
    let found = leaf.leaf.read_reserved(&name).await?;
    // No text has this digest: whatever is not the marker is refused, and so is nothing.
    match marker.judge(found.as_deref(), Some(""), false) {
        Verdict::Refuse(fault) => Err(Unfit::Refused(words::fault(leaf, marker, &fault))),
        Verdict::Right | Verdict::Write | Verdict::Replace => Ok(()),
    }
}

fn remember(leaf: &MarkedLeaf, marker: &Marker, layouts: &LayoutStore) -> Result<(), Unfit> {
    let composite = marker.layout().composite();
    let current = MarkerRecord {
        composite: composite.to_owned(),
        digest: marker.digest(),
    };
    if record(layouts, leaf, marker).as_ref() == Some(&current) {
        return Ok(());
    }
    let recorded = layouts.record_marker(composite, leaf.name(), current);
    recorded.map_err(|error| Unfit::Refused(error.to_string()))
}

/// Gives a leaf its markers because an administrator says so, or because its keys were checked:
/// over others only if `replace`.
///
/// # Errors
/// A line that says what stands against it.
pub async fn mark(leaf: &MarkedLeaf, layouts: &LayoutStore, replace: bool) -> Result<(), String> {
    let how = if replace {
        ReservedWrite::Always
    } else {
        ReservedWrite::IfAbsent
    };
    let mark = async {
        if !replace && let Some(marker) = leaf.markers.first() {
            refuse_foreign(leaf, marker).await?;
        }
        keep_key_mode(leaf).await?;
        for marker in &leaf.markers {
            write(leaf, marker, how).await?;
            remember(leaf, marker, layouts)?;
        }
        if replace {
            // Whoever used it before must see that it is no longer theirs.
            let own = leaf.markers.iter();
            let own = own.map(|marker| marker_name(marker.layout().composite()));
            for name in foreign(leaf, &own.collect::<Vec<_>>()).await? {
                leaf.leaf.delete_reserved(&name).await?;
            }
        }
        Ok(())
    };
    mark.await.map_err(|unfit| match unfit {
        Unfit::Unread(error) => words::unread(leaf, &error),
        Unfit::Refused(line) => line,
    })
}
