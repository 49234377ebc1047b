//! Positions of MySQL and MariaDB: global transaction identifiers.
//!
//! Pure. Invariant: nothing that was read is larger than [`MAX_DOMAINS`], [`MAX_SOURCES`] and
//! [`MAX_INTERVALS`] allow, and whatever cannot be told for certain is covered by no server.

mod domains;
mod sets;

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

pub use domains::{Domains, Gtid, MAX_DOMAINS};
pub use sets::{MAX_INTERVALS, MAX_SOURCES, Sets, Source};

use crate::freshness::Position;

/// What a text of identifiers is refused for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GtidError {
    /// It has another form than the two that are known.
    #[error("that is no GTID: MariaDB's are DOMAIN-SERVER-NUMBER, MySQL's UUID:NUMBER-NUMBER")]
    Form,
    /// MySQL 8.4's `UUID:TAG:NUMBER`, which no session's position is compared with.
    #[error("GTIDs with tags are not understood")]
    Tagged,
    /// There are more domains, sources or intervals than are kept.
    #[error("there are more GTID domains, sources or intervals than are kept")]
    TooMany,
}

/// How far a server has come, or what one has committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gtids {
    /// MariaDB's: of each domain the last one.
    MariaDb(Domains),
    /// MySQL's: of each server the numbers that are there.
    MySql(Sets),
    /// Identifiers of both kinds, which no server has.
    Beyond,
}

impl Default for Gtids {
    /// Nothing was committed.
    fn default() -> Self {
        Self::MariaDb(Domains::default())
    }
}

impl Gtids {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::MariaDb(domains) => domains.is_empty(),
            Self::MySql(sets) => sets.is_empty(),
            Self::Beyond => false,
        }
    }

    /// Whether the domains, or servers, of these are all among those of `other`.
    #[must_use]
    pub fn is_among(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::MariaDb(own), Self::MariaDb(other)) => own.is_among(other),
            (Self::MySql(own), Self::MySql(other)) => own.is_among(other),
            (own, _) => own.is_empty(),
        }
    }

    /// Whether each domain of these is the only one of `all`: one number tells of everything then.
    ///
    /// Within a domain the order of numbers is that of the binary log, so one covers all that its
    /// transaction may have seen. A MySQL server's numbers are ordered too, but a replica need not
    /// commit them in that order, so one of them proves nothing of those before it.
    #[must_use]
    pub fn is_whole_of(&self, all: &Self) -> bool {
        match (self, all) {
            (Self::MariaDb(own), Self::MariaDb(all)) => {
                own.len() == 1 && all.len() <= 1 && (all.is_empty() || own.is_among(all))
            }
            _ => false,
        }
    }

    /// The text of `SHOW breccia.token`: whose they are, and the identifiers.
    #[must_use]
    pub fn token(&self) -> String {
        let kind = match self {
            Self::MariaDb(_) => "mariadb",
            Self::MySql(_) => "mysql",
            Self::Beyond => "beyond",
        };
        format!("{kind}:{self}")
    }

    /// Reads what [`Gtids::token`] has told. [`GtidError::Form`] where the kind does not fit the rest.
    pub fn from_token(text: &str) -> Result<Self, GtidError> {
        let (kind, rest) = text.trim().split_once(':').ok_or(GtidError::Form)?;
        match kind {
            "mariadb" => rest.parse().map(Self::MariaDb),
            "mysql" => rest.parse().map(Self::MySql),
            "beyond" => Ok(Self::Beyond),
            _ => Err(GtidError::Form),
        }
    }
}

impl fmt::Display for Gtids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MariaDb(domains) => domains.fmt(f),
            Self::MySql(sets) => sets.fmt(f),
            Self::Beyond => Ok(()),
        }
    }
}

impl FromStr for Gtids {
    type Err = GtidError;

    /// Reads `0-1-100,1-2-5` or `UUID:1-5:7,UUID:1`. A text without any identifier is empty.
    fn from_str(text: &str) -> Result<Self, GtidError> {
        if text.contains(':') {
            text.parse().map(Self::MySql)
        } else {
            text.parse().map(Self::MariaDb)
        }
    }
}

impl Position for Gtids {
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::MariaDb(own), Self::MariaDb(other)) => own.covers(other),
            (Self::MySql(own), Self::MySql(other)) => own.covers(other),
            (_, other) => other.is_empty(),
        }
    }

    fn raise(&mut self, other: &Self) {
        if other.is_empty() {
            return;
        }
        let raised = match (&mut *self, other) {
            (Self::MariaDb(own), Self::MariaDb(other)) => own.raise(other).is_ok(),
            (Self::MySql(own), Self::MySql(other)) => own.raise(other).is_ok(),
            (own, other) if own.is_empty() => {
                *own = other.clone();
                true
            }
            _ => false,
        };
        if !raised {
            *self = Self::Beyond;
        }
    }
}

#[cfg(test)]
mod tests;
