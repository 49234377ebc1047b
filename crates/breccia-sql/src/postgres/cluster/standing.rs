//! Why a server is not used now, in words for an operator.
//!
//! Not a decision: what is told here was decided elsewhere. Invariant: each reason that somebody can
//! do something about says what.

use super::Cluster;
use super::election::View;
use crate::bells::Views;
use crate::pause::Gates;
use crate::placing::{Replicas as _, Sight as _};

impl Cluster {
    /// Why a server takes no statements in `view`; `None`: it does.
    #[must_use]
    pub fn unused(&self, view: &View, number: usize) -> Option<String> {
        let server = self.server(number)?;
        let (members, others) = (self.members(), view.others());
        let held = members.held(others, number, None);
        if held.is_some() || view.primary == Ok(number) {
            return held;
        }
        let drained = members.drained(number);
        if drained.is_some() || view.replicas.contains(&number) {
            return drained;
        }
        Some(match server.report() {
            None => "it has not said what it is".to_owned(),
            Some(report) if !report.recovery => {
                "it claims to be the primary too: make it a replica again (pg_rewind, \
                 pg_basebackup)"
                    .to_owned()
            }
            Some(_) if view.timeline == 0 => {
                "no primary has been seen yet, so nobody knows how far behind it is".to_owned()
            }
            Some(_) => "it is behind where the primary was when Breccia first saw it".to_owned(),
        })
    }
}

impl Views for Cluster {
    fn version(&self) -> u64 {
        Self::version(self)
    }

    fn gates(&self) -> &Gates {
        &self.gates
    }
}
