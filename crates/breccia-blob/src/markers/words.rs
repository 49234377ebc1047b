//! What an administrator is told of a leaf that is not used, and what mends it.
//!
//! Not the verdict. Invariant: every line names the composite, the leaf, its place, and a way out.

use breccia_core::layout::{Marker, MarkerFault};

use super::MarkedLeaf;
use crate::error::BlobError;

fn begin(leaf: &MarkedLeaf, composite: &str) -> String {
    let (name, place) = (leaf.name(), place(leaf));
    format!("'{composite}': the store '{name}'{place} is not used")
}

fn place(leaf: &MarkedLeaf) -> String {
    let location = leaf.leaf.location();
    location.map_or(String::new(), |location| format!(" at {location}"))
}

/// A marker that is missing or another one.
pub(super) fn fault(leaf: &MarkedLeaf, marker: &Marker, fault: &MarkerFault) -> String {
    let (composite, name) = (marker.layout().composite(), leaf.name());
    let mark = format!("run `breccia layout mark --replace --config FILE {composite} {name}`");
    let mend = match fault {
        MarkerFault::Absent => format!(
            "make sure that its disk is mounted and its place is the right one; if it was emptied \
             on purpose, run `breccia layout mark --config FILE {composite} {name}`"
        ),
        MarkerFault::OtherShard(_) => {
            format!("put the places back, or, if the objects of '{name}' lie there now, {mark}")
        }
        MarkerFault::OtherLayout { digest, .. } => format!(
            "run `breccia layout export --config FILE {composite}` where the layout {digest} is in \
             use and here `breccia layout import --replace --config FILE DOCUMENT`, or, if the \
             layout here ({}) is the right one, {mark}",
            marker.layout().digest()
        ),
        MarkerFault::Unreadable(_) => format!("if it is the right place, {mark}"),
    };
    format!("{}: {fault}; {mend}", begin(leaf, composite))
}

/// Objects on a leaf that carries no marker.
pub(super) fn not_adopted(leaf: &MarkedLeaf, marker: &Marker) -> String {
    let composite = marker.layout().composite();
    format!(
        "{}: it holds objects and carries no marker; run `breccia layout adopt --config FILE \
         {composite}`, which checks that each object lies where the layout looks for it, or give \
         it an empty place",
        begin(leaf, composite)
    )
}

/// The marker of a composite that does not list this leaf.
pub(super) fn foreign(leaf: &MarkedLeaf, marker: &Marker, other: &str) -> String {
    let composite = marker.layout().composite();
    format!(
        "{}: it carries the marker of '{other}', which is not above it here; if '{other}' was \
         renamed, run `breccia layout rename --config FILE {other} {composite}` where its layout \
         is; if '{other}' is gone for good and its objects lie where '{composite}' looks for them, run \
         `breccia layout mark --replace --config FILE {composite} {name}`; else give '{name}' a place of \
         its own",
        begin(leaf, composite),
        name = leaf.name()
    )
}

/// Keys written in another way than the config says.
pub(super) fn other_key_mode(leaf: &MarkedLeaf, kept: &str, wanted: &str) -> String {
    format!(
        "the store '{}'{} is not used: it was begun with keys = \"{kept}\", and the config says \
         keys = \"{wanted}\"; put it back, its objects would not be found",
        leaf.name(),
        place(leaf)
    )
}

/// A leaf that could not be asked.
pub(super) fn unread(leaf: &MarkedLeaf, error: &BlobError) -> String {
    format!(
        "the store '{}'{} cannot be marked: {error}",
        leaf.name(),
        place(leaf)
    )
}
