//! How a user proves that it knows its password, on both sides.
//!
//! Pure: no packets, no connection. Sources: the protocol's "Authentication Methods" and MariaDB's
//! "Authentication plugins". Invariant: two proofs are compared in constant time.

use ring::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

/// SHA-1 twice over: MySQL's way since 4.1, and MariaDB's.
pub const NATIVE: &str = "mysql_native_password";
/// SHA-256: MySQL's way since 8.0.
pub const CACHING_SHA2: &str = "caching_sha2_password";
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
    let sha1 = |parts: &[&[u8]]| hash(&SHA1_FOR_LEGACY_USE_ONLY, parts);
    let once = sha1(&[password]);
    let twice = sha1(&[&once]);
    xor(&once, &sha1(&[nonce, &twice]))
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
        _ => return None,
    };
    Some(equal(proof, &expected))
}

fn hash(how: &'static digest::Algorithm, parts: &[&[u8]]) -> Vec<u8> {
    let mut context = digest::Context::new(how);
    for part in parts {
        context.update(part);
    }
    context.finish().as_ref().to_vec()
}

fn xor(one: &[u8], other: &[u8]) -> Vec<u8> {
    one.iter().zip(other).map(|(one, other)| one ^ other).collect()
}

/// Whether two proofs are the same, in a time that tells nothing of where they differ.
fn equal(one: &[u8], other: &[u8]) -> bool {
    let differ = one.iter().zip(other).fold(0, |sum, (one, other)| sum | (one ^ other));
    one.len() == other.len() && differ == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_of_one_password_and_one_challenge() {
        let nonce: Vec<u8> = (1..=20).collect();
        for (plugin, proof) in [
            (NATIVE, native(b"secret", &nonce)),
            (CACHING_SHA2, caching_sha2(b"secret", &nonce)),
            (CLEAR, b"secret\0".to_vec()),
        ] {
            assert_eq!(proves(plugin, &proof, b"secret", &nonce), Some(true), "{plugin}");
            assert_eq!(proves(plugin, &proof, b"Secret", &nonce), Some(false), "{plugin}");
            assert_eq!(proves(plugin, b"", b"secret", &nonce), Some(false), "{plugin}");
        }
        let other: Vec<u8> = (2..=21).collect();
        let proof = native(b"secret", &nonce);
        assert_eq!(proves(NATIVE, &proof, b"secret", &other), Some(false));
        assert_eq!(proves(NATIVE, b"", b"", &nonce), Some(true));
        assert_eq!(proves("dialog", b"", b"", &nonce), None);
    }
}
