//! Which server is the primary: decided from what the servers say of themselves.
//!
//! Pure. Invariant: writes go to one server at most, and never by themselves to one that another took
//! the place of, until it has been that one's replica.

use std::time::{Duration, Instant};

use super::history::History;
pub use super::report::{Answer, Heard, Report};
use crate::freshness::Position as _;
use crate::members::Others;
use crate::mysql::gtid::Gtids;
use crate::placing::Sight;

mod sources;

/// What holds for every session until the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Grows with every change of the primary, and when its log began anew.
    pub epoch: u64,
    /// Where the primary stood when it was first seen in this epoch.
    pub first: Gtids,
    /// The primary; `Err`: why there is none, and what to do.
    pub primary: Result<usize, String>,
    /// The replicas that may serve, by number.
    pub replicas: Vec<usize>,
    /// What is odd about servers that are not used, by number.
    pub set_aside: Vec<(usize, String)>,
    /// `read_only` is ON at the primary.
    pub shut: bool,
}

impl Sight for View {
    type Position = Gtids;

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn first(&self) -> &Gtids {
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
            first: Gtids::default(),
            primary: Err("no server has answered yet".to_owned()),
            replicas: Vec::new(),
            set_aside: Vec::new(),
            shut: false,
        }
    }
}

/// The server that is followed, as it was last seen.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Followed {
    server: usize,
    server_id: u32,
    position: Gtids,
}

/// Follows a cluster from report to report.
#[derive(Debug)]
pub struct Election {
    names: Vec<String>,
    max_lag: Duration,
    /// The server an administrator named as the primary.
    named: Option<usize>,
    /// By server: another one took its place, and it was no replica since.
    replaced: Vec<bool>,
    followed: Option<Followed>,
    history: History,
    view: View,
}

impl Election {
    /// Nothing is known yet of the servers called `names`.
    #[must_use]
    pub fn new(names: Vec<String>, max_lag: Duration) -> Self {
        Self {
            replaced: vec![false; names.len()],
            names,
            max_lag,
            named: None,
            followed: None,
            history: History::new(max_lag),
            view: View::default(),
        }
    }

    /// An administrator names the primary; all others that claim to be it are taken for replaced ones.
    /// `None`: takes back the name, and what is held against servers that came back.
    pub fn name(&mut self, server: Option<usize>) {
        self.named = server;
        match server.and_then(|it| self.replaced.get_mut(it)) {
            Some(replaced) => *replaced = false,
            None => self.replaced.fill(false),
        }
    }

    /// How far a position lies behind the primary in time, at least; none before there is a primary.
    #[must_use]
    pub fn lag(&self, now: Instant, position: &Gtids) -> Option<Duration> {
        self.followed.as_ref()?;
        let lag = self.history.lag(now, position);
        Some(lag.unwrap_or_else(|| self.history.remembered(now)))
    }

    /// Where the primary was last seen.
    #[must_use]
    pub fn position(&self) -> Gtids {
        let followed = self.followed.as_ref();
        followed.map_or(Gtids::Beyond, |it| it.position.clone())
    }

    /// Weighs what was last heard of each server.
    pub fn step(&mut self, now: Instant, heard: &[Heard]) -> View {
        self.view.set_aside.clear();
        for (server, report) in reports(heard) {
            if report.is_replica()
                && let Some(replaced) = self.replaced.get_mut(server)
            {
                *replaced = false;
            }
        }
        let claimants = self.claimants(heard);
        self.choose(&claimants, heard);
        self.view.shut &= self.view.primary.is_ok();
        if let Ok(primary) = self.view.primary
            && let Some(Heard::Said(answer)) = heard.get(primary)
        {
            self.view.shut = answer.report.read_only;
            self.note_position(answer);
        }
        self.view.replicas = self.replicas(now, heard);
        self.view.clone()
    }

    fn name_of(&self, server: usize) -> &str {
        self.names.get(server).map_or("?", String::as_str)
    }

    fn names_of(&self, claimants: &[(usize, &Report)]) -> String {
        let names: Vec<&str> = claimants.iter().map(|(it, _)| self.name_of(*it)).collect();
        names.join(" and ")
    }

    fn set_aside(&mut self, server: usize, why: impl Into<String>) {
        self.view.set_aside.push((server, why.into()));
    }

    /// Whether the server of this number is the one that is followed.
    fn follows(&self, server: usize) -> bool {
        self.followed.as_ref().is_some_and(|it| it.server == server)
    }

    /// Servers that follow nobody and may be the primary.
    fn claimants<'a>(&mut self, heard: &'a [Heard]) -> Vec<(usize, &'a Report)> {
        let mut claimants: Vec<(usize, &Report)> = Vec::new();
        let mut shut = Vec::new();
        for (server, report) in reports(heard).filter(|(_, report)| !report.is_replica()) {
            if let Some(other) = twin_of(heard, server, report) {
                let why = format!("it is the same server as {}", self.name_of(other));
                self.set_aside(server, why);
            } else if report.galera.as_ref().is_some_and(|it| !it.ready) {
                let why = "wsrep_ready is OFF: it has lost its Galera cluster, or is joining it";
                self.set_aside(server, why);
            } else if self.is_replaced(server) {
                self.set_aside_replaced(server);
            } else if self.is_stranger(server, report) {
                let why = "it replicates from nobody and lacks GTID domains or servers that the \
                           primary's log has: it belongs to another cluster, or is empty";
                self.set_aside(server, why);
            } else if report.read_only && self.named != Some(server) {
                shut.push((server, report));
            } else {
                claimants.push((server, report));
            }
        }
        self.keep_shut(&mut claimants, shut);
        self.one_of_galera(claimants)
    }

    fn is_replaced(&self, server: usize) -> bool {
        self.replaced.get(server) == Some(&true)
    }

    /// Whether a server other than the one that is followed has another history.
    fn is_stranger(&self, server: usize, report: &Report) -> bool {
        let named = self.named == Some(server);
        let followed = self
            .followed
            .as_ref()
            .filter(|it| it.server != server && !named);
        followed.is_some_and(|it| {
            // Of one that tells no position nothing can be said.
            it.position != Gtids::Beyond && !it.position.is_among(&report.position)
        })
    }

    /// Of servers that follow nobody and take no writes, the one that is followed stays the primary
    /// while no other is: its own errors say why. The rest are of no use.
    fn keep_shut<'a>(
        &mut self,
        claimants: &mut Vec<(usize, &'a Report)>,
        shut: Vec<(usize, &'a Report)>,
    ) {
        let nobody = claimants.is_empty();
        let only = shut.len() == 1 && self.followed.is_none();
        for (server, report) in shut {
            if nobody && (only || self.follows(server)) {
                claimants.push((server, report));
            } else {
                let why = "it replicates from nobody, and read_only is ON: let it replicate from \
                           the primary, or let it take writes";
                self.set_aside(server, why);
            }
        }
    }

    /// Members of one Galera cluster do not rival each other: the one that is followed goes on, or the
    /// first of them begins.
    fn one_of_galera<'a>(
        &mut self,
        claimants: Vec<(usize, &'a Report)>,
    ) -> Vec<(usize, &'a Report)> {
        let mut kept: Vec<(usize, &Report)> = Vec::new();
        let mut others = Vec::new();
        for (server, report) in claimants {
            let same = |(_, it): &&mut (usize, &Report)| {
                let cluster = |report: &Report| report.galera.as_ref().map(|it| it.cluster.clone());
                cluster(it).is_some() && cluster(it) == cluster(report)
            };
            match kept.iter_mut().find(same) {
                None => kept.push((server, report)),
                Some(first) if self.follows(server) || self.named == Some(server) => {
                    others.push(first.0);
                    *first = (server, report);
                }
                Some(_) => others.push(server),
            }
        }
        for server in others {
            let why = "another member of its Galera cluster is the primary; this one takes its place \
                       when that is gone, and serves no reads until then";
            self.set_aside(server, why);
        }
        kept
    }

    fn choose(&mut self, claimants: &[(usize, &Report)], heard: &[Heard]) {
        if let Some(named) = self.named {
            self.follow_named(named, claimants, heard);
            return;
        }
        if self.followed.is_none() && !heard.iter().all(Heard::is_asked) {
            // The one that is still to answer may be the one to follow, or a rival.
            return;
        }
        match claimants {
            [] => self.choose_nobody(heard),
            [(server, report)] => self.follow(*server, report, heard),
            several => {
                self.view.primary = Err(format!(
                    "{} all claim to be the primary, so writes are refused: stop all but one, make \
                     them replicas, or name one with POST /stores/NAME/primary",
                    self.names_of(several)
                ));
            }
        }
    }

    fn follow_named(&mut self, named: usize, claimants: &[(usize, &Report)], heard: &[Heard]) {
        match claimants.iter().find(|(server, _)| *server == named) {
            Some((_, report)) => {
                self.follow(named, report, heard);
                for (server, _) in claimants.iter().filter(|(server, _)| *server != named) {
                    self.replace(*server, heard);
                }
                // From now on the others are known for what they are, and the name must fence nobody
                // who takes this one's place.
                self.named = None;
            }
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
        let is_replica = |it: &Heard| it.answer().is_some_and(|it| it.report.is_replica());
        let known = match &self.followed {
            Some(followed) => heard.get(followed.server).is_some_and(is_replica),
            None => heard.iter().any(is_replica),
        };
        if known {
            self.view.primary = Err("every server that answers is a replica".to_owned());
        }
    }

    fn follow(&mut self, server: usize, report: &Report, heard: &[Heard]) {
        let known = self.followed.as_ref().filter(|it| it.server == server);
        // A log that began anew, or lost its end in a crash, is another one.
        let goes_on = known.is_some_and(|it| {
            report.position == it.position || report.position.covers(&it.position)
        });
        let before = self.followed.take().map(|it| it.server);
        if !goes_on {
            // A primary that was lost and is back as it was begins no epoch.
            self.view.epoch += 1;
            self.view.first = report.position.clone();
            self.history.clear();
        }
        self.followed = Some(Followed {
            server,
            server_id: report.server_id,
            position: report.position.clone(),
        });
        self.view.primary = Ok(server);
        let before = before.filter(|it| *it != server && report.galera.is_none());
        if let Some(before) = before {
            self.replace(before, heard);
        }
    }

    /// Another server took the place of this one, which is not to come back by itself.
    fn replace(&mut self, server: usize, heard: &[Heard]) {
        let report = heard.get(server).and_then(Heard::report);
        if report.is_some_and(Report::is_replica) {
            return;
        }
        if let Some(replaced) = self.replaced.get_mut(server) {
            *replaced = true;
        }
        let known = self.view.set_aside.iter().any(|(it, _)| *it == server);
        if report.is_some() && !known {
            self.set_aside_replaced(server);
        }
    }

    fn set_aside_replaced(&mut self, server: usize) {
        let now = self.followed.as_ref().map(|it| self.name_of(it.server));
        let why = format!(
            "{} has taken its place, and it replicates from nobody: make it a replica of that \
             (CHANGE MASTER TO), or name it with POST /stores/NAME/primary",
            now.unwrap_or("another server")
        );
        self.set_aside(server, why);
    }

    fn note_position(&mut self, answer: &Answer) {
        self.history.note(answer.at, &answer.report.position);
    }

    fn replicas(&mut self, now: Instant, heard: &[Heard]) -> Vec<usize> {
        let mut replicas = Vec::new();
        for (server, it) in heard.iter().enumerate() {
            let report = it.answer().map(|answer| &answer.report);
            let Some(report) = report.filter(|report| report.is_replica()) else {
                continue;
            };
            if self.followed.is_none() {
                // The primary has not been seen yet.
                continue;
            }
            match self.serves(now, server, report, heard) {
                Ok(true) => replicas.push(server),
                Ok(false) => {}
                Err(why) => self.set_aside(server, why),
            }
        }
        replicas
    }

    /// Whether a replica may serve; `Err`: why it is set aside.
    fn serves(
        &self,
        now: Instant,
        server: usize,
        report: &Report,
        heard: &[Heard],
    ) -> Result<bool, String> {
        if let Some(other) = twin_of(heard, server, report) {
            return Err(format!("it is the same server as {}", self.name_of(other)));
        }
        self.check_sources(report, heard)?;
        if let Some(source) = report.sources.iter().find(|it| !it.by_gtids) {
            return Err(format!(
                "it replicates from {} without GTIDs (Using_Gtid = No), so nobody knows what a read \
                 there can have seen: STOP SLAVE, CHANGE MASTER TO MASTER_USE_GTID = slave_pos, and \
                 START SLAVE there",
                source.address
            ));
        }
        if self.position() == Gtids::Beyond {
            return Err(
                "the primary does not tell its position, so nobody knows how far behind it is: \
                 the primary needs log_bin, and of MySQL gtid_mode = ON"
                    .to_owned(),
            );
        }
        let lag = self.history.lag(now, &report.position);
        // What was never seen of the primary is of unknown age, and serves nobody.
        if lag.unwrap_or_else(|| self.history.remembered(now)) > self.max_lag {
            let late = format!("it is more than max-lag ({:?}) behind", self.max_lag);
            let trouble = report.sources.iter().map(|it| it.trouble.as_str());
            let trouble: Vec<&str> = trouble.filter(|text| !text.is_empty()).collect();
            return Err(if trouble.is_empty() {
                late
            } else {
                format!("{late}: {}", trouble.join("; "))
            });
        }
        Ok(lag.is_some())
    }
}

/// What the servers say that were heard lately.
fn reports(heard: &[Heard]) -> impl Iterator<Item = (usize, &Report)> + '_ {
    let all = heard.iter().enumerate();
    all.filter_map(|(server, heard)| Some((server, heard.report()?)))
}

/// A server before this one that is the same.
fn twin_of(heard: &[Heard], server: usize, report: &Report) -> Option<usize> {
    let same = |it: &Report| {
        !it.identity.is_empty()
            && it.identity == report.identity
            && it.server_id == report.server_id
    };
    let mut before = reports(heard).filter(|(it, _)| *it < server);
    before.find(|(_, it)| same(it)).map(|(it, _)| it)
}

#[cfg(test)]
mod tests;
