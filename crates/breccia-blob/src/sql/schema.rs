//! The tables: made by the first gateway that comes, versioned, refused if newer.
//!
//! Not migrations: version 1 is the only one so far. Invariant: two gateways that come at once both
//! find the same tables.

use super::driver::Value;
use super::fault::Fault;
use super::pool::{Pool, Purpose, Session};
use super::statements::{Dialect, Query};
use crate::error::BlobError;

/// The version of the tables that this program reads and writes.
const VERSION: i64 = 1;
/// The row of `meta` that holds it.
const VERSION_NAME: &str = "schema-version";
/// What gateways lock on PostgreSQL while they make tables ("breccia" in ASCII): CREATE TABLE IF
/// NOT EXISTS by itself fails when two run it at once.
const CREATION_LOCK: i64 = 0x0062_7265_6363_6961;

/// The tables, in the words of [`render`].
const TABLES: &[&str] = &[
    "{p}meta (name {name} NOT NULL PRIMARY KEY, value bigint NOT NULL)",
    "{p}objects (name {key} NOT NULL PRIMARY KEY, generation bigint NOT NULL, \
     size bigint NOT NULL, modified bigint NOT NULL, etag {word} NOT NULL, \
     record {long} NOT NULL, tags {long} NOT NULL)",
    "{p}chunks (generation bigint NOT NULL, sequence bigint NOT NULL, crc bigint NOT NULL, \
     data {blob} NOT NULL, PRIMARY KEY (generation, sequence))",
    "{p}pending (generation bigint NOT NULL PRIMARY KEY, seen bigint NOT NULL, \
     beats bigint NOT NULL)",
    "{p}garbage (id bigint NOT NULL PRIMARY KEY, since bigint NOT NULL, \
     generations {long} NOT NULL)",
    "{p}uploads (name {key} NOT NULL, id {name} NOT NULL, begun bigint NOT NULL, \
     record {long} NOT NULL, PRIMARY KEY (name, id))",
    "{p}parts (upload {name} NOT NULL, number bigint NOT NULL, generation bigint NOT NULL, \
     size bigint NOT NULL, modified bigint NOT NULL, etag {word} NOT NULL, \
     checksum {long} NOT NULL, PRIMARY KEY (upload, number))",
    "{p}reserved (name {name} NOT NULL PRIMARY KEY, data {blob} NOT NULL)",
];

fn render(dialect: Dialect, template: &str, prefix: &str) -> String {
    let (key, name, word, long, blob, rest) = match dialect {
        Dialect::Postgresql => ("bytea", "bytea", "text", "text", "bytea", ""),
        Dialect::Mysql => (
            "varbinary(1024)",
            "varbinary(256)",
            "varbinary(128)",
            "longblob",
            "longblob",
            " ENGINE=InnoDB ROW_FORMAT=DYNAMIC",
        ),
        Dialect::Sqlite => ("BLOB", "BLOB", "TEXT", "TEXT", "BLOB", ""),
    };
    let columns = template
        .replace("{p}", prefix)
        .replace("{key}", key)
        .replace("{name}", name)
        .replace("{word}", word)
        .replace("{long}", long)
        .replace("{blob}", blob);
    format!("CREATE TABLE IF NOT EXISTS {columns}{rest}")
}

/// Everything that makes the tables.
fn definitions(dialect: Dialect, prefix: &str) -> Vec<String> {
    let mut all: Vec<String> = TABLES
        .iter()
        .map(|template| render(dialect, template, prefix))
        .collect();
    if dialect == Dialect::Postgresql {
        // Blobs are mostly compressed already: trying it again costs more than it gives.
        all.push(format!(
            "ALTER TABLE {prefix}chunks ALTER COLUMN data SET STORAGE EXTERNAL"
        ));
    }
    all
}

/// Sees to it that the tables are there and are ours.
///
/// # Errors
/// A newer version is [`BlobError::NotUsed`].
pub(crate) async fn ensure(pool: &Pool, store: &str, prefix: &str) -> Result<(), Fault> {
    let mut session = pool.acquire(Purpose::Read).await?;
    let found = match version(&mut session).await {
        Err(Fault::NoTable) => None,
        Err(Fault::Lost(_)) if session.reused() => {
            pool.forget_idle();
            drop(session);
            session = pool.acquire(Purpose::Read).await?;
            match version(&mut session).await {
                Err(Fault::NoTable) => None,
                other => other?,
            }
        }
        other => other?,
    };
    drop(session);
    let found = match found {
        Some(found) => found,
        None => create(pool, prefix).await?,
    };
    if found == VERSION {
        return Ok(());
    }
    Err(Fault::Decided(BlobError::NotUsed {
        store: store.to_owned(),
        reason: format!(
            "the tables {prefix}* have version {found}, this program knows version {VERSION}: \
             use a program of the same release, or another table-prefix"
        ),
    }))
}

async fn version(session: &mut Session) -> Result<Option<i64>, Fault> {
    let answer = session
        .run(Query::SchemaVersion, vec![version_name()])
        .await?;
    answer.first().map(|mut row| row.integer()).transpose()
}

fn version_name() -> Value {
    Value::Bytes(VERSION_NAME.into())
}

async fn create(pool: &Pool, prefix: &str) -> Result<i64, Fault> {
    let mut session = pool.acquire(Purpose::Write).await?;
    let dialect = pool.dialect();
    session.begin().await?;
    let made = create_within(&mut session, dialect, prefix).await;
    match made {
        Ok(version) => {
            session.commit().await?;
            Ok(version)
        }
        Err(fault) => {
            session.rollback().await;
            Err(fault)
        }
    }
}

async fn create_within(
    session: &mut Session,
    dialect: Dialect,
    prefix: &str,
) -> Result<i64, Fault> {
    if dialect == Dialect::Postgresql {
        let lock = format!("SELECT pg_advisory_xact_lock({CREATION_LOCK})");
        session.define(lock).await?;
    }
    for definition in definitions(dialect, prefix) {
        session.define(definition).await?;
    }
    for (table, column) in [("garbage", "since"), ("uploads", "begun")] {
        index(session, dialect, prefix, table, column).await?;
    }
    session
        .run(
            Query::SetSchemaVersion,
            vec![version_name(), VERSION.into()],
        )
        .await?;
    version(session)
        .await?
        .ok_or_else(|| Fault::Protocol("the schema's version is not there".to_owned()))
}

/// Makes an index. MySQL has no IF NOT EXISTS here (MariaDB has): an index that is there is fine.
async fn index(
    session: &mut Session,
    dialect: Dialect,
    prefix: &str,
    table: &str,
    column: &str,
) -> Result<(), Fault> {
    /// "Duplicate key name".
    const THERE_ALREADY: &str = "1061";
    let guard = match dialect {
        Dialect::Mysql => "",
        Dialect::Postgresql | Dialect::Sqlite => "IF NOT EXISTS ",
    };
    let name = format!("{prefix}{table}_{column}");
    let sql = format!("CREATE INDEX {guard}{name} ON {prefix}{table} ({column})");
    match session.define(sql).await {
        Err(Fault::Refused { code, .. }) if code == THERE_ALREADY => Ok(()),
        other => other,
    }
}
