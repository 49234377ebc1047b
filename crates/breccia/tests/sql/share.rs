//! How much of a mix of reads and writes runs on replicas that are a little behind, with none stale.
//!
//! Not how fast it is. Invariant: where a read ran is counted by its tag in the servers' logs.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use breccia_testkit::{Breccia, PostgresCluster, clients_folder, process};

use crate::freshness::{prepare, slow};
use crate::pooling::together;
use crate::rig::{Dice, Extra, Gateway};

/// How far both standbys are behind, beside what streaming takes.
const DELAY_MS: u32 = 5;
const LEAST: f64 = 0.6;

/// Of the statements with this tag, the share that ran on standbys.
fn share(cluster: &PostgresCluster, tag: &str) -> f64 {
    let count = |server: &breccia_testkit::Postgres| -> f64 {
        let lines = server
            .log()
            .lines()
            .filter(|line| line.contains(tag))
            .count();
        u32::try_from(lines).map_or(0.0, f64::from)
    };
    let all: Vec<f64> = cluster.servers().iter().map(count).collect();
    let sum: f64 = all.iter().sum();
    println!("{tag}: {all:?} on the primary and the standbys");
    all.iter().skip(1).sum::<f64>() / sum.max(1.0)
}

fn delayed(cluster: &PostgresCluster, database: &str) -> Result<()> {
    prepare(cluster, database)?;
    for number in [1, 2] {
        cluster.set_delay(number, DELAY_MS)?;
    }
    Ok(())
}

#[test]
fn most_reads_of_a_mix_run_on_replicas_five_milliseconds_behind() -> Result<()> {
    let (cluster, _turn) = slow()?;
    delayed(&cluster, "mix")?;
    cluster.primary().query(
        "mix",
        "CREATE TABLE own (id int PRIMARY KEY, n int); INSERT INTO own SELECT g, 0 FROM \
         generate_series(0, 7) g",
    )?;
    let gateway = Gateway::over(&cluster, "mix", Extra::default())?;
    let seed = Dice::printed().roll(u64::MAX);
    together(8, |number| {
        let mut dice = Dice::new(seed ^ (number as u64 + 1).wrapping_mul(7_919));
        let (mut client, mut written) = (gateway.client("mix")?, 0);
        let read = format!("SELECT n FROM own WHERE id = {number} /* <mix:read> */");
        let write = format!("UPDATE own SET n = n + 1 WHERE id = {number}");
        for round in 0..400 {
            if dice.roll(10) == 0 {
                client.run(&write)?;
                written += 1;
                continue;
            }
            let found = match dice.roll(2) {
                0 => client.run(&read)?,
                _ => client.extended(&read, &[])?.good()?,
            };
            let wanted = written.to_string();
            ensure!(
                found.value() == Some(&wanted),
                "client {number}, round {round}: {:?}, not {wanted}",
                found.value()
            );
        }
        Ok(())
    })?;
    let share = share(&cluster, "<mix:read>");
    ensure!(
        share >= LEAST,
        "only {share:.2} of the reads ran on replicas"
    );
    Ok(())
}

/// Runs the program with a gateway whose transactions are handled so.
fn alchemy(cluster: &PostgresCluster, database: &str, transactions: &str) -> Result<Gateway> {
    delayed(cluster, database)?;
    let table = "CREATE TABLE mix (id serial PRIMARY KEY, value int NOT NULL)";
    cluster.primary().query(database, table)?;
    let composite = format!("transactions = \"{transactions}\"");
    let extra = Extra {
        composite: &composite,
        ..Extra::default()
    };
    let gateway = Gateway::over(cluster, database, extra)?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sql/alchemy_mix.py");
    let mut command = Command::new("timeout");
    command
        .arg("150")
        .arg(clients_folder().join("sql-python/bin/python"))
        .args([script, &gateway.port.to_string(), database]);
    let text = process::run(&mut command).context("run `cargo xtask test setup`?")?;
    ensure!(text.trim_end() == "all good", "{text}");
    Ok(gateway)
}

#[test]
fn most_reads_of_sqlalchemy_run_on_replicas_with_lazy_transactions() -> Result<()> {
    let (cluster, _turn) = slow()?;
    let gateway = alchemy(&cluster, "alchemy_lazy", "lazy")?;
    let share = share(&cluster, "<alchemy_lazy>");
    ensure!(
        share >= LEAST,
        "only {share:.2} of the reads ran on replicas"
    );
    drop(gateway);
    Ok(())
}

#[test]
fn transactions_are_named_as_the_reason_where_they_keep_reads_on_the_primary() -> Result<()> {
    let (cluster, _turn) = slow()?;
    let gateway = alchemy(&cluster, "alchemy_primary", "primary")?;
    let share = share(&cluster, "<alchemy_primary>");
    ensure!(share < 0.01, "{share:.2} of the reads ran on replicas");
    let name = "breccia_sql_routed_total{target=\"primary\",reason=\"transaction\"";
    let count = gateway.breccia.metric(name)?;
    ensure!(
        count >= 500.0,
        "only {count} statements are counted as of transactions"
    );
    let (config, folder) = (gateway.breccia.config_path(), std::env::temp_dir());
    let sql = "SELECT value FROM mix WHERE id = 1";
    let words = ["--database", "alchemy_primary", "--sql", sql];
    let command = ["explain", "--config", &config.to_string_lossy(), "db"];
    let output = Breccia::run(&folder, &[&command[..], &words].concat())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let named = text.lines().any(|line| {
        line.starts_with("in BEGIN") && line.contains("primary") && line.contains("transaction")
    });
    ensure!(output.status.success() && named, "{text}");
    Ok(())
}
