//! MariaDB's positions: the last transaction of each replication domain.
//!
//! Pure. Invariant: domains are in ascending order, each once; the usual case of one costs no memory
//! of its own.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::GtidError;

/// The most domains that are kept.
pub const MAX_DOMAINS: usize = 1024;

/// One transaction, as MariaDB writes it: `DOMAIN-SERVER-NUMBER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gtid {
    /// The replication domain.
    pub domain: u32,
    /// The server that made it.
    pub server: u32,
    /// Its number in the domain.
    pub number: u64,
}

/// The last transaction of each domain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Domains(Kept);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum Kept {
    #[default]
    None,
    One(Gtid),
    Several(Arc<[Gtid]>),
}

impl Domains {
    fn as_slice(&self) -> &[Gtid] {
        match &self.0 {
            Kept::None => &[],
            Kept::One(one) => std::slice::from_ref(one),
            Kept::Several(several) => several,
        }
    }

    fn of_sorted(gtids: Vec<Gtid>) -> Self {
        Self(match gtids.as_slice() {
            [] => Kept::None,
            [one] => Kept::One(*one),
            _ => Kept::Several(gtids.into()),
        })
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self.0, Kept::None)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// The last transaction of a domain.
    #[must_use]
    pub fn get(&self, domain: u32) -> Option<Gtid> {
        let all = self.as_slice();
        let at = all.binary_search_by_key(&domain, |it| it.domain).ok()?;
        all.get(at).copied()
    }

    /// Whether each of these domains is one of `other` too.
    #[must_use]
    pub fn is_among(&self, other: &Self) -> bool {
        let mut all = self.as_slice().iter();
        all.all(|it| other.get(it.domain).is_some())
    }

    /// Whether these have come as far as `other` in each of its domains.
    ///
    /// Numbers of a domain only grow, whichever server makes them.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let has = |it: &Gtid| {
            self.get(it.domain)
                .is_some_and(|own| own.number >= it.number)
        };
        other.as_slice().iter().all(has)
    }

    /// Goes as far as `other` in each of its domains. [`GtidError::TooMany`]: there would be more than
    /// are kept, and these are unchanged.
    pub fn raise(&mut self, other: &Self) -> Result<(), GtidError> {
        if self.covers(other) {
            return Ok(());
        }
        if self.is_empty() {
            *self = other.clone();
            return Ok(());
        }
        if let (Kept::One(own), Kept::One(other)) = (&mut self.0, &other.0)
            && own.domain == other.domain
        {
            *own = *other;
            return Ok(());
        }
        let both = self.as_slice().iter().chain(other.as_slice());
        let both = last_of_each(both.copied().collect());
        if both.len() > MAX_DOMAINS {
            return Err(GtidError::TooMany);
        }
        *self = Self::of_sorted(both);
        Ok(())
    }
}

/// Sorts by domain, and keeps of each the greatest number.
fn last_of_each(mut gtids: Vec<Gtid>) -> Vec<Gtid> {
    gtids.sort_by_key(|it| (it.domain, std::cmp::Reverse(it.number)));
    gtids.dedup_by_key(|it| it.domain);
    gtids
}

impl fmt::Display for Domains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, gtid) in self.as_slice().iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{}-{}-{}", gtid.domain, gtid.server, gtid.number)?;
        }
        Ok(())
    }
}

impl FromStr for Domains {
    type Err = GtidError;

    /// Reads `0-1-100,1-2-5`; of a domain that is there twice the greatest number counts.
    fn from_str(text: &str) -> Result<Self, GtidError> {
        let mut gtids = Vec::new();
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        for part in text.split(',') {
            if gtids.len() >= MAX_DOMAINS {
                return Err(GtidError::TooMany);
            }
            gtids.push(gtid(part.trim()).ok_or(GtidError::Form)?);
        }
        Ok(Self::of_sorted(last_of_each(gtids)))
    }
}

fn gtid(text: &str) -> Option<Gtid> {
    let mut parts = text.splitn(3, '-');
    Some(Gtid {
        domain: parts.next()?.parse().ok()?,
        server: parts.next()?.parse().ok()?,
        number: parts.next()?.parse().ok()?,
    })
}
