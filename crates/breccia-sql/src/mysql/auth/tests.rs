//! Logins with both ends in one place: proofs, the ways that are agreed on, what is never told.
//!
//! Not against servers: those are in `tests/mysql`. Invariant: each way has a right password and a wrong one.

use proptest::prelude::*;

use super::client::{AuthError, Client, Secret};
use super::server::{First, Known, Server, Step};
use super::*;
use crate::mysql::codec::CodecError;
use crate::mysql::codec::handshake::AuthSwitch;

const CHANCE: [u8; server::CHANCE_BYTES] = [9; server::CHANCE_BYTES];

fn challenge() -> Vec<u8> {
    (1..=20).collect()
}

#[test]
fn a_proof_is_of_one_password_and_one_challenge() {
    let nonce = challenge();
    for (plugin, proof) in [
        (NATIVE, native(b"secret", &nonce)),
        (CACHING_SHA2, caching_sha2(b"secret", &nonce)),
        (ED25519, ed25519::prove(b"secret", &nonce)),
        (CLEAR, b"secret\0".to_vec()),
    ] {
        assert_eq!(
            proves(plugin, &proof, b"secret", &nonce),
            Some(true),
            "{plugin}"
        );
        assert_eq!(
            proves(plugin, &proof, b"Secret", &nonce),
            Some(false),
            "{plugin}"
        );
        assert_eq!(
            proves(plugin, b"", b"secret", &nonce),
            Some(false),
            "{plugin}"
        );
    }
    let other: Vec<u8> = (2..=21).collect();
    let proof = native(b"secret", &nonce);
    assert_eq!(proves(NATIVE, &proof, b"secret", &other), Some(false));
    assert_eq!(proves(NATIVE, b"", b"", &nonce), Some(true));
    assert_eq!(proves("dialog", b"", b"", &nonce), None);
}

/// Computed from the formulas of the protocol's manual with another library.
#[test]
fn proofs_are_those_of_the_manual() {
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(String::new(), |text, it| format!("{text}{it:02x}"))
    };
    let nonce = challenge();
    assert_eq!(
        hex(&native(b"secret", &nonce)),
        "b32bb3a583e1340c0a1108d58b1be49781ad8c2f"
    );
    assert_eq!(
        hex(&caching_sha2(b"secret", &nonce)),
        "746ebe205d56a0707acb3e796e834e0dd7b1d61743b26bd5202c7a623230c7c9"
    );
    // What `SELECT PASSWORD('secret')` shows behind its asterisk.
    let stored = stored_hash(&native_hash(b"secret"));
    assert_eq!(hex(&stored), "14e65567abdb5135d0cfd9a70b3032c179a49ee7");
}

/// Logs a client in; what the server learnt, and the ways used at its first words and at the end.
fn meet(
    known: Known,
    secret: Secret<'_>,
    private: bool,
    greeted: &str,
) -> Option<(Option<[u8; 20]>, &'static str)> {
    let nonce = challenge();
    let (mut client, proof) = Client::start(secret, private, greeted, &nonce).expect("a proof");
    let first = First {
        method: Some(client.method().as_bytes()),
        proof: &proof,
        nonce: &nonce,
    };
    let (server, mut step) = Server::start(known, private, &first, &CHANCE);
    if let Step::Ask(payload) = step {
        let proof = client.answer(&payload).ok()?.expect("a proof");
        step = server.answer(&proof);
    }
    match step {
        Step::Ask(_) => panic!("asked twice"),
        Step::Refused => None,
        Step::Proved { first, learnt } => {
            if let Some(first) = first {
                assert_eq!(client.answer(&first), Ok(None));
            }
            assert_eq!(client.method(), server.method());
            Some((learnt, client.method()))
        }
    }
}

#[test]
fn both_ends_meet_by_the_right_password_only() {
    for greeted in [NATIVE, CACHING_SHA2, ED25519, "dialog"] {
        for password in ["secret", ""] {
            let known = Known::Password(password.to_owned());
            for (said, right) in [(password, true), ("wrong", false), ("\0 nobody", false)] {
                let secret = Secret::Password(said.as_bytes());
                let met = meet(known.clone(), secret, false, greeted);
                assert_eq!(met.is_some(), right, "{greeted} {password:?} {said:?}");
                assert_eq!(meet(Known::Nobody, secret, true, greeted), None);
            }
        }
    }
}

#[test]
fn a_stored_hash_learns_what_opens_another_server() {
    let once = native_hash(b"secret");
    let known = Known::Stored(stored_hash(&once));
    for greeted in [NATIVE, CACHING_SHA2] {
        let secret = Secret::Password(b"secret");
        assert_eq!(
            meet(known.clone(), secret, false, greeted),
            Some((Some(once), NATIVE))
        );
        assert_eq!(
            meet(known.clone(), Secret::Password(b"wrong"), false, greeted),
            None
        );
        assert_eq!(
            meet(known.clone(), Secret::Password(b""), false, greeted),
            None
        );
    }
    let hash = Secret::NativeHash(&once);
    let known = Known::Password("secret".to_owned());
    assert_eq!(meet(known, hash, false, CACHING_SHA2), Some((None, NATIVE)));
    let (mut client, _) = Client::start(hash, true, NATIVE, &challenge()).expect("a proof");
    let mut payload = Vec::new();
    AuthSwitch {
        plugin: CLEAR.to_owned(),
        nonce: Vec::new(),
    }
    .write(&mut payload);
    assert_eq!(client.answer(&payload), Err(AuthError::OnlyHash));
}

#[test]
fn a_client_is_asked_for_the_way_that_it_names_if_that_can_be_told() {
    let nonce = challenge();
    let known = Known::Password("secret".to_owned());
    for (named, private, asked) in [
        (ED25519, false, ED25519),
        (CLEAR, true, CLEAR),
        (CLEAR, false, NATIVE),
        (SHA256_PASSWORD, false, CACHING_SHA2),
        (NATIVE, false, NATIVE),
        (CACHING_SHA2, false, CACHING_SHA2),
        ("dialog", true, NATIVE),
    ] {
        let first = First {
            method: Some(named.as_bytes()),
            proof: b"",
            nonce: &nonce,
        };
        let (server, step) = Server::start(known.clone(), private, &first, &CHANCE);
        let Step::Ask(payload) = step else {
            panic!("{named}: {step:?}");
        };
        let switch = AuthSwitch::parse(&payload)
            .expect("a switch")
            .expect("of today");
        let bytes = if asked == ED25519 { 32 } else { 20 };
        assert_eq!(
            (switch.plugin.as_str(), switch.nonce.len()),
            (asked, bytes),
            "{named}"
        );
        let proof = match asked {
            NATIVE => native(b"secret", &switch.nonce),
            CACHING_SHA2 => caching_sha2(b"secret", &switch.nonce),
            ED25519 => ed25519::prove(b"secret", &switch.nonce),
            _ => b"secret\0".to_vec(),
        };
        assert!(
            matches!(server.answer(&proof), Step::Proved { .. }),
            "{named}"
        );
        assert_eq!(server.answer(b""), Step::Refused);
    }
    // A client of before names proves itself at once.
    let proof = native(b"secret", &nonce);
    let first = First {
        method: None,
        proof: &proof,
        nonce: &nonce,
    };
    let (_, step) = Server::start(known, false, &first, &CHANCE);
    assert_eq!(
        step,
        Step::Proved {
            first: None,
            learnt: None
        }
    );
}

#[test]
fn the_password_itself_leaves_only_where_nobody_can_read_it() {
    let nonce = challenge();
    let secret = Secret::Password(b"secret");
    let switch = |plugin: &str| {
        let mut payload = Vec::new();
        AuthSwitch {
            plugin: plugin.to_owned(),
            nonce: challenge(),
        }
        .write(&mut payload);
        payload
    };
    for (private, full, clear) in [
        (
            true,
            Ok(Some(b"secret\0".to_vec())),
            Ok(Some(b"secret\0".to_vec())),
        ),
        (false, Ok(Some(vec![WANTS_KEY])), Err(AuthError::Plain)),
    ] {
        let start = || {
            Client::start(secret, private, CACHING_SHA2, &nonce)
                .expect("a proof")
                .0
        };
        assert_eq!(start().answer(&[1, FULL]), full);
        assert_eq!(start().answer(&switch(CLEAR)), clear);
    }
    let mut client = Client::start(secret, false, CACHING_SHA2, &nonce)
        .expect("a proof")
        .0;
    client.answer(&[1, FULL]).expect("asks for the key");
    assert_eq!(client.answer(b"\x01no key"), Err(AuthError::Key));
    let mut client = Client::start(secret, false, NATIVE, &nonce)
        .expect("a proof")
        .0;
    let wrong = Err(AuthError::Codec(CodecError::Malformed));
    assert_eq!(client.answer(&[1, FULL]), wrong);
    assert_eq!(
        client.answer(&switch("dialog")),
        Err(AuthError::Method("dialog".to_owned()))
    );
    assert_eq!(client.answer(&[0xfe]), Err(AuthError::OldPassword));
    let mut client = Client::start(secret, false, NATIVE, &nonce)
        .expect("a proof")
        .0;
    assert!(client.answer(&switch(CACHING_SHA2)).is_ok());
    assert_eq!(client.answer(&switch(NATIVE)), wrong, "asked twice");
}

proptest! {
    #[test]
    fn no_bytes_log_in_or_make_a_panic(
        method in prop_oneof![
            Just(NATIVE), Just(CACHING_SHA2), Just(ED25519), Just(CLEAR), Just("dialog"),
        ],
        proof in proptest::collection::vec(any::<u8>(), 0..80),
        private in any::<bool>(),
    ) {
        let nonce = challenge();
        let first = First { method: Some(method.as_bytes()), proof: &proof, nonce: &nonce };
        for known in [Known::Password("secret".to_owned()), Known::Stored([1; 20]), Known::Nobody] {
            let (server, step) = Server::start(known, private, &first, &CHANCE);
            let proved = |step: Step| matches!(step, Step::Proved { .. });
            prop_assert!(!proved(step) && !proved(server.answer(&proof)));
        }
        let secret = Secret::Password(b"secret");
        let (mut client, _) = Client::start(secret, private, method, &nonce).expect("a proof");
        let _ = client.answer(&proof);
        let _ = client.answer(&[&[1][..], &proof].concat());
    }
}
