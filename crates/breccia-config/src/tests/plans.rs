//! What good files become.

use std::path::{Path, PathBuf};
use std::time::Duration;

use breccia_core::hash::HashKind;
use breccia_core::layout::Role;

use super::{plan, plan_in};
use crate::{
    BindPlan, CommandPlan, Eviction, LogFormat, LogLevel, MultiKey, Plan, Protocol, QUICK_START,
    Secret, StorePlan, SubscriptionLoss, quick_start,
};

const SMALLEST: &str = r#"
    [store.r]
    type = "redis"
    url = "redis://127.0.0.1"
    [store.m]
    type = "memcached"
    address = "Cache:11211"
    [store.y]
    type = "memory"
    [store.s]
    type = "sharded-in-memory"
    stores = ["r", "m", "y"]
    [listener.l]
    protocol = "redis"
    bind = "127.0.0.1:6380"
    store = "s"
"#;

const FULL: &str = r#"
    workers = 3
    drain-timeout = "0s"
    log = { level = "debug", format = "json" }
    [admin]
    bind = "0.0.0.0:9180"
    token = { env = "CACHE_PASSWORD" }
    [state]
    dir = "state"
    [store.r]
    type = "redis"
    url = "rediss://ann@cache.example:7000/2"
    password = { file = "password" }
    tls = { ca = "ca.pem", cert = "cert.pem", key = "key.pem", server-name = "cache" }
    timeout = "2m"
    stall-gate = "1s"
    connections = 2
    max-in-flight = 5
    max-leases = 6
    databases = 7
    probe-interval = "8s"
    probe-timeout = "9ms"
    [store.y]
    type = "memory"
    max-memory = "2GiB"
    eviction = "s3-fifo"
    [store.s]
    type = "sharded-in-memory"
    stores = ["y", "r"]
    hash = "crc16-xmodem"
    hash-tag = "{}"
    layout-digest = "0123456789ABCDEF"
    multi-key = "slot"
    subscription-loss = "resubscribe"
    [store.s.command."json.mget"]
    first-key = 1
    last-key = -2
    write = false
    [store.s.command.CUSTOM]
    first-key = 3
    step = 2
    [listener.l]
    protocol = "redis"
    bind = "[::]:6380"
    store = "s"
    tls = { cert = "cert.pem", key = "key.pem", client-ca = "ca.pem" }
    insecure = true
    deadline = "1500ms"
    max-clients = 1
    idle-timeout = "1h"
    max-request-size = "10MB"
    max-arguments = 16
    max-in-flight = 1
    reply-buffer = 65536
    write-timeout = "1ms"
    min-body-rate = 0
    [[listener.l.user]]
    name = "default"
    password = "p"
    [[listener.l.user]]
    name = "ann"
    [listener.u]
    protocol = "memcached"
    bind = "unix:///run/breccia.sock"
    store = "y"
"#;

#[test]
fn defaults_are_those_of_the_reference() {
    let plan = plan(SMALLEST);
    assert_eq!(plan.workers, None);
    assert_eq!(plan.drain_timeout, Duration::from_secs(30));
    assert_eq!(
        (plan.log.level, plan.log.format),
        (LogLevel::Info, LogFormat::Text)
    );
    assert_eq!(plan.admin, None);
    assert_eq!(plan.state_dir, Path::new("/etc/breccia/breccia-data"));

    let StorePlan::Redis(redis) = &plan.stores["r"] else {
        panic!()
    };
    assert_eq!(
        (redis.address.to_string().as_str(), redis.database),
        ("127.0.0.1:6379", 0)
    );
    assert_eq!(
        (&redis.user, &redis.password, &redis.tls),
        (&None, &None, &None)
    );
    assert_eq!(redis.timeout, Duration::from_secs(5));
    assert_eq!(redis.stall_gate, Duration::from_millis(50));
    assert_eq!(
        (redis.connections, redis.max_in_flight, redis.max_leases),
        (1, 16_384, 256)
    );
    assert_eq!(redis.databases, 1);
    assert_eq!(redis.probe_interval, Duration::from_secs(1));
    assert_eq!(redis.probe_timeout, Duration::from_millis(500));
}

#[test]
fn stores_without_a_redis_url_have_their_defaults_too() {
    let plan = plan(SMALLEST);
    let StorePlan::Memcached(memcached) = &plan.stores["m"] else {
        panic!()
    };
    assert_eq!(memcached.address.to_string(), "cache:11211");
    assert_eq!(memcached.timeout, Duration::from_secs(5));
    assert_eq!(
        (memcached.connections, memcached.max_in_flight),
        (1, 16_384)
    );

    let StorePlan::Memory(memory) = plan.stores["y"] else {
        panic!()
    };
    assert_eq!(
        (memory.max_memory, memory.eviction),
        (None, Eviction::NoEviction)
    );

    let StorePlan::ShardedInMemory(sharded) = &plan.stores["s"] else {
        panic!()
    };
    assert_eq!(sharded.stores, ["r", "m", "y"]);
    assert_eq!((sharded.hash, sharded.hash_tag), (HashKind::Xxh3_64, None));
    assert_eq!((sharded.marker, &sharded.layout_digest), (false, &None));
    assert_eq!(sharded.multi_key, MultiKey::Shard);
    assert_eq!(sharded.subscription_loss, SubscriptionLoss::Disconnect);
    assert!(sharded.commands.is_empty());
}

#[test]
fn listener_defaults_are_those_of_the_reference() {
    let plan = plan(SMALLEST);
    let listener = &plan.listeners["l"];
    assert_eq!(listener.protocol, Protocol::Redis);
    assert_eq!(
        listener.bind,
        BindPlan::Tcp("127.0.0.1:6380".parse().unwrap())
    );
    assert_eq!((listener.store.as_str(), &listener.tls), ("s", &None));
    assert!(!listener.insecure && listener.users.is_empty());
    assert_eq!(
        (listener.deadline, listener.idle_timeout),
        (Duration::from_secs(1), None)
    );
    assert_eq!(
        (listener.max_clients, listener.max_in_flight),
        (10_000, 1024)
    );
    assert_eq!(
        (listener.max_request_size, listener.max_arguments),
        (1 << 30, 1 << 20)
    );
    assert_eq!(listener.max_held_request, 64 << 20);
    assert_eq!(
        (listener.reply_buffer, listener.min_body_rate),
        (8 << 20, 1024)
    );
    assert_eq!(listener.write_timeout, Duration::from_secs(10));
}

fn full() -> (Plan, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    for name in ["ca.pem", "cert.pem", "key.pem"] {
        std::fs::write(dir.path().join(name), "x").unwrap();
    }
    std::fs::write(dir.path().join("password"), "from file\n").unwrap();
    let (plan, warnings) = plan_in(FULL, dir.path());
    assert_eq!(warnings, [""; 0]);
    (plan, dir.path().to_owned())
}

#[test]
fn every_store_key_reaches_the_plan() {
    let (plan, dir) = full();
    assert_eq!(
        (plan.workers, plan.drain_timeout),
        (Some(3), Duration::ZERO)
    );
    assert_eq!(
        (plan.log.level, plan.log.format),
        (LogLevel::Debug, LogFormat::Json)
    );
    let admin = plan.admin.as_ref().unwrap();
    assert_eq!(admin.token, Some(Secret::new("from-env")));
    assert_eq!(plan.state_dir, dir.join("state"));

    let StorePlan::Redis(redis) = &plan.stores["r"] else {
        panic!()
    };
    assert_eq!(
        plan.stores["r"].location().as_deref(),
        Some("cache.example:7000/2")
    );
    assert_eq!(redis.user.as_deref(), Some("ann"));
    assert_eq!(redis.password, Some(Secret::new("from file")));
    let tls = redis.tls.as_ref().unwrap();
    assert_eq!(tls.ca.as_deref(), Some(dir.join("ca.pem").as_path()));
    assert_eq!(tls.cert.as_deref(), Some(dir.join("cert.pem").as_path()));
    assert_eq!(tls.key.as_deref(), Some(dir.join("key.pem").as_path()));
    assert_eq!(
        (tls.server_name.as_deref(), tls.insecure),
        (Some("cache"), false)
    );
    assert_eq!(redis.timeout, Duration::from_mins(2));
    assert_eq!(redis.stall_gate, Duration::from_secs(1));
    assert_eq!(
        (redis.connections, redis.max_in_flight, redis.max_leases),
        (2, 5, 6)
    );
    assert_eq!(redis.databases, 7);
    assert_eq!(redis.probe_interval, Duration::from_secs(8));
    assert_eq!(redis.probe_timeout, Duration::from_millis(9));
}

#[test]
fn every_key_of_memory_and_composite_reaches_the_plan() {
    let (plan, _) = full();
    let StorePlan::Memory(memory) = plan.stores["y"] else {
        panic!()
    };
    assert_eq!(
        (memory.max_memory, memory.eviction),
        (Some(2 << 30), Eviction::S3Fifo)
    );

    let StorePlan::ShardedInMemory(sharded) = &plan.stores["s"] else {
        panic!()
    };
    assert_eq!(sharded.hash, HashKind::Crc16Xmodem);
    assert_eq!(
        sharded.hash_tag.map(|tag| tag.to_string()).as_deref(),
        Some("{}")
    );
    assert_eq!(sharded.layout_digest.as_deref(), Some("0123456789abcdef"));
    assert_eq!(sharded.multi_key, MultiKey::Slot);
    assert_eq!(sharded.subscription_loss, SubscriptionLoss::Resubscribe);
    let mget = CommandPlan {
        first_key: 1,
        last_key: -2,
        step: 1,
        write: false,
    };
    let custom = CommandPlan {
        first_key: 3,
        last_key: 3,
        step: 2,
        write: true,
    };
    assert_eq!(
        (sharded.commands["JSON.MGET"], sharded.commands["CUSTOM"]),
        (mget, custom)
    );
}

#[test]
fn every_listener_key_reaches_the_plan() {
    let (plan, dir) = full();
    let listener = &plan.listeners["l"];
    assert_eq!(listener.bind.to_string(), "[::]:6380");
    let tls = listener.tls.as_ref().unwrap();
    assert_eq!(
        (&tls.cert, &tls.key),
        (&dir.join("cert.pem"), &dir.join("key.pem"))
    );
    assert_eq!(tls.client_ca.as_deref(), Some(dir.join("ca.pem").as_path()));
    assert!(listener.insecure);
    assert_eq!(listener.deadline, Duration::from_millis(1500));
    assert_eq!((listener.max_clients, listener.max_in_flight), (1, 1));
    assert_eq!(listener.idle_timeout, Some(Duration::from_hours(1)));
    assert_eq!(
        (listener.max_request_size, listener.max_arguments),
        (10_000_000, 16)
    );
    assert_eq!((listener.reply_buffer, listener.min_body_rate), (65_536, 0));
    assert_eq!(listener.write_timeout, Duration::from_millis(1));
    let users: Vec<_> = listener
        .users
        .iter()
        .map(|user| (user.name.as_str(), user.password.is_some()))
        .collect();
    assert_eq!(users, [("default", true), ("ann", false)]);
    let unix = BindPlan::Unix(PathBuf::from("/run/breccia.sock"));
    assert_eq!(plan.listeners["u"].bind, unix);
    assert_eq!(plan.listeners["u"].protocol, Protocol::Memcached);
}

#[test]
fn a_plan_shows_no_secret() {
    let (plan, _) = full();
    let shown = format!("{plan:?} {plan:#?}");
    for secret in ["from-env", "from file", "\"p\""] {
        assert!(!shown.contains(secret), "{secret}");
    }
}

#[test]
fn tls_is_on_with_rediss_alone() {
    let check = |url: &str, wanted: Option<bool>| {
        let text = format!("[store.r]\ntype = \"redis\"\nurl = \"{url}\"");
        let plan = plan(&text);
        let StorePlan::Redis(redis) = &plan.stores["r"] else {
            panic!()
        };
        assert_eq!(redis.tls.as_ref().map(|tls| tls.insecure), wanted, "{url}");
    };
    check("redis://h", None);
    check("unix:///x", None);
    check("rediss://h", Some(false));
    check("rediss://h#insecure", Some(true));
}

#[test]
fn a_listed_composite_is_inner_even_if_it_is_served() {
    let text = r#"
        a = { type = "memory" }
        b = { type = "memory" }
        c = { type = "memory" }
        inner = { type = "sharded-in-memory", stores = ["b", "a"] }
        outer = { type = "sharded-in-memory", stores = ["c", "inner"] }
        [listener.x]
        protocol = "redis"
        bind = "127.0.0.1:1"
        store = "inner"
        [listener.y]
        protocol = "memcached"
        bind = "127.0.0.1:2"
        store = "outer"
    "#;
    let plan = plan(&format!("[store]\n{text}"));
    let check = |store, inner, leaves: &[&str]| {
        assert_eq!(plan.is_inner(store), inner, "{store}");
        assert_eq!(
            plan.role(store),
            if inner { Role::Inner } else { Role::Outer }
        );
        let names: Vec<_> = plan
            .leaves(store)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, leaves, "{store}");
    };
    check("outer", false, &["c", "b", "a"]);
    check("inner", true, &["b", "a"]);
    check("a", true, &["a"]);
    check("nothing", false, &[]);
}

#[test]
fn the_quick_start_is_a_good_plan() {
    let (_, warnings) = plan_in(QUICK_START, Path::new("x"));
    assert_eq!(warnings, [""; 0]);
    let plan = quick_start(Path::new("some/data"), "made", &Secret::new("hunter2"));
    assert_eq!(plan.state_dir, Path::new("some/data"));
    assert_eq!(
        plan.admin.as_ref().unwrap().bind.to_string(),
        "127.0.0.1:9180"
    );
    assert_eq!(plan.listeners["redis"].bind.to_string(), "127.0.0.1:6380");
    assert_eq!(
        plan.listeners["memcached"].bind.to_string(),
        "127.0.0.1:11212"
    );
    let s3 = &plan.listeners["s3"];
    assert_eq!(s3.bind.to_string(), "127.0.0.1:9100");
    let keys = s3.users[0].s3.as_ref().unwrap();
    assert_eq!(
        (keys.access_key.as_str(), keys.secret_key.expose()),
        ("made", "hunter2")
    );
    let blobs = plan.served(s3);
    assert_eq!(blobs.len(), 4);
    for ((name, store), number) in blobs.into_iter().zip(1..) {
        let StorePlan::Fs(fs) = store else { panic!() };
        let folder = format!("some/data/blobs/{number}");
        assert_eq!(
            (name, &fs.path),
            (&*format!("blobs-{number}"), &folder.into())
        );
    }
    let wanted = ["memory-a", "memory-b", "memory-c", "memory-d"];
    assert_eq!(plan.stores["quick-start"].members(), wanted);
    for name in wanted {
        let StorePlan::Memory(memory) = plan.stores[name] else {
            panic!()
        };
        assert_eq!(
            (memory.max_memory, memory.eviction),
            (Some(256 << 20), Eviction::NoEviction)
        );
    }
}

#[test]
fn loopback_and_unix_sockets_are_local() {
    let check = |bind: BindPlan, local| assert_eq!(bind.is_local(), local, "{bind}");
    for (address, local) in [
        ("127.0.0.1:1", true),
        ("127.9.9.9:1", true),
        ("[::1]:1", true),
        ("[::ffff:127.0.0.1]:1", true),
        ("0.0.0.0:1", false),
        ("[::]:1", false),
        ("192.168.0.1:1", false),
    ] {
        check(BindPlan::Tcp(address.parse().unwrap()), local);
    }
    check(BindPlan::Unix(PathBuf::from("/run/x")), true);
}

#[test]
fn markers_are_for_redis_shards() {
    let plan = plan(
        "[store.r]\ntype = \"redis\"\nurl = \"redis://h:1\"\n\
         [store.s]\ntype = \"sharded-in-memory\"\nstores = [\"r\"]\nmarker = true\n",
    );
    let StorePlan::ShardedInMemory(sharded) = &plan.stores["s"] else {
        panic!()
    };
    assert!(sharded.marker);
}
