//! Probes of a cluster's servers: one task for each.
//!
//! Invariant: any answer shows life, also that the login is wrong, or that a script runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use breccia_net::health::{ProbeConfig, ProbeFailure, probe_loop};
use tokio::sync::Mutex;
use tokio::task::AbortHandle;

use super::super::asker::Asker;
use super::Server;

/// The tasks, by the server's number. They end with the value.
#[derive(Default)]
pub(in super::super) struct Probes(BTreeMap<u16, AbortHandle>);

impl Probes {
    /// Probes these, and nobody else, from now on.
    pub(in super::super) fn follow(&mut self, servers: &[Arc<Server>], config: ProbeConfig) {
        self.0.retain(|number, task| {
            let stays = servers.iter().any(|server| server.number == *number);
            if !stays {
                task.abort();
            }
            stays
        });
        for server in servers {
            self.0
                .entry(server.number)
                .or_insert_with(|| start(Arc::clone(server), config));
        }
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.0.values().for_each(AbortHandle::abort);
    }
}

fn start(server: Arc<Server>, config: ProbeConfig) -> AbortHandle {
    let health = Arc::clone(server.endpoint.health());
    // Taken out while a question is open: a probe that is given up leaves no half-read answer.
    let kept: Arc<Mutex<Option<Asker>>> = Arc::default();
    let probe = move || {
        let (server, kept) = (Arc::clone(&server), Arc::clone(&kept));
        async move {
            let mut kept = kept.lock().await;
            if let Some(mut asker) = kept.take()
                && answers(&asker.ask(&[b"PING"]).await)
            {
                *kept = Some(asker);
                return Ok(());
            }
            let place = server.endpoint.current().terms.place.clone();
            let mut asker = match Asker::enter(&place).await {
                Ok(asker) => asker,
                Err(why) if why.starts_with("answers ") => return Ok(()),
                Err(why) => return Err(ProbeFailure::Connect(why)),
            };
            let answer = asker.ask(&[b"PING"]).await;
            if !answers(&answer) {
                return Err(ProbeFailure::Connect(answer.err().unwrap_or_default()));
            }
            *kept = Some(asker);
            Ok(())
        }
    };
    tokio::spawn(probe_loop(health, config, probe)).abort_handle()
}

fn answers(answer: &Result<Vec<u8>, String>) -> bool {
    match answer {
        Ok(_) => true,
        Err(why) => why.starts_with("answers "),
    }
}
