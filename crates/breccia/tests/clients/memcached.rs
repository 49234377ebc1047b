//! memcached libraries and tools over memcached members.
//!
//! Invariant: the same scripts hold against one memcached.

use std::process::Command;

use anyhow::Result;
use breccia_testkit::Memcached;

use crate::common::{Config, Gateway};
use crate::{python, run};

fn gateway(servers: &[Memcached]) -> Result<Gateway> {
    Config::new("memcached")?.over_memcached(servers).start()
}

#[test]
fn python_clients_work_as_over_one_memcached() -> Result<()> {
    let (direct, servers) = (Memcached::new()?, Memcached::many(3)?);
    let gateway = gateway(&servers)?;
    for port in [direct.port(), gateway.config.port] {
        let text = python("memcached_py.py", &[&port.to_string()])?;
        for good in [
            "pymemcache Client: good",
            "PooledClient: good",
            "python-memcached: good",
        ] {
            assert!(text.contains(good), "{text}");
        }
    }
    Ok(())
}

/// Copies files in and out, and takes them away again.
fn copy(address: &str) -> Result<()> {
    let server = format!("--servers={address}");
    let tool = |name: &str| {
        let mut command = Command::new(name);
        command.arg(&server);
        command
    };
    let folder = tempfile::tempdir()?;
    let mut names = Vec::new();
    for number in 0..10 {
        let path = folder.path().join(format!("file{number}"));
        std::fs::write(&path, format!("content {number}\n"))?;
        run(tool("memccp").arg(&path))?;
        names.push(format!("file{number}"));
    }
    let text = run(tool("memccat").args(&names))?;
    assert_eq!(text.matches("content").count(), 10, "{text}");
    run(tool("memcexist").arg("file3"))?;
    run(tool("memctouch").args(["--expire=100", "file3"]))?;
    run(tool("memcrm").arg("file3"))?;
    assert!(run(tool("memcexist").arg("file3")).is_err());
    assert!(run(tool("memccat").arg("file3")).is_err());
    run(&mut tool("memcping"))?;
    assert!(run(&mut tool("memcstat"))?.contains("pid"));
    run(&mut tool("memcflush"))?;
    assert!(run(tool("memcexist").arg("file4")).is_err());
    Ok(())
}

/// libmemcached's own tests of a server, and its loads.
fn exercise(port: u16) -> Result<()> {
    let text =
        run(Command::new("memccapable").args(["-a", "-h", "127.0.0.1", "-p", &port.to_string()]))?;
    assert!(
        text.contains("All tests passed") && !text.contains("[FAIL]"),
        "{text}"
    );
    let server = format!("--servers=127.0.0.1:{port}");
    for test in ["--test=get", "--test=set", "--test=mget"] {
        let load = ["--concurrency=4", "--execute-number=100", test];
        let text = run(Command::new("memcslap").arg(&server).args(load))?;
        assert!(text.contains("Time total"), "{text}");
    }
    let load = ["-T", "1", "-c", "4", "-x", "2000"];
    let text = run(Command::new("memcaslap")
        .args(["-s", &format!("127.0.0.1:{port}")])
        .args(load))?;
    assert!(
        text.contains("get_misses: 0") && text.contains("Ops: 2000"),
        "{text}"
    );
    Ok(())
}

#[test]
fn libmemcached_tools_work_as_over_one_memcached() -> Result<()> {
    let (direct, servers) = (Memcached::new()?, Memcached::many(3)?);
    let gateway = gateway(&servers)?;
    for (address, port) in [
        (direct.address(), direct.port()),
        (gateway.address(), gateway.config.port),
    ] {
        copy(&address)?;
        exercise(port)?;
    }
    Ok(())
}
