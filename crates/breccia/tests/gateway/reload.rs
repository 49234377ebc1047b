//! Reloads, seen by clients that stay connected.
//!
//! Invariant: whatever a reload changes or refuses, nobody's connection ends for it.

use std::time::Duration;

use anyhow::{Result, ensure};
use breccia_testkit::{Redis, Signal, wait_until};
use serde_json::Value;

use crate::common::Gateway;

/// How long anything here may take.
const LIMIT: Duration = Duration::from_secs(10);

fn status(gateway: &Gateway) -> Result<Value> {
    Ok(serde_json::from_str(&gateway.breccia.admin("/status")?.1)?)
}

#[test]
fn a_broken_file_changes_nothing_and_its_fault_is_in_the_status_and_the_log() -> Result<()> {
    let servers = Redis::many(2)?;
    let mut gateway = Gateway::over(&servers)?;
    let mut client = gateway.client()?;
    assert_eq!(client.words("SET a 1")?, b"+OK\r\n");
    assert_eq!(status(&gateway)?["last_reload"], Value::Null);

    let broken = gateway.config.clone().listener("max-clientz = 3");
    std::fs::write(gateway.breccia.config_path(), broken.text())?;
    gateway.breccia.process().signal(Signal::Hup)?;
    let shown = wait_until(LIMIT, "the reload in /status", || {
        let last = status(&gateway)?["last_reload"].clone();
        Ok((!last.is_null()).then_some(last))
    })?;
    assert_eq!(shown["outcome"], "refused");
    let fault = shown["faults"][0].as_str().unwrap_or_default().to_owned();
    assert!(fault.contains("max-clientz"), "{shown}");
    let log = gateway.breccia.log();
    assert!(
        log.contains("nothing was changed") && log.contains("max-clientz"),
        "{log}"
    );
    assert_eq!(client.words("GET a")?, b"$1\r\n1\r\n");

    // The next good file is shown in its place, with what waits for a restart.
    let mut good = gateway.config.clone().listener("max-clients = 77");
    good.top = "workers = 1\n".to_owned();
    let (code, body) = gateway.breccia.reload(&good.text())?;
    assert_eq!(code, 200, "{body}");
    let last = status(&gateway)?["last_reload"].clone();
    assert_eq!(last["outcome"], "applied");
    assert_eq!(
        last["applied"],
        serde_json::json!(["listener.main.max-clients"])
    );
    assert_eq!(last["needs_restart"], serde_json::json!(["workers"]));
    assert_eq!(last["faults"], Value::Null);
    assert_eq!(client.words("GET a")?, b"$1\r\n1\r\n");
    Ok(())
}

#[test]
fn limits_that_change_hold_for_clients_that_are_connected() -> Result<()> {
    let servers = Redis::many(1)?;
    let gateway = Gateway::over(&servers)?;
    let (mut client, mut quiet) = (gateway.client()?, gateway.client()?);
    assert_eq!(client.words("PING a")?, b"$1\r\na\r\n");
    assert_eq!(quiet.words("PING a")?, b"$1\r\na\r\n");

    let limited = gateway
        .config
        .clone()
        .listener("max-arguments = 16\nidle-timeout = \"2s\"");
    let (code, body) = gateway.breccia.reload(&limited.text())?;
    assert_eq!(code, 200, "{body}");
    // Nobody connects meanwhile: those who are connected see it all the same.
    wait_until(LIMIT, "the new limit", || {
        let reply = client.words("MGET a b c d e f g h i j k l m n o p")?;
        let refused = reply.starts_with(b"-ERR Protocol error");
        Ok(refused.then_some(()))
    })?;
    ensure!(quiet.closed(), "the idle client is still connected");
    Ok(())
}
