//! Reading one value that is no table: numbers, durations, addresses, paths.
//!
//! Not secrets. Invariant: a message never shows the text of a value whose kind may hold a secret.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use breccia_core::address::Address;

use super::{Decoder, Raw, Spot, which, wrong_type};
use crate::fault::ConfigError;
use crate::field::{Choice, Kind};
use crate::http_url;
use crate::plan::BindPlan;
use crate::rule::Rule;
use crate::units;
use crate::url::{self, SOCKET_PATH_MOST};
use crate::value::{Value, quoted};

const DIGEST_DIGITS: usize = 16;

/// The longest path the system opens, in bytes.
const PATH_MOST: usize = 4095;

impl Decoder<'_> {
    pub(super) fn scalar(&mut self, kind: Kind, raw: &Raw<'_>, spot: Spot<'_>) -> Option<Value> {
        let value = match (kind, raw) {
            (Kind::Flag, Raw::Flag(flag)) => Ok(Value::Flag(*flag)),
            (Kind::Integer { least, most }, Raw::Integer(number)) => {
                in_range(*number, least, most, |number| number.to_string()).map(Value::Integer)
            }
            (Kind::Size { least, most }, Raw::Integer(number)) => match u64::try_from(*number) {
                Ok(size) => in_range(size, least, most, units::show_size).map(Value::Size),
                Err(_) => Err(ConfigError::OutOfRange {
                    found: number.to_string(),
                    least: units::show_size(least),
                    most: units::show_size(most),
                }),
            },
            (kind, Raw::Text(text)) => self
                .text(kind, text)
                .unwrap_or_else(|| Err(wrong_type(kind, raw))),
            (kind, raw) => Err(wrong_type(kind, raw)),
        };
        value.map_err(|error| self.fault(spot, error)).ok()
    }

    /// Reads a text; `None` if the kind is not written as one.
    fn text(&self, kind: Kind, text: &str) -> Option<Result<Value, ConfigError>> {
        let found = || quoted(text);
        Some(match kind {
            Kind::Duration { least, most } => units::parse_duration(text)
                .ok_or_else(|| ConfigError::BadDuration { found: found() })
                .and_then(|time| in_range(time, least, most, units::show_duration))
                .map(Value::Duration),
            Kind::Size { least, most } => units::parse_size(text)
                .ok_or_else(|| ConfigError::BadSize { found: found() })
                .and_then(|size| in_range(size, least, most, units::show_size))
                .map(Value::Size),
            Kind::Text | Kind::StoreName => clean(text).map(|text| Value::Text(text.to_owned())),
            Kind::Ruled(rule) => ruled(rule, text),
            Kind::Choice(choice) => chosen(choice, text),
            Kind::Endpoint { with_path } => http_url::parse(text, with_path).map(Value::Endpoint),
            Kind::Host => host(text).map(Value::Text),
            Kind::SocketPath if text.starts_with('/') => {
                address(&format!("unix:{text}")).map(Value::Address)
            }
            Kind::SocketPath => Err(ConfigError::BadForm {
                found: found(),
                form: "the absolute path of a socket",
            }),
            Kind::HashTag => text
                .parse()
                .map(Value::HashTag)
                .map_err(|_| ConfigError::BadHashTag { found: found() }),
            Kind::Digest => digest(text).map(Value::Text),
            Kind::RedisUrl => url::parse(text).map(Value::RedisUrl),
            Kind::Address => address(text).map(Value::Address),
            Kind::Bind => bind(text).map(Value::Bind),
            Kind::SocketAddress => socket_address(text).map(Value::SocketAddress),
            Kind::EnvName => env_name(text).map(|text| Value::Text(text.to_owned())),
            Kind::File => clean(text)
                .map(|text| self.source.resolve(text))
                .and_then(|path| readable(&path).map(|()| Value::Path(path))),
            Kind::Folder | Kind::OwnFile if text.len() > PATH_MOST => Err(ConfigError::BadForm {
                found: found(),
                form: "a path of at most 4095 bytes",
            }),
            Kind::Folder | Kind::OwnFile => {
                clean(text).map(|text| Value::Path(self.source.resolve(text)))
            }
            _ => return None,
        })
    }
}

fn in_range<T: PartialOrd + Copy>(
    value: T,
    least: T,
    most: T,
    show: impl Fn(T) -> String,
) -> Result<T, ConfigError> {
    if value >= least && value <= most {
        return Ok(value);
    }
    Err(ConfigError::OutOfRange {
        found: show(value),
        least: show(least),
        most: show(most),
    })
}

fn clean(text: &str) -> Result<&str, ConfigError> {
    if text.is_empty() {
        Err(ConfigError::Empty)
    } else if text.chars().any(char::is_control) {
        Err(ConfigError::ControlCharacter)
    } else {
        Ok(text)
    }
}

fn ruled(rule: &Rule, text: &str) -> Result<Value, ConfigError> {
    if (rule.fits)(text) {
        return Ok(Value::Text(text.to_owned()));
    }
    Err(ConfigError::BadForm {
        found: if rule.shown {
            quoted(text)
        } else {
            "this text".to_owned()
        },
        form: rule.form,
    })
}

/// A host, as an address has it.
fn host(text: &str) -> Result<String, ConfigError> {
    const ANY_PORT: u16 = 1;
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    match Address::tcp(inner.unwrap_or(text), ANY_PORT) {
        Ok(Address::Tcp { host, .. }) => Ok(host),
        _ => Err(ConfigError::BadForm {
            found: quoted(text),
            form: "a host name or an IP address, and the port apart in `port`",
        }),
    }
}

fn chosen(choice: &Choice, text: &str) -> Result<Value, ConfigError> {
    let names = (choice.names)();
    if let Some(name) = names.iter().find(|name| **name == text) {
        return Ok(Value::Choice(name));
    }
    let found = quoted(text);
    if choice.later.contains(&text) {
        return Err(ConfigError::NotInRelease {
            found,
            known: names.join(", "),
        });
    }
    let mend = which(text, names.iter().copied(), "value", "values");
    Err(ConfigError::UnknownChoice { found, mend })
}

fn digest(text: &str) -> Result<String, ConfigError> {
    if text.len() == DIGEST_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(ConfigError::BadDigest {
            found: quoted(text),
        })
    }
}

fn env_name(text: &str) -> Result<&str, ConfigError> {
    let usable = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let begins = text
        .bytes()
        .next()
        .is_some_and(|byte| !byte.is_ascii_digit());
    if begins && text.bytes().all(usable) {
        Ok(text)
    } else {
        Err(ConfigError::EnvName)
    }
}

fn address(text: &str) -> Result<Address, ConfigError> {
    match text.parse() {
        Ok(Address::Unix(path)) => socket_path(path).map(Address::Unix),
        Ok(address) => Ok(address),
        Err(_) => Err(ConfigError::BadAddress {
            found: quoted(text),
        }),
    }
}

fn socket_path(path: PathBuf) -> Result<PathBuf, ConfigError> {
    if path.as_os_str().len() > SOCKET_PATH_MOST {
        return Err(ConfigError::SocketPathTooLong {
            limit: SOCKET_PATH_MOST,
        });
    }
    Ok(path)
}

fn bind(text: &str) -> Result<BindPlan, ConfigError> {
    if text.starts_with("unix:") {
        return match text.parse() {
            Ok(Address::Unix(path)) => socket_path(path).map(BindPlan::Unix),
            _ => Err(ConfigError::BadBind {
                found: quoted(text),
                mend: "\"unix:\" and an absolute path".to_owned(),
            }),
        };
    }
    socket_address(text).map(BindPlan::Tcp)
}

fn socket_address(text: &str) -> Result<SocketAddr, ConfigError> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let port = text
        .rsplit_once(':')
        .map_or(text, |(_, port)| port)
        .parse::<u16>()
        .ok();
    let name = text.rsplit_once(':').map_or("", |(name, _)| name);
    let mend = match (name, port) {
        ("localhost" | "", Some(port)) => format!("\"127.0.0.1:{port}\""),
        ("*", Some(port)) => format!("\"0.0.0.0:{port}\", or \"[::]:{port}\" for IPv6 too"),
        _ if text.parse::<IpAddr>().is_ok() => {
            "the port too, such as \"127.0.0.1:6380\"".to_owned()
        }
        _ => "an IP address and a port, such as \"127.0.0.1:6380\"".to_owned(),
    };
    Err(ConfigError::BadBind {
        found: quoted(text),
        mend,
    })
}

/// Whether a file is there and may be read. A pipe is none: opening one may wait for ever.
pub(super) fn readable(path: &Path) -> Result<(), ConfigError> {
    let open = || {
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        fs::File::open(path).map(drop)
    };
    open().map_err(|source| ConfigError::FileUnreadable {
        path: path.to_owned(),
        source,
    })
}
