//! The slow requests of one listener: the same for all workers, and never more than a few.
//!
//! A request is slow when its server's reply came late; that is told by times the queue of the
//! connection has read anyway. Arguments are not kept: nothing of a request is, once it is queued.
//! Invariant: how much is kept, and how often it is added to, is bounded.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use breccia_net::clock;

/// Entries that are kept; the oldest make room.
pub(crate) const MAX_ENTRIES: usize = 128;
/// Seconds of which the slowest request is kept, as by a server.
const MAX_SAMPLES: usize = 160;

/// One slow request.
#[derive(Clone, Debug)]
pub(crate) struct SlowRequest {
    /// Counts up, also when the list is emptied.
    pub id: i64,
    /// Seconds since the Unix epoch.
    pub at: u64,
    pub took: Duration,
    pub command: &'static str,
    /// The shard's path, as errors name it.
    pub shard: Arc<str>,
    pub client: u64,
    pub address: String,
}

/// The slowest request of one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Seconds since the Unix epoch.
    pub at: u64,
    pub milliseconds: u64,
}

#[derive(Debug, Default)]
struct Kept {
    next: i64,
    entries: VecDeque<SlowRequest>,
    samples: VecDeque<Sample>,
    /// The slowest since the samples were emptied.
    worst: u64,
}

/// See the module's page.
#[derive(Debug, Default)]
pub struct SlowLog(Mutex<Kept>);

impl SlowLog {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(
        &self,
        took: Duration,
        command: &'static str,
        shard: &str,
        (client, address): (u64, &str),
    ) {
        let at = clock::unix_ms() / 1000;
        let mut kept = self.kept();
        let entry = SlowRequest {
            id: kept.next,
            at,
            took,
            command,
            shard: shard.into(),
            client,
            address: address.to_owned(),
        };
        kept.next += 1;
        if kept.entries.len() >= MAX_ENTRIES {
            kept.entries.pop_front();
        }
        kept.entries.push_back(entry);
        let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        kept.worst = kept.worst.max(milliseconds);
        match kept.samples.back_mut() {
            Some(last) if last.at == at => last.milliseconds = last.milliseconds.max(milliseconds),
            _ => {
                if kept.samples.len() >= MAX_SAMPLES {
                    kept.samples.pop_front();
                }
                kept.samples.push_back(Sample { at, milliseconds });
            }
        }
    }

    /// The latest entries, latest first.
    pub(crate) fn latest(&self, count: usize) -> Vec<SlowRequest> {
        self.kept()
            .entries
            .iter()
            .rev()
            .take(count)
            .cloned()
            .collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.kept().entries.len()
    }

    /// Empties the list.
    pub(crate) fn clear(&self) {
        self.kept().entries.clear();
    }

    /// The slowest of each second, oldest first, and the slowest of all.
    pub(crate) fn samples(&self) -> (Vec<Sample>, u64) {
        let kept = self.kept();
        (kept.samples.iter().copied().collect(), kept.worst)
    }

    /// Empties the samples; whether there were any.
    pub(crate) fn clear_samples(&self) -> bool {
        let mut kept = self.kept();
        kept.worst = 0;
        !std::mem::take(&mut kept.samples).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room_and_numbers_go_on() {
        let log = SlowLog::default();
        for number in 0..u64::try_from(MAX_ENTRIES).unwrap() + 2 {
            log.add(Duration::from_millis(number), "get", "all/a", (1, "here"));
        }
        let latest = log.latest(2);
        assert_eq!((latest[0].id, latest[1].id), (129, 128));
        assert_eq!(log.latest(usize::MAX).len(), MAX_ENTRIES);
        let (samples, worst) = log.samples();
        assert_eq!((samples.last().unwrap().milliseconds, worst), (129, 129));
        log.clear();
        assert_eq!(log.len(), 0);
        log.add(Duration::from_millis(1), "get", "all/a", (1, "here"));
        assert_eq!(log.latest(1)[0].id, 130);
        assert!(log.clear_samples());
        assert!(!log.clear_samples());
        assert_eq!(log.samples(), (Vec::new(), 0));
    }
}
