//! Starts real servers for tests; holds conformance suites and faulty peers.
//!
//! A development dependency only: nothing here is part of the product, and it may block, panic-free,
//! as long as a test can wait. Invariant: whatever is started is gone when its value is dropped.

pub mod conformance;
pub mod process;
pub mod resp;

mod breccia;
mod certificates;
mod faulty;
mod memcached;
mod ports;
mod redis;
mod reply;
mod text;

pub use breccia::{Breccia, binary, http};
pub use certificates::Certificates;
pub use faulty::{Fault, FaultyProxy};
pub use memcached::Memcached;
pub use ports::free_port;
pub use process::{Process, Signal, wait_until};
pub use redis::{Redis, RedisOptions};
pub use reply::Reply;
pub use resp::RespClient;
pub use text::TextClient;
