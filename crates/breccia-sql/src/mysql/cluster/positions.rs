//! How far the servers of a cluster have come.
//!
//! Not the asking ([`crate::mysql::monitor`]). Invariant: a position counts only for the run of the
//! server that told it; one that was started again may be further back.

use std::time::{Duration, Instant};

use breccia_net::clock;

use super::{Cluster, Replayed, Server, lock};
use crate::freshness::{Position as _, Question};
use crate::members::Member;
use crate::mysql::gtid::Gtids;
use crate::placing::reached;

impl Server {
    /// What a replica has applied for certain, by the latest sample or report.
    #[must_use]
    pub fn replayed(&self) -> Option<Replayed> {
        Member::replayed(self)
    }
}

impl Cluster {
    /// The question that would tell how far a server has come by now, if it were asked.
    #[must_use]
    pub fn question(&self, server: usize) -> Option<Question> {
        let number = self.server(server)?.sampler.ticket().0;
        Some(Question { server, number })
    }

    /// How far a replica is behind, at least.
    #[must_use]
    pub fn lag(&self, server: usize) -> Option<Duration> {
        let position = self.server(server)?.answer()?.report.position;
        lock(&self.election).lag(clock::now(), &position)
    }

    /// Where the primary was last seen; [`Gtids::Beyond`]: nowhere yet.
    #[must_use]
    pub fn position(&self) -> Gtids {
        let reported = lock(&self.election).position();
        let Ok(primary) = self.view().primary else {
            return reported;
        };
        let sample = self.server(primary).map(|it| it.sampler.latest());
        match sample.filter(|it| it.at.is_some() && !it.replica) {
            Some(sample) if sample.position.covers(&reported) => sample.position,
            _ => reported,
        }
    }

    /// Whether a token may be of this cluster: all its domains, or servers, are known here.
    ///
    /// Neither of the two servers has a name for a cluster. Two clusters of MariaDB that both use only
    /// domain 0 cannot be told apart; a token of the wrong one sends reads to the primary, or says
    /// nothing, and never makes a read older than without it.
    #[must_use]
    pub fn is_of_here(&self, token: &Gtids) -> bool {
        token.is_among(&self.position())
    }

    /// Whether one identifier, which came with a commit, tells of all that its session has seen: see
    /// [`Gtids::is_whole_of`].
    ///
    /// By what was last heard of the primary: where a second domain is used for the first time, this
    /// is wrong until it is asked the next time.
    #[must_use]
    pub fn is_whole(&self, committed: &Gtids) -> bool {
        committed.is_whole_of(&self.position())
    }

    /// The primary had to answer a read: positions are asked for without anybody waiting, so that the
    /// next one finds them known.
    pub fn note_missed(&self) {
        self.missed.notify_one();
    }

    /// What a replica has applied, once that is `floor` at least: known already, or told by `end`. It
    /// says nothing of a connection to another run of it.
    pub async fn wait_for(&self, server: usize, floor: &Gtids, end: Instant) -> Option<Replayed> {
        let known = self.server(server)?.replayed();
        if let Some(known) = known.filter(|it| it.position.covers(floor)) {
            return Some(known);
        }
        reached(self, server, floor, end).await?.replayed()
    }
}
