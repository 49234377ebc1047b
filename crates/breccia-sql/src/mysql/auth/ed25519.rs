//! MariaDB's `ed25519`, both ends: a signature of the challenge by a key made of the password.
//!
//! The keys are those of RFC 8032 but for one thing: what is hashed in the place of its 32 random bytes
//! is the password, of any length. Source: MariaDB's "Authentication Plugin - ed25519". Invariant: a
//! server's end believes a signature under the password's own key only.

use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::{Scalar, clamp_integer};
use ring::digest::SHA512;

use super::{equal, hash};

/// Bytes of its challenge.
pub const NONCE_BYTES: usize = 32;
/// Bytes of its proof: a point and a number.
pub const PROOF_BYTES: usize = 64;

/// What a password makes.
struct Keys {
    scalar: Scalar,
    /// Makes the number that is used once.
    prefix: [u8; 32],
    public: CompressedEdwardsY,
    point: EdwardsPoint,
}

/// The proof that `password` is known, for this challenge.
#[must_use]
pub fn prove(password: &[u8], nonce: &[u8]) -> Vec<u8> {
    let keys = keys(password);
    let once = number(&[&keys.prefix, nonce]);
    let point = EdwardsPoint::mul_base(&once).compress();
    let challenge = number(&[point.as_bytes(), keys.public.as_bytes(), nonce]);
    let answer = once + challenge * keys.scalar;
    [point.to_bytes(), answer.to_bytes()].concat()
}

/// Whether a client's proof is that of `password`.
#[must_use]
pub fn proves(proof: &[u8], password: &[u8], nonce: &[u8]) -> bool {
    let Some((point, answer)) = proof.split_first_chunk::<32>() else {
        return false;
    };
    let Ok(answer) = <[u8; 32]>::try_from(answer) else {
        return false;
    };
    // A number above the group's order would be a second signature of the same.
    let Some(answer) = Option::<Scalar>::from(Scalar::from_canonical_bytes(answer)) else {
        return false;
    };
    let keys = keys(password);
    let challenge = number(&[point, keys.public.as_bytes(), nonce]);
    let expected =
        EdwardsPoint::vartime_double_scalar_mul_basepoint(&challenge, &-keys.point, &answer);
    equal(expected.compress().as_bytes(), point)
}

fn keys(password: &[u8]) -> Keys {
    let [low, prefix] = halves(&hash(&SHA512, &[password]));
    let scalar = Scalar::from_bytes_mod_order(clamp_integer(low));
    let point = EdwardsPoint::mul_base(&scalar);
    Keys {
        scalar,
        prefix,
        public: point.compress(),
        point,
    }
}

fn number(parts: &[&[u8]]) -> Scalar {
    let [low, high] = halves(&hash(&SHA512, parts));
    let mut wide = [0; 64];
    for (to, from) in wide.iter_mut().zip(low.iter().chain(&high)) {
        *to = *from;
    }
    Scalar::from_bytes_mod_order_wide(&wide)
}

/// The halves of 64 bytes.
fn halves(hash: &[u8]) -> [[u8; 32]; 2] {
    let half = |from: usize| {
        let mut out = [0; 32];
        for (to, from) in out.iter_mut().zip(hash.iter().skip(from)) {
            *to = *from;
        }
        out
    };
    [half(0), half(32)]
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use ring::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    #[test]
    fn a_proof_is_of_one_password_and_one_challenge() {
        let nonce = [7; NONCE_BYTES];
        let proof = prove(b"secret", &nonce);
        assert_eq!(proof.len(), PROOF_BYTES);
        assert!(proves(&proof, b"secret", &nonce));
        assert!(!proves(&proof, b"Secret", &nonce));
        assert!(!proves(&proof, b"secret", &[8; NONCE_BYTES]));
        for at in 0..proof.len() {
            let mut forged = proof.clone();
            forged[at] ^= 1;
            assert!(!proves(&forged, b"secret", &nonce), "byte {at}");
            assert!(!proves(&proof[..at], b"secret", &nonce), "cut at {at}");
        }
    }

    #[test]
    fn a_number_above_the_order_is_no_second_signature() {
        let nonce = [7; NONCE_BYTES];
        let mut proof = prove(b"secret", &nonce);
        // The group's order (RFC 8032, 5.1), little-endian.
        let order = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9,
            0xde, 0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let mut carry = 0;
        for (byte, add) in proof[32..].iter_mut().zip(order) {
            let sum = u16::from(*byte) + add + carry;
            *byte = sum.to_le_bytes()[0];
            carry = sum >> 8;
        }
        assert!(!proves(&proof, b"secret", &nonce));
    }

    #[test]
    fn proofs_are_signatures_of_rfc_8032() {
        for password in [
            &b""[..],
            b"secret",
            b"a password longer than the 32 bytes of a seed",
        ] {
            let proof = prove(password, b"a challenge");
            let public = keys(password).public;
            let key = UnparsedPublicKey::new(&ED25519, public.as_bytes());
            key.verify(b"a challenge", &proof).expect("a signature");
        }
        // With 32 bytes in the place of the password they are RFC 8032's own: its test 2.
        let seed = b"\x4c\xcd\x08\x9b\x28\xff\x96\xda\x9d\xb6\xc3\x46\xec\x11\x4e\x0f\
            \x5b\x8a\x31\x9f\x35\xab\xa6\x24\xda\x8c\xf6\xed\x4f\xb8\xa6\xfb";
        let proof = prove(seed, b"\x72");
        assert_eq!(&proof[..6], b"\x92\xa0\x09\xa9\xf0\xd4");
    }

    #[test]
    fn keys_are_those_that_mariadb_keeps() {
        // `SELECT ed25519_password('secret')`, MariaDB 10.11.
        let kept = "ZIgUREUg5PVgQ6LskhXmO+eZLS0nC8be6HPjYWR4YJY";
        let engine = base64::engine::general_purpose::STANDARD_NO_PAD;
        assert_eq!(engine.encode(keys(b"secret").public.as_bytes()), kept);
    }
}
