//! Bodies of requests: from the connection, through aws-chunked if need be, to a [`Body`].
//!
//! Nothing is read before a store or a document asks: until then a client that waits for
//! `100 Continue` sends nothing. Invariant: a clean end is given only after the chunks' signatures and
//! the trailers were found right; the digests are [`Body`]'s to compare.

use std::time::Duration;

use breccia_net::clock;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, TRANSFER_ENCODING};

use crate::body::{Body, ByteSource, NextChunk};
use crate::checksum::{Algorithm, Checksum};
use crate::error::{BlobError, BodyFault};
use crate::s3::codec::chunked::{ChunkError, Decoder, Event};
use crate::s3::codec::sigv4::Payload;

use super::auth::Identity;
use super::budget::Share;
use super::digests::{self, Announced};
use super::dispatch::Call;
use super::metrics::BUFFER_MEMORY;
use super::pace::Pace;
use super::refusal::Refusal;
use super::request::Request;

/// A parsed document takes so many times the bytes it came in, about: small elements cost most.
const DOCUMENT_FACTOR: u64 = 8;

/// How many bytes a request's body will give, without the framing of aws-chunked.
pub(super) fn size_of(request: &Request, identity: &Identity) -> Result<u64, Refusal> {
    let size = if identity.payload.is_chunked() {
        request.number("x-amz-decoded-content-length")?
    } else {
        request.number("content-length")?
    };
    size.ok_or(Refusal::LengthMissing)
}

/// The body of an object or part, of which nothing has been read yet.
pub(super) async fn object(call: &Call, incoming: Incoming) -> Result<Body, Refusal> {
    let size = size_of(&call.request, &call.identity)?;
    let limits = &call.settings.limits;
    let limit = limits.max_put_bytes;
    if size > limit {
        return Err(Refusal::EntityTooLarge { size, limit });
    }
    let announced = call.announced()?;
    let share = call.share(Some(size)).await?;
    checked(call, incoming, announced, size, share)
}

/// An XML document, whole and verified.
pub(super) async fn document(
    call: &Call,
    incoming: Incoming,
    announced: Announced,
) -> Result<Bytes, Refusal> {
    let headers = call.request.headers();
    let has_none =
        !headers.contains_key(CONTENT_LENGTH) && !headers.contains_key(TRANSFER_ENCODING);
    let size = match size_of(&call.request, &call.identity) {
        // Without either header there is no body.
        Err(Refusal::LengthMissing) if has_none => 0,
        size => size?,
    };
    let limits = &call.settings.limits;
    let limit = limits.max_xml_bytes;
    if size > limit {
        return Err(Refusal::DocumentTooLarge { limit });
    }
    let wanted = size.saturating_mul(DOCUMENT_FACTOR);
    let share = call.budget().for_whole(wanted, limits.deadline).await;
    let share = share.ok_or(Refusal::SlowDown {
        limit: BUFFER_MEMORY,
    })?;
    let mut body = checked(call, incoming, announced, size, share)?;
    Ok(body.collect().await?)
}

fn checked(
    call: &Call,
    incoming: Incoming,
    announced: Announced,
    size: u64,
    share: Share,
) -> Result<Body, Refusal> {
    let (identity, limits) = (&call.identity, &call.settings.limits);
    let names = call.request.trailer_names()?;
    let decoder = if identity.payload.is_chunked() {
        let names = names.iter().map(String::as_str);
        let made = Decoder::new(identity.chunks.clone(), size, names);
        Some(made.map_err(|error| Refusal::request(error.to_string()))?)
    } else if names.is_empty() {
        None
    } else {
        return Err(Refusal::request(
            "x-amz-trailer needs a body in aws-chunked",
        ));
    };
    let source = ClientBody {
        incoming,
        decoder,
        size,
        got: 0,
        pending: Bytes::new(),
        ended: false,
        trailing: Vec::new(),
        pace: Pace::new(limits.min_body_rate),
        longest_wait: limits.idle_timeout,
        _share: share,
    };
    let mut body = announced.apply(Body::new(Box::new(source), size));
    if let Payload::Sha256(sha256) = identity.payload {
        body = body.expect_sha256(sha256);
    }
    Ok(body)
}

/// A body as the client sends it.
struct ClientBody {
    incoming: Incoming,
    decoder: Option<Decoder>,
    /// How many bytes were announced, and how many have come.
    size: u64,
    got: u64,
    /// What was received and not decoded yet.
    pending: Bytes,
    /// Whether the decoder has seen its end.
    ended: bool,
    trailing: Vec<Checksum>,
    pace: Pace,
    longest_wait: Duration,
    _share: Share,
}

impl ByteSource for ClientBody {
    fn next(&mut self) -> NextChunk<'_> {
        Box::pin(async move {
            let chunk = self.chunk().await.transpose()?;
            Some(chunk.map_err(|fault| BlobError::Body { fault }))
        })
    }

    fn trailing_checksums(&mut self) -> Vec<Checksum> {
        std::mem::take(&mut self.trailing)
    }
}

impl ClientBody {
    async fn chunk(&mut self) -> Result<Option<Bytes>, BodyFault> {
        loop {
            if let Some(bytes) = self.decode()? {
                self.got = self.got.saturating_add(bytes.len() as u64);
                return Ok(Some(bytes));
            }
            let Some(bytes) = self.frame().await? else {
                if self.decoder.is_some() && !self.ended {
                    return Err(BodyFault::TooShort {
                        expected: self.size,
                        got: self.got,
                    });
                }
                return Ok(None);
            };
            self.pending = bytes;
        }
    }

    /// The next bytes of the object out of what was received; `None`: more must be received.
    fn decode(&mut self) -> Result<Option<Bytes>, BodyFault> {
        let Some(decoder) = &mut self.decoder else {
            let bytes = std::mem::take(&mut self.pending);
            return Ok((!bytes.is_empty()).then_some(bytes));
        };
        while let Some(event) = decoder.next(&mut self.pending).map_err(fault_of)? {
            match event {
                Event::Data(bytes) if bytes.is_empty() => {}
                Event::Data(bytes) => return Ok(Some(bytes)),
                Event::Trailer { name, value } => self.trailing.push(trailer(&name, &value)?),
                Event::End => self.ended = true,
            }
        }
        Ok(None)
    }

    /// The next bytes of the connection; `None` at the end of the message.
    async fn frame(&mut self) -> Result<Option<Bytes>, BodyFault> {
        loop {
            let longest = self.pace.patience().map_or(self.longest_wait, |patience| {
                patience.min(self.longest_wait)
            });
            let begun = clock::now();
            let received = tokio::time::timeout(longest, self.incoming.frame()).await;
            let waited = clock::now().saturating_duration_since(begun);
            let bytes = match received {
                Ok(None) => return Ok(None),
                Ok(Some(Err(_))) => return Err(BodyFault::Gone),
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
                Err(_) if longest >= self.longest_wait => return Err(BodyFault::TooSlow),
                Err(_) => Bytes::new(),
            };
            if !self.pace.keeps(waited, bytes.len() as u64) {
                return Err(BodyFault::TooSlow);
            }
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
    }
}

fn trailer(name: &str, value: &str) -> Result<Checksum, BodyFault> {
    let known = Algorithm::ALL.iter().find(|known| known.header() == name);
    let checksum = known.and_then(|algorithm| digests::from_text(*algorithm, value));
    checksum.ok_or_else(|| BodyFault::Framing {
        problem: format!("the trailer {name} holds no checksum"),
    })
}

fn fault_of(error: ChunkError) -> BodyFault {
    match error {
        ChunkError::ChunkSignature { .. } | ChunkError::TrailerSignature => {
            BodyFault::ChunkSignature
        }
        error => BodyFault::Framing {
            problem: error.to_string(),
        },
    }
}
