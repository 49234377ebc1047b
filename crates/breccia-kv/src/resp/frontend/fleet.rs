//! The clusters among a store's leaves, as one worker uses them: each server that owns slots is a
//! leaf of its own, met when it is first seen, and found by the slot of a key.
//!
//! Not the map of slots, which the process keeps. Invariant: between two calls of [`Fleet::renew`] a
//! key leads to the same server, so a client's requests keep their order; a server keeps its place.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use breccia_net::metrics;

use super::super::cluster::{Cluster, NAMED_PRIMARY, Server, SlotMap, slot_of};
use super::leaf::{Leaf, RespLeaf};
use super::metrics::FrontMetrics;
use super::redirects::Redirects;
use super::service::{Forward, kept_leaf};
use crate::front::kept::Kept;
use crate::scan_cursor::check_of;
use crate::topology::{LeafIndex, Place};

/// One cluster.
struct View {
    /// The cluster's own place in the topology, and what it is there.
    leaf: LeafIndex,
    spec: Arc<RespLeaf>,
    cluster: Arc<Cluster>,
    map: RefCell<Arc<SlotMap>>,
    /// The place of each server that was met, by its number.
    places: RefCell<Vec<Option<LeafIndex>>>,
}

/// See the module's page. Empty where no leaf is a cluster.
pub(crate) struct Fleet {
    views: Vec<View>,
    /// Servers that were met, and the cluster of each; their places follow the topology's leaves.
    servers: RefCell<Vec<(Rc<Leaf>, usize)>>,
    /// How many leaves the topology has.
    leaves: usize,
    /// Counts the changes of all maps.
    changes: Cell<u64>,
    kept: Rc<RefCell<Kept<Leaf>>>,
    registry: metrics::Registry,
    /// How often a shared connection of this worker was retired.
    retirements: Rc<Cell<u64>>,
    metrics: RefCell<Option<Rc<FrontMetrics>>>,
    redirects: Rc<Redirects>,
}

impl Fleet {
    pub(super) fn new(
        specs: &[Arc<RespLeaf>],
        kept: &Rc<RefCell<Kept<Leaf>>>,
        (registry, retirements): (&metrics::Registry, &Rc<Cell<u64>>),
    ) -> Self {
        let view = |(index, spec): (usize, &Arc<RespLeaf>)| {
            let cluster = Arc::clone(spec.cluster.as_ref()?);
            Some(View {
                leaf: LeafIndex::new(index)?,
                spec: Arc::clone(spec),
                // Nothing is known until the first look: it brings version 1 or later.
                map: RefCell::new(SlotMap::unknown()),
                places: RefCell::default(),
                cluster,
            })
        };
        Self {
            views: specs.iter().enumerate().filter_map(view).collect(),
            servers: RefCell::default(),
            leaves: specs.len(),
            changes: Cell::new(0),
            kept: Rc::clone(kept),
            registry: registry.clone(),
            retirements: Rc::clone(retirements),
            metrics: RefCell::default(),
            redirects: Redirects::new(),
        }
    }

    /// Starts what sends requests elsewhere, if some leaf is a cluster.
    pub(super) fn begin(forward: &Rc<Forward>, metrics: &Rc<FrontMetrics>) {
        let fleet = &forward.fleet;
        if !fleet.is_empty() {
            *fleet.metrics.borrow_mut() = Some(Rc::clone(metrics));
            fleet.renew();
            let (redirects, weak): (_, Weak<Forward>) =
                (Rc::clone(&fleet.redirects), Rc::downgrade(forward));
            tokio::task::spawn_local(redirects.run(weak));
        }
    }

    /// Whether no leaf is a cluster.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.views.is_empty()
    }

    /// Requests that are sent elsewhere.
    pub(super) fn redirects(&self) -> &Rc<Redirects> {
        &self.redirects
    }

    /// Takes over maps that have changed; answers how many changes there have been.
    pub(crate) fn renew(&self) -> u64 {
        for (number, view) in self.views.iter().enumerate() {
            if view.cluster.version() != view.map.borrow().version {
                self.take_over(number, view);
            }
        }
        self.changes.get()
    }

    fn take_over(&self, number: usize, view: &View) {
        let map = view.cluster.map();
        let replicas = map.replicas.values().flatten();
        let replicas = replicas.filter(|_| view.cluster.reads_replicas());
        for primary in map.primaries.iter().chain(replicas) {
            let known = view.places.borrow().get(usize::from(*primary)).copied();
            if known.flatten().is_none()
                && let Some(server) = view.cluster.server(*primary)
            {
                self.meet(number, view, &server);
            }
        }
        *view.map.borrow_mut() = map;
        self.changes.set(self.changes.get() + 1);
    }

    fn meet(&self, number: usize, view: &View, server: &Server) {
        let mut servers = self.servers.borrow_mut();
        let Some(place) = LeafIndex::new(self.leaves + servers.len()) else {
            return;
        };
        let address = &server.address;
        let spec = Arc::new(RespLeaf {
            name: format!("{} ({address})", view.spec.name),
            store: view.spec.store.clone(),
            endpoint: Arc::clone(&server.endpoint),
            connections: view.spec.connections,
            trunks: None,
            identity: None,
            cluster: None,
            has_slots: view.spec.has_slots,
        });
        if let Some(metrics) = &*self.metrics.borrow() {
            metrics.add_leaf(spec.name.clone(), view.leaf);
        }
        let name = format!("{} {address}", view.spec.store);
        let leaf = kept_leaf(
            &self.kept,
            &name,
            &spec,
            (&self.registry, &self.retirements),
        );
        servers.push((leaf, number));
        let mut places = view.places.borrow_mut();
        let at = usize::from(server.number);
        if places.len() <= at {
            places.resize(at + 1, None);
        }
        if let Some(known) = places.get_mut(at) {
            *known = Some(place);
        }
    }

    /// Whether some leaf is a cluster, and not only one whose replicas are read.
    pub(crate) fn has_slots(&self) -> bool {
        self.views.iter().any(|view| view.spec.has_slots)
    }

    /// Whether a place belongs to a cluster.
    pub(super) fn has_slots_at(&self, leaf: LeafIndex) -> bool {
        self.view_of(leaf).is_some_and(|view| view.spec.has_slots)
    }

    /// The replica that answers a client for a leaf, and whether it must be told that old answers
    /// will do: always the same one while the replicas stay, so that the client's answers do not
    /// become older. None, if none is up, or replicas of the leaf are not read.
    pub(super) fn reader(&self, leaf: LeafIndex, client: u64) -> Option<(LeafIndex, bool)> {
        let view = self
            .view_of(leaf)
            .filter(|view| view.cluster.reads_replicas())?;
        let (map, places) = (view.map.borrow(), view.places.borrow());
        let place = |number: u16| places.get(usize::from(number)).copied().flatten();
        let number = if view.spec.has_slots {
            let number = places.iter().position(|known| *known == Some(leaf))?;
            u16::try_from(number).ok()?
        } else {
            NAMED_PRIMARY
        };
        let replicas = map.replicas.get(&number)?;
        let first = usize::try_from(client).unwrap_or(0) % replicas.len().max(1);
        let in_turn = replicas.iter().cycle().skip(first).take(replicas.len());
        let mut places = in_turn.filter_map(|replica| place(*replica));
        let found = places.find(|place| self.leaf(*place).is_some_and(|leaf| leaf.spec.is_up()));
        found.map(|place| (place, view.spec.has_slots))
    }

    /// How many servers were met.
    pub(crate) fn count(&self) -> usize {
        self.servers.borrow().len()
    }

    /// The server at a place.
    pub(crate) fn leaf(&self, index: LeafIndex) -> Option<Rc<Leaf>> {
        let at = index.get().checked_sub(self.leaves)?;
        self.servers
            .borrow()
            .get(at)
            .map(|(leaf, _)| Rc::clone(leaf))
    }

    /// Whether a place is a server's, or a cluster's own.
    pub(crate) fn has(&self, leaf: LeafIndex) -> bool {
        leaf.get() >= self.leaves || self.views.iter().any(|view| view.leaf == leaf)
    }

    /// The cluster to which a place belongs.
    pub(super) fn cluster_of(&self, leaf: LeafIndex) -> Option<&Arc<Cluster>> {
        self.view_of(leaf).map(|view| &view.cluster)
    }

    fn view_of(&self, leaf: LeafIndex) -> Option<&View> {
        match leaf.get().checked_sub(self.leaves) {
            None => self.views.iter().find(|view| view.leaf == leaf),
            Some(at) => {
                let number = self.servers.borrow().get(at).map(|(_, number)| *number)?;
                self.views.get(number)
            }
        }
    }

    /// The place of a server of the same cluster by its number, which is met if it was not yet.
    pub(super) fn place_of(&self, beside: LeafIndex, number: u16) -> Option<LeafIndex> {
        let view = self.view_of(beside)?;
        let known = || {
            view.places
                .borrow()
                .get(usize::from(number))
                .copied()
                .flatten()
        };
        known().or_else(|| {
            let server = view.cluster.server(number)?;
            let at = self
                .views
                .iter()
                .position(|other| other.leaf == view.leaf)?;
            self.meet(at, view, &server);
            known()
        })
    }

    /// Counts a request that is sent again.
    pub(super) fn count_redirect(&self, leaf: LeafIndex, kind: &str) {
        if let Some(view) = self.view_of(leaf) {
            let labels = [view.spec.store.as_str(), kind];
            self.registry
                .counter(&metrics::CLUSTER_REDIRECTS, &labels)
                .increment();
        }
    }

    /// The owner of a slot of the cluster that a place belongs to.
    pub(super) fn owner(&self, beside: LeafIndex, slot: u16) -> Option<LeafIndex> {
        let view = self.view_of(beside)?;
        let number = view.map.borrow().owner(slot)?;
        self.place_of(beside, number)
    }

    /// Where a key lies whose place in the topology is known. A slot that nobody owns is asked for
    /// at any server: it says so.
    pub(super) fn place(&self, place: Place, key: &[u8]) -> Place {
        let own = |view: &&View| view.leaf == place.leaf && view.spec.has_slots;
        let Some(view) = self.views.iter().find(own) else {
            return place;
        };
        let slot = slot_of(key);
        let map = view.map.borrow();
        let owner = map.owner(slot).or_else(|| map.primaries.first().copied());
        let places = view.places.borrow();
        let leaf = owner.and_then(|number| places.get(usize::from(number)).copied().flatten());
        Place {
            leaf: leaf.unwrap_or(place.leaf),
            slot: place.slot.rotate_left(24) ^ u64::from(slot),
            bound: slot + 1,
        }
    }

    /// Everybody who holds keys of a leaf of the topology: itself, unless it is a cluster.
    pub(super) fn holders(&self, leaf: LeafIndex) -> Vec<LeafIndex> {
        let Some(view) = self.views.iter().find(|view| view.leaf == leaf) else {
            return vec![leaf];
        };
        let (map, places) = (view.map.borrow(), view.places.borrow());
        let numbers = map.primaries.iter();
        let holders: Vec<LeafIndex> = numbers
            .filter_map(|number| places.get(usize::from(*number)).copied().flatten())
            .collect();
        if holders.is_empty() {
            vec![leaf]
        } else {
            holders
        }
    }

    /// Eight bits that tell one list of holders from another. Slots that have moved make another
    /// list: a scan begins anew rather than pass over their keys.
    pub(crate) fn check_of(&self, leaves: &[Rc<Leaf>]) -> u64 {
        let digests = self.views.iter().map(|view| {
            let map = view.map.borrow();
            format!("{:016x}", map.digest)
        });
        let digests: Vec<String> = digests.collect();
        let names = leaves.iter().map(|leaf| leaf.spec.name.as_str());
        check_of(names.chain(digests.iter().map(String::as_str)))
    }
}
