//! The server's side: is this request signed by whom it says?
//!
//! Invariant: nothing is returned before the signature matched.

use super::key::SigningKey;
use super::{
    Authorization, Form, MOST_SKEW_MS, Payload, RequestHead, Scope, Signature, SignatureError,
    canonical_request, string_to_sign,
};
use crate::s3::codec::time;
use crate::s3::codec::uri::Query;

/// Where signing keys come from. An implementation may keep derived keys for the day.
pub trait KeyLookup {
    /// The key of an access key for a scope; none: there is no such access key.
    fn signing_key(&self, access_key: &str, scope: &Scope) -> Option<SigningKey>;
}

impl<F: Fn(&str, &Scope) -> Option<SigningKey>> KeyLookup for F {
    fn signing_key(&self, access_key: &str, scope: &Scope) -> Option<SigningKey> {
        self(access_key, scope)
    }
}

/// Which regions a credential scope may name.
#[derive(Debug, Clone, Copy)]
pub enum Regions<'a> {
    /// Any: a gateway stands in no region.
    Any,
    /// One of these.
    OneOf(&'a [&'a str]),
}

/// A request that was signed by its access key.
#[derive(Debug, Clone)]
pub struct Verified {
    /// The claim, now proved. Its signature seeds those of the chunks.
    pub authorization: Authorization,
    /// How the body is covered: whoever reads it must go on checking.
    pub payload: Payload,
    /// For the chunks' signatures.
    pub signing_key: SigningKey,
    /// The date as it was signed, for the chunks' signatures.
    pub amz_date: String,
}

impl Verified {
    /// What the first chunk's signature is chained to.
    pub fn seed_signature(&self) -> Signature {
        self.authorization.signature
    }
}

/// Checks a request's signature; none: it has none, it is anonymous.
pub fn verify(
    head: &RequestHead<'_>,
    now_ms: u64,
    regions: Regions<'_>,
    keys: &impl KeyLookup,
) -> Result<Option<Verified>, SignatureError> {
    let query = Query::parse(head.query)?;
    let Some(claim) = Authorization::parse(head, &query)? else {
        return Ok(None);
    };
    let amz_date = time::amz_date(claim.date_ms);
    check_scope(&claim, &amz_date, regions)?;
    check_time(&claim, now_ms)?;
    check_coverage(&claim, head)?;
    let payload_line = payload_line(&claim, head, &query)?;
    let payload = Payload::parse(payload_line)?;
    let key = keys
        .signing_key(&claim.access_key, &claim.scope)
        .ok_or_else(|| SignatureError::UnknownAccessKey {
            access_key: claim.access_key.clone(),
        })?;
    let presigned = claim.is_presigned();
    let canonical = canonical_request(
        head,
        &query,
        &claim.signed_headers,
        std::str::from_utf8(payload_line)
            .map_err(|_| SignatureError::Payload { streaming: false })?,
        presigned,
    )?;
    let text = string_to_sign(&amz_date, key.scope_text(), &canonical);
    if !key.matches(&text, &claim.signature) {
        return Err(SignatureError::Mismatch);
    }
    Ok(Some(Verified {
        authorization: claim,
        payload,
        signing_key: key,
        amz_date,
    }))
}

fn check_scope(
    claim: &Authorization,
    amz_date: &str,
    regions: Regions<'_>,
) -> Result<(), SignatureError> {
    let refused = |what| SignatureError::Scope {
        what,
        presigned: claim.is_presigned(),
    };
    if let Regions::OneOf(names) = regions
        && !names.contains(&claim.scope.region.as_str())
    {
        return Err(refused("the region is not served here"));
    }
    if !amz_date.starts_with(&claim.scope.date) {
        return Err(refused("its date is not the request's"));
    }
    Ok(())
}

fn check_time(claim: &Authorization, now_ms: u64) -> Result<(), SignatureError> {
    match claim.form {
        Form::Header if claim.date_ms.abs_diff(now_ms) > MOST_SKEW_MS => {
            Err(SignatureError::Skewed {
                request_ms: claim.date_ms,
                now_ms,
            })
        }
        Form::Header => Ok(()),
        Form::Presigned { expires_s } => {
            let expired_ms = claim.date_ms.saturating_add(expires_s.saturating_mul(1000));
            if now_ms.saturating_add(MOST_SKEW_MS) < claim.date_ms {
                Err(SignatureError::NotYetValid)
            } else if now_ms > expired_ms {
                Err(SignatureError::Expired { expired_ms, now_ms })
            } else {
                Ok(())
            }
        }
    }
}

/// An `x-amz-*` header that is not signed could have been added by anybody who saw the request: copy
/// sources, metadata, access lists. Two are covered by lines of their own: the payload's, and (only
/// when the header gives the date) the date's.
fn check_coverage(claim: &Authorization, head: &RequestHead<'_>) -> Result<(), SignatureError> {
    if !claim.signs("host") {
        return Err(SignatureError::HostNotSigned);
    }
    for name in head.headers.keys().map(hyper::header::HeaderName::as_str) {
        let covered = !name.starts_with("x-amz-")
            || name == "x-amz-content-sha256"
            || (name == "x-amz-date" && claim.form == Form::Header)
            || claim.signs(name);
        if !covered {
            return Err(SignatureError::UnsignedHeader {
                name: name.to_owned(),
            });
        }
    }
    Ok(())
}

/// The canonical request's last line. In a presigned request the query wins, then the header, then
/// nothing is said of the body; whichever it is, the signature covers the choice.
fn payload_line<'a>(
    claim: &Authorization,
    head: &RequestHead<'a>,
    query: &'a Query,
) -> Result<&'a [u8], SignatureError> {
    const NAME: &str = "x-amz-content-sha256";
    if head.headers.get_all(NAME).iter().count() > 1 {
        return Err(SignatureError::Payload { streaming: false });
    }
    let header = head
        .headers
        .get(NAME)
        .map(hyper::header::HeaderValue::as_bytes);
    if claim.is_presigned() {
        let said = query.get("X-Amz-Content-Sha256").or(header);
        Ok(said.unwrap_or(b"UNSIGNED-PAYLOAD"))
    } else {
        header.ok_or(SignatureError::PayloadMissing)
    }
}
