//! The server's end of a login: which way a client proves itself, and whether it does.
//!
//! Pure: payloads in, payloads out. A password that is known decides at once, so the full exchange of
//! `caching_sha2_password` (which only tells a server the password) is never asked for, and no RSA key is
//! needed here. Invariant: who does not exist is answered as one whose password is wrong.

use super::{CACHING_SHA2, CLEAR, ED25519, FAST_OK, NATIVE, SHA256_PASSWORD, ed25519, equal};
use super::{proves, stored_hash};
use crate::mysql::codec::handshake::{AuthSwitch, NONCE_BYTES};

/// Bytes of chance that a login may need: the longest challenge.
pub const CHANCE_BYTES: usize = ed25519::NONCE_BYTES;

/// What is compared with where there is no such user. No client can say it: it holds a NUL.
const NOBODY: &[u8] = b"\0 nobody";

/// What is known of a user's password.
#[derive(Clone, PartialEq, Eq)]
pub enum Known {
    /// The password.
    Password(String),
    /// `SHA1(SHA1(password))`, as servers keep it for `mysql_native_password`.
    Stored([u8; 20]),
    /// There is no such user.
    Nobody,
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Known")
    }
}

impl Known {
    /// Whether it can tell that a client proves itself this way.
    fn decides(&self, method: &str, private: bool) -> bool {
        match method {
            NATIVE => true,
            CACHING_SHA2 | ED25519 => !matches!(self, Self::Stored(_)),
            CLEAR => private,
            _ => false,
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::Password(password) if password.is_empty())
    }
}

/// What a client says at first.
#[derive(Debug, Clone, Copy)]
pub struct First<'a> {
    /// How it proves itself, where it says so.
    pub method: Option<&'a [u8]>,
    /// What proves it; may be empty.
    pub proof: &'a [u8],
    /// The challenge that this answers; empty if it had none.
    pub nonce: &'a [u8],
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Send this payload, and give the answer to [`Server::answer`].
    Ask(Vec<u8>),
    /// The client is who it says.
    Proved {
        /// A payload that goes in front of the OK.
        first: Option<[u8; 2]>,
        /// `SHA1(password)`, where the proof showed no more than that.
        learnt: Option<[u8; 20]>,
    },
    /// It is not.
    Refused,
}

/// A login that is waited for.
#[derive(Debug)]
pub struct Server {
    known: Known,
    method: &'static str,
    nonce: Vec<u8>,
}

impl Server {
    /// Begins with what a client said first. `private`: nobody between can read; `chance`: random bytes.
    #[must_use]
    pub fn start(
        known: Known,
        private: bool,
        first: &First<'_>,
        chance: &[u8; CHANCE_BYTES],
    ) -> (Self, Step) {
        let named = [NATIVE, CACHING_SHA2, ED25519, CLEAR]
            .into_iter()
            .find(|it| first.method.is_some_and(|method| method == it.as_bytes()));
        let chosen = match (named, first.method) {
            (Some(named), _) => Some(named),
            // The older name of a client that proves itself by SHA-256.
            (None, Some(name)) if name == SHA256_PASSWORD.as_bytes() => Some(CACHING_SHA2),
            (None, _) => None,
        };
        let method = chosen
            .filter(|it| known.decides(it, private))
            .unwrap_or(NATIVE);
        // A client of before names is one of native passwords.
        let as_said = named == Some(method) || first.method.is_none();
        // An empty proof may only mean that the client does not know yet which is wanted.
        let asks = !as_said
            || method == ED25519
            || first.nonce.is_empty() && method != CLEAR
            || first.proof.is_empty() && !known.is_empty();
        let mut server = Self {
            known,
            method,
            nonce: first.nonce.to_vec(),
        };
        let step = if asks {
            server.ask(chance)
        } else {
            server.answer(first.proof)
        };
        (server, step)
    }

    /// The challenge that the client's last proof was asked to answer.
    #[must_use]
    pub fn nonce(&self) -> &[u8] {
        &self.nonce
    }

    /// How the client proves itself.
    #[must_use]
    pub fn method(&self) -> &'static str {
        self.method
    }

    fn ask(&mut self, chance: &[u8; CHANCE_BYTES]) -> Step {
        let bytes = match self.method {
            ED25519 => ed25519::NONCE_BYTES,
            _ => NONCE_BYTES,
        };
        self.nonce = nonce(chance.get(..bytes).unwrap_or_default());
        let switch = AuthSwitch {
            plugin: self.method.to_owned(),
            nonce: self.nonce.clone(),
        };
        let mut payload = Vec::new();
        switch.write(&mut payload);
        Step::Ask(payload)
    }

    /// Takes what a client answers to a payload of [`Step::Ask`].
    #[must_use]
    pub fn answer(&self, proof: &[u8]) -> Step {
        let (proved, learnt) = match &self.known {
            Known::Password(password) => (
                proves(self.method, proof, password.as_bytes(), &self.nonce),
                None,
            ),
            Known::Nobody => {
                let _ = proves(self.method, proof, NOBODY, &self.nonce);
                (None, None)
            }
            Known::Stored(stored) => {
                let learnt = self.learn(proof, stored);
                (Some(learnt.is_some()), learnt)
            }
        };
        if proved != Some(true) {
            return Step::Refused;
        }
        let fast = self.method == CACHING_SHA2 && !matches!(proof, [] | [0]);
        Step::Proved {
            first: fast.then_some([1, FAST_OK]),
            learnt,
        }
    }

    /// `SHA1(password)` out of a proof that fits what is stored.
    fn learn(&self, proof: &[u8], stored: &[u8; 20]) -> Option<[u8; 20]> {
        let once = if self.method == CLEAR {
            super::native_hash(proof.strip_suffix(b"\0").unwrap_or(proof))
        } else {
            super::native_hash_of(proof, stored, &self.nonce)?
        };
        equal(&stored_hash(&once), stored).then_some(once)
    }
}

/// A challenge out of random bytes: neither NUL nor `$` is in it, which some clients cut it at.
#[must_use]
pub fn nonce(chance: &[u8]) -> Vec<u8> {
    chance.iter().map(|byte| byte % 0x5a + 0x25).collect()
}
