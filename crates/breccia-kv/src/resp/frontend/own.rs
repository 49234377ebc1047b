//! Connections of their own for clients that read large values, so that however slowly one of them
//! reads, nobody waits behind it.
//!
//! Not leases: such a connection carries no state and may be opened again. Invariant: at most
//! [`MAX_OWN`] of them are out for a server and worker; who gets none shares the bulk connection,
//! which is retired whenever a large reply keeps it busy.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::dialogue::RespDialogue;
use super::leaf::{Leaf, Mode, RespUpstream};
use crate::topology::LeafIndex;

/// Connections that clients of one worker have to themselves, for one server.
pub(crate) const MAX_OWN: usize = 32;
/// Those that are kept for the next one.
const MAX_SPARE: usize = 8;

/// The connections to one server that belong to single clients of this worker.
#[derive(Default)]
pub(crate) struct OwnPaths {
    taken: Cell<usize>,
    spare: RefCell<Vec<(Mode, Rc<RespUpstream>)>>,
}

impl OwnPaths {
    /// A connection that nobody else uses; `open` makes one. `None`: too many are out.
    pub(crate) fn take(
        &self,
        mode: Mode,
        open: impl FnOnce() -> Rc<RespUpstream>,
    ) -> Option<Rc<RespUpstream>> {
        if self.taken.get() >= MAX_OWN {
            return None;
        }
        self.taken.set(self.taken.get() + 1);
        let mut spare = self.spare.borrow_mut();
        let found = spare.iter().position(|(known, _)| *known == mode);
        Some(found.map_or_else(open, |place| spare.swap_remove(place).1))
    }

    fn give_back(&self, mode: Mode, upstream: &Rc<RespUpstream>) {
        self.taken.set(self.taken.get().saturating_sub(1));
        let mut spare = self.spare.borrow_mut();
        if upstream.is_idle() && !upstream.is_closed() && spare.len() < MAX_SPARE {
            spare.push((mode, Rc::clone(upstream)));
        } else {
            // What is still to come on it is for nobody.
            upstream.close();
        }
    }
}

impl Drop for OwnPaths {
    fn drop(&mut self) {
        for (_, upstream) in self.spare.get_mut() {
            upstream.close();
        }
    }
}

/// A connection that is one client's own.
pub(crate) struct OwnPath {
    leaf: Rc<Leaf>,
    index: LeafIndex,
    mode: Mode,
    upstream: Rc<RespUpstream>,
}

impl Drop for OwnPath {
    fn drop(&mut self) {
        self.leaf.own.give_back(self.mode, &self.upstream);
    }
}

impl RespDialogue {
    /// Whether the client is to ask on other connections than before: it reads large values by now,
    /// or one that it uses is kept busy by a large reply.
    pub(crate) fn must_change_paths(&mut self) -> bool {
        if self.client.reads_large.get() && !self.on_bulk {
            return true;
        }
        let retirements = self.retirements.get();
        if retirements == self.seen_retirements {
            return false;
        }
        let is_retired = |path: &Rc<RespUpstream>| path.is_retired();
        if self.paths.iter().flatten().any(is_retired) {
            return true;
        }
        self.seen_retirements = retirements;
        false
    }

    /// Leaves the connections used so far; nothing may be in flight on them.
    pub(crate) fn change_paths(&mut self) {
        self.on_bulk = self.client.reads_large.get();
        self.seen_retirements = self.retirements.get();
        self.paths.clear();
    }

    /// The connection by which a client that reads large values asks a leaf.
    pub(crate) fn own_path(&mut self, index: LeafIndex) -> Rc<RespUpstream> {
        let mode = self.mode();
        self.own.retain(|own| own.mode == mode);
        if let Some(own) = self.own.iter().find(|own| own.index == index) {
            return Rc::clone(&own.upstream);
        }
        let forward = self.forward();
        let leaf = forward.leaf(index);
        let Some(upstream) = leaf.take_own(mode) else {
            return leaf.shared(mode, None);
        };
        self.own.push(OwnPath {
            leaf,
            index,
            mode,
            upstream: Rc::clone(&upstream),
        });
        upstream
    }
}
