//! The url of a Redis server.
//!
//! Not a general url parser: only the forms redis-cli and the client libraries share. Invariant:
//! no error says any part of the url, because it may hold a password and be cut in a wrong place.

use std::path::PathBuf;

use breccia_core::address::Address;

use crate::Secret;
use crate::fault::ConfigError;

/// The longest path of a Unix socket, in bytes.
pub(crate) const SOCKET_PATH_MOST: usize = 107;

const DEFAULT_PORT: u16 = 6379;

/// What a url says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RedisUrl {
    pub(crate) address: Address,
    pub(crate) database: u32,
    pub(crate) tls: bool,
    pub(crate) insecure: bool,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
}

/// Reads `redis://`, `rediss://` and `unix://` urls.
pub(crate) fn parse(text: &str) -> Result<RedisUrl, ConfigError> {
    let (scheme, rest) = text.split_once("://").ok_or(ConfigError::UrlScheme)?;
    let (rest, fragment) = cut(rest, '#');
    let (rest, query) = cut(rest, '?');
    let (authority, path) = match rest.find('/') {
        Some(slash) => rest.split_at_checked(slash).ok_or(ConfigError::UrlHost)?,
        None => (rest, ""),
    };
    let (userinfo, host) = match authority.rsplit_once('@') {
        Some((userinfo, host)) => (Some(userinfo), host),
        None => (None, authority),
    };
    let (tls, address, database) = match scheme.to_ascii_lowercase().as_str() {
        "unix" => (false, unix(host, path)?, query.map_or(Ok(0), db_parameter)?),
        scheme @ ("redis" | "rediss") => {
            if query.is_some() {
                return Err(ConfigError::UrlParameter);
            }
            (
                scheme == "rediss",
                tcp(host, DEFAULT_PORT)?,
                database(path.strip_prefix('/').unwrap_or(path))?,
            )
        }
        _ => return Err(ConfigError::UrlScheme),
    };
    let insecure = match fragment {
        None => false,
        Some("insecure") if tls => true,
        Some("insecure") => return Err(ConfigError::UrlInsecureWithoutTls),
        Some(_) => return Err(ConfigError::UrlFragment),
    };
    let (user, password) = userinfo.map_or(Ok((None, None)), credentials)?;
    Ok(RedisUrl {
        address,
        database,
        tls,
        insecure,
        user,
        password,
    })
}

fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    match text.split_once(at) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

/// Reads `host`, `host:port` and `[IPv6]:port`.
pub(crate) fn tcp(authority: &str, default_port: u16) -> Result<Address, ConfigError> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (inner, port) = rest.split_once(']').ok_or(ConfigError::UrlHost)?;
            inner
                .parse::<std::net::Ipv6Addr>()
                .map_err(|_| ConfigError::UrlHost)?;
            match port.strip_prefix(':') {
                None if !port.is_empty() => return Err(ConfigError::UrlHost),
                port => (inner, port),
            }
        }
        None => cut(authority, ':'),
    };
    let port = match port {
        None => default_port,
        Some(port) => number(port)
            .filter(|port| *port > 0)
            .ok_or(ConfigError::UrlPort)?,
    };
    Address::tcp(host, port).map_err(|_| ConfigError::UrlHost)
}

fn unix(host: &str, path: &str) -> Result<Address, ConfigError> {
    if !host.is_empty() || path.is_empty() || path == "/" {
        return Err(ConfigError::UrlPath);
    }
    let path = decoded(path)?;
    if path.len() > SOCKET_PATH_MOST {
        return Err(ConfigError::SocketPathTooLong {
            limit: SOCKET_PATH_MOST,
        });
    }
    Ok(Address::Unix(PathBuf::from(path)))
}

fn db_parameter(query: &str) -> Result<u32, ConfigError> {
    database(query.strip_prefix("db=").ok_or(ConfigError::UrlParameter)?)
}

fn database(text: &str) -> Result<u32, ConfigError> {
    if text.is_empty() {
        return Ok(0);
    }
    // Redis keeps the number in a C int.
    number(text)
        .filter(|number| i32::try_from(*number).is_ok())
        .ok_or(ConfigError::UrlDatabase)
}

fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

fn credentials(userinfo: &str) -> Result<(Option<String>, Option<Secret>), ConfigError> {
    let (user, password) = cut(userinfo, ':');
    let user = decoded(user)?;
    let password = password.map(decoded).transpose()?;
    if password.as_ref().is_some_and(String::is_empty) {
        return Err(ConfigError::SecretEmpty);
    }
    Ok((
        (!user.is_empty()).then_some(user),
        password.map(Secret::new),
    ))
}

/// Percent-decoding; what comes out is text without control characters.
fn decoded(text: &str) -> Result<String, ConfigError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || {
                    rest.next()
                        .and_then(|byte| char::from(byte).to_digit(16))
                        .map(u8::try_from)
                };
                match (digit(), digit()) {
                    (Some(Ok(high)), Some(Ok(low))) => high << 4 | low,
                    _ => return Err(ConfigError::UrlEscape),
                }
            }
            byte => byte,
        });
    }
    let text = String::from_utf8(bytes).map_err(|_| ConfigError::UrlEscape)?;
    if text.chars().any(char::is_control) {
        return Err(ConfigError::ControlCharacter);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Address, database, TLS, user, password, as one line.
    fn shown(text: &str) -> String {
        match parse(text) {
            Ok(url) => format!(
                "{} {}{}{} {} {}",
                url.address,
                url.database,
                if url.tls { " tls" } else { "" },
                if url.insecure { " insecure" } else { "" },
                url.user.as_deref().unwrap_or("-"),
                url.password.as_ref().map_or("-", Secret::expose),
            ),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn every_form_is_read() {
        let check = |text, wanted| assert_eq!(shown(text), wanted, "{text}");
        check("redis://127.0.0.1:6379/0", "127.0.0.1:6379 0 - -");
        check("redis://Cache.Example", "cache.example:6379 0 - -");
        check("redis://cache/", "cache:6379 0 - -");
        check("REDISS://cache/3", "cache:6379 3 tls - -");
        check("rediss://cache:1#insecure", "cache:1 0 tls insecure - -");
        check("redis://[::1]:7000/15", "[::1]:7000 15 - -");
        check("redis://[0::1]", "[::1]:6379 0 - -");
        check("redis://ann:pw@cache/1", "cache:6379 1 ann pw");
        check("redis://:p%40s%2Fs%23@cache", "cache:6379 0 - p@s/s#");
        check("redis://:p@ss:w@cache", "cache:6379 0 - p@ss:w");
        check("redis://ann@cache", "cache:6379 0 ann -");
        check("redis://@cache", "cache:6379 0 - -");
        check("redis://%C3%A9:x@cache", "cache:6379 0 é x");
        check("unix:///run/redis.sock", "unix:/run/redis.sock 0 - -");
        check("unix:///run/a%20b?db=4", "unix:/run/a b 4 - -");
        check(
            "unix://ann:pw@/run/redis.sock?db=1",
            "unix:/run/redis.sock 1 ann pw",
        );
    }

    #[test]
    fn every_fault_is_named_and_shows_nothing_of_the_url() {
        let check = |text: &str, wanted: &str| {
            let message = shown(text);
            assert!(message.contains(wanted), "{text}: {message}");
            assert!(!message.contains("hunter2"), "{text}: {message}");
        };
        check("hunter2", "no scheme");
        check("http://:hunter2@x", "no scheme");
        check("redis://", "no valid host");
        check("redis://:hunter2@", "no valid host");
        check("redis://a hunter2", "no valid host");
        check("redis://[hunter2]", "no valid host");
        check("redis://[::1]hunter2", "no valid host");
        check("redis://::1:6379", "port is not a number");
        check("redis://x:hunter2", "port is not a number");
        check("redis://x:0", "port is not a number");
        check("redis://x:70000", "port is not a number");
        check("redis://:hunter/2@x:1", "port is not a number");
        check("redis://x/hunter2", "database is not a number");
        check("redis://x/-1", "database is not a number");
        check("redis://x/4294967295", "database is not a number");
        check("redis://x/0/1", "database is not a number");
        check("redis://:%hunter2@x", "'%'");
        check("redis://:%f@x", "'%'");
        check("redis://:%ff@x", "'%'");
        check("redis://:%00@x", "control character");
        check("redis://x?password=hunter2", "unknown parameter");
        check("unix:///x?password=hunter2", "unknown parameter");
        check("redis://x:1/#hunter2", "unknown '#' part");
        check("redis://x#insecure", "rediss://");
        check("unix://run/x", "three slashes");
        check("unix://", "three slashes");
        check("redis://ann:@x", "secret is empty");
        check(&format!("unix:///{}", "x".repeat(200)), "107 bytes");
    }
}
