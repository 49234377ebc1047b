//! What is to be known of the schemas, kept true for as long as a cluster is watched.
//!
//! Not what that is: a [`Catalogue`] reads it. Invariant: what was read while somebody changed it is
//! not used, and what is used holds on a replica only from where the primary stood after it was read.

use std::sync::Arc;
use std::time::Duration;

use super::ddl::Counted;
use super::line::Line;
use crate::error::SqlError;
use crate::mysql::cluster::Cluster;
use crate::mysql::gtid::Gtids;
use crate::mysql::upstream::{Endpoint, Upstream};

/// How often the schemas are read while some change of Breccia's own clients may still be under way.
const DOUBT_INTERVAL: Duration = Duration::from_secs(1);
/// The pause after a reading that failed.
const RETRY: Duration = Duration::from_secs(2);
/// The pause while there is no primary to read from.
const PRIMARY_RETRY: Duration = Duration::from_millis(50);
/// The longest that a reading may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What reads the schemas, and keeps what it has read.
pub trait Catalogue: Send + Sync + 'static {
    /// What was read.
    type Read: Send;

    /// Reads all of it on a connection of Breccia's own; with it a number that is another one as soon
    /// as something else was read.
    fn read(
        &self,
        endpoint: &Endpoint,
        upstream: &mut Upstream,
    ) -> impl Future<Output = Result<(Self::Read, u64), SqlError>> + Send;

    /// This is true from now on, unless there were other `changes` than these by then.
    fn put(&self, cluster: &Cluster, read: Self::Read, changes: u64);
}

/// Keeps true what is known of a cluster's schemas, for ever.
pub async fn keep_schemas<C: Catalogue>(cluster: Arc<Cluster>, catalogue: C) {
    let (mut known, mut told) = (None, None);
    let mut news = cluster.schemas.watch();
    let mut counted = Counted::new();
    let mut line = Line::default();
    loop {
        let changes = *news.borrow_and_update();
        counted.begin(&cluster).await;
        let reading = tokio::time::timeout(PATIENCE, read(&cluster, &catalogue, &mut line)).await;
        line.close();
        if matches!(reading, Ok(Ok(_))) {
            told = None;
        }
        let pause = match reading {
            Ok(Ok(found)) if changes == cluster.schemas.changes() => {
                // What says the same as before is as true where that was, and is in use.
                if known != Some((changes, found.digest)) {
                    cluster.schemas.raise_floor(&found.position);
                    known = Some((changes, found.digest));
                    catalogue.put(&cluster, found.read, changes);
                }
                if !cluster.schemas.take_doubt() {
                    counted.wait(&cluster, &mut news).await;
                    continue;
                }
                DOUBT_INTERVAL
            }
            // Changed while it was read.
            Ok(Ok(_)) => Duration::ZERO,
            Ok(Err(SqlError::NoPrimary { .. })) => PRIMARY_RETRY,
            failed => {
                let why = match failed {
                    Ok(Err(error)) => error.to_string(),
                    _ => format!("that took longer than {PATIENCE:?}"),
                };
                // What changes meanwhile is not known: of that, nothing counts as a read.
                if told.replace(why.clone()) != Some(why.clone()) {
                    let store = cluster.options.name.as_str();
                    tracing::warn!(store, why, "the schemas cannot be read");
                }
                RETRY
            }
        };
        let _ = tokio::time::timeout(pause, news.changed()).await;
    }
}

struct Found<T> {
    read: T,
    digest: u64,
    /// All that was read lies before it.
    position: Gtids,
}

async fn read<C: Catalogue>(
    cluster: &Cluster,
    catalogue: &C,
    line: &mut Line,
) -> Result<Found<C::Read>, SqlError> {
    let no_primary = |why: String| SqlError::NoPrimary {
        store: cluster.options.name.clone(),
        why,
    };
    let primary = cluster.view().primary.clone().map_err(no_primary)?;
    let Some(server) = cluster.server(primary) else {
        return Err(no_primary(String::new()));
    };
    let upstream = line.open(server).await?;
    let found = catalogue.read(&server.options.endpoint, upstream).await;
    line.answered();
    let (read, digest) = found?;
    let position = line.position(server).await?;
    Ok(Found {
        read,
        digest,
        // A server that is a replica by now is where it is; the next view has it read elsewhere.
        position: position.unwrap_or(Gtids::Beyond),
    })
}
