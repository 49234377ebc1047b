//! The address of an endpoint: a TCP host and port, or a Unix socket.
//!
//! Not here: resolving names, connecting, or URLs of a protocol.
//!
//! Invariant: what `Display` writes, `FromStr` reads back as the same address.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::CoreError;

/// One network address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// A host name or IP address (IPv6 without brackets), and a port.
    Tcp {
        /// The name or IP address, in lower case.
        host: String,
        /// The port, not zero.
        port: u16,
    },
    /// The absolute path of a Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// The host of a TCP address.
    pub fn host(&self) -> Option<&str> {
        match self {
            Address::Tcp { host, .. } => Some(host),
            Address::Unix(_) => None,
        }
    }

    /// A TCP address; the host is checked and brought to lower case.
    pub fn tcp(host: &str, port: u16) -> Result<Self, CoreError> {
        let shown = || format!("{host}:{port}");
        let host = checked_host(host).map_err(|problem| bad(&shown(), problem))?;
        if port == 0 {
            return Err(bad(&shown(), "port 0 cannot be connected to"));
        }
        Ok(Address::Tcp { host, port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Address {
    type Err = CoreError;

    fn from_str(text: &str) -> Result<Self, CoreError> {
        if let Some(path) = text.strip_prefix("unix:") {
            // `unix:///path`, as in URLs, means the same.
            let path = path.strip_prefix("//").unwrap_or(path);
            if !path.starts_with('/') {
                return Err(bad(text, "the socket's path is not absolute"));
            }
            if path.contains('\0') {
                return Err(bad(text, "the socket's path holds a zero byte"));
            }
            return Ok(Address::Unix(PathBuf::from(path)));
        }
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| bad(text, "the port is missing"))?;
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = digits.then(|| port.parse().ok()).flatten();
        let port = port.ok_or_else(|| bad(text, "the port is not a number from 1 to 65535"))?;
        let bracketed = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = match bracketed {
            Some(inner) if inner.parse::<Ipv6Addr>().is_err() => {
                return Err(bad(text, "there is no IPv6 address between the brackets"));
            }
            Some(inner) => inner,
            None if host.contains(':') => {
                return Err(bad(text, "an IPv6 address needs brackets"));
            }
            None => host,
        };
        match Address::tcp(host, port) {
            Err(CoreError::BadAddress { problem, .. }) => Err(bad(text, problem)),
            other => other,
        }
    }
}

fn bad(text: &str, problem: &'static str) -> CoreError {
    CoreError::BadAddress {
        text: text.to_owned(),
        problem,
    }
}

fn checked_host(host: &str) -> Result<String, &'static str> {
    if host.is_empty() {
        return Err("the host is missing");
    }
    if host.len() > 253 {
        return Err("the host is longer than 253 characters");
    }
    if let Ok(ip) = host.parse::<Ipv6Addr>() {
        return Ok(ip.to_string());
    }
    let usable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if !host.chars().all(usable) {
        return Err("the host holds a character that no host name has");
    }
    Ok(host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, shown: &str) {
        let address: Address = text
            .parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(address.to_string(), shown);
        assert_eq!(shown.parse::<Address>().as_ref(), Ok(&address));
    }

    fn refuse(text: &str, part: &str) {
        let error = text.parse::<Address>().expect_err(text).to_string();
        assert!(error.contains(part), "{text}: {error}");
        assert!(error.contains(text), "{text}: {error}");
    }

    #[test]
    fn addresses_are_read_and_written() {
        check("localhost:6379", "localhost:6379");
        check("Cache-1.Example.ORG:1", "cache-1.example.org:1");
        check("127.0.0.1:65535", "127.0.0.1:65535");
        check("[::1]:6379", "[::1]:6379");
        check("[0:0:0:0:0:0:0:1]:6379", "[::1]:6379");
        check("unix:/run/redis.sock", "unix:/run/redis.sock");
        check("unix:///run/redis.sock", "unix:/run/redis.sock");
    }

    #[test]
    fn wrong_addresses_say_why() {
        refuse("localhost", "port is missing");
        refuse(":6379", "host is missing");
        refuse("::1:6379", "needs brackets");
        refuse("[nonsense]:6379", "no IPv6 address");
        refuse("a:0", "port 0");
        refuse("a:65536", "not a number");
        refuse("a:+1", "not a number");
        refuse("a b:1", "no host name has");
        refuse("unix:redis.sock", "not absolute");
    }
}
