//! Why a server is not used now, in words for an operator.
//!
//! Not a decision: what is told here was decided elsewhere. Invariant: each reason that somebody can
//! do something about says what.

use std::sync::atomic::Ordering;

use super::election::View;
use super::{Cluster, lock};

impl Cluster {
    /// Why a server takes no statements in `view`; `None`: it does.
    #[must_use]
    pub fn unused(&self, view: &View, number: usize) -> Option<String> {
        let server = self.server(number)?;
        if let Some(reason) = server.options.health.down() {
            return Some(format!("it is down: {}", reason.text));
        }
        let trouble = lock(&server.trouble).clone();
        if trouble.is_some() {
            return trouble;
        }
        let set_aside = view.set_aside.iter().find(|(it, _)| *it == number);
        if let Some((_, why)) = set_aside {
            return Some(why.clone());
        }
        if self.holds_back(number) {
            let paused = if self.is_paused() {
                &self.options.name
            } else {
                server.name()
            };
            return Some(format!("{paused} is paused: POST /stores/{paused}/resume"));
        }
        if view.primary == Ok(number) {
            return None;
        }
        if server.drained.load(Ordering::Relaxed) {
            return Some(format!(
                "it is drained: POST /stores/{}/resume",
                server.name()
            ));
        }
        if view.replicas.contains(&number) {
            return None;
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
