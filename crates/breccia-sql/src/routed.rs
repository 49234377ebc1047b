//! What is counted of routing: where statements went and why, and why sessions are pinned.
//!
//! Not a decision. Invariant: reasons are words of the code, so there are few.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use breccia_net::metrics::{self, Registry, SharedCounter};

/// Counters of `breccia_sql_routed_total` and `breccia_sql_pinned_total`, made when first needed.
#[derive(Debug)]
pub struct Routed {
    registry: Registry,
    statements: Mutex<HashMap<(bool, &'static str), SharedCounter>>,
    pinned: Mutex<HashMap<&'static str, SharedCounter>>,
}

impl Routed {
    /// None is counted yet.
    #[must_use]
    pub fn new(registry: Registry) -> Self {
        Self {
            registry,
            statements: Mutex::default(),
            pinned: Mutex::default(),
        }
    }

    /// The counter of statements that went to a replica or the primary for `reason`.
    pub fn routed(&self, replica: bool, reason: &'static str) -> SharedCounter {
        let target = if replica { "replica" } else { "primary" };
        let make = || {
            self.registry
                .shared_counter(&metrics::SQL_ROUTED, &[target, reason])
        };
        lock(&self.statements)
            .entry((replica, reason))
            .or_insert_with(make)
            .clone()
    }

    /// A session is pinned for `reason`.
    pub fn pinned(&self, reason: &'static str) {
        let make = || {
            self.registry
                .shared_counter(&metrics::SQL_PINNED, &[reason])
        };
        lock(&self.pinned)
            .entry(reason)
            .or_insert_with(make)
            .increment();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
