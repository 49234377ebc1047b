//! `breccia layout adopt` and `breccia layout mark` for composites of blob stores.
//!
//! Not the scan and not the markers. Invariant: a leaf is marked only after every object of every
//! leaf was found where the layout looks for it, or where an administrator says so.

use std::sync::Arc;

use breccia_blob::adoption;
use breccia_blob::markers::{self, MarkedLeaf};
use breccia_config::Plan;
use breccia_core::layout::Layout;
use breccia_net::layout_store::LayoutStore;

use super::{Leaves, composites};
use crate::loading::{Layouts, Wanted};
use crate::trouble::{Trouble, complain, print};

/// How many objects lie between two lines of progress.
const PROGRESS_EVERY: u64 = 100_000;

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

/// Holds every object of a composite against the layout the config asks for, and takes the
/// composite over if each lies where that looks for it.
pub(crate) fn adopt(plan: &Plan, store: &LayoutStore, wanted: &Wanted) -> Result<(), Trouble> {
    let name = wanted.spec.composite.as_str();
    let leaves = Leaves::open(plan)?;
    let runtime = runtime()?;
    let all = composites(plan, &leaves);
    let composite = all.iter().find(|composite| composite.name == name);
    let composite = composite.ok_or_else(|| Trouble::refused(format!("'{name}' has no leaf")))?;
    let current = store.load(name)?;
    let fits = current.filter(|layout| layout.differences(&wanted.spec).is_empty());
    let layout = match &fits {
        Some(layout) => layout.clone(),
        None => Layout::first(&wanted.spec).map_err(Trouble::refused)?,
    };
    let mut said = 0;
    let mut progress = |leaf: &str, objects: u64| {
        // A line for each hundred pages: long work is seen to go on.
        if objects / PROGRESS_EVERY != said {
            said = objects / PROGRESS_EVERY;
            complain(&format!("{leaf}: {objects} objects so far"));
        }
    };
    let scanned = adoption::scan(&layout, composite, &mut progress);
    let report = runtime.block_on(scanned).map_err(Trouble::failed)?;
    print(&report.to_string());
    if !report.is_accepted() {
        return Err(Trouble::refused(format!(
            "'{name}' is not adopted: {} of {} objects lie where this layout would not look for \
             them; check hash, placement-key and the order of `stores`",
            report.misplaced(),
            report.objects()
        )));
    }
    let layout = if fits.is_some() {
        layout
    } else {
        store.adopt(&wanted.spec)?
    };
    let layouts = Layouts::from([(name.to_owned(), Arc::new(layout.clone()))]);
    for marked in MarkedLeaf::all(std::slice::from_ref(composite), &layouts) {
        let marking = markers::mark(&marked, store, false);
        runtime.block_on(marking).map_err(Trouble::failed)?;
    }
    runtime.shutdown_background();
    print(&format!(
        "{name}: layout {}, epoch {}\n",
        layout.digest(),
        layout.epoch().get()
    ));
    Ok(())
}
