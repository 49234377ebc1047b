//! STUB by LEAD so that the crate compiles: STORE overwrites this folder.
use super::encode::{self, RespVersion};
use crate::store::KvStore;

/// Stub.
pub async fn execute(_: &dyn KvStore, _: &[Vec<u8>], _: RespVersion, out: &mut Vec<u8>) {
    encode::error(out, "ERR breccia: not yet");
}

/// Stub.
pub async fn execute_transaction(_: &dyn KvStore, _: &[Vec<Vec<u8>>], _: RespVersion, out: &mut Vec<u8>) {
    encode::error(out, "ERR breccia: not yet");
}

/// Stub.
pub fn check_queued(_: &dyn KvStore, _: &[Vec<Vec<u8>>], _: &[Vec<u8>], _: &mut Vec<u8>) -> bool {
    true
}

/// Stub.
#[must_use]
pub fn offers_transaction(_: &str) -> bool {
    false
}
