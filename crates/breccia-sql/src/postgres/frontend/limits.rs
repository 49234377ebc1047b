//! What a session waits for, and how long it may.
//!
//! Not what becomes of what has come. Invariant: a time runs on through whatever else happens, until
//! what it is of is over: silence until the client speaks, unread answers until it takes some.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use breccia_net::clock;
use breccia_net::drain::Phase;

use super::attached::{Attached, Event, poll_turn};
use super::session::{End, HEALTH_LOOK, Session};
use crate::bells::Stands;
use crate::ends::Limit;

/// A time that is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// To look whether a statement should rather run elsewhere.
    Look,
    /// The client exceeds a limit.
    Over(Limit),
    /// A server that owes an answer is down, and silent on this connection too.
    Mute,
}

/// How a session ends that goes beyond a limit.
fn end_of(limit: Limit) -> End {
    let state = match limit {
        // It would not read that either.
        Limit::Unread => return End::Gone,
        Limit::Idle => "57P05",
        Limit::IdleInTransaction => "25P03",
        Limit::Transaction => "57014",
        // No time: see `feed.rs`.
        Limit::Request => "54000",
    };
    let key = limit.key();
    End::Told(state, format!("terminating connection due to {key}"))
}

/// Since when things are as they are.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    /// The client is silent, inside a transaction or not.
    quiet: Option<(bool, Instant)>,
    /// The client has taken so many bytes, and no more.
    unread: Option<(u64, Instant)>,
    /// The server that owes an answer is down.
    mute: Option<Instant>,
}

impl Session {
    /// Waits for what comes next, within the limits that hold now, or until the gateway stops or the
    /// primary is left.
    pub(super) async fn event(&mut self) -> Result<Event, End> {
        let attached = self.attached.as_ref();
        let idle = attached.is_none_or(Attached::is_idle);
        // Who rests there, be it in a transaction, need not ask to be told that it is over.
        let rests = |it: &&Attached| it.is_idle() || (it.is_settled() && !it.replica);
        let kept = attached.filter(rests).map(|attached| attached.version);
        // Who is idle goes at once, who is not when the time for that is up.
        let goes = |phase| phase == Phase::Closing || (idle && phase != Phase::Running);
        let event = poll_fn(|context| {
            let event = poll_turn(&mut self.client, self.attached.as_mut(), context);
            if event.is_ready() {
                return event.map(Ok);
            }
            let left = kept.is_some_and(|version| version != self.listener.cluster.version());
            if left || goes(self.listener.drain.phase()) {
                return Poll::Ready(Ok(Event::Sent));
            }
            let limit = self.poll_limits(context);
            if limit.is_pending() {
                self.rung.note(context, kept.is_some());
            }
            limit
        })
        .await?;
        match event {
            Event::Client => self.clocks.quiet = None,
            Event::Server => self.clocks.mute = None,
            _ => {}
        }
        let phase = self.listener.drain.phase();
        let ends = match event {
            Event::Sent => goes(phase),
            _ => phase == Phase::Closing,
        };
        if ends {
            let why = "terminating connection due to administrator command".to_owned();
            return Err(End::Told("57P01", why));
        }
        Ok(event)
    }

    /// Looks whether a time is up, now that there is nothing else to do; else the session is woken when
    /// one is. A session that is busy looks seldom: nothing that begins meanwhile can be over before the
    /// timer that runs goes off.
    fn poll_limits(&mut self, context: &mut Context<'_>) -> Poll<Result<Event, End>> {
        match self.timer.stands() {
            Stands::Soon => return Poll::Pending,
            Stands::Over => {
                self.timer.clear();
                self.client.unwatched = false;
                return Poll::Ready(Ok(Event::Late));
            }
            Stands::Far | Stands::Unset => {}
        }
        let now = clock::now();
        match self.due(now) {
            None => Poll::Pending,
            Some((at, Due::Mute)) if at <= now => Poll::Ready(Ok(self.mute())),
            Some((at, Due::Over(limit))) if at <= now => {
                self.over = Some(limit);
                Poll::Ready(Err(end_of(limit)))
            }
            Some((at, Due::Look)) if at <= now => Poll::Ready(Err(End::Gone)),
            Some((at, _)) => {
                let soon = now + self.soonest();
                self.timer.poll(at, soon, context).map(|()| Ok(Event::Late))
            }
        }
    }

    /// The shortest of the times that may begin to run.
    fn soonest(&self) -> Duration {
        let limits = &self.listener.limits;
        let own = [
            limits.idle_timeout,
            limits.idle_in_transaction_timeout,
            limits.transaction_timeout,
            Some(limits.write_timeout),
        ];
        own.into_iter().flatten().fold(HEALTH_LOOK, Duration::min)
    }

    /// Which time is up first, as things are.
    fn due(&mut self, now: Instant) -> Option<(Instant, Due)> {
        let attached = self.attached.as_ref();
        let held = attached.is_some_and(|attached| attached.held);
        let spared = attached.is_some_and(Attached::is_spared);
        let settled = attached.is_none_or(Attached::is_settled);
        let open = self.begun.is_some() || attached.is_some_and(Attached::in_transaction);
        let clocks = &mut self.clocks;
        clocks.quiet = match clocks.quiet {
            _ if !settled => None,
            // Until it has taken all it is not silent, but busy.
            Some((was_open, since)) if was_open == open && self.client.out.is_out() => {
                Some((open, since))
            }
            _ => Some((open, now)),
        };
        let taken = self.client.out.taken;
        clocks.unread = match clocks.unread {
            _ if held || self.client.out.is_out() => None,
            Some((was_taken, since)) if was_taken == taken => Some((taken, since)),
            _ => Some((taken, now)),
        };
        let up = settled || attached.is_none_or(|it| it.lease.pool().health().is_up());
        clocks.mute = clocks.mute.or(Some(now)).filter(|_| !up && !spared);
        let limits = &self.listener.limits;
        let timeout = attached.map(|attached| attached.lease.pool().endpoint().timeout);
        let transaction = self.transaction_since.filter(|_| open || !settled);
        let quiet = clocks.quiet.map(|(_, since)| since);
        let (idle, idle_limit) = if open {
            (limits.idle_in_transaction_timeout, Limit::IdleInTransaction)
        } else {
            (limits.idle_timeout, Limit::Idle)
        };
        // Nobody rings when a server goes down, or is the primary no more, under what runs there.
        let times = [
            (
                (held || !settled).then_some(now),
                Some(HEALTH_LOOK),
                Due::Look,
            ),
            (
                clocks.unread.map(|(_, since)| since),
                Some(limits.write_timeout),
                Due::Over(Limit::Unread),
            ),
            (quiet, idle, Due::Over(idle_limit)),
            (
                transaction,
                limits.transaction_timeout,
                Due::Over(Limit::Transaction),
            ),
            (clocks.mute, timeout, Due::Mute),
        ];
        let ends = times
            .into_iter()
            .filter_map(|(since, limit, what)| Some((since? + limit?, what)));
        ends.min_by_key(|(at, _)| *at)
    }

    /// A server that is down has not answered for as long as it may.
    fn mute(&mut self) -> Event {
        self.clocks.mute = None;
        Event::ServerLost(io::Error::new(
            io::ErrorKind::TimedOut,
            "it does not answer",
        ))
    }
}
