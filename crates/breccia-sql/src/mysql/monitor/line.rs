//! A connection for one kind of question, made when it is needed.
//!
//! Not what is asked. Invariant: the run that a line tells is that of the server the last answer came
//! from.

use std::time::Instant;

use crate::error::SqlError;
use crate::mysql::cluster::Server;
use crate::mysql::cluster::report::{self, GALERA, VARIABLES};
use crate::mysql::gtid::Gtids;
use crate::mysql::upstream::{Endpoint, Row, ServerKind, Table, Upstream};

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

/// The connection, if there is one.
#[derive(Debug, Default)]
pub(super) struct Line(Option<(Upstream, u64)>);

impl Line {
    /// Asks on the connection there is, or on a new one.
    pub(super) async fn ask(&mut self, server: &Server, errand: Errand) -> Result<Told, SqlError> {
        let endpoint = &server.options.endpoint;
        if let Some((mut upstream, run)) = self.0.take() {
            match carry_out(endpoint, &mut upstream, errand).await {
                Ok(tables) => return Ok(self.keep(server, upstream, run, tables)),
                // Whether the server is there shows on a new connection only.
                Err(SqlError::Lost { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let (mut upstream, run) = connect(server).await?;
        let tables = carry_out(endpoint, &mut upstream, errand).await?;
        Ok(self.keep(server, upstream, run, tables))
    }

    /// A new connection, to ask it something else.
    pub(super) async fn open(&mut self, server: &Server) -> Result<&mut Upstream, SqlError> {
        let made = connect(server).await?;
        Ok(&mut self.0.insert(made).0)
    }

    /// Where a primary is; `None`: it is none, or does not tell.
    pub(super) async fn position(&mut self, server: &Server) -> Result<Option<Gtids>, SqlError> {
        let told = self.ask(server, Errand::Position).await?;
        let sample = super::sampled(&told, 0, told.since);
        Ok(sample.filter(|it| !it.replica).map(|it| it.position))
    }

    /// Gives the connection up.
    pub(super) fn close(&mut self) {
        self.0 = None;
    }

    fn keep(&mut self, server: &Server, upstream: Upstream, run: u64, tables: Vec<Table>) -> Told {
        server.options.health.note_bytes();
        server.note_version(&upstream.version);
        let (kind, since) = (upstream.server, upstream.born);
        self.0 = Some((upstream, run));
        Told {
            tables,
            kind,
            since,
            run,
        }
    }
}

/// Logs in as the one who asks Breccia's own questions; the run of the server that answered.
async fn connect(server: &Server) -> Result<(Upstream, u64), SqlError> {
    let login = server.own_login().ok_or_else(|| SqlError::Login {
        server: server.name().to_owned(),
        role: String::new(),
        what: "the store has neither `user` nor `monitor-user`, so its role and position cannot \
               be asked",
    })?;
    let endpoint = &server.options.endpoint;
    let mut upstream = endpoint.open(&login).await?;
    let question = run_question(upstream.server);
    let rows = endpoint.ask(&mut upstream, question).await?;
    let run = rows
        .first()
        .and_then(|row| row.first()?.as_deref()?.parse().ok());
    Ok((upstream, run.unwrap_or(0)))
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
