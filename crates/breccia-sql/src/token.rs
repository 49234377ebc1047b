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

impl Lsn {
    /// The same place as an end instead of a beginning: where the next record is to begin behind the
    /// header of a page or segment of which nothing is written yet, the end of the last one lies
    /// before that header, and no replica comes further. Both sizes are the server's.
    #[must_use]
    pub fn as_end(self, page_bytes: u64, segment_bytes: u64) -> Self {
        const PAGE_HEADER: u64 = 24;
        const SEGMENT_HEADER: u64 = 40;
        if page_bytes == 0 || segment_bytes == 0 {
            return self;
        }
        let within = self.0 % page_bytes;
        let page = self.0 - within;
        let header = if page.is_multiple_of(segment_bytes) {
            SEGMENT_HEADER
        } else {
            PAGE_HEADER
        };
        if within == header { Self(page) } else { self }
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
pub struct Home {
    /// Its number.
    pub server: usize,
    /// Which run of it: another one may be further back.
    pub run: u64,
    /// When its last read was over.
    pub last: Instant,
    /// What it had replayed for certain by then.
    pub has: Lsn,
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
    /// With `dirty`: the question that would tell it, if one is known.
    question: Option<Question>,
    /// The replica that served since then; going elsewhere needs its position first.
    home: Option<Home>,
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
        home: Option<Home>,
    },
    /// A position of the primary that was asked for after now.
    Stamp,
    /// Only the primary will do.
    Primary,
}

impl Freshness {
    /// The primary has served something that may have shown or made new rows; `question`: the next
    /// one for its position.
    pub fn used_primary(&mut self, question: Option<Question>) {
        self.dirty = true;
        self.question = question;
        self.home = None;
    }

    /// A replica has served a read.
    pub fn used_replica(&mut self, home: Home) {
        self.home = Some(home);
    }

    /// The question whose answer, or that of any later one, says how far this session has seen.
    #[must_use]
    pub fn question(&self) -> Option<Question> {
        self.question.filter(|_| self.dirty)
    }

    /// No read may be served by a replica that has not replayed this, as far as it is known.
    #[must_use]
    pub fn floor(&self) -> Lsn {
        self.floor
    }

    /// Whether a replica that is known to have replayed `has` may go on serving a transaction.
    #[must_use]
    pub fn is_met_by(&self, has: Lsn) -> bool {
        !self.dirty && !self.foreign && self.floor <= has
    }

    /// A position of the primary that was asked for after its last use by this session.
    pub fn stamped(&mut self, epoch: u64, lsn: Lsn) {
        if epoch == self.epoch {
            // What a replica has shown lies before the position, and that replica goes on serving.
            if self.home.is_none() {
                self.floor = self.floor.max(lsn);
            }
        } else {
            (self.epoch, self.floor, self.home) = (epoch, lsn, None);
        }
        (self.dirty, self.question) = (false, None);
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
                (self.epoch, self.floor) = (epoch, Lsn(0));
                self.used_primary(None);
            } else if (self.home.is_some() || self.dirty) && token.lsn > self.floor {
                // Neither the replica that serves need have come so far, nor what was asked since the
                // primary was used.
                self.used_primary(None);
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

    fn home(has: u64) -> Home {
        static BEGUN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        Home {
            server: 2,
            run: 77,
            last: *BEGUN,
            has: Lsn(has),
        }
    }

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
        let question = Question {
            server: 0,
            number: 4,
        };
        session.used_primary(Some(question));
        assert_eq!(session.need(1, Lsn(5)), Need::Stamp);
        assert_eq!(session.question(), Some(question));
        session.stamped(1, Lsn(9));
        assert_eq!(session.question(), None);
        session.used_replica(home(9));
        assert_eq!(session.need(1, Lsn(5)), floor(9, Some(home(9))));
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
        session.used_replica(home(100));
        let need = Need::Floor {
            floor: Lsn(40),
            home: None,
        };
        assert_eq!(session.need(2, Lsn(40)), need);
    }

    #[test]
    fn what_lies_behind_an_empty_header_is_the_end_before_it() {
        let check = |position: &str, end: &str| {
            let position: Lsn = position.parse().expect(position);
            let found = position.as_end(0x2000, 0x0100_0000).to_string();
            assert_eq!(found, end, "{position}");
        };
        check("0/8000028", "0/8000000");
        check("0/8000018", "0/8000018");
        check("0/8002018", "0/8002000");
        check("0/8002028", "0/8002028");
        check("3/8002000", "3/8002000");
        assert_eq!(Lsn(24).as_end(0, 0), Lsn(24), "nothing is known of sizes");
    }

    #[test]
    fn a_token_that_is_ahead_takes_a_session_from_its_replica() {
        let token = |lsn| Token {
            system: 1,
            timeline: 1,
            lsn: Lsn(lsn),
        };
        let mut session = Freshness::default();
        session.stamped(1, Lsn(5));
        session.used_replica(home(6));
        session.import(token(5), 1, 1, 1);
        assert!(session.is_met_by(Lsn(6)));
        assert!(matches!(
            session.need(1, Lsn(0)),
            Need::Floor { home: Some(_), .. }
        ));
        session.import(token(9), 1, 1, 1);
        assert_eq!(session.need(1, Lsn(0)), Need::Stamp);
        assert!(
            !session.is_met_by(Lsn(9)),
            "it is not known how far that is"
        );
        session.stamped(1, Lsn(7));
        assert!(!session.is_met_by(Lsn(8)) && session.is_met_by(Lsn(9)));
        // In a transaction that a replica serves, before the session has a home.
        let mut other = Freshness::default();
        other.stamped(1, Lsn(5));
        other.import(token(9), 1, 1, 1);
        assert!(!other.is_met_by(Lsn(8)));
        let foreign = Token {
            system: 2,
            ..token(1)
        };
        other.import(foreign, 1, 1, 1);
        assert!(!other.is_met_by(Lsn(9)));
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
