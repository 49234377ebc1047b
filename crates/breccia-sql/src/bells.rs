//! Waking sessions of a worker that rest, and timers that are seldom set.
//!
//! Not what a session does once it is awake: it looks for itself. Invariant: a session that waits for
//! its client or its server costs no place in a queue of those who wait for the gateway's end or for
//! another primary, and no timer per statement.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use breccia_net::drain::Drain;
use tokio::task::coop::has_budget_remaining;
use tokio::time::Sleep;

use crate::pause::Gates;

/// What sessions are told of their servers, from one view to the next.
pub(crate) trait Views: Send + Sync + 'static {
    /// The number of the view in force.
    fn version(&self) -> u64;

    /// Turns with each view.
    fn gates(&self) -> &Gates;

    /// Ends when another one than `version` is in force.
    fn left(&self, version: u64) -> impl Future<Output = ()> + Send {
        self.gates().wait_while(move || self.version() == version)
    }
}

/// The sessions of one listener on one worker.
#[derive(Debug, Default)]
pub(crate) struct Bells {
    bells: RefCell<BTreeMap<u64, Rc<Bell>>>,
    last: Cell<u64>,
}

/// What wakes one session.
#[derive(Debug, Default)]
struct Bell {
    waker: RefCell<Option<Waker>>,
    /// It keeps a connection, so another primary is its concern.
    keeps: Cell<bool>,
}

/// A session's own; gone with it.
#[derive(Debug)]
pub(crate) struct Rung {
    bells: Rc<Bells>,
    number: u64,
    bell: Rc<Bell>,
}

impl Bells {
    /// None yet; they ring when the gateway stops, and when the view of `cluster` changes.
    pub(crate) fn start<V: Views>(cluster: &Arc<V>, drain: &Drain) -> Rc<Self> {
        let bells = Rc::new(Self::default());
        tokio::task::spawn_local(at_the_end(Rc::downgrade(&bells), drain.clone()));
        let (version, cluster) = (cluster.version(), Arc::clone(cluster));
        tokio::task::spawn_local(at_each_view(Rc::downgrade(&bells), cluster, version));
        bells
    }

    /// Takes a session.
    pub(crate) fn hang(self: &Rc<Self>) -> Rung {
        let number = self.last.get() + 1;
        self.last.set(number);
        let bell = Rc::new(Bell::default());
        self.bells.borrow_mut().insert(number, Rc::clone(&bell));
        Rung {
            bells: Rc::clone(self),
            number,
            bell,
        }
    }

    fn ring(&self, wanted: impl Fn(&Bell) -> bool) {
        for bell in self.bells.borrow().values().filter(|bell| wanted(bell)) {
            if let Some(waker) = &*bell.waker.borrow() {
                waker.wake_by_ref();
            }
        }
    }
}

async fn at_the_end(bells: Weak<Bells>, drain: Drain) {
    drain.draining().await;
    if let Some(bells) = bells.upgrade() {
        bells.ring(|_| true);
    }
    drain.closing().await;
    if let Some(bells) = bells.upgrade() {
        bells.ring(|_| true);
    }
}

async fn at_each_view<V: Views>(bells: Weak<Bells>, cluster: Arc<V>, version: u64) {
    let mut version = version;
    loop {
        cluster.left(version).await;
        // Before they ring: a view that comes meanwhile rings once more.
        version = cluster.version();
        let Some(bells) = bells.upgrade() else {
            return;
        };
        bells.ring(|bell| bell.keeps.get());
    }
}

impl Rung {
    /// The session is about to wait. It has looked whether anything has happened, and is woken for what
    /// happens from now on.
    pub(crate) fn note(&self, context: &Context<'_>, keeps: bool) {
        self.bell.keeps.set(keeps);
        let mut waker = self.bell.waker.borrow_mut();
        match &mut *waker {
            Some(known) => known.clone_from(context.waker()),
            None => *waker = Some(context.waker().clone()),
        }
    }
}

impl Drop for Rung {
    fn drop(&mut self) {
        self.bells.bells.borrow_mut().remove(&self.number);
    }
}

/// A timer that is only set anew for a time before the one it is set for: what is due later is looked
/// at when it goes off.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    set: bool,
    soon: bool,
}

/// How a timer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stands {
    /// It is not set.
    Unset,
    /// It goes off so soon that it need not be looked at before.
    Soon,
    /// It is set for later.
    Far,
    /// It has gone off.
    Over,
}

impl Timer {
    /// How it stands, without asking the clock.
    pub(crate) fn stands(&self) -> Stands {
        match &self.sleep {
            Some(sleep) if self.set => match sleep.is_elapsed() {
                true => Stands::Over,
                false if self.soon => Stands::Soon,
                false => Stands::Far,
            },
            _ => Stands::Unset,
        }
    }

    /// What it went off for was looked at.
    pub(crate) fn clear(&mut self) {
        self.set = false;
    }

    /// Ends at `end`, or before. Set for no later than `soon`, it stands so.
    pub(crate) fn poll(
        &mut self,
        end: Instant,
        soon: Instant,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        let end = tokio::time::Instant::from_std(end);
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        if !self.set || sleep.is_elapsed() || sleep.deadline() > end {
            sleep.as_mut().reset(end);
        }
        // Without budget the timer is not told whom to wake: it must be polled again, and the runtime
        // sees to that.
        self.soon = has_budget_remaining() && sleep.deadline().into_std() <= soon;
        let polled = sleep.as_mut().poll(context);
        self.set = polled.is_pending();
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::time::Duration;

    use breccia_net::clock;
    use tokio::task::coop::consume_budget;

    use super::*;

    /// Without budget a timer takes no waker; who is busy until then must still be woken.
    #[tokio::test(start_paused = true)]
    async fn a_timer_that_was_set_at_the_end_of_a_turn_goes_off() {
        let (mut timer, mut busy) = (Timer::default(), true);
        let end = clock::now() + Duration::from_secs(1);
        let waiting = poll_fn(|context| {
            while busy && has_budget_remaining() {
                let _more = pin!(consume_budget()).poll(context);
            }
            busy = false;
            match timer.stands() {
                Stands::Soon => Poll::Pending,
                Stands::Over => Poll::Ready(()),
                Stands::Far | Stands::Unset => timer.poll(end, end, context),
            }
        });
        let woken = tokio::time::timeout(Duration::from_secs(2), waiting);
        woken.await.expect("it is over");
        assert_eq!(clock::now(), end, "nobody was woken when it was");
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_goes_off_when_it_should_however_it_was_set_before() {
        let (start, mut timer) = (clock::now(), Timer::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        for (end, stands) in [(9, Stands::Far), (3, Stands::Soon), (5, Stands::Soon)] {
            let polled = poll_fn(|context| Poll::Ready(timer.poll(at(end), at(4), context)));
            assert!(polled.await.is_pending());
            assert_eq!(timer.stands(), stands, "{end}");
        }
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(timer.stands(), Stands::Over);
        timer.clear();
        assert_eq!(timer.stands(), Stands::Unset);
        for end in [6, 7, 8] {
            poll_fn(|context| timer.poll(at(end), at(4), context)).await;
            assert_eq!(clock::now() - start, Duration::from_secs(end));
            assert_eq!(timer.stands(), Stands::Unset);
        }
    }
}
