//! A Redis Cluster as the process knows it: its servers, and who owns which slot.
//!
//! Not the connections, which workers keep, and not the asking ([`watch`]). Invariant: a server has
//! one number for the life of the process, so what a worker holds under a number stays true; a map
//! of slots is a value, replaced as a whole, with a version that only grows.

mod described;
pub(super) mod probing;
mod watch;

use std::collections::BTreeMap;
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
        let mut seen = std::collections::BTreeSet::new();
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
            server.endpoint.set(on(terms, &server.address));
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

    /// Takes over what servers have said. Answers whether a server owns slots that owned none, or
    /// none that owned some.
    fn take_over(&self, merged: &Merged) -> bool {
        let mut state = self.lock();
        let mut numbers = Vec::with_capacity(merged.servers.len());
        for described in &merged.servers {
            let number = self.meet(&mut state, &described.address);
            if let (Some(number), Some(alias)) = (number, &described.alias) {
                state.numbers.insert(alias.clone(), number);
            }
            numbers.push(number);
        }
        let owners: Vec<Option<u16>> = merged
            .owners
            .iter()
            .map(|owner| numbers.get((*owner)?).copied().flatten())
            .collect();
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
        let endpoint = Endpoint::new(on(&state.terms, address), health);
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
        assert!(cluster.take_over(&said(before)));
        assert_eq!(
            (cluster.version(), cluster.map().primaries.clone()),
            (1, vec![0, 1])
        );
        assert!(!cluster.take_over(&said(before)));
        assert_eq!(cluster.version(), 1);
        cluster.hint(0, 1);
        assert_eq!((cluster.version(), cluster.map().owner(0)), (2, Some(1)));
        cluster.hint(0, 1);
        assert_eq!(cluster.version(), 2);
        let server = cluster.server(0).unwrap();
        let after = "b h:2@3 master - 0 0 2 connected 8192-16383\nc h:3@4 master - 0 0 3 connected 0-8191\n";
        assert!(cluster.take_over(&said(after)));
        assert_eq!(cluster.map().primaries, [2, 1]);
        assert_eq!(server.endpoint.current().superseded, 1);
        assert_eq!(cluster.number_of(&Address::tcp("h", 1).unwrap()), Some(0));
    }
}
