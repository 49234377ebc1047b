//! What is too large, too slow, too long silent, or no MySQL at all.
//!
//! Not servers that fail. Invariant: whoever misbehaves gets an error or a closed connection, and costs
//! the gateway no memory to speak of and nobody else an answer.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use breccia_testkit::{Breccia, Certificates, MyClient, MyLogin, MyValue, free_port, wait_until};

use crate::rig::{Extra, Gateway, LIMIT, file, fresh, login, shared};

/// By how much Breccia may grow while large values pass, in KiB.
const GROWTH_KIB: u64 = 24 << 10;

/// Memory of the gateway's process, in KiB: what it has now, or the most it ever had.
fn memory(gateway: &mut Gateway, what: &str) -> Result<u64> {
    let path = format!("/proc/{}/status", gateway.breccia.process().id());
    let text = std::fs::read_to_string(path)?;
    let line = text
        .lines()
        .find(|it| it.starts_with(what))
        .context("no such line")?;
    Ok(line
        .split_whitespace()
        .nth(1)
        .context("no number")?
        .parse()?)
}

#[test]
fn values_of_64_mebibytes_pass_both_ways_in_bounded_memory() -> Result<()> {
    let cluster = shared()?;
    let _turn = crate::rig::turn();
    fresh(&cluster, "large")?;
    cluster.query(0, "CREATE TABLE large.g (id int PRIMARY KEY, v longblob)")?;
    let mut gateway = Gateway::over(&cluster, Extra::default())?;
    let mut client = gateway.client("large")?;
    client.set_patience(Duration::from_secs(90))?;
    client.run("SELECT COUNT(*) FROM g")?;
    client.once(
        "INSERT INTO g VALUES (?, ?)",
        &[MyValue::Int(0), MyValue::Bytes(b"small")],
    )?;
    let before = memory(&mut gateway, "VmRSS")?;
    let value = vec![b'x'; 64 << 20];
    let insert = client
        .prepare("INSERT INTO g VALUES (?, ?)")?
        .ok()
        .context("prepared")?;
    client
        .execute(&insert, &[MyValue::Int(1), MyValue::Bytes(&value)])?
        .good()?;
    let text = format!("INSERT INTO g VALUES (2, '{}')", "x".repeat(64 << 20));
    client.run(&text)?;
    drop(text);
    for piece in value.chunks(20 << 20) {
        client.long_data(insert.id, 1, piece)?;
    }
    client
        .execute(&insert, &[MyValue::Int(3), MyValue::Long])?
        .good()?;
    for id in 1..=3 {
        let text = client.run(&format!("SELECT v FROM g WHERE id = {id}"))?;
        let binary = client
            .once("SELECT v FROM g WHERE id = ?", &[MyValue::Int(id)])?
            .good()?;
        for reply in [text, binary] {
            let row = reply
                .results
                .first()
                .and_then(|it| it.rows.first()?.first()?.as_ref());
            ensure!(row == Some(&value), "value {id} came back otherwise");
        }
    }
    let most = memory(&mut gateway, "VmHWM")?;
    println!("{before} KiB before, {most} KiB at most");
    ensure!(
        most - before < GROWTH_KIB,
        "it grew by {} KiB",
        most - before
    );
    Ok(())
}

#[test]
fn a_text_of_64_mebibytes_that_comes_slowly_passes_in_bounded_memory() -> Result<()> {
    let cluster = shared()?;
    let _turn = crate::rig::turn();
    fresh(&cluster, "slowbig")?;
    cluster.query(0, "CREATE TABLE slowbig.g (v longblob)")?;
    let extra = Extra {
        listener: "pool-size = 2\nqueue-timeout = \"20s\"",
        ..Extra::default()
    };
    let mut gateway = Gateway::over(&cluster, extra)?;
    let mut slow = gateway.client("slowbig")?;
    let mut quick = gateway.client("slowbig")?;
    quick.run("SELECT COUNT(*) FROM g")?;
    let before = memory(&mut gateway, "VmRSS")?;
    let mut text = b"\x03INSERT INTO g VALUES ('".to_vec();
    text.resize(text.len() + (64 << 20), b's');
    text.extend(b"')");
    let mut raw = slow.raw()?;
    for (number, packet) in text.chunks(0xff_ffff).enumerate() {
        let mut head = u32::try_from(packet.len())?.to_le_bytes();
        if let Some(last) = head.last_mut() {
            *last = u8::try_from(number)?;
        }
        // Not even the head comes at once.
        for byte in head {
            raw.write_all(&[byte])?;
            thread::sleep(Duration::from_millis(2));
        }
        for piece in packet.chunks(1_000_003) {
            raw.write_all(piece)?;
            thread::sleep(Duration::from_millis(5));
        }
        let begun = Instant::now();
        quick.run("SELECT COUNT(*) FROM g")?;
        quick.run("DELETE FROM g WHERE v = 'none'")?;
        let took = begun.elapsed();
        ensure!(took < Duration::from_secs(3), "others waited {took:?}");
    }
    slow.set_patience(Duration::from_mins(1))?;
    slow.results(false)?.good()?;
    let length = slow.value("SELECT LENGTH(v) FROM g")?;
    ensure!(length == (64 << 20).to_string(), "{length}");
    let most = memory(&mut gateway, "VmHWM")?;
    println!("{before} KiB before, {most} KiB at most");
    let grown = most - before;
    ensure!(grown < GROWTH_KIB, "it grew by {grown} KiB");
    Ok(())
}

#[test]
fn a_client_that_reads_nothing_costs_no_memory_and_is_let_go() -> Result<()> {
    let cluster = shared()?;
    let _turn = crate::rig::turn();
    let extra = Extra {
        listener: "write-timeout = \"2s\"",
        ..Extra::default()
    };
    let mut gateway = Gateway::over(&cluster, extra)?;
    let before = memory(&mut gateway, "VmRSS")?;
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = gateway.client("mysql")?;
        client.command(3, b"SELECT REPEAT('x', 1000) FROM seq_1_to_200000")?;
        clients.push(client);
    }
    thread::sleep(Duration::from_secs(4));
    let most = memory(&mut gateway, "VmHWM")?;
    println!("{before} KiB before, {most} KiB at most");
    ensure!(
        most - before < GROWTH_KIB,
        "it grew by {} KiB",
        most - before
    );
    for client in &mut clients {
        client.set_patience(Duration::from_secs(10))?;
        let reply = client.results(false);
        let whole = reply.is_ok_and(|it| it.fault.is_none());
        ensure!(!whole, "a client that did not read was served on");
    }
    ensure!(gateway.client("mysql")?.value("SELECT 1")? == "1", "others");
    // One that reads slowly is served.
    let mut slow = gateway.client("mysql")?;
    slow.command(3, b"SELECT REPEAT('x', 1000) FROM seq_1_to_20000")?;
    let mut packets = 0;
    while let Ok((payload, _)) = slow.packet() {
        packets += 1;
        ensure!(payload.first() != Some(&0xff), "{}", payload.escape_ascii());
        if packets % 2_000 == 0 {
            thread::sleep(Duration::from_millis(300));
        }
        if payload.first() == Some(&0xfe) && payload.len() < 100 {
            break;
        }
    }
    ensure!(packets == 20_003, "{packets}");
    Ok(())
}

#[test]
fn a_big_packet_that_comes_slowly_is_served_and_holds_up_nobody() -> Result<()> {
    let cluster = shared()?;
    fresh(&cluster, "slowly")?;
    cluster.query(0, "CREATE TABLE slowly.g (v longtext)")?;
    let extra = Extra {
        listener: "pool-size = 1\nqueue-timeout = \"20s\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, extra)?;
    let mut slow = gateway.client("slowly")?;
    let sql = format!("\x03INSERT INTO g VALUES ('{}')", "s".repeat(200_000));
    let mut bytes = u32::try_from(sql.len())?.to_le_bytes().to_vec();
    if let Some(last) = bytes.last_mut() {
        *last = 0;
    }
    bytes.extend(sql.as_bytes());
    let mut raw = slow.raw()?;
    for piece in bytes.chunks(20_000) {
        raw.write_all(piece)?;
        let begun = Instant::now();
        gateway
            .client("slowly")?
            .run("INSERT INTO g VALUES ('quick')")?;
        ensure!(
            begun.elapsed() < Duration::from_secs(2),
            "held up for {:?}",
            begun.elapsed()
        );
        thread::sleep(Duration::from_millis(100));
    }
    slow.results(false)?.good()?;
    ensure!(
        slow.value("SELECT MAX(LENGTH(v)) FROM g")? == "200000",
        "another value"
    );
    Ok(())
}

/// What somebody who speaks no MySQL is answered until the connection ends.
fn answered(port: u16, first: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(first)?;
    let (mut all, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return Ok(all),
            Ok(count) => all.extend(piece.iter().take(count)),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(all),
            Err(error) => return Err(error).context("it is left open"),
        }
    }
}

#[test]
fn what_is_no_login_is_refused() -> Result<()> {
    let cluster = shared()?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    let many = vec![0xff_u8; 70_000];
    let rows: &[(&str, &[u8])] = &[
        ("HTTP", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("PostgreSQL", b"\0\0\0\x08\x04\xd2\x16\x2f"),
        ("an empty packet", b"\0\0\0\x01"),
        (
            "a packet of zeros",
            b"\x20\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        ),
        ("protocol 3.20", b"\x09\0\0\x01\x05\x24\0\0\0old\0"),
        ("many ones", &many),
        ("a wrong number", b"\x01\0\0\x09\0"),
    ];
    for (what, bytes) in rows {
        let told = answered(gateway.port, bytes).with_context(|| (*what).to_owned())?;
        println!("{what}: {:.200}", told.escape_ascii().to_string());
        ensure!(told.get(4) == Some(&10), "{what}: no greeting");
    }
    for (what, user, password, code) in [
        ("a wrong password", "breccia", "wrong", "1045"),
        ("no password", "breccia", "", "1045"),
        ("a stranger", "nobody", "secret", "1045"),
        ("a long name", &"n".repeat(5_000), "secret", "1045"),
    ] {
        let login = MyLogin {
            user,
            password,
            ..login("", breccia_testkit::MY_MODERN)
        };
        let error = MyClient::connect_as(gateway.port, login)
            .map(drop)
            .expect_err(what);
        let told = format!("{error:#}");
        ensure!(
            told.contains(code) || what == "a long name",
            "{what}: {told}"
        );
    }
    let unknown = MyClient::connect(gateway.port, "nosuchschema")
        .map(drop)
        .expect_err("a login");
    ensure!(format!("{unknown:#}").contains("1049"), "{unknown:#}");
    ensure!(gateway.client("")?.value("SELECT 1")? == "1", "others");
    Ok(())
}

#[test]
fn garbage_in_a_session_ends_it_alone() -> Result<()> {
    let cluster = shared()?;
    let gateway = Gateway::over(&cluster, Extra::default())?;
    let rows: &[&[u8]] = &[
        // A number that does not follow; commands cut short; replication; a shutdown.
        b"\x09\0\0\x07\x03SELECT 1",
        b"\0\0\0\0",
        b"\x01\0\0\0\x17",
        b"\x03\0\0\0\x17\x01\0",
        b"\x01\0\0\0\x18",
        b"\x01\0\0\0\x19",
        b"\x01\0\0\0\x1b",
        b"\x01\0\0\0\x11",
        b"\x0b\0\0\0\x12\x04\0\0\0\0\0\x01\0\0\0",
        b"\x01\0\0\0\x1e",
        b"\x01\0\0\0\x08",
        b"\x05\0\0\0\x0c\x01\0\0\0",
        b"\x02\0\0\0\xfe\xff",
        b"\x0a\0\0\0\xfa\x01\0\0\0\0\0\0\0\0",
    ];
    for bytes in rows {
        let mut client = gateway.client("")?;
        client.set_patience(Duration::from_secs(3))?;
        client.raw()?.write_all(bytes)?;
        let told = client.packet();
        if let Ok((payload, _)) = &told {
            ensure!(payload.first() == Some(&0xff), "{bytes:?}: {payload:?}");
        }
        ensure!(
            gateway.client("")?.value("SELECT 1")? == "1",
            "after {bytes:?}"
        );
    }
    // An execution whose parameters are cut.
    let mut client = gateway.client("")?;
    let statement = client.prepare("SELECT ?, ?")?.ok().context("prepared")?;
    for cut in 0..16 {
        let mut body = statement.id.to_le_bytes().to_vec();
        body.extend([0, 1, 0, 0, 0, 0, 1, 8, 0, 0xfd, 0, 1, 2, 3, 4, 5]);
        body.truncate(4 + cut);
        if client.command(0x17, &body).is_err() {
            break;
        }
        let Ok(reply) = client.results(true) else {
            break;
        };
        ensure!(reply.fault.is_some(), "{cut}: {reply:?}");
    }
    ensure!(gateway.client("")?.value("SELECT 1")? == "1", "others");
    Ok(())
}

#[test]
fn a_silent_client_is_told_to_go() -> Result<()> {
    let cluster = shared()?;
    fresh(&cluster, "silent")?;
    cluster.query(0, "CREATE TABLE silent.t (a int)")?;
    for mode in ["transaction", "session"] {
        let listener = format!(
            "idle-timeout = \"1500ms\"\nidle-in-transaction-timeout = \"1500ms\"\npool-mode = \"{mode}\""
        );
        let extra = Extra {
            listener: &listener,
            ..Extra::default()
        };
        let gateway = Gateway::over(&cluster, extra)?;
        for statements in [
            &[][..],
            &["INSERT INTO t VALUES (1)"],
            &["SET @a = 1"],
            &["BEGIN", "COMMIT"],
            &["BEGIN"],
            &["BEGIN", "INSERT INTO t VALUES (1)"],
        ] {
            let mut client = gateway.client("silent")?;
            for sql in statements {
                client.run(sql)?;
            }
            let begun = Instant::now();
            client.set_patience(Duration::from_secs(8))?;
            let told = client.packet();
            let after = begun.elapsed();
            let in_time = after > Duration::from_millis(1_200) && after < Duration::from_secs(5);
            ensure!(in_time, "{mode} {statements:?}: {told:?} after {after:?}");
        }
        // Whoever had a transaction open still would hold this up.
        let mut after = gateway.client("silent")?;
        after.run("SET lock_wait_timeout = 5")?;
        ensure!(
            after.value("SELECT COUNT(*) FROM t")? == "1",
            "a row of a transaction"
        );
        after.run("TRUNCATE TABLE t")?;
    }
    Ok(())
}

#[test]
fn a_transaction_that_takes_too_long_ends() -> Result<()> {
    let cluster = shared()?;
    let extra = Extra {
        listener: "transaction-timeout = \"1500ms\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, extra)?;
    let mut client = gateway.client("")?;
    for _ in 0..6 {
        for sql in ["BEGIN", "SELECT 1 FOR UPDATE", "COMMIT"] {
            client.run(sql)?;
        }
        thread::sleep(Duration::from_millis(300));
    }
    let begun = Instant::now();
    client.run("BEGIN")?;
    wait_until(LIMIT, "the end of the transaction", || {
        thread::sleep(Duration::from_millis(200));
        let reply = client.query("SELECT 1 FOR UPDATE");
        Ok(reply.map_or(true, |it| it.fault.is_some()).then_some(()))
    })?;
    ensure!(
        begun.elapsed() > Duration::from_millis(1_300),
        "{:?}",
        begun.elapsed()
    );
    Ok(())
}

/// The key of a listener that has TLS.
pub(crate) fn with_tls(certificates: &Certificates) -> String {
    format!(
        "tls = {{ cert = '{}', key = '{}' }}",
        certificates.server_cert.display(),
        certificates.server_key.display()
    )
}

#[test]
fn a_listener_with_tls_lets_nobody_in_without() -> Result<()> {
    let cluster = shared()?;
    let certificates = Certificates::new()?;
    let port = free_port()?;
    let tls = with_tls(&certificates);
    let extra = Extra {
        listener: &tls,
        ..Extra::default()
    };
    let breccia = Breccia::start(&file(&cluster, port, extra))?;
    let mut client = MyClient::greeted(port)?;
    let refused = client
        .log_in(MyLogin::default())
        .expect_err("a login without TLS");
    println!("without TLS: {refused:#}");
    ensure!(client.offered & 0x800 != 0, "TLS is not offered");
    let told = format!("{refused:#}");
    ensure!(
        told.contains("3159") || told.contains("TLS") || told.contains("SSL"),
        "{told}"
    );
    let mut command = std::process::Command::new("mariadb");
    command
        .args([
            "--no-defaults",
            "--protocol=tcp",
            "-h",
            "127.0.0.1",
            "-P",
            &port.to_string(),
        ])
        .args([
            "-u",
            "breccia",
            "--ssl",
            "--skip-ssl-verify-server-cert",
            "-N",
            "-B",
            "-e",
            "SELECT 7",
        ])
        .env("MYSQL_PWD", "secret");
    let answer = breccia_testkit::process::run(&mut command)?;
    ensure!(answer.trim() == "7", "{answer}");
    drop(breccia);
    Ok(())
}

#[test]
fn data_sent_ahead_to_a_frozen_server_has_an_end() -> Result<()> {
    const SOON: Duration = Duration::from_secs(15);
    let mut cluster = crate::rig::cluster()?;
    fresh(&cluster, "frozen")?;
    cluster.query(0, "CREATE TABLE frozen.g (id int, v longblob)")?;
    let extra = Extra {
        server: "timeout = \"2s\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, extra)?;
    let mut client = gateway.client("frozen")?;
    let insert = client
        .prepare("INSERT INTO g VALUES (?, ?)")?
        .ok()
        .context("prepared")?;
    client
        .execute(&insert, &[MyValue::Int(1), MyValue::Bytes(b"before")])?
        .good()?;
    cluster.server_mut(0).sigstop()?;
    let begun = Instant::now();
    let piece = vec![b'x'; 1 << 20];
    client.set_patience(SOON)?;
    client.raw()?.set_write_timeout(Some(SOON))?;
    let sent = (0..64).try_for_each(|_| client.long_data(insert.id, 1, &piece));
    let reply = sent.and_then(|()| client.execute(&insert, &[MyValue::Int(2), MyValue::Long]));
    let took = begun.elapsed();
    println!("{took:?}: {:?}", reply.as_ref().map(|it| &it.fault));
    ensure!(took < SOON, "it took {took:?}");
    ensure!(!reply.is_ok_and(|it| it.fault.is_none()), "it went well");
    cluster.server_mut(0).sigcont()?;
    wait_until(LIMIT, "writes to go on", || {
        let wrote = gateway
            .client("frozen")
            .and_then(|mut it| it.run("INSERT INTO g VALUES (3, 'after')"));
        Ok(wrote.is_ok().then_some(()))
    })?;
    let rows = cluster.query(0, "SELECT GROUP_CONCAT(id ORDER BY id) FROM frozen.g")?;
    ensure!(rows.trim() == "1,3", "{rows}");
    Ok(())
}

#[test]
fn a_tls_handshake_that_comes_with_its_request_is_taken() -> Result<()> {
    let cluster = shared()?;
    let certificates = Certificates::new()?;
    let tls = with_tls(&certificates);
    let extra = Extra {
        listener: &tls,
        ..Extra::default()
    };
    let port = free_port()?;
    let _breccia = Breccia::start(&file(&cluster, port, extra))?;
    let address = format!("127.0.0.1:{port}");
    let mut shaken = 0;
    for _ in 0..20 {
        // It sends its handshake right behind the request for it, without a pause.
        let mut command = std::process::Command::new("openssl");
        command
            .args(["s_client", "-starttls", "mysql", "-connect", &address])
            .stdin(std::process::Stdio::null());
        let output = command.output().context("openssl")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        shaken += u32::from(text.contains("BEGIN CERTIFICATE"));
    }
    ensure!(shaken == 20, "only {shaken} of 20 handshakes");
    Ok(())
}

#[test]
fn a_command_longer_than_max_request_size_is_refused_and_not_carried_out() -> Result<()> {
    let cluster = shared()?;
    fresh(&cluster, "largest")?;
    cluster.query(0, "CREATE TABLE largest.t (v longtext)")?;
    let gateway = |most: &str| {
        let listener = format!("max-request-size = \"{most}\"");
        let extra = Extra {
            listener: &listener,
            ..Extra::default()
        };
        Gateway::over(&cluster, extra)
    };
    // In one read; in pieces; in several packets, the first of which is not too long.
    for (most, bytes) in [("64KiB", 64 << 10), ("2MiB", 2 << 20), ("20MiB", 20 << 20)] {
        let gateway = gateway(most)?;
        for (over, fits) in [(0, true), (200, false)] {
            let mut client = gateway.client("largest")?;
            let value = "x".repeat(bytes - 100 + over);
            let reply = client.query(&format!("INSERT INTO t VALUES ('{value}')"));
            let taken = reply.as_ref().is_ok_and(|reply| reply.fault.is_none());
            ensure!(
                taken == fits,
                "{most}, {over} more: {:?}",
                reply.map(|it| it.fault)
            );
            let here = cluster.query(0, "SELECT COUNT(*) FROM largest.t; TRUNCATE largest.t")?;
            ensure!(
                here.trim() == if fits { "1" } else { "0" },
                "{most}: {here}"
            );
        }
    }
    Ok(())
}
