//! A memcached server as a typed store, by meta commands. What one command does exactly is one
//! command; everything else is read, decided here and written with the token that was read.
//!
//! Not the forwarding path. Invariant: what memcached would do a little differently (numbers below
//! zero, padding, fractions of a second, times it cannot hold) is refused or done here, and only a
//! lost race is tried again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use breccia_core::HashKind;
use breccia_core::address::Address;
use breccia_core::error::Effect;
use breccia_net::clock;
use breccia_net::health::EndpointHealth;
use bytes::Bytes;
use tokio::sync::{Mutex, MutexGuard};

mod edit;
mod expiry;
mod request;
mod single;

use self::request::{Line, WireKey};
use super::codec::{MetaReply, Shape, is_error};
use super::wire::MemcachedWire;
use crate::endpoint::{Endpoint, Place, Terms};
use crate::entry::{Operation, Outcome};
use crate::error::KvError;
use crate::io::{DEFAULT_LIMITS, KvIo, Lane, PROBES, Pending, Probe, Probing};
use crate::join;
use crate::pipeline::PipelineLimits;
use crate::store::{
    Capabilities, KeyedOperation, KvStore, ScanPage, ScanRequest, StoreFuture, StoreKind,
    apply_in_turn, merge_answers,
};
use crate::upstream::{Greeting, UpstreamOptions};

/// A memcached server as a store.
#[derive(Clone, Debug)]
pub struct MemcachedOptions {
    /// The store's name, for layouts and messages.
    pub name: String,
    /// Where the server is.
    pub address: Address,
    /// Connections that all requests share.
    pub connections: usize,
    /// How long a request may wait to be sent.
    pub deadline: Duration,
    /// Limits of each connection's queue.
    pub limits: PipelineLimits,
    /// The server, where others use it too and somebody probes it: its terms hold instead of the
    /// address and the limits given here. `None`: the store has its own, and probes it.
    pub endpoint: Option<Arc<Endpoint>>,
}

impl MemcachedOptions {
    /// A server with the defaults of the configuration.
    #[must_use]
    pub fn new(name: impl Into<String>, address: Address) -> Self {
        Self {
            name: name.into(),
            address,
            connections: 1,
            deadline: Duration::from_secs(1),
            limits: DEFAULT_LIMITS,
            endpoint: None,
        }
    }
}

/// A store on a memcached server.
#[derive(Debug)]
pub struct MemcachedStore {
    capabilities: Capabilities,
    name: String,
    lanes: Vec<Lane<MemcachedWire>>,
    /// The server's `item_size_max`; 0 until it was asked for.
    item_limit: AtomicUsize,
    /// Edits of one key take turns here, so that only other processes can make them lose.
    turns: Vec<Mutex<()>>,
    deadline: Duration,
    _probing: Option<Probing>,
}

/// The longest key: its base64 form is as long as memcached takes.
pub const MAX_KEY_BYTES: usize = 187;
/// Keys that are edited at the same time without waiting for each other.
const TURNS: u64 = 256;
/// Values up to this size fit whatever the server's item limit is.
const SMALL_VALUE_BYTES: usize = 512;
/// What an item takes besides key and value, its CAS token and line end included.
const ITEM_BYTES: usize = 59;
/// What flags take, if there are any.
const FLAGS_BYTES: usize = 4;

impl MemcachedStore {
    /// A store on `io`'s thread. Nothing is connected until the first request.
    #[must_use]
    pub fn new(io: &KvIo, options: MemcachedOptions) -> Self {
        let MemcachedOptions {
            name,
            address,
            connections,
            deadline,
            limits,
            endpoint,
        } = options;
        let probed = endpoint.is_some();
        let endpoint = endpoint.unwrap_or_else(|| {
            let terms = Terms::simple(Place::plain(address.clone()), limits);
            Endpoint::new(terms, EndpointHealth::new(name.clone(), address))
        });
        let address = endpoint.current().terms.place.address.clone();
        let probing = (!probed).then(|| {
            let probe = Probe {
                address: address.clone(),
                tls: None,
                question: b"mn\r\n",
                config: PROBES,
            };
            io.watch(endpoint.health(), probe)
        });
        let lane = || {
            let upstream = UpstreamOptions {
                name: name.clone(),
                endpoint: Arc::clone(&endpoint),
                greeter: Arc::new(|_| Greeting::default()),
                identity: None,
                through: None,
                fragile: false,
            };
            io.open(upstream, deadline)
        };
        Self {
            lanes: (0..connections.max(1)).map(|_| lane()).collect(),
            capabilities: Capabilities::leaf(name.clone(), StoreKind::Memcached)
                .at(&address.to_string()),
            name,
            item_limit: AtomicUsize::new(0),
            turns: (0..TURNS).map(|_| Mutex::default()).collect(),
            deadline,
            _probing: probing,
        }
    }

    /// The connection for a key: always the same, so one client's requests stay in order.
    fn lane(&self, key: &[u8]) -> &Lane<MemcachedWire> {
        let count = self.lanes.len() as u64;
        let index = HashKind::Xxh3_64.hash(key) % count.max(1);
        let lane = usize::try_from(index)
            .ok()
            .and_then(|index| self.lanes.get(index));
        lane.expect("there is at least one connection")
    }

    /// Waits for the turn to edit a key, no longer than a request may wait to be sent.
    async fn turn(&self, key: &[u8]) -> Result<MutexGuard<'_, ()>, KvError> {
        let index = HashKind::Xxh3_64.hash(key) % TURNS;
        let turn = usize::try_from(index)
            .ok()
            .and_then(|index| self.turns.get(index));
        let turn = turn.expect("there are as many turns as the remainder has values");
        let waited = tokio::time::timeout(self.deadline, turn.lock()).await;
        waited.map_err(|_| KvError::Deadline {
            store: self.name.clone(),
        })
    }

    fn send(&self, key: &[u8], line: Line, shape: Shape) -> Pending {
        self.lane(key).send(line.finish(), shape)
    }

    fn unsupported(&self, operation: &'static str, reason: impl Into<String>) -> KvError {
        KvError::Unsupported {
            store: self.name.clone(),
            kind: StoreKind::Memcached,
            operation,
            reason: reason.into(),
        }
    }

    /// The key as it is written on a line.
    fn wire_key(&self, key: &[u8]) -> Result<WireKey, KvError> {
        if key.is_empty() {
            return Err(self.unsupported("a key", "memcached takes no empty key"));
        }
        if key.len() > MAX_KEY_BYTES {
            return Err(KvError::KeyTooLong {
                store: self.name.clone(),
                kind: StoreKind::Memcached,
                length: key.len(),
                limit: MAX_KEY_BYTES,
            });
        }
        Ok(WireKey::new(key))
    }

    /// An error line of the server, as the store's error.
    fn server_error(&self, line: &[u8]) -> KvError {
        let text = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
        // A refused line was not carried out; a server in need may have dropped the old value.
        let refused = line.starts_with(b"CLIENT_ERROR") || line.starts_with(b"ERROR");
        let effect = if refused {
            Effect::NotApplied
        } else {
            Effect::Unknown
        };
        KvError::Server {
            store: self.name.clone(),
            text,
            effect,
        }
    }

    /// Takes a meta reply apart; an error line is the store's error.
    fn meta<'r>(&self, reply: &'r [u8]) -> Result<MetaReply<'r>, KvError> {
        if is_error(reply) {
            return Err(self.server_error(reply));
        }
        MetaReply::new(reply).ok_or_else(|| self.protocol(reply))
    }

    fn protocol(&self, reply: &[u8]) -> KvError {
        let shown = reply.get(..100).unwrap_or(reply).escape_ascii();
        KvError::Protocol {
            store: self.name.clone(),
            problem: format!("'{shown}'"),
            effect: Effect::Unknown,
        }
    }

    /// Refuses a value that is too large before the server sees it: memcached would drop the old
    /// value as well.
    async fn check_size(&self, key: &[u8], data: &[u8], flags: u32) -> Result<(), KvError> {
        if data.len() <= SMALL_VALUE_BYTES {
            return Ok(());
        }
        let limit = match self.item_limit.load(Ordering::Relaxed) {
            0 => self.ask_item_limit(key).await.map_err(KvError::into_read)?,
            limit => limit,
        };
        let flags = if flags == 0 { 0 } else { FLAGS_BYTES };
        if ITEM_BYTES + flags + key.len() + data.len() <= limit {
            return Ok(());
        }
        Err(KvError::ValueTooLarge {
            store: self.name.clone(),
            kind: StoreKind::Memcached,
            length: data.len(),
            limit: format!("with key and overhead an item takes {limit} bytes (memcached -I)"),
        })
    }

    async fn ask_item_limit(&self, key: &[u8]) -> Result<usize, KvError> {
        let stats = self
            .send(key, Line::new(b"stats settings"), Shape::Stats)
            .reply()
            .await?;
        let limit = request::stat(&stats, b"item_size_max").ok_or_else(|| self.protocol(&stats))?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        self.item_limit.store(limit, Ordering::Relaxed);
        Ok(limit)
    }

    async fn apply_one_key(
        &self,
        key: &[u8],
        operations: &[Operation<'_>],
    ) -> Result<Vec<Outcome>, KvError> {
        let wire_key = self.wire_key(key)?;
        let now_ms = clock::unix_ms();
        for operation in operations {
            self.check_times(operation, now_ms)?;
        }
        match operations {
            [] => Ok(Vec::new()),
            [operation] => match self.apply_single(key, &wire_key, operation, now_ms).await? {
                Some(outcome) => Ok(vec![outcome]),
                None => self.edit(key, &wire_key, operations).await,
            },
            operations => self.edit(key, &wire_key, operations).await,
        }
    }

    async fn apply_all_keys(
        &self,
        requests: &[KeyedOperation<'_>],
    ) -> Result<Vec<Outcome>, KvError> {
        let mut keys: Vec<&[u8]> = requests.iter().map(|request| request.key).collect();
        keys.sort_unstable();
        if keys.windows(2).any(|pair| pair.first() == pair.last()) {
            // Operations on one key must happen in their order.
            return apply_in_turn(self, requests).await;
        }
        let futures = requests
            .iter()
            .map(|request| -> StoreFuture<'_, Option<Outcome>> {
                Box::pin(async move {
                    let operations = [request.operation];
                    let outcomes = self.apply_one_key(request.key, &operations).await?;
                    Ok(outcomes.into_iter().next())
                })
            })
            .collect();
        merge_answers(self, requests, join::all(futures).await)
    }

    fn cannot_list<T>(&self) -> Result<T, KvError> {
        Err(self.unsupported(
            "listing keys",
            "memcached does not tell which keys it holds",
        ))
    }
}

impl KvStore for MemcachedStore {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn refusal(&self, request: &KeyedOperation<'_>) -> Option<KvError> {
        let times = self.check_times(&request.operation, clock::unix_ms());
        self.wire_key(request.key).and(times).err()
    }

    fn apply<'a>(
        &'a self,
        key: &'a [u8],
        operations: &'a [Operation<'a>],
    ) -> StoreFuture<'a, Vec<Outcome>> {
        Box::pin(self.apply_one_key(key, operations))
    }

    fn apply_each<'a>(
        &'a self,
        requests: &'a [KeyedOperation<'a>],
    ) -> StoreFuture<'a, Vec<Outcome>> {
        Box::pin(self.apply_all_keys(requests))
    }

    fn scan<'a>(&'a self, _: ScanRequest<'a>) -> StoreFuture<'a, ScanPage> {
        Box::pin(async move { self.cannot_list() })
    }

    fn key_count(&self) -> StoreFuture<'_, u64> {
        Box::pin(async move { self.cannot_list() })
    }

    fn flush(&self) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let reply = self
                .send(b"", Line::new(b"flush_all"), Shape::Ok)
                .reply()
                .await?;
            if reply.as_ref() == b"OK\r\n" {
                Ok(())
            } else {
                Err(self.server_error(&reply))
            }
        })
    }

    fn random_key(&self, _: u64) -> StoreFuture<'_, Option<Bytes>> {
        Box::pin(async move { self.cannot_list() })
    }
}
