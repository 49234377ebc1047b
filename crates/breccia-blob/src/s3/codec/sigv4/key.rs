//! The key of a scope, and signatures made with it.
//!
//! It holds no secret longer than its derivation. Invariant: signatures are compared in constant time,
//! and no key is shown in debug output.

use std::sync::Arc;

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
pub struct SigningKey(Arc<Derived>);

#[derive(Debug)]
struct Derived {
    key: hmac::Key,
    scope: Scope,
    scope_text: String,
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
        let scope_text = scope.to_text();
        SigningKey(Arc::new(Derived {
            key,
            scope,
            scope_text,
        }))
    }

    /// What it was derived for.
    pub fn scope(&self) -> &Scope {
        &self.0.scope
    }

    /// [`Scope::to_text`], made once.
    pub(crate) fn scope_text(&self) -> &str {
        &self.0.scope_text
    }

    /// The signature of a text.
    pub fn sign(&self, text: &str) -> Signature {
        let tag = hmac::sign(&self.0.key, text.as_bytes());
        let mut signature = [0; 32];
        for (byte, from) in signature.iter_mut().zip(tag.as_ref()) {
            *byte = *from;
        }
        signature
    }

    /// Whether a signature is this text's, in constant time.
    pub fn matches(&self, text: &str, signature: &Signature) -> bool {
        hmac::verify(&self.0.key, text.as_bytes(), signature).is_ok()
    }
}

/// SHA-256 in hexadecimal, to the end of a text.
pub(crate) fn push_sha256_hex(text: &mut String, bytes: &[u8]) {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    hex::encode_into(text, digest.as_ref());
}
