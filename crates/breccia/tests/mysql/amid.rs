//! Commands that are on their way in pieces, and clients or servers that do not come to their end.
//!
//! Invariant: no client keeps a connection longer than the server would keep it, and whoever is told an
//! error can read it.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use breccia_testkit::{MY_LOCAL_FILES, MY_OLD, MariaDbCluster, MyClient, MyFault};

use crate::rig::{Extra, Gateway, cluster, fresh, shared};

/// What all clients here ask for, so that they share a pool.
const FILES: u32 = MY_OLD | MY_LOCAL_FILES;
/// Longer than the servers' patience in these tests, and shorter than any other limit.
const SOON: Duration = Duration::from_secs(8);

/// A gateway with one connection to each server, over a database with a table.
fn start(database: &str) -> Result<(Arc<MariaDbCluster>, Gateway)> {
    over(shared()?, database)
}

fn over(cluster: Arc<MariaDbCluster>, database: &str) -> Result<(Arc<MariaDbCluster>, Gateway)> {
    fresh(&cluster, database)?;
    let table = format!("CREATE TABLE {database}.t (v longtext)");
    cluster.query(0, &table)?;
    let extra = Extra {
        listener: "pool-size = 1\nlocal-infile = true\nqueue-timeout = \"20s\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, extra)?;
    Ok((cluster, gateway))
}

/// The error that comes next, and its packet's number.
fn fault(client: &mut MyClient) -> Result<(MyFault, u8)> {
    let reply = client.results(false)?;
    let number = reply.packets.last().map_or(0, |(_, number)| *number);
    let seen = format!("{:?}", reply.packets);
    Ok((reply.fault.with_context(|| seen)?, number))
}

/// The only connection is given back: another client writes.
fn another_writes(gateway: &Gateway, database: &str) -> Result<()> {
    let begun = Instant::now();
    let mut other = gateway.client_of(database, FILES)?;
    other.run("INSERT INTO t VALUES ('other')")?;
    ensure!(begun.elapsed() < SOON, "it waited {:?}", begun.elapsed());
    Ok(())
}

#[test]
fn a_client_that_goes_silent_amid_a_file_is_ended_when_its_server_has_had_enough() -> Result<()> {
    let (_cluster, gateway) = start("silentfile")?;
    let mut client = gateway.client_of("silentfile", FILES)?;
    client.set_patience(SOON)?;
    client.run("SET net_read_timeout = 1")?;
    client.command(3, b"LOAD DATA LOCAL INFILE 'x' INTO TABLE t")?;
    let (payload, number) = client.packet()?;
    ensure!(payload.first() == Some(&0xfb), "{payload:?}");
    client.send(b"one\ntwo\n", number.wrapping_add(1))?;
    another_writes(&gateway, "silentfile")?;
    let mut raw = client.raw()?;
    // The rest of the file, that the client can be told.
    raw.write_all(&[0, 0, 0, number.wrapping_add(2)])?;
    let (fault, told) = fault(&mut client)?;
    ensure!(told == number.wrapping_add(3), "packet {told}: {fault}");
    ensure!(matches!(fault.code, 1158 | 1159), "{fault}");
    ensure!(client.is_closed());
    Ok(())
}

#[test]
fn a_client_that_goes_silent_amid_a_long_command_is_ended_too() -> Result<()> {
    let (_cluster, gateway) = start("silentlong")?;
    let mut client = gateway.client_of("silentlong", FILES)?;
    client.set_patience(Duration::from_secs(20))?;
    // Amid a command servers wait for this long.
    client.run("SET wait_timeout = 2")?;
    let mut raw = client.raw()?;
    let mut begun = vec![0xff, 0xff, 0xff, 0, 3];
    begun.extend_from_slice(b"INSERT INTO t VALUES ('");
    begun.resize(3 << 20, b'x');
    raw.write_all(&begun)?;
    another_writes(&gateway, "silentlong")?;
    let (fault, _) = fault(&mut client)?;
    ensure!(matches!(fault.code, 1158 | 1159), "{fault}");
    ensure!(client.is_closed());
    Ok(())
}

#[test]
fn a_file_in_packets_out_of_order_is_refused() -> Result<()> {
    let (_cluster, gateway) = start("misnumbered")?;
    let mut client = gateway.client_of("misnumbered", FILES)?;
    client.command(3, b"LOAD DATA LOCAL INFILE 'x' INTO TABLE t")?;
    let (_, number) = client.packet()?;
    client.send(b"one\n", number.wrapping_add(9))?;
    let (fault, _) = fault(&mut client)?;
    ensure!(fault.code == 1156, "{fault}");
    ensure!(client.is_closed());
    let mut other = gateway.client("misnumbered")?;
    ensure!(other.value("SELECT COUNT(*) FROM t FOR UPDATE")? == "0");
    Ok(())
}

#[test]
fn a_command_that_servers_find_too_long_is_told_so_in_order() -> Result<()> {
    let servers = Arc::new(cluster()?);
    for server in 0..3 {
        servers.query(server, "SET GLOBAL max_allowed_packet = 16777216")?;
    }
    let (_servers, gateway) = over(servers, "toolong")?;
    // As many bytes as the servers allow, and more, in so many packets.
    for (mebibytes, packets) in [(33, 3), (50, 4), (81, 6)] {
        let mut client = gateway.client_of("toolong", FILES)?;
        client.set_patience(Duration::from_secs(20))?;
        let mut sql = b"INSERT INTO t VALUES ('".to_vec();
        sql.resize(mebibytes << 20, b'x');
        sql.extend_from_slice(b"')");
        let sent = client.command(3, &sql);
        let (fault, number) = fault(&mut client).with_context(|| format!("{sent:?}"))?;
        ensure!(fault.code == 1153, "{mebibytes} MiB: {fault}");
        ensure!(number == packets, "{mebibytes} MiB: packet {number}");
        another_writes(&gateway, "toolong")?;
    }
    Ok(())
}

#[test]
fn a_session_that_is_killed_amid_a_command_does_not_carry_it_out() -> Result<()> {
    let (cluster, gateway) = start("killedamid")?;
    for before in ["DO 1", "BEGIN"] {
        for file in [false, true] {
            let mut client = gateway.client_of("killedamid", FILES)?;
            client.run(before)?;
            let number = client.value("SELECT CONNECTION_ID()")?;
            let mut raw = client.raw()?;
            let rest = if file {
                client.command(3, b"LOAD DATA LOCAL INFILE 'x' INTO TABLE t")?;
                let (_, number) = client.packet()?;
                client.send(b"killed\n", number.wrapping_add(1))?;
                vec![0, 0, 0, number.wrapping_add(2)]
            } else {
                let mut text = b"\x03INSERT INTO t VALUES ('killed')".to_vec();
                text.resize(1_500_000, b' ');
                let length = u32::try_from(text.len())?.to_le_bytes();
                raw.write_all(&length[..3])?;
                raw.write_all(&[0])?;
                raw.write_all(&text[..3000])?;
                text.split_off(3000)
            };
            std::thread::sleep(Duration::from_millis(300));
            let mut other = gateway.client_of("killedamid", FILES)?;
            let killed = Instant::now();
            other.run(&format!("KILL {number}"))?;
            client.set_patience(SOON)?;
            let (fault, _) = fault(&mut client)?;
            ensure!(fault.code == 1927, "{before}, {file}: {fault}");
            ensure!(
                killed.elapsed() < Duration::from_secs(2),
                "{:?}",
                killed.elapsed()
            );
            let _ = raw.write_all(&rest);
            ensure!(client.is_closed(), "{before}, {file}: it goes on");
            another_writes(&gateway, "killedamid")?;
        }
    }
    let sql = "SELECT COUNT(*) FROM killedamid.t WHERE v = 'killed'";
    let written = cluster.query(0, sql)?;
    ensure!(written.trim() == "0", "{written}");
    Ok(())
}
