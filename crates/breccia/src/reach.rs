//! Reaching a store's server: for `check --connect`, for `layout adopt`, for probes and markers.
//!
//! Not the way of requests: this asks one question at a time. Invariant: what is asked here changes
//! nothing in a store; only `markers` writes, and only markers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use breccia_config::{MemcachedPlan, RedisGroupKind, RedisGroupPlan, RedisPlan, StorePlan};
use breccia_core::address::Address;
use breccia_kv::endpoint::Place;
use breccia_kv::resp::sentinel::{self, SentinelOptions};
use breccia_net::NetError;
use breccia_net::error::plain_reason;
use breccia_net::health::ProbeFailure;
use breccia_net::stream::{self, Stream};
use breccia_net::tls::{TlsClient, TlsClientOptions};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::Mutex;

/// No server answers a question of ours with a longer line.
const LONGEST_LINE: u64 = 64 * 1024;
/// Nor with a longer string: a marker holds a layout.
const LONGEST_ANSWER: usize = 4 << 20;
/// The end of one connection attempt; whoever asks bounds the whole in time.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A server, and how to be let in.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    address: Address,
    tls: Option<TlsClient>,
    protocol: Protocol,
    /// Who knows where the server is, if the address is not its own.
    asked: Option<Arc<Asked>>,
}

/// Those who know where a server is.
#[derive(Debug)]
enum Asked {
    Sentinels(SentinelOptions),
    /// Any server of a cluster.
    Seeds(Vec<Address>),
}

#[derive(Clone)]
enum Protocol {
    Redis { login: Vec<Vec<u8>>, database: u32 },
    Memcached,
}

impl std::fmt::Debug for Protocol {
    // The login is never printed.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Redis { .. } => "Redis",
            Self::Memcached => "Memcached",
        })
    }
}

impl Target {
    /// The server of a store; `None` for a store without one.
    pub(crate) fn of(plan: &StorePlan) -> Result<Option<Self>, NetError> {
        match plan {
            StorePlan::Redis(plan) => Self::redis(plan).map(Some),
            StorePlan::RedisGroup(plan) => Self::group(plan).map(Some),
            StorePlan::Memcached(plan) => Ok(Some(Self::memcached(plan))),
            _ => Ok(None),
        }
    }

    fn redis(plan: &RedisPlan) -> Result<Self, NetError> {
        let login = match (&plan.user, &plan.password) {
            (Some(user), Some(password)) => vec!["AUTH", user, password.expose()],
            (None, Some(password)) => vec!["AUTH", password.expose()],
            (_, None) => Vec::new(),
        };
        Ok(Self {
            address: plan.address.clone(),
            tls: tls_client(plan)?,
            protocol: Protocol::Redis {
                login: login.iter().map(|word| word.as_bytes().to_vec()).collect(),
                database: plan.database,
            },
            asked: None,
        })
    }

    fn group(plan: &RedisGroupPlan) -> Result<Self, NetError> {
        let asked = match sentinels("", plan)? {
            Some(options) => Asked::Sentinels(options),
            None => Asked::Seeds(plan.urls.clone()),
        };
        Ok(Self {
            asked: Some(Arc::new(asked)),
            ..Self::redis(&plan.redis)?
        })
    }

    /// The same, on a server that is known.
    pub(crate) fn on(&self, address: &Address) -> Self {
        let tls = self.tls.as_ref();
        Self {
            tls: tls.map(|tls| tls.for_host(address.host().unwrap_or_default())),
            address: address.clone(),
            protocol: self.protocol.clone(),
            asked: None,
        }
    }

    /// Connects, wherever the server is.
    async fn connect(&self) -> Result<Peer, String> {
        let connect = async |target: &Self| {
            let connected = Peer::connect(target).await;
            connected.map_err(|error| error.reason())
        };
        match self.asked.as_deref() {
            None => connect(self).await,
            Some(Asked::Sentinels(options)) => {
                let primary = sentinel::find(options).await?;
                connect(&self.on(&primary)).await
            }
            Some(Asked::Seeds(seeds)) => {
                let mut why = String::new();
                for seed in seeds {
                    match connect(&self.on(seed)).await {
                        Ok(peer) => return Ok(peer),
                        Err(error) => why = format!("{seed}: {error}"),
                    }
                }
                Err(why)
            }
        }
    }

    fn memcached(plan: &MemcachedPlan) -> Self {
        Self {
            address: plan.address.clone(),
            tls: None,
            protocol: Protocol::Memcached,
            asked: None,
        }
    }

    /// Reaches the server and logs in; answers what it is, or what is wrong.
    pub(crate) async fn inspect(&self) -> Result<String, String> {
        let mut peer = self.enter().await?;
        match &self.protocol {
            Protocol::Redis { .. } => {
                let pong = peer.ask(&command(&[b"PING"])).await?;
                if pong.starts_with('-') {
                    return Err(refusal(&pong));
                }
                if pong != "+PONG" {
                    return Err("it answers PING with something else than PONG".to_owned());
                }
                let info = peer.ask_for_bulk(&command(&[b"INFO", b"server"])).await?;
                let version = info
                    .lines()
                    .find_map(|line| line.strip_prefix("redis_version:"));
                let redis = format!("Redis {}", version.unwrap_or("of unknown version"));
                match self.asked.as_deref() {
                    Some(Asked::Seeds(_)) => peer.cluster_in_words(&redis).await,
                    _ => Ok(redis),
                }
            }
            Protocol::Memcached => {
                let answer = peer.ask(b"version\r\n").await?;
                match answer.strip_prefix("VERSION ") {
                    Some(version) => Ok(format!("memcached {version}")),
                    None => Err("it does not answer as memcached does".to_owned()),
                }
            }
        }
    }

    /// How many keys the store holds, apart from these.
    pub(crate) async fn key_count(&self, apart: &[Vec<u8>]) -> Result<u64, String> {
        let mut peer = self.enter().await?;
        let mut known = 0;
        let answer = match &self.protocol {
            Protocol::Redis { .. } => {
                for key in apart {
                    let held = peer.ask(&command(&[b"EXISTS", key])).await?;
                    known += u64::from(held == ":1");
                }
                peer.ask(&command(&[b"DBSIZE"])).await?
            }
            Protocol::Memcached => {
                let mut line = peer.ask(b"stats\r\n").await?;
                while !line.starts_with("STAT curr_items ") && line.starts_with("STAT ") {
                    line = peer.line().await?;
                }
                line
            }
        };
        let digits = answer
            .trim_start_matches("STAT curr_items ")
            .trim_start_matches(':');
        let count: u64 = digits.parse().map_err(|_| refusal(&answer))?;
        Ok(count.saturating_sub(known))
    }

    /// Connects and logs in.
    pub(crate) async fn enter(&self) -> Result<Peer, String> {
        let mut peer = self.connect().await?;
        if let Protocol::Redis { login, database } = &self.protocol {
            let mut steps = Vec::new();
            if !login.is_empty() {
                steps.push(command(
                    &login.iter().map(Vec::as_slice).collect::<Vec<_>>(),
                ));
            }
            if *database != 0 {
                steps.push(command(&[b"SELECT", database.to_string().as_bytes()]));
            }
            for step in steps {
                let answer = peer.ask(&step).await?;
                if answer.starts_with('-') {
                    return Err(refusal(&answer));
                }
            }
        }
        Ok(peer)
    }
}

/// TLS towards a Redis, as its plan says.
pub(crate) fn tls_client(plan: &RedisPlan) -> Result<Option<TlsClient>, NetError> {
    let Some(tls) = &plan.tls else {
        return Ok(None);
    };
    let options = TlsClientOptions {
        ca: tls.ca.clone(),
        cert: tls.cert.clone(),
        key: tls.key.clone(),
        server_name: tls.server_name.clone(),
        insecure: tls.insecure,
    };
    TlsClient::new(&options, plan.address.host().unwrap_or("localhost")).map(Some)
}

/// Whom to ask for the primary of a store, if its sentinels know. Reads the files of its `tls`.
pub(crate) fn sentinels(
    store: &str,
    plan: &RedisGroupPlan,
) -> Result<Option<SentinelOptions>, NetError> {
    let RedisGroupKind::Sentinel {
        service,
        user,
        password,
    } = &plan.kind
    else {
        return Ok(None);
    };
    let first = Place {
        tls: tls_client(&plan.redis)?,
        user: user.clone(),
        password: password.as_ref().map(|secret| secret.expose().to_owned()),
        ..Place::plain(plan.redis.address.clone())
    };
    Ok(Some(SentinelOptions {
        store: store.to_owned(),
        service: service.clone(),
        sentinels: plan.urls.iter().map(|url| first.on(url.clone())).collect(),
        interval: plan.redis.probe_interval,
        patience: plan.redis.probe_timeout,
        replicas: None,
    }))
}

/// An error line of a server. It may name a user, never a password.
fn refusal(answer: &str) -> String {
    format!("it answers {}", answer.trim_start_matches('-'))
}

/// A Redis command as an array of bulk strings.
pub(crate) fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// One connection on which questions are asked.
pub(crate) struct Peer {
    stream: BufReader<Stream>,
}

impl Peer {
    async fn connect(target: &Target) -> Result<Self, NetError> {
        let stream = stream::connect(&target.address, target.tls.as_ref(), CONNECT_LIMIT).await?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// One question and the first line of its answer.
    pub(crate) async fn ask(&mut self, question: &[u8]) -> Result<String, String> {
        let lost = |error: io::Error| format!("connection lost: {}", plain_reason(&error));
        self.stream.write_all(question).await.map_err(lost)?;
        self.stream.flush().await.map_err(lost)?;
        self.line().await
    }

    async fn line(&mut self) -> Result<String, String> {
        let mut line = Vec::new();
        let mut limited = (&mut self.stream).take(LONGEST_LINE);
        let read = limited.read_until(b'\n', &mut line).await;
        match read {
            Err(error) => Err(format!("connection lost: {}", plain_reason(&error))),
            Ok(_) if line.last() != Some(&b'\n') => Err("it closed the connection".to_owned()),
            Ok(_) => Ok(String::from_utf8_lossy(&line).trim_end().to_owned()),
        }
    }

    async fn ask_for_bulk(&mut self, question: &[u8]) -> Result<String, String> {
        let text = self.ask_for_bytes(question).await?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// What a server says of its cluster, or what is wrong with it.
    async fn cluster_in_words(&mut self, redis: &str) -> Result<String, String> {
        let info = self.ask_for_bulk(&command(&[b"CLUSTER", b"INFO"])).await?;
        let value = |key: &str| {
            let mut lines = info.lines();
            lines.find_map(|line| line.trim_end().strip_prefix(key)?.strip_prefix(':'))
        };
        match (value("cluster_state"), value("cluster_size")) {
            (Some("ok"), Some(size)) => Ok(format!("{redis}, a cluster of {size} primaries")),
            (state, _) => Err(format!(
                "its cluster_state is '{}'",
                state.unwrap_or_default()
            )),
        }
    }

    /// One question and its answer of bytes, if it is not null.
    pub(crate) async fn ask_for_bytes(
        &mut self,
        question: &[u8],
    ) -> Result<Option<Vec<u8>>, String> {
        let header = self.ask(question).await?;
        if header == "$-1" {
            return Ok(None);
        }
        let length: usize = match header.strip_prefix('$').map(str::parse) {
            Some(Ok(length)) if length <= LONGEST_ANSWER => length,
            _ => return Err(refusal(&header)),
        };
        let mut text = vec![0; length + 2];
        let read = self.stream.read_exact(&mut text).await;
        read.map_err(|error| format!("connection lost: {}", plain_reason(&error)))?;
        text.truncate(length);
        Ok(Some(text))
    }
}

/// Asks one server for a sign of life, over one connection that it keeps.
#[derive(Debug)]
pub(crate) struct Prober {
    target: Target,
    // Taken out while a question is open: a probe that is given up leaves no half-read answer.
    kept: Mutex<Option<Peer>>,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Peer").finish_non_exhaustive()
    }
}

impl Prober {
    /// A prober without a connection yet.
    pub(crate) fn new(target: Target) -> Arc<Self> {
        Arc::new(Self {
            target,
            kept: Mutex::new(None),
        })
    }

    /// Any answer is life, also `-LOADING`, `-BUSY` and `-NOAUTH`: so it does not log in.
    pub(crate) async fn probe(&self) -> Result<(), ProbeFailure> {
        let question: &[u8] = match self.target.protocol {
            Protocol::Redis { .. } => b"*1\r\n$4\r\nPING\r\n",
            Protocol::Memcached => b"version\r\n",
        };
        let mut kept = self.kept.lock().await;
        // A kept connection may have ended with the server's last life: that alone shows nothing.
        if let Some(mut peer) = kept.take()
            && peer.ask(question).await.is_ok()
        {
            *kept = Some(peer);
            return Ok(());
        }
        let connected = Peer::connect(&self.target).await;
        let mut peer = connected.map_err(|error| match error {
            NetError::ConnectTimeout { .. } => ProbeFailure::Unanswered,
            error => ProbeFailure::Connect(error.reason()),
        })?;
        peer.ask(question).await.map_err(ProbeFailure::Connect)?;
        *kept = Some(peer);
        Ok(())
    }
}
