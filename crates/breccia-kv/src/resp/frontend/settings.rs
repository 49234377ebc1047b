//! What a Redis listener is told: its store and how it is used. Values only; the binary makes them
//! from the configuration. Users and limits are in `front::settings`.
//!
//! Invariant: nothing here changes while the listener runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use breccia_net::drain::Drain;
use breccia_net::metrics::Registry;

use super::super::scripts::Scripts;
pub use super::clients::ClientRoster;
use super::leaf::RespLeaf;
pub use super::pubsub::Roster;
pub use crate::front::settings::{ListenerSettings, SharedSettings, User};
pub use crate::front::slow::SlowLog;
use crate::store::KvStore;
use crate::topology::Topology;

/// Which multi-key commands are let through when their keys share a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MultiKey {
    /// All of them; those whose keys do not share a slot are counted and warned of once.
    #[default]
    Shard,
    /// Only those whose keys share a slot, which growth cannot break.
    Slot,
}

/// A command of a module: where its keys stand, as in Redis's own classic description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuleCommand {
    /// Position of the first key; 1 is the first argument after the name.
    pub first_key: usize,
    /// Position of the last key; negative counts from the end.
    pub last_key: i64,
    /// Distance between keys.
    pub step: usize,
    /// Whether it changes data.
    pub write: bool,
}

/// Whether subscribers notice that the connection to a shard was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SubscriptionLoss {
    /// They are disconnected, as one Redis would do it: they may have missed messages.
    #[default]
    Disconnect,
    /// The subscription is renewed silently.
    Resubscribe,
}

/// A store whose leaves are all Redis servers: requests are forwarded.
#[derive(Debug)]
pub struct ForwardStore {
    /// The way from a key to a leaf.
    pub topology: Topology<Arc<RespLeaf>>,
    /// See [`MultiKey`].
    pub multi_key: MultiKey,
    /// Commands of modules, by lower-case name.
    pub modules: BTreeMap<String, ModuleCommand>,
    /// See [`SubscriptionLoss`].
    pub subscription_loss: SubscriptionLoss,
    /// What its clients are subscribed to.
    pub roster: Arc<Roster>,
    /// The scripts its clients have shown.
    pub scripts: Arc<Scripts>,
}

/// What stands behind a listener.
#[derive(Clone, Debug)]
pub enum RespBackend {
    /// Redis servers only.
    Forward(Arc<ForwardStore>),
    /// Some member is no Redis: the portable set.
    Portable(Arc<dyn KvStore>),
}

/// One Redis listener, the same on every worker.
#[derive(Clone, Debug)]
pub struct RespListener {
    /// Its name in the configuration.
    pub name: String,
    /// What stands behind it.
    pub backend: RespBackend,
    /// Users and limits.
    pub settings: Arc<SharedSettings>,
    /// Its clients, of all workers.
    pub clients: Arc<ClientRoster>,
    /// Its slow requests, of all workers.
    pub slow: Arc<SlowLog>,
    /// Where metrics go.
    pub registry: Registry,
    /// The gateway's way out.
    pub drain: Drain,
}
