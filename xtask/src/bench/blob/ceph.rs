//! One Ceph RGW, held by a program of the testkit for as long as this value lives.
//!
//! Not durable: its one OSD keeps objects in memory. Invariant: it ends with this value.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use super::s3::Door;
use crate::process;

/// See the module's page.
pub(super) struct Ceph {
    holder: Child,
    pub(super) door: Door,
    /// Its processes: gateway, OSD, monitor.
    pub(super) ids: Vec<u32>,
}

impl Ceph {
    /// Builds the holder, starts it and waits until it says that it is ready.
    pub(super) fn start() -> Result<Ceph> {
        let mut cargo = Command::new("cargo");
        cargo.args([
            "build",
            "--quiet",
            "--locked",
            "--package",
            "breccia-testkit",
        ]);
        process::run(
            cargo
                .args(["--bin", "hold-ceph"])
                .current_dir(process::root()),
        )?;
        let program = process::built("debug/hold-ceph");
        let mut holder = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start hold-ceph")?;
        let output = holder.stdout.take().context("it has an output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let missing =
            || format!("Ceph RGW did not start (packages radosgw, ceph-mon, ceph-osd): {line:?}");
        let mut words = line.split_whitespace();
        let mut word = || words.next().map(str::to_owned).with_context(missing);
        let (port, access_key, secret_key, region) = (word()?, word()?, word()?, word()?);
        let ids = words.map(str::parse).collect::<Result<_, _>>()?;
        let door = Door {
            port: port.parse().with_context(missing)?,
            bucket: "bench".to_owned(),
            region,
            access_key,
            secret_key,
        };
        Ok(Ceph { holder, door, ids })
    }
}

impl Drop for Ceph {
    fn drop(&mut self) {
        // The end of its input ends the holder, and that its servers.
        drop(self.holder.stdin.take());
        let _status = self.holder.wait();
    }
}
