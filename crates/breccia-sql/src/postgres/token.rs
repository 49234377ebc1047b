//! Positions in the write-ahead log, and tokens that carry one elsewhere.
//!
//! Not what a session may not read behind ([`crate::freshness`]). Invariant: positions are compared
//! only within one epoch, which is one primary on one timeline; a token of another one proves nothing.

use std::fmt;
use std::str::FromStr;

use crate::freshness::{self, Position};

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

/// What one session has seen and written.
pub type Freshness = freshness::Freshness<Lsn>;
/// The replica that served a session last.
pub type Home = freshness::Home<Lsn>;
/// What must be known before a read may go to a replica.
pub type Need = freshness::Need<Lsn>;

impl Position for Lsn {
    fn covers(&self, other: &Self) -> bool {
        *self >= *other
    }

    fn raise(&mut self, other: &Self) {
        *self = (*self).max(*other);
    }
}

impl Freshness {
    /// A token of a session elsewhere; `system` and `timeline` are those in force.
    pub fn import_token(&mut self, token: Token, epoch: u64, system: u64, timeline: u32) {
        let known = token.system == system && token.timeline == timeline;
        self.import(&token.lsn, epoch, known);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::freshness::Question;

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
        session.follow(1, &Lsn(5));
        let floor = |floor, home| Need::Floor {
            floor: Lsn(floor),
            home,
        };
        assert_eq!(session.need(1, &Lsn(5)), floor(5, None));
        let question = Question {
            server: 0,
            number: 4,
        };
        session.used_primary(Some(question));
        assert_eq!(session.need(1, &Lsn(5)), Need::Stamp);
        assert_eq!(session.question(), Some(question));
        session.stamped(1, &Lsn(9));
        assert_eq!(session.question(), None);
        session.used_replica(home(9));
        assert_eq!(session.need(1, &Lsn(5)), floor(9, Some(home(9))));
        session.left_home(&Lsn(12));
        assert_eq!(session.need(1, &Lsn(5)), floor(12, None));
        session.stamped(1, &Lsn(3));
        assert_eq!(
            session.need(1, &Lsn(5)),
            floor(12, None),
            "a floor never sinks"
        );
    }

    #[test]
    fn another_epoch_begins_where_its_primary_was_first_seen() {
        let mut session = Freshness::default();
        session.stamped(1, &Lsn(100));
        let need = Need::Floor {
            floor: Lsn(40),
            home: None,
        };
        assert_eq!(session.need(2, &Lsn(40)), need);
        // A replica may have gone on behind the new primary before that was known here.
        session.used_replica(home(100));
        assert_eq!(session.need(2, &Lsn(40)), Need::Stamp);
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
        session.stamped(1, &Lsn(5));
        session.used_replica(home(6));
        session.import_token(token(5), 1, 1, 1);
        assert!(session.is_met_by(&Lsn(6)));
        assert!(matches!(
            session.need(1, &Lsn(0)),
            Need::Floor { home: Some(_), .. }
        ));
        session.import_token(token(9), 1, 1, 1);
        assert_eq!(session.need(1, &Lsn(0)), Need::Stamp);
        assert!(
            !session.is_met_by(&Lsn(9)),
            "it is not known how far that is"
        );
        session.stamped(1, &Lsn(7));
        assert!(!session.is_met_by(&Lsn(8)) && session.is_met_by(&Lsn(9)));
        // In a transaction that a replica serves, before the session has a home.
        let mut other = Freshness::default();
        other.stamped(1, &Lsn(5));
        other.import_token(token(9), 1, 1, 1);
        assert!(!other.is_met_by(&Lsn(8)));
        let foreign = Token {
            system: 2,
            ..token(1)
        };
        other.import_token(foreign, 1, 1, 1);
        assert!(!other.is_met_by(&Lsn(9)));
    }

    #[test]
    fn a_foreign_token_reads_the_primary() {
        let mut session = Freshness::default();
        let token = Token {
            system: 1,
            timeline: 1,
            lsn: Lsn(7),
        };
        session.import_token(token, 1, 1, 1);
        assert_ne!(session.need(1, &Lsn(0)), Need::Primary);
        session.import_token(Token { system: 2, ..token }, 1, 1, 1);
        assert_eq!(session.need(1, &Lsn(0)), Need::Primary);
    }
}
