//! A connection for a statement: the one that is held, or one of a pool, brought to the session's
//! settings.
//!
//! Not which server. Invariant: nothing of a session is sent on a connection that is not at its
//! settings, nor on a replica's that may have been made to another run of the server.

use std::sync::Arc;
use std::time::Instant;

use breccia_net::clock;

use super::attached::{Attached, Stays};
use super::route::Place;
use super::serve::{Ask, Trouble, write_command};
use super::session::{End, Session};
use crate::error::SqlError;
use crate::flow::Outgoing;
use crate::mysql::class::{Class, Verdict};
use crate::mysql::codec::{capabilities, command};
use crate::mysql::pool::Pool;
use crate::mysql::settings::Settings;
use crate::mysql::statements::Key;
use crate::mysql::told::code_of;
use crate::pause::Running;
use crate::placing::Seeker as _;
use crate::pool::is_quiet;

/// The capabilities of a client that change what a server answers: pools are kept apart by them.
pub(super) const KEPT_APART: u64 = capabilities::FOUND_ROWS
    | capabilities::IGNORE_SPACE
    | capabilities::LOCAL_FILES
    | capabilities::MULTI_STATEMENTS
    | capabilities::MULTI_RESULTS
    | capabilities::PS_MULTI_RESULTS;

/// MariaDB forgets warnings only by a statement with a table in it.
const FORGETS_WARNINGS: &str = "DO (SELECT 1 FROM (SELECT 1) AS one)";

impl Session {
    /// Waits while all of the composite is paused.
    pub(super) async fn pass_gate(&mut self) -> Result<(), SqlError> {
        if !self.listener.cluster.gates().is_paused() {
            return Ok(());
        }
        // What is open on a connection counts as running until it is carried on: a cursor, too.
        let open = |attached: &Attached| !attached.is_free();
        if self.begun.is_some() || self.home.iter().chain(&self.away).any(|it| open(it)) {
            return Ok(());
        }
        // What only lingers might not outlive what is done to its server now.
        for attached in [self.home.take(), self.away.take()].into_iter().flatten() {
            self.put_back(attached).await;
        }
        let cluster = Arc::clone(&self.listener.cluster);
        let name = cluster.options.name.clone();
        self.take_turn(name, || !cluster.gates().is_paused()).await
    }

    /// Waits until it may go on, as long as `queue-timeout` allows and nobody kills it.
    async fn take_turn(&self, store: String, may_go: impl FnMut() -> bool) -> Result<(), SqlError> {
        let turn = self
            .listener
            .cluster
            .gates()
            .wait_turn(self.gate_end(), may_go);
        match self.registered.unless_killed(turn).await {
            Some(true) => Ok(()),
            Some(false) => Err(SqlError::Paused {
                store,
                after: self.listener.limits.pool.queue_timeout(),
            }),
            None => Err(SqlError::Cancelled),
        }
    }

    fn gate_end(&self) -> Instant {
        self.asked + self.listener.limits.pool.queue_timeout()
    }

    /// Answers with an error of Breccia's own: nothing was carried out.
    pub(super) fn refuse(&mut self, error: &SqlError) {
        let (code, sqlstate) = code_of(error);
        if !matches!(error, SqlError::Question { .. } | SqlError::Settings { .. }) {
            let state = String::from_utf8_lossy(&sqlstate).into_owned();
            self.refused = Some((state, error.to_string(), "-"));
        }
        let text = match error {
            SqlError::Refused { text, .. }
            | SqlError::Settings { text, .. }
            | SqlError::Question { text, .. } => text.clone(),
            other => format!("breccia: {other}; nothing was carried out"),
        };
        self.answer_error(code, sqlstate, &text);
    }

    /// The connection that a place needs, taken out of the session.
    pub(super) async fn attach(&mut self, place: &Place) -> Result<Box<Attached>, Trouble> {
        let held = if place.replica {
            &mut self.away
        } else {
            &mut self.home
        };
        if let Some(mut attached) = held.take() {
            // One that is open no more has nothing of a session that is not told elsewhere.
            let free = attached.is_free() && !self.has_state_on(&attached);
            if free && !attached.lease.upstream().is_some_and(is_quiet) {
                attached.tainted = true;
            }
            // What only lingers might not outlive what is done to its server in a pause.
            let moves = free && self.listener.cluster.gates().holds_back(place.server);
            if attached.server == place.server && !attached.tainted && !moves {
                return self.attach_again(attached, place).await;
            }
            self.let_go_of(attached).await?;
        }
        if !place.replica && place.server == usize::MAX {
            let why = self.view.primary.clone().err().unwrap_or_default();
            return Err(Trouble::Before(SqlError::NoPrimary {
                store: self.listener.cluster.options.name.clone(),
                why,
            }));
        }
        let mut running = Running::on(self.listener.cluster.gates(), place.server);
        while !running.begins() {
            let waited = self.wait_while_held(place.server).await;
            waited.map_err(Trouble::Before)?;
        }
        let attached = self.attach_anew(place, running).await;
        let attached = attached.map_err(Trouble::Before)?;
        if self.is_deposed(place) {
            attached.lease.give_back();
            return Err(Trouble::Before(self.deposed(place.server)));
        }
        Ok(attached)
    }

    /// The connection that is held, for one more statement.
    async fn attach_again(
        &mut self,
        attached: Box<Attached>,
        place: &Place,
    ) -> Result<Box<Attached>, Trouble> {
        let attached = self.begin_again(attached).await;
        let mut attached = attached.map_err(Trouble::Before)?;
        if self.is_deposed(place) {
            attached.tainted = true;
            self.let_go_of(attached).await?;
            return Err(Trouble::Before(self.deposed(place.server)));
        }
        if let Some(proof) = &place.proof
            && proof.run == attached.run
        {
            attached.has = proof.has.clone();
        }
        Ok(attached)
    }

    /// Gives back a connection that is of no use to the next statement. If the session has something open
    /// there, that is lost, and so the session ends.
    async fn let_go_of(&mut self, attached: Box<Attached>) -> Result<(), Trouble> {
        if attached.in_transaction() || self.has_state_on(&attached) {
            let name = self.server_name(attached.server);
            self.forget_insert_id(&attached);
            let why = format!("breccia: what the session had open on {name} is lost");
            return Err(Trouble::End(End::Told(1053, b"08S01", why)));
        }
        self.give_back(attached).await;
        Ok(())
    }

    /// Whether a place was the primary's, and that is another one now.
    fn is_deposed(&mut self, place: &Place) -> bool {
        !place.replica && self.look().primary != Ok(place.server)
    }

    fn deposed(&self, server: usize) -> SqlError {
        SqlError::Deposed {
            server: self.server_name(server),
        }
    }

    /// The connection that is held runs something again, once it may.
    async fn begin_again(
        &mut self,
        mut attached: Box<Attached>,
    ) -> Result<Box<Attached>, SqlError> {
        attached.lingers_until = None;
        while attached.running.rests() && !attached.running.begins() {
            if let Err(error) = self.wait_while_held(attached.server).await {
                self.put_back(attached).await;
                return Err(error);
            }
        }
        Ok(attached)
    }

    async fn wait_while_held(&mut self, server: usize) -> Result<(), SqlError> {
        let cluster = Arc::clone(&self.listener.cluster);
        let name = if cluster.gates().is_paused() {
            cluster.options.name.clone()
        } else {
            self.server_name(server)
        };
        self.take_turn(name, || !cluster.gates().holds_back(server))
            .await
    }

    async fn attach_anew(
        &mut self,
        place: &Place,
        running: Running,
    ) -> Result<Box<Attached>, SqlError> {
        let pool = self.pool(place.server, place.replica)?;
        let mut lease = match pool.lend_at_once() {
            Some(lease) => lease,
            None => match self
                .registered
                .unless_killed(pool.lend_by(self.gate_end()))
                .await
            {
                Some(lent) => lent?,
                None => return Err(SqlError::Cancelled),
            },
        };
        let (born, run) = match lease.upstream() {
            Some(upstream) => (upstream.born, upstream.run),
            None => (clock::now(), 0),
        };
        if let Some(proof) = &place.proof
            && !self.still_holds(place.server, proof, (born, run)).await
        {
            lease.give_back();
            return Err(SqlError::Down {
                server: self.server_name(place.server),
                why: "it is not known to have replayed enough since the connection was made"
                    .to_owned(),
            });
        }
        let at = (place.server, place.replica);
        let mut attached = Box::new(Attached::new(lease, at, self.view.epoch, running));
        forget_warnings(&mut attached).await?;
        if let Some(proof) = &place.proof {
            attached.has = proof.has.clone();
            attached.run = proof.run;
        }
        Ok(attached)
    }

    /// The pool of this session on a server.
    pub(super) fn pool(&mut self, server: usize, read_only: bool) -> Result<Arc<Pool>, SqlError> {
        let with_schema = self.settings.schema().is_some();
        let capabilities = self.capabilities & KEPT_APART;
        let place = 2 * server + usize::from(read_only);
        if let Some(Some(pool)) = self.pools.get(place)
            && pool.login().with_schema == with_schema
            && pool.login().capabilities == capabilities
        {
            return Ok(Arc::clone(pool));
        }
        let mut login = self.login.clone();
        login.read_only = read_only;
        login.with_schema = with_schema;
        login.capabilities = capabilities;
        if !self.identity.named
            && let Some((user, credential)) = self.listener.cluster.client_login(server)
        {
            login.user = user;
            login.credential = credential;
        }
        let limits = &self.listener.limits.pool;
        let pool = self.listener.cluster.pool(server, login, limits);
        if let Some(known) = self.pools.get_mut(place) {
            known.clone_from(&pool);
        }
        pool.ok_or_else(|| SqlError::Down {
            server: self.server_name(server),
            why: "it is not there any more".to_owned(),
        })
    }

    /// Brings a connection to where the command may be sent.
    pub(super) async fn prepare(
        &mut self,
        attached: &mut Attached,
        ask: &Ask<'_>,
        verdict: &Verdict,
    ) -> Result<(), SqlError> {
        if let Some(upstream) = attached.lease.upstream() {
            Settings::share(&mut self.settings, &mut upstream.applied);
            Settings::share(&mut self.base, &mut upstream.base);
        }
        let mut settings = Arc::clone(&self.settings);
        if let Some(upstream) = attached.lease.upstream()
            && ask.enters_schema(verdict)
        {
            // Where the session was may be no more.
            let there = upstream.applied.schema().unwrap_or_default();
            Arc::make_mut(&mut settings).enter(there);
        }
        self.bring(attached, &settings).await?;
        if let Ask::Prepare(key, _) = ask {
            let under = Arc::new(key.under.within(&self.settings));
            self.bring(attached, &under).await?;
        }
        if let Ask::Execute(execution) = ask {
            let keeps_previous = attached.is_asked(verdict);
            self.prepare_again(attached, execution.key(), keeps_previous)
                .await?;
        }
        if !matches!(ask, Ask::Prepare(..)) {
            // To prepare a statement is to run nothing: the transaction may still begin elsewhere.
            self.open_transaction(attached, verdict).await?;
        }
        self.bring_insert_id(attached, ask, verdict).await?;
        if verdict.asked.warnings && !attached.warned {
            run(attached, FORGETS_WARNINGS).await?;
            attached.rows = false;
        }
        Ok(())
    }

    /// Brings the last insert id to where it may be asked for.
    async fn bring_insert_id(
        &mut self,
        attached: &mut Attached,
        ask: &Ask<'_>,
        verdict: &Verdict,
    ) -> Result<(), SqlError> {
        let named = verdict.asks_last_insert_id || verdict.may_set_last_insert_id;
        let hidden = verdict.may_ask_last_insert_id()
            && !matches!(ask, Ask::Prepare(..))
            // To bring it would be the statement before.
            && !attached.is_asked(verdict);
        if attached.owns_insert_id || !(named || hidden) {
            return Ok(());
        }
        if attached.replica && self.pinned.is_none() {
            // The connection that knows it may be kept still, for just such questions.
            let keeps = |home: &mut Box<Attached>| home.sets_insert_id && home.is_free();
            if let Some(home) = self.home.take_if(keeps) {
                self.give_back(home).await;
            }
        }
        let wanted = match self.last_insert_id {
            Some(known) => known,
            None if verdict.asks_last_insert_id => {
                return Err(SqlError::Down {
                    server: self.server_name(attached.server),
                    why: "LAST_INSERT_ID() is not known: the connection that had it was lost"
                        .to_owned(),
                });
            }
            // Nobody else's at least.
            None => 0,
        };
        let there = attached.lease.upstream().and_then(|it| it.last_insert_id);
        if there != Some(wanted) {
            let sql = format!("SET last_insert_id = {wanted}");
            run(attached, &sql).await?;
            if let Some(upstream) = attached.lease.upstream() {
                upstream.last_insert_id = Some(wanted);
            }
        }
        attached.owns_insert_id = self.last_insert_id.is_some();
        Ok(())
    }

    /// Brings a connection to some settings, unless it is there.
    async fn bring(
        &mut self,
        attached: &mut Attached,
        settings: &Arc<Settings>,
    ) -> Result<(), SqlError> {
        let (replica, base) = (attached.replica, Arc::clone(&self.base));
        let pool = Arc::clone(attached.pool());
        let Some(upstream) = attached.lease.upstream() else {
            return Ok(());
        };
        if Arc::ptr_eq(&upstream.applied, settings) && Arc::ptr_eq(&upstream.base, &base) {
            return Ok(());
        }
        let (applied, their_base) = (&upstream.applied, &upstream.base);
        if let Some(sql) = settings.since(&base, applied, their_base, replica) {
            pool.endpoint()
                .run(upstream, &sql)
                .await
                .map_err(SqlError::of_settings)?;
        }
        if let Some(schema) = settings.schema()
            && upstream.applied.schema() != Some(schema)
        {
            pool.endpoint()
                .enter(upstream, schema)
                .await
                .map_err(SqlError::of_settings)?;
        }
        // Shared from now on, so that they are compared once and not for each statement.
        upstream.applied = Arc::clone(settings);
        upstream.base = base;
        Ok(())
    }

    /// Prepares a statement where it is not known.
    async fn prepare_again(
        &mut self,
        attached: &mut Attached,
        key: &Key,
        keeps_previous: bool,
    ) -> Result<(), SqlError> {
        let known = attached
            .lease
            .upstream()
            .map(|it| it.prepared.touch(key).is_some());
        if known != Some(false) {
            return Ok(());
        }
        let now = Arc::clone(&self.settings);
        let under = Arc::new(key.under.within(&now));
        // To bring other settings would be the statement before.
        let elsewhere = *under != *now && !keeps_previous;
        if elsewhere {
            self.bring(attached, &under).await?;
        }
        let pool = Arc::clone(attached.pool());
        if let Some(upstream) = attached.lease.upstream() {
            let number = pool.endpoint().prepare(upstream, &key.sql).await?;
            if let Some(closed) = upstream.prepared.add(key.clone(), number) {
                let mut out = Outgoing::default();
                write_command(&mut out.bytes, command::STMT_CLOSE, &closed.to_le_bytes());
                pool.endpoint().send(upstream, &out.bytes).await?;
            }
        }
        if elsewhere {
            self.bring(attached, &now).await?;
        }
        Ok(())
    }

    /// Tells the server of the transaction that the client has begun, or of what the next one is to be.
    async fn open_transaction(
        &mut self,
        attached: &mut Attached,
        verdict: &Verdict,
    ) -> Result<(), SqlError> {
        let whole_there = self
            .begun
            .as_ref()
            .is_some_and(|begun| begun.read_only && begun.sql.is_some() && !self.is_lazy());
        if attached.replica && !whole_there {
            return Ok(());
        }
        let keeps = self.keeps_begun(verdict);
        if attached.in_transaction() {
            if !keeps {
                // The server knows of it.
                self.begun = None;
            }
            return Ok(());
        }
        if !self.autocommits() && verdict.class == Class::Primary("savepoint") {
            // No flag of the server's would tell that it is to be kept.
            self.begun.get_or_insert_default().sql = Some(b"START TRANSACTION".to_vec());
        }
        if keeps {
            return Ok(());
        }
        let begun = self.begun.take().and_then(|begun| begun.sql);
        let next = self.next.take();
        // The server tells when what was set for one transaction is used up.
        attached.special |= next.is_some();
        if let Some(sql) = next {
            run(attached, &String::from_utf8_lossy(&sql)).await?;
        }
        if let Some(sql) = begun {
            run(attached, &String::from_utf8_lossy(&sql)).await?;
            attached.status |= crate::mysql::codec::status::IN_TRANS;
        }
        Ok(())
    }

    /// Whether a transaction that no statement has begun upstream goes on without any: a setting begins none.
    fn keeps_begun(&self, verdict: &Verdict) -> bool {
        let sets = matches!(
            verdict.class,
            Class::Set | Class::Use(_) | Class::SetAutocommit(false)
        );
        sets && self.begun.as_ref().is_some_and(|begun| begun.sql.is_none())
    }

    /// Puts back a connection on which the command was not sent.
    pub(super) async fn put_back(&mut self, attached: Box<Attached>) {
        if attached.replica {
            if attached.is_free() {
                self.give_back(attached).await;
            } else {
                self.away = Some(attached);
            }
        } else {
            self.settle_home(attached, Stays::No).await;
        }
    }

    /// Ends a transaction or whatever else holds a session to a primary that is none any more.
    pub(super) fn check_primary(&mut self) -> Result<(), End> {
        let view = self.look();
        let Some(home) = &self.home else {
            return Ok(());
        };
        if view.primary == Ok(home.server) {
            return Ok(());
        }
        if home.is_free() && self.pinned.is_none() {
            // Closed, with the last insert id if that was not asked for yet.
            if let Some(home) = self.home.take() {
                self.forget_insert_id(&home);
            }
            return Ok(());
        }
        let name = self.server_name(home.server);
        if let Some(home) = &mut self.home {
            home.tainted = true;
        }
        let why = format!(
            "breccia: {name} is not the primary any more; what the session had open there is lost"
        );
        Err(End::Told(1053, b"08S01", why))
    }
}

/// Lets a connection forget what warnings it gave to whoever had it before: many statements leave them
/// as they are, and who asks for them then would be told.
async fn forget_warnings(attached: &mut Attached) -> Result<(), SqlError> {
    if attached.lease.upstream().is_some_and(|it| it.has_warnings) {
        run(attached, FORGETS_WARNINGS).await?;
        if let Some(upstream) = attached.lease.upstream() {
            upstream.has_warnings = false;
        }
    }
    Ok(())
}

/// Runs a statement of Breccia's own on a connection that is held.
async fn run(attached: &mut Attached, sql: &str) -> Result<(), SqlError> {
    let pool = Arc::clone(attached.pool());
    match attached.lease.upstream() {
        Some(upstream) => pool.endpoint().run(upstream, sql).await.map(drop),
        None => Ok(()),
    }
}
