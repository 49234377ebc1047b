//! What a memcached listener is told. Values only; the binary makes them from the configuration.
//!
//! Invariant: nothing here changes while the listener runs, except what `settings` shares.

use std::sync::Arc;

use breccia_net::drain::Drain;
use breccia_net::metrics::Registry;

use super::leaf::MemcachedLeaf;
use crate::front::settings::SharedSettings;
use crate::store::KvStore;
use crate::topology::Topology;

/// What stands behind a listener.
#[derive(Clone, Debug)]
pub enum MemcachedBackend {
    /// memcached servers only: bytes pass through.
    Forward(Arc<Topology<Arc<MemcachedLeaf>>>),
    /// Some member is no memcached. All must hold flags and CAS tokens.
    Typed(Arc<dyn KvStore>),
}

/// One memcached listener, the same on every worker.
#[derive(Clone, Debug)]
pub struct MemcachedListener {
    /// Its name in the configuration.
    pub name: String,
    /// What stands behind it.
    pub backend: MemcachedBackend,
    /// Users and limits.
    pub settings: Arc<SharedSettings>,
    /// Where metrics go.
    pub registry: Registry,
    /// The gateway's way out.
    pub drain: Drain,
}
