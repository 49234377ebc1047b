//! A server for tests that answers what it is told, byte by byte.
//!
//! Not an HTTP server: it reads one request by its `Content-Length` and sends raw bytes. Invariant:
//! what it records as whole had all the bytes that were announced.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::Endpoint;

/// A request as it came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// `PUT /path?query`.
    pub(crate) line: String,
    /// Lower-case names.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Whether the whole body came.
    pub(crate) whole: bool,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// What the stub does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Does {
    /// Reads it whole and answers these bytes.
    Answers(String),
    /// Answers after the head, then reads on until the peer closes.
    AnswersEarly(String),
    /// Reads it whole, answers these bytes and closes.
    AnswersAndCloses(String),
    /// Reads the head, then nothing more, and keeps the connection.
    Stalls,
    /// Reads it whole, then nothing more, and keeps the connection.
    KeepsSilent,
}

/// An answer with a body.
pub(crate) fn answer(status: &str, headers: &str, body: &str) -> Does {
    Does::Answers(text(status, headers, body))
}

/// An answer's bytes.
pub(crate) fn text(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}\r\n{body}")
}

type Script = Arc<dyn Fn(&Seen, usize) -> Does + Send + Sync>;

/// The running stub.
#[derive(Clone)]
pub(crate) struct Stub {
    pub(crate) port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<Mutex<usize>>,
}

impl Stub {
    /// Starts it; `script` is asked with the head of each request and its place in time.
    pub(crate) async fn start(
        script: impl Fn(&Seen, usize) -> Does + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let stub = Self {
            port: listener.local_addr().expect("an address").port(),
            seen: Arc::default(),
            connections: Arc::default(),
        };
        let script: Script = Arc::new(script);
        let running = stub.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *running.connections.lock().expect("a lock") += 1;
                tokio::spawn(running.clone().serve(stream, Arc::clone(&script)));
            }
        });
        stub
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::parse(&self.url()).expect("an endpoint")
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("a lock").clone()
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        *self.connections.lock().expect("a lock")
    }

    async fn serve(self, mut stream: TcpStream, script: Script) {
        let mut buffer = Vec::new();
        while let Some(mut seen) = head(&mut stream, &mut buffer).await {
            let place = {
                let mut all = self.seen.lock().expect("a lock");
                all.push(seen.clone());
                all.len() - 1
            };
            let does = script(&seen, place);
            if let Does::AnswersEarly(text) = &does {
                let _ = stream.write_all(text.as_bytes()).await;
            }
            if matches!(does, Does::Stalls) {
                std::future::pending::<()>().await;
            }
            let length = seen
                .header("content-length")
                .map_or(0, |text| text.parse().expect("a length"));
            while buffer.len() < length {
                if !more(&mut stream, &mut buffer).await {
                    break;
                }
            }
            seen.whole = buffer.len() >= length;
            seen.body = buffer.drain(..length.min(buffer.len())).collect();
            let whole = seen.whole;
            if let Some(entry) = self.seen.lock().expect("a lock").get_mut(place) {
                *entry = seen;
            }
            match does {
                _ if !whole => return,
                Does::Answers(text) => {
                    let _ = stream.write_all(text.as_bytes()).await;
                }
                Does::AnswersAndCloses(text) => {
                    let _ = stream.write_all(text.as_bytes()).await;
                    return;
                }
                Does::AnswersEarly(_) => {}
                Does::Stalls | Does::KeepsSilent => std::future::pending::<()>().await,
            }
        }
    }
}

async fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> bool {
    matches!(stream.read_buf(buffer).await, Ok(1..))
}

async fn head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Seen> {
    let end = loop {
        if let Some(at) = memchr::memmem::find(buffer, b"\r\n\r\n") {
            break at;
        }
        if !more(stream, buffer).await {
            return None;
        }
    };
    let rest = buffer.split_off(end + 4);
    let text = String::from_utf8(std::mem::replace(buffer, rest)).expect("a head of text");
    let mut lines = text.trim_end().lines();
    let line = lines.next().unwrap_or_default();
    let headers = lines.filter_map(|line| line.split_once(": "));
    Some(Seen {
        line: line.trim_end_matches(" HTTP/1.1").to_owned(),
        headers: headers
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        body: Vec::new(),
        whole: false,
    })
}
