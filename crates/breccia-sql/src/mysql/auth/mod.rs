//! How a user proves that it knows its password, on both sides.
//!
//! Pure: no packets, no connection. Sources: the protocol's "Authentication Methods" and MariaDB's
//! "Authentication plugins". Invariant: two proofs are compared in constant time.

use ring::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

pub mod client;
pub mod ed25519;
pub mod rsa;
pub mod server;

/// SHA-1 twice over: MySQL's way since 4.1, and MariaDB's.
pub const NATIVE: &str = "mysql_native_password";
/// SHA-256: MySQL's way since 8.0.
pub const CACHING_SHA2: &str = "caching_sha2_password";
/// A signature: MariaDB's way for those who ask for it.
pub const ED25519: &str = "client_ed25519";
/// What `caching_sha2_password` came after; a client that names it can do that too.
pub const SHA256_PASSWORD: &str = "sha256_password";
/// The password itself; only where nobody can listen.
pub const CLEAR: &str = "mysql_clear_password";

/// `caching_sha2_password`: the proof was enough.
pub const FAST_OK: u8 = 3;
/// `caching_sha2_password`: the password itself is wanted.
pub const FULL: u8 = 4;
/// `caching_sha2_password`: the server's public key is wanted.
pub const WANTS_KEY: u8 = 2;

/// The proof of `mysql_native_password`: SHA1(password) XOR SHA1(nonce, SHA1(SHA1(password))).
#[must_use]
pub fn native(password: &[u8], nonce: &[u8]) -> Vec<u8> {
    if password.is_empty() {
        return Vec::new();
    }
    native_of_hash(&native_hash(password), nonce)
}

/// `SHA1(password)`: all that [`native`] needs.
#[must_use]
pub fn native_hash(password: &[u8]) -> [u8; 20] {
    sha1(&[password])
}

/// `SHA1(SHA1(password))`, as a server keeps it, of `SHA1(password)`.
#[must_use]
pub fn stored_hash(hash: &[u8; 20]) -> [u8; 20] {
    sha1(&[hash])
}

/// The proof of `mysql_native_password`, by `SHA1(password)`.
#[must_use]
pub fn native_of_hash(hash: &[u8; 20], nonce: &[u8]) -> Vec<u8> {
    xor(hash, &sha1(&[nonce, &stored_hash(hash)]))
}

/// `SHA1(password)` as a proof shows it to one that keeps `stored`; whether it fits is not told.
fn native_hash_of(proof: &[u8], stored: &[u8; 20], nonce: &[u8]) -> Option<[u8; 20]> {
    let proof: &[u8; 20] = proof.try_into().ok()?;
    xor(proof, &sha1(&[nonce, stored])).try_into().ok()
}

/// The proof of `caching_sha2_password`: SHA256(password) XOR SHA256(SHA256(SHA256(password)), nonce).
#[must_use]
pub fn caching_sha2(password: &[u8], nonce: &[u8]) -> Vec<u8> {
    if password.is_empty() {
        return Vec::new();
    }
    let sha256 = |parts: &[&[u8]]| hash(&SHA256, parts);
    let once = sha256(&[password]);
    let twice = sha256(&[&once]);
    xor(&once, &sha256(&[&twice, nonce]))
}

/// Whether a client's proof is that of `password`; `None`: not a way that is known here.
#[must_use]
pub fn proves(plugin: &str, proof: &[u8], password: &[u8], nonce: &[u8]) -> Option<bool> {
    let expected = match plugin {
        NATIVE => native(password, nonce),
        CACHING_SHA2 => {
            // Some clients say that there is no password with one NUL.
            let proof = if proof == [0] { b"" } else { proof };
            return Some(equal(proof, &caching_sha2(password, nonce)));
        }
        CLEAR => {
            let said = proof.strip_suffix(b"\0").unwrap_or(proof);
            return Some(equal(said, password));
        }
        ED25519 => return Some(ed25519::proves(proof, password, nonce)),
        _ => return None,
    };
    Some(equal(proof, &expected))
}

fn sha1(parts: &[&[u8]]) -> [u8; 20] {
    let mut out = [0; 20];
    for (to, from) in out.iter_mut().zip(hash(&SHA1_FOR_LEGACY_USE_ONLY, parts)) {
        *to = from;
    }
    out
}

fn hash(how: &'static digest::Algorithm, parts: &[&[u8]]) -> Vec<u8> {
    let mut context = digest::Context::new(how);
    for part in parts {
        context.update(part);
    }
    context.finish().as_ref().to_vec()
}

fn xor(one: &[u8], other: &[u8]) -> Vec<u8> {
    one.iter()
        .zip(other)
        .map(|(one, other)| one ^ other)
        .collect()
}

/// Whether two proofs are the same, in a time that tells nothing of where they differ.
fn equal(one: &[u8], other: &[u8]) -> bool {
    let differ = one
        .iter()
        .zip(other)
        .fold(0, |sum, (one, other)| sum | (one ^ other));
    one.len() == other.len() && differ == 0
}

#[cfg(test)]
mod tests;
