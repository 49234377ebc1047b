//! Writing a chunked body.
//!
//! Invariant: what is written here is read by the decoder.

use bytes::{BufMut, Bytes, BytesMut};

use super::decode::canonical_trailers;
use super::{ChunkSigner, TRAILER_SIGNATURE};
use crate::s3::codec::hex;

/// Writes an aws-chunked body, chunk by chunk; signed when it has a signer.
#[derive(Debug)]
pub struct Encoder {
    signer: Option<ChunkSigner>,
}

impl Encoder {
    /// At the beginning of a body.
    pub fn new(signer: Option<ChunkSigner>) -> Encoder {
        Encoder { signer }
    }

    /// One chunk. Of no data there is none: an empty chunk would end the body.
    pub fn chunk(&mut self, data: &[u8]) -> Bytes {
        if data.is_empty() {
            return Bytes::new();
        }
        let mut out = self.header(data);
        out.put_slice(data);
        out.put_slice(b"\r\n");
        out.freeze()
    }

    /// The end: the empty chunk, and the trailers. Their names are in lower case.
    pub fn finish(mut self, trailers: &[(String, String)]) -> Bytes {
        let mut out = self.header(b"");
        for (name, value) in trailers {
            out.put_slice(format!("{name}:{value}\r\n").as_bytes());
        }
        if let Some(signer) = self.signer.as_mut().filter(|_| !trailers.is_empty()) {
            let signature = hex::encode(&signer.sign_trailers(&canonical_trailers(trailers)));
            out.put_slice(format!("{TRAILER_SIGNATURE}:{signature}\r\n").as_bytes());
        }
        out.put_slice(b"\r\n");
        out.freeze()
    }

    /// The length of a whole body with chunks of these lengths, without trailers: what
    /// `content-length` says.
    pub fn length(signed: bool, chunks: impl IntoIterator<Item = u64>) -> u64 {
        let around = |size: u64| {
            let digits = u64::from(size.checked_ilog(16).unwrap_or(0)) + 1;
            // ";chunk-signature=", 64 digits, and two line ends.
            digits + if signed { 17 + 64 } else { 0 } + 4
        };
        chunks
            .into_iter()
            .filter(|size| *size > 0)
            .map(|size| size.saturating_add(around(size)))
            .fold(around(0), u64::saturating_add)
    }

    fn header(&mut self, data: &[u8]) -> BytesMut {
        let mut out = BytesMut::with_capacity(data.len().saturating_add(128));
        out.put_slice(format!("{:x}", data.len()).as_bytes());
        if let Some(signer) = &mut self.signer {
            out.put_slice(b";chunk-signature=");
            out.put_slice(hex::encode(&signer.sign_chunk(data)).as_bytes());
        }
        out.put_slice(b"\r\n");
        out
    }
}
