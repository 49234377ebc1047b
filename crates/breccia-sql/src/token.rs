//! Positions in the write-ahead log, and what a session may not read behind.
//!
//! Pure. Invariant: positions are compared only within one epoch, which is one primary on one
//! timeline; a token of another one proves nothing.

use std::fmt;
use std::str::FromStr;
use std::time::Instant;

/// A position in PostgreSQL's write-ahead log, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl FromStr for Lsn {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (high, low) = text.split_once('/').ok_or(())?;
        let part = |text: &str| u32::from_str_radix(text, 16).map_err(|_| ());
        Ok(Self(u64::from(part(high)?) << 32 | u64::from(part(low)?)))
    }
}

/// A portable proof of how far a session has seen: `system-id:timeline:lsn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// The cluster's identity, as `initdb` made it.
    pub system: u64,
    /// The timeline the position is on.
    pub timeline: u32,
    /// The position.
    pub lsn: Lsn,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.system, self.timeline, self.lsn)
    }
}

impl FromStr for Token {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(3, ':');
        let mut next = || parts.next().ok_or(());
        Ok(Self {
            system: next()?.parse().map_err(|_| ())?,
            timeline: next()?.parse().map_err(|_| ())?,
            lsn: next()?.parse()?,
        })
    }
}

/// What one session has seen and written, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Freshness {
    /// The epoch `floor` belongs to.
    epoch: u64,
    /// No read may be served by a replica that has not replayed this.
    floor: Lsn,
    /// The primary was used since `floor` was known: a newer position must be asked for first.
    dirty: bool,
    /// The replica that served since then; going elsewhere needs its position first.
    home: Option<(usize, Instant)>,
    /// A token of somebody else's cluster was given: only the primary can be right.
    foreign: bool,
}

/// What must be known before a read may go to a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing more: a replica that has replayed this will do. `home`: the replica that may serve
    /// without any check, since it served this session last and only goes forward.
    Floor {
        /// The least position.
        floor: Lsn,
        /// See above.
        home: Option<(usize, Instant)>,
    },
    /// A position of the primary that was asked for after now.
    Stamp,
    /// Only the primary will do.
    Primary,
}

impl Freshness {
    /// The primary has served something that may have shown or made new rows.
    pub fn used_primary(&mut self) {
        self.dirty = true;
        self.home = None;
    }

    /// A replica has served a read, over by `now`.
    pub fn used_replica(&mut self, server: usize, now: Instant) {
        self.home = Some((server, now));
    }

    /// A position of the primary that was asked for after its last use by this session.
    pub fn stamped(&mut self, epoch: u64, lsn: Lsn) {
        if epoch == self.epoch {
            self.floor = self.floor.max(lsn);
        } else {
            (self.epoch, self.floor, self.home) = (epoch, lsn, None);
        }
        self.dirty = false;
    }

    /// The position of the replica that served last, asked for after its last read: this session
    /// may go elsewhere.
    pub fn left_home(&mut self, lsn: Lsn) {
        self.floor = self.floor.max(lsn);
        self.home = None;
    }

    /// A token of a session elsewhere; `system` and `timeline` are those in force.
    pub fn import(&mut self, token: Token, epoch: u64, system: u64, timeline: u32) {
        if token.system == system && token.timeline == timeline {
            if epoch != self.epoch {
                (self.epoch, self.floor, self.home) = (epoch, Lsn(0), None);
                self.dirty = true;
            }
            self.floor = self.floor.max(token.lsn);
        } else {
            self.foreign = true;
        }
    }

    /// Whether a token can be told without asking the primary: the floor of this epoch.
    #[must_use]
    pub fn known(&self, epoch: u64) -> Option<Lsn> {
        (!self.dirty && !self.foreign && self.home.is_none() && self.epoch == epoch)
            .then_some(self.floor)
    }

    /// What must be known before a read of this session may go to a replica in `epoch`, whose
    /// primary stood at `first` when it was first seen.
    #[must_use]
    pub fn need(&self, epoch: u64, first: Lsn) -> Need {
        if self.foreign {
            Need::Primary
        } else if self.dirty {
            Need::Stamp
        } else if self.epoch == epoch {
            Need::Floor {
                floor: self.floor,
                home: self.home,
            }
        } else {
            // Another primary or timeline: whatever was seen is raised to where it began.
            Need::Floor {
                floor: first,
                home: None,
            }
        }
    }

    /// Follows to another epoch, whose primary stood at `first`.
    pub fn follow(&mut self, epoch: u64, first: Lsn) {
        if self.epoch != epoch {
            (self.epoch, self.floor, self.home) = (epoch, first, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_and_tokens_are_read_back() {
        for text in ["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"] {
            let lsn: Lsn = text.parse().expect(text);
            assert_eq!(lsn.to_string(), text);
        }
        assert!(Lsn(0x1_0000_0000) > "0/FFFFFFFF".parse().expect("a position"));
        let text = "7234567890123456789:3:16/B374D848";
        let token: Token = text.parse().expect("a token");
        assert_eq!(token.to_string(), text);
        for wrong in ["", "1:2", "x:1:0/0", "1:1:0", "1:1:0/0:1"] {
            assert!(wrong.parse::<Token>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_write_asks_for_a_stamp_and_a_stamp_raises_the_floor() {
        let mut session = Freshness::default();
        session.follow(1, Lsn(5));
        let floor = |floor, home| Need::Floor {
            floor: Lsn(floor),
            home,
        };
        assert_eq!(session.need(1, Lsn(5)), floor(5, None));
        session.used_primary();
        assert_eq!(session.need(1, Lsn(5)), Need::Stamp);
        session.stamped(1, Lsn(9));
        let now = Instant::now();
        session.used_replica(2, now);
        assert_eq!(session.need(1, Lsn(5)), floor(9, Some((2, now))));
        session.left_home(Lsn(12));
        assert_eq!(session.need(1, Lsn(5)), floor(12, None));
        session.stamped(1, Lsn(3));
        assert_eq!(
            session.need(1, Lsn(5)),
            floor(12, None),
            "a floor never sinks"
        );
    }

    #[test]
    fn another_epoch_begins_where_its_primary_was_first_seen() {
        let mut session = Freshness::default();
        session.stamped(1, Lsn(100));
        session.used_replica(1, Instant::now());
        let need = Need::Floor {
            floor: Lsn(40),
            home: None,
        };
        assert_eq!(session.need(2, Lsn(40)), need);
    }

    #[test]
    fn a_foreign_token_reads_the_primary() {
        let mut session = Freshness::default();
        let token = Token {
            system: 1,
            timeline: 1,
            lsn: Lsn(7),
        };
        session.import(token, 1, 1, 1);
        assert_ne!(session.need(1, Lsn(0)), Need::Primary);
        session.import(Token { system: 2, ..token }, 1, 1, 1);
        assert_eq!(session.need(1, Lsn(0)), Need::Primary);
    }
}
