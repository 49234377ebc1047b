//! Publish and subscribe over several shards.
//!
//! Invariant: a subscriber hears of a message once, whichever shard it was published on.

use std::time::Duration;

use anyhow::Result;
use breccia_testkit::{Fault, FaultyProxy, Redis, RedisOptions, RespClient, wait_until};

use crate::common::{Config, Gateway};

fn text(reply: &[u8]) -> String {
    reply.escape_ascii().to_string()
}

#[test]
fn subscribers_hear_each_message_once() -> Result<()> {
    let servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let mut subscriber = gateway.client()?;
    assert_eq!(
        subscriber.words("SUBSCRIBE news")?,
        b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n"
    );
    subscriber.send(b"PSUBSCRIBE n*\r\n")?;
    assert_eq!(
        subscriber.read_reply()?,
        b"*3\r\n$10\r\npsubscribe\r\n$2\r\nn*\r\n:2\r\n"
    );
    let mut publisher = gateway.client()?;
    assert!(publisher.words("PUBLISH news one")?.starts_with(b":"));
    let message: &[u8] = b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$3\r\none\r\n";
    let pattern: &[u8] = b"*4\r\n$8\r\npmessage\r\n$2\r\nn*\r\n$4\r\nnews\r\n$3\r\none\r\n";
    let mut got = [subscriber.read_reply()?, subscriber.read_reply()?];
    got.sort();
    assert_eq!(got, [message, pattern]);
    subscriber.send(b"PING\r\n")?;
    assert_eq!(
        text(&subscriber.read_reply()?),
        "*2\\r\\n$4\\r\\npong\\r\\n$0\\r\\n\\r\\n"
    );
    assert!(
        subscriber
            .words("GET a")?
            .starts_with(b"-ERR Can't execute 'get'")
    );
    assert_eq!(
        subscriber.words("UNSUBSCRIBE")?,
        b"*3\r\n$11\r\nunsubscribe\r\n$4\r\nnews\r\n:1\r\n"
    );
    assert_eq!(
        subscriber.words("PUNSUBSCRIBE")?,
        b"*3\r\n$12\r\npunsubscribe\r\n$2\r\nn*\r\n:0\r\n"
    );
    assert_eq!(subscriber.words("GET a")?, b"$-1\r\n");
    Ok(())
}

#[test]
fn confirmations_and_counts_are_as_of_one_redis() -> Result<()> {
    let (direct, servers) = (Redis::new()?, Redis::many(3)?);
    let gateway = Gateway::over(&servers)?;
    let mut twins: [RespClient; 2] = [direct.client()?, gateway.client()?];
    let script: [(&str, usize); 8] = [
        ("SUBSCRIBE a b a c", 4),
        ("PSUBSCRIBE x* y*", 2),
        ("UNSUBSCRIBE b nothere", 2),
        ("PUNSUBSCRIBE nothere", 1),
        ("SUBSCRIBE", 1),
        ("PING hello", 1),
        ("PUNSUBSCRIBE x* y*", 2),
        ("UNSUBSCRIBE a c", 2),
    ];
    for (request, replies) in script {
        let mut both = Vec::new();
        for client in &mut twins {
            client.send(format!("{request}\r\n").as_bytes())?;
            let all: Vec<String> = (0..replies)
                .map(|_| Ok(text(&client.read_reply()?)))
                .collect::<Result<_>>()?;
            both.push(all);
        }
        assert_eq!(both[0], both[1], "{request}");
    }
    for client in &mut twins {
        assert_eq!(
            client.words("UNSUBSCRIBE")?,
            b"*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n"
        );
    }
    Ok(())
}

#[test]
fn resp3_subscribers_may_go_on_working() -> Result<()> {
    let servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let mut client = gateway.client()?;
    client.words("HELLO 3")?;
    assert_eq!(
        client.words("SUBSCRIBE c")?,
        b">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"
    );
    assert_eq!(client.words("SET a 1")?, b"+OK\r\n");
    assert_eq!(client.words("GET a")?, b"$1\r\n1\r\n");
    client.send(b"PUBLISH c hello\r\n")?;
    let mut both = [client.read_reply()?, client.read_reply()?];
    both.sort();
    assert_eq!(
        both[1],
        b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$5\r\nhello\r\n"
    );
    assert!(both[0].starts_with(b":"));
    Ok(())
}

#[test]
fn messages_published_on_a_shard_itself_arrive() -> Result<()> {
    let servers = Redis::many(3)?;
    for redis in &servers {
        redis
            .client()?
            .words("CONFIG SET notify-keyspace-events KEA")?;
    }
    let gateway = Gateway::over(&servers)?;
    let mut subscriber = gateway.client()?;
    subscriber.words("SUBSCRIBE direct")?;
    for redis in &servers {
        assert_eq!(redis.client()?.words("PUBLISH direct x")?, b":1\r\n");
        assert!(text(&subscriber.read_reply()?).contains("direct"));
    }
    let mut events = gateway.client()?;
    events.words("PSUBSCRIBE __keyevent@0__:set")?;
    let mut client = gateway.client()?;
    for number in 0..20 {
        client.words(&format!("SET k{number} v"))?;
        assert!(text(&events.read_reply()?).contains(&format!("k{number}")));
    }
    Ok(())
}

#[test]
fn published_in_a_transaction_arrives() -> Result<()> {
    let servers = Redis::many(2)?;
    let gateway = Gateway::over(&servers)?;
    let mut subscriber = gateway.client()?;
    subscriber.words("SUBSCRIBE c")?;
    let mut client = gateway.client()?;
    let replies = client.pipeline(&["MULTI", "SET k 1", "PUBLISH c m", "EXEC"])?;
    assert!(
        replies[3].starts_with(b"*2\r\n+OK\r\n:"),
        "{}",
        text(&replies[3])
    );
    assert!(text(&subscriber.read_reply()?).contains("message"));
    Ok(())
}

#[test]
fn a_lost_shard_disconnects_subscribers_unless_told_otherwise() -> Result<()> {
    for (keys, closes) in [("", true), ("subscription-loss = \"resubscribe\"", false)] {
        let mut servers = Redis::many(2)?;
        let gateway = Config::new("redis")?
            .over(&servers)
            .composite(keys)
            .start()?;
        let mut subscriber = gateway.client()?;
        subscriber.words("SUBSCRIBE c")?;
        servers[1].kill9();
        subscriber.set_patience(Duration::from_secs(3))?;
        if closes {
            assert!(
                subscriber.closed(),
                "a subscriber that may have missed something stays"
            );
            continue;
        }
        servers[1].restart_same_port()?;
        subscriber.set_patience(Duration::from_millis(200))?;
        let mut direct = servers[1].client()?;
        wait_until(Duration::from_secs(5), "a new subscription", || {
            direct.words("PUBLISH c again")?;
            Ok(subscriber.read_reply().ok())
        })?;
    }
    Ok(())
}

#[test]
fn a_client_that_blocks_hears_what_it_subscribed_to_at_once() -> Result<()> {
    let servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let (mut blocked, mut other) = (gateway.client()?, gateway.client()?);
    assert!(blocked.words("HELLO 3")?.starts_with(b"%"));
    assert!(blocked.words("SUBSCRIBE news")?.starts_with(b">3"));
    blocked.send(b"BLPOP none 0\r\n")?;
    for round in 0..3 {
        assert!(
            other
                .words(&format!("PUBLISH news {round}"))?
                .starts_with(b":")
        );
        let heard = text(&blocked.read_reply()?);
        assert!(
            heard.starts_with(">3") && heard.contains(&format!("\\n{round}\\r")),
            "{heard}"
        );
    }
    assert_eq!(other.words("LPUSH none one")?, b":1\r\n");
    assert!(blocked.read_reply()?.starts_with(b"*2\r\n$4\r\nnone"));
    assert!(blocked.words("GET a")?.starts_with(b"_"));
    Ok(())
}

/// Whether a message to a channel of this server reaches its subscriber.
fn hears(server: &Redis, subscriber: &mut RespClient, channel: &str) -> Result<bool> {
    subscriber.set_patience(Duration::from_secs(2))?;
    let reached = server.client()?.words(&format!("PUBLISH {channel} m"))?;
    assert!(reached.starts_with(b":"), "{}", text(&reached));
    let heard = subscriber.read_reply();
    Ok(heard.is_ok_and(|frame| text(&frame).contains("message")))
}

/// A gateway with one worker, so that its clients share each subscription connection.
fn one_worker(mut config: Config) -> Result<Gateway> {
    "workers = 1\n".clone_into(&mut config.top);
    config.start()
}

#[test]
fn a_channel_that_is_forbidden_disturbs_nobody_else() -> Result<()> {
    let server = Redis::start(RedisOptions {
        users: vec!["ann on >secret ~* resetchannels &good +@all".to_owned()],
        ..RedisOptions::default()
    })?;
    let login = "user = \"ann\"\npassword = \"secret\"";
    let gateway = one_worker(Config::new("redis")?.redis("r0", &server.address(), login))?;
    let mut bystander = gateway.client()?;
    bystander.words("SUBSCRIBE good")?;
    for _ in 0..3 {
        let mut client = gateway.client()?;
        let refused = client.words("SUBSCRIBE bad")?;
        assert!(refused.starts_with(b"-NOPERM"), "{}", text(&refused));
        assert!(client.closed());
        let mut both = gateway.client()?;
        both.send(b"SUBSCRIBE bad good\r\n")?;
        assert!(both.read_reply()?.starts_with(b"-NOPERM"));
        assert!(hears(&server, &mut bystander, "good")?);
    }
    Ok(())
}

#[test]
fn a_busy_shard_disturbs_no_subscriber() -> Result<()> {
    let server = Redis::start(RedisOptions {
        arguments: ["--busy-reply-threshold", "20"].map(str::to_owned).to_vec(),
        ..RedisOptions::default()
    })?;
    let servers = [server];
    let gateway = one_worker(Config::new("redis")?.over(&servers))?;
    let (mut bystander, mut leaving) = (gateway.client()?, gateway.client()?);
    bystander.words("SUBSCRIBE kept")?;
    leaving.words("SUBSCRIBE ended")?;
    let script = "local i = 0 while i < 1e12 do i = i + 1 end";
    let mut direct = servers[0].client()?;
    direct.send(&breccia_testkit::resp::encode(&[
        b"EVAL",
        script.as_bytes(),
        b"0",
    ]))?;
    std::thread::sleep(Duration::from_millis(200));
    leaving.words("UNSUBSCRIBE ended")?;
    let mut coming = gateway.client()?;
    let refused = coming.words("SUBSCRIBE new")?;
    assert!(refused.starts_with(b"-BUSY"), "{}", text(&refused));
    let mut watching = servers[0].client()?;
    watching.words("SCRIPT KILL")?;
    wait_until(Duration::from_secs(10), "the end of the script", || {
        Ok((watching.words("GET x")? == b"$-1\r\n").then_some(()))
    })?;
    assert!(hears(&servers[0], &mut bystander, "kept")?);
    // What the shard refused to end is ended once it is free.
    wait_until(Duration::from_secs(10), "the end of a subscription", || {
        let count = watching.words("PUBSUB NUMSUB ended")?;
        Ok(count.ends_with(b":0\r\n").then_some(()))
    })?;
    let mut again = gateway.client()?;
    assert!(again.words("SUBSCRIBE new")?.starts_with(b"*3"));
    assert!(hears(&servers[0], &mut again, "new")?);
    Ok(())
}

#[test]
fn who_was_told_that_it_has_left_is_not_counted() -> Result<()> {
    let servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let (mut other, mut leaving) = (gateway.client()?, gateway.client()?);
    for round in 0..200 {
        let (verb, publish) = [("", "PUBLISH"), ("S", "SPUBLISH")][round / 2 % 2];
        let channel = format!("c{round}");
        leaving.words(&format!("{verb}SUBSCRIBE {channel}"))?;
        leaving.words(&format!("{verb}UNSUBSCRIBE {channel}"))?;
        // Every second time by itself, behind the subscription's end in one pipeline.
        let counted = if round % 2 == 0 {
            other.words(&format!("{publish} {channel} m"))?
        } else {
            leaving.words(&format!("{verb}SUBSCRIBE {channel}"))?;
            let both = [
                &*format!("{verb}UNSUBSCRIBE {channel}"),
                &*format!("{publish} {channel} m"),
            ];
            leaving.pipeline(&both)?.pop().unwrap_or_default()
        };
        assert_eq!(text(&counted), ":0\\r\\n", "round {round}");
    }
    Ok(())
}

/// Somebody listens at the server itself, whose confirmations come late.
#[test]
fn who_leaves_is_told_so_once_the_server_does_not_count_it() -> Result<()> {
    let server = Redis::new()?;
    let proxy = FaultyProxy::start(&server.address())?;
    let gateway = one_worker(Config::new("redis")?.redis("r0", &proxy.address(), ""))?;
    let (mut direct, mut leaving) = (server.client()?, gateway.client()?);
    let mut publisher = gateway.client()?;
    direct.words("SUBSCRIBE c")?;
    // The worker's own connection stays.
    leaving.words("SUBSCRIBE kept")?;
    leaving.words("SUBSCRIBE c")?;
    assert_eq!(text(&publisher.words("PUBLISH c m")?), ":2\\r\\n");
    leaving.read_reply()?;
    proxy.set(Fault::Delay(Duration::from_millis(250)));
    leaving.words("UNSUBSCRIBE c")?;
    // The server's confirmation is on its way by now, and takes its time.
    std::thread::sleep(Duration::from_millis(50));
    proxy.set(Fault::None);
    assert_eq!(text(&publisher.words("PUBLISH c m")?), ":1\\r\\n");
    Ok(())
}

#[test]
fn a_frozen_shard_keeps_nobody_who_leaves() -> Result<()> {
    let mut servers = Redis::many(2)?;
    let gateway = Config::new("redis")?
        .over(&servers)
        .composite("subscription-loss = \"resubscribe\"")
        .start()?;
    let mut subscriber = gateway.client()?;
    subscriber.words("SUBSCRIBE a b")?;
    subscriber.read_reply()?;
    servers[1].sigstop()?;
    subscriber.set_patience(Duration::from_secs(10))?;
    assert!(text(&subscriber.words("UNSUBSCRIBE a")?).ends_with(":1\\r\\n"));
    assert!(text(&subscriber.words("UNSUBSCRIBE b")?).ends_with(":0\\r\\n"));
    servers[1].sigcont()?;
    wait_until(Duration::from_secs(10), "a new subscription", || {
        let told = gateway.client()?.words("SUBSCRIBE a")?;
        Ok(text(&told).ends_with(":1\\r\\n").then_some(()))
    })
}
