//! Whether somebody changes schemas past Breccia: by what a server counts of its statements.
//!
//! Not what changed: the schemas are read for that. Invariant: it costs the same however many tables
//! there are, and readings take no more than a tenth of the time.

use std::time::{Duration, Instant};

use breccia_net::clock;
use tokio::sync::watch::Receiver;

use super::line::{Errand, Line};
use crate::mysql::cluster::Cluster;

/// How often the schemas are read again although nothing says that they changed.
const INTERVAL: Duration = Duration::from_mins(1);
/// The pause between two looks at what is counted.
const LOOK: Duration = Duration::from_secs(1);
/// A reading takes at most this part of the time.
const SHARE: u32 = 10;
/// The longest that a look may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was counted, and when the schemas are to be read again.
#[derive(Debug)]
pub(super) struct Counted {
    line: Line,
    /// The server, and the sum of what it has counted.
    seen: Option<(usize, u64)>,
    pause: Duration,
    begun: Instant,
}

impl Counted {
    pub(super) fn new() -> Self {
        Self {
            line: Line::default(),
            seen: None,
            pause: INTERVAL,
            begun: clock::now(),
        }
    }

    /// The schemas are read from now on.
    ///
    /// A statement is counted when it begins, so what it changes may be read too early: it is read again,
    /// after pauses that grow.
    pub(super) async fn begin(&mut self, cluster: &Cluster) {
        let now = self.count(cluster).await;
        self.pause = match (self.seen, now) {
            (None, _) => INTERVAL,
            (Some(seen), Some(now)) if seen != now => LOOK,
            _ => (self.pause * 2).min(INTERVAL),
        };
        self.seen = now.or(self.seen);
        self.begun = clock::now();
    }

    /// Waits until they are to be read again: because Breccia has `changed` them, or somebody else, or
    /// nobody for a long time.
    pub(super) async fn wait(&mut self, cluster: &Cluster, changed: &mut Receiver<u64>) {
        let now = clock::now();
        let took = now.saturating_duration_since(self.begun);
        let look = LOOK.max(took * SHARE);
        let end = now + self.pause.max(look);
        loop {
            let left = end.saturating_duration_since(clock::now());
            if left.is_zero()
                || tokio::time::timeout(look.min(left), changed.changed())
                    .await
                    .is_ok()
            {
                return;
            }
            let now = self.count(cluster).await;
            if now.is_some() && now != self.seen {
                return;
            }
        }
    }

    /// `None`: nobody tells.
    async fn count(&mut self, cluster: &Cluster) -> Option<(usize, u64)> {
        let primary = cluster.view().primary.clone().ok()?;
        let server = cluster.server(primary)?;
        let asking = self.line.ask(server, Errand::Changes);
        let Ok(Ok(told)) = tokio::time::timeout(PATIENCE, asking).await else {
            self.line.close();
            return None;
        };
        let rows = told.tables.iter().flat_map(|table| &table.rows);
        let counts = rows.filter_map(|row| row.get(1)?.as_deref()?.parse::<u64>().ok());
        Some((primary, counts.fold(0, u64::wrapping_add)))
    }
}
