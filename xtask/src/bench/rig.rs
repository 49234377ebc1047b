//! The servers of a bench: three Redis, three memcached, nutcracker and Breccia before both.
//!
//! All on loopback, nothing on disk. Not tuned in anybody's favour: nutcracker runs without request
//! logging (`-v 4`), Breccia with one worker, both hash every key. Invariant: every key that a load
//! reads has been written on each way that a load may take.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use std::fmt::Write as _;

use super::{Target, Wire, memcached};
use crate::process::{self, Server};
use crate::resp::Connection;

/// Keys in use, `key:000000000000` and up, as redis-benchmark names them.
pub(crate) const KEYS: u32 = 100_000;

/// Everything running.
pub(crate) struct Rig {
    redis: Vec<Server>,
    memcached: Vec<Server>,
    nutcracker_redis: Server,
    nutcracker_memcached: Server,
    breccia_redis: Server,
    breccia_memcached: Server,
    folder: std::path::PathBuf,
}

impl Rig {
    /// Starts all servers and writes all keys.
    pub(crate) fn start() -> Result<Rig> {
        let folder = std::env::temp_dir().join(format!("breccia-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let redis = (0..3)
            .map(|_| Server::redis(&folder))
            .collect::<Result<Vec<_>>>()?;
        let memcached = (0..3)
            .map(|_| memcached_server())
            .collect::<Result<Vec<_>>>()?;
        let rig = Rig {
            nutcracker_redis: nutcracker(&folder, Wire::Redis, &redis)?,
            nutcracker_memcached: nutcracker(&folder, Wire::Memcached, &memcached)?,
            breccia_redis: breccia(&folder, Wire::Redis, &redis)?,
            breccia_memcached: breccia(&folder, Wire::Memcached, &memcached)?,
            redis,
            memcached,
            folder,
        };
        for target in Target::ALL {
            fill_redis(rig.port(Wire::Redis, target))?;
            memcached::fill(rig.port(Wire::Memcached, target))?;
        }
        Ok(rig)
    }

    /// Where a load connects.
    pub(crate) fn port(&self, wire: Wire, target: Target) -> u16 {
        match self.proxy(wire, target) {
            Some(proxy) => proxy.port,
            None => self.servers(wire).first().map_or(0, |server| server.port),
        }
    }

    /// CPU seconds that the proxy has used; 0 where there is none.
    pub(crate) fn proxy_cpu(&self, wire: Wire, target: Target) -> Result<f64> {
        self.proxy(wire, target)
            .map_or(Ok(0.0), Server::cpu_seconds)
    }

    /// CPU seconds that the three servers have used together.
    pub(crate) fn servers_cpu(&self, wire: Wire) -> Result<f64> {
        self.servers(wire).iter().map(Server::cpu_seconds).sum()
    }

    fn servers(&self, wire: Wire) -> &[Server] {
        match wire {
            Wire::Redis => &self.redis,
            Wire::Memcached => &self.memcached,
        }
    }

    fn proxy(&self, wire: Wire, target: Target) -> Option<&Server> {
        match (target, wire) {
            (Target::Direct, _) => None,
            (Target::Nutcracker, Wire::Redis) => Some(&self.nutcracker_redis),
            (Target::Nutcracker, Wire::Memcached) => Some(&self.nutcracker_memcached),
            (Target::Breccia, Wire::Redis) => Some(&self.breccia_redis),
            (Target::Breccia, Wire::Memcached) => Some(&self.breccia_memcached),
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.folder);
    }
}

fn memcached_server() -> Result<Server> {
    let port = process::free_port()?;
    let user = process::output(Command::new("id").arg("-un"))?;
    let mut command = Command::new("memcached");
    command.args([
        "-l",
        "127.0.0.1",
        "-p",
        &port.to_string(),
        "-U",
        "0",
        "-t",
        "1",
    ]);
    command.args(["-u", user.trim()]);
    Server::start(&mut command, port)
}

fn nutcracker(folder: &Path, wire: Wire, servers: &[Server]) -> Result<Server> {
    let (port, stats) = (process::free_port()?, process::free_port()?);
    let mut config = format!(
        "bench:\n  listen: 127.0.0.1:{port}\n  hash: fnv1a_64\n  distribution: modula\n  \
         preconnect: true\n  auto_eject_hosts: false\n  redis: {}\n  servers:\n",
        wire == Wire::Redis
    );
    for server in servers {
        writeln!(config, "   - 127.0.0.1:{}:1", server.port)?;
    }
    let path = folder.join(format!("nutcracker-{port}.yml"));
    std::fs::write(&path, config)?;
    let program = process::which("nutcracker").context("nutcracker is not installed")?;
    let mut command = Command::new(program);
    command
        .args(["-v", "4", "-s", &stats.to_string(), "-a", "127.0.0.1", "-c"])
        .arg(&path);
    command
        .arg("-o")
        .arg(folder.join(format!("nutcracker-{port}.log")));
    Server::start(&mut command, port)
}

fn breccia(folder: &Path, wire: Wire, servers: &[Server]) -> Result<Server> {
    let port = process::free_port()?;
    let (kind, place) = match wire {
        Wire::Redis => ("redis", "url = \"redis://"),
        Wire::Memcached => ("memcached", "address = \""),
    };
    let state = folder.join(format!("state-{port}"));
    let mut config = format!("workers = 1\n\n[state]\ndir = '{}'\n", state.display());
    for (index, server) in servers.iter().enumerate() {
        writeln!(config, "\n[store.s{index}]\ntype = \"{kind}\"")?;
        writeln!(config, "{place}127.0.0.1:{}\"", server.port)?;
    }
    let names: Vec<String> = (0..servers.len())
        .map(|index| format!("\"s{index}\""))
        .collect();
    writeln!(config, "\n[store.all]\ntype = \"sharded-in-memory\"")?;
    writeln!(config, "stores = [{}]", names.join(", "))?;
    writeln!(
        config,
        "\n[listener.bench]\nprotocol = \"{kind}\"\nstore = \"all\""
    )?;
    writeln!(config, "bind = \"127.0.0.1:{port}\"")?;
    let path = folder.join(format!("breccia-{port}.toml"));
    std::fs::write(&path, config)?;
    let mut command = Command::new(binary());
    command.args(["serve", "--config"]).arg(&path);
    let log = std::fs::File::create(folder.join(format!("breccia-{port}.log")))?;
    Server::start(command.stderr(log), port)
}

/// The release build, or what `BRECCIA_BIN` names.
fn binary() -> std::path::PathBuf {
    let built = || process::built("release/breccia");
    std::env::var_os("BRECCIA_BIN").map_or_else(built, Into::into)
}

/// Writes every key with the three bytes that redis-benchmark writes.
fn fill_redis(port: u16) -> Result<()> {
    let mut connection = Connection::open(port)?;
    for key in 0..KEYS {
        connection.call(&["SET", &format!("key:{key:012}"), "xxx"])?;
    }
    Ok(())
}
