//! One Redis, and a gateway over others, given the same history.
//!
//! Invariant: both sides start empty, and every request goes to both.

use anyhow::Result;
use breccia_testkit::{Redis, RedisOptions, RespClient};

use crate::common::{Config, Gateway};

/// Differences shown at most; the rest is counted.
const SHOWN: usize = 40;

/// A Redis that looks at its timers often, so that tests of timeouts are short.
pub(crate) fn redis() -> Result<Redis> {
    let arguments = ["--hz", "500", "--dynamic-hz", "no"]
        .map(str::to_owned)
        .to_vec();
    Redis::start(RedisOptions {
        arguments,
        ..RedisOptions::default()
    })
}

/// Several of them.
pub(crate) fn servers(count: usize) -> Result<Vec<Redis>> {
    (0..count).map(|_| redis()).collect()
}

/// Both sides.
#[derive(Debug)]
pub(crate) struct Twins {
    pub(crate) direct: Redis,
    pub(crate) servers: Vec<Redis>,
    pub(crate) gateway: Gateway,
}

impl Twins {
    /// One Redis, and a gateway over `shards` of them.
    pub(crate) fn over(shards: usize) -> Result<Twins> {
        Twins::with(shards, "", "")
    }

    /// The same, with further keys of the composite and of its members.
    pub(crate) fn with(shards: usize, composite: &str, members: &str) -> Result<Twins> {
        let servers = servers(shards)?;
        // What is compared is what is said, not how fast: a busy machine must not change a reply.
        let config = Config::new("redis")?.listener("deadline = \"10s\"");
        let numbered = servers.iter().enumerate();
        let config = numbered.fold(config.composite(composite), |config, (number, server)| {
            config.redis(&format!("r{number}"), &server.address(), members)
        });
        let gateway = config.start()?;
        Ok(Twins {
            direct: redis()?,
            servers,
            gateway,
        })
    }

    /// One client of each side: direct, and through the gateway.
    pub(crate) fn clients(&self, version: u8) -> Result<[RespClient; 2]> {
        let mut clients = [self.direct.client()?, self.gateway.client()?];
        for client in &mut clients {
            client.words(&format!("HELLO {version}"))?;
        }
        Ok(clients)
    }
}

/// Fails with the differences, if there are any.
pub(crate) fn none(what: &str, differences: &[String]) {
    let shown = differences
        .iter()
        .take(SHOWN)
        .cloned()
        .collect::<Vec<_>>()
        .join("\n");
    let count = differences.len();
    assert!(
        differences.is_empty(),
        "{what}: {count} differences\n{shown}"
    );
}

/// One difference, for people.
pub(crate) fn difference(what: &str, wanted: &[u8], found: &[u8]) -> String {
    let cut = |reply: &[u8]| {
        let text = reply.escape_ascii().to_string();
        if text.len() > 600 {
            format!("{}… ({} bytes)", &text[..600], reply.len())
        } else {
            text
        }
    };
    format!(
        "{what}\n  direct:  {}\n  through: {}",
        cut(wanted),
        cut(found)
    )
}
