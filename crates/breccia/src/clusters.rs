//! Clusters of SQL servers, whichever protocol they speak: what is shown of them, and how they are
//! steered.
//!
//! Not the way of a statement: sessions know their own cluster. Invariant: nothing here holds a secret,
//! and whoever shows or steers a cluster need not know its protocol.

mod mysql;
mod postgresql;

use std::fmt::Debug;
use std::ops::Deref;
use std::sync::Arc;

use breccia_sql::consistency::Consistency;
use breccia_sql::mysql::cluster::Cluster as MysqlCluster;
use breccia_sql::pause::Gates;
use breccia_sql::postgres::cluster::Cluster as PostgresCluster;
use serde_json::Value;

/// A cluster at one moment.
#[derive(Debug)]
pub(crate) struct Now {
    /// The primary; `Err`: why there is none, and what to do.
    pub(crate) primary: Result<usize, String>,
    /// Every server, by its number.
    pub(crate) servers: Vec<ServerNow>,
    /// Grows with every change of the primary.
    pub(crate) epoch: u64,
    /// The primary says that it takes no writes.
    pub(crate) shut: bool,
    /// What only servers of this protocol have, for `/status`.
    pub(crate) about: Vec<(&'static str, Value)>,
}

/// A server at one moment.
#[derive(Debug)]
pub(crate) struct ServerNow {
    /// The store's name.
    pub(crate) name: String,
    /// Whether it may serve reads, for all that is known of its data.
    pub(crate) is_replica: bool,
    /// Why it cannot be reached.
    pub(crate) down: Option<String>,
    /// Whether an administrator took it out of the choice.
    pub(crate) drained: bool,
    /// Whether an administrator paused it by itself.
    pub(crate) paused: bool,
    /// Statements and transactions that run there.
    pub(crate) running: usize,
    /// How far it is behind, at least.
    pub(crate) lag: Option<Lag>,
    /// Why it takes no statements.
    pub(crate) unused: Option<String>,
}

/// How far a replica is behind, at least.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lag {
    /// In whole seconds.
    pub(crate) seconds: u64,
    /// In bytes, where positions are counted in them.
    pub(crate) bytes: Option<u64>,
}

impl ServerNow {
    /// Whether it takes statements, if it is a replica or the primary.
    pub(crate) fn is_able(&self) -> bool {
        self.down.is_none() && !self.drained && !self.paused
    }
}

/// A pool at one moment. The order is that of the page.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PoolNow {
    /// The listener it is of.
    pub(crate) listener: String,
    /// The server it leads to.
    pub(crate) server: String,
    /// Who its connections are logged in as.
    pub(crate) role: String,
    /// What else tells its connections from others': names and values.
    pub(crate) of: Vec<(&'static str, Told)>,
    /// Whether they refuse writes.
    pub(crate) read_only: bool,
    /// Connections that are idle, all that are open, and sessions that wait for one.
    pub(crate) counts: (usize, usize, usize),
}

/// A value of what tells pools apart.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Told {
    /// A name, say.
    Text(String),
    /// A number.
    Number(u8),
    /// Whether something is so.
    Yes(bool),
}

impl From<Told> for Value {
    fn from(told: Told) -> Self {
        match told {
            Told::Text(text) => text.into(),
            Told::Number(number) => number.into(),
            Told::Yes(yes) => yes.into(),
        }
    }
}

/// What can be seen of a cluster and done to it. A server is a number below that of all servers.
pub(crate) trait SqlCluster: Debug + Send + Sync {
    /// The composite's name.
    fn name(&self) -> &str;
    /// How fresh reads are.
    fn consistency(&self) -> Consistency;
    /// All that is known of it.
    fn now(&self) -> Now;
    /// The names of its servers.
    fn server_names(&self) -> Vec<&str>;
    /// What administrators hold back.
    fn gates(&self) -> &Gates;
    /// What runs on a server, or on all.
    fn running(&self, server: Option<usize>) -> usize;
    /// Takes a server out of the choice for reads; `false`: back into it.
    fn drain(&self, server: usize, drained: bool);
    /// Its pools, in order.
    fn pools(&self) -> Vec<PoolNow>;
    /// Closes the connections to a server, or to all, that nobody uses.
    fn close_idle(&self, server: Option<usize>);
    /// Names the primary among several claimants; `None`: no more.
    fn name_primary(&self, server: Option<usize>);
    /// Whether a server says that it is a primary of what is known; else why not.
    fn claims(&self, server: usize) -> Result<(), String>;
    /// What clients lose sight of if this server is followed, which may be what somebody wants.
    fn left_behind(&self, server: usize) -> Option<String>;
}

/// A cluster with the protocol it speaks.
#[derive(Debug, Clone)]
pub(crate) enum AnyCluster {
    /// Of `PostgreSQL` servers.
    Postgresql(Arc<PostgresCluster>),
    /// Of `MySQL` or `MariaDB` servers.
    Mysql(Arc<MysqlCluster>),
}

impl Deref for AnyCluster {
    type Target = dyn SqlCluster;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Postgresql(cluster) => cluster.as_ref(),
            Self::Mysql(cluster) => cluster.as_ref(),
        }
    }
}

/// The part of [`SqlCluster`] that reads alike for the clusters of every protocol.
macro_rules! alike {
    () => {
        fn name(&self) -> &str {
            &self.options.name
        }

        fn consistency(&self) -> Consistency {
            self.options.consistency
        }

        fn server_names(&self) -> Vec<&str> {
            self.servers.iter().map(|server| server.name()).collect()
        }

        fn gates(&self) -> &Gates {
            Self::gates(self)
        }

        fn running(&self, server: Option<usize>) -> usize {
            match server {
                Some(number) => self.server(number).map_or(0, |server| server.running()),
                None => self.servers.iter().map(|server| server.running()).sum(),
            }
        }

        fn drain(&self, server: usize, drained: bool) {
            if let Some(server) = self.server(server) {
                server.drained.store(drained, Ordering::Relaxed);
            }
        }

        fn close_idle(&self, server: Option<usize>) {
            let name = server
                .and_then(|number| self.server(number))
                .map(|it| it.name());
            for pool in Self::pools(self) {
                if server.is_none() || name == Some(pool.endpoint().name.as_str()) {
                    pool.close_idle();
                }
            }
        }

        fn name_primary(&self, server: Option<usize>) {
            Self::name_primary(self, server);
        }
    };
}
use alike;
