//! What administrators do to a cluster: pause and resume, and name a primary.
//!
//! Not draining, which is a flag of the server. Invariant: what has begun goes on to its end.

use std::sync::Arc;

use breccia_net::clock;

use super::{Cluster, Server, lock};
use crate::bells::Views;
use crate::pause::Gates;

impl Server {
    /// It was met, and greets with this version and collation.
    pub(in crate::mysql) fn note_greeting(&self, version: &str, collation: u8) {
        let mut known = lock(&self.greets);
        if !matches!(&*known, Some((it, of)) if it == version && *of == collation) {
            *known = Some((version.to_owned(), collation));
        }
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

impl Cluster {
    /// The version of the primary and its collation, as it greets, or of another server before there is
    /// one.
    #[must_use]
    pub fn greets(&self) -> Option<(String, u8)> {
        let primary = self.view().primary.clone().ok();
        let first = primary.and_then(|it| self.server(it));
        let known = |server: &Server| lock(&server.greets).clone();
        first
            .and_then(known)
            .or_else(|| self.servers.iter().find_map(known))
    }

    /// An administrator names the primary among several claimants; `None`: no more.
    pub fn name_primary(&self, server: Option<usize>) {
        lock(&self.election).name(server);
        self.weigh(clock::now());
    }

    /// What administrators hold back, and what still runs.
    #[must_use]
    pub fn gates(&self) -> &Arc<Gates> {
        &self.gates
    }
}
