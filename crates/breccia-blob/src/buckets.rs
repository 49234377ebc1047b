//! Buckets that clients make, kept in the composite itself.
//!
//! Not the protocol of a write, which [`crate::bucket`] explains. Invariant: the home record, on the
//! leaf that its name is placed on, is the truth; copies on every leaf answer only while that leaf
//! cannot be asked.
//!
//! ```text
//! bucket/NAME          the home record: alive or deleting      (home leaf)
//! bucket-copy/NAME     a copy, without a state                 (every leaf)
//! bucket-delete/NAME   held by the one delete that is under way (home leaf of that name)
//! ```
//!
//! The state is changed only by the holder of `bucket-delete/NAME`, which is created if absent. A
//! holder gives up within half a minute; one that died is recognised after two, and the bucket is
//! alive again. This takes clocks of gateways that are less than a minute apart.

mod deleting;
mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use breccia_core::error::Effect;
use breccia_net::clock;
use futures_util::stream::{StreamExt as _, TryStreamExt as _, iter};

use crate::bucket::{
    BucketFuture, BucketName, BucketRecord, BucketStore, Confirmed, Created, Deleted, MAX_CACHE_AGE,
};
use crate::error::BlobError;
use crate::markers::leaves_of;
use crate::sharded::reserved;
use crate::store::{BlobStore, ReservedWrite, StoreFuture};
use record::{Record, State};

const HOMES: &str = "bucket/";
const COPIES: &str = "bucket-copy/";
/// How long a writer waits for a delete to end.
const CONFIRM_LIMIT: Duration = Duration::from_secs(15);
/// Between two looks at a record that is being deleted.
const CONFIRM_PAUSE: Duration = Duration::from_millis(20);
/// The most records that are cached.
const MAX_CACHED: usize = 10_000;
/// The most buckets that are listed.
const MAX_LISTED: usize = 100_000;
/// How many records are read, or leaves asked, at once.
const MAX_ASKED: usize = 16;

/// Keeps buckets in a store.
#[derive(Debug)]
pub struct Buckets {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn BlobStore>,
    leaves: Vec<Arc<dyn BlobStore>>,
    cache: Mutex<BTreeMap<BucketName, (Instant, BucketRecord)>>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Inner");
        shown.field("store", &self.store).finish_non_exhaustive()
    }
}

fn home(name: &BucketName) -> String {
    format!("{HOMES}{name}")
}

fn copy(name: &BucketName) -> String {
    format!("{COPIES}{name}")
}

impl Buckets {
    /// Buckets in this store: a composite, or a single leaf.
    #[must_use]
    pub fn new(store: Arc<dyn BlobStore>) -> Self {
        let leaves = leaves_of(&store);
        Self {
            inner: Arc::new(Inner {
                store,
                leaves,
                cache: Mutex::default(),
            }),
        }
    }
}

impl Inner {
    /// The home record, afresh.
    async fn read_home(&self, name: &BucketName) -> Result<Option<Record>, BlobError> {
        let text = self.store.read_reserved(&home(name)).await?;
        text.map(|text| Record::read(self.store.name(), &text))
            .transpose()
    }

    async fn write_home(
        &self,
        name: &BucketName,
        record: &Record,
        how: ReservedWrite,
    ) -> Result<bool, BlobError> {
        let text = record.write();
        self.store.write_reserved(&home(name), text, how).await
    }

    async fn create(&self, name: &BucketName, owner: Option<&str>) -> Result<Created, BlobError> {
        let record = Record::new(owner)?;
        if !self
            .write_home(name, &record, ReservedWrite::IfAbsent)
            .await?
        {
            let found = self.read_home(name).await?;
            let found = found.ok_or_else(|| self.conflict())?;
            if found.state == State::Deleting {
                deleting::revive_if_stale(self, name).await?;
                return Err(self.conflict());
            }
            return Ok(Created::Existed(found.shown(name)));
        }
        self.spread(name, &record).await?;
        Ok(Created::New(record.shown(name)))
    }

    fn conflict(&self) -> BlobError {
        let store = self.store.name().to_owned();
        BlobError::Conflict { store }
    }

    /// Copies help while the home leaf is down; one that cannot be written is not missed before.
    async fn write_copies(&self, name: &BucketName, record: &Record) {
        for leaf in &self.leaves {
            let (copy, text) = (copy(name), record.write());
            let written = leaf
                .write_reserved(&copy, text, ReservedWrite::Always)
                .await;
            if let Err(error) = written {
                tracing::warn!(bucket = %name, %error, "a copy of a bucket's record is not written");
            }
        }
    }

    /// Gives every leaf its copy, unless a delete was faster: it would leave them behind.
    async fn spread(&self, name: &BucketName, record: &Record) -> Result<(), BlobError> {
        self.write_copies(name, record).await;
        match self.read_home(name).await {
            // Whoever deletes writes them again if the bucket stays.
            Ok(Some(there)) if there.state == State::Deleting => self.remove_copies(name).await?,
            Ok(None) => self.remove_copies(name).await?,
            Ok(Some(there)) if there.nonce != record.nonce => self.write_copies(name, &there).await,
            // Without an answer, nothing is known to be wrong.
            Ok(Some(_)) | Err(_) => {}
        }
        Ok(())
    }

    async fn remove_copies(&self, name: &BucketName) -> Result<(), BlobError> {
        for leaf in &self.leaves {
            leaf.delete_reserved(&copy(name)).await?;
        }
        Ok(())
    }

    async fn look_up(&self, name: &BucketName) -> Result<Option<BucketRecord>, BlobError> {
        if let Some(cached) = self.cached(name) {
            return Ok(Some(cached));
        }
        let asked = clock::now();
        let record = match self.read_home(name).await {
            Ok(Some(record)) if record.state == State::Deleting => {
                // If whoever deleted it has died, the bucket is there again with the next look.
                deleting::revive_if_stale(self, name).await?;
                None
            }
            Ok(record) => record,
            Err(error) => Some(self.read_copy(name).await.ok_or(error)?),
        };
        let shown = record.map(|record| record.shown(name));
        if let Some(shown) = &shown {
            let mut cache = self.cache();
            if cache.len() >= MAX_CACHED {
                cache.clear();
            }
            cache.insert(name.clone(), (asked, shown.clone()));
        }
        Ok(shown)
    }

    fn cached(&self, name: &BucketName) -> Option<BucketRecord> {
        let cache = self.cache();
        let (asked, record) = cache.get(name)?;
        let age = clock::now().saturating_duration_since(*asked);
        (age < MAX_CACHE_AGE).then(|| record.clone())
    }

    fn cache(&self) -> MutexGuard<'_, BTreeMap<BucketName, (Instant, BucketRecord)>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, name: &BucketName) {
        self.cache().remove(name);
    }

    /// The record from any leaf that has a copy.
    async fn read_copy(&self, name: &BucketName) -> Option<Record> {
        for leaf in &self.leaves {
            let text = leaf.read_reserved(&copy(name)).await;
            if let Ok(Some(text)) = text
                && let Ok(record) = Record::read(leaf.name(), &text)
            {
                return Some(record);
            }
        }
        None
    }

    async fn list(&self) -> Result<Vec<BucketRecord>, BlobError> {
        let names = self.names().await?;
        let mut reads: Vec<StoreFuture<'_, Option<BucketRecord>>> = Vec::with_capacity(names.len());
        for (name, incomplete) in &names {
            reads.push(Box::pin(async move {
                let record = match self.read_home(name).await {
                    // Copies that were left behind are no bucket.
                    Ok(record) => record,
                    Err(error) => Some(self.read_copy(name).await.ok_or(error)?),
                };
                if let Some(record) = &record
                    && *incomplete
                    && record.state == State::Alive
                    && let Err(error) = self.spread(name, record).await
                {
                    tracing::warn!(bucket = %name, %error, "a copy of a bucket's record is left");
                }
                Ok(record.map(|record| record.shown(name)))
            }));
        }
        let records = iter(reads).buffered(MAX_ASKED);
        let records: Vec<Option<BucketRecord>> = records.try_collect().await?;
        Ok(records.into_iter().flatten().collect())
    }

    /// The names that any leaf that answers knows, and whether another one that answers lacks the
    /// copy. One leaf knows them all, unless it was down when a bucket was made and no listing has
    /// given it the copy since.
    async fn names(&self) -> Result<BTreeMap<BucketName, bool>, BlobError> {
        let mut names: BTreeMap<BucketName, usize> = BTreeMap::new();
        let mut failed = None;
        let mut answered = 0_usize;
        for leaf in &self.leaves {
            let (mut copies, mut homes) = (BTreeSet::new(), BTreeSet::new());
            let known = async {
                names_of(&**leaf, COPIES, &mut copies).await?;
                names_of(&**leaf, HOMES, &mut homes).await
            };
            match known.await {
                Ok(()) => {
                    answered = answered.saturating_add(1);
                    for name in copies {
                        let count = names.entry(name).or_default();
                        *count = count.saturating_add(1);
                    }
                    for name in homes {
                        names.entry(name).or_default();
                    }
                }
                Err(error @ BlobError::Overloaded { .. }) => return Err(error),
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if answered == 0 => Err(error.within(self.store.name())),
            _ => Ok(names
                .into_iter()
                .map(|(name, copies)| (name, copies < answered))
                .collect()),
        }
    }

    async fn confirm(&self, name: &BucketName) -> Result<Confirmed, BlobError> {
        let state = async {
            loop {
                match self.read_home(name).await?.map(|record| record.state) {
                    Some(State::Alive) => return Ok(Confirmed::Alive),
                    None => return Ok(Confirmed::Gone),
                    Some(State::Deleting) => tokio::time::sleep(CONFIRM_PAUSE).await,
                }
            }
        };
        let unknown = |reason: String| BlobError::Down {
            store: self.store.name().to_owned(),
            reason: format!("the bucket's record cannot be read after the write: {reason}"),
            effect: Effect::Unknown,
        };
        let confirmed = match tokio::time::timeout(CONFIRM_LIMIT, state).await {
            Ok(state) => state.map_err(|error: BlobError| unknown(error.to_string())),
            Err(_) => Err(unknown("it is being deleted".to_owned())),
        };
        if !matches!(confirmed, Ok(Confirmed::Alive)) {
            self.forget(name);
        }
        confirmed
    }
}

async fn names_of(
    leaf: &dyn BlobStore,
    prefix: &str,
    names: &mut BTreeSet<BucketName>,
) -> Result<(), BlobError> {
    let mut after: Option<String> = None;
    loop {
        let page = leaf.list_reserved(prefix, after.as_deref()).await?;
        reserved::check(leaf.name(), prefix, after.as_deref(), &page)?;
        let found = page.iter().filter_map(|name| name.strip_prefix(prefix));
        names.extend(found.filter_map(BucketName::new));
        if names.len() > MAX_LISTED {
            return Err(BlobError::Overloaded {
                store: leaf.name().to_owned(),
                limit: format!("the limit of {MAX_LISTED} buckets"),
            });
        }
        match page.into_iter().next_back() {
            Some(last) => after = Some(last),
            None => return Ok(()),
        }
    }
}

impl BucketStore for Buckets {
    fn create<'a>(
        &'a self,
        name: &'a BucketName,
        owner: Option<&'a str>,
    ) -> BucketFuture<'a, Created> {
        Box::pin(self.inner.create(name, owner))
    }

    fn look_up<'a>(&'a self, name: &'a BucketName) -> BucketFuture<'a, Option<BucketRecord>> {
        Box::pin(self.inner.look_up(name))
    }

    fn list(&self) -> BucketFuture<'_, Vec<BucketRecord>> {
        Box::pin(self.inner.list())
    }

    fn delete<'a>(&'a self, name: &'a BucketName) -> BucketFuture<'a, Deleted> {
        let (inner, name) = (Arc::clone(&self.inner), name.clone());
        Box::pin(async move {
            // A client that goes away must not leave a bucket half deleted.
            let store = inner.store.name().to_owned();
            let deleting = tokio::spawn(async move { deleting::delete(&inner, &name).await });
            deleting.await.unwrap_or_else(|error| {
                Err(BlobError::System {
                    store,
                    what: "deleting a bucket".to_owned(),
                    reason: error.to_string(),
                    effect: Effect::Unknown,
                })
            })
        })
    }

    fn confirm_write<'a>(&'a self, name: &'a BucketName) -> BucketFuture<'a, Confirmed> {
        Box::pin(self.inner.confirm(name))
    }
}
