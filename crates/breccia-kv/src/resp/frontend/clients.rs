//! The clients of one listener, as CLIENT LIST shows them: the same for all workers.
//!
//! Not the clients themselves, which never leave their worker: each has a card here, on which its
//! own worker writes once a turn. Invariant: a client is listed from its first turn to its last.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use breccia_net::clock;

use super::super::commands::COMMANDS;
use super::super::peer::ConnectionNumber;
use super::metrics::UNKNOWN_ROW;
use crate::endpoint::Endpoint;
use crate::front::client::Client;
use crate::front::handle::Handle;

/// What a client calls itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    pub name: Vec<u8>,
    pub user: String,
    pub library: String,
    pub library_version: String,
}

/// What changes with a client's requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doings {
    pub row: u16,
    pub database: u32,
    pub version: u8,
    /// Channels, patterns, sharded channels.
    pub subscriptions: [usize; 3],
    /// Commands queued in a transaction; −1 outside.
    pub queued: i64,
}

/// One client. See the module's page.
#[derive(Debug)]
pub(crate) struct Card {
    pub id: u64,
    pub address: String,
    pub local: Arc<str>,
    pub connected: Instant,
    pub handle: Arc<Handle>,
    names: Mutex<Names>,
    /// Seconds from the connection to the last request.
    heard: AtomicU64,
    row: AtomicU16,
    database: AtomicU32,
    version: AtomicU8,
    subscriptions: [AtomicU32; 3],
    queued: AtomicI64,
    waiting: Mutex<Option<Waiting>>,
}

/// Where a client waits for the reply to a command that blocks.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    /// The shard: servers of a cluster have another place on each worker.
    pub endpoint: Arc<Endpoint>,
    /// Tells whether that is still the same server (see `endpoint::Current::moved`).
    pub moved: u64,
    /// What the shard calls the connection on which it waits.
    pub number: Arc<ConnectionNumber>,
}

impl Card {
    pub(crate) fn names(&self) -> Names {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what the client calls itself.
    pub(crate) fn rename(&self, change: impl FnOnce(&mut Names)) {
        change(&mut self.lock());
    }

    /// Writes down what the client does; plain stores, once a turn.
    pub(crate) fn note(&self, now: Instant, doings: Doings) {
        let heard = now.saturating_duration_since(self.connected).as_secs();
        self.heard.store(heard, Ordering::Relaxed);
        self.row.store(doings.row, Ordering::Relaxed);
        self.database.store(doings.database, Ordering::Relaxed);
        self.version.store(doings.version, Ordering::Relaxed);
        self.queued.store(doings.queued, Ordering::Relaxed);
        for (cell, count) in self.subscriptions.iter().zip(doings.subscriptions) {
            cell.store(u32::try_from(count).unwrap_or(u32::MAX), Ordering::Relaxed);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client waits, or no longer does.
    pub(crate) fn set_waiting(&self, waiting: Option<Waiting>) {
        *self.waiting() = waiting;
    }

    /// Whether the client waits on its shard: its command has reached it.
    pub(crate) fn is_blocked(&self) -> bool {
        let waiting = self.waiting();
        waiting
            .as_ref()
            .is_some_and(|waiting| waiting.number.is_settled())
    }

    /// Where the client waits, for somebody who will have it unblocked. The connection is marked
    /// before it can be given back, so that nobody else is.
    pub(crate) fn mark_waiting(&self) -> Option<Waiting> {
        let waiting = self.waiting();
        let waiting = waiting
            .as_ref()
            .filter(|waiting| waiting.number.is_settled())?;
        waiting.number.mark();
        Some(waiting.clone())
    }

    pub(crate) fn is_subscribed(&self) -> bool {
        let mut counts = self.subscriptions.iter();
        counts.any(|count| count.load(Ordering::Relaxed) > 0)
    }

    fn command(&self) -> &'static str {
        let row = self.row.load(Ordering::Relaxed);
        COMMANDS
            .get(usize::from(row))
            .map_or("NULL", |spec| spec.name)
    }

    fn flags(&self) -> String {
        let mut flags = String::new();
        let mut set = |on: bool, flag: char| {
            if on {
                flags.push(flag);
            }
        };
        set(self.is_subscribed(), 'P');
        set(self.queued.load(Ordering::Relaxed) >= 0, 'x');
        set(self.is_blocked(), 'b');
        if flags.is_empty() {
            flags.push('N');
        }
        flags
    }

    /// The client's line of CLIENT LIST. What only a server has (its buffers' sizes) is zero.
    pub(crate) fn line(&self, now: Instant) -> String {
        let names = self.names();
        let age = now.saturating_duration_since(self.connected).as_secs();
        let [channels, patterns, shard] = &self.subscriptions;
        let count = |count: &AtomicU32| count.load(Ordering::Relaxed);
        format!(
            "id={} addr={} laddr={} fd=0 name={} age={age} idle={} flags={} db={} sub={} psub={} \
             ssub={} multi={} qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 \
             omem=0 tot-mem=0 events=r cmd={} user={} redir=-1 resp={} lib-name={} lib-ver={}\n",
            self.id,
            self.address,
            self.local,
            String::from_utf8_lossy(&names.name),
            age.saturating_sub(self.heard.load(Ordering::Relaxed)),
            self.flags(),
            self.database.load(Ordering::Relaxed),
            count(channels),
            count(patterns),
            count(shard),
            self.queued.load(Ordering::Relaxed),
            self.command(),
            names.user,
            self.version.load(Ordering::Relaxed),
            names.library,
            names.library_version,
        )
    }
}

/// The clients of one listener. See the module's page.
#[derive(Debug)]
pub struct ClientRoster {
    cards: Mutex<BTreeMap<u64, Arc<Card>>>,
    admitted: AtomicU64,
    started_ms: u64,
}

impl Default for ClientRoster {
    fn default() -> Self {
        Self {
            cards: Mutex::default(),
            admitted: AtomicU64::new(0),
            started_ms: clock::unix_ms(),
        }
    }
}

impl ClientRoster {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Card>>> {
        self.cards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A card for a client that has just connected.
    pub(crate) fn admit(&self, client: &Client, local: Arc<str>) -> Arc<Card> {
        let card = Arc::new(Card {
            id: client.id,
            address: client.peer.clone(),
            local,
            connected: clock::now(),
            handle: Arc::clone(&client.handle),
            names: Mutex::new(Names {
                user: "default".to_owned(),
                ..Names::default()
            }),
            heard: AtomicU64::new(0),
            row: AtomicU16::new(UNKNOWN_ROW),
            database: AtomicU32::new(0),
            version: AtomicU8::new(2),
            subscriptions: Default::default(),
            queued: AtomicI64::new(-1),
            waiting: Mutex::default(),
        });
        self.admitted.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(client.id, Arc::clone(&card));
        card
    }

    /// The client has left.
    pub(crate) fn dismiss(&self, id: u64) {
        self.lock().remove(&id);
    }

    /// All clients, in the order they came; who was told to close has left.
    pub(crate) fn cards(&self) -> Vec<Arc<Card>> {
        let cards = self.lock();
        let open = cards.values().filter(|card| !card.handle.is_closed());
        open.cloned().collect()
    }

    /// The client of that number.
    pub(crate) fn card(&self, id: u64) -> Option<Arc<Card>> {
        let card = self.lock().get(&id).cloned();
        card.filter(|card| !card.handle.is_closed())
    }

    /// How many clients ever came.
    pub(crate) fn admitted(&self) -> u64 {
        self.admitted.load(Ordering::Relaxed)
    }

    /// Seconds since the listener was made.
    pub(crate) fn uptime(&self) -> u64 {
        clock::unix_ms().saturating_sub(self.started_ms) / 1000
    }

    /// The lines of those that `wanted` picks.
    pub(crate) fn lines(&self, wanted: impl Fn(&Card) -> bool) -> String {
        let now = clock::now();
        let mut text = String::new();
        for card in self.cards() {
            if wanted(&card) {
                // Writing to a String cannot fail.
                let _ = write!(text, "{}", card.line(now));
            }
        }
        text
    }
}
