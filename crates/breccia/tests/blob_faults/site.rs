//! A gateway with an S3 listener over members, as the tests here want it.
//!
//! Not a place for assertions. Invariant: all that a site writes lies in its own folder, unless a test
//! names another place.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use breccia_core::hash::{HashKind, splitmix64};
use breccia_testkit::{Breccia, HttpReply, Postgres, S3Request, S3Server, free_port};
use tempfile::TempDir;

/// The bucket of every site.
pub(crate) const BUCKET: &str = "mail";
const ACCESS_KEY: &str = "FAULTSACCESSKEY";
const SECRET_KEY: &str = "faults-secret-key-of-the-tests";
const PATIENCE: Duration = Duration::from_secs(30);

static QUIET: RwLock<()> = RwLock::new(());

/// For a test that measures memory or time: no other test of this program runs meanwhile.
pub(crate) fn alone() -> RwLockWriteGuard<'static, ()> {
    QUIET.write().unwrap_or_else(PoisonError::into_inner)
}

/// For all other tests.
pub(crate) fn among_others() -> RwLockReadGuard<'static, ()> {
    QUIET.read().unwrap_or_else(PoisonError::into_inner)
}

/// What a gateway is to be.
#[derive(Debug)]
pub(crate) struct Plan {
    folder: TempDir,
    names: Vec<String>,
    stores: String,
    top: String,
    listener: String,
    users: String,
    made_by_clients: bool,
    timeout: &'static str,
}

impl Plan {
    /// One without members.
    pub(crate) fn new() -> Result<Plan> {
        Ok(Plan {
            folder: tempfile::tempdir()?,
            names: Vec::new(),
            stores: String::new(),
            top: "workers = 2\n".to_owned(),
            listener: String::new(),
            users: String::new(),
            made_by_clients: false,
            timeout: "3s",
        })
    }

    /// A member of any kind.
    pub(crate) fn member(mut self, name: &str, keys: &str) -> Plan {
        self.names.push(name.to_owned());
        let _infallible = writeln!(self.stores, "[store.{name}]\n{keys}");
        self
    }

    /// A folder of the site.
    pub(crate) fn fs(self, name: &str) -> Plan {
        let path = self.folder.path().join(name);
        self.fs_at(name, &path)
    }

    /// A folder anywhere.
    pub(crate) fn fs_at(self, name: &str, path: &Path) -> Plan {
        self.member(name, &format!("type = \"fs\"\npath = '{}'", path.display()))
    }

    /// A database file of the site.
    pub(crate) fn sqlite(self, name: &str) -> Plan {
        let path = self.folder.path().join(format!("{name}.sqlite"));
        self.sqlite_at(name, &path)
    }

    /// A database file anywhere.
    pub(crate) fn sqlite_at(self, name: &str, path: &Path) -> Plan {
        let keys = format!("type = \"sqlite\"\npath = '{}'", path.display());
        self.member(name, &keys)
    }

    /// A bucket of an S3 server, by way of `address`.
    pub(crate) fn s3(self, name: &str, server: &S3Server, address: &str, bucket: &str) -> Plan {
        let keys = format!(
            "type = \"s3\"\nendpoint = \"http://{address}\"\nbucket = \"{bucket}\"\nregion = \"{}\"\n\
             access-key = \"{}\"\nsecret-key = \"{}\"\ntimeout = \"{}\"\nprobe-interval = \"200ms\"\n\
             probe-timeout = \"1s\"",
            server.region, server.access_key, server.secret_key, self.timeout
        );
        self.member(name, &keys)
    }

    /// A database of a `PostgreSQL` server, by way of `port`.
    pub(crate) fn postgres(self, name: &str, server: &Postgres, port: u16, database: &str) -> Plan {
        let keys = format!(
            "type = \"postgresql\"\nhost = \"127.0.0.1\"\nport = {port}\ndatabase = \"{database}\"\n\
             user = \"{}\"\npassword = \"{}\"\ntimeout = \"{}\"\nprobe-interval = \"200ms\"\n\
             probe-timeout = \"1s\"",
            server.user(),
            server.password(),
            self.timeout
        );
        self.member(name, &keys)
    }

    /// Members named after this may be silent for long, as servers under a heavy load are.
    pub(crate) fn patient(mut self) -> Plan {
        self.timeout = "60s";
        self
    }

    /// Keys before the first table.
    pub(crate) fn top(mut self, keys: &str) -> Plan {
        let _infallible = writeln!(self.top, "{keys}");
        self
    }

    /// Further keys of the listener.
    pub(crate) fn listener(mut self, keys: &str) -> Plan {
        let _infallible = writeln!(self.listener, "{keys}");
        self
    }

    /// A further user; `keys` are added to its table.
    pub(crate) fn user(mut self, name: &str, keys: &str) -> Plan {
        let _infallible = writeln!(
            self.users,
            "[[listener.blobs.user]]\nname = \"{name}\"\naccess-key = \"{name}-key\"\n\
             secret-key = \"{name}-secret\"\n{keys}"
        );
        self
    }

    /// Clients make the buckets, and the site makes [`BUCKET`] by itself.
    pub(crate) fn made_by_clients(mut self) -> Plan {
        self.made_by_clients = true;
        self
    }

    /// The configuration with a listener on `port`, the members in this order.
    pub(crate) fn config(&self, port: u16, order: &[usize]) -> String {
        let names: Vec<String> = order
            .iter()
            .map(|place| format!("\"{}\"", self.names[*place]))
            .collect();
        let place = if self.made_by_clients {
            "store = \"all\"".to_owned()
        } else {
            format!("buckets = {{ {BUCKET} = \"all\" }}")
        };
        format!(
            "{}{}[store.all]\ntype = \"sharded-blob\"\nstores = [{}]\n[listener.blobs]\n\
             protocol = \"s3\"\nbind = \"127.0.0.1:{port}\"\n{place}\n{}\n[[listener.blobs.user]]\n\
             name = \"tests\"\naccess-key = \"{ACCESS_KEY}\"\nsecret-key = \"{SECRET_KEY}\"\n{}",
            self.top,
            self.stores,
            names.join(", "),
            self.listener,
            self.users
        )
    }

    /// How many members there are.
    pub(crate) fn count(&self) -> usize {
        self.names.len()
    }

    fn ordered(&self) -> Vec<usize> {
        (0..self.count()).collect()
    }

    /// Starts the gateway and waits until it is ready.
    pub(crate) fn start(self) -> Result<Site> {
        self.launch(Breccia::start)
    }

    /// The same, for members of which some are down.
    pub(crate) fn start_unready(self) -> Result<Site> {
        self.launch(Breccia::start_unready)
    }

    fn launch(self, start: impl Fn(&str) -> Result<Breccia>) -> Result<Site> {
        let port = free_port()?;
        let config = self.config(port, &self.ordered());
        let gateway = start(&config)?;
        let s3 = S3Server::local(port, ACCESS_KEY, SECRET_KEY, "us-east-1");
        if self.made_by_clients {
            s3.create_bucket(BUCKET)?;
        }
        Ok(Site {
            gateway,
            s3,
            config,
            plan: self,
        })
    }

    /// Starts a gateway that must refuse; what it printed.
    pub(crate) fn refused(&self) -> Result<String> {
        let config = self.config(free_port()?, &self.ordered());
        let (status, log) = Breccia::refused(&config)?;
        ensure!(status.code() == Some(2), "{status}: {log}");
        Ok(log)
    }
}

/// A running gateway.
#[derive(Debug)]
pub(crate) struct Site {
    /// The gateway.
    pub(crate) gateway: Breccia,
    /// Where its listener is.
    pub(crate) s3: S3Server,
    /// Its configuration.
    pub(crate) config: String,
    /// What it was made of.
    pub(crate) plan: Plan,
}

impl Site {
    /// A request for a key or a query of the bucket, to be signed.
    pub(crate) fn request(&self, method: &str, rest: &str) -> S3Request {
        S3Request::new(&self.s3, method, &path(rest))
    }

    /// One call.
    pub(crate) fn call(&self, method: &str, rest: &str, body: &[u8]) -> Result<HttpReply> {
        self.request(method, rest).send(body)
    }

    /// A put that must succeed.
    pub(crate) fn put(&self, key: &str, body: &[u8]) -> Result<()> {
        let reply = self.call("PUT", key, body)?.success();
        reply.map(drop).with_context(|| format!("put of {key}"))
    }

    /// The bytes of a key; `None` where there is no such object.
    pub(crate) fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        got(&self.s3, key)
    }

    /// All keys of the bucket, by pages.
    pub(crate) fn keys(&self) -> Result<Vec<String>> {
        listed(&self.s3, BUCKET)
    }

    /// kill -9, and a start over the same state and members.
    pub(crate) fn kill_and_restart(&mut self) -> Result<()> {
        self.gateway.process().kill();
        let config = self.config.clone();
        self.gateway.restart(&config)
    }

    /// The folder with the members.
    pub(crate) fn folder(&self) -> &Path {
        self.plan.folder.path()
    }

    /// A key of the shard at this place of the composite, different for each `stem`.
    pub(crate) fn key_on(&self, shard: usize, stem: &str) -> String {
        key_on(shard, self.plan.count(), stem)
    }

    /// Waits until a put of a key is answered as wanted.
    pub(crate) fn wait_for_put(&self, key: &str, status: u16) -> Result<()> {
        let mut last = String::new();
        let outcome = breccia_testkit::wait_until(PATIENCE, "a put", || {
            let reply = self.call("PUT", key, b"waited for")?;
            last = format!("{}: {}", reply.status, reply.text());
            std::thread::sleep(Duration::from_millis(50));
            Ok((reply.status == status).then_some(()))
        });
        outcome.with_context(|| last)
    }
}

/// The target of a key or of a query of the bucket.
pub(crate) fn path(rest: &str) -> String {
    if rest.starts_with('?') {
        format!("/{BUCKET}{rest}")
    } else {
        format!("/{BUCKET}/{rest}")
    }
}

/// The bytes of a key of the bucket; `None` where there is no such object.
pub(crate) fn got(server: &S3Server, key: &str) -> Result<Option<Vec<u8>>> {
    let reply = S3Request::new(server, "GET", &path(key)).send(b"")?;
    match reply.status {
        200 => Ok(Some(reply.body)),
        404 => Ok(None),
        status => anyhow::bail!("get of {key}: {status} {}", reply.text()),
    }
}

/// All keys of a bucket, by pages; of their characters only `/` may need an escape.
pub(crate) fn listed(server: &S3Server, bucket: &str) -> Result<Vec<String>> {
    let (mut keys, mut after) = (Vec::new(), String::new());
    loop {
        let target = format!("/{bucket}?list-type=2&max-keys=1000&start-after={after}");
        let page = S3Request::new(server, "GET", &target)
            .send(b"")?
            .success()?;
        let text = page.text();
        let found: Vec<String> = text
            .split("<Key>")
            .skip(1)
            .filter_map(|rest| Some(rest.split_once("</Key>")?.0.to_owned()))
            .collect();
        keys.extend(found.iter().cloned());
        match found.last() {
            Some(last) if text.contains("<IsTruncated>true<") => after = last.replace('/', "%2F"),
            _ => return Ok(keys),
        }
    }
}

/// A key that lies on a shard of `count`, in a composite whose keys are placed as they are.
pub(crate) fn key_on(shard: usize, count: usize, stem: &str) -> String {
    let fits = |key: &String| HashKind::Xxh3_64.hash(key.as_bytes()) % count as u64 == shard as u64;
    let mut keys = (0..u64::MAX).map(|number| format!("{stem}-{number}"));
    keys.find(fits).unwrap_or_default()
}

/// Bytes that tell a key and its version, and of which no two blocks are alike.
pub(crate) fn bytes_of(key: &str, version: u64, length: usize) -> Vec<u8> {
    let mut bytes = format!("{key} {version} {length}\n").into_bytes();
    let mut state = HashKind::Xxh3_64.hash(&bytes);
    while bytes.len() < length {
        state = splitmix64(state);
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Every generation file of an `fs` member.
pub(crate) fn generation_files(member: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for folder in std::fs::read_dir(member.join("data"))? {
        for file in std::fs::read_dir(folder?.path())? {
            files.push(file?.path());
        }
    }
    files.sort();
    Ok(files)
}

/// The text of one XML element.
pub(crate) fn element(xml: &str, name: &str) -> Result<String> {
    let rest = xml.split_once(&format!("<{name}>")).map(|(_, rest)| rest);
    let text = rest.and_then(|rest| Some(rest.split_once(&format!("</{name}>"))?.0));
    Ok(text
        .with_context(|| format!("no {name} in {xml}"))?
        .to_owned())
}

/// An upload of parts: its id once begun, and the document that completes it.
#[derive(Debug)]
pub(crate) struct Upload {
    /// The target of calls about it, from the key on.
    pub(crate) target: String,
    parts: String,
    count: usize,
}

impl Upload {
    /// Begins one.
    pub(crate) fn begin(server: &S3Server, key: &str) -> Result<Upload> {
        let target = path(&format!("{key}?uploads="));
        let begun = S3Request::new(server, "POST", &target)
            .send(b"")?
            .success()?;
        let id = element(&begun.text(), "UploadId")?;
        Ok(Upload {
            target: format!("{key}?uploadId={id}"),
            parts: String::new(),
            count: 0,
        })
    }

    /// Sends the next part.
    pub(crate) fn part(&mut self, server: &S3Server, bytes: &[u8]) -> Result<()> {
        self.count += 1;
        let target = path(&format!("{}&partNumber={}", self.target, self.count));
        let reply = S3Request::new(server, "PUT", &target)
            .send(bytes)?
            .success()?;
        let etag = reply.header("etag").context("a part without an ETag")?;
        let _infallible = write!(
            self.parts,
            "<Part><PartNumber>{}</PartNumber><ETag>{etag}</ETag></Part>",
            self.count
        );
        Ok(())
    }

    /// The document that completes it.
    pub(crate) fn document(&self) -> Vec<u8> {
        let parts = &self.parts;
        format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>").into_bytes()
    }

    /// The request that completes it.
    pub(crate) fn completion(&self, server: &S3Server) -> S3Request {
        S3Request::new(server, "POST", &path(&self.target))
    }

    /// Completes it; the reply's status and text, an error told with status 200 as 500.
    pub(crate) fn complete(&self, server: &S3Server) -> Result<(u16, String)> {
        let reply = self.completion(server).send(&self.document())?;
        Ok((told(&reply), reply.text()))
    }
}

/// The status of a reply that may tell an error behind a 200, which counts as 500.
pub(crate) fn told(reply: &HttpReply) -> u16 {
    if reply.status == 200 && reply.text().contains("<Error>") {
        500
    } else {
        reply.status
    }
}
