//! How a task that has more to do lets others go first. Not a scheduler.
//!
//! Invariant: a task that goes on by itself goes through here, so that however much one client or
//! server sends, all others' sockets are looked at between two of its turns. (A task that merely
//! wakes itself is run dozens of times before the next look.)

use std::pin::pin;
use std::task::Context;

/// Wakes this task again after sockets were looked at.
pub(crate) fn wake_after_others(context: &mut Context<'_>) {
    if pin!(tokio::task::yield_now()).poll(context).is_ready() {
        context.waker().wake_by_ref();
    }
}
