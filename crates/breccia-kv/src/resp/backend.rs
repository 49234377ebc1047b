//! A Redis server as a typed store: each operation is the Redis command that does it exactly.
//!
//! Not the forwarding path. Several operations on one key are one MULTI … EXEC, sent whole; what no
//! command does (compare-and-delete, prepend) is done under WATCH on a leased connection. Invariant:
//! nothing whose outcome is unknown is sent twice.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use breccia_core::HashKind;
use breccia_core::address::Address;
use breccia_core::error::Effect;
use breccia_net::health::EndpointHealth;
use breccia_net::tls::TlsClient;
use bytes::Bytes;

mod command;
mod outcome;
mod reply;
mod watched;

use self::command::{Command, command};
use self::reply::{Replies, RepliesWire};
use super::codec::reply::{elements, integer, text};
use super::encode::RespVersion;
use super::greeting::{Login, Transactions};
use crate::endpoint::{Endpoint, Place, Terms};
use crate::entry::{Operation, Outcome};
use crate::error::KvError;
use crate::io::{DEFAULT_LIMITS, KvIo, Lane, PROBES, Probe, Probing};
use crate::pipeline::PipelineLimits;
use crate::scan_cursor::UPSTREAM_BITS;
use crate::store::{
    Capabilities, KeyedOperation, KvStore, ScanPage, ScanRequest, StoreFuture, StoreKind,
    apply_in_turn,
};
use crate::upstream::{Greeting, UpstreamOptions};

/// A Redis server as a store.
#[derive(Clone)]
pub struct RedisOptions {
    /// The store's name, for layouts and messages.
    pub name: String,
    /// Where the server is.
    pub address: Address,
    /// TLS towards it.
    pub tls: Option<TlsClient>,
    /// The user to log in as; none means Redis's default user.
    pub user: Option<String>,
    /// The password, if it needs one.
    pub password: Option<String>,
    /// The database that holds the keys.
    pub database: u32,
    /// Connections that all requests share.
    pub connections: usize,
    /// Connections kept for operations under WATCH.
    pub max_leases: usize,
    /// How long a request may wait to be sent.
    pub deadline: Duration,
    /// Limits of each connection's queue.
    pub limits: PipelineLimits,
    /// The server, where others use it too and somebody probes it: its terms hold instead of the
    /// place and the limits given here. `None`: the store has its own, and probes it.
    pub endpoint: Option<Arc<Endpoint>>,
}

impl RedisOptions {
    /// A server with the defaults of the configuration.
    #[must_use]
    pub fn new(name: impl Into<String>, address: Address) -> Self {
        Self {
            name: name.into(),
            address,
            tls: None,
            user: None,
            password: None,
            database: 0,
            connections: 1,
            max_leases: 256,
            deadline: Duration::from_secs(1),
            limits: DEFAULT_LIMITS,
            endpoint: None,
        }
    }
}

impl RedisOptions {
    /// An endpoint of the store's own.
    fn own(&self) -> Arc<Endpoint> {
        let place = Place {
            address: self.address.clone(),
            tls: self.tls.clone(),
            user: self.user.clone(),
            password: self.password.clone(),
            database: self.database,
            vacant: None,
        };
        let terms = Terms {
            place,
            limits: self.limits,
            max_leases: self.max_leases,
            databases: 1,
        };
        let health = EndpointHealth::new(self.name.clone(), self.address.clone());
        Endpoint::new(terms, health)
    }
}

/// What a connection to a place begins with.
fn greeting(place: &Place) -> Greeting {
    let login = Login {
        version: RespVersion::V2,
        user: place.user.as_deref(),
        password: place.password.as_deref(),
        database: place.database,
        transactions: Transactions::Whole,
        identity: None,
    };
    login.greeting()
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("name", &self.name)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// A store on a Redis server.
#[derive(Debug)]
pub struct RedisStore {
    capabilities: Capabilities,
    options: RedisOptions,
    endpoint: Arc<Endpoint>,
    io: KvIo,
    shared: Vec<Lane<RepliesWire>>,
    idle: Mutex<Vec<Lane<RepliesWire>>>,
    leased: std::sync::atomic::AtomicUsize,
    _probing: Option<Probing>,
}

impl RedisStore {
    /// A store on `io`'s thread. Nothing is connected until the first request.
    #[must_use]
    pub fn new(io: &KvIo, options: RedisOptions) -> Self {
        let endpoint = options.endpoint.clone().unwrap_or_else(|| options.own());
        let place = endpoint.current().terms.place.clone();
        let at = format!("{}/{}", place.address, place.database);
        let probing = options.endpoint.is_none().then(|| {
            let probe = Probe {
                address: place.address,
                tls: place.tls,
                question: b"PING\r\n",
                config: PROBES,
            };
            io.watch(endpoint.health(), probe)
        });
        let mut store = Self {
            capabilities: Capabilities::leaf(options.name.clone(), StoreKind::Redis).at(&at),
            endpoint,
            io: io.clone(),
            shared: Vec::new(),
            idle: Mutex::default(),
            leased: std::sync::atomic::AtomicUsize::new(0),
            _probing: probing,
            options,
        };
        store.shared = (0..store.options.connections.max(1))
            .map(|_| store.open(false))
            .collect();
        store
    }

    fn open(&self, fragile: bool) -> Lane<RepliesWire> {
        let options = &self.options;
        let upstream = UpstreamOptions {
            name: options.name.clone(),
            endpoint: Arc::clone(&self.endpoint),
            greeter: Arc::new(greeting),
            identity: None,
            through: None,
            fragile,
        };
        self.io.open(upstream, options.deadline)
    }

    fn name(&self) -> &str {
        &self.options.name
    }

    /// The connection for a key: always the same, so one client's requests stay in order.
    fn lane(&self, key: &[u8]) -> &Lane<RepliesWire> {
        let count = self.shared.len() as u64;
        let index = HashKind::Xxh3_64.hash(key) % count.max(1);
        let lane = usize::try_from(index)
            .ok()
            .and_then(|index| self.shared.get(index));
        lane.expect("there is at least one connection")
    }

    /// Sends commands as one request and returns their replies.
    async fn ask(&self, key: &[u8], commands: &[Command<'_>]) -> Result<Replies, KvError> {
        ask_on(self.lane(key), commands).await
    }

    fn protocol(&self, problem: &str) -> KvError {
        KvError::Protocol {
            store: self.name().to_owned(),
            problem: problem.to_owned(),
            effect: Effect::Unknown,
        }
    }

    async fn apply_one_key(
        &self,
        key: &[u8],
        operations: &[Operation<'_>],
    ) -> Result<Vec<Outcome>, KvError> {
        if operations.is_empty() {
            return Ok(Vec::new());
        }
        let mut commands = Vec::with_capacity(operations.len());
        for operation in operations {
            match command(key, operation) {
                Some(command) => commands.push(command),
                None => return self.apply_watched(key, operations).await,
            }
        }
        if let ([operation], [_]) = (operations, &commands[..]) {
            let replies = self.ask(key, &commands).await?;
            return Ok(vec![self.outcome(
                operation,
                replies.first(),
                Effect::NotApplied,
            )?]);
        }
        let replies = self.transact(key, &commands).await?;
        let pairs = operations.iter().zip(&replies);
        pairs
            .map(|(one, reply)| self.outcome(one, reply, Effect::Unknown))
            .collect()
    }

    /// Sends commands as one transaction and returns EXEC's elements.
    async fn transact(&self, key: &[u8], commands: &[Command<'_>]) -> Result<Vec<Bytes>, KvError> {
        let mut whole: Vec<Command<'_>> = Vec::with_capacity(commands.len() + 2);
        whole.push(Command::words(&[b"MULTI"]));
        whole.extend_from_slice(commands);
        whole.push(Command::words(&[b"EXEC"]));
        let replies = self.ask(key, &whole).await?;
        self.executed(&replies)?
            .ok_or_else(|| self.protocol("EXEC failed and nothing was watched"))
    }

    /// The elements of EXEC's reply; `None` if a watched key had changed.
    fn executed(&self, replies: &Replies) -> Result<Option<Vec<Bytes>>, KvError> {
        let exec = replies.last();
        if exec.first() == Some(&b'-') {
            // The error of the command that could not be queued says more than EXECABORT.
            let cause = replies
                .iter()
                .find(|reply| reply.first() == Some(&b'-'))
                .unwrap_or(exec);
            return Err(self.server_error(cause, Effect::NotApplied));
        }
        if exec.starts_with(b"*-1") {
            return Ok(None);
        }
        let parts = elements(exec).ok_or_else(|| self.protocol("EXEC answers no array"))?;
        Ok(Some(parts.map(|part| replies.share(part)).collect()))
    }

    fn server_error(&self, reply: &[u8], effect: Effect) -> KvError {
        let line = reply.strip_prefix(b"-").unwrap_or(reply).trim_ascii_end();
        let text = String::from_utf8_lossy(line).into_owned();
        KvError::Server {
            store: self.name().to_owned(),
            text,
            effect,
        }
    }

    /// The operations of many keys as one transaction, so they change as one, as in MSET.
    async fn apply_many(&self, requests: &[KeyedOperation<'_>]) -> Result<Vec<Outcome>, KvError> {
        let Some(first) = requests.first() else {
            return Ok(Vec::new());
        };
        let mut commands = Vec::with_capacity(requests.len());
        for request in requests {
            match command(request.key, &request.operation) {
                Some(command) => commands.push(command),
                None => return apply_in_turn(self, requests).await,
            }
        }
        let reads = requests
            .iter()
            .all(|request| request.operation == Operation::Get);
        let single = commands.len() == 1;
        let replies = if let ([request], [_]) = (requests, &commands[..]) {
            let replies = self.ask(request.key, &commands).await?;
            vec![replies.share(replies.first())]
        } else if reads {
            let mget = Command::many(b"MGET", requests.iter().map(|request| request.key));
            let replies = self.ask(first.key, &[mget]).await?;
            match elements(replies.first()) {
                Some(parts) => parts.map(|part| replies.share(part)).collect(),
                None => return Err(self.server_error(replies.first(), Effect::NotApplied)),
            }
        } else {
            self.transact(first.key, &commands).await?
        };
        let pairs = requests.iter().zip(&replies);
        // In a transaction the other commands have run.
        let effect = if single {
            Effect::NotApplied
        } else {
            Effect::Unknown
        };
        pairs
            .map(|(request, reply)| self.outcome(&request.operation, reply, effect))
            .collect()
    }

    async fn scan_once(&self, request: ScanRequest<'_>) -> Result<ScanPage, KvError> {
        let mut scan = Command::words(&[b"SCAN"]);
        scan.push(request.cursor.to_string().into_bytes());
        scan.push(b"COUNT".to_vec());
        scan.push(request.count.max(1).to_string().into_bytes());
        for (option, value) in [("MATCH", request.pattern), ("TYPE", request.type_name)] {
            if let Some(value) = value {
                scan.push(option.into());
                scan.push(value.to_vec());
            }
        }
        let replies = self.ask(b"", &[scan]).await?;
        let reply = replies.first();
        if reply.first() == Some(&b'-') {
            return Err(self.server_error(reply, Effect::NotApplied));
        }
        let mut parts = elements(reply).ok_or_else(|| self.protocol("SCAN answers no array"))?;
        let cursor = parts
            .next()
            .and_then(text)
            .and_then(|text| std::str::from_utf8(text).ok());
        let cursor: u64 = cursor
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| self.protocol("SCAN answers no cursor"))?;
        if cursor >> UPSTREAM_BITS != 0 {
            return Err(KvError::CursorTooLarge {
                store: self.name().to_owned(),
                cursor,
            });
        }
        let keys = parts.next().and_then(elements).into_iter().flatten();
        let keys = keys.filter_map(text).map(Bytes::copy_from_slice).collect();
        Ok(ScanPage { cursor, keys })
    }

    /// One command without a key.
    async fn simple(&self, words: &[&[u8]]) -> Result<Bytes, KvError> {
        let replies = self.ask(b"", &[Command::words(words)]).await?;
        let reply = replies.first();
        if reply.first() == Some(&b'-') {
            return Err(self.server_error(reply, Effect::NotApplied));
        }
        Ok(replies.share(reply))
    }
}

/// Sends commands as one request on a connection.
async fn ask_on(lane: &Lane<RepliesWire>, commands: &[Command<'_>]) -> Result<Replies, KvError> {
    let mut bytes = Vec::new();
    for command in commands {
        command.write(&mut bytes);
    }
    let count = commands.len();
    let reply = lane.send(bytes, count).reply().await?;
    Ok(Replies::new(reply))
}

impl KvStore for RedisStore {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn refusal(&self, request: &KeyedOperation<'_>) -> Option<KvError> {
        self.beyond_redis(&request.operation)
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
        Box::pin(self.apply_many(requests))
    }

    fn scan<'a>(&'a self, request: ScanRequest<'a>) -> StoreFuture<'a, ScanPage> {
        Box::pin(self.scan_once(request))
    }

    fn key_count(&self) -> StoreFuture<'_, u64> {
        Box::pin(async move {
            let reply = self.simple(&[b"DBSIZE"]).await?;
            integer(&reply)
                .and_then(|count| u64::try_from(count).ok())
                .ok_or_else(|| self.protocol("DBSIZE answers no number"))
        })
    }

    fn flush(&self) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.simple(&[b"FLUSHDB"]).await?;
            Ok(())
        })
    }

    fn random_key(&self, _seed: u64) -> StoreFuture<'_, Option<Bytes>> {
        Box::pin(async move {
            let reply = self.simple(&[b"RANDOMKEY"]).await?;
            Ok(text(&reply).map(Bytes::copy_from_slice))
        })
    }
}

impl RedisStore {
    /// Takes a connection for exclusive use.
    fn lease(&self) -> Result<Lease<'_>, KvError> {
        use std::sync::atomic::Ordering::Relaxed;
        let max_leases = self.endpoint.current().terms.max_leases;
        if self.leased.fetch_add(1, Relaxed) >= max_leases {
            self.leased.fetch_sub(1, Relaxed);
            let limit = format!("max-leases ({max_leases}) is reached");
            return Err(KvError::Overloaded {
                store: self.name().to_owned(),
                limit,
            });
        }
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let reused = idle.is_some();
        let lane = idle.unwrap_or_else(|| self.open(true));
        Ok(Lease {
            store: self,
            lane: Some(lane),
            reused,
        })
    }

    /// Closes the connections that lie idle.
    fn drop_idle(&self) {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

/// A connection of one's own. It goes back to the store only by [`Lease::give_back`].
struct Lease<'s> {
    store: &'s RedisStore,
    lane: Option<Lane<RepliesWire>>,
    /// Whether it served somebody before: it may have been lost since.
    reused: bool,
}

impl Lease<'_> {
    async fn ask(&self, commands: &[Command<'_>]) -> Result<Replies, KvError> {
        match &self.lane {
            Some(lane) => ask_on(lane, commands).await,
            None => Err(self.store.protocol("a lease without a connection")),
        }
    }

    /// The connection carries no state any more.
    fn give_back(mut self) {
        if let Some(lane) = self.lane.take() {
            self.store
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(lane);
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.store
            .leased
            .fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}
