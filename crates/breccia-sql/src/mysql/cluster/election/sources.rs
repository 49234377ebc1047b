//! Whether a replica follows the primary, at first hand or through others.
//!
//! Pure. Invariant: a replica of a server that is none of the cluster's serves nobody.

use super::{Election, Heard, Report, reports};

impl Election {
    /// `Err`: why what a replica applies is not the primary's log.
    pub(super) fn check_sources(&self, report: &Report, heard: &[Heard]) -> Result<(), String> {
        let primary = self.followed.as_ref().map_or(0, |it| it.server_id);
        // A chain has at most as many links as there are servers.
        if leads_to(primary, report, heard, self.names.len()) {
            return Ok(());
        }
        let sources = report.sources.iter();
        let unknown = sources.clone().find(|it| it.server_id == 0);
        if let Some(source) = unknown {
            return Err(format!(
                "it has not reached its source {} yet: {}",
                source.address, source.trouble
            ));
        }
        let addresses: Vec<&str> = sources.map(|it| it.address.as_str()).collect();
        Err(format!(
            "it replicates from {}, which is not the primary: let it follow that (CHANGE MASTER TO)",
            addresses.join(" and ")
        ))
    }
}

fn leads_to(primary: u32, report: &Report, heard: &[Heard], links: usize) -> bool {
    let Some(links) = links.checked_sub(1) else {
        return false;
    };
    report.sources.iter().any(|source| {
        if source.server_id == primary {
            return source.server_id != 0;
        }
        let is_it =
            |(_, it): &(usize, &Report)| it.server_id == source.server_id && source.server_id != 0;
        let between = reports(heard).find(is_it);
        between.is_some_and(|(_, between)| leads_to(primary, between, heard, links))
    })
}
