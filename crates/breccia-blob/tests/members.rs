//! Sharded composites over real members: of one kind and mixed, of 1, 3 and 7 shards, nested.
//!
//! Not the members by themselves: those have tests of their own. Invariant: every member is real; only
//! Google's has a stub.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use breccia_blob::azure::{AzureCredential, AzureOptions, AzureStore};
use breccia_blob::fs::{FsOptions, FsStore};
use breccia_blob::gcs::{GcsCredential, GcsOptions, GcsStore};
use breccia_blob::s3::backend::{CredentialSource, S3Options, S3Store};
use breccia_blob::sharded::Member;
use breccia_blob::sql::{
    Server, ServerOptions, SqlOptions, SqlStore, SqlTlsOptions, SqliteOptions,
};
use breccia_blob::{BlobStore, ShardedBlob, ShardedBlobOptions};
use breccia_net::layout_store::LayoutStore;
use breccia_testkit::conformance::blob_conformance;
use breccia_testkit::{Azurite, GcsStub, MariaDb, Postgres, Rgw, S3Server};
use tempfile::TempDir;

type Leaf = Arc<dyn BlobStore>;

fn fs(folder: &TempDir, number: usize) -> Result<Leaf> {
    let name = format!("fs-{number}");
    let path = folder.path().join(&name);
    Ok(FsStore::open(&FsOptions { name, path })?)
}

fn sqlite(folder: &TempDir, number: usize) -> Result<Leaf> {
    let name = format!("sqlite-{number}");
    let file = SqliteOptions {
        path: folder.path().join(&name),
    };
    Ok(Arc::new(SqlStore::open_sqlite(
        SqlOptions::new(name),
        &file,
    )?))
}

fn s3(server: &S3Server, composite: &str, number: usize) -> Result<Leaf> {
    let bucket = format!("{composite}-{number}");
    server.create_bucket(&bucket)?;
    let options = S3Options {
        endpoint: Some(server.endpoint.clone()),
        region: Some(server.region.clone()),
        credentials: CredentialSource::Given {
            access_key: server.access_key.clone(),
            secret_key: server.secret_key.clone(),
            session_token: None,
        },
        timeout: Duration::from_secs(20),
        ..S3Options::new(format!("s3-{number}"), bucket)
    };
    Ok(Arc::new(S3Store::new(options)?))
}

/// One database holds several shards, under prefixes of their own.
fn sql(server: &ServerOptions, number: usize) -> Result<Leaf> {
    let options = SqlOptions {
        table_prefix: format!("m{number}_"),
        max_connections: 8,
        ..SqlOptions::new(format!("sql-{number}"))
    };
    Ok(Arc::new(SqlStore::open(options, server)?))
}

fn postgres(server: &Postgres) -> Result<ServerOptions> {
    server.create_database("blobs")?;
    Ok(ServerOptions {
        server: Server::Postgresql,
        address: server.address().parse().context("an address")?,
        database: "blobs".to_owned(),
        user: server.user().to_owned(),
        password: Some(server.password().to_owned()),
        tls: SqlTlsOptions::default(),
    })
}

fn mariadb(server: &MariaDb) -> Result<ServerOptions> {
    server.create_database("blobs")?;
    Ok(ServerOptions {
        server: Server::Mysql,
        address: server.address().parse().context("an address")?,
        database: "blobs".to_owned(),
        user: server.user().to_owned(),
        password: Some(server.password().to_owned()),
        tls: SqlTlsOptions::default(),
    })
}

fn azure(server: &Azurite, composite: &str, number: usize) -> Result<Leaf> {
    let container = format!("{composite}-{number}");
    server.create_container(&container)?;
    let key = AzureCredential::AccessKey(server.account_key().to_owned());
    let name = format!("azure-{number}");
    let options = AzureOptions {
        endpoint: server.endpoint(),
        ..AzureOptions::new(name, server.account().to_owned(), container, key)
    };
    Ok(Arc::new(AzureStore::open(options)?))
}

fn gcs(server: &GcsStub, composite: &str, number: usize) -> Result<Leaf> {
    let bucket = format!("{composite}-{number}");
    server.create_bucket(&bucket);
    let name = format!("gcs-{number}");
    let options = GcsOptions {
        endpoint: server.endpoint(),
        ..GcsOptions::new(name, bucket, GcsCredential::Anonymous)
    };
    Ok(Arc::new(GcsStore::open(options)?))
}

/// A composite of these leaves passes the suite.
async fn conforms(name: &str, leaves: Vec<Leaf>) -> Result<()> {
    let count = leaves.len();
    let layouts = Arc::new(LayoutStore::ephemeral());
    let members = leaves.into_iter().map(Member::Leaf).collect();
    let options = ShardedBlobOptions::new(name);
    let store = ShardedBlob::open(&layouts, options, members).await?;
    let store: Leaf = Arc::new(store);
    let what = || format!("{name}: {count} shards");
    blob_conformance(&store).await.with_context(what)
}

fn many(count: usize, leaf: impl Fn(usize) -> Result<Leaf>) -> Result<Vec<Leaf>> {
    (0..count).map(leaf).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_conform_as_1_3_and_7() -> Result<()> {
    for count in [1, 3, 7] {
        let folder = tempfile::tempdir()?;
        conforms("folders", many(count, |number| fs(&folder, number))?).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_files_conform_as_1_3_and_7() -> Result<()> {
    for count in [1, 3, 7] {
        let folder = tempfile::tempdir()?;
        conforms("files", many(count, |number| sqlite(&folder, number))?).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_conforms_as_1_3_and_7() -> Result<()> {
    let server = Postgres::new()?;
    let server = postgres(&server)?;
    let mut begun = 0;
    for count in [1, 3, 7] {
        conforms(
            "postgresql",
            many(count, |number| sql(&server, begun + number))?,
        )
        .await?;
        begun += count;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_conforms_as_3() -> Result<()> {
    let server = MariaDb::new()?;
    let server = mariadb(&server)?;
    conforms("mariadb", many(3, |number| sql(&server, number))?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_conforms_as_1_3_and_7() -> Result<()> {
    let server = Rgw::shared()?.s3();
    for count in [1, 3, 7] {
        let name = format!("s3-of-{count}");
        conforms(&name, many(count, |number| s3(server, &name, number))?).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_conforms_as_3() -> Result<()> {
    let server = Azurite::start()?;
    conforms("azure", many(3, |number| azure(&server, "azure", number))?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn gcs_conforms_as_3() -> Result<()> {
    let server = GcsStub::start()?;
    conforms("gcs", many(3, |number| gcs(&server, "gcs", number))?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_a_bucket_and_a_database_conform_together() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (database, bucket) = (Postgres::new()?, Rgw::shared()?.s3());
    let database = postgres(&database)?;
    let leaves = vec![fs(&folder, 0)?, s3(bucket, "mixed", 0)?, sql(&database, 0)?];
    conforms("mixed", leaves).await
}

#[tokio::test(flavor = "multi_thread")]
async fn seven_of_every_kind_conform_together() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (postgresql, maria) = (Postgres::new()?, MariaDb::new()?);
    let (azurite, stub) = (Azurite::start()?, GcsStub::start()?);
    let leaves = vec![
        fs(&folder, 0)?,
        sqlite(&folder, 0)?,
        s3(Rgw::shared()?.s3(), "seven", 0)?,
        sql(&postgres(&postgresql)?, 0)?,
        sql(&mariadb(&maria)?, 1)?,
        azure(&azurite, "seven", 0)?,
        gcs(&stub, "seven", 0)?,
    ];
    conforms("seven", leaves).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_composite_of_composites_conforms() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let inner = Member::Composite(
        ShardedBlobOptions::new("inner"),
        vec![Member::Leaf(fs(&folder, 0)?), Member::Leaf(fs(&folder, 1)?)],
    );
    let members = vec![inner, Member::Leaf(sqlite(&folder, 2)?)];
    let layouts = Arc::new(LayoutStore::ephemeral());
    let options = ShardedBlobOptions::new("outer");
    let store: Leaf = Arc::new(ShardedBlob::open(&layouts, options, members).await?);
    blob_conformance(&store).await
}
