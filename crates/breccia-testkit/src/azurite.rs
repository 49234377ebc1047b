//! Azurite, Microsoft's emulator of Azure Blob Storage, from npm.
//!
//! Not the real service: it keeps data in a folder and one process. Invariant: requests are signed with the
//! account key that every emulator has, so no secret is needed.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use crate::http_message::{HttpReply, http_call, percent_decoded};
use crate::process::{Process, Signal, tied};
use crate::s3_server::hmac_sha256;
use crate::utc::Utc;

const START_LIMIT: Duration = Duration::from_mins(1);
const API_VERSION: &str = "2021-12-02";

/// The account that every emulator has.
const ACCOUNT: &str = "devstoreaccount1";
const ACCOUNT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A running Azurite on 127.0.0.1, blobs only.
#[derive(Debug)]
pub struct Azurite {
    process: Process,
    folder: TempDir,
    port: u16,
}

impl Azurite {
    /// Starts one and waits until it answers.
    pub fn start() -> Result<Azurite> {
        let folder = tempfile::tempdir()?;
        let port = crate::free_port()?;
        let process = launch(folder.path(), port)?;
        let mut azurite = Azurite {
            process,
            folder,
            port,
        };
        azurite.wait_ready()?;
        Ok(azurite)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `http://127.0.0.1:PORT/devstoreaccount1`: the account is the first part of every path.
    pub fn endpoint(&self) -> String {
        format!("http://{}/{ACCOUNT}", self.address())
    }

    /// The account's name.
    pub fn account(&self) -> &'static str {
        ACCOUNT
    }

    /// The account's key, in base64 as configurations have it.
    pub fn account_key(&self) -> &'static str {
        ACCOUNT_KEY
    }

    /// One request signed with the shared key. `target` is a path below the account, and maybe a query,
    /// both percent-encoded: `/container/blob?comp=tags`.
    pub fn call(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<HttpReply> {
        let time = Utc::now().http();
        let mut all = vec![("x-ms-date", time.as_str()), ("x-ms-version", API_VERSION)];
        all.extend_from_slice(headers);
        let target = format!("/{ACCOUNT}{target}");
        let text = text_to_sign(method, &target, &all, body.len());
        let key = STANDARD.decode(ACCOUNT_KEY)?;
        let signature = STANDARD.encode(hmac_sha256(&key, text.as_bytes()));
        let authorization = format!("SharedKey {ACCOUNT}:{signature}");
        all.push(("authorization", &authorization));
        http_call(&self.address(), method, &target, &all, body)
    }

    /// Makes a container.
    pub fn create_container(&self, name: &str) -> Result<()> {
        self.call("PUT", &format!("/{name}?restype=container"), &[], b"")?
            .success()
            .with_context(|| format!("cannot make the container {name}"))?;
        Ok(())
    }

    /// The child process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// kill -9.
    pub fn kill9(&mut self) {
        self.process.kill();
    }

    /// Freezes the server.
    pub fn sigstop(&mut self) -> Result<()> {
        self.process.signal(Signal::Stop)
    }

    /// Ends [`Azurite::sigstop`].
    pub fn sigcont(&mut self) -> Result<()> {
        self.process.signal(Signal::Cont)
    }

    /// Starts the server again on the same port and folder. What it wrote in the seconds before a kill may be
    /// gone: it saves its index from time to time.
    pub fn restart_same_port(&mut self) -> Result<()> {
        self.process.kill();
        self.process = launch(self.folder.path(), self.port)?;
        self.wait_ready()
    }

    fn wait_ready(&mut self) -> Result<()> {
        let address = self.address();
        self.process.wait_ready(START_LIMIT, || {
            http_call(&address, "GET", &format!("/{ACCOUNT}?comp=list"), &[], b"").ok()
        })?;
        Ok(())
    }
}

fn launch(folder: &Path, port: u16) -> Result<Process> {
    let program = crate::clients_folder().join("node/node_modules/azurite/dist/src/blob/main.js");
    ensure!(
        program.is_file(),
        "{} is missing; `cargo xtask test setup` installs it",
        program.display()
    );
    let mut command = tied("node", None);
    command
        .arg(program)
        .args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()])
        .args(["--silent", "--skipApiVersionCheck", "--disableTelemetry"])
        .args(["--disableProductStyleUrl", "--location"])
        .arg(folder);
    Process::start_tied(command, "nodejs", &folder.join("log"))
}

/// What a shared key signs, for `target` with the account in front.
fn text_to_sign(method: &str, target: &str, headers: &[(&str, &str)], length: usize) -> String {
    let value = |wanted: &str| {
        let found = headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map_or("", |(_, value)| *value)
    };
    let length = if length == 0 {
        String::new()
    } else {
        length.to_string()
    };
    let mut text = format!("{method}\n");
    for name in ["content-encoding", "content-language"] {
        text.push_str(value(name));
        text.push('\n');
    }
    text.push_str(&length);
    text.push('\n');
    // The date is signed as x-ms-date, so its own place stays empty.
    for name in [
        "content-md5",
        "content-type",
        "",
        "if-modified-since",
        "if-match",
        "if-none-match",
        "if-unmodified-since",
        "range",
    ] {
        text.push_str(value(name));
        text.push('\n');
    }
    let mut own: Vec<String> = headers
        .iter()
        .filter(|(name, _)| name.to_ascii_lowercase().starts_with("x-ms-"))
        .map(|(name, value)| format!("{}:{value}\n", name.to_ascii_lowercase()))
        .collect();
    own.sort();
    text.extend(own);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let _infallible = write!(text, "/{ACCOUNT}{path}");
    let mut pairs: Vec<(&str, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (name, percent_decoded(value)))
        .collect();
    pairs.sort();
    for (name, value) in pairs {
        let _infallible = write!(text, "\n{name}:{value}");
    }
    text
}
