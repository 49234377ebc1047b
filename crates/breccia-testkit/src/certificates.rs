//! A certificate authority of its own, with a server and a client certificate.
//!
//! Made by the `openssl` program in a temporary folder. Not for anything but tests: keys are small
//! and unprotected. Invariant: the server certificate is good for `localhost` and 127.0.0.1.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// Certificate files in PEM.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// Good for `localhost` and 127.0.0.1.
    pub server_cert: PathBuf,
    /// Its key.
    pub server_key: PathBuf,
    /// A client's certificate.
    pub client_cert: PathBuf,
    /// Its key.
    pub client_key: PathBuf,
    _folder: Arc<TempDir>,
}

impl Certificates {
    /// Makes a fresh set.
    pub fn new() -> Result<Certificates> {
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name);
        openssl(&[
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
             -subj /CN=breccia-test-ca -keyout",
            &text(&at("ca.key")),
            "-out",
            &text(&at("ca.crt")),
        ])?;
        sign(
            folder.path(),
            "server",
            "subjectAltName=DNS:localhost,IP:127.0.0.1\n",
        )?;
        sign(folder.path(), "client", "extendedKeyUsage=clientAuth\n")?;
        Ok(Certificates {
            ca: at("ca.crt"),
            server_cert: at("server.crt"),
            server_key: at("server.key"),
            client_cert: at("client.crt"),
            client_key: at("client.key"),
            _folder: Arc::new(folder),
        })
    }
}

impl Certificates {
    /// One certificate, good for `localhost` and 127.0.0.1, that has signed itself and is everything at
    /// once. `how`: the arguments of `openssl req` that choose its key and its signature.
    pub fn self_signed(how: &str) -> Result<Certificates> {
        let folder = tempfile::tempdir()?;
        let (cert, key) = (folder.path().join("own.crt"), folder.path().join("own.key"));
        openssl(&[
            "req -x509 -nodes -days 2 -subj /CN=localhost",
            "-addext subjectAltName=DNS:localhost,IP:127.0.0.1",
            how,
            "-keyout",
            &text(&key),
            "-out",
            &text(&cert),
        ])?;
        Ok(Certificates {
            ca: cert.clone(),
            server_cert: cert.clone(),
            server_key: key.clone(),
            client_cert: cert,
            client_key: key,
            _folder: Arc::new(folder),
        })
    }
}

fn sign(folder: &Path, name: &str, extensions: &str) -> Result<()> {
    let at = |ending: &str| text(&folder.join(format!("{name}.{ending}")));
    openssl(&[
        "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes",
        &format!("-subj /CN=breccia-test-{name} -keyout"),
        &at("key"),
        "-out",
        &at("csr"),
    ])?;
    std::fs::write(
        at("ext"),
        format!("basicConstraints=CA:FALSE\n{extensions}"),
    )?;
    openssl(&[
        "x509 -req -days 2 -CAcreateserial -in",
        &at("csr"),
        "-CA",
        &text(&folder.join("ca.crt")),
        "-CAkey",
        &text(&folder.join("ca.key")),
        "-extfile",
        &at("ext"),
        "-out",
        &at("crt"),
    ])
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn openssl(parts: &[&str]) -> Result<()> {
    let words = parts.iter().flat_map(|part| part.split_whitespace());
    let output = Command::new("openssl")
        .args(words)
        .stdin(Stdio::null())
        .output()
        .context("cannot start openssl; install it with: apt-get install openssl")?;
    if !output.status.success() {
        bail!(
            "openssl failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
