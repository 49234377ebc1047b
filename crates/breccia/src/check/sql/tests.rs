//! What follows from the servers' answers, without a server.
//!
//! Not the questions. Invariant: each row changes one thing of a cluster that is good.

use breccia_config::{Consistency, TransactionRouting};

use super::*;

fn facts(recovery: bool) -> Facts {
    Facts {
        recovery,
        timeline: Some(1),
        system: 7,
        position: Lsn(if recovery { 90 } else { 100 }),
        version: "15.18".to_owned(),
        sees_all: true,
        receives: recovery.then(|| "streaming".to_owned()),
        hot_standby: true,
        wal_level: "replica".to_owned(),
        read_only: false,
        synchronous_commit: "on".to_owned(),
        replay_paused: false,
        delay: None,
        connections: 97,
        settings: Settings::from([("TimeZone".to_owned(), "UTC".to_owned())]),
    }
}

fn weighed(change: impl FnOnce(&mut Facts, &mut Facts)) -> Findings {
    let (mut a, mut b) = (facts(false), facts(true));
    change(&mut a, &mut b);
    weighed_all(vec![("a", a), ("b", b)])
}

fn weighed_all(servers: Vec<(&str, Facts)>) -> Findings {
    let composite = SqlReadReplicaPlan {
        primary: "a".to_owned(),
        replicas: vec!["b".to_owned()],
        consistency: Consistency::Session,
        transactions: TransactionRouting::Primary,
        max_lag: Duration::from_secs(10),
        replica_wait: Duration::from_millis(50),
        read_functions: Vec::new(),
    };
    let asked = |(name, facts): (&str, Facts)| Asked {
        name: name.to_owned(),
        place: "127.0.0.1:5432".to_owned(),
        role: "breccia".to_owned(),
        facts: Ok(facts),
    };
    let mut findings = Findings::default();
    let asked: Vec<_> = servers.into_iter().map(asked).collect();
    findings.weigh("db", &composite, &asked);
    findings
}

#[test]
fn a_good_cluster_has_a_line_for_each_server() {
    let found = weighed(|_, _| {});
    assert_eq!(
        (found.faults.len(), found.warnings.len()),
        (0, 0),
        "{found:?}"
    );
    let line = found.lines["b"].as_deref().expect("good");
    assert!(
        line.contains("replica, timeline 1, 10 bytes behind"),
        "{line}"
    );
}

#[test]
fn each_fault_and_each_warning_names_its_mend() {
    type Change = fn(&mut Facts, &mut Facts);
    let check = |change: Change, fault: Option<&str>, warning: Option<&str>| {
        let found = weighed(change);
        let one = |lines: &[String], expected: Option<&str>| {
            assert_eq!(lines.len(), usize::from(expected.is_some()), "{found:?}");
            let part = expected.unwrap_or_default();
            assert!(
                lines.iter().all(|line| line.contains(part)),
                "{part}: {found:?}"
            );
        };
        one(&found.faults, fault);
        one(&found.warnings, warning);
    };
    check(|_, b| b.timeline = None, Some("GRANT pg_monitor"), None);
    check(
        |_, b| b.timeline = Some(2),
        Some("b is on the newer timeline 2"),
        None,
    );
    check(|a, _| a.timeline = Some(2), Some("pg_rewind"), None);
    check(
        |_, b| b.replay_paused = true,
        None,
        Some("pg_wal_replay_resume()"),
    );
    check(
        |_, b| b.delay = Some("1h".to_owned()),
        None,
        Some("recovery_min_apply_delay"),
    );
    check(
        |_, b| {
            b.settings.insert("TimeZone".to_owned(), "Japan".to_owned());
        },
        None,
        Some("TimeZone (\"Japan\", there \"UTC\")"),
    );
    check(
        |_, b| b.sees_all = false,
        None,
        Some("GRANT pg_monitor TO \"breccia\""),
    );
    check(|_, b| b.receives = None, None, Some("primary_conninfo"));
    check(|_, b| b.hot_standby = false, None, Some("set it to on"));
    check(
        |a, _| a.wal_level = "minimal".to_owned(),
        Some("wal_level = replica"),
        None,
    );
    check(|a, _| a.read_only = true, Some("turn it off"), None);
    check(
        |a, _| a.synchronous_commit = "off".to_owned(),
        None,
        Some("reads stay right"),
    );
    check(|a, _| a.system = 8, Some("system identifiers differ"), None);
    check(|_, b| b.recovery = false, Some("a and b all claim"), None);
    check(|a, _| *a = facts(true), Some("pg_promote"), None);
    let swap: Change = |a, b| std::mem::swap(a, b);
    check(swap, None, Some("primary = \"b\""));
}

#[test]
fn an_old_primary_that_came_back_is_told_apart_from_two_that_are_live() {
    let at = |recovery, timeline| Facts {
        timeline: Some(timeline),
        ..facts(recovery)
    };
    let found = weighed_all(vec![
        ("a", at(false, 1)),
        ("b", at(false, 2)),
        ("c", at(true, 2)),
    ]);
    let [fault] = found.faults.as_slice() else {
        panic!("{found:?}");
    };
    let expected = "a: it claims to be the primary on the older timeline 1, and c is on 2";
    assert!(fault.starts_with(expected), "{fault}");
    let [warning] = found.warnings.as_slice() else {
        panic!("{found:?}");
    };
    assert!(warning.contains("b is the primary"), "{warning}");
    // Nobody shows which of these two is the older one.
    let found = weighed_all(vec![("a", at(false, 1)), ("b", at(false, 2))]);
    assert!(
        found.faults[0].contains("a and b all claim"),
        "{:?}",
        found.faults
    );
}

#[test]
fn connections_for_other_roles_are_taken_off() {
    let check = |told: [Option<&str>; 3], expected: usize| assert_eq!(connections(told), expected);
    check([Some("100"), Some("3"), None], 97);
    check([Some("100"), Some("3"), Some("10")], 87);
    check([Some("2"), Some("3"), Some("")], 0);
    check([None, Some("3"), None], usize::MAX - 3);
}
