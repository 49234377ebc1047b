//! The pools of a cluster: one for each listener, server and login.
//!
//! Not a pool itself ([`crate::pool`]). Invariant: a pool is forgotten only once nobody holds it and it
//! has no connection.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::pool::{Pool, PoolLimits, Wire};

/// A listener's name, a server's number, and a login there.
type Of<W> = (String, usize, <W as Wire>::Login);

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Pools<W: Wire>(Mutex<HashMap<Of<W>, Arc<Pool<W>>>>);

impl<W: Wire> Default for Pools<W> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<W: Wire> Pools<W>
where
    W::Login: Clone + Eq + Hash,
{
    /// The pool of a login on a server, for the listener whose limits these are; one that is `new` if
    /// there was none.
    pub(crate) fn get(
        &self,
        server: usize,
        login: W::Login,
        limits: &Arc<PoolLimits>,
        new: impl FnOnce(W::Login) -> Pool<W>,
    ) -> Arc<Pool<W>> {
        let mut pools = self.lock();
        let key = (limits.listener().to_owned(), server, login.clone());
        let pool = pools.entry(key).or_insert_with(|| Arc::new(new(login)));
        Arc::clone(pool)
    }

    /// Every pool.
    pub(crate) fn all(&self) -> Vec<Arc<Pool<W>>> {
        self.lock().values().map(Arc::clone).collect()
    }

    /// Lets pools follow their limits, closes what is idle for long, and forgets pools nobody uses: of
    /// logins that failed, say.
    pub(crate) fn tidy(&self) {
        self.all().iter().for_each(|pool| pool.tidy());
        let used = |pool: &Arc<Pool<W>>| Arc::strong_count(pool) > 1 || pool.counts().1 > 0;
        self.lock().retain(|_, pool| used(pool));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Of<W>, Arc<Pool<W>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
