//! What one listener allows its clients. Values only.
//!
//! Invariant: every queue, wait and buffer of a client is bounded by a field here.

use std::time::Duration;

/// The limits of a listener; the names are those of the configuration.
#[derive(Clone, Debug)]
pub struct ListenerLimits {
    /// How long a request may wait here unsent (`deadline`).
    pub deadline: Duration,
    /// A client that sends nothing for this long, and waits for nothing, is closed.
    pub idle_timeout: Option<Duration>,
    /// Bytes of one request.
    pub max_request_size: usize,
    /// Bytes of one request that is held until it is whole.
    pub max_held_request: usize,
    /// Arguments of one request.
    pub max_arguments: usize,
    /// Requests of one client that have no reply yet; at the limit its socket is not read.
    pub max_in_flight: usize,
    /// Reply bytes that may wait for one client; above it its socket is not read.
    pub reply_buffer: usize,
    /// How long a client may leave more than `reply_buffer` unread, or drain nothing of it.
    pub write_timeout: Duration,
    /// Bytes a second below which a client in the middle of a request is cut.
    pub min_body_rate: u64,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(1),
            idle_timeout: None,
            max_request_size: 1 << 30,
            max_held_request: 64 << 20,
            max_arguments: 1 << 20,
            max_in_flight: 1024,
            reply_buffer: 8 << 20,
            write_timeout: Duration::from_secs(10),
            min_body_rate: 1024,
        }
    }
}

impl ListenerLimits {
    /// The largest request that is held until it is whole.
    #[must_use]
    pub fn held_request(&self) -> usize {
        self.max_held_request.min(self.max_request_size)
    }

    /// More waiting reply bytes than this close the client at once, whatever the time: requests
    /// in flight may bring more than `reply_buffer` before the client is no longer read.
    #[must_use]
    pub fn reply_hard_limit(&self) -> usize {
        self.reply_buffer.saturating_mul(32).max(256 << 20)
    }
}
