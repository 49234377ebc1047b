//! Adoption: whether objects that others have placed lie where a layout looks for them.
//!
//! Not moving any. Invariant: a composite is accepted only if every object of every leaf was seen to
//! lie where the layout puts it; the memory this takes does not depend on how many there are.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use breccia_core::layout::Layout;
use breccia_net::layout_store::LayoutStore;

use crate::error::BlobError;
use crate::key::Key;
use crate::listing::{ListItem, ListRequest, MAX_PAGE, check_page};
use crate::markers::{Composite, MarkedLeaf, mark};
use crate::store::BlobStore;

/// The most misplaced objects of a leaf that are named.
pub const MAX_EXAMPLES: usize = 10;

/// An object on another shard than the layout puts it on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MisplacedObject {
    /// Its key.
    pub key: Key,
    /// The shard it belongs on.
    pub belongs: String,
}

/// What was found on one leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafReport {
    /// The shard it is, or lies below.
    pub shard: String,
    /// The leaf.
    pub leaf: String,
    /// How many objects it holds.
    pub objects: u64,
    /// How many of them belong on another shard.
    pub misplaced: u64,
    /// Some of those: at most [`MAX_EXAMPLES`].
    pub examples: Vec<MisplacedObject>,
}

/// What was found on the leaves of a composite.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AdoptionReport {
    /// Each leaf.
    pub leaves: Vec<LeafReport>,
}

impl AdoptionReport {
    /// How many objects there are.
    #[must_use]
    pub fn objects(&self) -> u64 {
        self.leaves.iter().map(|leaf| leaf.objects).sum()
    }

    /// How many of them lie on the wrong shard.
    #[must_use]
    pub fn misplaced(&self) -> u64 {
        self.leaves.iter().map(|leaf| leaf.misplaced).sum()
    }

    /// Whether every object lies where the layout looks for it.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.misplaced() == 0
    }
}

impl fmt::Display for AdoptionReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for leaf in &self.leaves {
            let (name, objects, misplaced) = (&leaf.leaf, leaf.objects, leaf.misplaced);
            writeln!(
                formatter,
                "{name}: {objects} objects, {misplaced} misplaced"
            )?;
            for example in &leaf.examples {
                let (key, belongs) = (&example.key, &example.belongs);
                writeln!(formatter, "  {key} belongs on '{belongs}'")?;
            }
        }
        Ok(())
    }
}

/// Why a composite could not be adopted, beside what the report says.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AdoptionError {
    /// A leaf could not be listed.
    #[error("the objects could not be counted: {source}")]
    Scan {
        /// Why.
        #[source]
        source: BlobError,
    },
    /// A leaf could not be given its marker.
    #[error("{problem}")]
    Mark {
        /// Why.
        problem: String,
    },
}

/// Holds every object of every leaf against the layout. `progress` is told now and then how many
/// objects of a leaf have been seen.
///
/// # Errors
/// Those of the leaves' listings: every leaf must answer.
pub async fn scan(
    layout: &Layout,
    composite: &Composite,
    progress: &mut (dyn FnMut(&str, u64) + Send),
) -> Result<AdoptionReport, BlobError> {
    let mut report = AdoptionReport::default();
    for (shard, leaf) in &composite.leaves {
        let scanned = scan_leaf(layout, shard, &**leaf, progress).await;
        report
            .leaves
            .push(scanned.map_err(|error| error.within(&composite.name))?);
    }
    Ok(report)
}

async fn scan_leaf(
    layout: &Layout,
    shard: &str,
    leaf: &dyn BlobStore,
    progress: &mut (dyn FnMut(&str, u64) + Send),
) -> Result<LeafReport, BlobError> {
    let mut report = LeafReport {
        shard: shard.to_owned(),
        leaf: leaf.name().to_owned(),
        objects: 0,
        misplaced: 0,
        examples: Vec::new(),
    };
    let mut request = ListRequest {
        limit: MAX_PAGE,
        ..ListRequest::default()
    };
    loop {
        let page = leaf.list(request.clone()).await?;
        check_page(leaf.name(), &request, &page)?;
        for item in &page.items {
            if let ListItem::Object(object) = item {
                report.count(layout, &object.key);
            }
        }
        progress(leaf.name(), report.objects);
        match page.items.last() {
            Some(last) if page.more => request.after = Some(last.name().to_vec().into()),
            _ => return Ok(report),
        }
    }
}

impl LeafReport {
    fn count(&mut self, layout: &Layout, key: &Key) {
        self.objects = self.objects.saturating_add(1);
        let belongs = layout.shard_name(layout.place(key.as_bytes()).shard);
        if belongs == Some(self.shard.as_str()) {
            return;
        }
        self.misplaced = self.misplaced.saturating_add(1);
        if self.examples.len() < MAX_EXAMPLES {
            self.examples.push(MisplacedObject {
                key: key.clone(),
                belongs: belongs.unwrap_or_default().to_owned(),
            });
        }
    }
}

/// Scans, and if every object lies where it belongs gives the leaves the composite's marker. Leaves
/// are given as they are, not behind their guards.
///
/// # Errors
/// [`AdoptionError`]. A report with misplaced objects is none: nothing was marked then.
pub async fn adopt(
    layout: &Arc<Layout>,
    composite: &Composite,
    layouts: &LayoutStore,
    progress: &mut (dyn FnMut(&str, u64) + Send),
) -> Result<AdoptionReport, AdoptionError> {
    let report = scan(layout, composite, progress)
        .await
        .map_err(|source| AdoptionError::Scan { source })?;
    if report.is_accepted() {
        let named = BTreeMap::from([(composite.name.clone(), Arc::clone(layout))]);
        for leaf in MarkedLeaf::all(std::slice::from_ref(composite), &named) {
            let marked = mark(&leaf, layouts, false).await;
            marked.map_err(|problem| AdoptionError::Mark { problem })?;
        }
    }
    Ok(report)
}
