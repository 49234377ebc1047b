//! Clusters of MySQL and MariaDB servers as the rest of the gateway sees them.
//!
//! Not a decision about a server: those are the cluster's own. Invariant: as in [`super`].

use std::sync::atomic::Ordering;

use breccia_sql::consistency::Consistency;
use breccia_sql::freshness::Position as _;
use breccia_sql::mysql::cluster::{Cluster, Server};
use breccia_sql::mysql::upstream::Login;
use breccia_sql::pause::Gates;

use super::{Lag, Now, PoolNow, ServerNow, SqlCluster, Told, alike};

impl SqlCluster for Cluster {
    alike!();

    fn now(&self) -> Now {
        let view = self.view();
        let servers = self.servers.iter().enumerate().map(|(number, server)| {
            let lag = self.lag(number).map(|lag| Lag {
                seconds: lag.as_secs(),
                // GTIDs do not count them.
                bytes: None,
            });
            ServerNow {
                name: server.name().to_owned(),
                is_replica: view.replicas.contains(&number),
                down: server.options.health.down().map(|it| it.text.clone()),
                drained: server.drained.load(Ordering::Relaxed),
                paused: server.is_paused(),
                running: server.running(),
                lag,
                unused: self.unused(&view, number),
            }
        });
        Now {
            primary: view.primary.clone(),
            servers: servers.collect(),
            epoch: view.epoch,
            shut: view.shut,
            about: vec![("position", self.position().to_string().into())],
        }
    }

    fn pools(&self) -> Vec<PoolNow> {
        let mut pools: Vec<PoolNow> = Self::pools(self)
            .into_iter()
            .map(|pool| {
                let (idle, open) = pool.counts();
                PoolNow {
                    listener: pool.listener().to_owned(),
                    server: pool.endpoint().name.clone(),
                    role: pool.login().user.clone(),
                    of: kind_of(pool.login()),
                    read_only: pool.login().read_only,
                    counts: (idle, open, pool.waiting()),
                }
            })
            .collect();
        pools.sort();
        pools
    }

    fn claims(&self, server: usize) -> Result<(), String> {
        let report = self.server(server).and_then(Server::report);
        let report = report.ok_or("it does not answer; start it, or name another")?;
        if report.is_replica() {
            return Err(
                "it is a replica; promote it first (STOP SLAVE and RESET SLAVE ALL, then SET \
                 GLOBAL read_only = OFF), then it is found by itself"
                    .to_owned(),
            );
        }
        if report.read_only {
            return Err("it refuses writes: SET GLOBAL read_only = OFF there first".to_owned());
        }
        Ok(())
    }

    fn left_behind(&self, server: usize) -> Option<String> {
        let position = self.server(server)?.report()?.position;
        let known = self.position();
        (self.view().epoch != 0 && !position.covers(&known)).then(|| {
            format!(
                "it is at {position}, and the primary was seen at {known}: what it lacks of that is \
                 not there; if that was no intention, name the other server again at once"
            )
        })
    }
}

/// What clients asked for at their login that keeps their connections apart from others'.
fn kind_of(login: &Login) -> Vec<(&'static str, Told)> {
    let capabilities = format!("{:#x}", login.capabilities);
    vec![
        ("capabilities", Told::Text(capabilities)),
        ("collation", Told::Number(login.collation)),
        ("with_schema", Told::Yes(login.with_schema)),
    ]
}
