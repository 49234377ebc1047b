//! A Redis primary with replicas, watched by real sentinels.
//!
//! Invariant: everything listens on 127.0.0.1 on free ports, and ends with the value.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::process::{Process, wait_until};
use crate::redis::{Redis, RedisOptions};
use crate::resp::RespClient;

const START_LIMIT: Duration = Duration::from_secs(20);

/// See the module's page.
#[derive(Debug)]
pub struct RedisSentinel {
    /// The primary first, as it was at the start.
    pub servers: Vec<Redis>,
    sentinels: Vec<(Process, u16)>,
    folder: TempDir,
}

impl RedisSentinel {
    /// The name under which the sentinels watch.
    pub const SERVICE: &'static str = "mymaster";

    /// One primary with `replicas`, and `sentinels` that agree after `down_after`.
    pub fn start(replicas: usize, sentinels: usize, down_after: Duration) -> Result<RedisSentinel> {
        let primary = Redis::new()?;
        let port = primary.port().to_string();
        let mut servers = vec![primary];
        for _ in 0..replicas {
            let arguments = [
                "--replicaof",
                "127.0.0.1",
                &port,
                "--repl-diskless-sync-delay",
                "0",
            ];
            servers.push(Redis::start(RedisOptions {
                arguments: arguments.map(str::to_owned).to_vec(),
                ..RedisOptions::default()
            })?);
        }
        let folder = tempfile::tempdir()?;
        let mut group = RedisSentinel {
            servers,
            sentinels: Vec::new(),
            folder,
        };
        for replica in 1..=replicas {
            group.wait_for_link(replica)?;
        }
        for _ in 0..sentinels {
            group.add_sentinel(sentinels, down_after)?;
        }
        group.wait_for_sentinels()?;
        Ok(group)
    }

    /// A server by its place in `servers`.
    pub fn server(&self, number: usize) -> Result<&Redis> {
        self.servers.get(number).context("no such server")
    }

    fn wait_for_link(&self, replica: usize) -> Result<()> {
        let mut client = self.server(replica)?.client()?;
        wait_until(START_LIMIT, "a replica to reach its primary", || {
            let info = client.call(&[b"INFO", b"replication"])?;
            let info = String::from_utf8_lossy(&info);
            Ok(info.contains("master_link_status:up").then_some(()))
        })
    }

    fn add_sentinel(&mut self, count: usize, down_after: Duration) -> Result<()> {
        let port = crate::free_port()?;
        let folder = self.folder.path().join(port.to_string());
        std::fs::create_dir(&folder)?;
        let (service, quorum) = (Self::SERVICE, count / 2 + 1);
        let (primary, down_ms) = (self.server(0)?.port(), down_after.as_millis());
        let path = folder.join("sentinel.conf");
        let config = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor {service} 127.0.0.1 {primary} \
             {quorum}\nsentinel down-after-milliseconds {service} {down_ms}\nsentinel \
             failover-timeout {service} 10000\nsentinel parallel-syncs {service} 1\n",
            folder.display()
        );
        std::fs::write(&path, config)?;
        let mut command = Command::new("redis-server");
        command.arg(&path).arg("--sentinel");
        let process = Process::start(&mut command, "redis-server", &folder.join("log"))?;
        self.sentinels.push((process, port));
        Ok(())
    }

    /// Waits until every sentinel knows the others and all replicas.
    fn wait_for_sentinels(&self) -> Result<()> {
        let (others, replicas) = (self.sentinels.len() - 1, self.servers.len() - 1);
        for (_, port) in &self.sentinels {
            let known = || {
                let mut client = RespClient::connect(&format!("127.0.0.1:{port}")).ok()?;
                let state = client
                    .call(&[b"SENTINEL", b"MASTER", Self::SERVICE.as_bytes()])
                    .ok()?;
                let state = String::from_utf8_lossy(&state).into_owned();
                let words: Vec<&str> = state.split("\r\n").collect();
                let value = |name: &str| {
                    let at = words.iter().position(|word| *word == name)?;
                    words.get(at + 2)?.parse::<usize>().ok()
                };
                let (found, slaves) = (value("num-other-sentinels")?, value("num-slaves")?);
                (found >= others && slaves >= replicas).then_some(())
            };
            wait_until(START_LIMIT, "sentinels to find each other", || Ok(known()))?;
        }
        Ok(())
    }

    /// `"redis://127.0.0.1:PORT", …` of all sentinels, for a configuration.
    pub fn urls(&self) -> String {
        let urls = self
            .sentinels
            .iter()
            .map(|(_, port)| format!("\"redis://127.0.0.1:{port}\""));
        urls.collect::<Vec<_>>().join(", ")
    }

    /// A connection to one sentinel.
    pub fn sentinel(&self, number: usize) -> Result<RespClient> {
        let (_, port) = self.sentinels.get(number).context("no such sentinel")?;
        RespClient::connect(&format!("127.0.0.1:{port}"))
    }

    /// kill -9 of one sentinel.
    pub fn kill_sentinel(&mut self, number: usize) {
        if let Some((process, _)) = self.sentinels.get_mut(number) {
            process.kill();
        }
    }
}
