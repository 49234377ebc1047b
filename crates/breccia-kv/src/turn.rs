//! How a task that has more to do lets others go first. Not a scheduler.
//!
//! Invariant: a task that goes on by itself goes through here, so that however much one client or
//! server sends, all others' sockets are looked at between two of its turns. (A task that merely
//! wakes itself is run dozens of times before the next look.)

use std::pin::{Pin, pin};
use std::task::Context;
use std::time::Duration;

use breccia_net::clock;
use tokio::time::Sleep;

/// So many bytes of one value pass as fast as they come.
const UNPACED_BYTES: usize = 16 << 20;
/// So many pass between two rests after that, and how long a rest is.
const STRIDE_BYTES: usize = 512 * 1024;
const REST: Duration = Duration::from_millis(1);

/// Wakes this task again after sockets were looked at.
pub(crate) fn wake_after_others(context: &mut Context<'_>) {
    if pin!(tokio::task::yield_now()).poll(context).is_ready() {
        context.waker().wake_by_ref();
    }
}

/// How much of one very large value has passed, and when more may. Without it such a value keeps this
/// worker, its server and its client so busy that a machine of few cores has none left for a small request
/// that comes.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    passed: usize,
    since_rest: usize,
    rest: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// Whether more may pass now; else the task is woken when it may.
    pub(crate) fn may_pass(&mut self, context: &mut Context<'_>) -> bool {
        let Some(rest) = &mut self.rest else {
            return true;
        };
        let rested = rest.as_mut().poll(context).is_ready();
        if rested {
            self.rest = None;
        }
        rested
    }

    /// More of the value has passed.
    pub(crate) fn pass(&mut self, bytes: usize) {
        self.passed = self.passed.saturating_add(bytes);
        if self.passed <= UNPACED_BYTES {
            return;
        }
        self.since_rest += bytes;
        if self.since_rest >= STRIDE_BYTES {
            self.since_rest = 0;
            let end = clock::now() + REST;
            self.rest = Some(Box::pin(tokio::time::sleep_until(end.into())));
        }
    }

    /// The value has passed, or somebody waits behind it.
    pub(crate) fn hurry(&mut self) {
        if self.passed > 0 {
            *self = Self::default();
        }
    }
}
