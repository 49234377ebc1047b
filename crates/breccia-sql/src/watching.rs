//! How the servers of a cluster are watched, whichever protocol they speak.
//!
//! Not what they are asked, nor what follows from it. Invariant: a question that fails is followed by a
//! pause, and none waits for another server.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use breccia_net::clock;
use breccia_net::health::{EndpointHealth, ProbeConfig, ProbeFailure, probe_loop};

use crate::freshness::Position;
use crate::pause::Gate;
use crate::sampler::{Sample, Sampler};

/// How long positions are asked for that nobody waits for.
const MISSED_PATIENCE: Duration = Duration::from_secs(2);
/// The pause between two questions for the position of one server.
const SAMPLE_PAUSE: Duration = Duration::from_micros(300);
/// The pause after one that failed.
const FAILED_PAUSE: Duration = Duration::from_millis(100);
/// How much of a probe's time is for its question: whoever waits for the probe must not give it up
/// before its silence was noted.
const PROBE_SHARE: f32 = 0.9;

/// Asks a server for ever what it is: at its intervals, and whenever somebody wants it asked anew. `probe`
/// has so long for a question.
pub(crate) async fn watch_role<F, Fut>(
    health: Arc<EndpointHealth>,
    gate: &Gate,
    probes: ProbeConfig,
    probe: F,
) where
    F: Fn(Duration) -> Fut,
    Fut: Future<Output = Result<(), ProbeFailure>>,
{
    let patience = probes.timeout.mul_f32(PROBE_SHARE);
    let once = || probe(patience);
    // A probe under way ends first: what is noted last was asked last. The health is for the prober to tell.
    let asks = gate.questions.carry_out(once);
    tokio::join!(probe_loop(health, probes, once), asks);
}

/// A question for a server's position has ended; `None`: it failed. Returns when the next may begin.
pub(crate) async fn sampled<P: Position>(sampler: &Sampler<P>, sample: Option<Sample<P>>) {
    let pause = if let Some(sample) = sample {
        sampler.publish(sample);
        SAMPLE_PAUSE
    } else {
        FAILED_PAUSE
    };
    tokio::time::sleep(pause).await;
}

/// Asks for positions that a read did not find in time: the primary's, then the replicas', which may
/// have come up to it by then.
pub(crate) async fn chase<'a, P: Position + 'a>(
    primary: Option<&Sampler<P>>,
    replicas: impl Iterator<Item = &'a Sampler<P>>,
) {
    if let Some(primary) = primary {
        let _ = primary.from_now(clock::now() + MISSED_PATIENCE).await;
    }
    for replica in replicas {
        replica.ask(replica.ticket());
    }
}
