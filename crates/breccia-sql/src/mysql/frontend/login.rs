//! The way from a connection to a session: TLS, who the client is, what it is at.
//!
//! Not what a session does. Source: the protocol's "Connection Phase". Invariant: a stranger learns
//! not who exists, and nothing a client sent before its TLS handshake is believed after it.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use breccia_core::error::ErrorKind;
use breccia_net::clock;
use breccia_net::stream::{Socket, Stream};
use ring::rand::{SecureRandom as _, SystemRandom};

use super::client::Client;
use super::kill::Registered;
use super::lend::KEPT_APART;
use super::session::{Identity, Session};
use super::{MysqlListener, MysqlUser, Worker};
use crate::bells::Timer;
use crate::error::SqlError;
use crate::freshness::Freshness;
use crate::mysql::auth;
use crate::mysql::auth::server::{CHANCE_BYTES, First, Known, Server, Step, nonce};
use crate::mysql::codec::handshake::{Greeting, MAX_LOGIN_BYTES, NONCE_BYTES, Response};
use crate::mysql::codec::{
    Change, CodecError, ErrPacket, OkPacket, capabilities, status, write_change, write_packet,
};
use crate::mysql::settings::Settings;
use crate::mysql::told::code_of;
use crate::mysql::upstream::{Login, ServerKind};

/// A client must have said who it is within this time: MySQL's `connect_timeout`.
pub(super) const LOGIN_LIMIT: Duration = Duration::from_secs(10);
/// How long a client waits for servers that have not been asked yet.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// A wrong password is answered after this long: who guesses, guesses slowly.
pub(super) const GUESS_PAUSE: Duration = Duration::from_secs(1);
/// Whoever would have to wait longer for a challenge, since others have guessed, is refused: there must be time
/// for an answer.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// What Breccia can do for clients. Neither compression nor MariaDB's own flags: bulk execution and
/// the caching of metadata.
const OFFERED: u64 = capabilities::LONG_PASSWORD
    | capabilities::FOUND_ROWS
    | capabilities::LONG_FLAG
    | capabilities::CONNECT_WITH_DB
    | capabilities::IGNORE_SPACE
    | capabilities::PROTOCOL_41
    | capabilities::INTERACTIVE
    | capabilities::TRANSACTIONS
    | capabilities::SECURE_CONNECTION
    | capabilities::MULTI_STATEMENTS
    | capabilities::MULTI_RESULTS
    | capabilities::PS_MULTI_RESULTS
    | capabilities::PLUGIN_AUTH
    | capabilities::CONNECT_ATTRS
    | capabilities::PLUGIN_AUTH_LENENC
    | capabilities::SESSION_TRACK
    | capabilities::DEPRECATE_EOF;

/// What a client turns on only to send all that follows otherwise. One that does so although it is not
/// offered would wait for ever for an answer that it can read.
const COMPRESSED: u64 = capabilities::COMPRESS | capabilities::ZSTD_COMPRESSION;
const NO_COMPRESSION: &str = "the client turns on compression (CLIENT_COMPRESS, or that by zstd), which is not offered \
    here; turn it off in its options";

/// Why there is no session. The client was told, as far as it can be.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoginError {
    #[error("the connection was lost ({0})")]
    Lost(io::Error),
    #[error("the TLS handshake failed ({0})")]
    Handshake(io::Error),
    #[error("it sent what is no login: {0}")]
    Codec(#[from] CodecError),
    #[error("user {0:?} at {1}: wrong password, or no such user")]
    Password(String, String),
    #[error("user {0:?}: {1}")]
    Upstream(String, Box<SqlError>),
    #[error("{0}")]
    Refused(&'static str),
    #[error(
        "user {0:?} at {1}: too many logins of this user have failed from this address; wait a little"
    )]
    Throttled(String, String),
    #[error("it took too long")]
    Late,
}

impl From<io::Error> for LoginError {
    fn from(error: io::Error) -> Self {
        let codec = error.get_ref().and_then(|it| it.downcast_ref());
        match codec {
            Some(codec) => Self::Codec(*codec),
            None => Self::Lost(error),
        }
    }
}

impl LoginError {
    /// Whether somebody was turned away, and did not just leave.
    pub(super) fn is_a_refusal(&self) -> bool {
        !matches!(self, Self::Lost(_))
    }

    /// The number, the SQLSTATE and the words that a client is told.
    pub(super) fn told(&self) -> (u16, [u8; 5], String) {
        match self {
            Self::Password(user, peer) => (1045, *b"28000", denied(user, peer)),
            Self::Upstream(_, error) => {
                let (code, state) = code_of(error);
                let text = match &**error {
                    SqlError::Refused { text, .. }
                    | SqlError::Settings { text, .. }
                    | SqlError::Question { text, .. } => text.clone(),
                    other => format!("breccia: {other}"),
                };
                (code, state, text)
            }
            // ER_HOST_IS_BLOCKED.
            Self::Throttled(..) => (1129, *b"HY000", format!("breccia: {self}")),
            Self::Codec(CodecError::TooOld) => (1251, *b"08004", self.to_string()),
            Self::Late => (
                1159,
                *b"08S01",
                "Got timeout reading communication packets".into(),
            ),
            Self::Codec(error) => (1043, *b"08S01", format!("Bad handshake: {error}")),
            other => (1043, *b"08S01", format!("Bad handshake: {other}")),
        }
    }
}

/// What a client is told that has not shown who it is.
pub(super) fn denied(user: &str, peer: &str) -> String {
    let user: String = user.chars().take(64).collect();
    let host = peer.parse::<SocketAddr>();
    let host = host.map_or_else(|_| "localhost".to_owned(), |it| it.ip().to_string());
    format!("Access denied for user '{user}'@'{host}' (using password: YES)")
}

/// Logs a client in.
pub(super) async fn login(
    listener: &Arc<MysqlListener>,
    stream: Stream,
    peer: &str,
    worker: &Worker,
) -> Result<Session, LoginError> {
    let end = clock::now() + LOGIN_LIMIT;
    let mut arrival = Arrival {
        listener,
        client: Client::new(stream, Rc::clone(&worker.scratch)),
        registered: listener.clients.register(),
        sequence: 0,
        nonce: nonce(chance()?.get(..NONCE_BYTES).unwrap_or_default()),
        known: OFFERED,
    };
    let arrived = tokio::time::timeout_at(end.into(), arrival.arrive(peer)).await;
    let (identity, response) = match arrived.unwrap_or(Err(LoginError::Late)) {
        Ok(arrived) => arrived,
        Err(error) => {
            arrival.refuse(&error, end).await;
            return Err(error);
        }
    };
    let (known, sequence) = (arrival.known, arrival.sequence);
    let mut session = begin(arrival, identity, &response, peer.to_owned(), worker);
    // It waits for a connection as long as a statement does, and a server has its own `timeout`.
    let greeted = session.greet(response.schema.as_deref()).await;
    let end = end.max(clock::now() + GUESS_PAUSE);
    let mut out = Vec::new();
    if let Err(error) = greeted {
        let (code, sqlstate, text) = error.told();
        write_error(&mut out, known, (code, sqlstate, &text));
        write_packet(&mut session.client.out.bytes, &mut { sequence }, &out);
        let _ = session.client.send(end).await;
        return Err(error);
    }
    session.write_ok_to(&mut out);
    write_packet(&mut session.client.out.bytes, &mut { sequence }, &out);
    session.client.send(end).await?;
    Ok(session)
}

/// Random bytes for challenges.
pub(super) fn chance() -> Result<[u8; CHANCE_BYTES], LoginError> {
    let mut bytes = [0; CHANCE_BYTES];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| LoginError::Refused("no random bytes"))?;
    Ok(bytes)
}

pub(super) fn known_of(user: Option<&MysqlUser>) -> Known {
    user.map_or(Known::Nobody, |user| Known::Password(user.password.clone()))
}

/// Whether nobody can listen.
pub(super) fn is_private(stream: &Stream) -> bool {
    stream.is_tls() || matches!(stream, Stream::Unix(_))
}

fn begin(
    arrival: Arrival<'_>,
    identity: Identity,
    response: &Response,
    peer: String,
    worker: &Worker,
) -> Session {
    let listener = Arc::clone(arrival.listener);
    let (user, credential) = identity.upstream.clone();
    let view = listener.cluster.view();
    let registered = arrival.registered;
    registered.named(&identity.user);
    Session {
        next_packet: 1,
        file_rest: None,
        login: Login {
            user,
            credential,
            capabilities: response.capabilities & KEPT_APART,
            collation: response.collation,
            with_schema: false,
            read_only: false,
        },
        pools: vec![None; 2 * listener.cluster.servers.len()],
        rung: worker.hang(&listener),
        listener,
        shared: Arc::clone(&worker.listener),
        client: arrival.client,
        identity,
        capabilities: response.capabilities,
        base: Arc::default(),
        settings: Arc::default(),
        freshness: Freshness::default(),
        pinned: None,
        wants_primary: false,
        home: None,
        away: None,
        begun: None,
        next: None,
        statements: super::prepared::Statements::default(),
        last_insert_id: Some(0),
        warnings: 0,
        asks_late: 0,
        asked_late: clock::now(),
        nonce: arrival.nonce,
        peer,
        registered,
        timer: Timer::default(),
        view,
        view_version: 0,
        asked: clock::now(),
        settled: clock::now(),
        transaction_since: None,
        counted: None,
        last: None,
        is_asked: false,
        is_placed: false,
        is_left: false,
        is_dropped: false,
        over: None,
        refused: None,
    }
}

fn write_error(out: &mut Vec<u8>, known: u64, (code, sqlstate, text): (u16, [u8; 5], &str)) {
    let error = ErrPacket {
        code,
        sqlstate,
        message: text.as_bytes(),
    };
    error.write(out, known);
}

/// A client on its way in.
struct Arrival<'a> {
    listener: &'a Arc<MysqlListener>,
    client: Client,
    registered: Registered,
    sequence: u8,
    nonce: Vec<u8>,
    known: u64,
}

impl Arrival<'_> {
    /// Greets, encrypts, and finds out who the client is.
    async fn arrive(&mut self, peer: &str) -> Result<(Identity, Response), LoginError> {
        self.greet().await?;
        let mut packet = self.read().await?;
        if Response::is_ssl_request(&packet) {
            self.encrypt().await?;
            packet = self.read().await?;
        }
        let mut response = Response::parse(&packet)?;
        if response.capabilities & COMPRESSED != 0 {
            return Err(LoginError::Refused(NO_COMPRESSION));
        }
        let mut offered = OFFERED;
        if self.listener.limits.local_infile {
            offered |= capabilities::LOCAL_FILES;
        }
        response.capabilities &= offered;
        self.known = response.capabilities;
        if self.listener.tls.is_some() && !self.client.stream.is_tls() {
            return Err(LoginError::Refused(
                "this listener takes no connection without TLS",
            ));
        }
        let plugin = response.plugin.clone();
        let (user, proof) = (response.user.clone(), response.proof.clone());
        let identity = self
            .identify(peer, &user, &proof, plugin.as_deref())
            .await?;
        Ok((identity, response))
    }

    async fn greet(&mut self) -> Result<(), LoginError> {
        let cluster = Arc::clone(&self.listener.cluster);
        let patience = clock::now() + FIRST_LOOK;
        while cluster.greets().is_none() && clock::now() < patience {
            tokio::time::sleep(FIRST_LOOK / 50).await;
        }
        let Some((version, collation)) = cluster.greets() else {
            let why = "no server of the store has let Breccia in yet; its log and /readyz tell why";
            return Err(LoginError::Refused(why));
        };
        let plugin = match ServerKind::of(&version) {
            ServerKind::MariaDb => auth::NATIVE,
            ServerKind::MySql => auth::CACHING_SHA2,
        };
        let mut offered = OFFERED;
        if self.listener.tls.is_some() {
            offered |= capabilities::SSL;
        }
        if self.listener.limits.local_infile {
            offered |= capabilities::LOCAL_FILES;
        }
        let greeting = Greeting {
            version,
            connection: self.registered.number,
            nonce: self.nonce.clone(),
            capabilities: offered,
            // Some clients take it for what their session begins with.
            collation,
            status: status::AUTOCOMMIT,
            plugin: plugin.to_owned(),
        };
        let mut payload = Vec::new();
        greeting.write(&mut payload);
        self.send(&payload).await
    }

    async fn read(&mut self) -> Result<Vec<u8>, LoginError> {
        let (sequence, packet) = self.client.packet(MAX_LOGIN_BYTES).await?;
        if sequence != self.sequence {
            return Err(CodecError::OutOfOrder.into());
        }
        self.sequence = sequence.wrapping_add(1);
        Ok(packet.to_vec())
    }

    async fn send(&mut self, payload: &[u8]) -> Result<(), LoginError> {
        write_packet(&mut self.client.out.bytes, &mut self.sequence, payload);
        let end = clock::now() + LOGIN_LIMIT;
        Ok(self.client.send(end).await?)
    }

    async fn encrypt(&mut self) -> Result<(), LoginError> {
        let Some(tls) = &self.listener.tls else {
            return Err(LoginError::Refused("this listener has no TLS"));
        };
        let (near, _) = tokio::io::duplex(1);
        let socket = match std::mem::replace(&mut self.client.stream, Stream::Pipe(near)) {
            Stream::Tcp(tcp) => Socket::Tcp(tcp),
            Stream::Unix(unix) => Socket::Unix(unix),
            _ => return Err(LoginError::Refused("TLS inside TLS")),
        };
        let shaken = tls.handshake(socket).await.map_err(|error| {
            self.listener.counters.handshakes_refused.increment();
            LoginError::Handshake(error)
        })?;
        self.client.stream = Stream::TlsServer(Box::new(shaken));
        Ok(())
    }

    /// Who the client is, once it has proved it.
    async fn identify(
        &mut self,
        peer: &str,
        user: &[u8],
        proof: &[u8],
        plugin: Option<&[u8]>,
    ) -> Result<Identity, LoginError> {
        let name = String::from_utf8_lossy(user).into_owned();
        let Some(users) = &self.listener.users else {
            // Everybody is let in, as the user of the stores.
            return Ok(Identity::anybody(name));
        };
        let guesses = Arc::clone(&self.listener.guesses);
        let who = guesses.who(&name, peer);
        let Some(wait) = guesses.wait(who, clock::now(), LONGEST_WAIT) else {
            return Err(LoginError::Throttled(name, peer.to_owned()));
        };
        tokio::time::sleep(wait).await;
        let known = users.get(&name).cloned();
        let proved = self.prove(proof, plugin, known_of(known.as_ref())).await?;
        let (true, Some(known)) = (proved, known) else {
            guesses.failed(who, clock::now());
            tokio::time::sleep(GUESS_PAUSE).await;
            return Err(LoginError::Password(name, peer.to_owned()));
        };
        guesses.passed(who);
        Ok(Identity::proven(name, known))
    }

    /// Whether the client's proof is that of the password; it may be asked for another kind of proof.
    async fn prove(
        &mut self,
        proof: &[u8],
        plugin: Option<&[u8]>,
        known: Known,
    ) -> Result<bool, LoginError> {
        let private = is_private(&self.client.stream);
        let first = First {
            method: plugin,
            proof,
            nonce: &self.nonce,
        };
        let (server, mut step) = Server::start(known, private, &first, &chance()?);
        loop {
            match step {
                Step::Ask(payload) => {
                    self.send(&payload).await?;
                    let proof = self.read().await?;
                    step = server.answer(&proof);
                }
                Step::Proved { first, .. } => {
                    server.nonce().clone_into(&mut self.nonce);
                    if let Some(first) = first {
                        self.send(&first).await?;
                    }
                    return Ok(true);
                }
                Step::Refused => return Ok(false),
            }
        }
    }

    async fn refuse(&mut self, error: &LoginError, end: Instant) {
        if matches!(error, LoginError::Lost(_) | LoginError::Handshake(_)) {
            return;
        }
        let (code, sqlstate, text) = error.told();
        let mut payload = Vec::new();
        write_error(&mut payload, self.known, (code, sqlstate, &text));
        write_packet(&mut self.client.out.bytes, &mut self.sequence, &payload);
        let _ = self.client.send(end.max(clock::now() + GUESS_PAUSE)).await;
    }
}

impl Session {
    /// Takes a first connection, so that a schema or user that does not exist is refused now, and
    /// learns what connections begin with.
    pub(super) async fn greet(&mut self, schema: Option<&[u8]>) -> Result<(), LoginError> {
        let view = self.look();
        let primary = view.primary.clone();
        let replica = self.listener.cluster.choose(&view, |_| true).or_else(|| {
            // In a pause a client is let in all the same: its first statement waits.
            let is_up = |it: &usize| self.check_server(*it).is_ok();
            view.replicas.iter().copied().find(is_up)
        });
        let mut settings = Settings::default();
        settings.enter(&String::from_utf8_lossy(schema.unwrap_or_default()));
        self.settings = Arc::new(settings);
        let user = self.identity.user.clone();
        let refused = |error| LoginError::Upstream(user, Box::new(error));
        let failure = match primary {
            Ok(primary) => match self.greet_at(primary, false).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            },
            Err(why) => SqlError::NoPrimary {
                store: self.listener.cluster.options.name.clone(),
                why,
            },
        };
        let gone = matches!(failure.kind(), ErrorKind::Unreachable | ErrorKind::Timeout);
        match replica.filter(|_| gone) {
            Some(replica) => self.greet_at(replica, true).await.map_err(refused),
            None => Err(refused(failure)),
        }
    }

    async fn greet_at(&mut self, server: usize, read_only: bool) -> Result<(), SqlError> {
        let pool = self.pool(server, read_only)?;
        if pool.is_crowded()
            && let Some(known) = pool.kept().get()
        {
            // Who comes while all connections are lent is let in; its first statement waits.
            self.base = known;
            return Ok(());
        }
        let mut lease = pool.lend().await?;
        let Some(upstream) = lease.upstream() else {
            return Ok(());
        };
        pool.kept().keep(&upstream.base);
        self.base = Arc::clone(&upstream.base);
        if let Some(schema) = self.settings.schema()
            && upstream.applied.schema() != Some(schema)
        {
            let mut there = (*upstream.applied).clone();
            there.enter(schema);
            let entered = pool.endpoint().enter(upstream, schema).await;
            // One that it does not let a client into is the client's wish, and not Breccia's.
            entered.map_err(SqlError::of_settings)?;
            upstream.applied = Arc::new(there);
        }
        lease.give_back();
        Ok(())
    }

    pub(super) fn write_ok_to(&self, payload: &mut Vec<u8>) {
        let mut state = Vec::new();
        let mut flags = self.own_status();
        if let Some(schema) = self.settings.schema() {
            write_change(&mut state, &Change::Schema(schema.as_bytes()));
            flags |= status::SESSION_STATE_CHANGED;
        }
        if self.capabilities & capabilities::SESSION_TRACK == 0 {
            flags &= !status::SESSION_STATE_CHANGED;
        }
        let ok = OkPacket {
            header: 0,
            affected: 0,
            insert_id: 0,
            status: flags,
            warnings: 0,
            info: b"",
            state: &state,
        };
        ok.write(payload, self.capabilities);
    }
}
