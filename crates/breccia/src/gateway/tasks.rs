//! What goes on beside the requests, for each store: its probes, and the looks at its markers.
//!
//! Invariant: a store has one task of a kind; starting another ends the one before.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Mutex, PoisonError};

use tokio::task::AbortHandle;

/// The kinds of tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Task {
    /// Probes a server.
    Probe,
    /// Keeps the markers of a shard.
    Markers,
    /// Follows servers that others know of.
    Watch,
}

/// The tasks that run, by kind and store.
#[derive(Debug, Default)]
pub(crate) struct Tasks(Mutex<BTreeMap<(Task, String), AbortHandle>>);

impl Tasks {
    /// Starts a task in the runtime this is called in.
    pub(crate) fn start(
        &self,
        task: Task,
        store: &str,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let started = tokio::spawn(work).abort_handle();
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(former) = tasks.insert((task, store.to_owned()), started) {
            former.abort();
        }
    }

    /// Ends every task of a store.
    pub(crate) fn stop(&self, store: &str) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for task in [Task::Probe, Task::Markers, Task::Watch] {
            if let Some(former) = tasks.remove(&(task, store.to_owned())) {
                former.abort();
            }
        }
    }
}
