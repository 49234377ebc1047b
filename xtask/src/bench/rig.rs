//! The servers of a bench: three Redis, three memcached, nutcracker and Breccia before both.
//!
//! All on loopback, nothing on disk. Not tuned in anybody's favour: nutcracker runs without request
//! logging (`-v 4`), Breccia with one worker or two, both hash every key. Invariant: every key that a
//! load reads has been written on each way that a load may take.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Target, Wire, memcached};
use crate::process::{self, Server};
use crate::resp::Connection;

/// Keys in use, `key:000000000000` and up, as redis-benchmark names them.
pub(crate) const KEYS: u32 = 100_000;

/// Everything running.
pub(crate) struct Rig {
    redis: Vec<Server>,
    memcached: Vec<Server>,
    /// Where the Redis servers speak TLS.
    tls_ports: Vec<u16>,
    proxies: BTreeMap<(Wire, Target), Server>,
    folder: PathBuf,
}

impl Rig {
    /// Starts all servers and writes all keys.
    pub(crate) fn start() -> Result<Rig> {
        let folder = std::env::temp_dir().join(format!("breccia-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        certificate(&folder)?;
        let mut rig = Rig {
            redis: Vec::new(),
            memcached: Vec::new(),
            tls_ports: Vec::new(),
            proxies: BTreeMap::new(),
            folder,
        };
        for _ in 0..3 {
            let (server, tls_port) = redis_server(&rig.folder)?;
            rig.redis.push(server);
            rig.tls_ports.push(tls_port);
            rig.memcached.push(memcached_server()?);
        }
        for wire in Wire::ALL {
            if wire != Wire::RedisTls {
                let proxy = nutcracker(&rig.folder, wire, rig.servers(wire))?;
                rig.proxies.insert((wire, Target::Nutcracker), proxy);
            }
            for (target, workers) in [(Target::Breccia, 1), (Target::BrecciaTwo, 2)] {
                let proxy = rig.breccia(wire, workers)?;
                rig.proxies.insert((wire, target), proxy);
            }
        }
        // Keys lie on the same servers whoever asks through Breccia, over TLS or not.
        for target in [Target::Direct, Target::Nutcracker, Target::Breccia] {
            fill_redis(rig.port(Wire::Redis, target))?;
            memcached::fill(rig.port(Wire::Memcached, target))?;
        }
        Ok(rig)
    }

    /// Whether there is such a way to the servers: nutcracker has no TLS.
    pub(crate) fn has(&self, wire: Wire, target: Target) -> bool {
        target == Target::Direct || self.proxies.contains_key(&(wire, target))
    }

    /// Where a load connects.
    pub(crate) fn port(&self, wire: Wire, target: Target) -> u16 {
        let direct = || match wire {
            Wire::RedisTls => self.tls_ports.first().copied(),
            _ => self.servers(wire).first().map(|server| server.port),
        };
        let proxy = self.proxies.get(&(wire, target));
        proxy.map(|proxy| proxy.port).or_else(direct).unwrap_or(0)
    }

    /// The process between the load and the servers.
    pub(crate) fn proxy(&self, wire: Wire, target: Target) -> Option<&Server> {
        self.proxies.get(&(wire, target))
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

    /// Where the Redis servers listen.
    pub(crate) fn redis_ports(&self) -> Vec<u16> {
        self.redis.iter().map(|server| server.port).collect()
    }

    fn servers(&self, wire: Wire) -> &[Server] {
        match wire {
            Wire::Redis | Wire::RedisTls => &self.redis,
            Wire::Memcached => &self.memcached,
        }
    }

    /// One more Breccia over the same servers.
    pub(crate) fn breccia(&self, wire: Wire, workers: u32) -> Result<Server> {
        let port = process::free_port()?;
        let kind = if wire == Wire::Memcached {
            "memcached"
        } else {
            "redis"
        };
        let folder = self.folder.display();
        let mut config = format!("workers = {workers}\n\n[state]\ndir = '{folder}/state-{port}'\n");
        for (index, server) in self.servers(wire).iter().enumerate() {
            writeln!(config, "\n[store.s{index}]\ntype = \"{kind}\"")?;
            let own = server.port;
            let tls = self.tls_ports.get(index).copied().unwrap_or(0);
            match wire {
                Wire::Redis => writeln!(config, "url = \"redis://127.0.0.1:{own}\"")?,
                Wire::RedisTls => writeln!(
                    config,
                    "url = \"rediss://127.0.0.1:{tls}\"\ntls = {{ ca = '{folder}/ca.pem' }}"
                )?,
                Wire::Memcached => writeln!(config, "address = \"127.0.0.1:{own}\"")?,
            }
        }
        config.push_str("\n[store.all]\ntype = \"sharded-in-memory\"\n");
        config.push_str("stores = [\"s0\", \"s1\", \"s2\"]\n");
        writeln!(
            config,
            "\n[listener.bench]\nprotocol = \"{kind}\"\nstore = \"all\"\n\
             bind = \"127.0.0.1:{port}\"\nmax-clients = 20000"
        )?;
        if wire == Wire::RedisTls {
            writeln!(
                config,
                "tls = {{ cert = '{folder}/cert.pem', key = '{folder}/cert-key.pem' }}"
            )?;
        }
        let path = self.folder.join(format!("breccia-{port}.toml"));
        std::fs::write(&path, config)?;
        let mut command = Command::new(binary());
        command.args(["serve", "--config"]).arg(&path);
        let log = std::fs::File::create(self.folder.join(format!("breccia-{port}.log")))?;
        Server::start(command.stderr(log), port)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.folder);
    }
}

/// A certificate for 127.0.0.1, and the authority that vouches for it.
fn certificate(folder: &Path) -> Result<()> {
    let make = |name: &str, words: &[&str]| -> Result<()> {
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"]);
        command.args(["-pkeyopt", "ec_paramgen_curve:P-256", "-subj"]);
        command.arg(format!("/CN=breccia-bench-{name}"));
        command.arg("-keyout").arg(format!("{name}-key.pem"));
        command.arg("-out").arg(format!("{name}.pem"));
        process::output(command.args(words).current_dir(folder)).map(drop)
    };
    make("ca", &[])?;
    let leaf = [
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca-key.pem",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    ];
    make("cert", &leaf)
}

/// A Redis that writes nothing to disk, with a second port for TLS.
fn redis_server(folder: &Path) -> Result<(Server, u16)> {
    let (port, tls_port) = (process::free_port()?, process::free_port()?);
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    command.args(["--port", &port.to_string(), "--tls-port"]);
    command.arg(tls_port.to_string());
    command.args(["--tls-auth-clients", "no"]);
    for (option, file) in [
        ("--tls-cert-file", "cert.pem"),
        ("--tls-key-file", "cert-key.pem"),
        ("--tls-ca-cert-file", "ca.pem"),
    ] {
        command.arg(option).arg(folder.join(file));
    }
    command.arg("--dir").arg(folder);
    Ok((Server::start(&mut command, port)?, tls_port))
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

/// The release build, or what `BRECCIA_BIN` names.
fn binary() -> PathBuf {
    let built = || process::built("release/breccia");
    std::env::var_os("BRECCIA_BIN").map_or_else(built, Into::into)
}

/// Writes every key with three bytes, as many as redis-benchmark writes.
fn fill_redis(port: u16) -> Result<()> {
    let mut connection = Connection::open(port)?;
    for key in 0..KEYS {
        connection.call(&["SET", &format!("key:{key:012}"), "xxx"])?;
    }
    Ok(())
}
