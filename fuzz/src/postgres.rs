//! PostgreSQL's wire: the first packet, frames, and the SCRAM exchange.
//!
//! Invariant checked: however the bytes are cut, they say the same; what is written is read back; who
//! does not know the password proves nothing, whatever is sent.

use std::sync::LazyLock;

use breccia_sql::postgres::codec::message::{self, Severity, Status};
use breccia_sql::postgres::codec::startup::{
    MAX_STARTUP_BYTES, Startup, startup, write_cancel, write_session, write_ssl,
};
use breccia_sql::postgres::codec::{self, HEAD_BYTES, Head};
use breccia_sql::postgres::scram::{Client, Keys, PLUS, Proved, Secret, Server, Verifier};

use crate::pieces::{Step, lies_in, same_however_cut};

/// A first packet.
pub fn pg_startup(data: &[u8]) {
    let whole = startup(data);
    let length = match &whole {
        Ok(Some((read, length))) => {
            assert!(*length <= data.len() && *length <= MAX_STARTUP_BYTES);
            assert_eq!(startup(&data[..*length]), whole, "what follows matters");
            written_back(read);
            *length
        }
        Ok(None) => {
            assert!(
                data.len() < MAX_STARTUP_BYTES,
                "a packet above the limit is waited for"
            );
            data.len()
        }
        Err(_) => data.len(),
    };
    for cut in 0..length.min(MAX_STARTUP_BYTES) {
        let part = startup(&data[..cut]);
        assert!(
            part == Ok(None) || (whole.is_err() && part == whole),
            "cut at {cut}: {part:?}, whole: {whole:?}"
        );
    }
}

fn written_back(read: &Startup) {
    let mut bytes = Vec::new();
    let expected = match read {
        Startup::Ssl => {
            write_ssl(&mut bytes);
            Startup::Ssl
        }
        // Never asked for here.
        Startup::Gss => return,
        Startup::Cancel { process, secret } => {
            write_cancel(&mut bytes, *process, secret);
            read.clone()
        }
        Startup::Session { parameters, .. } => {
            assert!(parameters.iter().all(|(name, _)| !name.is_empty()));
            let pairs: Vec<(&str, &str)> = parameters
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            write_session(&mut bytes, &pairs);
            Startup::Session {
                minor: 0,
                parameters: parameters.clone(),
            }
        }
    };
    assert_eq!(startup(&bytes), Ok(Some((expected, bytes.len()))));
}

/// Frames of either side.
pub fn pg_frames(data: &[u8]) {
    same_however_cut(data, || (), |(), bytes, closely| read_frame(bytes, closely));
    for piece in data.split(|byte| *byte == 0).take(4) {
        written_frames_are_read_back(&String::from_utf8_lossy(piece), data.len());
    }
}

fn read_frame(bytes: &[u8], closely: bool) -> Step<Result<(u8, Vec<u8>), String>> {
    match codec::head(bytes) {
        Ok(None) => {
            assert!(bytes.len() < HEAD_BYTES, "a whole head is not told");
            Step::More
        }
        Ok(Some(Head { length, .. })) if length > bytes.len() => Step::More,
        Ok(Some(Head { tag, length })) => {
            assert_eq!(tag, bytes[0]);
            let frame = &bytes[..length];
            if closely {
                look_inside(tag, frame);
            }
            Step::Frame(Ok((tag, codec::body(frame).to_vec())), length)
        }
        Err(error) => Step::Last(Err(error.to_string())),
    }
}

/// Reads a body as each of the messages it might be, and writes it again.
fn look_inside(tag: u8, frame: &[u8]) {
    let body = codec::body(frame);
    let written = |fill: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        fill(&mut out);
        assert_eq!(codec::body(&out), body, "what is read is written otherwise");
    };
    if let Ok(read) = codec::parse(body) {
        let parts = [read.name, read.sql, read.types];
        assert!(parts.iter().all(|part| lies_in(body, part)));
        written(&|out| message::parse(out, read.name, read.sql, read.types));
    }
    if let Ok(read) = codec::bind(body) {
        let parts = [read.portal, b"\0", read.statement, b"\0", read.rest];
        assert_eq!(parts.concat(), body);
    }
    if let Ok((kind, name)) = codec::named(tag, body) {
        assert!(matches!(kind, b'S' | b'P') && lies_in(body, name));
        written(&|out| message::named(out, tag, kind, name));
    }
    if let Ok(sql) = codec::query(body) {
        assert!(lies_in(body, sql) && !sql.contains(&0));
        if let Ok(text) = std::str::from_utf8(sql) {
            written(&|out| message::query(out, text));
        }
    }
    if let Some((name, value)) = codec::parameter(body) {
        assert!(lies_in(body, name) && lies_in(body, value));
    }
    for kind in b"SVCMDHPRn" {
        assert!(codec::field(body, *kind).is_none_or(|value| lies_in(body, value)));
    }
    assert_eq!(codec::field(body, 0), None, "the end is not a field");
}

/// Frames that this side writes about `text`, which holds no zero byte.
fn written_frames_are_read_back(text: &str, number: usize) {
    let count = u32::try_from(number).unwrap_or(0);
    let mut out = Vec::new();
    message::authentication(&mut out, count, text.as_bytes());
    message::authentication_sasl(&mut out, &[PLUS, "x"]);
    message::parameter_status(&mut out, text, text);
    message::backend_key(&mut out, count, !count);
    message::ready(&mut out, Status::Failed);
    message::complete(&mut out, text);
    message::negotiate(&mut out, &[text, text]);
    message::error(&mut out, Severity::Error, "25006", text, text);
    message::text_columns(&mut out, &[(text, 0)]);
    message::row(&mut out, &[Some(text.to_owned())]);
    message::query(&mut out, text);
    message::parse(&mut out, text.as_bytes(), b"", &[0, 0]);
    message::named(&mut out, b'C', b'P', text.as_bytes());
    message::empty(&mut out, b'S');
    message::write_head(&mut out, b'd', text.len());
    out.extend_from_slice(text.as_bytes());

    let (mut tags, mut rest) = (Vec::new(), out.as_slice());
    while let Some(Head { tag, length }) = codec::head(rest).expect("what is written is a frame") {
        let (frame, after) = rest.split_at(length);
        let body = codec::body(frame);
        let bytes = text.as_bytes();
        match tag {
            b'S' if !body.is_empty() => assert_eq!(codec::parameter(body), Some((bytes, bytes))),
            b'K' => {
                let (first, second) = codec::int32(body).expect("two numbers");
                let second = codec::int32(second).expect("two numbers");
                assert_eq!((first, second), (count, (!count, &[][..])));
            }
            b'Z' => assert_eq!(Status::of(body[0]), Some(Status::Failed)),
            b'E' => {
                assert_eq!(codec::field(body, b'C'), Some(&b"25006"[..]));
                let told = codec::field(body, b'M').unwrap_or_default();
                assert_eq!(told, bytes);
            }
            b'Q' => assert_eq!(codec::query(body), Ok(bytes)),
            b'P' => assert_eq!(codec::parse(body).map(|read| read.name), Ok(bytes)),
            b'C' if tags.contains(&b'P') => {
                assert_eq!(codec::named(tag, body), Ok((b'P', bytes)));
            }
            b'd' => assert_eq!(body, bytes),
            _ => {}
        }
        tags.push(tag);
        rest = after;
    }
    assert!(rest.is_empty());
    assert_eq!(tags, b"RRSKZCvETDQPCSd");
}

const PASSWORD: &str = "pencil";
/// Of [`PASSWORD`], with one iteration: an input takes no time.
const VERIFIER: &str = "SCRAM-SHA-256$1:YnJlY2NpYS1mdXp6LXNhbA==$\
    8z+QpfzgmlP1u8//DWfq8S/jMdqKE1MrMMamJVv8HT4=:\
    Oi8n32yWEDI5gM/znJ9YPP3uYpqr0jWvVx7DjDxqjyo=";
const CHANNEL: &[u8] = b"the end of a channel";

fn verifier() -> Verifier {
    Verifier::read(VERIFIER).expect("a verifier as PostgreSQL keeps it")
}

/// What a login by the right password shows, of another verifier.
static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let other = Verifier::new("another password").expect("random bytes");
    exchange(other, &Secret::Password("another password"), None)
        .expect("the right password logs in")
        .0
        .keys
});

/// One exchange of this client with this server: what it proved, and the client's last message.
fn exchange(
    verifier: Verifier,
    secret: &Secret<'_>,
    channel: Option<&[u8]>,
) -> Option<(Proved, String)> {
    let (client, mechanism, first) = Client::start(channel, true).expect("random bytes");
    let started = Server::start(verifier, first.as_bytes(), channel, mechanism == PLUS);
    let (server, answer) = started.expect("an honest first message");
    let (last, expected) = client
        .prove(answer.as_bytes(), secret)
        .expect("an honest answer");
    let proved = server.finish(last.as_bytes()).ok()?;
    assert_eq!(proved.message, expected, "the server does not prove itself");
    Some((proved, last))
}

/// A verifier, a first message, a last message and a guess, on a line each.
pub fn pg_scram(data: &[u8]) {
    let mut lines = data.splitn(4, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (kept, first, last, guess) = (line(), line(), line(), line());
    let read = std::str::from_utf8(kept).ok().and_then(Verifier::read);
    for (channel, plus) in [(None, false), (Some(CHANNEL), true), (Some(CHANNEL), false)] {
        for verifier in [Some(verifier()), Some(nobody()), read.clone()]
            .into_iter()
            .flatten()
        {
            forge(&verifier, first, last, channel, plus);
        }
    }
    ask_too_much(kept, first);
    if let Ok(guess) = std::str::from_utf8(guess) {
        guess_password(guess);
    }
}

fn nobody() -> Verifier {
    Verifier::of_nobody("nobody", b"secret")
}

/// Sends any messages, and then the best forgery that can be made without the password.
fn forge(verifier: &Verifier, first: &[u8], last: &[u8], channel: Option<&[u8]>, plus: bool) {
    let start = || Server::start(verifier.clone(), first, channel, plus).ok();
    let Some((server, _)) = start() else {
        return;
    };
    assert!(
        server.finish(last).is_err(),
        "a proof of nothing is believed"
    );
    let Some((server, answer)) = start() else {
        return;
    };
    let nonce = answer.split(',').next().unwrap_or_default();
    assert!(nonce.len() > "r=".len() + 20, "the server adds too little");
    // `biws` is the channel binding of a first message that begins with `n,,`.
    let binding = last.split(|byte| *byte == b',').next().unwrap_or_default();
    let binding = if binding.starts_with(b"c=") {
        binding
    } else {
        b"c=biws"
    };
    let proof = last.rsplit(|byte| *byte == b',').next().unwrap_or_default();
    let proof = proof.strip_prefix(b"p=").unwrap_or(&[b'A'; 43]);
    let forged = [binding, b",", nonce.as_bytes(), b",p=", proof].concat();
    assert!(
        server.finish(&forged).is_err(),
        "a forged proof is believed"
    );
}

/// A server that answers a client with any bytes.
fn ask_too_much(raw: &[u8], rest: &[u8]) {
    let (client, _, first) = Client::start(None, false).expect("random bytes");
    let secret = Secret::Keys(&KEYS);
    assert!(
        client.prove(raw, &secret).is_err(),
        "another's nonce is taken"
    );
    let nonce = first.rsplit("r=").next().unwrap_or_default();
    let answer = [b"r=", nonce.as_bytes(), rest].concat();
    if let Ok((last, expected)) = client.prove(&answer, &secret) {
        assert!(
            rest.first().is_some_and(|byte| *byte != b','),
            "it added no nonce"
        );
        assert!(last.starts_with("c=biws,r=") && expected.starts_with("v="));
        assert_eq!(last.matches(",p=").count(), 1);
    }
}

/// Logs in with a guess: it works exactly if the password is right.
fn guess_password(guess: &str) {
    let right = verifier().fits(guess);
    // HMAC (RFC 2104) fills a key of up to 64 bytes up with zero bytes, so those at its end, which no
    // password of PostgreSQL has, change nothing.
    let same = guess == PASSWORD || (guess.len() <= 64 && guess.trim_end_matches('\0') == PASSWORD);
    // Beyond ASCII, several texts are prepared to the same password.
    assert!(!guess.is_ascii() || right == same);
    for channel in [None, Some(CHANNEL)] {
        let secret = Secret::Password(guess);
        let proved = exchange(verifier(), &secret, channel);
        assert_eq!(proved.is_some(), right, "{guess:?}");
        assert!(exchange(verifier(), &Secret::Keys(&KEYS), channel).is_none());
        if let Some((proved, last)) = proved {
            assert!(exchange(verifier(), &Secret::Keys(&proved.keys), channel).is_some());
            let again = Server::start(verifier(), b"n,,n=,r=a", None, false);
            let (server, _) = again.expect("an honest first message");
            assert!(
                server.finish(last.as_bytes()).is_err(),
                "a proof is good twice"
            );
        }
    }
}
