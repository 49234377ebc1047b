//! Repeating requests that may be carried out twice.
//!
//! Not for streamed or conditional ones: the caller vouches for that. Invariant: at most
//! `max_retries` repetitions, each after a bounded wait.

use std::time::Duration;

use breccia_core::error::Effect;
use breccia_net::clock;
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::RETRY_AFTER;

use super::client::HttpClient;
use super::payload::Payload;
use super::request::{RequestHead, Signer};
use super::response::HttpResponse;
use crate::error::BlobError;

/// The wait before the first repetition; it doubles from there.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait of our own choice.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// The longest wait a server may ask for; one that asks for more is not asked again.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(5);

/// Whether a request may be sent more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    Never,
    WhenFailed,
}

impl Repeat {
    /// An unconditional write of the same bytes may be repeated, a conditional one may not.
    pub(crate) fn of_write(conditional: bool) -> Self {
        if conditional {
            Self::Never
        } else {
            Self::WhenFailed
        }
    }
}

impl HttpClient {
    /// Sends bytes, as often as `repeat` allows, and gives the answer, whatever it is, with its
    /// body still to be read.
    ///
    /// # Errors
    /// As [`HttpClient::send`].
    pub(crate) async fn send_bytes(
        &self,
        head: RequestHead,
        bytes: Bytes,
        repeat: Repeat,
        signer: &dyn Signer,
    ) -> Result<HttpResponse, BlobError> {
        match repeat {
            Repeat::Never => self.send(head, Payload::Bytes(bytes), signer).await,
            Repeat::WhenFailed => self.send_repeatable(&head, bytes, signer).await,
        }
    }

    /// Sends a request that may be carried out twice without harm (a read; a write of the same
    /// bytes; a delete without condition), and repeats it while the server cannot be reached or says
    /// that it is its own fault. The last answer is given, whatever it is.
    ///
    /// # Errors
    /// As [`HttpClient::send`].
    pub async fn send_repeatable(
        &self,
        head: &RequestHead,
        bytes: Bytes,
        signer: &dyn Signer,
    ) -> Result<HttpResponse, BlobError> {
        let mut attempt = 0;
        // An earlier attempt may still be carried out, whatever the last one comes to.
        let mut maybe_applied = false;
        loop {
            let payload = Payload::Bytes(bytes.clone());
            let result = self.send(head.clone(), payload, signer).await;
            let asked = match &result {
                Ok(answer) if worth_repeating(answer.status) => retry_after(answer),
                Err(BlobError::Down { .. }) => Some(Duration::ZERO),
                Ok(_) => return result,
                Err(_) => None,
            };
            let Some(asked) = asked.filter(|_| attempt < self.max_retries) else {
                return self.told(result, maybe_applied);
            };
            maybe_applied |= !head.reads() && may_be_applied(&result);
            if let Ok(answer) = result {
                answer.discard().await;
            }
            tokio::time::sleep(wait(attempt, clock::seed()).max(asked)).await;
            attempt = attempt.saturating_add(1);
        }
    }
}

impl HttpClient {
    /// What the last attempt has come to, knowing of those before it.
    fn told(
        &self,
        result: Result<HttpResponse, BlobError>,
        maybe_applied: bool,
    ) -> Result<HttpResponse, BlobError> {
        if !maybe_applied {
            return result;
        }
        let store = self.store().to_owned();
        Err(match result {
            // An answer that may mean anything: the one before was no other.
            Ok(answer) => BlobError::Server {
                store,
                status: answer.status.as_u16(),
                code: "Repeated".to_owned(),
                message: "an earlier attempt was not answered".to_owned(),
                effect: Effect::Unknown,
            },
            Err(error @ BlobError::Overloaded { .. }) => BlobError::Down {
                store,
                reason: error.to_string(),
                effect: Effect::Unknown,
            },
            Err(error) => error.with_effect(Effect::Unknown),
        })
    }
}

/// Whether an attempt that is repeated may have been carried out all the same.
fn may_be_applied(result: &Result<HttpResponse, BlobError>) -> bool {
    match result {
        Ok(answer) => answer.status.is_server_error(),
        Err(error) => error.effect() == Effect::Unknown,
    }
}

fn worth_repeating(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 500 | 502 | 503 | 504)
}

/// How long the server asks to wait: nothing if it does not; `None` if it asks for too much.
fn retry_after(answer: &HttpResponse) -> Option<Duration> {
    let asked = answer
        .header(RETRY_AFTER.as_str())
        .and_then(|text| text.trim().parse().ok())
        .map_or(Duration::ZERO, Duration::from_secs);
    (asked <= LONGEST_RETRY_AFTER).then_some(asked)
}

/// Between half and all of a wait that doubles with each attempt.
fn wait(attempt: u32, seed: u64) -> Duration {
    let longest = FIRST_WAIT
        .saturating_mul(2_u32.saturating_pow(attempt))
        .min(LONGEST_WAIT);
    let half = longest / 2;
    let parts = u32::try_from(seed % 1000).unwrap_or(0);
    half + half * parts / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_are_bounded() {
        let check = |attempt, seed, low: u64, high: u64| {
            let found = wait(attempt, seed);
            assert!(found >= Duration::from_millis(low), "{found:?}");
            assert!(found <= Duration::from_millis(high), "{found:?}");
        };
        check(0, 0, 50, 50);
        check(0, 999, 99, 100);
        check(2, 999, 200, 400);
        check(99, u64::MAX, 1000, 2000);
    }
}
