//! What `check --connect` finds out about the MySQL and MariaDB servers of a `sql-read-replica`.
//!
//! Not their watch: a gateway asks again and again, this once. Invariant: as in [`super`]: what is
//! asked here changes nothing, and each fault and each warning says what to do.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use breccia_config::{Plan, SqlPlan, SqlReadReplicaPlan, StorePlan, TransactionRouting};
use breccia_sql::SqlError;
use breccia_sql::freshness::Position as _;
use breccia_sql::mysql::cluster::report::{GALERA, Report, VARIABLES, replication};
use breccia_sql::mysql::upstream::{Endpoint, ServerKind, Table, Upstream};

use super::Findings;
use crate::registry;

/// What a server is asked beside what a gateway asks. One leaves out what it does not know.
const MORE: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('log_bin', 'log_slave_updates', \
    'log_replica_updates', 'gtid_mode', 'gtid_strict_mode', 'read_only', 'tx_isolation', \
    'transaction_isolation', 'wsrep_on')";

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
}

impl Facts {
    fn is_on(&self, name: &str) -> bool {
        matches!(self.more.get(name).map(String::as_str), Some("ON" | "1"))
    }

    fn is_off(&self, name: &str) -> bool {
        matches!(self.more.get(name).map(String::as_str), Some("OFF" | "0"))
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
    let report = Report::read(kind, &variables, &sources, Some(&galera));
    Ok(report.map(|report| Facts {
        kind,
        version,
        report,
        more: pairs(&more),
        sees_tables: !tables.rows.is_empty(),
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
                self.weigh_mysql_replica(server, facts);
            } else {
                self.weigh_mysql_primary(server, facts, composite);
            }
        }
        let silent = asked.iter().filter(|it| it.facts.is_err());
        let silent: Vec<&str> = silent.map(|it| it.name.as_str()).collect();
        self.weigh_mysql_roles(name, composite, &primaries, &silent, answered.len());
        self.weigh_numbers(name, &answered);
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

    fn weigh_mysql_replica(&mut self, name: &str, facts: &Facts) {
        if !facts.report.read_only {
            self.warnings.push(format!(
                "{name}: it is a replica, and read_only is OFF, so whoever connects to it directly \
                 can write there; SET GLOBAL read_only = ON, and write it into its file"
            ));
        }
        for source in &facts.report.sources {
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
    let name = match facts.kind {
        ServerKind::MariaDb => "MariaDB",
        ServerKind::MySql => "MySQL",
    };
    // MariaDB greets as 5.5.5 for old clients, and packages add words of their own.
    let version = facts.version.trim_start_matches("5.5.5-");
    let version = version.split('-').next().unwrap_or_default();
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
mod tests {
    use super::*;

    fn composite(lazy: bool) -> SqlReadReplicaPlan {
        let text = format!(
            "[store]\na = {{ type = \"mysql\", host = \"h\", user = \"u\" }}\n\
             b = {{ type = \"mysql\", host = \"i\", user = \"u\" }}\n\
             db = {{ type = \"sql-read-replica\", primary = \"a\", replicas = [\"b\"], \
             transactions = \"{}\" }}\n",
            if lazy { "lazy" } else { "primary" }
        );
        let parsed = breccia_config::parse(&text, "f", std::path::Path::new("/tmp"), &|_| None);
        let plan = parsed.expect("a plan").0;
        match plan.stores.get("db") {
            Some(StorePlan::SqlReadReplica(composite)) => composite.clone(),
            _ => panic!("a composite"),
        }
    }

    /// A server that says this: variables, and whom it follows.
    fn asked(name: &str, number: u32, source: Option<(&str, &str)>, more: &str) -> Asked {
        let row = |one: &str, other: &str| vec![Some(one.to_owned()), Some(other.to_owned())];
        let mut rows = vec![row("server_id", &number.to_string())];
        let pairs = more.split(' ').filter_map(|pair| pair.split_once('='));
        rows.extend(pairs.map(|(key, value)| row(key, value)));
        let variables = Table {
            columns: Vec::new(),
            rows,
        };
        let columns = [
            "Master_Host",
            "Master_Port",
            "Slave_SQL_Running",
            "Last_SQL_Error",
        ];
        let sources = Table {
            columns: columns.map(str::to_owned).to_vec(),
            rows: source
                .map(|(applies, trouble)| {
                    let cells = ["h", "3306", applies, trouble];
                    cells.map(|cell| Some(cell.to_owned())).to_vec()
                })
                .into_iter()
                .collect(),
        };
        let kind = ServerKind::MariaDb;
        let report = Report::read(kind, &variables, &sources, None).expect("a report");
        let facts = Facts {
            kind,
            version: "5.5.5-10.11.6-MariaDB".to_owned(),
            report,
            more: super::pairs(&variables),
            sees_tables: true,
        };
        Asked {
            name: name.to_owned(),
            place: format!("{name}:3306"),
            facts: Ok(facts),
        }
    }

    const GOOD: &str = "log_bin=ON log_slave_updates=ON gtid_strict_mode=ON";
    const READY: &str = "log_bin=ON log_slave_updates=ON gtid_strict_mode=ON read_only=ON";

    fn check(servers: &[Asked], lazy: bool, faults: &[&str], warnings: &[&str]) {
        let mut findings = Findings::default();
        findings.weigh_mysql("db", &composite(lazy), servers);
        let all_of = |found: &[String], wanted: &[&str]| {
            assert_eq!(found.len(), wanted.len(), "{found:?}");
            for part in wanted {
                assert!(
                    found.iter().any(|it| it.contains(part)),
                    "{part}: {found:?}"
                );
            }
        };
        all_of(&findings.faults, faults);
        all_of(&findings.warnings, warnings);
    }

    #[test]
    fn what_would_not_work_is_a_fault_and_says_what_to_do() {
        let primary = || asked("a", 1, None, GOOD);
        let replica = || asked("b", 2, Some(("Yes", "")), READY);
        check(&[primary(), replica()], false, &[], &[]);
        check(
            &[primary(), asked("b", 1, Some(("Yes", "")), READY)],
            false,
            &["server_id = 1"],
            &[],
        );
        check(
            &[primary(), asked("b", 2, None, GOOD)],
            false,
            &["a and b follow no other server"],
            &[],
        );
        check(&[replica()], false, &["nothing can be written"], &[]);
        check(
            &[asked("a", 1, None, "log_bin=OFF read_only=ON"), replica()],
            false,
            &["log_bin is OFF", "read_only is ON"],
            &[],
        );
    }

    #[test]
    fn what_works_but_may_surprise_is_a_warning() {
        let primary = || asked("a", 1, None, GOOD);
        let writable = asked("b", 2, Some(("Yes", "")), GOOD);
        check(&[primary(), writable], false, &[], &["read_only is OFF"]);
        let stopped = asked("b", 2, Some(("No", "no such row")), READY);
        check(&[primary(), stopped], false, &[], &["no such row)"]);
        let bare = "read_only=ON gtid_strict_mode=OFF log_bin=OFF";
        let bare = asked("b", 2, Some(("Yes", "")), bare);
        check(
            &[primary(), bare],
            false,
            &[],
            &["gtid_strict_mode", "no binary log"],
        );
        let repeatable = format!("{GOOD} tx_isolation=REPEATABLE-READ");
        let servers = || {
            let replica = asked("b", 2, Some(("Yes", "")), READY);
            [asked("a", 1, None, &repeatable), replica]
        };
        check(&servers(), true, &[], &["only under READ COMMITTED"]);
        check(&servers(), false, &[], &[]);
        let swapped = [
            asked("a", 1, Some(("Yes", "")), READY),
            asked("b", 2, None, GOOD),
        ];
        check(&swapped, false, &[], &["write primary = \"b\""]);
        let mut blind = primary();
        blind.facts = blind.facts.map(|facts| Facts {
            sees_tables: false,
            ..facts
        });
        let ready = asked("b", 2, Some(("Yes", "")), READY);
        check(&[blind, ready], false, &[], &["GRANT SELECT"]);
        let mut lost = asked("b", 2, None, GOOD);
        lost.facts = Err("connection refused".to_owned());
        let without = [asked("a", 1, Some(("Yes", "")), READY), lost];
        check(&without, false, &["start b, or promote one"], &[]);
    }
}
