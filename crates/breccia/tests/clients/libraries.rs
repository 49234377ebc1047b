//! Redis libraries of other languages.
//!
//! What they do is in the scripts beside this file. Invariant: a script that ends well has said so.

use anyhow::Result;
use breccia_testkit::{Redis, RedisOptions};

use crate::common::{Config, Gateway};
use crate::{javascript, python};

fn redis_py(port: u16, password: &str) -> Result<()> {
    let text = python("redis_py.py", &[&port.to_string(), password])?;
    for good in ["good in RESP2", "good in RESP3", "asyncio: good"] {
        assert!(text.contains(good), "{text}");
    }
    Ok(())
}

#[test]
fn redis_py_works_as_over_one_redis() -> Result<()> {
    let (direct, servers) = (Redis::new()?, Redis::many(3)?);
    redis_py(direct.port(), "-")?;
    redis_py(Gateway::over(&servers)?.config.port, "-")
}

#[test]
fn redis_py_works_with_a_password() -> Result<()> {
    let direct = Redis::start(RedisOptions {
        password: Some("pass-word".to_owned()),
        ..RedisOptions::default()
    })?;
    redis_py(direct.port(), "pass-word")?;
    let servers = Redis::many(2)?;
    let mut config = Config::new("redis")?.over(&servers);
    config.tables =
        "[[listener.main.user]]\nname = \"default\"\npassword = \"pass-word\"\n".to_owned();
    redis_py(config.start()?.config.port, "pass-word")
}

#[test]
fn ioredis_works_as_over_one_redis() -> Result<()> {
    let (direct, servers) = (Redis::new()?, Redis::many(3)?);
    let gateway = Gateway::over(&servers)?;
    for port in [direct.port(), gateway.config.port] {
        let text = javascript("ioredis.js", &[&port.to_string()])?;
        assert!(text.contains("ioredis: good"), "{text}");
    }
    Ok(())
}
