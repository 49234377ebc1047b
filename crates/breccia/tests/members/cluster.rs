//! A Redis Cluster as a store: its slots move and its servers fail, and clients see one Redis.
//!
//! Invariant: what a client sees is held against what one server would have said.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use breccia_testkit::{Breccia, RedisCluster, Reply, RespClient, free_port, wait_until};

use super::load::Load;
use super::sentinel::gets;

const FAILED_AFTER: Duration = Duration::from_millis(1500);

fn config(cluster: &RedisCluster, port: u16, seeds: usize) -> String {
    format!(
        "workers = 2\n[store.c]\ntype = \"redis-cluster\"\nurls = [{}]\n\
         [listener.l]\nprotocol = \"redis\"\nbind = \"127.0.0.1:{port}\"\nstore = \"c\"\n",
        cluster.urls(seeds)
    )
}

fn client(port: u16) -> Result<RespClient> {
    RespClient::connect(&format!("127.0.0.1:{port}"))
}

fn check(client: &mut RespClient, request: &str, wanted: &str) -> Result<()> {
    let reply = client.words(request)?;
    let reply = String::from_utf8_lossy(&reply).replace("\r\n", " ");
    ensure!(
        reply.trim_end() == wanted,
        "{request}: {reply} instead of {wanted}"
    );
    Ok(())
}

#[test]
fn commands_of_one_key_and_of_many_work_over_all_slots() -> Result<()> {
    let cluster = RedisCluster::start(3, false, FAILED_AFTER)?;
    let port = free_port()?;
    let gateway = Breccia::start(&config(&cluster, port, 1))?;
    let mut client = client(port)?;
    for number in 0..200 {
        check(&mut client, &format!("SET k:{number} {number}"), "+OK")?;
    }
    for server in 0..3 {
        let held = cluster.client(server)?.reply("DBSIZE")?.integer();
        ensure!(held.unwrap_or(0) > 30, "server {server} holds {held:?}");
    }
    check(
        &mut client,
        "MGET k:1 k:2 none k:3",
        "*4 $1 1 $1 2 $-1 $1 3",
    )?;
    check(&mut client, "MSET a 1 b 2 c 3 {t}a 4 {t}b 5", "+OK")?;
    check(&mut client, "EXISTS a b c d", ":3")?;
    check(&mut client, "DEL a b c d", ":3")?;
    check(&mut client, "DBSIZE", ":202")?;
    let crossed = client.reply("SINTER k:1 k:2")?;
    ensure!(
        crossed
            .error()
            .is_some_and(|text| text.starts_with("CROSSSLOT")),
        "{crossed:?}"
    );
    check(&mut client, "RENAME {t}a {t}c", "+OK")?;
    check(&mut client, "MULTI", "+OK")?;
    check(&mut client, "INCR {t}b", "+QUEUED")?;
    check(&mut client, "GET {t}c", "+QUEUED")?;
    check(&mut client, "EXEC", "*2 :6 $1 4")?;
    scripts_and_scans(&mut client)?;
    check(&mut client, "LPUSH q 1", ":1")?;
    check(&mut client, "BLPOP q 1", "*2 $1 q $1 1")?;
    check(&mut client, "WAIT 0 10", ":0")?;
    check(&mut client, "FLUSHALL", "+OK")?;
    check(&mut client, "DBSIZE", ":0")?;
    let (_, status) = gateway.admin("/status")?;
    ensure!(status.contains("\"slots\": 5461"), "{status}");
    let (_, metrics) = gateway.admin("/metrics")?;
    let counted = "breccia_store_requests_total{store=\"c\",outcome=\"ok\"}";
    ensure!(metrics.contains(counted), "{metrics}");
    Ok(())
}

fn scripts_and_scans(client: &mut RespClient) -> Result<()> {
    check(
        client,
        "EVAL return{KEYS[1],ARGV[1]} 1 k:7 x",
        "*2 $3 k:7 $1 x",
    )?;
    let sha = client.reply("SCRIPT LOAD return{KEYS[1]}")?;
    let sha = String::from_utf8_lossy(sha.bytes().context("a digest")?).into_owned();
    for number in 0..20 {
        let wanted = format!("*1 ${} k:{number}", format!("k:{number}").len());
        check(client, &format!("EVALSHA {sha} 1 k:{number}"), &wanted)?;
    }
    let (mut cursor, mut found) = ("0".to_owned(), BTreeSet::new());
    loop {
        let page = client.reply(&format!("SCAN {cursor} COUNT 50"))?;
        let [next, keys] = page.elements() else {
            anyhow::bail!("no page: {page:?}");
        };
        found.extend(
            keys.elements()
                .iter()
                .filter_map(Reply::bytes)
                .map(<[u8]>::to_vec),
        );
        cursor = String::from_utf8_lossy(next.bytes().context("a cursor")?).into_owned();
        if cursor == "0" {
            break;
        }
    }
    ensure!(found.len() == 202, "{} keys were found", found.len());
    Ok(())
}

#[test]
fn messages_reach_subscribers_once() -> Result<()> {
    let cluster = RedisCluster::start(3, false, FAILED_AFTER)?;
    let port = free_port()?;
    let _gateway = Breccia::start(&config(&cluster, port, 3))?;
    let (mut subscriber, mut publisher) = (client(port)?, client(port)?);
    subscriber.send(b"SUBSCRIBE a b c\r\n")?;
    for _ in 0..3 {
        subscriber.read_reply()?;
    }
    for channel in ["a", "b", "c", "a"] {
        publisher.words(&format!("PUBLISH {channel} m-{channel}"))?;
    }
    // Servers of a cluster pass messages on to each other; their order between channels is open.
    let mut heard: Vec<String> = Vec::new();
    for _ in 0..4 {
        let message = Reply::parse(&subscriber.read_reply()?)?;
        let text = message.elements().last().and_then(Reply::bytes);
        heard.extend(text.map(|it| String::from_utf8_lossy(it).into_owned()));
    }
    heard.sort();
    ensure!(heard == ["m-a", "m-a", "m-b", "m-c"], "{heard:?}");
    subscriber.set_patience(Duration::from_millis(300))?;
    ensure!(subscriber.read_reply().is_err(), "a message came twice");
    let refusal = publisher.reply("SSUBSCRIBE a")?;
    ensure!(
        refusal
            .error()
            .is_some_and(|text| text.contains("redis-cluster")),
        "{refusal:?}"
    );
    Ok(())
}

#[test]
fn a_move_of_a_slot_is_not_seen_whatever_the_moment() -> Result<()> {
    let cluster = RedisCluster::start(3, false, FAILED_AFTER)?;
    let port = free_port()?;
    let _gateway = Breccia::start(&config(&cluster, port, 3))?;
    let mut client = client(port)?;
    let slot = u16::try_from(client_slot(&cluster, "{t}")?)?;
    let from = owner(&cluster, slot)?;
    let to = (from + 1) % 3;
    check(&mut client, "MSET {t}1 1 {t}2 2 {t}3 3", "+OK")?;
    cluster.begin_move(slot, from, to)?;
    ensure!(cluster.move_keys(slot, from, to, 1)? == 1);
    // Some keys are here, some there, and new ones are made.
    for number in 1..=3 {
        check(
            &mut client,
            &format!("GET {{t}}{number}"),
            &format!("$1 {number}"),
        )?;
        check(
            &mut client,
            &format!("INCR {{t}}{number}"),
            &format!(":{}", number + 1),
        )?;
    }
    check(&mut client, "SET {t}new n", "+OK")?;
    check(&mut client, "GET {t}new", "$1 n")?;
    // Keys on both sides at once: nobody can answer until they are together.
    let begun = Instant::now();
    let split = client.reply("MGET {t}1 {t}2 {t}3")?;
    let text = split.error().context("an error")?;
    ensure!(
        text.contains("no server of the cluster took the request in time"),
        "{text}"
    );
    ensure!(text.contains("not applied"), "{text}");
    ensure!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    cluster.move_keys(slot, from, to, usize::MAX)?;
    check(&mut client, "MGET {t}1 {t}2 {t}3", "*3 $1 2 $1 3 $1 4")?;
    // A transaction cannot be sent elsewhere: it fails as a whole, and says so.
    check(&mut client, "MULTI", "+OK")?;
    let queued = client.reply("INCR {t}1")?;
    let outcome = client.reply("EXEC")?;
    ensure!(
        queued.error().is_some_and(|text| text.contains("moving")),
        "{queued:?}"
    );
    ensure!(
        outcome
            .error()
            .is_some_and(|text| text.starts_with("EXECABORT")),
        "{outcome:?}"
    );
    cluster.end_move(slot, to)?;
    check(&mut client, "INCR {t}1", ":3")?;
    check(&mut client, "MULTI", "+OK")?;
    check(&mut client, "INCR {t}1", "+QUEUED")?;
    check(&mut client, "EXEC", "*1 :4")?;
    Ok(())
}

fn client_slot(cluster: &RedisCluster, key: &str) -> Result<i64> {
    let slot = cluster
        .client(0)?
        .reply(&format!("CLUSTER KEYSLOT {key}"))?;
    slot.integer().context("a slot")
}

fn owns(cluster: &RedisCluster, server: usize, slot: u16) -> bool {
    let share = 16_384 / cluster.primaries();
    usize::from(slot) / share == server
}

/// The server of three that has a slot.
fn owner(cluster: &RedisCluster, slot: u16) -> Result<usize> {
    let owner = (0..3).find(|server| owns(cluster, *server, slot));
    owner.context("an owner")
}

/// Moves some slots that hold keys from server to server, there and back.
fn move_slots(cluster: &RedisCluster, from: usize, to: usize, slots: u16) -> Result<()> {
    let first = u16::try_from(16_384 * from / cluster.primaries())? + 10;
    for slot in first..first + slots {
        cluster.move_slot(slot, from, to)?;
    }
    for slot in first..first + slots {
        cluster.move_slot(slot, to, from)?;
    }
    Ok(())
}

#[test]
fn a_blocked_client_follows_its_list_to_another_server() -> Result<()> {
    let cluster = RedisCluster::start(3, false, FAILED_AFTER)?;
    let port = free_port()?;
    let _gateway = Breccia::start(&config(&cluster, port, 3))?;
    let (mut blocked, mut other) = (client(port)?, client(port)?);
    let slot = u16::try_from(client_slot(&cluster, "l")?)?;
    let from = owner(&cluster, slot)?;
    for turn in 0..20 {
        blocked.send(b"BLPOP l 0\r\n")?;
        thread::sleep(Duration::from_millis(150));
        let (here, there) = if turn % 2 == 0 {
            (from, (from + 1) % 3)
        } else {
            ((from + 1) % 3, from)
        };
        cluster.move_slot(slot, here, there)?;
        thread::sleep(Duration::from_millis(150));
        check(&mut other, &format!("LPUSH l {turn}"), ":1")?;
        let popped = Reply::parse(&blocked.read_reply()?)?;
        let value = popped.elements().last().and_then(Reply::bytes);
        ensure!(
            value == Some(turn.to_string().as_bytes()),
            "{turn}: {popped:?}"
        );
        check(&mut blocked, "EXISTS l", ":0")?;
    }
    Ok(())
}

/// Asks for a key whose slot stands half-way: its server sends whoever asks on to the other one.
fn ask_for_a_moving_key(cluster: &RedisCluster, port: u16) -> Result<()> {
    let mut client = client(port)?;
    check(&mut client, "SET half-way here", "+OK")?;
    let slot = u16::try_from(client_slot(cluster, "half-way")?)?;
    let (from, to) = (owner(cluster, slot)?, (owner(cluster, slot)? + 1) % 3);
    cluster.begin_move(slot, from, to)?;
    cluster.move_keys(slot, from, to, usize::MAX)?;
    for _ in 0..10 {
        check(&mut client, "EXISTS half-way", ":1")?;
    }
    cluster.end_move(slot, to)
}

#[test]
fn slots_move_under_load_and_no_client_sees_it() -> Result<()> {
    let cluster = RedisCluster::start(3, false, FAILED_AFTER)?;
    let port = free_port()?;
    let gateway = Breccia::start(&config(&cluster, port, 3))?;
    let load = Load::start(port, 4, false);
    thread::sleep(Duration::from_millis(300));
    move_slots(&cluster, 0, 1, 300)?;
    move_slots(&cluster, 2, 0, 300)?;
    ask_for_a_moving_key(&cluster, port)?;
    let met = load.finish()?;
    println!("{} requests, errors: {:?}", met.answered, met.errors);
    ensure!(
        met.failed == 0,
        "{} of {} failed: {:?}",
        met.failed,
        met.answered,
        met.errors
    );
    for kind in ["moved", "ask"] {
        let name = format!("breccia_cluster_redirects_total{{store=\"c\",kind=\"{kind}\"}}");
        let count = gateway.metric(&name)?;
        println!("{count} redirections: {kind}");
        ensure!(count > 0.0, "nothing was redirected: {kind}");
    }
    Ok(())
}

#[test]
fn a_million_requests_while_slots_move_and_a_primary_is_lost() -> Result<()> {
    let requests = std::env::var("BRECCIA_CLUSTER_REQUESTS");
    let requests: u64 = requests
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1_000_000);
    let mut cluster = RedisCluster::start(3, true, FAILED_AFTER)?;
    let port = free_port()?;
    let gateway = Breccia::start(&config(&cluster, port, 2))?;
    let load = Load::start(port, 6, true);
    move_slots(&cluster, 0, 1, 100)?;
    while load.sent() < requests / 3 {
        thread::sleep(Duration::from_millis(20));
    }
    cluster.servers[2].kill9();
    // The replica takes over; until then keys of that server fail.
    wait_until(Duration::from_secs(30), "the replica to take over", || {
        let role = cluster.client(5)?.call(&[b"ROLE"])?;
        Ok(String::from_utf8_lossy(&role)
            .contains("master\r\n:")
            .then_some(()))
    })?;
    let promoted = Instant::now();
    let mut client = client(port)?;
    wait_until(Duration::from_secs(10), "all slots to be served", || {
        for number in 0..60 {
            if client.words(&format!("SET probe:{number} v"))? != b"+OK\r\n" {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })?;
    println!(
        "all slots were served {:?} after the promotion",
        promoted.elapsed()
    );
    ensure!(
        promoted.elapsed() < Duration::from_secs(2),
        "{:?}",
        promoted.elapsed()
    );
    move_slots(&cluster, 1, 0, 100)?;
    while load.sent() < requests {
        thread::sleep(Duration::from_millis(20));
    }
    let met = load.finish()?;
    println!(
        "{} requests, {} failed: {:#?}",
        met.answered, met.failed, met.errors
    );
    let log = gateway.log();
    ensure!(log.contains("has lost its slots"), "{log}");
    Ok(())
}

#[test]
fn somebody_elses_server_at_an_address_of_the_cluster_gets_nothing() -> Result<()> {
    let cluster = RedisCluster::start(3, false, FAILED_AFTER)?;
    let port = free_port()?;
    let gateway = Breccia::start(&config(&cluster, port, 1))?;
    let mut client = client(port)?;
    check(&mut client, "SET k:0 v", "+OK")?;
    check(&mut client, "FLUSHALL", "+OK")?;
    // Another cluster from here on, of one server, which claims everything with a high epoch.
    let mut foreign = cluster.client(0)?;
    foreign.expect_ok(&[b"CLUSTER", b"RESET", b"HARD"])?;
    foreign.expect_ok(&[b"CLUSTER", b"SET-CONFIG-EPOCH", b"50"])?;
    foreign.expect_ok(&[b"CLUSTER", b"ADDSLOTSRANGE", b"0", b"16383"])?;
    wait_until(Duration::from_secs(10), "the stranger to be seen", || {
        Ok(gateway.log().contains("not of this cluster").then_some(()))
    })?;
    let (mut taken, mut refused) = (0, 0);
    for number in 0..200 {
        let reply = client.words(&format!("SET k:{number} v"))?;
        let reply = String::from_utf8_lossy(&reply).into_owned();
        if reply == "+OK\r\n" {
            taken += 1;
        } else {
            ensure!(reply.starts_with("-SHARDDOWN"), "{reply}");
            ensure!(reply.contains("not applied"), "{reply}");
            refused += 1;
        }
    }
    ensure!(foreign.reply("DBSIZE")?.integer() == Some(0));
    ensure!(
        taken > 80 && refused > 30,
        "{taken} taken, {refused} refused"
    );
    let told = gateway.log().matches("not of this cluster").count();
    ensure!(told < 5, "it is logged {told} times");
    Ok(())
}

#[test]
fn a_lost_server_of_the_cluster_is_noticed_however_rarely_it_is_probed() -> Result<()> {
    let mut cluster = RedisCluster::start(3, true, FAILED_AFTER)?;
    let port = free_port()?;
    let text = config(&cluster, port, 2);
    let text = text.replace("[listener.l]", "probe-interval = \"20s\"\n[listener.l]");
    let _gateway = Breccia::start(&text)?;
    let mut client = client(port)?;
    for number in 0..60 {
        check(&mut client, &format!("SET k:{number} v"), "+OK")?;
    }
    cluster.servers[2].kill9();
    let begun = Instant::now();
    wait_until(Duration::from_secs(12), "all slots to be served", || {
        for number in 0..60 {
            if client.words(&format!("SET k:{number} v"))? != b"+OK\r\n" {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })?;
    println!("all slots were served after {:?}", begun.elapsed());
    Ok(())
}

#[test]
fn the_gateway_starts_without_the_cluster_and_heals() -> Result<()> {
    let cluster = RedisCluster::start(3, false, FAILED_AFTER)?;
    let (port, dead) = (free_port()?, free_port()?);
    let good = config(&cluster, port, 1);
    let bad = good.replace(&cluster.urls(1), &format!("\"redis://127.0.0.1:{dead}\""));
    let gateway = Breccia::start_unready(&bad)?;
    let mut client = client(port)?;
    let refusal = client.reply("GET k")?;
    let text = refusal.error().context("an error was expected")?;
    ensure!(text.starts_with("SHARDDOWN c is unreachable"), "{text}");
    let (status, answer) = gateway.reload(&good)?;
    ensure!(status == 200, "{answer}");
    wait_until(Duration::from_secs(5), "the cluster to be found", || {
        Ok((client.call(&[b"SET", b"k", b"v"])? == b"+OK\r\n").then_some(()))
    })?;
    let timeouts = good.replace("[listener.l]", "timeout = \"9s\"\n[listener.l]");
    let (status, answer) = gateway.reload(&timeouts)?;
    ensure!(
        status == 200 && answer.contains("store.c.timeout"),
        "{answer}"
    );
    check(&mut client, "GET k", "$1 v")?;
    Ok(())
}

#[test]
fn a_composite_holds_clusters_beside_single_servers() -> Result<()> {
    let cluster = RedisCluster::start(3, false, FAILED_AFTER)?;
    let single = breccia_testkit::Redis::new()?;
    let port = free_port()?;
    let text = format!(
        "{}\n[store.r]\ntype = \"redis\"\nurl = \"{}\"\n[store.all]\ntype = \"sharded-in-memory\"\n\
         stores = [\"c\", \"r\"]\n",
        config(&cluster, port, 2).replace("store = \"c\"", "store = \"all\""),
        single.url()
    );
    let _gateway = Breccia::start(&text)?;
    let mut client = client(port)?;
    let (mut set, mut get) = (vec!["MSET".to_owned()], vec!["MGET".to_owned()]);
    for number in 0..100 {
        set.extend([format!("k:{number}"), format!("v:{number}")]);
        get.push(format!("k:{number}"));
    }
    check(&mut client, &set.join(" "), "+OK")?;
    let got = client.reply(&get.join(" "))?;
    for (number, value) in got.elements().iter().enumerate() {
        ensure!(
            value.bytes() == Some(format!("v:{number}").as_bytes()),
            "{number}: {value:?}"
        );
    }
    check(&mut client, "DBSIZE", ":100")?;
    let held = single.client()?.reply("DBSIZE")?.integer().unwrap_or(0);
    ensure!(
        (30..70).contains(&held),
        "{held} keys are on the single server"
    );
    Ok(())
}

#[test]
fn replicas_of_a_cluster_answer_reads_where_configured() -> Result<()> {
    let mut cluster = RedisCluster::start(3, true, FAILED_AFTER)?;
    let port = free_port()?;
    let text = config(&cluster, port, 2);
    let text = text.replace("[listener.l]", "read-from-replicas = true\n[listener.l]");
    let _gateway = Breccia::start(&text)?;
    let mut client = client(port)?;
    for number in 0..60 {
        check(&mut client, &format!("SET k:{number} {number}"), "+OK")?;
    }
    let answered = |server: usize| gets(&mut cluster.client(server)?);
    // It takes a moment until all servers have heard who follows whom.
    wait_until(Duration::from_secs(5), "all replicas to answer", || {
        for number in 0..60 {
            client.words(&format!("GET k:{number}"))?;
        }
        Ok((answered(3)? > 0 && answered(4)? > 0 && answered(5)? > 0).then_some(()))
    })?;
    let before = answered(0)? + answered(1)? + answered(2)?;
    for number in 0..60 {
        let wanted = format!("${} {number}", number.to_string().len());
        check(&mut client, &format!("GET k:{number}"), &wanted)?;
    }
    let after = answered(0)? + answered(1)? + answered(2)?;
    ensure!(
        after == before,
        "primaries answered {} reads",
        after - before
    );
    check(&mut client, "MULTI", "+OK")?;
    check(&mut client, "GET k:1", "+QUEUED")?;
    check(&mut client, "EXEC", "*1 $1 1")?;
    for server in 3..6 {
        cluster.servers[server].kill9();
    }
    thread::sleep(Duration::from_millis(500));
    for number in 0..60 {
        let wanted = format!("${} {number}", number.to_string().len());
        let read = format!("GET k:{number}");
        wait_until(Duration::from_secs(5), "the primary to answer", || {
            Ok(check(&mut client, &read, &wanted).ok())
        })?;
    }
    Ok(())
}

#[test]
fn a_check_tells_a_cluster_from_what_is_none() -> Result<()> {
    let cluster = RedisCluster::start(3, false, FAILED_AFTER)?;
    let single = breccia_testkit::Redis::new()?;
    let folder = tempfile::tempdir()?;
    let look = |config: &str| -> Result<(bool, String)> {
        std::fs::write(folder.path().join("b.toml"), config)?;
        let output = Breccia::run(folder.path(), &["check", "--config", "b.toml", "--connect"])?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        Ok((output.status.success(), said))
    };
    let good = config(&cluster, free_port()?, 1);
    let (fine, said) = look(&good)?;
    ensure!(fine && said.contains("a cluster of 3 primaries"), "{said}");
    let (fine, said) = look(&good.replace(&cluster.urls(1), &format!("\"{}\"", single.url())))?;
    ensure!(!fine && said.contains("cluster support disabled"), "{said}");
    Ok(())
}

#[test]
fn a_cluster_with_a_password_is_entered_and_a_wrong_one_is_told() -> Result<()> {
    let cluster = RedisCluster::start_with(3, true, FAILED_AFTER, Some("s3cret"))?;
    let port = free_port()?;
    let text = |password: &str| {
        let keys = format!("password = \"{password}\"\nread-from-replicas = true\n[listener.l]");
        config(&cluster, port, 2).replace("[listener.l]", &keys)
    };
    let gateway = Breccia::start_unready(&text("wrong"))?;
    let mut client = client(port)?;
    let refusal = client.reply("GET k")?;
    let told = refusal.error().context("an error")?;
    ensure!(
        told.contains("no server of the cluster has answered"),
        "{told}"
    );
    ensure!(
        told.contains("WRONGPASS") && !told.contains("s3cret"),
        "{told}"
    );
    let (status, answer) = gateway.reload(&text("s3cret"))?;
    ensure!(status == 200, "{answer}");
    wait_until(Duration::from_secs(5), "the cluster to be entered", || {
        Ok((client.call(&[b"SET", b"k", b"v"])? == b"+OK\r\n").then_some(()))
    })?;
    for number in 0..30 {
        check(&mut client, &format!("SET k:{number} v"), "+OK")?;
        check(&mut client, &format!("EXISTS k:{number} k"), ":2")?;
    }
    client.send(b"SUBSCRIBE c\r\n")?;
    ensure!(client.read_reply()?.first() == Some(&b'*'));
    Ok(())
}
