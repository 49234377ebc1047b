//! Ends of TLS connections, as the tests of TLS want them: psql, and frames sent by hand.
//!
//! Not a place for tests. Invariant: nothing here trusts a certificate unless a test says so.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use breccia_testkit::Certificates;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// How long a read waits before it is an error.
const PATIENCE: Duration = Duration::from_secs(20);

/// The first packet of a client that asks for TLS.
pub(crate) const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// The one of a client that asks for GSSAPI.
pub(crate) const GSS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];

/// A listener's `tls` key.
pub(crate) fn listener_tls(files: &Certificates, clients: Option<&Certificates>) -> String {
    let client_ca = clients.map(|clients| format!(", client-ca = '{}'", clients.ca.display()));
    format!(
        "tls = {{ cert = '{}', key = '{}'{} }}",
        files.server_cert.display(),
        files.server_key.display(),
        client_ca.unwrap_or_default()
    )
}

/// Runs one statement by `psql`: all that it prints; `Err` if it fails, in the same words.
pub(crate) fn psql(
    port: u16,
    (user, password): (&str, &str),
    options: &str,
    sql: &str,
) -> Result<String, String> {
    let options = if options.contains("host=") {
        options.to_owned()
    } else {
        format!("host=127.0.0.1 {options}")
    };
    let target = format!("port={port} user={user} dbname=postgres connect_timeout=20 {options}");
    let output = Command::new("psql")
        .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
        .args(["-d", &target, "-c", sql])
        .env("PGPASSWORD", password)
        .output()
        .expect("psql, of the package postgresql-client");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    if output.status.success() {
        Ok(text)
    } else {
        Err(text)
    }
}

/// A client under TLS that says what it is told.
pub(crate) struct TlsClient(StreamOwned<ClientConnection, TcpStream>);

/// Something that bytes go to and come from.
pub(crate) trait Wire: Read + Write {
    /// The next frame: its type and its body.
    fn frame(&mut self) -> Result<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.read_exact(&mut head).context("read")?;
        let [kind, length @ ..] = head;
        let length = usize::try_from(u32::from_be_bytes(length))?;
        let mut body = vec![0; length.checked_sub(4).context("a short frame")?];
        self.read_exact(&mut body).context("read")?;
        Ok((kind, body))
    }

    /// The SQLSTATE and the words of the error that must come next.
    fn refusal(&mut self) -> Result<String> {
        let (kind, body) = self.frame()?;
        ensure!(kind == b'E', "{} instead of an error", char::from(kind));
        let text = String::from_utf8_lossy(&body);
        ensure!(text.starts_with("SFATAL\0"), "{text}");
        Ok(text.replace('\0', " "))
    }

    /// Whether nothing follows but the end.
    fn has_ended(&mut self) -> bool {
        // An end without a word is one too.
        !matches!(self.read(&mut [0]), Ok(1..))
    }

    /// The first packet of a session.
    fn begin(&mut self, user: &str) -> Result<()> {
        let body = format!("user\0{user}\0database\0postgres\0\0");
        let length = u32::try_from(body.len() + 8)?;
        let packet = [&length.to_be_bytes()[..], &[0, 3, 0, 0], body.as_bytes()].concat();
        Ok(self.write_all(&packet)?)
    }

    /// Reads up to the next `ReadyForQuery`; the first column of each row.
    fn answer(&mut self) -> Result<Vec<String>> {
        let mut rows = Vec::new();
        loop {
            match self.frame()? {
                (b'Z', _) => return Ok(rows),
                (b'E', body) => bail!("{}", String::from_utf8_lossy(&body).replace('\0', " ")),
                (b'D', body) => {
                    let value = body.get(6..).context("a short row")?;
                    rows.push(String::from_utf8_lossy(value).into_owned());
                }
                _ => {}
            }
        }
    }

    /// A simple query; the first column of each row.
    fn ask(&mut self, sql: &str) -> Result<Vec<String>> {
        let length = u32::try_from(sql.len() + 5)?;
        let packet = [b"Q", &length.to_be_bytes()[..], sql.as_bytes(), &[0]].concat();
        self.write_all(&packet)?;
        self.answer()
    }
}

impl Wire for TcpStream {}
impl Wire for StreamOwned<ClientConnection, TcpStream> {}

/// A plain connection to a port of 127.0.0.1.
pub(crate) fn plain(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

impl TlsClient {
    /// Asks for TLS as clients do, and shakes hands.
    pub(crate) fn asked(port: u16, files: &Certificates) -> Result<TlsClient> {
        let mut stream = plain(port)?;
        stream.write_all(&SSL_REQUEST)?;
        let mut answer = [0];
        stream.read_exact(&mut answer)?;
        ensure!(answer == *b"S", "{answer:?}");
        TlsClient::shake(stream, files, &[])
    }

    /// Shakes hands at once, naming these protocols.
    pub(crate) fn direct(port: u16, files: &Certificates, protocols: &[&str]) -> Result<TlsClient> {
        TlsClient::shake(plain(port)?, files, protocols)
    }

    fn shake(mut stream: TcpStream, files: &Certificates, protocols: &[&str]) -> Result<TlsClient> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&files.ca)?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        let name = ServerName::try_from("localhost")?;
        let mut tls = ClientConnection::new(Arc::new(config), name)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        Ok(TlsClient(StreamOwned::new(tls, stream)))
    }

    /// The protocol that was agreed on.
    pub(crate) fn protocol(&self) -> Option<&[u8]> {
        self.0.conn.alpn_protocol()
    }

    /// The certificate that the listener has shown.
    pub(crate) fn certificate(&self) -> Result<Vec<u8>> {
        let shown = self
            .0
            .conn
            .peer_certificates()
            .and_then(|chain| chain.first());
        Ok(shown.context("no certificate")?.to_vec())
    }

    /// Its bytes.
    pub(crate) fn wire(&mut self) -> &mut impl Wire {
        &mut self.0
    }
}
