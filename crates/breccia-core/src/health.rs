//! The breaker of an endpoint: whether it is up, and when to probe it next.
//!
//! Not here: probing, the clock, logging, or publishing the state to workers. Instants are passed
//! in, so an hour of outage is tested in a millisecond.
//!
//! Invariant: placement never looks at a breaker. A shard that is down fails its own keys; nothing
//! moves because of it.

use std::time::{Duration, Instant};

/// Whether requests may go to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BreakerState {
    /// Up: requests go through.
    Closed,
    /// Down: requests fail at once, until a probe is due.
    Open,
    /// Down, and a probe is under way that will decide.
    HalfOpen,
}

impl BreakerState {
    /// The word for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half-open",
        }
    }
}

/// Something that happened to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BreakerEvent {
    /// The prober begins a probe (it does when [`Breaker::next_probe_at`] has come).
    ProbeStarted,
    /// The probe was answered. An error such as `-LOADING` or `-BUSY` is an answer too.
    ProbeOk,
    /// The probe was sent, and nothing came within its timeout.
    ProbeFailed,
    /// Connecting was refused or timed out, for a probe or for a request.
    ConnectFailed,
    /// A byte arrived from the endpoint on any connection.
    BytesSeen,
}

/// The intervals of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerConfig {
    /// Between two probes of an endpoint that is up.
    pub probe_interval: Duration,
    /// Before the first probe of an endpoint that went down.
    pub first_backoff: Duration,
    /// The back-off doubles up to this.
    pub max_backoff: Duration,
    /// So many unanswered probes in a row, with no byte in between, open the breaker.
    pub unanswered_probes: u32,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        BreakerConfig {
            probe_interval: Duration::from_secs(1),
            first_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(1),
            unanswered_probes: 2,
        }
    }
}

/// The breaker of one endpoint.
#[derive(Debug, Clone)]
pub struct Breaker {
    config: BreakerConfig,
    state: BreakerState,
    unanswered: u32,
    backoff: Duration,
    next_probe_at: Instant,
}

impl Breaker {
    /// A closed breaker whose first probe is due now: an endpoint is taken to be up until shown
    /// otherwise, so that nothing fails at start for lack of a probe.
    pub fn new(config: BreakerConfig, now: Instant) -> Self {
        let backoff = config.first_backoff;
        Breaker {
            config,
            state: BreakerState::Closed,
            unanswered: 0,
            backoff,
            next_probe_at: now,
        }
    }

    /// The state now.
    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// Whether requests may go to the endpoint.
    pub fn is_up(&self) -> bool {
        self.state == BreakerState::Closed
    }

    /// When the prober should probe next.
    pub fn next_probe_at(&self) -> Instant {
        self.next_probe_at
    }

    /// Takes an event; answers the new state if it changed.
    pub fn step(&mut self, now: Instant, event: BreakerEvent) -> Option<BreakerState> {
        let before = self.state;
        match before {
            BreakerState::Closed => self.step_closed(now, event),
            BreakerState::Open => self.step_open(now, event),
            BreakerState::HalfOpen => self.step_half_open(now, event),
        }
        (self.state != before).then_some(self.state)
    }

    fn step_closed(&mut self, now: Instant, event: BreakerEvent) {
        match event {
            // Should the prober die with its probe, the schedule goes on.
            BreakerEvent::ProbeStarted => self.probe_after(now, self.config.probe_interval),
            BreakerEvent::ProbeOk => {
                self.unanswered = 0;
                self.probe_after(now, self.config.probe_interval);
            }
            BreakerEvent::ProbeFailed => {
                self.unanswered = self.unanswered.saturating_add(1);
                if self.unanswered >= self.config.unanswered_probes {
                    self.open(now);
                } else {
                    // The timeout has spaced the probes already.
                    self.next_probe_at = now;
                }
            }
            BreakerEvent::ConnectFailed => self.open(now),
            BreakerEvent::BytesSeen => self.unanswered = 0,
        }
    }

    fn step_open(&mut self, now: Instant, event: BreakerEvent) {
        match event {
            BreakerEvent::ProbeStarted => self.state = BreakerState::HalfOpen,
            BreakerEvent::ProbeOk => self.close(now),
            BreakerEvent::ProbeFailed => self.back_off(now),
            BreakerEvent::ConnectFailed => {
                // Before a probe is due, it is the rest of the requests that met the outage: they
                // tell nothing new, and must not lengthen the back-off.
                if now >= self.next_probe_at {
                    self.back_off(now);
                }
            }
            BreakerEvent::BytesSeen => self.probe_soon(now),
        }
    }

    fn step_half_open(&mut self, now: Instant, event: BreakerEvent) {
        match event {
            BreakerEvent::ProbeOk => self.close(now),
            BreakerEvent::ProbeFailed | BreakerEvent::ConnectFailed => {
                self.state = BreakerState::Open;
                self.back_off(now);
            }
            BreakerEvent::ProbeStarted | BreakerEvent::BytesSeen => {}
        }
    }

    fn open(&mut self, now: Instant) {
        self.state = BreakerState::Open;
        self.backoff = self.config.first_backoff.min(self.config.max_backoff);
        self.probe_after(now, self.backoff);
    }

    fn close(&mut self, now: Instant) {
        self.state = BreakerState::Closed;
        self.unanswered = 0;
        self.probe_after(now, self.config.probe_interval);
    }

    fn back_off(&mut self, now: Instant) {
        self.backoff = self.backoff.saturating_mul(2).min(self.config.max_backoff);
        self.probe_after(now, self.backoff);
    }

    /// A sign of life brings the next probe forward, but never closer than the first back-off:
    /// bytes may keep coming from an endpoint whose probes fail.
    fn probe_soon(&mut self, now: Instant) {
        let planned = self.next_probe_at;
        self.probe_after(now, self.config.first_backoff);
        self.next_probe_at = self.next_probe_at.min(planned);
    }

    fn probe_after(&mut self, now: Instant, wait: Duration) {
        self.next_probe_at = now.checked_add(wait).unwrap_or(now);
    }
}

#[cfg(test)]
mod tests;
