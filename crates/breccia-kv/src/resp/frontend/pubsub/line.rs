//! One subscription connection to one server.
//!
//! Invariant: what was said on a connection is confirmed in order, so a topic counts as confirmed
//! only when every subscription sent for it has been.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use breccia_net::stream::{Stream, connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::super::super::codec::reply::ReplyScanner;
use super::super::leaf::RespLeaf;
use super::hub::{Hub, change};
use super::topic::{Kind, Topic};
use crate::upstream::{MAX_REPLY_BYTES, Scan};

/// A receive buffer larger than this is given back once it is empty.
const KEEP_BYTES: usize = 256 * 1024;
/// The pause before another attempt to connect.
const RETRY: Duration = Duration::from_millis(200);
/// How often a line looks at its endpoint's health.
const LOOK: Duration = Duration::from_millis(100);

/// What a line can be relied on for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineState {
    /// Confirmations from it are awaited.
    Awaited,
    /// Its server cannot be reached: nobody waits for it.
    Down,
}

/// One subscription connection.
pub(crate) struct Line {
    pub number: usize,
    pub spec: Arc<RespLeaf>,
    state: Cell<LineState>,
    connected: Cell<bool>,
    out: RefCell<Vec<u8>>,
    /// Subscriptions sent and not confirmed, by topic.
    owed: RefCell<BTreeMap<Topic, u32>>,
    news: Notify,
}

impl Line {
    pub(crate) fn open(number: usize, spec: Arc<RespLeaf>, hub: &Rc<Hub>) -> Rc<Self> {
        let line = Rc::new(Self {
            number,
            spec,
            state: Cell::new(LineState::Awaited),
            connected: Cell::new(false),
            out: RefCell::default(),
            owed: RefCell::default(),
            news: Notify::new(),
        });
        tokio::task::spawn_local(run(Rc::clone(&line), Rc::downgrade(hub)));
        line
    }

    pub(crate) fn state(&self) -> LineState {
        self.state.get()
    }

    /// Queues a change of one topic; a line that is not connected says everything when it is.
    pub(crate) fn say(&self, verb: &str, topic: &Topic) {
        if self.connected.get() {
            change(&mut self.out.borrow_mut(), verb, topic);
            if verb == topic.kind.verb(true) {
                *self.owed.borrow_mut().entry(topic.clone()).or_default() += 1;
            }
        }
        self.news.notify_one();
    }

    /// A subscription was confirmed.
    pub(crate) fn confirm(&self, hub: &Hub, topic: &Topic) {
        let mut owed = self.owed.borrow_mut();
        let Some(count) = owed.get_mut(topic) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            owed.remove(topic);
            drop(owed);
            hub.confirmed(self.number, topic);
        }
    }

    fn set_state(&self, hub: &Hub, state: LineState) {
        if self.state.replace(state) != state {
            hub.settle_all();
        }
    }

    /// Returns once the endpoint is known to be down.
    async fn is_down(&self) {
        while self.spec.health.is_up() {
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn connect(&self) -> Result<Stream, String> {
        let timeout = self.spec.limits.timeout;
        let mut stream = connect(&self.spec.address, self.spec.tls.as_ref(), timeout)
            .await
            .map_err(|error| error.to_string())?;
        if let Some(password) = &self.spec.password {
            let mut login = Vec::new();
            let mut words: Vec<&[u8]> = vec![b"AUTH"];
            words.extend(self.spec.user.as_deref().map(str::as_bytes));
            words.push(password.as_bytes());
            super::super::super::encode::request(&mut login, &words);
            let exchange = async {
                stream.write_all(&login).await?;
                stream.flush().await?;
                let mut reply = [0; 5];
                stream.read_exact(&mut reply).await?;
                Ok::<_, std::io::Error>(reply)
            };
            match tokio::time::timeout(timeout, exchange).await {
                Ok(Ok(reply)) if &reply == b"+OK\r\n" => {}
                Ok(Ok(_)) => return Err("the server refused our login".to_owned()),
                Ok(Err(error)) => return Err(error.to_string()),
                Err(_) => return Err("no answer to our login".to_owned()),
            }
        }
        Ok(stream)
    }

    /// Says all topics and relays messages until the connection is lost or not needed any more.
    async fn relay(&self, hub: &Weak<Hub>, mut stream: Stream) -> Result<(), String> {
        {
            let Some(hub) = hub.upgrade() else {
                return Ok(());
            };
            self.connected.set(true);
            for topic in hub.topics_of(self.number) {
                self.say(topic.kind.verb(true), &topic);
            }
        }
        let mut received = Vec::with_capacity(4096);
        let mut scanner = ReplyScanner::default();
        loop {
            let out = std::mem::take(&mut *self.out.borrow_mut());
            if !out.is_empty() {
                let writing = async {
                    stream.write_all(&out).await?;
                    stream.flush().await
                };
                match tokio::time::timeout(self.spec.limits.timeout, writing).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return Err(error.to_string()),
                    Err(_) => return Err("it takes no bytes".to_owned()),
                }
            }
            tokio::select! {
                read = stream.read_buf(&mut received) => {
                    if read.map_err(|error| error.to_string())? == 0 {
                        return Err("the server closed the connection".to_owned());
                    }
                }
                () = self.news.notified() => {}
                () = tokio::time::sleep(LOOK), if !self.owed.borrow().is_empty() => {}
            }
            let Some(hub) = hub.upgrade() else {
                return Ok(());
            };
            if hub.is_empty() {
                return Ok(());
            }
            let up = self.spec.health.is_up();
            let state = if up {
                LineState::Awaited
            } else {
                LineState::Down
            };
            self.set_state(&hub, state);
            let at = self.take_frames(&hub, &mut scanner, &received)?;
            received.drain(..at);
            if received.is_empty() && received.capacity() > KEEP_BYTES {
                received = Vec::with_capacity(4096);
            }
            if received.len() > MAX_REPLY_BYTES {
                return Err("a message is larger than 1 GiB".to_owned());
            }
        }
    }

    /// Gives whole messages to the hub; answers how many bytes they were.
    fn take_frames(
        &self,
        hub: &Hub,
        scanner: &mut ReplyScanner,
        received: &[u8],
    ) -> Result<usize, String> {
        let mut at = 0;
        loop {
            match scanner.scan(received.get(at..).unwrap_or_default()) {
                Scan::Complete(length) | Scan::Skip(length) => {
                    let frame = received.get(at..at + length).unwrap_or_default();
                    if is_unknown_shard_verb(frame) {
                        self.owed
                            .borrow_mut()
                            .retain(|topic, _| topic.kind != Kind::Shard);
                        hub.refused_shard_channels(self.number, frame);
                    } else if frame.first() == Some(&b'-') {
                        hub.refused(frame);
                        return Err(String::from_utf8_lossy(frame).trim_end().to_owned());
                    }
                    hub.received(self, frame);
                    *scanner = ReplyScanner::default();
                    at += length;
                }
                Scan::Incomplete => return Ok(at),
                Scan::Wrong(why) => return Err(why.to_owned()),
            }
        }
    }
}

/// Whether a server older than 7.0 has refused a request about sharded channels.
fn is_unknown_shard_verb(frame: &[u8]) -> bool {
    if frame.first() != Some(&b'-') {
        return false;
    }
    let text = String::from_utf8_lossy(frame).to_ascii_lowercase();
    let command = text.strip_prefix("-err unknown command ").unwrap_or("");
    let command = command.trim_start_matches(['\'', '`']);
    command.starts_with("ssubscribe") || command.starts_with("sunsubscribe")
}

async fn run(line: Rc<Line>, hub: Weak<Hub>) {
    loop {
        match hub.upgrade() {
            None => return,
            Some(hub) if hub.is_empty() => {
                // Nobody waits for it now; whoever comes next is to wait for its answer.
                line.state.set(LineState::Awaited);
                drop(hub);
                line.news.notified().await;
                continue;
            }
            Some(_) => {}
        }
        let connecting = async {
            tokio::select! {
                connected = line.connect() => connected.map_err(Some),
                () = line.is_down() => Err(None),
            }
        };
        let lost = match connecting.await {
            Ok(stream) => {
                let ended = line.relay(&hub, stream).await;
                line.connected.set(false);
                line.out.borrow_mut().clear();
                line.owed.borrow_mut().clear();
                ended.is_err()
            }
            Err(why) => {
                if let Some(why) = why {
                    line.spec.health.connect_failed(&why);
                }
                false
            }
        };
        let Some(hub) = hub.upgrade() else { return };
        if lost {
            hub.lost(line.number);
        }
        if !hub.is_empty() {
            line.set_state(&hub, LineState::Down);
            tokio::time::sleep(RETRY).await;
            if line.spec.health.is_up() {
                line.set_state(&hub, LineState::Awaited);
            }
        }
    }
}
