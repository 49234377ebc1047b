//! What a PostgreSQL server says of itself.
//!
//! Not what follows from that ([`super::election`]). Invariant: what a server could not tell is told
//! apart from what it told.

use crate::heard;
use crate::postgres::token::Lsn;

/// An answer, and whose it is.
pub type Answer = heard::Answer<Report>;
/// What a server was last heard to say.
pub type Heard = heard::Heard<Report>;

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
