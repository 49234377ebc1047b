//! Request targets: percent-encoding, queries, and which bucket and key a target names.
//!
//! It judges no bucket name and no key. Invariant: key bytes are decoded exactly once and never
//! normalised: `a//b`, a leading slash and `..` are keys like others.

use thiserror::Error;

use super::hex;

/// A query has at most so many parameters.
pub const MOST_QUERY_PARAMETERS: usize = 200;

/// What is wrong with a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UriError {
    /// A `%` without two hexadecimal digits behind it.
    #[error("bad percent-escape at byte {at}")]
    Escape {
        /// Where the `%` is.
        at: usize,
    },
    /// A parameter's name is not UTF-8: S3 knows no such parameter.
    #[error("a query parameter's name is not UTF-8")]
    ParameterName,
    /// More than [`MOST_QUERY_PARAMETERS`].
    #[error("more than {MOST_QUERY_PARAMETERS} query parameters")]
    TooManyParameters,
    /// The path does not begin with a slash.
    #[error("the path does not begin with a slash")]
    Path,
    /// The bucket's name is not UTF-8, or has a slash or a NUL in it.
    #[error("the bucket name holds bytes that no bucket name can")]
    Bucket,
}

/// What becomes of slashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slash {
    /// They stay: a path.
    Keep,
    /// They are escaped: a query.
    Escape,
}

/// Percent-encodes everything but `A-Za-z0-9-_.~`, as signatures want it.
pub fn encode(bytes: &[u8], slash: Slash) -> String {
    let mut text = String::with_capacity(bytes.len());
    encode_into(&mut text, bytes, slash);
    text
}

/// [`encode`] to the end of a text.
pub fn encode_into(text: &mut String, bytes: &[u8], slash: Slash) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |value: u8| char::from(DIGITS.get(usize::from(value)).copied().unwrap_or(b'0'));
    let plain = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_' | b'.' | b'~')
            || (*byte == b'/' && slash == Slash::Keep)
    };
    let mut rest = bytes;
    while !rest.is_empty() {
        // Most of a key needs no escape: whole runs are copied.
        let run = rest
            .iter()
            .position(|byte| !plain(byte))
            .unwrap_or(rest.len());
        let (run, tail) = rest.split_at(run);
        text.push_str(std::str::from_utf8(run).unwrap_or_default());
        rest = tail;
        if let Some((byte, tail)) = rest.split_first() {
            text.extend(['%', digit(byte >> 4), digit(byte & 15)]);
            rest = tail;
        }
    }
}

/// Decodes percent-escapes; `+` is itself.
pub fn decode(text: &str) -> Result<Vec<u8>, UriError> {
    decode_bytes(text.as_bytes(), false)
}

/// Decodes percent-escapes, with `+` for a space.
pub fn decode_plus(text: &str) -> Result<Vec<u8>, UriError> {
    decode_bytes(text.as_bytes(), true)
}

fn decode_bytes(text: &[u8], plus_is_space: bool) -> Result<Vec<u8>, UriError> {
    let special = |byte: &u8| *byte == b'%' || (*byte == b'+' && plus_is_space);
    if !text.iter().any(special) {
        return Ok(text.to_vec());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let wrong = UriError::Escape {
            at: text.len() - rest.len(),
        };
        rest = tail;
        match first {
            b'%' => {
                let ([high, low], tail) = tail.split_first_chunk::<2>().ok_or(wrong)?;
                let high = hex::value(*high).ok_or(wrong)?;
                let low = hex::value(*low).ok_or(wrong)?;
                bytes.push((high << 4) | low);
                rest = tail;
            }
            b'+' if plus_is_space => bytes.push(b' '),
            byte => bytes.push(*byte),
        }
    }
    Ok(bytes)
}

/// A query's parameters, decoded, in the order they came.
///
/// A `+` is read as a space, as S3 reads it: SDKs never send a bare one (they write `%20` and `%2B`),
/// and what browsers send as `+` is a space. The signature is checked over the same reading, so both
/// sides mean one thing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<(String, Vec<u8>)>,
}

impl Query {
    /// Reads what stands behind the `?`.
    pub fn parse(raw: &str) -> Result<Query, UriError> {
        let mut pairs = Vec::new();
        for piece in raw.split('&').filter(|piece| !piece.is_empty()) {
            if pairs.len() == MOST_QUERY_PARAMETERS {
                return Err(UriError::TooManyParameters);
            }
            let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
            let name =
                String::from_utf8(decode_plus(name)?).map_err(|_| UriError::ParameterName)?;
            pairs.push((name, decode_plus(value)?));
        }
        Ok(Query { pairs })
    }

    /// The parameters in the order they came.
    pub fn pairs(&self) -> &[(String, Vec<u8>)] {
        &self.pairs
    }

    /// The first value of a parameter; empty when it came without one.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.pairs
            .iter()
            .find_map(|(known, value)| (known == name).then_some(value.as_slice()))
    }

    /// The first value of a parameter, when it is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.get(name)?).ok()
    }

    /// Whether a parameter came at all.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// As signatures want it: encoded once, sorted, without the parameter `except`.
    pub fn canonical(&self, except: Option<&str>) -> String {
        if self.pairs.is_empty() {
            return String::new();
        }
        let mut pairs: Vec<(String, String)> = self
            .pairs
            .iter()
            .filter(|(name, _)| Some(name.as_str()) != except)
            .map(|(name, value)| {
                let name = encode(name.as_bytes(), Slash::Escape);
                (name, encode(value, Slash::Escape))
            })
            .collect();
        pairs.sort_unstable();
        let pairs: Vec<String> = pairs
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        pairs.join("&")
    }
}

/// What a request is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// The bucket; none: the service as a whole.
    pub bucket: Option<String>,
    /// The key; none: the bucket as a whole. Never empty.
    pub key: Option<Vec<u8>>,
}

impl Target {
    /// Reads `/bucket/key…`, as it stood in the request line without the query.
    pub fn path_style(raw_path: &str) -> Result<Target, UriError> {
        let path = raw_path.strip_prefix('/').ok_or(UriError::Path)?;
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        if bucket.is_empty() {
            // "//x": there is no bucket that it could be in.
            return if key.is_empty() {
                Ok(Target::default())
            } else {
                Err(UriError::Bucket)
            };
        }
        Target::of(decode(bucket)?, key)
    }

    /// Reads a target whose bucket may stand in front of one of our domains in the `Host` header;
    /// path style when it does not.
    pub fn of_host(host: &str, base_domains: &[&str], raw_path: &str) -> Result<Target, UriError> {
        let name = without_port(host).to_ascii_lowercase();
        let bucket = base_domains.iter().find_map(|domain| {
            let front = name.strip_suffix(&domain.to_ascii_lowercase())?;
            front.strip_suffix('.').filter(|front| !front.is_empty())
        });
        match bucket {
            Some(bucket) => {
                let key = raw_path.strip_prefix('/').ok_or(UriError::Path)?;
                Target::of(bucket.as_bytes().to_vec(), key)
            }
            None => Target::path_style(raw_path),
        }
    }

    fn of(bucket: Vec<u8>, raw_key: &str) -> Result<Target, UriError> {
        let bucket = String::from_utf8(bucket).map_err(|_| UriError::Bucket)?;
        if bucket.contains(['/', '\0']) {
            return Err(UriError::Bucket);
        }
        let key = decode(raw_key)?;
        Ok(Target {
            bucket: Some(bucket),
            key: (!key.is_empty()).then_some(key),
        })
    }
}

/// `name:port` and `[v6]:port` without the port.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') =>
        {
            name
        }
        _ => host,
    }
}

#[cfg(test)]
#[path = "uri_tests.rs"]
mod tests;
