//! The testkit's `PostgreSQL` cluster, on real servers.
//!
//! Not a test of Breccia. Invariant: needs `PostgreSQL` and nothing built.

use std::time::{Duration, Instant};

use anyhow::Result;
use breccia_testkit::process::runs;
use breccia_testkit::{ClusterOptions, PostgresCluster};

const LIMIT: Duration = Duration::from_secs(20);
const COUNT: &str = "SELECT count(*) FROM t";

/// A cluster with an empty table `t` everywhere.
fn cluster(options: ClusterOptions) -> Result<PostgresCluster> {
    let cluster = PostgresCluster::start(options)?;
    let primary = cluster.primary();
    primary.query("postgres", "CREATE TABLE t (a int)")?;
    cluster.wait_caught_up(LIMIT)?;
    Ok(cluster)
}

fn insert(cluster: &PostgresCluster, number: usize) -> Result<()> {
    let server = cluster.server(number);
    server.query("postgres", "INSERT INTO t VALUES (1)")?;
    Ok(())
}

/// How many rows a server shows.
fn rows(cluster: &PostgresCluster, number: usize) -> Result<usize> {
    let answer = cluster.server(number).query("postgres", COUNT)?;
    Ok(answer.trim().parse()?)
}

#[test]
fn a_postgres_cluster_streams_to_both_standbys_and_leaves_nothing() -> Result<()> {
    let mut cluster = cluster(ClusterOptions {
        standbys: 2,
        synchronous: Some(1),
        settings: vec![("log_statement".to_owned(), "all".to_owned())],
        ..ClusterOptions::default()
    })?;
    insert(&cluster, 0)?;
    cluster.wait_caught_up(LIMIT)?;
    assert_eq!((rows(&cluster, 1)?, rows(&cluster, 2)?), (1, 1));
    assert!(insert(&cluster, 2).is_err());

    cluster.standby(2).query("postgres", "SELECT 1 /* tag */")?;
    let tagged = |number: usize| cluster.server(number).log().contains("/* tag */");
    assert_eq!([0, 1, 2].map(tagged), [false, false, true]);

    let shown = cluster
        .primary()
        .query("postgres", "SHOW synchronous_commit")?;
    assert_eq!(shown.trim(), "on");

    let mut ids = Vec::new();
    for number in 0..3 {
        let process = cluster.server_mut(number).process();
        ids.push(process.id());
        ids.extend(process.children()?);
    }
    drop(cluster);
    ids.retain(|id| runs(*id));
    assert!(ids.is_empty(), "{ids:?} still run");
    Ok(())
}

#[test]
fn a_postgres_cluster_pauses_and_delays_replay() -> Result<()> {
    let cluster = cluster(ClusterOptions {
        standbys: 2,
        ..ClusterOptions::default()
    })?;
    cluster.pause_replay(1)?;
    insert(&cluster, 0)?;
    assert!(cluster.wait_caught_up(Duration::from_millis(500)).is_err());
    assert_eq!(rows(&cluster, 1)?, 0);
    cluster.resume_replay(1)?;
    cluster.wait_caught_up(LIMIT)?;
    assert_eq!((rows(&cluster, 1)?, rows(&cluster, 2)?), (1, 1));

    cluster.set_delay(2, 2_000)?;
    let begun = Instant::now();
    insert(&cluster, 0)?;
    cluster.wait_caught_up(LIMIT)?;
    assert!(begun.elapsed() >= Duration::from_millis(1_900));
    cluster.set_delay(2, 0)?;
    insert(&cluster, 0)?;
    cluster.wait_caught_up(LIMIT)?;
    assert_eq!(rows(&cluster, 2)?, 3);
    Ok(())
}

#[test]
fn a_postgres_cluster_promotes_a_standby() -> Result<()> {
    let mut cluster = cluster(ClusterOptions {
        standbys: 2,
        ..ClusterOptions::default()
    })?;
    cluster.server_mut(0).kill9();
    assert!(!cluster.primary().is_live());
    cluster.promote(1)?;
    insert(&cluster, 1)?;
    assert_eq!((rows(&cluster, 1)?, rows(&cluster, 2)?), (1, 0));
    assert!(insert(&cluster, 2).is_err());
    Ok(())
}

#[test]
fn a_postgres_cluster_goes_on_after_servers_were_frozen_and_killed() -> Result<()> {
    let mut cluster = cluster(ClusterOptions {
        standbys: 2,
        ..ClusterOptions::default()
    })?;
    cluster.server_mut(1).freeze_all()?;
    cluster.server_mut(2).kill9();
    insert(&cluster, 0)?;
    // Nobody is left to wait for.
    cluster.wait_caught_up(LIMIT)?;
    cluster.server_mut(1).thaw_all()?;
    cluster.server_mut(2).restart_same_port()?;
    cluster.wait_caught_up(LIMIT)?;
    assert_eq!((rows(&cluster, 1)?, rows(&cluster, 2)?), (1, 1));

    cluster.server_mut(0).kill9();
    cluster.server_mut(0).restart_same_port()?;
    cluster.wait_streaming(LIMIT)?;
    insert(&cluster, 0)?;
    cluster.wait_caught_up(LIMIT)?;
    assert_eq!((rows(&cluster, 1)?, rows(&cluster, 2)?), (2, 2));
    Ok(())
}
