//! Breccia: composite storage backends for any server.
//!
//! This façade re-exports the crates a program embeds; it is not the gateway, which is the binary
//! of the same name. Invariant: nothing is defined here.

pub use breccia_blob as blob;
pub use breccia_config as config;
pub use breccia_core as core;
pub use breccia_kv as kv;
pub use breccia_net as net;
