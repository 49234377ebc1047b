//! Keeps what is known of a cluster current: asks its servers about each other.
//!
//! Not the probes of single servers. Invariant: however much speaks against the map, servers are
//! asked at most once in [`SPACING`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use breccia_core::address::Address;
use breccia_net::health::ProbeConfig;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::super::asker::Asker;
use super::super::codec::reply::text;
use super::described::{Described, merge, read};
use super::probing::Probes;
use super::trust::{Answer, sift};
use super::{Cluster, on};
use crate::endpoint::Place;

/// Servers that are asked at once, the most.
const MOST_ASKED: usize = 32;
/// The least time between two looks.
const SPACING: Duration = Duration::from_millis(50);
/// The first pause after a look that left something open; it doubles up to the interval.
const SHORT_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause while some server is down: its successor is to be seen soon.
const LONG_PAUSE: Duration = Duration::from_millis(250);
/// How long the rest is waited for once most have answered.
const GRACE: Duration = Duration::from_millis(50);

/// What is wrong where somebody else's server answers.
const FOREIGN: &str = "a server that is not of this cluster answers there";

/// Whom to ask, and how often.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// Who is asked first.
    pub seeds: Vec<Address>,
    /// The time between two looks while everything is as it should be.
    pub interval: Duration,
    /// How long an answer is waited for.
    pub patience: Duration,
}

/// Keeps a cluster current, for ever. `moved` is called when its contact is another server;
/// `looking` is dropped after the first look.
pub async fn watch(
    options: ClusterOptions,
    cluster: Arc<Cluster>,
    moved: impl Fn() + Send,
    looking: mpsc::Sender<()>,
) {
    let mut watch = Watch {
        options,
        cluster,
        kept: BTreeMap::new(),
        members: Vec::new(),
        alive: BTreeMap::new(),
        foreign: BTreeSet::new(),
        probes: Probes::default(),
        pause: SHORT_PAUSE,
        silent: false,
    };
    watch.cluster.seed(&watch.options.seeds);
    let mut looking = Some(looking);
    loop {
        if watch.look().await {
            moved();
        }
        drop(looking.take());
        tokio::time::sleep(SPACING).await;
        tokio::select! {
            () = watch.cluster.contact().doubted() => watch.pause = SHORT_PAUSE,
            () = tokio::time::sleep(watch.pause) => {}
        }
    }
}

struct Watch {
    options: ClusterOptions,
    cluster: Arc<Cluster>,
    kept: BTreeMap<Address, Asker>,
    /// Everybody of whom the last answers told.
    members: Vec<Address>,
    /// Who has answered lately: where it was asked, and where it says it is.
    alive: BTreeMap<Address, Address>,
    /// Where somebody else's server answered lately.
    foreign: BTreeSet<Address>,
    probes: Probes,
    pause: Duration,
    /// Whether it was logged that nobody answers.
    silent: bool,
}

impl Watch {
    /// Asks around and takes over what is said; whether the contact has changed.
    async fn look(&mut self) -> bool {
        let (answers, asked, mut trouble) = self.ask().await;
        let answers = self.told_apart(answers);
        if answers.is_empty() {
            if let Some(address) = self.foreign.first() {
                trouble = format!("{address}: {FOREIGN}");
            }
            self.complain(&trouble);
            self.pause = (self.pause * 2).min(self.options.interval.max(SHORT_PAUSE));
            return self.vacate(&trouble);
        }
        self.silent = false;
        let merged = merge(&answers);
        self.cluster.take_over(&merged, answers.len() > asked / 2);
        let members = merged.servers.iter().filter(|it| !it.has_failed);
        self.members = members.map(|it| it.address.clone()).collect();
        let config = ProbeConfig {
            interval: self.options.interval,
            timeout: self.options.patience,
        };
        let primaries = self.cluster.primaries();
        // Everybody, also who owns no slot: one that was down is found up before it is needed.
        let everybody = merged.servers.iter().map(|it| it.address.clone());
        let mut probed = self.cluster.known(&everybody.collect::<Vec<_>>());
        for primary in &primaries {
            if !probed.iter().any(|it| it.number == primary.number) {
                probed.push(Arc::clone(primary));
            }
        }
        self.probes.follow(&probed, config);
        let all_up = primaries
            .iter()
            .all(|server| server.endpoint.health().is_up());
        let whole = merged.owners.iter().all(Option::is_some);
        self.pause = if all_up && whole {
            self.options.interval
        } else {
            (self.pause * 2).min(LONG_PAUSE)
        };
        self.lead_contact(&merged.servers)
    }

    /// The answers of the cluster's own servers. Where others answer nothing is sent any more.
    fn told_apart(&mut self, answers: Vec<Answer>) -> Vec<Vec<Described>> {
        let store = &self.cluster.store;
        let sifted = sift(answers, &self.cluster.ids(), &self.options.seeds);
        if sifted.replaced {
            tracing::warn!(
                store,
                "most of the urls name another cluster than before: it is used"
            );
            self.cluster.begin_anew();
        }
        let example = sifted.ours.first().map(|it| it.from.to_string());
        for answer in &sifted.foreign {
            self.alive.remove(&answer.from);
            self.cluster.shut(&answer.from, FOREIGN);
            if self.foreign.insert(answer.from.clone()) {
                let id = answer.own().map_or("-", |own| own.id.as_str());
                tracing::warn!(
                    store, address = %answer.from, id, ours = example.as_deref().unwrap_or("-"),
                    "{FOREIGN}: its answer does not count, and it is sent nothing"
                );
            }
        }
        for answer in &sifted.ours {
            let own = answer.own().map_or(&answer.from, |own| &own.address);
            self.alive.insert(answer.from.clone(), own.clone());
            self.foreign.remove(&answer.from);
            self.cluster.reopen(&answer.from);
        }
        sifted.ours.into_iter().map(|it| it.servers).collect()
    }

    /// Leads the store's own endpoint to a server that is up, if it is at none.
    fn lead_contact(&self, servers: &[Described]) -> bool {
        let contact = self.cluster.contact();
        let current = contact.current();
        let place = &current.terms.place;
        let alive: BTreeSet<&Address> = self.alive.values().collect();
        let fit = |server: &&Described| !server.has_failed && alive.contains(&server.address);
        let fits = |address: &Address| servers.iter().any(|it| it.address == *address && fit(&it));
        if place.vacant.is_none() && fits(&place.address) {
            return false;
        }
        let mut fit = servers.iter().filter(fit);
        let Some(next) = fit.clone().find(|it| it.is_primary).or_else(|| fit.next()) else {
            return false;
        };
        contact.health().move_to(next.address.clone());
        contact.supersede(on(&current.terms, &next.address));
        true
    }

    fn complain(&mut self, trouble: &str) {
        if !std::mem::replace(&mut self.silent, true) {
            let store = &self.cluster.store;
            tracing::warn!(store, reason = trouble, "no server of the cluster answers");
        }
    }

    /// Tells, where nothing is known of the cluster, why.
    fn vacate(&self, trouble: &str) -> bool {
        let contact = self.cluster.contact();
        let current = contact.current();
        let why = format!("no server of the cluster has answered ({trouble})");
        let known = current.terms.place.vacant.as_deref();
        let lost = known.is_none() && self.foreign.contains(&current.terms.place.address);
        if lost || known.is_some_and(|known| known != why) {
            let mut terms = current.terms.clone();
            terms.place.vacant = Some(why.into());
            contact.set(terms);
        }
        false
    }

    /// What servers say of each other, how many were asked, and what is wrong with the first of
    /// those who say nothing.
    async fn ask(&mut self) -> (Vec<Answer>, usize, String) {
        let place = self.cluster.contact().current().terms.place.clone();
        let whom = self.whom();
        let mut tasks = JoinSet::new();
        for address in &whom {
            let kept = self.kept.remove(address);
            let (place, patience) = (place.on(address.clone()), self.options.patience);
            tasks.spawn(async move {
                let asked = tokio::time::timeout(patience, ask(kept, &place)).await;
                let silent = || Err("it does not answer".to_owned());
                (place.address, asked.unwrap_or_else(|_| silent()))
            });
        }
        let mut answers = Vec::new();
        let mut trouble = None;
        loop {
            let most = answers.len() > whom.len() / 2;
            let limit = if most {
                GRACE
            } else {
                self.options.patience * 2
            };
            let Ok(Some(ended)) = tokio::time::timeout(limit, tasks.join_next()).await else {
                return (answers, whom.len(), trouble.unwrap_or_default());
            };
            match ended {
                Ok((from, Ok((asker, servers)))) => {
                    self.kept.insert(from.clone(), asker);
                    answers.push(Answer { from, servers });
                }
                Ok((address, Err(why))) => {
                    self.alive.remove(&address);
                    trouble.get_or_insert_with(|| format!("{address}: {why}"));
                }
                Err(_) => {}
            }
        }
    }

    /// Who is asked: those who own slots, then whom the file names, then everybody else.
    fn whom(&self) -> BTreeSet<Address> {
        let primaries = self.cluster.primaries();
        let mut whom = BTreeSet::new();
        let known = primaries.iter().map(|server| server.address.clone());
        let rest = self.members.iter().cloned();
        for address in known.chain(self.options.seeds.iter().cloned()).chain(rest) {
            if whom.len() < MOST_ASKED {
                whom.insert(address);
            }
        }
        whom
    }
}

async fn ask(kept: Option<Asker>, place: &Place) -> Result<(Asker, Vec<Described>), String> {
    // A kept connection may have ended with the server's last life: that alone shows nothing.
    if let Some(mut asker) = kept
        && let Ok(described) = question(&mut asker, place).await
    {
        return Ok((asker, described));
    }
    let mut asker = Asker::enter(place).await?;
    let described = question(&mut asker, place).await?;
    Ok((asker, described))
}

async fn question(asker: &mut Asker, place: &Place) -> Result<Vec<Described>, String> {
    let reply = asker.ask(&[b"CLUSTER", b"NODES"]).await?;
    let said = String::from_utf8_lossy(text(&reply).unwrap_or_default()).into_owned();
    let described = read(&said, &place.address);
    if described.is_empty() {
        return Err("it describes no server".to_owned());
    }
    Ok(described)
}
