//! How a connection to a server begins: its greeting, TLS, and the proof of who logs in.
//!
//! Not what is sent once it is logged in. Source: the protocol's "Connection Phase". Invariant: nothing
//! that a server sent before its TLS handshake is believed after it, but for its greeting, which the
//! proof of the password covers.

use breccia_net::NetError;
use breccia_net::stream::{Socket, Stream, connect};
use bytes::BytesMut;
use tokio::io::AsyncWriteExt;

use super::{Credential, Endpoint, Login, UpstreamTls, said};
use crate::error::{SqlError, login_of_the_store};
use crate::mysql::auth::client::{AuthError, Client};
use crate::mysql::codec::handshake::{Greeting, Response, write_head};
use crate::mysql::codec::{CodecError, capabilities, write_packet};

/// What every connection can, whatever its client could.
const ALWAYS: u64 = capabilities::LONG_PASSWORD
    | capabilities::LONG_FLAG
    | capabilities::PROTOCOL_41
    | capabilities::TRANSACTIONS
    | capabilities::SECURE_CONNECTION
    | capabilities::PLUGIN_AUTH
    | capabilities::PLUGIN_AUTH_LENENC
    | capabilities::SESSION_TRACK
    | capabilities::DEPRECATE_EOF;
/// What a server must be able to do.
const NEEDED: u64 = capabilities::PROTOCOL_41
    | capabilities::SECURE_CONNECTION
    | capabilities::PLUGIN_AUTH
    | capabilities::SESSION_TRACK
    | capabilities::DEPRECATE_EOF;

/// A login that a store has in the file, for clients or for Breccia's own questions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnLogin {
    /// Who logs in.
    pub user: String,
    /// What it proves itself with.
    pub credential: Credential,
    /// The keys of the store that say both.
    pub keys: [&'static str; 2],
}

/// A connection that is logged in.
pub(super) struct Met {
    pub(super) stream: Stream,
    pub(super) received: BytesMut,
    pub(super) greeting: Greeting,
    pub(super) agreed: u64,
}

/// Connects and logs in.
pub(super) async fn meet(endpoint: &Endpoint, login: &Login) -> Result<Met, SqlError> {
    let stream = connect(&endpoint.address, None, endpoint.timeout).await;
    let stream = stream.map_err(|source| SqlError::Connect {
        server: endpoint.name.clone(),
        source,
    })?;
    let mut wire = Exchange {
        endpoint,
        stream,
        received: BytesMut::new(),
        sequence: 0,
    };
    let packet = wire.next().await?;
    if packet.first() == Some(&0xff) {
        return Err(endpoint.refused(login, &packet));
    }
    let greeting = Greeting::parse(&packet).map_err(|it| endpoint.codec(it))?;
    if NEEDED & !greeting.capabilities != 0 {
        return Err(endpoint.cannot(
            login,
            "the server is older than MySQL 5.7.8 or MariaDB 10.2.2, which Breccia needs",
        ));
    }
    let agreed = (ALWAYS | login.capabilities) & greeting.capabilities;
    let agreed = wire.encrypt(agreed, &greeting, login).await?;
    wire.prove(login, &greeting, agreed).await?;
    Ok(Met {
        stream: wire.stream,
        received: wire.received,
        greeting,
        agreed,
    })
}

/// A connection before its login.
struct Exchange<'a> {
    endpoint: &'a Endpoint,
    stream: Stream,
    received: BytesMut,
    sequence: u8,
}

impl Exchange<'_> {
    async fn next(&mut self) -> Result<BytesMut, SqlError> {
        let reading = self.endpoint.read(&mut self.stream, &mut self.received);
        let (sequence, packet) = reading.await?;
        // A server that turns strangers away may not count.
        if sequence != self.sequence && packet.first() != Some(&0xff) {
            return Err(self.endpoint.codec(CodecError::OutOfOrder));
        }
        self.sequence = sequence.wrapping_add(1);
        Ok(packet)
    }

    async fn send(&mut self, payload: &[u8]) -> Result<(), SqlError> {
        let mut out = Vec::new();
        write_packet(&mut out, &mut self.sequence, payload);
        let sent = self.stream.write_all(&out).await;
        sent.map_err(|it| self.endpoint.lost(it))?;
        self.stream
            .flush()
            .await
            .map_err(|it| self.endpoint.lost(it))
    }

    /// Answers the greeting and whatever the server asks for then.
    async fn prove(
        &mut self,
        login: &Login,
        greeting: &Greeting,
        agreed: u64,
    ) -> Result<(), SqlError> {
        let endpoint = self.endpoint;
        let failed = |error| endpoint.unproved(login, error);
        let (private, secret) = (self.is_private(), login.credential.secret());
        let started = Client::start(secret, private, &greeting.plugin, &greeting.nonce);
        let (mut client, proof) = started.map_err(failed)?;
        let response = Response {
            capabilities: agreed,
            collation: login.collation,
            user: login.user.as_bytes().to_vec(),
            proof,
            schema: None,
            plugin: Some(client.method().as_bytes().to_vec()),
        };
        let mut payload = Vec::new();
        response.write(&mut payload);
        self.send(&payload).await?;
        loop {
            let packet = self.next().await?;
            match packet.first() {
                Some(0x00) => return Ok(()),
                Some(0xff) => return Err(endpoint.refused(login, &packet)),
                _ => {}
            }
            if let Some(answer) = client.answer(&packet).map_err(failed)? {
                self.send(&answer).await?;
            }
        }
    }

    /// Whether nobody can listen.
    fn is_private(&self) -> bool {
        self.stream.is_tls() || matches!(self.stream, Stream::Unix(_))
    }

    /// TLS as the store asks for it; what is agreed then.
    async fn encrypt(
        &mut self,
        agreed: u64,
        greeting: &Greeting,
        login: &Login,
    ) -> Result<u64, SqlError> {
        let offered = greeting.capabilities & capabilities::SSL != 0;
        let client = match &self.endpoint.tls {
            UpstreamTls::Off => return Ok(agreed),
            UpstreamTls::Prefer(_) if !offered => return Ok(agreed),
            UpstreamTls::Prefer(client) | UpstreamTls::Require(client) => client.clone(),
        };
        if matches!(self.stream, Stream::Unix(_)) {
            return Ok(agreed);
        }
        if !offered {
            return Err(SqlError::NoTls {
                server: self.endpoint.name.clone(),
            });
        }
        let agreed = agreed | capabilities::SSL;
        let mut payload = Vec::new();
        write_head(&mut payload, agreed, login.collation);
        self.send(&payload).await?;
        if !self.received.is_empty() {
            // What came before the handshake could be anybody's.
            return Err(self.endpoint.codec(CodecError::OutOfOrder));
        }
        // Not plain any more while hands are shaken.
        let (near, _) = tokio::io::duplex(1);
        let socket = match std::mem::replace(&mut self.stream, Stream::Pipe(near)) {
            Stream::Tcp(tcp) => Socket::Tcp(tcp),
            Stream::Unix(unix) => Socket::Unix(unix),
            _ => return Ok(agreed),
        };
        let shaken = client.handshake(socket).await;
        let stream = shaken.map_err(|source| SqlError::Connect {
            server: self.endpoint.name.clone(),
            source: NetError::Handshake {
                peer: self.endpoint.address.to_string(),
                source,
            },
        })?;
        self.stream = Stream::TlsClient(Box::new(stream));
        Ok(agreed)
    }
}

impl Endpoint {
    fn cannot(&self, login: &Login, what: &'static str) -> SqlError {
        SqlError::Login {
            server: self.name.clone(),
            role: login.user.clone(),
            what,
        }
    }

    /// The server's word on a login. Where it does not let the store's own user in, whoever reads that
    /// would look for the fault in the client's password.
    fn refused(&self, login: &Login, packet: &[u8]) -> SqlError {
        let (errno, sqlstate, mut text) = said(packet);
        let is_own = |own: &&OwnLogin| own.user == login.user && own.credential == login.credential;
        if let Some(own) = self.own.iter().find(is_own).filter(|_| sqlstate == "28000") {
            text += &login_of_the_store(&self.name, own.keys, "user");
        }
        SqlError::Refused {
            server: self.name.clone(),
            role: login.user.clone(),
            sqlstate,
            errno: Some(errno),
            text,
        }
    }

    /// Why a login cannot go on, in the words of this slice.
    fn unproved(&self, login: &Login, error: AuthError) -> SqlError {
        match error {
            AuthError::Codec(source) => self.codec(source),
            AuthError::Method(method) => SqlError::Method {
                server: self.name.clone(),
                role: login.user.clone(),
                method,
            },
            AuthError::OldPassword => self.cannot(
                login,
                "the server asks for a password of before MySQL 4.1; set it anew there",
            ),
            AuthError::Plain => self.cannot(
                login,
                "the server asks for the password itself over a connection that is not encrypted; \
                 set tls for the store",
            ),
            AuthError::OnlyHash => self.cannot(
                login,
                "the server asks for more than mysql_native_password, and only that hash of the \
                 password is known; give the listener's user `upstream-password`",
            ),
            AuthError::Key => self.cannot(
                login,
                "the server sent no RSA key that the password could be encrypted with; set tls for \
                 the store",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::mysql::codec::ErrPacket;

    #[test]
    fn a_refused_login_of_the_stores_own_names_its_keys() {
        let own = |user: &str, password: &str, keys| OwnLogin {
            user: user.to_owned(),
            credential: Credential::Password(password.to_owned()),
            keys,
        };
        let endpoint = Endpoint {
            name: "my-1".to_owned(),
            address: breccia_core::address::Address::Unix("/run/s".into()),
            tls: UpstreamTls::Off,
            health: None,
            timeout: Duration::from_secs(1),
            own: vec![
                own("app", "a", ["user", "password"]),
                own("watch", "b", ["monitor-user", "monitor-password"]),
            ],
        };
        let check = |user: &str, password: &str, sqlstate: &[u8; 5], part: Option<&str>| {
            let login = Login {
                user: user.to_owned(),
                credential: Credential::Password(password.to_owned()),
                capabilities: 0,
                collation: 45,
                with_schema: false,
                read_only: false,
            };
            let mut packet = Vec::new();
            let error = ErrPacket {
                code: 1045,
                sqlstate: *sqlstate,
                message: b"Access denied for user",
            };
            error.write(&mut packet, capabilities::PROTOCOL_41);
            let SqlError::Refused { text, .. } = endpoint.refused(&login, &packet) else {
                panic!("a refusal");
            };
            let more = text
                .strip_prefix("Access denied for user")
                .expect("its word");
            match part {
                Some(part) => assert!(more.contains(part), "{more}"),
                None => assert_eq!(more, ""),
            }
        };
        check(
            "app",
            "a",
            b"28000",
            Some("that store.my-1 has there, and not the client's: mend its `user` and `password`"),
        );
        check(
            "watch",
            "b",
            b"28000",
            Some("mend its `monitor-user` and `monitor-password`, or that user on the server"),
        );
        // A client that is itself there, or its own upstream-user; and what is not about who it is.
        check("ann", "a", b"28000", None);
        check("app", "other", b"28000", None);
        check("app", "a", b"08004", None);
    }
}
