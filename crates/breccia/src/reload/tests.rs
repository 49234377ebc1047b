//! Tests of what a reload takes over and what it names.

use std::path::Path;

use super::merge::differing;
use super::*;

fn plan(text: &str) -> Plan {
    breccia_config::parse(text, "test", Path::new("/tmp"), &|_| None)
        .expect("a plan")
        .0
}

fn check(old: &str, new: &str, applied: &[&str], needs_restart: &[&str]) {
    let base = "[store.a]\ntype = \"memory\"\n[store.b]\ntype = \"memory\"\n";
    let (old, new) = (
        plan(&format!("{old}\n{base}")),
        plan(&format!("{new}\n{base}")),
    );
    let (in_force, done) = merge(&old, &new);
    assert_eq!(done.applied, applied);
    assert_eq!(done.needs_restart, needs_restart);
    assert_eq!(differing(&in_force, &new), needs_restart);
}

#[test]
fn of_an_sql_listener_all_but_its_place_is_applied() {
    let config = |keys: &str, password: &str| {
        format!(
            "[store.pg]\ntype = \"postgresql\"\nhost = \"127.0.0.1\"\nuser = \"u\"\n\
             [store.db]\ntype = \"sql-read-replica\"\nprimary = \"pg\"\nreplicas = []\n\
             [listener.x]\nprotocol = \"postgresql\"\nbind = \"127.0.0.1:7001\"\n\
             store = \"db\"\n{keys}\n[[listener.x.user]]\nname = \"u\"\n\
             password = \"{password}\""
        )
    };
    let old = config("", "p");
    check(&old, &config("", "q"), &["listener.x.user"], &[]);
    let keys = "max-clients = 7\nidle-timeout = \"9m\"\nmax-request-size = \"1MiB\"\n\
                write-timeout = \"3s\"\npool-mode = \"session\"\npool-size = 3\n\
                queue-timeout = \"1s\"\nidle-in-transaction-timeout = \"2s\"\n\
                transaction-timeout = \"1m\"\nmax-lifetime = \"2h\"\n\
                upstream-idle-timeout = \"1m\"\nauth-query = \"SELECT 1\"\nallow-md5 = true";
    let applied = keys.lines().filter_map(|line| line.split(" = ").next());
    let applied: Vec<String> = applied.map(|key| format!("listener.x.{key}")).collect();
    let applied: Vec<&str> = applied.iter().map(String::as_str).collect();
    check(&old, &config(keys, "p"), &applied, &[]);
    let moved = old.replace("7001", "7002");
    check(&old, &moved, &[], &["listener.x.bind"]);
    let eventual = old.replace("replicas = []", "replicas = []\nconsistency = \"eventual\"");
    check(&old, &eventual, &[], &["store.db.consistency"]);
    let heavier = old.replace("host =", "weight = 3\nhost =");
    check(&old, &heavier, &[], &["store.pg.weight"]);
}

#[test]
fn a_listener_keeps_its_tls_unless_the_file_still_means_it() {
    let redis = "protocol = \"redis\"\nbind = \"127.0.0.1:7001\"\nstore = \"a\"";
    let plan = plan(&format!(
        "[store.a]\ntype = \"memory\"\n[listener.x]\n{redis}"
    ));
    let mut other = plan.listeners["x"].clone();
    assert!(takes_tls(&plan.listeners["x"], Some(&other)));
    assert!(!takes_tls(&plan.listeners["x"], None));
    other.protocol = breccia_config::Protocol::Memcached;
    assert!(!takes_tls(&plan.listeners["x"], Some(&other)));
}

#[test]
fn each_changed_key_is_applied_or_named() {
    let listener = |keys: &str| {
        format!(
            "[listener.x]\nprotocol = \"redis\"\nbind = \"127.0.0.1:7001\"\nstore = \"a\"\n{keys}"
        )
    };
    check("", "", &[], &[]);
    check("workers = 1", "workers = 2", &[], &["workers"]);
    check("", "log = { level = \"debug\" }", &["log.level"], &[]);
    check(
        "drain-timeout = \"1s\"",
        "drain-timeout = \"2s\"",
        &["drain-timeout"],
        &[],
    );
    let deadline = "deadline = \"2s\"\nmax-clients = 7";
    let applied = ["listener.x.deadline", "listener.x.max-clients"];
    check(&listener(""), &listener(deadline), &applied, &[]);
    let user = "[[listener.x.user]]\nname = \"u\"\npassword = \"p\"";
    check(&listener(""), &listener(user), &["listener.x.user"], &[]);
    check(&listener(""), "", &["listener.x"], &[]);
    check("", &listener(""), &["listener.x"], &[]);
    let moved = listener("").replace("7001", "7002");
    check(&listener(""), &moved, &[], &["listener.x.bind"]);
    let composite =
        |stores: &str| format!("[store.c]\ntype = \"sharded-in-memory\"\nstores = [{stores}]");
    check(
        &composite("\"a\", \"b\""),
        &composite("\"b\", \"a\""),
        &[],
        &[],
    );
    check(
        &composite("\"a\", \"b\""),
        &composite("\"a\""),
        &[],
        &["store.c"],
    );
}

#[test]
fn servers_of_keys_move_unless_they_share_a_server() {
    let redis = |name: &str, url: &str, keys: &str| {
        format!("[store.{name}]\ntype = \"redis\"\nurl = \"{url}\"\n{keys}\n")
    };
    let old = redis("r", "redis://127.0.0.1:1/0", "");
    let keys = "user = \"u\"\npassword = \"p\"\ntimeout = \"9s\"\nstall-gate = \"90ms\"\n\
                max-in-flight = 9\nmax-leases = 9\ndatabases = 2\nprobe-interval = \"9s\"\n\
                probe-timeout = \"900ms\"\ntls = { insecure = true }";
    let names = [
        "url",
        "user",
        "password",
        "tls",
        "timeout",
        "stall-gate",
        "max-in-flight",
        "max-leases",
        "databases",
        "probe-interval",
        "probe-timeout",
    ];
    let applied: Vec<String> = names.iter().map(|key| format!("store.r.{key}")).collect();
    let applied: Vec<&str> = applied.iter().map(String::as_str).collect();
    check(
        &old,
        &redis("r", "rediss://localhost:2/3", keys),
        &applied,
        &[],
    );
    let more = redis("r", "redis://127.0.0.1:1/0", "connections = 2");
    check(&old, &more, &[], &["store.r.connections"]);
    let url = "store.r.url";
    check(&old, &redis("r", "redis://127.0.0.1:1/1", ""), &[url], &[]);
    // Another database of one server: its probes and subscriptions are shared.
    let other = redis("s", "redis://127.0.0.1:1/7", "");
    let moved = redis("r", "redis://127.0.0.1:2/0", "");
    check(
        &(old.clone() + &other),
        &(moved.clone() + &other),
        &[],
        &[url],
    );
    let other = redis("s", "redis://127.0.0.1:2/7", "");
    check(
        &(old.clone() + &other),
        &(moved.clone() + &other),
        &[],
        &[url],
    );
    let other = redis("s", "redis://127.0.0.1:3/7", "");
    check(&(old + &other), &(moved + &other), &[url], &[]);
    let memcached = |port: u16, keys: &str| {
        format!("[store.m]\ntype = \"memcached\"\naddress = \"127.0.0.1:{port}\"\n{keys}\n")
    };
    check(
        &memcached(1, ""),
        &memcached(2, "timeout = \"9s\""),
        &["store.m.address", "store.m.timeout"],
        &[],
    );
}

#[test]
fn listeners_and_stores_come_and_go_unless_something_under_them_waits() {
    let composite = |name: &str, stores: &str, keys: &str| {
        format!("[store.{name}]\ntype = \"sharded-in-memory\"\nstores = [{stores}]\n{keys}\n")
    };
    let listener = |name: &str, port: u16, store: &str| {
        format!(
            "[listener.{name}]\nprotocol = \"redis\"\nbind = \"127.0.0.1:{port}\"\n\
             store = \"{store}\"\n"
        )
    };
    let old = composite("c", "\"a\", \"b\"", "") + &listener("x", 7001, "c");
    let more = "[store.m]\ntype = \"memory\"\n[store.n]\ntype = \"memory\"\n".to_owned()
        + &composite("d", "\"m\", \"n\"", "")
        + &listener("y", 7002, "d");
    let both = old.clone() + &more;
    check(
        &old,
        &both,
        &["store.m", "store.n", "store.d", "listener.y"],
        &[],
    );
    check(
        &both,
        &old,
        &["listener.y", "store.d", "store.m", "store.n"],
        &[],
    );
    // Another name for a port that is in use, and what stands behind it.
    let renamed = composite("c", "\"a\", \"b\"", "") + &listener("z", 7001, "c");
    check(&old, &renamed, &[], &["listener.x", "listener.z"]);
    // Without a layout there was no state folder to keep one in.
    check("", &composite("c", "\"a\"", ""), &[], &["store.c"]);
    // A listener over a store that is not yet as the file has it.
    let limited = both.replace(
        "[store.n]\ntype = \"memory\"",
        "[store.n]\ntype = \"memory\"\nmax-memory = \"1MiB\"",
    );
    let other = limited.clone() + &listener("v", 7003, "d");
    check(&both, &other, &[], &["listener.v", "store.n"]);
    // What a listener that waits leads to stays.
    let moved = old.clone() + &listener("y", 7002, "c");
    check(
        &both,
        &moved,
        &[],
        &["listener.y.store", "store.d", "store.m", "store.n"],
    );
    let marked = "[store.r]\ntype = \"redis\"\nurl = \"redis://127.0.0.1:1\"\n".to_owned()
        + &composite("d", "\"r\"", "marker = true")
        + &listener("y", 7002, "d");
    check(
        &old,
        &(old.clone() + &marked),
        &["store.r"],
        &["listener.y", "store.d"],
    );
}
