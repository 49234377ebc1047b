//! The testkit's `MariaDB` cluster, on real servers.
//!
//! Not a test of Breccia. Invariant: needs `MariaDB` and nothing built.

use std::time::{Duration, Instant};

use anyhow::Result;
use breccia_testkit::process::runs;
use breccia_testkit::{MariaDbCluster, MariaDbClusterOptions};

const LIMIT: Duration = Duration::from_secs(20);

fn insert(cluster: &MariaDbCluster, number: usize) -> Result<()> {
    cluster.query(number, "INSERT INTO t.t VALUES (1)")?;
    Ok(())
}

/// How many rows a server shows.
fn rows(cluster: &MariaDbCluster, number: usize) -> Result<usize> {
    let answer = cluster.query(number, "SELECT COUNT(*) FROM t.t")?;
    Ok(answer.trim().parse()?)
}

#[test]
fn a_mariadb_cluster_replicates_is_held_up_and_promoted_and_leaves_nothing() -> Result<()> {
    let begun = Instant::now();
    let mut cluster = MariaDbCluster::start(&MariaDbClusterOptions {
        replicas: 2,
        ..MariaDbClusterOptions::default()
    })?;
    println!("three servers after {:?}", begun.elapsed());
    cluster.query(0, "CREATE DATABASE t; CREATE TABLE t.t (a INT)")?;
    insert(&cluster, 0)?;
    cluster.wait_caught_up(LIMIT)?;
    assert_eq!((rows(&cluster, 1)?, rows(&cluster, 2)?), (1, 1));

    cluster.pause_replay(1)?;
    cluster.set_delay(2, 2)?;
    insert(&cluster, 0)?;
    let begun = Instant::now();
    assert_eq!((rows(&cluster, 1)?, rows(&cluster, 2)?), (1, 1));
    assert_eq!(cluster.status(1, "Slave_SQL_Running")?, "No");
    cluster.resume_replay(1)?;
    cluster.wait_caught_up(LIMIT)?;
    assert!(
        begun.elapsed() > Duration::from_millis(900),
        "of whole seconds"
    );
    assert_eq!((rows(&cluster, 1)?, rows(&cluster, 2)?), (2, 2));

    cluster.server_mut(0).kill9();
    cluster.promote(1)?;
    cluster.set_delay(2, 0)?;
    cluster.follow(2, 1)?;
    cluster.server_mut(0).restart_same_port()?;
    cluster.follow(0, 1)?;
    insert(&cluster, 1)?;
    let position = cluster.query(1, "SELECT @@GLOBAL.gtid_binlog_pos")?;
    for number in [0, 2] {
        let wait = format!("SELECT MASTER_GTID_WAIT('{}', 10)", position.trim());
        assert_eq!(cluster.query(number, &wait)?.trim(), "0");
        assert_eq!(rows(&cluster, number)?, 3);
    }

    let ids: Vec<u32> = (0..3)
        .map(|number| cluster.server_mut(number).process().id())
        .collect();
    assert!(ids.iter().all(|id| runs(*id)));
    drop(cluster);
    assert!(!ids.iter().any(|id| runs(*id)));
    Ok(())
}
