//! A leaf behind its guard: not asked while it is down, and not before its markers were seen right.
//!
//! Not the rules of health (`breccia_core::health`) or of markers ([`crate::markers`]), and not the
//! prober, which the binary starts with [`Guarded::watch`]. Invariant: no request reaches a leaf
//! whose markers were not seen right since it was last unreachable.

mod counts;
mod store;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use breccia_core::error::Effect;
use breccia_net::clock;
use breccia_net::health::{EndpointHealth, ProbeConfig, ProbeFailure, probe_loop};
use breccia_net::layout_store::LayoutStore;
use breccia_net::log_gate::LogGate;
use breccia_net::metrics::Registry;

use crate::error::BlobError;
use crate::markers::{MarkedLeaf, Unfit, settle};
use crate::store::{BlobStore, StoreFuture};
use counts::Counts;

/// How long a request waits for the markers to be looked at.
const LOOK_LIMIT: Duration = Duration::from_secs(5);
/// After a refusal, requests are refused without another look for this long.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long a place may take to show that it lives after a connection to it has failed.
const ASK_LIMIT: Duration = Duration::from_secs(1);
/// Lines about stores without room.
static FULL: LogGate = LogGate::new(Duration::from_secs(30));

/// Lines about stores whose system fails.
static FAILING: LogGate = LogGate::new(Duration::from_secs(30));

/// A leaf behind its guard.
pub struct Guarded {
    leaf: MarkedLeaf,
    layouts: Arc<LayoutStore>,
    health: Option<Arc<EndpointHealth>>,
    counts: Option<Counts>,
    /// The markers were seen right, and the leaf was reachable since.
    ready: AtomicBool,
    /// How often it was unreachable: a look that overlaps with an outage proves nothing.
    outages: AtomicU64,
    looking: tokio::sync::Mutex<Option<Refusal>>,
    refusal: std::sync::Mutex<Option<String>>,
}

/// What the last look has found wrong.
struct Refusal {
    at: Instant,
    error: BlobError,
}

impl fmt::Debug for Guarded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Guarded")
            .field("leaf", &self.leaf.leaf)
            .field("ready", &self.ready.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

impl Guarded {
    /// Puts a guard before a leaf. Its markers are looked at with the first request, or by
    /// [`Guarded::look`].
    #[must_use]
    pub fn new(leaf: MarkedLeaf, layouts: Arc<LayoutStore>) -> Self {
        Self {
            leaf,
            layouts,
            health: None,
            counts: None,
            ready: AtomicBool::new(false),
            outages: AtomicU64::new(0),
            looking: tokio::sync::Mutex::new(None),
            refusal: std::sync::Mutex::new(None),
        }
    }

    /// Fails at once while `health` is down. Only with [`Guarded::watch`] running: without a prober
    /// nobody would see that the leaf is up again.
    #[must_use]
    pub fn with_health(mut self, health: Arc<EndpointHealth>) -> Self {
        self.health = Some(health);
        self
    }

    /// Counts requests and their time in `registry`.
    #[must_use]
    pub fn with_metrics(mut self, registry: &Registry) -> Self {
        self.counts = Some(Counts::new(registry, self.leaf.leaf.name()));
        self
    }

    /// Whether it answers, if that is watched.
    #[must_use]
    pub fn health(&self) -> Option<&Arc<EndpointHealth>> {
        self.health.as_ref()
    }

    /// Whether its markers were seen right.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Why its markers are not right, as the last look has found; `None` if they are, or were not
    /// looked at yet.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        let refusal = self.refusal.lock();
        refusal.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at the markers, unless they are known to be right.
    ///
    /// # Errors
    /// [`BlobError::NotUsed`] says what is wrong and what mends it; or the leaf's own, if it does
    /// not answer.
    pub async fn look(&self) -> Result<(), BlobError> {
        if let Some(health) = &self.health
            && !health.is_up()
        {
            return Err(self.down(health));
        }
        if self.ready.load(Ordering::Acquire) {
            return Ok(());
        }
        match tokio::time::timeout(LOOK_LIMIT, self.look_once()).await {
            Ok(looked) => looked,
            Err(_) => Err(self.not_used("its marker could not be read in time".to_owned())),
        }
    }

    /// Probes the leaf for ever. Each probe that is not answered ends the trust in its markers.
    pub async fn watch(self: Arc<Self>, config: ProbeConfig) {
        let Some(health) = self.health.clone() else {
            return;
        };
        let probe = || {
            let guarded = Arc::clone(&self);
            async move { guarded.probe_once().await }
        };
        probe_loop(health, config, probe).await;
    }

    async fn probe_once(&self) -> Result<(), ProbeFailure> {
        let mut outage = Outage(Some(self));
        match self.leaf.leaf.probe().await {
            Err(BlobError::Timeout { .. }) => Err(ProbeFailure::Unanswered),
            Err(BlobError::Down { reason, .. } | BlobError::System { reason, .. }) => {
                Err(ProbeFailure::Connect(reason))
            }
            // Any other answer is one.
            Ok(()) | Err(_) => {
                outage.0 = None;
                Ok(())
            }
        }
    }

    /// One look at a time; who comes meanwhile takes its outcome.
    async fn look_once(&self) -> Result<(), BlobError> {
        let mut last = self.looking.lock().await;
        if self.ready.load(Ordering::Acquire) {
            return Ok(());
        }
        let now = clock::now();
        if let Some(refusal) = last.as_ref()
            && now.saturating_duration_since(refusal.at) < LOOK_AGAIN
        {
            return Err(refusal.error.clone());
        }
        let outages = self.outages.load(Ordering::Acquire);
        let looked = settle(&self.leaf, &self.layouts).await;
        *last = None;
        let reason = match looked {
            Ok(()) => {
                self.say(None);
                if self.outages.load(Ordering::Acquire) == outages {
                    self.ready.store(true, Ordering::Release);
                }
                return Ok(());
            }
            Err(Unfit::Unread(error)) => {
                self.note(&error).await;
                match error {
                    BlobError::Down { .. } | BlobError::Timeout { .. } => {
                        // The request itself was never sent.
                        return Err(error.with_effect(Effect::NotApplied));
                    }
                    other => format!("its marker cannot be read: {other}"),
                }
            }
            Err(Unfit::Refused(reason)) => reason,
        };
        self.say(Some(&reason));
        let error = self.not_used(reason);
        *last = Some(Refusal {
            at: now,
            error: error.clone(),
        });
        Err(error)
    }

    /// Keeps what the last look has found, and logs it when it is new.
    fn say(&self, reason: Option<&str>) {
        let store = self.leaf.leaf.name();
        let refusal = self.refusal.lock();
        let mut refusal = refusal.unwrap_or_else(PoisonError::into_inner);
        if refusal.as_deref() == reason {
            return;
        }
        if let Some(reason) = reason {
            tracing::error!(store, "{reason}");
        } else {
            tracing::info!(store, "the markers are right again");
        }
        *refusal = reason.map(str::to_owned);
    }

    fn not_used(&self, reason: String) -> BlobError {
        let store = self.leaf.leaf.name().to_owned();
        BlobError::NotUsed { store, reason }
    }

    fn down(&self, health: &EndpointHealth) -> BlobError {
        self.ready.store(false, Ordering::Release);
        let reason = health.down().map_or_else(String::new, |down| {
            let seconds = clock::now().saturating_duration_since(down.since).as_secs();
            format!("{}, for {seconds} s", down.text)
        });
        BlobError::Down {
            store: self.leaf.leaf.name().to_owned(),
            reason,
            effect: Effect::NotApplied,
        }
    }

    /// Takes note of an error that tells of the leaf's health.
    async fn note(&self, error: &BlobError) {
        if matches!(error, BlobError::Full { .. })
            && let Some(left_out) = FULL.pass(clock::now())
        {
            let store = self.leaf.leaf.name();
            tracing::error!(store, %error, left_out, "writes that do not fit are refused until there is room");
        }
        if matches!(error, BlobError::System { .. })
            && let Some(left_out) = FAILING.pass(clock::now())
        {
            let store = self.leaf.leaf.name();
            tracing::error!(store, %error, left_out, "requests fail; look at the store's disk and rights");
        }
        if let BlobError::Down { reason, effect, .. } = error {
            self.lost();
            // A connection that broke in the middle may be that one alone: the place is asked.
            if *effect == Effect::NotApplied
                && let Some(health) = self.health.as_ref().filter(|health| health.is_up())
            {
                let asked = tokio::time::timeout(ASK_LIMIT, self.leaf.leaf.probe()).await;
                if !asked.is_ok_and(|answer| !matches!(answer, Err(BlobError::Down { .. }))) {
                    health.connect_failed(reason);
                }
            }
        }
    }

    fn lost(&self) {
        self.outages.fetch_add(1, Ordering::AcqRel);
        self.ready.store(false, Ordering::Release);
    }

    /// Sends a request, once the leaf may be used.
    fn run<'a, T, F>(&'a self, request: F) -> StoreFuture<'a, T>
    where
        T: Send + 'a,
        F: FnOnce(&'a dyn BlobStore) -> StoreFuture<'a, T> + Send + 'a,
    {
        Box::pin(async move {
            if let Err(error) = self.look().await {
                self.count(Some(&error), None);
                return Err(error);
            }
            let begun = clock::now();
            let answer = request(&*self.leaf.leaf).await;
            self.count(answer.as_ref().err(), Some(begun));
            match &answer {
                Ok(_) => {
                    if let Some(health) = &self.health {
                        health.note_bytes();
                    }
                }
                Err(error) => self.note(error).await,
            }
            answer
        })
    }

    fn count(&self, error: Option<&BlobError>, begun: Option<Instant>) {
        if let Some(counts) = &self.counts {
            counts.count(error, begun);
        }
    }
}

/// An outage, unless the probe was answered: also if it is given up.
struct Outage<'a>(Option<&'a Guarded>);

impl Drop for Outage<'_> {
    fn drop(&mut self) {
        if let Some(guarded) = self.0 {
            guarded.lost();
        }
    }
}
