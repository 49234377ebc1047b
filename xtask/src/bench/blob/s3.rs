//! As much of an S3 client as a loader needs: signed requests on one connection that is kept.
//!
//! Not a library: it trusts the servers it measures. Invariant: a request that does not answer 200
//! is an error, so no figure is of refusals.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use ring::digest::{SHA256, digest};
use ring::hmac;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Where to go, and who one is there.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    pub(crate) port: u16,
    pub(crate) bucket: String,
    pub(crate) region: String,
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
}

/// A connection.
pub(crate) struct Client {
    door: Door,
    stream: TcpStream,
    key: hmac::Key,
    date: String,
    scrap: Vec<u8>,
    heads: HashMap<String, Arc<str>>,
}

impl Client {
    pub(crate) async fn new(door: &Door) -> Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", door.port)).await?;
        stream.set_nodelay(true)?;
        let date = amz_date()?;
        let day = date.get(..8).context("a date")?.to_owned();
        let first = format!("AWS4{}", door.secret_key);
        let mut key = hmac::Key::new(hmac::HMAC_SHA256, first.as_bytes());
        for word in [&day, &door.region, "s3", "aws4_request"] {
            let tag = hmac::sign(&key, word.as_bytes());
            key = hmac::Key::new(hmac::HMAC_SHA256, tag.as_ref());
        }
        Ok(Client {
            door: door.clone(),
            stream,
            key,
            date,
            scrap: vec![0; 256 * 1024],
            heads: HashMap::new(),
        })
    }

    /// Writes an object.
    pub(crate) async fn put(&mut self, key: &str, bytes: &[u8]) -> Result<()> {
        let path = format!("/{}/{key}", self.door.bucket);
        self.call("PUT", &path, bytes).await.map(drop)
    }

    /// Reads an object and throws it away; answers its size.
    pub(crate) async fn get(&mut self, key: &str) -> Result<usize> {
        let path = format!("/{}/{key}", self.door.bucket);
        self.call("GET", &path, &[]).await
    }

    async fn call(&mut self, method: &str, path: &str, body: &[u8]) -> Result<usize> {
        let request = format!("{method} {path}");
        let head = if let Some(head) = self.heads.get(&request) {
            Arc::clone(head)
        } else {
            let head: Arc<str> = self.head(method, path, body.len()).into();
            self.heads.insert(request, Arc::clone(&head));
            head
        };
        let socket = &mut self.stream;
        if body.is_empty() {
            socket.write_all(head.as_bytes()).await?;
        } else if body.len() <= 64 * 1024 {
            socket.write_all(&[head.as_bytes(), body].concat()).await?;
        } else {
            socket.write_all(head.as_bytes()).await?;
            socket.write_all(body).await?;
        }
        self.answer().await
    }

    /// A signed head. It holds for as long as a bench takes, so each is made once.
    fn head(&self, method: &str, path: &str, length: usize) -> String {
        let host = format!("127.0.0.1:{}", self.door.port);
        let signed = "host;x-amz-content-sha256;x-amz-date";
        let canonical = format!(
            "{method}\n{path}\n\nhost:{host}\nx-amz-content-sha256:UNSIGNED-PAYLOAD\n\
             x-amz-date:{}\n\n{signed}\nUNSIGNED-PAYLOAD",
            self.date
        );
        let day = self.date.get(..8).unwrap_or_default();
        let scope = format!("{day}/{}/s3/aws4_request", self.door.region);
        let hashed = hex(digest(&SHA256, canonical.as_bytes()).as_ref());
        let to_sign = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{hashed}", self.date);
        let signature = hex(hmac::sign(&self.key, to_sign.as_bytes()).as_ref());
        format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nx-amz-date: {}\r\n\
             x-amz-content-sha256: UNSIGNED-PAYLOAD\r\ncontent-length: {length}\r\n\
             authorization: AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={signed}, \
             Signature={signature}\r\n\r\n",
            self.date, self.door.access_key
        )
    }

    /// Reads an answer and throws its body away; gives the body's size. By hand and not line by line:
    /// the loader should spend as little as it can of the cores that it shares.
    async fn answer(&mut self) -> Result<usize> {
        let mut filled = 0;
        let end = loop {
            let room = self.scrap.get_mut(filled..).context("room")?;
            let read = self.stream.read(room).await?;
            ensure!(read > 0, "the answer ended in its head");
            filled += read;
            let head = self.scrap.get(..filled).context("what was read")?;
            if let Some(at) = head.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let head = String::from_utf8_lossy(self.scrap.get(..end).context("a head")?).into_owned();
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim())
        });
        let length: usize = length.unwrap_or("0").parse()?;
        let mut left = length.saturating_sub(filled - end);
        while left > 0 {
            let most = left.min(self.scrap.len());
            let read = self
                .stream
                .read(self.scrap.get_mut(..most).context("room")?)
                .await?;
            ensure!(read > 0, "the answer ended {left} bytes early");
            left -= read;
        }
        if head.get(9..12) != Some("200") {
            bail!("refused: {head}");
        }
        Ok(length)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

/// Now, as `20130524T000000Z`.
fn amz_date() -> Result<String> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's days-to-civil, for days since 1970.
    let z = days + 719_468;
    let (era, of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    Ok(format!(
        "{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    ))
}
