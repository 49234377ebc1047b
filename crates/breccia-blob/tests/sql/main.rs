//! SQL members against real servers and files: the conformance suite, and what is special to them.
//!
//! Not run without the servers: Debian's `postgresql` and `mariadb-server`; SQLite needs none.
//! Invariant: every test makes its own server or file.

#![expect(
    clippy::indexing_slicing,
    reason = "a test that goes wrong this way fails, as it should"
)]

mod chunks;
mod life;
mod listings;
mod place;
mod races;
mod trouble;

use std::sync::Arc;

use anyhow::Result;
use breccia_blob::BlobStore;
use breccia_testkit::conformance::blob_conformance;

use place::{Kind, Place};

async fn conforms(kind: Kind) -> Result<()> {
    let place = Place::new(kind)?;
    let store: Arc<dyn BlobStore> = place.store();
    blob_conformance(&store).await
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_conforms() -> Result<()> {
    conforms(Kind::Sqlite).await
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_conforms() -> Result<()> {
    conforms(Kind::Postgresql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_conforms() -> Result<()> {
    conforms(Kind::Mysql).await
}

/// Everything that needs no fault of the server, on one server.
async fn keeps_its_promises(kind: Kind) -> Result<()> {
    let place = Place::new(kind)?;
    life::two_gateways_make_the_tables_at_once(&place).await?;
    chunks::sizes_around_chunks_come_back_whole_and_in_ranges(&place).await?;
    chunks::a_damaged_or_missing_chunk_is_told(&place).await?;
    life::a_reader_of_an_overwritten_object_reads_it_to_the_end(&place).await?;
    life::what_nobody_may_read_is_swept(&place).await?;
    life::a_dropped_put_is_swept_and_a_slow_one_is_refused(&place).await?;
    life::parts_that_are_not_chosen_are_swept(&place).await?;
    races::one_of_a_hundred_creates(&place).await?;
    races::every_replacement_is_of_what_was_seen(&place).await?;
    races::dropped_requests_leave_no_dirty_connection(&place).await?;
    listings::pages_equal_a_model(&place).await?;
    listings::a_page_of_prefixes_reads_few_rows(&place).await?;
    life::a_newer_schema_is_refused(&place).await
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_keeps_its_promises() -> Result<()> {
    keeps_its_promises(Kind::Sqlite).await
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_keeps_its_promises() -> Result<()> {
    keeps_its_promises(Kind::Postgresql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_keeps_its_promises() -> Result<()> {
    keeps_its_promises(Kind::Mysql).await
}
