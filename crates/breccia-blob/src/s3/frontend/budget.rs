//! The memory that bodies in flight may take, shared by all workers.
//!
//! Not an allocator: it counts, and whoever streams keeps within its share. Invariant: the shares
//! that are out never add up to more than the budget.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a body in flight takes, either way: buffers of the connection and of the store.
pub const BODY_BUFFER_BYTES: u64 = 512 * 1024;
/// The least share; smaller ones would make the count the cost.
const LEAST_SHARE_BYTES: u64 = 16 * 1024;
/// One permit stands for so many bytes.
const UNIT_BYTES: u64 = 1024;

/// The bytes that all bodies in flight of a process may take.
#[derive(Debug, Clone)]
pub struct Budget {
    units: Arc<Semaphore>,
    total_units: u32,
}

/// A part of the budget; it goes back when dropped.
#[derive(Debug)]
pub struct Share {
    _permit: OwnedSemaphorePermit,
}

impl Budget {
    /// A budget of so many bytes, at least what one body takes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let total_units = units(bytes.max(BODY_BUFFER_BYTES));
        let permits = usize::try_from(total_units).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            units: Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS))),
            total_units,
        }
    }

    /// The share of a body that is streamed; `size` if it is known. First come, first served.
    /// `None`: there was no room within `deadline`.
    pub async fn for_stream(&self, size: Option<u64>, deadline: Duration) -> Option<Share> {
        let wanted = size.unwrap_or(u64::MAX).min(BODY_BUFFER_BYTES);
        self.take(wanted, deadline).await
    }

    /// The same without waiting; `None`: there is no room now.
    #[must_use]
    pub fn for_stream_now(&self, size: u64) -> Option<Share> {
        let wanted = self.units_of(size.min(BODY_BUFFER_BYTES));
        let permit = Arc::clone(&self.units)
            .try_acquire_many_owned(wanted)
            .ok()?;
        Some(Share { _permit: permit })
    }

    /// The share of a body that is held whole.
    pub async fn for_whole(&self, size: u64, deadline: Duration) -> Option<Share> {
        self.take(size, deadline).await
    }

    async fn take(&self, bytes: u64, deadline: Duration) -> Option<Share> {
        let wanted = self.units_of(bytes);
        let taking = Arc::clone(&self.units).acquire_many_owned(wanted);
        let permit = tokio::time::timeout(deadline, taking).await.ok()?.ok()?;
        Some(Share { _permit: permit })
    }

    fn units_of(&self, bytes: u64) -> u32 {
        units(bytes.max(LEAST_SHARE_BYTES)).min(self.total_units)
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn shares_never_exceed_the_budget_and_waiting_is_bounded() {
        let budget = Budget::new(2 * BODY_BUFFER_BYTES);
        let wait = Duration::from_secs(1);
        let first = budget.for_stream(None, wait).await.expect("room");
        let second = budget.for_stream(Some(u64::MAX), wait).await.expect("room");
        assert!(budget.for_stream(Some(1), wait).await.is_none());
        drop(first);
        let small = budget.for_stream(Some(1), wait).await.expect("room");
        assert!(budget.for_stream(None, wait).await.is_none());
        assert!(budget.for_stream_now(u64::MAX).is_none());
        drop((second, small));
        assert!(budget.for_stream_now(u64::MAX).is_some());
        let whole = budget.for_whole(u64::MAX, wait).await;
        assert!(
            whole.is_some(),
            "what is larger than the budget takes all of it"
        );
    }
}
