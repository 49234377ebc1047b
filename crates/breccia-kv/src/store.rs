//! The typed interface of the in-memory slice: one trait for every member and every composite.
//!
//! Not the forwarding path (`resp/frontend` and `pipeline.rs` pass bytes through without it), and
//! not a wire format. Invariant: a store performs an operation exactly or refuses it; it never
//! approximates one, and never runs twice what may have run once.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::entry::{Operation, Outcome};
use crate::error::{KvError, Part};

mod extension;

pub use extension::{KvStoreExt, SetOptions};

/// What a store's methods return. Dropping it gives up waiting; what was sent may still happen.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, KvError>> + Send + 'a>>;

/// What kind of server stands behind a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum StoreKind {
    /// A Redis server.
    Redis,
    /// A memcached server.
    Memcached,
    /// The memory of this process.
    Memory,
}

impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StoreKind::Redis => "redis",
            StoreKind::Memcached => "memcached",
            StoreKind::Memory => "memory",
        })
    }
}

/// Something not every member can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Need {
    /// Every Redis command and data type.
    Redis,
    /// Listing and counting keys.
    Scan,
    /// Flags and CAS tokens kept with each value.
    FlagsAndCas,
    /// Expiry in milliseconds.
    Milliseconds,
}

/// A member that is not made of other stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its name in the configuration.
    pub name: String,
    /// What it is.
    pub kind: StoreKind,
    /// Where it is, if it has an address: shown to people, and held against the layout.
    pub address: Option<String>,
}

impl Leaf {
    /// Whether this member can do it.
    #[must_use]
    pub fn can(&self, need: Need) -> bool {
        match need {
            Need::Redis => self.kind == StoreKind::Redis,
            Need::Scan | Need::Milliseconds => self.kind != StoreKind::Memcached,
            Need::FlagsAndCas => self.kind != StoreKind::Redis,
        }
    }
}

/// What a store is made of, and so what it can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The store's name in the configuration.
    pub name: String,
    /// Whether it is made of other stores.
    pub composite: bool,
    /// The members at the bottom, in layout order; a member that is no composite lists itself.
    pub leaves: Vec<Leaf>,
}

impl Capabilities {
    /// What a member that is no composite says of itself.
    #[must_use]
    pub fn leaf(name: impl Into<String>, kind: StoreKind) -> Self {
        let name = name.into();
        let leaf = Leaf {
            name: name.clone(),
            kind,
            address: None,
        };
        Self {
            leaves: vec![leaf],
            composite: false,
            name,
        }
    }

    /// The same, with the address it is reached at.
    #[must_use]
    pub fn at(mut self, address: &str) -> Self {
        for leaf in &mut self.leaves {
            leaf.address = Some(address.to_owned());
        }
        self
    }

    /// Whether every member can do it.
    #[must_use]
    pub fn can(&self, need: Need) -> bool {
        self.lacking(need).is_none()
    }

    /// The first member that cannot do it.
    #[must_use]
    pub fn lacking(&self, need: Need) -> Option<&Leaf> {
        self.leaves.iter().find(|leaf| !leaf.can(need))
    }
}

/// One operation of many, with its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyedOperation<'a> {
    /// The key.
    pub key: &'a [u8],
    /// What to do with it.
    pub operation: Operation<'a>,
}

/// A request for some of the keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanRequest<'a> {
    /// 0 to begin, else the cursor of the page before. Over one server below 2^44.
    pub cursor: u64,
    /// Only keys that match this glob pattern (Redis's rules).
    pub pattern: Option<&'a [u8]>,
    /// Only keys whose value has this data type, its name in any case.
    pub type_name: Option<&'a [u8]>,
    /// About how many keys to look at; 0 counts as 1.
    pub count: usize,
}

/// Some of the keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanPage {
    /// The cursor of the next page; 0: this was the last.
    pub cursor: u64,
    /// The keys found. May be empty before the end, and may repeat keys of earlier pages.
    pub keys: Vec<Bytes>,
}

/// A store of keys and values: a member, or a composite of stores.
///
/// `KvStoreExt` holds the comfortable methods; this trait holds what a member must bring.
pub trait KvStore: Send + Sync + fmt::Debug {
    /// What the store is made of.
    fn capabilities(&self) -> &Capabilities;

    /// The error a request would end in whatever the store holds: it is asked before anything is
    /// sent, so that a request for many keys is refused as a whole and not done in part.
    fn refusal(&self, request: &KeyedOperation<'_>) -> Option<KvError> {
        let _ = request;
        None
    }

    /// Performs the operations on one key, in order and atomically: nobody sees a state between
    /// them. One outcome for each. An operation that does not fit the value found answers
    /// [`Outcome::Refused`] and the others are still performed, as in a Redis transaction; an
    /// error means that none of them was performed, or (by its `effect`) that this is unknown.
    fn apply<'a>(
        &'a self,
        key: &'a [u8],
        operations: &'a [Operation<'a>],
    ) -> StoreFuture<'a, Vec<Outcome>>;

    /// Performs one operation on each of many keys; those on one key in order. Not atomic over
    /// keys. If any fails, the whole is [`KvError::Partial`], which says what became of the rest.
    fn apply_each<'a>(
        &'a self,
        requests: &'a [KeyedOperation<'a>],
    ) -> StoreFuture<'a, Vec<Outcome>>;

    /// Lists some keys. Every key that exists from the first page to the last is returned at
    /// least once, whatever else is added or removed meanwhile.
    fn scan<'a>(&'a self, request: ScanRequest<'a>) -> StoreFuture<'a, ScanPage>;

    /// How many keys there are.
    fn key_count(&self) -> StoreFuture<'_, u64>;

    /// Removes every key of this store.
    fn flush(&self) -> StoreFuture<'_, ()>;

    /// Some key, if there is one; `seed` decides which where the store leaves the choice.
    fn random_key(&self, seed: u64) -> StoreFuture<'_, Option<Bytes>>;
}

/// Performs requests one after the other, for members that cannot do better. What was done before a
/// failure is told by it.
pub(crate) async fn apply_in_turn<S: KvStore>(
    store: &S,
    requests: &[KeyedOperation<'_>],
) -> Result<Vec<Outcome>, KvError> {
    let mut answers = Vec::with_capacity(requests.len());
    for request in requests {
        let operations = [request.operation];
        let answer = store.apply(request.key, &operations).await;
        answers.push(answer.map(|outcomes| outcomes.into_iter().next()));
    }
    merge_answers(store, requests, answers)
}

/// Joins the answers to single requests into the answer to all of them.
pub(crate) fn merge_answers<S: KvStore>(
    store: &S,
    requests: &[KeyedOperation<'_>],
    mut answers: Vec<Result<Option<Outcome>, KvError>>,
) -> Result<Vec<Outcome>, KvError> {
    let Some(first) = answers.iter().position(Result::is_err) else {
        let outcomes: Option<Vec<Outcome>> = answers.into_iter().flatten().collect();
        return Ok(outcomes.expect("a member answers each of its operations"));
    };
    if requests.len() == 1 {
        return answers
            .swap_remove(first)
            .map(|outcome| outcome.into_iter().collect());
    }
    let mut parts: Vec<Part> = Vec::new();
    for (request, answer) in requests.iter().zip(answers) {
        let error = answer.err().map(Arc::new);
        let words = error.as_ref().map(ToString::to_string);
        let same = |part: &&mut Part| part.error.as_ref().map(ToString::to_string) == words;
        match parts.iter_mut().find(same) {
            Some(part) => {
                part.keys.push(request.key.to_vec());
                part.writes |= request.operation.writes();
            }
            None => parts.push(Part {
                store: store.capabilities().name.clone(),
                keys: vec![request.key.to_vec()],
                writes: request.operation.writes(),
                error,
            }),
        }
    }
    Err(KvError::Partial { parts })
}
