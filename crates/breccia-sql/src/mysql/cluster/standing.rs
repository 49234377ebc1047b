//! Why a server is not used now, in words for an operator.
//!
//! Not a decision: what is told here was decided elsewhere. Invariant: each reason that somebody can
//! do something about says what.

use super::election::View;
use super::{Cluster, lock};
use crate::placing::{Replicas as _, Sight as _};

impl Cluster {
    /// Why a server takes no statements in `view`; `None`: it does.
    #[must_use]
    pub fn unused(&self, view: &View, number: usize) -> Option<String> {
        let server = self.server(number)?;
        let trouble = lock(&server.trouble).clone();
        let (members, others) = (self.members(), view.others());
        let held = members.held(others, number, trouble);
        if held.is_some() || view.primary == Ok(number) {
            return held;
        }
        let drained = members.drained(number);
        if drained.is_some() || view.replicas.contains(&number) {
            return drained;
        }
        Some(match server.is_replica() {
            None => "it has not said what it is".to_owned(),
            Some(false) => {
                "it claims to be the primary too: make it a replica again (CHANGE MASTER TO)"
                    .to_owned()
            }
            Some(true) if view.epoch == 0 => {
                "no primary has been seen yet, so nobody knows how far behind it is".to_owned()
            }
            Some(true) => "it is behind where the primary was when Breccia first saw it".to_owned(),
        })
    }
}
