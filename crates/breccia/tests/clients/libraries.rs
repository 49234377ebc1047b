//! Redis libraries of other languages.
//!
//! What they do is in the scripts beside this file. Invariant: a script that ends well has said so.

use anyhow::Result;
use breccia_testkit::{Redis, RedisOptions};

use crate::common::{Config, Gateway};
use crate::queues::twins;
use crate::{javascript, python};

fn redis_py(port: u16, password: &str, more: &[&str]) -> Result<()> {
    let port = port.to_string();
    let text = python("redis_py.py", &[&[port.as_str(), password], more].concat())?;
    for good in ["good in RESP2", "good in RESP3", "asyncio: good"] {
        assert!(text.contains(good), "{text}");
    }
    Ok(())
}

#[test]
fn redis_py_works_as_over_one_redis() -> Result<()> {
    let servers = Redis::many(3)?;
    redis_py(Gateway::over(&servers)?.config.port, "-", &[])
}

#[test]
fn redis_py_works_with_hash_tags_as_over_one_redis() -> Result<()> {
    let servers = Redis::many(3)?;
    let (direct, gateway) = twins(&servers)?;
    for port in [direct.port(), gateway.config.port] {
        redis_py(port, "-", &["tagged"])?;
    }
    Ok(())
}

#[test]
fn redis_py_works_with_a_password() -> Result<()> {
    let direct = Redis::start(RedisOptions {
        password: Some("pass-word".to_owned()),
        ..RedisOptions::default()
    })?;
    redis_py(direct.port(), "pass-word", &[])?;
    let servers = Redis::many(2)?;
    let mut config = Config::new("redis")?.over(&servers);
    config.tables =
        "[[listener.main.user]]\nname = \"default\"\npassword = \"pass-word\"\n".to_owned();
    redis_py(config.start()?.config.port, "pass-word", &[])
}

#[test]
fn ioredis_works_as_over_one_redis() -> Result<()> {
    let servers = Redis::many(3)?;
    let plain = Gateway::over(&servers)?;
    let text = javascript("ioredis.js", &[&plain.config.port.to_string()])?;
    assert!(text.contains("ioredis: good"), "{text}");
    let (direct, gateway) = twins(&servers)?;
    for port in [direct.port(), gateway.config.port] {
        let text = javascript("ioredis.js", &[&port.to_string(), "tagged"])?;
        assert!(text.contains("ioredis: good"), "{text}");
    }
    Ok(())
}
