//! The primary of a service that Redis Sentinel watches: who it is, and when it changes.
//!
//! ```text
//! events of every sentinel ─▶ hint ──┐
//! an answer of every sentinel ───────┼─▶ choice ─▶ ROLE of the chosen ─▶ Endpoint::supersede
//! doubt (lost connection, READONLY) ─┘
//! ```
//!
//! Not the connections, which follow their [`Endpoint`] by themselves. Invariant: the endpoint goes
//! to a server only if sentinels name it, by their newest configuration or as the one that a
//! failover has promoted, and the server itself does not say that it is no primary.

mod asking;
mod choice;
mod events;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use breccia_core::address::Address;
use breccia_net::clock;
use breccia_net::health::ProbeConfig;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use self::asking::{Askers, RoleAsker};
use self::choice::{Answer, Role, is_agreed, newest, supplants};
use self::events::{Hint, listen};
use super::cluster::Cluster;
use super::cluster::probing::Probes;
use crate::endpoint::{Endpoint, Place, Terms};

/// Sentinels that are asked, the most; those of the configuration come first.
const MOST: usize = 64;
/// The least time between two looks.
const SPACING: Duration = Duration::from_millis(50);
/// The first pause after a look that found no primary; it doubles up to the interval.
const SHORT_PAUSE: Duration = Duration::from_millis(100);
/// How long a server that a sentinel has chosen is asked whether it is the primary by now.
const CHOSEN_LIMIT: Duration = Duration::from_secs(10);
/// A sentinel that only others have named is forgotten after so long without an answer.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(5);
/// Hints that wait.
const HINTS: usize = 64;

/// Whom to ask about which service.
#[derive(Debug, Clone)]
pub struct SentinelOptions {
    /// The store's name, for the log.
    pub store: String,
    /// The name under which the primary is watched.
    pub service: String,
    /// The sentinels, and how they let us in.
    pub sentinels: Vec<Place>,
    /// The time between two looks while nothing speaks against the primary.
    pub interval: Duration,
    /// How long an answer is waited for.
    pub patience: Duration,
    /// Where replicas are noted, if they are read.
    pub replicas: Option<Arc<Cluster>>,
}

/// The primary that the sentinels name now.
///
/// # Errors
/// A short phrase: why none is named.
pub async fn find(options: &SentinelOptions) -> Result<Address, String> {
    let places = by_address(&options.sentinels);
    let mut askers = Askers::default();
    let found = askers.ask(&places, &options.service, options.patience);
    let found = found.await;
    let primary = newest(&found.given).map(|answer| answer.primary.clone());
    primary.ok_or_else(|| unnamed(found.trouble))
}

fn unnamed(trouble: Option<String>) -> String {
    let trouble = trouble.unwrap_or_else(|| "none is known".to_owned());
    format!("no sentinel has named its primary ({trouble})")
}

/// Where an endpoint was led before a reload.
fn known_before(endpoint: &Endpoint) -> Option<(Address, Option<u64>)> {
    let current = endpoint.current();
    let place = &current.terms.place;
    place
        .vacant
        .is_none()
        .then(|| (place.address.clone(), None))
}

fn by_address(places: &[Place]) -> BTreeMap<Address, Place> {
    let each = places.iter().take(MOST);
    each.map(|place| (place.address.clone(), place.clone()))
        .collect()
}

/// Keeps an endpoint at the primary of a service, for ever. `moved` is called after each change;
/// `looking` is dropped after the first look.
pub async fn watch(
    options: SentinelOptions,
    endpoint: Arc<Endpoint>,
    moved: impl Fn() + Send,
    looking: mpsc::Sender<()>,
) {
    let (hints, mut heard) = mpsc::channel(HINTS);
    let mut watch = Watch {
        sentinels: BTreeMap::new(),
        heard: BTreeMap::new(),
        askers: Askers::default(),
        servers: RoleAsker::default(),
        listening: JoinSet::new(),
        probes: Probes::default(),
        believed: known_before(&endpoint),
        complaint: None,
        pause: SHORT_PAUSE,
        hints,
        options,
        endpoint,
        moved,
    };
    for place in by_address(&watch.options.sentinels).into_values() {
        watch.add(place);
    }
    let mut looking = Some(looking);
    loop {
        watch.look().await;
        drop(looking.take());
        tokio::time::sleep(SPACING).await;
        tokio::select! {
            hint = heard.recv() => if let Some(hint) = hint {
                watch.follow_hint(hint, &mut heard).await;
            },
            () = watch.endpoint.doubted() => watch.pause = SHORT_PAUSE,
            () = tokio::time::sleep(watch.pause) => {}
        }
    }
}

struct Watch<F> {
    options: SentinelOptions,
    endpoint: Arc<Endpoint>,
    moved: F,
    sentinels: BTreeMap<Address, Place>,
    /// When each has last answered, and what listens to its events.
    heard: BTreeMap<Address, (Instant, AbortHandle)>,
    askers: Askers,
    servers: RoleAsker,
    listening: JoinSet<()>,
    probes: Probes,
    hints: mpsc::Sender<Hint>,
    /// The primary, and the epoch of the configuration that made it one: none for what was found
    /// before a reload.
    believed: Option<(Address, Option<u64>)>,
    /// What was logged of sentinels that do not answer.
    complaint: Option<String>,
    pause: Duration,
}

impl<F: Fn() + Send> Watch<F> {
    /// Asks a sentinel too from now on.
    fn add(&mut self, place: Place) {
        if self.sentinels.len() >= MOST || self.sentinels.contains_key(&place.address) {
            return;
        }
        let service = self.options.service.clone();
        let listening = listen(place.clone(), service, self.hints.clone());
        let listening = self.listening.spawn(listening);
        self.heard
            .insert(place.address.clone(), (clock::now(), listening));
        self.sentinels.insert(place.address.clone(), place);
    }

    /// Forgets whom only others have named, and who has long not answered.
    fn forget(&mut self, answers: &[Answer]) {
        let now = clock::now();
        for answer in answers {
            if let Some((heard, _)) = self.heard.get_mut(&answer.from) {
                *heard = now;
            }
        }
        let named = &self.options.sentinels;
        self.heard.retain(|address, (heard, listening)| {
            let stays = now.saturating_duration_since(*heard) < FORGOTTEN_AFTER
                || named.iter().any(|place| place.address == *address);
            if !stays {
                listening.abort();
                self.sentinels.remove(address);
            }
            stays
        });
    }

    /// Leads the endpoint back to the primary, should something else have led it away.
    fn hold(&self) {
        let current = self.endpoint.current();
        if let Some((address, _)) = &self.believed
            && *address != current.terms.place.address
        {
            let place = current.terms.place.on(address.clone());
            self.endpoint.health().move_to(address.clone());
            self.endpoint.supersede(Terms {
                place,
                ..current.terms.clone()
            });
            (self.moved)();
        }
    }

    /// Asks everybody, and follows what they say.
    async fn look(&mut self) {
        self.hold();
        let patience = self.options.patience;
        let asked = self
            .askers
            .ask(&self.sentinels, &self.options.service, patience);
        let found = asked.await;
        self.forget(&found.given);
        if let Some(known) = self.options.sentinels.first().cloned() {
            for other in found.others {
                self.add(known.on(other));
            }
        }
        let Some(best) = newest(&found.given) else {
            let why = unnamed(found.trouble);
            self.complain(&why);
            self.vacate(&why);
            return self.pause_longer();
        };
        self.complaint = None;
        let replicas = found
            .replicas
            .get(&best.from)
            .map_or(&[][..], Vec::as_slice);
        self.note_replicas(replicas, &best.primary);
        if let Some((address, epoch)) = &mut self.believed
            && *address == best.primary
        {
            *epoch = Some(best.epoch).max(*epoch);
        }
        let believed = self.believed.clone();
        let known = believed.as_ref().map(|(address, epoch)| (address, *epoch));
        let agreed = is_agreed(best, &found.given, self.sentinels.len());
        let certain = supplants(best, known, &Role::Primary, agreed);
        let now = match &believed {
            Some((address, _)) if !certain => self.role_of(address).await,
            _ => Role::Primary,
        };
        if supplants(best, known, &now, agreed) {
            self.try_to_follow(best).await;
        } else if now.may_lead() {
            self.pause = self.options.interval;
        } else {
            self.pause_longer();
        }
    }

    /// Notes the replicas that may be read.
    fn note_replicas(&mut self, replicas: &[Address], primary: &Address) {
        if let Some(known) = &self.options.replicas {
            let others = replicas.iter().filter(|replica| *replica != primary);
            known.take_over_replicas(&others.cloned().collect::<Vec<_>>());
            let config = ProbeConfig {
                interval: self.options.interval,
                timeout: self.options.patience,
            };
            self.probes.follow(&known.replicas(), config);
        }
    }

    fn pause_longer(&mut self) {
        self.pause = (self.pause * 2).min(self.options.interval.max(SHORT_PAUSE));
    }

    async fn role_of(&mut self, address: &Address) -> Role {
        let place = self.endpoint.current().terms.place.on(address.clone());
        self.servers.role(&place, self.options.patience).await
    }

    /// Goes where an answer says, if the server there says nothing against it.
    async fn try_to_follow(&mut self, answer: &Answer) {
        let role = self.role_of(&answer.primary).await;
        if role.may_lead() {
            self.pause = self.options.interval;
            return self.follow(&answer.primary, &answer.from, Some(answer.epoch));
        }
        let (from, primary) = (&answer.from, &answer.primary);
        let named = format!("sentinel {from} names {primary}");
        let why = match role {
            Role::Silent(why) => format!("{named}, which cannot be reached: {why}"),
            _ => format!("{named}, which says that it is no primary"),
        };
        self.vacate(&why);
        self.pause_longer();
    }

    /// Asks a server that a sentinel has chosen until it says that it is the primary.
    async fn follow_hint(&mut self, hint: Hint, heard: &mut mpsc::Receiver<Hint>) {
        let (mut from, Some(mut chosen)) = (hint.from, hint.chosen) else {
            return;
        };
        let until = clock::now() + CHOSEN_LIMIT;
        while clock::now() < until {
            let known = self.believed.clone();
            if known
                .as_ref()
                .is_some_and(|(address, _)| *address == chosen)
            {
                return;
            }
            if self.role_of(&chosen).await == Role::Primary {
                let epoch = known.and_then(|(_, epoch)| epoch);
                return self.follow(&chosen, &from, epoch);
            }
            match tokio::time::timeout(SPACING, heard.recv()).await {
                Err(_) => {}
                Ok(Some(Hint {
                    from: other,
                    chosen: Some(other_chosen),
                })) => {
                    (from, chosen) = (other, other_chosen);
                }
                // The failover is over: the answers tell more.
                Ok(_) => return,
            }
        }
    }

    fn follow(&mut self, primary: &Address, sentinel: &Address, epoch: Option<u64>) {
        self.believed = Some((primary.clone(), epoch));
        let current = self.endpoint.current();
        let (was, vacant) = (&current.terms.place.address, &current.terms.place.vacant);
        let terms = Terms {
            place: current.terms.place.on(primary.clone()),
            ..current.terms.clone()
        };
        let (store, service) = (&self.options.store, &self.options.service);
        self.endpoint.health().move_to(primary.clone());
        if vacant.is_some() || was == primary {
            tracing::info!(store, service, address = %primary, %sentinel, "the primary is found");
            self.endpoint.set(terms);
        } else {
            tracing::info!(
                store, service, %was, address = %primary, %sentinel,
                "the primary has changed: requests go to the new one"
            );
            self.endpoint.supersede(terms);
        }
        (self.moved)();
    }

    /// Tells, where no server is known, why.
    fn vacate(&self, why: &str) {
        let current = self.endpoint.current();
        let known = current.terms.place.vacant.as_deref();
        // What was found before a reload stays until another is found.
        if known.is_some_and(|known| known != why) {
            let mut terms = current.terms.clone();
            terms.place.vacant = Some(why.into());
            self.endpoint.set(terms);
        }
    }

    /// Logs once that nobody can be asked.
    fn complain(&mut self, why: &str) {
        if self.complaint.is_none() {
            let primary = self.believed.as_ref();
            let primary = primary.map_or("-".to_owned(), |(address, _)| address.to_string());
            let (store, service) = (&self.options.store, &self.options.service);
            tracing::warn!(store, service, reason = why, %primary, "a new primary would go unseen");
            self.complaint = Some(why.to_owned());
        }
    }
}
