//! S3 clients, unchanged, over one composite of a folder, a bucket of Ceph's RGW and a `PostgreSQL`.
//!
//! `cargo xtask test setup` brings the clients; a missing one fails its test. What each does is in the
//! script of its name, which runs against both kinds of listeners: with a bucket of the config, and
//! with buckets that clients make. Invariant: nothing of the caller's environment reaches a client.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use breccia_testkit::clients_folder;

mod rig;
use rig::{Kind, Rig};

/// Where system programs lie.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/blob_clients")
        .join(name)
}

/// Runs a client in a folder of its own to its good end.
fn run(mut command: Command, rig: &Rig, kind: Kind, client: &str) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let folder = tempfile::tempdir()?;
    command
        .current_dir(folder.path())
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", folder.path())
        .env("TMPDIR", folder.path())
        .env("LANG", "C.UTF-8");
    let output = command
        .output()
        .with_context(|| format!("{program} is missing; `cargo xtask test setup` brings it"))?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(
        output.status.success() && text.contains(": good"),
        "{client} with buckets that are {}: {}\n{text}\n(what is missing is brought by \
         `cargo xtask test setup`)\nthe gateway said:\n{}",
        kind.name(),
        output.status,
        rig.log()
    );
    Ok(())
}

/// Runs a client against both listeners at once.
fn check(client: &str, prepare: impl Fn(&Rig, Kind) -> Result<Command> + Sync) -> Result<()> {
    let rig = Rig::shared()?;
    let one = |kind| run(prepare(&rig, kind)?, &rig, kind, client);
    std::thread::scope(|scope| {
        let made = scope.spawn(|| one(Kind::Made));
        let fixed = one(Kind::Fixed);
        let made = made.join().expect("it reports by its result");
        fixed.and(made)
    })
}

fn interpreted(client: &str, interpreter: &Path, file: &str) -> Result<()> {
    check(client, |rig, kind| {
        let mut command = Command::new(interpreter);
        let server = rig.server(kind);
        command
            .arg(script(file))
            .args([&server.endpoint, &server.access_key, &server.secret_key])
            .args([Rig::bucket(kind, client).as_str(), kind.name()]);
        Ok(command)
    })
}

fn shell(client: &str) -> Result<()> {
    interpreted(client, Path::new("sh"), &format!("{client}.sh"))
}

fn python(client: &str) -> Result<()> {
    let interpreter = clients_folder().join("python/bin/python");
    interpreted(client, &interpreter, &format!("{client}_client.py"))
}

#[test]
fn awscli_works() -> Result<()> {
    python("awscli")
}

#[test]
fn s3cmd_works() -> Result<()> {
    shell("s3cmd")
}

#[test]
fn rclone_works() -> Result<()> {
    shell("rclone")
}

#[test]
fn restic_works() -> Result<()> {
    shell("restic")
}

#[test]
fn boto3_works() -> Result<()> {
    python("boto3")
}

#[test]
fn minio_works() -> Result<()> {
    python("minio")
}

/// This one makes no buckets.
#[test]
fn aws_sdk_and_rust_s3_work() -> Result<()> {
    check("rust", |rig, kind| {
        let (server, bucket) = (rig.server(kind), Rig::bucket(kind, "rust"));
        if kind == Kind::Made {
            server.create_bucket(&bucket)?;
        }
        let mut command = Command::new(clients_folder().join("s3/debug/s3-clients"));
        command
            .args([&server.endpoint, &server.access_key, &server.secret_key])
            .arg(bucket);
        Ok(command)
    })
}
