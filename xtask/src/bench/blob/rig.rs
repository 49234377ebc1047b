//! The servers of the bench: three Garage, and Breccia over them and over three folders.
//!
//! All on loopback and on one disk. Invariant: Garage runs with `data_fsync` and `metadata_fsync`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Target;
use super::ceph::Ceph;
use super::load;
use super::s3::{Client, Door};
use crate::process::{self, Server};

const ACCESS_KEY: &str = "GK31c2f218a2e44f485b94239e";
const SECRET_KEY: &str = "b892c0665f0ada8a4755dae98baa3b133590e11dae3bcc1f9d769d67f16c3835";
const GARAGE_VERSION: &str = "2.5.0";

/// Everything running.
pub(crate) struct Rig {
    garages: Vec<Server>,
    over_s3: Server,
    over_files: Server,
    ceph: Ceph,
    over_ceph: Server,
    folder: PathBuf,
}

impl Rig {
    /// Starts all servers.
    pub(crate) fn start() -> Result<Rig> {
        let program = garage_program()?;
        let folder = process::root().join(format!("target/bench-blob-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let garages: Vec<Server> = (0..3)
            .map(|number| garage(&program, &folder, number))
            .collect::<Result<_>>()?;
        let doors = garages.iter().map(|server| door(server.port));
        let over_s3 = breccia(&folder, "s3", &s3_stores(doors))?;
        let ceph = Ceph::start()?;
        let buckets = (0..3).map(|number| Door {
            bucket: format!("member{number}"),
            ..ceph.door.clone()
        });
        let over_ceph = breccia(&folder, "ceph", &s3_stores(buckets))?;
        let files = (0..3).map(|number| {
            let path = folder.join(format!("files-{number}"));
            format!(
                "[store.m{number}]\ntype = \"fs\"\npath = '{}'\n",
                path.display()
            )
        });
        let over_files = breccia(&folder, "fs", &files.collect::<Vec<_>>())?;
        let rig = Rig {
            garages,
            over_s3,
            over_files,
            ceph,
            over_ceph,
            folder,
        };
        for target in Target::ALL.into_iter().chain(Target::CEPH) {
            rig.wait_until_it_writes(target)?;
        }
        Ok(rig)
    }

    /// Where a load goes in.
    pub(crate) fn door(&self, target: Target) -> Door {
        match target {
            Target::Direct => door(self.garages.first().map_or(0, |server| server.port)),
            Target::OverS3 => door(self.over_s3.port),
            Target::OverFiles => door(self.over_files.port),
            Target::Ceph => self.ceph.door.clone(),
            Target::OverCeph => door(self.over_ceph.port),
        }
    }

    /// CPU seconds that Breccia has used; 0 where there is none.
    pub(crate) fn proxy_cpu(&self, target: Target) -> Result<f64> {
        self.proxy(target).map_or(Ok(0.0), Server::cpu_seconds)
    }

    /// CPU seconds that the servers behind have used together.
    pub(crate) fn servers_cpu(&self, target: Target) -> Result<f64> {
        match target {
            Target::OverFiles => Ok(0.0),
            Target::Ceph | Target::OverCeph => {
                let each = self.ceph.ids.iter();
                each.map(|id| process::cpu_seconds_of(*id)).sum()
            }
            Target::Direct | Target::OverS3 => self.garages.iter().map(Server::cpu_seconds).sum(),
        }
    }

    /// Begins to measure the peak of memory anew.
    pub(crate) fn forget_peak(&self, target: Target) {
        if let Some(proxy) = self.proxy(target) {
            proxy.forget_peak();
        }
    }

    /// The most memory Breccia had; 0 where there is none.
    pub(crate) fn peak_bytes(&self, target: Target) -> Result<u64> {
        self.proxy(target)
            .map_or(Ok(0), Server::peak_resident_bytes)
    }

    fn proxy(&self, target: Target) -> Option<&Server> {
        match target {
            Target::Direct | Target::Ceph => None,
            Target::OverS3 => Some(&self.over_s3),
            Target::OverCeph => Some(&self.over_ceph),
            Target::OverFiles => Some(&self.over_files),
        }
    }

    /// A server may accept connections before it can store something.
    fn wait_until_it_writes(&self, target: Target) -> Result<()> {
        let begun = Instant::now();
        loop {
            let written = load::runtime().and_then(|runtime| {
                runtime.block_on(async {
                    let mut client = Client::new(&self.door(target)).await?;
                    client.put("ready", b"ready").await
                })
            });
            match written {
                Ok(()) => return Ok(()),
                Err(error) if begun.elapsed() > Duration::from_secs(30) => {
                    return Err(error).with_context(|| format!("{} does not write", target.name()));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.folder);
    }
}

/// A server whose user and bucket are the bench's own.
fn door(port: u16) -> Door {
    Door {
        port,
        bucket: "bench".to_owned(),
        region: "garage".to_owned(),
        access_key: ACCESS_KEY.to_owned(),
        secret_key: SECRET_KEY.to_owned(),
    }
}

/// Members that are buckets.
fn s3_stores(doors: impl Iterator<Item = Door>) -> Vec<String> {
    let stores = doors.enumerate().map(|(number, door)| {
        format!(
            "[store.m{number}]\ntype = \"s3\"\nbucket = \"{}\"\nregion = \"{}\"\n\
             endpoint = \"http://127.0.0.1:{}\"\naccess-key = \"{}\"\n\
             secret-key = \"{}\"\nkey-prefix = \"member/\"\n",
            door.bucket, door.region, door.port, door.access_key, door.secret_key
        )
    });
    stores.collect()
}

/// `GARAGE_BIN`, or the one in `target/clients`, built when it is missing: that takes minutes.
fn garage_program() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("GARAGE_BIN") {
        return Ok(named.into());
    }
    let root = process::root().join("target/clients/garage");
    let program = root.join("bin/garage");
    if !program.is_file() {
        println!("building Garage {GARAGE_VERSION}, once; this takes some minutes");
        process::run(
            Command::new("cargo")
                .args(["install", "garage", "--locked", "--no-default-features"])
                .args(["--version", GARAGE_VERSION])
                .args(["--features", "bundled-libs,sqlite,lmdb", "--root"])
                .arg(&root),
        )?;
    }
    Ok(program)
}

fn garage(program: &Path, folder: &Path, number: usize) -> Result<Server> {
    let (port, rpc) = (process::free_port()?, process::free_port()?);
    let own = folder.join(format!("garage-{number}"));
    std::fs::create_dir_all(&own)?;
    let own = own.display();
    let config = format!(
        "metadata_dir = '{own}/meta'\ndata_dir = '{own}/data'\ndb_engine = \"lmdb\"\n\
         replication_factor = 1\nmetadata_fsync = true\ndata_fsync = true\n\
         rpc_bind_addr = \"127.0.0.1:{rpc}\"\nrpc_public_addr = \"127.0.0.1:{rpc}\"\n\
         rpc_secret = \"{}\"\n[s3_api]\ns3_region = \"garage\"\n\
         api_bind_addr = \"127.0.0.1:{port}\"\n",
        "5c1915fa04d0b6739675c61bf5907eb0fe3d9c69850c83820f51b4d25d13868c"
    );
    let path = folder.join(format!("garage-{number}.toml"));
    std::fs::write(&path, config)?;
    let log = std::fs::File::create(folder.join(format!("garage-{number}.log")))?;
    let mut command = Command::new(program);
    command.arg("-c").arg(&path);
    command.args(["server", "--single-node", "--default-bucket"]);
    command
        .env("GARAGE_ALLOW_WORLD_READABLE_SECRETS", "true")
        .env("GARAGE_DEFAULT_ACCESS_KEY", ACCESS_KEY)
        .env("GARAGE_DEFAULT_SECRET_KEY", SECRET_KEY)
        .env("GARAGE_DEFAULT_BUCKET", "bench")
        .env("RUST_LOG", "error");
    Server::start(command.stderr(log), port)
}

fn breccia(folder: &Path, name: &str, stores: &[String]) -> Result<Server> {
    let port = process::free_port()?;
    let state = folder.join(format!("state-{name}"));
    let mut config = format!("[state]\ndir = '{}'\n\n", state.display());
    for store in stores {
        config += store;
    }
    let names: Vec<String> = (0..stores.len())
        .map(|number| format!("\"m{number}\""))
        .collect();
    write!(
        config,
        "\n[store.all]\ntype = \"sharded-blob\"\nstores = [{}]\n\n\
         [listener.bench]\nprotocol = \"s3\"\nbind = \"127.0.0.1:{port}\"\n\
         buckets = {{ bench = \"all\" }}\n\n[[listener.bench.user]]\nname = \"bench\"\n\
         access-key = \"{ACCESS_KEY}\"\nsecret-key = \"{SECRET_KEY}\"\n",
        names.join(", ")
    )?;
    let path = folder.join(format!("breccia-{name}.toml"));
    std::fs::write(&path, config)?;
    let binary = std::env::var_os("BRECCIA_BIN")
        .map_or_else(|| process::built("release/breccia"), PathBuf::from);
    if !binary.is_file() {
        bail!("{} is not there: leave --no-build away", binary.display());
    }
    let mut command = Command::new(binary);
    command.args(["serve", "--config"]).arg(&path);
    let log = std::fs::File::create(folder.join(format!("breccia-{name}.log")))?;
    Server::start(command.stderr(log), port)
}
