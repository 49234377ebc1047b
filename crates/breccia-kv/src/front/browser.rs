//! Requests that a web page made a browser send: its lines would be taken for commands.
//!
//! Not HTTP. Invariant: no command of either protocol has one of these names.

use super::client::Client;

/// Whether a command's name is the start of an HTTP request or its `Host` line, as in Redis.
pub(crate) fn is_web_request(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:")
}

/// Says that such a client is being closed.
pub(crate) fn warn_of_browser(listener: &str, client: &Client) {
    tracing::warn!(
        listener,
        peer = client.peer,
        "a web browser was made to send this listener a request; closed"
    );
}
