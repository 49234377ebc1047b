//! Markers on in-memory shards: which shard carries which, and what a shard shows that is looked
//! at.
//!
//! Not the verdict, which is the core's, and not the way of requests: each connection of a worker
//! proves the marker by itself. Invariant: a marker is written only where the verdict allows it, or
//! an administrator says so.

pub(crate) mod keeper;
pub(crate) mod start;

use std::collections::BTreeMap;
use std::sync::Arc;

use breccia_config::{Plan, StorePlan};
use breccia_core::layout::{Marker, MarkerFault, Verdict};
use breccia_kv::identity::{Identity, marker_key};
use breccia_net::layout_store::{LayoutStore, MarkerRecord};

use crate::loading::{Given, Layouts};
use crate::reach::{Peer, Target, command};

/// The composites of a plan whose shards carry markers.
pub(crate) fn composites(plan: &Plan) -> Vec<&str> {
    let marked =
        |store: &StorePlan| matches!(store, StorePlan::ShardedInMemory(sharded) if sharded.marker);
    let stores = plan.stores.iter().filter(|(_, store)| marked(store));
    stores.map(|(name, _)| name.as_str()).collect()
}

/// What each leaf carries, by the name of its store.
pub(crate) fn wanted(plan: &Plan, layouts: &Layouts) -> BTreeMap<String, Vec<Marker>> {
    let mut wanted: BTreeMap<String, Vec<Marker>> = BTreeMap::new();
    for name in composites(plan) {
        let Some(layout) = layouts.get(name) else {
            continue;
        };
        for shard in layout.shards() {
            for (leaf, _) in plan.leaves(shard) {
                let marker = Marker::new(layout, shard);
                wanted.entry(leaf.to_owned()).or_default().extend(marker);
            }
        }
    }
    wanted
}

/// The identity of each leaf that carries markers, by the name of its store.
pub(crate) fn identities(plan: &Plan, layouts: &Layouts) -> BTreeMap<String, Arc<Identity>> {
    let wanted = wanted(plan, layouts).into_iter();
    wanted
        .map(|(leaf, markers)| (leaf, Identity::new(&markers)))
        .collect()
}

/// A leaf that carries markers, and the way to it.
#[derive(Debug)]
pub(crate) struct MarkedLeaf {
    pub(crate) name: String,
    pub(crate) location: String,
    pub(crate) markers: Vec<Marker>,
    target: Target,
}

impl MarkedLeaf {
    /// Every leaf that carries markers.
    pub(crate) fn all(plan: &Plan, layouts: &Layouts) -> Result<Vec<Self>, breccia_net::NetError> {
        let mut leaves = Vec::new();
        for (name, markers) in wanted(plan, layouts) {
            let Some(store) = plan.stores.get(&name) else {
                continue;
            };
            if let Some(target) = Target::of(store)? {
                leaves.push(Self {
                    location: store.location().unwrap_or_default(),
                    name,
                    markers,
                    target,
                });
            }
        }
        Ok(leaves)
    }

    /// Connects and logs in.
    pub(crate) async fn enter(&self) -> Result<Peer, String> {
        self.target.enter().await
    }
}

/// What a look at one marker of a leaf has shown.
pub(crate) struct Seen {
    pub(crate) verdict: Verdict,
    /// The key under which the marker lies that is to be replaced, if the composite was renamed.
    former_key: Option<Vec<u8>>,
}

/// What was recorded of one leaf for a marker.
pub(crate) fn record(layouts: &LayoutStore, leaf: &str, marker: &Marker) -> Option<MarkerRecord> {
    // An unreadable file is refused at start; later on, a look is as good as the first.
    let records = layouts.marker_records(marker.layout().composite()).ok()?;
    records.get(leaf).cloned()
}

/// Looks at one marker of a leaf. `watched`: it was right a moment ago on this connection.
pub(crate) async fn look(
    peer: &mut Peer,
    marker: &Marker,
    record: Option<&MarkerRecord>,
    watched: bool,
) -> Result<Seen, String> {
    let composite = marker.layout().composite();
    let found = read(peer, &marker_key(composite)).await?;
    let digest = record.map(|record| record.digest.as_str());
    if found.is_none()
        && let Some(record) = record.filter(|record| record.composite != composite)
    {
        // Renamed since: the marker lies under the composite's former name.
        let key = marker_key(&record.composite);
        let former = read(peer, &key).await?;
        return Ok(Seen {
            verdict: marker.judge(former.as_deref(), digest, watched),
            former_key: Some(key),
        });
    }
    Ok(Seen {
        verdict: marker.judge(found.as_deref(), digest, watched),
        former_key: None,
    })
}

async fn read(peer: &mut Peer, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
    peer.ask_for_bytes(&command(&[b"GET", key])).await
}

/// Writes a marker: over another one only if `replace`. Answers whether it was written.
pub(crate) async fn write(peer: &mut Peer, marker: &Marker, replace: bool) -> Result<bool, String> {
    let key = marker_key(marker.layout().composite());
    let text = marker.to_text();
    let mut words: Vec<&[u8]> = vec![b"SET", &key, text.as_bytes()];
    if !replace {
        words.push(b"NX");
    }
    let answer = peer.ask(&command(&words)).await?;
    match answer.as_str() {
        "+OK" => Ok(true),
        "$-1" => Ok(false),
        _ => Err(format!(
            "its marker cannot be written (it answers {})",
            answer.trim_start_matches('-')
        )),
    }
}

/// What a refusal means and what mends it, for an administrator.
pub(crate) fn explained(leaf: &MarkedLeaf, marker: &Marker, fault: &MarkerFault) -> String {
    let (composite, name) = (marker.layout().composite(), leaf.name.as_str());
    let mark = format!("run `breccia layout mark --replace --config FILE {composite} {name}`");
    let mend = match fault {
        MarkerFault::Absent => format!(
            "if it is the right server and was emptied, run `breccia layout mark --config FILE \
             {composite} {name}`, else put its address right"
        ),
        MarkerFault::OtherShard(_) => {
            format!("put the addresses back, or, if the keys of '{name}' lie there now, {mark}")
        }
        MarkerFault::OtherLayout { digest, .. } => format!(
            "run `breccia layout export --config FILE {composite}` where the layout {digest} is in \
             use and here `breccia layout import --replace --config FILE DOCUMENT`, or, if the \
             layout here ({}) is the right one, {mark}",
            marker.layout().digest()
        ),
        MarkerFault::Unreadable(_) => format!("if it is the right server, {mark}"),
    };
    format!(
        "'{composite}': the server of '{name}' at {} is not used: {fault}; {mend}",
        leaf.location
    )
}

/// The same with the config's own path in the commands.
pub(crate) fn explained_to(
    given: Option<Given<'_>>,
    leaf: &MarkedLeaf,
    marker: &Marker,
    fault: &MarkerFault,
) -> String {
    let line = explained(leaf, marker, fault);
    given.map_or(line.clone(), |given| given.with_arguments(&line))
}
