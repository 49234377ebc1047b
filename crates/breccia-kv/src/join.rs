//! Waits for several futures at once. Not an executor: they run where the waiter runs, and nothing
//! is spawned. Invariant: results come in the order of the futures.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// A future in a box, as stores return them.
type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

enum Slot<'a, T> {
    Waiting(Boxed<'a, T>),
    Ready(T),
}

/// Waits for all of them.
pub(crate) async fn all<T: Send + Unpin>(futures: Vec<Boxed<'_, T>>) -> Vec<T> {
    let mut slots: Vec<Slot<'_, T>> = futures.into_iter().map(Slot::Waiting).collect();
    poll_fn(|context| {
        let mut waiting = false;
        for slot in &mut slots {
            if let Slot::Waiting(future) = slot {
                match future.as_mut().poll(context) {
                    Poll::Ready(value) => *slot = Slot::Ready(value),
                    Poll::Pending => waiting = true,
                }
            }
        }
        if waiting {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
    let ready = |slot| match slot {
        Slot::Ready(value) => Some(value),
        Slot::Waiting(_) => None,
    };
    slots.into_iter().filter_map(ready).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_wait_at_the_same_time_and_keep_their_order() {
        let started = breccia_net::clock::now();
        let futures: Vec<Boxed<'_, u64>> = [3, 1, 2]
            .into_iter()
            .map(|seconds| -> Boxed<'_, u64> {
                Box::pin(async move {
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                    seconds
                })
            })
            .collect();
        assert_eq!(all(futures).await, [3, 1, 2]);
        assert_eq!(breccia_net::clock::now() - started, Duration::from_secs(3));
    }
}
