//! One connection on which a server is asked about others: a sentinel, or a server of a cluster.
//!
//! Not the way of requests: one question at a time, and whole replies. Invariant: a reply is at most
//! [`LONGEST_REPLY`] long, and whoever asks bounds the wait.

use std::time::Duration;

use breccia_core::address::Address;
use breccia_net::stream::{Stream, connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::codec::reply::{ReplyScanner, elements, text};
use super::encode;
use crate::endpoint::Place;
use crate::upstream::Scan;

/// What a server says of a thousand others fits in it.
const LONGEST_REPLY: usize = 4 << 20;
/// The end of one attempt to connect, if nobody ends it before.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// See the module's page.
pub(crate) struct Asker {
    stream: Stream,
    received: Vec<u8>,
}

impl Asker {
    /// Connects and logs in.
    ///
    /// # Errors
    /// A short phrase that says what was in the way; it shows no secret.
    pub(crate) async fn enter(place: &Place) -> Result<Self, String> {
        let connected = connect(&place.address, place.tls.as_ref(), CONNECT_LIMIT).await;
        let stream = connected.map_err(|error| error.reason())?;
        let mut asker = Self {
            stream,
            received: Vec::new(),
        };
        if let Some(password) = &place.password {
            let mut words: Vec<&[u8]> = vec![b"AUTH"];
            words.extend(place.user.as_deref().map(str::as_bytes));
            words.push(password.as_bytes());
            asker.ask(&words).await?;
        }
        Ok(asker)
    }

    /// One question and its reply; an error of the server is one here.
    pub(crate) async fn ask(&mut self, words: &[&[u8]]) -> Result<Vec<u8>, String> {
        self.say(words).await?;
        self.reply().await
    }

    /// Sends a question whose reply is read by [`Self::reply`].
    pub(crate) async fn say(&mut self, words: &[&[u8]]) -> Result<(), String> {
        let mut question = Vec::new();
        encode::request(&mut question, words);
        let written = async {
            self.stream.write_all(&question).await?;
            self.stream.flush().await
        };
        written.await.map_err(|error| lost(&error))
    }

    /// The next reply, or the next message of a subscription.
    pub(crate) async fn reply(&mut self) -> Result<Vec<u8>, String> {
        let mut scanner = ReplyScanner::default();
        loop {
            match scanner.scan(&self.received) {
                Scan::Complete(length) | Scan::Skip(length) => {
                    let reply: Vec<u8> = self.received.drain(..length).collect();
                    return match reply.strip_prefix(b"-") {
                        Some(refusal) => Err(refused(refusal)),
                        None => Ok(reply),
                    };
                }
                Scan::Wrong(why) => return Err(format!("answers with {why}")),
                Scan::Incomplete if self.received.len() > LONGEST_REPLY => {
                    return Err("answers with more than 4 MiB".to_owned());
                }
                Scan::Incomplete => {
                    let read = self.stream.read_buf(&mut self.received).await;
                    if read.map_err(|error| lost(&error))? == 0 {
                        return Err("closed the connection".to_owned());
                    }
                }
            }
        }
    }
}

fn lost(error: &std::io::Error) -> String {
    format!(
        "connection lost: {}",
        breccia_net::error::plain_reason(error)
    )
}

/// An error of a server. It may name a user, never a password.
fn refused(text: &[u8]) -> String {
    format!("answers {}", String::from_utf8_lossy(text).trim_end())
}

/// A flat list of names and values, as Redis has it in RESP2.
pub(crate) fn pairs(reply: &[u8]) -> impl Iterator<Item = (String, String)> + '_ {
    let mut words = elements(reply).into_iter().flatten().map(word);
    std::iter::from_fn(move || Some((words.next()?, words.next()?)))
}

/// A string of a reply; empty for what is none.
pub(crate) fn word(reply: &[u8]) -> String {
    String::from_utf8_lossy(text(reply).unwrap_or_default()).into_owned()
}

/// An address that a server has named in two words.
pub(crate) fn address(host: &str, port: &str) -> Option<Address> {
    Address::tcp(host, port.parse().ok()?).ok()
}
