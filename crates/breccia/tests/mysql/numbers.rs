//! The numbers of packets that Breccia answers with by itself.
//!
//! Not those of servers, which others compare. Invariant: whoever checks the order of packets finds the
//! one that a server would have given.

use std::time::Duration;

use anyhow::{Result, ensure};
use breccia_testkit::{MariaDbCluster, MyClient};

use crate::rig::{Extra, Gateway, fresh, shared};

/// A packet that is full: another one continues it.
const FULL: usize = 0xff_ffff;

fn start(database: &str) -> Result<(std::sync::Arc<MariaDbCluster>, Gateway)> {
    let cluster = shared()?;
    fresh(&cluster, database)?;
    let extra = Extra {
        listener: "queue-timeout = \"1s\"",
        ..Extra::default()
    };
    let gateway = Gateway::over(&cluster, extra)?;
    Ok((cluster, gateway))
}

/// The number of the error that answers a text of this length.
fn refused(client: &mut MyClient, begin: &str, length: usize) -> Result<(u8, u16)> {
    let text = format!("{begin}{}", "x".repeat(length - 1 - begin.len()));
    let reply = client.query(&text)?;
    let number = reply.packets.last().map_or(0, |(_, number)| *number);
    Ok((number, reply.code()))
}

#[test]
fn an_error_behind_a_long_command_has_the_number_after_its_last_packet() -> Result<()> {
    let (cluster, gateway) = start("numbers")?;
    let mut direct = MyClient::connect(cluster.primary().port(), "numbers")?;
    let mut through = gateway.client("numbers")?;
    for length in [100, FULL - 1, FULL, FULL + 1, 2 * FULL, 2 * FULL + 5] {
        through.set_patience(Duration::from_secs(30))?;
        let (wanted, code) = refused(&mut direct, "SELEC '", length)?;
        ensure!(code == 1064, "{code}");
        // The server's own answer, one of Breccia's, and one while it may ask nobody.
        let (number, code) = refused(&mut through, "SELEC '", length)?;
        ensure!(
            (number, code) == (wanted, 1064),
            "{length}: {number} {code}"
        );
        through.run("START TRANSACTION READ ONLY")?;
        through.run("SELECT 1")?;
        through.run("COMMIT")?;
        gateway.post("/stores/db/pause")?;
        let told = refused(&mut through, "DO '", length);
        gateway.post("/stores/db/resume")?;
        let (number, code) = told?;
        ensure!(code != 0 && code != 1064, "{length}: {code}");
        ensure!(number == wanted, "{length}: {number} instead of {wanted}");
        ensure!(through.value("SELECT 41 + 1")? == "42", "{length}");
    }
    Ok(())
}

/// The numbers of what answers a change of users, and the code of the refusal.
fn change_user(mut client: MyClient, user: &str) -> Result<(u8, u8, u16)> {
    let mut body = format!("{user}\0").into_bytes();
    body.push(0);
    body.extend(b"numbered\0");
    body.extend(45_u16.to_le_bytes());
    body.extend(b"mysql_native_password\0");
    client.command(0x11, &body)?;
    let (_, asked) = client.packet()?;
    client.send(&[7; 20], asked + 1)?;
    let (packet, number) = client.packet()?;
    ensure!(packet.first() == Some(&0xff), "{packet:?}");
    let code = packet.get(1..3).and_then(|it| it.try_into().ok());
    Ok((asked, number, code.map_or(0, u16::from_le_bytes)))
}

#[test]
fn a_refused_change_of_users_is_numbered_as_a_servers() -> Result<()> {
    let (cluster, gateway) = start("numbered")?;
    let primary = cluster.primary();
    for user in [primary.user(), "nobody"] {
        let direct = change_user(MyClient::connect(primary.port(), "numbered")?, user)?;
        let through = change_user(gateway.client("numbered")?, user)?;
        ensure!(direct == through, "{user}: {through:?} for {direct:?}");
    }
    Ok(())
}
