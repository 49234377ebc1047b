//! The chain of signatures through a body: each covers the one before it.
//!
//! Invariant: the chain goes on only over a signature that matched, or was made here.

use ring::digest;

use crate::s3::codec::hex;
use crate::s3::codec::sigv4::{Payload, Signature, SigningKey, Verified};

/// The SHA-256 of nothing.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Signs or checks chunks, from the signature of the request's head on.
#[derive(Debug, Clone)]
pub struct ChunkSigner {
    key: SigningKey,
    amz_date: String,
    previous: Signature,
}

impl ChunkSigner {
    /// Begins at the head's signature.
    pub fn new(key: SigningKey, amz_date: String, seed: Signature) -> ChunkSigner {
        ChunkSigner {
            key,
            amz_date,
            previous: seed,
        }
    }

    /// For the body of a verified request; none: its chunks are not signed.
    pub fn of(verified: &Verified) -> Option<ChunkSigner> {
        match verified.payload {
            Payload::SignedChunks { .. } => Some(ChunkSigner::new(
                verified.signing_key.clone(),
                verified.amz_date.clone(),
                verified.seed_signature(),
            )),
            _ => None,
        }
    }

    fn text(&self, kind: &str, hashes: &str) -> String {
        format!(
            "AWS4-HMAC-SHA256-{kind}\n{}\n{}\n{}\n{hashes}",
            self.amz_date,
            self.key.scope_text(),
            hex::encode(&self.previous)
        )
    }

    fn chunk_text(&self, hash: &digest::Digest) -> String {
        let hashes = format!("{EMPTY}\n{}", hex::encode(hash.as_ref()));
        self.text("PAYLOAD", &hashes)
    }

    fn trailer_text(&self, canonical: &str) -> String {
        let hash = digest::digest(&digest::SHA256, canonical.as_bytes());
        self.text("TRAILER", &hex::encode(hash.as_ref()))
    }

    pub(super) fn sign_chunk(&mut self, data: &[u8]) -> Signature {
        let hash = digest::digest(&digest::SHA256, data);
        self.previous = self.key.sign(&self.chunk_text(&hash));
        self.previous
    }

    pub(super) fn sign_trailers(&mut self, canonical: &str) -> Signature {
        self.previous = self.key.sign(&self.trailer_text(canonical));
        self.previous
    }

    pub(super) fn chunk_matches(&mut self, hash: &digest::Digest, signature: &Signature) -> bool {
        let good = self.key.matches(&self.chunk_text(hash), signature);
        self.previous = *signature;
        good
    }

    pub(super) fn trailers_match(&self, canonical: &str, signature: &Signature) -> bool {
        self.key.matches(&self.trailer_text(canonical), signature)
    }
}
