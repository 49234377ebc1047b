//! Breccia from outside: the built binary over real servers, seen through sockets.
//!
//! One program for all of it, so that it is linked once; what must not be disturbed by neighbours is
//! in `../faults`. Invariant: every server and gateway is the test's own.

#![expect(clippy::indexing_slicing, reason = "a test may panic")]

mod auth;
mod bad_input;
mod coming;
mod command_keys;
mod common;
mod documents;
mod keys;
mod lifecycle;
mod marker;
mod observing;
mod placement;
mod pubsub;
mod pubsub_sharded;
mod refusals;
mod reload;
mod scripts;
mod secrets;
mod sessions;
mod slow;
mod tls;
mod trunks;
