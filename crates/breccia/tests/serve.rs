//! A running gateway as an operator sees it: start, refusals, admin pages, reload, end.
//!
//! Not tests of what clients see. Invariant: no test needs a server behind the gateway, except a
//! Redis where one must come and go.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use breccia_testkit::{Breccia, Redis, Signal, free_port, http, wait_until};

/// Three stores on a port where nobody is, and the composite over them.
fn three(dead: u16, listener: u16) -> String {
    let mut text = String::new();
    for (database, name) in ["a", "b", "c"].iter().enumerate() {
        let _ = write!(
            text,
            "[store.redis-{name}]\ntype = \"redis\"\nurl = \"redis://127.0.0.1:{dead}/{database}\"\n"
        );
    }
    text.push_str(
        "[store.cache]\ntype = \"sharded-in-memory\"\nstores = [\"redis-a\", \"redis-b\", \"redis-c\"]\n",
    );
    text.push_str(&listener_over("cache", listener));
    text
}

fn listener_over(store: &str, port: u16) -> String {
    format!(
        "[listener.main]\nprotocol = \"redis\"\nbind = \"127.0.0.1:{port}\"\nstore = \"{store}\"\n"
    )
}

fn memory(listener: u16) -> String {
    format!(
        "[store.m]\ntype = \"memory\"\n{}",
        listener_over("m", listener)
    )
}

fn port() -> u16 {
    free_port().expect("a free port")
}

/// A GET or POST with a token; the status line's number and the body.
fn with_token(port: u16, request: &str, token: &str) -> (String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the admin listener");
    let head = format!(
        "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("it is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (
        head.split(' ').nth(1).unwrap_or_default().to_owned(),
        body.to_owned(),
    )
}

#[test]
fn a_taken_port_is_named_with_its_mend() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port();
    let (status, log) = Breccia::refused(&memory(port)).expect("it ends");
    assert_eq!(status.code(), Some(1), "{log}");
    let expected = format!("listener.main.bind: 127.0.0.1:{port} is taken by another process");
    assert!(log.contains(&expected), "{log}");
}

#[test]
fn admin_pages_answer_and_nothing_else_does() {
    let gateway = Breccia::start(&memory(port())).expect("it starts");
    let check = |path: &str, status: u16, part: &str| {
        let (found, body) = gateway.admin(path).expect("an answer");
        assert_eq!(found, status, "{path}: {body}");
        assert!(body.contains(part), "{path}: {body}");
    };
    check("/healthz", 200, "alive");
    check("/readyz", 200, "ready");
    check("/metrics", 200, "breccia_connections{listener=\"main\"} 0");
    check("/status", 200, "\"protocol\": \"redis\"");
    check("/reload", 405, "POST");
    check("/", 404, "/healthz");
    let (status, body) = http(gateway.admin_port(), "POST", "/metrics").expect("an answer");
    assert_eq!((status, body.as_str()), (405, "use GET /metrics\n"));
}

#[test]
fn admin_bounds_what_a_caller_may_send() {
    let gateway = Breccia::start(&memory(port())).expect("it starts");
    let mut stream = TcpStream::connect(("127.0.0.1", gateway.admin_port())).expect("a caller");
    let head = format!("GET /status HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    // The listener may have hung up before everything is sent.
    let _ = stream.write_all(head.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"),
        "{answer:?}"
    );
    assert_eq!(gateway.admin("/healthz").expect("an answer").0, 200);
}

#[test]
fn status_and_reload_want_the_token_and_never_show_it() {
    let admin = port();
    let config = format!(
        "{}\n[admin]\nbind = \"127.0.0.1:{admin}\"\ntoken = \"hush-hush\"\n\
         [[listener.main.user]]\nname = \"default\"\npassword = \"s3cret-word\"\n",
        memory(port())
    );
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("breccia.toml");
    std::fs::write(&path, config).expect("the config is written");
    let log = folder.path().join("log");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_breccia"));
    command.args(["serve", "--config"]).arg(&path);
    let process =
        breccia_testkit::Process::start(&mut command, "nothing", &log).expect("it starts");
    let ready = || {
        Ok(http(admin, "GET", "/readyz")
            .ok()
            .filter(|(status, _)| *status == 200))
    };
    wait_until(Duration::from_secs(10), "readiness", ready).expect("it gets ready");
    for (request, token, expected) in [
        ("GET /status", "wrong", "401"),
        ("POST /reload", "", "401"),
        ("GET /metrics", "", "200"),
        ("GET /readyz", "", "200"),
        ("GET /status", "hush-hush", "200"),
        ("POST /reload", "hush-hush", "200"),
    ] {
        let (status, body) = with_token(admin, request, token);
        assert_eq!(status, expected, "{request} {token}: {body}");
        assert!(
            !body.contains("hush-hush") && !body.contains("s3cret-word"),
            "{body}"
        );
    }
    let log = process.log();
    assert!(
        !log.contains("hush-hush") && !log.contains("s3cret-word"),
        "{log}"
    );
    let url = format!("http://127.0.0.1:{admin}");
    let ask = |token: &str| {
        std::process::Command::new(env!("CARGO_BIN_EXE_breccia"))
            .args(["status", "--admin", &url])
            .env("BRECCIA_ADMIN_TOKEN", token)
            .output()
            .expect("status runs")
    };
    assert_eq!(ask("wrong").status.code(), Some(1));
    let good = ask("hush-hush");
    assert_eq!(good.status.code(), Some(0));
    let status: serde_json::Value = serde_json::from_slice(&good.stdout).expect("JSON");
    assert_eq!(status["listeners"][0]["name"], "main");
}

#[test]
fn reload_applies_what_it_can_and_names_what_needs_a_restart() {
    let listener = port();
    let mut gateway = Breccia::start(&memory(listener)).expect("it starts");
    let valid = format!("{}max-clients = 3\n", memory(listener))
        .replace("[store.m]", "workers = 3\n[store.m]");
    let (status, body) = gateway.reload(&valid).expect("an answer");
    assert_eq!(status, 200, "{body}");
    let answer: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(
        answer["applied"],
        serde_json::json!(["listener.main.max-clients"])
    );
    assert_eq!(answer["needs_restart"], serde_json::json!(["workers"]));
    assert!(
        gateway
            .admin("/status")
            .expect("an answer")
            .1
            .contains("\"max_clients\": 3")
    );

    let (status, body) = gateway
        .reload(&valid.replace("max-clients", "max-client"))
        .expect("an answer");
    assert_eq!(status, 400, "{body}");
    assert!(body.contains("\\\"max-clients\\\""), "{body}");
    assert!(
        gateway
            .admin("/status")
            .expect("an answer")
            .1
            .contains("\"max_clients\": 3")
    );
    assert!(gateway.log().contains("nothing was changed"));

    // The same over a signal.
    gateway.process().signal(Signal::Hup).expect("a signal");
    let refused = "breccia_reloads_total{outcome=\"refused\"}";
    wait_until(Duration::from_secs(5), "the reload", || {
        Ok(gateway.metric(refused)?.ge(&2.0).then_some(()))
    })
    .expect("SIGHUP reloads");
}

#[test]
fn a_gateway_without_work_ends_at_once_with_0() {
    let mut gateway = Breccia::start(&memory(port())).expect("it starts");
    let begun = Instant::now();
    let status = gateway.terminate(Duration::from_secs(10)).expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", gateway.log());
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert!(gateway.log().contains("stopped"));
}

#[test]
fn a_config_that_differs_from_the_layout_is_refused_with_its_mend() {
    let (dead, listener) = (port(), port());
    let good = three(dead, listener);
    let mut gateway = Breccia::start_unready(&good).expect("it starts");
    let order = |stores: &str| {
        good.replace(
            "[\"redis-a\", \"redis-b\", \"redis-c\"]",
            &format!("[{stores}]"),
        )
    };
    let with = |key: &str| good.replace("[listener.main]", &format!("{key}\n[listener.main]"));
    let mut check = |config: &str, parts: &[&str]| {
        let (status, log) = gateway.restart_refused(config).expect("it is refused");
        assert_eq!(status.code(), Some(2), "{log}");
        for part in parts {
            assert!(log.contains(part), "'{part}' is missing in\n{log}");
        }
    };
    check(
        &order("\"redis-a\", \"redis-b\""),
        &["redis-c", "put it back"],
    );
    let fourth = "[store.redis-d]\ntype = \"redis\"\nurl = \"redis://127.0.0.1:1/9\"\n";
    let four = order("\"redis-a\", \"redis-b\", \"redis-c\", \"redis-d\"");
    check(
        &format!("{fourth}{four}"),
        &["redis-d", "layout does not have it"],
    );
    check(
        &good.replace("redis-b", "redis-x"),
        &["layout rename-shard --config ", " cache redis-b redis-x`"],
    );
    let renamed = good
        .replace("[store.cache]", "[store.kv]")
        .replace("\"cache\"", "\"kv\"");
    check(&renamed, &["layout rename --config ", " cache kv`"]);
    check(
        &with("hash = \"fnv1a-64\""),
        &["put back hash = \"xxh3-64\""],
    );
    check(&with("hash-tag = \"{}\""), &["hash-tag"]);
    let swapped = good
        .replace("/0\"", "/x\"")
        .replace("/1\"", "/0\"")
        .replace("/x\"", "/1\"");
    check(&swapped, &["accept-address --config ", " cache redis-a`"]);
    let inner = "[store.all]\ntype = \"sharded-in-memory\"\nstores = [\"cache\"]\n[listener.main]";
    let moved = good
        .replace("[listener.main]", inner)
        .replace("store = \"cache\"", "store = \"all\"");
    check(&moved, &["'cache'", "other composite's"]);
    check(
        &with("layout-digest = \"0123456789abcdef\""),
        &["layout-digest is 0123456789abcdef"],
    );
}

#[test]
fn the_order_of_stores_means_nothing_once_there_is_a_layout() {
    let mut redis = Redis::many(3).expect("three Redis");
    let listener = port();
    let config = |order: [usize; 3]| {
        let stores = order.map(|index| format!("\"redis-{index}\"")).join(", ");
        let mut text = String::new();
        for (index, redis) in redis.iter().enumerate() {
            let url = redis.url();
            let _ = write!(
                text,
                "[store.redis-{index}]\ntype = \"redis\"\nurl = \"{url}\"\n"
            );
        }
        let _ = write!(
            text,
            "[store.cache]\ntype = \"sharded-in-memory\"\nstores = [{stores}]\n"
        );
        text + &listener_over("cache", listener)
    };
    let (first, second) = (config([0, 1, 2]), config([2, 0, 1]));
    let mut gateway = Breccia::start(&first).expect("it starts");
    let digest = |gateway: &Breccia| {
        let (_, body) = gateway.admin("/status").expect("an answer");
        let status: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        status["stores"][0]["layout"]["digest"]
            .as_str()
            .expect("a digest")
            .to_owned()
    };
    let before = digest(&gateway);
    gateway
        .restart(&second)
        .expect("it starts with another order");
    assert_eq!(digest(&gateway), before);
    // Elsewhere the order still counts: another folder makes another layout, unless pinned.
    let pinned = second.replace(
        "[listener.main]",
        &format!("layout-digest = \"{before}\"\n[listener.main]"),
    );
    let (status, log) = Breccia::refused(&pinned).expect("it is refused");
    assert_eq!(status.code(), Some(2), "{log}");
    assert!(log.contains(&before), "{log}");
    redis.clear();
}

#[test]
fn one_state_folder_serves_one_process() {
    let mut first = Breccia::start_unready(&three(port(), port())).expect("it starts");
    let folder = first.state_folder();
    let second = format!(
        "{}\n[state]\ndir = '{}'\n",
        three(port(), port()),
        folder.display()
    );
    let (status, log) = Breccia::refused(&second).expect("it is refused");
    assert_eq!(status.code(), Some(2), "{log}");
    assert!(log.contains(&folder.display().to_string()), "{log}");
    first.terminate(Duration::from_secs(10)).expect("it ends");
}

#[test]
fn a_dead_store_is_seen_down_and_up_again() {
    let mut redis = Redis::new().expect("a Redis");
    let config = format!(
        "[store.r]\ntype = \"redis\"\nurl = \"{}\"\n{}",
        redis.url(),
        listener_over("r", port())
    );
    let mut gateway = Breccia::start(&config).expect("it starts");
    let up = "breccia_store_up{store=\"r\"}";
    assert!((gateway.metric(up).expect("the metric") - 1.0).abs() < 0.1);
    redis.kill9();
    wait_until(Duration::from_secs(3), "the store to be down", || {
        Ok((gateway.admin("/readyz")?.0 == 503).then_some(()))
    })
    .expect("the dead store is seen");
    let (_, body) = gateway.admin("/readyz").expect("an answer");
    assert!(
        body.contains("listener main cannot serve: r is down (connection refused)"),
        "{body}"
    );
    let (_, status) = gateway.admin("/status").expect("an answer");
    assert!(
        status.contains("\"reason\": \"connection refused\""),
        "{status}"
    );
    redis.restart_same_port().expect("it comes back");
    let begun = Instant::now();
    gateway.wait_for("/readyz").expect("it is ready again");
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    assert!(gateway.log().contains("store is down") && gateway.log().contains("store is up"));
}

#[test]
fn a_frozen_store_is_seen_down() {
    let mut redis = Redis::new().expect("a Redis");
    let config = format!(
        "[store.r]\ntype = \"redis\"\nurl = \"{}\"\n{}",
        redis.url(),
        listener_over("r", port())
    );
    let mut gateway = Breccia::start(&config).expect("it starts");
    redis.sigstop().expect("it is frozen");
    wait_until(Duration::from_secs(4), "the store to be down", || {
        Ok((gateway.admin("/readyz")?.0 == 503).then_some(()))
    })
    .expect("the frozen store is seen");
    let (_, body) = gateway.admin("/readyz").expect("an answer");
    assert!(body.contains("r is down (it does not answer)"), "{body}");
    redis.sigcont().expect("it thaws");
    gateway.wait_for("/readyz").expect("it is ready again");
}

/// Whether a TLS handshake with the listener succeeds.
fn handshake(port: u16) -> bool {
    use breccia_net::tls::{TlsClient, TlsClientOptions};
    let pki = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../breccia-net/tests/pki");
    let options = TlsClientOptions {
        ca: Some(pki.join("authority.pem")),
        ..TlsClientOptions::default()
    };
    let client = TlsClient::new(&options, "127.0.0.1").expect("the authority");
    let address = format!("127.0.0.1:{port}").parse().expect("an address");
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(breccia_net::stream::connect(
            &address,
            Some(&client),
            Duration::from_secs(5),
        ))
        .is_ok()
}

#[test]
fn reload_takes_renewed_certificates_and_refuses_broken_ones() {
    let pki = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../breccia-net/tests/pki");
    let folder = tempfile::tempdir().expect("a folder");
    let install = |cert: &str, key: &str| {
        std::fs::copy(pki.join(cert), folder.path().join("cert.pem")).expect("a certificate");
        std::fs::copy(pki.join(key), folder.path().join("key.pem")).expect("a key");
    };
    install("server.pem", "server.key");
    let place = folder.path().display();
    let listener = port();
    let config = format!(
        "{}tls = {{ cert = '{place}/cert.pem', key = '{place}/key.pem' }}\n",
        memory(listener)
    );
    let gateway = Breccia::start(&config).expect("it starts");
    assert!(handshake(listener));
    // A certificate without this host's name: seen in a handshake that fails.
    install("client.pem", "client.key");
    assert!(handshake(listener), "nothing changes before the reload");
    assert_eq!(gateway.reload(&config).expect("an answer").0, 200);
    assert!(!handshake(listener));
    install("server.pem", "client.key");
    let (status, body) = gateway.reload(&config).expect("an answer");
    assert_eq!(status, 400, "{body}");
    assert!(body.contains("listener.main.tls.cert"), "{body}");
    install("server.pem", "server.key");
    assert_eq!(gateway.reload(&config).expect("an answer").0, 200);
    assert!(handshake(listener));
}
