//! The memcached front against real memcached servers: the same bytes in, the same bytes out, over
//! one server, over three, and over a memory store; then faults.
//!
//! Invariant: every listener here runs in this process, on a worker of its own.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "these are helpers of tests: what is not as expected shall fail loudly"
)]

mod answers;
mod dice;
mod faults;
mod front;
mod neighbours;
mod rows;
mod twins;
