//! TLS in both directions, by rustls with the ring provider.
//!
//! Not a certificate manager: PEM files are read once, when the value is made. Invariant: nothing
//! here depends on a process-wide default, so a library user's own choice is left alone.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::error::NetError;
use crate::stream::Socket;

/// Where the system keeps its certificate authorities.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// TLS towards a store.
#[derive(Debug, Clone, Default)]
pub struct TlsClientOptions {
    /// Authorities that may sign the server's certificate; without it, the system's.
    pub ca: Option<PathBuf>,
    /// This end's certificate, with `key`.
    pub cert: Option<PathBuf>,
    /// The private key of `cert`.
    pub key: Option<PathBuf>,
    /// The name the server's certificate must hold, if not the host's.
    pub server_name: Option<String>,
    /// Take any certificate. The connection is encrypted, but to whom is not known.
    pub insecure: bool,
}

/// TLS towards clients.
#[derive(Debug, Clone)]
pub struct TlsServerOptions {
    /// The server's certificate chain.
    pub cert: PathBuf,
    /// The private key of `cert`.
    pub key: PathBuf,
    /// If set, every client must show a certificate signed by one of these authorities.
    pub client_ca: Option<PathBuf>,
}

/// Makes TLS connections to one server.
#[derive(Clone)]
pub struct TlsClient {
    connector: TlsConnector,
    name: ServerName<'static>,
    /// Whether the options name it: then it is the same for every server.
    is_given: bool,
}

impl std::fmt::Debug for TlsClient {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("TlsClient")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl TlsClient {
    /// Reads the files of `options`; `host` is the name the server is reached by.
    pub fn new(options: &TlsClientOptions, host: &str) -> Result<Self, NetError> {
        Self::build(options, host, false)
    }

    /// The same, but the server's certificate may hold any name: only who signed it counts.
    pub fn of_any_name(options: &TlsClientOptions, host: &str) -> Result<Self, NetError> {
        Self::build(options, host, true)
    }

    fn build(options: &TlsClientOptions, host: &str, any_name: bool) -> Result<Self, NetError> {
        let name = options.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.to_owned()).map_err(|_| NetError::ServerName {
            name: name.to_owned(),
        })?;
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|source| NetError::TlsSetup {
                option: "tls",
                source,
            })?;
        let builder = if options.insecure {
            let verifier = Arc::new(AnyCertificate { provider });
            builder
                .dangerous()
                .with_custom_certificate_verifier(verifier)
        } else {
            let path = options.ca.as_deref().unwrap_or(Path::new(SYSTEM_ROOTS));
            let roots = roots("tls.ca", path)?;
            if any_name {
                let verifier = AnyName::new(roots, provider)?;
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(verifier))
            } else {
                builder.with_root_certificates(roots)
            }
        };
        let config = match (&options.cert, &options.key) {
            (Some(cert), Some(key)) => builder
                .with_client_auth_cert(certificates("tls.cert", cert)?, private_key(key)?)
                .map_err(|source| unfit(cert, key, source))?,
            _ => builder.with_no_client_auth(),
        };
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            name,
            is_given: options.server_name.is_some(),
        })
    }

    /// The same for another server of those that the options are about.
    #[must_use]
    pub fn for_host(&self, host: &str) -> Self {
        let mut client = self.clone();
        if !self.is_given
            && let Ok(name) = ServerName::try_from(host.to_owned())
        {
            client.name = name;
        }
        client
    }

    /// Shakes hands over a fresh socket. Not bounded in time: the caller does that.
    pub async fn handshake(
        &self,
        socket: Socket,
    ) -> io::Result<tokio_rustls::client::TlsStream<Socket>> {
        self.connector.connect(self.name.clone(), socket).await
    }
}

/// Takes TLS connections of clients.
#[derive(Clone)]
pub struct TlsServer {
    acceptor: TlsAcceptor,
    certificate: Arc<[u8]>,
}

impl std::fmt::Debug for TlsServer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("TlsServer").finish_non_exhaustive()
    }
}

impl TlsServer {
    /// Reads the files of `options`.
    pub fn new(options: &TlsServerOptions) -> Result<Self, NetError> {
        Self::build(options, None)
    }

    /// The same, for clients that speak `protocol`, by its name in ALPN. One that names only others
    /// is refused; whether one has named any, its connection tells.
    pub fn of_protocol(options: &TlsServerOptions, protocol: &[u8]) -> Result<Self, NetError> {
        Self::build(options, Some(protocol))
    }

    fn build(options: &TlsServerOptions, protocol: Option<&[u8]>) -> Result<Self, NetError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|source| NetError::TlsSetup {
                option: "tls",
                source,
            })?;
        let builder = match &options.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(roots("tls.client-ca", path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                    .build()
                    .map_err(|source| NetError::TlsSetup {
                        option: "tls.client-ca",
                        source: rustls::Error::General(source.to_string()),
                    })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let chain = certificates("tls.cert", &options.cert)?;
        let certificate = chain.first().map_or(Vec::new(), |first| first.to_vec());
        let mut config = builder
            .with_single_cert(chain, private_key(&options.key)?)
            .map_err(|source| unfit(&options.cert, &options.key, source))?;
        config.alpn_protocols = protocol.into_iter().map(<[u8]>::to_vec).collect();
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            certificate: certificate.into(),
        })
    }

    /// The certificate this end shows, DER: what a channel can be bound to.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// Shakes hands over a fresh socket. Not bounded in time: the caller does that.
    pub async fn handshake(
        &self,
        socket: Socket,
    ) -> io::Result<tokio_rustls::server::TlsStream<Socket>> {
        self.acceptor.accept(socket).await
    }
}

fn certificates(
    option: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, NetError> {
    let fault = |what: String| NetError::Pem {
        option,
        path: path.to_owned(),
        what,
    };
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| fault(pem_reason(&error)))?;
    if certificates.is_empty() {
        return Err(fault(
            "holds no certificate (no BEGIN CERTIFICATE)".to_owned(),
        ));
    }
    Ok(certificates)
}

/// Why a certificate cannot be shown with a key.
fn unfit(cert: &Path, key: &Path, source: rustls::Error) -> NetError {
    let option = "tls.cert";
    match source {
        rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch) => NetError::Pem {
            option,
            path: cert.to_owned(),
            what: format!(
                "is no certificate of the key in {}; name two that belong together",
                key.display()
            ),
        },
        source => NetError::TlsSetup { option, source },
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, NetError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| NetError::Pem {
        option: "tls.key",
        path: path.to_owned(),
        what: match error {
            pem::Error::NoItemsFound => "holds no unencrypted private key".to_owned(),
            error => pem_reason(&error),
        },
    })
}

fn roots(option: &'static str, path: &Path) -> Result<RootCertStore, NetError> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates(option, path)?);
    if added == 0 {
        let what = "holds no certificate that can be used as an authority".to_owned();
        return Err(NetError::Pem {
            option,
            path: path.to_owned(),
            what,
        });
    }
    Ok(roots)
}

fn pem_reason(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => {
            format!("cannot be read ({})", crate::error::plain_reason(error))
        }
        error => format!("is not a PEM file ({error})"),
    }
}

/// Takes any certificate, but still checks that the peer holds its key.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Takes a certificate of any name that one of the authorities has signed.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl AnyName {
    fn new(roots: RootCertStore, provider: Arc<CryptoProvider>) -> Result<Self, NetError> {
        let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        built.map(Self).map_err(|source| NetError::TlsSetup {
            option: "tls.ca",
            source: rustls::Error::General(source.to_string()),
        })
    }
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found =
            self.0
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match found {
            // The name is looked at last: all else was found right.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            found => found,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Makes ring the process's provider, unless one was chosen: for libraries that insist on a default.
pub fn use_ring_unless_chosen() {
    if CryptoProvider::get_default().is_none() {
        // Losing the race to somebody else is as good.
        let _ = ring::default_provider().install_default();
    }
}

#[cfg(test)]
mod tests;
