//! An HTTP/1.1 client for storage servers: streamed, bounded, honest about what it knows.
//!
//! Not a general client: no redirects, no cookies, no proxies, no compression. A request's life:
//!
//! ```text
//! RequestHead + Payload ─▶ small bodies are verified first ─▶ Signer ─▶ Pool::lease ─▶ head sent
//!     ─▶ Feeder: pieces, the last 64 KiB only after Body::next() ended cleanly ─▶ HttpResponse
//! ```
//!
//! Invariant: a server has a whole request only after everything announced about its body was
//! found right; and an error's effect is `NotApplied` only while the server has less than that.

mod client;
mod endpoint;
mod payload;
mod pool;
mod request;
mod response;
mod retry;
#[cfg(test)]
pub(crate) mod stub;
#[cfg(test)]
mod tests;

pub use client::{HttpClient, HttpOptions};
pub use endpoint::Endpoint;
pub use payload::{HOLD_BACK_BYTES, Payload};
pub use request::{Lane, PayloadKind, RequestHead, SignFuture, Signer, Unsigned};
pub use response::{Collected, HttpResponse, MAX_ANSWER_BYTES};
pub(crate) use retry::Repeat;
