//! The Redis wire: codec, command table, frontend and backend.
//!
//! Frontend and backend both use the codec and never import each other.

mod asker;
pub mod backend;
pub mod cluster;
pub mod codec;
pub mod commands;
pub mod encode;
pub mod frontend;
mod greeting;
pub mod peer;
pub mod portable;
pub mod scripts;
pub mod sentinel;
