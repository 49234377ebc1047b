//! The executable contracts: what every store of a kind must do, whatever it is made of.
//!
//! Not tests by themselves: a test starts a store and hands it over. Invariant: a check demands the
//! same of all stores; where members may refuse, it demands the refusal.

mod blob;
mod kv;

pub use blob::blob_conformance;
pub use kv::kv_conformance;
