//! What goes upstream for a client's request, and which replies the client did not want. It moves
//! no bytes between sockets.
//!
//! Invariant: what is written here brings exactly one terminal reply, of the shape returned.

use super::codec::number::{push, push_signed};
use super::codec::{Command, MetaCommand, MetaVerb, Request, RetrievalVerb, Shape, StoreVerb};

/// Which replies a client does not want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quiet {
    /// It wants them all.
    No,
    /// `noreply`: none.
    All,
    /// `q`: not the usual one of this meta command.
    Usual(MetaVerb),
    /// What the server itself has kept back is missing; behind the rest stands `MN`.
    Kept,
}

impl Quiet {
    /// What a request asks for.
    #[must_use]
    pub fn of(request: &Request<'_>) -> Self {
        match &request.command {
            _ if request.noreply => Self::All,
            Command::Meta(meta) if only_the_server_knows(meta) => Self::Kept,
            Command::Meta(meta) if meta.flags.quiet => Self::Usual(meta.verb),
            _ => Self::No,
        }
    }

    /// What the client is to see of a server's reply.
    #[must_use]
    pub fn shown(self, reply: &[u8]) -> &[u8] {
        match self {
            Self::Kept => reply.strip_suffix(b"MN\r\n").unwrap_or(reply),
            _ if self.hides(reply) => &[],
            _ => reply,
        }
    }

    /// Whether a whole reply is to be kept from the client. As memcached, `q` hides a miss of `mg`
    /// and the success of the others.
    fn hides(self, reply: &[u8]) -> bool {
        let usual: &[&[u8]] = match self {
            Self::No | Self::Kept => return false,
            Self::All => return true,
            Self::Usual(MetaVerb::Get) => &[b"EN"],
            Self::Usual(MetaVerb::Set | MetaVerb::Delete) => &[b"HD", b"OK"],
            Self::Usual(MetaVerb::Arithmetic) => &[b"HD", b"OK", b"VA"],
            Self::Usual(MetaVerb::Debug) => &[],
        };
        let code = reply.get(..2).unwrap_or_default();
        usual.contains(&code)
    }

    /// Whether an error made here is to be kept from the client. Meta commands always show errors.
    #[must_use]
    pub fn hides_errors(self) -> bool {
        self == Self::All
    }
}

/// Whether only the server can tell if the usual answer is to be kept back: of `ma q N…` memcached 1.6.18
/// shows that a counter was made and hides that it has counted, and both are answered alike.
fn only_the_server_knows(meta: &MetaCommand<'_>) -> bool {
    let flags = &meta.flags;
    meta.verb == MetaVerb::Arithmetic && flags.quiet && flags.vivify.is_some()
}

/// Appends what goes upstream for a whole request to one shard (`frame` is the request's bytes),
/// and says what reply it brings. `None`: the request is not for a shard.
pub fn forward(request: &Request<'_>, frame: &[u8], out: &mut Vec<u8>) -> Option<Shape> {
    let shape = shape(&request.command)?;
    if request.plain {
        out.extend_from_slice(frame);
    } else {
        write_line(&request.command, request.data.len(), out);
        if carries_data(&request.command) {
            out.extend_from_slice(request.data);
            out.extend_from_slice(b"\r\n");
        }
    }
    Some(shape)
}

/// Appends a retrieval of some keys.
pub fn retrieve<'k>(
    verb: RetrievalVerb,
    exptime: i32,
    keys: impl Iterator<Item = &'k [u8]>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(verb.name().as_bytes());
    if verb.touches() {
        out.push(b' ');
        push_signed(out, exptime);
    }
    for key in keys {
        out.push(b' ');
        out.extend_from_slice(key);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a flush; a delay of 0 or less is none.
pub fn flush_all(delay: i32, out: &mut Vec<u8>) {
    out.extend_from_slice(b"flush_all");
    if delay > 0 {
        out.push(b' ');
        push_signed(out, delay);
    }
    out.extend_from_slice(b"\r\n");
}

/// The shape of the reply to a command; `None` if it is not for a shard.
#[must_use]
pub fn shape(command: &Command<'_>) -> Option<Shape> {
    Some(match command {
        Command::Retrieve { .. } => Shape::Values,
        Command::Store { .. } => Shape::Storage,
        Command::Arithmetic { .. } => Shape::Arithmetic,
        Command::Delete { .. } => Shape::Delete,
        Command::Touch { .. } => Shape::Touch,
        Command::FlushAll { .. } => Shape::Ok,
        Command::Meta(meta) => match meta.verb {
            MetaVerb::Get => Shape::MetaGet,
            MetaVerb::Set => Shape::MetaSet,
            MetaVerb::Delete => Shape::MetaDelete,
            MetaVerb::Arithmetic if only_the_server_knows(meta) => Shape::MetaArithmeticOrNone,
            MetaVerb::Arithmetic => Shape::MetaArithmetic,
            MetaVerb::Debug => Shape::MetaDebug,
        },
        Command::MetaNoop
        | Command::Version
        | Command::Verbosity
        | Command::Stats { .. }
        | Command::Quit
        | Command::Shutdown
        | Command::ServerOnly { .. } => return None,
    })
}

fn carries_data(command: &Command<'_>) -> bool {
    match command {
        Command::Store { .. } => true,
        Command::Meta(meta) => meta.verb == MetaVerb::Set,
        _ => false,
    }
}

/// A line in the plain form, without `noreply` and `q`.
fn write_line(command: &Command<'_>, data_length: usize, out: &mut Vec<u8>) {
    let data_length = data_length as u64;
    match command {
        Command::Retrieve {
            verb,
            exptime,
            keys,
        } => {
            return retrieve(*verb, *exptime, keys.iter(), out);
        }
        Command::FlushAll { delay } => return flush_all(*delay, out),
        Command::Store {
            verb,
            key,
            flags,
            exptime,
            cas,
        } => {
            word(verb.name().as_bytes(), out);
            word(key, out);
            push(out, u64::from(*flags));
            out.push(b' ');
            push_signed(out, *exptime);
            out.push(b' ');
            push(out, data_length);
            if *verb == StoreVerb::Cas {
                out.push(b' ');
                push(out, *cas);
            }
        }
        Command::Arithmetic { verb, key, delta } => {
            word(verb.name().as_bytes(), out);
            word(key, out);
            push(out, *delta);
        }
        Command::Delete { key } => {
            word(b"delete", out);
            out.extend_from_slice(key);
        }
        Command::Touch { key, exptime } => {
            word(b"touch", out);
            word(key, out);
            push_signed(out, *exptime);
        }
        Command::Meta(meta) => write_meta(meta, data_length, out),
        _ => {}
    }
    out.extend_from_slice(b"\r\n");
}

fn write_meta(meta: &MetaCommand<'_>, data_length: u64, out: &mut Vec<u8>) {
    word(meta.verb.name().as_bytes(), out);
    out.extend_from_slice(meta.key.text);
    if meta.verb == MetaVerb::Set {
        out.push(b' ');
        push(out, data_length);
    }
    for flag in meta.flags.iter().filter(|flag| flag.first() != Some(&b'q')) {
        out.push(b' ');
        out.extend_from_slice(flag);
    }
    if only_the_server_knows(meta) {
        // The reply may be missing: `mn` shows where it would have ended.
        out.extend_from_slice(b" q\r\nmn");
    }
}

fn word(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(text);
    out.push(b' ');
}

#[cfg(test)]
mod tests {
    use super::super::codec::{Decoded, Decoder};
    use super::*;

    fn with_request(input: &str, check: impl FnOnce(&Request<'_>, &[u8])) {
        let bytes = input.as_bytes();
        let Decoded::Request(request) = Decoder::new(1 << 20).decode(bytes) else {
            panic!("{input:?} is no request");
        };
        check(&request, &bytes[..request.frame_length]);
    }

    fn check(input: &str, upstream: Option<&str>, quiet: Quiet) {
        with_request(input, |request, frame| {
            let mut out = Vec::new();
            let shape = forward(request, frame, &mut out);
            assert_eq!(
                shape.map(|_| String::from_utf8(out).unwrap()).as_deref(),
                upstream
            );
            assert_eq!(Quiet::of(request), quiet, "{input:?}");
        });
    }

    #[test]
    fn quiet_words_never_go_upstream() {
        check(
            "set a 1 2 3 noreply\r\nabc\r\n",
            Some("set a 1 2 3\r\nabc\r\n"),
            Quiet::All,
        );
        check(
            "cas a 1 2 0 9 noreply\r\n\r\n",
            Some("cas a 1 2 0 9\r\n\r\n"),
            Quiet::All,
        );
        check("incr a 5 noreply\r\n", Some("incr a 5\r\n"), Quiet::All);
        check("delete a 0 noreply\r\n", Some("delete a\r\n"), Quiet::All);
        check("touch a -5 noreply\r\n", Some("touch a -5\r\n"), Quiet::All);
        check(
            "flush_all 5 noreply\r\n",
            Some("flush_all 5\r\n"),
            Quiet::All,
        );
        check("flush_all -5\r\n", Some("flush_all\r\n"), Quiet::No);
        check(
            "mg a q v\r\n",
            Some("mg a v\r\n"),
            Quiet::Usual(MetaVerb::Get),
        );
        check(
            "mg a qx v\r\n",
            Some("mg a v\r\n"),
            Quiet::Usual(MetaVerb::Get),
        );
        check(
            "ms a 1 T5 q\r\nx\r\n",
            Some("ms a 1 T5\r\nx\r\n"),
            Quiet::Usual(MetaVerb::Set),
        );
        check(
            "md a q Oq\r\n",
            Some("md a Oq\r\n"),
            Quiet::Usual(MetaVerb::Delete),
        );
        check(
            "ma a D5 q\r\n",
            Some("ma a D5\r\n"),
            Quiet::Usual(MetaVerb::Arithmetic),
        );
        check("ma a N0 q\r\n", Some("ma a N0 q\r\nmn\r\n"), Quiet::Kept);
    }

    #[test]
    fn plain_requests_pass_as_they_are_and_others_are_written_anew() {
        for plain in [
            "get a b\r\n",
            "gat 10 a\r\n",
            "set a 1 -1 1\r\nx\r\n",
            "ms a 1 T5 O1 k\r\nx\r\n",
            "mg Zm9v b k v\r\n",
            "me Zm9v b\r\n",
        ] {
            check(plain, Some(plain), Quiet::No);
        }
        check("get  a\n", Some("get a\r\n"), Quiet::No);
        check("bget a\r\n", Some("get a\r\n"), Quiet::No);
        check("get a\0b\r\n", Some("get a\r\n"), Quiet::No);
        check("gats +5 a\r\n", Some("gats 5 a\r\n"), Quiet::No);
        check(
            "set a 01 0 4294967297\r\nx\r\n",
            Some("set a 1 0 1\r\nx\r\n"),
            Quiet::No,
        );
        check("ms a  1 T5\r\nx\r\n", Some("ms a 1 T5\r\nx\r\n"), Quiet::No);
        check("me a junk\r\n", Some("me a\r\n"), Quiet::No);
        check("mn\r\n", None, Quiet::No);
    }

    #[test]
    fn q_hides_what_memcached_would_not_send() {
        let check = |verb, shown: &[&str], hidden: &[&str]| {
            for reply in shown {
                assert!(
                    !Quiet::Usual(verb).hides(reply.as_bytes()),
                    "{verb:?} {reply}"
                );
            }
            for reply in hidden {
                assert!(
                    Quiet::Usual(verb).hides(reply.as_bytes()),
                    "{verb:?} {reply}"
                );
            }
        };
        let error = "CLIENT_ERROR bad";
        check(
            MetaVerb::Get,
            &["HD\r\n", "VA 1\r\nx\r\n", error],
            &["EN\r\n", "EN O1\r\n"],
        );
        check(
            MetaVerb::Set,
            &["NS\r\n", "EX\r\n", "NF\r\n", error],
            &["HD\r\n", "HD c1\r\n"],
        );
        check(MetaVerb::Delete, &["NF\r\n", "EX\r\n", error], &["HD\r\n"]);
        check(
            MetaVerb::Arithmetic,
            &["NF\r\n", "EX\r\n", error],
            &["HD\r\n", "VA 1\r\n1\r\n"],
        );
        assert!(Quiet::All.hides(b"SERVER_ERROR out of memory\r\n"));
        assert_eq!(Quiet::Kept.shown(b"MN\r\n"), b"");
        assert_eq!(Quiet::Kept.shown(b"HD O1\r\nMN\r\n"), b"HD O1\r\n");
    }
}
