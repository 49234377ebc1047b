//! MySQL's wire: packets, the packets of meeting, and logins at both ends.
//!
//! Invariant checked: however the bytes are cut, they say the same; what is written is read back; who
//! does not know the password proves nothing, whatever is sent.

use breccia_sql::mysql::auth::client::{Client, Secret};
use breccia_sql::mysql::auth::rsa::PublicKey;
use breccia_sql::mysql::auth::server::{CHANCE_BYTES, First, Known, Server, Step as Login};
use breccia_sql::mysql::auth::{self, CACHING_SHA2, CLEAR, ED25519, NATIVE};
use breccia_sql::mysql::codec::handshake::{AuthSwitch, ChangeUser, Greeting, Response};
use breccia_sql::mysql::codec::{
    ErrPacket, ExecuteHead, HEADER_BYTES, OkPacket, PrepareOk, capabilities, changes, header,
    lenenc, write_change, write_packet,
};

use crate::pieces::{Step, lies_in, same_however_cut};

/// What peers may have agreed on, as far as packets depend on it.
const AGREED: [u64; 4] = [
    capabilities::PROTOCOL_41,
    capabilities::PROTOCOL_41 | capabilities::SESSION_TRACK,
    capabilities::PROTOCOL_41 | capabilities::SESSION_TRACK | capabilities::DEPRECATE_EOF,
    capabilities::PROTOCOL_41 | capabilities::PLUGIN_AUTH,
];

/// Packets of either side.
pub fn my_frames(data: &[u8]) {
    same_however_cut(
        data,
        || (),
        |(), bytes, closely| read_packet(bytes, closely),
    );
    look_inside(data);
    let (mut out, mut sequence) = (Vec::new(), data.first().copied().unwrap_or(0));
    let first = sequence;
    write_packet(&mut out, &mut sequence, data);
    let head = header(&out).expect("what is written has a header");
    assert_eq!((head.length, head.sequence), (data.len(), first));
    assert_eq!(sequence, first.wrapping_add(1));
}

fn read_packet(bytes: &[u8], closely: bool) -> Step<(u8, Vec<u8>)> {
    let Some(head) = header(bytes) else {
        assert!(bytes.len() < HEADER_BYTES, "a whole header is not told");
        return Step::More;
    };
    let length = HEADER_BYTES + head.length;
    let Some(payload) = bytes.get(HEADER_BYTES..length) else {
        return Step::More;
    };
    if closely {
        look_inside(payload);
    }
    Step::Frame((head.sequence, payload.to_vec()), length)
}

/// Reads a payload as each of the packets it might be, and writes it again.
fn look_inside(payload: &[u8]) {
    let mut out = Vec::new();
    for agreed in AGREED {
        if let Ok(ok) = OkPacket::parse(payload, agreed) {
            assert!(lies_in(payload, ok.info) || ok.info.is_empty());
            assert!(lies_in(payload, ok.state) || ok.state.is_empty());
            out.clear();
            ok.write(&mut out, agreed);
            assert_eq!(OkPacket::parse(&out, agreed), Ok(ok), "{agreed:x}");
            state(ok.state);
        }
    }
    state(payload);
    if let Ok(error) = ErrPacket::parse(payload) {
        assert!(lies_in(payload, error.message));
        out.clear();
        error.write(&mut out, capabilities::PROTOCOL_41);
        assert_eq!(ErrPacket::parse(&out), Ok(error));
    }
    if let Ok(prepared) = PrepareOk::parse(payload) {
        out.clear();
        prepared.write(&mut out);
        assert_eq!(PrepareOk::parse(&out), Ok(prepared));
    }
    for parameters in [0, 1, 8, 9, 300, u16::MAX] {
        if let Ok(head) = ExecuteHead::parse(payload, parameters) {
            assert_eq!(head.flag.is_some(), parameters != 0);
            assert!(head.flag.is_none_or(|at| at < payload.len()));
            let types = head.types.clone();
            assert!(types.is_none_or(|it| {
                it.len() == 2 * usize::from(parameters) && payload.get(it).is_some()
            }));
        }
    }
    if let Some((value, length)) = lenenc::read_int(payload) {
        assert!(length <= payload.len());
        assert!((0..length).all(|cut| lenenc::read_int(&payload[..cut]).is_none()));
        out.clear();
        lenenc::write_int(&mut out, value);
        assert!(
            out.len() <= length,
            "a number is written longer than it came"
        );
        assert_eq!(lenenc::read_int(&out), Some((value, out.len())));
    }
}

/// Changes of a session are read back; after the first bad one there is nothing.
fn state(bytes: &[u8]) {
    let all: Vec<_> = changes(bytes).collect();
    assert!(all.len() <= bytes.len());
    let good: Vec<_> = all.iter().map_while(|it| it.as_ref().ok()).collect();
    assert!(all.len() - good.len() <= 1, "more came after an error");
    let mut out = Vec::new();
    for change in &good {
        write_change(&mut out, change);
    }
    let again: Vec<_> = changes(&out)
        .map(|it| it.expect("what is written is read"))
        .collect();
    assert!(
        good.into_iter().eq(&again),
        "changes are read back otherwise"
    );
}

/// The packets with which a client and a server meet.
pub fn my_handshake(data: &[u8]) {
    let mut out = Vec::new();
    if let Ok(greeting) = Greeting::parse(data) {
        assert_eq!(greeting.nonce.len(), 20);
        greeting.write(&mut out);
        assert_eq!(Greeting::parse(&out).as_ref(), Ok(&greeting));
    }
    assert!(!Response::is_ssl_request(data) || data.len() == 32);
    if let Ok(response) = Response::parse(data) {
        assert!(response.capabilities & capabilities::PROTOCOL_41 != 0);
        let mut response = response;
        // What this end always agrees on, and writes.
        response.capabilities |= capabilities::SECURE_CONNECTION;
        if response.capabilities & capabilities::PLUGIN_AUTH_LENENC != 0
            || u8::try_from(response.proof.len()).is_ok()
        {
            out.clear();
            response.write(&mut out);
            assert_eq!(Response::parse(&out).as_ref(), Ok(&response));
        }
    }
    if let Ok(Some(switch)) = AuthSwitch::parse(data) {
        out.clear();
        switch.write(&mut out);
        assert_eq!(AuthSwitch::parse(&out), Ok(Some(switch)));
    }
    for agreed in AGREED {
        if let Ok(change) = ChangeUser::parse(data, agreed) {
            assert!(!change.user.contains(&0) && change.proof.len() <= 255);
            assert!(change.user.len() + change.proof.len() < data.len());
        }
    }
}

const PASSWORD: &[u8] = b"pencil";
const METHODS: [&str; 5] = [NATIVE, CACHING_SHA2, ED25519, CLEAR, "dialog"];

/// A choice of methods, a proof, an answer, and a guess, on a line each.
pub fn my_auth(data: &[u8]) {
    let mut lines = data.splitn(4, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (choice, proof, answer, guess) = (line(), line(), line(), line());
    let choice = choice.first().map_or(0, |it| usize::from(*it));
    let (method, private) = (METHODS[choice % METHODS.len()], choice & 0x40 != 0);
    forge(method, private, proof, answer);
    ask_too_much(method, private, proof, answer);
    guess_password(method, guess);
    if let Some(key) = PublicKey::read(guess) {
        assert!(
            key.encrypt_password(PASSWORD, &[7; 20])
                .is_some_and(|it| it.len() >= 128)
        );
        assert_eq!(key.encrypt_password(&[1; 2048], &[7; 20]), None);
    }
}

fn known() -> [Known; 3] {
    let stored = auth::stored_hash(&auth::native_hash(PASSWORD));
    let password = String::from_utf8_lossy(PASSWORD).into_owned();
    [
        Known::Password(password),
        Known::Stored(stored),
        Known::Nobody,
    ]
}

/// Sends any proofs.
fn forge(method: &str, private: bool, proof: &[u8], answer: &[u8]) {
    let is_password = |it: &[u8]| it.strip_suffix(b"\0").unwrap_or(it) == PASSWORD;
    let nonce = [7; 20];
    for known in known() {
        let first = First {
            method: Some(method.as_bytes()),
            proof,
            nonce: &nonce,
        };
        let (server, step) = Server::start(known, private, &first, &[9; CHANCE_BYTES]);
        assert!(
            server.method() != CLEAR || private,
            "a password is asked for in clear"
        );
        let step = match step {
            Login::Ask(payload) => {
                let switch = AuthSwitch::parse(&payload).expect("it is written here");
                let switch = switch.expect("a way with a name");
                assert_eq!(switch.plugin, server.method());
                assert!(!switch.nonce.contains(&0) && switch.nonce != nonce);
                server.answer(answer)
            }
            other => other,
        };
        let told = server.method() == CLEAR && (is_password(proof) || is_password(answer));
        let refused = step == Login::Refused;
        assert!(refused || told, "a proof of nothing is believed");
    }
}

/// A server that answers a client with any bytes.
fn ask_too_much(method: &str, private: bool, first: &[u8], second: &[u8]) {
    let secret = Secret::Password(PASSWORD);
    let started = Client::start(secret, private, method, &[7; 20]);
    let (mut client, proof) = started.expect("any greeting is answered");
    assert!(!proof.starts_with(PASSWORD));
    for payload in [first, second, first, second] {
        match client.answer(payload) {
            Ok(Some(sent)) => {
                assert!(
                    private || !sent.starts_with(PASSWORD),
                    "the password is told"
                );
            }
            Ok(None) => {}
            Err(_) => return,
        }
    }
}

/// Logs in with a guess: it works exactly if the password is right.
fn guess_password(greeted: &str, guess: &[u8]) {
    let nonce = [7; 20];
    for known in known() {
        let right = guess == PASSWORD && known != Known::Nobody;
        let started = Client::start(Secret::Password(guess), false, greeted, &nonce);
        let (mut client, proof) = started.expect("any greeting is answered");
        let first = First {
            method: Some(client.method().as_bytes()),
            proof: &proof,
            nonce: &nonce,
        };
        let (server, mut step) = Server::start(known, false, &first, &[9; CHANCE_BYTES]);
        if let Login::Ask(payload) = step {
            let answer = client.answer(&payload).expect("a way that is spoken");
            step = server.answer(&answer.expect("a proof"));
        }
        let Login::Proved { first, learnt } = step else {
            assert!(!right, "the right password is refused");
            continue;
        };
        assert!(right, "a guess is believed: {guess:?}");
        assert!(learnt.is_none_or(|it| it == auth::native_hash(PASSWORD)));
        assert_eq!(first.is_some(), server.method() == CACHING_SHA2);
    }
}
