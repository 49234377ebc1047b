//! Which server is the primary: decided from what the servers say of themselves.
//!
//! Pure. Invariant: writes go to one server at most, and never to one on a timeline older than one
//! that was followed before.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

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
}

/// What holds for every session until the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Grows with every change of the primary or its timeline.
    pub epoch: u64,
    /// Where the primary stood when it was first seen in this epoch.
    pub first: Lsn,
    /// The primary; `Err`: why there is none, and what to do.
    pub primary: Result<usize, String>,
    /// The timeline in force; 0 before any is known.
    pub timeline: u32,
    /// The cluster's identity; 0 before it is known.
    pub system: u64,
    /// The replicas that may serve, by number.
    pub replicas: Vec<usize>,
    /// What is odd about servers that are not used, by number.
    pub set_aside: Vec<(usize, String)>,
}

impl Default for View {
    fn default() -> Self {
        Self {
            epoch: 0,
            first: Lsn(0),
            primary: Err("no server has answered yet".to_owned()),
            timeline: 0,
            system: 0,
            replicas: Vec::new(),
            set_aside: Vec::new(),
        }
    }
}

/// Positions of the primary kept to tell a replica's lag in time.
const HISTORY: usize = 600;

/// Follows a cluster from report to report.
#[derive(Debug)]
pub struct Election {
    names: Vec<String>,
    max_lag: Duration,
    /// The server an administrator named as the primary among several.
    named: Option<usize>,
    history: VecDeque<(Instant, Lsn)>,
    view: View,
}

impl Election {
    /// Nothing is known yet of the servers called `names`.
    #[must_use]
    pub fn new(names: Vec<String>, max_lag: Duration) -> Self {
        Self {
            names,
            max_lag,
            named: None,
            history: VecDeque::new(),
            view: View::default(),
        }
    }

    /// An administrator names the primary, until it is gone.
    pub fn name(&mut self, server: Option<usize>) {
        self.named = server;
    }

    /// How long ago the primary was where `position` is; zero for one that is not behind.
    #[must_use]
    pub fn lag(&self, now: Instant, position: Lsn) -> Duration {
        let passed = self.history.iter().find(|(_, lsn)| *lsn > position);
        passed.map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(*at))
    }

    /// How many bytes `position` lies behind the primary's last known one.
    #[must_use]
    pub fn lag_bytes(&self, position: Lsn) -> u64 {
        let newest = self.history.back().map_or(0, |(_, lsn)| lsn.0);
        newest.saturating_sub(position.0)
    }

    /// Weighs the latest reports; a server that does not answer has none.
    pub fn step(&mut self, now: Instant, reports: &[Option<Report>]) -> View {
        self.view.set_aside.clear();
        let claimants = self.claimants(reports);
        self.choose(&claimants, reports);
        if let Ok(primary) = self.view.primary
            && let Some(Some(report)) = reports.get(primary)
        {
            self.note_position(now, report.position);
        }
        self.view.replicas = self.replicas(now, reports);
        self.view.clone()
    }

    fn name_of(&self, server: usize) -> &str {
        self.names.get(server).map_or("?", String::as_str)
    }

    /// Servers that follow nobody and may be the primary.
    fn claimants(&mut self, reports: &[Option<Report>]) -> Vec<(usize, Report)> {
        let mut claimants = Vec::new();
        for (server, report) in reports.iter().enumerate() {
            let Some(report) = report.filter(|report| !report.recovery) else {
                continue;
            };
            let timeline = report.timeline.unwrap_or(0);
            if self.view.system != 0 && report.system != self.view.system {
                let why = "it belongs to another cluster (its system identifier differs)";
                self.view.set_aside.push((server, why.to_owned()));
            } else if timeline < self.view.timeline && self.named != Some(server) {
                let why = format!(
                    "it came back as a primary on the older timeline {timeline}; the cluster is \
                     on {}: make it a replica again (pg_rewind, pg_basebackup)",
                    self.view.timeline
                );
                self.view.set_aside.push((server, why));
            } else {
                claimants.push((server, report));
            }
        }
        claimants
    }

    fn choose(&mut self, claimants: &[(usize, Report)], reports: &[Option<Report>]) {
        let chosen = self.named.and_then(|named| {
            let found = claimants.iter().find(|(server, _)| *server == named);
            found.copied()
        });
        match (claimants, chosen.as_ref()) {
            ([], _) => {
                // The one that is known may be back in a moment; nobody else claims.
                let all = reports.iter().flatten().count();
                if let Ok(primary) = self.view.primary
                    && reports
                        .get(primary)
                        .is_some_and(|it| it.is_some_and(|it| it.recovery))
                {
                    self.view.primary = Err("every server that answers is a replica".to_owned());
                } else if self.view.primary.is_err() && all == reports.len() {
                    self.view.primary = Err("every server that answers is a replica".to_owned());
                }
            }
            (_, Some((server, report))) | ([(server, report)], None) => {
                self.follow(*server, report);
            }
            (several, None) => {
                let names: Vec<&str> = several.iter().map(|(it, _)| self.name_of(*it)).collect();
                self.view.primary = Err(format!(
                    "{} all claim to be the primary, so writes are refused: stop all but one, or \
                     name it with POST /stores/NAME/primary",
                    names.join(" and ")
                ));
            }
        }
    }

    fn follow(&mut self, server: usize, report: &Report) {
        if self.named.is_some_and(|named| named != server) {
            // Another one was followed: the name is of the past, and must fence nobody any more.
            self.named = None;
        }
        let timeline = report.timeline.unwrap_or(0);
        let same = self.view.primary == Ok(server) && self.view.timeline == timeline;
        if !same {
            // A primary that was lost and is back as it was begins no epoch.
            self.view.epoch += 1;
            self.view.first = report.position;
            self.history.clear();
        }
        self.view.primary = Ok(server);
        self.view.timeline = timeline;
        self.view.system = report.system;
    }

    fn note_position(&mut self, now: Instant, position: Lsn) {
        if self.history.len() >= HISTORY {
            self.history.pop_front();
        }
        self.history.push_back((now, position));
    }

    fn replicas(&mut self, now: Instant, reports: &[Option<Report>]) -> Vec<usize> {
        let mut replicas = Vec::new();
        for (server, report) in reports.iter().enumerate() {
            let Some(report) = report.filter(|report| report.recovery) else {
                continue;
            };
            if self.view.timeline == 0 {
                // The primary has not been seen yet.
                continue;
            }
            let lag = self.lag(now, report.position);
            let why = if self.view.system != 0 && report.system != self.view.system {
                "it belongs to another cluster (its system identifier differs)".to_owned()
            } else if report.timeline != Some(self.view.timeline) {
                match report.timeline {
                    None => "it does not tell its timeline: grant pg_monitor to the store's user"
                        .to_owned(),
                    Some(timeline) => format!(
                        "it is on timeline {timeline} and the primary on {}",
                        self.view.timeline
                    ),
                }
            } else if lag > self.max_lag {
                format!("it is {lag:?} behind, more than max-lag")
            } else {
                replicas.push(server);
                continue;
            };
            self.view.set_aside.push((server, why));
        }
        replicas
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(recovery: bool, timeline: u32, at: u64) -> Report {
        Report {
            recovery,
            timeline: Some(timeline),
            system: 7,
            position: Lsn(at),
        }
    }

    fn primary(timeline: u32, at: u64) -> Option<Report> {
        Some(report(false, timeline, at)).filter(|_| at > 0)
    }

    fn replica(timeline: u32, at: u64) -> Option<Report> {
        Some(report(true, timeline, at)).filter(|_| at > 0)
    }

    fn election() -> Election {
        let names = ["a", "b", "c"].map(str::to_owned).to_vec();
        Election::new(names, Duration::from_secs(10))
    }

    #[test]
    fn the_one_that_follows_nobody_is_the_primary() {
        let mut election = election();
        let now = Instant::now();
        let view = election.step(now, &[replica(1, 5), primary(1, 9), None]);
        assert_eq!(
            (view.primary, view.replicas, view.epoch),
            (Ok(1), vec![0], 1)
        );
        let view = election.step(now, &[replica(1, 5), None, None]);
        assert_eq!(
            view.primary,
            Ok(1),
            "one that does not answer keeps its role"
        );
        let view = election.step(now, &[replica(1, 5), primary(1, 9), None]);
        assert_eq!(view.epoch, 1, "and begins nothing new when it is back");
    }

    #[test]
    fn a_promotion_is_followed_and_the_old_primary_fenced() {
        let mut election = election();
        let now = Instant::now();
        election.step(now, &[primary(1, 9), replica(1, 9), replica(1, 9)]);
        let view = election.step(now, &[None, primary(2, 8), replica(1, 9)]);
        assert_eq!((view.primary, view.epoch, view.first), (Ok(1), 2, Lsn(8)));
        assert!(
            view.replicas.is_empty(),
            "the other one is on the old timeline"
        );
        let view = election.step(now, &[primary(1, 9), primary(2, 12), replica(2, 12)]);
        assert_eq!((view.primary, view.replicas), (Ok(1), vec![2]));
        assert!(view.set_aside[0].1.contains("older timeline 1"));
    }

    #[test]
    fn two_live_claimants_are_refused_until_one_is_named_or_gone() {
        let mut election = election();
        let now = Instant::now();
        election.step(now, &[primary(1, 9), replica(1, 9), None]);
        let both = [primary(1, 9), primary(2, 9), None];
        let why = election.step(now, &both).primary.expect_err("refused");
        assert!(why.contains("a and b"), "{why}");
        election.name(Some(1));
        assert_eq!(election.step(now, &both).primary, Ok(1));
        election.name(None);
        assert_eq!(
            election.step(now, &both).primary,
            Ok(1),
            "the old one is fenced now"
        );
    }

    #[test]
    fn a_name_ends_when_another_server_is_followed() {
        let mut election = election();
        let now = Instant::now();
        election.name(Some(0));
        election.step(now, &[primary(1, 9), primary(1, 9), None]);
        election.step(now, &[None, primary(2, 12), None]);
        let view = election.step(now, &[primary(1, 9), primary(2, 12), None]);
        assert_eq!((view.primary, view.timeline), (Ok(1), 2));
    }

    #[test]
    fn lag_is_the_time_since_the_primary_was_there() {
        let mut election = election();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        election.step(at(0), &[primary(1, 10), None, None]);
        election.step(at(5), &[primary(1, 20), None, None]);
        let view = election.step(at(20), &[primary(1, 20), replica(1, 10), replica(1, 20)]);
        assert_eq!(view.replicas, vec![2]);
        assert_eq!(election.lag(at(20), Lsn(10)), Duration::from_secs(15));
        assert_eq!(election.lag_bytes(Lsn(10)), 10);
    }

    #[test]
    fn a_strange_cluster_serves_nobody() {
        let mut election = election();
        let now = Instant::now();
        let strange = replica(1, 9).map(|report| Report {
            system: 8,
            ..report
        });
        let view = election.step(now, &[primary(1, 9), strange, None]);
        assert!(view.replicas.is_empty());
        assert_eq!(view.set_aside.len(), 1);
    }
}
