//! How other threads reach a client: to close it.
//!
//! Not the client, which never leaves its worker. Invariant: a client that is told to close notices
//! in its next turn, which begins at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Waker;

/// A client as other threads see it.
#[derive(Debug, Default)]
pub struct Handle {
    closed: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Handle {
    /// Where the client's task is woken; told once, when it begins.
    pub(crate) fn begin(&self, waker: &Waker) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
    }

    /// Tells the client to close.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waker) = &*waker {
            waker.wake_by_ref();
        }
    }

    /// Whether the client was told to close.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}
