//! `breccia layout adopt` and `breccia layout mark` for composites of blob stores.
//!
//! Not the scan and not the markers. Invariant: a leaf is marked only after every object of every
//! leaf was found where the layout looks for it, or where an administrator says so.

use std::sync::Arc;

use breccia_blob::markers::{self, MarkedLeaf};
use breccia_config::Plan;
use breccia_core::layout::Layout;
use breccia_net::layout_store::LayoutStore;

use super::{Leaves, composites};
use crate::loading::{Layouts, Wanted};
use crate::trouble::{Trouble, complain, print};

fn runtime() -> Result<tokio::runtime::Runtime, Trouble> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().map_err(Trouble::failed)
}

/// Gives leaves of a composite their markers; answers their names.
pub(crate) fn mark(
    plan: &Plan,
    store: &LayoutStore,
    layouts: &Layouts,
    wanted: &[String],
    replace: bool,
) -> Result<Vec<String>, Trouble> {
    let leaves = Leaves::open(plan)?;
    let runtime = runtime()?;
    let mut done = Vec::new();
    for marked in MarkedLeaf::all(&composites(plan, &leaves), layouts) {
        let name = marked.leaf.name().to_owned();
        if wanted.contains(&name) {
            let marking = markers::mark(&marked, store, replace);
            runtime.block_on(marking).map_err(Trouble::failed)?;
            done.push(name);
        }
    }
    runtime.shutdown_background();
    Ok(done)
}
