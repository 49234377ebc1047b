//! Writes RESP2 and RESP3 values. It decides nothing and allocates nothing but the output's room.
//!
//! Invariant: what differs between the two versions is chosen here by [`RespVersion`], so callers
//! say what they mean (a null, a map) and never how it looks.

/// The protocol version a client speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RespVersion {
    /// Every connection starts here.
    #[default]
    V2,
    /// After `HELLO 3`.
    V3,
}

impl RespVersion {
    /// The number HELLO uses.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::V2 => 2,
            Self::V3 => 3,
        }
    }
}

/// Appends a decimal number.
pub fn decimal(out: &mut Vec<u8>, value: i64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        let digit = u8::try_from(rest % 10).expect("a remainder of 10 is a digit");
        if let Some(place) = digits.get_mut(at) {
            *place = b'0' + digit;
        }
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(digits.get(at..).unwrap_or_default());
}

fn header(out: &mut Vec<u8>, kind: u8, count: usize) {
    out.push(kind);
    decimal(out, i64::try_from(count).unwrap_or(i64::MAX));
    out.extend_from_slice(b"\r\n");
}

/// Appends text to a line: line ends would break the frame, so they become spaces.
fn line_text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend(text.iter().map(|byte| {
        if matches!(byte, b'\r' | b'\n') {
            b' '
        } else {
            *byte
        }
    }));
    out.extend_from_slice(b"\r\n");
}

/// `+OK`
pub fn ok(out: &mut Vec<u8>) {
    out.extend_from_slice(b"+OK\r\n");
}

/// A simple string.
pub fn simple(out: &mut Vec<u8>, text: &str) {
    out.push(b'+');
    line_text(out, text.as_bytes());
}

/// An error; `text` begins with its code, as in `ERR no such key`.
pub fn error(out: &mut Vec<u8>, text: &str) {
    error_bytes(out, text.as_bytes());
}

/// An error that may quote bytes of the request.
pub fn error_bytes(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'-');
    line_text(out, text);
}

/// An integer.
pub fn integer(out: &mut Vec<u8>, value: i64) {
    out.push(b':');
    decimal(out, value);
    out.extend_from_slice(b"\r\n");
}

/// A bulk string.
pub fn bulk(out: &mut Vec<u8>, value: &[u8]) {
    header(out, b'$', value.len());
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// A verbatim string of plain text; RESP3 only.
pub fn verbatim(out: &mut Vec<u8>, text: &[u8]) {
    header(out, b'=', text.len() + 4);
    out.extend_from_slice(b"txt:");
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

/// A null where a string is expected.
pub fn null(out: &mut Vec<u8>, version: RespVersion) {
    out.extend_from_slice(match version {
        RespVersion::V2 => b"$-1\r\n",
        RespVersion::V3 => b"_\r\n",
    });
}

/// A null where an array is expected.
pub fn null_array(out: &mut Vec<u8>, version: RespVersion) {
    out.extend_from_slice(match version {
        RespVersion::V2 => b"*-1\r\n",
        RespVersion::V3 => b"_\r\n",
    });
}

/// The header of an array of `count` elements.
pub fn array(out: &mut Vec<u8>, count: usize) {
    header(out, b'*', count);
}

/// The header of a map of `count` pairs: a flat array in RESP2.
pub fn map(out: &mut Vec<u8>, version: RespVersion, count: usize) {
    match version {
        RespVersion::V2 => header(out, b'*', count * 2),
        RespVersion::V3 => header(out, b'%', count),
    }
}

/// The header of a set: an array in RESP2.
pub fn set(out: &mut Vec<u8>, version: RespVersion, count: usize) {
    header(
        out,
        if version == RespVersion::V2 {
            b'*'
        } else {
            b'~'
        },
        count,
    );
}

/// The header of a push: an array in RESP2.
pub fn push(out: &mut Vec<u8>, version: RespVersion, count: usize) {
    header(
        out,
        if version == RespVersion::V2 {
            b'*'
        } else {
            b'>'
        },
        count,
    );
}

/// A whole request: an array of bulk strings.
pub fn request(out: &mut Vec<u8>, arguments: &[&[u8]]) {
    array(out, arguments.len());
    for argument in arguments {
        bulk(out, argument);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(write: impl Fn(&mut Vec<u8>), expected: &str) {
        let mut out = Vec::new();
        write(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn values_look_as_redis_writes_them() {
        check(|out| integer(out, 0), ":0\r\n");
        check(|out| integer(out, i64::MIN), ":-9223372036854775808\r\n");
        check(|out| integer(out, i64::MAX), ":9223372036854775807\r\n");
        check(|out| bulk(out, b"a\r\n"), "$3\r\na\r\n\r\n");
        check(|out| null(out, RespVersion::V2), "$-1\r\n");
        check(|out| null_array(out, RespVersion::V3), "_\r\n");
        check(|out| map(out, RespVersion::V2, 2), "*4\r\n");
        check(|out| map(out, RespVersion::V3, 2), "%2\r\n");
        check(|out| push(out, RespVersion::V3, 3), ">3\r\n");
        check(|out| error(out, "ERR a\r\nb"), "-ERR a  b\r\n");
        check(
            |out| request(out, &[b"GET", b"k"]),
            "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
        );
    }
}
