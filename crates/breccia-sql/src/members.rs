//! The servers of a cluster, whichever protocol they speak: which of them is chosen, why one is not used,
//! and what an operator is told of their changes.
//!
//! Not which of them is the primary: that is for the elections. Invariant: each reason that somebody can
//! do something about says what.

use breccia_core::hash::splitmix64;
use breccia_net::clock;
use breccia_net::health::EndpointHealth;

use crate::choice::{self, Candidate};
use crate::freshness::Position;
use crate::pause::{Gate, Gates};
use crate::sampler::{Replayed, Sampler};

/// A server of a cluster.
pub(crate) trait Member {
    /// How far it has come.
    type Position: Position;

    /// The store's name.
    fn name(&self) -> &str;

    /// Whether it can be reached.
    fn health(&self) -> &EndpointHealth;

    /// What holds back statements there.
    fn gate(&self) -> &Gate;

    /// Whether an administrator took it out of the choice.
    fn is_drained(&self) -> bool;

    /// Its share of reads.
    fn weight(&self) -> u32;

    /// Its positions, as they are asked for.
    fn sampler(&self) -> &Sampler<Self::Position>;

    /// What it said of itself when it was last asked what it is, if it is a replica and still answers.
    fn reported(&self) -> Option<Replayed<Self::Position>>;

    /// What it has replayed for certain, by the latest sample or report.
    fn replayed(&self) -> Option<Replayed<Self::Position>> {
        let sampled = self.sampler().latest().replayed();
        let both = sampled.into_iter().chain(self.reported());
        both.max_by_key(|it| it.asked)
    }

    /// Whether a read may go there, if it is a replica.
    fn is_usable(&self) -> bool {
        self.health().is_up() && !self.is_drained() && !self.gate().is_paused()
    }
}

/// What a view says of the servers that are no primary.
#[derive(Clone, Copy)]
pub(crate) struct Others<'a> {
    /// Those that may serve.
    pub(crate) replicas: &'a [usize],
    /// Those that are not used, and why.
    pub(crate) set_aside: &'a [(usize, String)],
}

/// All servers of a cluster.
#[derive(Clone, Copy)]
pub(crate) struct Members<'a, S> {
    /// The composite's name.
    pub(crate) store: &'a str,
    /// By their numbers.
    pub(crate) servers: &'a [S],
    /// What administrators hold back.
    pub(crate) gates: &'a Gates,
}

impl<S: Member> Members<'_, S> {
    /// Whether a replica may serve.
    pub(crate) fn may_serve(&self, others: Others<'_>, server: usize) -> bool {
        others.replicas.contains(&server)
            && self.servers.get(server).is_some_and(Member::is_usable)
            && !self.gates.is_paused()
    }

    /// A replica that may serve, of two drawn at random the one with less to do for its weight.
    pub(crate) fn choose(&self, others: Others<'_>, fits: impl Fn(usize) -> bool) -> Option<usize> {
        if self.gates.is_paused() {
            return None;
        }
        let candidate = |server: usize| {
            let it = self.servers.get(server).filter(|it| it.is_usable())?;
            Some(Candidate {
                server,
                weight: it.weight(),
                running: it.gate().running(),
            })
        };
        let fitting = others.replicas.iter().copied().filter(|it| fits(*it));
        choice::choose(fitting.filter_map(candidate), splitmix64(clock::seed()))
    }

    /// Why a server cannot be used, if that has nothing to do with what it says of its data. `trouble`:
    /// it cannot be asked.
    pub(crate) fn held(
        &self,
        others: Others<'_>,
        number: usize,
        trouble: Option<String>,
    ) -> Option<String> {
        let server = self.servers.get(number)?;
        if let Some(reason) = server.health().down() {
            return Some(format!("it is down: {}", reason.text));
        }
        if trouble.is_some() {
            return trouble;
        }
        let mut set_aside = others.set_aside.iter();
        if let Some((_, why)) = set_aside.find(|(it, _)| *it == number) {
            return Some(why.clone());
        }
        let paused = if self.gates.is_paused() {
            self.store
        } else if self.gates.holds_back(number) {
            server.name()
        } else {
            return None;
        };
        Some(format!("{paused} is paused: POST /stores/{paused}/resume"))
    }

    /// Why a replica is not used, if an administrator has drained it.
    pub(crate) fn drained(&self, number: usize) -> Option<String> {
        let server = self.servers.get(number).filter(|it| it.is_drained())?;
        Some(format!(
            "it is drained: POST /stores/{}/resume",
            server.name()
        ))
    }

    /// Tells the log which servers are set aside, and which serve, that were not before.
    pub(crate) fn tell(&self, old: Others<'_>, new: Others<'_>) {
        let name = |server: usize| self.servers.get(server).map_or("?", Member::name);
        let store = self.store;
        for (server, why) in new.set_aside {
            if !old.set_aside.iter().any(|(it, _)| it == server) {
                tracing::warn!(store, server = name(*server), why, "a server is set aside");
            }
        }
        for server in new.replicas {
            if !old.replicas.contains(server) {
                tracing::info!(store, replica = name(*server), "a replica serves reads");
            }
        }
    }
}
