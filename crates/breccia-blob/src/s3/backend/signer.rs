//! Signs requests to the member with the credentials of the moment.
//!
//! Invariant: a signing key is derived once a day and access key, not once a request.

use std::sync::{Mutex, PoisonError};

use breccia_core::error::Effect;
use breccia_net::clock;
use ring::digest::{SHA256, digest};

use super::credentials::{CredentialCache, Credentials};
use crate::error::BlobError;
use crate::http::{self, PayloadKind, RequestHead, SignFuture};
use crate::s3::codec::sigv4::{Payload, Scope, Signer, SigningKey};
use crate::s3::codec::time;

/// Signs with signature version 4.
#[derive(Debug)]
pub(super) struct MemberSigner {
    store: String,
    region: String,
    credentials: CredentialCache,
    derived: Mutex<Option<Derived>>,
}

struct Derived {
    access_key: String,
    secret_key: String,
    key: SigningKey,
}

impl std::fmt::Debug for Derived {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Derived")
    }
}

impl MemberSigner {
    pub(super) fn new(store: &str, region: &str, credentials: CredentialCache) -> Self {
        Self {
            store: store.to_owned(),
            region: region.to_owned(),
            credentials,
            derived: Mutex::default(),
        }
    }

    /// The id of the access key in use, for errors.
    pub(super) fn access_key(&self) -> String {
        let derived = self.derived.lock().unwrap_or_else(PoisonError::into_inner);
        derived
            .as_ref()
            .map_or_else(String::new, |found| found.access_key.clone())
    }

    fn key(&self, credentials: &Credentials, now_ms: u64) -> SigningKey {
        let date = time::scope_date(now_ms);
        let mut derived = self.derived.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = derived.as_ref()
            && found.access_key == credentials.access_key
            && found.secret_key == credentials.secret_key
            && found.key.scope().date == date
        {
            return found.key.clone();
        }
        let key = SigningKey::derive(&credentials.secret_key, Scope::s3(&date, &self.region));
        *derived = Some(Derived {
            access_key: credentials.access_key.clone(),
            secret_key: credentials.secret_key.clone(),
            key: key.clone(),
        });
        key
    }
}

impl http::Signer for MemberSigner {
    fn sign<'a>(&'a self, head: &'a mut RequestHead, payload: PayloadKind<'a>) -> SignFuture<'a> {
        Box::pin(async move {
            let credentials = self.credentials.get().await?;
            let now_ms = clock::unix_ms();
            let key = self.key(&credentials, now_ms);
            let signer = Signer {
                access_key: &credentials.access_key,
                session_token: credentials.session_token.as_deref(),
                key: &key,
                now_ms,
            };
            let payload = match payload {
                PayloadKind::Bytes(bytes) => sha256(bytes),
                // It would have to be read twice; the checks of the body and the answer's ETag
                // cover it instead.
                PayloadKind::Streamed => Payload::Unsigned,
            };
            let (path, query) = head.target.split_once('?').unwrap_or((&head.target, ""));
            signer
                .sign(
                    head.method.as_str(),
                    path,
                    query,
                    &mut head.headers,
                    &payload,
                )
                .map(drop)
                .map_err(|error| BlobError::System {
                    store: self.store.clone(),
                    what: "signing a request".to_owned(),
                    reason: error.to_string(),
                    effect: Effect::NotApplied,
                })
        })
    }
}

fn sha256(bytes: &[u8]) -> Payload {
    let digest = digest(&SHA256, bytes);
    match digest.as_ref().try_into() {
        Ok(value) => Payload::Sha256(value),
        Err(_) => Payload::Unsigned,
    }
}
