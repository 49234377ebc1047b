//! A password under a server's RSA key: the full way of `caching_sha2_password` over plain TCP.
//!
//! Encryption only, and no key of our own. Sources: the protocol's "`caching_sha2_password`
//! information", RFC 8017 (RSAES-OAEP with SHA-1, 7.1.1), RFC 5280 (`SubjectPublicKeyInfo`). Invariant:
//! what a server sends as its key is bounded before anything is computed with it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use num_bigint::BigUint;
use ring::digest::SHA1_FOR_LEGACY_USE_ONLY as SHA1;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::{hash, xor};

/// The longest text of a key that is looked at: one of 8192 bits takes 1,500 bytes.
pub const MAX_KEY_BYTES: usize = 4096;
const MIN_BITS: u64 = 1024;
const MAX_BITS: u64 = 8192;
/// Exponents of public keys are small; larger ones would only take time.
const MAX_EXPONENT_BITS: u64 = 33;
const HASH_BYTES: usize = 20;
/// `rsaEncryption` (1.2.840.113549.1.1.1) without parameters.
const ALGORITHM: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;

/// A server's public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    modulus: BigUint,
    exponent: BigUint,
}

impl PublicKey {
    /// Reads one in PEM; `None` if it is none, or of a size that no server has.
    #[must_use]
    pub fn read(pem: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(pem.get(..pem.len().min(MAX_KEY_BYTES))?).ok()?;
        let (_, body) = text.split_once("-----BEGIN PUBLIC KEY-----")?;
        let (body, _) = body.split_once("-----END PUBLIC KEY-----")?;
        let body: String = body.split_ascii_whitespace().collect();
        let der = BASE64.decode(body).ok()?;
        let (outer, _) = value(&der, SEQUENCE)?;
        let (algorithm, rest) = value(outer, SEQUENCE)?;
        let (bits, _) = value(rest, BIT_STRING)?;
        if algorithm != ALGORITHM {
            return None;
        }
        let (numbers, _) = value(bits.strip_prefix(b"\0")?, SEQUENCE)?;
        let (modulus, rest) = value(numbers, INTEGER)?;
        let (exponent, _) = value(rest, INTEGER)?;
        let key = Self {
            modulus: BigUint::from_bytes_be(modulus),
            exponent: BigUint::from_bytes_be(exponent),
        };
        let fits = (MIN_BITS..=MAX_BITS).contains(&key.modulus.bits())
            && (2..=MAX_EXPONENT_BITS).contains(&key.exponent.bits())
            && key.modulus.bit(0)
            && key.exponent.bit(0);
        fits.then_some(key)
    }

    /// A password for the server that sent this key and `nonce`; `None` if it is too long for the key,
    /// or there are no random bytes.
    #[must_use]
    pub fn encrypt_password(&self, password: &[u8], nonce: &[u8]) -> Option<Vec<u8>> {
        if nonce.is_empty() {
            return None;
        }
        let mut text = password.to_vec();
        text.push(0);
        let mixed: Vec<u8> = text
            .iter()
            .zip(nonce.iter().cycle())
            .map(|(a, b)| a ^ b)
            .collect();
        let mut seed = [0; HASH_BYTES];
        SystemRandom::new().fill(&mut seed).ok()?;
        self.encrypt(&mixed, &seed)
    }

    /// RSAES-OAEP with SHA-1, an empty label, and this seed.
    fn encrypt(&self, message: &[u8], seed: &[u8; HASH_BYTES]) -> Option<Vec<u8>> {
        let length = usize::try_from(self.modulus.bits().div_ceil(8)).ok()?;
        let mut block = hash(&SHA1, &[b""]);
        let filling = length.checked_sub(message.len() + 2 * HASH_BYTES + 2)?;
        block.resize(HASH_BYTES + filling, 0);
        block.push(1);
        block.extend_from_slice(message);
        let block = xor(&block, &mask(seed, block.len()));
        let seed = xor(seed, &mask(&block, HASH_BYTES));
        let padded = BigUint::from_bytes_be(&[seed, block].concat());
        let bytes = padded.modpow(&self.exponent, &self.modulus).to_bytes_be();
        let mut out = vec![0; length.checked_sub(bytes.len())?];
        out.extend_from_slice(&bytes);
        Some(out)
    }
}

/// MGF1 with SHA-1.
fn mask(seed: &[u8], length: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut counter = 0_u32;
    while out.len() < length {
        out.extend_from_slice(&hash(&SHA1, &[seed, &counter.to_be_bytes()]));
        counter += 1;
    }
    out.truncate(length);
    out
}

/// The inside of the DER value of this tag that `bytes` begin with, and what follows it.
fn value(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (length, rest) = match bytes.strip_prefix(&[tag])? {
        [length @ 0..=0x7f, rest @ ..] | [0x81, length, rest @ ..] => (usize::from(*length), rest),
        [0x82, high, low, rest @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests;
