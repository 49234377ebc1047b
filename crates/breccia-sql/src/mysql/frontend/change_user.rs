//! `COM_CHANGE_USER`: a session becomes another user's, as if it had come anew.
//!
//! Not the first login ([`super::login`]). Invariant: nothing of the session before is left, and a wrong
//! password counts as at a login.

use std::sync::Arc;

use breccia_net::clock;

use super::login::{
    GUESS_PAUSE, LOGIN_LIMIT, LONGEST_WAIT, LoginError, chance, is_private, known_of,
};
use super::session::{Command, End, Identity, Session};
use super::tell_login;
use crate::freshness::Freshness;
use crate::mysql::auth::server::{First, Known, Server, Step};
use crate::mysql::codec::handshake::{ChangeUser, MAX_LOGIN_BYTES};
use crate::mysql::codec::write_packet;

impl Session {
    /// `COM_CHANGE_USER`.
    pub(super) async fn change_user(&mut self, command: &Command) -> Result<(), End> {
        let asked = ChangeUser::parse(command.body(), self.capabilities)?;
        let name = String::from_utf8_lossy(&asked.user).into_owned();
        let listener = self.shared.get();
        let users = listener.users.as_ref();
        let known = users.map(|users| users.get(&name).cloned());
        let sequence = match &known {
            None => 1,
            Some(known) => {
                let known = known_of(known.as_ref());
                self.prove_counted(&name, known, &asked).await?
            }
        };
        self.reset().await;
        self.identity = match known.flatten() {
            Some(known) => Identity::proven(name.clone(), known),
            None => Identity::anybody(name.clone()),
        };
        self.pools.fill(None);
        (self.login.user, self.login.credential) = self.identity.upstream.clone();
        if let Some(collation) = asked.collation {
            self.login.collation = collation;
        }
        self.registered.named(&name);
        self.settings = Arc::default();
        self.freshness = Freshness::default();
        self.freshness.used_primary(None);
        if let Err(error) = self.greet(asked.schema.as_deref()).await {
            tell_login(&self.listener, &self.peer, &error);
            let (code, _, text) = error.told();
            return Err(End::Told(code, b"HY000", text));
        }
        let mut payload = Vec::new();
        self.write_ok_to(&mut payload);
        write_packet(&mut self.client.out.bytes, &mut { sequence }, &payload);
        Ok(())
    }

    /// Asks a client for a proof, which counts as a login does; the number of the next packet to it.
    async fn prove_counted(
        &mut self,
        name: &str,
        known: Known,
        asked: &ChangeUser,
    ) -> Result<u8, End> {
        let guesses = Arc::clone(&self.listener.guesses);
        let who = guesses.who(name, &self.peer);
        let Some(wait) = guesses.wait(who, clock::now(), LONGEST_WAIT) else {
            return Err(self.denied(name));
        };
        tokio::time::sleep(wait).await;
        let Some(sequence) = self.prove_again(known, asked).await? else {
            guesses.failed(who, clock::now());
            tokio::time::sleep(GUESS_PAUSE).await;
            return Err(self.denied(name));
        };
        guesses.passed(who);
        Ok(sequence)
    }

    /// A proof that is none, told as one at a login is.
    fn denied(&self, name: &str) -> End {
        let error = LoginError::Password(name.to_owned(), self.peer.clone());
        tell_login(&self.listener, &self.peer, &error);
        let (code, _, text) = error.told();
        End::Told(code, b"28000", text)
    }

    /// Asks a client for a proof; the number of the next packet to it, if it has the password.
    async fn prove_again(&mut self, known: Known, asked: &ChangeUser) -> Result<Option<u8>, End> {
        let Ok(chance) = chance() else {
            return Ok(None);
        };
        let private = is_private(&self.client.stream);
        // Clients answer the challenge of the login before, without being asked.
        let first = First {
            method: asked.plugin.as_deref(),
            proof: &asked.proof,
            nonce: &self.nonce,
        };
        let (server, mut step) = Server::start(known, private, &first, &chance);
        let mut sequence = 1;
        loop {
            match step {
                Step::Ask(payload) => {
                    write_packet(&mut self.client.out.bytes, &mut sequence, &payload);
                    self.flush().await?;
                    let reading = self.client.packet(MAX_LOGIN_BYTES);
                    let read = tokio::time::timeout(LOGIN_LIMIT, reading).await;
                    let (number, proof) = read.map_err(|_| End::Gone)??;
                    sequence = number.wrapping_add(1);
                    step = server.answer(&proof);
                }
                Step::Proved { first, .. } => {
                    server.nonce().clone_into(&mut self.nonce);
                    if let Some(first) = first {
                        write_packet(&mut self.client.out.bytes, &mut sequence, &first);
                    }
                    return Ok(Some(sequence));
                }
                Step::Refused => {
                    self.next_packet = sequence;
                    return Ok(None);
                }
            }
        }
    }
}
