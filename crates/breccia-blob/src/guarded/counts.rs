//! What is counted of a store's requests.
//!
//! Not what clients asked for: one request of a client may be several here, or none. Invariant:
//! every request is counted once, by its outcome.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use breccia_core::error::{Effect, ErrorKind};
use breccia_net::clock;
use breccia_net::metrics::{Histogram, Registry, STORE_REQUESTS, STORE_SECONDS, SharedCounter};

use crate::error::BlobError;

/// The counters of one store.
pub(super) struct Counts {
    ok: SharedCounter,
    error: SharedCounter,
    refused: SharedCounter,
    unknown: SharedCounter,
    seconds: Mutex<Histogram>,
}

impl fmt::Debug for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Counts").finish_non_exhaustive()
    }
}

impl Counts {
    pub(super) fn new(registry: &Registry, store: &str) -> Self {
        let counter = |outcome| registry.shared_counter(&STORE_REQUESTS, &[store, outcome]);
        Self {
            ok: counter("ok"),
            error: counter("error"),
            refused: counter("refused"),
            unknown: counter("unknown"),
            seconds: Mutex::new(registry.histogram(&STORE_SECONDS, &[store])),
        }
    }

    /// Counts a request; one that was sent has begun at some time.
    pub(super) fn count(&self, error: Option<&BlobError>, begun: Option<Instant>) {
        let counter = match error {
            None | Some(BlobError::NotFound | BlobError::NotModified { .. }) => &self.ok,
            Some(error) if error.effect() == Effect::Unknown => &self.unknown,
            Some(error) => match error.kind() {
                ErrorKind::Unreachable | ErrorKind::Timeout | ErrorKind::Overloaded => {
                    &self.refused
                }
                _ => &self.error,
            },
        };
        counter.increment();
        if let Some(begun) = begun {
            let seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
            seconds.observe(clock::now().saturating_duration_since(begun));
        }
    }
}
