//! The way from a start-up packet to a session: who the client is, what it is at.
//!
//! Not encryption ([`super::arrival`]), nor what a session does. Invariant: a stranger learns neither
//! who exists nor how the passwords are kept.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use breccia_net::clock;
use breccia_net::stream::Stream;

use super::arrival::arrive;
use super::client::Client;
use super::session::{Identity, Session};
use super::{AuthQuery, SqlListener, SqlUser, Worker};
use crate::error::SqlError;
use crate::guesses::LONGEST;
use crate::postgres::codec::message::{self, Severity};
use crate::postgres::codec::{self, CodecError};
use crate::postgres::scram::{self, ScramError, Verifier, end_point};
use crate::postgres::settings::{Settings, literal};
use crate::postgres::upstream::{Credential, md5_hex};

/// A client must be logged in within this time.
const LOGIN_LIMIT: Duration = Duration::from_secs(30);
/// A wrong password is answered after this long: who guesses, guesses slowly.
const GUESS_PAUSE: Duration = Duration::from_secs(1);
/// How long whoever is late may take to hear it.
const GOODBYE: Duration = Duration::from_secs(1);
/// The longest answer of a client to a request for authentication.
const MAX_PROOF_BYTES: usize = scram::MAX_MESSAGE_BYTES;

/// Why there is no session. The client was told, as far as it can be.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoginError {
    #[error("the connection was lost ({0})")]
    Lost(#[from] std::io::Error),
    #[error("the TLS handshake failed ({0})")]
    Handshake(std::io::Error),
    #[error("it sent what is no login: {0}")]
    Codec(#[from] CodecError),
    #[error("user {user:?}: {source}")]
    Scram { user: String, source: ScramError },
    #[error("user {0:?}: wrong password")]
    Password(String),
    #[error("{0}")]
    Upstream(#[from] SqlError),
    #[error("{0}")]
    Refused(&'static str),
    #[error("it took too long")]
    Late,
}

impl LoginError {
    /// Whether somebody was turned away, and did not just leave.
    pub(super) fn is_a_refusal(&self) -> bool {
        !matches!(self, Self::Lost(_))
    }

    /// Whether a password, or what stands for it, was tried and is wrong.
    fn is_a_guess(&self) -> bool {
        match self {
            Self::Password(_) => true,
            Self::Scram { source, .. } => !matches!(source, ScramError::Malformed),
            _ => false,
        }
    }
}

/// Logs a client in. `None`: it wanted no session, only to cancel something.
pub(super) async fn login(
    listener: &Arc<SqlListener>,
    stream: Stream,
    peer: &str,
    worker: &Worker,
) -> Result<Option<Session>, LoginError> {
    let end = clock::now() + LOGIN_LIMIT;
    let logging_in = Box::pin(login_patiently(listener, stream, peer, worker, end));
    // Whoever is late after its start-up packet is told so.
    match tokio::time::timeout_at((end + GOODBYE).into(), logging_in).await {
        Ok(done) => done,
        Err(_) => Err(LoginError::Late),
    }
}

async fn login_patiently(
    listener: &Arc<SqlListener>,
    stream: Stream,
    peer: &str,
    worker: &Worker,
    end: Instant,
) -> Result<Option<Session>, LoginError> {
    let arriving = arrive(listener, stream, Rc::clone(&worker.scratch), end);
    let arrived = tokio::time::timeout_at(end.into(), arriving).await;
    let Some(arrived) = arrived.map_err(|_| LoginError::Late)?? else {
        return Ok(None);
    };
    let (mut client, minor, parameters) = (arrived.client, arrived.minor, arrived.parameters);
    negotiate(&mut client, minor, &parameters);
    let identifying = identify(listener, &mut client, peer, &parameters, end);
    let identified = tokio::time::timeout_at(end.into(), identifying).await;
    let identity = match identified.unwrap_or(Err(LoginError::Late)) {
        Ok(identity) => identity,
        Err(error) => {
            listener.counters.logins_refused.increment();
            if let LoginError::Late = error {
                late(&mut client, end).await;
            }
            return Err(error);
        }
    };
    let Some(settings) = Settings::of_startup(&parameters) else {
        let why = "the start-up parameter `options` may hold only -c name=value";
        fatal(&mut client, "08P01", why, "", end).await;
        return Err(LoginError::Refused(why));
    };
    begin(listener, worker, client, identity, settings, end).await
}

/// Brings the session to its start: tells its parameters, as a server has them.
async fn begin(
    listener: &Arc<SqlListener>,
    worker: &Worker,
    client: Client,
    identity: Identity,
    settings: Settings,
    end: Instant,
) -> Result<Option<Session>, LoginError> {
    let Some(registered) = listener.cancels.register() else {
        return Err(LoginError::Refused("no random bytes"));
    };
    let key = registered.key;
    let rung = worker.hang(listener);
    let mut session = Session::new(listener, client, identity, settings, registered, rung);
    let Ok(greeted) = tokio::time::timeout_at(end.into(), session.greet()).await else {
        late(&mut session.client, end).await;
        return Err(LoginError::Late);
    };
    match greeted {
        Ok(parameters) => {
            let out = &mut session.client.out.bytes;
            for (name, value) in &parameters {
                message::parameter_status(out, name, value);
            }
            message::backend_key(out, key.0, key.1);
            message::ready(out, message::Status::Idle);
            session.client.send(end).await?;
            Ok(Some(session))
        }
        Err(error) => {
            let (state, text) = (error.sqlstate().to_owned(), error.to_string());
            fatal(&mut session.client, &state, &text, "", end).await;
            Err(error.into())
        }
    }
}

async fn late(client: &mut Client, end: Instant) {
    let why = "canceling authentication due to timeout";
    fatal(client, "57014", why, "", end + GOODBYE).await;
}

fn negotiate(client: &mut Client, minor: u16, parameters: &[(String, String)]) {
    let unknown: Vec<&str> = parameters
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(|name| name.starts_with("_pq_."))
        .collect();
    if minor > 0 || !unknown.is_empty() {
        message::negotiate(&mut client.out.bytes, &unknown);
    }
}

async fn identify(
    listener: &SqlListener,
    client: &mut Client,
    peer: &str,
    parameters: &[(String, String)],
    end: Instant,
) -> Result<Identity, LoginError> {
    let of = |wanted: &str| {
        let found = parameters.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.clone())
    };
    let Some(user) = of("user").filter(|user| !user.is_empty()) else {
        let why = "no user name in the start-up packet";
        fatal(client, "28000", why, "", end).await;
        return Err(LoginError::Refused(why));
    };
    let replication = of("replication").unwrap_or_default();
    if !matches!(replication.as_str(), "" | "false" | "off" | "no" | "0") {
        let why = "replication connections do not pass through Breccia";
        fatal(client, "0A000", why, "Connect to the server itself.", end).await;
        return Err(LoginError::Refused(why));
    }
    let database = of("database").unwrap_or_else(|| user.clone());
    let listed = listener.users.as_ref().and_then(|users| users.get(&user));
    let asked = match (listed, &listener.auth_query) {
        (None, Some(query)) => match ask_for(listener, &user, query).await {
            Ok(found) => found,
            Err(error) => {
                let why = "who may log in cannot be asked now";
                fatal(client, "57P03", why, "", end).await;
                return Err(error);
            }
        },
        _ => None,
    };
    let known = listed.or(asked.as_ref());
    let open = listener.users.is_none() && listener.auth_query.is_none();
    let credential = if open {
        Credential::None
    } else {
        prove_patiently(listener, client, peer, (&user, known), end).await?
    };
    message::authentication(&mut client.out.bytes, 0, &[]);
    let mut upstream = known.and_then(|known| known.upstream.clone());
    if asked.is_some() {
        // Its verifier is the server's own, so what its login has shown opens the server too: it
        // comes in as itself, and not as the role that may read verifiers.
        upstream = Some((user.clone(), credential.clone()));
    }
    Ok(Identity {
        user,
        database,
        credential,
        upstream,
    })
}

/// Asks the primary for the verifier of a user.
async fn ask_for(
    listener: &SqlListener,
    user: &str,
    query: &AuthQuery,
) -> Result<Option<SqlUser>, LoginError> {
    let missing = || LoginError::Refused("auth-query cannot be asked: there is no primary");
    let primary = listener.cluster.view().primary.clone();
    let number = primary.map_err(|_| missing())?;
    let server = listener.cluster.server(number).ok_or_else(missing)?;
    let endpoint = &server.options.endpoint;
    let sql = query.sql.replace("$1", &literal(user));
    let mut connection = query.connection.lock().await;
    // One that was lost meanwhile is made anew, once.
    let kept = connection.take().filter(|(of, _)| *of == number);
    let rows = match kept {
        Some((_, mut upstream)) => {
            let rows = endpoint.ask(&mut upstream, &sql).await;
            rows.map(|rows| (rows, upstream)).ok()
        }
        None => None,
    };
    let (rows, upstream) = if let Some(answer) = rows {
        answer
    } else {
        let login = server.own_login(None).ok_or_else(missing)?;
        let mut upstream = endpoint.open(&login).await?;
        (endpoint.ask(&mut upstream, &sql).await?, upstream)
    };
    *connection = Some((number, upstream));
    let verifier = rows
        .first()
        .and_then(|row| Verifier::read(row.get(1)?.as_deref()?));
    Ok(verifier.map(|verifier| SqlUser {
        verifier,
        password: None,
        upstream: None,
    }))
}

/// Lets a client prove that it is a user, unless it has guessed too often; what it may log in with
/// upstream.
async fn prove_patiently(
    listener: &SqlListener,
    client: &mut Client,
    peer: &str,
    (user, known): (&str, Option<&SqlUser>),
    end: Instant,
) -> Result<Credential, LoginError> {
    let who = listener.guesses.who(user, peer);
    let Some(wait) = listener.guesses.wait(who, clock::now(), LONGEST) else {
        let why = "too many logins of this user have failed from this address";
        fatal(client, "53300", why, "Try again in some seconds.", end).await;
        return Err(LoginError::Refused(why));
    };
    tokio::time::sleep(wait).await;
    let proved = prove(listener, client, user, known, end).await;
    match &proved {
        Ok(_) => listener.guesses.passed(who),
        Err(error) if error.is_a_guess() => listener.guesses.failed(who, clock::now()),
        Err(_) => {}
    }
    match proved {
        Err(error) => Err(turn_away(client, user, error, end).await),
        proved => proved,
    }
}

/// Lets a client prove that it is `user`; what it may log in with upstream.
async fn prove(
    listener: &SqlListener,
    client: &mut Client,
    user: &str,
    known: Option<&SqlUser>,
    end: Instant,
) -> Result<Credential, LoginError> {
    let password = known.and_then(|known| known.password.as_deref());
    let keys = if listener.allow_md5 && uses_md5(listener, user, known) {
        md5(client, user, password, end).await?
    } else {
        sasl(listener, client, user, known, end).await?
    };
    Ok(match password {
        Some(password) => Credential::Password(password.to_owned()),
        None => keys,
    })
}

/// Whether a user proves itself with MD5: who has a password here. Of those who do not exist some do,
/// the same ones every time, where both kinds are: nobody can tell by it who exists.
fn uses_md5(listener: &SqlListener, user: &str, known: Option<&SqlUser>) -> bool {
    if let Some(known) = known {
        return known.password.is_some();
    }
    let users = listener.users.iter().flat_map(|users| users.values());
    let (mut by_md5, mut by_scram) = (false, listener.auth_query.is_some());
    for user in users {
        by_md5 |= user.password.is_some();
        by_scram |= user.password.is_none();
    }
    by_md5 && (!by_scram || scram::is_drawn(user, &listener.secret))
}

/// Tells a client that has proved nothing, as far as it may know why.
async fn turn_away(client: &mut Client, user: &str, error: LoginError, end: Instant) -> LoginError {
    let text = match &error {
        LoginError::Lost(_) => return error,
        LoginError::Scram {
            source: ScramError::Binding,
            ..
        } => "SCRAM channel binding check failed".to_owned(),
        LoginError::Codec(_)
        | LoginError::Scram {
            source: ScramError::Malformed,
            ..
        } => {
            fatal(client, "08P01", "malformed authentication message", "", end).await;
            return error;
        }
        _ => format!("password authentication failed for user \"{user}\""),
    };
    tokio::time::sleep(GUESS_PAUSE).await;
    fatal(client, "28P01", &text, "", end).await;
    error
}

async fn sasl(
    listener: &SqlListener,
    client: &mut Client,
    user: &str,
    known: Option<&SqlUser>,
    end: Instant,
) -> Result<Credential, LoginError> {
    let failed = |source| LoginError::Scram {
        user: user.to_owned(),
        source,
    };
    let tls = listener.tls.as_ref().filter(|_| client.stream.is_tls());
    let channel = tls.and_then(|tls| end_point(tls.certificate()));
    let mechanisms: &[&str] = match &channel {
        Some(_) => &[scram::PLUS, scram::PLAIN],
        None => &[scram::PLAIN],
    };
    message::authentication_sasl(&mut client.out.bytes, mechanisms);
    client.send(end).await?;
    let answer = proof(client).await?;
    let read = || {
        let (mechanism, rest) = codec::text(&answer)?;
        let (length, first) = codec::int32(rest)?;
        (first.len() == length as usize).then_some((mechanism, first))
    };
    let (mechanism, first) = read().ok_or_else(|| failed(ScramError::Malformed))?;
    let plus = mechanism == scram::PLUS.as_bytes();
    if !plus && mechanism != scram::PLAIN.as_bytes() {
        return Err(failed(ScramError::Malformed));
    }
    let verifier = match known {
        Some(known) => known.verifier.clone(),
        None => Verifier::of_nobody(user, &listener.secret),
    };
    let started = scram::Server::start(verifier, first, channel.as_deref(), plus);
    let (server, challenge) = started.map_err(failed)?;
    message::authentication(&mut client.out.bytes, 11, challenge.as_bytes());
    client.send(end).await?;
    let last = proof(client).await?;
    let proved = server.finish(&last).map_err(failed)?;
    message::authentication(&mut client.out.bytes, 12, proved.message.as_bytes());
    Ok(Credential::Keys(proved.keys))
}

async fn md5(
    client: &mut Client,
    user: &str,
    password: Option<&str>,
    end: Instant,
) -> Result<Credential, LoginError> {
    let salt = clock::seed().to_be_bytes();
    let salt = salt.get(..4).unwrap_or_default();
    message::authentication(&mut client.out.bytes, 5, salt);
    client.send(end).await?;
    let answer = proof(client).await?;
    let inner = md5_hex(&[password.unwrap_or_default().as_bytes(), user.as_bytes()]);
    let expected = format!("md5{}\0", md5_hex(&[inner.as_bytes(), salt]));
    match password {
        Some(password) if answer == expected.as_bytes() => {
            Ok(Credential::Password(password.to_owned()))
        }
        _ => Err(LoginError::Password(user.to_owned())),
    }
}

/// The body of the client's next answer.
async fn proof(client: &mut Client) -> Result<Vec<u8>, LoginError> {
    loop {
        if let Some(head) = codec::head(&client.inbound)? {
            if head.tag != b'p' || head.length > MAX_PROOF_BYTES {
                return Err(CodecError::Malformed { tag: 'p' }.into());
            }
            if client.inbound.len() >= head.length {
                let frame = client.inbound.split_to(head.length);
                return Ok(codec::body(&frame).to_vec());
            }
        }
        if client.read().await? == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
    }
}

/// Tells the client why it ends here, as far as it still listens.
pub(super) async fn fatal(client: &mut Client, state: &str, text: &str, hint: &str, end: Instant) {
    message::error(&mut client.out.bytes, Severity::Fatal, state, text, hint);
    let _ = client.send(end).await;
}
