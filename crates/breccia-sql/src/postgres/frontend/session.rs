//! A client's session: what it is at, and what it does next.
//!
//! Not one batch's way ([`super::serve`]). Invariant: between batches a session holds a connection
//! only if a transaction is open, or if it is pinned, or in session mode.

use std::sync::Arc;
use std::time::{Duration, Instant};

use breccia_core::error::ErrorKind;
use breccia_net::clock;
use breccia_net::metrics::SharedCounter;

use super::SqlListener;
use super::attached::{Attached, Event};
use super::batch::{Extent, MAX_BATCH, extent};
use super::cancel::Registered;
use super::client::{Client, HIGH_WATER, Outgoing};
use super::expected::{Expected, News};
use super::hear::Changing;
use super::limits::Clocks;
use super::names::Names;
use super::own::Own;
use super::tell::Watch;
use super::told::{Reads, Told};
use crate::bells::{Rung, Timer};
use crate::class::{Class, Signs, Verdict};
use crate::ends::Limit;
use crate::error::SqlError;
use crate::postgres::cluster::Database;
use crate::postgres::cluster::election::View;
use crate::postgres::codec::CodecError;
use crate::postgres::codec::message::Status;
use crate::postgres::pool::{Greeting, Lease, Pool};
use crate::postgres::settings::Settings;
use crate::postgres::token::Freshness;
use crate::postgres::upstream::{Credential, Login};

/// How long a login waits for servers that have not been asked yet.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// How often a session that waits for an answer looks whether its server is what it was.
pub(super) const HEALTH_LOOK: Duration = Duration::from_millis(100);

/// Who a client is.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) user: String,
    pub(super) database: String,
    /// What its login has shown.
    pub(super) credential: Credential,
    /// The role to use upstream instead.
    pub(super) upstream: Option<(String, Credential)>,
}

/// Why a session ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The client said goodbye or is gone.
    Gone,
    /// The client is told why: SQLSTATE and words.
    Told(&'static str, String),
}

impl From<CodecError> for End {
    fn from(error: CodecError) -> Self {
        Self::Told("08P01", error.to_string())
    }
}

/// A transaction that may still move: under READ COMMITTED, with nothing but reads so far.
#[derive(Debug, Clone)]
pub(super) struct Begun {
    /// What the client began it with.
    pub(super) sql: String,
    /// A statement of it was refused before any server saw it: it can only be rolled back.
    pub(super) failed: bool,
}

/// A client's session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) listener: Arc<SqlListener>,
    pub(super) client: Client,
    pub(super) identity: Identity,
    pub(super) database: Arc<Database>,
    /// What it is at, and what it began with.
    pub(super) settings: Arc<Settings>,
    pub(super) startup: Arc<Settings>,
    pub(super) names: Names,
    pub(super) freshness: Freshness,
    pub(super) pinned: Option<&'static str>,
    /// A statement is complete that changes a setting, and its batch is not yet.
    pub(super) changing: Option<Changing>,
    pub(super) told: Told,
    /// Something may be otherwise than the client was told.
    pub(super) retell: bool,
    /// How texts are read now, and at the start.
    pub(super) reads: Reads,
    pub(super) startup_reads: Reads,
    pub(super) registered: Registered,
    pub(super) rung: Rung,
    pub(super) timer: Timer,
    pub(super) view: Arc<View>,
    pub(super) view_version: u64,
    pub(super) attached: Option<Attached>,
    /// Texts can be read here: standard strings, and an encoding that is safe to look into.
    pub(super) legible: bool,
    /// Transactions are READ COMMITTED unless they say otherwise.
    pub(super) read_committed: bool,
    /// A transaction that the client has begun and that no server, or only a replica, knows yet.
    pub(super) begun: Option<Begun>,
    /// When the open transaction began, or the statement that runs outside one.
    pub(super) transaction_since: Option<Instant>,
    pub(super) clocks: Clocks,
    /// The limit that ends it.
    pub(super) over: Option<Limit>,
    /// When the batch that is served arrived.
    pub(super) asked: Instant,
    /// When the replica that serves its reads was chosen.
    pub(super) settled: Instant,
    pub(super) watch: Watch,
    /// A batch that is answered here and has not ended.
    pub(super) own: Option<Own>,
    /// The next frame of the client is to be answered here, and may be now.
    pub(super) own_next: bool,
    /// Statements that the batch binds which were described to the client.
    pub(super) binds: Vec<Box<[u8]>>,
    /// The batch that is served can be answered without a server, and is rather than that it waits for
    /// a connection.
    pub(super) hurried: bool,
    /// Some statement of Breccia's own was prepared.
    pub(super) prepared_own: bool,
    /// What the client's first packet says about `breccia.…`.
    pub(super) startup_own: Vec<(String, String)>,
    pools: Vec<Option<Arc<Pool>>>,
    /// A buffer for what answers tell.
    pub(super) news: Vec<News>,
    /// Buffers of the last connection that was held, for the next one.
    pub(super) spare: (Outgoing, Expected),
    /// Where the last statement went and why, and the counter of that.
    counted: Option<(bool, &'static str, SharedCounter)>,
}

impl Session {
    pub(super) fn new(
        listener: &Arc<SqlListener>,
        client: Client,
        identity: Identity,
        settings: Settings,
        registered: Registered,
        rung: Rung,
    ) -> Self {
        let cluster = &listener.cluster;
        let mut settings = settings;
        let startup_own = settings.take_own();
        let settings = Arc::new(settings);
        let pinned = settings.makes_temporary().then_some("temp");
        Self {
            listener: Arc::clone(listener),
            client,
            // Met once a server has let the session in.
            database: Database::unknown(),
            identity,
            startup: Arc::clone(&settings),
            settings,
            names: Names::default(),
            freshness: Freshness::default(),
            pinned,
            changing: None,
            told: Told::default(),
            retell: false,
            reads: Reads::default(),
            startup_reads: Reads::default(),
            registered,
            rung,
            timer: Timer::default(),
            view: cluster.view(),
            view_version: 0,
            attached: None,
            legible: true,
            read_committed: false,
            begun: None,
            transaction_since: None,
            clocks: Clocks::default(),
            over: None,
            asked: clock::now(),
            settled: clock::now(),
            watch: Watch::default(),
            own: None,
            own_next: false,
            binds: Vec::new(),
            hurried: false,
            prepared_own: false,
            startup_own,
            pools: vec![None; cluster.servers.len()],
            news: Vec::new(),
            spare: (Outgoing::default(), Expected::default()),
            counted: None,
        }
    }

    /// Takes a first connection, so that a database or role that does not exist is refused now, and
    /// tells the parameters as they are with the session's settings.
    pub(super) async fn greet(&mut self) -> Result<Vec<(String, String)>, SqlError> {
        // One that was idle may turn out to be dead only when it is used.
        let mut greeted = self.greet_once().await;
        if matches!(&greeted, Err(error) if is_of_the_connection(error)) {
            greeted = self.greet_once().await;
        }
        let parameters = greeted?;
        self.database = self.listener.cluster.database(&self.identity.database);
        for (name, value) in &parameters {
            self.told.note(name, value);
            self.reads.note(name, value);
        }
        self.startup_reads = self.reads;
        self.legible = self.reads.legible();
        self.begin_own()?;
        Ok(parameters)
    }

    async fn greet_once(&mut self) -> Result<Vec<(String, String)>, SqlError> {
        if let Some(greeting) = self.known_greeting() {
            self.read_committed = greeting.read_committed;
            return Ok(greeting.parameters);
        }
        let mut lease = self.first_connection().await?;
        let pool = Arc::clone(lease.pool());
        let mut parameters = Vec::new();
        if let Some(upstream) = lease.upstream() {
            let questions = self.settings.since(&upstream.applied);
            pool.endpoint().bring(upstream, &questions).await?;
            upstream.applied = Arc::clone(&self.settings);
            self.read_committed = pool.is_read_committed(upstream).await?;
            let pairs = upstream.parameters.iter();
            parameters.extend(pairs.map(|(name, value)| (name.clone(), value.clone())));
        }
        pool.keep_greeting(Greeting {
            settings: Arc::clone(&self.settings),
            parameters: parameters.clone(),
            read_committed: self.read_committed,
        });
        lease.give_back();
        Ok(parameters)
    }

    /// What the primary told others who came like this one, while all connections there are lent.
    fn known_greeting(&mut self) -> Option<Greeting> {
        let primary = self.look().primary.clone().ok()?;
        if self.listener.cluster.gates().holds_back(primary) {
            return None;
        }
        let pool = self.pool(primary, false).ok()?;
        pool.greeting_of_crowded(&self.settings)
    }

    /// A connection to the primary, or to a replica while there is none.
    async fn first_connection(&mut self) -> Result<Lease, SqlError> {
        let patience = clock::now() + FIRST_LOOK;
        let mut view = self.look();
        // A gateway that has just started has not asked its servers yet.
        while view.primary.is_err() && view.replicas.is_empty() && clock::now() < patience {
            tokio::time::sleep(FIRST_LOOK / 50).await;
            view = self.look();
        }
        let primary = view.primary.clone().unwrap_or(usize::MAX);
        if self.listener.cluster.gates().holds_back(primary) {
            if let Some(replica) = self.listener.cluster.choose(&view, |_| true) {
                return self.pool(replica, true)?.lend().await;
            }
            let end = clock::now() + self.listener.limits.pool.queue_timeout();
            self.wait_for_primary(end).await?;
            view = self.look();
        }
        let failure = match &view.primary {
            Ok(primary) => match self.pool(*primary, false)?.lend().await {
                Ok(lease) => return Ok(lease),
                Err(error) => error,
            },
            Err(why) => SqlError::NoPrimary {
                store: self.listener.cluster.options.name.clone(),
                why: why.clone(),
            },
        };
        let gone = matches!(failure.kind(), ErrorKind::Unreachable | ErrorKind::Timeout);
        let replica = self.listener.cluster.choose(&view, |_| true);
        match replica.filter(|_| gone) {
            Some(replica) => self.pool(replica, true)?.lend().await,
            None => Err(failure),
        }
    }

    /// Serves the client until it ends.
    pub(super) async fn run(mut self) {
        let end = loop {
            if let Err(end) = self.step().await {
                break end;
            }
        };
        self.leave(end).await;
    }

    async fn step(&mut self) -> Result<(), End> {
        let mut known = 0;
        loop {
            self.check_primary()?;
            let failed = self.has_failed_away() || self.has_failed();
            let stays = self.attached.is_some() && !self.may_move() && !failed;
            let own = self.own_next || self.own.is_some();
            if stays && !own && !self.is_held_back() {
                return self.pump().await;
            }
            if !stays {
                self.client.drop_copied()?;
            }
            // One who takes no answers is given no more.
            let found = if self.client.out.waiting() > HIGH_WATER {
                Extent::Unknown
            } else {
                extent(&self.client.inbound, &mut known)?
            };
            match found {
                Extent::Whole(length) | Extent::Part(length) if failed => {
                    let whole = matches!(found, Extent::Whole(_));
                    if self.serve_failed(length, whole).await? {
                        return Ok(());
                    }
                    continue;
                }
                Extent::Whole(length) | Extent::Part(length) if stays && own => {
                    self.own_next = false;
                    let frames = self.client.take(length);
                    return self.serve_own(frames).await;
                }
                Extent::Whole(length) if stays => return self.wait_held_back(length, true).await,
                Extent::Part(length) if stays => return self.wait_held_back(length, false).await,
                Extent::Whole(length) => return self.serve(length, true).await,
                Extent::Part(length) => return self.serve(length, false).await,
                Extent::Goodbye => return Err(End::Gone),
                Extent::Unknown => {}
            }
            self.client.rest();
            self.watch.rest();
            self.client.wanted = self.long_query()?.max(MAX_BATCH);
            match self.event().await? {
                Event::Client | Event::Sent | Event::Late => {}
                Event::Server => self.digest_quietly()?,
                Event::ServerLost(error) if stays => return self.lost(&error).map(drop),
                Event::ServerLost(error) => {
                    // Nothing was asked: the transaction goes on elsewhere.
                    tracing::debug!(%error, "a connection was lost between two statements");
                    self.registered.doing.end();
                    self.keep_seen();
                    self.let_go();
                    if let Some(begun) = self.begun.as_mut().filter(|_| failed) {
                        begun.failed = true;
                    }
                }
                Event::ClientGone => return Err(End::Gone),
            }
        }
    }

    /// What a text is, in this session's database.
    pub(super) fn judge(&self, sql: &[u8]) -> Arc<Verdict> {
        self.see(sql).0
    }

    /// The same, and what it mentions.
    pub(super) fn see(&self, sql: &[u8]) -> (Arc<Verdict>, Signs) {
        if is_pool_reset(sql) {
            let verdict = Verdict {
                class: Class::Reset { name: None },
                hint_primary: false,
                ddl: false,
                uses_now: false,
                single: false,
            };
            return (Arc::new(verdict), Signs::default());
        }
        self.database.classifier.see(sql, self.legible)
    }

    /// The pool of this session's login on a server.
    pub(super) fn pool(&mut self, server: usize, replica: bool) -> Result<Arc<Pool>, SqlError> {
        // A server that changed its role is logged in to anew.
        if let Some(Some(pool)) = self.pools.get(server)
            && pool.is_read_only() == replica
        {
            return Ok(Arc::clone(pool));
        }
        let cluster = &self.listener.cluster;
        let missing = || SqlError::NoPrimary {
            store: cluster.options.name.clone(),
            why: "there is no such server".to_owned(),
        };
        let own = cluster.server(server).ok_or_else(missing)?;
        let own = own.options.client_role.clone();
        let theirs = || (self.identity.user.clone(), self.identity.credential.clone());
        let (role, credential) = self
            .identity
            .upstream
            .clone()
            .or(own)
            .unwrap_or_else(theirs);
        let login = Login {
            role,
            credential,
            database: self.identity.database.clone(),
            read_only: replica,
        };
        let pool = cluster.pool(server, login, &self.listener.limits.pool);
        let pool = pool.ok_or_else(missing)?;
        if let Some(place) = self.pools.get_mut(server) {
            *place = Some(Arc::clone(&pool));
        }
        Ok(pool)
    }

    /// Whether a transaction is open that may still move: where its next statement goes is open.
    pub(super) fn may_move(&self) -> bool {
        self.is_movable() && self.attached.as_ref().is_none_or(Attached::is_settled)
    }

    /// The same, though a statement of it may be under way.
    pub(super) fn is_movable(&self) -> bool {
        self.begun.is_some()
            && self.attached.as_ref().is_none_or(|attached| {
                attached.replica && attached.expected.status != Some(Status::Failed)
            })
    }

    /// Counts a statement by where it goes.
    pub(super) fn count(&mut self, replica: bool, reason: &'static str) {
        match &self.counted {
            Some((was, why, counter)) if *was == replica && std::ptr::eq(*why, reason) => {
                counter.increment();
            }
            _ => {
                let counter = self.listener.cluster.routed.routed(replica, reason);
                counter.increment();
                self.counted = Some((replica, reason, counter));
            }
        }
    }
}

/// What asyncpg sends when a connection goes back to its pool. Alone each statement of it would be
/// harmless; not to know it would pin every session of such a pool.
const POOL_RESET: [&str; 8] = [
    "SELECT",
    "pg_advisory_unlock_all();",
    "CLOSE",
    "ALL;",
    "UNLISTEN",
    "*;",
    "RESET",
    "ALL;",
];

fn is_pool_reset(sql: &[u8]) -> bool {
    // Longer only by white space, which is short.
    if sql.len() > 256 || !sql.starts_with(b"SELECT pg_advisory_unlock_all()") {
        return false;
    }
    let words = std::str::from_utf8(sql).unwrap_or_default();
    words.split_ascii_whitespace().eq(POOL_RESET)
}

/// Whether a question failed for its connection, and another one may do.
pub(super) fn is_of_the_connection(error: &SqlError) -> bool {
    match error {
        SqlError::Lost { .. } => true,
        // It ends, or what its last session had set cut it short.
        SqlError::Settings { sqlstate, .. } | SqlError::Question { sqlstate, .. } => {
            sqlstate.starts_with("57") || sqlstate.starts_with("25P")
        }
        _ => false,
    }
}
