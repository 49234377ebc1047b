//! One subscription connection to one server.
//!
//! Invariant: what was said on a connection is answered in order, so an error answers the oldest of
//! it, and a topic counts as confirmed only when every subscription sent for it has been. What a
//! server refuses concerns its topic only, and is said again while it is wanted.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use breccia_net::clock;
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
/// The pause before what a server refused is said again.
const AGAIN: Duration = Duration::from_secs(1);
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
    /// Which change of the endpoint's place the last attempt to connect knew.
    connected_to: Cell<u64>,
    out: RefCell<Vec<u8>>,
    /// Subscriptions sent and not confirmed, by topic.
    owed: RefCell<BTreeMap<Topic, u32>>,
    /// What was said and not answered, in order: whether it subscribes, and the topic.
    said: RefCell<VecDeque<(bool, Topic)>>,
    /// Topics of which the server refused something.
    refused: RefCell<BTreeSet<Topic>>,
    /// When they are looked at again, if there are any.
    again: Cell<Option<Instant>>,
    news: Notify,
}

impl Line {
    pub(crate) fn open(number: usize, spec: Arc<RespLeaf>, hub: &Rc<Hub>) -> Rc<Self> {
        let line = Rc::new(Self {
            number,
            spec,
            state: Cell::new(LineState::Awaited),
            connected: Cell::new(false),
            connected_to: Cell::new(0),
            out: RefCell::default(),
            owed: RefCell::default(),
            said: RefCell::default(),
            refused: RefCell::default(),
            again: Cell::new(None),
            news: Notify::new(),
        });
        tokio::task::spawn_local(run(Rc::clone(&line), Rc::downgrade(hub)));
        line
    }

    /// Lets the line look whether anybody needs it.
    pub(crate) fn wake(&self) {
        self.news.notify_one();
    }

    pub(crate) fn state(&self) -> LineState {
        self.state.get()
    }

    /// Queues a change of one topic; a line that is not connected says everything when it is.
    pub(crate) fn say(&self, joins: bool, topic: &Topic) {
        if self.connected.get() {
            change(&mut self.out.borrow_mut(), topic.kind.verb(joins), topic);
            self.said.borrow_mut().push_back((joins, topic.clone()));
            if joins {
                *self.owed.borrow_mut().entry(topic.clone()).or_default() += 1;
            }
        }
        self.news.notify_one();
    }

    /// A subscription was confirmed.
    pub(crate) fn confirm(&self, hub: &Hub, topic: &Topic) {
        self.is_answered(true, topic);
        if self.is_settled(topic) {
            hub.confirmed(self.number, topic);
        }
    }

    /// The end of a subscription was confirmed.
    pub(crate) fn ended(&self, topic: &Topic) {
        self.is_answered(false, topic);
    }

    fn is_answered(&self, joins: bool, topic: &Topic) {
        let mut said = self.said.borrow_mut();
        // A server may end a subscription unasked.
        if said.front().is_some_and(|(j, t)| *j == joins && t == topic) {
            said.pop_front();
        }
    }

    /// Whether a subscription of this topic was sent and is not confirmed.
    pub(crate) fn owes(&self, topic: &Topic) -> bool {
        self.owed.borrow().contains_key(topic)
    }

    /// One subscription of this topic is answered; whether none is owed any more.
    fn is_settled(&self, topic: &Topic) -> bool {
        let mut owed = self.owed.borrow_mut();
        let Some(count) = owed.get_mut(topic) else {
            return false;
        };
        *count -= 1;
        let settled = *count == 0;
        if settled {
            owed.remove(topic);
        }
        settled
    }

    /// The oldest of what was said is answered with an error.
    ///
    /// # Errors
    /// When nothing was: then the error is about the connection.
    fn refuse(&self, hub: &Hub, error: &[u8]) -> Result<(), String> {
        let said = self.said.borrow_mut().pop_front();
        if let Some((false, topic)) = &said {
            // It is said again, but who has left need not wait for that.
            hub.ceased(self.number, topic);
        }
        if is_unknown_shard_verb(error) {
            self.owed
                .borrow_mut()
                .retain(|topic, _| topic.kind != Kind::Shard);
            hub.refused_shard_channels(self.number, error);
            return Ok(());
        }
        let Some((joins, topic)) = said else {
            return Err(String::from_utf8_lossy(error).trim_end().to_owned());
        };
        if joins && self.is_settled(&topic) {
            hub.refused(self.number, &topic, error);
        }
        self.refused.borrow_mut().insert(topic);
        if self.again.get().is_none() {
            self.again.set(Some(clock::now() + AGAIN));
        }
        Ok(())
    }

    /// Says again what was refused a while ago, as far as it is still wanted.
    fn say_again(&self, hub: &Hub) {
        if self.again.get().is_none_or(|due| clock::now() < due) {
            return;
        }
        self.again.set(None);
        for topic in self.refused.take() {
            let owed = self.owed.borrow().contains_key(&topic);
            if let Some(joins) = hub.lacks(self.number, &topic).filter(|_| !owed) {
                self.say(joins, &topic);
            }
        }
    }

    /// Whether there is something to look at from time to time.
    fn waits(&self) -> bool {
        self.again.get().is_some() || !self.owed.borrow().is_empty()
    }

    /// Forgets what was said: the connection is gone, or another one takes its place.
    fn forget(&self) {
        self.out.borrow_mut().clear();
        self.owed.borrow_mut().clear();
        self.said.borrow_mut().clear();
        self.refused.borrow_mut().clear();
        self.again.set(None);
    }

    fn set_state(&self, hub: &Hub, state: LineState) {
        if self.state.replace(state) != state {
            hub.settle_all(self);
        }
    }

    /// Returns once the endpoint is known to be down.
    async fn is_down(&self) {
        while self.spec.is_up() {
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn connect(&self) -> Result<Stream, String> {
        let current = self.spec.endpoint.current();
        self.connected_to.set(current.renewed);
        let (place, timeout) = (&current.terms.place, current.terms.limits.timeout);
        let mut stream = connect(&place.address, place.tls.as_ref(), timeout)
            .await
            .map_err(|error| error.to_string())?;
        if let Some(password) = &place.password {
            let mut login = Vec::new();
            let mut words: Vec<&[u8]> = vec![b"AUTH"];
            words.extend(place.user.as_deref().map(str::as_bytes));
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

    /// Says all topics on a connection that has just been made.
    fn say_all(&self, hub: &Hub) {
        self.connected.set(true);
        hub.is_deaf(self.number);
        self.forget();
        for topic in hub.topics_of(self.number) {
            self.say(true, &topic);
        }
    }

    /// Says all topics and relays messages until the connection is lost or not needed any more.
    ///
    /// When the endpoint has changed, the former connection is kept until the next one has confirmed
    /// every topic: nobody's subscription is interrupted.
    async fn relay(&self, hub: &Weak<Hub>, stream: Stream) -> Result<(), String> {
        match hub.upgrade() {
            Some(hub) => self.say_all(&hub),
            None => return Ok(()),
        }
        let mut connected_to = self.connected_to.get();
        let (mut inlet, mut former) = (Inlet::new(stream), None);
        let mut news = self.spec.endpoint.news();
        let mut moving: Option<Connecting<'_>> = None;
        loop {
            self.write(&mut inlet.stream).await?;
            tokio::select! {
                read = inlet.read() => read?,
                read = read_former(&mut former) => if read.is_err() { former = None },
                next = reach(&mut moving) => match next {
                    Ok(stream) => {
                        moving = None;
                        former = Some(std::mem::replace(&mut inlet, Inlet::new(stream)));
                        hub.upgrade().iter().for_each(|hub| self.say_all(hub));
                    }
                    Err(_) => moving = Some(Box::pin(self.connect_again())),
                },
                _ = news.changed() => {}
                () = self.news.notified() => {}
                () = tokio::time::sleep(LOOK), if self.waits() => {}
            }
            let renewed = self.spec.endpoint.current().renewed;
            if renewed != connected_to {
                connected_to = renewed;
                moving = Some(Box::pin(self.connect()));
            }
            let Some(hub) = hub.upgrade() else {
                return Ok(());
            };
            if hub.is_empty() {
                return Ok(());
            }
            let up = self.spec.is_up();
            let state = if up {
                LineState::Awaited
            } else {
                LineState::Down
            };
            self.set_state(&hub, state);
            self.say_again(&hub);
            // The former one's after it: what it says of a topic confirmed by now is said twice.
            self.take_frames(&hub, &mut inlet, Side::Current)?;
            if let Some(inlet) = &mut former {
                let taken = self.take_frames(&hub, inlet, Side::Former);
                if taken.is_err() || self.owed.borrow().is_empty() {
                    former = None;
                }
            }
        }
    }

    async fn connect_again(&self) -> Result<Stream, String> {
        tokio::time::sleep(RETRY).await;
        self.connect().await
    }

    /// Sends what there is to say.
    async fn write(&self, stream: &mut Stream) -> Result<(), String> {
        let out = std::mem::take(&mut *self.out.borrow_mut());
        if out.is_empty() {
            return Ok(());
        }
        let writing = async {
            stream.write_all(&out).await?;
            stream.flush().await
        };
        let timeout = self.spec.endpoint.current().terms.limits.timeout;
        match tokio::time::timeout(timeout, writing).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("it takes no bytes".to_owned()),
        }
    }

    /// Gives whole messages to the hub.
    fn take_frames(&self, hub: &Hub, inlet: &mut Inlet, side: Side) -> Result<(), String> {
        let mut at = 0;
        loop {
            match inlet
                .scanner
                .scan(inlet.received.get(at..).unwrap_or_default())
            {
                Scan::Complete(length) | Scan::Skip(length) => {
                    let frame = inlet.received.get(at..at + length).unwrap_or_default();
                    match side {
                        Side::Current if frame.first() == Some(&b'-') => self.refuse(hub, frame)?,
                        Side::Current => hub.received(self, frame),
                        Side::Former => {
                            hub.received_late(frame, |topic| self.owes(topic));
                        }
                    }
                    inlet.scanner = ReplyScanner::default();
                    at += length;
                }
                Scan::Incomplete => break,
                Scan::Wrong(why) => return Err(why.to_owned()),
            }
        }
        inlet.consumed(at)
    }
}

/// Which of two connections a message came on.
#[derive(Clone, Copy)]
enum Side {
    Current,
    Former,
}

/// An attempt to connect.
type Connecting<'l> = Pin<Box<dyn Future<Output = Result<Stream, String>> + 'l>>;

/// The outcome of an attempt, if there is one.
async fn reach(moving: &mut Option<Connecting<'_>>) -> Result<Stream, String> {
    match moving {
        Some(connecting) => connecting.as_mut().await,
        None => std::future::pending().await,
    }
}

async fn read_former(former: &mut Option<Inlet>) -> Result<(), String> {
    match former {
        Some(inlet) => inlet.read().await,
        None => std::future::pending().await,
    }
}

/// A connection, and what was received on it and is no whole message yet.
struct Inlet {
    stream: Stream,
    received: Vec<u8>,
    scanner: ReplyScanner,
}

impl Inlet {
    fn new(stream: Stream) -> Self {
        Self {
            stream,
            received: Vec::with_capacity(4096),
            scanner: ReplyScanner::default(),
        }
    }

    async fn read(&mut self) -> Result<(), String> {
        match self.stream.read_buf(&mut self.received).await {
            Ok(0) => Err("the server closed the connection".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn consumed(&mut self, bytes: usize) -> Result<(), String> {
        self.received.drain(..bytes);
        if self.received.is_empty() && self.received.capacity() > KEEP_BYTES {
            self.received = Vec::with_capacity(4096);
        }
        if self.received.len() > MAX_REPLY_BYTES {
            return Err("a message is larger than 1 GiB".to_owned());
        }
        Ok(())
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
                line.forget();
                ended.is_err()
            }
            Err(why) => {
                if let Some(why) = why {
                    line.spec.endpoint.health().connect_failed(&why);
                }
                false
            }
        };
        let Some(hub) = hub.upgrade() else { return };
        hub.is_deaf(line.number);
        if lost {
            hub.lost(line.number);
        }
        if !hub.is_empty() {
            line.set_state(&hub, LineState::Down);
            tokio::time::sleep(RETRY).await;
            if line.spec.is_up() {
                line.set_state(&hub, LineState::Awaited);
            }
        }
    }
}
