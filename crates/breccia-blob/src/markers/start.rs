//! Markers before a gateway serves: a lost layout is made again from them, and a start is refused
//! where a leaf that answers is not the one it should be.
//!
//! Not for leaves that do not answer: those are looked at before their first use. Invariant: no
//! store is written to from here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use breccia_core::layout::{Layout, LayoutSpec, Marker};
use breccia_net::layout_store::{LayoutStore, MarkerRecord};
use futures_util::stream::{StreamExt as _, iter};

use super::{Composite, MarkedLeaf, Unfit, look, marker_name};
use crate::store::StoreFuture;

/// How long one leaf may take to answer.
const LIMIT: Duration = Duration::from_secs(5);
/// How many leaves are asked at once.
const MAX_ASKED: usize = 64;

/// Makes the layouts that the state folder lost from the markers of leaves that answer: to be
/// called before layouts are opened.
///
/// # Errors
/// A line for each composite whose markers contradict each other or cannot be read.
pub async fn restore(composites: &[Composite], layouts: &LayoutStore) -> Result<(), Vec<String>> {
    let mut faults = Vec::new();
    for composite in composites {
        let restored = match layouts.load(&composite.name) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => restore_one(composite, layouts).await,
            Err(error) => Err(error.to_string()),
        };
        faults.extend(restored.err());
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults)
    }
}

async fn restore_one(composite: &Composite, layouts: &LayoutStore) -> Result<(), String> {
    let name = &composite.name;
    let found = read_all(composite).await?;
    let mut different: BTreeMap<String, (&Layout, Vec<&str>)> = BTreeMap::new();
    for (leaf, marker) in &found {
        let entry = different.entry(marker.layout().digest());
        let (_, leaves) = entry.or_insert((marker.layout(), Vec::new()));
        leaves.push(leaf);
    }
    if different.len() > 1 {
        let said = different.iter().map(|(digest, (layout, leaves))| {
            let epoch = layout.epoch();
            format!("{digest} (epoch {epoch}) on {}", leaves.join(", "))
        });
        return Err(format!(
            "'{name}' has no layout here, and its shards carry markers of several: {}; run \
             `breccia layout export --config FILE {name}` where the right one is in use, and here \
             `breccia layout import --config FILE DOCUMENT`",
            said.collect::<Vec<_>>().join("; ")
        ));
    }
    let Some((digest, (layout, _))) = different.into_iter().next() else {
        return Ok(());
    };
    let imported = layouts.import(&layout.to_document(), false);
    imported.map_err(|error| error.to_string())?;
    // Its shards were marked once: one that carries no marker now has lost it.
    for (shard, leaf) in &composite.leaves {
        let Some(marker) = Marker::new(layout, shard) else {
            continue;
        };
        let record = MarkerRecord {
            composite: name.clone(),
            digest: marker.digest(),
        };
        let recorded = layouts.record_marker(name, leaf.name(), record);
        recorded.map_err(|error| error.to_string())?;
    }
    tracing::warn!(
        composite = name,
        digest,
        "the layout was restored from the shards' markers"
    );
    Ok(())
}

/// The markers of one composite on every leaf that answers.
async fn read_all(composite: &Composite) -> Result<BTreeMap<String, Marker>, String> {
    let name = marker_name(&composite.name);
    let mut reads = Vec::new();
    for (_, leaf) in &composite.leaves {
        let name = &name;
        let read: StoreFuture<'_, _> = Box::pin(async move {
            let text = tokio::time::timeout(LIMIT, leaf.read_reserved(name)).await;
            Ok((leaf, text))
        });
        reads.push(read);
    }
    let mut reads = iter(reads).buffer_unordered(MAX_ASKED);
    let mut found = BTreeMap::new();
    while let Some(read) = reads.next().await {
        // Who does not answer is looked at when it does.
        if let Ok((leaf, Ok(Ok(Some(text))))) = read {
            let marker = Marker::from_text(&text);
            let marker = marker.map_err(|error| {
                let (composite, leaf) = (&composite.name, leaf.name());
                format!("'{composite}' has no layout here, and '{leaf}' carries a marker: {error}")
            })?;
            found.insert(leaf.name().to_owned(), marker);
        }
    }
    Ok(found)
}

/// What stands against making the layouts that do not exist yet: to be called between [`restore`]
/// and opening layouts, so that a start that is refused leaves no layout behind.
pub async fn first_refusals(
    composites: &[(&Composite, &LayoutSpec)],
    layouts: &LayoutStore,
) -> Vec<String> {
    let mut any_new = false;
    let mut wanted = BTreeMap::new();
    for (composite, spec) in composites {
        // What else is wrong with a layout is told when it is opened.
        let layout = match layouts.load(&composite.name) {
            Ok(Some(layout)) => Ok(layout),
            Ok(None) => {
                any_new = true;
                Layout::first(spec)
            }
            Err(_) => continue,
        };
        if let Ok(layout) = layout {
            wanted.insert(composite.name.clone(), Arc::new(layout));
        }
    }
    if !any_new {
        return Vec::new();
    }
    let all: Vec<Composite> = composites.iter().map(|(one, _)| (*one).clone()).collect();
    refusals(&MarkedLeaf::all(&all, &wanted), layouts).await
}

/// What the leaves that answer carry, held against the layouts: a line for each that must not be
/// used.
pub async fn refusals(leaves: &[MarkedLeaf], layouts: &LayoutStore) -> Vec<String> {
    let mut looks = Vec::new();
    for leaf in leaves {
        let looking: StoreFuture<'_, _> = Box::pin(async move {
            let seen = tokio::time::timeout(LIMIT, look(leaf, layouts)).await;
            Ok(match seen {
                Ok(Err(Unfit::Refused(line))) => Some(line),
                // Who does not answer is looked at when it does.
                Ok(Err(Unfit::Unread(_)) | Ok(_)) | Err(_) => None,
            })
        });
        looks.push(looking);
    }
    let mut looks = iter(looks).buffer_unordered(MAX_ASKED);
    let mut lines = Vec::new();
    while let Some(line) = looks.next().await {
        lines.extend(line.ok().flatten());
    }
    lines.sort();
    lines
}
