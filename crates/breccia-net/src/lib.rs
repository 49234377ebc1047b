//! Breccia's sockets: listeners, TLS, workers, probes, drain and the state folder.
//!
//! Not a wire protocol: slices bring their own. Invariant: this crate holds the only clock
//! ([`clock`]) and the only place that binds, accepts and connects.

pub mod clock;
pub mod drain;
pub mod error;
pub mod health;
pub mod layout_store;
pub mod listener;
pub mod log_gate;
pub mod metrics;
pub mod process;
pub mod sends;
pub mod stream;
pub mod tcp;
pub mod tls;
pub mod worker;

pub use error::NetError;
