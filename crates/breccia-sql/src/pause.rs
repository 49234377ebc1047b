//! Servers that an administrator holds statements back from, and what still runs on them.
//!
//! Not who waits, nor for how long: sessions do that. Invariant: once a server is paused and was seen
//! with nothing running, nothing begins there before it is resumed. A session says that it begins
//! before it looks whether it may, and an administrator pauses before looking what runs. Before a
//! pause ends, the servers are asked what they are: they may not be what they were.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::watch;

/// The gate of one server: whether it is shut, and what has passed it and is still under way.
#[derive(Debug, Default)]
pub struct Gate {
    running: AtomicUsize,
    paused: AtomicBool,
    /// Questions for what the server is that an administrator waits for.
    pub(crate) questions: Questions,
}

impl Gate {
    /// Whether this server is paused by itself, whatever its composite is.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }

    /// Statements and transactions that run there now.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }
}

/// Questions that somebody wants asked from now on, and waits for. One task asks them.
#[derive(Debug)]
pub(crate) struct Questions {
    wanted: watch::Sender<u64>,
    ended: watch::Sender<u64>,
}

impl Default for Questions {
    fn default() -> Self {
        Self {
            wanted: watch::Sender::new(0),
            ended: watch::Sender::new(0),
        }
    }
}

impl Questions {
    /// Wants one that begins after this; its number.
    fn want(&self) -> u64 {
        let mut number = 0;
        self.wanted.send_modify(|wanted| {
            *wanted += 1;
            number = *wanted;
        });
        number
    }

    /// Waits until that question has ended, answered or not.
    async fn end_of(&self, number: u64) {
        // The sender lives in `self`, so the channel cannot close while this waits.
        let _ = self.ended.subscribe().wait_for(|it| *it >= number).await;
    }

    /// For the one who asks, for ever: asks whenever somebody wants a question that has not ended.
    pub(crate) async fn carry_out<F: Future>(&self, ask: impl Fn() -> F) {
        let mut wanted = self.wanted.subscribe();
        let mut ended = *self.ended.borrow();
        // The sender lives in `self`, so the channel cannot close while this waits.
        while let Ok(number) = wanted.wait_for(|it| *it > ended).await.map(|it| *it) {
            let _ = ask().await;
            // With it, all before have ended.
            ended = number;
            self.ended.send_replace(ended);
        }
    }
}

/// The gates of a cluster's servers, by their numbers.
#[derive(Debug)]
pub struct Gates {
    servers: Vec<Arc<Gate>>,
    /// All of it is paused.
    all: AtomicBool,
    /// Sessions that wait for the end of a pause.
    waiting: AtomicUsize,
    /// Told whenever a wait may be over.
    turns: watch::Sender<()>,
}

impl Gates {
    /// Open gates of that many servers.
    #[must_use]
    pub fn new(count: usize) -> Arc<Self> {
        Arc::new(Self {
            servers: (0..count).map(|_| Arc::default()).collect(),
            all: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            turns: watch::Sender::new(()),
        })
    }

    /// The gate of a server.
    #[must_use]
    pub fn server(&self, number: usize) -> Option<&Arc<Gate>> {
        self.servers.get(number)
    }

    /// Every gate, in the order of the servers.
    pub fn all(&self) -> &[Arc<Gate>] {
        &self.servers
    }

    /// Something changed that others may wait for.
    pub(crate) fn turn(&self) {
        self.turns.send_replace(());
    }

    /// Holds back what has not begun: on one server, or on all. `false`: no more.
    pub fn pause(&self, server: Option<usize>, paused: bool) {
        match server {
            None => self.all.store(paused, Ordering::SeqCst),
            Some(number) => {
                if let Some(server) = self.server(number) {
                    server.paused.store(paused, Ordering::SeqCst);
                }
            }
        }
        self.turn();
    }

    /// Whether nothing may begin on a server; a number that is nobody's stands for one to come.
    #[must_use]
    pub fn holds_back(&self, server: usize) -> bool {
        self.is_paused() || self.server(server).is_some_and(|it| it.is_paused())
    }

    /// Whether all of it is paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.all.load(Ordering::SeqCst)
    }

    /// Waits until every server was asked what it is, in a question that began after this, whether it
    /// answered or not. Only while the servers are watched; whoever waits bounds the wait.
    pub async fn ask_anew(&self) {
        let want = |it: &Arc<Gate>| (Arc::clone(it), it.questions.want());
        // All of them are asked at the same time.
        let wanted: Vec<_> = self.servers.iter().map(want).collect();
        for (server, number) in wanted {
            server.questions.end_of(number).await;
        }
    }

    /// Sessions that wait for the end of a pause.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Waits for as long as `stays`, which is asked again at every turn.
    pub async fn wait_while(&self, stays: impl Fn() -> bool) {
        let mut turns = self.turns.subscribe();
        // The sender lives in `self`, so the channel cannot close while this waits.
        while stays() && turns.changed().await.is_ok() {}
    }

    /// Waits until `may_go`, which is asked again whenever a server is resumed or the view changes;
    /// whether it came to that by `end`.
    pub async fn wait_turn(&self, end: Instant, mut may_go: impl FnMut() -> bool) -> bool {
        let mut turns = self.turns.subscribe();
        let _waits = Waits::new(&self.waiting);
        loop {
            if may_go() {
                return true;
            }
            let turn = tokio::time::timeout_at(end.into(), turns.changed()).await;
            if !matches!(turn, Ok(Ok(()))) {
                return may_go();
            }
        }
    }
}

/// Counts one that waits.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a session as running something on a server.
#[derive(Debug)]
pub struct Running {
    gates: Arc<Gates>,
    server: usize,
    rests: bool,
}

impl Running {
    /// One more runs something on `server`.
    #[must_use]
    pub fn on(gates: &Arc<Gates>, server: usize) -> Self {
        let mut running = Self {
            gates: Arc::clone(gates),
            server,
            rests: true,
        };
        running.begin();
        running
    }

    /// It begins something; whether it may. If not, it rests.
    pub fn begins(&mut self) -> bool {
        self.begin();
        let may = !self.gates.holds_back(self.server);
        if !may {
            self.rest();
        }
        may
    }

    /// It keeps its connection, and runs nothing.
    pub fn rest(&mut self) {
        if !std::mem::replace(&mut self.rests, true)
            && let Some(server) = self.gates.server(self.server)
        {
            server.running.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Whether it runs nothing.
    #[must_use]
    pub fn rests(&self) -> bool {
        self.rests
    }

    fn begin(&mut self) {
        if std::mem::replace(&mut self.rests, false)
            && let Some(server) = self.gates.server(self.server)
        {
            server.running.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.rest();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use breccia_net::clock;

    use super::*;

    #[test]
    fn a_pause_of_all_and_pauses_of_servers_are_apart() {
        let gates = Gates::new(2);
        let held = |gates: &Gates| [0, 1, usize::MAX].map(|it| gates.holds_back(it));
        assert_eq!(held(&gates), [false, false, false]);
        gates.pause(Some(1), true);
        assert_eq!(held(&gates), [false, true, false]);
        gates.pause(None, true);
        assert_eq!(held(&gates), [true, true, true]);
        gates.pause(None, false);
        assert_eq!(held(&gates), [false, true, false]);
        gates.pause(Some(1), false);
        assert_eq!(held(&gates), [false, false, false]);
    }

    #[test]
    fn what_rests_does_not_run_and_begins_only_where_it_may() {
        let gates = Gates::new(2);
        let running = |gates: &Gates| gates.server(0).map_or(9, |it| it.running());
        let mut one = Running::on(&gates, 0);
        let two = Running::on(&gates, 0);
        assert_eq!(running(&gates), 2);
        one.rest();
        one.rest();
        assert_eq!((running(&gates), one.rests()), (1, true));
        gates.pause(Some(0), true);
        assert!(!one.begins() && one.rests());
        assert_eq!(running(&gates), 1, "what ran goes on");
        gates.pause(Some(0), false);
        assert!(one.begins() && !one.rests());
        drop((one, two));
        assert_eq!(running(&gates), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_that_was_under_way_is_not_the_one_waited_for() {
        let gates = Gates::new(2);
        let asks = |server: usize| {
            let gates = Arc::clone(&gates);
            async move {
                let questions = &gates.all().get(server).expect("a server").questions;
                let answer = || tokio::time::sleep(Duration::from_secs(1 + server as u64));
                questions.carry_out(answer).await;
            }
        };
        let (first, second) = (tokio::spawn(asks(0)), tokio::spawn(asks(1)));
        let start = clock::now();
        let early = gates.ask_anew();
        let late = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            gates.ask_anew().await;
            assert_eq!(clock::now() - start, Duration::from_secs(4));
        };
        tokio::join!(early, late);
        first.abort();
        second.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_with_the_pause_or_in_time() {
        let gates = Gates::new(2);
        gates.pause(Some(0), true);
        let start = clock::now();
        let end = start + Duration::from_secs(5);
        assert!(!gates.wait_turn(end, || !gates.holds_back(0)).await);
        assert_eq!(clock::now(), end);
        let resume = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(gates.waiting(), 1);
            gates.pause(Some(0), false);
        };
        let again = end + Duration::from_secs(5);
        let waits = gates.wait_turn(again, || !gates.holds_back(0));
        assert!(tokio::join!(waits, resume).0);
        assert_eq!(clock::now(), end + Duration::from_secs(1));
        assert_eq!(gates.waiting(), 0);
    }
}
