//! Keeps the markers of the leaves while the gateway runs: one task for each leaf.
//!
//! Not the check of each connection. Invariant: a leaf is accepted only after every marker of it
//! was seen right, and a connection that breaks changes nothing: whoever answers next is looked at
//! anew.

use std::sync::Arc;
use std::time::Duration;

use breccia_config::Plan;
use breccia_core::layout::{Marker, Verdict};
use breccia_kv::identity::Identity;
use breccia_net::layout_store::{LayoutStore, MarkerRecord};
use tokio::sync::mpsc;

use super::{MarkedLeaf, explained_to, look, record, write};
use crate::gateway::{Gateway, Task};
use crate::reach::{Peer, command};

/// How long one look may take.
const LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at a leaf that is not accepted.
const RETRY: Duration = Duration::from_millis(200);
/// How long a start waits for the first looks.
const FIRST_LIMIT: Duration = Duration::from_secs(2);

/// Keeps every marker of the plan from now on, in the runtime this is called in. Returns when each
/// leaf that answers has been looked at once, so that a start is not followed by refusals.
pub(crate) async fn start(
    gateway: &Arc<Gateway>,
    plan: &Plan,
) -> Result<(), breccia_net::NetError> {
    let (looking, mut looked) = mpsc::channel::<()>(1);
    for leaf in MarkedLeaf::all(plan, &gateway.inventory().layouts)? {
        keep(gateway, plan, leaf, looking.clone());
    }
    drop(looking);
    // Nothing is ever sent: it ends when the last keeper has dropped its end.
    let _ = tokio::time::timeout(FIRST_LIMIT, looked.recv()).await;
    Ok(())
}

/// Looks at one leaf where the plan says it is, instead of where it was.
pub(crate) fn follow(
    gateway: &Arc<Gateway>,
    plan: &Plan,
    name: &str,
) -> Result<(), breccia_net::NetError> {
    let leaves = MarkedLeaf::all(plan, &gateway.inventory().layouts)?;
    for leaf in leaves.into_iter().filter(|leaf| leaf.name == name) {
        keep(gateway, plan, leaf, mpsc::channel(1).0);
    }
    Ok(())
}

fn keep(gateway: &Arc<Gateway>, plan: &Plan, leaf: MarkedLeaf, looking: mpsc::Sender<()>) {
    let inventory = gateway.inventory();
    let Some(identity) = inventory.identities.get(&leaf.name) else {
        return;
    };
    let interval = match plan.stores.get(&leaf.name) {
        Some(store) => store.redis().map_or(RETRY, |redis| redis.probe_interval),
        None => RETRY,
    };
    let name = leaf.name.clone();
    let keeper = Keeper {
        identity: Arc::clone(identity),
        gateway: Arc::clone(gateway),
        layouts: Arc::clone(&gateway.layout_store),
        leaf,
        interval,
    };
    gateway
        .tasks
        .start(Task::Markers, &name, keeper.run(looking));
}

struct Keeper {
    leaf: MarkedLeaf,
    identity: Arc<Identity>,
    gateway: Arc<Gateway>,
    layouts: Arc<LayoutStore>,
    interval: Duration,
}

/// A connection, and whether the markers were right on it.
struct Kept {
    peer: Peer,
    watched: bool,
}

/// Why a look ended early.
enum Trouble {
    /// Nothing was learnt of the leaf.
    Connection(String),
    /// The leaf must not be used: the short reason, and the long one for the log.
    Refused(String, String),
}

impl Keeper {
    async fn run(self, looking: mpsc::Sender<()>) {
        // Dropped after the first look.
        let mut first = Some(looking);
        let mut kept = None;
        let mut said = String::new();
        loop {
            let looking = self.round(&mut kept);
            let outcome = match tokio::time::timeout(LIMIT, looking).await {
                Ok(outcome) => outcome,
                Err(_) => Err(Trouble::Connection("it does not answer".to_owned())),
            };
            match outcome {
                Ok(()) => {
                    if !said.is_empty() {
                        tracing::info!(store = self.leaf.name, "the markers are right again");
                        said.clear();
                    }
                    self.identity.accept();
                }
                Err(Trouble::Connection(why)) => {
                    kept = None;
                    if self.identity.refusal().is_some() {
                        self.identity
                            .refuse(&format!("its marker cannot be checked: {why}"));
                    }
                }
                Err(Trouble::Refused(short, long)) => {
                    kept = None;
                    self.identity.refuse(&short);
                    if said != long {
                        tracing::error!(store = self.leaf.name, "{long}");
                        said = long;
                    }
                }
            }
            drop(first.take());
            let accepted = self.identity.refusal().is_none();
            tokio::time::sleep(if accepted { self.interval } else { RETRY }).await;
        }
    }

    /// Looks at every marker once, on the kept connection or a new one.
    async fn round(&self, kept: &mut Option<Kept>) -> Result<(), Trouble> {
        // Taken out meanwhile: a look that is given up leaves no half-read answer.
        let mut own = match kept.take() {
            Some(own) => own,
            None => Kept {
                peer: self.leaf.enter().await.map_err(Trouble::Connection)?,
                watched: false,
            },
        };
        for marker in &self.leaf.markers {
            self.look_at(&mut own, marker).await?;
        }
        own.watched = true;
        *kept = Some(own);
        Ok(())
    }

    async fn look_at(&self, own: &mut Kept, marker: &Marker) -> Result<(), Trouble> {
        let known = record(&self.layouts, &self.leaf.name, marker);
        let seen = look(&mut own.peer, marker, known.as_ref(), own.watched).await;
        let seen = seen.map_err(Trouble::Connection)?;
        let (store, composite) = (&self.leaf.name, marker.layout().composite());
        match &seen.verdict {
            Verdict::Right => {}
            Verdict::Write | Verdict::Replace => {
                let replace = seen.verdict == Verdict::Replace && seen.former_key.is_none();
                let written = write(&mut own.peer, marker, replace).await;
                let written = written.map_err(|why| Trouble::Refused(why.clone(), why))?;
                if !written {
                    // Somebody was faster: the next look shows whose it is.
                    return Err(Trouble::Connection("another gateway marks it".to_owned()));
                }
                if let Some(key) = &seen.former_key {
                    let removed = own.peer.ask(&command(&[b"DEL", key])).await;
                    removed.map_err(Trouble::Connection)?;
                }
                if own.watched {
                    tracing::warn!(store, composite, "the marker was gone; it is written again");
                } else {
                    tracing::info!(
                        store,
                        composite,
                        "the shard carries this layout's marker now"
                    );
                }
            }
            Verdict::Refuse(fault) => {
                let given = self.gateway.given();
                let long = explained_to(given, &self.leaf, marker, fault);
                return Err(Trouble::Refused(fault.to_string(), long));
            }
        }
        self.remember(marker, known.as_ref())
    }

    fn remember(&self, marker: &Marker, known: Option<&MarkerRecord>) -> Result<(), Trouble> {
        let composite = marker.layout().composite();
        let current = MarkerRecord {
            composite: composite.to_owned(),
            digest: marker.digest(),
        };
        if known == Some(&current) {
            return Ok(());
        }
        let recorded = self
            .layouts
            .record_marker(composite, &self.leaf.name, current);
        recorded.map_err(|error| Trouble::Connection(error.to_string()))
    }
}
