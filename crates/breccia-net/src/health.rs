//! Whether an endpoint answers, as every worker sees it.
//!
//! Not the rules: those are `breccia_core::health::Breaker`. Invariant: one prober per endpoint per
//! process decides; a worker that cannot connect may only bring the bad news forward.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use breccia_core::address::Address;
use breccia_core::health::{Breaker, BreakerConfig, BreakerEvent};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::clock;
use crate::metrics::Gauge;

/// Why an endpoint is down, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownReason {
    /// A short phrase: `connection refused`.
    pub text: String,
    /// When it was first seen down.
    pub since: Instant,
}

/// How often an endpoint is asked and how long it may take to answer.
#[derive(Debug, Clone, Copy)]
pub struct ProbeConfig {
    /// The pause between two probes of an endpoint that answers.
    pub interval: Duration,
    /// After this long a probe counts as unanswered.
    pub timeout: Duration,
}

/// Why a probe failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeFailure {
    /// No connection could be made, or it was lost; why, as a short phrase.
    Connect(String),
    /// The connection stands and no answer came.
    Unanswered,
}

/// The health of one endpoint, shared by its prober and all workers.
///
/// Without a running [`probe_loop`] an endpoint that went down stays down.
#[derive(Debug)]
pub struct EndpointHealth {
    name: String,
    down: AtomicBool,
    probed: AtomicBool,
    bytes_seen: AtomicBool,
    state: Mutex<State>,
    news: Notify,
}

#[derive(Debug)]
struct State {
    address: Option<Address>,
    location: String,
    reason: Option<DownReason>,
    // A connect failure that a worker saw and the prober has not weighed yet.
    reported: Option<String>,
    gauges: Vec<Gauge>,
}

impl EndpointHealth {
    /// An endpoint that counts as up until shown otherwise. `name` is that of the stores there.
    #[must_use]
    pub fn new(name: String, address: Address) -> Arc<Self> {
        let location = address.to_string();
        Self::made(name, Some(address), location)
    }

    /// The same for a place that is no network address, such as a folder or a bucket.
    #[must_use]
    pub fn located(name: String, location: String) -> Arc<Self> {
        Self::made(name, None, location)
    }

    fn made(name: String, address: Option<Address>, location: String) -> Arc<Self> {
        Arc::new(Self {
            name,
            down: AtomicBool::new(false),
            probed: AtomicBool::new(false),
            bytes_seen: AtomicBool::new(false),
            state: Mutex::new(State {
                address,
                location,
                reason: None,
                reported: None,
                gauges: Vec::new(),
            }),
            news: Notify::new(),
        })
    }

    /// The name of the stores there.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its network address, if it has one.
    #[must_use]
    pub fn address(&self) -> Option<Address> {
        self.lock().address.clone()
    }

    /// It is at another address now. Whether it is up there, its next prober finds out: until then
    /// it is as it was.
    pub fn move_to(&self, address: Address) {
        let mut state = self.lock();
        state.location = address.to_string();
        state.address = Some(address);
        // What workers saw of the former address is no news of this one.
        state.reported = None;
    }

    /// Where it is, for people.
    #[must_use]
    pub fn location(&self) -> String {
        self.lock().location.clone()
    }

    /// Shows the state in `gauge` too from now on: 1 up, 0 down.
    pub fn show_in(&self, gauge: Gauge) {
        let mut state = self.lock();
        gauge.set(i64::from(self.is_up()));
        state.gauges.push(gauge);
    }

    /// Whether requests should be sent there: one relaxed load.
    #[inline]
    #[must_use]
    pub fn is_up(&self) -> bool {
        !self.down.load(Ordering::Relaxed)
    }

    /// Whether a probe has ended: before that, up is only assumed.
    #[must_use]
    pub fn is_probed(&self) -> bool {
        self.probed.load(Ordering::Relaxed)
    }

    /// Why it is down; `None` while it is up.
    #[must_use]
    pub fn down(&self) -> Option<DownReason> {
        if self.is_up() {
            None
        } else {
            self.lock().reason.clone()
        }
    }

    /// A worker read bytes from this endpoint.
    #[inline]
    pub fn note_bytes(&self) {
        if !self.bytes_seen.load(Ordering::Relaxed) {
            self.bytes_seen.store(true, Ordering::Relaxed);
            if !self.is_up() {
                // A sign of life: the next probe comes soon.
                self.news.notify_one();
            }
        }
    }

    /// A worker could not connect; `why` is a short phrase. The endpoint is down at once.
    pub fn connect_failed(&self, why: &str) {
        self.publish_down(why);
        self.lock().reported = Some(why.to_owned());
        self.news.notify_one();
    }

    /// Tells the breaker what workers saw since the last time; answers a failure's reason.
    fn weigh_news(&self, breaker: &mut Breaker) -> Option<String> {
        if self.bytes_seen.swap(false, Ordering::Relaxed) {
            breaker.step(clock::now(), BreakerEvent::BytesSeen);
        }
        let reported = self.lock().reported.take();
        if reported.is_some() {
            breaker.step(clock::now(), BreakerEvent::ConnectFailed);
        }
        reported
    }

    fn publish(&self, breaker: &Breaker, why: &str) {
        if breaker.is_up() {
            self.publish_up();
        } else if !why.is_empty() {
            // Who has nothing new to say leaves it as another prober of the same endpoint has found it.
            self.publish_down(why);
        }
    }

    fn publish_down(&self, why: &str) {
        let mut state = self.lock();
        if state.reason.is_none() {
            tracing::warn!(
                store = self.name,
                address = state.location,
                reason = why,
                "store is down"
            );
            state.reason = Some(DownReason {
                text: why.to_owned(),
                since: clock::now(),
            });
            self.down.store(true, Ordering::Relaxed);
            state.gauges.iter().for_each(|gauge| gauge.set(0));
        } else if let Some(reason) = &mut state.reason
            && reason.text != why
            && !why.is_empty()
        {
            why.clone_into(&mut reason.text);
        }
    }

    fn publish_up(&self) {
        let mut state = self.lock();
        if let Some(reason) = state.reason.take() {
            let down_ms = clock::now()
                .saturating_duration_since(reason.since)
                .as_millis();
            tracing::info!(store = self.name, address = state.location, down_ms = %down_ms, "store is up");
            self.down.store(false, Ordering::Relaxed);
            state.gauges.iter().for_each(|gauge| gauge.set(1));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Probes one endpoint for ever and publishes what it finds.
///
/// `probe` sends one question and returns once the answer has come (any answer shows life). It may
/// keep its connection between calls; a call that takes too long is dropped.
pub async fn probe_loop<F, Fut>(health: Arc<EndpointHealth>, config: ProbeConfig, probe: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<(), ProbeFailure>>,
{
    let settings = BreakerConfig {
        probe_interval: config.interval,
        ..BreakerConfig::default()
    };
    let mut breaker = Breaker::new(settings, clock::now());
    loop {
        let due = tokio::time::Instant::from_std(breaker.next_probe_at());
        tokio::select! {
            biased;
            () = health.news.notified() => {
                let news = health.weigh_news(&mut breaker);
                health.publish(&breaker, news.as_deref().unwrap_or_default());
                continue;
            }
            () = tokio::time::sleep_until(due) => {}
        }
        breaker.step(clock::now(), BreakerEvent::ProbeStarted);
        let (event, why) = match timeout(config.timeout, probe()).await {
            Ok(Ok(())) => (BreakerEvent::ProbeOk, String::new()),
            Ok(Err(ProbeFailure::Connect(why))) => (BreakerEvent::ConnectFailed, why),
            Ok(Err(ProbeFailure::Unanswered)) | Err(_) => {
                (BreakerEvent::ProbeFailed, "it does not answer".to_owned())
            }
        };
        // What workers saw while the probe ran is older than its outcome.
        health.weigh_news(&mut breaker);
        breaker.step(clock::now(), event);
        health.publish(&breaker, &why);
        health.probed.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
