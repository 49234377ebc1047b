//! A Redis Cluster as the process knows it: its servers, and who owns which slot.
//!
//! Not the connections, which workers keep, and not the asking ([`watch`]). Invariant: a server has
//! one number for the life of the process, so what a worker holds under a number stays true; a map
//! of slots is a value, replaced as a whole, with a version that only grows.

mod described;
pub(super) mod probing;
mod trust;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use breccia_core::HashKind;
use breccia_core::address::Address;
use breccia_core::hash::HashTag;
use breccia_net::health::EndpointHealth;

use self::described::Merged;
use crate::endpoint::{Endpoint, Terms};

pub use watch::{ClusterOptions, watch};

/// Slots of a cluster.
pub const SLOTS: usize = 16_384;
/// Stands for the primary that sentinels name, which has no number.
pub const NAMED_PRIMARY: u16 = u16::MAX;
/// Servers that one store may meet in the life of a process; more are not used.
const MOST_SERVERS: usize = 8_192;

/// One server of a cluster.
#[derive(Debug)]
pub struct Server {
    /// Its number among all that this cluster has had.
    pub number: u16,
    /// Where it is.
    pub address: Address,
    /// The terms on which it is used, and its health.
    pub endpoint: Arc<Endpoint>,
}

/// Who owns which slot.
#[derive(Debug, Clone)]
pub struct SlotMap {
    /// Grows with every change.
    pub version: u64,
    /// The number of each slot's owner.
    owners: Vec<Option<u16>>,
    /// Those who own slots, by the lowest slot of each.
    pub primaries: Vec<u16>,
    /// The replicas of each primary that has some. Of a primary that sentinels name there is no
    /// number: its replicas stand under [`NAMED_PRIMARY`].
    pub replicas: BTreeMap<u16, Vec<u16>>,
    /// Tells one assignment of slots from another.
    pub digest: u64,
}

impl SlotMap {
    fn new(version: u64, owners: Vec<Option<u16>>, replicas: BTreeMap<u16, Vec<u16>>) -> Self {
        let mut primaries: Vec<u16> = Vec::new();
        let mut seen = BTreeSet::new();
        let mut bytes = Vec::with_capacity(owners.len() * 2);
        for owner in &owners {
            if let Some(number) = owner
                && seen.insert(*number)
            {
                primaries.push(*number);
            }
            bytes.extend_from_slice(&owner.unwrap_or(u16::MAX).to_be_bytes());
        }
        Self {
            version,
            owners,
            primaries,
            replicas,
            digest: HashKind::Xxh3_64.hash(&bytes),
        }
    }

    /// A map of which nothing is known.
    #[must_use]
    pub fn unknown() -> Arc<Self> {
        Arc::new(Self::new(0, vec![None; SLOTS], BTreeMap::new()))
    }

    /// How many slots a server owns.
    #[must_use]
    pub fn count_of(&self, number: u16) -> usize {
        let owned = self.owners.iter().filter(|owner| **owner == Some(number));
        owned.count()
    }

    /// The number of a slot's owner.
    #[must_use]
    pub fn owner(&self, slot: u16) -> Option<u16> {
        self.owners.get(usize::from(slot)).copied().flatten()
    }
}

/// The slot of a key, as every server of a cluster computes it.
#[must_use]
pub fn slot_of(key: &[u8]) -> u16 {
    // Only what is between braces counts, if something is.
    let part = HashTag::BRACES.hashed_part(key);
    let slot = HashKind::Crc16Xmodem.hash(part) % SLOTS as u64;
    u16::try_from(slot).unwrap_or(0)
}

#[derive(Debug)]
struct State {
    terms: Terms,
    servers: Vec<Arc<Server>>,
    /// Numbers by address, and by the names that servers announce.
    numbers: BTreeMap<Address, u16>,
    map: Arc<SlotMap>,
    /// The epoch of each slot's claim.
    epochs: Vec<u64>,
    /// Whom the configuration names, and the ids of the cluster's servers.
    seeds: Vec<Address>,
    ids: BTreeSet<String>,
}

/// See the module's page.
#[derive(Debug)]
pub struct Cluster {
    store: String,
    contact: Arc<Endpoint>,
    reads_replicas: bool,
    version: AtomicU64,
    state: Mutex<State>,
}

impl Cluster {
    /// A cluster of which nothing is known yet. `contact` is the store's own endpoint: it is led to
    /// some server that is up, whichever.
    #[must_use]
    pub fn new(store: String, contact: Arc<Endpoint>, reads_replicas: bool) -> Arc<Self> {
        let terms = contact.current().terms.clone();
        Arc::new(Self {
            store,
            contact,
            reads_replicas,
            version: AtomicU64::new(0),
            state: Mutex::new(State {
                terms,
                servers: Vec::new(),
                numbers: BTreeMap::new(),
                map: SlotMap::unknown(),
                epochs: vec![0; SLOTS],
                seeds: Vec::new(),
                ids: BTreeSet::new(),
            }),
        })
    }

    /// Whether replicas answer commands that only read.
    #[must_use]
    pub fn reads_replicas(&self) -> bool {
        self.reads_replicas
    }

    /// Some server that is up.
    #[must_use]
    pub fn contact(&self) -> &Arc<Endpoint> {
        &self.contact
    }

    /// The version of the map now; one load.
    #[inline]
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The map now.
    #[must_use]
    pub fn map(&self) -> Arc<SlotMap> {
        Arc::clone(&self.lock().map)
    }

    /// A server by its number.
    #[must_use]
    pub fn server(&self, number: u16) -> Option<Arc<Server>> {
        self.lock().servers.get(usize::from(number)).cloned()
    }

    /// Everybody who owns slots now.
    #[must_use]
    pub fn primaries(&self) -> Vec<Arc<Server>> {
        let state = self.lock();
        let numbers = state.map.primaries.iter();
        let servers = numbers.filter_map(|number| state.servers.get(usize::from(*number)));
        servers.cloned().collect()
    }

    /// The number of a server that is known.
    #[must_use]
    pub fn number_of(&self, address: &Address) -> Option<u16> {
        self.lock().numbers.get(address).copied()
    }

    /// Something speaks against the map: it is looked at anew soon.
    pub fn doubt(&self) {
        self.contact.doubt();
    }

    /// A server has said that a slot lies on another one that is known: what is asked next goes
    /// there at once.
    pub fn hint(&self, slot: u16, number: u16) {
        let mut state = self.lock();
        if state.map.owner(slot) != Some(number) {
            let mut owners = state.map.owners.clone();
            if let Some(owner) = owners.get_mut(usize::from(slot)) {
                *owner = Some(number);
            }
            let replicas = state.map.replicas.clone();
            self.publish(&mut state, owners, replicas);
        }
        drop(state);
        self.doubt();
    }

    /// Takes over the terms of a changed configuration, for every server.
    pub fn renew(&self, terms: &Terms) {
        let mut state = self.lock();
        state.terms = terms.clone();
        for server in &state.servers {
            server.endpoint.renew(terms);
        }
    }

    fn publish(
        &self,
        state: &mut State,
        owners: Vec<Option<u16>>,
        replicas: BTreeMap<u16, Vec<u16>>,
    ) {
        let version = state.map.version + 1;
        state.map = Arc::new(SlotMap::new(version, owners, replicas));
        self.version.store(version, Ordering::Release);
    }

    /// The configuration names these. Others than before may be those of another cluster.
    fn seed(&self, seeds: &[Address]) {
        let mut state = self.lock();
        if state.seeds != seeds {
            state.seeds = seeds.to_vec();
            forget(&mut state);
        }
    }

    /// The ids of the cluster's servers.
    fn ids(&self) -> BTreeSet<String> {
        self.lock().ids.clone()
    }

    /// Most seeds agree that it is another cluster now.
    fn begin_anew(&self) {
        forget(&mut self.lock());
    }

    /// Sends nothing to an address any more: somebody else's server is there.
    fn shut(&self, address: &Address, why: &str) {
        self.turn(address, Some(why));
    }

    /// One of the cluster's servers is there (again).
    fn reopen(&self, address: &Address) {
        self.turn(address, None);
    }

    fn turn(&self, address: &Address, vacant: Option<&str>) {
        let Some(server) = self.number_of(address).and_then(|it| self.server(it)) else {
            return;
        };
        let mut terms = server.endpoint.current().terms.clone();
        if terms.place.vacant.is_some() != vacant.is_some() {
            terms.place.vacant = vacant.map(Into::into);
            server.endpoint.supersede(terms);
        }
    }

    /// Takes over what servers have said, `most` of those who were asked or only some. Answers
    /// whether a server owns slots that owned none, or none that owned some.
    fn take_over(&self, merged: &Merged, most: bool) -> bool {
        let mut state = self.lock();
        let mut numbers = Vec::with_capacity(merged.servers.len());
        for described in &merged.servers {
            let number = self.meet(&mut state, &described.address);
            if let (Some(number), Some(alias)) = (number, &described.alias) {
                state.numbers.insert(alias.clone(), number);
            }
            numbers.push(number);
        }
        let mut owners: Vec<Option<u16>> = merged
            .owners
            .iter()
            .map(|owner| numbers.get((*owner)?).copied().flatten())
            .collect();
        keep_newer(&mut state, merged, &numbers, &mut owners, most);
        state.remember(merged, most);
        let mut replicas: BTreeMap<u16, Vec<u16>> = BTreeMap::new();
        for (primary, replica) in merged.replicas() {
            let number = |place: usize| numbers.get(place).copied().flatten();
            if let (Some(primary), Some(replica)) = (number(primary), number(replica)) {
                replicas.entry(primary).or_default().push(replica);
            }
        }
        for them in replicas.values_mut() {
            them.sort_unstable();
        }
        if owners == state.map.owners && replicas == state.map.replicas {
            return false;
        }
        let former = Arc::clone(&state.map);
        self.publish(&mut state, owners, replicas);
        let map = Arc::clone(&state.map);
        for number in former
            .primaries
            .iter()
            .filter(|it| !map.primaries.contains(it))
        {
            let server = state.servers.get(usize::from(*number));
            if let Some(server) = server {
                self.tell_of(&state, &former, server);
                // What it still owes is not waited for.
                server
                    .endpoint
                    .supersede(server.endpoint.current().terms.clone());
            }
        }
        former.primaries != map.primaries
    }

    /// Takes over the replicas of a primary that sentinels name.
    pub(super) fn take_over_replicas(&self, addresses: &[Address]) {
        let mut state = self.lock();
        let mut numbers: Vec<u16> = addresses
            .iter()
            .filter_map(|address| self.meet(&mut state, address))
            .collect();
        numbers.sort_unstable();
        let replicas = BTreeMap::from([(NAMED_PRIMARY, numbers)]);
        if replicas != state.map.replicas {
            let owners = state.map.owners.clone();
            self.publish(&mut state, owners, replicas);
        }
    }

    /// Those of these addresses that have numbers.
    fn known(&self, addresses: &[Address]) -> Vec<Arc<Server>> {
        let state = self.lock();
        let numbers: BTreeSet<u16> = addresses
            .iter()
            .filter_map(|address| state.numbers.get(address).copied())
            .collect();
        let servers = numbers.into_iter();
        let servers = servers.filter_map(|number| state.servers.get(usize::from(number)));
        servers.cloned().collect()
    }

    /// Every replica that is known now.
    pub(super) fn replicas(&self) -> Vec<Arc<Server>> {
        let state = self.lock();
        let numbers = state.map.replicas.values().flatten();
        let servers = numbers.filter_map(|number| state.servers.get(usize::from(*number)));
        servers.cloned().collect()
    }

    /// Logs that a server has lost its slots, and to whom the first of them went.
    fn tell_of(&self, state: &State, former: &SlotMap, server: &Server) {
        let mut owned = (0..).zip(&former.owners);
        let first = owned.find_map(|(slot, owner)| (*owner == Some(server.number)).then_some(slot));
        let next = first.and_then(|slot| state.map.owner(slot));
        let next = next.and_then(|number| state.servers.get(usize::from(number)));
        let next = next.map_or("nobody".to_owned(), |next| next.address.to_string());
        tracing::info!(
            store = self.store, was = %server.address, address = next,
            "a server of the cluster has lost its slots: requests go to their new owner"
        );
    }

    /// The number of a server, which gets one if it has none.
    fn meet(&self, state: &mut State, address: &Address) -> Option<u16> {
        if let Some(number) = state.numbers.get(address) {
            return Some(*number);
        }
        if state.servers.len() >= MOST_SERVERS {
            tracing::error!(
                store = self.store, %address,
                "a server is not used: the cluster has had {MOST_SERVERS} others since the start"
            );
            return None;
        }
        let number = u16::try_from(state.servers.len()).ok()?;
        let health = EndpointHealth::new(format!("{} {address}", self.store), address.clone());
        // What speaks against any of the servers is heard where the cluster is watched.
        let endpoint = Endpoint::beside(&self.contact, on(&state.terms, address), health);
        state.servers.push(Arc::new(Server {
            number,
            address: address.clone(),
            endpoint,
        }));
        state.numbers.insert(address.clone(), number);
        Some(number)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Notes who the cluster's servers are. Those who are no longer named are forgotten once most
    /// have said so.
    fn remember(&mut self, merged: &Merged, most: bool) {
        if most || self.ids.len() > MOST_SERVERS {
            self.ids.clear();
        }
        let ids = merged.servers.iter().map(|server| server.id.clone());
        self.ids.extend(ids);
    }
}

fn forget(state: &mut State) {
    state.ids.clear();
    state.epochs.fill(0);
}

/// Keeps the owner of each slot whose claim is newer than what a few have said, unless it says
/// itself that it has the slot no more: those few may be out of date.
fn keep_newer(
    state: &mut State,
    merged: &Merged,
    numbers: &[Option<u16>],
    owners: &mut [Option<u16>],
    most: bool,
) {
    let own = merged.servers.iter().zip(numbers);
    let own = own.filter_map(|(server, number)| number.filter(|_| server.is_own));
    let own: BTreeSet<u16> = own.collect();
    let former = Arc::clone(&state.map);
    let claims = merged.epochs.iter().zip(&former.owners);
    for ((owner, known), (epoch, former)) in owners.iter_mut().zip(&mut state.epochs).zip(claims) {
        let stays = !most && epoch < known;
        if stays && former.is_some_and(|former| !own.contains(&former)) {
            *owner = *former;
        } else {
            *known = *epoch;
        }
    }
}

/// The same terms on one server.
fn on(terms: &Terms, address: &Address) -> Terms {
    Terms {
        place: terms.place.on(address.clone()),
        ..terms.clone()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::endpoint::Place;
    use crate::io::DEFAULT_LIMITS;

    fn cluster() -> Arc<Cluster> {
        let address = Address::tcp("h", 1).unwrap();
        let health = EndpointHealth::new("c".into(), address.clone());
        let terms = Terms::simple(Place::plain(address), DEFAULT_LIMITS);
        Cluster::new("c".into(), Endpoint::new(terms, health), false)
    }

    /// A cluster whose servers, at these addresses, own nothing yet.
    pub(in crate::resp) fn known(addresses: &[&str]) -> Arc<Cluster> {
        let cluster = cluster();
        for address in addresses {
            let address: Address = address.parse().unwrap();
            cluster.meet(&mut cluster.lock(), &address);
        }
        cluster
    }

    fn said(text: &str) -> Merged {
        let asked = Address::tcp("h", 1).unwrap();
        described::merge(&[described::read(text, &asked)])
    }

    #[test]
    fn keys_lie_in_the_slots_that_redis_gives_them() {
        // As CLUSTER KEYSLOT of Redis 7.0 answers.
        for (key, slot) in [
            ("foo", 12_182),
            ("bar", 5_061),
            ("{foo}bar", 12_182),
            ("", 0),
        ] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
        assert_eq!(slot_of(b"foo{}{bar}"), 8_363);
        assert_eq!(slot_of(b"foo{{bar}}zap"), 4_015);
    }

    #[test]
    fn numbers_stay_and_versions_grow_only_with_changes() {
        let cluster = cluster();
        let before = "a h:1@2 master - 0 0 1 connected 0-8191\nb h:2@3 master - 0 0 2 connected 8192-16383\n";
        assert!(cluster.take_over(&said(before), true));
        assert_eq!(
            (cluster.version(), cluster.map().primaries.clone()),
            (1, vec![0, 1])
        );
        assert!(!cluster.take_over(&said(before), true));
        assert_eq!(cluster.version(), 1);
        cluster.hint(0, 1);
        assert_eq!((cluster.version(), cluster.map().owner(0)), (2, Some(1)));
        cluster.hint(0, 1);
        assert_eq!(cluster.version(), 2);
        let server = cluster.server(0).unwrap();
        let after = "b h:2@3 master - 0 0 2 connected 8192-16383\nc h:3@4 master - 0 0 3 connected 0-8191\n";
        assert!(cluster.take_over(&said(after), true));
        assert_eq!(cluster.map().primaries, [2, 1]);
        assert_eq!(server.endpoint.current().superseded, 1);
        assert_eq!(cluster.number_of(&Address::tcp("h", 1).unwrap()), Some(0));
    }

    #[test]
    fn a_few_who_are_out_of_date_do_not_take_a_map_back() {
        let cluster = cluster();
        let owner = || cluster.map().owner(0).and_then(|it| cluster.server(it));
        let owner = || owner().map(|server| server.address.to_string());
        let new = "a h:1@2 master,fail - 0 0 1 connected\nb h:2@3 myself,master - 0 0 4 connected 0-16383\n";
        let old =
            "a h:1@2 master - 0 0 1 connected 0-16383\nc h:3@4 myself,slave a 0 0 1 connected\n";
        cluster.take_over(&said(new), true);
        cluster.take_over(&said(old), false);
        assert_eq!(owner().as_deref(), Some("h:2"));
        // Its owner itself says otherwise, or most do.
        let given =
            "b h:2@3 myself,master - 0 0 4 connected\na h:1@2 master - 0 0 1 connected 0-16383\n";
        cluster.take_over(&said(given), false);
        assert_eq!(owner().as_deref(), Some("h:1"));
        cluster.take_over(&said(new), true);
        cluster.take_over(&said(old), true);
        assert_eq!(owner().as_deref(), Some("h:1"));
    }

    #[test]
    fn nothing_is_sent_where_somebody_elses_server_is() {
        let cluster = cluster();
        cluster.take_over(&said("a h:1@2 master - 0 0 1 connected 0-16383\n"), true);
        let (server, address) = (cluster.server(0).unwrap(), Address::tcp("h", 1).unwrap());
        let why = || server.endpoint.current().terms.place.vacant.clone();
        cluster.shut(&address, "another");
        assert_eq!(why().as_deref(), Some("another"));
        cluster.renew(&cluster.contact().current().terms.clone());
        assert_eq!(
            why().as_deref(),
            Some("another"),
            "a reload does not open it"
        );
        cluster.reopen(&address);
        assert_eq!(why(), None);
        assert!(cluster.ids().contains("a"));
        cluster.seed(&[address]);
        assert!(cluster.ids().is_empty());
    }

    #[tokio::test]
    async fn a_lost_connection_to_any_server_is_heard_at_the_contact() {
        let cluster = cluster();
        cluster.take_over(&said("a h:1@2 master - 0 0 1 connected 0-16383\n"), true);
        cluster.server(0).unwrap().endpoint.doubt();
        let heard = cluster.contact().doubted();
        let limit = std::time::Duration::from_secs(1);
        assert!(tokio::time::timeout(limit, heard).await.is_ok());
    }
}
