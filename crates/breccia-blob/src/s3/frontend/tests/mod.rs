//! The frontend over a socket: a listener with folders behind it, and requests as clients write and
//! sign them.

mod bodies;
mod calls;
mod made;
mod security;
mod uploading;

use std::collections::BTreeMap;
use std::sync::Arc;

use breccia_net::clock;
use breccia_net::drain::Drain;
use breccia_net::listener::Listener;
use breccia_net::metrics::Registry;
use breccia_net::worker::{ListenerIndex, ListenerOptions, Service, WorkerPool};
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Budget, Namespace, S3Frontend, S3User, Settings, SharedSettings};
use crate::fs::{FsOptions, FsStore};
use crate::s3::codec::sigv4::{Payload, Scope, Signature, Signer, SigningKey};
use crate::s3::codec::time;
use crate::store::BlobStore;

const ACCESS_KEY: &str = "AKEXAMPLE";
const SECRET: &str = "secret";

/// A listener that runs until it is dropped.
struct Server {
    address: String,
    frontend: Arc<S3Frontend>,
    registry: Registry,
    drain: Drain,
    _pool: WorkerPool,
    _folder: TempDir,
}

fn user(access_key: &str, buckets: Option<&[&str]>, read_only: bool) -> Arc<S3User> {
    Arc::new(S3User {
        name: format!("user of {access_key}"),
        access_key: access_key.to_owned(),
        secret_key: SECRET.to_owned(),
        buckets: buckets.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
        read_only,
    })
}

/// A store in a folder of its own.
fn open(folder: &TempDir, name: &str) -> Arc<dyn BlobStore> {
    let options = FsOptions {
        name: name.to_owned(),
        path: folder.path().join(name),
    };
    FsStore::open(&options).expect("a store")
}

fn settings() -> Settings {
    Settings {
        users: vec![
            user(ACCESS_KEY, None, false),
            user("AKMAIL", Some(&["mail"]), false),
            user("AKREAD", None, true),
        ],
        domain: Some("s3.test".to_owned()),
        region: "us-east-1".to_owned(),
        ..Settings::default()
    }
}

impl Server {
    /// Two buckets, `mail` and `other`, each a store of its own.
    fn fixed(settings: Settings) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let buckets = ["mail", "other"].map(|name| (name.to_owned(), open(&folder, name)));
        let namespace = Namespace::Fixed {
            buckets: buckets.into(),
            since_ms: 1_700_000_000_000,
        };
        Self::start(namespace, settings, folder)
    }

    fn start(namespace: Namespace, settings: Settings, folder: TempDir) -> Self {
        let settings = SharedSettings::new(settings);
        let budget = Budget::new(8 * 1024 * 1024);
        let frontend = S3Frontend::new("blobs".to_owned(), namespace, settings, budget);
        let (registry, drain) = (Registry::new(), Drain::new());
        let factory = {
            let (frontend, registry, drain) = (frontend.clone(), registry.clone(), drain.clone());
            move |_| {
                let service: std::rc::Rc<dyn Service> = frontend.service(drain.clone(), &registry);
                vec![service]
            }
        };
        let pool = WorkerPool::start(1, drain.clone(), factory).expect("a worker");
        let bind = "127.0.0.1:0".parse().expect("an address");
        let listener = Listener::open(&bind).expect("a listener");
        let address = listener.bind().to_string();
        let options = ListenerOptions {
            name: "blobs".to_owned(),
            tls: None,
            max_clients: 100,
            refusal: b"",
            drain: drain.clone(),
        };
        pool.listen(ListenerIndex(0), listener, options, &registry);
        Self {
            address,
            frontend,
            registry,
            drain,
            _pool: pool,
            _folder: folder,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address)
            .await
            .expect("a connection")
    }

    /// Sends a request on a connection of its own.
    async fn send(&self, message: Message) -> Reply {
        let mut stream = self.connect().await;
        let bytes = message.bytes();
        // A refusal may come before all is written.
        let _ = stream.write_all(&bytes).await;
        Reply::read(&mut stream).await
    }

    /// A signed request without a body.
    async fn ask(&self, method: &str, target: &str) -> Reply {
        self.send(Message::new(method, target).signed()).await
    }

    /// A signed put that must succeed.
    async fn put(&self, target: &str, body: &str) -> Reply {
        let message = Message::new("PUT", target).body(body).signed();
        let reply = self.send(message).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply
    }
}

/// A request being written.
#[derive(Clone)]
struct Message {
    method: String,
    target: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Message {
    fn new(method: &str, target: &str) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("127.0.0.1"));
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers,
            body: Vec::new(),
        }
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        let value = HeaderValue::from_bytes(value.as_bytes()).expect("a value");
        self.headers.insert(name, value);
        self
    }

    fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        let length = self.body.len().to_string();
        self.header("content-length", &length)
    }

    fn signed(self) -> Self {
        self.signed_by(ACCESS_KEY)
    }

    fn signed_by(self, access_key: &str) -> Self {
        let hash = crate::checksum::of(crate::Algorithm::Sha256, &self.body);
        let payload = Payload::Sha256(hash.try_into().expect("32 bytes"));
        self.signed_with(access_key, SECRET, &payload).0
    }

    fn signed_with(
        mut self,
        access_key: &str,
        secret: &str,
        payload: &Payload,
    ) -> (Self, Signature, SigningKey, String) {
        let now_ms = clock::unix_ms();
        let scope = Scope::s3(&time::scope_date(now_ms), "us-east-1");
        let key = SigningKey::derive(secret, scope);
        let signer = Signer {
            access_key,
            session_token: None,
            key: &key,
            now_ms,
        };
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let signature = signer.sign(&self.method, path, query, &mut self.headers, payload);
        let signature = signature.expect("a signature");
        (self, signature, key.clone(), time::amz_date(now_ms))
    }

    /// The target with a signature that expires after so many seconds, made at `now_ms`.
    fn presigned(mut self, now_ms: u64, expires_s: u64) -> Self {
        let key = SigningKey::derive(SECRET, Scope::s3(&time::scope_date(now_ms), "us-east-1"));
        let signer = Signer {
            access_key: ACCESS_KEY,
            session_token: None,
            key: &key,
            now_ms,
        };
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let query = signer.presign(&self.method, path, query, &self.headers, expires_s);
        self.target = format!("{path}?{}", query.expect("a query"));
        self
    }

    fn head_bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"connection: close\r\n\r\n");
        bytes
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// What came back.
#[derive(Debug)]
struct Reply {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Reply {
    /// Reads until the connection is closed.
    async fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        let end = memchr::memmem::find(&bytes, b"\r\n\r\n").expect("a head");
        let head = String::from_utf8(bytes[..end].to_vec()).expect("a head in ASCII");
        let mut lines = head.split("\r\n");
        let first = lines.next().expect("a first line");
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self {
            status: status.expect("a status"),
            headers: headers.collect(),
            body: bytes[end + 4..].to_vec(),
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The text of the first element of this name.
    fn element(&self, name: &str) -> String {
        let text = self.text();
        let open = format!("<{name}>");
        let rest = text.split_once(&open).map_or("", |(_, rest)| rest);
        rest.split("</").next().unwrap_or_default().to_owned()
    }

    /// The texts of all elements of this name.
    fn elements(&self, name: &str) -> Vec<String> {
        let (text, open) = (self.text(), format!("<{name}>"));
        let pieces = text.split(&open).skip(1);
        let texts = pieces.filter_map(|piece| piece.split("</").next());
        texts.map(str::to_owned).collect()
    }

    #[track_caller]
    fn is(self, status: u16, code: &str) -> Self {
        let found = self.element("Code");
        assert_eq!(
            (self.status, found.as_str()),
            (status, code),
            "{}",
            self.text()
        );
        self
    }
}
