//! What Breccia says of itself in a server's words: its clients, and INFO.
//!
//! Invariant: every worker tells the same, and what is said of a name has the meaning that a real
//! server gives it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use breccia_testkit::{Redis, RespClient, wait_until};

use crate::common::{Config, Gateway};

fn text(client: &mut RespClient, request: &str) -> Result<String> {
    let reply = client.reply(request)?;
    let bytes = reply
        .bytes()
        .with_context(|| format!("{request}: {reply:?}"))?;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// The fields of each line of CLIENT LIST, by the client's name.
fn list(
    client: &mut RespClient,
    request: &str,
) -> Result<BTreeMap<String, BTreeMap<String, String>>> {
    let text = text(client, request)?;
    let lines = text.lines().map(|line| {
        let fields: BTreeMap<String, String> = line
            .split(' ')
            .filter_map(|field| field.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        (fields["name"].clone(), fields)
    });
    Ok(lines.collect())
}

fn named(gateway: &Gateway, name: &str) -> Result<RespClient> {
    let mut client = gateway.client()?;
    client.words(&format!("CLIENT SETNAME {name}"))?;
    Ok(client)
}

#[test]
fn the_list_of_clients_has_those_of_all_workers() -> Result<()> {
    for shards in [1, 3] {
        let servers = Redis::many(shards)?;
        let gateway = Gateway::over(&servers)?;
        let mut clients: Vec<RespClient> = (0..4)
            .map(|number| named(&gateway, &format!("c{number}")))
            .collect::<Result<_>>()?;
        clients[1].words("HELLO 3")?;
        clients[1].words("SUBSCRIBE a b")?;
        clients[2].words("MULTI")?;
        clients[2].words("SET k v")?;
        clients[2].words("PING")?;
        clients[3].send(b"BLPOP nothing 0\r\n")?;
        let mut asks = named(&gateway, "asks")?;
        asks.words("CLIENT SETINFO LIB-NAME mine")?;
        let all = wait_until(Duration::from_secs(5), "the list", || {
            let all = list(&mut asks, "CLIENT LIST")?;
            Ok((all["c3"]["flags"] == "b").then_some(all))
        })?;
        assert_eq!(all.len(), 5);
        let check = |name: &str, fields: &[(&str, &str)]| {
            for (field, value) in fields {
                assert_eq!(all[name][*field], *value, "{name} {field}");
            }
        };
        check(
            "c0",
            &[
                ("flags", "N"),
                ("cmd", "client"),
                ("multi", "-1"),
                ("resp", "2"),
            ],
        );
        check(
            "c1",
            &[("flags", "P"), ("sub", "2"), ("psub", "0"), ("resp", "3")],
        );
        check("c2", &[("flags", "x"), ("multi", "2"), ("cmd", "ping")]);
        check("c3", &[("cmd", "blpop")]);
        check(
            "asks",
            &[("lib-name", "mine"), ("user", "default"), ("db", "0")],
        );
        assert_eq!(all["asks"]["laddr"], gateway.address());
        let id = &all["c0"]["id"];
        assert_eq!(list(&mut asks, &format!("CLIENT LIST ID {id}"))?.len(), 1);
        assert_eq!(list(&mut asks, "CLIENT LIST TYPE pubsub")?.len(), 1);
        assert_eq!(list(&mut asks, "CLIENT INFO")?.len(), 1);
        // Every field of a real server's line is there.
        let direct = list(&mut servers[0].client()?, "CLIENT INFO")?;
        for field in direct[""].keys() {
            assert!(all["c0"].contains_key(field), "{field}");
        }
        let blocked = &all["c3"]["id"];
        assert_eq!(asks.words(&format!("CLIENT UNBLOCK {blocked}"))?, b":1\r\n");
        clients[3].read_reply()?;
        assert_eq!(list(&mut asks, "CLIENT LIST")?["c3"]["flags"], "N");
        drop(clients);
        wait_until(Duration::from_secs(5), "the clients to be gone", || {
            let left = list(&mut asks, "CLIENT LIST")?;
            Ok((left.len() == 1).then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn clients_are_closed_on_any_worker() -> Result<()> {
    let servers = Redis::many(2)?;
    let gateway = Gateway::over(&servers)?;
    let mut asks = named(&gateway, "asks")?;
    for round in 0..4 {
        let mut client = named(&gateway, "idle")?;
        let all = list(&mut asks, "CLIENT LIST")?;
        let request = match round {
            0 => format!("CLIENT KILL ID {}", all["idle"]["id"]),
            1 => format!("CLIENT KILL ADDR {}", all["idle"]["addr"]),
            2 => format!("CLIENT KILL {}", all["idle"]["addr"]),
            _ => "CLIENT KILL TYPE normal USER default".to_owned(),
        };
        let wanted: &[u8] = if round == 2 { b"+OK\r\n" } else { b":1\r\n" };
        assert_eq!(asks.words(&request)?, wanted, "{request}");
        assert!(client.closed(), "{request}");
    }
    // One that blocks, one that listens, and one that kills itself.
    let mut blocked = gateway.client()?;
    blocked.send(b"BLPOP nothing 0\r\n")?;
    let mut listens = gateway.client()?;
    listens.words("SUBSCRIBE c")?;
    assert_eq!(asks.words("CLIENT KILL TYPE pubsub")?, b":1\r\n");
    assert!(listens.closed());
    assert_eq!(asks.words("CLIENT KILL TYPE normal")?, b":1\r\n");
    assert!(blocked.closed());
    assert_eq!(asks.words("CLIENT KILL TYPE normal SKIPME no")?, b":1\r\n");
    assert!(asks.closed());
    let (_, metrics) = gateway.breccia.admin("/metrics")?;
    assert!(!metrics.contains("client-kill"));
    Ok(())
}

/// The names and values of INFO.
fn info(text: &str) -> BTreeMap<&str, &str> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once(':')).collect()
}

#[test]
fn info_says_what_clients_read() -> Result<()> {
    for shards in [1, 3] {
        let servers = Redis::many(shards)?;
        let gateway = Gateway::over(&servers)?;
        let mut client = gateway.client()?;
        for number in 0..10 {
            client.words(&format!("SET k{number} v"))?;
        }
        let found = text(&mut client, "INFO")?;
        let found = info(&found);
        for (name, value) in [
            ("loading", "0"),
            ("role", "master"),
            ("connected_clients", "1"),
            ("blocked_clients", "0"),
            ("maxmemory_policy", "noeviction"),
            ("redis_mode", "standalone"),
            ("cluster_enabled", "0"),
        ] {
            assert_eq!(found[name], value, "{name}");
        }
        assert!(found["used_memory"].parse::<u64>()? > 1 << 20);
        assert!(found["used_memory_human"].ends_with('M'));
        assert!(found["total_commands_processed"].parse::<u64>()? >= 10);
        assert_eq!(found["tcp_port"], gateway.config.port.to_string());
        assert!(found["uptime_in_seconds"].parse::<u64>()? < 60);
        assert!(!found.contains_key("db0"), "INFO alone asks no shard");
        // Every name is one that a real server gives.
        let direct = text(&mut servers[0].client()?, "INFO everything")?;
        let direct = info(&direct);
        for name in found.keys() {
            assert!(
                direct.contains_key(name) || *name == "breccia_version",
                "{name}"
            );
        }
        assert_eq!(
            text(&mut client, "INFO keyspace")?,
            "# Keyspace\r\ndb0:keys=10\r\n"
        );
        let all = text(&mut client, "INFO all")?;
        assert!(all.contains("cmdstat_set:calls=10\r\n") && all.ends_with("db0:keys=10\r\n"));
        client.words("HELLO 3")?;
        assert!(client.words("INFO keyspace")?.starts_with(b"="));
        client.words("FLUSHALL")?;
        assert!(text(&mut client, "INFO keyspace")?.ends_with("# Keyspace\r\n"));
    }
    Ok(())
}

#[test]
fn info_asks_no_shard_that_is_down() -> Result<()> {
    let mut servers = Redis::many(2)?;
    let gateway = Config::new("redis")?.over(&servers).start()?;
    servers[1].sigstop()?;
    let mut client = gateway.client()?;
    client.set_patience(Duration::from_millis(500))?;
    assert!(text(&mut client, "INFO")?.contains("redis_version"));
    servers[1].sigcont()?;
    servers[1].kill9();
    let refused = wait_until(Duration::from_secs(5), "the shard to be down", || {
        let reply = client.words("INFO keyspace")?;
        Ok(reply.starts_with(b"-").then_some(reply))
    })?;
    assert!(String::from_utf8_lossy(&refused).contains("all/r1"));
    Ok(())
}
