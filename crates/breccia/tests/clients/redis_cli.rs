//! redis-cli and redis-benchmark, as people use them.
//!
//! Invariant: where the output is the server's own, it is the same over one Redis.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use breccia_testkit::{Process, Redis, wait_until};

use crate::common::{Gateway, key_on};
use crate::run;

fn cli(port: u16, arguments: &[&str]) -> Result<String> {
    let port = port.to_string();
    Ok(run(Command::new("redis-cli")
        .args(["-p", &port])
        .args(arguments))?
    .trim()
    .to_owned())
}

/// What it prints for lines on its standard input.
fn typed(port: u16, arguments: &[&str], input: &[u8]) -> Result<String> {
    let mut child = Command::new("redis-cli")
        .args(["-p", &port.to_string()])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("redis-cli is missing; `cargo xtask test setup` installs it")?;
    child.stdin.take().context("its input")?.write_all(input)?;
    let output = child.wait_with_output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Commands whose output does not depend on which server answers.
const SAME: &[&[&str]] = &[
    &["SET", "a", "1"],
    &["GET", "a"],
    &["GET", "none"],
    &["-n", "0", "INCR", "a"],
    &["--no-raw", "MGET", "a", "none"],
    &["MSET", "x", "1", "y", "2", "z", "3"],
    &["DEL", "x", "y", "none"],
    &["-3", "HSET", "h", "f", "v"],
    &["-3", "--no-raw", "HGETALL", "h"],
    &["-3", "--json", "HGETALL", "h"],
    &["--csv", "RPUSH", "l", "1", "2"],
    &["--csv", "LRANGE", "l", "0", "-1"],
    &["--quoted-input", "SET", "\"\\x00\\r\\n\"", "\"\\xff\""],
    &["--quoted-input", "--no-raw", "GET", "\"\\x00\\r\\n\""],
    &["EVAL", "return {KEYS[1], ARGV[1]}", "1", "k", "v"],
    &["-r", "3", "INCR", "n"],
    &["-d", ";", "LRANGE", "l", "0", "-1"],
    &["LPUSH", "a", "x"],
    &["NOSUCH", "x"],
    &["XADD", "s", "1-1", "f", "v"],
    &["--no-raw", "XRANGE", "s", "-", "+"],
    &["OBJECT", "ENCODING", "l"],
    &["COMMAND", "COUNT"],
    &["DBSIZE"],
    &["PING"],
    &["ECHO", "x"],
];

#[test]
fn redis_cli_prints_what_it_prints_over_one_redis() -> Result<()> {
    let (direct, servers) = (Redis::new()?, Redis::many(3)?);
    let gateway = Gateway::over(&servers)?;
    for arguments in SAME {
        let [wanted, found] = [direct.port(), gateway.config.port].map(|port| cli(port, arguments));
        assert_eq!(wanted?, found?, "{arguments:?}");
    }
    let session = b"SET k 1\nMULTI\nINCR k\nGET k\nEXEC\nWATCH k\nMULTI\nSET k 2\nDISCARD\nGET k\n\
        HELLO 3\nHGETALL h\nSUBSCRIBE\nGET\n\"open\nCLIENT SETNAME me\nCLIENT GETNAME\n";
    let wanted = typed(direct.port(), &[], session)?;
    let found = typed(gateway.config.port, &[], session)?;
    let identity = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        // HELLO tells the number of the connection in the line after `id`.
        if let Some(at) = lines.iter().position(|line| line == "id") {
            lines.remove(at + 1);
        }
        lines
            .iter_mut()
            .filter(|line| line.starts_with("id "))
            .for_each(String::clear);
        lines
    };
    assert_eq!(identity(&wanted), identity(&found));
    Ok(())
}

#[test]
fn redis_cli_looks_around_and_loads() -> Result<()> {
    let servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let port = gateway.config.port;
    let mass: Vec<u8> = (0..3_000)
        .flat_map(|number| {
            let (key, value) = (format!("mass:{number}"), number.to_string());
            breccia_testkit::resp::encode(&[b"SET", key.as_bytes(), value.as_bytes()])
        })
        .collect();
    let loaded = typed(port, &["--pipe"], &mass)?;
    assert!(loaded.contains("errors: 0, replies: 3000"), "{loaded}");
    assert_eq!(cli(port, &["DBSIZE"])?, "3000");
    assert_eq!(cli(port, &["--scan"])?.lines().count(), 3_000);
    let some = cli(port, &["--scan", "--pattern", "mass:1*"])?;
    assert_eq!(some.lines().count(), 1_111);
    cli(port, &["RPUSH", "biglist", "a", "b", "c"])?;
    assert!(cli(port, &["--bigkeys", "-i", "0"])?.contains("Biggest   list found '\"biglist\"'"));
    assert!(cli(port, &["--memkeys", "-i", "0"])?.contains("summary"));
    assert!(cli(port, &["INFO"])?.contains("redis_version:7"));
    assert!(cli(port, &["INFO", "server"])?.contains("# Server"));
    assert!(cli(port, &["CONFIG", "GET", "save"])?.contains("save"));
    let lua = tempfile::NamedTempFile::new()?;
    std::fs::write(lua.path(), "return {KEYS[1], ARGV[1]}")?;
    let path = lua.path().to_string_lossy().into_owned();
    assert_eq!(cli(port, &["--eval", &path, "k", ",", "v"])?, "k\nv");
    assert_eq!(
        typed(port, &["-x", "SET", "stdin"], b"a value\n")?.trim(),
        "OK"
    );
    assert_eq!(
        cli(
            port,
            &["-u", &format!("redis://127.0.0.1:{port}"), "GET", "stdin"]
        )?,
        "a value"
    );
    let (one, other) = (key_on(0, 3, "a"), key_on(1, 3, "b"));
    assert!(cli(port, &["RENAME", &one, &other])?.starts_with("CROSSSLOT"));
    Ok(())
}

#[test]
fn redis_cli_listens() -> Result<()> {
    let servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let port = gateway.config.port;
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("heard");
    let mut command = Command::new("redis-cli");
    command.args(["-p", &port.to_string(), "SUBSCRIBE", "news", "more"]);
    let listener = Process::start(&mut command, "redis-tools", &log)?;
    let heard = |wanted: &str| {
        wait_until(std::time::Duration::from_secs(10), wanted, || {
            let file = std::fs::File::open(&log)?;
            let mut lines = BufReader::new(file).lines().map_while(Result::ok);
            Ok(lines.any(|line| line == wanted).then_some(()))
        })
    };
    heard("more")?;
    cli(port, &["PUBLISH", "news", "hello"])?;
    heard("hello")?;
    drop(listener);
    Ok(())
}

#[test]
fn redis_benchmark_runs_its_tests() -> Result<()> {
    let servers = Redis::many(3)?;
    let port = Gateway::over(&servers).map(|gateway| (gateway.config.port, gateway))?;
    let text = run(Command::new("redis-benchmark")
        .args(["-p", &port.0.to_string(), "-q", "-n", "2000", "-P", "8", "-c", "20"])
        .args(["-r", "1000", "-t"])
        .arg("ping_inline,ping_mbulk,set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,spop,zadd,zpopmin,lrange,mset"))?;
    assert!(text.contains("MSET") && !text.contains("rror"), "{text}");
    Ok(())
}
