//! Where the primary was and when, to tell a replica's lag in time.
//!
//! Pure. Invariant: it remembers over at least twice the longest lag that is allowed, in at most
//! [`ENTRIES`] positions.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::freshness::Position as _;
use crate::mysql::gtid::Gtids;

/// The most positions that are kept.
const ENTRIES: usize = 600;

/// Positions of the primary, and when each was first seen.
#[derive(Debug)]
pub(super) struct History {
    spacing: Duration,
    seen: VecDeque<(Instant, Gtids)>,
    /// The last answer that was looked at; one counts once, however often it is looked at.
    newest: Option<Instant>,
}

impl History {
    /// An empty one, for lags of up to `max_lag`.
    #[must_use]
    pub(super) fn new(max_lag: Duration) -> Self {
        Self {
            spacing: max_lag / 300,
            seen: VecDeque::new(),
            newest: None,
        }
    }

    /// Another primary begins.
    pub(super) fn clear(&mut self) {
        self.seen.clear();
        self.newest = None;
    }

    /// The primary was at `position` when it was asked.
    pub(super) fn note(&mut self, asked: Instant, position: &Gtids) {
        if self.newest.is_some_and(|at| asked <= at) {
            return;
        }
        self.newest = Some(asked);
        let is_new = |(at, last): &(Instant, Gtids)| {
            !last.covers(position) && asked.saturating_duration_since(*at) >= self.spacing
        };
        if !self.seen.back().is_none_or(is_new) {
            return;
        }
        if self.seen.len() >= ENTRIES {
            self.seen.pop_front();
        }
        self.seen.push_back((asked, position.clone()));
    }

    /// For how long the primary has been further than `position`; zero for one that is not behind, and
    /// none for one that is further behind than this remembers.
    #[must_use]
    pub(super) fn lag(&self, now: Instant, position: &Gtids) -> Option<Duration> {
        let (_, oldest) = self.seen.front()?;
        if !position.covers(oldest) {
            return None;
        }
        let passed = self.seen.iter().find(|(_, seen)| !position.covers(seen));
        Some(passed.map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(*at)))
    }

    /// How far back this remembers: the least lag of a position of which [`History::lag`] tells none.
    #[must_use]
    pub(super) fn remembered(&self, now: Instant) -> Duration {
        let oldest = self.seen.front();
        oldest.map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(*at))
    }
}
