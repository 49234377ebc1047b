//! Connections that all workers of a gateway share (`connections-per = "process"`).
//!
//! The other suites hold of them, too; here is what only they do. Invariant: whoever asks, on
//! whatever worker, is answered in order, over as many connections as the file says.

use std::time::Duration;

use anyhow::{Result, ensure};
use breccia_testkit::{Redis, RespClient};

use crate::common::{Config, Gateway};

const WORKERS: usize = 4;

fn gateway(servers: &[Redis], per: &str) -> Result<Gateway> {
    let more = format!("connections-per = \"{per}\"");
    let mut config = Config::new("redis")?;
    config.top = format!("workers = {WORKERS}\n");
    for (index, server) in servers.iter().enumerate() {
        config = config.redis(&format!("r{index}"), &server.address(), &more);
    }
    config.start()
}

/// How many connections a server has that asked for keys last.
fn that_get(server: &Redis) -> Result<usize> {
    let list = server.client()?.reply("CLIENT LIST")?;
    let list = String::from_utf8_lossy(list.bytes().unwrap_or_default()).into_owned();
    Ok(list.lines().filter(|line| line.contains("cmd=get")).count())
}

fn talk(clients: &mut [RespClient]) -> Result<()> {
    for (number, client) in clients.iter_mut().enumerate() {
        for round in 0..20 {
            let key = format!("k{number}-{round}");
            let replies = client.pipeline(&[
                &format!("SET {key} {round}"),
                &format!("GET {key}"),
                &format!("INCR {key}"),
                &format!("GET {key}"),
            ])?;
            let next = (round + 1).to_string();
            let text = |value: &str| format!("${}\r\n{value}\r\n", value.len()).into_bytes();
            let expected = [
                b"+OK\r\n".to_vec(),
                text(&round.to_string()),
                format!(":{next}\r\n").into_bytes(),
                text(&next),
            ];
            ensure!(replies == expected, "{key}: {replies:?}");
        }
    }
    Ok(())
}

#[test]
fn workers_share_a_connection_to_each_server_if_told_so() -> Result<()> {
    let servers = Redis::many(2)?;
    for (per, expected) in [("worker", WORKERS), ("process", 1)] {
        let gateway = gateway(&servers, per)?;
        let clients: Result<Vec<_>> = (0..16).map(|_| gateway.client()).collect();
        talk(&mut clients?)?;
        for server in &servers {
            assert_eq!(that_get(server)?, expected, "{per}");
        }
    }
    Ok(())
}

#[test]
fn a_trunk_lost_while_idle_is_nobodys_loss() -> Result<()> {
    let servers = Redis::many(2)?;
    let gateway = gateway(&servers, "process")?;
    let clients: Result<Vec<_>> = (0..16).map(|_| gateway.client()).collect();
    let mut clients = clients?;
    talk(&mut clients)?;
    for _ in 0..5 {
        servers[0]
            .client()?
            .reply("CLIENT KILL TYPE normal SKIPME yes")?;
        // The server closes them a moment later. Nothing is under way, so nothing is lost: the next
        // request finds another connection.
        std::thread::sleep(Duration::from_millis(300));
        talk(&mut clients)?;
    }
    Ok(())
}
