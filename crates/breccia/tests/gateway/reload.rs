//! Reloads, seen by clients that stay connected.
//!
//! Invariant: whatever a reload changes or refuses, nobody's connection ends for it.

use std::time::Duration;

use anyhow::{Result, ensure};
use breccia_testkit::{Memcached, Redis, RespClient, Signal, wait_until};
use serde_json::Value;

use crate::common::{Config, Gateway, key_on};

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

/// Over these servers, at the port of a gateway that runs already.
fn moved(gateway: &Gateway, addresses: &[String]) -> Result<Config> {
    let numbered = addresses.iter().enumerate();
    let mut config = numbered.fold(Config::new("redis")?, |config, (number, address)| {
        config.redis(&format!("r{number}"), address, "timeout = \"1s\"")
    });
    config.port = gateway.config.port;
    config.composite.clone_from(&gateway.config.composite);
    Ok(config)
}

fn addresses(servers: &[Redis]) -> Vec<String> {
    servers.iter().map(Redis::address).collect()
}

fn reload(gateway: &Gateway, config: &Config) -> Result<Value> {
    let (code, body) = gateway.breccia.reload(&config.text())?;
    ensure!(code == 200, "{body}");
    Ok(serde_json::from_str(&body)?)
}

#[test]
fn a_shard_that_moves_is_asked_and_remembered_at_its_new_place() -> Result<()> {
    let (mut servers, other) = (Redis::many(2)?, Redis::new()?);
    let mut gateway = Gateway::over(&servers)?;
    let mut client = gateway.client()?;
    let key = key_on(1, 2, "k");
    assert_eq!(client.words(&format!("SET {key} old"))?, b"+OK\r\n");
    other.client()?.words(&format!("SET {key} new"))?;

    let places = [servers[0].address(), other.address()];
    let config = moved(&gateway, &places)?;
    let done = reload(&gateway, &config)?;
    assert_eq!(done["needs_restart"], serde_json::json!([]), "{done}");
    let get = format!("GET {key}");
    wait_until(LIMIT, "the new place", || {
        Ok((client.words(&get)? == b"$3\r\nnew\r\n").then_some(()))
    })?;
    // Nothing is left at the former place: its end is not noticed.
    servers[1].kill9();
    assert_eq!(client.words(&get)?, b"$3\r\nnew\r\n");
    gateway.ready_within(LIMIT)?;
    let log = gateway.breccia.log();
    assert!(log.contains("the shard has a new address"), "{log}");
    // The state folder knows it, too: a swap is refused, by a reload and by a start.
    let swapped = moved(&gateway, &[places[1].clone(), places[0].clone()])?;
    let (code, body) = gateway.breccia.reload(&swapped.text())?;
    assert_eq!(code, 400, "{body}");
    assert!(body.contains("r0") && body.contains("r1"), "{body}");
    assert_eq!(client.words(&get)?, b"$3\r\nnew\r\n");
    gateway.breccia.restart(&config.text())?;
    assert_eq!(gateway.client()?.words(&get)?, b"$3\r\nnew\r\n");
    Ok(())
}

#[test]
fn what_a_moved_shard_cannot_take_along_is_refused_and_its_client_stays() -> Result<()> {
    let servers = Redis::many(2)?;
    let other = Redis::new()?;
    let gateway = Gateway::over(&servers)?;
    let key = key_on(1, 2, "k");
    let mut blocked = gateway.client()?;
    let (mut watching, mut open) = (gateway.client()?, gateway.client()?);
    blocked.send(format!("BLPOP {key} 0\r\n").as_bytes())?;
    watching.words(&format!("WATCH {key}"))?;
    open.pipeline(&["MULTI", &format!("SET {key} 1")])?;
    let mut direct = servers[1].client()?;
    wait_until(LIMIT, "a blocked client", || {
        let clients = direct.words("INFO clients")?.escape_ascii().to_string();
        Ok(clients.contains("blocked_clients:1").then_some(()))
    })?;
    let mut idle = gateway.client()?;
    assert_eq!(
        idle.pipeline(&["MULTI", &format!("SET {key} 0"), "EXEC"])?
            .len(),
        3
    );

    reload(
        &gateway,
        &moved(&gateway, &[servers[0].address(), other.address()])?,
    )?;
    // Long enough for every worker to have heard of it.
    std::thread::sleep(Duration::from_millis(50));
    let set = format!("SET {key} mine");
    let late = watching.pipeline(&["MULTI", &set, "EXEC"])?;
    for late in [&late[2], &open.words("EXEC")?] {
        let late = late.escape_ascii().to_string();
        let told = late.starts_with("-EXECABORT") || late.ends_with("not applied\\r\\n");
        assert!(told, "{late}");
    }
    for client in [&mut watching, &mut open, &mut idle] {
        let done = client.pipeline(&["MULTI", &set, "EXEC"])?;
        assert_eq!(done[2], b"*1\r\n+OK\r\n");
    }
    // What was sent may have been carried out at the former place; nobody knows.
    let reply = blocked.read_reply()?.escape_ascii().to_string();
    assert!(
        reply.starts_with("-SHARDDOWN all/r1 ") && reply.contains("unknown"),
        "{reply}"
    );
    assert_eq!(blocked.words("PING x")?, b"$1\r\nx\r\n");
    assert_eq!(
        other.client()?.words(&format!("GET {key}"))?,
        b"$4\r\nmine\r\n"
    );
    Ok(())
}

#[test]
fn subscribers_of_a_shard_that_moves_stay_and_go_on_to_hear() -> Result<()> {
    let servers = Redis::many(2)?;
    let other = Redis::new()?;
    let gateway = Gateway::over(&servers)?;
    let mut subscriber = gateway.client()?;
    subscriber.words("SUBSCRIBE news")?;
    let heard = |subscriber: &mut RespClient, word: &str| -> Result<()> {
        let message = subscriber.read_reply()?.escape_ascii().to_string();
        ensure!(message.contains(word), "{message}");
        Ok(())
    };
    assert_eq!(servers[1].client()?.words("PUBLISH news one")?, b":1\r\n");
    heard(&mut subscriber, "one")?;
    reload(
        &gateway,
        &moved(&gateway, &[servers[0].address(), other.address()])?,
    )?;
    let mut direct = other.client()?;
    wait_until(LIMIT, "a subscription at the new place", || {
        Ok((direct.words("PUBLISH news two")? == b":1\r\n").then_some(()))
    })?;
    heard(&mut subscriber, "two")?;
    let mut former = servers[1].client()?;
    wait_until(LIMIT, "the end of the former subscription", || {
        Ok((former.words("PUBLISH news three")? == b":0\r\n").then_some(()))
    })?;
    assert_eq!(direct.words("PUBLISH news four")?, b":1\r\n");
    heard(&mut subscriber, "four")?;
    assert_eq!(
        subscriber.words("SUBSCRIBE more")?,
        b"*3\r\n$9\r\nsubscribe\r\n$4\r\nmore\r\n:2\r\n"
    );
    Ok(())
}

#[test]
fn a_marked_shard_that_moves_must_carry_its_marker() -> Result<()> {
    let servers = Redis::many(2)?;
    let other = Redis::new()?;
    let gateway = Config::new("redis")?
        .over(&servers)
        .composite("marker = true")
        .start()?;
    let key = key_on(1, 2, "k");
    let mut client = gateway.client()?;
    let set = format!("SET {key} 1");
    assert_eq!(client.words(&set)?, b"+OK\r\n");
    reload(
        &gateway,
        &moved(&gateway, &[servers[0].address(), other.address()])?,
    )?;
    wait_until(LIMIT, "the refusal of an unmarked server", || {
        Ok(client.words(&set)?.starts_with(b"-SHARDDOWN").then_some(()))
    })?;
    assert_eq!(other.client()?.words("DBSIZE")?, b":0\r\n");
    reload(&gateway, &moved(&gateway, &addresses(&servers))?)?;
    wait_until(LIMIT, "the marked server again", || {
        Ok((client.words(&set)? == b"+OK\r\n").then_some(()))
    })?;
    Ok(())
}

#[test]
fn a_changed_login_and_timeout_hold_for_what_is_sent_next() -> Result<()> {
    let servers = Redis::many(1)?;
    let gateway = Gateway::over(&servers)?;
    let mut client = gateway.client()?;
    assert_eq!(client.words("SET a 1")?, b"+OK\r\n");
    servers[0]
        .client()?
        .words("ACL SETUSER ann on >p ~* &* +@all")?;
    let mut config = Config::new("redis")?.redis(
        "r0",
        &servers[0].address(),
        "user = \"ann\"\npassword = \"p\"\ntimeout = \"300ms\"",
    );
    config.port = gateway.config.port;
    let done = reload(&gateway, &config)?;
    let expected = ["store.r0.user", "store.r0.password", "store.r0.timeout"];
    assert_eq!(done["applied"], serde_json::json!(expected));
    wait_until(LIMIT, "the new user", || {
        let list = servers[0].client()?.words("CLIENT LIST")?;
        let list = String::from_utf8_lossy(&list).into_owned();
        assert_eq!(client.words("GET a")?, b"$1\r\n1\r\n");
        Ok(list.contains("user=ann").then_some(()))
    })?;
    Ok(())
}

#[test]
fn a_mixed_composite_follows_its_servers() -> Result<()> {
    let (servers, other) = (Redis::many(1)?, Redis::new()?);
    let config = |address: &str, port: Option<u16>| -> Result<Config> {
        let mut config = Config::new("redis")?.redis("r0", address, "").memory("m0");
        config.port = port.unwrap_or(config.port);
        Ok(config)
    };
    let gateway = config(&servers[0].address(), None)?.start()?;
    let key = key_on(0, 2, "k");
    let mut client = gateway.client()?;
    assert_eq!(client.words(&format!("SET {key} 1"))?, b"+OK\r\n");
    reload(
        &gateway,
        &config(&other.address(), Some(gateway.config.port))?,
    )?;
    wait_until(LIMIT, "the new place", || {
        assert_eq!(client.words(&format!("SET {key} 2"))?, b"+OK\r\n");
        Ok((other.client()?.words("DBSIZE")? == b":1\r\n").then_some(()))
    })?;
    Ok(())
}

#[test]
fn a_memcached_server_that_moves_is_followed() -> Result<()> {
    let servers = [Memcached::new()?, Memcached::new()?];
    let config = |address: &str, port: Option<u16>| -> Result<Config> {
        let mut config = Config::new("memcached")?.memcached("m0", address, "");
        config.port = port.unwrap_or(config.port);
        Ok(config)
    };
    let gateway = config(&servers[0].address(), None)?.start()?;
    let mut client = gateway.text_client()?;
    assert_eq!(client.call(b"set a 0 0 1\r\n1\r\n")?, b"STORED\r\n");
    let done = reload(
        &gateway,
        &config(&servers[1].address(), Some(gateway.config.port))?,
    )?;
    assert_eq!(done["applied"], serde_json::json!(["store.m0.address"]));
    wait_until(LIMIT, "the new place", || {
        assert_eq!(client.call(b"set a 0 0 1\r\n2\r\n")?, b"STORED\r\n");
        let mut direct = servers[1].client()?;
        Ok(direct
            .call(b"get a\r\n")?
            .starts_with(b"VALUE a")
            .then_some(()))
    })?;
    Ok(())
}

#[test]
fn what_cannot_be_applied_is_named() -> Result<()> {
    let servers = Redis::many(2)?;
    let gateway = Gateway::over(&servers)?;
    let mut config = gateway.config.clone();
    let place = format!("redis://{}\"", servers[1].address());
    config.stores = config
        .stores
        .replace(&place, &format!("{place}\nconnections = 3"));
    let done = reload(&gateway, &config)?;
    assert_eq!(done["applied"], serde_json::json!([]));
    assert_eq!(
        done["needs_restart"],
        serde_json::json!(["store.r1.connections"])
    );
    Ok(())
}
