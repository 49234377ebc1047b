//! The store over a database's tables.
//!
//! Not a driver: it knows connections only as sessions of the pool. Invariant: no session is held
//! while a client is waited for.

use std::sync::Arc;

use breccia_core::error::Effect;
use bytes::Bytes;
use tokio::sync::OnceCell;

use super::driver::Driver;
use super::fault::Fault;
use super::options::{Server, ServerOptions, SqlOptions, SqliteOptions};
use super::pool::{Pool, Purpose};
use super::statements::{Query, Statements};
use super::{get, mysql, postgresql, schema, sqlite};
use crate::body::Body;
use crate::condition::WriteCondition;
use crate::error::BlobError;
use crate::key::Key;
use crate::listing::{ListPage, ListRequest};
use crate::meta::{ObjectMeta, Tags};
use crate::store::{
    BlobStore, CopyOptions, GetOptions, Maintained, Opened, PutOptions, ReservedWrite, StoreFuture,
    StoreKind, Written, copy_streamed,
};
use crate::upload::{
    CompleteOptions, PartChoice, PartInfo, PartPage, UploadId, UploadOptions, UploadPage,
};

/// A store of type `postgresql`, `mysql` or `sqlite`.
#[derive(Debug)]
pub struct SqlStore {
    inner: Arc<Inner>,
}

/// What the store and its open readers share.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) name: String,
    pub(super) options: SqlOptions,
    pub(super) pool: Pool,
    kind: StoreKind,
    location: String,
    schema: OnceCell<()>,
}

impl SqlStore {
    /// A store in a server's database. No connection is made before the first request.
    ///
    /// # Errors
    /// [`BlobError::Options`].
    pub fn open(options: SqlOptions, server: &ServerOptions) -> Result<Self, BlobError> {
        options.check()?;
        let kind = match server.server {
            Server::Postgresql => StoreKind::Postgresql,
            Server::Mysql => StoreKind::Mysql,
        };
        let location = format!(
            "{}:{}/{}/{}",
            kind.name(),
            server.address,
            server.database,
            options.table_prefix
        );
        let driver: Box<dyn Driver> = match server.server {
            Server::Postgresql => Box::new(postgresql::Postgresql::new(&options, server)?),
            Server::Mysql => Box::new(mysql::Mysql::new(&options, server)?),
        };
        Ok(Self::over(options, driver, kind, location))
    }

    /// A store in an SQLite file. The file is not touched before the first request.
    ///
    /// # Errors
    /// [`BlobError::Options`].
    pub fn open_sqlite(options: SqlOptions, file: &SqliteOptions) -> Result<Self, BlobError> {
        options.check()?;
        let path = std::path::absolute(&file.path)
            .map_err(|error| options.fault(format!("path: {error}")))?;
        let kind = StoreKind::Sqlite;
        let prefix = &options.table_prefix;
        let location = format!("{}:{}/{prefix}", kind.name(), path.display());
        let driver = Box::new(sqlite::Sqlite::new(&options, path));
        Ok(Self::over(options, driver, kind, location))
    }

    pub(super) fn over(
        options: SqlOptions,
        driver: Box<dyn Driver>,
        kind: StoreKind,
        location: String,
    ) -> Self {
        let pool = Pool::new(driver, options.max_connections, options.timeout);
        let inner = Inner {
            name: options.name.clone(),
            options,
            pool,
            kind,
            location,
            schema: OnceCell::new(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }
}

#[cfg(test)]
impl SqlStore {
    pub(super) async fn hold_a_session(&self) -> super::pool::Session {
        let acquired = self.inner.pool.acquire(Purpose::Read).await;
        acquired.unwrap_or_else(|fault| panic!("{fault:?}"))
    }
}

/// The statements over the tables of these options.
pub(super) fn statements(
    options: &SqlOptions,
    dialect: super::statements::Dialect,
) -> Arc<Statements> {
    Arc::new(Statements::new(dialect, &options.table_prefix))
}

impl Inner {
    /// Sees to it, once, that the tables are there and are ours.
    pub(super) async fn ready(&self) -> Result<(), BlobError> {
        let prefix = &self.options.table_prefix;
        let ensure = || schema::ensure(&self.pool, &self.name, prefix);
        let ready = self.schema.get_or_try_init(ensure).await;
        ready.copied().map_err(|fault| self.told(fault))
    }

    /// A fault of something that changed nothing.
    pub(super) fn told(&self, fault: Fault) -> BlobError {
        fault.into_error(&self.name, Effect::NotApplied)
    }

    async fn probe(&self) -> Result<(), BlobError> {
        let asked = async {
            let mut session = self.pool.acquire(Purpose::Read).await?;
            let reused = session.reused();
            match session.run(Query::Probe, Vec::new()).await {
                Err(Fault::Lost(_)) if reused => {
                    self.pool.forget_idle();
                    drop(session);
                    let mut session = self.pool.acquire(Purpose::Read).await?;
                    session.run(Query::Probe, Vec::new()).await
                }
                other => other,
            }
        };
        asked.await.map(drop).map_err(|fault| self.told(fault))
    }
}

impl BlobStore for SqlStore {
    fn name(&self) -> &str {
        &self.inner.name
    }

    fn kind(&self) -> StoreKind {
        self.inner.kind
    }

    fn location(&self) -> Option<String> {
        Some(self.inner.location.clone())
    }

    fn accepts(&self, _key: &Key) -> Result<(), BlobError> {
        Ok(())
    }

    fn put<'a>(
        &'a self,
        key: &'a Key,
        body: Body,
        options: PutOptions,
    ) -> StoreFuture<'a, Written> {
        Box::pin(self.inner.put(key, body, options))
    }

    fn get<'a>(&'a self, key: &'a Key, options: GetOptions) -> StoreFuture<'a, Opened> {
        Box::pin(get::open(&self.inner, key, options))
    }

    fn head<'a>(&'a self, key: &'a Key) -> StoreFuture<'a, ObjectMeta> {
        Box::pin(async move {
            let found = self.inner.find(key).await?;
            found.map(|object| object.meta).ok_or(BlobError::NotFound)
        })
    }

    fn delete<'a>(&'a self, key: &'a Key, condition: WriteCondition) -> StoreFuture<'a, bool> {
        Box::pin(self.inner.delete(key, condition))
    }

    fn list(&self, request: ListRequest) -> StoreFuture<'_, ListPage> {
        Box::pin(self.inner.list(request))
    }

    fn copy<'a>(
        &'a self,
        from: &'a Key,
        to: &'a Key,
        options: CopyOptions,
    ) -> StoreFuture<'a, Written> {
        Box::pin(copy_streamed(self, from, self, to, options))
    }

    fn set_tags<'a>(&'a self, key: &'a Key, tags: Tags) -> StoreFuture<'a, ()> {
        Box::pin(self.inner.set_tags(key, tags))
    }

    fn create_upload<'a>(
        &'a self,
        key: &'a Key,
        options: UploadOptions,
    ) -> StoreFuture<'a, UploadId> {
        Box::pin(self.inner.create_upload(key, options))
    }

    fn put_part<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        number: u16,
        body: Body,
    ) -> StoreFuture<'a, PartInfo> {
        Box::pin(self.inner.put_part(key, upload, number, body))
    }

    fn complete_upload<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        parts: Vec<PartChoice>,
        options: CompleteOptions,
    ) -> StoreFuture<'a, Written> {
        Box::pin(self.inner.complete_upload(key, upload, parts, options))
    }

    fn abort_upload<'a>(&'a self, key: &'a Key, upload: &'a UploadId) -> StoreFuture<'a, ()> {
        Box::pin(self.inner.abort_upload(key, upload))
    }

    fn list_parts<'a>(
        &'a self,
        key: &'a Key,
        upload: &'a UploadId,
        after: u16,
        limit: usize,
    ) -> StoreFuture<'a, PartPage> {
        Box::pin(self.inner.list_parts(key, upload, after, limit))
    }

    fn list_uploads(
        &self,
        prefix: Bytes,
        after: Option<(Key, Option<UploadId>)>,
        limit: usize,
    ) -> StoreFuture<'_, UploadPage> {
        Box::pin(async move { self.inner.list_uploads(&prefix, after, limit).await })
    }

    fn read_reserved<'a>(&'a self, name: &'a str) -> StoreFuture<'a, Option<Bytes>> {
        Box::pin(self.inner.read_reserved(name))
    }

    fn write_reserved<'a>(
        &'a self,
        name: &'a str,
        bytes: Bytes,
        how: ReservedWrite,
    ) -> StoreFuture<'a, bool> {
        Box::pin(self.inner.write_reserved(name, bytes, how))
    }

    fn delete_reserved<'a>(&'a self, name: &'a str) -> StoreFuture<'a, ()> {
        Box::pin(self.inner.delete_reserved(name))
    }

    fn list_reserved<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> StoreFuture<'a, Vec<String>> {
        Box::pin(self.inner.list_reserved(prefix, after))
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        Box::pin(self.inner.probe())
    }

    fn maintain(&self, expired_before_ms: u64) -> StoreFuture<'_, Maintained> {
        Box::pin(self.inner.maintain(expired_before_ms))
    }
}
