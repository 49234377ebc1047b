//! The client's side: signing requests to members, and URLs for others.
//!
//! Invariant: what is signed is what the caller put into the request; nothing is changed but the
//! headers added here.

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderValue};
use thiserror::Error;

use super::{
    ALGORITHM, Payload, RequestHead, Signature, SignatureError, SigningKey, canonical_request,
    string_to_sign,
};
use crate::s3::codec::uri::{self, Query, Slash};
use crate::s3::codec::{hex, time};

/// Headers that something between us and the server may add, change or take away.
const NOT_SIGNED: [&str; 9] = [
    "accept-encoding",
    "authorization",
    "connection",
    "expect",
    "keep-alive",
    "te",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

/// Why a request cannot be signed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SignError {
    /// There is no `host` header yet.
    #[error("the request has no host header")]
    NoHost,
    /// A credential or date cannot stand in a header.
    #[error("{name} cannot stand in a header")]
    Value {
        /// Which.
        name: &'static str,
    },
    /// The day of the key is not the day of the request.
    #[error("the signing key is for another day")]
    Day,
    /// The target or a header has no canonical form.
    #[error("the request has no canonical form: {source}")]
    Canonical {
        /// Why.
        #[from]
        source: SignatureError,
    },
}

/// Who signs, and when.
#[derive(Debug, Clone, Copy)]
pub struct Signer<'a> {
    /// The access key.
    pub access_key: &'a str,
    /// The token of temporary credentials.
    pub session_token: Option<&'a str>,
    /// The key, derived for the day of `now_ms`.
    pub key: &'a SigningKey,
    /// The time.
    pub now_ms: u64,
}

impl Signer<'_> {
    /// Adds `x-amz-date`, `x-amz-content-sha256`, the token and `Authorization` to the headers. Every
    /// other header that is there is signed, but for hop-by-hop ones and `user-agent`.
    ///
    /// Returns the signature, which seeds those of the chunks.
    pub fn sign(
        &self,
        method: &str,
        path: &str,
        query: &str,
        headers: &mut HeaderMap,
        payload: &Payload,
    ) -> Result<Signature, SignError> {
        let amz_date = self.amz_date()?;
        let payload = payload.to_header();
        headers.insert("x-amz-date", value("x-amz-date", &amz_date)?);
        headers.insert(
            "x-amz-content-sha256",
            value("x-amz-content-sha256", &payload)?,
        );
        if let Some(token) = self.session_token {
            headers.insert("x-amz-security-token", value("the session token", token)?);
        }
        if !headers.contains_key("host") {
            return Err(SignError::NoHost);
        }
        let mut signed: Vec<String> = headers
            .keys()
            .map(|name| name.as_str().to_owned())
            .filter(|name| !NOT_SIGNED.contains(&name.as_str()))
            .collect();
        signed.sort_unstable();
        let head = RequestHead {
            method,
            path,
            query,
            headers,
        };
        let parsed = Query::parse(query).map_err(SignatureError::from)?;
        let canonical = canonical_request(&head, &parsed, &signed, &payload, false)?;
        let scope = self.key.scope_text();
        let signature = self.key.sign(&string_to_sign(&amz_date, scope, &canonical));
        let text = [
            ALGORITHM,
            " Credential=",
            self.access_key,
            "/",
            scope,
            ",SignedHeaders=",
            &signed.join(";"),
            ",Signature=",
            &hex::encode(&signature),
        ]
        .concat();
        headers.insert(AUTHORIZATION, value("the access key", &text)?);
        Ok(signature)
    }

    /// The query of a presigned URL: `query` and the parameters of the signature. All `headers` are
    /// signed, and whoever uses the URL must send them.
    pub fn presign(
        &self,
        method: &str,
        path: &str,
        query: &str,
        headers: &HeaderMap,
        expires_s: u64,
    ) -> Result<String, SignError> {
        let amz_date = self.amz_date()?;
        if !headers.contains_key("host") {
            return Err(SignError::NoHost);
        }
        let mut signed: Vec<String> = headers
            .keys()
            .map(|name| name.as_str().to_owned())
            .collect();
        signed.sort_unstable();
        let scope = self.key.scope_text();
        let credential = format!("{}/{scope}", self.access_key);
        let expires = expires_s.to_string();
        let names = signed.join(";");
        let mut parameters = vec![
            ("X-Amz-Algorithm", ALGORITHM),
            ("X-Amz-Credential", &credential),
            ("X-Amz-Date", &amz_date),
            ("X-Amz-Expires", &expires),
            ("X-Amz-SignedHeaders", &names),
        ];
        parameters.extend(
            self.session_token
                .map(|token| ("X-Amz-Security-Token", token)),
        );
        let mut text = query.to_owned();
        for (name, value) in parameters {
            if !text.is_empty() {
                text.push('&');
            }
            text.push_str(name);
            text.push('=');
            uri::encode_into(&mut text, value.as_bytes(), Slash::Escape);
        }
        let head = RequestHead {
            method,
            path,
            query: &text,
            headers,
        };
        let parsed = Query::parse(&text).map_err(SignatureError::from)?;
        let payload = Payload::Unsigned.to_header();
        let canonical = canonical_request(&head, &parsed, &signed, &payload, true)?;
        let signature = self.key.sign(&string_to_sign(&amz_date, scope, &canonical));
        text.push_str("&X-Amz-Signature=");
        text.push_str(&hex::encode(&signature));
        Ok(text)
    }

    fn amz_date(&self) -> Result<String, SignError> {
        if time::scope_date(self.now_ms) != self.key.scope().date {
            return Err(SignError::Day);
        }
        Ok(time::amz_date(self.now_ms))
    }
}

fn value(name: &'static str, text: &str) -> Result<HeaderValue, SignError> {
    HeaderValue::from_str(text).map_err(|_| SignError::Value { name })
}
