//! A real `PostgreSQL` primary with streaming standbys.
//!
//! Not a failover manager: nobody follows a promoted standby by itself. Invariant: servers are numbered
//! in one way everywhere, 0 for the primary as started and `i` for the standby named `standby{i}`.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::certificates::Certificates;
use crate::postgres::{
    PASSWORD, Postgres, SYSTEM_USER, USER, give_to, initialise, own_folder, program,
};
use crate::process::{run, tied, wait_until};

const LIMIT: Duration = Duration::from_mins(1);
/// Who signs the certificates of clients, in a server's folder.
const CA_FILE: &str = "ca.crt";

/// What every server's `postgresql.conf` says unless the options say otherwise.
const SETTINGS: [(&str, &str); 13] = [
    ("max_connections", "200"),
    ("wal_level", "replica"),
    ("hot_standby", "on"),
    ("max_wal_senders", "10"),
    ("wal_log_hints", "on"),
    ("synchronous_commit", "on"),
    // A standby that was frozen or down for long still finds what it missed.
    ("wal_keep_size", "256MB"),
    // Standbys tell often how far they are, and come back quickly.
    ("wal_receiver_status_interval", "1s"),
    ("wal_retrieve_retry_interval", "200ms"),
    ("logging_collector", "off"),
    ("log_line_prefix", "%a|%p|%q"),
    // Tests cut the machine's power nowhere: a killed server's writes are with the kernel.
    ("fsync", "off"),
    // A kill between two memory pages of one write tears a page: full pages stay on.
    ("full_page_writes", "on"),
];

/// How a [`PostgresCluster`] is set up.
#[derive(Debug, Clone, Default)]
pub struct ClusterOptions {
    /// How many standbys there are.
    pub standbys: usize,
    /// The number, from 1, of the standby that a commit on the primary waits for.
    pub synchronous: Option<usize>,
    /// Settings of every server's `postgresql.conf`, name and value; `ALTER SYSTEM` goes before them.
    pub settings: Vec<(String, String)>,
    /// With it every server offers TLS, shows this server certificate, and asks for a client's that
    /// the same authority has signed.
    pub tls: Option<Certificates>,
    /// Lines that `pg_hba.conf` begins with: the first one that fits a client counts.
    pub access: Vec<String>,
}

/// A primary and its standbys, each on its own port of 127.0.0.1.
#[derive(Debug)]
pub struct PostgresCluster {
    /// The primary as started, then the standbys.
    servers: Vec<Postgres>,
}

impl PostgresCluster {
    /// Starts a primary and its standbys, and waits until each standby streams.
    pub fn start(options: ClusterOptions) -> Result<PostgresCluster> {
        if let Some(number) = options.synchronous {
            let known = (1..=options.standbys).contains(&number);
            ensure!(known, "no standby {number} of {}", options.standbys);
        }
        let folder = own_folder()?;
        initialise(folder.path())?;
        if let Some(files) = &options.tls {
            install(folder.path(), files)?;
        }
        let tls = options.tls.map(|_| {
            let names = [("ssl", "on"), ("ssl_ca_file", CA_FILE)];
            names.map(|(name, value)| (name.to_owned(), value.to_owned()))
        });
        let settings = tls.into_iter().flatten().chain(options.settings);
        write_settings(folder.path(), settings.collect())?;
        put_before(&folder.path().join("data/pg_hba.conf"), &options.access)?;
        let mut servers = vec![Postgres::open(folder, Vec::new())?];
        for number in 1..=options.standbys {
            let folder = copy_of(&servers, number)?;
            servers.push(Postgres::open(folder, Vec::new())?);
        }
        let cluster = PostgresCluster { servers };
        cluster.wait_streaming(LIMIT)?;
        if let Some(number) = options.synchronous {
            cluster.wait_for_commits_of(number)?;
        }
        Ok(cluster)
    }

    /// The primary as started, whatever was promoted since.
    pub fn primary(&self) -> &Postgres {
        self.server(0)
    }

    /// The standby of this number, from 1; it stays this one when it is promoted.
    pub fn standby(&self, number: usize) -> &Postgres {
        assert_ne!(number, 0, "standbys are numbered from 1");
        self.server(number)
    }

    /// The server of this number: 0 is the primary as started.
    pub fn server(&self, number: usize) -> &Postgres {
        self.servers.get(number).expect("a number of this cluster")
    }

    /// The server of this number, to kill, freeze or restart it.
    pub fn server_mut(&mut self, number: usize) -> &mut Postgres {
        let server = self.servers.get_mut(number);
        server.expect("a number of this cluster")
    }

    /// Every server, in the order of their numbers.
    pub fn servers(&self) -> &[Postgres] {
        &self.servers
    }

    /// Waits until every live standby streams from the primary.
    pub fn wait_streaming(&self, limit: Duration) -> Result<()> {
        let begun = Instant::now();
        let sql = "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming'";
        for (number, standby) in self.followers()? {
            let name = standby_name(number);
            let left = limit.saturating_sub(begun.elapsed());
            wait_until(left, &format!("{name} to stream"), || {
                let question = "SELECT status FROM pg_stat_wal_receiver";
                let receives = standby.query("postgres", question)?.trim() == "streaming";
                let sent = self.primary().query("postgres", sql)?;
                Ok((receives && sent.lines().any(|line| line == name)).then_some(()))
            })?;
        }
        Ok(())
    }

    /// Waits until every live standby has replayed what the primary has written by now.
    ///
    /// Standbys that have ended, are frozen or were promoted are passed over; one whose replay is
    /// paused or delayed is not. Adds one small record to the primary's log, so that all before it
    /// is flushed and sent: what no commit follows would otherwise wait for seconds.
    pub fn wait_caught_up(&self, limit: Duration) -> Result<()> {
        let begun = Instant::now();
        // Its own commit waits for no standby.
        let mark = "SET synchronous_commit = local; \
                    SELECT pg_logical_emit_message(true, 'testkit', '')";
        let position = self.primary().query("postgres", mark)?;
        let position = position.trim();
        let sql = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'::pg_lsn");
        for (number, standby) in self.followers()? {
            let what = format!("{} to replay {position}", standby_name(number));
            let left = limit.saturating_sub(begun.elapsed());
            wait_until(left, &what, || {
                Ok((standby.query("postgres", &sql)?.trim() == "t").then_some(()))
            })?;
        }
        Ok(())
    }

    /// Stops the replay of a standby, which goes on receiving, and waits until it has stopped.
    pub fn pause_replay(&self, number: usize) -> Result<()> {
        let standby = self.standby(number);
        standby.query("postgres", "SELECT pg_wal_replay_pause()")?;
        let sql = "SELECT pg_get_wal_replay_pause_state()";
        wait_for_answer(standby, sql, "paused")
    }

    /// Ends [`PostgresCluster::pause_replay`].
    pub fn resume_replay(&self, number: usize) -> Result<()> {
        let standby = self.standby(number);
        standby.query("postgres", "SELECT pg_wal_replay_resume()")?;
        Ok(())
    }

    /// Makes a primary of a standby and waits until it takes writes; a paused replay goes on first.
    ///
    /// The primary as started is not told, and the other standbys go on following that one.
    pub fn promote(&self, number: usize) -> Result<()> {
        let standby = self.standby(number);
        standby.query("postgres", "SELECT pg_promote()")?;
        wait_for_answer(standby, "SELECT pg_is_in_recovery()", "f")
    }

    /// Lets a standby replay each commit this long after the primary made it; 0 for at once.
    pub fn set_delay(&self, number: usize, delay_ms: u32) -> Result<()> {
        let setting = "recovery_min_apply_delay";
        let standby = self.standby(number);
        // Not one call: ALTER SYSTEM refuses to run beside another statement.
        let alter = format!("ALTER SYSTEM SET {setting} = '{delay_ms}ms'");
        standby.query("postgres", &alter)?;
        standby.query("postgres", "SELECT pg_reload_conf()")?;
        let sql = format!("SELECT setting FROM pg_settings WHERE name = '{setting}'");
        wait_for_answer(standby, &sql, &delay_ms.to_string())
    }

    /// The live standbys that are still standbys, with their numbers.
    fn followers(&self) -> Result<Vec<(usize, &Postgres)>> {
        let mut followers = Vec::new();
        for (number, server) in self.servers.iter().enumerate().skip(1) {
            if server.is_live() && is_in_recovery(server)? {
                followers.push((number, server));
            }
        }
        Ok(followers)
    }

    /// Makes one standby synchronous; only now, as without it no commit would ever end.
    fn wait_for_commits_of(&self, number: usize) -> Result<()> {
        let (primary, name) = (self.primary(), standby_name(number));
        let alter = format!("ALTER SYSTEM SET synchronous_standby_names = '{name}'");
        primary.query("postgres", &alter)?;
        primary.query("postgres", "SELECT pg_reload_conf()")?;
        let sql = "SELECT application_name FROM pg_stat_replication WHERE sync_state = 'sync'";
        wait_for_answer(primary, sql, &name)
    }
}

/// The name by which the primary knows a standby.
fn standby_name(number: usize) -> String {
    format!("standby{number}")
}

fn is_in_recovery(server: &Postgres) -> Result<bool> {
    Ok(server
        .query("postgres", "SELECT pg_is_in_recovery()")?
        .trim()
        == "t")
}

fn wait_for_answer(server: &Postgres, sql: &str, answer: &str) -> Result<()> {
    let what = format!("the answer {answer} to {sql}");
    wait_until(LIMIT, &what, || {
        Ok((server.query("postgres", sql)?.trim() == answer).then_some(()))
    })
}

/// Adds to `postgresql.conf`, which later copies share; of two lines the last one counts.
fn write_settings(folder: &Path, given: Vec<(String, String)>) -> Result<()> {
    let path = folder.join("data/postgresql.conf");
    let mut file = File::options().append(true).open(path)?;
    let own = SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned()));
    for (name, value) in own.into_iter().chain(given) {
        let value = value.replace('\\', "\\\\").replace('\'', "''");
        writeln!(file, "{name} = '{value}'")?;
    }
    Ok(())
}

/// Puts certificates where a server looks for them by itself; copies of it take them along.
fn install(folder: &Path, files: &Certificates) -> Result<()> {
    let place = |name: &str| folder.join("data").join(name);
    std::fs::copy(&files.ca, place(CA_FILE))?;
    std::fs::copy(&files.server_cert, place("server.crt"))?;
    std::fs::copy(&files.server_key, place("server.key"))?;
    for name in [CA_FILE, "server.crt", "server.key"] {
        let only_its_own = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(place(name), only_its_own)?;
        give_to(SYSTEM_USER, &place(name))?;
    }
    Ok(())
}

fn put_before(path: &Path, lines: &[String]) -> Result<()> {
    let rest = std::fs::read_to_string(path)?;
    let lines = lines.iter().map(String::as_str);
    let all: Vec<&str> = lines.chain([rest.as_str()]).collect();
    Ok(std::fs::write(path, all.join("\n"))?)
}

/// A folder with a copy of the first server, set up to follow it under the name of `number`.
fn copy_of(servers: &[Postgres], number: usize) -> Result<TempDir> {
    let port = servers.first().context("no primary")?.port();
    let folder = own_folder()?;
    let name = standby_name(number);
    let source = format!(
        "host=127.0.0.1 port={port} user={USER} password={PASSWORD} application_name={name}"
    );
    let mut command = tied(program("pg_basebackup")?, Some(SYSTEM_USER));
    command
        .args(["-R", "-X", "stream", "--checkpoint=fast", "--no-sync"])
        .args(["-d", &source, "-D"])
        .arg(folder.path().join("data"));
    run(command.current_dir(folder.path()))?;
    Ok(folder)
}
