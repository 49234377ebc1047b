//! Bodies that are not what they claim to be: refused on every member, and nothing becomes visible.
//!
//! Not about damage on disk (see [`super::damage`]). Invariant: each wrong request differs in one thing from
//! one that is accepted.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use breccia_testkit::{
    ChunkSigner, Exchange, HttpReply, Rgw, S3Request, checksum_base64, md5_base64, sha256_hex,
};

use super::site::{Plan, Site, Upload, among_others, bytes_of};

const ALGORITHMS: [&str; 5] = ["crc32", "crc32c", "crc64nvme", "sha1", "sha256"];
const CHUNK: usize = 64 * 1024;

/// What is wrong with a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    Md5,
    Sha256,
    Checksum(&'static str),
    Short,
    Cut,
    Chunks(Chunks),
}

/// What is wrong with a body in chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunks {
    /// Nothing; the trailer is of this algorithm, the chunks are signed or not.
    Right(&'static str, bool),
    /// The trailer is the checksum of another body.
    Trailer(&'static str, bool),
    TrailerMissing(bool),
    TrailerSignature,
    Signature,
    Byte,
    Order,
    LastMissing,
    DecodedLength,
}

impl Chunks {
    fn kind(self) -> (&'static str, bool) {
        match self {
            Chunks::Right(name, signed) | Chunks::Trailer(name, signed) => (name, signed),
            Chunks::TrailerMissing(signed) => ("crc32", signed),
            _ => ("crc32", true),
        }
    }

    /// The body as it goes over the wire.
    fn encoded(self, keys: &mut ChunkSigner, body: &[u8]) -> Result<Vec<u8>> {
        let (name, signed) = self.kind();
        let mut pieces: Vec<Vec<u8>> = Vec::new();
        for piece in body.chunks(CHUNK) {
            pieces.push(if signed {
                keys.chunk(piece)
            } else {
                plain(piece)
            });
        }
        let middle = pieces.len() / 2;
        match self {
            Chunks::Signature => {
                let at = pieces[middle]
                    .iter()
                    .position(|byte| *byte == b'=')
                    .context("=")?
                    + 1;
                pieces[middle][at] = if pieces[middle][at] == b'0' {
                    b'1'
                } else {
                    b'0'
                };
            }
            Chunks::Byte => {
                let last = pieces[middle].len() - 3;
                pieces[middle][last] ^= 1;
            }
            Chunks::Order => pieces.swap(0, middle),
            _ => {}
        }
        let mut wire = pieces.concat();
        if self == Chunks::LastMissing {
            return Ok(wire);
        }
        wire.extend_from_slice(&if signed {
            keys.chunk(b"")
        } else {
            b"0\r\n".to_vec()
        });
        let of: &[u8] = if matches!(self, Chunks::Trailer(..)) {
            b"another"
        } else {
            body
        };
        let value = checksum_base64(name, of).context("an algorithm")?;
        let mut line = format!("x-amz-checksum-{name}:{value}\n");
        if !matches!(self, Chunks::TrailerMissing(_)) {
            wire.extend_from_slice(line.trim_end().as_bytes());
            wire.extend_from_slice(b"\r\n");
        }
        if self == Chunks::TrailerSignature {
            line.push_str("x:y\n");
        }
        if signed {
            wire.extend_from_slice(keys.trailer(&line).as_bytes());
        }
        wire.extend_from_slice(b"\r\n");
        Ok(wire)
    }

    fn send(self, request: S3Request, address: &str, body: &[u8]) -> Result<HttpReply> {
        let (name, signed) = self.kind();
        let length = body.len() + usize::from(self == Chunks::DecodedLength);
        let payload = if signed {
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
        } else {
            "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
        };
        let request = request
            .payload(payload)
            .header("x-amz-decoded-content-length", &length.to_string())
            .header("x-amz-trailer", &format!("x-amz-checksum-{name}"))
            .header("content-encoding", "aws-chunked");
        // Signatures are all of one length, so any signer tells the wire's.
        let length = self.encoded(&mut request.head().1, body)?.len();
        let (head, mut chunk_signer) = request.length(length).head();
        let mut exchange = Exchange::open(address, &head)?;
        let _sent = exchange.write(&self.encoded(&mut chunk_signer, body)?);
        Ok(exchange.reply()?.0)
    }
}

fn plain(piece: &[u8]) -> Vec<u8> {
    let mut wire = format!("{:x}\r\n", piece.len()).into_bytes();
    wire.extend_from_slice(piece);
    wire.extend_from_slice(b"\r\n");
    wire
}

/// A body that an object or a part gets, sent wrongly; `None` when no answer can come.
fn send(site: &Site, request: S3Request, body: &[u8], wrong: Wrong) -> Result<Option<HttpReply>> {
    let address = site.s3.address();
    let request = match wrong {
        Wrong::Nothing => request.header("content-md5", &md5_base64(body)),
        Wrong::Md5 => request.header("content-md5", &md5_base64(b"another")),
        Wrong::Sha256 => request.payload(&sha256_hex(b"another")),
        Wrong::Checksum(name) => {
            let value = checksum_base64(name, b"another").context("an algorithm")?;
            request.header(&format!("x-amz-checksum-{name}"), &value)
        }
        Wrong::Chunks(chunks) => return chunks.send(request, address, body).map(Some),
        Wrong::Short | Wrong::Cut => {
            let mut exchange = request.length(body.len()).open()?;
            exchange.write(&body[..=body.len() / 2])?;
            if wrong == Wrong::Short {
                exchange.end_request()?;
                return Ok(exchange.reply().ok().map(|(reply, _)| reply));
            }
            std::thread::sleep(Duration::from_millis(30));
            exchange.reset();
            return Ok(None);
        }
    };
    request.send(body).map(Some)
}

fn rows() -> Vec<(Wrong, &'static str)> {
    let chunks = |chunks, code| (Wrong::Chunks(chunks), code);
    let mut rows = vec![
        (Wrong::Md5, "BadDigest"),
        (Wrong::Sha256, "XAmzContentSHA256Mismatch"),
        (Wrong::Short, "IncompleteBody"),
        (Wrong::Cut, ""),
        chunks(Chunks::TrailerMissing(true), ""),
        chunks(Chunks::TrailerMissing(false), ""),
        chunks(Chunks::TrailerSignature, "SignatureDoesNotMatch"),
        chunks(Chunks::Signature, "SignatureDoesNotMatch"),
        chunks(Chunks::Byte, "SignatureDoesNotMatch"),
        chunks(Chunks::Order, "SignatureDoesNotMatch"),
        chunks(Chunks::LastMissing, ""),
        chunks(Chunks::DecodedLength, ""),
    ];
    for name in ALGORITHMS {
        rows.push((Wrong::Checksum(name), "BadDigest"));
        rows.push(chunks(Chunks::Trailer(name, true), "BadDigest"));
        rows.push(chunks(Chunks::Trailer(name, false), "BadDigest"));
    }
    rows
}

fn refused(reply: Option<&HttpReply>, code: &str) -> Result<()> {
    let Some(reply) = reply else { return Ok(()) };
    let text = reply.text();
    ensure!(
        (400..500).contains(&reply.status),
        "{} {text}",
        reply.status
    );
    ensure!(
        text.contains(&format!("<Code>{code}")),
        "{} {text}",
        reply.status
    );
    Ok(())
}

/// One wrong body to a key that is absent, to one that is there, and to a part.
fn check(site: &Site, shard: usize, wrong: Wrong, code: &str) -> Result<()> {
    for size in [5_000, 300_000] {
        if size < CHUNK && wrong == Wrong::Chunks(Chunks::Order) {
            continue;
        }
        let absent = site.key_on(shard, "absent");
        let body = bytes_of(&absent, 7, size);
        let reply = send(site, site.request("PUT", &absent), &body, wrong)?;
        refused(reply.as_ref(), code).context("an absent key")?;
        let there = site.key_on(shard, "there");
        let reply = send(site, site.request("PUT", &there), &body, wrong)?;
        refused(reply.as_ref(), code).context("a present key")?;
        if wrong == Wrong::Cut {
            // Nobody tells when the gateway has heard of it.
            std::thread::sleep(Duration::from_millis(100));
        }
        ensure!(site.get(&absent)?.is_none(), "{absent} is there");
        ensure!(
            site.get(&there)?.as_deref() == Some(b"old".as_slice()),
            "{there} has changed"
        );
    }
    Ok(())
}

fn check_part(site: &Site, shard: usize) -> Result<()> {
    let key = site.key_on(shard, "parts");
    let upload = Upload::begin(&site.s3, &key)?;
    let body = bytes_of(&key, 7, 300_000);
    for (wrong, code) in rows() {
        let target = format!("{}&partNumber=1", upload.target);
        let reply = send(site, site.request("PUT", &target), &body, wrong)?;
        refused(reply.as_ref(), code).with_context(|| format!("a part, {wrong:?}"))?;
    }
    std::thread::sleep(Duration::from_millis(100));
    let parts = site.call("GET", &upload.target, b"")?.success()?.text();
    ensure!(!parts.contains("<PartNumber>"), "{parts}");
    Ok(())
}

fn all_rows(site: &Site) -> Result<()> {
    for shard in 0..site.plan.count() {
        site.put(&site.key_on(shard, "there"), b"old")?;
        for (wrong, code) in rows() {
            check(site, shard, wrong, code).with_context(|| format!("shard {shard}, {wrong:?}"))?;
        }
        check_part(site, shard).with_context(|| format!("shard {shard}"))?;
        let mut right = vec![Wrong::Nothing];
        for name in ALGORITHMS {
            right.push(Wrong::Chunks(Chunks::Right(name, true)));
            right.push(Wrong::Chunks(Chunks::Right(name, false)));
        }
        for right in right {
            let key = site.key_on(shard, "right");
            let body = bytes_of(&key, 7, 300_000);
            let reply = send(site, site.request("PUT", &key), &body, right)?;
            reply
                .context("no answer")?
                .success()
                .with_context(|| format!("{right:?}"))?;
            ensure!(
                site.get(&key)?.as_deref() == Some(body.as_slice()),
                "{right:?}"
            );
        }
        let expected = [site.key_on(shard, "right"), site.key_on(shard, "there")];
        let keys = site.keys()?;
        for key in &keys {
            ensure!(
                !key.starts_with("absent") && !key.starts_with("parts"),
                "{key} is listed"
            );
        }
        ensure!(expected.iter().all(|key| keys.contains(key)), "{keys:?}");
    }
    Ok(())
}

#[test]
fn a_body_that_is_not_what_it_claims_is_never_seen_on_members_of_our_own() -> Result<()> {
    let _shared = among_others();
    all_rows(&Plan::new()?.fs("disk").sqlite("file").start()?)
}

#[test]
fn a_body_that_is_not_what_it_claims_is_never_seen_on_an_s3_member() -> Result<()> {
    let _shared = among_others();
    let rgw = Rgw::shared()?.s3();
    rgw.create_bucket("wire")?;
    all_rows(&Plan::new()?.s3("rgw", rgw, rgw.address(), "wire").start()?)
}
