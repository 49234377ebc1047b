//! The endpoint of a store that speaks HTTP.
//!
//! Not a general url parser: a scheme, a host, a port, and for Azure a path. Invariant: no error
//! says any part of the url, because somebody may have written a password or a token into it.

use std::fmt;

use breccia_core::address::Address;

use crate::fault::ConfigError;
use crate::url;

const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// `http://host:port` or `https://host:port`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HttpEndpoint {
    /// Whether it is `https`.
    pub tls: bool,
    /// The server, and the scheme's port if none was written.
    pub address: Address,
    /// What stands in front of every path, such as `/devstoreaccount1`; empty for most, and
    /// without a slash at its end.
    pub path: String,
}

impl HttpEndpoint {
    /// An endpoint with TLS and without a path. `None` if this is no host.
    pub(crate) fn https(host: &str) -> Option<Self> {
        Some(Self {
            tls: true,
            address: Address::tcp(host, HTTPS_PORT).ok()?,
            path: String::new(),
        })
    }

    /// `host:port`, the port only if it is not the scheme's: as in a `Host` header.
    pub fn authority(&self) -> String {
        let whole = self.address.to_string();
        let default = if self.tls { HTTPS_PORT } else { HTTP_PORT };
        match whole.strip_suffix(&format!(":{default}")) {
            Some(host) => host.to_owned(),
            None => whole,
        }
    }
}

impl fmt::Display for HttpEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

/// Reads an endpoint; a path only where `with_path` allows one.
pub(crate) fn parse(text: &str, with_path: bool) -> Result<HttpEndpoint, ConfigError> {
    let bad = || ConfigError::BadEndpoint {
        but: if with_path {
            "user, password and parameters"
        } else {
            "user, password, path and parameters"
        },
    };
    let (scheme, rest) = text.split_once("://").ok_or_else(bad)?;
    let tls = match scheme.to_ascii_lowercase().as_str() {
        "http" => false,
        "https" => true,
        _ => return Err(bad()),
    };
    let (authority, path) = match rest.find('/') {
        Some(slash) => rest.split_at_checked(slash).ok_or_else(bad)?,
        None => (rest, ""),
    };
    let path = path.trim_end_matches('/');
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    if !path.bytes().all(plain) || !(path.is_empty() || with_path) {
        return Err(bad());
    }
    let port = if tls { HTTPS_PORT } else { HTTP_PORT };
    Ok(HttpEndpoint {
        tls,
        address: url::tcp(authority, port).map_err(|_| bad())?,
        path: path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_and_written() {
        let check = |text: &str, shown: &str, address: &str| {
            let endpoint = parse(text, true).unwrap();
            assert_eq!(endpoint.to_string(), shown);
            assert_eq!(endpoint.address.to_string(), address);
            assert_eq!(parse(shown, true).unwrap(), endpoint);
        };
        check(
            "http://127.0.0.1:3900",
            "http://127.0.0.1:3900",
            "127.0.0.1:3900",
        );
        check("HTTP://H:80/", "http://h", "h:80");
        check("https://S3.Example", "https://s3.example", "s3.example:443");
        check("https://h:80", "https://h:80", "h:80");
        check("http://[::1]:443", "http://[::1]:443", "[::1]:443");
        check("https://[::1]", "https://[::1]", "[::1]:443");
        check("http://h:1/account//", "http://h:1/account", "h:1");
    }

    #[test]
    fn what_is_no_endpoint_is_refused_and_not_shown() {
        let check = |text: &str, with_path| {
            let error = parse(text, with_path).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        };
        for text in [
            "",
            "hunter2",
            "ftp://hunter2",
            "http://",
            "http://user:hunter2@h",
            "http://h:0",
            "http://h:x",
            "http://h/?sig=hunter2",
            "http://h#hunter2",
            "http://h?x",
            "http://h/a b",
            "http://h/%41",
        ] {
            check(text, true);
            check(text, false);
        }
        check("http://h/hunter2", false);
    }
}
