//! Gateways over real servers, as most tests want them.
//!
//! Not a place for assertions. Invariant: a gateway made here lives in its own folder and has one
//! listener on its own port.

#![allow(dead_code, reason = "several test programs share it; each uses a part")]

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;
use breccia_testkit::{Breccia, Memcached, Redis, RespClient, TextClient, free_port, wait_until};

/// Builds a configuration of members, one composite `all` over them, and one listener.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Top-level keys.
    pub(crate) top: String,
    /// `[store.NAME]` tables.
    pub(crate) stores: String,
    /// Members of the composite, in order.
    pub(crate) members: Vec<String>,
    /// Further keys of the composite.
    pub(crate) composite: String,
    /// `redis` or `memcached`.
    pub(crate) protocol: &'static str,
    /// Further keys of the listener.
    pub(crate) listener: String,
    /// The listener's port.
    pub(crate) port: u16,
    /// Tables after the listener's keys, its users for example.
    pub(crate) tables: String,
}

impl Config {
    /// An empty one.
    pub(crate) fn new(protocol: &'static str) -> Result<Config> {
        Ok(Config {
            top: "workers = 2\n".to_owned(),
            stores: String::new(),
            members: Vec::new(),
            composite: String::new(),
            protocol,
            listener: String::new(),
            port: free_port()?,
            tables: String::new(),
        })
    }

    /// A member over Redis at an address.
    pub(crate) fn redis(mut self, name: &str, address: &str, more: &str) -> Config {
        let _infallible = write!(
            self.stores,
            "[store.{name}]\ntype = \"redis\"\nurl = \"redis://{address}\"\n{more}\n"
        );
        self.members.push(name.to_owned());
        self
    }

    /// A member over memcached at an address.
    pub(crate) fn memcached(mut self, name: &str, address: &str, more: &str) -> Config {
        let _infallible = write!(
            self.stores,
            "[store.{name}]\ntype = \"memcached\"\naddress = \"{address}\"\n{more}\n"
        );
        self.members.push(name.to_owned());
        self
    }

    /// A member in the gateway's own memory.
    pub(crate) fn memory(mut self, name: &str) -> Config {
        let _infallible = write!(self.stores, "[store.{name}]\ntype = \"memory\"\n");
        self.members.push(name.to_owned());
        self
    }

    /// Members `r0`, `r1`, … over these servers.
    pub(crate) fn over(self, redis: &[Redis]) -> Config {
        let numbered = redis.iter().enumerate();
        numbered.fold(self, |config, (index, redis)| {
            config.redis(&format!("r{index}"), &redis.address(), "")
        })
    }

    /// Members `m0`, `m1`, … over these servers.
    pub(crate) fn over_memcached(self, memcached: &[Memcached]) -> Config {
        let numbered = memcached.iter().enumerate();
        numbered.fold(self, |config, (index, memcached)| {
            config.memcached(&format!("m{index}"), &memcached.address(), "")
        })
    }

    /// With further keys of the composite.
    pub(crate) fn composite(mut self, keys: &str) -> Config {
        self.composite.push_str(keys);
        self.composite.push('\n');
        self
    }

    /// With further keys of the listener.
    pub(crate) fn listener(mut self, keys: &str) -> Config {
        self.listener.push_str(keys);
        self.listener.push('\n');
        self
    }

    /// The file's text.
    pub(crate) fn text(&self) -> String {
        let Config {
            top,
            stores,
            composite,
            protocol,
            listener,
            port,
            tables,
            ..
        } = self;
        let members: Vec<String> = self
            .members
            .iter()
            .map(|name| format!("{name:?}"))
            .collect();
        format!(
            "{top}\n{stores}\n[store.all]\ntype = \"sharded-in-memory\"\nstores = [{}]\n{composite}\n\
             [listener.main]\nprotocol = \"{protocol}\"\nstore = \"all\"\n\
             bind = \"127.0.0.1:{port}\"\n{listener}\n{tables}\n",
            members.join(", ")
        )
    }

    /// Starts it.
    pub(crate) fn start(self) -> Result<Gateway> {
        Ok(Gateway {
            breccia: Breccia::start(&self.text())?,
            config: self,
        })
    }
}

/// A running gateway and what it was started from.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) breccia: Breccia,
    pub(crate) config: Config,
}

impl Gateway {
    /// Over plain Redis servers.
    pub(crate) fn over(redis: &[Redis]) -> Result<Gateway> {
        Config::new("redis")?.over(redis).start()
    }

    /// `127.0.0.1:PORT` of the listener.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.config.port)
    }

    /// A Redis client of the listener.
    pub(crate) fn client(&self) -> Result<RespClient> {
        RespClient::connect(&self.address())
    }

    /// A memcached client of the listener.
    pub(crate) fn text_client(&self) -> Result<TextClient> {
        TextClient::connect(&self.address())
    }

    /// Waits until it is ready and has nothing to say of any store.
    pub(crate) fn ready_within(&self, limit: Duration) -> Result<()> {
        wait_until(limit, "readiness", || {
            let (_, body) = self.breccia.admin("/readyz")?;
            Ok((body == "ready\n").then_some(()))
        })
    }
}

/// A key that the plain rule puts on this shard of `count`.
pub(crate) fn key_on(shard: u64, count: u64, salt: &str) -> String {
    (0..u32::MAX)
        .map(|number| format!("{salt}{number}"))
        .find(|key| breccia_core::HashKind::Xxh3_64.hash(key.as_bytes()) % count == shard)
        .unwrap_or_default()
}
