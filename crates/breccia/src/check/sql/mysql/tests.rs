//! What follows from the answers of MySQL and MariaDB servers, without a server.
//!
//! Not the questions. Invariant: each row changes one thing of a cluster that is good.

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
        "Last_SQL_Errno",
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
        offset: Some("00:00".to_owned()),
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
    let stopped = asked("b", 2, Some(("No", "1032")), READY);
    check(&[primary(), stopped], false, &[], &["error 1032"]);
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

/// A replica whose status has these cells.
fn following(using_gtid: &str, delay: &str, more: &str) -> Asked {
    let mut asked = asked("b", 2, Some(("Yes", "")), more);
    let columns = [
        "Master_Host",
        "Slave_SQL_Running",
        "Using_Gtid",
        "SQL_Delay",
    ];
    let cells = ["h", "Yes", using_gtid, delay].map(|cell| Some(cell.to_owned()));
    let table = Table {
        columns: columns.map(str::to_owned).to_vec(),
        rows: vec![cells.to_vec()],
    };
    if let Ok(facts) = &mut asked.facts {
        facts.report.sources = breccia_sql::mysql::cluster::report::sources(&table);
    }
    asked
}

#[test]
fn how_a_replica_follows_and_what_it_answers_by_are_looked_at() {
    let primary = |more: &str| asked("a", 1, None, &format!("{GOOD} {more}"));
    let of = |following: Asked, warnings: &[&str]| {
        let more = "sql_mode=ANSI time_zone=SYSTEM";
        check(&[primary(more), following], false, &[], warnings);
    };
    of(following("Slave_Pos", "0", READY), &[]);
    of(
        following("No", "0", READY),
        &["b: its replication from h: uses no GTIDs"],
    );
    of(
        following("Slave_Pos", "5", READY),
        &["5 s late on purpose (MASTER_DELAY), so it serves no reads that need"],
    );
    of(
        following("Slave_Pos", "11", READY),
        &["more than max-lag (10 s), so it serves no reads"],
    );
    let other = format!("{READY} sql_mode=ORACLE time_zone=SYSTEM");
    of(
        following("Slave_Pos", "0", &other),
        &["b: it differs from the primary a in sql_mode (\"ORACLE\", there \"ANSI\"), so"],
    );
    let mut elsewhere = following("Slave_Pos", "0", &format!("{READY} time_zone=SYSTEM"));
    elsewhere.facts = elsewhere.facts.map(|facts| Facts {
        offset: Some("09:00".to_owned()),
        version: "11.4.2-MariaDB".to_owned(),
        ..facts
    });
    of(
        elsewhere,
        &[
            "time_zone (\"SYSTEM, 09:00 from UTC\", there \"SYSTEM, 00:00 from UTC\"), version (\"MariaDB 11.4\", there \"MariaDB 10.11\")",
        ],
    );
}
