//! A connection for one kind of question, made when it is needed.
//!
//! Not what is asked. Invariant: the run that a line tells is that of the server the last answer came
//! from.

use std::time::{Duration, Instant};

use breccia_net::clock;

use crate::error::SqlError;
use crate::mysql::cluster::Server;
use crate::mysql::cluster::report::{self, GALERA, VARIABLES};
use crate::mysql::gtid::Gtids;
use crate::mysql::upstream::{Endpoint, Row, ServerKind, Table, Upstream};
use crate::pool::is_quiet;

/// Where a MariaDB server is: see [`report::primary_position`].
const MARIADB_POSITION: &str = "SELECT @@GLOBAL.gtid_binlog_pos, @@GLOBAL.gtid_slave_pos";
/// Where a MySQL server is.
const MYSQL_POSITION: &str = "SELECT @@GLOBAL.gtid_executed, ''";

/// What a server has counted of the statements that change schemas, or who may see them. Temporary tables
/// are nobody else's.
const CHANGES: &str = "SHOW GLOBAL STATUS WHERE \
    Variable_name REGEXP '^Com_(create|alter|drop|rename|grant|revoke)' \
    AND Variable_name NOT LIKE '%temporary%'";

/// What asks in which second a server was started. Both times are those of the statement's beginning,
/// so the answer is the same for as long as the server runs, wherever the clock is set to.
#[must_use]
pub fn run_question(kind: ServerKind) -> &'static str {
    match kind {
        ServerKind::MariaDb => {
            "SELECT CAST(UNIX_TIMESTAMP() - VARIABLE_VALUE AS UNSIGNED) \
             FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'UPTIME'"
        }
        ServerKind::MySql => {
            "SELECT CAST(UNIX_TIMESTAMP() - VARIABLE_VALUE AS UNSIGNED) \
             FROM performance_schema.global_status WHERE VARIABLE_NAME = 'Uptime'"
        }
    }
}

/// What asks where a server is.
pub(super) fn position_question(kind: ServerKind) -> &'static str {
    match kind {
        ServerKind::MariaDb => MARIADB_POSITION,
        ServerKind::MySql => MYSQL_POSITION,
    }
}

/// What is to be asked.
#[derive(Debug, Clone, Copy)]
pub(super) enum Errand {
    /// What the server is: [`VARIABLES`], [`report::replication`] and, of a Galera member, [`GALERA`].
    Role,
    /// Where it is, and then [`report::replication`]: one that is no replica after it told its position
    /// was none before.
    Position,
    /// How many statements it has begun that change schemas: [`CHANGES`].
    Changes,
}

/// What was answered, and by whom.
#[derive(Debug)]
pub(super) struct Told {
    /// The answers, in the order of the questions.
    pub(super) tables: Vec<Table>,
    /// What the server is.
    pub(super) kind: ServerKind,
    /// When the connection was made: the server runs since then at least.
    pub(super) since: Instant,
    /// The second the server was started in.
    pub(super) run: u64,
}

/// The most connections to a server on which questions hang. While there are as many, no other is made: each
/// takes one of those that the server has for all.
const MOST_HANGING: usize = 3;
/// How long until one more is tried all the same, in place of the oldest: what is lost on the way is never
/// answered. Twice as long each time, until something is answered.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// The longest such wait.
const LONGEST_WAIT: Duration = Duration::from_hours(1);

/// The connection, if there is one.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// With the run of the server it leads to.
    kept: Option<(Upstream, u64)>,
    /// A question is under way on it. Whoever asked may have gone since.
    asks: bool,
    /// Those whose question was given up, until the server has answered it after all, or closed them.
    hanging: Vec<Upstream>,
    /// When one more may be made though there are as many as may be, and how long after that the next.
    again: Option<(Instant, Duration)>,
    /// The server that all of them lead to.
    server: String,
}

impl Line {
    /// Asks on the connection there is, or on a new one.
    pub(super) async fn ask(&mut self, server: &Server, errand: Errand) -> Result<Told, SqlError> {
        self.set_aside(server);
        if self.kept.is_some() {
            match self.carry_out(server, errand).await {
                Ok(told) => return Ok(told),
                // Whether the server is there shows on a new connection only.
                Err(SqlError::Lost { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.connect(server).await?;
        self.carry_out(server, errand).await
    }

    /// A new connection, to ask it something else: [`Line::answered`] tells when that is done.
    pub(super) async fn open(&mut self, server: &Server) -> Result<&mut Upstream, SqlError> {
        self.set_aside(server);
        self.connect(server).await?;
        self.asks = true;
        let kept = self.kept.as_mut().map(|(upstream, _)| upstream);
        kept.ok_or_else(|| none(server))
    }

    /// What was asked on [`Line::open`]'s connection was answered.
    pub(super) fn answered(&mut self) {
        self.asks = false;
    }

    /// Where a primary is; `None`: it is none, or does not tell.
    pub(super) async fn position(&mut self, server: &Server) -> Result<Option<Gtids>, SqlError> {
        let told = self.ask(server, Errand::Position).await?;
        let sample = super::sample_of(&told, 0, told.since);
        Ok(sample.filter(|it| !it.replica).map(|it| it.position))
    }

    /// Gives the connection up, but for one on which a question hangs.
    pub(super) fn close(&mut self) {
        if !self.asks {
            self.kept = None;
        }
    }

    /// A connection whose question was given up is of no use, and is still one of the server's.
    fn set_aside(&mut self, server: &Server) {
        if self.server != server.name() {
            *self = Self {
                server: server.name().to_owned(),
                ..Self::default()
            };
        }
        if std::mem::take(&mut self.asks)
            && let Some((upstream, _)) = self.kept.take()
        {
            self.hanging.push(upstream);
        }
        self.hanging.retain_mut(is_quiet);
    }

    /// Logs in as the one who asks Breccia's own questions, and asks which run of the server it is.
    async fn connect(&mut self, server: &Server) -> Result<(), SqlError> {
        self.make_room(server)?;
        let login = server.own_login().ok_or_else(|| SqlError::Login {
            server: server.name().to_owned(),
            role: String::new(),
            what: "the store has neither `user` nor `monitor-user`, so its role and position \
                   cannot be asked",
        })?;
        let endpoint = &server.options.endpoint;
        let upstream = endpoint.open(&login).await?;
        let question = run_question(upstream.server);
        let (upstream, run) = self.kept.insert((upstream, 0));
        self.asks = true;
        let asked = endpoint.ask(upstream, question).await;
        self.asks = false;
        match asked {
            Ok(rows) => {
                let first = rows.first().and_then(|row| row.first()?.as_deref());
                *run = first.and_then(|it| it.parse().ok()).unwrap_or(0);
                Ok(())
            }
            Err(error) => {
                self.kept = None;
                Err(error)
            }
        }
    }

    /// Whether one more connection may be made.
    fn make_room(&mut self, server: &Server) -> Result<(), SqlError> {
        if self.hanging.len() < MOST_HANGING {
            return Ok(());
        }
        let now = clock::now();
        let (at, wait) = *self.again.get_or_insert((now + FIRST_WAIT, FIRST_WAIT));
        if now < at {
            return Err(SqlError::Hanging {
                server: server.name().to_owned(),
                count: self.hanging.len(),
            });
        }
        self.hanging.remove(0);
        let wait = (2 * wait).min(LONGEST_WAIT);
        self.again = Some((now + wait, wait));
        Ok(())
    }

    async fn carry_out(&mut self, server: &Server, errand: Errand) -> Result<Told, SqlError> {
        let Some((upstream, run)) = &mut self.kept else {
            return Err(none(server));
        };
        self.asks = true;
        let carried = carry_out(&server.options.endpoint, upstream, errand).await;
        self.asks = false;
        match carried {
            Ok(tables) => {
                self.again = None;
                server.options.health.note_bytes();
                server.note_greeting(&upstream.version, upstream.collation);
                Ok(Told {
                    tables,
                    kind: upstream.server,
                    since: upstream.born,
                    run: *run,
                })
            }
            Err(error) => {
                self.kept = None;
                Err(error)
            }
        }
    }
}

fn none(server: &Server) -> SqlError {
    SqlError::Lost {
        server: server.name().to_owned(),
        source: std::io::ErrorKind::NotConnected.into(),
    }
}

/// Asks all questions of an errand.
pub(super) async fn carry_out(
    endpoint: &Endpoint,
    upstream: &mut Upstream,
    errand: Errand,
) -> Result<Vec<Table>, SqlError> {
    let replication = report::replication(upstream.server, &upstream.version);
    let mut tables = Vec::new();
    match errand {
        Errand::Role => {
            tables.push(endpoint.table(upstream, VARIABLES).await?);
            tables.push(endpoint.table(upstream, replication).await?);
            if tables.first().is_some_and(is_galera) {
                tables.push(endpoint.table(upstream, GALERA).await?);
            }
        }
        Errand::Changes => tables.push(endpoint.table(upstream, CHANGES).await?),
        Errand::Position => {
            let position = position_question(upstream.server);
            tables.push(endpoint.table(upstream, position).await?);
            tables.push(endpoint.table(upstream, replication).await?);
        }
    }
    Ok(tables)
}

fn is_galera(variables: &Table) -> bool {
    let cell = |row: &Row, at: usize| row.get(at).cloned().flatten().unwrap_or_default();
    let mut rows = variables.rows.iter();
    rows.any(|row| cell(row, 0) == "wsrep_on" && cell(row, 1) == "ON")
}
