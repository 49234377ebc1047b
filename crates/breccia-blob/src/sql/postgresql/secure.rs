//! TLS towards PostgreSQL: breccia-net's, as tokio-postgres wants it.
//!
//! Not channel binding: SCRAM runs without it. Invariant: no certificate is taken unchecked in a mode
//! that verifies.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use breccia_core::address::Address;
use breccia_net::stream::{Socket, Stream};
use breccia_net::tls::{TlsClient, TlsClientOptions};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{self, TlsConnect, TlsStream};

use crate::error::BlobError;
use crate::sql::options::{ServerOptions, SqlOptions, SqlTlsMode};

/// What makes TLS connections; `None`: nothing is to.
pub(super) fn tls_client(
    options: &SqlOptions,
    server: &ServerOptions,
) -> Result<Option<TlsClient>, BlobError> {
    let mode = server.tls.mode;
    let Address::Tcp { host, .. } = &server.address else {
        return Ok(None);
    };
    if mode == SqlTlsMode::Disable {
        return Ok(None);
    }
    let client = client_options(server);
    let built = if mode == SqlTlsMode::VerifyCa {
        TlsClient::of_any_name(&client, host)
    } else {
        TlsClient::new(&client, host)
    };
    built
        .map(Some)
        .map_err(|error| options.fault(error.to_string()))
}

/// The options of TLS as breccia-net has them.
pub(in crate::sql) fn client_options(server: &ServerOptions) -> TlsClientOptions {
    let tls = &server.tls;
    TlsClientOptions {
        ca: tls.ca.clone(),
        cert: tls.cert.clone(),
        key: tls.key.clone(),
        server_name: tls.server_name.clone(),
        insecure: !tls.mode.verifies(),
    }
}

/// Gives tokio-postgres the TLS of breccia-net.
pub(super) struct Tls(pub(super) Option<TlsClient>);

impl TlsConnect<Socket> for Tls {
    type Stream = Secure;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Secure>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            let client = self.0.ok_or_else(|| io::Error::other("TLS is off"))?;
            let stream = client.handshake(socket).await?;
            Ok(Secure(Stream::TlsClient(Box::new(stream))))
        })
    }
}

/// A connection under TLS.
pub(super) struct Secure(Stream);

impl TlsStream for Secure {
    fn channel_binding(&self) -> tls::ChannelBinding {
        tls::ChannelBinding::none()
    }
}

impl AsyncRead for Secure {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Secure {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
