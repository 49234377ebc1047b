//! The thread on which typed stores speak to servers. Connections belong to one thread and stores
//! to all: requests come here over a bounded queue, replies go back over a one-shot channel.
//!
//! Not the forwarding path, where each worker has connections of its own. Invariant: one request is
//! one entry of the connection's queue, whole or not at all, so a transaction that needs several
//! commands can never be left half-sent on a shared connection.

use std::sync::Arc;
use std::time::Duration;

use breccia_core::address::Address;
use breccia_core::error::Effect;
use breccia_net::clock;
use breccia_net::health::{EndpointHealth, ProbeConfig, ProbeFailure, probe_loop};
use breccia_net::stream::{Stream, connect};
use breccia_net::tls::TlsClient;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::error::KvError;
use crate::pipeline::{Cause, Failure, Patience, PipelineLimits, Recipient};
use crate::upstream::{Upstream, UpstreamOptions, Wire};

/// What the thread is asked to do: it starts tasks there.
type Errand = Box<dyn FnOnce() + Send>;

/// A thread that holds the connections of typed stores. One is enough for a process.
#[derive(Clone, Debug)]
pub struct KvIo {
    errands: mpsc::UnboundedSender<Errand>,
}

/// Limits of a connection's queue, as the configuration has them by default.
pub const DEFAULT_LIMITS: PipelineLimits = PipelineLimits {
    stall_gate: Duration::from_millis(50),
    timeout: Duration::from_secs(5),
    max_in_flight: 16_384,
    max_unsent_bytes: 64 << 20,
};

/// How often and how long a store probes its endpoint by itself.
pub(crate) const PROBES: ProbeConfig = ProbeConfig {
    interval: Duration::from_secs(1),
    timeout: Duration::from_millis(500),
};

/// Requests that may wait between a store and its connection's own queue.
const WAITING_REQUESTS: usize = 4096;

impl KvIo {
    /// Starts the thread. It ends, with all its connections, when the last clone and the last store
    /// that uses it are dropped.
    ///
    /// # Errors
    /// When the system gives no thread or no event queue.
    pub fn start() -> std::io::Result<Self> {
        let (errands, queue) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::Builder::new()
            .name("breccia-kv-io".into())
            .spawn(move || {
                tokio::task::LocalSet::new().block_on(&runtime, run(queue));
            })?;
        Ok(Self { errands })
    }

    /// Runs an errand there.
    pub(crate) fn run(&self, errand: Errand) {
        // If the thread is gone, so is whatever the errand holds, and its users learn of that.
        let _ = self.errands.send(errand);
    }

    /// Opens a connection, or rather a way to one: it is made when first used.
    pub(crate) fn open<W: Wire>(&self, options: UpstreamOptions, deadline: Duration) -> Lane<W>
    where
        W::Shape: Send,
    {
        let (sender, receiver) = mpsc::channel(WAITING_REQUESTS);
        let name: Arc<str> = options.name.as_str().into();
        let errand: Errand = Box::new(move || {
            tokio::task::spawn_local(serve::<W>(receiver, options));
        });
        self.run(errand);
        Lane {
            name,
            sender,
            deadline,
            _io: self.clone(),
        }
    }
}

/// What a typed store's endpoint is asked to find out whether it lives.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    pub(crate) address: Address,
    pub(crate) tls: Option<TlsClient>,
    /// Any answer to it shows life.
    pub(crate) question: &'static [u8],
    pub(crate) config: ProbeConfig,
}

/// Keeps an endpoint's probes going until it is dropped.
#[derive(Debug)]
pub(crate) struct Probing {
    _until_dropped: oneshot::Sender<()>,
}

impl KvIo {
    /// Probes an endpoint from now on.
    pub(crate) fn watch(&self, health: &Arc<EndpointHealth>, probe: Probe) -> Probing {
        let (sender, dropped) = oneshot::channel::<()>();
        let health = Arc::clone(health);
        let errand: Errand = Box::new(move || {
            tokio::task::spawn_local(async move {
                tokio::select! {
                    () = probe_for_ever(health, probe) => {}
                    _ = dropped => {}
                }
            });
        });
        self.run(errand);
        Probing {
            _until_dropped: sender,
        }
    }
}

async fn probe_for_ever(health: Arc<EndpointHealth>, probe: Probe) {
    let connection: Mutex<Option<Stream>> = Mutex::new(None);
    let once = || async {
        let mut held = connection.lock().await;
        // Taken out while it is used: a probe that is dropped half-way leaves none behind.
        let mut stream = match held.take() {
            Some(stream) => stream,
            None => connect(&probe.address, probe.tls.as_ref(), probe.config.timeout)
                .await
                .map_err(|error| ProbeFailure::Connect(error.to_string()))?,
        };
        let lost = |error: std::io::Error| ProbeFailure::Connect(error.to_string());
        stream.write_all(probe.question).await.map_err(lost)?;
        stream.flush().await.map_err(lost)?;
        let mut answer = [0; 256];
        if stream.read(&mut answer).await.map_err(lost)? == 0 {
            return Err(ProbeFailure::Connect("it closed the connection".into()));
        }
        *held = Some(stream);
        Ok(())
    };
    probe_loop(health, probe.config, once).await;
}

async fn run(mut queue: mpsc::UnboundedReceiver<Errand>) {
    while let Some(errand) = queue.recv().await {
        errand();
    }
}

async fn serve<W: Wire>(mut requests: mpsc::Receiver<Request<W::Shape>>, options: UpstreamOptions) {
    let upstream = Upstream::<W, Answer>::open(options, None);
    while let Some(Request {
        bytes,
        shape,
        answer,
        expires,
    }) = requests.recv().await
    {
        let write = |out: &mut Vec<u8>| out.extend_from_slice(&bytes);
        let queued = upstream.enqueue(answer, shape, expires, Patience::Timeout, write);
        if let Err((answer, failure)) = queued {
            answer.fail(&failure);
        }
    }
    upstream.close();
}

struct Request<S> {
    bytes: Vec<u8>,
    shape: S,
    answer: Answer,
    expires: std::time::Instant,
}

/// Gives a reply, or why there is none, to the store that waits.
struct Answer(oneshot::Sender<Result<Bytes, Failure>>);

impl Recipient for Answer {
    fn deliver(self, reply: &[u8]) {
        let _ = self.0.send(Ok(Bytes::copy_from_slice(reply)));
    }

    fn fail(self, failure: &Failure) {
        let _ = self.0.send(Err(failure.clone()));
    }

    fn abandoned(&self) -> bool {
        self.0.is_closed()
    }
}

/// A way to one connection.
pub(crate) struct Lane<W: Wire> {
    name: Arc<str>,
    sender: mpsc::Sender<Request<W::Shape>>,
    deadline: Duration,
    /// Keeps the thread running.
    _io: KvIo,
}

impl<W: Wire> std::fmt::Debug for Lane<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A reply that is on its way.
pub(crate) struct Pending {
    name: Arc<str>,
    receiver: Result<oneshot::Receiver<Result<Bytes, Failure>>, Failure>,
}

impl<W: Wire> Lane<W> {
    /// Sends a request. Requests are sent in the order of these calls; the replies may be awaited
    /// in any order, and a reply nobody awaits any more is thrown away when it comes.
    pub(crate) fn send(&self, bytes: Vec<u8>, shape: W::Shape) -> Pending {
        let (sender, receiver) = oneshot::channel();
        let expires = clock::now() + self.deadline;
        let request = Request {
            bytes,
            shape,
            answer: Answer(sender),
            expires,
        };
        let sent = self.sender.try_send(request).map_err(|error| {
            let text = match error {
                mpsc::error::TrySendError::Full(_) => "too many requests wait",
                mpsc::error::TrySendError::Closed(_) => "the connections' thread has ended",
            };
            Failure {
                cause: Cause::Full(text.into()),
                effect: Effect::NotApplied,
            }
        });
        Pending {
            name: Arc::clone(&self.name),
            receiver: sent.map(|()| receiver),
        }
    }
}

impl Pending {
    /// Waits for the reply, exactly as it came.
    pub(crate) async fn reply(self) -> Result<Bytes, KvError> {
        let answer = match self.receiver {
            Ok(receiver) => receiver.await.unwrap_or_else(|_| {
                let cause = Cause::Lost("the connections' thread has ended".into());
                Err(Failure {
                    cause,
                    effect: Effect::Unknown,
                })
            }),
            Err(failure) => Err(failure),
        };
        answer.map_err(|failure| error_of(&self.name, failure))
    }
}

/// A failure of the connection, as the store's error.
fn error_of(store: &str, failure: Failure) -> KvError {
    let store = store.to_owned();
    let effect = failure.effect;
    match failure.cause {
        Cause::Down(reason) => KvError::Down {
            store,
            reason: reason.to_string(),
            effect,
        },
        Cause::Lost(reason) | Cause::LargeReply(reason) => KvError::Lost {
            store,
            reason: reason.to_string(),
            effect,
        },
        Cause::Deadline => KvError::Deadline { store },
        Cause::Timeout => KvError::Timeout { store, effect },
        Cause::Full(limit) => KvError::Overloaded {
            store,
            limit: limit.to_string(),
        },
    }
}
