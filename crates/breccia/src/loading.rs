//! From a file's path to a plan, and from a plan to what its composites want of their layouts.
//!
//! Not the checks: those are the config crate's. Invariant: every fault of a file is shown, not
//! only the first.

use std::collections::BTreeMap;
use std::path::Path;

use breccia_config::{Plan, StorePlan, Warning};
use breccia_core::layout::{CompositeKind, LayoutSpec};

use crate::trouble::Trouble;

/// Reads a config file; its faults are a refusal with one line each.
pub(crate) fn load(path: &Path) -> Result<(Plan, Vec<Warning>), Trouble> {
    breccia_config::load(path, &environment)
        .map_err(|faults| Trouble::Refused(faults.iter().map(ToString::to_string).collect()))
}

/// The variables of this process.
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// What a composite and its members ask of the composite's layout.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) spec: LayoutSpec,
    pub(crate) digest: Option<String>,
    /// Where each shard that lies on a server is.
    pub(crate) addresses: BTreeMap<String, String>,
}

/// Every composite of the plan by name.
pub(crate) fn composites(plan: &Plan) -> BTreeMap<&str, Wanted> {
    plan.stores
        .keys()
        .filter_map(|name| Some((name.as_str(), wanted(plan, name)?)))
        .collect()
}

/// What one store asks of its layout; `None` if it is not a composite.
pub(crate) fn wanted(plan: &Plan, name: &str) -> Option<Wanted> {
    let StorePlan::ShardedInMemory(sharded) = plan.stores.get(name)? else {
        return None;
    };
    let location = |shard: &String| Some((shard.clone(), plan.stores.get(shard)?.location()?));
    Some(Wanted {
        spec: LayoutSpec {
            composite: name.to_owned(),
            kind: CompositeKind::InMemory,
            hash: sharded.hash,
            hash_tag: sharded.hash_tag,
            role: plan.role(name),
            shards: sharded.stores.clone(),
        },
        digest: sharded.layout_digest.clone(),
        addresses: sharded.stores.iter().filter_map(location).collect(),
    })
}
