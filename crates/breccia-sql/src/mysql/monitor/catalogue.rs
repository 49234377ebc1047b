//! Reads the tables, views and functions that the proof of reads rests on.
//!
//! Not when ([`super::schemas`]) nor what they mean ([`crate::mysql::class`]). Invariant: what is put
//! into use was read whole.

use super::schemas::Catalogue;
use crate::error::SqlError;
use crate::mysql::class::{self, QUERIES, TRIGGERS};
use crate::mysql::cluster::Cluster;
use crate::mysql::upstream::{Endpoint, Upstream};

/// Reads `information_schema`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schemas;

impl Catalogue for Schemas {
    type Read = class::Catalogue;

    async fn read(
        &self,
        endpoint: &Endpoint,
        upstream: &mut Upstream,
    ) -> Result<(class::Catalogue, u64), SqlError> {
        let [tables, views, routines] = QUERIES;
        let tables = endpoint.ask(upstream, tables).await?;
        let views = endpoint.ask(upstream, views).await?;
        let routines = endpoint.ask(upstream, routines).await?;
        let triggers = endpoint.ask(upstream, TRIGGERS).await?;
        let read = class::Catalogue::from_rows(&tables, &views, &routines).with_triggers(&triggers);
        let digest = read.fingerprint();
        Ok((read, digest))
    }

    fn put(&self, cluster: &Cluster, read: class::Catalogue, changes: u64) {
        let still = || cluster.schemas.changes() == changes;
        cluster.schemas.classifier.set_catalogue_if(read, still);
    }
}
