//! Queues and caches built on Redis, over three shards with hash tags on.
//!
//! What they do is in the scripts beside this file, what each needs in `docs/redis-libraries.md`. Invariant:
//! a script does the same against one Redis and through the gateway, and knows no difference.

use std::process::Command;

use anyhow::Result;
use breccia_testkit::Redis;

use crate::common::{Config, Gateway};
use crate::{javascript, python, run, script};

/// The placement that libraries with a tagged prefix need.
pub(crate) const HASH_TAG: &str = "hash-tag = \"{}\"";

/// A gateway over three of these, and one Redis without.
pub(crate) fn twins(servers: &[Redis]) -> Result<(Redis, Gateway)> {
    let config = Config::new("redis")?.over(servers).composite(HASH_TAG);
    Ok((Redis::new()?, config.start()?))
}

/// What the script says in the end, against one Redis and through the gateway.
fn check(good: &str, program: impl Fn(&str) -> Result<String>) -> Result<()> {
    let servers = Redis::many(3)?;
    let (direct, gateway) = twins(&servers)?;
    for port in [direct.port(), gateway.config.port] {
        let text = program(&port.to_string())?;
        assert!(text.contains(good), "port {port}: {text}");
    }
    Ok(())
}

#[test]
fn celery_works_as_over_one_redis() -> Result<()> {
    check("celery: good", |port| python("celery_redis.py", &[port]))
}

#[test]
fn rq_works_as_over_one_redis() -> Result<()> {
    check("rq: good", |port| python("rq_queue.py", &[port]))
}

#[test]
fn bullmq_works_as_over_one_redis() -> Result<()> {
    check("bullmq: good", |port| javascript("bullmq.js", &[port]))
}

#[test]
fn sidekiq_works_as_over_one_redis() -> Result<()> {
    check("sidekiq: good", |port| {
        run(Command::new("ruby").arg(script("sidekiq.rb")).arg(port))
    })
}

#[test]
fn django_caches_work_as_over_one_redis() -> Result<()> {
    for prefix in ["{django}", "plain"] {
        check("django: good", |port| {
            python("django_cache.py", &[port, prefix])
        })?;
    }
    Ok(())
}
