//! What can go wrong with sockets, TLS and workers.
//!
//! Not the errors of a wire protocol. Invariant: a message names the place and, where there is one,
//! the mend.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use breccia_core::error::{Effect, ErrorKind, Origin};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// The peer cannot be reached.
    #[error("{address} cannot be reached ({})", plain_reason(source))]
    Connect {
        /// The peer's address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The peer did not answer in time.
    #[error("{address} cannot be reached (no answer within {} ms)", after.as_millis())]
    ConnectTimeout {
        /// The peer's address.
        address: String,
        /// How long was waited.
        after: Duration,
    },
    /// The TLS handshake failed.
    #[error("the TLS handshake with {peer} failed ({source}{})", mend(source))]
    Handshake {
        /// The peer's address.
        peer: String,
        /// What was wrong.
        source: io::Error,
    },
    /// The peer did not finish the TLS handshake in time.
    #[error("the TLS handshake with {peer} was not done within {} ms", after.as_millis())]
    HandshakeTimeout {
        /// The peer's address.
        peer: String,
        /// How long was waited.
        after: Duration,
    },
    /// A PEM file cannot be read or holds nothing of use.
    #[error("{option}: {} {what}", path.display())]
    Pem {
        /// The configuration key, such as `tls.cert`.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong and how to mend it.
        what: String,
    },
    /// Certificate and key cannot be used together, or TLS cannot be set up.
    #[error("{option}: {source}")]
    TlsSetup {
        /// The configuration key at fault.
        option: &'static str,
        /// What rustls said.
        source: rustls::Error,
    },
    /// A name that no certificate can be checked against.
    #[error("tls.server-name: '{name}' is neither a host name nor an IP address")]
    ServerName {
        /// The name.
        name: String,
    },
    /// Another process listens there.
    #[error("{bind} is taken by another process; stop it, or choose another `bind`")]
    AddressTaken {
        /// Where to listen.
        bind: String,
    },
    /// Listening failed.
    #[error("cannot listen on {bind} ({})", plain_reason(source))]
    Bind {
        /// Where to listen.
        bind: String,
        /// What the system said.
        source: io::Error,
    },
    /// A listening address that cannot be read.
    #[error("'{text}' is not a listening address; write IP:PORT, [IPv6]:PORT or unix:/path")]
    BindSyntax {
        /// What was written.
        text: String,
    },
    /// A worker thread could not be started.
    #[error("worker {worker} could not be started ({source})")]
    Worker {
        /// The worker's number.
        worker: usize,
        /// Why.
        source: io::Error,
    },
}

impl NetError {
    /// What kind of trouble this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Connect { .. } | Self::Handshake { .. } => ErrorKind::Unreachable,
            Self::ConnectTimeout { .. } | Self::HandshakeTimeout { .. } => ErrorKind::Timeout,
            Self::Pem { .. }
            | Self::TlsSetup { .. }
            | Self::ServerName { .. }
            | Self::BindSyntax { .. } => ErrorKind::Refused,
            Self::AddressTaken { .. } | Self::Bind { .. } | Self::Worker { .. } => {
                ErrorKind::System
            }
        }
    }

    /// Why a peer is out of reach, as a short phrase: `connection refused`.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::Connect { source, .. } | Self::Bind { source, .. } => plain_reason(source),
            Self::ConnectTimeout { .. } => "it does not answer".to_owned(),
            Self::Handshake { source, .. } => format!("TLS: {source}{}", mend(source)),
            Self::HandshakeTimeout { .. } => "TLS: it does not answer".to_owned(),
            other => other.to_string(),
        }
    }

    /// Where it came from.
    #[must_use]
    pub fn origin(&self) -> Origin {
        match self.kind() {
            ErrorKind::Unreachable | ErrorKind::Timeout => Origin::Upstream,
            ErrorKind::Refused => Origin::Downstream,
            _ => Origin::Internal,
        }
    }

    /// No request was ever sent when one of these arises.
    #[must_use]
    pub fn effect(&self) -> Effect {
        Effect::NotApplied
    }
}

/// An I/O error as a short phrase for a message: `connection refused`, without error numbers.
#[must_use]
pub fn plain_reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    let first = letters.next().map(char::to_lowercase);
    let starts_like_a_word = letters.clone().next().is_some_and(char::is_lowercase);
    match first {
        Some(first) if starts_like_a_word => first.chain(letters).collect(),
        _ => text.to_owned(),
    }
}

/// What to look at after a handshake that failed, where rustls's own words leave it open.
fn mend(error: &io::Error) -> &'static str {
    use rustls::CertificateError::{BadSignature, UnknownIssuer};
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        // Of one with the name of an authority that is known, the signature does not fit.
        Some(rustls::Error::InvalidCertificate(UnknownIssuer | BadSignature)) => {
            "; no authority of tls.ca, by default the system's, has signed it"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_of_a_stranger_is_told_with_the_key_to_look_at() {
        let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let error = NetError::Handshake {
            peer: "db:5432".to_owned(),
            source: io::Error::new(io::ErrorKind::InvalidData, unknown),
        };
        for text in [error.to_string(), error.reason()] {
            assert!(
                text.contains("UnknownIssuer; no authority of tls.ca"),
                "{text}"
            );
        }
    }

    #[test]
    fn reasons_are_short_phrases() {
        let check = |error: io::Error, expected: &str| assert_eq!(plain_reason(&error), expected);
        check(io::Error::from_raw_os_error(111), "connection refused");
        check(io::Error::from_raw_os_error(2), "no such file or directory");
        check(io::Error::other("TLS is off"), "TLS is off");
        check(io::Error::other(""), "");
    }
}
