//! Opening composites: the config is held against the layouts of the state folder.
//!
//! Not here: reading a config, or connecting to a shard.
//!
//! Invariant: nothing is written before every composite has been found good, so a refused start
//! leaves the state folder as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use breccia_core::layout::{Layout, LayoutSpec};

use super::{LayoutStore, LayoutStoreError};

/// What a config says of one composite.
#[derive(Debug, Clone, Copy)]
pub struct LayoutRequest<'a> {
    /// The layout it asks for.
    pub spec: &'a LayoutSpec,
    /// `layout-digest`, if it is set.
    pub pinned_digest: Option<&'a str>,
    /// The address of each shard that has one, by shard name.
    pub addresses: &'a BTreeMap<String, String>,
}

/// A composite that was found good, and what is to be written for it.
struct Opened {
    layout: Layout,
    is_new: bool,
    addresses_before: BTreeMap<String, String>,
    addresses: BTreeMap<String, String>,
}

/// Opens every composite of a config, and makes the layouts that do not exist yet. All refusals
/// are returned at once, in the order of the requests.
pub fn open_layouts(
    store: &LayoutStore,
    requests: &[LayoutRequest<'_>],
) -> Result<Vec<Arc<Layout>>, Vec<LayoutStoreError>> {
    let configured: BTreeSet<&str> = requests
        .iter()
        .map(|request| request.spec.composite.as_str())
        .collect();
    let known = store.all().map_err(|error| vec![error])?;
    let orphans: Vec<&Layout> = known
        .iter()
        .filter(|layout| !configured.contains(layout.composite()))
        .collect();
    let mut opened = Vec::new();
    let mut refusals = Vec::new();
    let seen = last_seen(store, &known, &configured);
    for request in requests {
        let existing = known
            .iter()
            .find(|layout| layout.composite() == request.spec.composite);
        match examine(store, request, existing, &orphans, &seen) {
            Ok(good) => opened.push(good),
            Err(refusal) => refusals.push(refusal),
        }
    }
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let mut layouts = Vec::new();
    for good in opened {
        layouts.push(record(store, good).map_err(|error| vec![error])?);
    }
    Ok(layouts)
}

/// Opens one composite: for programs that embed a single one in a folder of its own.
pub fn open_layout(
    store: &LayoutStore,
    spec: &LayoutSpec,
    pinned_digest: Option<&str>,
    addresses: &BTreeMap<String, String>,
) -> Result<Arc<Layout>, LayoutStoreError> {
    let request = LayoutRequest {
        spec,
        pinned_digest,
        addresses,
    };
    let existing = store.load(&spec.composite)?;
    let all = store.all()?;
    let orphans: Vec<&Layout> = all
        .iter()
        .filter(|layout| layout.composite() != spec.composite)
        .collect();
    let configured = BTreeSet::from([spec.composite.as_str()]);
    let seen = last_seen(store, &all, &configured);
    let good = examine(store, &request, existing.as_ref(), &orphans, &seen)?;
    record(store, good)
}

/// Where each shard of each composite was, by composite and shard.
type LastSeen = BTreeMap<(String, String), String>;

fn last_seen(store: &LayoutStore, layouts: &[Layout], configured: &BTreeSet<&str>) -> LastSeen {
    let mut seen = LastSeen::new();
    for layout in layouts {
        let composite = layout.composite();
        if !configured.contains(composite) {
            continue;
        }
        // A file that cannot be read is refused where its own composite is examined.
        for (shard, address) in store.last_addresses(composite).unwrap_or_default() {
            if layout.shards().contains(&shard) {
                seen.insert((composite.to_owned(), shard), address);
            }
        }
    }
    seen
}

fn examine(
    store: &LayoutStore,
    request: &LayoutRequest<'_>,
    existing: Option<&Layout>,
    orphans: &[&Layout],
    seen: &LastSeen,
) -> Result<Opened, LayoutStoreError> {
    let layout = if let Some(layout) = existing {
        agrees(layout, request.spec)?;
        layout.clone()
    } else {
        refuse_orphans(store, request.spec, orphans)?;
        Layout::first(request.spec).map_err(|source| LayoutStoreError::Core { source })?
    };
    agrees_with_pin(store, &layout, existing.is_none(), request.pinned_digest)?;
    // Addresses that outlived their layout tell nothing of a new one.
    let addresses_before = match existing {
        Some(layout) => store.last_addresses(layout.composite())?,
        None => BTreeMap::new(),
    };
    refuse_moved_to_other(&layout, seen, request.addresses)?;
    let mut addresses = request.addresses.clone();
    addresses.retain(|shard, _| layout.shards().contains(shard));
    let is_new = existing.is_none();
    Ok(Opened {
        layout,
        is_new,
        addresses_before,
        addresses,
    })
}

fn agrees(layout: &Layout, spec: &LayoutSpec) -> Result<(), LayoutStoreError> {
    let differences = layout.differences(spec);
    if differences.is_empty() {
        return Ok(());
    }
    Err(LayoutStoreError::Differs {
        composite: spec.composite.clone(),
        differences,
    })
}

fn refuse_orphans(
    store: &LayoutStore,
    spec: &LayoutSpec,
    orphans: &[&Layout],
) -> Result<(), LayoutStoreError> {
    for orphan in orphans {
        let shared: Vec<&str> = orphan
            .shards()
            .iter()
            .filter(|shard| spec.shards.contains(shard))
            .map(String::as_str)
            .collect();
        if !shared.is_empty() {
            return Err(LayoutStoreError::Orphan {
                composite: spec.composite.clone(),
                orphan: orphan.composite().to_owned(),
                shards: shared.join(", "),
                path: store.layout_path(orphan.composite()),
            });
        }
    }
    Ok(())
}

fn agrees_with_pin(
    store: &LayoutStore,
    layout: &Layout,
    is_new: bool,
    pinned: Option<&str>,
) -> Result<(), LayoutStoreError> {
    let digest = layout.digest();
    let Some(pinned) = pinned.filter(|pinned| !pinned.eq_ignore_ascii_case(&digest)) else {
        return Ok(());
    };
    let (composite, pinned) = (layout.composite().to_owned(), pinned.to_owned());
    let place = store.files.to_string();
    Err(if is_new {
        LayoutStoreError::PinnedMissing {
            composite,
            pinned,
            digest,
            place,
        }
    } else {
        LayoutStoreError::PinnedOther {
            composite,
            pinned,
            digest,
            place,
        }
    })
}

fn refuse_moved_to_other(
    layout: &Layout,
    seen: &LastSeen,
    now: &BTreeMap<String, String>,
) -> Result<(), LayoutStoreError> {
    let composite = layout.composite();
    for shard in layout.shards() {
        let Some(address) = now.get(shard) else {
            continue;
        };
        let own = seen.get(&(composite.to_owned(), shard.clone()));
        if own == Some(address) {
            continue;
        }
        // A shard that has moved may have moved to a shard of another composite, too: nested ones
        // share their keys. One that is new may share a server with whom it likes.
        let other = seen.iter().find(|((owner, other), there)| {
            other != shard && *there == address && (owner == composite || own.is_some())
        });
        if let Some(((owner, other), _)) = other {
            let other = if owner == composite {
                other.clone()
            } else {
                format!("{owner}/{other}")
            };
            return Err(LayoutStoreError::AddressOfOther {
                composite: composite.to_owned(),
                shard: shard.clone(),
                address: address.clone(),
                other,
            });
        }
    }
    Ok(())
}

/// Writes what opening a composite has shown; nothing if the folder is only looked at.
fn record(store: &LayoutStore, good: Opened) -> Result<Arc<Layout>, LayoutStoreError> {
    let layout = Arc::new(good.layout);
    if store.files.is_read_only() {
        return Ok(layout);
    }
    let composite = layout.composite();
    if good.is_new {
        store.forget_markers(composite)?;
    }
    if good.is_new || good.addresses != good.addresses_before {
        store.save_addresses(composite, &good.addresses)?;
        for (shard, address) in &good.addresses {
            if let Some(was) = good
                .addresses_before
                .get(shard)
                .filter(|was| *was != address)
            {
                tracing::warn!(
                    composite,
                    shard,
                    was,
                    address,
                    "the shard has a new address; keys that are still on the old server are not \
                     found (with `marker = true` another server would be refused)"
                );
            }
        }
    }
    // Last, so that no layout is ever found beside the addresses of an earlier one.
    if good.is_new {
        store.save(&layout)?;
        if store.folder().is_some() {
            tracing::warn!(
                composite,
                digest = layout.digest(),
                shards = layout.shards().join(", "),
                "made a new layout; every gateway in front of these shards needs this digest"
            );
        }
    }
    Ok(layout)
}
