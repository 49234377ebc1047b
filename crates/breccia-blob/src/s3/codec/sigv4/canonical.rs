//! The one form of a request that both sides compute a signature over.
//!
//! Invariant: the path is decoded and encoded once, never normalised; what a header means here is
//! what it means to the frontend.

use hyper::HeaderMap;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};

use super::key::push_sha256_hex;
use super::{ALGORITHM, RequestHead, SignatureError};
use crate::s3::codec::uri::{self, Query, Slash};

/// The canonical request, its parts on a line each.
///
/// `signed` are the names of the headers in the signer's order, `payload` is the last line, and
/// `presigned` leaves the signature itself out of the query.
pub fn canonical_request(
    head: &RequestHead<'_>,
    query: &Query,
    signed: &[String],
    payload: &str,
    presigned: bool,
) -> Result<String, SignatureError> {
    let mut text = String::with_capacity(512);
    text.push_str(head.method);
    text.push('\n');
    uri::encode_into(&mut text, &uri::decode(head.path)?, Slash::Keep);
    text.push('\n');
    text.push_str(&query.canonical(presigned.then_some("X-Amz-Signature")));
    text.push('\n');
    for name in signed {
        text.push_str(name);
        text.push(':');
        push_value(&mut text, head.headers, name)?;
        text.push('\n');
    }
    text.push('\n');
    for (index, name) in signed.iter().enumerate() {
        if index > 0 {
            text.push(';');
        }
        text.push_str(name);
    }
    text.push('\n');
    text.push_str(payload);
    Ok(text)
}

/// What is signed in the end. `scope` is [`super::Scope::to_text`].
pub fn string_to_sign(amz_date: &str, scope: &str, canonical_request: &str) -> String {
    let mut text = String::with_capacity(160);
    for line in [ALGORITHM, amz_date, scope] {
        text.push_str(line);
        text.push('\n');
    }
    push_sha256_hex(&mut text, canonical_request.as_bytes());
    text
}

/// All values of a header, trimmed, inner white space collapsed, joined by commas.
fn push_value(text: &mut String, headers: &HeaderMap, name: &str) -> Result<(), SignatureError> {
    let mut found = false;
    for value in headers.get_all(name) {
        if found {
            text.push(',');
        }
        found = true;
        // A value that is not UTF-8 could be signed as several different texts.
        let value = std::str::from_utf8(value.as_bytes()).map_err(|_| SignatureError::Mismatch)?;
        if !value.bytes().any(|byte| byte.is_ascii_whitespace()) {
            text.push_str(value);
            continue;
        }
        for (index, word) in value.split_ascii_whitespace().enumerate() {
            if index > 0 {
                text.push(' ');
            }
            text.push_str(word);
        }
    }
    if found {
        return Ok(());
    }
    let phantom = phantom(headers, name).ok_or_else(|| SignatureError::SignedHeaderAbsent {
        name: name.to_owned(),
    })?;
    text.push_str(phantom);
    Ok(())
}

/// What some clients (rust-s3) sign on requests without a body and do not send. Safe to assume: a
/// request without the header has no body, or its body is covered by the payload's line; and a
/// missing content type means nothing else.
fn phantom(headers: &HeaderMap, name: &str) -> Option<&'static str> {
    if name == CONTENT_LENGTH.as_str() && !headers.contains_key(TRANSFER_ENCODING) {
        Some("0")
    } else if name == CONTENT_TYPE.as_str() {
        Some("text/plain")
    } else {
        None
    }
}
