//! What `x-amz-content-sha256` says of a body.
//!
//! It reads no body. Invariant: a value that is not understood is an error, never "unsigned".

use std::borrow::Cow;

use super::SignatureError;
use crate::s3::codec::hex;

/// How a body is covered by the signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Payload {
    /// `UNSIGNED-PAYLOAD`: not at all.
    Unsigned,
    /// By its SHA-256: whoever reads the body must compare.
    Sha256([u8; 32]),
    /// In signed chunks (aws-chunked).
    SignedChunks {
        /// Whether signed trailers follow them.
        trailer: bool,
    },
    /// In chunks without signatures, then trailers (aws-chunked).
    UnsignedChunks,
}

impl Payload {
    /// Of no body.
    pub const EMPTY: Payload = Payload::Sha256([
        0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9,
        0x24, 0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52,
        0xb8, 0x55,
    ]);

    /// Reads the header's value.
    pub fn parse(value: &[u8]) -> Result<Payload, SignatureError> {
        match value {
            b"UNSIGNED-PAYLOAD" => Ok(Payload::Unsigned),
            b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD" => Ok(Payload::SignedChunks { trailer: false }),
            b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" => {
                Ok(Payload::SignedChunks { trailer: true })
            }
            b"STREAMING-UNSIGNED-PAYLOAD-TRAILER" => Ok(Payload::UnsignedChunks),
            digits => hex::decode(digits)
                .map(Payload::Sha256)
                .ok_or(SignatureError::Payload {
                    streaming: digits.starts_with(b"STREAMING-"),
                }),
        }
    }

    /// The header's value.
    pub fn to_header(&self) -> Cow<'static, str> {
        match self {
            Payload::Unsigned => "UNSIGNED-PAYLOAD".into(),
            Payload::Sha256(hash) => hex::encode(hash).into(),
            Payload::SignedChunks { trailer: false } => "STREAMING-AWS4-HMAC-SHA256-PAYLOAD".into(),
            Payload::SignedChunks { trailer: true } => {
                "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER".into()
            }
            Payload::UnsignedChunks => "STREAMING-UNSIGNED-PAYLOAD-TRAILER".into(),
        }
    }

    /// Whether the body is aws-chunked.
    pub fn is_chunked(&self) -> bool {
        matches!(self, Payload::SignedChunks { .. } | Payload::UnsignedChunks)
    }
}
