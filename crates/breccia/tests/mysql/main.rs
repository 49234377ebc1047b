//! Breccia before a MariaDB primary and two replicas, as clients and administrators meet it.
//!
//! Not MySQL 8, which is not to be had here: what only that does is tested by packets beside the code.
//! Invariant: each test tells what it found by its name.

mod ahead;
mod amid;
mod bound;
mod clients;
mod dice;
mod differential;
mod differential_texts;
mod drivers;
mod endings;
mod failures;
mod freshness;
mod held;
mod hidden;
mod isolation;
mod kills;
mod last_insert;
mod lazy;
mod leftovers;
mod limits;
mod lost;
mod numbers;
mod orders;
mod outages;
mod prepared;
mod previous;
mod rig;
mod routing;
mod seeing;
mod stalwart;
mod state;
mod switch;
mod told;
mod untold;
