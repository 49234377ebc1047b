//! The key of a scope, and signatures made with it.
//!
//! It holds no secret longer than its derivation. Invariant: signatures are compared in constant time,
//! and no key is shown in debug output.

use ring::hmac;

use super::super::hex;

/// What a signature is: 32 bytes, written as 64 digits.
pub type Signature = [u8; 32];

/// What a signing key is good for: one day, region and service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope {
    /// `20130524`
    pub date: String,
    /// `us-east-1`
    pub region: String,
    /// `s3`
    pub service: String,
}

impl Scope {
    /// The scope of S3 in a region on a day.
    pub fn s3(date: &str, region: &str) -> Scope {
        Scope {
            date: date.to_owned(),
            region: region.to_owned(),
            service: "s3".to_owned(),
        }
    }

    /// `20130524/us-east-1/s3/aws4_request`
    pub fn to_text(&self) -> String {
        [&self.date, &self.region, &self.service, "aws4_request"].join("/")
    }
}

/// The key derived from a secret for a scope. Cheap to clone, and worth keeping for the day.
#[derive(Debug, Clone)]
pub struct SigningKey {
    key: hmac::Key,
    scope: Scope,
}

impl SigningKey {
    /// Derives it: one HMAC for each part of the scope.
    pub fn derive(secret: &str, scope: Scope) -> SigningKey {
        let first = ["AWS4".as_bytes(), secret.as_bytes()].concat();
        let mut key = hmac::Key::new(hmac::HMAC_SHA256, &first);
        for part in [
            scope.date.as_str(),
            scope.region.as_str(),
            scope.service.as_str(),
            "aws4_request",
        ] {
            let tag = hmac::sign(&key, part.as_bytes());
            key = hmac::Key::new(hmac::HMAC_SHA256, tag.as_ref());
        }
        SigningKey { key, scope }
    }

    /// What it was derived for.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The signature of a text.
    pub fn sign(&self, text: &str) -> Signature {
        let tag = hmac::sign(&self.key, text.as_bytes());
        let mut signature = [0; 32];
        for (byte, from) in signature.iter_mut().zip(tag.as_ref()) {
            *byte = *from;
        }
        signature
    }

    /// Whether a signature is this text's, in constant time.
    pub fn matches(&self, text: &str, signature: &Signature) -> bool {
        hmac::verify(&self.key, text.as_bytes(), signature).is_ok()
    }
}

/// SHA-256 in hexadecimal.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}
