//! Clusters of PostgreSQL servers as the rest of the gateway sees them.
//!
//! Not a decision about a server: those are the cluster's own. Invariant: as in [`super`].

use std::sync::atomic::Ordering;

use breccia_sql::consistency::Consistency;
use breccia_sql::pause::Gates;
use breccia_sql::postgres::cluster::{Cluster, Server};

use super::{Lag, Now, PoolNow, ServerNow, SqlCluster, Told, alike};

impl SqlCluster for Cluster {
    alike!();

    fn now(&self) -> Now {
        let view = self.view();
        let servers = self.servers.iter().enumerate().map(|(number, server)| {
            let lag = self.lag(number).map(|(lag, bytes)| Lag {
                seconds: lag.as_secs(),
                bytes: Some(bytes),
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
            // What is in recovery is a replica.
            shut: false,
            about: vec![
                ("timeline", view.timeline.into()),
                // A text: JSON's numbers are not this long everywhere.
                ("system", view.system.to_string().into()),
            ],
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
                    role: pool.login().role.clone(),
                    of: vec![("database", Told::Text(pool.login().database.clone()))],
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
        if report.recovery {
            return Err(
                "it is a replica; promote it first (pg_promote), then it is found by itself"
                    .to_owned(),
            );
        }
        let known = self.view().system;
        if known != 0 && report.system != known {
            return Err("it belongs to another cluster (its system identifier differs)".to_owned());
        }
        Ok(())
    }

    fn left_behind(&self, server: usize) -> Option<String> {
        let view = self.view();
        let timeline = self.server(server)?.report()?.timeline?;
        (timeline < view.timeline).then(|| {
            format!(
                "it is on the older timeline {timeline}: what was committed on timeline {} is not \
                 there; if that was no intention, name the other server again at once",
                view.timeline
            )
        })
    }
}
