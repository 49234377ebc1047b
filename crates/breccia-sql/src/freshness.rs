//! What a session has seen and written, and what that lets it read where.
//!
//! Pure, and of any server's positions. Invariant: positions are compared only within one epoch,
//! which is the reign of one primary; what was seen in another is raised to where that one began.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How long a session's reads stay on the replica that was chosen for it. Then it is chosen anew: one
/// that came back gets its share of sessions that only read, and one with too many gets rid of some.
pub const SETTLED_FOR: Duration = Duration::from_secs(10);

/// How long a session waits for the positions of two replicas then, where `replica-wait` is less.
pub const LEAST_LOOK: Duration = Duration::from_millis(5);

/// How far a server has come, as far as a read can tell.
pub trait Position: Clone + Default + PartialEq + Debug {
    /// Whether a server that has come to this shows all that one at `other` has shown.
    fn covers(&self, other: &Self) -> bool;

    /// Makes this cover `other` too.
    fn raise(&mut self, other: &Self);
}

/// A question for a server's position: it and all later ones cover what was seen before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// Whose position.
    pub server: usize,
    /// The number of the first question that begins from then on.
    pub number: u64,
}

/// The replica that served a session last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Home<P> {
    /// Its number.
    pub server: usize,
    /// Which run of it: another one may be further back.
    pub run: u64,
    /// When its last read was over.
    pub last: Instant,
    /// What it had replayed for certain by then.
    pub has: P,
}

/// What one session has seen and written, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Freshness<P> {
    /// The epoch `floor` belongs to.
    epoch: u64,
    /// No read may be served by a replica that has not replayed this.
    floor: P,
    /// The primary was used since `floor` was known: a newer position must be asked for first.
    dirty: bool,
    /// With `dirty`: the question that would tell it, if one is known.
    question: Option<Question>,
    /// The replica that served since then; going elsewhere needs its position first.
    home: Option<Home<P>>,
    /// A token of somebody else's cluster was given: only the primary can be right.
    foreign: bool,
}

/// What must be known before a read may go to a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need<P> {
    /// Nothing more: a replica that has replayed this will do. `home`: the replica that may serve
    /// without any check, since it served this session last and only goes forward.
    Floor {
        /// The least position.
        floor: P,
        /// See above.
        home: Option<Home<P>>,
    },
    /// A position of the primary that was asked for after now.
    Stamp,
    /// Only the primary will do.
    Primary,
}

impl<P: Position> Freshness<P> {
    /// The primary has served something that may have shown or made new rows; `question`: the next
    /// one for its position.
    pub fn used_primary(&mut self, question: Option<Question>) {
        self.dirty = true;
        self.question = question;
        self.home = None;
    }

    /// A replica has served a read.
    ///
    /// It may have been one of an older transaction there (a cursor that outlives it), which is behind
    /// what this session has seen since: then that replica is no home, and only a position of the
    /// primary, asked for from now on, covers both.
    pub fn used_replica(&mut self, home: Home<P>) {
        if self.dirty || !home.has.covers(&self.floor) {
            self.used_primary(None);
        } else {
            self.home = Some(home);
        }
    }

    /// The question whose answer, or that of any later one, says how far this session has seen.
    #[must_use]
    pub fn question(&self) -> Option<Question> {
        self.question.filter(|_| self.dirty)
    }

    /// No read may be served by a replica that has not replayed this, as far as it is known.
    #[must_use]
    pub fn floor(&self) -> &P {
        &self.floor
    }

    /// Whether a replica that is known to have replayed `has` may go on serving a transaction.
    #[must_use]
    pub fn is_met_by(&self, has: &P) -> bool {
        !self.dirty && !self.foreign && has.covers(&self.floor)
    }

    /// A position of the primary that was asked for after its last use by this session.
    pub fn stamped(&mut self, epoch: u64, position: &P) {
        if epoch == self.epoch {
            // What a replica has shown lies before the position, and that replica goes on serving.
            if self.home.is_none() {
                self.floor.raise(position);
            }
        } else {
            (self.epoch, self.floor, self.home) = (epoch, position.clone(), None);
        }
        (self.dirty, self.question) = (false, None);
    }

    /// The position of the replica that served last, asked for after its last read: this session
    /// may go elsewhere.
    pub fn left_home(&mut self, seen: &P) {
        self.floor.raise(seen);
        self.home = None;
    }

    /// What a session elsewhere has seen, on the primary of `epoch`; unless it is `known` to be of that
    /// one's cluster, it cannot be compared with what is seen here, and only the primary can be right.
    pub fn import(&mut self, position: &P, epoch: u64, known: bool) {
        if !known {
            self.foreign = true;
            return;
        }
        if epoch != self.epoch {
            (self.epoch, self.floor) = (epoch, P::default());
            self.used_primary(None);
        } else if (self.home.is_some() || self.dirty) && !self.floor.covers(position) {
            // Neither the replica that serves need have come so far, nor what was asked since the
            // primary was used.
            self.used_primary(None);
        }
        self.floor.raise(position);
    }

    /// Whether a token can be told without asking the primary: the floor of this epoch.
    #[must_use]
    pub fn known(&self, epoch: u64) -> Option<&P> {
        (!self.dirty && !self.foreign && self.home.is_none() && self.epoch == epoch)
            .then_some(&self.floor)
    }

    /// What must be known before a read of this session may go to a replica in `epoch`, whose
    /// primary stood at `first` when it was first seen.
    #[must_use]
    pub fn need(&self, epoch: u64, first: &P) -> Need<P> {
        if self.foreign {
            Need::Primary
        } else if self.dirty || self.home_before(epoch).is_some() {
            // A replica that outlived a promotion may have shown what came after it.
            Need::Stamp
        } else if self.epoch == epoch {
            Need::Floor {
                floor: self.floor.clone(),
                home: self.home.clone(),
            }
        } else {
            // Another primary or timeline: whatever was seen is raised to where it began.
            Need::Floor {
                floor: first.clone(),
                home: None,
            }
        }
    }

    /// The replica that served last, in an epoch before this one.
    #[must_use]
    pub fn home_before(&self, epoch: u64) -> Option<&Home<P>> {
        let home = self.home.as_ref()?;
        (!self.dirty && !self.foreign && self.epoch != epoch).then_some(home)
    }

    /// Follows to another epoch, whose primary stood at `first`.
    pub fn follow(&mut self, epoch: u64, first: &P) {
        if self.epoch != epoch {
            (self.epoch, self.floor, self.home) = (epoch, first.clone(), None);
        }
    }
}
