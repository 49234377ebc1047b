//! Futures of one kind, one after the other, in one place in memory.
//!
//! HTTP/1.1 answers a connection's requests one by one, and the future of an answer has some
//! kilobytes: a box for each would be most of what a small request allocates. Invariant: a place
//! that is lent is empty, and comes back empty.

use std::cell::Cell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

type Place<F> = Pin<Box<Option<F>>>;

/// Makes a future for each request of a connection, in the place of the one before.
pub(super) struct Handler<M, F> {
    make: M,
    spare: Rc<Cell<Option<Place<F>>>>,
}

impl<M, F> Handler<M, F> {
    pub(super) fn new(make: M) -> Self {
        Self {
            make,
            spare: Rc::default(),
        }
    }
}

impl<M, F> fmt::Debug for Handler<M, F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Handler").finish_non_exhaustive()
    }
}

impl<R, M, F, T, E> hyper::service::Service<R> for Handler<M, F>
where
    M: Fn(R) -> F,
    F: Future<Output = Result<T, E>>,
{
    type Response = T;
    type Error = E;
    type Future = Answering<F>;

    fn call(&self, request: R) -> Self::Future {
        let mut place = self.spare.take().unwrap_or_else(|| Box::pin(None));
        place.set(Some((self.make)(request)));
        Answering {
            place: Some(place),
            spare: Rc::clone(&self.spare),
        }
    }
}

/// A future in the place of its connection.
pub(super) struct Answering<F> {
    place: Option<Place<F>>,
    spare: Rc<Cell<Option<Place<F>>>>,
}

impl<F: Future> Future for Answering<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let running = self.place.as_mut().and_then(|it| it.as_mut().as_pin_mut());
        running.map_or(Poll::Pending, |running| running.poll(context))
    }
}

impl<F> Drop for Answering<F> {
    fn drop(&mut self) {
        if let Some(mut place) = self.place.take() {
            place.set(None);
            self.spare.set(Some(place));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::service::Service as _;

    #[test]
    fn each_request_has_its_own_answer_also_after_one_that_was_given_up() {
        let waker = std::task::Waker::noop();
        let mut context = Context::from_waker(waker);
        let handler = Handler::new(|number: u32| async move {
            if number == 0 {
                std::future::pending::<()>().await;
            }
            Ok::<_, ()>(number)
        });
        let mut given_up = handler.call(0);
        assert!(Pin::new(&mut given_up).poll(&mut context).is_pending());
        let mut beside = handler.call(7);
        drop(given_up);
        assert_eq!(Pin::new(&mut beside).poll(&mut context), Poll::Ready(Ok(7)));
        drop(beside);
        let mut next = handler.call(8);
        assert_eq!(Pin::new(&mut next).poll(&mut context), Poll::Ready(Ok(8)));
    }
}
