//! Where a storage server listens: scheme, host, port and a path in front of all others.
//!
//! Not a general URL: no query, no credentials. Invariant: the host is one that can be connected
//! to and written in a `Host` header.

use std::fmt;

use breccia_core::address::Address;

/// Where a storage server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Whether TLS is spoken.
    pub https: bool,
    /// The host name or IP address, IPv6 without brackets, in lower case.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What stands before every path, as it is sent: empty, or `/…` without a slash at its end.
    pub base_path: String,
}

impl Endpoint {
    /// Reads `http://host[:port][/path]` or `https://…`.
    ///
    /// # Errors
    /// In words, for the option it came from.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = |problem: &str| format!("'{text}' {problem}");
        let (https, rest) = if let Some(rest) = text.strip_prefix("https://") {
            (true, rest)
        } else if let Some(rest) = text.strip_prefix("http://") {
            (false, rest)
        } else {
            return Err(bad("does not begin with http:// or https://"));
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if authority.contains('@') {
            return Err(bad("must not hold credentials"));
        }
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'?' && byte != b'#';
        if !path.bytes().all(plain) {
            return Err(bad("must be plain, without a query"));
        }
        let default = if https { 443 } else { 80 };
        let with_port = if ends_with_port(authority) {
            authority.to_owned()
        } else {
            format!("{authority}:{default}")
        };
        match with_port.parse::<Address>() {
            Ok(Address::Tcp { host, port }) => Ok(Self {
                https,
                host,
                port,
                base_path: path.trim_end_matches('/').to_owned(),
            }),
            Ok(Address::Unix(_)) => Err(bad("is not a TCP address")),
            Err(error) => Err(bad(&format!("cannot be read: {error}"))),
        }
    }

    /// The same with another host, such as `bucket.host`.
    #[must_use]
    pub fn with_host(mut self, host: String) -> Self {
        self.host = host;
        self
    }

    /// The value of the `Host` header: without the port where it is the scheme's own.
    #[must_use]
    pub fn host_header(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        match (self.https, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }

    /// What to connect to.
    #[must_use]
    pub(super) fn address(&self) -> Address {
        Address::Tcp {
            host: self.host.clone(),
            port: self.port,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(formatter, "{scheme}://{}{}", self.address(), self.base_path)
    }
}

/// Whether a colon stands behind the host: colons inside of brackets are an IPv6 address's own.
fn ends_with_port(authority: &str) -> bool {
    let behind = authority
        .rsplit_once(']')
        .map_or(authority, |(_, behind)| behind);
    behind.contains(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_and_shown() {
        let check = |text: &str, header: &str, shown: &str| {
            let endpoint = Endpoint::parse(text).expect(text);
            assert_eq!(endpoint.host_header(), header, "{text}");
            assert_eq!(endpoint.to_string(), shown, "{text}");
        };
        check("http://h", "h", "http://h:80");
        check("https://H.example/", "h.example", "https://h.example:443");
        check("https://h:80", "h:80", "https://h:80");
        check(
            "http://127.0.0.1:10000/a/b/",
            "127.0.0.1:10000",
            "http://127.0.0.1:10000/a/b",
        );
        check("http://[::1]:9000", "[::1]:9000", "http://[::1]:9000");
        check("http://[::1]", "[::1]", "http://[::1]:80");
        for bad in [
            "",
            "h:80",
            "ftp://h",
            "http://",
            "http://u:p@h",
            "http://h:x",
            "http://h/?q",
        ] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }
}
