//! A real S3 server: the RADOS Gateway of Ceph, with a monitor and one memory-only OSD behind it.
//!
//! No manager daemon: nothing here needs one, and it would take most of the memory. Not durable:
//! [`Rgw::kill9`] ends the gateway only, objects live on in the OSD. Invariant: all three processes
//! end with the value, or with the test process.

use std::fmt::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use ring::rand::{SecureRandom, SystemRandom};
use tempfile::TempDir;

use crate::http_message::http_call;
use crate::process::{Process, Signal, run, tied};
use crate::s3_server::S3Server;

const START_LIMIT: Duration = Duration::from_mins(1);
const ACCESS_KEY: &str = "BRECCIATESTACCESSKEY";
const SECRET_KEY: &str = "breccia-test-secret-key-of-forty-letters";

/// A running gateway on 127.0.0.1. Several buckets on one of them do as several shards.
#[derive(Debug)]
pub struct Rgw {
    gateway: Process,
    osd: Process,
    monitor: Process,
    folder: TempDir,
    port: u16,
    server: S3Server,
}

impl Rgw {
    /// Starts one and waits until its user can sign requests.
    pub fn start() -> Result<Rgw> {
        let folder = tempfile::tempdir()?;
        let at = folder.path();
        let (monitor_port, port) = (crate::free_port()?, crate::free_port()?);
        let (cluster, disk) = (uuid()?, uuid()?);
        std::fs::write(at.join("ceph.conf"), config(at, &cluster, monitor_port)?)?;
        std::fs::write(at.join("keyring"), "")?;
        let monitor = start_monitor(at, &cluster, monitor_port)?;
        // This waits for the monitor by itself.
        administered(at, &["osd", "new", &disk])?;
        let entry = "osd crush add osd.0 1.0 host=a root=default";
        administered(at, &entry.split(' ').collect::<Vec<_>>())?;
        std::fs::create_dir(at.join("osd"))?;
        run(program("ceph-osd", at)
            .args(["-i", "0", "--mkfs", "--no-mon-config"])
            .args(["--osd-uuid", &disk]))?;
        let osd = serve("ceph-osd", at, &["-i", "0"])?;
        let gateway = start_gateway(at, port)?;
        let server = S3Server::local(port, ACCESS_KEY, SECRET_KEY, "us-east-1");
        let mut rgw = Rgw {
            gateway,
            osd,
            monitor,
            folder,
            port,
            server,
        };
        rgw.wait_ready()?;
        rgw.create_user("breccia", ACCESS_KEY, SECRET_KEY)?;
        Ok(rgw)
    }

    /// One for the whole test process, started by the first who asks.
    ///
    /// The kernel ends its processes with the test process, and a shell that waits for that removes its folder.
    pub fn shared() -> Result<&'static Rgw> {
        static SHARED: OnceLock<Result<Rgw, String>> = OnceLock::new();
        let started = SHARED.get_or_init(|| {
            let rgw = Rgw::start().map_err(|error| format!("{error:#}"))?;
            sweep_after_end(rgw.folder.path()).map_err(|error| error.to_string())?;
            Ok(rgw)
        });
        started.as_ref().map_err(|error| anyhow!("{error}"))
    }

    /// Where it is and how to sign.
    pub fn s3(&self) -> &S3Server {
        &self.server
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Makes a further user; the keys sign for it.
    pub fn create_user(&self, name: &str, access_key: &str, secret_key: &str) -> Result<S3Server> {
        run(program("radosgw-admin", self.folder.path())
            .args(["user", "create", "--uid", name, "--display-name", name])
            .args(["--access-key", access_key, "--secret-key", secret_key]))?;
        Ok(S3Server::local(
            self.port,
            access_key,
            secret_key,
            &self.server.region,
        ))
    }

    /// The gateway's process, which takes the signals.
    pub fn process(&mut self) -> &mut Process {
        &mut self.gateway
    }

    /// The folder with its configuration and logs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The ids of gateway, OSD and monitor.
    pub fn process_ids(&self) -> Vec<u32> {
        [&self.gateway, &self.osd, &self.monitor]
            .map(Process::id)
            .to_vec()
    }

    /// Resident memory of the three processes, in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        let all = [&self.gateway, &self.osd, &self.monitor];
        all.iter().map(|process| process.resident_bytes()).sum()
    }

    /// kill -9 of the gateway.
    pub fn kill9(&mut self) {
        self.gateway.kill();
    }

    /// Freezes the gateway.
    pub fn sigstop(&mut self) -> Result<()> {
        self.gateway.signal(Signal::Stop)
    }

    /// Ends [`Rgw::sigstop`].
    pub fn sigcont(&mut self) -> Result<()> {
        self.gateway.signal(Signal::Cont)
    }

    /// Starts the gateway again on the same port, with all buckets and objects.
    pub fn restart_same_port(&mut self) -> Result<()> {
        self.gateway.kill();
        self.gateway = start_gateway(self.folder.path(), self.port)?;
        self.wait_ready()
    }

    fn wait_ready(&mut self) -> Result<()> {
        let address = self.server.address().to_owned();
        self.gateway.wait_ready(START_LIMIT, || {
            TcpStream::connect(&address).ok()?;
            let reply = http_call(&address, "GET", "/", &[], b"").ok()?;
            (reply.status == 200).then_some(())
        })
    }
}

fn program(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(name);
    command.arg("-c").arg(folder.join("ceph.conf"));
    command
}

fn administer(folder: &Path) -> Command {
    let mut command = program("ceph", folder);
    command.args(["--connect-timeout", "30"]);
    command
}

/// Runs one command of the monitor; again while the monitor, which has just begun, cannot yet say which
/// commands it has.
fn administered(folder: &Path, words: &[&str]) -> Result<()> {
    let begun = Instant::now();
    loop {
        match run(administer(folder).args(words)) {
            Err(error)
                if begun.elapsed() < START_LIMIT
                    && error.to_string().contains("getting command descriptions") => {}
            outcome => return outcome.map(drop),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn serve(name: &str, folder: &Path, arguments: &[&str]) -> Result<Process> {
    let mut command = tied(name, None);
    command.arg("-c").arg(folder.join("ceph.conf"));
    command.arg("-f").args(arguments);
    let package = if name == "radosgw" {
        "radosgw"
    } else {
        "ceph-mon ceph-osd"
    };
    Process::start_tied(command, package, &folder.join(format!("{name}.log")))
}

fn start_monitor(folder: &Path, cluster: &str, port: u16) -> Result<Process> {
    let map = folder.join("monmap");
    run(Command::new("monmaptool")
        .args(["--create", "--addv", "a", &format!("[v1:127.0.0.1:{port}]")])
        .args(["--fsid", cluster])
        .arg(&map))?;
    run(program("ceph-mon", folder)
        .args(["-i", "a", "--mkfs", "--monmap"])
        .arg(&map)
        .arg("--keyring")
        .arg(folder.join("keyring")))?;
    serve("ceph-mon", folder, &["-i", "a"])
}

fn start_gateway(folder: &Path, port: u16) -> Result<Process> {
    let frontend = format!("beast endpoint=127.0.0.1:{port} tcp_nodelay=1");
    serve(
        "radosgw",
        folder,
        &["-n", "client.rgw", "--rgw-frontends", &frontend],
    )
}

fn config(folder: &Path, cluster: &str, monitor_port: u16) -> Result<String> {
    let folder = folder.display();
    let mut text = format!("[global]\nfsid = {cluster}\nmon host = v1:127.0.0.1:{monitor_port}\n");
    text.push_str(
        "mon initial members = a\npublic addr = 127.0.0.1\ncluster addr = 127.0.0.1\n\
         auth cluster required = none\nauth service required = none\nauth client required = none\n\
         ms bind msgr2 = false\nlog file = /dev/null\nmon cluster log file = /dev/null\n\
         osd pool default size = 1\nosd pool default min size = 1\nosd pool default pg num = 4\n\
         osd pool default pg autoscale mode = off\nosd crush chooseleaf type = 0\n\
         mon allow pool size one = true\nmon warn on pool no redundancy = false\n\
         osd objectstore = memstore\nmemstore device bytes = 8589934592\n\
         rgw thread pool size = 64\n",
    );
    // An OSD that enters itself may ask before it knows the cluster's id, be refused, and end.
    text.push_str("osd crush update on start = false\nosd class update on start = false\n");
    // A full disk is not this cluster's trouble: it keeps objects in memory.
    text.push_str("mon data avail warn = 1\nmon data avail crit = 0\n");
    // The monitor batches decisions for a second each by default, and a start takes ten of them.
    text.push_str("paxos propose interval = 0.02\npaxos min wait = 0.01\n");
    writeln!(text, "run dir = {folder}\npid file = {folder}/$name.pid")?;
    writeln!(
        text,
        "admin socket = {folder}/$name.asok\nkeyring = {folder}/keyring"
    )?;
    writeln!(text, "osd data = {folder}/osd\nmon data = {folder}/mon")?;
    Ok(text)
}

fn uuid() -> Result<String> {
    let mut bytes = [0; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| anyhow!("no randomness"))?;
    let hex = crate::s3_server::hex(&bytes);
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    Ok(format!(
        "{}-{}-4{}-8{}-{}",
        part(0, 8),
        part(8, 12),
        part(13, 16),
        part(17, 20),
        part(20, 32)
    ))
}

/// A static is never dropped, so its folder needs somebody who outlives this process.
fn sweep_after_end(folder: &Path) -> Result<()> {
    static PIPE: OnceLock<std::process::Child> = OnceLock::new();
    use std::os::unix::process::CommandExt as _;
    let folder: PathBuf = folder.to_owned();
    let child = Command::new("sh")
        .args(["-c", "cat >/dev/null; sleep 1; rm -rf \"$0\""])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    // The shell reads from this process until it ends.
    let _first = PIPE.set(child);
    Ok(())
}
