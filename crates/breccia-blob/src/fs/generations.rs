//! The numbers of generation files.
//!
//! Not the files. Invariant: a number is handed out once in the life of a folder, and only below
//! the limit that the index holds, also over restarts.

use std::sync::atomic::{AtomicU64, Ordering};

use super::index::schema::BLOCK;

/// Hands out numbers.
#[derive(Debug)]
pub(super) struct Generations {
    next: AtomicU64,
    limit: AtomicU64,
}

impl Generations {
    /// Nothing can be taken before the limit is raised.
    pub(super) fn from(next: u64) -> Self {
        Self {
            next: AtomicU64::new(next),
            limit: AtomicU64::new(next),
        }
    }

    /// A number nobody had; none if the limit must be raised first.
    pub(super) fn take(&self) -> Option<u64> {
        let taken = self.next.fetch_add(1, Ordering::Relaxed);
        (taken < self.limit.load(Ordering::Acquire)).then_some(taken)
    }

    /// The limit that the index shall hold, if the one it holds will soon be reached.
    pub(super) fn wanted_limit(&self) -> Option<u64> {
        let next = self.next.load(Ordering::Relaxed);
        let limit = self.limit.load(Ordering::Acquire);
        (next.saturating_add(BLOCK / 2) > limit).then(|| next.saturating_add(BLOCK))
    }

    /// The index holds this limit now.
    pub(super) fn raise(&self, limit: u64) {
        self.limit.fetch_max(limit, Ordering::Release);
    }
}
