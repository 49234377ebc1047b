//! SCRAM-SHA-256, both ends, with channel binding: RFC 5802, RFC 7677, RFC 5929.
//!
//! Not the frames around it. Invariant: the server end never needs a password, only a verifier,
//! and compares in constant time; a client that does not exist is answered just as one that does.

use std::fmt;
use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac, pbkdf2};
use thiserror::Error;

/// The mechanism without channel binding.
pub const PLAIN: &str = "SCRAM-SHA-256";
/// The mechanism with it.
pub const PLUS: &str = "SCRAM-SHA-256-PLUS";

/// PostgreSQL's own default.
const ITERATIONS: u32 = 4096;
/// More than this a server may not ask of us: each takes CPU time.
const MAX_ITERATIONS: u32 = 1_000_000;
const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 18;
const KEY_BYTES: usize = digest::SHA256_OUTPUT_LEN;
/// The longest message of a peer that is looked at.
pub const MAX_MESSAGE_BYTES: usize = 2048;

type Key = [u8; KEY_BYTES];

/// Why an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ScramError {
    /// A message that is none.
    #[error("the message of the SCRAM exchange is malformed")]
    Malformed,
    /// The password is wrong, or there is no such user.
    #[error("the password is wrong, or there is no such user")]
    Proof,
    /// The channel's ends do not see the same TLS.
    #[error("the channel binding does not fit: somebody may stand between")]
    Binding,
    /// The server does not know the password's verifier.
    #[error("the server could not prove that it knows the password")]
    Server,
    /// The machine gives no random bytes.
    #[error("no random bytes")]
    Random,
}

/// What a server keeps of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    iterations: NonZeroU32,
    salt: Vec<u8>,
    stored_key: Key,
    server_key: Key,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}

/// The keys that stand for a password under one salt and number of iterations.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Keys {
    client_key: Key,
    server_key: Key,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

impl Verifier {
    /// A verifier of `password` with a fresh salt.
    pub fn new(password: &str) -> Result<Self, ScramError> {
        let mut salt = vec![0; SALT_BYTES];
        random(&mut salt)?;
        let iterations = NonZeroU32::new(ITERATIONS).ok_or(ScramError::Malformed)?;
        let keys = keys(password, &salt, iterations);
        Ok(Self {
            iterations,
            salt,
            stored_key: sha256(&keys.client_key),
            server_key: keys.server_key,
        })
    }

    /// A verifier of the password of `name`, the same at each start: its salt is drawn as that of
    /// [`Verifier::of_nobody`].
    #[must_use]
    pub fn drawn(name: &str, password: &str, secret: &[u8]) -> Self {
        let drawn = Self::of_nobody(name, secret);
        let keys = keys(password, &drawn.salt, drawn.iterations);
        Self {
            stored_key: sha256(&keys.client_key),
            server_key: keys.server_key,
            ..drawn
        }
    }

    /// Reads `SCRAM-SHA-256$iterations:salt$stored-key:server-key`, as PostgreSQL keeps it.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("SCRAM-SHA-256$")?;
        let (head, keys) = rest.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        let key = |text: &str| Key::try_from(BASE64.decode(text).ok()?).ok();
        Some(Self {
            iterations: iterations.parse().ok()?,
            salt: BASE64.decode(salt).ok()?,
            stored_key: key(stored)?,
            server_key: key(server)?,
        })
    }

    /// One that no password fits, the same for one `name` every time: a stranger cannot tell which
    /// users there are.
    #[must_use]
    pub fn of_nobody(name: &str, secret: &[u8]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let hash = hmac::sign(&key, name.as_bytes());
        let salt = hash.as_ref().iter().take(SALT_BYTES).copied().collect();
        Self {
            iterations: NonZeroU32::new(ITERATIONS).unwrap_or(NonZeroU32::MIN),
            salt,
            stored_key: [0; KEY_BYTES],
            server_key: [0; KEY_BYTES],
        }
    }

    /// Whether `password` fits, told in clear.
    #[must_use]
    pub fn fits(&self, password: &str) -> bool {
        let keys = keys(password, &self.salt, self.iterations);
        same(&sha256(&keys.client_key), &self.stored_key)
    }
}

/// Whether a name is one of half of all names, by a secret.
#[must_use]
pub fn is_drawn(name: &str, secret: &[u8]) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let hash = hmac::sign(&key, format!("drawn {name}").as_bytes());
    hash.as_ref().first().is_some_and(|byte| byte & 1 == 1)
}

/// The server's end of one exchange, after the client's first message.
#[derive(Debug)]
pub struct Server {
    verifier: Verifier,
    nonce: String,
    /// Both first messages, as the proof covers them.
    transcript: String,
    /// What the client's last message must say of the channel.
    binding: Vec<u8>,
}

/// What a login has proved: the server's last message, and the keys learnt from the proof.
#[derive(Debug)]
pub struct Proved {
    /// `v=…`.
    pub message: String,
    /// What a connection upstream may log in with, where the verifier is the same.
    pub keys: Keys,
}

impl Server {
    /// Answers the client's first message. `channel`: the binding data of this connection, where
    /// there is TLS; `plus`: whether the client chose [`PLUS`].
    pub fn start(
        verifier: Verifier,
        first: &[u8],
        channel: Option<&[u8]>,
        plus: bool,
    ) -> Result<(Self, String), ScramError> {
        let first = std::str::from_utf8(first).map_err(|_| ScramError::Malformed)?;
        let (flag, rest) = first.split_once(',').ok_or(ScramError::Malformed)?;
        let (authzid, bare) = rest.split_once(',').ok_or(ScramError::Malformed)?;
        let mut binding = format!("{flag},{authzid},").into_bytes();
        match (flag, channel, plus) {
            ("n", _, false) | ("y", None, false) => {}
            // It could have, and thinks that we could not: somebody took the offer out.
            ("y", Some(_), false) => return Err(ScramError::Binding),
            ("p=tls-server-end-point", Some(data), true) => binding.extend_from_slice(data),
            _ => return Err(ScramError::Malformed),
        }
        let theirs = attribute(bare.split(',').nth(1), "r=")?;
        if theirs.is_empty() || theirs.len() > 256 {
            return Err(ScramError::Malformed);
        }
        let nonce = format!("{theirs}{}", fresh_nonce()?);
        let salt = BASE64.encode(&verifier.salt);
        let answer = format!("r={nonce},s={salt},i={}", verifier.iterations);
        let server = Self {
            verifier,
            transcript: format!("{bare},{answer}"),
            nonce,
            binding,
        };
        Ok((server, answer))
    }

    /// Judges the client's last message.
    pub fn finish(self, last: &[u8]) -> Result<Proved, ScramError> {
        let last = std::str::from_utf8(last).map_err(|_| ScramError::Malformed)?;
        let (without_proof, proof) = last.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let mut parts = without_proof.split(',');
        let binding = attribute(parts.next(), "c=")?;
        let binding = BASE64.decode(binding).map_err(|_| ScramError::Malformed)?;
        if binding != self.binding {
            return Err(ScramError::Binding);
        }
        if attribute(parts.next(), "r=")? != self.nonce {
            return Err(ScramError::Malformed);
        }
        let proof = BASE64.decode(proof).map_err(|_| ScramError::Malformed)?;
        let proof = Key::try_from(proof).map_err(|_| ScramError::Malformed)?;
        let text = format!("{},{without_proof}", self.transcript);
        let client_key = xor(proof, &sign(&self.verifier.stored_key, text.as_bytes()));
        if !same(&sha256(&client_key), &self.verifier.stored_key) {
            return Err(ScramError::Proof);
        }
        let server_key = self.verifier.server_key;
        let signature = sign(&server_key, text.as_bytes());
        Ok(Proved {
            message: format!("v={}", BASE64.encode(signature)),
            keys: Keys {
                client_key,
                server_key,
            },
        })
    }
}

/// What this end logs in with.
#[derive(Debug, Clone)]
pub enum Secret<'a> {
    /// A password.
    Password(&'a str),
    /// What a login of the same user has shown.
    Keys(&'a Keys),
}

/// The client's end of one exchange.
#[derive(Debug)]
pub struct Client {
    nonce: String,
    binding: String,
}

impl Client {
    /// Begins; answers the mechanism and the first message. `channel` as in [`Server::start`];
    /// `offered`: whether the server offers [`PLUS`].
    pub fn start(
        channel: Option<&[u8]>,
        offered: bool,
    ) -> Result<(Self, &'static str, String), ScramError> {
        let (mechanism, flag, data) = match channel {
            Some(data) if offered => (PLUS, "p=tls-server-end-point,,", data),
            Some(_) => (PLAIN, "y,,", &[][..]),
            None => (PLAIN, "n,,", &[][..]),
        };
        let nonce = fresh_nonce()?;
        let first = format!("{flag}n=,r={nonce}");
        let binding = BASE64.encode([flag.as_bytes(), data].concat());
        Ok((Self { nonce, binding }, mechanism, first))
    }

    /// Answers the server's first message; and the message that it must end with.
    pub fn prove(&self, first: &[u8], secret: &Secret<'_>) -> Result<(String, String), ScramError> {
        let first = std::str::from_utf8(first).map_err(|_| ScramError::Malformed)?;
        let mut parts = first.split(',');
        let nonce = attribute(parts.next(), "r=")?;
        let salt = BASE64.decode(attribute(parts.next(), "s=")?);
        let salt = salt.map_err(|_| ScramError::Malformed)?;
        let iterations: NonZeroU32 = attribute(parts.next(), "i=")?
            .parse()
            .map_err(|_| ScramError::Malformed)?;
        let own = nonce.strip_prefix(self.nonce.as_str());
        if own.is_none_or(str::is_empty) || iterations.get() > MAX_ITERATIONS {
            return Err(ScramError::Malformed);
        }
        let keys = match secret {
            Secret::Password(password) => keys(password, &salt, iterations),
            Secret::Keys(keys) => (*keys).clone(),
        };
        let without_proof = format!("c={},r={nonce}", self.binding);
        let text = format!("n=,r={},{first},{without_proof}", self.nonce);
        let stored_key = sha256(&keys.client_key);
        let proof = xor(keys.client_key, &sign(&stored_key, text.as_bytes()));
        let last = format!("{without_proof},p={}", BASE64.encode(proof));
        let expected = BASE64.encode(sign(&keys.server_key, text.as_bytes()));
        Ok((last, format!("v={expected}")))
    }
}

/// The binding data of a certificate (DER): RFC 5929 4.1. SHA-256 stands in for weaker hashes.
/// `None`: its signature uses no hash of its own (Ed25519), so there is no such data.
#[must_use]
pub fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    /// What RSA's signatures (PKCS #1) and ECDSA's begin with; the last byte is the hash.
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];
    const ECDSA_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04];
    /// What the hashes begin with that RSA-PSS names among its parameters.
    const HASHES: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];
    let (_, fields, _) = der(certificate)?;
    // What is signed, then by which algorithm.
    let (_, _, rest) = der(fields)?;
    let (_, algorithm, _) = der(rest)?;
    let (_, name, parameters) = der(algorithm)?;
    let (family, which) = name.split_at_checked(name.len().checked_sub(1)?)?;
    let pss = || {
        let at = memchr::memmem::find(parameters, HASHES)?;
        parameters.get(at + HASHES.len()).copied()
    };
    let hash = match (family, which) {
        // Without parameters of its own it hashes with SHA-1.
        (RSA, [10]) => match pss() {
            Some(2) => &digest::SHA384,
            Some(3) => &digest::SHA512,
            Some(1) | None => &digest::SHA256,
            Some(_) => return None,
        },
        (RSA, [12]) | (ECDSA, [3]) => &digest::SHA384,
        (RSA, [13]) | (ECDSA, [4]) => &digest::SHA512,
        (RSA, [4 | 5 | 11]) | (ECDSA, [2]) | (ECDSA_SHA1, [1]) => &digest::SHA256,
        _ => return None,
    };
    Some(digest::digest(hash, certificate).as_ref().to_vec())
}

/// The first value of some DER: its tag, its content, and what follows it.
fn der(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first.checked_sub(0x80) {
        None => (usize::from(*first), rest),
        // The length follows, in this many bytes; more than four are no certificate's.
        Some(count @ 1..=4) => {
            let (length, rest) = rest.split_at_checked(count.into())?;
            let length = length
                .iter()
                .fold(0, |all, byte| all << 8 | u32::from(*byte));
            (usize::try_from(length).ok()?, rest)
        }
        Some(_) => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

fn keys(password: &str, salt: &[u8], iterations: NonZeroU32) -> Keys {
    // PostgreSQL takes the bytes as they are where the profile refuses them.
    let prepared = stringprep::saslprep(password).unwrap_or(password.into());
    let mut salted = [0; KEY_BYTES];
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        iterations,
        salt,
        prepared.as_bytes(),
        &mut salted,
    );
    Keys {
        client_key: sign(&salted, b"Client Key"),
        server_key: sign(&salted, b"Server Key"),
    }
}

fn attribute<'a>(part: Option<&'a str>, name: &str) -> Result<&'a str, ScramError> {
    part.and_then(|part| part.strip_prefix(name))
        .ok_or(ScramError::Malformed)
}

fn random(bytes: &mut [u8]) -> Result<(), ScramError> {
    SystemRandom::new()
        .fill(bytes)
        .map_err(|_| ScramError::Random)
}

fn fresh_nonce() -> Result<String, ScramError> {
    let mut bytes = [0; NONCE_BYTES];
    random(&mut bytes)?;
    Ok(BASE64.encode(bytes))
}

fn sign(key: &[u8], text: &[u8]) -> Key {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let mut signature = [0; KEY_BYTES];
    signature.copy_from_slice(hmac::sign(&key, text).as_ref());
    signature
}

fn sha256(bytes: &[u8]) -> Key {
    let mut hash = [0; KEY_BYTES];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

fn xor(mut left: Key, right: &Key) -> Key {
    for (a, b) in left.iter_mut().zip(right) {
        *a ^= b;
    }
    left
}

/// Compares without telling by its time where two keys differ.
fn same(a: &Key, b: &Key) -> bool {
    let difference = a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(
        verifier: Verifier,
        secret: &Secret<'_>,
        ours: Option<&[u8]>,
        theirs: Option<&[u8]>,
    ) -> Result<Keys, ScramError> {
        let (client, mechanism, first) = Client::start(theirs, ours.is_some())?;
        let (server, answer) = Server::start(verifier, first.as_bytes(), ours, mechanism == PLUS)?;
        let (last, expected) = client.prove(answer.as_bytes(), secret)?;
        let proved = server.finish(last.as_bytes())?;
        assert_eq!(proved.message, expected);
        Ok(proved.keys)
    }

    #[test]
    fn the_right_password_logs_in_and_its_keys_do_too() {
        let verifier = Verifier::new("pencil").expect("a verifier");
        for (ours, theirs) in [(None, None), (Some(&b"x"[..]), Some(&b"x"[..]))] {
            let secret = Secret::Password("pencil");
            let keys = exchange(verifier.clone(), &secret, ours, theirs).expect("a login");
            exchange(verifier.clone(), &Secret::Keys(&keys), ours, theirs).expect("by its keys");
        }
    }

    #[test]
    fn wrong_passwords_and_other_channels_do_not() {
        let verifier = Verifier::new("pencil").expect("a verifier");
        let wrong = exchange(verifier.clone(), &Secret::Password("pen"), None, None);
        assert_eq!(wrong.expect_err("no login"), ScramError::Proof);
        let nobody = Verifier::of_nobody("nobody", b"secret");
        let wrong = exchange(nobody, &Secret::Password("pencil"), None, None);
        assert_eq!(wrong.expect_err("no login"), ScramError::Proof);
        let secret = Secret::Password("pencil");
        let wrong = exchange(verifier, &secret, Some(b"x"), Some(b"y"));
        assert_eq!(wrong.expect_err("no login"), ScramError::Binding);
    }

    #[test]
    fn an_offer_that_was_taken_out_is_noticed() {
        let verifier = Verifier::new("pencil").expect("a verifier");
        let server = Server::start(verifier, b"y,,n=,r=abc", Some(b"x"), false);
        assert_eq!(server.expect_err("refused"), ScramError::Binding);
    }

    /// A value of DER.
    fn value(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let length = u16::try_from(content.len()).expect("a short one");
        let [high, low] = length.to_be_bytes();
        [&[tag, 0x82, high, low], content.as_slice()].concat()
    }

    #[test]
    fn the_hash_of_a_channel_is_that_of_the_certificates_signature() {
        let check =
            |name: &[u8], parameters: &[u8], expected: Option<&'static digest::Algorithm>| {
                let algorithm = value(0x30, &[&value(6, &[name]), parameters]);
                // The algorithm is named inside too: another one there is not looked at.
                let other = value(6, &[&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04]]);
                let inner = value(0x30, &[&other, &[0x55; 300]]);
                let whole = value(0x30, &[&inner, &algorithm, &value(3, &[&[0; 64]])]);
                let found = end_point(&whole);
                let hash = |it| digest::digest(it, &whole).as_ref().to_vec();
                assert_eq!(found, expected.map(hash), "{name:02x?}");
                for length in 0..whole.len() {
                    assert_eq!(end_point(&whole[..length]), None, "cut at {length}");
                }
            };
        let ecdsa = |hash| [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, hash];
        let rsa = |which| [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, which];
        check(&ecdsa(2), &[], Some(&digest::SHA256));
        check(&ecdsa(3), &[], Some(&digest::SHA384));
        check(&ecdsa(4), &[], Some(&digest::SHA512));
        check(&rsa(5), &[5, 0], Some(&digest::SHA256));
        check(&rsa(11), &[5, 0], Some(&digest::SHA256));
        check(&rsa(13), &[5, 0], Some(&digest::SHA512));
        let hash = |which| [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, which];
        check(&rsa(10), &value(6, &[&hash(2)]), Some(&digest::SHA384));
        check(&rsa(10), &[], Some(&digest::SHA256));
        // Ed25519 has none of its own.
        check(&[0x2b, 0x65, 0x70], &[], None);
    }

    #[test]
    fn the_exchange_of_rfc_7677_is_reproduced() {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("its salt");
        let found = keys("pencil", &salt, NonZeroU32::new(4096).expect("not zero"));
        let text = "n=user,r=rOprNGfwEbeRWgbNEkqO,\
            r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
            c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let stored = sha256(&found.client_key);
        let proof = xor(found.client_key, &sign(&stored, text.as_bytes()));
        assert_eq!(
            BASE64.encode(proof),
            "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        let signature = sign(&found.server_key, text.as_bytes());
        assert_eq!(
            BASE64.encode(signature),
            "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
    }
}
