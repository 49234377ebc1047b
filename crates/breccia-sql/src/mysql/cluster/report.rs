//! What a MySQL or MariaDB server says of itself, read from its answers.
//!
//! Pure; not what follows from it ([`super::election`]). Invariant: a column that is missing, or that
//! cannot be read, never makes a server look further than it is.

use std::collections::HashMap;

use crate::freshness::Position as _;
use crate::heard;
use crate::mysql::gtid::Gtids;
use crate::mysql::upstream::{ServerKind, Table};

/// An answer, and whose it is.
pub type Answer = heard::Answer<Report>;
/// What a server was last heard to say.
pub type Heard = heard::Heard<Report>;

/// The variables that [`Report::read`] looks at; a server leaves out those it does not know.
pub const VARIABLES: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('server_id', \
    'server_uuid', 'server_uid', 'read_only', 'super_read_only', 'log_bin', 'gtid_mode', \
    'gtid_binlog_pos', 'gtid_slave_pos', 'gtid_executed', 'wsrep_on')";

/// What a Galera member says of its part in the cluster. Other servers tell nothing, or that it is off.
pub const GALERA: &str = "SHOW GLOBAL STATUS WHERE Variable_name IN ('wsrep_ready', \
    'wsrep_cluster_state_uuid')";

/// Where a replica gets its transactions from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Source {
    /// `host:port`, as it is configured.
    pub address: String,
    /// The source's `server_id`; 0 before it was first connected to.
    pub server_id: u32,
    /// Whether the thread that applies transactions runs.
    pub applies: bool,
    /// What the two threads complain of; empty: nothing.
    pub trouble: String,
    /// What was received, whether applied or not.
    pub received: Gtids,
    /// Whether it asks its source by GTIDs. One of MariaDB that does not tells nothing of what it has
    /// received; MySQL's counts them either way.
    pub by_gtids: bool,
    /// How late it applies what it receives, on purpose.
    pub delay_seconds: u64,
}

/// A Galera cluster, and whether the server takes part in it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Galera {
    /// The cluster's identity.
    pub cluster: String,
    /// Whether it takes statements: `wsrep_ready`.
    pub ready: bool,
}

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Where it replicates from; empty: from nobody.
    pub sources: Vec<Source>,
    /// Whether it refuses the writes of clients.
    pub read_only: bool,
    /// Where it is: written to its binary log, or applied from its source's.
    pub position: Gtids,
    /// Its number in the replication.
    pub server_id: u32,
    /// `@@server_uuid` or `@@server_uid`; empty where it has none.
    pub identity: String,
    /// Its Galera cluster, if it is a member of one.
    pub galera: Option<Galera>,
}

impl Report {
    /// Whether it follows another server. Replication that is configured counts whatever `read_only`
    /// says, and be it stopped.
    #[must_use]
    pub fn is_replica(&self) -> bool {
        !self.sources.is_empty()
    }

    /// What an administrator should mend, though it hinders nothing yet.
    #[must_use]
    pub fn advice(&self) -> Vec<String> {
        let mut advice = Vec::new();
        if self.is_replica() && !self.read_only {
            advice.push(
                "it is a replica and read_only is OFF: a client that reaches it past Breccia can \
                 write there, and what it writes breaks replication; set read_only = ON"
                    .to_owned(),
            );
        }
        if !self.is_replica() && self.position == Gtids::Beyond {
            advice.push(
                "it tells no position, so replicas of it serve no reads: it needs log_bin, and of \
                 MySQL gtid_mode = ON"
                    .to_owned(),
            );
        }
        for source in self.sources.iter().filter(|it| !it.trouble.is_empty()) {
            advice.push(format!(
                "it replicates from {}: {}",
                source.address, source.trouble
            ));
        }
        advice
    }

    /// Reads the answers to [`VARIABLES`], to [`replication`] and, of a Galera member, to [`GALERA`].
    /// `None`: they are not such answers.
    #[must_use]
    pub fn read(
        kind: ServerKind,
        variables: &Table,
        replication: &Table,
        galera: Option<&Table>,
    ) -> Option<Self> {
        let variables = pairs(variables);
        let get = |name: &str| variables.get(name).map(String::as_str);
        let is_on = |name: &str| get(name).is_some_and(|it| !matches!(it, "OFF" | "0" | ""));
        let sources = sources(replication);
        let position = position(kind, &get, !sources.is_empty());
        let galera = galera.filter(|_| is_on("wsrep_on")).map(|table| {
            let status = pairs(table);
            let get = |name: &str| status.get(name).cloned().unwrap_or_default();
            Galera {
                cluster: get("wsrep_cluster_state_uuid"),
                ready: get("wsrep_ready") == "ON",
            }
        });
        let identity = get("server_uuid").or_else(|| get("server_uid"));
        Some(Self {
            sources,
            read_only: is_on("read_only") || is_on("super_read_only"),
            position,
            server_id: get("server_id")?.parse().ok()?,
            identity: identity.unwrap_or_default().to_owned(),
            galera,
        })
    }

    /// What a read there can have seen at most: what is received may show before it counts as applied.
    #[must_use]
    pub fn seen(&self) -> Gtids {
        let mut seen = self.position.clone();
        for source in &self.sources {
            seen.raise(&source.received);
        }
        seen
    }
}

/// What tells how a server of this version replicates. It needs the privilege SLAVE MONITOR
/// (MariaDB; REPLICA MONITOR is the same), or REPLICATION CLIENT (MySQL).
#[must_use]
pub fn replication(kind: ServerKind, version: &str) -> &'static str {
    match kind {
        ServerKind::MariaDb => "SHOW ALL SLAVES STATUS",
        ServerKind::MySql if numbers(version) >= [8, 0, 22] => "SHOW REPLICA STATUS",
        ServerKind::MySql => "SHOW SLAVE STATUS",
    }
}

/// The first three numbers of a version.
fn numbers(version: &str) -> [u32; 3] {
    let mut parts = version.split(|it: char| !it.is_ascii_digit());
    [(); 3].map(|()| parts.next().and_then(|it| it.parse().ok()).unwrap_or(0))
}

/// Where a server is. A primary whose position cannot be told stands beyond what any replica has; a
/// replica's that cannot be told is at the beginning.
fn position<'a>(kind: ServerKind, get: &impl Fn(&str) -> Option<&'a str>, replica: bool) -> Gtids {
    let read = |name: &str| get(name).and_then(|text| text.parse::<Gtids>().ok());
    let is_on = |name: &str| matches!(get(name), Some("ON" | "1"));
    match (kind, replica) {
        (ServerKind::MariaDb, true) => read("gtid_slave_pos").unwrap_or_default(),
        (ServerKind::MariaDb, false) if is_on("log_bin") => {
            primary_position(read("gtid_binlog_pos"), read("gtid_slave_pos"))
        }
        (ServerKind::MySql, true) => read("gtid_executed").unwrap_or_default(),
        (ServerKind::MySql, false) if is_on("log_bin") && is_on("gtid_mode") => {
            read("gtid_executed").unwrap_or(Gtids::Beyond)
        }
        _ => Gtids::Beyond,
    }
}

/// Where a MariaDB primary is: what it wrote to its own binary log, and, if it was a replica once and
/// did not log what it applied then, what that was.
#[must_use]
pub fn primary_position(binlog: Option<Gtids>, applied: Option<Gtids>) -> Gtids {
    match (binlog, applied) {
        (Some(mut binlog), Some(applied)) => {
            binlog.raise(&applied);
            binlog
        }
        _ => Gtids::Beyond,
    }
}

fn pairs(table: &Table) -> HashMap<String, String> {
    let pair = |row: &Vec<Option<String>>| match row.as_slice() {
        [Some(name), value] => Some((name.to_ascii_lowercase(), value.clone()?)),
        _ => None,
    };
    table.rows.iter().filter_map(pair).collect()
}

/// Reads the answer to [`replication`]: a row for each source that is configured.
#[must_use]
pub fn sources(table: &Table) -> Vec<Source> {
    let rows = table.rows.iter();
    rows.filter_map(|row| {
        let get = |names: &[&str]| {
            let is_it = |column: &String| names.iter().any(|it| column.eq_ignore_ascii_case(it));
            let at = table.columns.iter().position(is_it)?;
            row.get(at)?.as_deref()
        };
        source(&get)
    })
    .collect()
}

fn source<'a>(get: &impl Fn(&[&str]) -> Option<&'a str>) -> Option<Source> {
    let host = get(&["Master_Host", "Source_Host"]).filter(|host| !host.is_empty())?;
    let port = get(&["Master_Port", "Source_Port"]).unwrap_or_default();
    let number = get(&["Master_Server_Id", "Source_Server_Id"]);
    let received = get(&["Gtid_IO_Pos", "Retrieved_Gtid_Set"]);
    // The words of the first hold the statement that failed, and others than administrators read this.
    let failed = get(&["Last_SQL_Errno"]).filter(|number| !matches!(*number, "" | "0"));
    let failed = failed.map(|number| {
        format!(
            "it failed to apply a transaction (error {number}; SHOW REPLICA STATUS there tells it)"
        )
    });
    let mut trouble: Vec<&str> = failed
        .as_deref()
        .into_iter()
        .chain(get(&["Last_IO_Error"]).filter(|text| !text.is_empty()))
        .collect();
    let applies = get(&["Slave_SQL_Running", "Replica_SQL_Running"]) == Some("Yes");
    if !applies {
        trouble.insert(0, "its SQL thread is stopped");
    }
    if get(&["Slave_IO_Running", "Replica_IO_Running"]) == Some("No") {
        trouble.insert(0, "its IO thread is stopped");
    }
    Some(Source {
        address: format!("{host}:{port}"),
        server_id: number.and_then(|it| it.parse().ok()).unwrap_or(0),
        applies,
        trouble: trouble.join("; "),
        received: received.and_then(|it| it.parse().ok()).unwrap_or_default(),
        by_gtids: get(&["Using_Gtid"]) != Some("No"),
        delay_seconds: get(&["SQL_Delay"])
            .and_then(|it| it.parse().ok())
            .unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(columns: &[&str], rows: &[&[&str]]) -> Table {
        let cells = |row: &&[&str]| row.iter().map(|it| Some((*it).to_owned())).collect();
        Table {
            columns: columns.iter().map(|it| (*it).to_owned()).collect(),
            rows: rows.iter().map(cells).collect(),
        }
    }

    const NAMES: [&str; 2] = ["Variable_name", "Value"];

    #[test]
    fn a_mariadb_primary_stands_where_its_binary_log_ends() {
        let check = |log_bin: &str, binlog: &str, applied: &str, expected: &str| {
            let variables = table(
                &NAMES,
                &[
                    &["gtid_binlog_pos", binlog],
                    &["gtid_slave_pos", applied],
                    &["log_bin", log_bin],
                    &["read_only", "OFF"],
                    &["server_id", "7"],
                    &["server_uid", "abc="],
                    &["wsrep_on", "OFF"],
                ],
            );
            let report = Report::read(ServerKind::MariaDb, &variables, &Table::default(), None);
            let report = report.expect("a report");
            assert!(!report.is_replica() && !report.read_only && report.galera.is_none());
            assert_eq!((report.server_id, report.identity.as_str()), (7, "abc="));
            assert_eq!(report.position.token(), expected);
        };
        check("ON", "0-7-5", "", "mariadb:0-7-5");
        check("ON", "", "0-1-4", "mariadb:0-1-4");
        check("ON", "0-7-5", "0-1-4,3-1-1", "mariadb:0-7-5,3-1-1");
        check("OFF", "", "", "beyond:");
        check("ON", "what?", "", "beyond:");
    }

    #[test]
    fn configured_replication_makes_a_replica_of_a_writable_server() {
        let variables = table(
            &NAMES,
            &[
                &["gtid_binlog_pos", "0-9-99"],
                &["gtid_slave_pos", "0-1-4"],
                &["read_only", "OFF"],
                &["server_id", "2"],
            ],
        );
        let columns = [
            "Connection_name",
            "Master_Host",
            "Master_Port",
            "Slave_IO_Running",
            "Slave_SQL_Running",
            "Last_SQL_Errno",
            "Master_Server_Id",
            "Gtid_IO_Pos",
            "Using_Gtid",
            "SQL_Delay",
        ];
        let row = [
            "", "10.0.0.1", "3306", "Yes", "No", "1062", "1", "0-1-9", "No", "3600",
        ];
        let replication = table(&columns, &[&row]);
        let report = Report::read(ServerKind::MariaDb, &variables, &replication, None);
        let report = report.expect("a report");
        assert_eq!(
            report.position.to_string(),
            "0-1-4",
            "its own log is not the source's"
        );
        assert_eq!(report.seen().to_string(), "0-1-9");
        let source = report.sources.first().expect("a source");
        assert_eq!(
            (source.address.as_str(), source.server_id),
            ("10.0.0.1:3306", 1)
        );
        assert_eq!((source.by_gtids, source.delay_seconds), (false, 3600));
        assert_eq!(
            source.trouble,
            "its SQL thread is stopped; it failed to apply a transaction (error 1062; SHOW REPLICA \
             STATUS there tells it)"
        );
        let advice = report.advice().join("\n");
        assert!(advice.contains("read_only is OFF") && advice.contains("1062"));
        let reset = table(
            &columns,
            &[&["", "", "0", "No", "No", "", "0", "", "No", "0"]],
        );
        assert!(sources(&reset).is_empty());
    }

    /// As MySQL's manual has these names; no such server was asked.
    #[test]
    fn a_mysql_server_tells_the_same_in_other_words() {
        let uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        let executed = format!("{uuid}:1-5");
        let variables = table(
            &NAMES,
            &[
                &["gtid_executed", &executed],
                &["gtid_mode", "ON"],
                &["log_bin", "ON"],
                &["read_only", "ON"],
                &["server_id", "2"],
                &["server_uuid", uuid],
                &["super_read_only", "ON"],
            ],
        );
        let columns = [
            "Source_Host",
            "Source_Port",
            "Replica_IO_Running",
            "Replica_SQL_Running",
            "Source_Server_Id",
            "Retrieved_Gtid_Set",
        ];
        let received = format!("{uuid}:6");
        let replication = table(&columns, &[&["db1", "3306", "Yes", "Yes", "1", &received]]);
        let report = Report::read(ServerKind::MySql, &variables, &replication, None);
        let report = report.expect("a report");
        assert!(report.is_replica() && report.read_only);
        assert_eq!(report.seen().to_string(), format!("{uuid}:1-6"));
        let alone = Report::read(ServerKind::MySql, &variables, &Table::default(), None);
        assert_eq!(alone.expect("a report").position.to_string(), executed);
        let check = |version, expected| {
            assert_eq!(replication_of(version), expected, "{version}");
        };
        check("8.0.21", "SHOW SLAVE STATUS");
        check("8.0.22-debug", "SHOW REPLICA STATUS");
        check("8.4.3", "SHOW REPLICA STATUS");
        check("5.7.44-log", "SHOW SLAVE STATUS");
    }

    fn replication_of(version: &str) -> &'static str {
        super::replication(ServerKind::MySql, version)
    }
}
