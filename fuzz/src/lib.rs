//! Fuzz targets: each takes any bytes and panics when a promise is broken.
//!
//! The same functions run under libFuzzer (`fuzz_targets/`), in a mutation loop on stable
//! (`examples/mutate.rs`), and for a moment in the tests. `cargo xtask fuzz` picks. Invariant: a
//! target never fails because of its input's size or meaning, only because of a broken promise.

#![expect(
    clippy::missing_panics_doc,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a target panics when a promise is broken; that is what it is for"
)]

mod memcached;
mod mysql;
mod mysql_class;
mod others;
mod pieces;
mod postgres;
mod resp;
mod s3;
pub mod seeds;
mod sql;
mod typed;

pub use memcached::{memcached_reply, memcached_request};
pub use mysql::{my_auth, my_frames, my_handshake};
pub use mysql_class::my_lexer;
pub use others::{command_keys, config, layout_document};
pub use postgres::{pg_frames, pg_scram, pg_startup};
pub use resp::{resp_reply, resp_request};
pub use s3::{s3_authorization, s3_chunked, s3_key_encoding, s3_range, s3_xml};
pub use sql::pg_lexer;
pub use typed::{memcached_typed, resp_portable};

/// A target's name and body.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 22] = [
    ("resp_request", resp_request),
    ("resp_reply", resp_reply),
    ("memcached_request", memcached_request),
    ("memcached_reply", memcached_reply),
    ("resp_portable", resp_portable),
    ("memcached_typed", memcached_typed),
    ("command_keys", command_keys),
    ("layout_document", layout_document),
    ("config", config),
    ("s3_chunked", s3_chunked),
    ("s3_range", s3_range),
    ("s3_xml", s3_xml),
    ("s3_key_encoding", s3_key_encoding),
    ("s3_authorization", s3_authorization),
    ("pg_startup", pg_startup),
    ("pg_frames", pg_frames),
    ("pg_scram", pg_scram),
    ("pg_lexer", pg_lexer),
    ("my_frames", my_frames),
    ("my_handshake", my_handshake),
    ("my_auth", my_auth),
    ("my_lexer", my_lexer),
];

#[cfg(test)]
mod tests {
    use super::{TARGETS, seeds};

    #[test]
    fn targets_hold_on_seeds_and_their_mutations() {
        for (name, target) in TARGETS {
            for seed in seeds::of(name) {
                target(&seed);
            }
            let mut mutator = seeds::Mutator::new(name, 1);
            for _ in 0..500 {
                target(mutator.next());
            }
        }
    }
}
