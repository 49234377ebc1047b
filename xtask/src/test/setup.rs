//! Brings in what the tests need: servers from Debian packages, clients and Azurite from `PyPI` and npm,
//! Rust's clients of S3, `PostgreSQL` and `MySQL` from source.
//!
//! As root it installs; otherwise it says what is missing and how to get it. Not installed: Garage, which is
//! built from source for minutes; tests that can use one look for it themselves. Invariant: nothing
//! is fetched that is already there, so a second run needs no network.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{self, which};

/// A program and the Debian package that has it.
const PROGRAMS: [(&str, &str); 29] = [
    ("ceph", "ceph-common"),
    ("ceph-mon", "ceph-mon"),
    ("ceph-osd", "ceph-osd"),
    ("curl", "curl"),
    ("git", "git"),
    ("javac", "default-jdk-headless"),
    ("mariadb", "mariadb-client"),
    ("mariadbd", "mariadb-server"),
    ("memcached", "memcached"),
    ("memccp", "libmemcached-tools"),
    ("monmaptool", "ceph-base"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("nutcracker", "nutcracker"),
    ("openssl", "openssl"),
    ("psql", "postgresql-client"),
    ("python3", "python3"),
    ("radosgw", "radosgw"),
    ("rclone", "rclone"),
    ("redis-benchmark", "redis-tools"),
    ("redis-cli", "redis-tools"),
    ("redis-server", "redis-server"),
    ("restic", "restic"),
    ("ruby", "ruby"),
    ("s3cmd", "s3cmd"),
    ("setpriv", "util-linux"),
    ("sidekiq", "ruby-sidekiq"),
    ("strace", "strace"),
    ("sysbench", "sysbench"),
];

/// Where Debian keeps the server programs of each `PostgreSQL` version: in no PATH.
const POSTGRES_VERSIONS: &str = "/usr/lib/postgresql";

/// Where Debian keeps the JDBC driver of `PostgreSQL`, and its package.
const JDBC: (&str, &str) = ("/usr/share/java/postgresql.jar", "libpostgresql-jdbc-java");

/// Where Debian keeps the namespaces of Ruby's Redis client, and their package.
const RUBY_NAMESPACE: (&str, &str) = (
    "/usr/lib/ruby/vendor_ruby/redis/namespace.rb",
    "ruby-redis-namespace",
);

/// Where Debian keeps mysqlclient, which would have to be compiled elsewhere, and its package.
const MYSQLCLIENT: (&str, &str) = (
    "/usr/lib/python3/dist-packages/MySQLdb/__init__.py",
    "python3-mysqldb",
);

/// Where client libraries in other languages are put.
pub(super) fn clients_folder() -> PathBuf {
    process::root().join("target/clients")
}

/// Checks, and as root installs, everything.
pub(super) fn run() -> Result<()> {
    packages()?;
    python("clients", "python")?;
    python("sql", "sql-python")?;
    python("mysql", "mysql-python")?;
    javascript("clients", "node")?;
    javascript("sql", "sql-node")?;
    javascript("mysql", "mysql-node")?;
    rust("s3", "s3")?;
    rust("sql", "sql-rust")?;
    rust("mysql", "mysql-rust")
}

fn packages() -> Result<()> {
    install(&missing_packages())?;
    let missing = missing_packages();
    if !missing.is_empty() {
        bail!("still missing after installation: {}", missing.join(" "));
    }
    Ok(())
}

/// Brings programs that a chore needs beside those of the tests, by name and Debian package.
pub(crate) fn bring(programs: &[(&str, &str)]) -> Result<()> {
    let missing = missing_of(programs);
    install(&missing)?;
    let missing = missing_of(programs);
    if !missing.is_empty() {
        bail!("still missing after installation: {}", missing.join(" "));
    }
    Ok(())
}

fn install(missing: &[String]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    println!("missing Debian packages: {}", missing.join(" "));
    let command = format!(
        "apt-get install -y --no-install-recommends {}",
        missing.join(" ")
    );
    if !is_root() || which("apt-get").is_none() {
        bail!("these packages are needed; as root run: {command}");
    }
    process::run(apt().arg("update"))?;
    process::run(
        apt()
            .args(["install", "-y", "--no-install-recommends"])
            .args(missing),
    )
}

fn missing_of(programs: &[(&str, &str)]) -> Vec<String> {
    let missing = programs.iter().filter(|(name, _)| which(name).is_none());
    missing.map(|(_, package)| (*package).to_owned()).collect()
}

/// `apt-get` that asks nothing and starts no service: a test starts the servers it needs itself.
pub(crate) fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command
        .arg("-q")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("RUNLEVEL", "1");
    command
}

fn missing_packages() -> Vec<String> {
    let mut missing = missing_of(&PROGRAMS);
    // Debian splits what `python3 -m venv` needs from Python itself.
    if which("python3").is_none() || !python_has_venv() {
        missing.push("python3-venv".to_owned());
    }
    if !has_postgres() {
        missing.push("postgresql".to_owned());
    }
    for (file, package) in [JDBC, RUBY_NAMESPACE, MYSQLCLIENT] {
        if !Path::new(file).is_file() {
            missing.push(package.to_owned());
        }
    }
    missing.sort();
    missing.dedup();
    missing
}

fn has_postgres() -> bool {
    let versions = std::fs::read_dir(POSTGRES_VERSIONS).ok();
    let mut folders = versions.into_iter().flatten().flatten();
    which("postgres").is_some() || folders.any(|entry| entry.path().join("bin/postgres").is_file())
}

fn python_has_venv() -> bool {
    let probe = Command::new("python3")
        .args(["-c", "import venv, ensurepip"])
        .output();
    probe.is_ok_and(|output| output.status.success())
}

fn is_root() -> bool {
    process::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

/// A virtual environment of this name, with the libraries that the tests' `requirements.txt` pins.
fn python(tests: &str, name: &str) -> Result<()> {
    let wanted = process::root().join(format!("crates/breccia/tests/{tests}/requirements.txt"));
    let folder = clients_folder().join(name);
    let stamp = folder.join("installed.txt");
    let pins = std::fs::read_to_string(&wanted)
        .with_context(|| format!("cannot read {}", wanted.display()))?;
    if std::fs::read_to_string(&stamp).is_ok_and(|present| present == pins) {
        return Ok(());
    }
    println!("installing Python clients ({name})");
    std::fs::create_dir_all(clients_folder())?;
    process::run(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&folder),
    )?;
    process::run(
        Command::new(folder.join("bin/python"))
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "-r",
            ])
            .arg(&wanted),
    )?;
    Ok(std::fs::write(&stamp, pins)?)
}

/// A folder of this name with the npm packages that the tests' `package.json` and lock file pin.
fn javascript(tests: &str, name: &str) -> Result<()> {
    let source = process::root().join("crates/breccia/tests").join(tests);
    let folder = clients_folder().join(name);
    let stamp = folder.join("installed.txt");
    let lock = source.join("package-lock.json");
    let pins = std::fs::read_to_string(&lock).with_context(|| lock.display().to_string())?;
    if std::fs::read_to_string(&stamp).is_ok_and(|present| present == pins) {
        return Ok(());
    }
    println!("installing Node clients and servers ({name})");
    std::fs::create_dir_all(&folder)?;
    for name in ["package.json", "package-lock.json"] {
        std::fs::copy(source.join(name), folder.join(name)).with_context(|| name.to_owned())?;
    }
    process::run(
        Command::new("npm")
            .args(["ci", "--silent", "--no-audit", "--no-fund"])
            .current_dir(&folder),
    )?;
    Ok(std::fs::write(&stamp, pins)?)
}

/// The program with Rust's clients of one protocol, into a folder of this name. It is a workspace of its
/// own, and takes minutes: it is built when it is missing, or older than what it is made of.
fn rust(clients: &str, name: &str) -> Result<()> {
    let source = process::root().join("clients").join(clients);
    let folder = clients_folder().join(name);
    let program = folder.join(format!("debug/{clients}-clients"));
    let mut made_of = ["Cargo.toml", "Cargo.lock"]
        .map(|name| source.join(name))
        .to_vec();
    let sources = source.join("src");
    for entry in sources
        .read_dir()
        .with_context(|| sources.display().to_string())?
    {
        made_of.push(entry?.path());
    }
    if is_newer(&program, &made_of)? {
        return Ok(());
    }
    println!("building Rust clients ({name})");
    process::run(
        Command::new("cargo")
            .args(["build", "--quiet", "--locked"])
            .env("CARGO_TARGET_DIR", &folder)
            .current_dir(&source),
    )?;
    // Cargo leaves a program alone whose sources were only touched.
    let built = std::fs::File::options().append(true).open(&program)?;
    Ok(built.set_modified(std::time::SystemTime::now())?)
}

/// Whether a file is there, and was written after all of the others.
fn is_newer(file: &Path, others: &[PathBuf]) -> Result<bool> {
    let Ok(written) = std::fs::metadata(file).and_then(|about| about.modified()) else {
        return Ok(false);
    };
    for other in others {
        let about = std::fs::metadata(other).with_context(|| other.display().to_string())?;
        if about.modified()? > written {
            return Ok(false);
        }
    }
    Ok(true)
}
