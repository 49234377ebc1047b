//! From the first byte of a connection to its start-up packet: whether it is encrypted, and how.
//!
//! Not who the client is ([`super::login`]). Invariant: nothing a client sent before its TLS
//! handshake is believed after it, and where the listener has TLS no session begins without it.

use std::io;
use std::time::{Duration, Instant};

use breccia_net::stream::{Socket, Stream, close_gently};
use breccia_net::tls::TlsServer;
use bytes::Buf;

use super::SqlListener;
use super::client::{Client, Scratch};
use super::login::{LoginError, fatal};
use crate::postgres::codec::CodecError;
use crate::postgres::codec::startup::{Startup, startup};

/// What PostgreSQL's protocol is called in ALPN.
pub const ALPN: &[u8] = b"postgresql";

/// The first byte of a TLS handshake. No start-up packet begins with it: that would be too long.
const HANDSHAKE: u8 = 0x16;
/// How long one that was refused may take to leave.
const GOODBYE: Duration = Duration::from_secs(1);

/// A client that wants a session.
pub(super) struct Arrived {
    pub(super) client: Client,
    /// The minor version of the protocol it would like.
    pub(super) minor: u16,
    /// What its start-up packet says.
    pub(super) parameters: Vec<(String, String)>,
}

/// Reads up to the start-up packet. `None`: the client only wanted to cancel something.
pub(super) async fn arrive(
    listener: &SqlListener,
    stream: Stream,
    scratch: Scratch,
    end: Instant,
) -> Result<Option<Arrived>, LoginError> {
    let mut client = Client::new(stream, scratch);
    if begins_with_tls(&client).await? {
        client = shake_directly(listener, client, end).await?;
    }
    let (mut asked_ssl, mut asked_gss) = (false, false);
    loop {
        let (asked, tls) = match first(listener, &mut client, end).await? {
            // As with PostgreSQL, in clear too: libraries before its version 17 know no other way,
            // and what is told is of use once.
            Startup::Cancel { process, secret } => {
                listener.cancels.cancel(process, &secret).await;
                return Ok(None);
            }
            Startup::Session { minor, parameters } => {
                if listener.tls.is_some() && !client.stream.is_tls() {
                    let why = "this listener takes no connection without TLS";
                    let hint = "Connect with sslmode=require, or one that is stronger.";
                    return Err(refuse(listener, client, ("28000", why, hint), end).await);
                }
                return Ok(Some(Arrived {
                    client,
                    minor,
                    parameters,
                }));
            }
            Startup::Ssl => (&mut asked_ssl, listener.tls.as_ref()),
            Startup::Gss => (&mut asked_gss, None),
        };
        if client.stream.is_tls() || std::mem::replace(asked, true) {
            let why = "encryption is asked for once, and not inside TLS";
            return Err(refuse(listener, client, ("08P01", why, ""), end).await);
        }
        if let Some(tls) = tls {
            client = shake_as_asked(listener, tls, client, end).await?;
        } else {
            client.out.bytes.push(b'N');
            client.send(end).await?;
        }
    }
}

/// Whether the client begins its TLS handshake without a word. Nothing is taken from the socket: a
/// handshake finds all of it. As with PostgreSQL, not over Unix sockets.
async fn begins_with_tls(client: &Client) -> Result<bool, LoginError> {
    let Stream::Tcp(tcp) = &client.stream else {
        return Ok(false);
    };
    let mut byte = [0];
    match tcp.peek(&mut byte).await? {
        0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        _ => Ok(byte == [HANDSHAKE]),
    }
}

/// TLS from the first byte on. The client must name the protocol: one that speaks another, such as a
/// browser that was led here, is turned away before it has said anything.
async fn shake_directly(
    listener: &SqlListener,
    client: Client,
    end: Instant,
) -> Result<Client, LoginError> {
    let Some(tls) = &listener.tls else {
        // Nothing in clear would be understood.
        let why = "it begins with TLS, and the listener has none";
        listener.counters.handshakes_refused.increment();
        return Err(LoginError::Refused(why));
    };
    let (client, named) = shake(listener, tls, client).await?;
    if named {
        Ok(client)
    } else {
        let why = "TLS from the first byte on needs ALPN: the client must offer \"postgresql\"";
        Err(refuse(listener, client, ("08P01", why, ""), end).await)
    }
}

/// TLS after the client has asked for it.
async fn shake_as_asked(
    listener: &SqlListener,
    tls: &TlsServer,
    mut client: Client,
    end: Instant,
) -> Result<Client, LoginError> {
    if !client.inbound.is_empty() {
        let why = "bytes came before the TLS handshake; somebody may have put them there";
        return Err(refuse(listener, client, ("08P01", why, ""), end).await);
    }
    client.out.bytes.push(b'S');
    client.send(end).await?;
    Ok(shake(listener, tls, client).await?.0)
}

/// Shakes hands; the client as it is inside, and whether it has named the protocol.
async fn shake(
    listener: &SqlListener,
    tls: &TlsServer,
    client: Client,
) -> Result<(Client, bool), LoginError> {
    let socket = match client.stream {
        Stream::Tcp(tcp) => Socket::Tcp(tcp),
        Stream::Unix(unix) => Socket::Unix(unix),
        _ => return Err(LoginError::Refused("TLS inside TLS")),
    };
    let shaken = tls.handshake(socket).await.map_err(|error| {
        listener.counters.handshakes_refused.increment();
        LoginError::Handshake(error)
    })?;
    let named = shaken.get_ref().1.alpn_protocol() == Some(ALPN);
    let client = Client::new(Stream::TlsServer(Box::new(shaken)), client.scratch);
    Ok((client, named))
}

/// The first packet, or the one after an answer about encryption.
async fn first(
    listener: &SqlListener,
    client: &mut Client,
    end: Instant,
) -> Result<Startup, LoginError> {
    loop {
        match startup(&client.inbound) {
            Ok(Some((startup, length))) => {
                client.inbound.advance(length);
                return Ok(startup);
            }
            Ok(None) => {}
            Err(error) => {
                let state = match error {
                    CodecError::Version { .. } => "0A000",
                    _ => "08P01",
                };
                listener.counters.logins_refused.increment();
                fatal(client, state, &error.to_string(), "", end).await;
                return Err(error.into());
            }
        }
        if client.read().await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

/// Tells a client why it is turned away: SQLSTATE, words, what to do. What it may have sent since
/// is read, so that the words reach it.
async fn refuse(
    listener: &SqlListener,
    mut client: Client,
    (state, why, hint): (&str, &'static str, &str),
    end: Instant,
) -> LoginError {
    listener.counters.logins_refused.increment();
    fatal(&mut client, state, why, hint, end).await;
    close_gently(&mut client.stream, GOODBYE).await;
    LoginError::Refused(why)
}
