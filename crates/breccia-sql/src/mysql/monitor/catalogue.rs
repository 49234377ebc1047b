//! Reads the tables, views and functions that the proof of reads rests on.
//!
//! Not when ([`super::schemas`]) nor what they mean ([`crate::mysql::class`]). Invariant: what is put
//! into use was read whole.

use super::schemas::Catalogue;
use crate::error::SqlError;
use crate::mysql::class::{self, COMPUTED, Mode, QUERIES, TRIGGERS};
use crate::mysql::cluster::Cluster;
use crate::mysql::upstream::{Endpoint, Login, Upstream};

/// Reads `information_schema`.
#[derive(Debug, Clone)]
pub(super) struct Schemas {
    /// Stored functions that count as reads.
    pub(super) read_functions: Vec<String>,
}

impl Catalogue for Schemas {
    type Read = class::Catalogue;

    async fn read(
        &self,
        endpoint: &Endpoint,
        upstream: &mut Upstream,
    ) -> Result<(class::Catalogue, u64), SqlError> {
        let read = ask(endpoint, upstream, &self.read_functions).await?;
        let digest = read.fingerprint();
        Ok((read, digest))
    }

    fn put(&self, cluster: &Cluster, read: class::Catalogue, changes: u64) {
        let still = || cluster.schemas.changes() == changes;
        cluster.schemas.classifier.set_catalogue_if(read, still);
    }
}

async fn ask(
    endpoint: &Endpoint,
    upstream: &mut Upstream,
    read_functions: &[String],
) -> Result<class::Catalogue, SqlError> {
    let [tables, views, routines] = QUERIES;
    let tables = endpoint.ask(upstream, tables).await?;
    let views = endpoint.ask(upstream, views).await?;
    let routines = endpoint.ask(upstream, routines).await?;
    let triggers = endpoint.ask(upstream, TRIGGERS).await?;
    let computed = endpoint.ask(upstream, COMPUTED).await?;
    let rows = [&tables[..], &views, &routines, &computed];
    let read = class::Catalogue::vouching(rows, read_functions);
    Ok(read.with_triggers(&triggers))
}

/// Asks a server once, on a connection of its own: for `breccia explain`. With it how a new session reads
/// texts there.
pub async fn ask_catalogue(
    endpoint: &Endpoint,
    login: &Login,
    read_functions: &[String],
) -> Result<(class::Catalogue, Mode), SqlError> {
    let mut upstream = endpoint.open(login).await?;
    let read = ask(endpoint, &mut upstream, read_functions).await?;
    let mode = Mode::of(upstream.base.get("sql_mode").unwrap_or_default());
    Ok((read, mode))
}
