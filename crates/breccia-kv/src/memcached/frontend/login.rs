//! memcached's text login: a `set` of any key whose data is `user password` (memcached's `-Y`).
//!
//! It keeps no state but "not yet". Invariant: before a login succeeded no command is looked at,
//! and nothing a client sends can make this hold more than a few KiB.

use memchr::memchr;

use super::super::codec::number::unsigned_32;
use crate::front::settings::{User, same_secret};

/// What a client that has not logged in sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Login {
    /// Not a whole login yet.
    Incomplete,
    /// So many bytes are answered with this line.
    Answer { length: usize, reply: &'static str },
    /// The login of so many bytes is right.
    Accepted { length: usize },
    /// It sends no login at all.
    Close,
}

/// More than this without a login, and the client is cut off.
const MAX_LOGIN_BYTES: usize = 2048;

/// Looks at the start of what an unknown client sent.
pub(super) fn read(bytes: &[u8], users: &[User]) -> Login {
    let Some(newline) = memchr(b'\n', bytes) else {
        return if bytes.len() > MAX_LOGIN_BYTES {
            Login::Close
        } else {
            Login::Incomplete
        };
    };
    let line = bytes.get(..newline).unwrap_or_default();
    let words: Vec<&[u8]> = words(line).take(6).collect();
    let size = match words.as_slice() {
        [b"set", _, _, _, size, ..] => unsigned_32(size),
        _ => None,
    };
    let Some(size) = size.and_then(|size| usize::try_from(size.value).ok()) else {
        return Login::Answer {
            length: newline + 1,
            reply: "CLIENT_ERROR unauthenticated",
        };
    };
    if size > MAX_LOGIN_BYTES {
        return Login::Close;
    }
    let end = newline + 1 + size + 2;
    let Some(block) = bytes.get(newline + 1..end) else {
        return Login::Incomplete;
    };
    let answer = |reply| Login::Answer { length: end, reply };
    let Some(secret) = block.strip_suffix(b"\r\n") else {
        return answer("CLIENT_ERROR bad command line termination");
    };
    let mut words = self::words(secret);
    let (Some(name), Some(password)) = (words.next(), words.next()) else {
        return answer("CLIENT_ERROR bad authentication token format");
    };
    if users.iter().any(|user| is(user, name, password)) {
        Login::Accepted { length: end }
    } else {
        answer("CLIENT_ERROR authentication failure")
    }
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty())
}

/// Whether name and password are this user's; one without a password needs none.
fn is(user: &User, name: &[u8], password: &[u8]) -> bool {
    let right = user
        .password
        .as_ref()
        .is_none_or(|own| same_secret(own.as_bytes(), password));
    user.name.as_bytes() == name && right
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, expected: &Login) {
        let user = |name: &str, password: Option<&str>| User {
            name: name.into(),
            password: password.map(Into::into),
        };
        let users = [user("ann", Some("secret")), user("bob", None)];
        assert_eq!(&read(input.as_bytes(), &users), expected, "{input:?}");
        for end in 0..input.len() {
            let early = read(&input.as_bytes()[..end], &users);
            let whole = matches!(expected, Login::Incomplete | Login::Close);
            assert!(
                whole || early == Login::Incomplete || early == *expected,
                "{end}"
            );
        }
    }

    #[test]
    fn logins_are_read_as_by_memcached() {
        let answer = |length, reply| Login::Answer { length, reply };
        check(
            "set x 0 0 10\r\nann secret\r\n",
            &Login::Accepted { length: 26 },
        );
        check(
            "set x 0 0 10 noreply\r\nann secret\r\nget a\r\n",
            &Login::Accepted { length: 34 },
        );
        check("set x y z 7\nbob any\r\n", &Login::Accepted { length: 21 });
        let failure = "CLIENT_ERROR authentication failure";
        check("set x 0 0 9\r\nann wrong\r\n", &answer(24, failure));
        check("set x 0 0 10\r\nzoe secret\r\n", &answer(26, failure));
        check(
            "set x 0 0 3\r\nann\r\n",
            &answer(18, "CLIENT_ERROR bad authentication token format"),
        );
        check(
            "set x 0 0 2\r\nann s\r\n",
            &answer(17, "CLIENT_ERROR bad command line termination"),
        );
        for command in [
            "get a\r\n",
            "set x 0 0\r\n",
            "set x 0 0 -1\r\n",
            "\r\n",
            "mn\r\n",
        ] {
            check(
                command,
                &answer(command.len(), "CLIENT_ERROR unauthenticated"),
            );
        }
        check("set x 0 0 10\r\nann sec", &Login::Incomplete);
        check("set x 0 0 99999\r\n", &Login::Close);
        check(&"x".repeat(3000), &Login::Close);
    }
}
