//! Removing files that nothing refers to, and keeping those that somebody still reads.
//!
//! Not who decides that a file is not needed: the index does. Invariant: a file is unlinked only
//! after the commit that took the last reference to it, and not while a reader has pinned it.
//!
//! An object in one file needs no pin, as the open file keeps its bytes. The parts of an object
//! are opened one after the other: their reader pins them, then looks whether the object is still
//! the same. If it is, whoever removes it later meets the pins.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::folder::Folder;

/// The files that are to be removed.
#[derive(Debug)]
pub(super) struct Sweep {
    folder: Arc<Folder>,
    state: Mutex<State>,
    wake: Condvar,
}

/// Numbers of files only, so it takes eight bytes or so per file that waits.
#[derive(Debug, Default)]
struct State {
    queue: VecDeque<u64>,
    /// Could not be removed; tried again by `retry`.
    failed: Vec<u64>,
    pinned: HashMap<u64, u32>,
    /// To be removed when their last pin goes.
    deferred: HashSet<u64>,
    stop: bool,
}

impl Sweep {
    /// A sweep of this folder with nothing to do.
    pub(super) fn new(folder: &Arc<Folder>) -> Arc<Self> {
        Arc::new(Self {
            folder: Arc::clone(folder),
            state: Mutex::default(),
            wake: Condvar::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes these files soon. Never blocks for long.
    pub(super) fn remove(&self, generations: impl IntoIterator<Item = u64>) {
        let mut state = self.state();
        let before = state.queue.len();
        state.queue.extend(generations);
        let some = state.queue.len() > before;
        drop(state);
        if some {
            self.wake.notify_one();
        }
    }

    /// Keeps these files until the pins are dropped.
    pub(super) fn pin(self: &Arc<Self>, generations: Vec<u64>) -> Pins {
        let mut state = self.state();
        for generation in &generations {
            let count = state.pinned.entry(*generation).or_default();
            *count = count.saturating_add(1);
        }
        drop(state);
        Pins {
            sweep: Arc::clone(self),
            generations,
        }
    }

    /// Tries again to remove what could not be removed; answers how many are gone now.
    pub(super) fn retry(&self) -> u64 {
        let failed = std::mem::take(&mut self.state().failed);
        let mut gone = 0_u64;
        for generation in failed {
            if self.unlink(generation) {
                gone = gone.saturating_add(1);
            }
        }
        gone
    }

    fn unlink(&self, generation: u64) -> bool {
        match std::fs::remove_file(self.folder.file(generation)) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => {
                let file = self.folder.file(generation);
                tracing::warn!(store = self.folder.name(), file = %file.display(), %error,
                    "cannot remove a file that is no longer needed; it is tried again");
                self.state().failed.push(generation);
                false
            }
        }
    }

    fn run(&self) {
        loop {
            let mut state = self.state();
            let next = loop {
                if let Some(next) = state.queue.pop_front() {
                    break next;
                }
                if state.stop {
                    return;
                }
                state = self
                    .wake
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            };
            if state.pinned.contains_key(&next) {
                state.deferred.insert(next);
                continue;
            }
            drop(state);
            self.unlink(next);
        }
    }

    fn unpin(&self, generations: &[u64]) {
        let mut state = self.state();
        let mut freed = false;
        for generation in generations {
            let left = state.pinned.get_mut(generation).map(|count| {
                *count = count.saturating_sub(1);
                *count
            });
            if left == Some(0) {
                state.pinned.remove(generation);
                if state.deferred.remove(generation) {
                    state.queue.push_back(*generation);
                    freed = true;
                }
            }
        }
        drop(state);
        if freed {
            self.wake.notify_one();
        }
    }
}

/// Keeps files from being removed.
#[derive(Debug)]
pub(super) struct Pins {
    sweep: Arc<Sweep>,
    generations: Vec<u64>,
}

impl Drop for Pins {
    fn drop(&mut self) {
        self.sweep.unpin(&self.generations);
    }
}

/// The thread that removes files; when it is dropped it does what there is to do and ends.
#[derive(Debug)]
pub(super) struct Sweeper {
    sweep: Arc<Sweep>,
    thread: Option<JoinHandle<()>>,
}

impl Sweeper {
    pub(super) fn start(sweep: &Arc<Sweep>) -> io::Result<Self> {
        let own = Arc::clone(sweep);
        let thread = std::thread::Builder::new()
            .name("breccia-fs-sweep".to_owned())
            .spawn(move || own.run())?;
        Ok(Self {
            sweep: Arc::clone(sweep),
            thread: Some(thread),
        })
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.sweep.state().stop = true;
        self.sweep.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic of that thread has been reported by itself; the files stay until a start.
            let _ = thread.join();
        }
    }
}
