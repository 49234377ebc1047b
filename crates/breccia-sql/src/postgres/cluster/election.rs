//! Which server is the primary: decided from what the servers say of themselves.
//!
//! Pure. Invariant: writes go to one server at most, and never to one on a timeline older than one
//! that was followed before.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub use super::report::{Answer, Heard, Report};
use crate::members::Others;
use crate::placing::Sight;
use crate::postgres::token::Lsn;

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

impl Sight for View {
    type Position = Lsn;

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn first(&self) -> &Lsn {
        &self.first
    }

    fn primary(&self) -> Option<usize> {
        self.primary.as_ref().ok().copied()
    }

    fn others(&self) -> Others<'_> {
        Others {
            replicas: &self.replicas,
            set_aside: &self.set_aside,
        }
    }
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

/// Positions of the primary kept to tell a replica's lag in time, over twice the longest allowed.
const HISTORY: usize = 600;

/// Follows a cluster from report to report.
#[derive(Debug)]
pub struct Election {
    names: Vec<String>,
    max_lag: Duration,
    /// The server an administrator named as the primary among several.
    named: Option<usize>,
    /// By server: why there is need of a name. It would be the primary, or knows a newer one.
    rivals: Vec<bool>,
    /// When the primary was first seen at or behind a position.
    history: VecDeque<(Instant, Lsn)>,
    /// The primary's last answer that was looked at, and its position.
    newest: Option<(Instant, Lsn)>,
    view: View,
}

impl Election {
    /// Nothing is known yet of the servers called `names`.
    #[must_use]
    pub fn new(names: Vec<String>, max_lag: Duration) -> Self {
        Self {
            rivals: vec![false; names.len()],
            names,
            max_lag,
            named: None,
            history: VecDeque::new(),
            newest: None,
            view: View::default(),
        }
    }

    /// An administrator names the primary, until no other server could be taken for it.
    pub fn name(&mut self, server: Option<usize>) {
        self.named = server;
        self.rivals.fill(false);
    }

    /// How long ago the primary was where `position` is; zero for one that is not behind, and none
    /// for one that is further behind than this remembers.
    #[must_use]
    pub fn lag(&self, now: Instant, position: Lsn) -> Option<Duration> {
        let (_, oldest) = self.history.front()?;
        if position < *oldest {
            return None;
        }
        let passed = self.history.iter().find(|(_, lsn)| *lsn > position);
        Some(passed.map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(*at)))
    }

    /// How far back this remembers: the least lag of a position of which [`Election::lag`] tells none.
    #[must_use]
    pub fn remembered(&self, now: Instant) -> Duration {
        let oldest = self.history.front();
        oldest.map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(*at))
    }

    /// How many bytes `position` lies behind the primary's last known one.
    #[must_use]
    pub fn lag_bytes(&self, position: Lsn) -> u64 {
        let newest = self.newest.map_or(0, |(_, lsn)| lsn.0);
        newest.saturating_sub(position.0)
    }

    /// Weighs what was last heard of each server.
    pub fn step(&mut self, now: Instant, heard: &[Heard]) -> View {
        self.view.set_aside.clear();
        let claimants = self.claimants(heard);
        self.note_rivals(heard);
        self.choose(claimants, heard);
        let named = self.named.filter(|it| self.view.primary == Ok(*it));
        if named.is_some() && !self.rivals.contains(&true) {
            // There is no need of a name any more, and it must fence nobody who comes later.
            self.named = None;
        }
        if let Ok(primary) = self.view.primary
            && let Some(Heard::Said(answer)) = heard.get(primary)
        {
            self.note_position(answer.at, answer.report.flushed);
        }
        self.view.replicas = self.replicas(now, heard);
        self.view.clone()
    }

    fn name_of(&self, server: usize) -> &str {
        self.names.get(server).map_or("?", String::as_str)
    }

    fn names_of(&self, claimants: &[(usize, Report)]) -> String {
        let names: Vec<&str> = claimants.iter().map(|(it, _)| self.name_of(*it)).collect();
        names.join(" and ")
    }

    /// Servers that follow nobody and may be the primary.
    fn claimants(&mut self, heard: &[Heard]) -> Vec<(usize, Report)> {
        let mut claimants = Vec::new();
        for (server, report) in reports(heard).filter(|(_, report)| !report.recovery) {
            let timeline = report.timeline.unwrap_or(0);
            if self.view.system != 0 && report.system != self.view.system {
                let why = "it belongs to another cluster (its system identifier differs)";
                self.view.set_aside.push((server, why.to_owned()));
            } else if timeline < self.view.timeline && self.named != Some(server) {
                self.set_aside_older(server, timeline, self.view.timeline);
            } else {
                claimants.push((server, report));
            }
        }
        claimants
    }

    fn set_aside_older(&mut self, server: usize, timeline: u32, newer: u32) {
        let why = format!(
            "it came back as a primary on the older timeline {timeline}; the cluster is on {newer}: \
             make it a replica again (pg_rewind, pg_basebackup)"
        );
        self.view.set_aside.push((server, why));
    }

    /// Who else would be followed if nobody were named. One that is gone stays what it was.
    fn note_rivals(&mut self, heard: &[Heard]) {
        let Some(named) = self.named else {
            return;
        };
        let own = heard.get(named).and_then(Heard::report);
        let (system, timeline) = own.map_or((self.view.system, self.view.timeline), |report| {
            (report.system, report.timeline.unwrap_or(0))
        });
        for (server, report) in reports(heard).filter(|(server, _)| *server != named) {
            let theirs = report.timeline.unwrap_or(0);
            let is_rival = theirs > timeline || (!report.recovery && theirs == timeline);
            if let Some(rival) = self.rivals.get_mut(server) {
                *rival = report.system == system && is_rival;
            }
        }
    }

    fn choose(&mut self, mut claimants: Vec<(usize, Report)>, heard: &[Heard]) {
        if let Some(named) = self.named {
            self.follow_named(named, &claimants, heard);
            return;
        }
        let starts = self.view.timeline == 0;
        if starts && !heard.iter().all(Heard::is_asked) {
            // The one that is still to answer may be the one to follow.
            return;
        }
        let newer = |report: &Report| newer_of(heard, report);
        if starts && claimants.iter().any(|(_, report)| newer(report).is_none()) {
            for (server, report) in &claimants {
                if let Some((_, timeline)) = newer(report) {
                    self.set_aside_older(*server, report.timeline.unwrap_or(0), timeline);
                }
            }
            claimants.retain(|(_, report)| newer(report).is_none());
        }
        match claimants.as_slice() {
            [] => self.choose_nobody(heard),
            [(server, report)] => match newer(report) {
                None => self.follow(*server, report),
                Some((other, timeline)) => {
                    let (server, other) = (self.name_of(*server), self.name_of(other));
                    self.view.primary = Err(format!(
                        "{server} claims to be the primary, and {other} is on the newer timeline \
                         {timeline}, so another server was promoted: start that one, or name \
                         {server} with POST /stores/NAME/primary"
                    ));
                }
            },
            several => {
                self.view.primary = Err(format!(
                    "{} all claim to be the primary, so writes are refused: stop all but one, or \
                     name it with POST /stores/NAME/primary",
                    self.names_of(several)
                ));
            }
        }
    }

    fn follow_named(&mut self, named: usize, claimants: &[(usize, Report)], heard: &[Heard]) {
        match claimants.iter().find(|(server, _)| *server == named) {
            Some((_, report)) => self.follow(named, report),
            None if claimants.is_empty() => self.choose_nobody(heard),
            None => {
                self.view.primary = Err(format!(
                    "{} was named the primary and is not there as one, and {} would be: start the \
                     first, or name another with POST /stores/NAME/primary",
                    self.name_of(named),
                    self.names_of(claimants)
                ));
            }
        }
    }

    /// Nobody claims. The one that is known may be back in a moment.
    fn choose_nobody(&mut self, heard: &[Heard]) {
        let follows = |it: &Heard| it.answer().is_some_and(|answer| answer.report.recovery);
        let known = match self.view.primary {
            Ok(primary) => heard.get(primary).is_some_and(follows),
            Err(_) => heard.iter().any(follows),
        };
        if known {
            self.view.primary = Err("every server that answers is a replica".to_owned());
        }
    }

    fn follow(&mut self, server: usize, report: &Report) {
        let timeline = report.timeline.unwrap_or(0);
        let same = self.view.primary == Ok(server) && self.view.timeline == timeline;
        if !same {
            // A primary that was lost and is back as it was begins no epoch.
            self.view.epoch += 1;
            self.view.first = report.position;
            self.history.clear();
            self.newest = None;
        }
        self.view.primary = Ok(server);
        self.view.timeline = timeline;
        self.view.system = report.system;
    }

    /// Keeps a position of the primary; one answer counts once, however often it is looked at.
    fn note_position(&mut self, asked: Instant, position: Lsn) {
        if self.newest.is_some_and(|(at, _)| asked <= at) {
            return;
        }
        self.newest = Some((asked, position));
        let spacing = self.max_lag / 300;
        let is_new = |(at, lsn): &(Instant, Lsn)| {
            position > *lsn && asked.saturating_duration_since(*at) >= spacing
        };
        if !self.history.back().is_none_or(is_new) {
            return;
        }
        if self.history.len() >= HISTORY {
            self.history.pop_front();
        }
        self.history.push_back((asked, position));
    }

    fn replicas(&mut self, now: Instant, heard: &[Heard]) -> Vec<usize> {
        let mut replicas = Vec::new();
        for (server, heard) in heard.iter().enumerate() {
            let report = heard.answer().map(|answer| answer.report);
            let Some(report) = report.filter(|report| report.recovery) else {
                continue;
            };
            if self.view.timeline == 0 {
                // The primary has not been seen yet.
                continue;
            }
            match self.serves(now, &report) {
                Ok(true) => replicas.push(server),
                Ok(false) => {}
                Err(why) => self.view.set_aside.push((server, why)),
            }
        }
        replicas
    }

    /// Whether a replica may serve; `Err`: why it is set aside.
    fn serves(&self, now: Instant, report: &Report) -> Result<bool, String> {
        if self.view.system != 0 && report.system != self.view.system {
            return Err("it belongs to another cluster (its system identifier differs)".to_owned());
        }
        if report.timeline != Some(self.view.timeline) {
            return Err(match report.timeline {
                None => {
                    "it does not tell its timeline: grant pg_monitor to the store's user".to_owned()
                }
                Some(timeline) => format!(
                    "it is on timeline {timeline} and the primary on {}",
                    self.view.timeline
                ),
            });
        }
        let lag = self.lag(now, report.position);
        // What was never seen of the primary is of unknown age, and serves nobody.
        let is_late = lag.unwrap_or_else(|| self.remembered(now)) > self.max_lag;
        if is_late {
            return Err(format!(
                "it is more than max-lag ({:?}) behind",
                self.max_lag
            ));
        }
        Ok(lag.is_some())
    }
}

/// What the servers say that were heard lately.
fn reports(heard: &[Heard]) -> impl Iterator<Item = (usize, Report)> + '_ {
    let all = heard.iter().enumerate();
    all.filter_map(|(server, heard)| Some((server, *heard.report()?)))
}

/// A replica of the same cluster that is on a newer timeline than `claimant`, and which.
fn newer_of(heard: &[Heard], claimant: &Report) -> Option<(usize, u32)> {
    let newer = reports(heard).filter(|(_, report)| {
        report.recovery
            && report.system == claimant.system
            && report.timeline.unwrap_or(0) > claimant.timeline.unwrap_or(0)
    });
    newer
        .map(|(server, report)| (server, report.timeline.unwrap_or(0)))
        .max_by_key(|(_, timeline)| *timeline)
}

#[cfg(test)]
mod tests;
