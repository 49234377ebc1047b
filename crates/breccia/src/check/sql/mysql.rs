//! What `check --connect` finds out about the MySQL and MariaDB servers of a `sql-read-replica`.
//!
//! Not their watch: a gateway asks again and again, this once. Invariant: as in [`super`]: what is
//! asked here changes nothing, and each fault and each warning says what to do.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use breccia_config::{Plan, SqlPlan, SqlReadReplicaPlan, StorePlan, TransactionRouting};
use breccia_sql::SqlError;
use breccia_sql::freshness::Position as _;
use breccia_sql::mysql::cluster::report::{GALERA, Report, Source, VARIABLES, replication};
use breccia_sql::mysql::upstream::{Endpoint, ServerKind, Table, Upstream};

use super::Findings;
use super::alike::Settings;
use crate::registry;

/// What a server is asked beside what a gateway asks. One leaves out what it does not know.
const MORE: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('log_bin', 'log_slave_updates', \
    'log_replica_updates', 'gtid_mode', 'gtid_strict_mode', 'read_only', 'tx_isolation', \
    'transaction_isolation', 'wsrep_on', 'max_connections', 'sql_mode', 'character_set_server', \
    'collation_server', 'time_zone', 'lower_case_table_names', 'div_precision_increment', \
    'group_concat_max_len', 'default_week_format', 'lc_time_names')";

/// Those of them that change what a read answers.
const ANSWERED_BY: [&str; 9] = [
    "sql_mode",
    "character_set_server",
    "collation_server",
    "time_zone",
    "lower_case_table_names",
    "div_precision_increment",
    "group_concat_max_len",
    "default_week_format",
    "lc_time_names",
];

/// How far the time that a server tells is from UTC now.
const OFFSET: &str = "SELECT TIME_FORMAT(TIMEDIFF(NOW(), UTC_TIMESTAMP()), '%H:%i')";

/// A table of clients, as far as whoever asks sees one.
const ANY_TABLE: &str = "SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA NOT IN \
    ('information_schema', 'performance_schema', 'mysql', 'sys') LIMIT 1";

/// What a server says of itself.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) kind: ServerKind,
    pub(super) version: String,
    pub(super) report: Report,
    /// Further variables, by their names.
    pub(super) more: HashMap<String, String>,
    /// Whether whoever asked sees any table of clients.
    pub(super) sees_tables: bool,
    /// How far its time is from UTC.
    pub(super) offset: Option<String>,
}

impl Facts {
    fn is_on(&self, name: &str) -> bool {
        matches!(self.more.get(name).map(String::as_str), Some("ON" | "1"))
    }

    fn is_off(&self, name: &str) -> bool {
        matches!(self.more.get(name).map(String::as_str), Some("OFF" | "0"))
    }

    /// The number of a variable.
    pub(super) fn number(&self, name: &str) -> Option<usize> {
        self.more.get(name)?.parse().ok()
    }

    /// What it answers reads by.
    fn settings(&self) -> Settings {
        let known = |name: &&str| Some(((*name).to_owned(), self.more.get(*name)?.clone()));
        let mut settings: Settings = ANSWERED_BY.iter().filter_map(known).collect();
        // Which zone SYSTEM is each server's machine says; its name changes with the season.
        if let (Some(zone), Some(offset)) = (settings.get_mut("time_zone"), &self.offset)
            && zone == "SYSTEM"
        {
            *zone = format!("SYSTEM, {offset} from UTC");
        }
        let (name, version) = (self.name(), self.short_version());
        let release: Vec<&str> = version.split('.').take(2).collect();
        settings.insert(
            "version".to_owned(),
            format!("{name} {}", release.join(".")),
        );
        settings
    }

    fn name(&self) -> &'static str {
        match self.kind {
            ServerKind::MariaDb => "MariaDB",
            ServerKind::MySql => "MySQL",
        }
    }

    /// MariaDB greets as 5.5.5 for old clients, and packages add words of their own.
    fn short_version(&self) -> &str {
        let version = self.version.trim_start_matches("5.5.5-");
        version.split('-').next().unwrap_or_default()
    }

    /// Whether it writes a binary log of what it applies, too, as a primary of others must have done.
    fn logs_updates(&self) -> bool {
        self.is_on("log_slave_updates") || self.is_on("log_replica_updates")
    }
}

/// One server of a composite, as it was asked.
pub(super) struct Asked {
    pub(super) name: String,
    pub(super) place: String,
    pub(super) facts: Result<Facts, String>,
}

/// Asks every server of a composite.
pub(super) async fn ask_all(plan: &Plan, composite: &str, limit: Duration) -> Vec<Asked> {
    let mut tasks = tokio::task::JoinSet::new();
    for (number, (name, store)) in plan.leaves(composite).into_iter().enumerate() {
        let StorePlan::Mysql(server) = store else {
            continue;
        };
        let (name, server) = (name.to_owned(), server.clone());
        tasks.spawn(async move {
            let asking = tokio::time::timeout(limit, ask(&name, &server));
            let facts = asking.await.unwrap_or_else(|_| {
                Err(format!("it does not answer within {} s", limit.as_secs()))
            });
            let place = server.address.to_string();
            (number, Asked { name, place, facts })
        });
    }
    let asked: BTreeMap<usize, Asked> = tasks.join_all().await.into_iter().collect();
    asked.into_values().collect()
}

async fn ask(name: &str, server: &SqlPlan) -> Result<Facts, String> {
    let (endpoint, own) = registry::mysql_endpoint(name, server)
        .map_err(|trouble| trouble.into_lines().join("; "))?;
    let (user, credential) = own.ok_or_else(|| {
        format!(
            "store.{name} has neither `user` nor `monitor-user`, so its role and position cannot \
             be asked, and nobody is served by it; add one"
        )
    })?;
    let login = registry::mysql_login(&user, credential);
    let opened = endpoint.open(&login).await;
    let mut upstream = opened.map_err(|error| error.without_server())?;
    questions(&endpoint, &mut upstream)
        .await
        .map_err(|error| complaint(&error, &upstream, &user))?
        .ok_or_else(|| "it does not say what it is; is it a MySQL or MariaDB server?".to_owned())
}

async fn questions(
    endpoint: &Endpoint,
    upstream: &mut Upstream,
) -> Result<Option<Facts>, SqlError> {
    let (kind, version) = (upstream.server, upstream.version.clone());
    let variables = endpoint.table(upstream, VARIABLES).await?;
    let sources = endpoint
        .table(upstream, replication(kind, &version))
        .await?;
    let galera = endpoint.table(upstream, GALERA).await?;
    let more = endpoint.table(upstream, MORE).await?;
    let tables = endpoint.table(upstream, ANY_TABLE).await?;
    let offset = endpoint.table(upstream, OFFSET).await?;
    let report = Report::read(kind, &variables, &sources, Some(&galera));
    Ok(report.map(|report| Facts {
        kind,
        version,
        report,
        more: pairs(&more),
        sees_tables: !tables.rows.is_empty(),
        offset: offset.rows.into_iter().flatten().next().flatten(),
    }))
}

fn pairs(table: &Table) -> HashMap<String, String> {
    let pair = |row: &Vec<Option<String>>| match row.as_slice() {
        [Some(name), Some(value)] => Some((name.to_ascii_lowercase(), value.clone())),
        _ => None,
    };
    table.rows.iter().filter_map(pair).collect()
}

/// Why a question was not answered; of a missing privilege, which one.
fn complaint(error: &SqlError, upstream: &Upstream, user: &str) -> String {
    let denied = matches!(error, SqlError::Question { sqlstate, .. } if sqlstate == "42000");
    if !denied {
        return error.to_string();
    }
    let privilege = match upstream.server {
        ServerKind::MariaDb => "SLAVE MONITOR",
        ServerKind::MySql => "REPLICATION CLIENT",
    };
    format!("{error}; on the primary: GRANT {privilege} ON *.* TO '{user}'@'%'")
}

impl Findings {
    /// Judges the servers of a composite.
    pub(super) fn weigh_mysql(
        &mut self,
        name: &str,
        composite: &SqlReadReplicaPlan,
        asked: &[Asked],
    ) {
        let facts = |it: &'_ Asked| Some((it.name.clone(), it.facts.clone().ok()?));
        let answered: Vec<(String, Facts)> = asked.iter().filter_map(facts).collect();
        let is_primary = |it: &&(String, Facts)| !it.1.report.is_replica();
        let primaries: Vec<_> = answered.iter().filter(is_primary).collect();
        let first = primaries.first().map(|(_, facts)| facts);
        for one in asked {
            let line = match &one.facts {
                Ok(facts) => Ok(format!("{} answers ({})", one.place, said(facts, first))),
                Err(why) => Err(format!("{} cannot be used ({why})", one.place)),
            };
            self.lines.insert(one.name.clone(), line);
        }
        for (server, facts) in &answered {
            if facts.report.is_replica() {
                self.weigh_mysql_replica(server, facts, composite);
            } else {
                self.weigh_mysql_primary(server, facts, composite);
            }
        }
        let silent = asked.iter().filter(|it| it.facts.is_err());
        let silent: Vec<&str> = silent.map(|it| it.name.as_str()).collect();
        self.weigh_mysql_roles(name, composite, &primaries, &silent, answered.len());
        self.weigh_numbers(name, &answered);
        if let Some((primary, known)) = primaries.first() {
            let there = known.settings();
            for (server, facts) in answered.iter().filter(|(server, _)| server != primary) {
                self.weigh_alike((primary, &there), (server, &facts.settings()));
            }
        }
        let lazy = composite.transactions == TransactionRouting::Lazy;
        if let (true, Some(facts)) = (lazy, first) {
            self.weigh_isolation(name, facts);
        }
    }

    fn weigh_mysql_roles(
        &mut self,
        name: &str,
        composite: &SqlReadReplicaPlan,
        primaries: &[&(String, Facts)],
        silent: &[&str],
        answered: usize,
    ) {
        // Every member of a Galera cluster takes writes.
        let is_galera = primaries.iter().all(|(_, it)| it.report.galera.is_some());
        match primaries {
            [] if answered == 0 => {}
            [] => {
                let promote =
                    "promote one (STOP SLAVE, RESET SLAVE ALL, SET GLOBAL read_only = OFF)";
                let mend = if silent.is_empty() {
                    promote.to_owned()
                } else {
                    format!("start {}, or {promote}", silent.join(" or "))
                };
                self.faults.push(format!(
                    "{name}: every server that answers is a replica, so nothing can be written; \
                     {mend}"
                ));
            }
            [(primary, _)] if *primary != composite.primary => self.warnings.push(format!(
                "{name}: {primary} is the primary, and store.{name}.primary names {}, which is \
                 not; the gateway follows the servers, but write primary = \"{primary}\"",
                composite.primary
            )),
            [_, _, ..] if !is_galera => {
                let names: Vec<&str> = primaries.iter().map(|(name, _)| name.as_str()).collect();
                self.faults.push(format!(
                    "{name}: {} follow no other server, so all claim to be the primary, and writes \
                     would be refused; make all but one replicas (CHANGE MASTER TO), or stop them",
                    names.join(" and ")
                ));
            }
            _ => {}
        }
    }

    fn weigh_mysql_primary(&mut self, name: &str, facts: &Facts, composite: &SqlReadReplicaPlan) {
        if facts.report.read_only {
            self.faults.push(format!(
                "{name}: it is the primary, and read_only is ON, so writes fail; SET GLOBAL \
                 read_only = OFF there"
            ));
        }
        if composite.replicas.is_empty() {
            return;
        }
        if !facts.sees_tables {
            self.warnings.push(format!(
                "{name}: who it is asked as sees no table of clients there, so nothing is known to \
                 only read, and all goes to the primary; if there are tables, GRANT SELECT, SHOW \
                 VIEW on their schemas to its `monitor-user`, or else its `user`"
            ));
        }
        if facts.is_off("log_bin") {
            self.faults.push(format!(
                "{name}: log_bin is OFF, so no replica can follow it, and no write has a GTID; set \
                 log_bin and restart the server"
            ));
        }
        if facts.kind == ServerKind::MySql && !facts.is_on("gtid_mode") {
            self.faults.push(format!(
                "{name}: gtid_mode is not ON, so nobody can tell what a replica has applied, and \
                 none serves reads; set gtid_mode = ON and enforce_gtid_consistency = ON"
            ));
        }
    }

    fn weigh_mysql_replica(&mut self, name: &str, facts: &Facts, composite: &SqlReadReplicaPlan) {
        if !facts.report.read_only {
            self.warnings.push(format!(
                "{name}: it is a replica, and read_only is OFF, so whoever connects to it directly \
                 can write there; SET GLOBAL read_only = ON, and write it into its file"
            ));
        }
        for source in &facts.report.sources {
            self.weigh_source(name, source, composite);
            if !source.trouble.is_empty() {
                let why = &source.trouble;
                self.warnings.push(format!(
                    "{name}: its replication from {} stands still ({why}), so it falls behind; \
                     look at SHOW ALL SLAVES STATUS or SHOW REPLICA STATUS there",
                    source.address
                ));
            }
        }
        if facts.is_off("log_bin") || !facts.logs_updates() {
            self.warnings.push(format!(
                "{name}: it keeps no binary log of what it applies, so after a promotion nobody \
                 could follow it; set log_bin and log_slave_updates (log_replica_updates)"
            ));
        }
        if facts.kind == ServerKind::MariaDb && facts.is_off("gtid_strict_mode") {
            self.warnings.push(format!(
                "{name}: gtid_strict_mode is OFF, so a write that strays to it breaks the order of \
                 GTIDs unseen; SET GLOBAL gtid_strict_mode = ON"
            ));
        }
    }

    /// How a replica gets and applies what its source has.
    fn weigh_source(&mut self, name: &str, source: &Source, composite: &SqlReadReplicaPlan) {
        if !source.by_gtids {
            self.warnings.push(format!(
                "{name}: its replication from {} uses no GTIDs (Using_Gtid = No), so it does not \
                 tell what it has received, and serves no reads; nor can it follow another server after \
                 a promotion; STOP SLAVE, CHANGE MASTER TO \
                 MASTER_USE_GTID = slave_pos, and START SLAVE there",
                source.address
            ));
        }
        let (delay, most) = (source.delay_seconds, composite.max_lag.as_secs());
        if delay > 0 {
            let what = if delay > most {
                format!("more than max-lag ({most} s), so it serves no reads")
            } else {
                "so it serves no reads that need to be fresh".to_owned()
            };
            self.warnings.push(format!(
                "{name}: it applies what it receives from {} {delay} s late on purpose \
                 (MASTER_DELAY), {what}; set MASTER_DELAY = 0 (SOURCE_DELAY), or take it out of \
                 `replicas`",
                source.address
            ));
        }
    }

    /// Servers that others cannot tell apart.
    fn weigh_numbers(&mut self, name: &str, answered: &[(String, Facts)]) {
        let mut taken: BTreeMap<u32, &str> = BTreeMap::new();
        for (server, facts) in answered {
            // The members of a Galera cluster may share one.
            if facts.report.galera.is_some() {
                continue;
            }
            let number = facts.report.server_id;
            if let Some(other) = taken.insert(number, server) {
                self.faults.push(format!(
                    "{name}: {other} and {server} both have server_id = {number}, so their GTIDs \
                     cannot be told apart; give each a number of its own"
                ));
            }
        }
    }

    fn weigh_isolation(&mut self, name: &str, facts: &Facts) {
        let names = ["transaction_isolation", "tx_isolation"];
        let level = names.iter().find_map(|it| facts.more.get(*it));
        if let Some(level) = level.filter(|level| *level != "READ-COMMITTED") {
            self.warnings.push(format!(
                "{name}: transactions = \"lazy\" acts only under READ COMMITTED, and the servers' \
                 default is {level}; it does nothing but for sessions that set READ COMMITTED, or \
                 set transaction_isolation = READ-COMMITTED on the servers"
            ));
        }
    }
}

/// What a server is, for its line.
fn said(facts: &Facts, primary: Option<&Facts>) -> String {
    let (name, version) = (facts.name(), facts.short_version());
    let report = &facts.report;
    let behind = match primary {
        _ if !report.is_replica() => "",
        Some(primary) if report.position.covers(&primary.report.position) => ", not behind",
        Some(_) => ", behind its primary",
        None => ", lag unknown without its primary",
    };
    let role = match (&report.galera, report.is_replica()) {
        (Some(galera), _) if galera.ready => "Galera member",
        (Some(_), _) => "Galera member that is not ready",
        (None, true) => "replica",
        (None, false) => "primary",
    };
    format!(
        "{name} {version}, {role}, server_id {}{behind}",
        report.server_id
    )
}

#[cfg(test)]
mod tests;
