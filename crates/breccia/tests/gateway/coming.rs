//! Listeners and stores that come and go with a reload.
//!
//! Invariant: whoever is connected elsewhere notices nothing.

use std::time::Duration;

use anyhow::{Result, ensure};
use breccia_testkit::{Redis, RespClient, free_port, wait_until};
use serde_json::{Value, json};

use crate::common::{Config, Gateway};

/// How long anything here may take.
const LIMIT: Duration = Duration::from_secs(10);

fn reload(gateway: &Gateway, config: &Config) -> Result<Value> {
    let (code, body) = gateway.breccia.reload(&config.text())?;
    ensure!(code == 200, "{body}");
    Ok(serde_json::from_str(&body)?)
}

/// A second composite, over these servers, and a listener of its own.
fn second(config: &Config, servers: &[Redis], port: u16) -> Config {
    let stores = servers.iter().enumerate().map(|(number, server)| {
        format!(
            "[store.x{number}]\ntype = \"redis\"\nurl = \"{}\"\n",
            server.url()
        )
    });
    let names: Vec<String> = (0..servers.len())
        .map(|number| format!("\"x{number}\""))
        .collect();
    let mut config = config.clone();
    config.tables = format!(
        "{}[store.more]\ntype = \"sharded-in-memory\"\nstores = [{}]\n\
         [listener.second]\nprotocol = \"redis\"\nstore = \"more\"\n\
         bind = \"127.0.0.1:{port}\"\n",
        stores.collect::<String>(),
        names.join(", ")
    );
    config
}

/// Connections that a server has, apart from the one that asks.
fn connections(server: &Redis) -> Result<usize> {
    let list = server.client()?.words("CLIENT LIST")?;
    Ok(String::from_utf8_lossy(&list).matches("id=").count() - 1)
}

#[test]
fn a_listener_and_its_stores_come_serve_and_go() -> Result<()> {
    let (servers, others) = (Redis::many(2)?, Redis::many(2)?);
    let gateway = Gateway::over(&servers)?;
    let mut witness = gateway.client()?;
    assert_eq!(witness.words("SET a 1")?, b"+OK\r\n");
    let port = free_port()?;
    let address = format!("127.0.0.1:{port}");
    let more = second(&gateway.config, &others, port);
    for round in 0..3 {
        let done = reload(&gateway, &more)?;
        let expected = json!(["store.x0", "store.x1", "store.more", "listener.second"]);
        assert_eq!(done["applied"], expected, "{done}");
        assert_eq!(done["needs_restart"], json!([]), "{done}");
        let mut client = RespClient::connect(&address)?;
        for number in 0..20 {
            let expected = format!(":{}\r\n", round + 1);
            assert_eq!(
                client.words(&format!("INCR k{number}"))?,
                expected.as_bytes()
            );
        }
        gateway.ready_within(LIMIT)?;
        let (_, status) = gateway.breccia.admin("/status")?;
        assert!(
            status.contains("\"second\"") && status.contains("\"more\""),
            "{status}"
        );
        let mut subscriber = RespClient::connect(&address)?;
        subscriber.words("SUBSCRIBE c")?;

        let done = reload(&gateway, &gateway.config)?;
        let expected = json!(["listener.second", "store.more", "store.x0", "store.x1"]);
        assert_eq!(done["applied"], expected, "{done}");
        assert!(client.closed() && subscriber.closed());
        wait_until(LIMIT, "the end of the port", || {
            Ok(RespClient::connect(&address).is_err().then_some(()))
        })?;
        for server in &others {
            wait_until(LIMIT, "the end of its connections", || {
                Ok((connections(server)? == 0).then_some(()))
            })?;
        }
        assert_eq!(witness.words("GET a")?, b"$1\r\n1\r\n");
    }
    Ok(())
}

#[test]
fn a_taken_port_refuses_a_reload_whole() -> Result<()> {
    let (servers, others) = (Redis::many(1)?, Redis::many(1)?);
    let gateway = Gateway::over(&servers)?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port();
    let mut more = second(&gateway.config, &others, port);
    more.listener = "max-clients = 77\n".to_owned();
    let (code, body) = gateway.breccia.reload(&more.text())?;
    assert_eq!(code, 400, "{body}");
    assert!(body.contains("listener.second.bind"), "{body}");
    let (_, status) = gateway.breccia.admin("/status")?;
    assert!(
        !status.contains("\"more\"") && !status.contains("77,"),
        "{status}"
    );
    assert!(
        !gateway
            .breccia
            .state_folder()
            .join("more.layout.toml")
            .exists()
    );
    drop(taken);
    reload(&gateway, &more)?;
    let mut client = RespClient::connect(&format!("127.0.0.1:{port}"))?;
    assert_eq!(client.words("SET a 1")?, b"+OK\r\n");
    assert!(
        gateway
            .breccia
            .state_folder()
            .join("more.layout.toml")
            .exists()
    );
    Ok(())
}

#[test]
fn what_was_received_on_a_listener_that_goes_is_answered() -> Result<()> {
    let servers = Redis::many(2)?;
    let port = free_port()?;
    let mut config = Config::new("redis")?.over(&servers);
    let without = config.clone();
    config.tables = format!(
        "[listener.second]\nprotocol = \"redis\"\nstore = \"all\"\nbind = \"127.0.0.1:{port}\"\n"
    );
    let gateway = config.start()?;
    let mut client = RespClient::connect(&format!("127.0.0.1:{port}"))?;
    let requests: Vec<String> = (0..2_000)
        .map(|number| format!("INCR k{number}\r\n"))
        .collect();
    client.send(requests.concat().as_bytes())?;
    assert_eq!(client.read_reply()?, b":1\r\n");
    let done = reload(&gateway, &without)?;
    assert_eq!(done["applied"], json!(["listener.second"]));
    for _ in 1..2_000 {
        assert_eq!(client.read_reply()?, b":1\r\n");
    }
    assert!(client.closed());
    // The store is in use by the other one.
    assert_eq!(gateway.client()?.words("GET k7")?, b"$1\r\n1\r\n");
    Ok(())
}

#[test]
fn a_memcached_listener_over_new_memory_comes_and_goes() -> Result<()> {
    let servers = Redis::many(1)?;
    let gateway = Gateway::over(&servers)?;
    let port = free_port()?;
    let mut config = gateway.config.clone();
    config.tables = format!(
        "[store.m]\ntype = \"memory\"\n[listener.second]\nprotocol = \"memcached\"\n\
         store = \"m\"\nbind = \"127.0.0.1:{port}\"\n"
    );
    let done = reload(&gateway, &config)?;
    assert_eq!(done["applied"], json!(["store.m", "listener.second"]));
    let mut client = breccia_testkit::TextClient::connect(&format!("127.0.0.1:{port}"))?;
    assert_eq!(client.call(b"set a 0 0 1\r\n1\r\n")?, b"STORED\r\n");
    reload(&gateway, &gateway.config)?;
    assert!(client.closed());
    Ok(())
}
