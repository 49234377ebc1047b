//! Markers before a gateway serves: a lost layout is made again from them, and a start is refused
//! where a shard that answers is not the one it should be.
//!
//! Not for shards that do not answer: those are looked at before their first use. Invariant: no
//! store is written to from here.

use std::collections::BTreeMap;
use std::time::Duration;

use breccia_config::Plan;
use breccia_core::layout::{Layout, Marker, Verdict};
use breccia_kv::identity::marker_key;
use breccia_net::layout_store::{LayoutStore, MarkerRecord};

use super::{MarkedLeaf, composites, explained_to, look, record};
use crate::loading::{Given, Layouts};
use crate::reach::{Target, command};

/// How long all shards together may take to answer.
const LIMIT: Duration = Duration::from_secs(3);

/// Makes the layouts that the state folder lost from the markers of shards that answer. The error
/// says where markers contradict each other.
pub(crate) async fn restore(
    plan: &Plan,
    layouts: &LayoutStore,
    given: Option<Given<'_>>,
) -> Result<(), Vec<String>> {
    let mut faults = Vec::new();
    for composite in composites(plan) {
        match layouts.load(composite) {
            Ok(Some(_)) => {}
            Ok(None) => {
                if let Err(fault) = restore_one(plan, layouts, composite).await {
                    let told = given.map(|given| given.with_arguments(&fault));
                    faults.push(told.unwrap_or(fault));
                }
            }
            Err(error) => faults.push(error.to_string()),
        }
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults)
    }
}

async fn restore_one(plan: &Plan, layouts: &LayoutStore, composite: &str) -> Result<(), String> {
    let found = read_all(plan, composite).await?;
    let mut different: BTreeMap<String, (&Layout, Vec<&str>)> = BTreeMap::new();
    for (leaf, marker) in &found {
        let entry = different.entry(marker.layout().digest());
        entry
            .or_insert((marker.layout(), Vec::new()))
            .1
            .push(leaf.as_str());
    }
    if different.len() > 1 {
        let said = different
            .iter()
            .map(|(digest, (_, leaves))| format!("{digest} on {}", leaves.join(", ")));
        return Err(format!(
            "'{composite}' has no layout here, and its shards carry markers of several: {}; run \
             `breccia layout export --config FILE {composite}` where the right one is in use, and \
             here `breccia layout import --config FILE DOCUMENT`",
            said.collect::<Vec<_>>().join("; ")
        ));
    }
    let Some((digest, (layout, _))) = different.into_iter().next() else {
        return Ok(());
    };
    let imported = layouts.import(&layout.to_document(), false);
    imported.map_err(|error| error.to_string())?;
    // Its shards were marked once: one that carries no marker now has lost it.
    for shard in layout.shards() {
        for (leaf, _) in plan.leaves(shard) {
            let Some(marker) = Marker::new(layout, shard) else {
                continue;
            };
            let record = MarkerRecord {
                composite: composite.to_owned(),
                digest: marker.digest(),
            };
            let recorded = layouts.record_marker(composite, leaf, record);
            recorded.map_err(|error| error.to_string())?;
        }
    }
    tracing::warn!(
        composite,
        digest,
        "the layout was restored from the shards' markers"
    );
    Ok(())
}

/// The markers of one composite on every leaf that answers.
async fn read_all(plan: &Plan, composite: &str) -> Result<BTreeMap<String, Marker>, String> {
    let mut tasks = tokio::task::JoinSet::new();
    for (leaf, store) in plan.leaves(composite) {
        let target = Target::of(store).map_err(|error| format!("store.{leaf}: {error}"))?;
        let Some(target) = target else {
            continue;
        };
        let (leaf, key) = (leaf.to_owned(), marker_key(composite));
        let reading = async move {
            let mut peer = target.enter().await?;
            peer.ask_for_bytes(&command(&[b"GET", &key])).await
        };
        tasks.spawn(async move { (leaf, tokio::time::timeout(LIMIT, reading).await) });
    }
    let mut found = BTreeMap::new();
    for (leaf, read) in tasks.join_all().await {
        if let Ok(Ok(Some(text))) = read {
            let marker = Marker::from_text(&text).map_err(|error| format!("'{leaf}': {error}"))?;
            found.insert(leaf, marker);
        }
    }
    Ok(found)
}

/// What the shards that answer carry, held against the layouts: a line for each that must not be
/// used.
pub(crate) async fn refusals(
    plan: &Plan,
    layouts: &Layouts,
    store: &LayoutStore,
    given: Option<Given<'_>>,
) -> Result<Vec<String>, breccia_net::NetError> {
    let mut tasks = tokio::task::JoinSet::new();
    for leaf in MarkedLeaf::all(plan, layouts)? {
        let records: Vec<Option<MarkerRecord>> = leaf
            .markers
            .iter()
            .map(|marker| record(store, &leaf.name, marker))
            .collect();
        tasks.spawn(async move {
            let faults = tokio::time::timeout(LIMIT, faults_of(&leaf, &records)).await;
            (leaf, faults)
        });
    }
    let mut lines = Vec::new();
    for (leaf, faults) in tasks.join_all().await {
        // Who does not answer is looked at when it does.
        for (number, fault) in faults.into_iter().flatten().flatten() {
            if let Some(marker) = leaf.markers.get(number) {
                lines.push(explained_to(given, &leaf, marker, &fault));
            }
        }
    }
    lines.sort();
    Ok(lines)
}

type Faults = Vec<(usize, breccia_core::layout::MarkerFault)>;

async fn faults_of(leaf: &MarkedLeaf, records: &[Option<MarkerRecord>]) -> Result<Faults, String> {
    let mut peer = leaf.enter().await?;
    let mut faults = Faults::new();
    for (number, (marker, record)) in leaf.markers.iter().zip(records).enumerate() {
        let seen = look(&mut peer, marker, record.as_ref(), false).await?;
        if let Verdict::Refuse(fault) = seen.verdict {
            faults.push((number, fault));
        }
    }
    Ok(faults)
}
