//! What a server was last heard to say, and how long its silence is taken for a hiccup.
//!
//! Pure. Invariant: a server that claimed to be the primary goes on claiming until nothing listens
//! there any more, or two questions in a row were not answered.

use std::time::Instant;

use crate::token::Lsn;

/// What a server says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Whether it follows another server.
    pub recovery: bool,
    /// The timeline it is on; a replica that cannot tell says none.
    pub timeline: Option<u32>,
    /// The cluster's identity.
    pub system: u64,
    /// Where it is: written to, or replayed.
    pub position: Lsn,
    /// How much of that replicas may have by now; of a replica, `position`.
    pub flushed: Lsn,
}

/// An answer, and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// What it says.
    pub report: Report,
    /// When it was asked.
    pub at: Instant,
    /// The run of the server that said so: see [`crate::postgres::upstream::Instance`].
    pub run: u64,
}

/// What a server was last heard to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Heard {
    /// It has not been asked.
    #[default]
    Nothing,
    /// Its last question was answered.
    Said(Answer),
    /// Its last question was not; what it said before, if it did.
    Quiet(Option<Answer>),
    /// Nothing listens there, or two questions in a row were not answered.
    Gone,
}

impl Heard {
    /// A question was not answered, though something may listen there.
    #[must_use]
    pub fn unanswered(self) -> Self {
        match self {
            Self::Nothing => Self::Quiet(None),
            Self::Said(answer) => Self::Quiet(Some(answer)),
            Self::Quiet(_) | Self::Gone => Self::Gone,
        }
    }

    /// It is there, and lets nobody in for now.
    #[must_use]
    pub fn full(self) -> Self {
        match self {
            Self::Said(answer) => Self::Quiet(Some(answer)),
            other => other,
        }
    }

    /// Whether it is known what it is, or that it is gone.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        !matches!(self, Self::Nothing | Self::Quiet(None))
    }

    /// What it says now.
    #[must_use]
    pub fn answer(&self) -> Option<Answer> {
        match self {
            Self::Said(answer) => Some(*answer),
            _ => None,
        }
    }

    /// What it says, or said just before a question that was not answered.
    #[must_use]
    pub fn report(&self) -> Option<Report> {
        match self {
            Self::Said(answer) | Self::Quiet(Some(answer)) => Some(answer.report),
            _ => None,
        }
    }
}
