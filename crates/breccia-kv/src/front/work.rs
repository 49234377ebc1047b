//! A request that is answered by a future: the one thing a client may wait for besides shards.
//!
//! Not a queue: a client has at most one, so its order is kept whatever the store is. Invariant: a
//! future that is ready at once costs no wake-up.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::client::Client;

/// The future a client waits for, if any.
#[derive(Default)]
pub(crate) struct Work(Option<Pin<Box<dyn Future<Output = ()>>>>);

impl Work {
    /// Starts a future. If it is not ready at once it is polled again in the client's next turn.
    pub(crate) fn start(&mut self, client: &Client, future: impl Future<Output = ()> + 'static) {
        let mut future: Pin<Box<dyn Future<Output = ()>>> = Box::pin(future);
        if future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            == Poll::Pending
        {
            self.0 = Some(future);
            client.wake();
        }
    }

    /// Whether a future is not ready yet.
    pub(crate) fn is_busy(&self) -> bool {
        self.0.is_some()
    }

    /// Lets the future go on.
    pub(crate) fn advance(&mut self, context: &mut Context<'_>) {
        if let Some(future) = &mut self.0
            && future.as_mut().poll(context).is_ready()
        {
            self.0 = None;
        }
    }

    /// Gives the future up.
    pub(crate) fn stop(&mut self) {
        self.0 = None;
    }
}
