//! The client's end of a login to a server.
//!
//! Pure: payloads in, payloads out. Invariant: the password itself leaves only where nobody between can
//! read it, or under the server's key.

use super::rsa::PublicKey;
use super::{CACHING_SHA2, CLEAR, ED25519, FAST_OK, FULL, NATIVE, WANTS_KEY};
use super::{caching_sha2, ed25519, native, native_of_hash};
use crate::mysql::codec::CodecError;
use crate::mysql::codec::handshake::AuthSwitch;

/// What a user proves itself with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secret<'a> {
    /// A password; empty for none.
    Password(&'a [u8]),
    /// `SHA1(password)`, which opens `mysql_native_password`.
    NativeHash(&'a [u8; 20]),
}

/// Why a login cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The server's bytes are none of a login.
    #[error("{0}")]
    Codec(#[from] CodecError),
    /// The server wants what was used before MySQL 4.1.
    #[error("a password of before MySQL 4.1 is asked for")]
    OldPassword,
    /// The server wants a way that is not spoken here.
    #[error("{0:?} is asked for, which is not spoken here")]
    Method(String),
    /// The server wants the password itself.
    #[error("the password itself is asked for over a plain connection")]
    Plain,
    /// Only a hash of the password is known.
    #[error("more than mysql_native_password is asked for, and only that hash is known")]
    OnlyHash,
    /// The server's key is none.
    #[error("no RSA key came that a password could be encrypted with")]
    Key,
}

/// A login that goes on.
#[derive(Debug)]
pub struct Client<'a> {
    secret: Secret<'a>,
    private: bool,
    method: &'static str,
    nonce: Vec<u8>,
    switched: bool,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The proof is sent.
    Proved,
    /// The server's key is asked for.
    AskedKey,
    /// All is sent.
    Told,
}

impl<'a> Client<'a> {
    /// Begins by what a server greets with. The way it names is taken if it is one of those that any
    /// client may begin with; the server asks for another where the user has another.
    pub fn start(
        secret: Secret<'a>,
        private: bool,
        method: &str,
        nonce: &[u8],
    ) -> Result<(Self, Vec<u8>), AuthError> {
        let hash = matches!(secret, Secret::NativeHash(_));
        let mut client = Self {
            secret,
            private,
            method: if method == CACHING_SHA2 && !hash {
                CACHING_SHA2
            } else {
                NATIVE
            },
            nonce: nonce.to_vec(),
            switched: false,
            state: State::Proved,
        };
        let proof = client.prove(client.method)?;
        Ok((client, proof))
    }

    /// How it proves itself.
    #[must_use]
    pub fn method(&self) -> &'static str {
        self.method
    }

    /// What to send when the server sends a payload that is neither OK nor an error; `None`: nothing.
    pub fn answer(&mut self, payload: &[u8]) -> Result<Option<Vec<u8>>, AuthError> {
        match payload {
            [0xfe, ..] => self.switch(payload).map(Some),
            [0x01, more @ ..] if self.method == CACHING_SHA2 => self.more(more),
            _ => Err(CodecError::Malformed.into()),
        }
    }

    fn switch(&mut self, payload: &[u8]) -> Result<Vec<u8>, AuthError> {
        let Some(switch) = AuthSwitch::parse(payload)? else {
            return Err(AuthError::OldPassword);
        };
        // A server that asks again and again would never be done.
        if std::mem::replace(&mut self.switched, true) {
            return Err(CodecError::Malformed.into());
        }
        self.nonce = switch.nonce;
        self.state = State::Proved;
        self.prove(&switch.plugin)
    }

    fn prove(&mut self, method: &str) -> Result<Vec<u8>, AuthError> {
        let known = [NATIVE, CACHING_SHA2, ED25519, CLEAR];
        let Some(known) = known.into_iter().find(|it| *it == method) else {
            return Err(AuthError::Method(method.chars().take(64).collect()));
        };
        self.method = known;
        let password = match (self.secret, known) {
            (Secret::NativeHash(hash), NATIVE) => return Ok(native_of_hash(hash, &self.nonce)),
            (Secret::NativeHash(_), _) => return Err(AuthError::OnlyHash),
            (Secret::Password(password), _) => password,
        };
        match known {
            NATIVE => Ok(native(password, &self.nonce)),
            CACHING_SHA2 => {
                let proof = caching_sha2(password, &self.nonce);
                Ok(if proof.is_empty() && self.switched {
                    vec![0]
                } else {
                    proof
                })
            }
            ED25519 => Ok(ed25519::prove(password, &self.nonce)),
            _ if self.private => Ok([password, b"\0"].concat()),
            _ => Err(AuthError::Plain),
        }
    }

    /// `AuthMoreData` of `caching_sha2_password`.
    fn more(&mut self, more: &[u8]) -> Result<Option<Vec<u8>>, AuthError> {
        let Secret::Password(password) = self.secret else {
            return Err(AuthError::OnlyHash);
        };
        match (self.state, more) {
            (State::Proved, [FAST_OK]) => {
                self.state = State::Told;
                Ok(None)
            }
            (State::Proved, [FULL]) if self.private => {
                self.state = State::Told;
                Ok(Some([password, b"\0"].concat()))
            }
            (State::Proved, [FULL]) => {
                self.state = State::AskedKey;
                Ok(Some(vec![WANTS_KEY]))
            }
            (State::AskedKey, key) => {
                self.state = State::Told;
                let key = PublicKey::read(key).ok_or(AuthError::Key)?;
                let encrypted = key.encrypt_password(password, &self.nonce);
                encrypted.map(Some).ok_or(AuthError::Key)
            }
            _ => Err(CodecError::Malformed.into()),
        }
    }
}
