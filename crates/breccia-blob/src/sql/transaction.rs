//! Units of work: run whole, retried while that is harmless, told truthfully when not.
//!
//! Not what they do. Invariant: nothing is tried again once its COMMIT was sent, unless the server
//! itself said that it was undone.

use std::future::Future;
use std::time::{Duration, Instant};

use breccia_core::error::Effect;
use breccia_net::clock;

use super::driver::{Answer, Value};
use super::fault::Fault;
use super::pool::{Purpose, Session};
use super::statements::Query;
use super::store::Inner;
use crate::error::BlobError;

/// How often a unit of work is tried that the server undoes because of others.
const MAX_ATTEMPTS: u32 = 10;
/// The first pause between two attempts at most; it doubles.
const FIRST_PAUSE_MS: u64 = 8;
/// How often the pause doubles.
const MAX_DOUBLINGS: u32 = 6;

/// What is done in one transaction. It may be run several times, each time after an undoing.
pub(crate) trait Work: Sync {
    /// What comes of it.
    type Output: Send;

    /// Does it. An error undoes everything.
    fn run(
        &self,
        session: &mut Session,
    ) -> impl Future<Output = Result<Self::Output, Fault>> + Send;
}

struct Failure {
    fault: Fault,
    /// The COMMIT may have been carried out.
    open: bool,
    /// The connection may have been dead before it was used.
    stale: bool,
}

impl Inner {
    /// Runs a unit of work.
    pub(crate) async fn transact<W: Work>(&self, work: &W) -> Result<W::Output, BlobError> {
        self.ready().await?;
        let begun = clock::now();
        let mut attempt = 0;
        loop {
            let failure = match self.attempt(work).await {
                Ok(output) => return Ok(output),
                Err(failure) => failure,
            };
            attempt += 1;
            if failure.open {
                return Err(failure.fault.into_error(&self.name, Effect::Unknown));
            }
            if attempt >= MAX_ATTEMPTS || !self.may_retry(&failure.fault, failure.stale, begun) {
                return Err(failure.fault.into_error(&self.name, Effect::NotApplied));
            }
            if matches!(failure.fault, Fault::Busy) {
                pause(attempt).await;
            }
        }
    }

    async fn attempt<W: Work>(&self, work: &W) -> Result<W::Output, Failure> {
        let early = |fault, stale| Failure {
            fault,
            open: false,
            stale,
        };
        let acquired = self.pool.acquire(Purpose::Write).await;
        let mut session = acquired.map_err(|fault| early(fault, false))?;
        let stale = session.reused();
        let done = async {
            session.begin().await?;
            work.run(&mut session).await
        };
        match done.await {
            Ok(output) => match session.commit().await {
                Ok(()) => Ok(output),
                Err(fault) => {
                    session.rollback().await;
                    let open = fault.leaves_commit_open(self.pool.dialect());
                    Err(Failure {
                        fault,
                        open,
                        stale: false,
                    })
                }
            },
            Err(fault) => {
                session.rollback().await;
                Err(early(fault, stale))
            }
        }
    }

    /// Runs one statement that reads, or whose repetition changes nothing.
    pub(crate) async fn ask(&self, query: Query, values: Vec<Value>) -> Result<Answer, BlobError> {
        self.ready().await?;
        self.repeat(Purpose::Read, query, values, Effect::NotApplied)
            .await
    }

    /// Runs one write by itself. Only for rows that nobody sees yet, and that may be written twice
    /// or not at all without harm; the effect told is that of the request it belongs to.
    pub(crate) async fn write(
        &self,
        query: Query,
        values: Vec<Value>,
        effect: Effect,
    ) -> Result<Answer, BlobError> {
        self.ready().await?;
        self.repeat(Purpose::Write, query, values, effect).await
    }

    async fn repeat(
        &self,
        purpose: Purpose,
        query: Query,
        values: Vec<Value>,
        effect: Effect,
    ) -> Result<Answer, BlobError> {
        let begun = clock::now();
        let mut attempt = 0;
        loop {
            let (mut stale, mut sent) = (false, false);
            let once = async {
                let mut session = self.pool.acquire(purpose).await?;
                stale = session.reused();
                if purpose == Purpose::Write && session.is_doubtful() {
                    session.run(Query::Probe, Vec::new()).await?;
                }
                sent = true;
                session.run(query, values.clone()).await
            };
            let fault = match once.await {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
            attempt += 1;
            // A write that broke off may have been done: only reads are asked again then.
            let again = purpose == Purpose::Read || !sent || matches!(fault, Fault::Busy);
            if attempt >= MAX_ATTEMPTS || !again || !self.may_retry(&fault, stale, begun) {
                let effect = if sent { effect } else { Effect::NotApplied };
                return Err(fault.into_error(&self.name, effect));
            }
            if matches!(fault, Fault::Busy) {
                pause(attempt).await;
            }
        }
    }

    fn may_retry(&self, fault: &Fault, stale: bool, begun: Instant) -> bool {
        if clock::now().duration_since(begun) >= self.options.timeout {
            return false;
        }
        match fault {
            Fault::Busy => true,
            Fault::Lost(_) if stale => {
                self.pool.forget_idle();
                true
            }
            _ => false,
        }
    }
}

async fn pause(attempt: u32) {
    let longest = FIRST_PAUSE_MS << attempt.min(MAX_DOUBLINGS);
    let pause_ms = clock::seed() % longest;
    tokio::time::sleep(Duration::from_millis(pause_ms)).await;
}
