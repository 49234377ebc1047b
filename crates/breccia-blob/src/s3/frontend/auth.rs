//! Who sends a request, and whether they may.
//!
//! The signature itself is the codec's. Invariant: nothing of a request is acted upon before it went
//! through here.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use breccia_net::clock;
use hyper::Method;

use crate::s3::codec::chunked::ChunkSigner;
use crate::s3::codec::sigv4::{self, Payload, Regions, Scope, SignatureError, SigningKey};

use super::operation::{self, Operation};
use super::refusal::Refusal;
use super::request::Request;
use super::settings::{S3User, Settings};

/// Who sends a request, and how its body is covered.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    /// The user; `None` on a listener that lets everybody in.
    pub(super) user: Option<Arc<S3User>>,
    /// How the body is covered by the signature.
    pub(super) payload: Payload,
    /// What the body's chunks are signed with, if they are.
    pub(super) chunks: Option<ChunkSigner>,
    /// Whether the request is signed at all.
    pub(super) signed: bool,
}

/// The most keys that are kept.
const MAX_DERIVED: usize = 32;

/// Keys of the day, derived from secrets: those of requests that were found good, so that nobody
/// without a secret can push out others'.
#[derive(Default)]
pub(super) struct DerivedKeys(Mutex<VecDeque<Derived>>);

struct Derived {
    secret_key: String,
    key: SigningKey,
}

impl fmt::Debug for DerivedKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DerivedKeys")
            .finish_non_exhaustive()
    }
}

impl DerivedKeys {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Derived>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, secret_key: &str, scope: &Scope) -> Option<SigningKey> {
        let kept = self.lock();
        let found = kept
            .iter()
            .find(|kept| kept.key.scope() == scope && kept.secret_key == secret_key);
        found.map(|found| found.key.clone())
    }

    fn keep(&self, secret_key: &str, key: &SigningKey) {
        let mut kept = self.lock();
        let is_same =
            |kept: &Derived| kept.key.scope() == key.scope() && kept.secret_key == secret_key;
        if kept.iter().any(is_same) {
            return;
        }
        if kept.len() >= MAX_DERIVED {
            kept.pop_front();
        }
        kept.push_back(Derived {
            secret_key: secret_key.to_owned(),
            key: key.clone(),
        });
    }
}

/// Finds out who sends a request.
pub(super) fn identify(
    request: &Request,
    settings: &Settings,
    derived: &DerivedKeys,
) -> Result<Identity, Refusal> {
    if settings.is_open() {
        return unverified(request);
    }
    let is_kept = Cell::new(false);
    let keys = |access_key: &str, scope: &Scope| {
        let user = settings.user(access_key)?;
        let kept = derived.get(&user.secret_key, scope);
        is_kept.set(kept.is_some());
        Some(kept.unwrap_or_else(|| SigningKey::derive(&user.secret_key, scope.clone())))
    };
    let verified = sigv4::verify(&request.head(), clock::unix_ms(), Regions::Any, &keys)?;
    let Some(verified) = verified else {
        return Err(unsigned(request));
    };
    let access_key = &verified.authorization.access_key;
    let user = settings.user(access_key).cloned().ok_or_else(|| {
        let access_key = access_key.clone();
        SignatureError::UnknownAccessKey { access_key }
    })?;
    if !is_kept.get() {
        derived.keep(&user.secret_key, &verified.signing_key);
    }
    Ok(Identity {
        user: Some(user),
        payload: verified.payload,
        chunks: ChunkSigner::of(&verified),
        signed: true,
    })
}

/// What is wrong with a request that carries no signature. A form has its own within its body, so whoever
/// sends one is told that forms are not offered, not that they forgot to sign.
fn unsigned(request: &Request) -> Refusal {
    let kind = request.headers().get("content-type");
    let is_form = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"multipart/form-data"));
    if is_form && request.method == Method::POST && request.scope == operation::Scope::Bucket {
        return Refusal::NotImplemented {
            what: operation::FORM_UPLOAD.to_owned(),
        };
    }
    Refusal::AccessDenied {
        reason: "the request is not signed",
    }
}

/// Everybody is let in: signatures are not looked at, digests still are.
fn unverified(request: &Request) -> Result<Identity, Refusal> {
    let payload = match request.header("x-amz-content-sha256")? {
        None => Payload::Unsigned,
        Some(text) => Payload::parse(text.as_bytes())?,
    };
    let signed = request.has_header("authorization") || request.query.has("X-Amz-Signature");
    Ok(Identity {
        user: None,
        payload,
        chunks: None,
        signed,
    })
}

impl Identity {
    /// Whether they may do this to this bucket.
    pub(super) fn authorize(&self, operation: Operation, bucket: &str) -> Result<(), Refusal> {
        let Some(user) = &self.user else {
            return Ok(());
        };
        if operation.writes() && user.read_only {
            return Err(Refusal::AccessDenied {
                reason: "the user may only read",
            });
        }
        if operation == Operation::ListBuckets {
            return Ok(());
        }
        self.may_use(bucket)
    }

    /// Whether they may use a bucket at all.
    pub(super) fn may_use(&self, bucket: &str) -> Result<(), Refusal> {
        match &self.user {
            Some(user) if !user.may_use(bucket) => Err(Refusal::AccessDenied {
                reason: "the user may not use this bucket",
            }),
            _ => Ok(()),
        }
    }

    /// The user's name, if there is one.
    pub(super) fn name(&self) -> Option<&str> {
        self.user.as_ref().map(|user| user.name.as_str())
    }
}
