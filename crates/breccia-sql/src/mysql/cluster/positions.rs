//! How far the servers of a cluster have come.
//!
//! Not the asking ([`crate::mysql::monitor`]). Invariant: a position counts only for the run of the
//! server that told it; one that was started again may be further back.

use std::time::{Duration, Instant};

use breccia_net::clock;

use super::{Cluster, Sample, Server, lock};
use crate::freshness::{Position as _, Question};
use crate::mysql::gtid::Gtids;

/// The pause between two looks at a replica that is not there yet.
const LOOK_PAUSE: Duration = Duration::from_micros(500);

/// What a replica has applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// Up to where.
    pub position: Gtids,
    /// When it was asked.
    pub asked: Instant,
    /// Which run of it: the second it was started in.
    pub run: u64,
}

impl Server {
    /// What a replica has applied for certain, by the latest sample or report.
    ///
    /// It holds for as long as the server runs: one that crashed may start again further back. A
    /// connection to it that was open when it was asked, and still is, shows that it runs.
    #[must_use]
    pub fn replayed(&self) -> Option<Replayed> {
        let sample = self.sampler.latest();
        let sampled = sample.at.filter(|_| sample.replica).map(|asked| Replayed {
            position: sample.position,
            asked,
            run: sample.run,
        });
        let reported = self.answer().filter(|answer| answer.report.is_replica());
        let reported = reported.map(|answer| Replayed {
            position: answer.report.position,
            asked: answer.at,
            run: answer.run,
        });
        let both = sampled.into_iter().chain(reported);
        both.max_by_key(|it| it.asked)
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

    /// What a replica says once it has applied `floor`, if it does by `end`; asked from now on.
    pub async fn reached(&self, server: usize, floor: &Gtids, end: Instant) -> Option<Sample> {
        let sampler = &self.server(server)?.sampler;
        loop {
            let sample = sampler.from_now(end).await?;
            if sample.replica && sample.position.covers(floor) {
                return Some(sample);
            }
            if clock::now() + LOOK_PAUSE >= end {
                return None;
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// What a replica has applied, once that is `floor` at least: known already, or told by `end`. It
    /// says nothing of a connection to another run of it.
    pub async fn wait_for(&self, server: usize, floor: &Gtids, end: Instant) -> Option<Replayed> {
        let known = self.server(server)?.replayed();
        if let Some(known) = known.filter(|it| it.position.covers(floor)) {
            return Some(known);
        }
        let sample = self.reached(server, floor, end).await?;
        Some(Replayed {
            position: sample.position,
            asked: sample.at?,
            run: sample.run,
        })
    }
}
