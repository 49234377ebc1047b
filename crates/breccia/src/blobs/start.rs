//! Markers of blob stores before a gateway serves.
//!
//! Not the rules: those are the blob slice's. Invariant: no store is written to from here.

use breccia_blob::markers::{self, MarkedLeaf};
use breccia_config::Plan;
use breccia_net::layout_store::LayoutStore;

use super::{Leaves, composites};
use crate::loading::{Given, Layouts};

/// Makes the layouts that the state folder lost from the markers of leaves that answer.
pub(crate) async fn restore(
    plan: &Plan,
    leaves: &Leaves,
    store: &LayoutStore,
    given: Option<Given<'_>>,
) -> Result<(), Vec<String>> {
    let restored = markers::restore(&composites(plan, leaves), store).await;
    restored.map_err(|lines| with_arguments(lines, given))
}

/// A line for each leaf that answers and must not be used.
pub(crate) async fn refusals(
    plan: &Plan,
    leaves: &Leaves,
    layouts: &Layouts,
    store: &LayoutStore,
    given: Option<Given<'_>>,
) -> Vec<String> {
    let marked = MarkedLeaf::all(&composites(plan, leaves), layouts);
    with_arguments(markers::refusals(&marked, store).await, given)
}

fn with_arguments(lines: Vec<String>, given: Option<Given<'_>>) -> Vec<String> {
    let told = lines.into_iter().map(|line| match given {
        Some(given) => given.with_arguments(&line),
        None => line,
    });
    told.collect()
}
