//! What a server was last heard to say, and how long its silence is taken for a hiccup.
//!
//! Pure. Invariant: a server that claimed to be the primary goes on claiming until nothing listens
//! there any more, or two questions in a row were not answered.

use std::time::Instant;

/// An answer, and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer<R> {
    /// What it says.
    pub report: R,
    /// When it was asked.
    pub at: Instant,
    /// The run of the server that said so: it tells one start of it from another.
    pub run: u64,
}

/// What a server was last heard to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Heard<R> {
    /// It has not been asked.
    #[default]
    Nothing,
    /// Its last question was answered.
    Said(Answer<R>),
    /// Its last question was not; what it said before, if it did.
    Quiet(Option<Answer<R>>),
    /// Nothing listens there, or two questions in a row were not answered.
    Gone,
}

impl<R> Heard<R> {
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
    pub fn answer(&self) -> Option<&Answer<R>> {
        match self {
            Self::Said(answer) => Some(answer),
            _ => None,
        }
    }

    /// What it says, or said just before a question that was not answered.
    #[must_use]
    pub fn report(&self) -> Option<&R> {
        match self {
            Self::Said(answer) | Self::Quiet(Some(answer)) => Some(&answer.report),
            _ => None,
        }
    }
}
