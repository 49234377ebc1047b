//! What `check --connect` sees of places on this machine's disks, and what it holds markers against.
//!
//! Not the look itself: that is the blob slice's. Invariant: nothing is made or written, neither in
//! a place nor in the state folder; what a start would restore is restored in memory.

use std::collections::{BTreeMap, BTreeSet};

use breccia_blob::local::{self, Contents, Looked, Place};
use breccia_config::Plan;
use breccia_net::layout_store::LayoutStore;

use crate::blobs::{self, Leaves, leaves};
use crate::loading::{self, Given};

/// What the places show.
pub(super) struct Places(Vec<(Place, Result<Looked, String>)>);

impl Places {
    /// Looks at each; those that can be looked into are added to `leaves`.
    pub(super) fn look(plan: &Plan, leaves: &mut Leaves) -> Self {
        let mut places = Vec::new();
        for (name, store) in &plan.stores {
            let Some(place) = leaves::place(name, store) else {
                continue;
            };
            let looked = local::look(&place).map_err(|error| error.to_string());
            match &looked {
                // As a start sees it: a place that should carry a marker is refused.
                Ok(Looked::Nothing) => leaves.add_seen(place.clone(), Contents::default()),
                Ok(Looked::Store(contents)) => leaves.add_seen(place.clone(), contents.clone()),
                _ => {}
            }
            places.push((place, looked));
        }
        Self(places)
    }

    /// A line for each.
    pub(super) fn lines(self, held: &Held) -> BTreeMap<String, Result<String, String>> {
        let line = |(place, looked): (Place, Result<Looked, String>)| {
            let name = place.name().to_owned();
            let said = looked.and_then(|looked| said(&place, &looked, held));
            let at = format!("{}:{}", place.kind().name(), place.path().display());
            let line = said.map(|said| format!("{at} {said}"));
            (
                name,
                line.map_err(|why| format!("{at} cannot be used ({why})")),
            )
        };
        self.0.into_iter().map(line).collect()
    }
}

fn said(place: &Place, looked: &Looked, held: &Held) -> Result<String, String> {
    if !matches!(looked, Looked::InUse(_)) {
        place.writable().map_err(|error| error.to_string())?;
    }
    Ok(match looked {
        Looked::Nothing if held.is_marked(place.name()) => "holds no store".to_owned(),
        Looked::Nothing => "holds no store yet; serve will make one".to_owned(),
        Looked::InUse(by) => {
            format!("is in use by a running gateway ({by}): its marker was not looked at")
        }
        Looked::Unindexed => "has lost its index; serve will make it anew from the files: its \
                              marker was not looked at"
            .to_owned(),
        _ => "is there".to_owned(),
    })
}

/// The layouts and the records of markers of the state folder, in memory.
pub(super) struct Held {
    layouts: LayoutStore,
    composites: BTreeSet<String>,
    faults: Vec<String>,
}

impl Held {
    pub(super) fn new(plan: &Plan) -> Self {
        let state = LayoutStore::open_read_only(&plan.state_dir);
        let mut held = Self {
            layouts: LayoutStore::ephemeral(),
            composites: BTreeSet::new(),
            faults: Vec::new(),
        };
        for name in loading::composites(plan).into_keys() {
            if let Err(error) = held.copy(&state, name) {
                held.faults.push(error.to_string());
            }
            held.composites.insert(name.to_owned());
        }
        held
    }

    fn copy(
        &self,
        state: &LayoutStore,
        name: &str,
    ) -> Result<(), breccia_net::layout_store::LayoutStoreError> {
        if let Some(layout) = state.load(name)? {
            self.layouts.import(&layout.to_document(), false)?;
        }
        for (leaf, record) in state.marker_records(name)? {
            self.layouts.record_marker(name, &leaf, record)?;
        }
        Ok(())
    }

    /// Whether a leaf is known to have been given a marker.
    fn is_marked(&self, leaf: &str) -> bool {
        let records = |name: &String| self.layouts.marker_records(name).unwrap_or_default();
        self.composites
            .iter()
            .any(|name| records(name).contains_key(leaf))
    }

    /// What a start would refuse of the leaves, in its order.
    pub(super) async fn refusals(
        &self,
        plan: &Plan,
        leaves: &Leaves,
        given: Given<'_>,
    ) -> Vec<String> {
        if !self.faults.is_empty() {
            return self.faults.clone();
        }
        let given = Some(given);
        let restored = blobs::start::restore(plan, leaves, &self.layouts, given).await;
        if let Err(lines) = restored {
            return lines;
        }
        match loading::open_layouts(plan, &self.layouts) {
            Ok(layouts) => {
                blobs::start::refusals(plan, leaves, &layouts, &self.layouts, given).await
            }
            Err(refusals) => refusals.iter().map(ToString::to_string).collect(),
        }
    }
}
