//! The sends of one turn of a worker, in one system call.
//!
//! Not the waiting for sockets: what a socket has no room for, [`crate::tcp`] sends later. Invariant:
//! what is written while there is work leaves as soon as there is none, and after 64 connections'
//! writes at the latest.
//!
//! A turn is what the sockets that were ready, and the tasks these woke, have to do. A send on
//! loopback or to a host nearby wakes whoever waits for it, and the system likes to run that process
//! at once, in this one's place: with a call for each send a busy worker is put off its core after
//! every other one. In one call all are sent first. docs/decisions/0013 has the figures.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, MutexGuard};
use std::task::{Poll, Waker};

use breccia_ring::{Piece, SendRing};

use crate::tcp::{Outbox, State};

/// The most connections whose writes wait for one system call.
const MOST: u32 = 64;
/// The most buffers kept for the next turn, and what each may hold.
const SPARES: usize = 64;
const SPARE_CAPACITY: usize = 4 * 1024;

thread_local! {
    /// `None` on threads that send each by itself.
    static TURN: RefCell<Option<Turn>> = const { RefCell::new(None) };
}

/// What this thread will send.
struct Turn {
    /// `None` while it sends.
    ring: Option<SendRing>,
    queued: Vec<Arc<Outbox>>,
    spares: Vec<Vec<u8>>,
    /// The task that sends at the end of the turn.
    sender: Option<Waker>,
    /// Whether the tasks that were woken before it have run.
    aged: bool,
}

/// From now on this thread's sends leave together. Called in its runtime, a local one. An error, if
/// the system has no `io_uring` for us, changes nothing.
pub fn join_here() -> io::Result<()> {
    let ring = SendRing::new(MOST)?;
    let turn = Turn {
        ring: Some(ring),
        queued: Vec::new(),
        spares: Vec::new(),
        sender: None,
        aged: false,
    };
    TURN.set(Some(turn));
    tokio::task::spawn_local(send_at_the_end_of_turns());
    Ok(())
}

/// Sends what waits and lets this thread send each by itself again.
pub(crate) fn part_here() {
    send_all();
    TURN.set(None);
}

/// Whether small writes should wait for the end of the turn.
pub(crate) fn are_joined() -> bool {
    // A thread that ends has none.
    TURN.try_with(|turn| {
        turn.borrow()
            .as_ref()
            .is_some_and(|turn| turn.ring.is_some())
    }) == Ok(true)
}

/// This connection has something to send.
pub(crate) fn join(outbox: &Arc<Outbox>) {
    let full = TURN.with_borrow_mut(|turn| {
        let turn = turn.as_mut()?;
        turn.queued.push(Arc::clone(outbox));
        if turn.queued.len() == 1
            && let Some(sender) = &turn.sender
        {
            sender.wake_by_ref();
        }
        (turn.queued.len() >= MOST as usize).then_some(())
    });
    if full.is_some() {
        send_all();
    }
}

/// A buffer to gather a connection's writes in.
pub(crate) fn spare() -> Vec<u8> {
    TURN.with_borrow_mut(|turn| turn.as_mut()?.spares.pop())
        .unwrap_or_default()
}

/// Keeps a buffer for the next one.
pub(crate) fn keep(mut buffer: Vec<u8>) {
    if buffer.capacity() > SPARE_CAPACITY {
        return;
    }
    buffer.clear();
    let _ = TURN.try_with(|turn| {
        if let Ok(mut turn) = turn.try_borrow_mut()
            && let Some(turn) = &mut *turn
            && turn.spares.len() < SPARES
        {
            turn.spares.push(buffer);
        }
    });
}

async fn send_at_the_end_of_turns() {
    let mut end_of_turn = poll_fn(|context| {
        TURN.with_borrow_mut(|turn| {
            let Some(turn) = turn else {
                return Poll::Ready(false);
            };
            if !turn.queued.is_empty() && turn.aged {
                turn.aged = false;
                return Poll::Ready(true);
            }
            if turn.queued.is_empty() {
                turn.aged = false;
                turn.sender = Some(context.waker().clone());
            } else {
                // Behind the tasks that those before it have woken.
                turn.aged = true;
                context.waker().wake_by_ref();
            }
            Poll::Pending
        })
    });
    while (&mut end_of_turn).await {
        send_all();
    }
}

/// Sends all that waits on this thread.
pub(crate) fn send_all() {
    let taken = TURN.with_borrow_mut(|turn| {
        let turn = turn.as_mut().filter(|turn| !turn.queued.is_empty())?;
        Some((turn.ring.take()?, std::mem::take(&mut turn.queued)))
    });
    let Some((mut ring, mut queued)) = taken else {
        return;
    };
    let (sent, late) = match queued.as_slice() {
        // For one a ring is only a longer way.
        [only] => (Ok(()), send_one(only).into_iter().collect()),
        several => send_each(&mut ring, several),
    };
    for outbox in late {
        outbox.drive();
    }
    queued.clear();
    TURN.with_borrow_mut(|turn| match sent {
        Ok(()) => {
            if let Some(turn) = turn {
                turn.ring = Some(ring);
                turn.queued = queued;
            }
        }
        Err(error) => {
            tracing::warn!(%error, "io_uring has failed: from now on each send is a call of its own");
            *turn = None;
        }
    });
}

/// Sends what waits in one outbox; it, if its socket had no room for all of it.
fn send_one(outbox: &Arc<Outbox>) -> Option<Arc<Outbox>> {
    let mut state = outbox.lock();
    state.queued = false;
    state.send_alone().then(|| Arc::clone(outbox))
}

/// Sends what waits in each outbox; those whose sockets had no room for all of it.
fn send_each(ring: &mut SendRing, queued: &[Arc<Outbox>]) -> (io::Result<()>, Vec<Arc<Outbox>>) {
    let mut states: Vec<(&Arc<Outbox>, MutexGuard<'_, State>)> = queued
        .iter()
        .map(|outbox| (outbox, outbox.lock()))
        .collect();
    for (_, state) in &mut states {
        state.queued = false;
    }
    states.retain(|(_, state)| state.piece().is_some());
    let pieces: Vec<Piece<'_>> = states
        .iter()
        .filter_map(|(_, state)| state.piece())
        .map(|(socket, bytes)| Piece { socket, bytes })
        .collect();
    let sent = ring.send(&pieces);
    drop(pieces);
    let mut late = Vec::new();
    for (number, (outbox, state)) in states.iter_mut().enumerate() {
        let unsent = || Err(io::ErrorKind::WouldBlock.into());
        if state.sent(ring.outcome(number).unwrap_or_else(unsent)) {
            late.push(Arc::clone(outbox));
        }
    }
    (sent, late)
}
