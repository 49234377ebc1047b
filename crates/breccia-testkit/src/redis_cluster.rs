//! A real Redis Cluster: primaries with one replica each.
//!
//! Invariant: everything listens on 127.0.0.1 on free ports, and ends with the value.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::wait_until;
use crate::redis::{Redis, RedisOptions};
use crate::resp::RespClient;

const START_LIMIT: Duration = Duration::from_secs(40);
/// A cluster has so many slots.
const SLOTS: usize = 16_384;

/// See the module's page.
#[derive(Debug)]
pub struct RedisCluster {
    /// First the primaries, then the replica of each, if there are replicas.
    pub servers: Vec<Redis>,
    primaries: usize,
    ids: Vec<String>,
}

impl RedisCluster {
    /// `primaries` with equal shares of the slots, each with a replica if so wished. A server counts
    /// as failed after `failed_after`.
    pub fn start(
        primaries: usize,
        with_replicas: bool,
        failed_after: Duration,
    ) -> Result<RedisCluster> {
        Self::start_with(primaries, with_replicas, failed_after, None)
    }

    /// The same with a password.
    pub fn start_with(
        primaries: usize,
        with_replicas: bool,
        failed_after: Duration,
        password: Option<&str>,
    ) -> Result<RedisCluster> {
        let count = if with_replicas {
            primaries * 2
        } else {
            primaries
        };
        let servers = launch(count, failed_after, password)?;
        let mut ids = Vec::new();
        for (number, (server, _)) in servers.iter().enumerate() {
            let mut client = server.client()?;
            let epoch = (number + 1).to_string();
            client.expect_ok(&[b"CLUSTER", b"SET-CONFIG-EPOCH", epoch.as_bytes()])?;
            if number < primaries {
                let first = SLOTS * number / primaries;
                let last = SLOTS * (number + 1) / primaries - 1;
                let (first, last) = (first.to_string(), last.to_string());
                client.expect_ok(&[
                    b"CLUSTER",
                    b"ADDSLOTSRANGE",
                    first.as_bytes(),
                    last.as_bytes(),
                ])?;
            }
            let id = client.reply("CLUSTER MYID")?;
            let id = id.bytes().context("an id was expected")?;
            ids.push(String::from_utf8_lossy(id).into_owned());
        }
        // Only when each has its epoch: one that has met others takes none.
        for (server, _) in &servers {
            let mut client = server.client()?;
            for (other, bus) in &servers {
                let (port, bus) = (other.port().to_string(), bus.to_string());
                client.expect_ok(&[
                    b"CLUSTER",
                    b"MEET",
                    b"127.0.0.1",
                    port.as_bytes(),
                    bus.as_bytes(),
                ])?;
            }
        }
        let cluster = RedisCluster {
            servers: servers.into_iter().map(|(server, _)| server).collect(),
            primaries,
            ids,
        };
        cluster.wait_until_all_know(count, primaries)?;
        for replica in primaries..count {
            let primary = cluster.id(replica - primaries)?;
            let mut client = cluster.client(replica)?;
            client.expect_ok(&[b"CLUSTER", b"REPLICATE", primary.as_bytes()])?;
        }
        for replica in primaries..count {
            let mut client = cluster.client(replica)?;
            wait_until(START_LIMIT, "a replica to reach its primary", || {
                let info = client.call(&[b"INFO", b"replication"])?;
                let info = String::from_utf8_lossy(&info);
                Ok(info.contains("master_link_status:up").then_some(()))
            })?;
        }
        cluster.wait_until_all_know(count, primaries)?;
        Ok(cluster)
    }

    fn wait_until_all_know(&self, count: usize, primaries: usize) -> Result<()> {
        for server in &self.servers {
            let mut client = server.client()?;
            let mut known = || {
                let info = client.call(&[b"CLUSTER", b"INFO"]).ok()?;
                let info = String::from_utf8_lossy(&info).into_owned();
                let all = [
                    "cluster_state:ok".to_owned(),
                    format!("cluster_slots_assigned:{SLOTS}"),
                    format!("cluster_known_nodes:{count}\r"),
                    format!("cluster_size:{primaries}\r"),
                ];
                let said = client.call(&[b"CLUSTER", b"NODES"]).ok()?;
                let said = String::from_utf8_lossy(&said).into_owned();
                let settled = !said.contains("handshake") && !said.contains("disconnected");
                (settled && all.iter().all(|line| info.contains(line))).then_some(())
            };
            wait_until(START_LIMIT, "the cluster to form", || Ok(known()))?;
        }
        Ok(())
    }

    /// How many servers were primaries at the start.
    pub fn primaries(&self) -> usize {
        self.primaries
    }

    /// The cluster's own name of a server.
    pub fn id(&self, server: usize) -> Result<&str> {
        let id = self.ids.get(server).context("no such server")?;
        Ok(id)
    }

    /// A server by its place in `servers`.
    pub fn server(&self, number: usize) -> Result<&Redis> {
        self.servers.get(number).context("no such server")
    }

    /// `"redis://127.0.0.1:PORT", …` of some servers, for a configuration.
    pub fn urls(&self, most: usize) -> String {
        let urls = self.servers.iter().take(most);
        let urls = urls.map(|server| format!("\"{}\"", server.url()));
        urls.collect::<Vec<_>>().join(", ")
    }

    /// Begins to move a slot: keys may be on either server from now on.
    pub fn begin_move(&self, slot: u16, from: usize, to: usize) -> Result<()> {
        let slot = slot.to_string();
        let say = |server: usize, word: &str, other: usize| {
            let mut client = self.client(server)?;
            let words = ["CLUSTER", "SETSLOT", &slot, word, self.id(other)?];
            client.expect_ok(&words.map(str::as_bytes))
        };
        say(to, "IMPORTING", from)?;
        say(from, "MIGRATING", to)
    }

    /// Moves keys of a slot, at most so many; answers how many were moved.
    pub fn move_keys(&self, slot: u16, from: usize, to: usize, most: usize) -> Result<usize> {
        let mut client = self.client(from)?;
        let mut moved = 0;
        while moved < most {
            let count = (most - moved).min(100);
            let found = client.reply(&format!("CLUSTER GETKEYSINSLOT {slot} {count}"))?;
            let keys: Vec<Vec<u8>> = found
                .elements()
                .iter()
                .filter_map(|key| Some(key.bytes()?.to_vec()))
                .collect();
            if keys.is_empty() {
                break;
            }
            let port = self.server(to)?.port().to_string();
            let mut words: Vec<&[u8]> = vec![
                b"MIGRATE",
                b"127.0.0.1",
                port.as_bytes(),
                b"",
                b"0",
                b"5000",
                b"KEYS",
            ];
            words.extend(keys.iter().map(Vec::as_slice));
            let reply = client.call(&words)?;
            ensure!(reply.first() == Some(&b'+'), "{}", reply.escape_ascii());
            moved += keys.len();
        }
        Ok(moved)
    }

    /// Ends the move of a slot whose keys have all been moved.
    pub fn end_move(&self, slot: u16, to: usize) -> Result<()> {
        let slot = slot.to_string();
        let words = ["CLUSTER", "SETSLOT", &slot, "NODE", self.id(to)?];
        let words = words.map(str::as_bytes);
        self.client(to)?.expect_ok(&words)?;
        for server in self.servers.iter().take(self.primaries) {
            // One that is down hears of it when it comes back.
            if let Ok(mut client) = server.client() {
                client.expect_ok(&words)?;
            }
        }
        Ok(())
    }

    /// Moves a slot with its keys.
    pub fn move_slot(&self, slot: u16, from: usize, to: usize) -> Result<()> {
        self.begin_move(slot, from, to)?;
        self.move_keys(slot, from, to, usize::MAX)?;
        self.end_move(slot, to)
    }

    /// A connection to one server.
    pub fn client(&self, server: usize) -> Result<RespClient> {
        self.server(server)?.client()
    }
}

/// Servers with the ports of their cluster bus; each is a cluster by itself yet.
fn launch(
    count: usize,
    failed_after: Duration,
    password: Option<&str>,
) -> Result<Vec<(Redis, u16)>> {
    let mut servers = Vec::new();
    for _ in 0..count {
        let bus = crate::free_port()?;
        let arguments = [
            "--cluster-enabled",
            "yes",
            "--cluster-port",
            &bus.to_string(),
            "--cluster-node-timeout",
            &failed_after.as_millis().to_string(),
            "--repl-diskless-sync-delay",
            "0",
            "--cluster-require-full-coverage",
            "no",
        ];
        let mut arguments = arguments.map(str::to_owned).to_vec();
        if let Some(password) = password {
            arguments.extend(["--masterauth".to_owned(), password.to_owned()]);
        }
        let server = Redis::start(RedisOptions {
            arguments,
            password: password.map(str::to_owned),
            ..RedisOptions::default()
        })?;
        servers.push((server, bus));
    }
    Ok(servers)
}
