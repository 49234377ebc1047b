//! How a connection logs in: the proof that a server asks for, and its word on it.
//!
//! Not the connection itself ([`super`]), nor the exchange of SCRAM ([`crate::postgres::scram`]). Invariant: a
//! password is shown in clear only where nobody between can read it.

use std::fmt::Write as _;

use breccia_core::address::Address;
use breccia_net::stream::Stream;

use super::{Credential, Endpoint, Login, Upstream, words};
use crate::error::{SqlError, login_of_the_store};
use crate::postgres::codec::{self, message};
use crate::postgres::scram::{self, Client, Secret};

/// A login that a store has in the file, for clients or for Breccia's own questions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnLogin {
    /// Who logs in.
    pub role: String,
    /// What it proves itself with.
    pub credential: Credential,
    /// The keys of the store that say both.
    pub keys: [&'static str; 2],
}

impl Endpoint {
    pub(super) async fn authenticate(
        &self,
        upstream: &mut Upstream,
        login: &Login,
    ) -> Result<(), SqlError> {
        loop {
            let frame = self.next(upstream).await?;
            let body = codec::body(&frame);
            match frame.first() {
                Some(b'R') => {}
                Some(b'E') => return Err(self.refused(login, body)),
                _ => continue,
            }
            let Some((code, rest)) = codec::int32(body) else {
                return Err(self.malformed('R'));
            };
            let mut answer = Vec::new();
            match (code, &login.credential) {
                (0, _) => return Ok(()),
                (3, Credential::Password(password)) if self.is_private(upstream) => {
                    let text = |out: &mut Vec<u8>| message::write_text(out, password.as_bytes());
                    message::frame(&mut answer, b'p', text);
                }
                (3, Credential::Password(_)) => {
                    return Err(self.cannot(
                        login,
                        "the server asks for the password in clear over a plain connection; \
                         use TLS or scram-sha-256 in its pg_hba.conf",
                    ));
                }
                (5, Credential::Password(password)) => {
                    let hash = md5_answer(&login.role, password, rest);
                    let text = |out: &mut Vec<u8>| message::write_text(out, hash.as_bytes());
                    message::frame(&mut answer, b'p', text);
                }
                (10, Credential::Password(_) | Credential::Keys(_)) => {
                    self.scram(upstream, login, rest).await?;
                    continue;
                }
                (3 | 5 | 10, Credential::None) => {
                    return Err(self.cannot(
                        login,
                        "the server asks for a password and none is known; give the store \
                         `user` and `password`, or the listener's user `upstream-password`",
                    ));
                }
                (3 | 5, Credential::Keys(_)) => {
                    return Err(self.cannot(
                        login,
                        "the server asks for the password itself, and the client's login showed \
                         only SCRAM keys; give the listener's user `upstream-password`",
                    ));
                }
                _ => {
                    return Err(self.cannot(
                        login,
                        "the server asks for a way of authentication that is not spoken here; \
                         use scram-sha-256 in its pg_hba.conf",
                    ));
                }
            }
            self.send(upstream, &answer).await?;
        }
    }

    async fn scram(
        &self,
        upstream: &mut Upstream,
        login: &Login,
        offered: &[u8],
    ) -> Result<(), SqlError> {
        let failed = |source| SqlError::Scram {
            server: self.name.clone(),
            source,
        };
        let channel = channel_of(&upstream.stream);
        let plus = offered
            .split(|byte| *byte == 0)
            .any(|name| name == scram::PLUS.as_bytes());
        let (client, mechanism, first) = Client::start(channel.as_deref(), plus).map_err(failed)?;
        let mut answer = Vec::new();
        message::frame(&mut answer, b'p', |out| {
            message::write_text(out, mechanism.as_bytes());
            let length = u32::try_from(first.len()).unwrap_or(u32::MAX);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(first.as_bytes());
        });
        self.send(upstream, &answer).await?;
        let challenge = self.sasl(upstream, login, 11).await?;
        let secret = match &login.credential {
            Credential::Password(password) => Secret::Password(password),
            Credential::Keys(keys) => Secret::Keys(keys),
            Credential::None => Secret::Password(""),
        };
        let (last, expected) = client.prove(&challenge, &secret).map_err(failed)?;
        answer.clear();
        message::frame(&mut answer, b'p', |out| {
            out.extend_from_slice(last.as_bytes());
        });
        self.send(upstream, &answer).await?;
        let end = self.sasl(upstream, login, 12).await?;
        if end == expected.as_bytes() {
            Ok(())
        } else {
            Err(failed(scram::ScramError::Server))
        }
    }

    async fn sasl(
        &self,
        upstream: &mut Upstream,
        login: &Login,
        expected: u32,
    ) -> Result<Vec<u8>, SqlError> {
        let frame = self.next(upstream).await?;
        let body = codec::body(&frame);
        match (frame.first(), codec::int32(body)) {
            (Some(b'R'), Some((code, rest))) if code == expected => Ok(rest.to_vec()),
            (Some(b'E'), _) => Err(self.refused(login, body)),
            _ => Err(self.malformed('R')),
        }
    }

    fn cannot(&self, login: &Login, what: &'static str) -> SqlError {
        SqlError::Login {
            server: self.name.clone(),
            role: login.role.clone(),
            what,
        }
    }

    /// The server's word on a login. Where it does not let the store's own role in, whoever reads that
    /// would look for the fault in the client's password.
    pub(super) fn refused(&self, login: &Login, body: &[u8]) -> SqlError {
        let (sqlstate, mut text) = words(body);
        if matches!(login.credential, Credential::Keys(_)) && sqlstate == "28P01" {
            text += "; only the keys of its SCRAM login are known here, and they open a server whose \
                     verifier of the role is the same: take scram-verifier from pg_authid, or add \
                     upstream-user and upstream-password";
        }
        let is_own = |own: &&OwnLogin| own.role == login.role && own.credential == login.credential;
        let own = self.own.iter().find(is_own);
        if let Some(own) = own.filter(|_| sqlstate.starts_with("28")) {
            text += &login_of_the_store(&self.name, own.keys, "role");
        }
        SqlError::Refused {
            server: self.name.clone(),
            role: login.role.clone(),
            sqlstate,
            errno: None,
            text,
        }
    }

    /// Whether nobody between can read what is sent.
    fn is_private(&self, upstream: &Upstream) -> bool {
        upstream.stream.is_tls() || matches!(self.address, Address::Unix(_))
    }
}

/// The channel's binding data, where there is TLS.
fn channel_of(stream: &Stream) -> Option<Vec<u8>> {
    let Stream::TlsClient(tls) = stream else {
        return None;
    };
    let certificates = tls.get_ref().1.peer_certificates()?;
    scram::end_point(certificates.first()?)
}

fn md5_answer(role: &str, password: &str, salt: &[u8]) -> String {
    let inner = md5_hex(&[password.as_bytes(), role.as_bytes()]);
    format!("md5{}", md5_hex(&[inner.as_bytes(), salt]))
}

/// MD5 in hexadecimal, as PostgreSQL's old authentication has it.
#[must_use]
pub fn md5_hex(parts: &[&[u8]]) -> String {
    let mut hash = <md5::Md5 as md5::Digest>::new();
    for part in parts {
        md5::Digest::update(&mut hash, part);
    }
    let mut text = String::new();
    for byte in md5::Digest::finalize(hash) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::postgres::upstream::UpstreamTls;

    #[test]
    fn a_refused_login_of_the_stores_own_names_its_keys() {
        let own = |role: &str, password: &str, keys| OwnLogin {
            role: role.to_owned(),
            credential: Credential::Password(password.to_owned()),
            keys,
        };
        let endpoint = Endpoint {
            name: "pg-1".to_owned(),
            address: Address::Unix("/run/s".into()),
            tls: UpstreamTls::Off,
            timeout: Duration::from_secs(1),
            own: vec![
                own("app", "a", ["user", "password"]),
                own("watch", "b", ["monitor-user", "monitor-password"]),
            ],
        };
        let check = |role: &str, password: &str, sqlstate: &str, part: Option<&str>| {
            let login = Login {
                role: role.to_owned(),
                database: "app".to_owned(),
                credential: Credential::Password(password.to_owned()),
                read_only: false,
            };
            let body = format!("C{sqlstate}\0Mpassword authentication failed\0\0");
            let SqlError::Refused { text, .. } = endpoint.refused(&login, body.as_bytes()) else {
                panic!("a refusal");
            };
            let more = text
                .strip_prefix("password authentication failed")
                .expect("its word");
            match part {
                Some(part) => assert!(more.contains(part), "{more}"),
                None => assert_eq!(more, ""),
            }
        };
        check(
            "app",
            "a",
            "28P01",
            Some("that store.pg-1 has there, and not the client's: mend its `user` and `password`"),
        );
        check(
            "watch",
            "b",
            "28000",
            Some("mend its `monitor-user` and `monitor-password`, or that role on the server"),
        );
        // A client that is itself there, or its own upstream-user; and what is not about who it is.
        check("ann", "a", "28P01", None);
        check("app", "other", "28P01", None);
        check("app", "a", "3D000", None);
    }
}
