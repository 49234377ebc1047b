//! What a Redis listener counts: the shared counters of `front`, by the rows of the command table.
//!
//! Invariant: a row here is the row of the table the routes use.

use breccia_net::metrics::Registry;

use super::super::commands::COMMANDS;

pub(crate) use crate::front::metrics::{FrontMetrics, Outcome, UNKNOWN_ROW};

/// The counters of one listener. `leaves` are paths and store names, in the topology's order.
pub(crate) fn front_metrics(
    listener: String,
    registry: Registry,
    leaves: Vec<(String, String)>,
) -> FrontMetrics {
    let name_of = |row: usize| COMMANDS.get(row).map(|spec| spec.name);
    FrontMetrics::new(COMMANDS.len(), name_of, listener, registry, leaves)
}
